//! Weights of 8 bits: a quarter of the memory, and of what is read for each token that is decoded.
//!
//! The tensors are Burn's own quantised ones. Products are here because Burn's CPU backend makes a float copy of the whole
//! weight for each.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn::backend::flex::{FlexQTensor, FlexTensor};
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{DType, FloatDType};

use crate::few_rows::{Int8, multiply_int8};
use crate::flex;
use crate::flex::{contiguous, is_flex, is_fused, tensor};
use crate::matrix::{Matrix, fresh_product};
use crate::tape;

/// Inputs that share a scale, at most: as many as in the 8-bit type of llama.cpp.
const MOST: usize = 32;
/// And at least; below, scales would take as much memory as they save.
const FEWEST: usize = 8;

/// A copy of `[input, output]` in 8 bits: `scale[i / block, j] q[i, j]` with whole `q` in -127 to 127 and the scale that
/// brings the largest of a block there, so that no weight moves by more than half a scale.
///
/// A block is the largest divisor of the inputs between 8 and 32; `None` where there is none, no weight, or one that is
/// not finite, which 8 bits cannot say. The copy has no gradient. [`linear()`](crate::linear()) reads it as it is on Burn's CPU backend with `x` in `f32`; elsewhere Burn multiplies,
/// on some backends with a float copy of the weight.
///
/// # Shapes
/// `[input, output]` to the same.
#[must_use]
pub fn to_int8(weight: Tensor<2>) -> Option<Tensor<2>> {
    let [inputs, outputs] = weight.dims();
    if inputs * outputs == 0 {
        return None;
    }
    let block = (FEWEST..=MOST).rev().find(|&size| inputs.is_multiple_of(size))?;
    if !weight.clone().is_finite().all().into_scalar::<bool>() {
        return None;
    }
    let scheme = QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native);
    Some(weight.quantize_dynamic(&scheme.per_block([block as u8, 1], ScaleDtype::F32)))
}

/// Whether the fused path takes a weight, and `x` with it.
pub(crate) fn is_fused_with(x: &Tensor<2>, weight: &Tensor<2>) -> bool {
    let DType::QFloat(scheme) = weight.dtype() else { return false };
    let is_ours = scheme.value == QuantValue::Q8S
        && scheme.num_levels() == 1
        && scheme.block_size().is_some_and(|block| block.to_dim_vec(2)[1] == 1);
    is_ours && is_fused(x) && is_flex(&weight.device())
}

/// `x weight` on the fused path. Takes the weight: each of its handles has a copy of the scales.
pub(crate) fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::linear_int8(x.into_dispatch(), weight.into_dispatch()))
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait Int8Ops: Backend {
    fn linear_int8(x: FloatTensor<Self>, weight: QuantizedTensor<Self>) -> FloatTensor<Self>;
}

impl Int8Ops for Flex {
    fn linear_int8(x: FloatTensor<Self>, weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        output(x, &weight)
    }
}

fn output(x: FlexTensor, weight: &FlexQTensor) -> FlexTensor {
    let ([m, k], [rows, n]) = (x.shape().dims(), weight.shape().dims());
    assert_eq!(k, rows, "linear: x is [{m}, {k}], the weight [{rows}, {n}]");
    let (x, integers) = (contiguous(x), contiguous(weight.tensor().clone()));
    let integers = integers.as_slice::<i8>().expect("a contiguous tensor of 8 bits");
    let scales = weight.scales();
    let block = (k * n).checked_div(scales.len()).unwrap_or(1);
    let weights = Int8 { values: integers, scales, block, columns: n };
    tensor(multiply_int8([m, n, k], flex::values(&x), weights), [m, n])
}

#[derive(Debug)]
struct LinearInt8;

impl Backward<Flex, 1> for LinearInt8 {
    type State = FlexQTensor;

    /// `dx = g W^T`.
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let weight = <Flex as burn::backend::ops::QTensorOps<Flex>>::dequantize(ops.state.clone(), FloatDType::F32);
        let ([m, n], [k, _]) = (grad.shape().dims(), weight.shape().dims());
        let weight_matrix = Matrix::rows(flex::values(&weight), n).transposed();
        let value = fresh_product([m, k, n], Matrix::rows(flex::values(&grad), n), weight_matrix, None);
        tape::register(grads, ops, [Some(tensor(value, [m, k]))]);
    }
}

impl<C: CheckpointStrategy> Int8Ops for Autodiff<Flex, C> {
    fn linear_int8(x: FloatTensor<Self>, weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = output(x, &weight);
        tape::record::<C, _, 1>(LinearInt8, [node], output, weight)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::linear;
    use crate::testing::{assert_close, gradient, scattered, values};

    #[test]
    fn products_and_gradients_are_those_of_the_rounded_weight() {
        let device = Device::flex().autodiff();
        for [m, k, n] in [[1, 8, 1], [3, 36, 70], [33, 64, 200], [140, 62, 100]] {
            let weight = to_int8(scattered([k, n], 1.1, &device)).expect("a block");
            let run = |weight: Tensor<2>| {
                let (x, bias) = (scattered([m, k], 0.3, &device).require_grad(), scattered([n], 1.9, &device));
                let out = linear(x.clone(), weight, Some(bias));
                let gradients = (out.clone() * scattered([m, n], 2.7, &device.clone().inner())).sum().backward();
                [values(&out), gradient(&x, &gradients)]
            };
            for (got, want) in run(weight.clone()).iter().zip(run(weight.clone().dequantize())) {
                assert_close(got, &want, 2e-5);
            }
        }
    }

    #[test]
    fn no_weight_moves_by_more_than_half_a_scale() {
        let weight = scattered([96, 50], 0.4, &Device::flex());
        let rounded = to_int8(weight.clone()).expect("a block").dequantize();
        let moved = (rounded - weight.clone()).abs().max().into_scalar::<f32>();
        let largest = weight.abs().max().into_scalar::<f32>();
        assert!(moved > 0.0 && moved <= largest / 254.0 * 1.001, "{moved} of {largest}");
    }

    #[test]
    fn weights_that_are_not_finite_stay() {
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(to_int8(Tensor::full([32, 4], broken, &Device::flex())).is_none());
        }
    }

    #[test]
    fn weights_without_a_block_stay() {
        for shape in [[37, 4], [0, 4], [32, 0]] {
            assert!(to_int8(Tensor::zeros(shape, &Device::flex())).is_none());
        }
    }
}
