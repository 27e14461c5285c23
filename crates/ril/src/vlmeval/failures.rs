//! What went wrong while others went on.

use super::answerer::Answer;
use super::error::VlmEvalError;
use crate::error::RilError;

/// Requests without an answer.
#[derive(Default)]
pub(super) struct Failures {
    first: Option<(String, RilError)>,
    count: usize,
    /// The folder cannot be written to: nothing more is to be asked.
    pub broken: Option<RilError>,
}

impl Failures {
    /// Keeps an answer, or counts that there is none.
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
                self.count += 1;
                self.first.get_or_insert_with(|| (index.to_string(), error));
            }
        }
    }

    /// Whether a request failed.
    pub fn has_any(&self) -> bool {
        self.count > 0
    }

    /// What is to be reported: a folder that cannot be written, what `told` ended with, a request without an answer.
    pub fn finish(self, told: Result<(), RilError>, asked: usize) -> Result<(), RilError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        told?;
        match self.first {
            None => Ok(()),
            Some((row, error)) => {
                Err(VlmEvalError::Unanswered { missing: self.count, asked, row, source: Box::new(error) }.into())
            }
        }
    }
}
