//! The arithmetic that combines scores, and the rewards made of it.

mod rewards;
mod sums;
mod z_score;

pub use rewards::{Clip, JudgeGate};
pub use sums::{MinOf, WeightedSum};
pub use z_score::{ScoreGroups, ZScore, z_scores};

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Reward, RewardError, Sample};

/// Columns of scores with the names of their rewards.
pub type NamedScores<'a> = Vec<(&'a str, Vec<Option<f32>>)>;

/// One column of a weighted sum.
#[derive(Clone, Copy, Debug)]
pub struct WeightedScores<'a> {
    /// Name of the reward, unique in the sum.
    pub name: &'a str,
    /// Finite; may be negative (a penalty) or 0 (logged, not counted).
    pub weight: f32,
    /// One score per sample; `None` = not scored.
    pub scores: &'a [Option<f32>],
}

/// Weighted sum of score columns: `R_i = sum_k weight_k * score_ki`.
///
/// A sample that **any** column could not score is `None`, whatever the weight. Columns are summed in `f64` in the
/// order of their names, so that the order given never changes a bit. No column gives no scores.
/// Source: `R = similarity + answer` of RIL, arXiv 2510.19307, Eq. 2, is the case of two weights of 1.
///
/// # Errors
/// [`RewardError::Count`] for columns of different length, [`RewardError::DuplicateName`],
/// [`RewardError::NonFiniteScore`] for a score or a sum, [`RewardError::Config`] for a weight that is not finite.
///
/// ```
/// use ril_reward::{WeightedScores, weighted_sum};
///
/// let rewards = weighted_sum(&[
///     WeightedScores { name: "similarity", weight: 1.0, scores: &[Some(1.0), Some(0.0)] },
///     WeightedScores { name: "judge", weight: 1.0, scores: &[Some(1.0), None] },
/// ])?;
/// assert_eq!(rewards, [Some(2.0), None]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub fn weighted_sum(columns: &[WeightedScores<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
    let mut columns = columns.to_vec();
    columns.sort_by_key(|column| column.name);
    let rows = columns.first().map_or(0, |column| column.scores.len());
    for column in &columns {
        RewardError::check_count(column.name, rows, column.scores.len())?;
        check_weight(column.name, column.weight)?;
        check_finite(column.name, column.scores)?;
    }
    if let Some(pair) = columns.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(RewardError::DuplicateName(pair[0].name.to_owned()));
    }
    let total = |row: usize| {
        let terms = columns.iter().map(|column| Some(f64::from(column.weight) * f64::from(column.scores[row]?)));
        terms.sum::<Option<f64>>().map(|total| total as f32)
    };
    finite("weighted sum", (0..rows).map(total).collect())
}

/// Scores that count only where a gate is open: `R_i = gate_i * score_i`, `None` where either is.
///
/// Source: the judge-gated product of VARL, arXiv 2607.01181.
///
/// # Errors
/// [`RewardError::Count`] for columns of different length, [`RewardError::NonFiniteScore`] for a gate, a score or a
/// product that is not finite.
pub fn gate_scores(gate: &[Option<f32>], scores: &[Option<f32>]) -> Result<Vec<Option<f32>>, RewardError> {
    RewardError::check_count("gate", scores.len(), gate.len())?;
    check_finite("gate", gate)?;
    check_finite("gated score", scores)?;
    finite("gate", gate.iter().zip(scores).map(|(gate, score)| Some((*gate)? * (*score)?)).collect())
}

/// The smallest score of each sample: `R_i = min_k score_ki`, `None` where any is: a reward that is as good as its worst
/// part. No column gives no scores.
///
/// # Errors
/// [`RewardError::Count`] for columns of different length, [`RewardError::NonFiniteScore`].
///
/// ```
/// use ril_reward::min_scores;
///
/// let (judge, format) = ([Some(1.0), Some(1.0), None], [Some(1.0), Some(0.0), Some(0.0)]);
/// assert_eq!(min_scores(&[("judge", &judge), ("format", &format)])?, [Some(1.0), Some(0.0), None]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub fn min_scores(columns: &[(&str, &[Option<f32>])]) -> Result<Vec<Option<f32>>, RewardError> {
    let rows = columns.first().map_or(0, |(_, scores)| scores.len());
    for (name, scores) in columns {
        RewardError::check_count(name, rows, scores.len())?;
        check_finite(name, scores)?;
    }
    let smallest = |row: usize| {
        let scores = columns.iter().map(|(_, scores)| scores[row]);
        scores.reduce(|a, b| Some(a?.min(b?))).flatten()
    };
    Ok((0..rows).map(smallest).collect())
}

/// Scores kept in `[min, max]`; `None` stays.
///
/// # Errors
/// [`RewardError::Config`] unless `min <= max`, [`RewardError::NonFiniteScore`] for a score that is not finite.
pub fn clip_scores(scores: &[Option<f32>], min: f32, max: f32) -> Result<Vec<Option<f32>>, RewardError> {
    check_range(min, max)?;
    check_finite("clip", scores)?;
    finite("clip", scores.iter().map(|score| score.map(|score| score.clamp(min, max))).collect())
}

fn check_weight(name: &str, weight: f32) -> Result<(), RewardError> {
    if weight.is_finite() {
        return Ok(());
    }
    Err(RewardError::Config(format!("weight of {name:?}: expected a finite number, got {weight}")))
}

fn check_range(min: f32, max: f32) -> Result<(), RewardError> {
    if min <= max {
        return Ok(());
    }
    Err(RewardError::Config(format!("clip: expected min <= max, got {min} and {max}")))
}

/// `scores`, once [`check_finite`] has passed them.
fn finite(name: &str, scores: Vec<Option<f32>>) -> Result<Vec<Option<f32>>, RewardError> {
    check_finite(name, &scores).map(|()| scores)
}

pub(crate) fn check_finite(name: &str, scores: &[Option<f32>]) -> Result<(), RewardError> {
    let broken = scores.iter().enumerate().find_map(|(index, score)| Some((index, score.filter(|s| !s.is_finite())?)));
    match broken {
        Some((index, value)) => Err(RewardError::NonFiniteScore { name: name.to_owned(), index, value }),
        None => Ok(()),
    }
}

/// The scores of `reward` as the part of `name`: an error and a panic of it name both, and one score a sample is checked.
fn score_part<R: Reward + ?Sized>(
    name: &str,
    reward: &R,
    samples: &[Sample<'_>],
) -> Result<Vec<Option<f32>>, RewardError> {
    let part = reward.name();
    // What the part leaves behind when it panics is its own; a composition keeps nothing between batches.
    let scores = catch_unwind(AssertUnwindSafe(|| reward.score(samples)))
        .unwrap_or_else(|payload| Err(RewardError::panicked(part, None, &*payload)));
    let counted =
        scores.and_then(|scores| RewardError::check_count(part, samples.len(), scores.len()).map(|()| scores));
    // A wrapper bears the name of what it wraps, and naming it twice says nothing.
    counted.map_err(|error| if name == part { error } else { error.in_part(name, part) })
}
