//! Which groups and rows are worth training on (DAPO's dynamic sampling and overlong handling).

use super::check_groups;
use crate::GrpoError;
use crate::error::check_shape;

/// Groups that carry a signal, and why the others do not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupFilter {
    /// Numbers of the groups whose scored rewards differ, in order.
    pub kept: Vec<usize>,
    /// Groups with at least one scored member, all of the same reward: every advantage is 0.
    pub dropped_constant: usize,
    /// Groups without a scored member.
    pub dropped_unscored: usize,
}

/// Dynamic sampling: drops the groups whose rewards do not differ, and counts them.
///
/// The caller samples further questions until enough groups are kept. A group with one scored member counts as
/// constant. Source: DAPO, arXiv 2503.14476, section 3.2.
///
/// # Shapes
/// - `rewards`: `[questions * group_size]`, group-contiguous
///
/// # Errors
/// [`GrpoError::RaggedGroup`], [`GrpoError::NonFiniteReward`].
///
/// ```
/// use ril_grpo::filter_groups;
///
/// let filter = filter_groups(&[Some(1.0), Some(1.0), Some(0.0), Some(1.0), None, None], 2)?;
/// assert_eq!((filter.kept, filter.dropped_constant, filter.dropped_unscored), (vec![1], 1, 1));
/// # Ok::<(), ril_grpo::GrpoError>(())
/// ```
pub fn filter_groups(rewards: &[Option<f32>], group_size: usize) -> Result<GroupFilter, GrpoError> {
    check_groups(rewards, group_size)?;
    let mut filter = GroupFilter::default();
    for (index, group) in rewards.chunks(group_size).enumerate() {
        let mut scored = group.iter().flatten();
        match scored.next() {
            None => filter.dropped_unscored += 1,
            Some(first) if scored.all(|reward| reward == first) => filter.dropped_constant += 1,
            Some(_) => filter.kept.push(index),
        }
    }
    Ok(filter)
}

/// Soft overlong penalty, in `[-1, 0]`, to be added to the reward: 0 up to `max_completion_len - cache`, then linear
/// down to -1 at `max_completion_len` and beyond.
///
/// Source: DAPO, arXiv 2503.14476, Equation 13. All lengths in tokens.
///
/// # Errors
/// [`GrpoError::Config`] unless `1 <= cache <= max_completion_len`.
///
/// ```
/// use ril_grpo::soft_overlong_penalty;
///
/// let penalties = [80, 90, 100, 120].map(|tokens| soft_overlong_penalty(tokens, 100, 20).unwrap());
/// assert_eq!(penalties, [0.0, -0.5, -1.0, -1.0]);
/// ```
pub fn soft_overlong_penalty(
    completion_tokens: usize,
    max_completion_len: usize,
    cache: usize,
) -> Result<f32, GrpoError> {
    if cache == 0 || cache > max_completion_len {
        return Err(GrpoError::Config(format!("cache: expected 1..={max_completion_len}, got {cache}")));
    }
    let over = completion_tokens.saturating_sub(max_completion_len - cache);
    Ok(-(over.min(cache) as f32) / cache as f32)
}

/// Takes the truncated completions out of the loss: their rows of the mask become false.
///
/// Their rewards stay in the baseline of the group. Source: DAPO, arXiv 2503.14476, section 3.4 (overlong filtering);
/// `mask_truncated_completions` in TRL.
///
/// # Shapes
/// - `completion_mask`: `[rows * seq]`, row-major, on the host
/// - `is_truncated`: `[rows]`, true where a completion ended at the length limit
///
/// # Errors
/// [`GrpoError::Shape`] unless the mask has a whole number of columns.
pub fn mask_truncated_rows(completion_mask: &mut [bool], is_truncated: &[bool]) -> Result<(), GrpoError> {
    let rows = is_truncated.len();
    let seq = completion_mask.len() / rows.max(1);
    check_shape("completion_mask", &[rows * seq], &[completion_mask.len()])?;
    for (row, _) in is_truncated.iter().enumerate().filter(|(_, is_truncated)| **is_truncated) {
        completion_mask[row * seq..(row + 1) * seq].fill(false);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{RewardScale, group_advantages};

    #[test]
    fn truncated_rows_leave_the_mask_and_ragged_masks_are_refused() {
        let mut mask = [true, true, true, false, true, true];
        mask_truncated_rows(&mut mask, &[false, true, false]).unwrap();
        assert_eq!(mask, [true, true, false, false, true, true]);
        assert!(matches!(mask_truncated_rows(&mut mask, &[true; 4]), Err(GrpoError::Shape { .. })));
        assert!(matches!(mask_truncated_rows(&mut mask, &[]), Err(GrpoError::Shape { .. })));
    }

    #[test]
    fn a_cache_out_of_range_is_refused() {
        for cache in [0, 11] {
            assert!(matches!(soft_overlong_penalty(5, 10, cache), Err(GrpoError::Config(_))));
        }
    }

    proptest! {
        #[test]
        fn a_group_is_kept_where_some_advantage_is_not_zero(
            rewards in prop::collection::vec(prop::option::weighted(0.7, prop_oneof![Just(0.0f32), Just(1.0)]), 12),
        ) {
            let filter = filter_groups(&rewards, 3).unwrap();
            let advantages = group_advantages(&rewards, 3, RewardScale::None).unwrap();
            for (group, advantages) in advantages.chunks(3).enumerate() {
                let has_signal = advantages.iter().any(|a| *a != 0.0);
                prop_assert_eq!(filter.kept.contains(&group), has_signal);
            }
            prop_assert_eq!(filter.kept.len() + filter.dropped_constant + filter.dropped_unscored, 4);
        }

        #[test]
        fn the_penalty_falls_from_0_to_minus_1(length in 0usize..200, max in 1usize..100, cache in 1usize..100) {
            let cache = cache.min(max);
            let penalty = |length| soft_overlong_penalty(length, max, cache).unwrap();
            prop_assert!((-1.0..=0.0).contains(&penalty(length)));
            prop_assert!(penalty(length + 1) <= penalty(length));
            prop_assert_eq!(penalty(max - cache), 0.0);
            prop_assert_eq!(penalty(max), -1.0);
        }
    }
}
