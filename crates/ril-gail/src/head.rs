use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};

/// Size and start of a [`ScalarHead`].
#[derive(Config, Debug)]
pub struct ScalarHeadConfig {
    /// Width of the hidden states, at least 1.
    pub hidden_size: usize,
    /// Standard deviation of the initial weights; 0.02 is `initializer_range` of the Qwen and Llama configurations.
    #[config(default = 0.02)]
    pub initial_std: f64,
}

impl ScalarHeadConfig {
    /// A head with random weights on `device`.
    pub fn init(&self, device: &Device) -> ScalarHead {
        let initializer = Initializer::Normal { mean: 0.0, std: self.initial_std };
        let linear = LinearConfig::new(self.hidden_size, 1).with_bias(false).with_initializer(initializer).init(device);
        ScalarHead { linear }
    }
}

/// One logit per row: `l = w . h`, in `f32` whatever the encoder computes in.
///
/// Takes the place of the language-model head (`d -> vocabulary`) by a linear `d -> 1`: RIL, arXiv 2510.19307.
/// No bias, like the language-model heads it replaces.
#[derive(Module, Debug)]
pub struct ScalarHead {
    linear: Linear,
}

impl ScalarHead {
    /// Logits of hidden states.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, hidden_size]`
    /// - output: `[batch]`
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<1> {
        self.linear.forward(hidden.cast(DType::F32)).squeeze_dim(1)
    }

    /// `|w|^2`, `[1]`, differentiable: the squared norm of the gradient of a logit with respect to its hidden state.
    pub fn weight_norm_squared(&self) -> Tensor<1> {
        self.linear.weight.val().cast(DType::F32).square().sum()
    }
}
