//! What a run found, as `results.json`.

use std::path::{Path, PathBuf};

use ril_models::ModelError;
use ril_models::files::write_atomic;
use serde::{Deserialize, Serialize};

use super::{Accuracy, PairedComparison};

/// What can go wrong when results are compared, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Two arms were not asked the same questions.
    #[error("paired outcomes: expected {expected} answers, got {got}")]
    Unpaired {
        /// Answers of the baseline.
        expected: usize,
        /// Answers of the candidate.
        got: usize,
    },
    /// A results file cannot be written.
    #[error(transparent)]
    Write(#[from] ModelError),
    /// A results file cannot be read.
    #[error("{path}: results file")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A results file is not what [`Results`] describes.
    #[error("{path}: results file is not valid")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

/// What an arm is in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArmRole {
    /// A model whose answers are imitated.
    Teacher,
    /// The student before reinforcement (untouched, or after SFT).
    Start,
    /// A student trained by one of the recipes that are compared.
    #[default]
    Arm,
}

impl ArmRole {
    /// The word in tables.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Teacher => "teacher",
            Self::Start => "start",
            Self::Arm => "arm",
        }
    }
}

/// Held-out accuracy of one model of the run.
///
/// As JSON: `{"name", "role", "correct", "total", "accuracy", "interval_95": [low, high]}`; the last two are for the
/// reader and computed anew when read back, and `role` may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "ArmRecord", from = "ArmRecord")]
pub struct ArmResult {
    /// Unique in the run.
    pub name: String,
    /// What it is in the run.
    pub role: ArmRole,
    /// How it answered the held-out questions.
    pub accuracy: Accuracy,
}

impl ArmResult {
    /// A named result.
    pub fn new(name: impl Into<String>, role: ArmRole, accuracy: Accuracy) -> Self {
        Self { name: name.into(), role, accuracy }
    }
}

/// [`ArmResult`] as it stands in the file.
#[derive(Serialize, Deserialize)]
struct ArmRecord {
    name: String,
    #[serde(default)]
    role: ArmRole,
    correct: usize,
    total: usize,
    #[serde(default)]
    accuracy: Option<f64>,
    #[serde(default)]
    interval_95: Option<(f64, f64)>,
}

impl From<ArmResult> for ArmRecord {
    fn from(arm: ArmResult) -> Self {
        let Accuracy { correct, total } = arm.accuracy;
        let accuracy = (total > 0).then(|| arm.accuracy.rate());
        Self { name: arm.name, role: arm.role, correct, total, accuracy, interval_95: Some(arm.accuracy.interval()) }
    }
}

impl From<ArmRecord> for ArmResult {
    fn from(record: ArmRecord) -> Self {
        let accuracy = Accuracy { correct: record.correct, total: record.total };
        Self { name: record.name, role: record.role, accuracy }
    }
}

/// `results.json`: `{"arms": [{"name", "correct", "total", ..}], "comparisons": [..]}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Results {
    /// Every model that was evaluated, in the order of the table.
    pub arms: Vec<ArmResult>,
    /// Pairs of arms on the same questions.
    #[serde(default)]
    pub comparisons: Vec<PairedComparison>,
}

impl Results {
    /// Reads a results file.
    ///
    /// # Errors
    /// [`EvalError::Io`], [`EvalError::Json`].
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io { path: path.into(), source })?;
        serde_json::from_str(&text).map_err(|source| EvalError::Json { path: path.into(), source })
    }

    /// Writes the results file, through a file beside it: a killed run leaves the old one or the new one.
    ///
    /// # Errors
    /// [`EvalError::Write`], [`EvalError::Json`].
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        let mut text =
            serde_json::to_string_pretty(self).map_err(|source| EvalError::Json { path: path.into(), source })?;
        text.push('\n');
        Ok(write_atomic(path, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let arm = |name: &str, role, correct| ArmResult::new(name, role, Accuracy { correct, total: 200 });
        Results { arms: vec![arm("big", ArmRole::Teacher, 180), arm("ril", ArmRole::Arm, 150)], comparisons: vec![] }
    }

    #[test]
    fn file_has_the_promised_fields_and_reads_back() {
        let path = std::env::temp_dir().join(format!("ril-results-{}.json", std::process::id()));
        results().write(&path).unwrap();
        let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(json["arms"][1]["name"], "ril");
        assert_eq!(json["arms"][1]["correct"], 150);
        assert_eq!(json["arms"][1]["total"], 200);
        assert_eq!(json["arms"][0]["role"], "teacher");
        assert_eq!(json["arms"][1]["accuracy"], 0.75);
        assert_eq!(Results::read(&path).unwrap(), results());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn minimal_file_is_enough() {
        let results: Results = serde_json::from_str(r#"{"arms": [{"name": "a", "correct": 1, "total": 2}]}"#).unwrap();
        assert_eq!(results.arms, [ArmResult::new("a", ArmRole::Arm, Accuracy { correct: 1, total: 2 })]);
    }

    #[test]
    fn missing_file_is_named() {
        let error = Results::read(Path::new("/nowhere/results.json")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/results.json"));
    }
}
