//! Who wrote a row, and what its ratio is.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::GrpoError;
use crate::surrogate::above;

/// Who wrote a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RowOrigin {
    /// The policy in training.
    Student,
    /// Another model, whose texts are in the group (RIL, LUFFY) or imitated beside it (CHORD).
    Teacher,
}

/// What stands below the importance ratio of a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum RowRatio {
    /// `rho = pi / pi_old`, as for a sample of the policy, whoever wrote the row (RIL, arXiv 2510.19307).
    SameOld,
    /// `rho = pi / 1` and no clip: the behaviour probability is taken as 1 and the loss is `-f(pi) A` with the shaping
    /// `f(x) = x / (x + gamma)` (LUFFY, arXiv 2504.14945; `gamma` 0.1) or `f(x) = x` without.
    BehaviourOne {
        /// `gamma`, above 0; `None` leaves the probability as it is.
        shaping: Option<f64>,
    },
    /// `rho = pi / pi_behaviour` with log-probabilities of the model that wrote the row
    /// ([`PolicyBatch::with_rows`](crate::PolicyBatch::with_rows)); clipped as usual.
    Given,
    /// No policy-gradient and no KL term, and no share in their denominators: the row is in the batch for its SFT term
    /// alone (CHORD, arXiv 2508.11408).
    Excluded,
}

/// Origin and ratio of one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RowRole {
    /// Who wrote it.
    pub origin: RowOrigin,
    /// What its ratio is.
    pub ratio: RowRatio,
}

impl RowRole {
    /// A sample of the policy.
    pub const STUDENT: Self = Self { origin: RowOrigin::Student, ratio: RowRatio::SameOld };

    /// A teacher's text with the ratio of a sample: RIL's.
    pub const RIL_TEACHER: Self = Self { origin: RowOrigin::Teacher, ratio: RowRatio::SameOld };

    /// A teacher's text with LUFFY's ratio, `gamma` 0.1.
    pub const LUFFY_TEACHER: Self =
        Self { origin: RowOrigin::Teacher, ratio: RowRatio::BehaviourOne { shaping: Some(0.1) } };

    /// A teacher's text that is only imitated: CHORD's.
    pub const CHORD_TEACHER: Self = Self { origin: RowOrigin::Teacher, ratio: RowRatio::Excluded };

    /// Checks the shaping.
    ///
    /// # Errors
    /// [`GrpoError::Config`] unless `gamma` is above 0.
    pub fn validate(&self) -> Result<(), GrpoError> {
        match self.ratio {
            RowRatio::BehaviourOne { shaping: Some(gamma) } => above("shaping", gamma, 0.0),
            _ => Ok(()),
        }
    }
}

/// Weight of a token's log-probability in the SFT term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SftTokenWeight {
    /// 1: plain cross-entropy.
    Uniform,
    /// `sg(pi (1 - pi))`: least where the policy is sure, either way (CHORD-phi, arXiv 2508.11408).
    Uncertainty,
}

/// Supervised term on teacher rows: the loss becomes `(1 - weight) L_policy + weight L_sft` with
/// `L_sft = -sum_t w_t log pi_t / (teacher tokens of the whole batch)`.
///
/// Source: CHORD, arXiv 2508.11408. Differs from its authors' code: each term divides by its tokens of the *whole* batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SftTerm {
    /// `mu` of the paper, in `[0, 1]`.
    pub weight: f64,
    /// Weight of each token.
    pub token_weight: SftTokenWeight,
}

/// Roles as constants on the device.
#[derive(Debug, Clone)]
pub(crate) struct RowTensors {
    pub roles: Vec<RowRole>,
    /// `[batch, 1]`, true where the behaviour probability is taken as 1.
    pub is_behaviour_one: Tensor<2, Bool>,
    /// `[batch, 1]`, `gamma`, 0 where there is no shaping.
    pub shaping: Tensor<2>,
    /// `[batch, 1]`, true where the row has no policy term.
    pub is_excluded: Tensor<2, Bool>,
    /// `[batch, 1]`, true where the row has no SFT term.
    pub is_not_imitated: Tensor<2, Bool>,
}

impl RowTensors {
    pub fn new(roles: Vec<RowRole>, device: &Device) -> Result<Self, GrpoError> {
        roles.iter().try_for_each(RowRole::validate)?;
        let shape = [roles.len(), 1];
        let flags = |test: fn(&RowRole) -> bool| {
            let values: Vec<bool> = roles.iter().map(test).collect();
            Tensor::<2, Bool>::from_data(TensorData::new(values, shape), device)
        };
        let gamma = |role: &RowRole| match role.ratio {
            RowRatio::BehaviourOne { shaping } => shaping.unwrap_or(0.0) as f32,
            _ => 0.0,
        };
        let shaping: Vec<f32> = roles.iter().map(gamma).collect();
        Ok(Self {
            is_behaviour_one: flags(|role| matches!(role.ratio, RowRatio::BehaviourOne { .. })),
            shaping: Tensor::from_data(TensorData::new(shaping, shape), device),
            is_excluded: flags(|role| role.ratio == RowRatio::Excluded),
            is_not_imitated: flags(|role| role.origin == RowOrigin::Student),
            roles,
        })
    }

    /// The rows of a range.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        let flags = |t: &Tensor<2, Bool>| t.clone().slice_dim(0, rows.clone());
        Self {
            roles: self.roles[rows.clone()].to_vec(),
            is_behaviour_one: flags(&self.is_behaviour_one),
            shaping: self.shaping.clone().slice_dim(0, rows.clone()),
            is_excluded: flags(&self.is_excluded),
            is_not_imitated: flags(&self.is_not_imitated),
        }
    }

    /// Whether some row takes the behaviour probability as 1.
    pub fn has_behaviour_one(&self) -> bool {
        self.roles.iter().any(|role| matches!(role.ratio, RowRatio::BehaviourOne { .. }))
    }

    /// `f(pi)` of each token, `[batch, seq]`, from masked log-probabilities; 1 in rows that do not ask for it.
    pub fn shaped_probability(&self, log_probs: Tensor<2>) -> Tensor<2> {
        let shape = log_probs.dims();
        let others = self.is_behaviour_one.clone().bool_not().expand(shape);
        let probability = probability(log_probs.mask_fill(others, 0.0));
        // Without shaping the denominator is 1.
        let plain = self.shaping.clone().equal_elem(0.0).expand(shape);
        let denominator = probability.clone() + self.shaping.clone().expand(shape);
        probability / denominator.mask_fill(plain, 1.0)
    }
}

/// `exp(log_probs)`. A log-probability above 0 is rounding: it counts as 0, and has no gradient.
pub(crate) fn probability(log_probs: Tensor<2>) -> Tensor<2> {
    log_probs.clamp_max(0.0).exp()
}
