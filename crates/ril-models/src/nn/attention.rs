//! Scaled dot-product attention with grouped heads.

use burn::tensor::{DType, Tensor, activation};

/// `softmax(q k^T / sqrt(head_dim) + bias) v`; query head `h` reads key/value head `h / (heads / kv_heads)`.
///
/// The softmax runs in f32 whatever the type of the operands, as the references do.
///
/// # Shapes
/// - `q`: `[rows, heads, queries, head_dim]`; `k`, `v`: `[rows, kv_heads, keys, head_dim]`
/// - `bias`: broadcastable to `[rows, 1, queries, keys]`
/// - output: `[rows, queries, heads * head_dim]`
#[must_use]
pub fn grouped_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<&Tensor<4>>) -> Tensor<3> {
    let [rows, heads, queries, dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let groups = heads / kv_heads;
    let q = q * (dim as f64).powf(-0.5);
    // The query heads of one group are stacked as more queries, so that keys are never repeated.
    let dtype = v.dtype();
    let scores = q.reshape([rows, kv_heads, groups * queries, dim]).matmul(k.swap_dims(2, 3));
    let scores = if dtype == DType::F32 { scores } else { scores.cast(DType::F32) };
    let weights = match bias {
        None => activation::softmax(scores, 3),
        Some(bias) => {
            let scores = scores.reshape([rows, heads, queries, keys]) + bias.clone();
            activation::softmax(scores, 3).reshape([rows, kv_heads, groups * queries, keys])
        }
    };
    let weights = if dtype == DType::F32 { weights } else { weights.cast(dtype) };
    let mixed = weights.matmul(v).reshape([rows, heads, queries, dim]);
    mixed.swap_dims(1, 2).reshape([rows, queries, heads * dim])
}
