//! The loss and its gradient against torch, and against itself in micro-batches. Fixture:
//! `scripts/reference/torch_gail.py`.

mod common;

use burn::tensor::{Device, Tensor};
use common::{largest, largest_gap, largest_relative_gap};
use proptest::prelude::*;
use ril_gail::{AuthoredBy, DiscriminatorTotals, discriminator_loss, discriminator_stats};
use serde_json::Value;

const LOSS_TOLERANCE: f64 = 1e-5;
const GRADIENT_TOLERANCE: f64 = 1e-6;

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().expect("an array").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

fn origins(value: &Value) -> Vec<AuthoredBy> {
    let origin = |is_student: &Value| match is_student.as_bool().expect("a flag") {
        true => AuthoredBy::Student,
        false => AuthoredBy::Teacher,
    };
    value.as_array().expect("an array").iter().map(origin).collect()
}

/// Loss and gradient of the rows `picked`, with the totals of all rows.
fn loss_and_gradient(logits: &[f32], origins: &[AuthoredBy], picked: &[usize]) -> (f64, Vec<f64>) {
    let totals = DiscriminatorTotals::new(origins).expect("both origins");
    let picked_logits: Vec<f32> = picked.iter().map(|&row| logits[row]).collect();
    let picked_origins: Vec<_> = picked.iter().map(|&row| origins[row]).collect();
    let input = Tensor::<1>::from_floats(picked_logits.as_slice(), &Device::flex().autodiff()).require_grad();
    let loss = discriminator_loss(input.clone(), &picked_origins, totals).expect("one origin per logit");
    let value = f64::from(loss.clone().into_scalar::<f32>());
    let gradient = input.grad(&loss.backward()).expect("tracked").into_data();
    (value, gradient.iter::<f32>().map(f64::from).collect())
}

#[test]
fn loss_and_gradient_equal_torch() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/torch_gail.json")).expect("valid JSON");
    let cases = fixture["cases"].as_array().expect("an array");
    assert!(cases.len() >= 20);
    let of_case = |case: &Value| {
        let (logits, origins) = (numbers(&case["logits_student_is_high"]), origins(&case["is_student"]));
        let all: Vec<usize> = (0..logits.len()).collect();
        let (loss, gradient) = loss_and_gradient(&logits, &origins, &all);
        let on_host = f64::from(discriminator_stats(&logits, &origins).expect("both origins").loss);
        let expected = case["loss"].as_f64().expect("a number");
        let slopes = case["gradient"].as_array().expect("an array");
        let slopes: Vec<f64> = slopes.iter().map(|slope| slope.as_f64().expect("a number")).collect();
        (largest_relative_gap(&[loss, on_host], &[expected; 2], 1e-3), largest_gap(&gradient, &slopes))
    };
    let (losses, gradients): (Vec<f64>, Vec<f64>) = cases.iter().map(of_case).unzip();
    let (loss_gap, gradient_gap) = (largest(losses), largest(gradients));
    println!("{} cases, largest gap: loss {loss_gap:.1e} relative, gradient {gradient_gap:.1e}", cases.len());
    assert!(loss_gap <= LOSS_TOLERANCE, "{loss_gap}");
    assert!(gradient_gap <= GRADIENT_TOLERANCE, "{gradient_gap}");
}

proptest! {
    #[test]
    fn micro_batches_add_up_to_the_whole(
        mut rows in prop::collection::vec((-20.0_f32..20.0, any::<bool>()), 2..12), cut in 1_usize..6,
    ) {
        rows[0].1 = true;
        rows[1].1 = false;
        let logits: Vec<f32> = rows.iter().map(|row| row.0).collect();
        let origin = |row: &(f32, bool)| if row.1 { AuthoredBy::Student } else { AuthoredBy::Teacher };
        let origins: Vec<_> = rows.iter().map(origin).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let (whole, gradient) = loss_and_gradient(&logits, &origins, &all);
        let parts: Vec<_> = all.chunks(cut).map(|picked| loss_and_gradient(&logits, &origins, picked)).collect();
        let sum: f64 = parts.iter().map(|part| part.0).sum();
        prop_assert!((sum - whole).abs() <= 1e-5 * whole.max(1.0), "{} {}", sum, whole);
        let joined: Vec<f64> = parts.into_iter().flat_map(|part| part.1).collect();
        prop_assert_eq!(joined, gradient);
    }
}
