//! The loss of every combination of options against its `f64` twin.

use burn::tensor::{Device, TensorData};
use proptest::prelude::*;

use super::*;
use crate::scalar::{self, ScalarBatch};
use crate::{
    AdvantageEstimator, ClipRange, GammaShape, KlEstimator, KlGradient, LossAggregation, LossTotals, RatioLevel,
    RewardScale, RowOrigin, RowRatio, RowRole, SamplerBound, SamplerCorrection, SamplerLevel, SftTerm, SftTokenWeight,
    Surrogate,
};

#[path = "../tests/common/surrogates.rs"]
mod surrogates;

use surrogates::surrogate;

const ROWS: usize = 3;
const SEQ: usize = 4;
const TOKENS: usize = ROWS * SEQ;

/// Row-major tables of `ROWS * SEQ` values.
#[derive(Debug, Clone)]
struct Case {
    log_probs: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    /// What the teacher says of its own text.
    given: Vec<f32>,
    sampler: Vec<f32>,
    entropy: Vec<f32>,
    advantages: Vec<f32>,
    mask: Vec<bool>,
    roles: Vec<RowRole>,
    correction: Option<SamplerCorrection>,
    entropy_share: Option<f64>,
}

fn roles() -> impl Strategy<Value = Vec<RowRole>> {
    let ratio = prop_oneof![
        4 => Just(RowRatio::SameOld),
        1 => Just(RowRatio::BehaviourOne { shaping: Some(0.1) }),
        1 => Just(RowRatio::BehaviourOne { shaping: None }),
        1 => Just(RowRatio::Given),
        1 => Just(RowRatio::Excluded),
    ];
    let role = (ratio, any::<bool>()).prop_map(|(ratio, is_teacher)| {
        let is_teacher = is_teacher || ratio != RowRatio::SameOld;
        RowRole { origin: if is_teacher { RowOrigin::Teacher } else { RowOrigin::Student }, ratio }
    });
    prop::collection::vec(role, ROWS)
}

fn correction() -> impl Strategy<Value = Option<SamplerCorrection>> {
    let level = prop_oneof![Just(SamplerLevel::Token), Just(SamplerLevel::Sequence)];
    let bound = prop_oneof![Just(SamplerBound::Truncate), Just(SamplerBound::Mask)];
    let correction = (level, bound, 0.0..0.9, 1.1..3.0);
    let correction = correction.prop_map(|(level, bound, min_ratio, max_ratio)| SamplerCorrection {
        level,
        bound,
        min_ratio,
        max_ratio,
    });
    prop::option::of(correction)
}

fn case() -> impl Strategy<Value = Case> {
    let table = |low: f32, high: f32| prop::collection::vec(low..high, TOKENS);
    let shift = prop_oneof![8 => -0.6f32..0.6, 1 => -4f32..4.0, 1 => Just(0.0)];
    let shifts = prop_oneof![
        4 => prop::collection::vec(shift, TOKENS),
        1 => table(-60.0, 60.0),
    ];
    let gap = prop_oneof![9 => -0.3f32..0.3, 1 => Just(f32::NAN)];
    let mask = prop::collection::vec(prop::bool::weighted(0.7), TOKENS);
    let advantages = prop::collection::vec(prop_oneof![4 => -2f32..2.0, 1 => Just(0.0)], ROWS);
    let others = (table(-4.0, 0.0), table(-4.0, 0.0));
    let tables = (table(-4.0, 0.0), shifts, others, prop::collection::vec(gap, TOKENS), table(0.0, 3.0));
    let extras = (roles(), correction(), prop::option::of(0.2..1.0));
    (tables, advantages, mask, extras).prop_map(
        |((old, shifts, (reference, given), gaps, entropy), advantages, mask, extras)| {
            let (roles, correction, entropy_share) = extras;
            Case {
                log_probs: old.iter().zip(&shifts).map(|(o, s)| o + s).collect(),
                sampler: old.iter().zip(&gaps).map(|(o, g)| o + g).collect(),
                old,
                reference,
                given,
                entropy,
                advantages,
                mask,
                roles,
                correction,
                entropy_share,
            }
        },
    )
}

fn config() -> impl Strategy<Value = GrpoConfig> {
    let aggregation = prop_oneof![
        Just(LossAggregation::TokenMean),
        Just(LossAggregation::SeqMeanTokenMean),
        Just(LossAggregation::SeqMeanTokenSum),
        Just(LossAggregation::TokenSumOverBudget { max_completion_len: 7 }),
    ];
    let kl = prop_oneof![Just(KlEstimator::K1), Just(KlEstimator::K2), Just(KlEstimator::K3)];
    let kl_gradient = prop_oneof![Just(KlGradient::Own), Just(KlGradient::RatioWeighted), Just(KlGradient::OfK2)];
    let ratio = prop_oneof![Just(RatioLevel::Token), Just(RatioLevel::Sequence), Just(RatioLevel::SequenceToken)];
    let beta = prop_oneof![Just(0.0), 0.01..0.5];
    let token_weight = prop_oneof![Just(SftTokenWeight::Uniform), Just(SftTokenWeight::Uncertainty)];
    let sft =
        prop::option::of((0.0..1.0, token_weight).prop_map(|(weight, token_weight)| SftTerm { weight, token_weight }));
    let extras = (prop_oneof![Just(0.0), 0.01..0.2], prop::option::of(0.05..0.5), sft);
    (aggregation, surrogate(), kl, kl_gradient, ratio, beta, extras).prop_map(
        |(aggregation, surrogate, kl, kl_gradient, ratio, beta, (entropy_coefficient, threshold, sft))| {
            let is_of_sequence = matches!(surrogate, Surrogate::GammaWeight { .. } | Surrogate::GeometricMean(_));
            GrpoConfig::new(aggregation, AdvantageEstimator::GroupMean(RewardScale::None))
                .with_surrogate(surrogate)
                .with_kl(kl)
                .with_kl_gradient(kl_gradient)
                .with_ratio(if is_of_sequence { RatioLevel::Token } else { ratio })
                .with_beta(beta)
                .with_entropy_coefficient(entropy_coefficient)
                .with_off_policy_threshold(threshold)
                .with_sft(sft)
        },
    )
}

/// A case, and settings that it does not refuse.
fn case_and_config() -> impl Strategy<Value = (Case, GrpoConfig)> {
    (case(), config()).prop_map(|(case, config)| {
        let has_teacher = case.scalar().totals.sft_tokens > 0;
        let sft = config.sft.filter(|_| has_teacher);
        (case, config.with_sft(sft))
    })
}

fn tensor(values: &[f32], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [ROWS, SEQ]), device)
}

fn rows(values: &[f32]) -> Vec<Vec<f64>> {
    let row = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect();
    values.chunks(SEQ).map(row).collect()
}

/// Gradient of a loss; 0 where none of its terms reaches the tensor.
fn host_gradient(tensor: &Tensor<2>, loss: Tensor<1>) -> Vec<f32> {
    match tensor.grad(&loss.backward()) {
        Some(gradient) => gradient.into_data().iter::<f32>().collect(),
        None => vec![0.0; tensor.dims().iter().product()],
    }
}

impl Case {
    fn batch(&self, device: &Device) -> PolicyBatch {
        let mask = Tensor::from_data(TensorData::new(self.mask.clone(), [ROWS, SEQ]), device);
        let advantages = Tensor::from_floats(self.advantages.as_slice(), device);
        let reference = Some(tensor(&self.reference, device));
        let batch = PolicyBatch::new(tensor(&self.old, device), reference, advantages, mask).unwrap();
        let batch = batch.with_rows(self.roles.clone(), Some(tensor(&self.given, device))).unwrap();
        let batch = batch.with_sampler(tensor(&self.sampler, device), self.correction).unwrap();
        match self.entropy_share {
            Some(share) => batch.with_top_entropy_tokens(tensor(&self.entropy, device), share).unwrap(),
            None => batch,
        }
    }

    /// The twin's inputs, from the tables alone: nothing is read back from the tensor code.
    fn scalar(&self) -> ScalarBatch {
        let mut old = rows(&self.old);
        for (i, given) in rows(&self.given).into_iter().enumerate() {
            if self.roles[i].ratio == RowRatio::Given {
                old[i] = given;
            }
        }
        let mask: Vec<Vec<bool>> = self.mask.chunks(SEQ).map(<[bool]>::to_vec).collect();
        let sampler = rows(&self.sampler);
        let is_top_entropy = self.entropy_share.map(|share| self.top_entropy(&mask, share));
        ScalarBatch {
            ref_log_probs: rows(&self.reference),
            advantages: self.advantages.iter().map(|&a| f64::from(a)).collect(),
            totals: self.totals(&mask, is_top_entropy.as_deref()),
            roles: self.roles.clone(),
            sampler_weights: self
                .correction
                .map(|correction| scalar::sampler_weights(&old, &sampler, &mask, correction)),
            sampler_log_probs: Some(sampler),
            is_top_entropy,
            entropies: rows(&self.entropy),
            old_log_probs: old,
            completion_mask: mask,
        }
    }

    /// Whether a number lies on a bound, where `f32` and `f64` may fall on different sides.
    fn is_on_a_bound(&self) -> bool {
        self.has_ratio_on_a_bound() || self.has_entropy_on_a_bound()
    }

    /// An entropy beside the threshold; one that is the threshold itself is so in both.
    fn has_entropy_on_a_bound(&self) -> bool {
        let Some(share) = self.entropy_share else { return false };
        let batch = self.scalar();
        let threshold = self.entropy_threshold(&batch.completion_mask, share);
        let gaps = rows(&self.entropy).concat().into_iter().map(|entropy| (entropy - threshold).abs());
        gaps.into_iter().any(|gap| gap > 0.0 && gap < 1e-5)
    }

    fn has_ratio_on_a_bound(&self) -> bool {
        let Some(correction) = self.correction else { return false };
        let batch = self.scalar();
        let free = SamplerCorrection { min_ratio: 0.0, max_ratio: f64::MAX, ..correction };
        let sampler = batch.sampler_log_probs.unwrap();
        let ratios = scalar::sampler_weights(&batch.old_log_probs, &sampler, &batch.completion_mask, free);
        let bounds = [correction.min_ratio, correction.max_ratio];
        ratios.iter().flatten().any(|ratio| bounds.iter().any(|bound| (ratio - bound).abs() < 1e-5))
    }

    /// The same rows with another denominator of the ratio wherever it is `from`.
    fn with_ratio(&self, from: RowRatio, to: RowRatio) -> Self {
        let swap = |role: &RowRole| RowRole { ratio: if role.ratio == from { to } else { role.ratio }, ..*role };
        Self { roles: self.roles.iter().map(swap).collect(), ..self.clone() }
    }

    /// Whether a token has a policy term.
    fn has_policy(&self, mask: &[Vec<bool>], row: usize, token: usize) -> bool {
        mask[row][token] && self.roles[row].ratio != RowRatio::Excluded
    }

    /// The `share` tokens of highest entropy, by counting: a token is among them unless too many are below the quantile.
    fn top_entropy(&self, mask: &[Vec<bool>], share: f64) -> Vec<Vec<bool>> {
        let threshold = self.entropy_threshold(mask, share);
        rows(&self.entropy).iter().map(|row| row.iter().map(|&entropy| entropy >= threshold).collect()).collect()
    }

    fn entropy_threshold(&self, mask: &[Vec<bool>], share: f64) -> f64 {
        let mut trained = Vec::new();
        for (i, row) in rows(&self.entropy).iter().enumerate() {
            trained.extend((0..SEQ).filter(|&t| self.has_policy(mask, i, t)).map(|t| row[t]));
        }
        scalar::quantile(&trained, 1.0 - share)
    }

    fn totals(&self, mask: &[Vec<bool>], is_top_entropy: Option<&[Vec<bool>]>) -> LossTotals {
        let mut totals = LossTotals { sequences: 0, tokens: 0, entropy_tokens: 0, sft_tokens: 0 };
        for i in 0..ROWS {
            totals.sequences += usize::from(self.roles[i].ratio != RowRatio::Excluded);
            for t in 0..SEQ {
                let is_top = is_top_entropy.is_none_or(|top| top[i][t]);
                totals.tokens += usize::from(self.has_policy(mask, i, t));
                totals.entropy_tokens += usize::from(self.has_policy(mask, i, t) && is_top);
                totals.sft_tokens += usize::from(mask[i][t] && self.roles[i].origin == RowOrigin::Teacher);
            }
        }
        totals
    }

    /// Loss and gradient of the tensor code.
    fn tensor_loss(&self, config: &GrpoConfig) -> (f64, Vec<f32>) {
        let device = Device::flex();
        let log_probs = tensor(&self.log_probs, &device.clone().autodiff()).require_grad();
        let scores = TokenScores { log_probs: log_probs.clone(), entropy: Some(tensor(&self.entropy, &device)) };
        let loss = policy_loss(&self.batch(&device), scores, config).unwrap().loss;
        let value = f64::from(loss.clone().into_scalar::<f32>());
        (value, host_gradient(&log_probs, loss))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn loss_and_gradient_equal_the_scalar_twin((case, config) in case_and_config()) {
        prop_assume!(!case.is_on_a_bound());
        let (loss, gradient) = case.tensor_loss(&config);
        let batch = case.scalar();
        prop_assert_eq!(case.batch(&Device::flex()).totals(), batch.totals);
        let frozen = rows(&case.log_probs);
        let at = |log_probs: &[Vec<f64>]| scalar::policy_loss(&batch, log_probs, &frozen, &config);
        let expected = at(&frozen);
        // Terms may be large and cancel: a ratio of e^20 is legal, and so is a KL of 60 nats times a ratio of a thousand.
        // Before an `exp` stands a log-ratio of up to 64 nats, which f32 rounds by 4e-6: so much of each term may be lost,
        // however little the sum leaves of them.
        let terms = scalar::policy_loss_terms(&batch, &frozen, &frozen, &config);
        let size = terms.iter().map(|term| term.abs()).sum::<f64>().max(1.0);
        prop_assert!((loss - expected).abs() <= 1e-5 * size, "{loss} {expected}, of terms of {size}");
        if size > 1e3 {
            return Ok(()); // too large for finite differences
        }
        let step = 1e-6;
        for (token, got) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut log_probs = frozen.clone();
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

    #[test]
    fn micro_batches_of_every_option_add_up((case, config) in case_and_config(), cut in 1..ROWS) {
        let device = Device::flex();
        let batch = case.batch(&device);
        let of = |rows: std::ops::Range<usize>| {
            let cut = |values: &[f32]| tensor(values, &device).slice_dim(0, rows.clone());
            let log_probs = cut(&case.log_probs).autodiff().require_grad();
            let scores = TokenScores { log_probs: log_probs.clone(), entropy: Some(cut(&case.entropy).autodiff()) };
            let PolicyLoss { loss, metrics } = policy_loss(&batch.rows(rows.clone()).unwrap(), scores, &config).unwrap();
            let value = f64::from(loss.clone().into_scalar::<f32>());
            (value, host_gradient(&log_probs, loss), metrics)
        };
        let (whole, first, second) = (of(0..ROWS), of(0..cut), of(cut..ROWS));
        let sum = first.0 + second.0;
        prop_assert!((sum - whole.0).abs() <= 1e-5 * whole.0.abs().max(1.0), "{sum} {}", whole.0);
        let parts = [first.1, second.1].concat();
        prop_assert_eq!(parts.len(), whole.1.len());
        for (part, whole) in parts.iter().zip(&whole.1) {
            prop_assert!((part - whole).abs() <= 1e-5 * whole.abs().max(1.0), "{part} {whole}");
        }
        let joined = PolicyMetrics::cat(&[first.2, second.2]).unwrap().read().unwrap();
        prop_assert_eq!(joined, whole.2.read().unwrap());
    }

    #[test]
    fn padding_content_reaches_no_option((case, config) in case_and_config(), infinite: bool) {
        let poison = if infinite { f32::NEG_INFINITY } else { f32::NAN };
        let fill = |values: &[f32]| -> Vec<f32> {
            values.iter().zip(&case.mask).map(|(value, keep)| if *keep { *value } else { poison }).collect()
        };
        let poisoned = Case {
            log_probs: fill(&case.log_probs),
            old: fill(&case.old),
            reference: fill(&case.reference),
            given: fill(&case.given),
            sampler: fill(&case.sampler),
            entropy: fill(&case.entropy),
            ..case.clone()
        };
        prop_assert_eq!(poisoned.tensor_loss(&config), case.tensor_loss(&config));
    }

    #[test]
    fn given_log_probs_equal_to_the_old_ones_are_the_old_ones((case, config) in case_and_config()) {
        let case = Case { given: case.old.clone(), ..case };
        let same = case.with_ratio(RowRatio::Given, RowRatio::SameOld);
        let given = case.with_ratio(RowRatio::SameOld, RowRatio::Given);
        prop_assert_eq!(given.tensor_loss(&config), same.tensor_loss(&config));
    }

    #[test]
    fn given_log_probs_stand_where_the_old_ones_stood((case, config) in case_and_config()) {
        let given = case.with_ratio(RowRatio::SameOld, RowRatio::Given);
        let mut moved = given.with_ratio(RowRatio::Given, RowRatio::SameOld);
        for (token, old) in moved.old.iter_mut().enumerate() {
            if given.roles[token / SEQ].ratio == RowRatio::Given {
                *old = case.given[token];
            }
        }
        prop_assert_eq!(given.tensor_loss(&config), moved.tensor_loss(&config));
    }

    #[test]
    fn a_dual_clip_is_a_two_sided_clip((case, config) in case_and_config(), max_ratio in 1.4..4.0) {
        let clip = ClipRange::new(0.2, 0.2);
        let loss = |surrogate| case.tensor_loss(&config.clone().with_ratio(RatioLevel::Token).with_surrogate(surrogate)).0;
        let (two, dual) = (loss(Surrogate::TwoSided { clip, max_ratio }), loss(Surrogate::DualClip { clip, max_ratio }));
        prop_assert!((two - dual).abs() <= 1e-5 * two.abs().max(1.0), "{two} {dual}");
    }
}
