//! Whole files in and out, every error with its path.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ModelError;

/// Bytes of `path`, or `None` when there is no such file.
///
/// # Errors
/// [`ModelError::Io`].
pub fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, ModelError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Io { path: path.to_path_buf(), source }),
    }
}

/// Writes `bytes` under a temporary name beside `path`, then renames: a reader sees the old file or the new
/// one, never half of it, also after a power cut. Creates the folder when needed.
///
/// # Errors
/// [`ModelError::Io`]; what stood at `path` before is untouched then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    }
    let temporary = temporary_name(path);
    let written = write_synced(&temporary, bytes).and_then(|()| rename_synced(&temporary, path));
    if written.is_err() {
        // The write error is the one to report; a temporary file that cannot be removed changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(ModelError::io(path))
}

/// Brings a folder and the files in it to the disk.
///
/// # Errors
/// [`ModelError::Io`] with the file or folder.
pub fn sync_folder(folder: &Path) -> Result<(), ModelError> {
    for entry in fs::read_dir(folder).map_err(ModelError::io(folder))? {
        let path = entry.map_err(ModelError::io(folder))?.path();
        if path.is_file() {
            sync_file(&path).map_err(ModelError::io(&path))?;
        }
    }
    sync_names(folder).map_err(ModelError::io(folder))
}

/// Brings a file's bytes to the disk.
pub(crate) fn sync_file(path: &Path) -> std::io::Result<()> {
    // Windows flushes only what is open for writing.
    File::options().write(true).open(path)?.sync_all()
}

/// Renames a file or folder whose bytes are on the disk, and brings the new name there too.
///
/// # Errors
/// What the system says.
pub fn rename_synced(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    sync_names(to.parent().unwrap_or(Path::new(".")))
}

/// Brings the names in a folder to the disk; Windows does so by itself, and opens no folder.
fn sync_names(folder: &Path) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Unique within the machine: two processes, or two threads, may save to one folder.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_replaces_the_file_and_leaves_nothing_else_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read_if_present(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write_atomic(&path, b"one").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_is_none_and_a_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_if_present(&folder.path().join("none")).unwrap().is_none());
        assert!(read_if_present(folder.path()).is_err());
    }
}
