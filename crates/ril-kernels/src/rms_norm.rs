//! Root-mean-square normalisation.
#![allow(unsafe_code)] // Fresh memory for the normalised rows.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use crate::flex::{build, contiguous, is_fused, tensor, values, values_mut, width};
use crate::{simd, tape};

/// `x / sqrt(mean(x^2) + epsilon) * gain` over the last axis (arXiv 1910.07467).
///
/// The mean is taken in `f32` whatever the type of `x`, as the references do.
///
/// # Shapes
/// `x`: `[.., hidden]`, `gain`: `[hidden]`; output as `x`.
///
/// # Panics
/// If the gain has another width.
#[must_use]
pub fn rms_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_eq!(x.dims()[D - 1], gain.dims()[0], "rms_norm: the last axis of x and the gain");
    if is_fused(&x) && is_fused(&gain) {
        return Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), gain.into_dispatch(), epsilon as f32));
    }
    plain(x, gain, epsilon)
}

fn plain<const D: usize>(x: Tensor<D>, gain: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let wide = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
    let mean_square = (wide.clone() * wide.clone()).mean_dim(D - 1);
    let normal = wide * (mean_square + epsilon).sqrt().recip();
    let normal = if dtype == DType::F32 { normal } else { normal.cast(dtype) };
    normal * gain.unsqueeze()
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait RmsNormOps: Backend {
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;
}

impl RmsNormOps for Flex {
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let (x, gain) = (contiguous(x), contiguous(gain));
        let (rows, gain, width) = (values(&x), values(&gain), width(&x));
        let fill = |i: usize, out: &mut [_]| {
            let row = &rows[i * width..(i + 1) * width];
            simd::normalise(out, row, gain, rstd(row, epsilon));
        };
        // SAFETY: `normalise` writes the whole row, for which the gain has as many numbers (checked by the caller).
        tensor(unsafe { build(rows.len(), width, fill) }, x.shape())
    }
}

fn rstd(row: &[f32], epsilon: f32) -> f32 {
    1.0 / (simd::dot(row, row) / row.len() as f32 + epsilon).sqrt()
}

#[derive(Debug)]
struct RmsNorm;

impl Backward<Flex, 2> for RmsNorm {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut grad = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, gain, epsilon) = (contiguous(ops.state.0.clone()), contiguous(ops.state.1.clone()), ops.state.2);
        let (rows, gain, width) = (values(&x), values(&gain), width(&x));
        // Groups of a fixed size: the sum over rows is the same for any number of threads.
        let group = 64 * width.max(1);
        let parts = values_mut(&mut grad).par_chunks_mut(group).zip(rows.par_chunks(group)).map(|(grad, x)| {
            let mut gain_grad = vec![0.0; width];
            for (grad, x) in grad.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                simd::normalise_gradient(grad, x, gain, &mut gain_grad, rstd(x, epsilon));
            }
            gain_grad
        });
        let mut gain_grad = vec![0.0; width];
        for part in parts.collect::<Vec<_>>() {
            simd::add(&mut gain_grad, &part);
        }
        tape::register(grads, ops, [Some(grad), Some(tensor(gain_grad, [width]))]);
    }
}

impl<C: CheckpointStrategy> RmsNormOps for Autodiff<Flex, C> {
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let ((x, x_node), (gain, gain_node)) = (x.into_parts(), gain.into_parts());
        let output = Flex::rms_norm(x.clone(), gain.clone(), epsilon);
        tape::record::<C, _, 2>(RmsNorm, [x_node, gain_node], output, (x, gain, epsilon))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{assert_close, gradient, scattered, values};

    #[test]
    fn values_and_gradients_are_those_of_the_plain_operations() {
        for (shape, epsilon) in [([3, 5, 7], 1e-6), ([1, 1, 1], 1e-6), ([2, 90, 1500], 1e-5), ([1, 300, 96], 1e-6)] {
            let device = Device::flex().autodiff();
            let run = |norm: fn(Tensor<3>, Tensor<1>, f64) -> Tensor<3>| {
                let x = scattered(shape, 0.3, &device).require_grad();
                let gain = scattered([shape[2]], 1.9, &device).require_grad();
                let out = norm(x.clone(), gain.clone(), epsilon);
                let weight = scattered(shape, 2.7, &device.clone().inner());
                let gradients = (out.clone() * weight).sum().backward();
                [values(&out), gradient(&x, &gradients), gradient(&gain, &gradients)]
            };
            for (got, want) in run(rms_norm::<3>).iter().zip(run(plain::<3>)) {
                assert_close(got, &want, 3e-5);
            }
        }
    }

    #[test]
    fn views_are_read_in_their_order() {
        let device = Device::flex();
        let x = scattered([6, 4], 0.4, &device);
        let gain = scattered([6], 0.9, &device);
        let got = rms_norm(x.clone().transpose(), gain.clone(), 1e-6);
        assert_close(&values(&got), &values(&plain(x.transpose(), gain, 1e-6)), 1e-6);
    }

    #[test]
    fn other_types_take_the_plain_path() {
        let device = Device::flex();
        let x = scattered([4, 8], 0.4, &device).cast(DType::BF16);
        let gain = scattered([8], 0.9, &device).cast(DType::BF16);
        assert_eq!(rms_norm(x, gain, 1e-6).dtype(), DType::BF16);
    }
}
