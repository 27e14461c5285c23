//! Policy-gradient core for language models: group-relative advantages, clipped losses, KL terms and chunked
//! log-probabilities. Usable alone, with any model and any training loop on [Burn](https://burn.dev).
//!
//! | Step | Item | Where |
//! |---|---|---|
//! | rewards to advantages | [`group_advantages`] | host, `f64` |
//! | hidden states to log-probabilities | [`selective_log_probs`], [`gather_log_probs`] | device, differentiable |
//! | constants of a step | [`PolicyBatch`] | device, validated once |
//! | loss of a micro-batch | [`policy_loss`] | device, differentiable |
//! | what to log | [`PolicyMetrics`], [`PolicySummary`] | device, then one read |
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
//! [`GrpoConfig`] combines clip widths, [`KlEstimator`], [`RatioLevel`], [`LossAggregation`] and [`RewardScale`];
//! constructors name the published combinations: [`GrpoConfig::grpo`], [`GrpoConfig::dr_grpo`], [`GrpoConfig::dapo`],
//! [`GrpoConfig::gspo`], [`GrpoConfig::ril`].
//!
//! # Example
//!
//! One update of a policy over three tokens, in two micro-batches:
//!
//! ```
//! use burn::tensor::{Bool, Device, Int, Tensor};
//! use ril_grpo::{
//!     GrpoConfig, PolicyBatch, PolicyMetrics, PolicySummary, gather_log_probs, group_advantages,
//!     policy_loss,
//! };
//!
//! let device = Device::flex();
//! let config = GrpoConfig::dr_grpo(1);
//! config.validate()?;
//!
//! // A group of four completions of one token each, with their rewards.
//! let rewards = [Some(1.0), Some(0.0), Some(0.0), None];
//! let advantages = group_advantages(&rewards, 4, config.reward_scale)?;
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
mod config;
mod error;
mod kl;
mod log_probs;
mod loss;
mod metrics;
mod policy;
mod ratio;
#[cfg(any(test, feature = "reference"))]
pub mod scalar;

pub use advantage::{RewardScale, group_advantages};
pub use aggregate::LossAggregation;
pub use batch::{LossTotals, PolicyBatch};
pub use config::GrpoConfig;
pub use error::GrpoError;
pub use kl::KlEstimator;
pub use log_probs::{gather_log_probs, selective_log_probs};
pub use loss::{PolicyLoss, policy_loss};
pub use metrics::{PolicyMetrics, PolicySummary, RowMetrics};
pub use policy::Policy;
pub use ratio::{MAX_LOG_RATIO, RatioLevel};

/// The repository's README: its loop must compile and learn.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
