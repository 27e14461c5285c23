//! Frequencies of rotary positions (arXiv 2104.09864).

/// `theta^(-2i / dim)` for `i` in `0..dim / 2`, in f32 as the references compute it.
#[must_use]
pub fn inverse_frequencies(theta: f64, dim: usize) -> Vec<f32> {
    (0..dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / dim as f32)).collect()
}
