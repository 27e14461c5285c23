//! Gated feed-forward block.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ril_kernels::swiglu;

use super::linear::{Linear, linear, project};

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

    /// `[tokens, hidden]` to the same.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = project(&self.gate_proj, x.clone());
        project(&self.down_proj, swiglu(gate, project(&self.up_proj, x)))
    }
}
