//! Loud checks: which parameter has no gradient, which token is not finite.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use crate::ratio::log_ratio;
use crate::{GrpoError, PolicyBatch};

/// Fails, with its name, on the first trainable parameter that got no gradient or one that is not finite.
///
/// Call it between the backward pass and the optimizer's step; the model is untouched. One device read for each
/// parameter: meant for the first steps of a run and for tests. A parameter that is meant to get none is frozen
/// (`no_grad`), and is passed over.
///
/// # Errors
/// [`GrpoError::NoGradient`], [`GrpoError::NonFiniteGradient`], [`GrpoError::DeviceRead`].
pub fn check_gradients<M: Module>(model: &M, gradients: &GradientsParams) -> Result<(), GrpoError> {
    let mut visitor = GradientCheck { gradients, path: Vec::new(), outcome: Ok(()) };
    model.visit(&mut visitor);
    visitor.outcome
}

struct GradientCheck<'a> {
    gradients: &'a GradientsParams,
    path: Vec<String>,
    outcome: Result<(), GrpoError>,
}

impl ModuleVisitor for GradientCheck<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.outcome.is_err() || !param.is_require_grad() {
            return;
        }
        let (parameter, shape) = (self.path.join("."), param.dims().to_vec());
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            self.outcome = Err(GrpoError::NoGradient { parameter, shape });
            return;
        };
        // 0 unless some value is not finite. A maximum will not do: not every backend carries a NaN through it.
        let zero = (gradient.cast(DType::F32) * 0.0).sum();
        match zero.try_into_data() {
            Ok(data) if data.iter::<f32>().all(|zero| zero == 0.0) => {}
            Ok(_) => self.outcome = Err(GrpoError::NonFiniteGradient { parameter, shape }),
            Err(source) => self.outcome = Err(GrpoError::DeviceRead { what: "gradient", source }),
        }
    }
}

/// Fails, with row and token, on the first trained token whose log-probability or importance ratio is not finite.
///
/// Call it when a loss came out NaN or infinite, or before every backward pass; the two tables are read from the
/// device. `first_row` is the number of the micro-batch's first row in the batch, for the message.
///
/// # Errors
/// [`GrpoError::NonFinite`], [`GrpoError::Shape`], [`GrpoError::DeviceRead`].
pub fn check_tokens(batch: &PolicyBatch, log_probs: &Tensor<2>, first_row: usize) -> Result<(), GrpoError> {
    let [rows, seq] = batch.dims();
    crate::error::check_shape("log_probs", &[rows, seq], &log_probs.dims())?;
    let log_probs = log_probs.clone().inner().cast(DType::F32);
    let padding = batch.padding();
    let tables = [
        ("log_probs", log_probs.clone().mask_fill(padding.clone(), 0.0)),
        ("ratio", log_ratio(log_probs, batch.old_log_probs(), padding).exp()),
    ];
    for (what, table) in tables {
        let data = table.try_into_data().map_err(|source| GrpoError::DeviceRead { what, source })?;
        let values: Vec<f32> = data.iter::<f32>().collect();
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(GrpoError::NonFinite { what, row: first_row + at / seq, token: at % seq, value: values[at] });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Bool, Device};

    use super::*;

    #[derive(Module, Debug)]
    struct Two {
        used: Linear,
        idle: Linear,
    }

    fn two(device: &Device) -> Two {
        Two { used: LinearConfig::new(2, 2).init(device), idle: LinearConfig::new(2, 3).init(device) }
    }

    #[test]
    fn a_parameter_without_gradient_is_named_unless_it_is_frozen() {
        let device = Device::flex().autodiff();
        let model = two(&device);
        let gradients = |model: &Two| {
            let loss = model.used.forward(Tensor::<2>::ones([1, 2], &device)).sum();
            GradientsParams::from_grads(loss.backward(), model)
        };
        let error = check_gradients(&model, &gradients(&model)).unwrap_err();
        assert_eq!(error.to_string(), "gradient of idle.weight [2, 3]: expected one, got none");
        let Two { used, idle } = model;
        let frozen = Two { used, idle: idle.no_grad() };
        check_gradients(&frozen, &gradients(&frozen)).unwrap();
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_named() {
        let device = Device::flex().autodiff();
        let model = two(&device);
        let input = Tensor::<2>::full([1, 2], f32::INFINITY, &device);
        let loss = model.used.forward(input.clone()).sum() + model.idle.forward(input).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let error = check_gradients(&model, &gradients).unwrap_err();
        assert_eq!(error.to_string(), "gradient of used.weight [2, 2] is not finite");
    }

    #[test]
    fn one_gradient_that_is_not_a_number_is_found_among_others() {
        let device = Device::flex().autodiff();
        let model = two(&device);
        for broken in [f32::NAN, f32::NEG_INFINITY] {
            let input = Tensor::<2>::from_floats([[broken, 1.0]], &device);
            let loss = model.used.forward(Tensor::<2>::ones([1, 2], &device)).sum() + model.idle.forward(input).sum();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let error = check_gradients(&model, &gradients).unwrap_err();
            assert_eq!(error.to_string(), "gradient of idle.weight [2, 3] is not finite");
        }
        let huge = Tensor::<2>::full([1, 2], f32::MAX, &device);
        let loss = model.used.forward(huge.clone()).sum() + model.idle.forward(huge).sum();
        check_gradients(&model, &GradientsParams::from_grads(loss.backward(), &model)).unwrap();
    }

    #[test]
    fn a_token_that_is_not_finite_is_named_and_padding_is_not() {
        let device = Device::flex();
        let table = |values: [[f32; 2]; 2]| Tensor::<2>::from_floats(values, &device);
        let mask = Tensor::<2, Bool>::from_data([[true, false], [true, true]], &device);
        let old = table([[-1.0, f32::NAN], [-1.0, -200.0]]);
        let batch = PolicyBatch::new(old, None, Tensor::zeros([2], &device), mask).unwrap();
        let fine = table([[-1.0, f32::NAN], [-1.0, -199.0]]);
        check_tokens(&batch, &fine, 0).unwrap();
        let broken = check_tokens(&batch, &table([[-1.0, 0.0], [f32::NEG_INFINITY, 0.0]]), 4).unwrap_err();
        assert_eq!(broken.to_string(), "log_probs of row 5, token 0 is not finite: -inf");
        let exploded = check_tokens(&batch, &table([[-1.0, 0.0], [-1.0, -1.0]]), 4).unwrap_err();
        assert_eq!(exploded.to_string(), "ratio of row 5, token 1 is not finite: inf");
    }
}
