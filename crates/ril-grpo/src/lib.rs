//! Policy-gradient core for language models: group-relative advantages, clipped losses, KL terms and chunked
//! log-probabilities. Usable alone, with any model and any training loop on [Burn](https://burn.dev).
//!
//! | Step | Item | Where |
//! |---|---|---|
//! | rewards to advantages | [`AdvantageEstimator`] | host, `f64` |
//! | hidden states to log-probabilities | [`selective_log_probs`], [`gather_log_probs`] | device, differentiable |
//! | constants of a step | [`PolicyBatch`] | device, validated once |
//! | loss of a micro-batch | [`policy_loss`] | device, differentiable |
//! | what to log | [`PolicyMetrics`], [`StepMetrics`] | device, then one read |
//!
//! # The one design decision
//!
//! Losses divide by [`LossTotals`] of the *whole* batch, never by what happens to be in a micro-batch: the loss and the
//! gradient of any split add up to those of the batch, for every [`LossAggregation`]. The usual alternative, a mean in
//! each micro-batch divided by the number of accumulation steps, weighs tokens by their neighbours' lengths.
//!
//! Two rules make the rest safe: padding is replaced *before* any `exp`, so that arbitrary content under a false mask
//! (NaN included) reaches neither loss nor gradient; and the crate checks shapes and ranges at its boundary
//! ([`GrpoError`]), nowhere else.
//!
//! # Methods
//!
//! [`GrpoConfig`] combines a [`Surrogate`], [`RatioLevel`], [`KlEstimator`], [`LossAggregation`] and
//! [`AdvantageEstimator`]; constructors name the published combinations: GRPO, Dr.GRPO, RIL, BNPO, DAPO, GSPO,
//! GSPO-token, CISPO, SAPO, LUSPO, VESPO, GMPO, RLOO, REINFORCE++. [`PolicyBatch::with_rows`] lets other models' texts
//! into the batch, each row with a ratio of its own ([`RowRatio`]: RIL, LUFFY, CHORD), [`PolicyBatch::with_sampler`]
//! corrects for an inference engine, [`PolicyBatch::with_top_entropy_tokens`] trains the tokens that decide.
//!
//! # Example
//!
//! One update of a policy over three tokens, in two micro-batches:
//!
//! ```
//! use burn::tensor::{Bool, Device, Int, Tensor};
//! use ril_grpo::{
//!     GrpoConfig, PolicyBatch, PolicyMetrics, PolicySummary, gather_log_probs, policy_loss,
//! };
//!
//! let device = Device::flex();
//! let config = GrpoConfig::dr_grpo(1);
//! config.validate()?;
//!
//! // A group of four completions of one token each, with their rewards.
//! let rewards = [Some(1.0), Some(0.0), Some(0.0), None];
//! let advantages = config.advantage.advantages(&rewards, 4, &[1; 4])?;
//! let tokens = Tensor::<2, Int>::from_ints([[0], [1], [2], [0]], &device);
//! let logits = Tensor::<1>::zeros([3], &device.clone().autodiff()).require_grad();
//! let score = |logits: Tensor<1>, tokens: Tensor<2, Int>| {
//!     let rows = tokens.dims()[0];
//!     gather_log_probs(logits.unsqueeze::<3>().expand([rows, 1, 3]), tokens)
//! };
//!
//! let batch = PolicyBatch::new(
//!     score(logits.clone().inner(), tokens.clone())?, // behaviour policy: no tape
//!     None,                                           // no reference, since beta is 0
//!     Tensor::from_floats(advantages.as_slice(), &device),
//!     Tensor::<2, Bool>::from_data([[true]; 4], &device),
//! )?;
//!
//! let mut gradient = Tensor::<1>::zeros([3], &device);
//! let mut metrics = Vec::new();
//! for rows in [0..2, 2..4] {
//!     let log_probs = score(logits.clone(), tokens.clone().slice_dim(0, rows.clone()))?;
//!     let output = policy_loss(&batch.rows(rows)?, log_probs, &config)?;
//!     let grads = output.loss.backward();
//!     gradient = gradient + logits.grad(&grads).expect("logits are tracked");
//!     metrics.push(output.metrics);
//! }
//!
//! // The rewarded token gains: its gradient is negative.
//! let gradient = gradient.into_data().try_to_vec::<f32>()?;
//! assert!(gradient[0] < 0.0 && gradient[1] > 0.0);
//! let rows = PolicyMetrics::cat(&metrics).expect("two micro-batches").read()?;
//! let students = PolicySummary::new(&rows[..2]);
//! assert_eq!((students.rows, students.mean_ratio), (2, 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `reference`: the `f64` twin of every formula, module `scalar`
//! - `cuda`, `wgpu`: [`selective_log_probs`] as one operator on those backends; without the feature it falls back to
//!   plain tensor operations there
#![warn(missing_docs)]

mod advantage;
mod aggregate;
mod batch;
mod checks;
mod config;
mod entropy;
mod error;
mod kl;
mod log_probs;
mod loss;
mod metrics;
mod policy;
mod ratio;
mod rows;
mod sampler;
#[cfg(any(test, feature = "reference"))]
pub mod scalar;
mod surrogate;
mod totals;

pub use advantage::{
    AdvantageEstimator, GroupFilter, RewardColumn, RewardScale, filter_groups, group_advantages,
    leave_one_out_advantages, mask_truncated_rows, normalize_then_sum, reinforce_plus_plus_advantages,
    soft_overlong_penalty, sum_rewards,
};
pub use aggregate::LossAggregation;
pub use batch::PolicyBatch;
pub use checks::{check_gradients, check_tokens};
pub use config::GrpoConfig;
pub use entropy::{AdaptiveEntropy, EntropyController};
pub use error::GrpoError;
pub use kl::{KlEstimator, KlGradient};
pub use log_probs::{gather_log_probs, gather_scores, selective_log_probs, selective_scores};
pub use loss::{PolicyLoss, policy_loss};
pub use metrics::{
    CompletionMetrics, OriginSummary, PolicyMetrics, PolicySummary, RewardMetrics, RowMetrics, SamplerColumns,
    SamplerRow, SamplerSummary, Spread, StepMetrics,
};
pub use policy::{Policy, TokenScores};
pub use ratio::{MAX_LOG_RATIO, RatioLevel};
pub use rows::{RowOrigin, RowRatio, RowRole, SftTerm, SftTokenWeight};
pub use sampler::{SamplerBound, SamplerCorrection, SamplerLevel};
pub use surrogate::{ClipRange, GammaShape, Surrogate};
pub use totals::LossTotals;

/// The repository's README: its loop must compile and learn.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
