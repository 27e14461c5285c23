//! Linear layers over packed tokens, and gathers of rows.

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// A linear layer whose values come later; nothing is allocated before the first use.
pub(crate) fn linear(input: usize, output: usize, bias: bool, device: &Device) -> Linear {
    LinearConfig::new(input, output).with_bias(bias).with_initializer(burn::module::Initializer::Zeros).init(device)
}

/// `x weight + bias`, `[tokens, input]` to `[tokens, output]`.
pub(crate) fn project(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    ril_kernels::linear(x, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()))
}

/// Rows of `x` in the given order; nothing is done where that is the order they are in.
pub(crate) fn reorder(x: Tensor<2>, order: &[usize], device: &Device) -> Tensor<2> {
    let is_identity = order.len() == x.dims()[0] && order.iter().enumerate().all(|(i, &o)| i == o);
    if is_identity { x } else { x.select(0, index(order, device)) }
}

/// Row numbers on a device.
pub(crate) fn index(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Tensor::from_data(TensorData::new(values, [rows.len()]), device)
}
