//! Numbers of a step under the names that TRL logs them by.

use super::RowMetrics;
use crate::advantage::{Moments, check_groups};
use crate::error::check_shape;
use crate::{GrpoError, RatioLevel, RowOrigin, SamplerLevel};

/// Means over the trained tokens of some rows; 0 where there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PolicySummary {
    /// Sum of the rows' contributions: over all rows, the loss of the batch.
    pub loss: f64,
    /// Number of rows.
    pub rows: usize,
    /// Number of trained tokens.
    pub tokens: f64,
    /// Mean log-probability of a token, nats.
    pub mean_log_prob: f64,
    /// Mean importance ratio.
    pub mean_ratio: f64,
    /// Mean KL per token, nats; `None` unless every row has it.
    pub mean_kl: Option<f64>,
    /// Mean entropy per token, nats; `None` unless every row has it.
    pub mean_entropy: Option<f64>,
    /// Share of the tokens clipped from below, in `[0, 1]`; with [`RatioLevel::Sequence`] the share of the rows. Rows
    /// that are [`RowRatio::Excluded`](crate::RowRatio::Excluded) count in none of the four clip shares.
    pub clip_fraction_low: f64,
    /// Share of the tokens clipped from above, in `[0, 1]`; with [`RatioLevel::Sequence`] the share of the rows.
    pub clip_fraction_high: f64,
    /// Smallest share of a row's tokens clipped from below; 0 without rows that have tokens.
    pub clip_low_min: f64,
    /// Largest share of a row's tokens clipped from above; 0 without rows that have tokens.
    pub clip_high_max: f64,
    /// Sampler against trainer; `None` unless every row has it.
    pub sampler: Option<SamplerSummary>,
}

/// How far the sampler's distribution is from the trainer's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SamplerSummary {
    /// Mean of `|old - sampler|` over tokens, nats.
    pub difference_mean: f64,
    /// Largest `|old - sampler|` of a token, nats.
    pub difference_max: f64,
    /// Smallest, mean and largest weight of the correction, over tokens or rows; `None` without a correction.
    pub weights: Option<[f64; 3]>,
}

impl PolicySummary {
    /// Token-weighted means of the given rows, of all or of one origin only, with a ratio per token.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a RowMetrics>) -> Self {
        Self::with_level(rows, RatioLevel::Token)
    }

    /// As [`PolicySummary::new`]. A ratio of the whole sequence is clipped once a row, rows without tokens included, as
    /// TRL counts it.
    pub fn with_level<'a>(rows: impl IntoIterator<Item = &'a RowMetrics>, level: RatioLevel) -> Self {
        let rows: Vec<&RowMetrics> = rows.into_iter().collect();
        let sum = |field: &dyn Fn(&RowMetrics) -> f64| rows.iter().map(|row| field(row)).sum::<f64>();
        let optional =
            |field: &dyn Fn(&RowMetrics) -> Option<f64>| rows.iter().map(|row| field(row)).sum::<Option<f64>>();
        let tokens = sum(&|row| row.tokens);
        let mean = |total: f64| total / tokens.max(1.0);
        let share = |row: &RowMetrics, clipped: f64| clipped / row.tokens.max(1.0);
        // An excluded row has no clip: it would dilute the share.
        let clippable = || rows.iter().filter(|row| !row.is_excluded);
        let clipped = |clipped: &dyn Fn(&RowMetrics) -> f64| match level {
            RatioLevel::Sequence => {
                clippable().map(|row| share(row, clipped(row))).sum::<f64>() / clippable().count().max(1) as f64
            }
            _ => {
                let tokens: f64 = clippable().map(|row| row.tokens).sum();
                clippable().map(|row| clipped(row)).sum::<f64>() / tokens.max(1.0)
            }
        };
        let filled = || clippable().filter(|row| row.tokens > 0.0 || level == RatioLevel::Sequence);
        Self {
            loss: sum(&|row| row.loss),
            rows: rows.len(),
            tokens,
            mean_log_prob: mean(sum(&|row| row.log_prob)),
            mean_ratio: mean(sum(&|row| row.ratio)),
            mean_kl: optional(&|row| row.kl).map(mean),
            mean_entropy: optional(&|row| row.entropy).map(mean),
            clip_fraction_low: clipped(&|row| row.clip_low),
            clip_fraction_high: clipped(&|row| row.clip_high),
            clip_low_min: filled().map(|row| share(row, row.clip_low)).reduce(f64::min).unwrap_or(0.0),
            clip_high_max: filled().map(|row| share(row, row.clip_high)).fold(0.0, f64::max),
            sampler: SamplerSummary::new(&rows),
        }
    }

    /// Names and values: `kl`, `entropy`, `clip_ratio/...` and `sampling/...` as TRL 1.16 logs them.
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        let mut entries = vec![
            ("clip_ratio/low_mean", self.clip_fraction_low),
            ("clip_ratio/low_min", self.clip_low_min),
            ("clip_ratio/high_mean", self.clip_fraction_high),
            ("clip_ratio/high_max", self.clip_high_max),
            ("clip_ratio/region_mean", self.clip_fraction_low + self.clip_fraction_high),
        ];
        entries.extend(self.mean_kl.map(|kl| ("kl", kl)));
        entries.extend(self.mean_entropy.map(|entropy| ("entropy", entropy)));
        if let Some(sampler) = self.sampler {
            entries.push(("sampling/sampling_logp_difference/mean", sampler.difference_mean));
            entries.push(("sampling/sampling_logp_difference/max", sampler.difference_max));
            if let Some([min, mean, max]) = sampler.weights {
                entries.push(("sampling/importance_sampling_ratio/min", min));
                entries.push(("sampling/importance_sampling_ratio/mean", mean));
                entries.push(("sampling/importance_sampling_ratio/max", max));
            }
        }
        entries
    }
}

impl SamplerSummary {
    fn new(rows: &[&RowMetrics]) -> Option<Self> {
        let samplers: Vec<_> = rows.iter().map(|row| row.sampler).collect::<Option<_>>()?;
        let level = samplers.first()?.level;
        let tokens: f64 = samplers.iter().map(|sampler| sampler.tokens).sum();
        let weights = level.map(|level| {
            // Rows without tokens have no weight of a token, but they have one of a sequence.
            let counted =
                rows.iter().zip(&samplers).filter(|(row, _)| level == SamplerLevel::Sequence || row.tokens > 0.0);
            let counted: Vec<_> = counted.collect();
            let count: f64 = match level {
                SamplerLevel::Token => counted.iter().map(|(row, _)| row.tokens).sum(),
                SamplerLevel::Sequence => counted.len() as f64,
            };
            let sum: f64 = counted.iter().map(|(_, sampler)| sampler.weight_sum).sum();
            let min = counted.iter().map(|(_, sampler)| sampler.weight_min).reduce(f64::min).unwrap_or(0.0);
            let max = counted.iter().map(|(_, sampler)| sampler.weight_max).fold(0.0, f64::max);
            [min, sum / count.max(1.0), max]
        });
        Some(Self {
            difference_mean: samplers.iter().map(|sampler| sampler.difference_sum).sum::<f64>() / tokens.max(1.0),
            difference_max: samplers.iter().map(|sampler| sampler.difference_max).fold(0.0, f64::max),
            weights,
        })
    }
}

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
        })
    }

    /// Names and values as TRL 1.16 logs them.
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
    /// Mean, smallest and largest length; 0 without completions.
    pub all: [f64; 3],
    /// The same over the completions that ended by themselves; 0 if none did.
    pub terminated: [f64; 3],
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
            all: spread(lengths),
            terminated: spread(&ended),
            clipped_ratio: clipped as f64 / lengths.len().max(1) as f64,
        })
    }

    /// Names and values as TRL 1.16 logs them.
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("completions/mean_length", self.all[0]),
            ("completions/min_length", self.all[1]),
            ("completions/max_length", self.all[2]),
            ("completions/clipped_ratio", self.clipped_ratio),
            ("completions/mean_terminated_length", self.terminated[0]),
            ("completions/min_terminated_length", self.terminated[1]),
            ("completions/max_terminated_length", self.terminated[2]),
        ]
    }
}

/// Mean, smallest, largest.
fn spread(lengths: &[usize]) -> [f64; 3] {
    let sum: usize = lengths.iter().sum();
    let edge = |edge: Option<&usize>| edge.map_or(0.0, |&length| length as f64);
    [sum as f64 / lengths.len().max(1) as f64, edge(lengths.iter().min()), edge(lengths.iter().max())]
}

/// Everything that a step reports, from one device read ([`PolicyMetrics::read`](super::PolicyMetrics::read)).
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// All rows.
    pub policy: PolicySummary,
    /// Rows of the policy in training, and their mean advantage.
    pub students: (PolicySummary, f64),
    /// Rows of other models, and their mean advantage; `None` if there are none.
    pub teachers: Option<(PolicySummary, f64)>,
    /// Rewards of all rows.
    pub rewards: RewardMetrics,
    /// Lengths of the completions; `None` until the caller sets it, since only it knows which were cut off.
    pub completions: Option<CompletionMetrics>,
}

impl StepMetrics {
    /// Joins what the device and the host know.
    ///
    /// # Shapes
    /// - `rows`, `origins`, `advantages`, all `[batch]`, in the same order
    ///
    /// # Errors
    /// [`GrpoError::Shape`] unless the lengths agree.
    pub fn new(
        rows: &[RowMetrics],
        origins: &[RowOrigin],
        advantages: &[f32],
        rewards: RewardMetrics,
        level: RatioLevel,
    ) -> Result<Self, GrpoError> {
        check_shape("origins", &[rows.len()], &[origins.len()])?;
        check_shape("advantages", &[rows.len()], &[advantages.len()])?;
        let of = |wanted: RowOrigin| {
            let picked: Vec<usize> = (0..rows.len()).filter(|&row| origins[row] == wanted).collect();
            let summary = PolicySummary::with_level(picked.iter().map(|&row| &rows[row]), level);
            let sum: f64 = picked.iter().map(|&row| f64::from(advantages[row])).sum();
            (summary, sum / picked.len().max(1) as f64)
        };
        let teachers = of(RowOrigin::Teacher);
        Ok(Self {
            policy: PolicySummary::with_level(rows, level),
            students: of(RowOrigin::Student),
            teachers: (teachers.0.rows > 0).then_some(teachers),
            rewards,
            completions: None,
        })
    }

    /// Names and values: those of TRL 1.16 over all rows; then per origin `student/...` and `teacher/...` with the mean
    /// advantage, ratio, log-probability, clip share and KL.
    pub fn entries(&self) -> Vec<(String, f64)> {
        let mut entries: Vec<(String, f64)> = vec![("loss".into(), self.policy.loss)];
        let named = self.rewards.entries().into_iter().chain(self.policy.entries());
        let named = named.chain(self.completions.iter().flat_map(CompletionMetrics::entries));
        entries.extend(named.map(|(name, value)| (name.to_string(), value)));
        let origins = [("student", Some(self.students)), ("teacher", self.teachers)];
        for (name, (summary, advantage)) in origins.into_iter().filter_map(|(name, of)| of.map(|of| (name, of))) {
            let clipped = summary.clip_fraction_low + summary.clip_fraction_high;
            let values = [
                ("advantage", Some(advantage)),
                ("ratio", Some(summary.mean_ratio)),
                ("log_prob", Some(summary.mean_log_prob)),
                ("clip_ratio", Some(clipped)),
                ("kl", summary.mean_kl),
            ];
            entries.extend(values.into_iter().filter_map(|(key, value)| Some((format!("{name}/{key}"), value?))));
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tokens: f64, ratio: f64, kl: f64) -> RowMetrics {
        RowMetrics {
            loss: 0.5,
            tokens,
            is_excluded: false,
            log_prob: -tokens,
            ratio,
            kl: Some(kl),
            entropy: None,
            clip_low: 1.0,
            clip_high: 0.0,
            sampler: None,
        }
    }

    #[test]
    fn a_summary_weighs_tokens_and_survives_no_rows() {
        let rows = [row(1.0, 1.0, 0.0), row(3.0, 7.0, 2.0)];
        let summary = PolicySummary::new(&rows);
        assert_eq!((summary.loss, summary.rows, summary.tokens), (1.0, 2, 4.0));
        assert_eq!((summary.mean_ratio, summary.mean_kl, summary.mean_entropy), (2.0, Some(0.5), None));
        assert_eq!((summary.clip_fraction_low, summary.mean_log_prob), (0.5, -1.0));
        let by_row = PolicySummary::with_level(&rows, RatioLevel::Sequence);
        assert!((by_row.clip_fraction_low - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(PolicySummary::new(&[]).mean_ratio, 0.0);
    }

    #[test]
    fn origins_are_reported_apart() {
        let rows = [row(1.0, 1.0, 0.0), row(3.0, 7.0, 2.0)];
        let rewards = RewardMetrics::new(&[Some(1.0), Some(0.0)], 2).unwrap();
        let metrics =
            |origins: &[RowOrigin]| StepMetrics::new(&rows, origins, &[0.5, -0.5], rewards, RatioLevel::Token).unwrap();
        let mixed = metrics(&[RowOrigin::Student, RowOrigin::Teacher]);
        let entries = mixed.entries();
        let value = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        assert_eq!((value("student/advantage"), value("teacher/advantage")), (Some(0.5), Some(-0.5)));
        assert_eq!((value("teacher/kl"), value("reward")), (Some(2.0 / 3.0), Some(0.5)));
        let names: std::collections::BTreeSet<_> = entries.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), entries.len());
        assert!(metrics(&[RowOrigin::Student; 2]).teachers.is_none());
        let short = StepMetrics::new(&rows, &[RowOrigin::Student], &[0.0; 2], rewards, RatioLevel::Token);
        assert!(matches!(short, Err(GrpoError::Shape { .. })));
    }

    #[test]
    fn nothing_scored_is_none_and_nothing_sampled_is_zero() {
        let rewards = RewardMetrics::new(&[None, None], 2).unwrap();
        assert_eq!((rewards.mean, rewards.std, rewards.unscored), (None, None, 2));
        assert_eq!(RewardMetrics::new(&[], 2).unwrap().fraction_zero_std, 0.0);
        let completions = CompletionMetrics::new(&[], &[]).unwrap();
        assert_eq!((completions.all, completions.clipped_ratio), ([0.0; 3], 0.0));
        assert!(CompletionMetrics::new(&[1], &[]).is_err());
    }
}
