//! The files of a run: settings as JSON, answers as JSON lines that are on the disk before the next one is asked for.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ril_models::files::{read_if_present, write_atomic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::VlmEvalError;
use crate::error::RilError;

/// Settings under which answers are made, by name; what is not equal is not the same run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(pub BTreeMap<String, Value>);

impl Settings {
    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Reads settings; `None` when there is no such file.
    ///
    /// # Errors
    /// [`RilError::Models`] for the file, [`RilError::Line`] for its content.
    pub fn read(path: &Path) -> Result<Option<Self>, RilError> {
        let Some(bytes) = read_if_present(path)? else { return Ok(None) };
        let broken = |e: serde_json::Error| RilError::Line { path: path.into(), line: e.line(), reason: e.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(broken)
    }

    /// Stores the settings, or checks that those that are stored are these.
    ///
    /// # Errors
    /// [`VlmEvalError::OtherSettings`] with the first that differs; those of the files.
    pub fn claim(&self, path: &Path) -> Result<(), RilError> {
        let Some(stored) = Self::read(path)? else {
            let text = serde_json::to_string_pretty(self).expect("a map of JSON values is JSON") + "\n";
            return Ok(write_atomic(path, text.as_bytes())?);
        };
        let shown = |value: Option<&Value>| value.map_or("nothing".to_string(), Value::to_string);
        let names = stored.0.keys().chain(self.0.keys());
        let differing = names.into_iter().find(|name| stored.0.get(*name) != self.0.get(*name));
        match differing {
            None => Ok(()),
            Some(name) => Err(VlmEvalError::OtherSettings {
                path: path.into(),
                setting: name.clone(),
                stored: shown(stored.0.get(name)),
                wanted: shown(self.0.get(name)),
            }
            .into()),
        }
    }
}

/// A file of JSON lines that grows; a line that a kill cut short is dropped when it is opened again.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// The whole lines of a journal, which is left as it is; none when there is no such file.
    ///
    /// # Errors
    /// [`RilError::Models`] for the file; [`RilError::Line`] for a whole line that is not a `T`.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RilError> {
        Ok(Self::whole_lines(path)?.1)
    }

    /// Opens or creates a journal to go on with, and reads its lines. It is this process' until it is dropped.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`RilError::Io`], also when another process writes to it.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), RilError> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).write(true).truncate(false).open(path).map_err(RilError::io(path))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => RilError::io(path)(std::io::Error::other("another process writes to it")),
            TryLockError::Error(error) => RilError::io(path)(error),
        })?;
        let (whole, lines) = Self::whole_lines(path)?;
        file.set_len(whole as u64).map_err(RilError::io(path))?;
        file.seek(SeekFrom::End(0)).map_err(RilError::io(path))?;
        Ok((Self { path: path.into(), file }, lines))
    }

    /// Length of the whole lines in bytes, and the lines.
    fn whole_lines<T: DeserializeOwned>(path: &Path) -> Result<(usize, Vec<T>), RilError> {
        let bytes = read_if_present(path)?.unwrap_or_default();
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let mut lines = Vec::new();
        for (i, line) in bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate() {
            let broken =
                |e: serde_json::Error| RilError::Line { path: path.into(), line: i + 1, reason: e.to_string() };
            lines.push(serde_json::from_slice(line).map_err(broken)?);
        }
        Ok((whole, lines))
    }

    /// Adds a line; it is with the system when this returns, so that a killed process loses nothing.
    ///
    /// # Errors
    /// [`RilError::Io`].
    pub fn push<T: Serialize>(&mut self, value: &T) -> Result<(), RilError> {
        let line = serde_json::to_string(value).expect("lines of a journal are structs of texts and numbers") + "\n";
        self.file.write_all(line.as_bytes()).map_err(RilError::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_short_is_dropped_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "1\n2\n3").unwrap();
        let (mut journal, lines) = Journal::open::<u32>(&path).unwrap();
        assert_eq!(lines, [1, 2]);
        journal.push(&4).unwrap();
        assert_eq!(Journal::read::<u32>(&path).unwrap(), [1, 2, 4]);
        let error = crate::explain(&Journal::open::<u32>(&path).unwrap_err());
        assert!(error.contains("another process writes to it"), "{error}");
        drop(journal);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n4\n");
        std::fs::write(&path, "1\nx\n3\n").unwrap();
        let error = Journal::open::<u32>(&path).unwrap_err().to_string();
        assert!(error.contains("a.jsonl, line 2: "), "{error}");
    }

    #[test]
    fn the_first_settings_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let settings = Settings::default().with("model", "a").with("limit", 3);
        settings.claim(&path).unwrap();
        settings.claim(&path).unwrap();
        let error = settings.clone().with("limit", 4).claim(&path).unwrap_err().to_string();
        assert!(error.ends_with("holds a run with limit = 3, not 4; give another folder"), "{error}");
        let error = Settings::default().with("model", "a").claim(&path).unwrap_err().to_string();
        assert!(error.contains("limit = 3, not nothing"), "{error}");
        assert_eq!(Settings::read(&path).unwrap(), Some(settings));
    }
}
