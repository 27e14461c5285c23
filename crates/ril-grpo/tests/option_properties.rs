//! What each option of the loss is by definition: where it is idle, what bounds it, what it equals.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use proptest::prelude::*;
use ril_grpo::{
    AdvantageEstimator, ClipRange, GammaShape, GrpoConfig, KlEstimator, KlGradient, LossAggregation, PolicyBatch,
    RatioLevel, RewardScale, RowOrigin, RowRatio, RowRole, SamplerBound, SamplerCorrection, SamplerLevel, SftTerm,
    SftTokenWeight, Surrogate, TokenScores, policy_loss,
};

#[path = "common/surrogates.rs"]
mod surrogates;

use surrogates::surrogate;

const ROWS: usize = 3;
const SEQ: usize = 4;
const LEVELS: [RatioLevel; 3] = [RatioLevel::Token, RatioLevel::Sequence, RatioLevel::SequenceToken];
const AGGREGATIONS: [LossAggregation; 4] = [
    LossAggregation::TokenMean,
    LossAggregation::SeqMeanTokenMean,
    LossAggregation::SeqMeanTokenSum,
    LossAggregation::TokenSumOverBudget { max_completion_len: 7 },
];

/// Row-major tables `[ROWS, SEQ]`; every row has a trained token.
#[derive(Debug, Clone)]
struct Case {
    log_probs: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    entropy: Vec<f32>,
    advantages: Vec<f32>,
    mask: Vec<bool>,
}

/// Loss with its gradients with respect to log-probabilities and entropies.
#[derive(Debug, PartialEq)]
struct Output {
    loss: f32,
    gradient: Vec<f32>,
    entropy_gradient: Vec<f32>,
}

fn tensor(values: &[f32], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [ROWS, SEQ]), device)
}

impl Case {
    fn on_policy(&self) -> Self {
        Self { log_probs: self.old.clone(), ..self.clone() }
    }

    fn batch(&self) -> PolicyBatch {
        let device = Device::flex();
        let mask = Tensor::<2, Bool>::from_data(TensorData::new(self.mask.clone(), [ROWS, SEQ]), &device);
        let advantages = Tensor::from_floats(self.advantages.as_slice(), &device);
        let reference = Some(tensor(&self.reference, &device));
        PolicyBatch::new(tensor(&self.old, &device), reference, advantages, mask).unwrap()
    }

    fn run(&self, config: &GrpoConfig) -> Output {
        self.run_on(&self.batch(), config)
    }

    fn run_on(&self, batch: &PolicyBatch, config: &GrpoConfig) -> Output {
        let device = Device::flex().autodiff();
        let log_probs = tensor(&self.log_probs, &device).require_grad();
        let entropy = tensor(&self.entropy, &device).require_grad();
        let scores = TokenScores { log_probs: log_probs.clone(), entropy: Some(entropy.clone()) };
        let loss = policy_loss(batch, scores, config).unwrap().loss;
        let value = loss.clone().into_scalar::<f32>();
        let gradients = loss.backward();
        let host = |tensor: &Tensor<2>| match tensor.grad(&gradients) {
            Some(gradient) => gradient.into_data().try_to_vec::<f32>().unwrap(),
            None => vec![0.0; ROWS * SEQ],
        };
        Output { loss: value, gradient: host(&log_probs), entropy_gradient: host(&entropy) }
    }

    fn length(&self, row: usize) -> usize {
        self.mask[row * SEQ..][..SEQ].iter().filter(|trained| **trained).count()
    }

    /// What a token's loss is multiplied by; 0 at padding.
    fn weight(&self, token: usize, aggregation: LossAggregation) -> f32 {
        let (rows, length) = (ROWS as f32, self.length(token / SEQ) as f32);
        match aggregation {
            _ if !self.mask[token] => 0.0,
            LossAggregation::TokenMean => 1.0 / self.mask.iter().filter(|trained| **trained).count() as f32,
            LossAggregation::SeqMeanTokenMean => 1.0 / (length * rows),
            LossAggregation::SeqMeanTokenSum => 1.0 / rows,
            LossAggregation::TokenSumOverBudget { max_completion_len } => 1.0 / (rows * max_completion_len as f32),
        }
    }

    /// Sum of `weight * value` over trained tokens.
    fn aggregate(&self, aggregation: LossAggregation, value: impl Fn(usize) -> f32) -> f32 {
        let trained = (0..ROWS * SEQ).filter(|&token| self.mask[token]);
        trained.map(|token| self.weight(token, aggregation) * value(token)).sum()
    }
}

/// Cases whose log-ratios stay within `spread`.
fn cases(spread: f32) -> impl Strategy<Value = Case> {
    let table = |low: f32, high: f32| prop::collection::vec(low..high, ROWS * SEQ);
    let mask = prop::collection::vec(prop::bool::weighted(0.7), ROWS * SEQ);
    let advantage = prop_oneof![0.1f32..2.0, -2f32..-0.1];
    let tables = (table(-4.0, -0.1), table(-spread, spread), table(-4.0, -0.1), table(0.0, 3.0));
    (tables, prop::collection::vec(advantage, ROWS), mask).prop_map(|(tables, advantages, mut mask)| {
        let (old, shift, reference, entropy) = tables;
        (0..ROWS).for_each(|row| mask[row * SEQ] = true);
        let log_probs = old.iter().zip(&shift).map(|(old, shift)| old + shift).collect();
        Case { log_probs, old, reference, entropy, advantages, mask }
    })
}

/// Surrogates, each with a ratio level that it takes.
fn surrogate_and_level() -> impl Strategy<Value = (Surrogate, RatioLevel)> {
    (surrogate(), 0usize..3).prop_map(|(surrogate, level)| match surrogate {
        Surrogate::GammaWeight { .. } | Surrogate::GeometricMean(_) => (surrogate, RatioLevel::Token),
        _ => (surrogate, LEVELS[level]),
    })
}

fn config(aggregation: LossAggregation, surrogate: Surrogate) -> GrpoConfig {
    GrpoConfig::new(aggregation, AdvantageEstimator::GroupMean(RewardScale::None)).with_surrogate(surrogate)
}

fn clipped(aggregation: LossAggregation) -> GrpoConfig {
    config(aggregation, Surrogate::Clipped(ClipRange::default()))
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 2e-6 * b.abs().max(1.0)
}

proptest! {
    // The constant of every surrogate is 1: the slope of SAPO's gate at 1 is `(4 / tau) tau / 4`, VESPO's weight is
    // `phi(1)`, and GMPO's `1 / length` meets the `length` tokens that share the ratio.
    #[test]
    fn on_policy_every_surrogate_is_reinforce(case in cases(0.0001), (surrogate, level) in surrogate_and_level()) {
        let case = case.on_policy();
        for aggregation in AGGREGATIONS {
            let output = case.run(&config(aggregation, surrogate).with_ratio(level));
            for (token, got) in output.gradient.iter().enumerate() {
                let expected = -case.advantages[token / SEQ] * case.weight(token, aggregation);
                prop_assert!(near(*got, expected), "{got} {expected}");
            }
        }
    }

    #[test]
    fn a_truncated_ratio_weighs_within_its_bounds(case in cases(6.0), min_ratio in 0.0..0.9f64, max_ratio in 1.0..5.0) {
        let surrogate = Surrogate::TruncatedRatio { min_ratio, max_ratio };
        let output = case.run(&config(LossAggregation::TokenMean, surrogate));
        for token in (0..ROWS * SEQ).filter(|&token| case.mask[token]) {
            let unit = -case.advantages[token / SEQ] * case.weight(token, LossAggregation::TokenMean);
            let weight = output.gradient[token] / unit;
            let ratio = (case.log_probs[token] - case.old[token]).exp();
            let bounded = ratio.max(min_ratio as f32).min(max_ratio as f32);
            prop_assert!((weight - bounded).abs() <= 1e-5 * bounded.max(1.0), "{weight} {bounded}");
        }
    }

    // In nats the slope is `rho sech^2(tau (rho - 1) / 2) <= 1 + 0.896 / tau`.
    #[test]
    fn a_soft_gate_bounds_loss_and_gradient(case in cases(15.0), positive in 0.5..3.0f64, negative in 0.5..3.0f64) {
        let surrogate = Surrogate::SoftGate { temperature_positive: positive, temperature_negative: negative };
        let output = case.run(&config(LossAggregation::SeqMeanTokenMean, surrogate));
        let tau = |row: usize| (if case.advantages[row] > 0.0 { positive } else { negative }) as f32;
        for (token, gradient) in output.gradient.iter().enumerate() {
            let unit = case.advantages[token / SEQ] * case.weight(token, LossAggregation::SeqMeanTokenMean);
            prop_assert!(gradient.abs() <= unit.abs() * (1.0 + 0.8956 / tau(token / SEQ)) + 1e-6);
            prop_assert!(gradient * unit <= 0.0);
        }
        let most = case.aggregate(LossAggregation::SeqMeanTokenMean, |token| {
            case.advantages[token / SEQ].abs() * 4.0 / tau(token / SEQ)
        });
        prop_assert!(output.loss.abs() <= most);
    }

    #[test]
    fn a_geometric_mean_that_clips_nothing_is_the_ratio_of_the_sequence(case in cases(2.0)) {
        let wide = config(LossAggregation::TokenMean, Surrogate::GeometricMean(ClipRange::new(20.0, 20.0)));
        let mean = |row: usize| {
            let trained = (row * SEQ..(row + 1) * SEQ).filter(|&token| case.mask[token]);
            trained.map(|token| case.log_probs[token] - case.old[token]).sum::<f32>() / case.length(row) as f32
        };
        let expected = case.aggregate(LossAggregation::TokenMean, |token| {
            -case.advantages[token / SEQ] * mean(token / SEQ).exp()
        });
        let got = case.run(&wide).loss;
        prop_assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got} {expected}");
    }

    #[test]
    fn the_gamma_weight_of_an_unmoved_sequence_is_one(case in cases(0.0001), k in 0.0..4.0, lambda in 0.5..4.0) {
        let case = case.on_policy();
        let shape = GammaShape { k, lambda };
        let surrogate = Surrogate::GammaWeight { positive: shape, negative: shape };
        for aggregation in AGGREGATIONS {
            let expected = case.aggregate(aggregation, |token| -case.advantages[token / SEQ] * case.log_probs[token]);
            let got = case.run(&config(aggregation, surrogate)).loss;
            prop_assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got} {expected}");
        }
    }

    #[test]
    fn a_sequence_token_ratio_has_the_value_of_the_sequence(case in cases(2.0), surrogate in surrogate()) {
        prop_assume!(!matches!(surrogate, Surrogate::GammaWeight { .. } | Surrogate::GeometricMean(_)));
        let loss = |level| case.run(&config(LossAggregation::TokenMean, surrogate).with_ratio(level)).loss;
        let (own, shared) = (loss(RatioLevel::SequenceToken), loss(RatioLevel::Sequence));
        prop_assert!(near(own, shared), "{own} {shared}");
    }

    #[test]
    fn where_the_kl_gradient_comes_from_changes_no_value(case in cases(1.0), kind in 0usize..3, beta in 0.01..0.5) {
        let kl = [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3][kind];
        let loss = |case: &Case, gradient| {
            case.run(&clipped(LossAggregation::TokenMean).with_beta(beta).with_kl(kl).with_kl_gradient(gradient)).loss
        };
        let (own, of_k2) = (loss(&case, KlGradient::Own), loss(&case, KlGradient::OfK2));
        prop_assert!(near(own, of_k2), "{own} {of_k2}");
        // The ratio is 1 on-policy.
        let case = case.on_policy();
        let (own, weighted) = (loss(&case, KlGradient::Own), loss(&case, KlGradient::RatioWeighted));
        prop_assert!(near(own, weighted), "{own} {weighted}");
    }

    #[test]
    fn a_sampler_that_agrees_corrects_nothing(case in cases(1.0), (surrogate, level) in surrogate_and_level()) {
        let config = config(LossAggregation::SeqMeanTokenMean, surrogate).with_ratio(level);
        let plain = case.run(&config);
        for level in [SamplerLevel::Token, SamplerLevel::Sequence] {
            for bound in [SamplerBound::Truncate, SamplerBound::Mask] {
                let correction = SamplerCorrection { level, bound, min_ratio: 1.0, max_ratio: 1.0 };
                let old = tensor(&case.old, &Device::flex());
                let batch = case.batch().with_sampler(old, Some(correction)).unwrap();
                prop_assert_eq!(&case.run_on(&batch, &config), &plain);
            }
        }
    }

    #[test]
    fn options_at_their_idle_end_change_nothing(case in cases(1.0), (surrogate, level) in surrogate_and_level()) {
        let config = config(LossAggregation::TokenMean, surrogate).with_ratio(level).with_entropy_coefficient(0.1);
        let plain = case.run(&config);
        let everything = case.batch().with_top_entropy_tokens(tensor(&case.entropy, &Device::flex()), 1.0).unwrap();
        prop_assert_eq!(&case.run_on(&everything, &config), &plain);
        // An infinite threshold is refused: it says nothing that none does not.
        let unreachable = config.clone().with_off_policy_threshold(Some(f64::MAX));
        prop_assert_eq!(&case.run(&unreachable), &plain);
        let sft = SftTerm { weight: 0.0, token_weight: SftTokenWeight::Uniform };
        prop_assert_eq!(&case.run(&config.clone().with_sft(Some(sft))), &plain);
        let students = case.batch().with_rows(vec![RowRole::STUDENT; ROWS], None).unwrap();
        prop_assert_eq!(&case.run_on(&students, &config), &plain);
    }

    #[test]
    fn luffys_shaping_rises_with_the_probability_and_stays_below_one(
        mut log_probs in prop::collection::vec(-6f32..0.0, ROWS), gamma in 0.01..1.0f64,
    ) {
        log_probs.sort_by(f32::total_cmp);
        // One trained token a row and A = -1: a row's loss is its shaped probability.
        let table: Vec<f32> = log_probs.iter().flat_map(|log_prob| [*log_prob; SEQ]).collect();
        let mask = (0..ROWS * SEQ).map(|token| token % SEQ == 0).collect();
        let advantages = vec![-1.0; ROWS];
        let (old, reference, entropy) = (table.clone(), table.clone(), table.clone());
        let case = Case { log_probs: table, old, reference, entropy, advantages, mask };
        let role = RowRole { origin: RowOrigin::Teacher, ratio: RowRatio::BehaviourOne { shaping: Some(gamma) } };
        let batch = case.batch().with_rows(vec![role; ROWS], None).unwrap();
        let scores = tensor(&case.log_probs, &Device::flex());
        let metrics = policy_loss(&batch, scores, &clipped(LossAggregation::SeqMeanTokenSum)).unwrap().metrics;
        let shaped: Vec<f64> = metrics.read().unwrap().iter().map(|row| row.loss * ROWS as f64).collect();
        prop_assert!(shaped.is_sorted() && shaped[0] > 0.0 && shaped[ROWS - 1] < 1.0, "{shaped:?}");
        for (shaped, log_prob) in shaped.iter().zip(&log_probs) {
            let p = f64::from(*log_prob).exp();
            prop_assert!((shaped - p / (p + gamma)).abs() < 1e-5);
        }
    }

    #[test]
    fn an_entropy_bonus_pushes_the_entropy_up(case in cases(1.0), coefficient in 0.01..0.5f64) {
        let plain = case.run(&clipped(LossAggregation::TokenMean));
        let bonus = case.run(&clipped(LossAggregation::TokenMean).with_entropy_coefficient(coefficient));
        let mean = case.aggregate(LossAggregation::TokenMean, |token| case.entropy[token]);
        prop_assert!(near(bonus.loss, plain.loss - coefficient as f32 * mean));
        prop_assert_eq!(&bonus.gradient, &plain.gradient);
        for (token, got) in bonus.entropy_gradient.iter().enumerate() {
            // Descent raises the entropy.
            let expected = -coefficient as f32 * case.weight(token, LossAggregation::TokenMean);
            prop_assert!(near(*got, expected), "{got} {expected}");
        }
    }

    #[test]
    fn an_uncertain_token_is_imitated_with_at_most_a_quarter(case in cases(0.0001)) {
        let batch = || case.batch().with_rows(vec![RowRole::CHORD_TEACHER; ROWS], None).unwrap();
        let sft = |token_weight| clipped(LossAggregation::TokenMean).with_sft(Some(SftTerm { weight: 1.0, token_weight }));
        let uniform = case.run_on(&batch(), &sft(SftTokenWeight::Uniform));
        let uncertain = case.run_on(&batch(), &sft(SftTokenWeight::Uncertainty));
        for token in 0..ROWS * SEQ {
            // Cross-entropy over all teacher tokens, whatever the aggregation.
            let expected = -case.weight(token, LossAggregation::TokenMean);
            prop_assert!(near(uniform.gradient[token], expected));
            let weight = if expected == 0.0 { 0.0 } else { uncertain.gradient[token] / expected };
            let p = case.log_probs[token].min(0.0).exp();
            prop_assert!((0.0..=0.250001).contains(&weight) && (expected == 0.0 || near(weight, p * (1.0 - p))));
        }
    }
}
