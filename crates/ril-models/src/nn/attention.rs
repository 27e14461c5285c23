//! Scaled dot-product attention with grouped heads.

use burn::tensor::{DType, Tensor, activation};

/// Bytes of scores that are held at once; more queries are attended in blocks.
const SCORE_BYTES: usize = 64 << 20;

/// `softmax(q k^T / sqrt(head_dim) + bias) v`; query head `h` reads key/value head `h / (heads / kv_heads)`.
///
/// The softmax runs in f32 whatever the type of the operands, as the references do.
///
/// A query sees the keys and no other query, so where the scores of all queries would take more than 64 MiB, they are
/// attended block by block. Without gradients the scores of one block are all that is held; with gradients the tape
/// keeps the weights of every block, `4 * rows * heads * queries * keys` bytes a layer, as without blocks. The bias is
/// always whole.
///
/// # Shapes
/// - `q`: `[rows, heads, queries, head_dim]`; `k`, `v`: `[rows, kv_heads, keys, head_dim]`
/// - `bias`: broadcastable to `[rows, 1, queries, keys]`
/// - output: `[rows, queries, heads * head_dim]`
#[must_use]
pub fn grouped_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<&Tensor<4>>) -> Tensor<3> {
    in_blocks(q, k, v, bias, SCORE_BYTES)
}

fn in_blocks(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<&Tensor<4>>, score_bytes: usize) -> Tensor<3> {
    let [rows, heads, queries, _] = q.dims();
    let a_query = 4 * rows * heads * k.dims()[2];
    let block = (score_bytes / a_query.max(1)).max(1);
    if block >= queries {
        return attend(q, k, v, bias);
    }
    let starts = (0..queries).step_by(block);
    let outputs = starts.map(|start| {
        let length = block.min(queries - start);
        let bias = bias.map(|bias| match bias.dims()[2] {
            1 => bias.clone(),
            _ => bias.clone().narrow(2, start, length),
        });
        attend(q.clone().narrow(2, start, length), k.clone(), v.clone(), bias.as_ref())
    });
    Tensor::cat(outputs.collect(), 1)
}

fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<&Tensor<4>>) -> Tensor<3> {
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::nn::mask::causal_bias;

    const ROWS: usize = 2;
    const HEADS: usize = 4;
    const QUERIES: usize = 11;
    const KEYS: usize = 13;

    /// Numbers between -2 and 2 without a pattern that blocks could follow.
    fn scattered(shape: [usize; 4], salt: f32, device: &Device) -> Tensor<4> {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|i: usize| 2.0 * (i as f32 * 0.71 + salt).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    /// Products of other sizes may round differently.
    fn assert_close(a: &[f32], b: &[f32]) {
        let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.len() == b.len() && difference < 2e-5, "{difference}");
    }

    #[test]
    fn blocks_of_queries_change_neither_output_nor_gradient() {
        let device = Device::flex().autodiff();
        let inner = device.clone().inner();
        let padded: Vec<bool> = (0..KEYS).map(|key| key > 2).collect();
        let causal = causal_bias(&[&padded, &[true; KEYS]], QUERIES, &inner);
        let of_keys = crate::nn::mask::segment_bias(&[KEYS, 7], KEYS, &inner);
        for bias in [None, causal, of_keys] {
            let q = scattered([ROWS, HEADS, QUERIES, 8], 0.1, &device).require_grad();
            let k = scattered([ROWS, 2, KEYS, 8], 1.2, &device).require_grad();
            let v = scattered([ROWS, 2, KEYS, 8], 2.3, &device).require_grad();
            let weight = scattered([ROWS, QUERIES, HEADS, 8], 3.4, &inner).reshape([ROWS, QUERIES, HEADS * 8]);
            let run = |score_bytes: usize| {
                let out = in_blocks(q.clone(), k.clone(), v.clone(), bias.as_ref(), score_bytes);
                let gradients = (out.clone() * weight.clone()).sum().backward();
                let of = |t: &Tensor<4>| values(t.grad(&gradients).expect("a gradient"));
                [values(out), of(&q), of(&k), of(&v)]
            };
            let whole = run(SCORE_BYTES);
            for block in [0, 1, 3, 10] {
                for (got, want) in run(block * 4 * ROWS * HEADS * KEYS).iter().zip(&whole) {
                    assert_close(got, want);
                }
            }
        }
    }
}
