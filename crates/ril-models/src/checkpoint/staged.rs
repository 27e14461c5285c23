//! A folder that is replaced as a whole, or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::ModelError;
use crate::files::{create_temporary, remove_leftovers, sync_names};

/// The files of one save, under temporary names until all of them are written.
///
/// Dropped before [`Self::commit`], it removes what it wrote: the folder is as it was.
#[derive(Debug)]
pub(crate) struct StagedFolder {
    folder: PathBuf,
    /// Temporary and final name, in the order in which they will be renamed.
    files: Vec<(PathBuf, PathBuf)>,
}

impl StagedFolder {
    /// Creates the folder when needed, and removes what a save that died has left in it.
    pub fn new(folder: &Path) -> Result<Self, ModelError> {
        fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        remove_leftovers(folder)?;
        Ok(Self { folder: folder.to_path_buf(), files: Vec::new() })
    }

    /// Writes one file and waits until it is on the disk.
    pub fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<(), ModelError> {
        let path = self.folder.join(name);
        if path.is_dir() {
            // Found now, since renaming starts by taking the old checkpoint away.
            return Err(ModelError::io(&path)(std::io::ErrorKind::IsADirectory.into()));
        }
        let (temporary, file) = create_temporary(&path).map_err(ModelError::io(&path))?;
        self.files.push((temporary, path.clone()));
        let mut file = BufWriter::with_capacity(1 << 20, file);
        content(&mut file)
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all())
            .map_err(ModelError::io(&path))
    }

    /// Puts all files in place. `marks` are the files without which the folder is no checkpoint: the old ones are
    /// removed first and the new one, which must have been written last, is renamed last. So a folder in which this
    /// was cut short has none of them, and does not load. `stale` names what else the new checkpoint must not find.
    pub fn commit(mut self, marks: &[&str], stale: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        for mark in marks {
            remove(&self.folder.join(mark))?;
        }
        sync_names(&self.folder).map_err(ModelError::io(&self.folder))?;
        for (index, (temporary, path)) in self.files.iter().enumerate() {
            if index + 1 == self.files.len() {
                self.remove_stale(&stale)?;
                sync_names(&self.folder).map_err(ModelError::io(&self.folder))?;
            }
            fs::rename(temporary, path).map_err(ModelError::io(path))?;
        }
        self.files.clear();
        sync_names(&self.folder).map_err(ModelError::io(&self.folder))
    }

    fn remove_stale(&self, is_stale: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let is_new = |path: &Path| self.files.iter().any(|(_, new)| new == path);
        for entry in fs::read_dir(&self.folder).map_err(ModelError::io(&self.folder))?.filter_map(Result::ok) {
            if is_stale(&entry.file_name().to_string_lossy()) && !is_new(&entry.path()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        for (temporary, _) in &self.files {
            // The error that stopped the save is the one to report.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn remove(path: &Path) -> Result<(), ModelError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(ModelError::io(path)(source)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    fn stage(folder: &Path, files: &[(&str, &str)]) -> Result<StagedFolder, ModelError> {
        let mut staged = StagedFolder::new(folder)?;
        for (name, content) in files {
            staged.write(name, |file| file.write_all(content.as_bytes()))?;
        }
        Ok(staged)
    }

    #[test]
    fn nothing_changes_before_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "old").unwrap();
        drop(stage(folder.path(), &[("a", "new"), ("b", "new")]).unwrap());
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "old");
    }

    #[test]
    fn a_commit_leaves_the_new_files_and_what_is_not_stale() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "mark", "shard", "other"] {
            fs::write(folder.path().join(name), "old").unwrap();
        }
        stage(folder.path(), &[("a", "new"), ("mark", "new")]).unwrap().commit(&["mark"], |n| n == "shard").unwrap();
        assert_eq!(names(folder.path()), ["a", "mark", "other"]);
        assert_eq!(fs::read_to_string(folder.path().join("mark")).unwrap(), "new");
    }

    #[test]
    fn a_commit_that_is_cut_short_leaves_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mark"), "old").unwrap();
        let staged = stage(folder.path(), &[("a", "new"), ("b", "new"), ("mark", "new")]).unwrap();
        fs::create_dir_all(folder.path().join("b/inside")).unwrap();
        let error = staged.commit(&["mark"], |_| false).unwrap_err();
        assert!(matches!(&error, ModelError::Io { path, .. } if path.ends_with("b")), "{error}");
        assert_eq!(names(folder.path()), ["a", "b"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        let error = stage(folder.path(), &[("a", "new"), ("b", "new")]).unwrap_err();
        assert!(matches!(&error, ModelError::Io { path, .. } if path.ends_with("b")), "{error}");
        assert_eq!(names(folder.path()), ["b"]);
        let mut staged = StagedFolder::new(folder.path()).unwrap();
        let error = staged.write("c", |_| Err(std::io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(matches!(&error, ModelError::Io { path, .. } if path.ends_with("c")), "{error}");
        drop(staged);
        assert_eq!(names(folder.path()), ["b"]);
    }
}
