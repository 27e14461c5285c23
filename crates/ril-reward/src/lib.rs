//! Rewards for generated answers: rules, judges, and the arithmetic that combines them.
//!
//! Everything here works on text and plain numbers; no tensor, no model, no network. A *reward* turns a batch of
//! [`Sample`]s into one score each, a *judge* turns it into one [`Verdict`] each, and [`JudgeReward`] reads a verdict
//! as a score.
//!
//! | rule | right when |
//! |---|---|
//! | [`ExactMatch`] | the whole answer is the reference, normalised |
//! | [`NumericMatch`] | its final number agrees, with a tolerance and units |
//! | [`ChoiceMatch`], [`YesNoMatch`] | it picks the same option; it goes the same way |
//! | [`MathMatch`] | it states the same mathematics, in LaTeX or ASCII |
//! | [`RelaxedAccuracy`], [`Anls`], [`BoxIou`] | as ChartQA, DocVQA and grounding measure |
//! | [`FormatMatch`] | it has the form of a pattern |
//! | [`LengthPenalty`], [`RepetitionPenalty`] | it is not long, does not repeat itself |
//! | [`RuleJudge`] | the rule that the form of the reference asks for says so |
//!
//! A function of one sample becomes a reward with [`per_sample`]. [`WeightedSum`], [`JudgeGate`], [`MinOf`], [`Clip`] and
//! [`ZScore`] combine rewards; an error or a panic in one of them names the reward, and the sample where it scores them
//! one by one.
//!
//! The one design decision is that **"not scored" is a value**: a score is an `Option<f32>`. A verdict that cannot be
//! parsed is `None`, a judge that cannot be reached is an `Err`, and neither ever becomes 0, because a 0 enters the
//! baseline of the other answers and moves their advantages. An empty answer is the exception that proves the rule:
//! it is known to be wrong, so it scores 0 without asking anybody.
//!
//! ```
//! use ril_reward::{JudgeReward, Reward, RuleJudge, Sample, WeightedScores, weighted_sum};
//!
//! let samples = [
//!     Sample::new("What is 3 + 4?", "7", "Three plus four: 3 + 4 = 7."),
//!     Sample::new("What is 3 + 4?", "7", "The answer is 8."),
//! ];
//! let judge = JudgeReward::new(RuleJudge::default());
//! let correct = judge.score(&samples)?;
//! assert_eq!(correct, [Some(1.0), Some(0.0)]);
//!
//! // Scores that are no function of the text (a discriminator's, say) join as columns.
//! let similar = [Some(0.0), Some(1.0)];
//! let rewards = weighted_sum(&[
//!     WeightedScores { name: "judge", weight: 1.0, scores: &correct },
//!     WeightedScores { name: "similarity", weight: 0.5, scores: &similar },
//! ])?;
//! assert_eq!(rewards, [Some(1.0), Some(0.5)]);
//! # Ok::<(), ril_reward::RewardError>(())
//! ```

#![warn(missing_docs)]

mod anls;
mod box_iou;
mod choice;
mod compose;
mod conclusion;
mod error;
mod exact;
mod final_number;
mod format;
pub mod judge;
mod letters;
mod math;
mod number;
mod numeric;
mod penalty;
mod per_sample;
mod references;
mod relaxed;
mod reward;
mod rule;
mod sample;
mod tokens;
mod units;
mod words;
mod yes_no;

pub use anls::Anls;
pub use box_iou::{BoxChoice, BoxIou, IouScore, box_iou};
pub use choice::ChoiceMatch;
pub use compose::{
    Clip, JudgeGate, MinOf, NamedScores, ScoreGroups, WeightedScores, WeightedSum, ZScore, clip_scores, gate_scores,
    min_scores, weighted_sum, z_scores,
};
pub use conclusion::{Conclusion, conclusion};
pub use error::RewardError;
pub use exact::{ExactMatch, Normalisation};
pub use format::{FormatMatch, PatternScope};
pub use judge::{
    Agreement, CachedJudge, Judge, JudgeReward, LabelledAnswer, PromptTemplate, RuleJudge, Verdict, judge_answers,
    parse_verdict,
};
#[cfg(feature = "http")]
pub use judge::{AnswerStore, HttpJudge};
pub use math::MathMatch;
pub use number::{Number, numbers};
pub use numeric::{NumericMatch, PercentSign, Tolerance, UnitRule};
pub use penalty::{LengthPenalty, RepetitionPenalty, TextUnit};
pub use per_sample::{PerSample, per_sample};
pub use references::AnswerPart;
pub use relaxed::RelaxedAccuracy;
pub use reward::Reward;
pub use sample::Sample;
pub use yes_no::YesNoMatch;
