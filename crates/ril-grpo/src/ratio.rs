//! Importance ratio between the current and the behaviour policy, per token or per sequence.

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

/// Log-ratios are kept in `[-MAX_LOG_RATIO, MAX_LOG_RATIO]` nats before `exp`, so that a ratio stays in
/// `[2e-9, 5e8]` and a loss in `f32` stays finite. Outside, the gradient is 0.
pub const MAX_LOG_RATIO: f64 = 20.0;

/// Bound that makes infinite log-ratios finite where they are subtracted from themselves.
const FINITE_LOG_RATIO: f64 = 1e6;

/// Level of the importance ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RatioLevel {
    /// `exp(log_probs - old_log_probs)` for each token (PPO, GRPO).
    Token,
    /// `s = exp(mean over the row's tokens of the log-ratio)`, one value for all tokens of a row
    /// (GSPO, arXiv 2507.18071, Equation 7). A row without tokens has ratio 1.
    Sequence,
    /// `sg(s) pi / sg(pi)`: the value of [`RatioLevel::Sequence`], while each token's gradient is its own
    /// (GSPO-token, arXiv 2507.18071, section 4.3).
    SequenceToken,
}

/// `a - b` where `padding` is false and 0 elsewhere, `[batch, seq]`, nats. The fill comes before any `exp`, so that
/// arbitrary padding content reaches neither value nor gradient.
pub(crate) fn log_ratio(a: Tensor<2>, b: Tensor<2>, padding: Tensor<2, Bool>) -> Tensor<2> {
    (a - b).mask_fill(padding, 0.0)
}

/// Importance ratio `[batch, seq]` from masked log-ratios; `row_tokens`: `[batch, 1]`, number of trained tokens, at
/// least 1.
pub(crate) fn importance_ratio(log_ratio: Tensor<2>, row_tokens: Tensor<2>, level: RatioLevel) -> Tensor<2> {
    let shape = log_ratio.dims();
    let mean = |log_ratio: Tensor<2>| (log_ratio.sum_dim(1) / row_tokens).expand(shape);
    let log_ratio = match level {
        RatioLevel::Token => log_ratio,
        RatioLevel::Sequence => mean(log_ratio),
        RatioLevel::SequenceToken => {
            let own = log_ratio.clone().clamp(-FINITE_LOG_RATIO, FINITE_LOG_RATIO);
            // `inner`, not `detach`: a detached leaf stays tracked.
            own.clone() - own.inner() + mean(log_ratio.inner())
        }
    };
    log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn extreme_and_empty_rows_stay_finite() {
        let device = Device::flex();
        let log_ratios = [[1e30, -1e30, f32::NEG_INFINITY], [0.0, 0.0, 0.0]];
        let tokens = Tensor::<2>::from_floats([[3.0], [1.0]], &device);
        for level in [RatioLevel::Token, RatioLevel::Sequence, RatioLevel::SequenceToken] {
            let ratios = Tensor::<2>::from_floats(log_ratios, &device);
            let ratios = importance_ratio(ratios, tokens.clone(), level);
            let values = ratios.into_data().try_to_vec::<f32>().unwrap();
            assert!(values.iter().all(|v| v.is_finite()), "{values:?}");
            assert_eq!(values[3..], [1.0; 3]);
        }
    }
}
