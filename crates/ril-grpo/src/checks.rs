//! Loud checks: which parameter has no gradient, which token is not finite.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use crate::error::check_shape;
use crate::ratio::log_ratio;
use crate::{GrpoError, PolicyBatch, TokenScores};

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

/// Fails, with row and token, on the first trained token for which something that the loss reads is not finite.
///
/// In this order, a table at a time: `log_probs`, `entropy`, `old_log_probs`, `ref_log_probs`, `policy_log_probs` (of
/// [`PolicyBatch::with_sampler_against`]), `sampler_log_probs` (where NaN means that the sampler gave none), `advantages` (named at the row's first trained token), and the ratio
/// `exp(log_probs - old_log_probs)` before it is kept in bounds. Content under a false mask is arbitrary.
///
/// Call it when a loss came out NaN or infinite, or before every backward pass; each table is read from the device.
/// `first_row` is the number of the micro-batch's first row in the batch, for the message.
///
/// # Shapes
/// - `scores`: as in [`policy_loss`](crate::policy_loss), `[batch, seq]`
///
/// # Errors
/// [`GrpoError::NonFinite`], [`GrpoError::Shape`], [`GrpoError::DeviceRead`].
pub fn check_tokens(batch: &PolicyBatch, scores: impl Into<TokenScores>, first_row: usize) -> Result<(), GrpoError> {
    let TokenScores { log_probs, entropy } = scores.into();
    let shape = batch.dims();
    check_shape("log_probs", &shape, &log_probs.dims())?;
    if let Some(entropy) = &entropy {
        check_shape("entropy", &shape, &entropy.dims())?;
    }
    if batch.is_empty() {
        return Ok(());
    }
    let log_probs = log_probs.inner().cast(DType::F32);
    let ratio = log_ratio(log_probs.clone(), batch.old_log_probs(), batch.padding()).exp();
    let sampler = batch.sampler().map(|sampler| {
        let missing = sampler.log_probs.clone().is_nan();
        sampler.log_probs.clone().mask_fill(missing, 0.0)
    });
    let tables = [
        ("log_probs", Some(log_probs)),
        ("entropy", entropy.map(|entropy| entropy.inner().cast(DType::F32))),
        ("old_log_probs", Some(batch.old_log_probs())),
        ("ref_log_probs", batch.ref_log_probs()),
        ("policy_log_probs", batch.sampler().map(|sampler| sampler.policy_log_probs.clone())),
        ("sampler_log_probs", sampler),
        ("advantages", Some(batch.advantages().unsqueeze_dim::<2>(1).expand(shape))),
        ("ratio", Some(ratio)),
    ];
    for (what, table) in tables {
        let Some(table) = table.map(|table| table.mask_fill(batch.padding(), 0.0)) else { continue };
        let data = table.try_into_data().map_err(|source| GrpoError::DeviceRead { what, source })?;
        let values: Vec<f32> = data.iter::<f32>().collect();
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (row, token) = (first_row + at / shape[1], at % shape[1]);
            return Err(GrpoError::NonFinite { what, row, token, value: values[at] });
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
        check_tokens(&batch, fine, 0).unwrap();
        let broken = check_tokens(&batch, table([[-1.0, 0.0], [f32::NEG_INFINITY, 0.0]]), 4).unwrap_err();
        assert_eq!(broken.to_string(), "log_probs of row 5, token 0 is not finite: -inf");
        let exploded = check_tokens(&batch, table([[-1.0, 0.0], [-1.0, -1.0]]), 4).unwrap_err();
        assert_eq!(exploded.to_string(), "ratio of row 5, token 1 is not finite: inf");
    }

    #[test]
    fn every_table_that_the_loss_reads_is_checked() {
        let device = Device::flex();
        let table = |values: [[f32; 2]; 2]| Tensor::<2>::from_floats(values, &device);
        let fine = [[-1.0, f32::NAN], [-1.0, -1.0]];
        // One table broken at its last token; the mask hides the second token of the first row.
        let check = |broken: usize, value: f32| {
            let of = |at: usize| table(if at == broken { [fine[0], [-1.0, value]] } else { fine });
            let advantages = Tensor::from_floats([1.0, if broken == 6 { value } else { 1.0 }], &device);
            let mask = Tensor::<2, Bool>::from_data([[true, false], [true, true]], &device);
            let batch = PolicyBatch::new(of(2), Some(of(3)), advantages, mask).unwrap();
            let batch = batch.with_sampler_against(of(4), of(5), None).unwrap();
            check_tokens(&batch, TokenScores { log_probs: of(0), entropy: Some(of(1)) }, 0)
        };
        let names = [
            "log_probs",
            "entropy",
            "old_log_probs",
            "ref_log_probs",
            "policy_log_probs",
            "sampler_log_probs",
            "advantages",
        ];
        for (broken, name) in names.into_iter().enumerate() {
            let token = usize::from(name != "advantages");
            for value in [f32::INFINITY, f32::NEG_INFINITY] {
                let message = check(broken, value).unwrap_err().to_string();
                assert_eq!(message, format!("{name} of row 1, token {token} is not finite: {value}"));
            }
            // NaN is what the sampler did not say.
            assert_eq!(check(broken, f32::NAN).is_ok(), name == "sampler_log_probs", "{name}");
        }
    }
}
