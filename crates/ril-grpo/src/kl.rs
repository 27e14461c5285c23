//! Single-sample estimators of `KL(policy || reference)`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::ratio::MAX_LOG_RATIO;

/// Per-token estimator of `KL(policy || reference)` from one sample of the policy, in nats.
///
/// With `d = ref_log_probs - log_probs`, kept in `[-20, 20]`. Source: J. Schulman, "Approximating KL divergence"
/// (2020); k3 is the one of DeepSeekMath, arXiv 2402.03300, Equation 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KlEstimator {
    /// `-d`: unbiased, of either sign. As a loss term its gradient has mean 0: it measures, it does not regularise.
    K1,
    /// `d^2 / 2`: biased, non-negative; its gradient is an unbiased one of the reverse KL on-policy.
    K2,
    /// `exp(d) - d - 1`: unbiased, non-negative, low variance; its gradient is that of the *forward* KL on-policy.
    K3,
}

/// KL per token `[batch, seq]`, 0 where `log_ratio` is 0.
///
/// `log_ratio`: masked `ref_log_probs - log_probs`, `[batch, seq]`. Differs from TRL 1.16 only beyond `|d| = 20`,
/// where the value stays that of the border and the gradient is 0.
pub(crate) fn kl_per_token(log_ratio: Tensor<2>, estimator: KlEstimator) -> Tensor<2> {
    let d = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    match estimator {
        KlEstimator::K1 => d.neg(),
        KlEstimator::K2 => d.square() * 0.5,
        // Rounding may leave -1e-8 near 0; expm1 does not exist on every backend.
        KlEstimator::K3 => (d.clone().exp() - 1.0) - d,
    }
}
