use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use crate::{Discriminator, GailError, ScalarHead, SequenceEncoder};

/// A language model as a discriminator: an encoder, and a scalar head on the **last valid token** of each row.
///
/// Source: RIL, arXiv 2510.19307: the student's architecture and weights, its language-model head replaced
/// by a linear `d -> 1`. A burn [`Module`], so that an optimizer can step it and `valid()` gives the no-grad view.
///
/// ```
/// use std::convert::Infallible;
/// use burn::{module::Module, tensor::{Device, Tensor}};
/// use ril_gail::{Discriminator, LlmDiscriminator, ScalarHeadConfig, SequenceEncoder};
///
/// /// Hidden states computed elsewhere, with the length of each row.
/// #[derive(Module, Debug)]
/// struct Given;
///
/// impl SequenceEncoder for Given {
///     type Input = (Tensor<3>, Vec<usize>);
///     type Error = Infallible;
///     fn encode(&self, input: &Self::Input) -> Result<Tensor<3>, Infallible> {
///         Ok(input.0.clone())
///     }
///     fn last_valid_positions(&self, input: &Self::Input) -> Vec<usize> {
///         input.1.iter().map(|length| length - 1).collect()
///     }
/// }
///
/// let device = Device::flex();
/// let discriminator = LlmDiscriminator::new(Given, ScalarHeadConfig::new(4).init(&device));
/// let logits = discriminator.logits_student_is_high(&(Tensor::ones([2, 3, 4], &device), vec![3, 1]))?;
/// assert_eq!(logits.dims(), [2]);
/// # Ok::<(), ril_gail::GailError>(())
/// ```
#[derive(Module, Debug)]
pub struct LlmDiscriminator<E> {
    encoder: E,
    head: ScalarHead,
}

impl<E: SequenceEncoder> LlmDiscriminator<E> {
    /// A discriminator from an encoder and a head of the same width.
    pub fn new(encoder: E, head: ScalarHead) -> Self {
        Self { encoder, head }
    }

    /// The encoder within.
    pub fn encoder(&self) -> &E {
        &self.encoder
    }

    /// Encoder and head, to save or rebuild them apart.
    pub fn into_parts(self) -> (E, ScalarHead) {
        (self.encoder, self.head)
    }
}

impl<E: SequenceEncoder> Discriminator for LlmDiscriminator<E> {
    type Input = E::Input;
    type Error = GailError;

    fn logits_student_is_high(&self, input: &Self::Input) -> Result<Tensor<1>, GailError> {
        let hidden = self.encoder.encode(input).map_err(|error| GailError::model("encoder")(error.into()))?;
        let last = last_valid_states(hidden, &self.encoder.last_valid_positions(input))?;
        Ok(self.head.forward(last))
    }

    fn encoder_gradient_norm_squared(&self) -> Option<Tensor<1>> {
        Some(self.head.weight_norm_squared())
    }
}

/// `[batch, seq, hidden]` to `[batch, hidden]`: the state at each row's position. Picks, never multiplies by a mask, so
/// that NaN at padding stays there.
fn last_valid_states(hidden: Tensor<3>, positions: &[usize]) -> Result<Tensor<2>, GailError> {
    let [batch, seq, width] = hidden.dims();
    GailError::check_rows("last_valid_positions", batch, positions.len())?;
    if let Some(row) = positions.iter().position(|&position| position >= seq) {
        return Err(GailError::Position { row, seq, position: positions[row] });
    }
    let flat: Vec<i64> = positions.iter().enumerate().map(|(row, position)| (row * seq + position) as i64).collect();
    let device = hidden.device().inner();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(flat, [batch]), &device);
    Ok(hidden.reshape([batch * seq, width]).select(0, indices))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn hidden(device: &Device) -> Tensor<3> {
        Tensor::<1, Int>::arange(0..24, device).float().reshape([2, 3, 4])
    }

    #[test]
    fn each_row_gives_its_own_last_valid_state() {
        let last = last_valid_states(hidden(&Device::flex()), &[2, 0]).expect("inside");
        assert_eq!(last.try_into_vec_as::<f32>().expect("readable"), [8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]);
    }

    #[test]
    fn nan_at_padding_reaches_neither_logits_nor_gradients() {
        let device = Device::flex().autodiff();
        let head = crate::ScalarHeadConfig::new(4).init(&device);
        let mut values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        values[16..].fill(f32::NAN);
        let hidden = Tensor::<3>::from_data(TensorData::new(values, [2, 3, 4]), &device).require_grad();
        let logits = head.forward(last_valid_states(hidden.clone(), &[2, 0]).expect("inside"));
        assert!(logits.to_data().iter::<f32>().all(f32::is_finite));
        let gradients = logits.sum().backward();
        let gradient = hidden.grad(&gradients).expect("tracked").try_into_vec_as::<f32>().expect("readable");
        let is_read = |at: usize| (8..16).contains(&at);
        assert!(gradient.iter().enumerate().all(|(at, value)| value.is_finite() && (*value != 0.0) == is_read(at)));
    }

    #[test]
    fn positions_outside_are_refused() {
        let device = Device::flex();
        let outside = last_valid_states(hidden(&device), &[2, 3]).expect_err("three tokens").to_string();
        assert_eq!(outside, "last valid position of row 1: expected less than 3, got 3");
        assert!(matches!(last_valid_states(hidden(&device), &[2]), Err(GailError::Shape { .. })));
    }
}
