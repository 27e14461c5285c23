use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use crate::GailError;
use crate::config::check_max_norm;
use crate::score::read;

/// Norm over all gradients together, `sqrt(sum of squares)`, before clipping; they are scaled down to `max_norm` if
/// larger, by `max_norm / (norm + 1e-6)` as in `torch.nn.utils.clip_grad_norm_`. (Burn's own `Norm` clips parameter by
/// parameter, which changes the direction of the step.)
///
/// # Errors
/// [`GailError::Config`] unless `max_norm` is finite and above 0; [`GailError::NonFiniteGradient`], the gradients must not
/// be used then; [`GailError::Read`].
pub fn clip_global_norm<M: Module>(
    model: &M,
    gradients: &mut GradientsParams,
    max_norm: Option<f32>,
) -> Result<f32, GailError> {
    check_max_norm(max_norm)?;
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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{ScalarHead, ScalarHeadConfig};

    fn gradients(head: &ScalarHead) -> GradientsParams {
        let hidden = Tensor::ones([2, 3], &Device::flex());
        GradientsParams::from_grads(head.forward(hidden).sum().backward(), head)
    }

    #[test]
    fn a_bound_that_nothing_can_be_scaled_to_is_refused_and_leaves_the_gradients() {
        let head = ScalarHeadConfig::new(3).init(&Device::flex().autodiff());
        let mut gradients = gradients(&head);
        for bound in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = clip_global_norm(&head, &mut gradients, Some(bound)).expect_err("no bound").to_string();
            assert_eq!(error, format!("invalid setting: max_grad_norm: expected a finite number above 0, got {bound}"));
        }
        // Each of three weights has seen two ones.
        let norm = clip_global_norm(&head, &mut gradients, Some(1.0)).expect("finite");
        assert!((norm - 12.0_f32.sqrt()).abs() < 1e-5, "{norm}");
        let clipped = clip_global_norm(&head, &mut gradients, None).expect("finite");
        assert!((clipped - 1.0).abs() < 1e-5, "{clipped}");
    }
}
