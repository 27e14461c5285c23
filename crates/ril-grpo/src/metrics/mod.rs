//! Sums per row, on the device, and their means on the host after one read.

mod samples;
mod step;
mod summary;

use burn::tensor::Tensor;

pub use self::samples::{CompletionMetrics, RewardMetrics, Spread};
pub use self::step::{OriginSummary, StepMetrics};
pub use self::summary::{PolicySummary, SamplerSummary};
use crate::batch::Sampler;
use crate::sampler::sampler_difference;
use crate::{GrpoError, PolicyBatch, SamplerLevel};

/// Sums over the trained tokens of each row, without autodiff, on the device of the loss; every tensor is `[batch]`.
///
/// Rows keep their order, so that a recipe can report students and teachers apart.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    /// Contribution of the row to the loss; the rows of all micro-batches sum to the loss of the batch.
    pub row_loss: Tensor<1>,
    /// Number of trained tokens.
    pub row_tokens: Tensor<1>,
    /// 1 where the row is [`RowRatio::Excluded`](crate::RowRatio::Excluded), else 0.
    pub row_is_excluded: Tensor<1>,
    /// Sum of `log_probs`, nats.
    pub row_log_prob: Tensor<1>,
    /// Sum of the importance ratios, each over the row's own denominator: `pi` itself in a row that is
    /// [`RowRatio::BehaviourOne`](crate::RowRatio::BehaviourOne), before any shaping; `pi / pi_old` in an excluded row,
    /// where it trains nothing.
    pub row_ratio: Tensor<1>,
    /// Number of tokens with `A < 0` whose ratio is clipped from below (GMPO: clipped at all). 0 in a row without a
    /// clip: [`RowRatio::BehaviourOne`](crate::RowRatio::BehaviourOne), excluded.
    pub row_clip_low: Tensor<1>,
    /// Number of tokens with `A > 0` whose ratio is clipped from above (GMPO: clipped at all). 0 as the one before.
    pub row_clip_high: Tensor<1>,
    /// Sum of the configured KL, nats; `None` if the batch holds no reference.
    pub row_kl: Option<Tensor<1>>,
    /// Sum of the entropies, nats; `None` if the scores hold none.
    pub row_entropy: Option<Tensor<1>>,
    /// How far the sampler is; `None` if the batch holds no sampler log-probabilities.
    pub sampler: Option<SamplerColumns>,
}

/// Sampler against trainer, per row, every tensor `[batch]`.
#[derive(Debug, Clone)]
pub struct SamplerColumns {
    /// Level of the correction; `None` without one.
    pub level: Option<SamplerLevel>,
    /// Number of trained tokens that the sampler gave a log-probability for.
    pub tokens: Tensor<1>,
    /// Sum of `|policy - sampler|`, nats; the policy's are the old ones, or those given with the sampler's.
    pub difference_sum: Tensor<1>,
    /// Largest `|policy - sampler|`, nats.
    pub difference_max: Tensor<1>,
    /// Sum of the correction's weights over tokens, or the row's weight; 0 without a correction, like the next two.
    pub weight_sum: Tensor<1>,
    /// Smallest weight.
    pub weight_min: Tensor<1>,
    /// Largest weight.
    pub weight_max: Tensor<1>,
}

impl SamplerColumns {
    pub(crate) fn new(batch: &PolicyBatch, sampler: &Sampler) -> Self {
        let padding = batch.padding();
        let column = |t: Tensor<2>| t.squeeze_dim::<1>(1);
        let missing = padding.clone().bool_or(sampler.log_probs.clone().is_nan());
        let policy = sampler.policy_log_probs.clone();
        let difference = sampler_difference(policy, sampler.log_probs.clone(), padding.clone()).abs();
        let level = sampler.correction.map(|correction| correction.level);
        // An empty table has no largest value.
        let edge = |table: Tensor<2>, edge: fn(Tensor<2>) -> Tensor<2>| {
            if batch.is_empty() { table.sum_dim(1) } else { edge(table) }
        };
        let (min, max) = (|t: Tensor<2>| t.min_dim(1), |t: Tensor<2>| t.max_dim(1));
        let [weight_sum, weight_min, weight_max] = match (&sampler.weights, level) {
            (Some(weights), Some(SamplerLevel::Token)) => {
                let filled = |value: f64| weights.clone().mask_fill(padding.clone(), value);
                let least = edge(filled(f64::from(f32::MAX)), min);
                [filled(0.0).sum_dim(1), least, edge(filled(0.0), max)].map(column)
            }
            (Some(weights), _) => [weights, weights, weights].map(|weights| column(weights.clone())),
            (None, _) => {
                let none = Tensor::zeros([batch.dims()[0]], &padding.device());
                [none.clone(), none.clone(), none]
            }
        };
        Self {
            level,
            tokens: column(missing.bool_not().float().sum_dim(1)),
            difference_sum: column(difference.clone().sum_dim(1)),
            difference_max: column(edge(difference, max)),
            weight_sum,
            weight_min,
            weight_max,
        }
    }

    fn columns(self) -> [Tensor<1>; 6] {
        [self.tokens, self.difference_sum, self.difference_max, self.weight_sum, self.weight_min, self.weight_max]
    }

    fn from_columns(level: Option<SamplerLevel>, columns: [Tensor<1>; 6]) -> Self {
        let [tokens, difference_sum, difference_max, weight_sum, weight_min, weight_max] = columns;
        Self { level, tokens, difference_sum, difference_max, weight_sum, weight_min, weight_max }
    }
}

/// One row of [`PolicyMetrics`] on the host; sums over its trained tokens, not means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowMetrics {
    /// Contribution of the row to the loss.
    pub loss: f64,
    /// Number of trained tokens.
    pub tokens: f64,
    /// Whether the row has no policy term ([`RowRatio::Excluded`](crate::RowRatio::Excluded)).
    pub is_excluded: bool,
    /// Sum of the log-probabilities, nats.
    pub log_prob: f64,
    /// Sum of the importance ratios.
    pub ratio: f64,
    /// Number of tokens clipped from below.
    pub clip_low: f64,
    /// Number of tokens clipped from above.
    pub clip_high: f64,
    /// Sum of the KL, nats; `None` without a reference.
    pub kl: Option<f64>,
    /// Sum of the entropies, nats; `None` without entropies.
    pub entropy: Option<f64>,
    /// Sampler against trainer; `None` without sampler log-probabilities.
    pub sampler: Option<SamplerRow>,
}

/// One row of [`SamplerColumns`] on the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerRow {
    /// Level of the correction; `None` without one.
    pub level: Option<SamplerLevel>,
    /// Number of trained tokens that the sampler gave a log-probability for.
    pub tokens: f64,
    /// Sum of `|policy - sampler|`, nats.
    pub difference_sum: f64,
    /// Largest `|policy - sampler|`, nats.
    pub difference_max: f64,
    /// Sum of the correction's weights over tokens, or the row's weight.
    pub weight_sum: f64,
    /// Smallest weight.
    pub weight_min: f64,
    /// Largest weight.
    pub weight_max: f64,
}

impl PolicyMetrics {
    /// Joins the metrics of micro-batches, in order, without reading anything down.
    ///
    /// `None` for an empty list. KL, entropy and sampler are kept only if every part has them.
    pub fn cat(parts: &[Self]) -> Option<Self> {
        let first = parts.first()?;
        let join = |field: &dyn Fn(&Self) -> Tensor<1>| Tensor::cat(parts.iter().map(field).collect(), 0);
        let optional = |field: &dyn Fn(&Self) -> Option<Tensor<1>>| {
            let columns: Option<Vec<_>> = parts.iter().map(field).collect();
            columns.map(|columns| Tensor::cat(columns, 0))
        };
        let samplers: Option<Vec<[Tensor<1>; 6]>> =
            parts.iter().map(|part| part.sampler.clone().map(SamplerColumns::columns)).collect();
        let level = first.sampler.as_ref().and_then(|sampler| sampler.level);
        let sampler = samplers.map(|samplers| {
            let column = |i: usize| Tensor::cat(samplers.iter().map(|columns| columns[i].clone()).collect(), 0);
            SamplerColumns::from_columns(level, std::array::from_fn(column))
        });
        Some(Self {
            row_loss: join(&|m| m.row_loss.clone()),
            row_tokens: join(&|m| m.row_tokens.clone()),
            row_is_excluded: join(&|m| m.row_is_excluded.clone()),
            row_log_prob: join(&|m| m.row_log_prob.clone()),
            row_ratio: join(&|m| m.row_ratio.clone()),
            row_clip_low: join(&|m| m.row_clip_low.clone()),
            row_clip_high: join(&|m| m.row_clip_high.clone()),
            row_kl: optional(&|m| m.row_kl.clone()),
            row_entropy: optional(&|m| m.row_entropy.clone()),
            sampler,
        })
    }

    /// Reads every row down in one transfer. It waits for the device: call it at the end of a step.
    ///
    /// # Errors
    /// [`GrpoError::DeviceRead`].
    pub fn read(self) -> Result<Vec<RowMetrics>, GrpoError> {
        let (has_kl, has_entropy) = (self.row_kl.is_some(), self.row_entropy.is_some());
        let level = self.sampler.as_ref().map(|sampler| sampler.level);
        let rows = self.row_loss.dims()[0];
        if rows == 0 {
            return Ok(Vec::new()); // Burn cannot stack nothing
        }
        let mut columns = vec![
            self.row_loss,
            self.row_tokens,
            self.row_is_excluded,
            self.row_log_prob,
            self.row_ratio,
            self.row_clip_low,
            self.row_clip_high,
        ];
        columns.extend(self.row_kl);
        columns.extend(self.row_entropy);
        columns.extend(self.sampler.into_iter().flat_map(SamplerColumns::columns));
        let what = "policy metrics";
        let data =
            Tensor::stack::<2>(columns, 0).try_into_data().map_err(|source| GrpoError::DeviceRead { what, source })?;
        let values: Vec<f64> = data.iter::<f64>().collect();
        let row = |row: usize| {
            let mut column = values.iter().skip(row).step_by(rows).copied();
            let mut next = || column.next().unwrap_or(f64::NAN);
            RowMetrics {
                loss: next(),
                tokens: next(),
                is_excluded: next() != 0.0,
                log_prob: next(),
                ratio: next(),
                clip_low: next(),
                clip_high: next(),
                kl: has_kl.then(&mut next),
                entropy: has_entropy.then(&mut next),
                sampler: level.map(|level| SamplerRow {
                    level,
                    tokens: next(),
                    difference_sum: next(),
                    difference_max: next(),
                    weight_sum: next(),
                    weight_min: next(),
                    weight_max: next(),
                }),
            }
        };
        Ok((0..rows).map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn metrics(first: f32, row_kl: Option<f32>) -> PolicyMetrics {
        let device = Device::flex();
        let column = |k: f32| Tensor::<1>::from_floats([first + k, first + k + 100.0], &device);
        PolicyMetrics {
            row_loss: column(0.0),
            row_tokens: column(1.0),
            row_is_excluded: Tensor::from_floats([0.0, 1.0], &device),
            row_log_prob: column(2.0),
            row_ratio: column(3.0),
            row_kl: row_kl.map(column),
            row_clip_low: column(5.0),
            row_clip_high: column(6.0),
            row_entropy: Some(column(7.0)),
            sampler: Some(SamplerColumns::from_columns(None, [8.0, 9.0, 10.0, 11.0, 12.0, 13.0].map(column))),
        }
    }

    #[test]
    fn every_column_is_read_into_its_own_field() {
        let rows = metrics(10.0, Some(4.0)).read().unwrap();
        let first = RowMetrics {
            loss: 10.0,
            tokens: 11.0,
            is_excluded: false,
            log_prob: 12.0,
            ratio: 13.0,
            kl: Some(14.0),
            clip_low: 15.0,
            clip_high: 16.0,
            entropy: Some(17.0),
            sampler: Some(SamplerRow {
                level: None,
                tokens: 18.0,
                difference_sum: 19.0,
                difference_max: 20.0,
                weight_sum: 21.0,
                weight_min: 22.0,
                weight_max: 23.0,
            }),
        };
        assert_eq!(rows[0], first);
        assert_eq!((rows.len(), rows[1].loss, rows[1].kl), (2, 110.0, Some(114.0)));
        assert!(rows[1].is_excluded);
        assert_eq!(rows[1].sampler.unwrap().weight_max, 123.0);
        let without = metrics(10.0, None).read().unwrap()[0];
        assert_eq!((without.kl, without.entropy), (None, Some(17.0)));
    }

    #[test]
    fn joined_parts_keep_the_order_of_rows() {
        let parts = [metrics(0.0, Some(4.0)), metrics(10.0, Some(4.0))];
        let rows = PolicyMetrics::cat(&parts).unwrap().read().unwrap();
        let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
        assert_eq!(losses, [0.0, 100.0, 10.0, 110.0]);
        assert_eq!(rows[2].sampler.unwrap().tokens, 18.0);
        let mixed = PolicyMetrics::cat(&[metrics(0.0, Some(4.0)), metrics(0.0, None)]);
        assert!(mixed.unwrap().row_kl.is_none());
        assert!(PolicyMetrics::cat(&[]).is_none());
    }
}
