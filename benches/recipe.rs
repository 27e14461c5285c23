//! What a step spends its time on, on the CPU in f32: `cargo bench --bench recipe`.

use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use ril::grpo::{GrpoConfig, PolicyBatch, RewardScale, group_advantages, policy_loss, selective_log_probs};
use ril::models::image::{RgbImage, resize_bicubic};
use std::hint::black_box;

/// Clipped loss with KL, forward and backward, `[64, 1024]`.
fn loss(c: &mut Criterion) {
    let device = Device::flex();
    let random = || Tensor::<2>::random([64, 1024], Distribution::Uniform(-3.0, 0.0), &device);
    let advantages = Tensor::<1>::random([64], Distribution::Normal(0.0, 1.0), &device);
    let mask = Tensor::<2, Bool>::full([64, 1024], true, &device);
    let batch = PolicyBatch::new(random(), Some(random()), advantages, mask).expect("equal shapes");
    let config = GrpoConfig::ril(1024);
    let tracked = random().to_device(&device.clone().autodiff()).require_grad();
    c.bench_function("policy_loss forward and backward [64, 1024]", |b| {
        b.iter(|| {
            let loss = policy_loss(&batch, tracked.clone(), &config).expect("valid");
            let gradients = loss.loss.backward();
            black_box(tracked.grad(&gradients).map(Tensor::into_data))
        });
    });
}

/// 100,000 rewards in groups of 8.
fn advantages(c: &mut Criterion) {
    let rewards: Vec<Option<f32>> = (0..100_000).map(|i| Some((i % 3) as f32)).collect();
    c.bench_function("group_advantages 100,000", |b| {
        b.iter(|| black_box(group_advantages(black_box(&rewards), 8, RewardScale::GroupStd)));
    });
}

/// Chunked log-probabilities of 64 tokens over Qwen's vocabulary, forward and backward.
fn log_probs(c: &mut Criterion) {
    let device = Device::flex();
    let tracked = device.clone().autodiff();
    let hidden = Tensor::<3>::random([1, 64, 256], Distribution::Normal(0.0, 1.0), &tracked).require_grad();
    let weight = Tensor::<2>::random([256, 151_936], Distribution::Normal(0.0, 0.02), &tracked).require_grad();
    let targets = Tensor::<2, Int>::random([1, 64], Distribution::Uniform(0.0, 151_935.0), &device);
    let mut group = c.benchmark_group("selective_log_probs [64 x 256] x 151,936");
    group.sample_size(10);
    for chunk in [16, 64] {
        group.bench_function(format!("chunks of {chunk}"), |b| {
            b.iter(|| {
                let got = selective_log_probs(hidden.clone(), weight.clone(), targets.clone(), chunk, 1.0);
                let gradients = got.expect("valid").sum().backward();
                black_box(hidden.grad(&gradients).map(Tensor::into_data))
            });
        });
    }
    group.finish();
}

/// A photograph's worth of pixels down to what the vision tower takes.
fn resize(c: &mut Criterion) {
    let picture = RgbImage::from_fn(1280, 960, |x, y| [(x % 256) as u8, (y % 256) as u8, ((x + y) % 256) as u8].into());
    c.bench_function("resize_bicubic 1280x960 to 644x476", |b| {
        b.iter(|| black_box(resize_bicubic(black_box(&picture), 644, 476)));
    });
}

criterion_group!(benches, loss, advantages, log_probs, resize);
criterion_main!(benches);
