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
    /// `-d`: unbiased, of either sign. As a loss term its own gradient has mean 0: it measures, it does not regularise.
    K1,
    /// `d^2 / 2`: biased, non-negative; its gradient is an unbiased one of the reverse KL on-policy.
    K2,
    /// `exp(d) - d - 1`: unbiased, non-negative, low variance; its own gradient is that of the *forward* KL on-policy.
    K3,
}

/// Where the gradient of the KL term comes from; the value is the estimator's, except under
/// [`KlGradient::RatioWeighted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KlGradient {
    /// The estimator's own.
    Own,
    /// The estimator times the importance ratio, gradient through both: unbiased in value and gradient also off-policy
    /// (DeepSeek-V3.2, arXiv 2512.02556; `use_bias_correction_kl` in TRL).
    RatioWeighted,
    /// The gradient of k2 whatever the value: unbiased on-policy. Alias: `k1+`, `k3+` in verl.
    OfK2,
}

/// KL per token `[batch, seq]`, 0 where `log_ratio` is 0.
///
/// `log_ratio`: masked `ref_log_probs - log_probs`, `[batch, seq]`. Differs from TRL 1.16 only beyond `|d| = 20`,
/// where the value stays that of the border and the gradient is 0.
pub(crate) fn kl_per_token(
    log_ratio: Tensor<2>,
    ratio: &Tensor<2>,
    estimator: KlEstimator,
    gradient: KlGradient,
) -> Tensor<2> {
    let d = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let kl = estimate(d.clone(), estimator);
    match gradient {
        KlGradient::Own => kl,
        KlGradient::RatioWeighted => kl * ratio.clone(),
        KlGradient::OfK2 => {
            let k2 = estimate(d, KlEstimator::K2);
            // `inner`, not `detach`: a detached leaf stays tracked.
            k2.clone() - k2.inner() + kl.inner()
        }
    }
}

fn estimate(d: Tensor<2>, estimator: KlEstimator) -> Tensor<2> {
    match estimator {
        KlEstimator::K1 => d.neg(),
        KlEstimator::K2 => d.square() * 0.5,
        // Rounding may leave -1e-8 near 0; expm1 does not exist on every backend.
        KlEstimator::K3 => (d.clone().exp() - 1.0) - d,
    }
}
