use std::any::Any;
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
    /// A judge or reward failed on one sample; [`source`](Error::source) is the cause.
    #[error("{name}: sample {index} failed")]
    Sample {
        /// Which judge or reward.
        name: String,
        /// Position in the batch.
        index: usize,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The code of a reward panicked.
    #[error("{name}{}: panicked: {message}", on_sample(.index))]
    Panicked {
        /// Which reward.
        name: String,
        /// Position in the batch; `None` for a reward that scores the batch as a whole.
        index: Option<usize>,
        /// What the panic said.
        message: String,
    },
    /// A reward that is part of another failed; [`source`](Error::source) is its error.
    #[error("{name}: its part {part:?} failed")]
    Part {
        /// Which composition.
        name: String,
        /// Which of its parts.
        part: String,
        /// The error of the part.
        #[source]
        source: Box<RewardError>,
    },
    /// Scores that are normalised in groups do not fill their groups.
    #[error("{name}: expected a multiple of group_size {group_size}, got {got} scores")]
    RaggedGroup {
        /// Which reward.
        name: String,
        /// Rows per group.
        group_size: usize,
        /// Scores given.
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
        Self::Sample { name: name.into(), index, source: source.into() }
    }

    /// The error of `part` inside the composition `name`.
    pub(crate) fn in_part(self, name: &str, part: &str) -> Self {
        Self::Part { name: name.to_owned(), part: part.to_owned(), source: Box::new(self) }
    }

    /// The error of a panic that was caught.
    pub(crate) fn panicked(name: &str, index: Option<usize>, payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let message = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Self::Panicked { name: name.to_owned(), index, message: message.to_owned() }
    }

    /// Checks that `name` returned one result per sample.
    pub(crate) fn check_count(name: &str, expected: usize, got: usize) -> Result<(), Self> {
        if expected == got {
            return Ok(());
        }
        Err(Self::Count { name: name.to_owned(), expected, got })
    }
}

fn on_sample(index: &Option<usize>) -> String {
    index.map_or_else(String::new, |index| format!(": sample {index}"))
}
