//! The only place that builds attention masks.

use burn::tensor::{Device, Tensor, TensorData};

/// Added to a hidden score. Finite, so that a row that sees nothing (padding) gives finite numbers.
pub const HIDDEN: f32 = -1e30;

/// Causal mask combined with padding, as a bias on the scores: 0 where a query may look, [`HIDDEN`] elsewhere.
///
/// `key_mask` holds, per row, all keys (those of the cache first); the queries are the last `queries` of them.
///
/// # Shapes
/// Output `[rows, 1, queries, keys]`, or `[1, 1, queries, keys]` without padding, or `None` when every query may
/// see every key (one query, no padding).
#[must_use]
pub fn causal_bias(key_mask: &[&[bool]], queries: usize, device: &Device) -> Option<Tensor<4>> {
    let keys = key_mask.first().map_or(0, |row| row.len());
    let is_dense = key_mask.iter().all(|row| row.iter().all(|&m| m));
    if is_dense && queries == 1 {
        return None;
    }
    let rows = if is_dense { 1 } else { key_mask.len() };
    let past = keys - queries;
    let mut bias = vec![HIDDEN; rows * queries * keys];
    for (row, block) in bias.chunks_mut(queries * keys).enumerate() {
        for (query, line) in block.chunks_mut(keys).enumerate() {
            for (key, value) in line[..=past + query].iter_mut().enumerate() {
                if is_dense || key_mask[row][key] {
                    *value = 0.0;
                }
            }
        }
    }
    Some(Tensor::from_data(TensorData::new(bias, [rows, 1, queries, keys]), device))
}

/// Hides the padded tail of segments of different lengths: `[segments, 1, 1, longest]`, `None` when all are full.
#[must_use]
pub fn segment_bias(lengths: &[usize], longest: usize, device: &Device) -> Option<Tensor<4>> {
    if lengths.iter().all(|&l| l == longest) {
        return None;
    }
    let mut bias = vec![0.0; lengths.len() * longest];
    for (line, &length) in bias.chunks_mut(longest).zip(lengths) {
        line[length..].fill(HIDDEN);
    }
    Some(Tensor::from_data(TensorData::new(bias, [lengths.len(), 1, 1, longest]), device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_combined_with_causality() {
        let device = Device::flex();
        let bias = causal_bias(&[&[false, true, true], &[true, true, true]], 2, &device).unwrap();
        let seen: Vec<bool> = bias.into_data().try_to_vec::<f32>().unwrap().iter().map(|&b| b == 0.0).collect();
        assert_eq!(
            seen,
            [
                false, true, false, false, true, true, // row 0: key 0 is padding
                true, true, false, true, true, true,
            ]
        );
    }

    #[test]
    fn one_dense_query_needs_no_mask() {
        assert!(causal_bias(&[&[true; 5], &[true; 5]], 1, &Device::flex()).is_none());
        assert!(causal_bias(&[&[true; 5], &[false, true, true, true, true]], 1, &Device::flex()).is_some());
    }
}
