//! What went wrong while others went on.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use ril_models::files::write_atomic;
use serde::{Deserialize, Serialize};

use super::answerer::Answer;
use super::error::VlmEvalError;
use super::evidence::AnswersByRow;
use crate::error::RilError;
use crate::journal::Journal;

/// Rows whose requests failed, and why.
pub const FAILURES_FILE: &str = "failures.jsonl";

/// What becomes of rows that a model cannot be asked: one that is too long for it, a broken picture, one that its server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailedRows {
    /// They are open: [`ask`](super::Evaluation::ask) ends with an error, and nothing is judged or scored before they are answered.
    #[default]
    Open,
    /// They count as wrong, and the results say how many they are. Rows that were not asked yet are open all the same.
    Wrong,
}

/// A line of [`FAILURES_FILE`].
#[derive(Debug, Serialize, Deserialize)]
struct FailureLine {
    index: String,
    reason: String,
}

/// Reasons in a folder, by row.
pub(super) fn stored_failures(folder: &Path) -> Result<BTreeMap<String, String>, RilError> {
    let lines: Vec<FailureLine> = Journal::read(&folder.join(FAILURES_FILE))?;
    Ok(lines.into_iter().map(|line| (line.index, line.reason)).collect())
}

/// Requests without an answer.
#[derive(Default)]
pub(super) struct Failures {
    first: Option<(String, RilError)>,
    /// By row.
    reasons: BTreeMap<String, String>,
    /// The folder cannot be written to: nothing more is to be asked.
    pub broken: Option<RilError>,
}

impl Failures {
    /// Keeps an answer, or the reason why there is none.
    pub fn note(
        &mut self,
        index: &str,
        answer: Result<Answer, RilError>,
        keep: impl FnOnce(Answer) -> Result<(), RilError>,
    ) {
        match answer {
            Ok(answer) => {
                if let Err(error) = keep(answer) {
                    self.broken.get_or_insert(error);
                }
            }
            Err(error) => {
                self.reasons.insert(index.to_string(), in_one_line(&error));
                self.first.get_or_insert_with(|| (index.to_string(), error));
            }
        }
    }

    /// Whether a request failed.
    pub fn has_any(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Writes down which rows failed, beside those of calls before that have no answer yet.
    ///
    /// # Errors
    /// Those of the file.
    pub fn store(&self, folder: &Path, answered: &AnswersByRow) -> Result<(), RilError> {
        let (path, mut reasons) = (folder.join(FAILURES_FILE), stored_failures(folder)?);
        if reasons.is_empty() && self.reasons.is_empty() {
            return Ok(());
        }
        reasons.retain(|index, _| !answered.contains_key(index));
        reasons.extend(self.reasons.clone());
        if reasons.is_empty() {
            return std::fs::remove_file(&path).map_err(RilError::io(&path));
        }
        let line = |(index, reason)| {
            serde_json::to_string(&FailureLine { index, reason }).expect("a struct of texts is JSON") + "\n"
        };
        let lines: String = reasons.into_iter().map(line).collect();
        Ok(write_atomic(&path, lines.as_bytes())?)
    }

    /// What is to be reported: a folder that cannot be written, what `told` ended with, a request without an answer.
    pub fn finish(self, told: Result<(), RilError>, asked: usize, rows: FailedRows) -> Result<(), RilError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        told?;
        match self.first.filter(|_| rows == FailedRows::Open) {
            None => Ok(()),
            Some((row, error)) => {
                let missing = self.reasons.len();
                Err(VlmEvalError::Unanswered { missing, asked, row, source: Box::new(error) }.into())
            }
        }
    }
}

/// An error with its causes.
fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
