//! Fresh weights from a seed, the same on every device.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Fills every matrix from a normal distribution of mean 0 and deviation `std`; vectors keep their start value
/// (biases 0, norm gains 1). This is the rule of the Qwen2.5-VL reference (`initializer_range`).
///
/// The numbers come from ChaCha8 on the host, in module order: the same seed gives the same model on any device.
#[must_use]
pub fn init_weights<M: Module>(module: M, std: f64, seed: u64) -> M {
    module.map(&mut Normal { std, rng: ChaCha8Rng::seed_from_u64(seed) })
}

struct Normal {
    std: f64,
    rng: ChaCha8Rng,
}

impl Normal {
    /// Box-Muller; one draw of two is thrown away for simplicity.
    fn draw(&mut self) -> f32 {
        let (u, v): (f64, f64) = (1.0 - self.rng.random::<f64>(), self.rng.random());
        (self.std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}

impl ModuleMapper for Normal {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D < 2 {
            return param;
        }
        let shape = param.lazy_shape();
        let values: Vec<f32> = (0..shape.num_elements()).map(|_| self.draw()).collect();
        let device = param.lazy_device();
        let id = param.id;
        let require_grad = param.is_require_grad();
        Param::initialized(id, Tensor::from_data(TensorData::new(values, shape), &device)).set_require_grad(require_grad)
    }
}
