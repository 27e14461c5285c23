//! One error type for the recipe; it wraps those of the cores.

use std::path::{Path, PathBuf};

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
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
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
    /// A dataset without questions.
    #[error("{path}: no questions")]
    EmptyDataset {
        /// The file.
        path: PathBuf,
    },
    /// A question for which a teacher has too few cached responses.
    #[error("question {question}: expected {expected} cached responses of teacher {teacher}, got {got}")]
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
    /// A setting that cannot be honoured.
    #[error("config: {0}")]
    Config(String),
    /// A checkpoint that does not belong to this run, or is broken.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        reason: String,
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

    /// A broken checkpoint.
    pub fn checkpoint(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Self::Checkpoint { path: path.as_ref().to_path_buf(), reason: reason.to_string() }
    }
}
