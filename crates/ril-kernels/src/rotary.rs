//! Rotary positions in the half-split convention of the Qwen and Llama families (arXiv 2104.09864).

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Device, Tensor, TensorData};

use crate::flex::{contiguous, for_rows, is_fused, values, values_mut};
use crate::{simd, tape};

/// Cosine and sine of the angle of each token and pair of dimensions, `[tokens, head_dim / 2]` each.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RotaryTable {
    /// From angles `[tokens, head_dim / 2]`, row-major, on the host.
    #[must_use]
    pub fn from_angles(angles: &[f32], tokens: usize, device: &Device) -> Self {
        let half = angles.len().checked_div(tokens).unwrap_or(0);
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle)).collect();
            Tensor::from_data(TensorData::new(values, [tokens, half]), device)
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }
}

/// Turns each pair `(x_i, x_(i + head_dim / 2))` of every head by its token's angle: `x cos + rotate_half(x) sin`.
///
/// # Shapes
/// `x`: `[tokens, heads, head_dim]`, with the table's tokens; output the same.
#[must_use]
pub fn rotate(x: Tensor<3>, table: &RotaryTable) -> Tensor<3> {
    if is_fused(&x) {
        let (cos, sin) = (table.cos.clone().into_dispatch(), table.sin.clone().into_dispatch());
        return Tensor::from_dispatch(Dispatch::rotate(x.into_dispatch(), cos, sin));
    }
    plain(x, table)
}

fn plain(x: Tensor<3>, table: &RotaryTable) -> Tensor<3> {
    let dtype = x.dtype();
    let half = x.dims()[2] / 2;
    let both = |table: &Tensor<2>| table.clone().repeat_dim(1, 2).cast(dtype).unsqueeze_dim::<3>(1);
    let (a, b) = (x.clone().narrow(2, 0, half), x.clone().narrow(2, half, half));
    let turned = Tensor::cat(vec![b.neg(), a], 2);
    x * both(&table.cos) + turned * both(&table.sin)
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait RotaryOps: Backend {
    /// The table is not differentiated.
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl RotaryOps for Flex {
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        turned(x, &cos, &sin, 1.0)
    }
}

/// In place if nothing else holds `x`.
fn turned(x: FlexTensor, cos: &FlexTensor, sin: &FlexTensor, sign: f32) -> FlexTensor {
    let mut x = contiguous(x);
    let [tokens, heads, dim] = x.shape().dims();
    let half = dim / 2;
    assert!(dim % 2 == 0, "rotate: an odd head_dim, {dim}");
    assert_eq!(cos.shape().dims(), [tokens, half], "rotate: the table does not fit {tokens} tokens of {dim}");
    let (cos, sin) = (values(cos), values(sin));
    for_rows(values_mut(&mut x), heads * dim, |token, row| {
        let angles = token * half..(token + 1) * half;
        for head in row.chunks_exact_mut(dim) {
            simd::rotate(head, &cos[angles.clone()], &sin[angles.clone()], sign);
        }
    });
    x
}

#[derive(Debug)]
struct Rotate;

impl Backward<Flex, 1> for Rotate {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>);

    /// The transposed map turns back.
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let grad = turned(grad, &ops.state.0, &ops.state.1, -1.0);
        tape::register(grads, ops, [Some(grad)]);
    }
}

impl<C: CheckpointStrategy> RotaryOps for Autodiff<Flex, C> {
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, node), (cos, _), (sin, _)) = (x.into_parts(), cos.into_parts(), sin.into_parts());
        let output = Flex::rotate(x, cos.clone(), sin.clone());
        tape::record::<C, _, 1>(Rotate, [node], output, (cos, sin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, gradient, scattered, values};

    #[test]
    fn values_and_gradients_are_those_of_the_plain_operations() {
        for [tokens, heads, dim] in [[1, 1, 2], [5, 3, 8], [70, 9, 64]] {
            let device = Device::flex().autodiff();
            let angles: Vec<f32> = (0..tokens * dim / 2).map(|i| (i as f32 * 0.37).sin() * 50.0).collect();
            let table = RotaryTable::from_angles(&angles, tokens, &device.clone().inner());
            let run = |rotation: fn(Tensor<3>, &RotaryTable) -> Tensor<3>| {
                let x = scattered([tokens, heads, dim], 0.3, &device).require_grad();
                let out = rotation(x.clone(), &table);
                let weight = scattered([tokens, heads, dim], 2.7, &device.clone().inner());
                let gradients = (out.clone() * weight).sum().backward();
                [values(&x), values(&out), gradient(&x, &gradients)]
            };
            for (got, want) in run(rotate).iter().zip(run(plain)) {
                assert_close(got, &want, 1e-6);
            }
        }
    }
}
