//! Whole files in and out, every error with its path.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    let (temporary, mut file) = create_temporary(path).map_err(ModelError::io(path))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| rename_synced(&temporary, path));
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
fn sync_file(path: &Path) -> std::io::Result<()> {
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
pub(crate) fn sync_names(folder: &Path) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A new file `.NAME.PROCESS.NUMBER.tmp` beside `path`. Two processes, or two threads, may save to one folder, and a
/// file of a process that died may bear the number of one that lives: a name that is taken is passed over.
pub(crate) fn create_temporary(path: &Path) -> std::io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
        match File::create_new(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(source),
        }
    }
}

/// Removes the temporary files of saves that died: those that nobody has written to for [`LEFTOVER_AGE`].
pub(crate) fn remove_leftovers(folder: &Path) -> Result<(), ModelError> {
    for entry in fs::read_dir(folder).map_err(ModelError::io(folder))?.filter_map(Result::ok) {
        let age = entry.metadata().and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
        if is_temporary(&entry.file_name().to_string_lossy()) && age.is_some_and(|age| age > LEFTOVER_AGE) {
            fs::remove_file(entry.path()).map_err(ModelError::io(entry.path()))?;
        }
    }
    Ok(())
}

/// A save that is still going on writes its files faster than this.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// Whether [`create_temporary`] makes such names.
fn is_temporary(name: &str) -> bool {
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u64>().is_ok());
    let Some(parts) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")) else {
        return false;
    };
    let mut parts = parts.rsplit('.');
    is_number(parts.next()) && is_number(parts.next()) && parts.next().is_some()
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

    #[test]
    fn a_temporary_name_that_is_taken_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (first, _) = create_temporary(&path).unwrap();
        let taken = first.file_name().unwrap().to_string_lossy().into_owned();
        let number: u64 = taken.trim_end_matches(".tmp").rsplit('.').next().unwrap().parse().unwrap();
        for next in number + 1..number + 50 {
            let name = format!(".a.{}.{next}.tmp", std::process::id());
            fs::write(folder.path().join(name), "left by another process of this number").unwrap();
        }
        write_atomic(&path, b"one").unwrap();
        assert_eq!(read_if_present(&path).unwrap().as_deref(), Some(&b"one"[..]));
    }

    #[test]
    fn only_old_temporary_files_are_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let names = [".a.json.12.0.tmp", ".b.12.1.tmp", ".c.tmp", ".d.x.1.tmp", "e.12.0.tmp", ".f.12.0"];
        for (index, name) in names.into_iter().enumerate() {
            let file = File::create(folder.path().join(name)).unwrap();
            let age = if index == 1 { LEFTOVER_AGE / 2 } else { LEFTOVER_AGE * 2 };
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        remove_leftovers(folder.path()).unwrap();
        let left: Vec<bool> = names.iter().map(|name| folder.path().join(name).exists()).collect();
        assert_eq!(left, [false, true, true, true, true, true]);
    }
}
