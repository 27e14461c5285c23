//! The same attention as plain tensor operations: gathered into padded rows.

use std::ops::Range;

use burn::tensor::{DType, Tensor, TensorData, activation};

use super::plan::AttentionPlan;
use crate::write_rows::index;

/// Added to a hidden score. Finite, so that a padded row gives finite numbers.
const HIDDEN: f32 = -1e30;

/// Adjacent queries that are in the same blocks.
struct Span {
    queries: Range<usize>,
    blocks: Vec<usize>,
}

pub(super) fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, plan: &AttentionPlan) -> Tensor<2> {
    let ([queries, heads, dim], [_, kv_heads, _]) = (q.dims(), k.dims());
    let (device, dtype) = (q.device(), v.dtype());
    let spans = spans(plan);
    let longest = |length: fn(&AttentionPlan, &Span) -> usize| spans.iter().map(|s| length(plan, s)).max().unwrap_or(0);
    let (most_queries, most_keys) = (longest(|_, span| span.queries.len()), longest(span_keys));
    if most_queries == 0 {
        return Tensor::<2>::zeros([queries, heads * dim], &device).cast(dtype);
    }
    let (query_ids, key_ids, bias, places) = padded(plan, &spans, [most_queries, most_keys]);
    let rows = spans.len();
    let gather = |x: Tensor<3>, ids: Vec<i64>, length: usize| {
        let [_, heads, _] = x.dims();
        x.select(0, index(ids, &device)).reshape([rows, length, heads, dim]).swap_dims(1, 2)
    };
    let group = heads / kv_heads;
    let q = gather(q, query_ids, most_queries) * (dim as f64).powf(-0.5);
    let (k, v) = (gather(k, key_ids.clone(), most_keys), gather(v, key_ids, most_keys));
    // The query heads of one group are stacked as more queries, so that keys are never repeated.
    let scores = q.reshape([rows, kv_heads, group * most_queries, dim]).matmul(k.swap_dims(2, 3)).cast(DType::F32);
    let bias = Tensor::<4>::from_data(TensorData::new(bias, [rows, 1, most_queries, most_keys]), &device.inner());
    let scores = scores.reshape([rows, heads, most_queries, most_keys]) + bias;
    let weights = activation::softmax(scores, 3).reshape([rows, kv_heads, group * most_queries, most_keys]).cast(dtype);
    let mixed = weights.matmul(v).reshape([rows, heads, most_queries, dim]);
    let mixed = mixed.swap_dims(1, 2).reshape([rows * most_queries, heads * dim]);
    let device = mixed.device();
    // One row of zeros for the queries that are in no block.
    let zeros = Tensor::<2>::zeros([1, heads * dim], &device.clone().inner()).cast(dtype);
    let mixed = Tensor::cat(vec![mixed, zeros], 0);
    mixed.select(0, index(places, &device))
}

fn spans(plan: &AttentionPlan) -> Vec<Span> {
    let mut edges: Vec<usize> = plan.blocks.iter().flat_map(|b| [b.queries.start, b.queries.end]).collect();
    edges.sort_unstable();
    edges.dedup();
    let span = |edge: &[usize]| {
        let holds = |&block: &usize| plan.blocks[block].queries.contains(&edge[0]);
        Span { queries: edge[0]..edge[1], blocks: (0..plan.blocks.len()).filter(holds).collect() }
    };
    edges.windows(2).map(span).filter(|span| !span.blocks.is_empty()).collect()
}

fn span_keys(plan: &AttentionPlan, span: &Span) -> usize {
    span.blocks.iter().map(|&block| plan.blocks[block].keys.len()).sum()
}

/// Query and key of each padded slot, the bias on each score, and where each query's output stands (behind all slots
/// for a query in no block).
fn padded(
    plan: &AttentionPlan,
    spans: &[Span],
    [most_queries, most_keys]: [usize; 2],
) -> (Vec<i64>, Vec<i64>, Vec<f32>, Vec<i64>) {
    let (mut query_ids, mut key_ids) = (Vec::new(), Vec::new());
    let mut bias = vec![HIDDEN; spans.len() * most_queries * most_keys];
    let mut places = vec![(spans.len() * most_queries) as i64; plan.queries];
    for (row, span) in spans.iter().enumerate() {
        query_ids.extend((0..most_queries).map(|i| (span.queries.start + i).min(span.queries.end - 1) as i64));
        let mut column = 0;
        for &block in &span.blocks {
            let block = &plan.blocks[block];
            key_ids.extend(block.keys.clone().map(|key| key as i64));
            for (i, query) in span.queries.clone().enumerate() {
                let start = (row * most_queries + i) * most_keys + column;
                bias[start..start + block.seen_by(query)].fill(0.0);
            }
            column += block.keys.len();
        }
        key_ids.extend(std::iter::repeat_n(0, most_keys - column));
        for (i, query) in span.queries.clone().enumerate() {
            places[query] = (row * most_queries + i) as i64;
        }
    }
    (query_ids, key_ids, bias, places)
}
