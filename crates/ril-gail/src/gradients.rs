use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use crate::GailError;
use crate::score::read;

/// Norm over all gradients together, `sqrt(sum of squares)`, before clipping; they are scaled down to `max_norm` if
/// larger, by `max_norm / (norm + 1e-6)` as in `torch.nn.utils.clip_grad_norm_`. (Burn's own `Norm` clips parameter by
/// parameter, which changes the direction of the step.)
///
/// # Errors
/// [`GailError::NonFiniteGradient`]; the gradients must not be used then.
pub fn clip_global_norm<M: Module>(
    model: &M,
    gradients: &mut GradientsParams,
    max_norm: Option<f32>,
) -> Result<f32, GailError> {
    let mut squares = SumOfSquares { gradients, sum: None };
    model.visit(&mut squares);
    let norm = match squares.sum {
        Some(sum) => read("gradient norm", sum)?[0].sqrt(),
        None => 0.0,
    };
    if !norm.is_finite() {
        return Err(GailError::NonFiniteGradient(norm));
    }
    if let Some(max_norm) = max_norm.filter(|max_norm| norm > *max_norm) {
        model.visit(&mut Scale { gradients, factor: max_norm / (norm + 1e-6) });
    }
    Ok(norm)
}

struct SumOfSquares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SumOfSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = gradient.cast(DType::F32).square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient.mul_scalar(self.factor));
        }
    }
}
