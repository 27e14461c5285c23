//! A file of JSON lines that grows while a program works, and from which the next program goes on.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ril_models::files::read_if_present;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::RilError;

/// A file of JSON lines that grows; a last line that a kill cut short is dropped when it is opened again, one that only lacks its
/// line end is kept.
///
/// The file is locked while it is open, so that two programs cannot write the same work twice.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of the whole lines.
    length: u64,
}

impl Journal {
    /// Opens or creates a journal and reads its lines; empty ones are skipped.
    ///
    /// # Errors
    /// [`RilError::Io`]; [`RilError::Busy`] when another process has it open; [`RilError::Line`] for a whole line that is not
    /// a `T`: the file is left as it is then.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), RilError> {
        let mut options = OpenOptions::new();
        let file =
            options.create(true).read(true).write(true).truncate(false).open(path).map_err(RilError::io(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RilError::Busy { path: path.into() }),
            Err(TryLockError::Error(source)) => return Err(RilError::io(path)(source)),
        }
        let Whole { length, lines, lacks_end } = Whole::read(path)?;
        let mut journal = Self { path: path.into(), file, length };
        journal.file.set_len(length).map_err(RilError::io(path))?;
        journal.file.seek(SeekFrom::End(0)).map_err(RilError::io(path))?;
        if lacks_end {
            journal.write(b"\n")?;
        }
        Ok((journal, lines))
    }

    /// Reads the whole lines of a journal that another process may be writing; none where there is no file.
    ///
    /// # Errors
    /// [`RilError::Models`], [`RilError::Line`].
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RilError> {
        Ok(Whole::read(path)?.lines)
    }

    /// Adds a line: see [`Self::extend`].
    ///
    /// # Errors
    /// [`RilError::Io`].
    pub fn push<T: Serialize>(&mut self, value: &T) -> Result<(), RilError> {
        self.extend(std::slice::from_ref(value))
    }

    /// Adds lines; they are with the system when this returns, so that a killed process loses nothing.
    ///
    /// # Errors
    /// [`RilError::Io`].
    pub fn extend<T: Serialize>(&mut self, values: &[T]) -> Result<(), RilError> {
        let line =
            |value| serde_json::to_string(value).expect("lines of a journal are structs of texts and numbers") + "\n";
        let lines: String = values.iter().map(line).collect();
        self.write(lines.as_bytes())
    }

    /// All of it or, where the disk is full, nothing.
    fn write(&mut self, bytes: &[u8]) -> Result<(), RilError> {
        let written = self.file.write_all(bytes);
        if written.is_err() {
            // The write's error is the one to tell; half a line that stays is dropped by the next opening.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::End(0)));
        } else {
            self.length += bytes.len() as u64;
        }
        written.map_err(RilError::io(&self.path))
    }

    /// Brings all lines to the disk, where they outlive a power cut.
    ///
    /// # Errors
    /// [`RilError::Io`].
    pub fn sync(&mut self) -> Result<(), RilError> {
        self.file.sync_data().map_err(RilError::io(&self.path))
    }
}

/// What is whole of a file that may have been cut.
struct Whole<T> {
    /// Bytes of it.
    length: u64,
    lines: Vec<T>,
    /// Whether the last line is there but for its end.
    lacks_end: bool,
}

impl<T: DeserializeOwned> Whole<T> {
    fn read(path: &Path) -> Result<Self, RilError> {
        let bytes = read_if_present(path)?.unwrap_or_default();
        let (ended, tail) = bytes.split_at(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
        let mut lines = Vec::new();
        for (i, line) in ended.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
            let broken =
                |e: serde_json::Error| RilError::Line { path: path.into(), line: i + 1, reason: e.to_string() };
            lines.push(serde_json::from_slice(line).map_err(broken)?);
        }
        let last = serde_json::from_slice(tail).ok();
        let lacks_end = last.is_some();
        lines.extend(last);
        let length = if lacks_end { bytes.len() } else { ended.len() } as u64;
        Ok(Self { length, lines, lacks_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_short_is_dropped_wherever_the_cut_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let values = ["one".to_string(), "zwölf \n \"".to_string(), String::new()];
        Journal::open::<String>(&path).unwrap().0.extend(&values).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (mut journal, lines) = Journal::open::<String>(&path).unwrap();
            // A line that only lacks its end is whole.
            let is_end = |at: &usize| bytes[*at] == b'\n';
            let whole = (0..bytes.len()).filter(|at| is_end(at) && *at <= cut).count();
            assert_eq!(lines, values[..whole], "cut at {cut}");
            journal.extend(&values[whole..]).unwrap();
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "cut at {cut}");
        }
    }

    #[test]
    fn a_broken_line_is_named_and_the_file_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "\"one\"\n{broken\n\"three\"\n\"fo").unwrap();
        let error = Journal::open::<String>(&path).unwrap_err();
        assert!(matches!(error, RilError::Line { line: 2, .. }), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("\"fo"));
    }

    #[test]
    fn two_writers_at_once_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let first = Journal::open::<String>(&path).unwrap();
        assert!(matches!(Journal::open::<String>(&path), Err(RilError::Busy { .. })));
        drop(first);
        Journal::open::<String>(&path).unwrap();
    }
}
