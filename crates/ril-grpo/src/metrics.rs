//! What a step reports beside its loss: sums per row, on the device until one read at the end.

use burn::tensor::Tensor;

use crate::GrpoError;

/// Sums over the trained tokens of each row, without autodiff, on the device of the loss; every tensor is `[batch]`.
///
/// Rows keep their order, so that a recipe can report students and teachers apart.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    /// Contribution of the row to the loss; the rows of all micro-batches sum to the loss of the batch.
    pub row_loss: Tensor<1>,
    /// Number of trained tokens.
    pub row_tokens: Tensor<1>,
    /// Sum of `log_probs`, nats.
    pub row_log_prob: Tensor<1>,
    /// Sum of the importance ratios.
    pub row_ratio: Tensor<1>,
    /// Sum of the configured KL estimator, nats; `None` if the batch holds no reference.
    pub row_kl: Option<Tensor<1>>,
    /// Number of tokens with `A < 0` and `ratio < 1 - epsilon_low`.
    pub row_clip_low: Tensor<1>,
    /// Number of tokens with `A > 0` and `ratio > 1 + epsilon_high`.
    pub row_clip_high: Tensor<1>,
}

/// One row of [`PolicyMetrics`] on the host; sums over its trained tokens, not means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowMetrics {
    /// Contribution of the row to the loss.
    pub loss: f64,
    /// Number of trained tokens.
    pub tokens: f64,
    /// Sum of the log-probabilities, nats.
    pub log_prob: f64,
    /// Sum of the importance ratios.
    pub ratio: f64,
    /// Sum of the KL estimator, nats; `None` without a reference.
    pub kl: Option<f64>,
    /// Number of tokens clipped from below.
    pub clip_low: f64,
    /// Number of tokens clipped from above.
    pub clip_high: f64,
}

impl PolicyMetrics {
    /// Joins the metrics of micro-batches, in order, without reading anything down.
    ///
    /// `None` for an empty list. The KL is kept only if every part has it.
    pub fn cat(parts: &[Self]) -> Option<Self> {
        let join =
            |field: fn(&Self) -> &Tensor<1>| Tensor::cat(parts.iter().map(|part| field(part).clone()).collect(), 0);
        if parts.is_empty() {
            return None;
        }
        let kls: Option<Vec<_>> = parts.iter().map(|part| part.row_kl.clone()).collect();
        Some(Self {
            row_loss: join(|m| &m.row_loss),
            row_tokens: join(|m| &m.row_tokens),
            row_log_prob: join(|m| &m.row_log_prob),
            row_ratio: join(|m| &m.row_ratio),
            row_kl: kls.map(|kls| Tensor::cat(kls, 0)),
            row_clip_low: join(|m| &m.row_clip_low),
            row_clip_high: join(|m| &m.row_clip_high),
        })
    }

    /// Reads every row down in one transfer. It waits for the device: call it at the end of a step.
    ///
    /// # Errors
    /// [`GrpoError::DeviceRead`].
    pub fn read(self) -> Result<Vec<RowMetrics>, GrpoError> {
        let has_kl = self.row_kl.is_some();
        let rows = self.row_loss.dims()[0];
        let mut columns = vec![
            self.row_loss,
            self.row_tokens,
            self.row_log_prob,
            self.row_ratio,
            self.row_clip_low,
            self.row_clip_high,
        ];
        columns.extend(self.row_kl);
        let what = "policy metrics";
        let data =
            Tensor::stack::<2>(columns, 0).try_into_data().map_err(|source| GrpoError::DeviceRead { what, source })?;
        let values: Vec<f64> = data.iter::<f64>().collect();
        let row = |i: usize| RowMetrics {
            loss: values[i],
            tokens: values[rows + i],
            log_prob: values[2 * rows + i],
            ratio: values[3 * rows + i],
            clip_low: values[4 * rows + i],
            clip_high: values[5 * rows + i],
            kl: has_kl.then(|| values[6 * rows + i]),
        };
        Ok((0..rows).map(row).collect())
    }
}

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
    /// Share of the tokens clipped from below, in `[0, 1]`.
    pub clip_fraction_low: f64,
    /// Share of the tokens clipped from above, in `[0, 1]`.
    pub clip_fraction_high: f64,
}

impl PolicySummary {
    /// Token-weighted means of the given rows: of all, or of one origin only.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a RowMetrics>) -> Self {
        let rows: Vec<&RowMetrics> = rows.into_iter().collect();
        let sum = |field: fn(&RowMetrics) -> f64| rows.iter().map(|row| field(row)).sum::<f64>();
        let tokens = sum(|row| row.tokens);
        let mean = |total: f64| total / tokens.max(1.0);
        let kl: Option<f64> = rows.iter().map(|row| row.kl).sum();
        Self {
            loss: sum(|row| row.loss),
            rows: rows.len(),
            tokens,
            mean_log_prob: mean(sum(|row| row.log_prob)),
            mean_ratio: mean(sum(|row| row.ratio)),
            mean_kl: kl.map(mean),
            clip_fraction_low: mean(sum(|row| row.clip_low)),
            clip_fraction_high: mean(sum(|row| row.clip_high)),
        }
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
            row_log_prob: column(2.0),
            row_ratio: column(3.0),
            row_kl: row_kl.map(column),
            row_clip_low: column(5.0),
            row_clip_high: column(6.0),
        }
    }

    #[test]
    fn every_column_is_read_into_its_own_field() {
        let rows = metrics(10.0, Some(4.0)).read().unwrap();
        let first = RowMetrics {
            loss: 10.0,
            tokens: 11.0,
            log_prob: 12.0,
            ratio: 13.0,
            kl: Some(14.0),
            clip_low: 15.0,
            clip_high: 16.0,
        };
        assert_eq!(rows[0], first);
        assert_eq!((rows.len(), rows[1].loss, rows[1].kl), (2, 110.0, Some(114.0)));
        assert_eq!(metrics(10.0, None).read().unwrap()[0].kl, None);
    }

    #[test]
    fn joined_parts_keep_the_order_of_rows() {
        let parts = [metrics(0.0, Some(4.0)), metrics(10.0, Some(4.0))];
        let rows = PolicyMetrics::cat(&parts).unwrap().read().unwrap();
        let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
        assert_eq!(losses, [0.0, 100.0, 10.0, 110.0]);
        let mixed = PolicyMetrics::cat(&[metrics(0.0, Some(4.0)), metrics(0.0, None)]);
        assert!(mixed.unwrap().row_kl.is_none());
        assert!(PolicyMetrics::cat(&[]).is_none());
    }

    #[test]
    fn a_summary_weighs_tokens_and_survives_no_rows() {
        let row = |tokens: f64, ratio: f64, kl: f64| RowMetrics {
            loss: 0.5,
            tokens,
            log_prob: -tokens,
            ratio,
            kl: Some(kl),
            clip_low: 1.0,
            clip_high: 0.0,
        };
        let summary = PolicySummary::new(&[row(1.0, 1.0, 0.0), row(3.0, 7.0, 2.0)]);
        assert_eq!((summary.loss, summary.rows, summary.tokens), (1.0, 2, 4.0));
        assert_eq!((summary.mean_ratio, summary.mean_kl), (2.0, Some(0.5)));
        assert_eq!((summary.clip_fraction_low, summary.mean_log_prob), (0.5, -1.0));
        assert_eq!(PolicySummary::new(&[]).mean_ratio, 0.0);
    }
}
