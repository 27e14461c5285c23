//! Adversarial imitation: a discriminator learns to tell student text from teacher text, and its opinion is a reward.
//!
//! The one design decision is the **sign in the name**: every logit is `logits_student_is_high`, so that
//! `p_student = sigmoid(logit)` is the probability that the student wrote the response, label 1 is the student, and the
//! similarity reward is 1 where `p_student < 0.5`. Inputs stay opaque: this crate never sees text, token ids or pixels,
//! only a [`Discriminator`], and rows that can build its input ([`DiscriminatorRows`]).
//!
//! | Step | Item |
//! |---|---|
//! | what is minimised | [`LossConfig`]: [`DiscriminatorObjective`], regulariser, [`GradientPenalty`] |
//! | passes of a round | [`update_discriminator`], with [`AccuracyGate`] and weights of teachers |
//! | earlier student texts | [`ReplayBuffer`] |
//! | logit to reward | [`SimilarityReward`]; [`teacher_like_logit`] is the one place that turns the sign |
//! | what to log, in every round | [`Opinion`]: [`DiscriminatorStats`], [`TeacherStats`], [`ImitationStats`], [`length_only_accuracy`] |
//!
//! One round of RIL (arXiv 2510.19307, Algorithm 2) is [`update_discriminator`], then [`score_rows`] on a no-grad view,
//! then [`similarity_reward`]:
//!
//! ```
//! use burn::{module::Module, optim::AdamWConfig, tensor::{Device, Tensor}};
//! use ril_gail::{
//!     AuthoredBy, Discriminator, GailConfig, GailError, Round, RowsFromFn, ScalarHead, ScalarHeadConfig,
//!     score_rows, similarity_reward, update_discriminator,
//! };
//!
//! /// Judges a response by two numbers; a real one is an [`LlmDiscriminator`](ril_gail::LlmDiscriminator).
//! #[derive(Module, Debug)]
//! struct Toy {
//!     head: ScalarHead,
//! }
//!
//! impl Discriminator for Toy {
//!     type Input = Tensor<2>;
//!     type Error = GailError;
//!     fn logits_student_is_high(&self, input: &Tensor<2>) -> Result<Tensor<1>, GailError> {
//!         Ok(self.head.forward(input.clone()))
//!     }
//! }
//!
//! let device = Device::flex();
//! let origins = [AuthoredBy::Student, AuthoredBy::Student, AuthoredBy::Teacher, AuthoredBy::Teacher];
//! let features = [[1.0, 0.2], [0.9, -0.3], [-1.1, 0.1], [-0.8, -0.2]];
//! let rows = RowsFromFn::new(&origins, |rows: &[usize]| {
//!     let picked: Vec<f32> = rows.iter().flat_map(|&row| features[row]).collect();
//!     Ok::<_, GailError>(Tensor::<1>::from_floats(picked.as_slice(), &device).reshape([rows.len(), 2]))
//! });
//!
//! let mut model = Toy { head: ScalarHeadConfig::new(2).init(&device.clone().autodiff()) };
//! let mut optimizer = AdamWConfig::new().init();
//! let config = GailConfig::new().with_updates_per_round(20);
//! let (updated, report) = update_discriminator(model, &mut optimizer, &rows, Round::new(0, 0.1), &config);
//! model = updated;
//! let report = report?;
//! assert!(report.losses.last() < report.losses.first());
//!
//! let p_student = score_rows(&model.valid(), &rows, config.micro_batch_rows)?;
//! let rewards: Vec<f32> = p_student.into_iter().map(similarity_reward).collect();
//! assert_eq!(rewards, [0.0, 0.0, 1.0, 1.0]);
//! # Ok::<(), GailError>(())
//! ```

#![warn(missing_docs)]

mod batch;
mod config;
mod discriminator;
mod error;
mod gradients;
mod head;
mod imitation_stats;
mod llm;
mod loss;
mod objective;
mod opinion;
mod pairs;
mod penalty;
mod replay;
mod rows;
mod scalar;
mod score;
mod similarity;
mod split;
mod stats;
mod update;

pub use batch::DiscriminatorBatch;
pub use config::{AccuracyGate, DiscriminatorMode, GailConfig, LossConfig, ScoreOrder};
pub use discriminator::{Discriminator, SequenceEncoder};
pub use error::GailError;
pub use gradients::clip_global_norm;
pub use head::{ScalarHead, ScalarHeadConfig};
pub use imitation_stats::{ImitationStats, imitation_stats};
pub use llm::LlmDiscriminator;
pub use loss::{AuthoredBy, DiscriminatorTotals, discriminator_loss};
pub use objective::{DiscriminatorObjective, LabelSmoothing, objective_loss};
pub use opinion::Opinion;
pub use pairs::{PairOutcome, RowPair};
pub use penalty::GradientPenalty;
pub use replay::{ReplayBuffer, ReplayConfig, ReplayPolicy};
pub use rows::{DiscriminatorRows, RowsFromFn};
pub use scalar::objective_value;
pub use score::{logits_of_rows, p_student, read_logits, score, score_rows};
pub use similarity::{MAX_FAIRL_LOGIT, SimilarityReward, similarity_reward, teacher_like_logit};
pub use stats::{
    DiscriminatorStats, TeacherStats, calibration_error, discriminator_stats, length_only_accuracy, teacher_stats,
};
pub use update::{DiscriminatorUpdate, Round, update_discriminator};
