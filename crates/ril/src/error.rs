//! One error type for the recipe; it wraps those of the cores.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can stop a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RilError {
    /// From the policy-gradient core.
    #[error(transparent)]
    Grpo(#[from] ril_grpo::GrpoError),
    /// From the imitation core.
    #[error(transparent)]
    Gail(#[from] ril_gail::GailError),
    /// From rewards and judges.
    #[error(transparent)]
    Reward(#[from] ril_reward::RewardError),
    /// From the models.
    #[error(transparent)]
    Models(#[from] ril_models::ModelError),
    /// From the files of an evaluation.
    #[error(transparent)]
    Eval(#[from] crate::eval::EvalError),
    /// From a benchmark's file and the folders of its answers.
    #[error(transparent)]
    VlmEval(#[from] crate::vlmeval::VlmEvalError),
    /// A file could not be read or written.
    #[error("{path}: cannot be read or written")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that another process is writing.
    #[error("{path}: another process writes to it")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A server gave no answer to a question.
    #[cfg(feature = "http")]
    #[error("question {question}: no answer of the server")]
    Server {
        /// Question id.
        question: String,
        /// Why.
        source: ril_client::ClientError,
    },
    /// A server did not take new weights.
    #[cfg(feature = "http")]
    #[error("the weights could not be pushed ({path})")]
    Push {
        /// What was called.
        path: &'static str,
        /// Why.
        source: ril_client::ClientError,
    },
    /// A line of a JSON-lines file is broken.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A question of a dataset that the model cannot be shown; the source says why.
    #[error("{path}, line {line}: the question{} cannot be encoded", with_images(.images))]
    Question {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Its images.
        images: Vec<PathBuf>,
        /// Why.
        source: Box<RilError>,
    },
    /// A file without a line.
    #[error("{path}: no {what}")]
    EmptyFile {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A question for which a teacher has too few responses.
    #[error("question {question}: expected {expected} responses of teacher {teacher}, got {got}")]
    TeacherResponses {
        /// Question id.
        question: String,
        /// Teacher name.
        teacher: String,
        /// Needed.
        expected: usize,
        /// Found.
        got: usize,
    },
    /// A teacher that answers while the run trains cannot go on.
    #[error("teacher {teacher} answers no more")]
    Teacher {
        /// Its name.
        teacher: String,
        /// Why.
        source: Arc<RilError>,
    },
    /// A teacher's text that the student's tokenizer would read as something else.
    #[error("question {question}: response of teacher {teacher}: {reason}")]
    TeacherText {
        /// Question id.
        question: String,
        /// Teacher name.
        teacher: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting that cannot be honoured.
    #[error("config: {0}")]
    Config(String),
    /// A checkpoint that cannot be written, is broken, or belongs to another model.
    #[error("{path}: cannot be saved or restored")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A call with arguments that do not fit together.
    #[error("{0}")]
    Input(String),
    /// The loss of a step is not a number.
    #[error("step {step}: {what} is not finite ({value})")]
    NonFinite {
        /// Step.
        step: usize,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f32,
    },
}

impl RilError {
    /// Attaches the path to an I/O error: `.map_err(RilError::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// Attaches the path to an error about a checkpoint: `.map_err(RilError::checkpoint(path))`.
    pub fn checkpoint<E>(path: impl AsRef<Path>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Checkpoint { path, source: source.into() }
    }

    /// Whether a server will not have one question, whatever becomes of the others.
    #[cfg(feature = "http")]
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Server { source, .. } if source.is_refusal())
    }

    /// Whether a client was asked to stop before a server answered.
    #[cfg(feature = "http")]
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self, Self::Server { source, .. } if source.is_stop())
    }
}

fn with_images(images: &[PathBuf]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let names: Vec<String> = images.iter().map(|image| image.display().to_string()).collect();
    format!(" with {}", names.join(", "))
}

/// An error and what caused it, a line each: no message repeats that of its cause.
#[must_use]
pub fn explain(error: &dyn Error) -> String {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("\n  because: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_each() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let text = missing.to_string();
        let inner = RilError::from(ril_models::ModelError::io("cat.png")(missing));
        let images = vec![PathBuf::from("cat.png")];
        let error = RilError::Question { path: "data.jsonl".into(), line: 3, images, source: Box::new(inner) };
        let lines = [
            "error: data.jsonl, line 3: the question with cat.png cannot be encoded",
            "  because: cat.png: cannot be read or written",
            &format!("  because: {text}"),
        ];
        assert_eq!(explain(&error), lines.join("\n"));
    }
}
