//! Correction for a sampler whose distribution is not the trainer's.

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use crate::GrpoError;
use crate::ratio::MAX_LOG_RATIO;
use crate::surrogate::in_range;

/// Level at which the ratio `w = pi_old / pi_sampler` is formed (or that of the policy given with the sampler, see
/// [`PolicyBatch::with_sampler_against`](crate::PolicyBatch::with_sampler_against)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SamplerLevel {
    /// One ratio per token.
    Token,
    /// The product over the row's tokens, one value for all of them.
    Sequence,
}

/// What becomes of a ratio outside the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SamplerBound {
    /// It takes the value of the bound (truncated importance sampling).
    Truncate,
    /// It becomes 0: the token or sequence leaves the policy term.
    Mask,
}

/// Weight of the policy term that corrects for the sampler: an inference engine computes slightly other
/// probabilities than the trainer, and truncation (top-p, top-k) or penalties move it further.
///
/// The weight is a constant. Source: "Your efficient RL framework secretly brings you off-policy RL training"
/// (Yao et al. 2025) for the truncated kind, IcePop and MIS for the masked one; TRL's
/// `vllm_importance_sampling_mode`. With [`Surrogate::GammaWeight`](crate::Surrogate::GammaWeight) it enters the
/// sequence's weight instead.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplerCorrection {
    /// Tokens or sequences.
    pub level: SamplerLevel,
    /// What becomes of a ratio outside the bounds.
    pub bound: SamplerBound,
    /// Smallest ratio, in `[0, max_ratio]`; 0 for none.
    pub min_ratio: f64,
    /// Largest ratio, finite and above 0; 3 in TRL.
    pub max_ratio: f64,
}

impl SamplerCorrection {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`GrpoError::Config`] with the first one out of range.
    pub fn validate(&self) -> Result<(), GrpoError> {
        in_range("sampler max_ratio", self.max_ratio, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("sampler min_ratio", self.min_ratio, 0.0, self.max_ratio)
    }

    /// `[batch, seq]` for tokens, `[batch, 1]` for sequences. A token without a sampler log-probability (NaN) has
    /// ratio 1.
    pub(crate) fn weights(&self, old: Tensor<2>, sampler: Tensor<2>, padding: Tensor<2, Bool>) -> Tensor<2> {
        let difference = sampler_difference(old, sampler, padding);
        let difference = match self.level {
            SamplerLevel::Token => difference,
            SamplerLevel::Sequence => difference.sum_dim(1),
        };
        let ratio = difference.clamp(-4.0 * MAX_LOG_RATIO, 4.0 * MAX_LOG_RATIO).exp();
        match self.bound {
            SamplerBound::Truncate => ratio.clamp(self.min_ratio, self.max_ratio),
            SamplerBound::Mask => {
                let outside =
                    ratio.clone().lower_elem(self.min_ratio).bool_or(ratio.clone().greater_elem(self.max_ratio));
                ratio.mask_fill(outside, 0.0)
            }
        }
    }
}

/// `old - sampler` where both exist, 0 at padding and where the sampler gave none, `[batch, seq]`, nats.
pub(crate) fn sampler_difference(old: Tensor<2>, sampler: Tensor<2>, padding: Tensor<2, Bool>) -> Tensor<2> {
    let missing = padding.bool_or(sampler.clone().is_nan());
    (old - sampler).mask_fill(missing, 0.0)
}
