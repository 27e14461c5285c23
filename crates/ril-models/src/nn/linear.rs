//! Linear layers over packed tokens, with or without an adapter, and gathers of rows.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::lora::LoraFactors;

/// `x weight + bias`, plus what an adapter adds.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[input, output]`.
    pub weight: Param<Tensor<2>>,
    /// `[output]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter; `None` in a plain model.
    pub lora: Option<LoraFactors>,
}

/// A linear layer whose values come later; nothing is allocated before the first use.
pub(crate) fn linear(input: usize, output: usize, bias: bool, device: &Device) -> Linear {
    Linear {
        weight: Initializer::Zeros.init([input, output], device),
        bias: bias.then(|| Initializer::Zeros.init([output], device)),
        lora: None,
    }
}

/// `[tokens, input]` to `[tokens, output]`.
pub(crate) fn project(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    match &layer.lora {
        None => ril_kernels::linear(x, layer.weight.val(), bias),
        Some(lora) => lora.project(x, layer.weight.val(), bias),
    }
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
