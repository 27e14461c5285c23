//! Tensors and comparisons of the operators' tests.

use std::ops::Range;

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::AttentionBlock;

pub(crate) fn block(queries: Range<usize>, keys: Range<usize>, is_causal: bool) -> AttentionBlock {
    AttentionBlock { queries, keys, is_causal }
}

/// Numbers between -2 and 2 without a pattern that rows or blocks could follow.
pub(crate) fn scattered<const D: usize>(shape: [usize; D], salt: f32, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| 2.0 * (i as f32 * 0.71 + salt).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.clone().into_data().iter::<f32>().collect()
}

pub(crate) fn gradient<const D: usize>(tensor: &Tensor<D>, gradients: &Gradients) -> Vec<f32> {
    values(&tensor.grad(gradients).expect("a gradient"))
}

/// Same length, and every difference at most `tolerance` of the larger of 1 and the number.
pub(crate) fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "at {i}: {got}, not {want}");
    }
}
