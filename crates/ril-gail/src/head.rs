use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};

use crate::GailError;

/// Size and start of a [`ScalarHead`].
#[derive(Config, Debug)]
pub struct ScalarHeadConfig {
    /// Width of the hidden states, at least 1.
    pub hidden_size: usize,
    /// Standard deviation of the initial weights, finite, at least 0; 0.02 is `initializer_range` of the Qwen and Llama configurations.
    #[config(default = 0.02)]
    pub initial_std: f64,
}

impl ScalarHeadConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`GailError::Config`].
    pub fn validate(&self) -> Result<(), GailError> {
        let Self { hidden_size, initial_std } = self;
        if *hidden_size == 0 {
            return Err(GailError::Config("hidden_size: expected at least 1, got 0".into()));
        }
        match initial_std.is_finite() && *initial_std >= 0.0 {
            true => Ok(()),
            false => Err(GailError::Config(format!("initial_std: expected a finite number >= 0, got {initial_std}"))),
        }
    }

    /// A head with random weights on `device`.
    ///
    /// # Panics
    /// On settings that [`validate`](Self::validate) refuses, as Burn's own `init` does: a head of no weights, or of NaN,
    /// would be found much later.
    pub fn init(&self, device: &Device) -> ScalarHead {
        if let Err(error) = self.validate() {
            panic!("scalar head: {error}");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |config: ScalarHeadConfig| config.validate().expect_err("out of range").to_string();
        assert_eq!(refused(ScalarHeadConfig::new(0)), "invalid setting: hidden_size: expected at least 1, got 0");
        for std in [-0.1, f64::NAN, f64::INFINITY] {
            let message = refused(ScalarHeadConfig::new(2).with_initial_std(std));
            assert_eq!(message, format!("invalid setting: initial_std: expected a finite number >= 0, got {std}"));
        }
        ScalarHeadConfig::new(1).with_initial_std(0.0).validate().expect("a head of zeros");
    }

    #[test]
    #[should_panic(expected = "scalar head: invalid setting: initial_std")]
    fn a_head_of_nan_is_never_built() {
        ScalarHeadConfig::new(2).with_initial_std(f64::NAN).init(&Device::flex());
    }

    #[test]
    fn a_head_of_zeros_gives_zeros() {
        let head = ScalarHeadConfig::new(2).with_initial_std(0.0).init(&Device::flex());
        let logits = head.forward(Tensor::ones([3, 2], &Device::flex())).try_into_vec_as::<f32>().expect("readable");
        assert_eq!(logits, [0.0; 3]);
    }
}
