use burn::tensor::{DType, Tensor};

use crate::{Discriminator, DiscriminatorRows, GailError};

/// `p_student = sigmoid(logit)` of each response: P(written by the student), in `[0, 1]`, `f64` inside.
///
/// # Errors
/// [`GailError::NonFiniteLogit`].
///
/// ```
/// let p_student = ril_gail::p_student(&[0.0, -1e4, 1e4])?;
/// assert_eq!(p_student, [0.5, 0.0, 1.0]);
/// # Ok::<(), ril_gail::GailError>(())
/// ```
pub fn p_student(logits_student_is_high: &[f32]) -> Result<Vec<f32>, GailError> {
    check_finite(logits_student_is_high)?;
    Ok(logits_student_is_high.iter().map(|logit| sigmoid(f64::from(*logit)) as f32).collect())
}

/// Brings `[batch]` logits to the host as `f32`, in one device read.
///
/// # Errors
/// [`GailError::Read`] when the device fails.
pub fn read_logits(logits_student_is_high: Tensor<1>) -> Result<Vec<f32>, GailError> {
    read("logits_student_is_high", logits_student_is_high)
}

/// `p_student` of one batch, `[batch]`: one forward pass, one device read.
///
/// Give a `valid()` view of a trainable model; see [`Discriminator::logits_student_is_high`].
///
/// # Errors
/// [`GailError::Model`], [`GailError::Read`], [`GailError::NonFiniteLogit`].
pub fn score<D: Discriminator>(discriminator: &D, input: &D::Input) -> Result<Vec<f32>, GailError> {
    p_student(&read_logits(logits(discriminator, input)?)?)
}

/// `p_student` of all rows, in their order: [`logits_of_rows`] through [`p_student`].
///
/// # Errors
/// Those of [`logits_of_rows`].
pub fn score_rows<D, R>(discriminator: &D, rows: &R, micro_batch_rows: usize) -> Result<Vec<f32>, GailError>
where
    D: Discriminator,
    R: DiscriminatorRows<Input = D::Input>,
{
    p_student(&logits_of_rows(discriminator, rows, micro_batch_rows)?)
}

/// Logits of all rows, high = student, `[rows]` in their order and all finite: a forward pass for every
/// `micro_batch_rows` rows, **one** device read. What [`SimilarityReward`](crate::SimilarityReward) takes.
///
/// Give a `valid()` view of a trainable model; see [`Discriminator::logits_student_is_high`].
///
/// # Errors
/// Those of [`score`]; [`GailError::Shape`] unless there is one logit per row; [`GailError::Config`] when
/// `micro_batch_rows` is 0.
pub fn logits_of_rows<D, R>(discriminator: &D, rows: &R, micro_batch_rows: usize) -> Result<Vec<f32>, GailError>
where
    D: Discriminator,
    R: DiscriminatorRows<Input = D::Input>,
{
    if micro_batch_rows == 0 {
        return Err(GailError::Config("micro_batch_rows: expected at least 1, got 0".into()));
    }
    let all: Vec<usize> = (0..rows.origins().len()).collect();
    let batches: Vec<Tensor<1>> =
        all.chunks(micro_batch_rows).map(|chunk| row_logits(discriminator, rows, chunk)).collect::<Result<_, _>>()?;
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let logits = read_logits(Tensor::cat(batches, 0))?;
    check_finite(&logits)?;
    Ok(logits)
}

/// The logits of some rows, one each.
pub(crate) fn row_logits<D, R>(discriminator: &D, rows: &R, picked: &[usize]) -> Result<Tensor<1>, GailError>
where
    D: Discriminator,
    R: DiscriminatorRows<Input = D::Input>,
{
    let input = rows.input(picked).map_err(|error| GailError::model("rows")(error.into()))?;
    let logits = logits(discriminator, &input)?;
    GailError::check_rows("logits_student_is_high", picked.len(), logits.dims()[0])?;
    Ok(logits)
}

fn logits<D: Discriminator>(discriminator: &D, input: &D::Input) -> Result<Tensor<1>, GailError> {
    discriminator.logits_student_is_high(input).map_err(|error| GailError::model("discriminator")(error.into()))
}

pub(crate) fn read(what: &'static str, tensor: Tensor<1>) -> Result<Vec<f32>, GailError> {
    let values = tensor.inner().cast(DType::F32).try_into_vec_as::<f32>();
    values.map_err(|error| GailError::Read { what, source: error.into() })
}

pub(crate) fn check_finite(logits: &[f32]) -> Result<(), GailError> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(row) => Err(GailError::NonFiniteLogit { row, value: logits[row] }),
        None => Ok(()),
    }
}

pub(crate) fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// `log(1 + e^x)` without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_student_rises_with_the_logit_and_refuses_nan() {
        let p = p_student(&[-2.0, -1.0, 0.0, 1.0, 2.0]).expect("finite");
        assert!(p.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((p[3] - 0.731_058_6).abs() < 1e-7);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = p_student(&[0.0, value]).expect_err("not finite");
            assert!(matches!(error, GailError::NonFiniteLogit { row: 1, .. }));
        }
    }
}
