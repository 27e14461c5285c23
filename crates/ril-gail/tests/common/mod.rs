//! A small discriminator and separable rows, for the tests that train.
#![allow(dead_code, reason = "each test file uses a part")]

use std::convert::Infallible;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData, activation};
use ril_gail::{AuthoredBy, LlmDiscriminator, ScalarHeadConfig, SequenceEncoder};

pub const WIDTH: usize = 6;
pub const SEQ: usize = 3;

/// Embeds each step of a `[batch, seq, width]` sequence by itself.
#[derive(Module, Debug)]
pub struct Mlp {
    inner: Linear,
    outer: Linear,
}

impl SequenceEncoder for Mlp {
    type Input = Tensor<3>;
    type Error = Infallible;

    fn encode(&self, input: &Tensor<3>) -> Result<Tensor<3>, Infallible> {
        Ok(self.outer.forward(activation::silu(self.inner.forward(input.clone()))))
    }

    fn last_valid_positions(&self, input: &Tensor<3>) -> Vec<usize> {
        vec![SEQ - 1; input.dims()[0]]
    }
}

pub type Model = LlmDiscriminator<Mlp>;

pub fn model(seed: u64) -> Model {
    let device = Device::flex();
    device.seed(seed);
    let device = device.autodiff();
    // Weights of our own, so that the tests that run beside this one cannot disturb Burn's global generator.
    let mut next = seed;
    let mut weights = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns)
            .map(|_| {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((next >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.8
            })
            .collect();
        Param::from_tensor(Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &device))
    };
    let mut linear = |input, output| Linear {
        weight: weights(input, output),
        ..LinearConfig::new(input, output).with_bias(false).init(&device)
    };
    let encoder = Mlp { inner: linear(WIDTH, 16), outer: linear(16, 8) };
    // No spread: the head starts at 0 and every logit with it.
    let head = ScalarHeadConfig::new(8).with_initial_std(0.0).init(&device);
    LlmDiscriminator::new(encoder, head)
}

pub fn origins(students: usize, teachers: usize) -> Vec<AuthoredBy> {
    [vec![AuthoredBy::Student; students], vec![AuthoredBy::Teacher; teachers]].concat()
}

/// Features of a row: the first says who wrote it, the others are noise.
pub fn features(row: usize, origin: AuthoredBy) -> Vec<f32> {
    let noise = |step: usize| (((row * 31 + step * 17) * 7919) % 101) as f32 / 50.0 - 1.0;
    let sign = if origin == AuthoredBy::Student { 1.0 } else { -1.0 };
    (0..SEQ * WIDTH).map(|step| if step % WIDTH == 0 { sign } else { noise(step) }).collect()
}

pub fn input(origins: &[AuthoredBy], rows: &[usize]) -> Result<Tensor<3>, Infallible> {
    let values: Vec<f32> = rows.iter().flat_map(|&row| features(row, origins[row])).collect();
    Ok(Tensor::from_data(TensorData::new(values, [rows.len(), SEQ, WIDTH]), &Device::flex()))
}

pub fn adamw() -> ModuleOptimizer {
    AdamWConfig::new().init()
}

struct Values(Vec<f32>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.extend(param.val().into_data().iter::<f32>());
    }
}

pub fn values(model: &impl Module) -> Vec<f32> {
    let mut values = Values(Vec::new());
    model.visit(&mut values);
    values.0
}

/// Largest distance between two lists. A distance that is not finite fails here: `f64::max` would drop a NaN.
pub fn largest_gap(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "values");
    largest(got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()))
}

/// As [`largest_gap`], divided by the expected value, which counts as at least `floor`.
pub fn largest_relative_gap(got: &[f64], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(got.len(), expected.len(), "values");
    largest(got.iter().zip(expected).map(|(got, expected)| (got - expected).abs() / expected.abs().max(floor)))
}

/// The largest of some gaps, each finite; 0 of none.
pub fn largest(gaps: impl IntoIterator<Item = f64>) -> f64 {
    gaps.into_iter().fold(0.0, |largest, gap| {
        assert!(gap.is_finite(), "a gap of {gap}");
        largest.max(gap)
    })
}

pub fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}
