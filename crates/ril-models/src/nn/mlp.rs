//! Gated feed-forward block.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

/// SwiGLU: `down(silu(gate(x)) * up(x))` (arXiv 2002.05202).
#[derive(Module, Debug)]
pub struct SwiGlu {
    /// `[hidden, intermediate]`.
    pub gate_proj: Linear,
    /// `[hidden, intermediate]`.
    pub up_proj: Linear,
    /// `[intermediate, hidden]`.
    pub down_proj: Linear,
}

impl SwiGlu {
    /// A block of zeros, to be filled from a checkpoint or by [`super::init::init_weights`].
    #[must_use]
    pub fn new(hidden: usize, intermediate: usize, bias: bool, device: &Device) -> Self {
        let linear = |i, o| linear(i, o, bias, device);
        Self {
            gate_proj: linear(hidden, intermediate),
            up_proj: linear(hidden, intermediate),
            down_proj: linear(intermediate, hidden),
        }
    }

    /// `[.., hidden]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gate = activation::silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// A linear layer whose values come later; nothing is allocated before the first use.
pub(crate) fn linear(input: usize, output: usize, bias: bool, device: &Device) -> Linear {
    LinearConfig::new(input, output).with_bias(bias).with_initializer(burn::module::Initializer::Zeros).init(device)
}
