//! Every loss, its weights, pairs, regulariser and the gradient penalties against torch, by
//! `scripts/reference/torch_gail.py`.

mod common;

use burn::tensor::{Device, Tensor};
use common::{as_f64, largest, largest_gap, largest_relative_gap};
use ril_gail::{
    AuthoredBy, DiscriminatorBatch, DiscriminatorObjective, GradientPenalty, LabelSmoothing, LossConfig, PairOutcome,
    RowPair, objective_loss, objective_value,
};
use serde_json::Value;

const LOSS_TOLERANCE: f64 = 1e-5;
const GRADIENT_TOLERANCE: f64 = 1e-4;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/torch_objectives.json")).expect("valid JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn numbers(value: &Value) -> Vec<f32> {
    list(value).iter().map(|value| number(value) as f32).collect()
}

fn objective(name: &str, amount: f32) -> DiscriminatorObjective {
    match name {
        "bce_one_sided" => DiscriminatorObjective::Bce { label_smoothing: LabelSmoothing::OneSided { amount } },
        "bce_two_sided" => DiscriminatorObjective::Bce { label_smoothing: LabelSmoothing::TwoSided { amount } },
        "least_squares" => DiscriminatorObjective::LeastSquares,
        "hinge" => DiscriminatorObjective::Hinge,
        "bradley_terry" => DiscriminatorObjective::BradleyTerry,
        "relativistic" => DiscriminatorObjective::Relativistic,
        other => panic!("no objective {other}"),
    }
}

fn pair(value: &Value) -> RowPair {
    let index = |at: usize| value[at].as_u64().expect("an index") as usize;
    let outcome = if index(2) == 1 { PairOutcome::Tie } else { PairOutcome::Teacher };
    RowPair { student: index(0), teacher: index(1), outcome }
}

fn batch(case: &Value) -> DiscriminatorBatch {
    let origin = |is_student: &Value| match is_student.as_bool().expect("a flag") {
        true => AuthoredBy::Student,
        false => AuthoredBy::Teacher,
    };
    let origins: Vec<_> = list(&case["is_student"]).iter().map(origin).collect();
    let pairs: Vec<_> = list(&case["pairs"]).iter().map(pair).collect();
    DiscriminatorBatch::weighted(&origins, &numbers(&case["weights"]), &pairs).expect("valid")
}

/// Largest gap of the gradients, relative to the largest of the expected ones.
fn gradient_gap(got: &[f32], expected: &Value) -> f64 {
    let expected: Vec<f64> = list(expected).iter().map(number).collect();
    let scale = largest(expected.iter().map(|value| value.abs())).max(1e-3);
    largest_gap(&as_f64(got), &expected) / scale
}

fn check(name: &str, case: &Value) -> (f64, f64) {
    let config = LossConfig::new()
        .with_objective(objective(name, number(&case["amount"]) as f32))
        .with_score_regularizer(number(&case["score_regularizer"]) as f32);
    let (logits, batch, expected) = (numbers(&case["logits_student_is_high"]), batch(case), number(&case["loss"]));
    let input = Tensor::<1>::from_floats(logits.as_slice(), &Device::flex().autodiff()).require_grad();
    let loss = objective_loss(input.clone(), &batch, &config).expect("one logit a row");
    let value = f64::from(loss.clone().into_scalar::<f32>());
    let gradient = input.grad(&loss.backward()).expect("tracked").try_into_vec_as::<f32>().expect("readable");
    let on_host = objective_value(&logits, &batch, &config).expect("finite");
    let loss_gap = largest_relative_gap(&[value, on_host], &[expected; 2], 1e-3);
    (loss_gap, gradient_gap(&gradient, &case["gradient"]))
}

#[test]
fn losses_and_gradients_equal_torch() {
    let fixture = fixture();
    for (name, cases) in fixture["objectives"].as_object().expect("a map") {
        let cases = list(cases);
        assert!(cases.len() >= 20);
        let (losses, gradients): (Vec<f64>, Vec<f64>) = cases.iter().map(|case| check(name, case)).unzip();
        let (loss, gradient) = (largest(losses), largest(gradients));
        println!("{name}: {} cases, largest gap: loss {loss:.1e}, gradient {gradient:.1e}, relative", cases.len());
        assert!(loss <= LOSS_TOLERANCE, "{name}: loss {loss}");
        assert!(gradient <= GRADIENT_TOLERANCE, "{name}: gradient {gradient}");
    }
}

#[test]
fn penalties_equal_torchs_double_backward() {
    let fixture = fixture();
    let kinds = [
        ("zero_centred", GradientPenalty::ZeroCentred { weight: 1.0 }),
        ("one_centred", GradientPenalty::OneCentred { weight: 1.0 }),
    ];
    for (name, penalty) in kinds {
        let cases = list(&fixture["penalties"][name]);
        assert!(cases.len() >= 20);
        let of_case = |case: &Value| {
            let head = Tensor::<1>::from_floats(numbers(&case["head"]).as_slice(), &Device::flex().autodiff());
            let head = head.require_grad();
            let value = penalty.of(head.clone().square().sum());
            let expected = number(&case["penalty"]);
            let got = f64::from(value.clone().into_scalar::<f32>());
            let gradient = head.grad(&value.backward()).expect("tracked").try_into_vec_as::<f32>().expect("readable");
            (largest_relative_gap(&[got], &[expected], 0.01), gradient_gap(&gradient, &case["gradient"]))
        };
        let (values, slopes): (Vec<f64>, Vec<f64>) = cases.iter().map(of_case).unzip();
        let (value_gap, slope_gap) = (largest(values), largest(slopes));
        println!("{name}: {} cases, largest gap: value {value_gap:.1e}, gradient {slope_gap:.1e}", cases.len());
        assert!(value_gap <= LOSS_TOLERANCE, "{name}: {value_gap}");
        assert!(slope_gap <= GRADIENT_TOLERANCE, "{name}: {slope_gap}");
    }
}
