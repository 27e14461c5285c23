//! The losses of a discriminator, from logits.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData, activation::log_sigmoid, activation::relu};
use serde::{Deserialize, Serialize};

use crate::batch::DiscriminatorBatch;
use crate::{AuthoredBy, GailError, LossConfig, PairOutcome};

/// Which labels of [`DiscriminatorObjective::Bce`] are moved away from 0 and 1, by `amount` in `[0, 0.5)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum LabelSmoothing {
    /// Student 1, teacher 0.
    #[default]
    None,
    /// Student 1, teacher `amount`: the label of the data to imitate alone, as in arXiv 1606.03498.
    OneSided {
        /// Distance of the label from 0.
        amount: f32,
    },
    /// Student `1 - amount`, teacher `amount`.
    TwoSided {
        /// Distance of both labels from 0 and 1.
        amount: f32,
    },
}

impl LabelSmoothing {
    /// Share of the wrong label in the target of a row: 0 without smoothing.
    pub(crate) fn opposite_share(self, origin: AuthoredBy) -> f32 {
        match (self, origin) {
            (Self::TwoSided { amount }, _) | (Self::OneSided { amount }, AuthoredBy::Teacher) => amount,
            _ => 0.0,
        }
    }

    fn validate(self) -> Result<(), GailError> {
        match self {
            Self::OneSided { amount } | Self::TwoSided { amount } if !(0.0..0.5).contains(&amount) => {
                Err(GailError::Config(format!("label smoothing: expected an amount in 0..0.5, got {amount}")))
            }
            _ => Ok(()),
        }
    }
}

/// What the discriminator minimises.
///
/// Two kinds. On **rows**, with the margin `m = l` on student rows and `m = -l` on teacher rows (positive = right),
/// where `l` is `logit_student_is_high`: the mean over students plus the mean over teachers. On **pairs**, with
/// `m = l_student - l_teacher`, which is `D(teacher) - D(student)` of the papers that score the teacher high: the mean
/// over pairs ([`RowPair`](crate::RowPair)). Means are weighted ([`DiscriminatorBatch::weighted`]).
///
/// | variant | of the margin | on | at `l = 0` |
/// |---|---|---|---|
/// | `Bce` | `-(1 - s) log sigmoid(m) - s log sigmoid(-m)`, `s` the smoothing | rows | `2 ln 2` |
/// | `LeastSquares` | `(m - 1)^2 / 2` | rows | 1 |
/// | `Hinge` | `max(0, 1 - m)` | rows | 2 |
/// | `BradleyTerry` | `-log sigmoid(m)` | pairs | `ln 2` |
/// | `Relativistic` | `-(1 - s) log sigmoid(m) - s log sigmoid(-m)`, `s` = 1/2 for a tie, else 0 | pairs | `ln 2` |
///
/// A pair loss does not change when all logits are shifted: it fixes no zero. Whatever has a threshold there (the rewards
/// [`Step`](crate::SimilarityReward::Step) and `Levels`, an [`AccuracyGate`](crate::AccuracyGate)) then needs a
/// [`score_regularizer`](crate::LossConfig::score_regularizer): [`GailConfig::validate`](crate::GailConfig::validate)
/// refuses it without one. The accuracies, the entropy and the calibration of an [`Opinion`](crate::Opinion) are as
/// arbitrary as the zero then; the order of the logits is not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DiscriminatorObjective {
    /// Balanced binary cross-entropy, nats: RIL, arXiv 2510.19307, Eq. 1, negated.
    Bce {
        /// Which labels are smoothed.
        label_smoothing: LabelSmoothing,
    },
    /// `-log sigmoid(D(teacher) - D(student))`, nats: GAD, arXiv 2511.10643. Reads no [`PairOutcome`]: a tie counts as
    /// the teacher's.
    BradleyTerry,
    /// LSGAN, arXiv 1611.04076, with the labels -1 and 1 (`a`, `b` of its Pearson choice), so that 0 decides
    /// nothing.
    LeastSquares,
    /// Hinge, arXiv 1705.02894: rows beyond a margin of 1 give no gradient.
    Hinge,
    /// Relativistic standard GAN, arXiv 1807.00734, with the label 1/2 for a [`Tie`](PairOutcome::Tie): ours, after
    /// the tie as a third verdict in RARO, arXiv 2511.21667. Without ties it equals `BradleyTerry`. Nats.
    Relativistic,
}

impl Default for DiscriminatorObjective {
    fn default() -> Self {
        Self::Bce { label_smoothing: LabelSmoothing::None }
    }
}

impl DiscriminatorObjective {
    /// Whether it compares pairs; else it sums over rows.
    pub fn is_on_pairs(self) -> bool {
        matches!(self, Self::BradleyTerry | Self::Relativistic)
    }

    /// Checks the smoothing.
    ///
    /// # Errors
    /// [`GailError::Config`].
    pub fn validate(self) -> Result<(), GailError> {
        match self {
            Self::Bce { label_smoothing } => label_smoothing.validate(),
            _ => Ok(()),
        }
    }

    fn of_margin(self, margin: Tensor<1>, opposite_share: Tensor<1>) -> Tensor<1> {
        match self {
            Self::LeastSquares => (margin - 1.0).square() * 0.5,
            Self::Hinge => relu(margin.neg() + 1.0),
            Self::Bce { .. } | Self::BradleyTerry | Self::Relativistic => {
                let wrong = log_sigmoid(margin.clone().neg()) * opposite_share.clone();
                (log_sigmoid(margin) * (opposite_share.neg() + 1.0) + wrong).neg()
            }
        }
    }
}

/// Loss of the rows or pairs of a (micro-)batch, plus `score_regularizer` times the mean squared logit; to be
/// minimised.
///
/// The mean squared logit is balanced like the loss: half the mean over students plus half the mean over teachers, or
/// the mean over pairs of `(l_student^2 + l_teacher^2) / 2`. It keeps scores near 0, as the drift term of arXiv
/// 1710.10196, which is on real rows alone. Computed in `f32`; finite, with a finite gradient, for any `|logit|` up to 1e4.
///
/// The [`GradientPenalty`](crate::GradientPenalty) is no sum over rows and not in here: see
/// [`GradientPenalty::of`](crate::GradientPenalty::of).
///
/// # Shapes
/// - `logits_student_is_high`: `[rows]`, in the order of the batch's rows
/// - output: `[1]`; losses of the parts of a batch **sum** to the loss of the whole, and so do their gradients. A part
///   without rows or pairs of the objective's kind gives 0, with a gradient of 0
///
/// # Errors
/// [`GailError::Shape`] unless there is a logit per row.
pub fn objective_loss(
    logits_student_is_high: Tensor<1>,
    batch: &DiscriminatorBatch,
    config: &LossConfig,
) -> Result<Tensor<1>, GailError> {
    let [rows] = logits_student_is_high.dims();
    GailError::check_rows("logits_student_is_high", batch.len(), rows)?;
    let logits = logits_student_is_high.cast(DType::F32);
    // Constants carry no graph: they live on the plain device.
    let device = logits.device().inner();
    let terms = Terms::new(batch, config.objective);
    if terms.weights.is_empty() {
        let everything = Tensor::<1, Bool>::from_data(TensorData::new(vec![true; rows], [rows]), &device);
        return Ok(logits.mask_fill(everything, 0.0).sum());
    }
    let margin = match config.objective.is_on_pairs() {
        true => {
            let [students, teachers] = pair_indices(batch, &device);
            logits.clone().select(0, students) - logits.clone().select(0, teachers)
        }
        false => logits.clone() * column(&signs(batch), &device),
    };
    let per_term = config.objective.of_margin(margin, column(&terms.opposite_shares, &device));
    let loss = (per_term * column(&terms.weights, &device)).sum();
    if config.score_regularizer == 0.0 {
        return Ok(loss);
    }
    let shares = column(&square_shares(batch, config.objective), &device);
    Ok(loss + (logits.square() * shares).sum() * config.score_regularizer)
}

/// Weight and share of the wrong label of every row or pair.
pub(crate) struct Terms {
    pub weights: Vec<f32>,
    pub opposite_shares: Vec<f32>,
}

impl Terms {
    pub(crate) fn new(batch: &DiscriminatorBatch, objective: DiscriminatorObjective) -> Self {
        let row_share = |origin| match objective {
            DiscriminatorObjective::Bce { label_smoothing } => label_smoothing.opposite_share(origin),
            _ => 0.0,
        };
        let pair_share = |outcome| match (objective, outcome) {
            (DiscriminatorObjective::Relativistic, PairOutcome::Tie) => 0.5,
            _ => 0.0,
        };
        let (weights, opposite_shares) = match objective.is_on_pairs() {
            true => batch.pair_terms().iter().map(|t| (t.weight as f32, pair_share(t.pair.outcome))).unzip(),
            false => batch.row_terms().iter().map(|t| (t.weight as f32, row_share(t.origin))).unzip(),
        };
        Self { weights, opposite_shares }
    }
}

/// 1 for a student row, -1 for a teacher row.
pub(crate) fn signs(batch: &DiscriminatorBatch) -> Vec<f32> {
    batch.row_terms().iter().map(|term| if term.origin == AuthoredBy::Student { 1.0 } else { -1.0 }).collect()
}

/// Share of each row's squared logit in the mean squared logit.
pub(crate) fn square_shares(batch: &DiscriminatorBatch, objective: DiscriminatorObjective) -> Vec<f32> {
    if !objective.is_on_pairs() {
        return batch.row_terms().iter().map(|term| (0.5 * term.weight) as f32).collect();
    }
    let mut shares = vec![0.0; batch.len()];
    for term in batch.pair_terms() {
        for row in [term.pair.student, term.pair.teacher] {
            shares[row] += (0.5 * term.weight) as f32;
        }
    }
    shares
}

fn column(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_floats(values, device)
}

fn pair_indices(batch: &DiscriminatorBatch, device: &Device) -> [Tensor<1, Int>; 2] {
    let indices = |row: fn(crate::RowPair) -> usize| {
        let values: Vec<i64> = batch.pairs().map(|pair| row(pair) as i64).collect();
        let pairs = values.len();
        Tensor::from_data(TensorData::new(values, [pairs]), device)
    };
    [indices(|pair| pair.student), indices(|pair| pair.teacher)]
}
