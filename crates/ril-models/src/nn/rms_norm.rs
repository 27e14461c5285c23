//! Root-mean-square normalisation.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

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
        ril_kernels::rms_norm(x, self.weight.val(), self.epsilon)
    }
}
