//! Root-mean-square normalisation.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// `x / sqrt(mean(x^2) + epsilon) * weight` over the last dimension (arXiv 1910.07467).
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Gain, `[hidden]`.
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl RmsNorm {
    /// Gain 1.
    #[must_use]
    pub fn new(hidden: usize, epsilon: f64, device: &Device) -> Self {
        Self { weight: Initializer::Ones.init([hidden], device), epsilon }
    }

    /// # Shapes
    /// `[.., hidden]` to the same. The mean is taken in f32 whatever the type of `x`, as the references do.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let wide = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
        let mean_square = (wide.clone() * wide.clone()).mean_dim(D - 1);
        let normal = wide * (mean_square + self.epsilon).sqrt().recip();
        let normal = if dtype == DType::F32 { normal } else { normal.cast(dtype) };
        normal * self.weight.val().unsqueeze()
    }
}
