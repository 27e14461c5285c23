//! Rotary positions in the half-split convention of the Qwen and Llama families (arXiv 2104.09864).

use burn::tensor::{Device, Tensor, TensorData};

/// Cosine and sine of the angle of each position and dimension, `[rows, 1, seq, head_dim]`.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl RotaryTable {
    /// From angles `[rows * seq, head_dim / 2]` on the host; each serves dimension `i` and `i + head_dim / 2`.
    #[must_use]
    pub fn from_angles(angles: &[f32], rows: usize, seq: usize, device: &Device) -> Self {
        let half = angles.len().checked_div(rows * seq).unwrap_or(0);
        let table = |f: fn(f32) -> f32| {
            let mut values = Vec::with_capacity(angles.len() * 2);
            for line in angles.chunks(half.max(1)) {
                let start = values.len();
                values.extend(line.iter().map(|&a| f(a)));
                values.extend_from_within(start..);
            }
            Tensor::from_data(TensorData::new(values, [rows, 1, seq, half * 2]), device)
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// Rotates queries or keys: `x * cos + rotate_half(x) * sin`.
    ///
    /// # Shapes
    /// `[rows, heads, seq, head_dim]` to the same.
    #[must_use]
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        let half = x.dims()[3] / 2;
        let (a, b) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        let turned = Tensor::cat(vec![b.neg(), a], 3);
        x * self.cos.clone().cast(dtype) + turned * self.sin.clone().cast(dtype)
    }
}

/// `theta^(-2i / dim)` for `i` in `0..dim / 2`, in f32 as the references compute it.
#[must_use]
pub fn inverse_frequencies(theta: f64, dim: usize) -> Vec<f32> {
    (0..dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / dim as f32)).collect()
}
