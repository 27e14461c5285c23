//! The settings of a run, as JSON.

use std::collections::BTreeMap;
use std::path::Path;

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
        read_json(path)
    }

    /// Stores the settings in place of those that are stored.
    ///
    /// # Errors
    /// [`RilError::Models`] with the path.
    pub fn write(&self, path: &Path) -> Result<(), RilError> {
        let text = serde_json::to_string_pretty(self).expect("a map of JSON values is JSON") + "\n";
        Ok(write_atomic(path, text.as_bytes())?)
    }

    /// Stores the settings, or checks that those that are stored are these.
    ///
    /// # Errors
    /// [`VlmEvalError::OtherSettings`] with the first that differs; those of the files.
    pub fn claim(&self, path: &Path) -> Result<(), RilError> {
        let Some(stored) = Self::read(path)? else { return self.write(path) };
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

/// A file that is one JSON value; `None` when there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RilError> {
    let Some(bytes) = read_if_present(path)? else { return Ok(None) };
    let broken = |e: serde_json::Error| RilError::Line { path: path.into(), line: e.line(), reason: e.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

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
