//! Several rewards to one: summed then normalised, or normalised then summed.

use super::{Moments, STD_FLOOR, advantages, check_groups, per_group};
use crate::GrpoError;
use crate::error::check_shape;
use crate::surrogate::in_range;

/// One kind of reward over all rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardColumn<'a> {
    /// Weight in the sum, finite.
    pub weight: f64,
    /// `[rows]`; `None` = not scored by this reward.
    pub scores: &'a [Option<f32>],
}

/// Weighted sum of several rewards, for [`AdvantageEstimator`](super::AdvantageEstimator): summed, then normalised.
///
/// A reward that did not score a row adds 0 to it; a row that no reward scored stays `None`. The usual order (TRL's
/// `sum_then_normalize`); where rewards have different scales the largest wins, see [`normalize_then_sum`].
///
/// # Shapes
/// - output: `[rows]`; empty for no columns
///
/// # Errors
/// [`GrpoError::Shape`] when columns have different lengths, [`GrpoError::Config`] for a weight that is not finite,
/// [`GrpoError::NonFiniteReward`].
///
/// ```
/// use ril_grpo::{RewardColumn, sum_rewards};
///
/// let answer = RewardColumn { weight: 1.0, scores: &[Some(1.0), Some(0.0), None] };
/// let style = RewardColumn { weight: 0.5, scores: &[Some(1.0), None, None] };
/// assert_eq!(sum_rewards(&[answer, style])?, [Some(1.5), Some(0.0), None]);
/// # Ok::<(), ril_grpo::GrpoError>(())
/// ```
pub fn sum_rewards(columns: &[RewardColumn<'_>]) -> Result<Vec<Option<f32>>, GrpoError> {
    let rows = check_columns(columns, 1)?;
    let column = |c: &RewardColumn<'_>| -> Vec<Option<f64>> { c.scores.iter().map(|s| s.map(f64::from)).collect() };
    let sums = weighted_sums(columns, &columns.iter().map(column).collect::<Vec<_>>(), rows);
    let sums: Vec<Option<f32>> = sums.into_iter().map(|sum| sum.map(|sum| sum as f32)).collect();
    check_groups(&sums, 1)?;
    Ok(sums)
}

/// Advantages of several rewards: each is normalised inside its group, `(r - mean) / (std + 1e-4)`, the weighted sum
/// then over the batch, likewise.
///
/// A reward with fewer than two scored members in a group adds 0 there. A row that no reward scored gets 0 and leaves
/// the statistics of the batch. Source: GDPO, arXiv 2601.05242, as TRL 1.16's `normalize_then_sum`; statistics in
/// `f64`, so that a constant column adds exactly 0.
///
/// # Shapes
/// - scores: `[questions * group_size]`, group-contiguous
/// - output: same length and order; empty for no columns
///
/// # Errors
/// [`GrpoError::RaggedGroup`], [`GrpoError::NonFiniteReward`], [`GrpoError::Shape`] when columns have different
/// lengths, [`GrpoError::Config`] for a weight that is not finite.
pub fn normalize_then_sum(columns: &[RewardColumn<'_>], group_size: usize) -> Result<Vec<f32>, GrpoError> {
    let rows = check_columns(columns, group_size)?;
    // A group without a deviation gives 0.
    let normalize = |group: &Moments, r: f64| group.std().map_or(0.0, |std| (r - group.mean) / (std + STD_FLOOR));
    let normalized: Vec<Vec<Option<f64>>> =
        columns.iter().map(|column| per_group(column.scores, group_size, normalize)).collect();
    let sums = weighted_sums(columns, &normalized, rows);
    let moments = Moments::of(sums.iter().copied().flatten());
    // One scored row has no deviation, and no advantage.
    let Some(std) = moments.std() else { return Ok(vec![0.0; rows]) };
    Ok(advantages(sums.into_iter().map(|sum| sum.map(|sum| (sum - moments.mean) / (std + STD_FLOOR)))))
}

/// Weighted sum of each row over the columns that scored it.
fn weighted_sums(columns: &[RewardColumn<'_>], values: &[Vec<Option<f64>>], rows: usize) -> Vec<Option<f64>> {
    let row_sum = |row: usize| {
        let scored = columns.iter().zip(values).filter_map(|(c, v)| v[row].map(|value| c.weight * value));
        scored.fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
    };
    (0..rows).map(row_sum).collect()
}

/// Number of rows.
fn check_columns(columns: &[RewardColumn<'_>], group_size: usize) -> Result<usize, GrpoError> {
    let rows = columns.first().map_or(0, |column| column.scores.len());
    for column in columns {
        check_shape("reward column", &[rows], &[column.scores.len()])?;
        in_range("reward weight", column.weight, f64::MIN, f64::MAX)?;
        check_groups(column.scores, group_size)?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{RewardScale, group_advantages};

    #[test]
    fn broken_columns_are_refused() {
        let column = |weight, scores| RewardColumn { weight, scores };
        let (long, short) = ([Some(1.0), None], [Some(1.0)]);
        assert!(matches!(sum_rewards(&[column(1.0, &long), column(1.0, &short)]), Err(GrpoError::Shape { .. })));
        assert!(matches!(sum_rewards(&[column(f64::NAN, &long)]), Err(GrpoError::Config(_))));
        let broken = [Some(f32::NAN), None];
        assert!(matches!(sum_rewards(&[column(1.0, &broken)]), Err(GrpoError::NonFiniteReward { index: 0, .. })));
        assert!(matches!(normalize_then_sum(&[column(1.0, &short)], 2), Err(GrpoError::RaggedGroup { .. })));
        assert!(sum_rewards(&[]).unwrap().is_empty());
        assert!(normalize_then_sum(&[], 2).unwrap().is_empty());
        assert_eq!(normalize_then_sum(&[column(1.0, &[None, None])], 2).unwrap(), [0.0; 2]);
    }

    proptest! {
        #[test]
        fn the_scale_of_a_reward_does_not_change_what_is_normalised_first(
            a in prop::collection::vec(prop::option::weighted(0.8, -1f32..1.0), 12), scale in 1f32..100.0,
        ) {
            // 1e-4 beside the deviation is the only thing that sees the scale.
            let b: Vec<Option<f32>> = a.iter().map(|r| r.map(|r| r * scale)).collect();
            let of = |scores: &[Option<f32>]| normalize_then_sum(&[RewardColumn { weight: 1.0, scores }], 4).unwrap();
            let spread = |g: &[Option<f32>]| {
                let scored: Vec<f32> = g.iter().flatten().copied().collect();
                scored.iter().copied().fold(f32::MIN, f32::max) - scored.iter().copied().fold(f32::MAX, f32::min)
            };
            prop_assume!(a.chunks(4).all(|g| spread(g) > 0.1 || g.iter().flatten().count() < 2));
            for (x, y) in of(&a).iter().zip(of(&b)) {
                prop_assert!((x - y).abs() < 1e-2, "{x} {y}");
            }
        }

        #[test]
        fn one_column_of_weight_one_is_its_own_sum(
            rewards in prop::collection::vec(prop::option::weighted(0.8, -9f32..9.0), 12),
        ) {
            let sum = sum_rewards(&[RewardColumn { weight: 1.0, scores: &rewards }]).unwrap();
            prop_assert_eq!(&sum, &rewards);
            let ours = group_advantages(&sum, 4, RewardScale::None).unwrap();
            prop_assert_eq!(ours, group_advantages(&rewards, 4, RewardScale::None).unwrap());
        }
    }
}
