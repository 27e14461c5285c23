//! Inputs at the edge: every function answers with a value or an error of its own, never with a panic.

use burn::tensor::{Bool, Device, Tensor};
use ril_grpo::{
    GrpoConfig, GrpoError, LossTotals, PolicyBatch, PolicyMetrics, PolicySummary, RewardColumn, RewardMetrics,
    RewardScale, RowOrigin, RowRatio, RowRole, SamplerBound, SamplerCorrection, SamplerLevel, SftTerm, SftTokenWeight,
    TokenScores, check_tokens, filter_groups, group_advantages, leave_one_out_advantages, mask_truncated_rows,
    normalize_then_sum, policy_loss, reinforce_plus_plus_advantages, soft_overlong_penalty, sum_rewards,
};

/// What a function did.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// As many finite values as rewards, all 0.
    Zeros,
    /// Another value.
    Value,
    Ragged,
    NonFinite,
    Other(String),
}

fn outcome<T>(result: Result<T, GrpoError>, is_zero: impl Fn(&T) -> bool) -> Outcome {
    match result {
        Ok(value) if is_zero(&value) => Outcome::Zeros,
        Ok(_) => Outcome::Value,
        Err(GrpoError::RaggedGroup { .. }) => Outcome::Ragged,
        Err(GrpoError::NonFiniteReward { index: 1, .. }) => Outcome::NonFinite,
        Err(other) => Outcome::Other(other.to_string()),
    }
}

type Function = fn(&[Option<f32>], usize) -> Outcome;

/// Every function of rewards, in groups.
fn functions() -> Vec<(&'static str, Function)> {
    fn advantages(result: Result<Vec<f32>, GrpoError>, rewards: &[Option<f32>]) -> Outcome {
        outcome(result, |values| *values == vec![0.0; rewards.len()])
    }
    vec![
        ("GroupStd", |r, n| advantages(group_advantages(r, n, RewardScale::GroupStd), r)),
        ("BatchStd", |r, n| advantages(group_advantages(r, n, RewardScale::BatchStd), r)),
        ("None", |r, n| advantages(group_advantages(r, n, RewardScale::None), r)),
        ("leave_one_out", |r, n| advantages(leave_one_out_advantages(r, n), r)),
        ("reinforce_plus_plus", |r, n| advantages(reinforce_plus_plus_advantages(r, n, &vec![3; r.len()]), r)),
        ("normalize_then_sum", |r, n| advantages(normalize_then_sum(&[RewardColumn { weight: 2.0, scores: r }], n), r)),
        ("filter_groups", |r, n| outcome(filter_groups(r, n), |filter| filter.kept.is_empty())),
        ("RewardMetrics", |r, n| {
            outcome(RewardMetrics::new(r, n), |m| m.mean.is_none() && m.std.is_none() && m.fraction_zero_std == 0.0)
        }),
    ]
}

#[test]
fn rewards_at_the_edge_give_zeros_or_their_own_error() {
    let (nan, inf) = ([Some(0.0), Some(f32::NAN)], [Some(0.0), Some(f32::INFINITY)]);
    let minus = [None, Some(f32::NEG_INFINITY)];
    let cases: [(&str, &[Option<f32>], usize, Outcome); 8] = [
        ("ragged", &[Some(1.0); 3], 2, Outcome::Ragged),
        ("groups of none", &[Some(1.0); 3], 0, Outcome::Ragged),
        ("no rewards in groups of none", &[], 0, Outcome::Ragged),
        ("nan", &nan, 2, Outcome::NonFinite),
        ("inf", &inf, 2, Outcome::NonFinite),
        ("-inf", &minus, 2, Outcome::NonFinite),
        ("unscored", &[None; 4], 2, Outcome::Zeros),
        ("empty", &[], 2, Outcome::Zeros),
    ];
    for (name, function) in functions() {
        for (case, rewards, group_size, expected) in &cases {
            assert_eq!(&function(rewards, *group_size), expected, "{name}: {case}");
        }
        assert_eq!(function(&[Some(0.0), Some(f32::MAX)], 2), Outcome::Value, "{name}: large");
    }
}

#[test]
fn sums_of_rewards_at_the_edge() {
    let sum = |weight, scores: &[Option<f32>]| sum_rewards(&[RewardColumn { weight, scores }]);
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = sum(1.0, &[None, Some(broken)]).unwrap_err();
        assert!(matches!(error, GrpoError::NonFiniteReward { index: 1, .. }), "{error}");
    }
    // A sum that leaves `f32`.
    assert!(matches!(sum(1e10, &[Some(f32::MAX)]), Err(GrpoError::NonFiniteReward { index: 0, .. })));
    assert_eq!(sum(1.0, &[None; 3]).unwrap(), [None; 3]);
    assert!(sum(1.0, &[]).unwrap().is_empty());
    let columns = [RewardColumn { weight: 1.0, scores: &[None] }, RewardColumn { weight: 1.0, scores: &[] }];
    assert!(matches!(sum_rewards(&columns), Err(GrpoError::Shape { .. })));
    assert!(matches!(normalize_then_sum(&columns, 1), Err(GrpoError::Shape { .. })));
}

#[test]
fn lengths_at_the_edge() {
    assert_eq!(soft_overlong_penalty(0, 1, 1).unwrap(), 0.0);
    assert_eq!(soft_overlong_penalty(usize::MAX, 1, 1).unwrap(), -1.0);
    for (max, cache) in [(0, 0), (0, 1), (5, 0), (5, 6), (5, usize::MAX)] {
        assert!(matches!(soft_overlong_penalty(3, max, cache), Err(GrpoError::Config(_))), "{max} {cache}");
    }
    assert!(matches!(mask_truncated_rows(&mut [true; 3], &[true; 2]), Err(GrpoError::Shape { .. })));
    assert!(matches!(mask_truncated_rows(&mut [true; 3], &[]), Err(GrpoError::Shape { .. })));
    // Rows without columns, and no rows.
    mask_truncated_rows(&mut [], &[true; 2]).unwrap();
    mask_truncated_rows(&mut [], &[]).unwrap();
    let counts = reinforce_plus_plus_advantages(&[Some(1.0)], 1, &[]);
    assert!(matches!(counts, Err(GrpoError::Shape { what: "completion_tokens", .. })));
}

/// Every kind of setting that reads a table of its own.
fn configs() -> [GrpoConfig; 5] {
    let sft = SftTerm { weight: 0.0, token_weight: SftTokenWeight::Uncertainty };
    [
        GrpoConfig::ril(4).with_entropy_coefficient(0.1),
        GrpoConfig::dapo().with_off_policy_threshold(Some(0.1)),
        GrpoConfig::gspo_token().with_sft(Some(sft)),
        GrpoConfig::vespo(),
        GrpoConfig::gmpo(),
    ]
}

fn empty_batch(shape: [usize; 2]) -> PolicyBatch {
    let device = Device::flex();
    let zeros = || Tensor::<2>::zeros(shape, &device);
    let mask = Tensor::<2, Bool>::full(shape, true, &device);
    PolicyBatch::new(zeros(), Some(zeros()), Tensor::zeros([shape[0]], &device), mask).unwrap()
}

#[test]
fn a_batch_without_rows_or_columns_has_loss_zero() {
    let device = Device::flex();
    let given = RowRole { origin: RowOrigin::Teacher, ratio: RowRatio::Given };
    for shape in [[0, 3], [2, 0], [0, 0]] {
        let plain = empty_batch(shape);
        let zeros = || Tensor::<2>::zeros(shape, &device);
        assert_eq!(plain.totals(), LossTotals::new(shape[0], 0));
        let error = policy_loss(&plain, zeros(), &GrpoConfig::dapo().with_entropy_coefficient(0.1)).unwrap_err();
        assert!(matches!(error, GrpoError::MissingEntropy { .. }));
        let mut batches = vec![plain.clone()];
        for role in [RowRole::LUFFY_TEACHER, RowRole::CHORD_TEACHER, given] {
            batches.push(plain.clone().with_rows(vec![role; shape[0]], Some(zeros())).unwrap());
        }
        batches.push(plain.clone().with_top_entropy_tokens(zeros(), 0.5).unwrap());
        for level in [SamplerLevel::Token, SamplerLevel::Sequence] {
            let (bound, min_ratio, max_ratio) = (SamplerBound::Mask, 0.5, 2.0);
            let correction = SamplerCorrection { level, bound, min_ratio, max_ratio };
            batches.push(plain.clone().with_sampler(zeros(), Some(correction)).unwrap());
            batches.push(plain.clone().with_sampler(zeros(), None).unwrap());
        }
        for batch in &batches {
            check_tokens(batch, zeros(), 0).unwrap();
            for config in configs() {
                let log_probs = Tensor::<2>::zeros(shape, &device.clone().autodiff()).require_grad();
                let scores = TokenScores { log_probs: log_probs.clone(), entropy: Some(zeros()) };
                let output = policy_loss(batch, scores, &config).unwrap();
                assert_eq!(output.loss.clone().into_scalar::<f32>(), 0.0, "{shape:?} {config}");
                let _ = output.loss.backward();
                let rows = PolicyMetrics::cat(&[output.metrics]).unwrap().read().unwrap();
                assert_eq!(rows.len(), shape[0]);
                assert_eq!(PolicySummary::new(&rows).tokens, 0.0);
            }
        }
        assert!(matches!(plain.rows(0..0), Err(GrpoError::RowRange { .. })));
    }
}
