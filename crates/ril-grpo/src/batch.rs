//! What the loss needs besides the current log-probabilities, checked once.

use std::ops::Range;

use burn::tensor::{Bool, DType, Tensor};

use crate::GrpoError;
use crate::error::check_shape;

/// Sizes of the *whole* batch that every micro-batch divides by.
///
/// Add the totals of several batches (other devices, other sequence widths) to let their losses add up too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossTotals {
    /// Number of rows, rows without trained tokens included.
    pub sequences: usize,
    /// Number of trained tokens.
    pub tokens: usize,
}

impl LossTotals {
    /// Totals of a host-side mask, row-major `[sequences, seq]`, true = trained token.
    pub fn from_mask(completion_mask: &[bool], sequences: usize) -> Self {
        let tokens = completion_mask.iter().filter(|&&trained| trained).count();
        Self { sequences, tokens }
    }
}

impl std::ops::Add for LossTotals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { sequences: self.sequences + other.sequences, tokens: self.tokens + other.tokens }
    }
}

/// Constants of one optimisation step: behaviour and reference log-probabilities, advantages, mask, totals.
///
/// Shapes are checked on construction; everything is stripped of autodiff and kept in `f32` on the device.
/// Content under a false mask is arbitrary (may be NaN).
#[derive(Debug, Clone)]
pub struct PolicyBatch {
    old_log_probs: Tensor<2>,
    ref_log_probs: Option<Tensor<2>>,
    advantages: Tensor<1>,
    padding: Tensor<2, Bool>,
    totals: LossTotals,
}

impl PolicyBatch {
    /// Checks the shapes and counts the trained tokens with one read of the mask from the device.
    ///
    /// # Shapes
    /// - `old_log_probs`, `ref_log_probs`: `[batch, seq]`, nats; the reference is needed when `beta` is not 0, and
    ///   gives the KL metric otherwise
    /// - `advantages`: `[batch]`, broadcast over the tokens of a row
    /// - `completion_mask`: `[batch, seq]`, true = trained token
    ///
    /// # Errors
    /// [`GrpoError::Shape`], [`GrpoError::DeviceRead`].
    pub fn new(
        old_log_probs: Tensor<2>,
        ref_log_probs: Option<Tensor<2>>,
        advantages: Tensor<1>,
        completion_mask: Tensor<2, Bool>,
    ) -> Result<Self, GrpoError> {
        let what = "completion_mask";
        let data = completion_mask.clone().try_into_data().map_err(|source| GrpoError::DeviceRead { what, source })?;
        let host: Vec<bool> = data.iter::<bool>().collect();
        let totals = LossTotals::from_mask(&host, completion_mask.dims()[0]);
        Self::with_totals(old_log_probs, ref_log_probs, advantages, completion_mask, totals)
    }

    /// As [`PolicyBatch::new`] with totals known on the host: reads nothing from the device.
    ///
    /// `totals` may cover more rows than these, when the step spans several batches.
    ///
    /// # Errors
    /// [`GrpoError::Shape`]; [`GrpoError::Totals`] if `totals` counts fewer sequences than there are rows.
    pub fn with_totals(
        old_log_probs: Tensor<2>,
        ref_log_probs: Option<Tensor<2>>,
        advantages: Tensor<1>,
        completion_mask: Tensor<2, Bool>,
        totals: LossTotals,
    ) -> Result<Self, GrpoError> {
        let shape = completion_mask.dims();
        let [rows, _] = shape;
        check_shape("old_log_probs", &shape, &old_log_probs.dims())?;
        if let Some(ref_log_probs) = &ref_log_probs {
            check_shape("ref_log_probs", &shape, &ref_log_probs.dims())?;
        }
        check_shape("advantages", &[rows], &advantages.dims())?;
        if totals.sequences < rows {
            let sequences = totals.sequences;
            return Err(GrpoError::Totals { rows, sequences });
        }
        Ok(Self {
            old_log_probs: old_log_probs.inner().cast(DType::F32),
            ref_log_probs: ref_log_probs.map(|t| t.inner().cast(DType::F32)),
            advantages: advantages.inner().cast(DType::F32),
            padding: completion_mask.inner().bool_not(),
            totals,
        })
    }

    /// The micro-batch of some rows. It keeps the totals, so that losses and gradients of a partition add up to those
    /// of the whole batch.
    ///
    /// # Errors
    /// [`GrpoError::RowRange`] if the range is empty or leaves the batch.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self, GrpoError> {
        let total = self.dims()[0];
        if rows.start >= rows.end || rows.end > total {
            let Range { start, end } = rows;
            return Err(GrpoError::RowRange { rows: total, start, end });
        }
        let cut = |tensor: &Tensor<2>| tensor.clone().slice_dim(0, rows.clone());
        Ok(Self {
            old_log_probs: cut(&self.old_log_probs),
            ref_log_probs: self.ref_log_probs.as_ref().map(cut),
            advantages: self.advantages.clone().slice_dim(0, rows.clone()),
            padding: self.padding.clone().slice_dim(0, rows),
            totals: self.totals,
        })
    }

    /// `[batch, seq]`.
    pub fn dims(&self) -> [usize; 2] {
        self.padding.dims()
    }

    /// Totals of the whole batch, also in a micro-batch.
    pub fn totals(&self) -> LossTotals {
        self.totals
    }

    /// Log-probabilities under the behaviour policy, `[batch, seq]`, nats.
    pub fn old_log_probs(&self) -> Tensor<2> {
        self.old_log_probs.clone()
    }

    /// Log-probabilities under the frozen reference policy, `[batch, seq]`, nats.
    pub fn ref_log_probs(&self) -> Option<Tensor<2>> {
        self.ref_log_probs.clone()
    }

    /// Advantages, `[batch]`.
    pub fn advantages(&self) -> Tensor<1> {
        self.advantages.clone()
    }

    /// True where a token is trained, `[batch, seq]`.
    pub fn completion_mask(&self) -> Tensor<2, Bool> {
        self.padding.clone().bool_not()
    }

    /// True where a token is not trained, `[batch, seq]`.
    pub(crate) fn padding(&self) -> Tensor<2, Bool> {
        self.padding.clone()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn mask(rows: [[bool; 3]; 2]) -> Tensor<2, Bool> {
        Tensor::from_data(rows, &Device::flex())
    }

    fn zeros(shape: [usize; 2]) -> Tensor<2> {
        Tensor::zeros(shape, &Device::flex())
    }

    #[test]
    fn totals_come_from_the_whole_batch_and_survive_a_split() {
        let mask = mask([[true, true, false], [true, false, false]]);
        let advantages = Tensor::zeros([2], &Device::flex());
        let batch = PolicyBatch::new(zeros([2, 3]), None, advantages, mask).unwrap();
        let totals = LossTotals { sequences: 2, tokens: 3 };
        assert_eq!(batch.totals(), totals);
        let part = batch.rows(1..2).unwrap();
        assert_eq!((part.dims(), part.totals()), ([1, 3], totals));
        let host = [true, true, false, true, false, false];
        assert_eq!(LossTotals::from_mask(&host, 2), totals);
        assert_eq!((totals + totals).tokens, 6);
    }

    #[test]
    fn rows_outside_the_batch_are_an_error() {
        let advantages = Tensor::zeros([2], &Device::flex());
        let batch = PolicyBatch::new(zeros([2, 3]), None, advantages, mask([[true; 3]; 2]));
        let batch = batch.unwrap();
        for (start, end) in [(0, 3), (1, 1), (2, 1)] {
            let error = batch.rows(start..end).unwrap_err();
            assert!(matches!(error, GrpoError::RowRange { rows: 2, .. }));
        }
    }

    #[test]
    fn wrong_shapes_are_named() {
        let flex = Device::flex();
        let build = |old: [usize; 2], reference: [usize; 2], advantages: usize| {
            let advantages = Tensor::zeros([advantages], &flex);
            let mask = mask([[true; 3]; 2]);
            PolicyBatch::new(zeros(old), Some(zeros(reference)), advantages, mask)
        };
        assert!(build([2, 3], [2, 3], 2).is_ok());
        for (result, name) in [
            (build([2, 4], [2, 3], 2), "old_log_probs"),
            (build([2, 3], [1, 3], 2), "ref_log_probs"),
            (build([2, 3], [2, 3], 1), "advantages"),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.starts_with(name), "{message}");
        }
        let totals = LossTotals { sequences: 1, tokens: 6 };
        let advantages = Tensor::zeros([2], &flex);
        let mask = mask([[true; 3]; 2]);
        let error = PolicyBatch::with_totals(zeros([2, 3]), None, advantages, mask, totals);
        assert!(matches!(error.unwrap_err(), GrpoError::Totals { rows: 2, sequences: 1 }));
    }
}
