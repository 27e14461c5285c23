//! Gradients by recomputation.
#![allow(unsafe_code)] // Tasks write disjoint parts of three gradients; the product takes pointers.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::plan::AttentionBlock;
use super::{KEYS, Operands, ROWS, Shared, Sizes};
use crate::flex::values;
use crate::matrix::{Matrix, Output, Threads, multiply_at};
use crate::simd;

/// What the gradients are computed from.
struct Inputs<'a> {
    operands: &'a Operands,
    sizes: Sizes,
    output: &'a [f32],
    log_sum_exp: &'a [f32],
    grad: &'a [f32],
}

/// What one thread works in; rows are queries and heads.
struct Scratch {
    /// Scaled queries, `[rows, head_dim]`
    q: Vec<f32>,
    /// Gradients of the output, `[rows, head_dim]`
    grad: Vec<f32>,
    /// Gradients of the scaled queries, `[rows, head_dim]`
    q_grad: Vec<f32>,
    /// `[rows, keys]`
    probabilities: Vec<f32>,
    /// `[rows, keys]`
    scores_grad: Vec<f32>,
    /// `sum output * grad` of each row
    delta: Vec<f32>,
    log_sum_exp: Vec<f32>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        let rows = ROWS.max(sizes.group);
        let [q, grad, q_grad] = [(); 3].map(|()| vec![0.0; rows * sizes.dim]);
        let [probabilities, scores_grad] = [(); 2].map(|()| vec![0.0; rows * KEYS]);
        Self { q, grad, q_grad, probabilities, scores_grad, delta: vec![0.0; rows], log_sum_exp: vec![0.0; rows] }
    }
}

/// Gradients of `q`, `k` and `v`, with `p` the softmax and `s = q k^T / sqrt(head_dim)`:
/// `dv = p^T g`, `ds = p (g v^T - sum(output g))`, `dq = ds k / sqrt(head_dim)`, `dk = ds^T q / sqrt(head_dim)`.
pub(super) fn run(operands: &Operands, output: &FlexTensor, log_sum_exp: &[f32], grad: &FlexTensor) -> [Vec<f32>; 3] {
    let (sizes, plan) = (operands.sizes(), &operands.plan);
    let inputs = Inputs { operands, sizes, output: values(output), log_sum_exp, grad: values(grad) };
    let mut q_grad = vec![0.0; plan.queries * sizes.heads * sizes.dim];
    let [mut k_grad, mut v_grad] = [(); 2].map(|()| vec![0.0; plan.keys * sizes.kv_heads * sizes.dim]);
    let shared = [&mut q_grad, &mut k_grad, &mut v_grad].map(|grad| Shared::new(grad));
    let groups = plan.independent();
    let tasks: Vec<(usize, usize)> =
        (0..groups.len()).flat_map(|group| (0..sizes.kv_heads).map(move |kv_head| (group, kv_head))).collect();
    // No two tasks share a key and a head, so that gradients of keys are added up without races.
    tasks.par_iter().for_each_init(
        || Scratch::new(sizes),
        |scratch, &(group, kv_head)| {
            for &run in &groups[group] {
                let (queries, step) = (plan.runs[run].queries.clone(), (ROWS / sizes.group).max(1));
                for start in queries.clone().step_by(step) {
                    let tile = start..queries.end.min(start + step);
                    pull_back(&inputs, run, &tile, kv_head, scratch, shared);
                }
            }
        },
    );
    [q_grad, k_grad, v_grad]
}

/// One tile of queries: adds to the gradients of its keys, writes that of its queries.
fn pull_back(
    inputs: &Inputs<'_>,
    run: usize,
    tile: &Range<usize>,
    kv_head: usize,
    scratch: &mut Scratch,
    shared: [Shared; 3],
) {
    let Sizes { heads, dim, group, scale, .. } = inputs.sizes;
    let rows =
        || tile.clone().flat_map(|query| (0..group).map(move |g| query * heads + kv_head * group + g)).enumerate();
    let q = values(&inputs.operands.q);
    for (row, at) in rows() {
        let (local, global) = (row * dim..(row + 1) * dim, at * dim..(at + 1) * dim);
        simd::scale_into(&mut scratch.q[local.clone()], &q[global.clone()], scale);
        scratch.grad[local].copy_from_slice(&inputs.grad[global.clone()]);
        scratch.delta[row] = simd::dot(&inputs.output[global.clone()], &inputs.grad[global]);
        scratch.log_sum_exp[row] = inputs.log_sum_exp[at];
    }
    scratch.q_grad[..tile.len() * group * dim].fill(0.0);
    for &block in &inputs.operands.plan.runs[run].blocks {
        let block = &inputs.operands.plan.blocks[block];
        let inside = block.queries.start.max(tile.start)..block.queries.end.min(tile.end);
        if inside.is_empty() {
            continue;
        }
        let seen = block.seen_by(inside.end - 1);
        for first in (0..seen).step_by(KEYS) {
            let keys = first..seen.min(first + KEYS);
            let rows = (inside.start - tile.start) * group..(inside.end - tile.start) * group;
            pull_back_block(inputs, block, (&inside, rows), keys, kv_head, scratch, [shared[1], shared[2]]);
        }
    }
    for (row, at) in rows() {
        // SAFETY: a query and a head belong to one tile.
        let out = unsafe { shared[0].part(at * dim..(at + 1) * dim) };
        simd::scale_into(out, &scratch.q_grad[row * dim..(row + 1) * dim], scale);
    }
}

/// Some keys of a block, which are counted from its first, and the rows of the scratch whose queries are in it.
fn pull_back_block(
    inputs: &Inputs<'_>,
    block: &AttentionBlock,
    (inside, rows): (&Range<usize>, Range<usize>),
    keys: Range<usize>,
    kv_head: usize,
    scratch: &mut Scratch,
    [k_grad, v_grad]: [Shared; 2],
) {
    let Sizes { kv_heads, dim, group, .. } = inputs.sizes;
    let (count, width, stride) = (rows.len(), keys.len(), kv_heads * dim);
    let start = (block.keys.start + keys.start) * stride + kv_head * dim;
    let operands = inputs.operands;
    let (k, v) =
        (Matrix::rows(&values(&operands.k)[start..], stride), Matrix::rows(&values(&operands.v)[start..], stride));
    let q = Matrix::rows(&scratch.q[rows.start * dim..rows.end * dim], dim);
    let grad = Matrix::rows(&scratch.grad[rows.start * dim..rows.end * dim], dim);
    let (p, ds) = (&mut scratch.probabilities[..count * width], &mut scratch.scores_grad[..count * width]);
    let (single, fresh, added) = (Threads::One, Output::Overwritten, Output::AddedTo);
    // SAFETY: both have `count` rows of `width`.
    unsafe {
        multiply_at([count, width, dim], q, k.transposed(), p.as_mut_ptr(), [width, 1], fresh, single);
        multiply_at([count, width, dim], grad, v.transposed(), ds.as_mut_ptr(), [width, 1], fresh, single);
    }
    for (i, (p, ds)) in p.chunks_exact_mut(width).zip(ds.chunks_exact_mut(width)).enumerate() {
        let visible = block.seen_by(inside.start + i / group).saturating_sub(keys.start).min(width);
        let ((p, hidden), (ds, hidden_grad)) = (p.split_at_mut(visible), ds.split_at_mut(visible));
        hidden.fill(0.0);
        hidden_grad.fill(0.0);
        simd::exp_sum(p, 1.0, scratch.log_sum_exp[rows.start + i]);
        simd::softmax_gradient(ds, p, scratch.delta[rows.start + i]);
    }
    let (p, ds) = (Matrix::rows(p, width), Matrix::rows(ds, width));
    let q_grad = &mut scratch.q_grad[rows.start * dim..rows.end * dim];
    // SAFETY: `width` keys from `start` on, `stride` apart, lie inside the gradients, whose shape is that of the keys; this
    // head of them is this task's alone. `q_grad` has `count` rows of `dim`.
    unsafe {
        multiply_at([width, dim, count], p.transposed(), grad, v_grad.at(start), [stride, 1], added, single);
        multiply_at([width, dim, count], ds.transposed(), q, k_grad.at(start), [stride, 1], added, single);
        multiply_at([count, dim, width], ds, k, q_grad.as_mut_ptr(), [dim, 1], added, single);
    }
}
