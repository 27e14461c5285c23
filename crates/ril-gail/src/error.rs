use std::error::Error;

/// What can go wrong while training or asking a discriminator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GailError {
    /// A tensor or list has another shape than the rows ask for.
    #[error("{what}: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// Name of the tensor or list.
        what: &'static str,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape found.
        got: Vec<usize>,
    },
    /// Both origins are needed: the loss is balanced between them.
    #[error("origins: expected students and teachers, got {students} students and {teachers} teachers")]
    OneOrigin {
        /// Rows by the student.
        students: usize,
        /// Rows by a teacher.
        teachers: usize,
    },
    /// A logit is NaN or infinite.
    #[error("logit {row} is not finite: {value}")]
    NonFiniteLogit {
        /// Row in the order of the origins.
        row: usize,
        /// The logit.
        value: f32,
    },
    /// The norm over all gradients is NaN or infinite.
    #[error("gradient norm is not finite: {0}")]
    NonFiniteGradient(f32),
    /// The logits do not depend on a trainable parameter: the model is a no-grad view or entirely frozen.
    #[error("logits: expected a trainable discriminator, got no autodiff graph")]
    NotTrainable,
    /// A sequence has no valid token at the given position.
    #[error("last valid position of row {row}: expected less than {seq}, got {position}")]
    Position {
        /// Row in the batch.
        row: usize,
        /// Length of the encoded sequences, tokens.
        seq: usize,
        /// The position given.
        position: usize,
    },
    /// A weight is out of range, or a sum of weights is 0.
    #[error("weight of {what} {index}: expected a finite number of at least 0, got {value}")]
    Weight {
        /// What is weighted.
        what: &'static str,
        /// Its index.
        index: usize,
        /// The weight given.
        value: f32,
    },
    /// All weights of an origin, or of all pairs, are 0: a mean has no denominator.
    #[error("weights of {0}: expected one above 0, got none")]
    NoWeight(&'static str),
    /// A pair does not hold a student row and a teacher row of the batch.
    #[error("pair {pair}: expected a student row and a teacher row of the batch, got rows {student} and {teacher}")]
    Pair {
        /// Index of the pair.
        pair: usize,
        /// The row given for the student.
        student: usize,
        /// The row given for the teacher.
        teacher: usize,
    },
    /// A row is by a teacher without a weight.
    #[error("teacher of row {row}: expected less than {weights}, the number of teacher_weights, got {teacher}")]
    UnknownTeacher {
        /// The row.
        row: usize,
        /// Its teacher.
        teacher: usize,
        /// Number of weights.
        weights: usize,
    },
    /// The loss compares pairs, and the rows give none.
    #[error("pairs: expected at least one for a loss on pairs, got none")]
    NoPairs,
    /// An index leaves its list.
    #[error("{what} {index}: expected less than {len}")]
    Index {
        /// What is indexed.
        what: &'static str,
        /// The index given.
        index: usize,
        /// Length of the list.
        len: usize,
    },
    /// A setting breaks its constraint.
    #[error("invalid setting: {0}")]
    Config(String),
    /// The caller's discriminator, encoder or rows failed; [`source`](Error::source) is their own error.
    #[error("{what} failed")]
    Model {
        /// Which part: discriminator, encoder or rows.
        what: &'static str,
        /// The part's own error; boxed, because it belongs to the caller.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A tensor could not be read from its device.
    #[error("{what}: cannot be read from the device")]
    Read {
        /// Name of the tensor.
        what: &'static str,
        /// What the device says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl GailError {
    /// Wraps the error of the caller's own `what`.
    pub(crate) fn model(what: &'static str) -> impl FnOnce(Box<dyn Error + Send + Sync>) -> Self {
        move |source| Self::Model { what, source }
    }

    /// Checks one dimension of `what`.
    pub(crate) fn check_rows(what: &'static str, expected: usize, got: usize) -> Result<(), Self> {
        if expected == got {
            return Ok(());
        }
        Err(Self::Shape { what, expected: vec![expected], got: vec![got] })
    }
}
