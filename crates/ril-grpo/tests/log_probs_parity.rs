//! Log-probabilities, entropies and gradients against TRL's `selective_log_softmax` and `entropy_from_logits`. Fixture:
//! `scripts/reference/trl_log_probs.py`.

use burn::tensor::{Device, Int, Tensor, TensorData};
use ril_grpo::{selective_log_probs, selective_scores};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number"));
    values.collect()
}

/// The script's own pattern.
fn pattern(rows: usize, columns: usize, step: usize, scale: f64) -> TensorData {
    let value = |row: usize, column: usize| scale * (((row * 131 + column * step) % 251) as f64 / 125.0 - 1.0);
    let values: Vec<f32> =
        (0..rows).flat_map(|row| (0..columns).map(move |column| value(row, column) as f32)).collect();
    TensorData::new(values, [rows, columns])
}

/// Largest error relative to the larger of `|expected|` and `floor`.
#[track_caller]
fn gap<const D: usize>(got: Tensor<D>, expected: &[f64], floor: f64) -> f64 {
    let got: Vec<f64> = got.inner().into_data().iter::<f64>().collect();
    assert_eq!(got.len(), expected.len());
    let gaps = got.iter().zip(expected).map(|(got, expected)| {
        let gap = (got - expected).abs() / expected.abs().max(floor);
        assert!(gap.is_finite(), "{got} {expected}");
        gap
    });
    gaps.fold(0.0, f64::max)
}

/// Gaps of values and of gradients.
fn gaps_of(case: &Value) -> [f64; 2] {
    let device = Device::flex().autodiff();
    let shape: Vec<usize> = numbers(&case["shape"]).into_iter().map(|size| size as usize).collect();
    let [batch, seq, width, vocab] = shape[..] else { panic!("four sizes") };
    let (scale, step) = (case["scale"].as_f64().unwrap(), case["step"].as_u64().unwrap() as usize);
    let hidden = Tensor::<2>::from_data(pattern(batch * seq, width, 37, scale), &device).reshape([batch, seq, width]);
    let (hidden, weight) = (hidden.require_grad(), Tensor::<2>::from_data(pattern(width, vocab, step, 1.0), &device));
    let weight = weight.require_grad();
    let targets: Vec<i64> = numbers(&case["targets"]).into_iter().map(|id| id as i64).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [batch, seq]), &device);
    let temperature = case["temperature"].as_f64().unwrap();
    let call = || (hidden.clone(), weight.clone(), targets.clone());
    let (h, w, t) = call();
    let scores = selective_scores(h, w, t, 3, temperature).unwrap();
    let entropy = scores.entropy.expect("asked for");
    let (h, w, t) = call();
    let alone = selective_log_probs(h, w, t, 64, temperature).unwrap();

    let cotangents: Vec<f32> = numbers(&case["cotangents"]).into_iter().map(|c| c as f32).collect();
    let cotangents = Tensor::<3>::from_data(TensorData::new(cotangents, [2, batch, seq]), &device);
    let weighed = Tensor::stack::<3>(vec![scores.log_probs.clone(), entropy.clone()], 0) * cotangents;
    let gradients = weighed.sum().backward();
    let of_weight = weight.grad(&gradients).unwrap();
    let of_targets = of_weight.clone().select(1, targets.inner().reshape([batch * seq]));
    // Two f32 logits near 1e3 differ from their f64 by 1e-4; so do log-probabilities near 0.
    let floor = (scale / temperature).max(1.0);
    let values = [
        gap(scores.log_probs, &numbers(&case["log_probs"]), floor),
        gap(alone, &numbers(&case["log_probs"]), floor),
        gap(entropy, &numbers(&case["entropies"]), floor),
    ];
    let gradients = [
        gap(hidden.grad(&gradients).unwrap(), &numbers(&case["hidden_gradient"]), floor),
        gap(of_targets, &numbers(&case["weight_gradient_of_targets"]), floor),
        gap(of_weight.abs().sum_dim(1), &numbers(&case["weight_gradient_sums"]), floor),
    ];
    [values, gradients].map(|gaps| gaps.into_iter().fold(0.0, f64::max))
}

#[test]
fn scores_and_gradients_equal_trl() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/trl_log_probs.json")).expect("valid JSON");
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    let mut worst = [0.0_f64; 2];
    for (index, case) in cases.iter().enumerate() {
        let gaps = gaps_of(case);
        assert!(gaps[0] < 1e-5 && gaps[1] < 1e-4, "case {index}: {gaps:?}");
        worst = [0, 1].map(|i| worst[i].max(gaps[i]));
    }
    println!("{} cases, values {:.1e}, gradients {:.1e}", cases.len(), worst[0], worst[1]);
}
