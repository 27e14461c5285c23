//! Rows of a behaviour probability of 1 ([`RowRatio::BehaviourOne`]) beside the policy's own, against LUFFY's loss
//! (`scripts/reference/luffy.py`).
//!
//! How LUFFY's settings read here: `p_div_p_<gamma>` is a shaping, `no_reshape` none. Without its clip the range is
//! wider than any ratio. Its token mean, over both kinds of rows, is [`LossAggregation::TokenMean`]. Without the token
//! mean (its published run) it divides the sum by the width alone, not by the rows: a budget of the width, times the
//! number of rows.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use ril_grpo::{
    AdvantageEstimator, ClipRange, GrpoConfig, LossAggregation, PolicyBatch, RewardScale, RowOrigin, RowRatio, RowRole,
    Surrogate, policy_loss,
};
use serde_json::Value;

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(number).collect()
}

fn flat(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().flat_map(list).collect()
}

fn table(value: &Value, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = flat(value).into_iter().map(|v| v as f32).collect();
    let rows = value.as_array().expect("an array").len();
    let width = values.len() / rows;
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Largest error relative to the larger of `|expected|` and 0.01.
fn gap(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let gaps = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs() / expected.abs().max(1e-2));
    // `f64::max` would drop a NaN.
    gaps.fold(0.0, |worst, gap| if gap > worst || gap.is_nan() { gap } else { worst })
}

fn config(case: &Value, width: usize) -> GrpoConfig {
    let settings = &case["settings"];
    let clip = if settings["loss_remove_clip"] == true {
        ClipRange::new(1.0, 1e9)
    } else {
        ClipRange::new(number(&case["epsilon_low"]), number(&case["epsilon_high"]))
    };
    let aggregation = if settings["loss_remove_token_mean"] == true {
        LossAggregation::TokenSumOverBudget { max_completion_len: width }
    } else {
        LossAggregation::TokenMean
    };
    GrpoConfig::new(aggregation, AdvantageEstimator::GroupMean(RewardScale::None))
        .with_surrogate(Surrogate::Clipped(clip))
}

fn batch(case: &Value, device: &Device) -> PolicyBatch {
    let shaping = match case["settings"]["off_policy_reshape"].as_str() {
        Some("no_reshape") => None,
        Some(name) => Some(name.trim_start_matches("p_div_p_").parse().expect("p_div_p_<gamma>")),
        None => panic!("no off_policy_reshape"),
    };
    let teacher = RowRole { origin: RowOrigin::Teacher, ratio: RowRatio::BehaviourOne { shaping } };
    let role = |is_teacher: f64| if is_teacher > 0.0 { teacher } else { RowRole::STUDENT };
    let roles = list(&case["teacher_mask"]).into_iter().map(role).collect();
    let advantages: Vec<f32> = list(&case["advantages"]).into_iter().map(|a| a as f32).collect();
    let advantages = Tensor::from_floats(advantages.as_slice(), device);
    let mask: Tensor<2, Bool> = table(&case["completion_mask"], device).greater_elem(0.5);
    let batch = PolicyBatch::new(table(&case["old_log_probs"], device), None, advantages, mask).unwrap();
    batch.with_rows(roles, None).unwrap()
}

#[test]
fn losses_gradients_and_clipped_shares_equal_luffy() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/luffy.json")).unwrap();
    assert_eq!(fixture["versions"]["luffy"], "01f4ae066249e6965ce0d5512ccdf99a12895c74");
    let device = Device::flex();
    let mut shares = 0;
    let mut worst = std::collections::BTreeMap::<String, (usize, f64, f64)>::new();
    for (index, case) in fixture["cases"].as_array().unwrap().iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        let batch = batch(case, &device);
        let [rows, width] = batch.dims();
        // Its sum is divided by the width alone, ours by the rows too.
        let factor = if case["settings"]["loss_remove_token_mean"] == true { rows as f64 } else { 1.0 };
        let log_probs = table(&case["log_probs"], &Device::flex().autodiff()).require_grad();
        let output = policy_loss(&batch, log_probs.clone(), &config(case, width)).unwrap();
        let loss = factor * f64::from(output.loss.clone().into_scalar::<f32>());
        let gradients = output.loss.backward();
        let gradient: Vec<f64> =
            log_probs.grad(&gradients).unwrap().into_data().iter::<f64>().map(|g| factor * g).collect();

        let loss_gap = gap(&[loss], &[number(&case["loss"])]);
        assert!(loss_gap < 1e-5, "case {index} {name}: loss {loss} {}", case["loss"]);
        let gradient_gap = gap(&gradient, &flat(&case["gradient"]));
        assert!(gradient_gap < 1e-4, "case {index} {name}: gradient {gradient_gap:e}");
        // A share of no tokens is NaN in LUFFY; among teacher rows, which nothing clips, it counts what a clip would do.
        let has_teachers = batch.roles().iter().any(|role| role.origin == RowOrigin::Teacher);
        if let (Some(expected), false) = (case["metrics"]["on_pg_clipfrac"].as_f64(), has_teachers) {
            let rows = output.metrics.read().unwrap();
            let clipped: f64 = rows.iter().map(|row| row.clip_low + row.clip_high).sum();
            let share = clipped / batch.totals().tokens as f64;
            assert!((share - expected).abs() < 1e-6, "case {index} {name}: clipped {share} {expected}");
            shares += 1;
        }
        let entry = worst.entry(name.to_string()).or_default();
        *entry = (entry.0 + 1, entry.1.max(loss_gap), entry.2.max(gradient_gap));
    }
    assert!(shares >= 20, "{shares}");
    for (name, (cases, loss, gradient)) in &worst {
        println!("{name}: {cases} cases, loss {loss:.1e}, gradient {gradient:.1e}");
        assert!(*cases >= 24, "{name}");
    }
    assert_eq!(worst.len(), 4);
}
