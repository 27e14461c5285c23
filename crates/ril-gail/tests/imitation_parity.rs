//! The nine statistics and the GAIL reward against the `imitation` library, by `scripts/reference/imitation_gail.py`.

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

fn gap(got: f64, expected: f64) -> f64 {
    (got - expected).abs() / expected.abs().max(1e-3)
}

#[test]
fn statistics_and_rewards_equal_imitation() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/imitation_gail.json")).expect("valid JSON");
    let cases = list(&fixture["cases"]);
    assert!(cases.len() >= 20);
    let (mut stats_gap, mut reward_gap) = (0.0_f64, 0.0_f64);
    for case in cases {
        let logits: Vec<f32> =
            list(&case["logits_student_is_high"]).iter().map(|l| l.as_f64().expect("a number") as f32).collect();
        let origins: Vec<_> = list(&case["is_student"]).iter().map(origin).collect();
        let stats = serde_json::to_value(imitation_stats(&logits, &origins).expect("finite")).expect("serialisable");
        let (stats, expected) = (stats.as_object().expect("a map"), case["stats"].as_object().expect("a map"));
        assert_eq!(stats.len(), 9);
        for (name, expected) in expected {
            match (stats[name].as_f64(), expected.as_f64()) {
                (Some(got), Some(expected)) => {
                    stats_gap = stats_gap.max(gap(got, expected));
                    assert!(gap(got, expected) <= TOLERANCE, "{name}: {got} {expected}");
                }
                (got, expected) => assert_eq!(got, expected, "{name}"),
            }
        }
        for (logit, expected) in logits.iter().zip(list(&case["gail_rewards"])) {
            let got = f64::from(SimilarityReward::Softplus.reward_of_logit(*logit));
            let expected = expected.as_f64().expect("a number");
            reward_gap = reward_gap.max((got - expected).abs() / expected.abs().max(1e-6));
        }
    }
    println!("{} cases, largest gap: statistics {stats_gap:.1e}, reward {reward_gap:.1e}, relative", cases.len());
    assert!(reward_gap <= TOLERANCE, "{reward_gap}");
}

#[test]
fn the_accuracies_of_both_sets_of_statistics_agree_where_no_logit_is_zero() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/imitation_gail.json")).expect("valid JSON");
    for case in list(&fixture["cases"]) {
        let logits: Vec<f32> =
            list(&case["logits_student_is_high"]).iter().map(|l| l.as_f64().expect("a number") as f32).collect();
        let origins: Vec<_> = list(&case["is_student"]).iter().map(origin).collect();
        let Ok(ours) = discriminator_stats(&logits, &origins) else { continue };
        if logits.contains(&0.0) {
            continue;
        }
        for (got, name) in [(ours.student_accuracy, "disc_acc_gen"), (ours.teacher_accuracy, "disc_acc_expert")] {
            assert!((f64::from(got) - case["stats"][name].as_f64().expect("both origins")).abs() < 1e-6, "{name}");
        }
        assert!(gap(f64::from(ours.entropy), case["stats"]["disc_entropy"].as_f64().expect("rows")) < 1e-4);
    }
}
