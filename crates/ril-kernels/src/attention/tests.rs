use burn::tensor::Device;
use proptest::prelude::*;

use super::*;
use crate::testing::{assert_close, block, gradient, scattered, values};

/// Values, and gradients of `q`, `k` and `v`.
fn compare(plan: AttentionPlan, [heads, kv_heads, dim]: [usize; 3]) {
    let (plan, device) = (Arc::new(plan), Device::flex().autodiff());
    let run = |attention: fn(Tensor<3>, Tensor<3>, Tensor<3>, &Arc<AttentionPlan>) -> Tensor<2>| {
        let q = scattered([plan.queries, heads, dim], 0.1, &device).require_grad();
        let k = scattered([plan.keys, kv_heads, dim], 1.2, &device).require_grad();
        let v = scattered([plan.keys, kv_heads, dim], 2.3, &device).require_grad();
        let out = attention(q.clone(), k.clone(), v.clone(), &plan);
        let pull = scattered([plan.queries, heads * dim], 3.4, &device.clone().inner());
        let gradients = (out.clone() * pull).sum().backward();
        [values(&out), gradient(&q, &gradients), gradient(&k, &gradients), gradient(&v, &gradients)]
    };
    let want = run(|q, k, v, plan| plain::attention(q, k, v, plan));
    for (got, want) in run(attention).iter().zip(want) {
        assert_close(got, &want, 3e-5);
    }
}

#[test]
fn causal_rows_of_different_lengths() {
    compare(AttentionPlan::causal_rows(&[5, 1, 13]), [4, 2, 8]);
}

#[test]
fn rows_longer_than_a_tile_of_queries_and_of_keys() {
    compare(AttentionPlan::causal_rows(&[300, 70]), [3, 1, 16]);
}

#[test]
fn windows() {
    compare(AttentionPlan::segments(&[16, 8, 4, 4]), [2, 2, 8]);
}

#[test]
fn rows_behind_one_beginning() {
    let blocks = vec![
        block(0..120, 0..120, true),
        block(120..290, 0..120, false),
        block(120..200, 120..200, true),
        block(200..290, 200..290, true),
        block(290..300, 290..300, true),
    ];
    compare(AttentionPlan::new(blocks, 300, 300), [6, 2, 8]);
}

/// New tokens behind a cache whose places are not in the order of the rows.
#[test]
fn keys_in_a_cache() {
    let blocks = vec![
        block(0..3, 4..9, false),
        block(0..1, 20..22, true),
        block(1..2, 9..12, true),
        block(2..3, 30..31, true),
        block(3..5, 12..18, true),
    ];
    compare(AttentionPlan::new(blocks, 5, 40), [4, 2, 8]);
}

#[test]
fn queries_in_no_block_are_zero() {
    let plan = Arc::new(AttentionPlan::new(vec![block(1..2, 0..2, false)], 3, 2));
    let device = Device::flex();
    let (q, k) = (scattered([3, 2, 4], 0.1, &device), scattered([2, 1, 4], 0.4, &device));
    for out in [attention(q.clone(), k.clone(), k.clone(), &plan), plain::attention(q, k.clone(), k, &plan)] {
        let out = values(&out);
        assert!(out[..8].iter().chain(&out[16..]).all(|&v| v == 0.0) && out[8..16].iter().all(|&v| v != 0.0));
    }
}

/// A NaN query spoils itself; a NaN key or value what its row sees of it, and no row beside.
#[test]
fn a_nan_stays_in_its_row() {
    let plan = Arc::new(AttentionPlan::causal_rows(&[2, 2]));
    let device = Device::flex();
    let broken = || Tensor::<3>::from_data([[[f32::NAN]], [[0.5]], [[1.0]], [[2.0]]], &device);
    let fine = || scattered([4, 1, 1], 0.3, &device);
    let out = values(&attention(broken(), fine(), fine(), &plan));
    assert!(out[0].is_nan() && out[1..].iter().all(|v| v.is_finite()));
    for [k, v] in [[broken(), fine()], [fine(), broken()]] {
        let out = values(&attention(fine(), k, v, &plan));
        assert!(out[..2].iter().all(|v| v.is_nan()) && out[2..].iter().all(|v| v.is_finite()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any rows behind any beginnings.
    #[test]
    fn shared_beginnings(groups in prop::collection::vec((1usize..40, prop::collection::vec(1usize..30, 0..4)), 1..4), group in 1usize..4) {
        let (mut blocks, mut at) = (Vec::new(), 0);
        for (beginning, rows) in groups {
            let keys = at..at + beginning;
            at = keys.end;
            blocks.push(block(keys.clone(), keys.clone(), true));
            let first = at;
            for row in rows {
                blocks.push(block(at..at + row, at..at + row, true));
                at += row;
            }
            blocks.push(block(first..at, keys, false));
        }
        compare(AttentionPlan::new(blocks, at, at), [2 * group, 2, 4]);
    }
}
