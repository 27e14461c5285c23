//! Rewards to advantages, on the host in `f64`.

mod filter;
mod rewards;

use serde::{Deserialize, Serialize};

pub use self::filter::{GroupFilter, filter_groups, mask_truncated_rows, soft_overlong_penalty};
pub use self::rewards::{RewardColumn, normalize_then_sum, sum_rewards};
use crate::GrpoError;
use crate::error::check_shape;

/// Added to a standard deviation before dividing by it.
pub(crate) const STD_FLOOR: f64 = 1e-4;

/// Added to a variance under the root of [`AdvantageEstimator::ReinforcePlusPlus`].
pub(crate) const VARIANCE_FLOOR: f64 = 1e-8;

/// What divides the centred rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RewardScale {
    /// The Bessel-corrected standard deviation of the group plus `1e-4` (GRPO).
    GroupStd,
    /// That of the whole batch plus `1e-4` (arXiv 2508.08221): groups whose rewards differ little weigh little.
    BatchStd,
    /// Nothing: centre only (Dr.GRPO, arXiv 2503.20783; RIL).
    None,
}

/// How rewards become advantages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AdvantageEstimator {
    /// `r_i` minus the mean of its group, scaled: [`group_advantages`].
    GroupMean(RewardScale),
    /// `r_i` minus the mean of the *others* of its group: [`leave_one_out_advantages`].
    LeaveOneOut,
    /// `r_i` minus the mean of its group, whitened over the tokens of the batch: [`reinforce_plus_plus_advantages`].
    ReinforcePlusPlus,
}

impl AdvantageEstimator {
    /// One advantage per reward.
    ///
    /// # Shapes
    /// - `rewards`: `[questions * group_size]`, group-contiguous; `None` = not scored: it leaves every mean and
    ///   deviation, advantage 0
    /// - `completion_tokens`: `[questions * group_size]`, number of trained tokens; read by
    ///   [`AdvantageEstimator::ReinforcePlusPlus`] alone
    /// - output: same length and order
    ///
    /// # Errors
    /// [`GrpoError::RaggedGroup`], [`GrpoError::NonFiniteReward`], [`GrpoError::Shape`].
    pub fn advantages(
        self,
        rewards: &[Option<f32>],
        group_size: usize,
        completion_tokens: &[usize],
    ) -> Result<Vec<f32>, GrpoError> {
        match self {
            Self::GroupMean(scale) => group_advantages(rewards, group_size, scale),
            Self::LeaveOneOut => leave_one_out_advantages(rewards, group_size),
            Self::ReinforcePlusPlus => reinforce_plus_plus_advantages(rewards, group_size, completion_tokens),
        }
    }
}

/// Group-relative advantages: `A_i = (r_i - mean(r)) / (std(r) + 1e-4)` inside each group.
///
/// With [`RewardScale::BatchStd`] the deviation is that of all scored rewards of the batch; with
/// [`RewardScale::None`] the division is dropped (Dr.GRPO, arXiv 2503.20783). A group with one or no scored member,
/// and a group whose rewards are all equal, gives exactly 0 everywhere.
///
/// Source: DeepSeekMath, arXiv 2402.03300, outcome supervision. Differs from the paper: Bessel-corrected std and the
/// `1e-4` floor, as in common implementations. Differs from TRL 1.16: statistics in `f64` where TRL uses `f32`, so
/// that a constant group gives 0 and not a rounding error divided by `1e-4`; a non-finite reward is an error where TRL
/// reads NaN as "not scored".
///
/// # Shapes
/// - `rewards`: `[questions * group_size]`, group-contiguous; `None` = not scored, excluded from mean and std,
///   advantage 0
/// - output: same length and order; empty for no rewards
///
/// # Errors
/// [`GrpoError::RaggedGroup`], [`GrpoError::NonFiniteReward`].
///
/// ```
/// use ril_grpo::{RewardScale, group_advantages};
///
/// let rewards = [Some(2.0), Some(0.0), None, Some(1.0)];
/// let advantages = group_advantages(&rewards, 4, RewardScale::None)?;
/// assert_eq!(advantages, [1.0, -1.0, 0.0, 0.0]);
/// # Ok::<(), ril_grpo::GrpoError>(())
/// ```
pub fn group_advantages(rewards: &[Option<f32>], group_size: usize, scale: RewardScale) -> Result<Vec<f32>, GrpoError> {
    check_groups(rewards, group_size)?;
    let batch_std = match scale {
        RewardScale::BatchStd => Moments::of_scored(rewards).std(),
        RewardScale::GroupStd | RewardScale::None => None,
    };
    Ok(advantages(per_group(rewards, group_size, |group, reward| {
        let divisor = match scale {
            // With fewer than two members the centred reward is 0 already: any finite divisor will do.
            RewardScale::GroupStd => group.std().unwrap_or(0.0) + STD_FLOOR,
            RewardScale::BatchStd => batch_std.unwrap_or(0.0) + STD_FLOOR,
            RewardScale::None => 1.0,
        };
        (reward - group.mean) / divisor
    })))
}

/// Leave-one-out advantages: `A_i = r_i - mean of the other scored members`, which is `n / (n - 1) (r_i - mean)`.
///
/// An unbiased baseline, unlike the group mean, which holds `r_i` itself. A group with one or no scored member gives 0.
/// Source: RLOO, arXiv 2402.14740. Differs from verl, where a single member keeps its raw reward.
///
/// # Shapes
/// As [`group_advantages`].
///
/// # Errors
/// [`GrpoError::RaggedGroup`], [`GrpoError::NonFiniteReward`].
pub fn leave_one_out_advantages(rewards: &[Option<f32>], group_size: usize) -> Result<Vec<f32>, GrpoError> {
    check_groups(rewards, group_size)?;
    Ok(advantages(per_group(rewards, group_size, |group, reward| {
        let others = group.count - 1.0;
        if others < 1.0 { 0.0 } else { (reward - group.mean) * group.count / others }
    })))
}

/// `A_i = (d_i - mean(d)) / sqrt(var(d) + 1e-8)` with `d_i = r_i - group mean`; mean and (Bessel-corrected) variance
/// are over the scored *tokens* of the batch, so that a row counts by its length.
///
/// A scored row without tokens weighs nothing. With fewer than two scored tokens everything is 0. Source: REINFORCE++
/// with a baseline, arXiv 2501.03262, as verl computes it. Differs from verl in a group with one scored member: `d_i`
/// is 0 here and the raw reward there.
///
/// # Shapes
/// - `rewards`, output: as [`group_advantages`]
/// - `completion_tokens`: `[questions * group_size]`, number of trained tokens of each row
///
/// # Errors
/// [`GrpoError::RaggedGroup`], [`GrpoError::NonFiniteReward`]; [`GrpoError::Shape`] unless there is one count a reward.
pub fn reinforce_plus_plus_advantages(
    rewards: &[Option<f32>],
    group_size: usize,
    completion_tokens: &[usize],
) -> Result<Vec<f32>, GrpoError> {
    check_shape("completion_tokens", &[rewards.len()], &[completion_tokens.len()])?;
    check_groups(rewards, group_size)?;
    let centred = per_group(rewards, group_size, |group, reward| reward - group.mean);
    let weighted = || centred.iter().zip(completion_tokens).filter_map(|(d, &n)| d.map(|d| (d, n as f64)));
    let tokens: f64 = weighted().map(|(_, n)| n).sum();
    if tokens < 2.0 {
        return Ok(vec![0.0; rewards.len()]);
    }
    let mean = weighted().map(|(d, n)| d * n).sum::<f64>() / tokens;
    let variance = weighted().map(|(d, n)| n * (d - mean).powi(2)).sum::<f64>() / (tokens - 1.0);
    let scale = (variance + VARIANCE_FLOOR).sqrt();
    Ok(advantages(centred.into_iter().map(|d| d.map(|d| (d - mean) / scale))))
}

/// Count, mean and sum of squared deviations of some values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    pub count: f64,
    /// NaN for no values.
    pub mean: f64,
    squares: f64,
}

impl Moments {
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares = values.map(|value| (value - mean).powi(2)).sum();
        Self { count, mean, squares }
    }

    /// Of the rewards that are not `None`.
    pub fn of_scored(rewards: &[Option<f32>]) -> Self {
        Self::of(rewards.iter().flatten().map(|&r| f64::from(r)))
    }

    /// Bessel-corrected standard deviation; `None` for fewer than two values.
    pub fn std(&self) -> Option<f64> {
        (self.count > 1.0).then(|| (self.squares / (self.count - 1.0)).sqrt())
    }
}

pub(crate) fn check_groups(rewards: &[Option<f32>], group_size: usize) -> Result<(), GrpoError> {
    if group_size == 0 || !rewards.len().is_multiple_of(group_size) {
        let got = rewards.len();
        return Err(GrpoError::RaggedGroup { group_size, got });
    }
    let broken = |reward: &Option<f32>| reward.is_some_and(|value| !value.is_finite());
    match rewards.iter().position(broken) {
        Some(index) => Err(GrpoError::NonFiniteReward { index, value: rewards[index].unwrap_or(f32::NAN) }),
        None => Ok(()),
    }
}

/// One value per scored reward from it and the moments of its group.
fn per_group(rewards: &[Option<f32>], group_size: usize, value: impl Fn(&Moments, f64) -> f64) -> Vec<Option<f64>> {
    let mut values = Vec::with_capacity(rewards.len());
    for group in rewards.chunks(group_size) {
        let moments = Moments::of_scored(group);
        values.extend(group.iter().map(|reward| reward.map(|r| value(&moments, f64::from(r)))));
    }
    values
}

/// What was not scored gets 0.
fn advantages(values: impl IntoIterator<Item = Option<f64>>) -> Vec<f32> {
    values.into_iter().map(|value| value.unwrap_or(0.0) as f32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scalar;

    #[test]
    fn ragged_groups_and_non_finite_rewards_are_errors() {
        for size in [0, 2] {
            let error = group_advantages(&[Some(1.0); 3], size, RewardScale::None).unwrap_err();
            assert!(matches!(error, GrpoError::RaggedGroup { group_size, got: 3 } if group_size == size));
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = group_advantages(&[Some(0.0), Some(bad)], 2, RewardScale::GroupStd);
            assert!(matches!(error.unwrap_err(), GrpoError::NonFiniteReward { index: 1, .. }));
        }
    }

    #[test]
    fn groups_with_fewer_than_two_scored_members_give_zero() {
        for scale in [RewardScale::GroupStd, RewardScale::BatchStd, RewardScale::None] {
            let rewards = [None, Some(3.0), None, None, None, None];
            assert_eq!(group_advantages(&rewards, 3, scale).unwrap(), [0.0; 6]);
        }
        assert!(group_advantages(&[], 4, RewardScale::None).unwrap().is_empty());
    }

    #[test]
    fn known_values() {
        // mean 1, Bessel std 1
        let rewards = [Some(0.0), Some(1.0), Some(2.0)];
        let scaled = group_advantages(&rewards, 3, RewardScale::GroupStd).unwrap();
        let expected = (1.0 / (1.0 + 1e-4)) as f32;
        assert_eq!(scaled, [-expected, 0.0, expected]);
    }

    #[test]
    fn token_counts_must_match_and_a_batch_without_tokens_gives_zero() {
        let rewards = [Some(1.0), Some(0.0)];
        let short = reinforce_plus_plus_advantages(&rewards, 2, &[3]).unwrap_err();
        assert!(short.to_string().starts_with("completion_tokens"), "{short}");
        assert_eq!(reinforce_plus_plus_advantages(&rewards, 2, &[0, 1]).unwrap(), [0.0; 2]);
        assert_eq!(reinforce_plus_plus_advantages(&[None, None], 2, &[4, 4]).unwrap(), [0.0; 2]);
    }

    proptest! {
        #[test]
        fn equals_the_scalar_twin(
            rewards in prop::collection::vec(prop::option::weighted(0.8, -1e3f32..1e3), 12),
            tokens in prop::collection::vec(0usize..9, 12),
            kind in 0usize..5,
        ) {
            let estimator = [
                AdvantageEstimator::GroupMean(RewardScale::GroupStd),
                AdvantageEstimator::GroupMean(RewardScale::BatchStd),
                AdvantageEstimator::GroupMean(RewardScale::None),
                AdvantageEstimator::LeaveOneOut,
                AdvantageEstimator::ReinforcePlusPlus,
            ][kind];
            for group_size in [1, 2, 3, 4, 6, 12] {
                let got = estimator.advantages(&rewards, group_size, &tokens).unwrap();
                let expected = scalar::advantages(estimator, &rewards, group_size, &tokens);
                for (g, e) in got.iter().zip(&expected) {
                    prop_assert!((f64::from(*g) - e).abs() <= 1e-6 * e.abs().max(1.0), "{g} {e}");
                }
            }
        }
    }
}
