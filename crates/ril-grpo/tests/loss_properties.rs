//! Properties of `policy_loss`, numbered as in the design (6 to 12).

use burn::tensor::{Bool, Device, Distribution, Tensor, TensorData};
use proptest::prelude::*;
use ril_grpo::{
    AdvantageEstimator, ClipRange, GrpoConfig, KlEstimator, LossAggregation, PolicyBatch, PolicyMetrics, RatioLevel,
    RewardScale, Surrogate, policy_loss,
};

const SEQ: usize = 5;
const AGGREGATIONS: [LossAggregation; 4] = [
    LossAggregation::TokenMean,
    LossAggregation::SeqMeanTokenMean,
    LossAggregation::SeqMeanTokenSum,
    LossAggregation::TokenSumOverBudget { max_completion_len: SEQ },
];

/// Row-major tables `[rows, seq]`.
#[derive(Debug, Clone)]
struct Case {
    log_probs: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f32>,
    mask: Vec<bool>,
}

struct Output {
    loss: f32,
    gradient: Vec<f32>,
    metrics: PolicyMetrics,
}

impl Case {
    fn rows(&self) -> usize {
        self.advantages.len()
    }

    fn table(&self, values: &[f32], device: &Device) -> Tensor<2> {
        let shape = [self.rows(), values.len() / self.rows()];
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    }

    fn batch(&self) -> PolicyBatch {
        let device = Device::flex();
        let shape = [self.rows(), self.mask.len() / self.rows()];
        let mask: Tensor<2, Bool> = Tensor::from_data(TensorData::new(self.mask.clone(), shape), &device);
        let (old, reference) = (&self.old, &self.reference);
        PolicyBatch::new(
            self.table(old, &device),
            Some(self.table(reference, &device)),
            Tensor::from_floats(self.advantages.as_slice(), &device),
            mask,
        )
        .unwrap()
    }

    fn run(&self, config: &GrpoConfig) -> Output {
        let log_probs = self.table(&self.log_probs, &Device::flex().autodiff());
        evaluate(&self.batch(), log_probs, config)
    }

    /// What the loss of a token of this row is multiplied by.
    fn weight(&self, row: usize, aggregation: LossAggregation) -> f64 {
        let trained = |mask: &[bool]| mask.iter().filter(|trained| **trained).count().max(1) as f64;
        let rows = self.rows() as f64;
        match aggregation {
            LossAggregation::TokenMean => 1.0 / trained(&self.mask),
            LossAggregation::SeqMeanTokenMean => 1.0 / (trained(&self.mask[row * SEQ..][..SEQ]) * rows),
            LossAggregation::SeqMeanTokenSum => 1.0 / rows,
            LossAggregation::TokenSumOverBudget { max_completion_len } => 1.0 / (rows * max_completion_len as f64),
        }
    }

    /// Every padded value replaced by one that would spoil a sum.
    fn poisoned(&self, poison: f32) -> Self {
        let fill = |values: &[f32]| {
            let pairs = values.iter().zip(&self.mask);
            pairs.map(|(value, keep)| if *keep { *value } else { poison }).collect()
        };
        Self {
            log_probs: fill(&self.log_probs),
            old: fill(&self.old),
            reference: fill(&self.reference),
            ..self.clone()
        }
    }

    /// The same rows with untrained columns behind them.
    fn wider(&self, columns: usize, filler: f32) -> Self {
        fn widen<T: Copy>(values: &[T], seq: usize, columns: usize, filler: T) -> Vec<T> {
            let rows = values.chunks(seq);
            rows.flat_map(|row| [row, &vec![filler; columns]].concat()).collect()
        }
        let seq = self.mask.len() / self.rows();
        Self {
            log_probs: widen(&self.log_probs, seq, columns, filler),
            old: widen(&self.old, seq, columns, filler),
            reference: widen(&self.reference, seq, columns, filler),
            mask: widen(&self.mask, seq, columns, false),
            advantages: self.advantages.clone(),
        }
    }
}

fn evaluate(batch: &PolicyBatch, log_probs: Tensor<2>, config: &GrpoConfig) -> Output {
    let log_probs = log_probs.require_grad();
    let output = policy_loss(batch, log_probs.clone(), config).unwrap();
    let loss = output.loss.clone().into_scalar::<f32>();
    let gradient = log_probs.grad(&output.loss.backward()).unwrap().into_data();
    let gradient = gradient.try_to_vec::<f32>().unwrap();
    Output { loss, gradient, metrics: output.metrics }
}

/// Cases whose log-ratios stay within `spread`.
fn cases(spread: f32) -> impl Strategy<Value = Case> {
    (1usize..5).prop_flat_map(move |rows| {
        let table = |low: f32, high: f32| prop::collection::vec(low..high, rows * SEQ);
        let mask = prop::collection::vec(prop::bool::weighted(0.7), rows * SEQ);
        let advantages = prop::collection::vec(-2f32..2.0, rows);
        let tables = (table(-4.0, -0.1), table(-spread, spread), table(-4.0, -0.1));
        (tables, advantages, mask).prop_map(|((old, shift, reference), advantages, mask)| Case {
            log_probs: old.iter().zip(&shift).map(|(o, s)| o + s).collect(),
            old,
            reference,
            advantages,
            mask,
        })
    })
}

fn config(aggregation: LossAggregation) -> GrpoConfig {
    GrpoConfig::new(aggregation, AdvantageEstimator::GroupMean(RewardScale::None))
}

fn near(a: f32, b: f32, tolerance: f32) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

fn all_near(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b, tolerance))
}

proptest! {
    // 6
    #[test]
    fn padding_content_changes_neither_loss_nor_gradient(case in cases(1.0), columns in 1usize..4) {
        for aggregation in AGGREGATIONS {
            for level in [RatioLevel::Token, RatioLevel::Sequence] {
                let config = config(aggregation).with_beta(0.1).with_ratio(level);
                let clean = case.run(&config);
                for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
                    let poisoned = case.poisoned(poison).run(&config);
                    prop_assert_eq!(poisoned.loss, clean.loss);
                    prop_assert_eq!(&poisoned.gradient, &clean.gradient);
                    let rows = poisoned.metrics.read().unwrap();
                    prop_assert_eq!(rows, clean.metrics.clone().read().unwrap());
                }
                let wide = case.wider(columns, f32::NAN).run(&config);
                prop_assert!(near(wide.loss, clean.loss, 1e-6));
                let rows = wide.gradient.chunks(SEQ + columns);
                let kept: Vec<f32> = rows.clone().flat_map(|row| row[..SEQ].to_vec()).collect();
                prop_assert!(all_near(&kept, &clean.gradient, 1e-6));
                prop_assert!(rows.into_iter().all(|row| row[SEQ..].iter().all(|g| *g == 0.0)));
            }
        }
    }

    // 6
    #[test]
    fn a_fully_masked_batch_gives_zero(case in cases(1.0)) {
        let case = Case { mask: vec![false; case.mask.len()], ..case }.poisoned(f32::NAN);
        for aggregation in AGGREGATIONS {
            let output = case.run(&config(aggregation).with_beta(0.1));
            prop_assert_eq!(output.loss, 0.0);
            prop_assert!(output.gradient.iter().all(|g| *g == 0.0));
        }
    }

    // 7
    #[test]
    fn on_policy_the_gradient_is_reinforce(case in cases(0.0001)) {
        let case = Case { log_probs: case.old.clone(), ..case };
        for aggregation in AGGREGATIONS {
            let output = case.run(&config(aggregation));
            for (token, got) in output.gradient.iter().enumerate() {
                let row = token / SEQ;
                let weight = if case.mask[token] { case.weight(row, aggregation) as f32 } else { 0.0 };
                prop_assert!(near(*got, -case.advantages[row] * weight, 1e-6));
            }
        }
    }

    // 8
    #[test]
    fn the_gradient_stops_only_where_the_clip_binds(case in cases(0.6), low in 0.05..0.4f64, high in 0.05..0.6f64) {
        let clip = ClipRange::new(low, high);
        let config = config(LossAggregation::TokenMean).with_surrogate(Surrogate::Clipped(clip));
        let (low, high) = (1.0 - low, 1.0 + high);
        let output = case.run(&config);
        for (token, gradient) in output.gradient.iter().enumerate() {
            let advantage = case.advantages[token / SEQ];
            let ratio = f64::from(case.log_probs[token] - case.old[token]).exp();
            let edge = (ratio - high).abs().min((ratio - low).abs());
            if !case.mask[token] || edge < 1e-4 || advantage.abs() < 1e-3 {
                continue;
            }
            let is_clipped = (advantage > 0.0 && ratio > high) || (advantage < 0.0 && ratio < low);
            prop_assert_eq!(*gradient == 0.0, is_clipped, "ratio {} A {}", ratio, advantage);
            if !is_clipped {
                prop_assert_eq!(gradient.signum(), -advantage.signum());
            }
        }
    }

    // 9
    #[test]
    fn clipping_never_raises_the_objective(case in cases(2.0)) {
        for aggregation in AGGREGATIONS {
            let wide = |high: f64| config(aggregation).with_surrogate(Surrogate::Clipped(ClipRange::new(1.0, high)));
            let clipped = case.run(&config(aggregation)).metrics.read().unwrap();
            let unclipped = case.run(&wide(1e9)).metrics.read().unwrap();
            for (row, (clipped, unclipped)) in clipped.iter().zip(&unclipped).enumerate() {
                prop_assert!(clipped.loss >= unclipped.loss - 1e-6);
                let trained = (row * SEQ..(row + 1) * SEQ).filter(|token| case.mask[*token]);
                let ratios: f64 = trained.map(|token| f64::from(case.log_probs[token] - case.old[token]).exp()).sum();
                let expected = -ratios * f64::from(case.advantages[row]) * case.weight(row, aggregation);
                prop_assert!((unclipped.loss - expected).abs() <= 1e-5 * expected.abs().max(1.0));
            }
            prop_assert_eq!(case.run(&wide(1e9)).loss, case.run(&wide(1e6)).loss);
            prop_assert!(unclipped.iter().all(|row| row.clip_low + row.clip_high == 0.0));
        }
    }

    // 10
    #[test]
    fn micro_batches_add_up(case in cases(1.0), cuts in prop::collection::vec(any::<bool>(), 4)) {
        let log_probs = case.table(&case.log_probs, &Device::flex().autodiff());
        for aggregation in AGGREGATIONS {
            let config = config(aggregation).with_beta(0.1);
            let whole = case.run(&config);
            let batch = case.batch();
            let (mut loss, mut gradient, mut metrics) = (0.0, vec![], vec![]);
            let mut start = 0;
            for end in 1..=case.rows() {
                if end < case.rows() && !cuts[end - 1] {
                    continue;
                }
                let rows = log_probs.clone().slice_dim(0, start..end);
                let part = evaluate(&batch.rows(start..end).unwrap(), rows, &config);
                loss += part.loss;
                gradient.extend(part.gradient);
                metrics.push(part.metrics);
                start = end;
            }
            prop_assert!(near(loss, whole.loss, 1e-6), "{} {}", loss, whole.loss);
            prop_assert!(all_near(&gradient, &whole.gradient, 1e-7));
            let joined = PolicyMetrics::cat(&metrics).unwrap().read().unwrap();
            prop_assert_eq!(joined, whole.metrics.read().unwrap());
        }
    }

    // 11
    #[test]
    fn aggregations_agree_on_full_completions(case in cases(1.0)) {
        let case = Case { mask: vec![true; case.mask.len()], ..case };
        let expected = case.run(&config(LossAggregation::TokenMean).with_beta(0.1));
        for aggregation in AGGREGATIONS {
            let output = case.run(&config(aggregation).with_beta(0.1));
            // A sum over the row is its mean times its length.
            let factor = if aggregation == LossAggregation::SeqMeanTokenSum { SEQ as f32 } else { 1.0 };
            prop_assert!(near(output.loss, factor * expected.loss, 1e-6));
            let gradient: Vec<f32> = expected.gradient.iter().map(|gradient| factor * gradient).collect();
            prop_assert!(all_near(&output.gradient, &gradient, 1e-6));
        }
    }

    // 12
    #[test]
    fn k3_is_non_negative_and_zero_only_at_equality(case in cases(1.0)) {
        let config = config(LossAggregation::TokenMean);
        let rows = case.run(&config).metrics.read().unwrap();
        for (index, row) in rows.iter().enumerate() {
            let range = index * SEQ..(index + 1) * SEQ;
            let gap = range.filter(|t| case.mask[*t]);
            let gap = gap.map(|t| (case.log_probs[t] - case.reference[t]).abs()).fold(0.0, f32::max);
            // (e^d - 1) - d rounds at 1e-7
            prop_assert!(row.kl.unwrap() >= -1e-6);
            prop_assert!(gap < 0.01 || row.kl.unwrap() > 0.0);
        }
        let equal = Case { reference: case.log_probs.clone(), ..case };
        let rows = equal.run(&config).metrics.read().unwrap();
        prop_assert!(rows.iter().all(|row| row.kl == Some(0.0)));
    }
}

// 12
#[test]
fn estimators_approach_the_exact_kl_of_a_categorical() {
    const SAMPLES: usize = 40_000;
    let (policy, reference) = ([0.5f64, 0.3, 0.15, 0.05], [0.3f64, 0.3, 0.2, 0.2]);
    let exact: f64 = policy.iter().zip(reference).map(|(p, q)| p * (p / q).ln()).sum();
    let device = Device::flex();
    device.seed(12);
    let uniform = Tensor::<1>::random([SAMPLES], Distribution::Uniform(0.0, 1.0), &device);
    let draw = |u: f32| {
        let mut left = f64::from(u);
        policy.iter().position(|p| {
            left -= p;
            left < 0.0
        })
    };
    let tokens: Vec<usize> = uniform.into_data().iter::<f32>().map(|u| draw(u).unwrap_or(3)).collect();
    let logs = |table: &[f64; 4]| tokens.iter().map(|t| table[*t].ln() as f32).collect::<Vec<_>>();
    let case = Case {
        log_probs: logs(&policy),
        old: logs(&policy),
        reference: logs(&reference),
        advantages: vec![0.0; SAMPLES],
        mask: vec![true; SAMPLES],
    };
    for kl in [KlEstimator::K1, KlEstimator::K3] {
        let config = config(LossAggregation::TokenMean).with_kl(kl);
        let rows = case.run(&config).metrics.read().unwrap();
        let values: Vec<f64> = rows.iter().map(|row| row.kl.unwrap()).collect();
        let mean = values.iter().sum::<f64>() / SAMPLES as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / SAMPLES as f64;
        let sigma = (variance / SAMPLES as f64).sqrt();
        assert!((mean - exact).abs() < 4.0 * sigma, "{kl:?} {mean} {exact} {sigma}");
    }
}
