use std::error::Error;
use std::path::PathBuf;

/// What can go wrong while scoring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// A judge or reward could not do its work at all (network, process, file).
    ///
    /// Built by [`RewardError::failed`]; [`source`](Error::source) is the cause.
    #[error("{name} failed")]
    Failed {
        /// Which judge or reward.
        name: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A judge or reward could not do its work on one sample.
    #[error("{name}: sample {index} failed")]
    FailedAt {
        /// Which judge or reward.
        name: String,
        /// Position in the batch.
        index: usize,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A file of verdicts cannot be opened, read or written.
    #[error("{path}: verdicts cannot be read or kept")]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A judge or reward gave another number of results than it got samples.
    #[error("{name}: expected {expected} results, got {got}")]
    Count {
        /// Which judge or reward.
        name: String,
        /// Samples given.
        expected: usize,
        /// Results returned.
        got: usize,
    },
    /// A score is NaN or infinite.
    #[error("{name}: score {index} is not finite: {value}")]
    NonFiniteScore {
        /// Which reward.
        name: String,
        /// Position in the batch.
        index: usize,
        /// The score.
        value: f32,
    },
    /// Two terms of one sum share a name, so that their metrics could not be told apart.
    #[error("two rewards are named {0:?}")]
    DuplicateName(String),
    /// A setting breaks its constraint.
    #[error("invalid setting: {0}")]
    Config(String),
    /// A prompt template is malformed.
    #[error("prompt template: {0}")]
    Template(String),
}

impl RewardError {
    /// The error of a judge or reward called `name` that could not do its work.
    pub fn failed(name: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed { name: name.into(), source: source.into() }
    }

    /// The error of a judge or reward called `name` that could not do its work on the sample at `index`.
    pub fn failed_at(name: impl Into<String>, index: usize, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::FailedAt { name: name.into(), index, source: source.into() }
    }

    /// Checks that `name` returned one result per sample.
    pub(crate) fn check_count(name: &str, expected: usize, got: usize) -> Result<(), Self> {
        if expected == got {
            return Ok(());
        }
        Err(Self::Count { name: name.to_owned(), expected, got })
    }
}
