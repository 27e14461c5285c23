//! Group-relative advantages, on the host in `f64`.

use serde::{Deserialize, Serialize};

use crate::GrpoError;

/// Added to the group's standard deviation before dividing by it.
pub(crate) const STD_FLOOR: f64 = 1e-4;

/// Scale of the advantages inside a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RewardScale {
    /// Divide by the Bessel-corrected standard deviation of the group plus `1e-4` (GRPO).
    GroupStd,
    /// Centre only (Dr.GRPO, arXiv 2503.20783; RIL).
    None,
}

/// Group-relative advantages: `A_i = (r_i - mean(r)) / (std(r) + 1e-4)` inside each group.
///
/// With [`RewardScale::None`] the division is dropped (Dr.GRPO, arXiv 2503.20783). A group with one or no scored
/// member, and a group whose rewards are all equal, gives exactly 0 everywhere.
///
/// Source: DeepSeekMath, arXiv 2402.03300, outcome supervision. Differs from the paper: Bessel-corrected std and the
/// `1e-4` floor, as in common implementations. Differs from TRL 1.16: statistics in `f64` where TRL uses `f32`, so
/// that a constant group gives 0 and not a rounding error divided by `1e-4`; a non-finite reward is an error where TRL
/// reads NaN as "not scored".
///
/// # Shapes
/// - `rewards`: `[questions * group_size]`, group-contiguous; `None` = not scored, excluded from mean and std,
///   advantage 0
/// - output: same length and order
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
    if group_size == 0 || !rewards.len().is_multiple_of(group_size) {
        let got = rewards.len();
        return Err(GrpoError::RaggedGroup { group_size, got });
    }
    for (index, reward) in rewards.iter().enumerate() {
        if let Some(value) = *reward
            && !value.is_finite()
        {
            return Err(GrpoError::NonFiniteReward { index, value });
        }
    }
    Ok(rewards.chunks(group_size).flat_map(|group| one_group(group, scale)).collect())
}

fn one_group(group: &[Option<f32>], scale: RewardScale) -> impl Iterator<Item = f32> {
    let scored: Vec<f64> = group.iter().flatten().map(|&r| f64::from(r)).collect();
    let count = scored.len() as f64;
    let mean = scored.iter().sum::<f64>() / count;
    // With fewer than two members the centred reward is 0 already: any finite divisor will do.
    let divisor = match scale {
        RewardScale::GroupStd if scored.len() > 1 => {
            let squares: f64 = scored.iter().map(|r| (r - mean).powi(2)).sum();
            (squares / (count - 1.0)).sqrt() + STD_FLOOR
        }
        RewardScale::GroupStd | RewardScale::None => 1.0,
    };
    group.iter().map(move |reward| reward.map_or(0.0, |r| ((f64::from(r) - mean) / divisor) as f32))
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
        for scale in [RewardScale::GroupStd, RewardScale::None] {
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

    proptest! {
        #[test]
        fn equals_the_scalar_twin(
            rewards in prop::collection::vec(prop::option::weighted(0.8, -1e3f32..1e3), 12),
            scaled: bool,
        ) {
            let scale = if scaled { RewardScale::GroupStd } else { RewardScale::None };
            for group_size in [1, 2, 3, 4, 6, 12] {
                let got = group_advantages(&rewards, group_size, scale).unwrap();
                let expected = scalar::group_advantages(&rewards, group_size, scale);
                for (g, e) in got.iter().zip(&expected) {
                    prop_assert!((f64::from(*g) - e).abs() <= 1e-6 * e.abs().max(1.0), "{g} {e}");
                }
            }
        }
    }
}
