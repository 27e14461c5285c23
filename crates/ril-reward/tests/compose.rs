//! Properties of composed rewards (property 15 of the design), on the public API.

use proptest::prelude::*;
use ril_reward::{
    Clip, ExactMatch, JudgeGate, MinOf, NumericMatch, Reward, RewardError, Sample, ScoreGroups, WeightedScores,
    WeightedSum, ZScore, clip_scores, gate_scores, min_scores, per_sample, weighted_sum, z_scores,
};

const NAMES: [&str; 4] = ["answer", "brevity", "format", "similarity"];

type Columns = Vec<Vec<Option<f32>>>;

fn columns<'a>(weights: &[f32], scores: &'a Columns) -> Vec<WeightedScores<'a>> {
    let column = |(index, scores): (usize, &'a Vec<Option<f32>>)| WeightedScores {
        name: NAMES[index],
        weight: weights[index],
        scores,
    };
    scores.iter().enumerate().map(column).collect()
}

fn sum(weights: &[f32], scores: &Columns) -> Vec<Option<f32>> {
    weighted_sum(&columns(weights, scores)).expect("valid columns")
}

fn scores() -> impl Strategy<Value = Columns> {
    let score = prop_oneof![1 => Just(None), 5 => (-10.0_f32..10.0).prop_map(Some)];
    (0_usize..8).prop_flat_map(move |rows| prop::collection::vec(prop::collection::vec(score.clone(), rows), 4))
}

fn weights() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-4.0_f32..4.0, 4)
}

proptest! {
    #[test]
    fn a_sum_is_linear_in_its_weights(scores in scores(), a in weights(), b in weights(), factor in -3.0_f32..3.0) {
        let mixed: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + factor * b).collect();
        let expected = sum(&a, &scores).into_iter().zip(sum(&b, &scores)).map(|(a, b)| Some(a? + factor * b?));
        for (got, expected) in sum(&mixed, &scores).into_iter().zip(expected) {
            prop_assert_eq!(got.is_some(), expected.is_some());
            if let (Some(got), Some(expected)) = (got, expected) {
                prop_assert!((got - expected).abs() < 1e-3, "{} {}", got, expected);
            }
        }
    }

    #[test]
    fn a_sum_is_independent_of_order_to_the_bit(
        scores in scores(), weights in weights(), order in Just([0_usize, 1, 2, 3]).prop_shuffle(),
    ) {
        let columns = columns(&weights, &scores);
        let shuffled: Vec<_> = order.iter().map(|&index| columns[index]).collect();
        prop_assert_eq!(weighted_sum(&shuffled).expect("valid"), weighted_sum(&columns).expect("valid"));
    }

    #[test]
    fn a_sample_is_scored_only_if_every_column_scores_it(scores in scores(), weights in weights()) {
        for weights in [weights, vec![0.0; 4]] {
            for (row, total) in sum(&weights, &scores).into_iter().enumerate() {
                prop_assert_eq!(total.is_none(), scores.iter().any(|column| column[row].is_none()));
            }
        }
    }

    #[test]
    fn one_column_of_weight_one_is_itself(scores in scores()) {
        let column = WeightedScores { name: "only", weight: 1.0, scores: &scores[0] };
        prop_assert_eq!(&weighted_sum(&[column]).expect("valid"), &scores[0]);
    }

    #[test]
    fn a_gate_of_zero_and_one_keeps_or_clears(scores in scores(), is_open in any::<bool>()) {
        let gate = vec![Some(f32::from(u8::from(is_open))); scores[0].len()];
        for (gated, score) in gate_scores(&gate, &scores[0]).expect("same length").iter().zip(&scores[0]) {
            prop_assert_eq!(*gated, score.map(|score| if is_open { score } else { 0.0 }));
        }
    }

    #[test]
    fn clipped_scores_stay_in_range(scores in scores(), min in -5.0_f32..0.0, width in 0.0_f32..5.0) {
        let clipped = clip_scores(&scores[0], min, min + width).expect("min <= max");
        for (clipped, score) in clipped.iter().zip(&scores[0]) {
            prop_assert_eq!(clipped.is_some(), score.is_some());
            prop_assert!(clipped.is_none_or(|clipped| (min..=min + width).contains(&clipped)));
        }
    }
}

#[test]
fn a_hand_made_sum() {
    let scores = vec![vec![Some(1.0), Some(0.0), None], vec![Some(1.0), Some(1.0), Some(1.0)]];
    assert_eq!(sum(&[1.0, 0.5], &scores), [Some(1.5), Some(0.5), None]);
    assert_eq!(sum(&[1.0, -2.0], &scores), [Some(-1.0), Some(-2.0), None]);
    assert!(weighted_sum(&[]).expect("nothing to add").is_empty());
}

#[test]
fn the_order_given_changes_no_bit_where_rounding_would() {
    // (1e30 + 1) - 1e30 = 0, but (1e30 - 1e30) + 1 = 1, in f64.
    let scores = [1e30, 1.0, -1e30].map(|score| vec![Some(score)]).to_vec();
    let columns = columns(&[1.0; 3], &scores);
    let expected = weighted_sum(&columns).expect("valid columns");
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let shuffled = order.map(|index| columns[index]);
        assert_eq!(weighted_sum(&shuffled).expect("valid columns"), expected, "{order:?}");
    }
}

#[test]
fn a_gate_that_could_not_be_scored_leaves_no_score() {
    let gated = gate_scores(&[None, None, Some(0.0), Some(1.0)], &[Some(1.0), None, None, None]);
    assert_eq!(gated.expect("same length"), [None; 4]);
}

#[test]
fn broken_columns_are_refused() {
    let good = [Some(1.0), Some(0.0)];
    let column = |name, weight, scores| WeightedScores { name, weight, scores };
    let cases: [(Vec<WeightedScores<'_>>, &str); 5] = [
        (vec![column("a", 1.0, &good), column("b", 1.0, &good[..1])], "b: expected 2 results, got 1"),
        (vec![column("a", 1.0, &good), column("a", 2.0, &good)], "two rewards are named \"a\""),
        (
            vec![column("a", 1.0, &good), column("b", 1.0, &good), column("a", 2.0, &good)],
            "two rewards are named \"a\"",
        ),
        (vec![column("a", f32::NAN, &good)], "invalid setting: weight of \"a\": expected a finite number, got NaN"),
        (vec![column("a", 1.0, &[Some(0.0), Some(f32::INFINITY)])], "a: score 1 is not finite: inf"),
    ];
    for (columns, message) in cases {
        assert_eq!(weighted_sum(&columns).expect_err(message).to_string(), message);
    }
    assert!(matches!(clip_scores(&good, 1.0, 0.0), Err(RewardError::Config(_))));
    assert!(matches!(clip_scores(&good, f32::NAN, 0.0), Err(RewardError::Config(_))));
    assert!(matches!(gate_scores(&good, &good[..1]), Err(RewardError::Count { .. })));
}

#[test]
fn scores_that_are_not_finite_are_refused_wherever_they_arise() {
    let (good, nan, huge) = ([Some(1.0), None], [Some(f32::NAN), None], [Some(f32::MAX), None]);
    let refused = |scores: Result<Vec<Option<f32>>, RewardError>| {
        assert!(matches!(scores, Err(RewardError::NonFiniteScore { index: 0, .. })), "{scores:?}");
    };
    refused(gate_scores(&nan, &good));
    refused(gate_scores(&good, &nan));
    refused(gate_scores(&huge, &huge));
    refused(clip_scores(&nan, 0.0, 1.0));
    refused(clip_scores(&[Some(f32::INFINITY), None], 0.0, 1.0));
    refused(weighted_sum(&[WeightedScores { name: "a", weight: 2.0, scores: &huge }]));
}

#[test]
fn a_last_letter_that_is_none_is_a_setting_to_refuse() {
    let sample = [Sample::new("Which?\nA. é\nB. ü", "B", "Àé (B) È")];
    for last_letter in ['é', 'A', 'a', '9', '\u{10ffff}'] {
        let choice = ril_reward::ChoiceMatch { last_letter };
        assert!(matches!(choice.score(&sample), Err(RewardError::Config(_))), "{last_letter}");
        let judge = ril_reward::RuleJudge { choice, ..Default::default() };
        assert!(matches!(judge.score(&sample), Err(RewardError::Config(_))), "{last_letter}");
        let _ = (choice.verdict(&sample[0]), judge.verdict(&sample[0]));
    }
    assert_eq!(ril_reward::ChoiceMatch { last_letter: 'Z' }.score(&sample).expect("a letter"), [Some(1.0)]);
}

#[test]
fn rewards_compose_at_run_time() {
    let samples = [Sample::new("?", "7", "7"), Sample::new("?", "7", "It is 7"), Sample::new("?", "x", "y")];
    let total = WeightedSum::new("total")
        .with(2.0, NumericMatch::default())
        .and_then(|sum| sum.with(1.0, ExactMatch::default()))
        .expect("two names");
    assert_eq!(total.score(&samples).expect("rules do not fail"), [Some(3.0), Some(2.0), None]);
    let terms = total.term_scores(&samples).expect("rules do not fail");
    assert_eq!(terms[0], ("numeric", vec![Some(1.0), Some(1.0), None]));
    assert_eq!(terms[1], ("exact", vec![Some(1.0), Some(0.0), Some(0.0)]));

    let clipped = Clip::new(total, 0.0, 2.5).expect("min <= max");
    assert_eq!(clipped.name(), "total");
    let gated = JudgeGate::new(ExactMatch::default(), clipped);
    let nested: Box<dyn Reward> = Box::new(gated);
    assert_eq!(nested.score(&samples).expect("rules do not fail"), [Some(2.5), Some(0.0), None]);

    assert_eq!(WeightedSum::new("none").score(&samples).expect("nothing to do"), [None; 3]);
    let twice =
        WeightedSum::new("total").with(1.0, ExactMatch::default()).and_then(|s| s.with(1.0, ExactMatch::default()));
    assert!(matches!(twice, Err(RewardError::DuplicateName(name)) if name == "exact"));
}

#[test]
fn rewards_can_be_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<WeightedSum>();
    is_shared::<ril_reward::CachedJudge<ril_reward::RuleJudge>>();
    is_shared::<RewardError>();
}

proptest! {
    #[test]
    fn a_minimum_is_the_smallest_column_in_any_order(
        scores in scores(), order in Just([0_usize, 1, 2, 3]).prop_shuffle(),
    ) {
        let columns: Vec<_> = NAMES.iter().zip(&scores).map(|(name, scores)| (*name, &**scores)).collect();
        let shuffled: Vec<_> = order.iter().map(|&index| columns[index]).collect();
        let smallest = min_scores(&columns).expect("same length");
        prop_assert_eq!(&min_scores(&shuffled).expect("same length"), &smallest);
        for (row, smallest) in smallest.iter().enumerate() {
            let column: Option<Vec<f32>> = scores.iter().map(|column| column[row]).collect();
            prop_assert_eq!(*smallest, column.map(|column| column.into_iter().fold(f32::INFINITY, f32::min)));
        }
        // A minimum is never above a sum with weights that add up to one.
        for (smallest, mean) in smallest.iter().zip(sum(&[0.25; 4], &scores)) {
            prop_assert!(smallest.zip(mean).is_none_or(|(smallest, mean)| smallest <= mean + 1e-4));
        }
    }

    #[test]
    fn normalised_groups_have_mean_zero_and_deviation_one(
        groups in prop::collection::vec(prop::collection::vec(prop_oneof![1 => Just(None), 5 => (-10.0_f32..10.0).prop_map(Some)], 4), 1..5),
        shift in -5.0_f32..5.0,
    ) {
        let scores: Vec<Option<f32>> = groups.concat();
        let normalise = |scores: &[Option<f32>]| z_scores("a", scores, ScoreGroups::Questions { group_size: 4 }).expect("groups of 4");
        let normalised = normalise(&scores);
        let shifted = normalise(&scores.iter().map(|score| score.map(|score| score + shift)).collect::<Vec<_>>());
        for (group, (before, moved)) in normalised.chunks(4).zip(scores.chunks(4).zip(shifted.chunks(4))) {
            let values: Vec<f64> = group.iter().flatten().map(|score| f64::from(*score)).collect();
            let count = values.len() as f64;
            prop_assert!(values.is_empty() || (values.iter().sum::<f64>() / count).abs() < 1e-5);
            let spread = |values: &[f64]| (values.iter().map(|v| v * v).sum::<f64>() / (count - 1.0)).sqrt();
            let is_wide = before.iter().flatten().any(|a| before.iter().flatten().any(|b| (a - b).abs() > 1.0));
            prop_assert!(!is_wide || (spread(&values) - 1.0).abs() < 1e-3, "{:?}", before);
            for ((score, before), moved) in group.iter().zip(before).zip(moved) {
                prop_assert_eq!(score.is_some(), before.is_some());
                prop_assert!(score.zip(*moved).is_none_or(|(a, b)| (a - b).abs() < 1e-2));
            }
        }
        // One group is normalised as the whole batch is.
        prop_assert_eq!(z_scores("a", &groups[0], ScoreGroups::Batch).expect("any length"), normalise(&groups[0]));
    }
}

#[test]
fn groups_that_are_ragged_or_of_one_are_refused() {
    let scores = [Some(1.0), Some(2.0), Some(3.0)];
    let normalise = |group_size| z_scores("length", &scores, ScoreGroups::Questions { group_size });
    assert_eq!(
        normalise(2).expect_err("three scores").to_string(),
        "length: expected a multiple of group_size 2, got 3 scores"
    );
    assert!(matches!(normalise(1), Err(RewardError::Config(_))));
    assert!(matches!(
        ZScore::new(ExactMatch::default(), ScoreGroups::Questions { group_size: 0 }),
        Err(RewardError::Config(_))
    ));
    assert!(z_scores("length", &[], ScoreGroups::Batch).expect("nothing to do").is_empty());
    assert!(matches!(z_scores("a", &[Some(f32::NAN)], ScoreGroups::Batch), Err(RewardError::NonFiniteScore { .. })));
}

/// The messages of an error and of all its causes.
fn chain(error: &RewardError) -> Vec<String> {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |error| error.source()).map(ToString::to_string).collect()
}

struct Careless;

impl Reward for Careless {
    fn name(&self) -> &str {
        "careless"
    }
    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        Ok(vec![Some(1.0 / samples[7].response.len() as f32)])
    }
}

#[test]
fn a_failing_part_is_named_with_its_sample_and_its_cause() {
    fn picky() -> impl Reward + Send + Sync + 'static {
        per_sample("picky", |sample: &Sample<'_>| match sample.response {
            "panic" => panic!("cannot read it"),
            "error" => Err(std::fmt::Error),
            _ => Ok(Some(1.0)),
        })
    }
    let sum = WeightedSum::new("total").with(1.0, ExactMatch::default()).and_then(|sum| sum.with(0.5, picky()));
    let sum = sum.expect("two names");
    let samples = ["fine", "error"].map(|response| Sample::new("?", "", response));
    let cause = std::fmt::Error.to_string();
    let expected = ["total: its part \"picky\" failed", "picky: sample 1 failed", cause.as_str()];
    assert_eq!(chain(&sum.score(&samples).expect_err("sample 1 fails")), expected);
    assert_eq!(chain(&sum.term_scores(&samples).expect_err("sample 1 fails")), expected);

    let samples = ["panic", "fine"].map(|response| Sample::new("?", "", response));
    let expected = ["picky: sample 0: panicked: cannot read it"];
    assert_eq!(chain(&Clip::new(picky(), 0.0, 1.0).expect("a range").score(&samples).expect_err("a panic")), expected);
    let normalised = ZScore::new(picky(), ScoreGroups::Batch).expect("a batch");
    assert_eq!(chain(&normalised.score(&samples).expect_err("a panic")), expected);
    let gated = JudgeGate::new(picky(), ExactMatch::default()).score(&samples).expect_err("a panic");
    assert_eq!(chain(&gated), ["exact: its part \"picky\" failed", expected[0]]);
    let smallest = MinOf::new("worst").with(picky()).expect("one name").score(&samples).expect_err("a panic");
    assert_eq!(chain(&smallest), ["worst: its part \"picky\" failed", expected[0]]);

    // A reward that panics outside of a sample is named, and so is one that loses samples.
    let sum = WeightedSum::new("total").with(1.0, Careless).expect("one name");
    let messages = chain(&sum.score(&samples).expect_err("two samples"));
    assert!(messages[1].starts_with("careless: panicked: index out of bounds"), "{messages:?}");
    let samples = [Sample::new("?", "", "a"); 9];
    let messages = chain(&sum.score(&samples).expect_err("one score"));
    assert_eq!(messages, ["total: its part \"careless\" failed", "careless: expected 9 results, got 1"]);
}
