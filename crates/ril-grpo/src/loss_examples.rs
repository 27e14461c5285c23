//! Hand-made batches: refusals, roles of rows, metrics.

use burn::tensor::Device;

use super::*;
use crate::{
    AdvantageEstimator, LossAggregation, PolicySummary, RatioLevel, RowMetrics, RowOrigin, RowRatio, RowRole,
    SamplerBound, SamplerCorrection, SamplerLevel,
};

const SEQ: usize = 4;

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
    let error = policy_loss(&batch, zeros(2), &config.with_beta(-1.0)).unwrap_err();
    assert!(matches!(error, GrpoError::Config(_)));
    let config = GrpoConfig::dr_grpo(8).with_entropy_coefficient(0.1);
    let error = policy_loss(&batch, zeros(2), &config).unwrap_err();
    assert!(matches!(error, GrpoError::MissingEntropy { .. }));
    let scores = TokenScores { log_probs: zeros(2), entropy: Some(zeros(1)) };
    assert!(matches!(policy_loss(&batch, scores, &config).unwrap_err(), GrpoError::Shape { what: "entropy", .. }));
    assert!(policy_loss(&batch, zeros(2), &GrpoConfig::dr_grpo(8)).is_ok());
}

#[test]
fn broken_rows_samplers_and_entropies_are_errors() {
    let device = Device::flex();
    let zeros = || Tensor::<2>::zeros([2, SEQ], &device);
    let batch = || {
        let mask = zeros().equal_elem(0.0);
        PolicyBatch::new(zeros(), None, Tensor::zeros([2], &device), mask).unwrap()
    };
    let given = RowRole { origin: RowOrigin::Teacher, ratio: RowRatio::Given };
    let shaped = |gamma| RowRole { origin: RowOrigin::Teacher, ratio: RowRatio::BehaviourOne { shaping: Some(gamma) } };
    assert!(matches!(batch().with_rows(vec![given], None), Err(GrpoError::Shape { what: "roles", .. })));
    assert!(matches!(batch().with_rows(vec![given; 2], None), Err(GrpoError::Config(_))));
    assert!(matches!(batch().with_rows(vec![shaped(0.0); 2], None), Err(GrpoError::Config(_))));
    let late = batch().with_sampler(zeros(), None).unwrap();
    assert!(matches!(late.with_rows(vec![RowRole::STUDENT; 2], None), Err(GrpoError::Config(_))));
    let (level, bound) = (SamplerLevel::Token, SamplerBound::Mask);
    for (min_ratio, max_ratio) in [(2.0, 1.0), (-1.0, 1.0), (0.0, f64::INFINITY), (0.0, 0.0)] {
        let correction = SamplerCorrection { level, bound, min_ratio, max_ratio };
        assert!(matches!(batch().with_sampler(zeros(), Some(correction)), Err(GrpoError::Config(_))));
    }
    assert!(matches!(batch().with_top_entropy_tokens(zeros(), 0.0), Err(GrpoError::Config(_))));
    let broken = zeros() + f32::NAN;
    let error = batch().with_top_entropy_tokens(broken, 0.5).unwrap_err();
    assert!(error.to_string().starts_with("entropy of row 0, token 0 is not finite"), "{error}");
}

#[test]
fn a_sampler_is_held_against_the_log_probs_that_are_given_for_it() {
    let device = Device::flex();
    let row = |values: [f32; 2]| Tensor::<2>::from_floats([values], &device);
    // Dropout moved what the pass with the gradient says; without it the sampler is right about one token and half as sure of the other.
    let (dropped, policy, sampler) = ([-1.3, -0.6], [-1.0, -1.0], [-1.0, -1.0 - std::f32::consts::LN_2]);
    let (level, bound) = (SamplerLevel::Token, SamplerBound::Truncate);
    let correction = SamplerCorrection { level, bound, min_ratio: 0.0, max_ratio: 3.0 };
    let batch = || {
        let mask = row(dropped).lower_elem(0.0);
        PolicyBatch::new(row(dropped), None, Tensor::from_floats([1.0], &device), mask).unwrap()
    };
    let of = |batch: PolicyBatch| {
        let PolicyLoss { loss, metrics } = policy_loss(&batch, row(dropped), &GrpoConfig::dr_grpo(2)).unwrap();
        (loss.into_scalar::<f32>(), metrics.read().unwrap()[0].sampler.unwrap())
    };
    let (loss, metrics) = of(batch().with_sampler_against(row(policy), row(sampler), Some(correction)).unwrap());
    // The ratio is 1, the weights are 1 and 2.
    assert!((loss + 1.5).abs() < 1e-6, "{loss}");
    assert!((metrics.weight_min - 1.0).abs() < 1e-6 && (metrics.weight_max - 2.0).abs() < 1e-6, "{metrics:?}");
    assert!((metrics.difference_sum - std::f64::consts::LN_2).abs() < 1e-6, "{metrics:?}");
    let old = of(batch().with_sampler_against(row(dropped), row(sampler), Some(correction)).unwrap());
    assert_eq!(old, of(batch().with_sampler(row(sampler), Some(correction)).unwrap()));
    assert!((old.0 - loss).abs() > 0.1);
    let short = Tensor::zeros([1, 1], &device);
    let error = batch().with_sampler_against(short, row(sampler), None).unwrap_err();
    assert!(matches!(error, GrpoError::Shape { what: "policy_log_probs", .. }));
}

#[test]
fn an_excluded_row_leaves_every_denominator() {
    let device = Device::flex();
    let table = |values: [[f32; 2]; 2]| Tensor::<2>::from_floats(values, &device);
    let mask = Tensor::<2, Bool>::from_data([[true, true], [true, false]], &device);
    let advantages = Tensor::<1>::from_floats([1.0, 5.0], &device);
    let batch = PolicyBatch::new(table([[0.0; 2]; 2]), None, advantages, mask).unwrap();
    let batch = batch.with_rows(vec![RowRole::STUDENT, RowRole::CHORD_TEACHER], None).unwrap();
    let totals = batch.totals();
    assert_eq!((totals.sequences, totals.tokens, totals.entropy_tokens, totals.sft_tokens), (1, 2, 2, 1));
    let log_probs = table([[0.0, 0.0], [-3.0, 9.0]]);
    let config = GrpoConfig::new(LossAggregation::TokenMean, AdvantageEstimator::LeaveOneOut);
    let value = |config: &GrpoConfig| policy_loss(&batch, log_probs.clone(), config).unwrap().loss.into_scalar::<f32>();
    assert_eq!(value(&config), -1.0);
    let sft = |weight| Some(SftTerm { weight, token_weight: SftTokenWeight::Uniform });
    assert_eq!(value(&config.clone().with_sft(sft(1.0))), 3.0);
    assert_eq!(value(&config.with_sft(sft(0.5))), 1.0);
}

#[test]
fn a_supervised_term_without_teacher_tokens_is_refused() {
    let device = Device::flex();
    let zeros = |rows| Tensor::<2>::zeros([rows, SEQ], &device);
    let batch = |padded: f32| {
        let mask = Tensor::cat(vec![zeros(1), zeros(1) + padded], 0).equal_elem(0.0);
        PolicyBatch::new(zeros(2), None, Tensor::zeros([2], &device), mask).unwrap()
    };
    let roles = vec![RowRole::STUDENT, RowRole::CHORD_TEACHER];
    let config = |weight| {
        let token_weight = SftTokenWeight::Uniform;
        GrpoConfig::dapo().with_sft(Some(SftTerm { weight, token_weight }))
    };
    let taught = batch(0.0).with_rows(roles.clone(), None).unwrap();
    let untaught = [batch(0.0), batch(1.0).with_rows(roles, None).unwrap()];
    for batch in &untaught {
        let error = policy_loss(batch, zeros(2), &config(0.5)).unwrap_err();
        assert!(error.to_string().starts_with("config: sft"), "{error}");
        // Nothing shrinks.
        assert!(policy_loss(batch, zeros(2), &config(0.0)).is_ok());
    }
    let without_teacher = taught.rows(0..1).unwrap();
    assert!(policy_loss(&without_teacher, zeros(1), &config(0.5)).is_ok());
    let spanning = untaught[0].clone().replace_totals(untaught[0].totals() + taught.totals()).unwrap();
    assert!(policy_loss(&spanning, zeros(2), &config(0.5)).is_ok());
}

#[test]
fn metrics_carry_no_graph() {
    let device = Device::flex();
    let zeros = Tensor::<2>::zeros([2, SEQ], &device);
    let mask = zeros.clone().equal_elem(0.0);
    let advantages = Tensor::<1>::ones([2], &device);
    let batch = PolicyBatch::new(zeros.clone(), Some(zeros), advantages, mask).unwrap();
    let log_probs = Tensor::<2>::full([2, SEQ], 0.5, &device.autodiff()).require_grad();
    let scores = TokenScores { log_probs: log_probs.clone(), entropy: Some(log_probs) };
    let PolicyLoss { loss, metrics } = policy_loss(&batch, scores, &GrpoConfig::ril(8)).unwrap();
    assert!(loss.is_tracked());
    let PolicyMetrics { row_loss, row_log_prob, row_ratio, row_kl, row_entropy, row_clip_high, .. } = metrics;
    for metric in [row_loss, row_log_prob, row_ratio, row_kl.unwrap(), row_entropy.unwrap(), row_clip_high] {
        assert!(!metric.is_tracked());
    }
}

/// Two rows of two tokens, the second of a teacher with some ratio; every token's ratio to `old` is `e` or `1 / e`.
fn two_rows(ratio: RowRatio) -> Vec<RowMetrics> {
    let device = Device::flex();
    let table = |values: [[f32; 2]; 2]| Tensor::<2>::from_floats(values, &device);
    let mask = Tensor::<2, Bool>::from_data([[true; 2]; 2], &device);
    let advantages = Tensor::<1>::from_floats([1.0, 1.0], &device);
    let batch = PolicyBatch::new(table([[-2.0; 2]; 2]), None, advantages, mask).unwrap();
    let roles = vec![RowRole::STUDENT, RowRole { origin: RowOrigin::Teacher, ratio }];
    let batch = batch.with_rows(roles, Some(table([[-2.0; 2]; 2]))).unwrap();
    let log_probs = table([[-1.0, -3.0], [-1.0, -1.0]]);
    policy_loss(&batch, log_probs, &GrpoConfig::bnpo()).unwrap().metrics.read().unwrap()
}

#[test]
fn a_row_without_clip_reports_none() {
    let clipped = two_rows(RowRatio::SameOld);
    assert_eq!((clipped[0].clip_high, clipped[1].clip_high), (1.0, 2.0));
    for shaping in [None, Some(0.1)] {
        let rows = two_rows(RowRatio::BehaviourOne { shaping });
        assert_eq!((rows[0], rows[1].clip_high, rows[1].is_excluded), (clipped[0], 0.0, false));
        // The ratio is `pi / 1`.
        assert!((rows[1].ratio - 2.0 * (-1f64).exp()).abs() < 1e-6, "{}", rows[1].ratio);
        assert_eq!(PolicySummary::new(&rows).clip_fraction_high, 0.25);
    }
}

#[test]
fn excluded_rows_do_not_dilute() {
    let rows = two_rows(RowRatio::Excluded);
    assert_eq!((rows[1].clip_high, rows[1].tokens, rows[1].is_excluded), (0.0, 2.0, true));
    for level in [RatioLevel::Token, RatioLevel::Sequence] {
        let summary = PolicySummary::with_level(&rows, level);
        let alone = PolicySummary::with_level(&rows[..1], level);
        let shares = |s: PolicySummary| (s.clip_fraction_low, s.clip_fraction_high, s.clip_low_min, s.clip_high_max);
        assert_eq!(shares(summary), shares(alone));
        assert_eq!((summary.clip_fraction_high, summary.clip_high_max, summary.tokens), (0.5, 0.5, 4.0));
    }
    // The smallest share is that of the rows that can be clipped.
    let flipped: Vec<_> = rows.iter().map(|row| RowMetrics { clip_low: row.clip_high, ..*row }).collect();
    assert_eq!(PolicySummary::new(&flipped).clip_low_min, 0.5);
}
