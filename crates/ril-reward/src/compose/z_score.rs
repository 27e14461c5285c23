use super::{check_finite, score_part};
use crate::{Reward, RewardError, Sample};

/// Added to the deviation, so that equal scores give 0 and not `0 / 0`.
const FLOOR: f64 = 1e-4;

/// Which scores are normalised together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScoreGroups {
    /// All of them: rewards become comparable across questions, and what is easy stays above what is hard.
    Batch,
    /// The answers to one question, which stand one behind the other: every question weighs the same.
    Questions {
        /// Answers per question, at least 2.
        group_size: usize,
    },
}

impl ScoreGroups {
    /// Checks the group size.
    ///
    /// # Errors
    /// [`RewardError::Config`] below 2: a group of one is always 0.
    pub fn validate(self) -> Result<(), RewardError> {
        match self {
            Self::Questions { group_size } if group_size < 2 => {
                Err(RewardError::Config(format!("group_size: expected at least 2, got {group_size}")))
            }
            _ => Ok(()),
        }
    }
}

/// Scores as deviations from their mean: `(s_i - mean(s)) / (std(s) + 1e-4)` within each group.
///
/// In `f64`, with Bessel's correction. `None` enters neither mean nor deviation and stays; a group of equal scores, and one
/// with a single score, gives 0. Use it on each reward of a sum whose scales differ: a weight then counts deviations, not
/// units. Advantages subtract the mean of each question again, so that the groups of the questions change only the scale
/// there. Source: the normalisation of each reward before the sum of GDPO (arXiv 2601.05242), with the deviation and the
/// floor of the group-relative advantages of this workspace.
///
/// # Shapes
/// - `scores`: `[questions * group_size]`, group-contiguous; any length for [`ScoreGroups::Batch`]
/// - output: same length and order
///
/// # Errors
/// [`RewardError::Config`] for a group size below 2, [`RewardError::RaggedGroup`], [`RewardError::NonFiniteScore`]; `name`
/// is the reward they name.
///
/// ```
/// use ril_reward::{ScoreGroups, z_scores};
///
/// let scores = [Some(1.0), Some(3.0), None, Some(5.0), Some(5.0), Some(5.0)];
/// let normalised = z_scores("length", &scores, ScoreGroups::Questions { group_size: 3 })?;
/// let expected = 1.0 / (2.0_f64.sqrt() + 1e-4);
/// assert_eq!(normalised[..2], [Some(-expected as f32), Some(expected as f32)]);
/// assert_eq!(normalised[2..], [None, Some(0.0), Some(0.0), Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub fn z_scores(name: &str, scores: &[Option<f32>], groups: ScoreGroups) -> Result<Vec<Option<f32>>, RewardError> {
    groups.validate()?;
    check_finite(name, scores)?;
    let group_size = match groups {
        ScoreGroups::Batch => scores.len().max(1),
        ScoreGroups::Questions { group_size } => group_size,
    };
    if !scores.len().is_multiple_of(group_size) {
        return Err(RewardError::RaggedGroup { name: name.to_owned(), group_size, got: scores.len() });
    }
    Ok(scores.chunks(group_size).flat_map(normalised).collect())
}

fn normalised(group: &[Option<f32>]) -> Vec<Option<f32>> {
    let scored = || group.iter().flatten().map(|score| f64::from(*score));
    let count = scored().count() as f64;
    let mean = scored().sum::<f64>() / count;
    let squares: f64 = scored().map(|score| (score - mean).powi(2)).sum();
    let deviation = if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    group.iter().map(|score| score.map(|score| ((f64::from(score) - mean) / (deviation + FLOOR)) as f32)).collect()
}

/// [`z_scores`] as a reward, named after the reward within.
#[derive(Clone, Debug)]
pub struct ZScore<R> {
    reward: R,
    groups: ScoreGroups,
}

impl<R: Reward> ZScore<R> {
    /// `reward`, normalised in `groups` of the batch that is scored.
    ///
    /// # Errors
    /// [`RewardError::Config`] for a group size below 2.
    pub fn new(reward: R, groups: ScoreGroups) -> Result<Self, RewardError> {
        groups.validate()?;
        Ok(Self { reward, groups })
    }
}

impl<R: Reward> Reward for ZScore<R> {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        z_scores(self.name(), &score_part(self.name(), &self.reward, samples)?, self.groups)
    }
}
