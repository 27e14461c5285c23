//! What the host knows of the samples: rewards and lengths.

use crate::GrpoError;
use crate::advantage::{Moments, check_groups};
use crate::error::check_shape;

/// Statistics of the rewards of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardMetrics {
    /// Mean of the scored rewards; `None` without any.
    pub mean: Option<f64>,
    /// Their Bessel-corrected standard deviation; `None` for fewer than two.
    pub std: Option<f64>,
    /// Share of the groups whose scored rewards, at least two, are all equal (deviation at most `1e-8`).
    pub fraction_zero_std: f64,
    /// Number of rewards that are `None`.
    pub unscored: usize,
    /// Number of rewards, scored or not.
    pub rows: usize,
}

impl RewardMetrics {
    /// Statistics of group-contiguous rewards, `[questions * group_size]`.
    ///
    /// # Errors
    /// [`GrpoError::RaggedGroup`], [`GrpoError::NonFiniteReward`].
    pub fn new(rewards: &[Option<f32>], group_size: usize) -> Result<Self, GrpoError> {
        check_groups(rewards, group_size)?;
        let all = Moments::of_scored(rewards);
        let is_constant = |group: &&[Option<f32>]| Moments::of_scored(group).std().is_some_and(|std| std <= 1e-8);
        let constant = rewards.chunks(group_size).filter(is_constant);
        Ok(Self {
            mean: (all.count > 0.0).then_some(all.mean),
            std: all.std(),
            fraction_zero_std: constant.count() as f64 / (rewards.len() / group_size).max(1) as f64,
            unscored: rewards.iter().filter(|reward| reward.is_none()).count(),
            rows: rewards.len(),
        })
    }

    /// Names and values as TRL 1.16 logs them.
    ///
    /// - `frac_reward_zero_std`: share of the groups, in `[0, 1]`
    /// - `reward`, `reward_std`: in the unit of the rewards; absent where the field is `None`
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        let mut entries = vec![("frac_reward_zero_std", self.fraction_zero_std)];
        entries.extend(self.mean.map(|mean| ("reward", mean)));
        entries.extend(self.std.map(|std| ("reward_std", std)));
        entries
    }
}

/// Statistics of the lengths of sampled completions, tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompletionMetrics {
    /// Lengths of all completions.
    pub all: Spread,
    /// Lengths of the completions that ended by themselves.
    pub terminated: Spread,
    /// Share that ended at the length limit, in `[0, 1]`.
    pub clipped_ratio: f64,
}

impl CompletionMetrics {
    /// Statistics of `[rows]` lengths and whether each was cut off at the limit.
    ///
    /// # Errors
    /// [`GrpoError::Shape`] unless both have the same length.
    pub fn new(lengths: &[usize], is_truncated: &[bool]) -> Result<Self, GrpoError> {
        check_shape("is_truncated", &[lengths.len()], &[is_truncated.len()])?;
        let ended = lengths.iter().zip(is_truncated).filter(|(_, is_truncated)| !**is_truncated);
        let ended: Vec<usize> = ended.map(|(length, _)| *length).collect();
        let clipped = lengths.len() - ended.len();
        Ok(Self {
            all: Spread::of_lengths(lengths),
            terminated: Spread::of_lengths(&ended),
            clipped_ratio: clipped as f64 / lengths.len().max(1) as f64,
        })
    }

    /// Names and values as TRL 1.16 logs them.
    ///
    /// - `completions/mean_length`, `completions/min_length`, `completions/max_length`: tokens
    /// - `completions/clipped_ratio`: share cut off at the limit, in `[0, 1]`
    /// - `completions/mean_terminated_length`, `completions/min_terminated_length`,
    ///   `completions/max_terminated_length`: tokens, of those that ended by themselves
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("completions/mean_length", self.all.mean),
            ("completions/min_length", self.all.min),
            ("completions/max_length", self.all.max),
            ("completions/clipped_ratio", self.clipped_ratio),
            ("completions/mean_terminated_length", self.terminated.mean),
            ("completions/min_terminated_length", self.terminated.min),
            ("completions/max_terminated_length", self.terminated.max),
        ]
    }
}

/// Mean and ends of some values; 0 without any.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    fn of_lengths(lengths: &[usize]) -> Self {
        let sum: usize = lengths.iter().sum();
        let edge = |edge: Option<&usize>| edge.map_or(0.0, |&length| length as f64);
        let mean = sum as f64 / lengths.len().max(1) as f64;
        Self { mean, min: edge(lengths.iter().min()), max: edge(lengths.iter().max()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_scored_is_none_and_nothing_sampled_is_zero() {
        let rewards = RewardMetrics::new(&[None, None], 2).unwrap();
        assert_eq!((rewards.mean, rewards.std, rewards.unscored), (None, None, 2));
        assert_eq!(RewardMetrics::new(&[], 2).unwrap().fraction_zero_std, 0.0);
        let completions = CompletionMetrics::new(&[], &[]).unwrap();
        assert_eq!((completions.all, completions.clipped_ratio), (Spread::default(), 0.0));
        assert!(CompletionMetrics::new(&[1], &[]).is_err());
    }
}
