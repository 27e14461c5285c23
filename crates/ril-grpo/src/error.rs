//! The one error type of the crate.

use burn::backend::ExecutionError;

/// Everything that can go wrong at the boundary of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrpoError {
    /// A tensor does not have the shape that the batch or the operator asks for.
    #[error("{what}: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// Name of the tensor.
        what: &'static str,
        /// The shape asked for.
        expected: Vec<usize>,
        /// The shape received.
        got: Vec<usize>,
    },
    /// A reward is NaN or infinite; an unscored sample is `None`, never NaN.
    #[error("reward {index} is not finite: {value}")]
    NonFiniteReward {
        /// Position in the list of rewards.
        index: usize,
        /// The value received.
        value: f32,
    },
    /// The rewards cannot be cut into whole groups.
    #[error("rewards: expected a multiple of group_size {group_size}, got {got}")]
    RaggedGroup {
        /// Rows per question.
        group_size: usize,
        /// Number of rewards received.
        got: usize,
    },
    /// Micro-batch rows outside the batch.
    #[error("rows: expected a range within 0..{rows}, got {start}..{end}")]
    RowRange {
        /// Rows in the batch.
        rows: usize,
        /// First row asked for.
        start: usize,
        /// One past the last row asked for.
        end: usize,
    },
    /// `beta` is not zero but the batch holds no reference log-probabilities.
    #[error("ref_log_probs: expected a tensor because beta is {beta}, got none")]
    MissingReference {
        /// The configured KL weight.
        beta: f64,
    },
    /// Loss totals that cannot belong to the batch.
    #[error("totals: expected at least {rows} sequences, got {sequences}")]
    Totals {
        /// Rows in the batch.
        rows: usize,
        /// Sequences in the totals.
        sequences: usize,
    },
    /// The loss needs entropies, but the scores hold none.
    #[error("entropy: expected a tensor because entropy_coefficient is {coefficient}, got none")]
    MissingEntropy {
        /// The configured weight of the bonus.
        coefficient: f64,
    },
    /// A value of one token is NaN or infinite.
    #[error("{what} of row {row}, token {token} is not finite: {value}")]
    NonFinite {
        /// What was computed.
        what: &'static str,
        /// Row in the batch.
        row: usize,
        /// Column of the completion.
        token: usize,
        /// The value.
        value: f32,
    },
    /// A gradient is NaN or infinite.
    #[error("gradient of {parameter} {shape:?} is not finite")]
    NonFiniteGradient {
        /// Path of the parameter in its module.
        parameter: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A trainable parameter received no gradient.
    #[error("gradient of {parameter} {shape:?}: expected one, got none")]
    NoGradient {
        /// Path of the parameter in its module.
        parameter: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A configuration value outside its range.
    #[error("config: {0}")]
    Config(String),
    /// The device failed while values were read down.
    #[error("{what}: device read failed")]
    DeviceRead {
        /// Name of the tensor.
        what: &'static str,
        /// The cause reported by the backend.
        #[source]
        source: ExecutionError,
    },
}

/// `Err` with the name of the tensor unless both shapes agree.
pub(crate) fn check_shape(what: &'static str, expected: &[usize], got: &[usize]) -> Result<(), GrpoError> {
    if expected == got {
        return Ok(());
    }
    Err(GrpoError::Shape { what, expected: expected.to_vec(), got: got.to_vec() })
}
