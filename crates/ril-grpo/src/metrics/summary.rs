//! Means of some rows, under the names that TRL logs them by.

use super::{RowMetrics, Spread};
use crate::{RatioLevel, SamplerLevel};

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
    /// Mean of `|policy - sampler|` over tokens, nats.
    pub difference_mean: f64,
    /// Largest `|policy - sampler|` of a token, nats.
    pub difference_max: f64,
    /// Weights of the correction, over tokens or rows; `None` without a correction.
    pub weights: Option<Spread>,
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

    /// Names and values as TRL 1.16 logs them.
    ///
    /// - `clip_ratio/low_mean`, `clip_ratio/low_min`, `clip_ratio/high_mean`, `clip_ratio/high_max`: shares in `[0, 1]`,
    ///   the fields `clip_...`
    /// - `clip_ratio/region_mean`: share clipped on either side
    /// - `kl`, `entropy`: nats per token; absent where the field is `None`
    /// - `sampling/sampling_logp_difference/mean`, `.../max`: nats; absent without a sampler, as the next
    /// - `sampling/importance_sampling_ratio/min`, `.../mean`, `.../max`: weights, without unit; absent without a
    ///   correction
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
            if let Some(weights) = sampler.weights {
                entries.push(("sampling/importance_sampling_ratio/min", weights.min));
                entries.push(("sampling/importance_sampling_ratio/mean", weights.mean));
                entries.push(("sampling/importance_sampling_ratio/max", weights.max));
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
            Spread { mean: sum / count.max(1.0), min, max }
        });
        Some(Self {
            difference_mean: samplers.iter().map(|sampler| sampler.difference_sum).sum::<f64>() / tokens.max(1.0),
            difference_max: samplers.iter().map(|sampler| sampler.difference_max).fold(0.0, f64::max),
            weights,
        })
    }
}

#[cfg(test)]
pub(in crate::metrics) mod tests {
    use super::*;

    pub(in crate::metrics) fn row(tokens: f64, ratio: f64, kl: f64) -> RowMetrics {
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
}
