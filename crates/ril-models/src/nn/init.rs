//! Fresh weights from a seed, the same on every device.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Deviation of fresh matrices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum InitialStd {
    /// The same for all: the rule of the Qwen2.5-VL reference, with `initializer_range` 0.02. Made for widths in the
    /// thousands.
    Fixed(f64),
    /// `1 / sqrt(inputs)` for linear layers and `1 / sqrt(width)` for embeddings (LeCun 1998): outputs have the scale
    /// of the inputs at any width, so that narrow networks learn without a long plateau.
    FanIn,
}

/// Fills every matrix from a normal distribution of mean 0; vectors keep their start value (biases 0, norm gains 1).
///
/// The numbers come from ChaCha8 on the host, in module order: the same seed gives the same model on any device.
#[must_use]
pub fn init_weights<M: Module>(module: M, std: InitialStd, seed: u64) -> M {
    module.map(&mut Normal { std, owners: Vec::new(), rng: ChaCha8Rng::seed_from_u64(seed) })
}

struct Normal {
    std: InitialStd,
    /// Types of the structs on the way; the last one owns the parameter.
    owners: Vec<String>,
    rng: ChaCha8Rng,
}

impl Normal {
    fn std(&self, dims: &[usize]) -> f64 {
        let is_linear = self.owners.last().is_some_and(|owner| owner == "Struct:Linear");
        match self.std {
            InitialStd::Fixed(std) => std,
            InitialStd::FanIn => (dims[if is_linear { 0 } else { 1 }] as f64).powf(-0.5),
        }
    }

    /// Box-Muller; one draw of two is thrown away for simplicity.
    fn draw(&mut self) -> f64 {
        let (u, v): (f64, f64) = (1.0 - self.rng.random::<f64>(), self.rng.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

impl ModuleMapper for Normal {
    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.owners.push(container_type.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.owners.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D < 2 {
            return param;
        }
        let dims: [usize; D] = param.lazy_shape().dims();
        let std = self.std(&dims);
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| (std * self.draw()) as f32).collect();
        let (id, device, require_grad) = (param.id, param.lazy_device(), param.is_require_grad());
        let value = Tensor::from_data(TensorData::new(values, dims), &device);
        Param::initialized(id, value).set_require_grad(require_grad)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;

    fn deviation(std: InitialStd, seed: u64) -> (f64, Vec<f32>) {
        let linear = init_weights(LinearConfig::new(400, 100).init(&Device::flex()), std, seed);
        let values: Vec<f32> = linear.weight.val().into_data().try_to_vec().unwrap();
        ((values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt(), values)
    }

    #[test]
    fn deviations_are_as_asked() {
        // 40,000 draws: the deviation of the estimate is 0.35%.
        assert!((deviation(InitialStd::Fixed(0.02), 1).0 / 0.02 - 1.0).abs() < 0.015);
        assert!((deviation(InitialStd::FanIn, 1).0 / 0.05 - 1.0).abs() < 0.015);
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(deviation(InitialStd::FanIn, 1).1, deviation(InitialStd::FanIn, 1).1);
        assert_ne!(deviation(InitialStd::FanIn, 1).1, deviation(InitialStd::FanIn, 2).1);
    }
}
