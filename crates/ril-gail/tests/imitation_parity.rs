//! The nine statistics and the GAIL reward against the `imitation` library, by `scripts/reference/imitation_gail.py`.

mod common;

use common::{largest, largest_relative_gap};
use ril_gail::{AuthoredBy, SimilarityReward, discriminator_stats, imitation_stats};
use serde_json::Value;

const TOLERANCE: f64 = 1e-5;

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn origin(is_student: &Value) -> AuthoredBy {
    match is_student.as_bool().expect("a flag") {
        true => AuthoredBy::Student,
        false => AuthoredBy::Teacher,
    }
}

fn logits(case: &Value) -> Vec<f32> {
    list(&case["logits_student_is_high"]).iter().map(|logit| logit.as_f64().expect("a number") as f32).collect()
}

/// Largest relative gap of the nine statistics; those that are missing must be missing on both sides.
fn stats_gap(case: &Value) -> f64 {
    let origins: Vec<_> = list(&case["is_student"]).iter().map(origin).collect();
    let stats = imitation_stats(&logits(case), &origins).expect("finite");
    let stats = serde_json::to_value(stats).expect("serialisable");
    let (stats, expected) = (stats.as_object().expect("a map"), case["stats"].as_object().expect("a map"));
    assert_eq!((stats.len(), expected.len()), (9, 9));
    largest(expected.iter().map(|(name, expected)| match (stats[name].as_f64(), expected.as_f64()) {
        (Some(got), Some(expected)) => largest_relative_gap(&[got], &[expected], 1e-3),
        (got, expected) => {
            assert_eq!(got, expected, "{name}");
            0.0
        }
    }))
}

fn reward_gap(case: &Value) -> f64 {
    let got = |logit: &f32| f64::from(SimilarityReward::Softplus.reward_of_logit(*logit));
    let got: Vec<f64> = logits(case).iter().map(got).collect();
    let expected = list(&case["gail_rewards"]).iter().map(|reward| reward.as_f64().expect("a number"));
    largest_relative_gap(&got, &expected.collect::<Vec<_>>(), 1e-6)
}

#[test]
fn statistics_and_rewards_equal_imitation() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/imitation_gail.json")).expect("valid JSON");
    let cases = list(&fixture["cases"]);
    assert!(cases.len() >= 20);
    let (stats, reward) = (largest(cases.iter().map(stats_gap)), largest(cases.iter().map(reward_gap)));
    println!("{} cases, largest gap: statistics {stats:.1e}, reward {reward:.1e}, relative", cases.len());
    assert!(stats <= TOLERANCE, "{stats}");
    assert!(reward <= TOLERANCE, "{reward}");
}

#[test]
fn the_accuracies_of_both_sets_of_statistics_agree_where_no_logit_is_zero() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/imitation_gail.json")).expect("valid JSON");
    for case in list(&fixture["cases"]) {
        let logits = logits(case);
        let origins: Vec<_> = list(&case["is_student"]).iter().map(origin).collect();
        let Ok(ours) = discriminator_stats(&logits, &origins) else { continue };
        if logits.contains(&0.0) {
            continue;
        }
        for (got, name) in [(ours.student_accuracy, "disc_acc_gen"), (ours.teacher_accuracy, "disc_acc_expert")] {
            assert!((f64::from(got) - case["stats"][name].as_f64().expect("both origins")).abs() < 1e-6, "{name}");
        }
        let entropy = case["stats"]["disc_entropy"].as_f64().expect("rows");
        assert!(largest_relative_gap(&[f64::from(ours.entropy)], &[entropy], 1e-3) < 1e-4);
    }
}
