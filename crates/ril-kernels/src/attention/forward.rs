//! Output and log-sum-exp, tile by tile.
#![allow(unsafe_code)] // Tasks write disjoint parts of one output; the product takes pointers.

use std::ops::Range;

use rayon::prelude::*;

use super::plan::AttentionBlock;
use super::{KEYS, Operands, ROWS, Shared, Sizes};
use crate::flex::values;
use crate::matrix::{Matrix, Output, Threads, multiply_at};
use crate::simd;

/// Multiplications below which everything stays on the calling thread.
const PARALLEL_WORK: usize = 256 * 1024;

/// Some queries of a run and one key/value head.
#[derive(Debug, Clone)]
struct Tile {
    run: usize,
    queries: Range<usize>,
    kv_head: usize,
}

/// What one thread works in.
struct Scratch {
    /// Scaled queries, `[rows, head_dim]`; a row is a query and one of its heads.
    q: Vec<f32>,
    /// `[rows, keys]`
    scores: Vec<f32>,
    /// `[rows, head_dim]`
    mixed: Vec<f32>,
    largest: Vec<f32>,
    sums: Vec<f32>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        let rows = ROWS.max(sizes.group);
        Self {
            q: vec![0.0; rows * sizes.dim],
            scores: vec![0.0; rows * KEYS],
            mixed: vec![0.0; rows * sizes.dim],
            largest: vec![0.0; rows],
            sums: vec![0.0; rows],
        }
    }
}

pub(super) fn run(operands: &Operands) -> (Vec<f32>, Vec<f32>) {
    let (sizes, plan) = (operands.sizes(), &operands.plan);
    let mut output = vec![0.0; plan.queries * sizes.heads * sizes.dim];
    let mut log_sum_exp = vec![f32::NEG_INFINITY; plan.queries * sizes.heads];
    let (shared_output, shared_lse) = (Shared::new(&mut output), Shared::new(&mut log_sum_exp));
    let tiles = tiles(operands, sizes);
    let work = |scratch: &mut Scratch, tile: &Tile| {
        attend(operands, sizes, tile, scratch);
        for (row, query) in rows(tile, sizes) {
            let (query, head) = query;
            let sum = scratch.sums[row];
            let factor = if sum > 0.0 { 1.0 / sum } else { sum };
            let at = query * sizes.heads + head;
            // SAFETY: a query and a head belong to one tile.
            let (out, lse) =
                unsafe { (shared_output.part(at * sizes.dim..(at + 1) * sizes.dim), shared_lse.part(at..at + 1)) };
            simd::scale_into(out, &scratch.mixed[row * sizes.dim..(row + 1) * sizes.dim], factor);
            lse[0] = scratch.largest[row] + sum.ln();
        }
    };
    let pairs: usize = plan.blocks.iter().map(|block| block.queries.len() * block.keys.len()).sum();
    if pairs * sizes.heads * sizes.dim < PARALLEL_WORK {
        let mut scratch = Scratch::new(sizes);
        tiles.iter().for_each(|tile| work(&mut scratch, tile));
    } else {
        tiles.par_iter().for_each_init(|| Scratch::new(sizes), work);
    }
    (output, log_sum_exp)
}

/// The last queries of a run first: causal ones see the most keys.
fn tiles(operands: &Operands, sizes: Sizes) -> Vec<Tile> {
    let step = (ROWS / sizes.group).max(1);
    let mut tiles = Vec::new();
    for (run, of_run) in operands.plan.runs.iter().enumerate() {
        let starts: Vec<usize> = of_run.queries.clone().step_by(step).collect();
        for start in starts.into_iter().rev() {
            let queries = start..of_run.queries.end.min(start + step);
            tiles.extend((0..sizes.kv_heads).map(|kv_head| Tile { run, queries: queries.clone(), kv_head }));
        }
    }
    tiles
}

/// Each row of a tile with its query and head.
fn rows(tile: &Tile, sizes: Sizes) -> impl Iterator<Item = (usize, (usize, usize))> {
    let (queries, group, kv_head) = (tile.queries.clone(), sizes.group, tile.kv_head);
    queries.flat_map(move |query| (0..group).map(move |g| (query, kv_head * group + g))).enumerate()
}

/// Leaves unnormalised outputs, largest scores and sums in the scratch.
fn attend(operands: &Operands, sizes: Sizes, tile: &Tile, scratch: &mut Scratch) {
    let Sizes { heads, dim, group, .. } = sizes;
    let count = tile.queries.len() * group;
    let q = values(&operands.q);
    for (row, (query, head)) in rows(tile, sizes) {
        let at = (query * heads + head) * dim;
        simd::scale_into(&mut scratch.q[row * dim..(row + 1) * dim], &q[at..at + dim], sizes.scale);
    }
    scratch.largest[..count].fill(f32::NEG_INFINITY);
    scratch.sums[..count].fill(0.0);
    scratch.mixed[..count * dim].fill(0.0);
    for &block in &operands.plan.runs[tile.run].blocks {
        let block = &operands.plan.blocks[block];
        let inside = block.queries.start.max(tile.queries.start)..block.queries.end.min(tile.queries.end);
        if inside.is_empty() {
            continue;
        }
        let seen = block.seen_by(inside.end - 1);
        for first in (0..seen).step_by(KEYS) {
            let keys = first..seen.min(first + KEYS);
            attend_block(operands, sizes, tile, (block, &inside), keys, scratch);
        }
    }
}

/// Some keys of a block, which are counted from its first.
fn attend_block(
    operands: &Operands,
    sizes: Sizes,
    tile: &Tile,
    (block, inside): (&AttentionBlock, &Range<usize>),
    keys: Range<usize>,
    scratch: &mut Scratch,
) {
    let Sizes { kv_heads, dim, group, .. } = sizes;
    let (first_row, count, width) = ((inside.start - tile.queries.start) * group, inside.len() * group, keys.len());
    let stride = kv_heads * dim;
    let start = (block.keys.start + keys.start) * stride + tile.kv_head * dim;
    let (k, v) =
        (Matrix::rows(&values(&operands.k)[start..], stride), Matrix::rows(&values(&operands.v)[start..], stride));
    let q = Matrix::rows(&scratch.q[first_row * dim..], dim);
    let scores = &mut scratch.scores[..count * width];
    // SAFETY: `scores` has `count` rows of `width`.
    unsafe {
        let out = scores.as_mut_ptr();
        multiply_at([count, width, dim], q, k.transposed(), out, [width, 1], Output::Overwritten, Threads::One);
    }
    for (i, row) in scores.chunks_exact_mut(width).enumerate() {
        let visible = block.seen_by(inside.start + i / group).saturating_sub(keys.start).min(width);
        let (seen, hidden) = row.split_at_mut(visible);
        hidden.fill(0.0);
        if seen.is_empty() {
            continue;
        }
        let at = first_row + i;
        let (before, now) = (scratch.largest[at], scratch.largest[at].max(simd::maximum(seen)));
        let factor = if before == now { 1.0 } else { (before - now).exp() };
        scratch.sums[at] = scratch.sums[at] * factor + simd::exp_sum(seen, 1.0, now);
        scratch.largest[at] = now;
        if factor != 1.0 {
            simd::scale(&mut scratch.mixed[at * dim..(at + 1) * dim], factor);
        }
    }
    let weights = Matrix::rows(scores, width);
    let mixed = &mut scratch.mixed[first_row * dim..(first_row + count) * dim];
    // SAFETY: `mixed` has `count` rows of `dim`.
    unsafe {
        multiply_at([count, dim, width], weights, v, mixed.as_mut_ptr(), [dim, 1], Output::AddedTo, Threads::One);
    }
}
