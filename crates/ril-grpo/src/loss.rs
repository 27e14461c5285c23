//! The clipped policy loss with its KL term.

use burn::tensor::{Bool, DType, Tensor};

use crate::aggregate::row_contributions;
use crate::error::check_shape;
use crate::kl::kl_per_token;
use crate::ratio::{importance_ratio, log_ratio};
use crate::{GrpoConfig, GrpoError, PolicyBatch, PolicyMetrics};

/// Loss of one (micro-)batch and what it reports.
#[derive(Debug, Clone)]
pub struct PolicyLoss {
    /// To be minimised, `[1]`, differentiable with respect to `log_probs`; a share of the whole batch's loss.
    pub loss: Tensor<1>,
    /// Sums per row, detached, still on the device.
    pub metrics: PolicyMetrics,
}

/// Clipped surrogate with a KL term: `mean_t [ -min(rho A, clip(rho) A) + beta KL ]`, to be minimised.
///
/// `rho = exp(log_probs - old_log_probs)` per token or per sequence ([`RatioLevel`](crate::RatioLevel)), kept in
/// `[1 - epsilon_low, 1 + epsilon_high]` by `clip`; the mean is a [`LossAggregation`](crate::LossAggregation) over
/// the totals of the whole batch, so losses and gradients of micro-batches add up. Computed in `f32` whatever the
/// type of `log_probs`.
///
/// Source: DeepSeekMath, arXiv 2402.03300, Equation 3; the surrogate is PPO's, arXiv 1707.06347, Equation 7. Differs
/// from both, and from TRL 1.16: log-ratios are kept in `[-20, 20]` (gradient 0 outside) and content under a false
/// mask, NaN included, changes neither loss nor gradient. On the border of the clip, where any slope between the two
/// branches is right, the gradient is that of the unclipped term (TRL's is half of it).
///
/// # Shapes
/// - `log_probs`: `[batch, seq]`, nats, under the current policy
/// - output: `[1]`; a batch without trained tokens gives 0
///
/// # Errors
/// [`GrpoError::Shape`] if `log_probs` has not the batch's shape, [`GrpoError::MissingReference`] if `beta` is not 0
/// and the batch holds no reference, [`GrpoError::Config`] as [`GrpoConfig::validate`].
pub fn policy_loss(batch: &PolicyBatch, log_probs: Tensor<2>, config: &GrpoConfig) -> Result<PolicyLoss, GrpoError> {
    config.validate()?;
    check_shape("log_probs", &batch.dims(), &log_probs.dims())?;
    let padding = batch.padding();
    let row_tokens = padding.clone().bool_not().float().sum_dim(1).squeeze_dim::<1>(1);
    let log_probs = log_probs.cast(DType::F32);
    let advantages = batch.advantages().unsqueeze_dim::<2>(1);

    let log_ratio_old = log_ratio(log_probs.clone(), batch.old_log_probs(), padding.clone());
    let ratio = importance_ratio(log_ratio_old, row_tokens.clone(), config.ratio);
    let unclipped = ratio.clone() * advantages.clone();
    let low = 1.0 - config.epsilon_low;
    let high = 1.0 + config.epsilon_high;
    let clipped = ratio.clone().clamp(low, high) * advantages.clone();
    let surrogate = unclipped.min_pair(clipped).neg();

    let kl = batch.ref_log_probs().map(|reference| {
        let log_ratio_ref = log_ratio(reference, log_probs.clone(), padding.clone());
        kl_per_token(log_ratio_ref, config.kl)
    });
    let per_token = match &kl {
        _ if config.beta == 0.0 => surrogate,
        Some(kl) => surrogate + kl.clone() * config.beta,
        None => return Err(GrpoError::MissingReference { beta: config.beta }),
    };
    let row_sums = sum_tokens(per_token, padding.clone());
    let row_loss = row_contributions(row_sums, row_tokens.clone(), batch.totals(), config.aggregation);

    // `inner`, not `detach`: a detached leaf stays tracked.
    let ratio = ratio.inner();
    let is_low = ratio.clone().lower_elem(low).float() * advantages.clone().lower_elem(0.0).float();
    let is_high = ratio.clone().greater_elem(high).float() * advantages.greater_elem(0.0).float();
    let metrics = PolicyMetrics {
        row_loss: row_loss.clone().inner(),
        row_tokens,
        row_log_prob: sum_tokens(log_probs.inner(), padding.clone()),
        row_ratio: sum_tokens(ratio, padding.clone()),
        row_kl: kl.map(|kl| sum_tokens(kl.inner(), padding.clone())),
        row_clip_low: sum_tokens(is_low, padding.clone()),
        row_clip_high: sum_tokens(is_high, padding),
    };
    let loss = row_loss.sum();
    Ok(PolicyLoss { loss, metrics })
}

/// Sum over the trained tokens of each row, `[batch]`.
fn sum_tokens(per_token: Tensor<2>, padding: Tensor<2, Bool>) -> Tensor<1> {
    per_token.mask_fill(padding, 0.0).sum_dim(1).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use super::*;
    use crate::scalar::{self, ScalarBatch};
    use crate::{KlEstimator, LossAggregation, LossTotals, RatioLevel, RewardScale};

    const ROWS: usize = 3;
    const SEQ: usize = 4;
    const TOKENS: usize = ROWS * SEQ;

    /// Row-major tables of `ROWS * SEQ` values.
    #[derive(Debug, Clone)]
    struct Case {
        log_probs: Vec<f32>,
        old: Vec<f32>,
        reference: Vec<f32>,
        advantages: Vec<f32>,
        mask: Vec<bool>,
    }

    fn case() -> impl Strategy<Value = Case> {
        let table = |low: f32, high: f32| prop::collection::vec(low..high, TOKENS);
        let shift = prop_oneof![8 => -0.6f32..0.6, 1 => -4f32..4.0, 1 => Just(0.0)];
        let shifts = prop_oneof![
            4 => prop::collection::vec(shift, TOKENS),
            1 => table(-60.0, 60.0),
        ];
        let mask = prop::collection::vec(prop::bool::weighted(0.7), TOKENS);
        let advantages = prop::collection::vec(prop_oneof![4 => -2f32..2.0, 1 => Just(0.0)], ROWS);
        (table(-4.0, 0.0), shifts, table(-4.0, 0.0), advantages, mask).prop_map(
            |(old, shifts, reference, advantages, mask)| Case {
                log_probs: old.iter().zip(&shifts).map(|(o, s)| o + s).collect(),
                old,
                reference,
                advantages,
                mask,
            },
        )
    }

    fn config() -> impl Strategy<Value = GrpoConfig> {
        let aggregation = prop_oneof![
            Just(LossAggregation::TokenMean),
            Just(LossAggregation::SeqMeanTokenMean),
            Just(LossAggregation::TokenSumOverBudget { max_completion_len: 7 }),
        ];
        let kl = prop_oneof![Just(KlEstimator::K1), Just(KlEstimator::K2), Just(KlEstimator::K3)];
        let ratio = prop_oneof![Just(RatioLevel::Token), Just(RatioLevel::Sequence)];
        let beta = prop_oneof![Just(0.0), 0.01..0.5];
        (aggregation, kl, ratio, beta, 0.05..0.3, 0.05..0.3).prop_map(|(aggregation, kl, ratio, beta, low, high)| {
            GrpoConfig::new(aggregation, RewardScale::None)
                .with_kl(kl)
                .with_ratio(ratio)
                .with_beta(beta)
                .with_epsilon_low(low)
                .with_epsilon_high(high)
        })
    }

    fn tensor(values: &[f32], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [ROWS, SEQ]), device)
    }

    fn rows(values: &[f32]) -> Vec<Vec<f64>> {
        let row = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect();
        values.chunks(SEQ).map(row).collect()
    }

    /// Loss and gradient of the tensor code.
    fn tensor_loss(case: &Case, config: &GrpoConfig) -> (f64, Vec<f32>) {
        let device = Device::flex();
        let mask = Tensor::from_data(TensorData::new(case.mask.clone(), [ROWS, SEQ]), &device);
        let batch = PolicyBatch::new(
            tensor(&case.old, &device),
            Some(tensor(&case.reference, &device)),
            Tensor::from_floats(case.advantages.as_slice(), &device),
            mask,
        );
        let log_probs = tensor(&case.log_probs, &device.autodiff()).require_grad();
        let loss = policy_loss(&batch.unwrap(), log_probs.clone(), config).unwrap().loss;
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradient = log_probs.grad(&loss.backward()).unwrap();
        (value, gradient.into_data().try_to_vec::<f32>().unwrap())
    }

    fn scalar_batch(case: &Case) -> ScalarBatch {
        ScalarBatch {
            old_log_probs: rows(&case.old),
            ref_log_probs: rows(&case.reference),
            advantages: case.advantages.iter().map(|&a| f64::from(a)).collect(),
            completion_mask: case.mask.chunks(SEQ).map(<[bool]>::to_vec).collect(),
            totals: LossTotals::from_mask(&case.mask, ROWS),
        }
    }

    proptest! {
        #[test]
        fn loss_and_gradient_equal_the_scalar_twin(case in case(), config in config()) {
            let (loss, gradient) = tensor_loss(&case, &config);
            let batch = scalar_batch(&case);
            let at = |log_probs: &[Vec<f64>]| scalar::policy_loss(&batch, log_probs, &config);
            let log_probs = rows(&case.log_probs);
            let expected = at(&log_probs);
            prop_assert!((loss - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{loss} {expected}");
            if expected.abs() > 1e3 {
                return Ok(()); // too large for finite differences
            }
            let step = 1e-6;
            for (token, got) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut log_probs = log_probs.clone();
                    log_probs[token / SEQ][token % SEQ] += by;
                    at(&log_probs)
                };
                let sides = [(expected - moved(-step)) / step, (moved(step) - expected) / step];
                let scale = sides[0].abs().max(1.0);
                // One-sided slopes differ at a corner of the clip, where any slope between them is right.
                if (sides[0] - sides[1]).abs() > 1e-4 * scale {
                    continue;
                }
                let slope = (sides[0] + sides[1]) / 2.0;
                prop_assert!((f64::from(*got) - slope).abs() <= 1e-4 * scale, "{token}: {got} {slope}");
            }
        }
    }

    #[test]
    fn a_wrong_shape_or_a_missing_reference_is_an_error() {
        let device = Device::flex();
        let zeros = |rows| Tensor::<2>::zeros([rows, SEQ], &device);
        let mask = zeros(2).equal_elem(0.0);
        let batch = PolicyBatch::new(zeros(2), None, Tensor::zeros([2], &device), mask).unwrap();
        let config = GrpoConfig::ril(8);
        let error = policy_loss(&batch, zeros(1), &config).unwrap_err();
        assert!(error.to_string().starts_with("log_probs"), "{error}");
        let error = policy_loss(&batch, zeros(2), &config).unwrap_err();
        assert!(matches!(error, GrpoError::MissingReference { beta: 0.01 }));
        let error = policy_loss(&batch, zeros(2), &config.with_epsilon_low(-1.0)).unwrap_err();
        assert!(matches!(error, GrpoError::Config(_)));
        assert!(policy_loss(&batch, zeros(2), &GrpoConfig::dr_grpo(8)).is_ok());
    }

    #[test]
    fn metrics_carry_no_graph() {
        let device = Device::flex();
        let zeros = Tensor::<2>::zeros([2, SEQ], &device);
        let mask = zeros.clone().equal_elem(0.0);
        let advantages = Tensor::<1>::ones([2], &device);
        let batch = PolicyBatch::new(zeros.clone(), Some(zeros), advantages, mask).unwrap();
        let log_probs = Tensor::<2>::full([2, SEQ], 0.5, &device.autodiff()).require_grad();
        let PolicyLoss { loss, metrics } = policy_loss(&batch, log_probs, &GrpoConfig::ril(8)).unwrap();
        assert!(loss.is_tracked());
        let PolicyMetrics { row_loss, row_log_prob, row_ratio, row_kl, row_clip_high, .. } = metrics;
        for metric in [row_loss, row_log_prob, row_ratio, row_kl.unwrap(), row_clip_high] {
            assert!(!metric.is_tracked());
        }
    }
}
