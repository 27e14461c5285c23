//! The policy-gradient term of one token: how a ratio and an advantage become a loss.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use crate::GrpoError;
use crate::ratio::MAX_LOG_RATIO;

/// `ln 1e-8`: lower bound of a sequence's log-ratio in [`Surrogate::GammaWeight`], as in its authors' code.
pub(crate) const MIN_LOG_SEQUENCE_RATIO: f64 = -18.420_680_743_952_367;

/// Where the importance ratio `rho` is clipped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClipRange {
    /// Lower width, in `[0, 1]`: `rho` is kept above `1 - epsilon_low`.
    pub epsilon_low: f64,
    /// Upper width, `>= 0`: `rho` is kept below `1 + epsilon_high`.
    pub epsilon_high: f64,
}

impl ClipRange {
    /// Widths below and above 1.
    pub fn new(epsilon_low: f64, epsilon_high: f64) -> Self {
        Self { epsilon_low, epsilon_high }
    }

    pub(crate) fn low(&self) -> f64 {
        1.0 - self.epsilon_low
    }

    pub(crate) fn high(&self) -> f64 {
        1.0 + self.epsilon_high
    }
}

impl Default for ClipRange {
    /// 0.2 on both sides (PPO, arXiv 1707.06347; GRPO; RIL).
    fn default() -> Self {
        Self::new(0.2, 0.2)
    }
}

/// Shape of the weight of [`Surrogate::GammaWeight`]: `phi(w) = e^lambda w^k e^(-lambda w)`, 1 at `w = 1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GammaShape {
    /// Power of the sequence's ratio, `>= 0`.
    pub k: f64,
    /// Rate of the decay, above 0 (kept at `1e-4` at least).
    pub lambda: f64,
}

/// Loss of one token from its ratio `rho` and its row's advantage `A`, to be minimised.
///
/// `rho` is the ratio of [`RatioLevel`](crate::RatioLevel), `sg` stops the gradient. Each variant has a function of
/// its own in this module and a twin in `scalar`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Surrogate {
    /// `-min(rho A, clip(rho) A)`: PPO (arXiv 1707.06347, Equation 7), GRPO, Dr.GRPO, BNPO, DAPO, GSPO, LUSPO.
    Clipped(ClipRange),
    /// `-min(min(rho, max_ratio) A, clip(rho) A)`: a bound also where `A < 0` and the ratio explodes. Alias: `delta`,
    /// INTELLECT-2 (arXiv 2505.07291).
    TwoSided {
        /// Where the ratio is clipped.
        clip: ClipRange,
        /// Largest ratio, above `1 + epsilon_high`.
        max_ratio: f64,
    },
    /// `Clipped`, and for `A < 0` at most `-max_ratio A`: dual-clip PPO (arXiv 1912.09729).
    /// In value it equals [`Surrogate::TwoSided`] with the same bound, if that is above `1 + epsilon_high`; both names
    /// are in use.
    DualClip {
        /// Where the ratio is clipped.
        clip: ClipRange,
        /// Largest weight of a negative advantage, above 1; 3 in verl.
        max_ratio: f64,
    },
    /// `-sg(clamp(rho, min_ratio, max_ratio)) A log pi`: every token keeps a gradient, only its weight is bounded.
    /// Alias: CISPO (MiniMax-M1, arXiv 2506.13585). TRL has no lower bound (`min_ratio` 0).
    TruncatedRatio {
        /// Smallest weight, in `[0, 1]`.
        min_ratio: f64,
        /// Largest weight, at least 1.
        max_ratio: f64,
    },
    /// `-(4 / tau) sigmoid(tau (rho - 1)) A`, `tau` by the sign of `A`: a soft trust region with slope 1 at `rho = 1`.
    /// Alias: SAPO (arXiv 2511.20347).
    SoftGate {
        /// `tau` where `A > 0`, above 0; 1.0 in the paper.
        temperature_positive: f64,
        /// `tau` where `A <= 0`, above 0; 1.05 in the paper.
        temperature_negative: f64,
    },
    /// `-sg(phi(w)) A log pi` with the *product* `w` of the row's ratios, kept in `[1e-8, e^20]`, times the row's
    /// sampler correction where the batch has one. Alias: VESPO (arXiv 2602.10693).
    GammaWeight {
        /// Shape where `A >= 0`; `k` 2 and `lambda` 3 in TRL.
        positive: GammaShape,
        /// Shape where `A < 0`; `k` 3 and `lambda` 2 in TRL.
        negative: GammaShape,
    },
    /// `-A exp(mean_t d_t)` with each log-ratio `d_t` clipped to `[-epsilon_low, epsilon_high]` on the side that the
    /// sign of `A` makes pessimistic. Its ratio belongs to the sequence whatever the ratio level. Alias: GMPO
    /// (arXiv 2507.20673; 0.4 on both sides there).
    GeometricMean(ClipRange),
}

impl Surrogate {
    /// Checks every range.
    pub(crate) fn validate(&self) -> Result<(), GrpoError> {
        let clip = |clip: &ClipRange| {
            in_range("epsilon_low", clip.epsilon_low, 0.0, 1.0)?;
            in_range("epsilon_high", clip.epsilon_high, 0.0, f64::MAX)
        };
        match self {
            Self::Clipped(range) => clip(range),
            Self::GeometricMean(range) => {
                // Widths of log-ratios: no need to stay below 1.
                in_range("epsilon_low", range.epsilon_low, 0.0, MAX_LOG_RATIO)?;
                in_range("epsilon_high", range.epsilon_high, 0.0, MAX_LOG_RATIO)
            }
            Self::TwoSided { clip: range, max_ratio } => {
                clip(range)?;
                above("max_ratio", *max_ratio, range.high())
            }
            Self::DualClip { clip: range, max_ratio } => {
                clip(range)?;
                above("max_ratio", *max_ratio, 1.0)
            }
            Self::TruncatedRatio { min_ratio, max_ratio } => {
                in_range("min_ratio", *min_ratio, 0.0, 1.0)?;
                in_range("max_ratio", *max_ratio, 1.0, f64::MAX)
            }
            Self::SoftGate { temperature_positive, temperature_negative } => {
                above("temperature_positive", *temperature_positive, 0.0)?;
                above("temperature_negative", *temperature_negative, 0.0)
            }
            Self::GammaWeight { positive, negative } => [positive, negative].into_iter().try_for_each(|shape| {
                in_range("k", shape.k, 0.0, f64::MAX)?;
                above("lambda", shape.lambda, 0.0)
            }),
        }
    }
}

pub(crate) fn in_range(name: &str, value: f64, low: f64, high: f64) -> Result<(), GrpoError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let range = if high == f64::MAX { format!("a finite value >= {low}") } else { format!("{low}..={high}") };
    Err(GrpoError::Config(format!("{name}: expected {range}, got {value}")))
}

pub(crate) fn above(name: &str, value: f64, bound: f64) -> Result<(), GrpoError> {
    if value.is_finite() && value > bound {
        return Ok(());
    }
    Err(GrpoError::Config(format!("{name}: expected a finite value above {bound}, got {value}")))
}

/// What a surrogate reads; every table is `[batch, seq]` and 0 (ratio: 1) at padding.
pub(crate) struct SurrogateInput {
    pub log_probs: Tensor<2>,
    pub log_ratio: Tensor<2>,
    pub ratio: Tensor<2>,
    /// `[batch, seq]`, the row's advantage in every column.
    pub advantages: Tensor<2>,
    /// `[batch, 1]`, at least 1.
    pub row_tokens: Tensor<2>,
    /// `[batch, seq]`, or `[batch, 1]` for a correction of sequences.
    pub sampler_weights: Option<Tensor<2>>,
}

/// Loss of each token, and where its ratio was clipped.
pub(crate) struct TokenLoss {
    pub loss: Tensor<2>,
    /// `None` where nothing is clipped.
    pub clipped: Option<ClippedTokens>,
}

/// True where a clip takes effect, `[batch, seq]`, without autodiff; padding is arbitrary.
pub(crate) struct ClippedTokens {
    pub low: Tensor<2, Bool>,
    pub high: Tensor<2, Bool>,
}

impl ClippedTokens {
    /// Those where `inside`, `[batch, seq]`, is false.
    pub fn outside(self, inside: Tensor<2, Bool>) -> Self {
        let outside = inside.bool_not();
        Self { low: self.low.bool_and(outside.clone()), high: self.high.bool_and(outside) }
    }
}

/// Loss of each token under a surrogate, `[batch, seq]`; padding is finite and otherwise arbitrary.
pub(crate) fn token_loss(input: SurrogateInput, surrogate: Surrogate) -> TokenLoss {
    match surrogate {
        Surrogate::Clipped(clip) => with_clip(&input, clip.low(), clip.high(), clipped(&input, clip)),
        Surrogate::TwoSided { clip, max_ratio } => {
            with_clip(&input, clip.low(), clip.high(), two_sided(&input, clip, max_ratio))
        }
        Surrogate::DualClip { clip, max_ratio } => {
            with_clip(&input, clip.low(), clip.high(), dual_clip(&input, clip, max_ratio))
        }
        Surrogate::TruncatedRatio { min_ratio, max_ratio } => {
            let weight = input.ratio.clone().inner().clamp(min_ratio, max_ratio);
            let loss = log_prob_loss(&input, weight);
            with_clip(&input, min_ratio, max_ratio, loss)
        }
        Surrogate::SoftGate { temperature_positive, temperature_negative } => {
            TokenLoss { loss: soft_gate(&input, temperature_positive, temperature_negative), clipped: None }
        }
        Surrogate::GammaWeight { positive, negative } => {
            let weight = gamma_weight(&input, positive, negative);
            TokenLoss { loss: log_prob_loss(&input, weight), clipped: None }
        }
        Surrogate::GeometricMean(clip) => geometric_mean(&input, clip),
    }
}

fn with_clip(input: &SurrogateInput, low: f64, high: f64, loss: Tensor<2>) -> TokenLoss {
    let ratio = input.ratio.clone().inner();
    let advantages = input.advantages.clone();
    let low = ratio.clone().lower_elem(low).bool_and(advantages.clone().lower_elem(0.0));
    let high = ratio.greater_elem(high).bool_and(advantages.greater_elem(0.0));
    TokenLoss { loss, clipped: Some(ClippedTokens { low, high }) }
}

fn clipped(input: &SurrogateInput, clip: ClipRange) -> Tensor<2> {
    let unclipped = input.ratio.clone() * input.advantages.clone();
    let clipped = input.ratio.clone().clamp(clip.low(), clip.high()) * input.advantages.clone();
    unclipped.min_pair(clipped).neg()
}

fn two_sided(input: &SurrogateInput, clip: ClipRange, max_ratio: f64) -> Tensor<2> {
    let bounded = input.ratio.clone().clamp_max(max_ratio) * input.advantages.clone();
    let clipped = input.ratio.clone().clamp(clip.low(), clip.high()) * input.advantages.clone();
    bounded.min_pair(clipped).neg()
}

fn dual_clip(input: &SurrogateInput, clip: ClipRange, max_ratio: f64) -> Tensor<2> {
    let loss = clipped(input, clip);
    let bounded = loss.clone().min_pair(input.advantages.clone() * -max_ratio);
    loss.mask_where(input.advantages.clone().lower_elem(0.0), bounded)
}

/// `-weight A log pi`, with a weight without gradient.
fn log_prob_loss(input: &SurrogateInput, weight: Tensor<2>) -> Tensor<2> {
    input.log_probs.clone() * (weight * input.advantages.clone()).neg()
}

fn soft_gate(input: &SurrogateInput, temperature_positive: f64, temperature_negative: f64) -> Tensor<2> {
    let is_positive = input.advantages.clone().greater_elem(0.0);
    let temperature = by_sign(&input.advantages, is_positive, temperature_positive, temperature_negative);
    let gate = sigmoid((input.ratio.clone() - 1.0) * temperature.clone()) * temperature.recip() * 4.0;
    (gate * input.advantages.clone()).neg()
}

/// `phi(w)`, in every column, without autodiff.
fn gamma_weight(input: &SurrogateInput, positive: GammaShape, negative: GammaShape) -> Tensor<2> {
    let shape = input.log_ratio.dims();
    let mut log_ratio = input.log_ratio.clone().inner().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).sum_dim(1);
    if let Some(weights) = &input.sampler_weights {
        // A weight of 0 (masked out) has no logarithm: the bound stands for it.
        let log_weights = weights.clone().clamp_min(1e-30).log().clamp(MIN_LOG_SEQUENCE_RATIO, MAX_LOG_RATIO);
        log_ratio = log_ratio + log_weights.sum_dim(1);
    }
    let log_ratio = log_ratio.clamp(MIN_LOG_SEQUENCE_RATIO, MAX_LOG_RATIO).expand(shape);
    let is_positive = || input.advantages.clone().greater_equal_elem(0.0);
    let k = by_sign(&input.advantages, is_positive(), positive.k, negative.k);
    let lambda = by_sign(&input.advantages, is_positive(), positive.lambda.max(1e-4), negative.lambda.max(1e-4));
    (lambda.clone() + k * log_ratio.clone() - lambda * log_ratio.exp()).exp()
}

fn geometric_mean(input: &SurrogateInput, clip: ClipRange) -> TokenLoss {
    let shape = input.log_ratio.dims();
    let log_ratio = input.log_ratio.clone().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let bounded = log_ratio.clone().clamp(-clip.epsilon_low, clip.epsilon_high);
    let is_negative = input.advantages.clone().lower_elem(0.0);
    let pessimistic = log_ratio.clone().min_pair(bounded.clone());
    let pessimistic = pessimistic.mask_where(is_negative, log_ratio.clone().max_pair(bounded));
    // A = 0 has no sign; the loss is 0 whatever the ratio.
    let ratio = (pessimistic.sum_dim(1) / input.row_tokens.clone()).exp().expand(shape);
    let loss = (ratio * input.advantages.clone()).neg();
    let log_ratio = log_ratio.inner();
    let outside = log_ratio.clone().lower_elem(-clip.epsilon_low).bool_or(log_ratio.greater_elem(clip.epsilon_high));
    let clipped = ClippedTokens {
        low: outside.clone().bool_and(input.advantages.clone().lower_elem(0.0)),
        high: outside.bool_and(input.advantages.clone().greater_elem(0.0)),
    };
    TokenLoss { loss, clipped: Some(clipped) }
}

/// One of two constants in every place.
fn by_sign(like: &Tensor<2>, is_positive: Tensor<2, Bool>, positive: f64, negative: f64) -> Tensor<2> {
    like.full_like(negative).mask_fill(is_positive, positive)
}
