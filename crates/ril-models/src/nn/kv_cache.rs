//! Keys and values of what was read before, owned by the caller of a model.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::ModelError;

/// Keys and values of every layer for a batch of rows, with the bookkeeping that decoding needs.
///
/// Buffers are allocated once for `capacity` tokens and written in place.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    mask: Vec<Vec<bool>>,
    next_position: Vec<usize>,
    capacity: usize,
    length: usize,
}

/// One layer's share: `[rows, kv_heads, capacity, head_dim]` each.
#[derive(Debug, Clone)]
struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KvCache {
    /// An empty cache; `shape` is `[rows, kv_heads, capacity, head_dim]`.
    #[must_use]
    pub fn new(layers: usize, shape: [usize; 4], device: &Device) -> Self {
        let layer = || LayerCache { keys: Tensor::zeros(shape, device), values: Tensor::zeros(shape, device) };
        Self {
            layers: (0..layers).map(|_| layer()).collect(),
            mask: vec![Vec::with_capacity(shape[2]); shape[0]],
            next_position: vec![0; shape[0]],
            capacity: shape[2],
            length: 0,
        }
    }

    /// Tokens held, padding included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// True before the first forward.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.mask.len()
    }

    /// Per row, which of the tokens held are real.
    #[must_use]
    pub fn mask(&self) -> &[Vec<bool>] {
        &self.mask
    }

    /// Per row, the rotary position of the next text token.
    #[must_use]
    pub fn next_position(&self) -> &[usize] {
        &self.next_position
    }

    /// Announces `seq` new tokens a row before the layers append theirs; `mask` is `[rows * seq]`.
    pub(crate) fn extend(&mut self, mask: &[bool], seq: usize, next_position: Vec<usize>) -> Result<(), ModelError> {
        let rows = self.rows();
        if mask.len() != rows * seq {
            return Err(ModelError::Input {
                what: "rows of a cached forward",
                expected: rows.to_string(),
                got: mask.len().checked_div(seq).unwrap_or(0).to_string(),
            });
        }
        if self.length + seq > self.capacity {
            return Err(ModelError::Input {
                what: "tokens in the key/value cache",
                expected: format!("at most {}", self.capacity),
                got: (self.length + seq).to_string(),
            });
        }
        for (held, new) in self.mask.iter_mut().zip(mask.chunks(seq)) {
            held.extend_from_slice(new);
        }
        self.next_position = next_position;
        self.length += seq;
        Ok(())
    }

    /// Appends one layer's new keys and values, `[rows, kv_heads, seq, head_dim]`, and returns all of them.
    pub(crate) fn append(&mut self, layer: usize, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let (seq, end) = (keys.dims()[2], self.length);
        let LayerCache { keys: k, values: v } = &mut self.layers[layer];
        k.inplace(|k| k.slice_assign([0..keys.dims()[0], 0..keys.dims()[1], end - seq..end], keys));
        v.inplace(|v| v.slice_assign([0..values.dims()[0], 0..values.dims()[1], end - seq..end], values));
        (k.clone().narrow(2, 0, end), v.clone().narrow(2, 0, end))
    }

    /// The rows `indices`, in that order; a row may be taken several times (the samples of one prompt) or not at
    /// all (finished).
    #[must_use]
    pub fn select_rows(&self, indices: &[usize]) -> Self {
        let device = match self.layers.first() {
            Some(layer) => layer.keys.device(),
            None => return self.clone(),
        };
        let ids: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [indices.len()]), &device);
        let pick = |t: &Tensor<4>| t.clone().select(0, ids.clone());
        Self {
            layers: self.layers.iter().map(|l| LayerCache { keys: pick(&l.keys), values: pick(&l.values) }).collect(),
            mask: indices.iter().map(|&i| self.mask[i].clone()).collect(),
            next_position: indices.iter().map(|&i| self.next_position[i]).collect(),
            capacity: self.capacity,
            length: self.length,
        }
    }
}
