//! Keys and values of what was read before, owned by the caller of a model.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use ril_kernels::{AttentionBlock, AttentionPlan, write_rows};

use crate::error::ModelError;

/// Keys and values of every layer for a batch of rows, with the bookkeeping that decoding needs.
///
/// Real tokens alone have slots; rows that continue one prompt share its slots ([`KvCache::select_rows`]), and a row that
/// leaves the batch is forgotten without a copy. Buffers are written in place.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    rows: Vec<CachedRow>,
    /// Slots of the tokens that were announced last, row by row.
    places: Arc<Vec<usize>>,
    slots: usize,
    capacity: usize,
    length: usize,
}

/// One layer's share: `[slots, kv_heads, head_dim]` each.
#[derive(Debug, Clone)]
struct LayerCache {
    keys: Tensor<3>,
    values: Tensor<3>,
}

/// Where the tokens of a row are.
#[derive(Debug, Clone)]
struct CachedRow {
    /// Slots that other rows may read too, oldest first.
    shared: Vec<Range<usize>>,
    /// Slots behind them that are this row's alone.
    own: Range<usize>,
    /// End of the slots that `own` may grow into.
    end: usize,
    next_position: usize,
}

impl KvCache {
    /// An empty cache of `rows` rows of at most `capacity` tokens, padding included; `head` is `[kv_heads, head_dim]`.
    #[must_use]
    pub fn new(layers: usize, rows: usize, capacity: usize, head: [usize; 2], device: &Device) -> Self {
        let slots = rows * capacity;
        let buffer = || Tensor::zeros([slots, head[0], head[1]], device);
        let row = |row: usize| {
            let start = row * capacity;
            CachedRow { shared: Vec::new(), own: start..start, end: start + capacity, next_position: 0 }
        };
        Self {
            layers: (0..layers).map(|_| LayerCache { keys: buffer(), values: buffer() }).collect(),
            rows: (0..rows).map(row).collect(),
            places: Arc::default(),
            slots,
            capacity,
            length: 0,
        }
    }

    /// Tokens held by a row, padding included.
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
        self.rows.len()
    }

    /// Per row, the rotary position of the next text token.
    #[must_use]
    pub fn next_position(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.next_position).collect()
    }

    /// Announces `seq` new tokens a row before the layers append theirs; `mask` is `[rows * seq]`. The plan is for the
    /// real ones, row by row, over the keys that [`Self::append`] returns.
    pub(crate) fn extend(
        &mut self,
        mask: &[bool],
        seq: usize,
        next_position: &[usize],
    ) -> Result<AttentionPlan, ModelError> {
        if mask.len() != self.rows.len() * seq {
            return Err(ModelError::Input {
                what: "rows of a cached forward",
                expected: self.rows.len().to_string(),
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
        let mut places = Vec::new();
        let mut queries = Vec::with_capacity(self.rows.len());
        for ((row, new), &next) in self.rows.iter_mut().zip(mask.chunks(seq)).zip(next_position) {
            let count = new.iter().filter(|&&real| real).count();
            queries.push(places.len()..places.len() + count);
            places.extend(row.own.end..row.own.end + count);
            row.own.end += count;
            debug_assert!(row.own.end <= row.end);
            row.next_position = next;
        }
        let plan = AttentionPlan::new(self.blocks(&queries), places.len(), self.slots);
        self.length += seq;
        self.places = Arc::new(places);
        Ok(plan)
    }

    /// Adjacent rows that share slots look at them together, and each row at its own.
    fn blocks(&self, queries: &[Range<usize>]) -> Vec<AttentionBlock> {
        let mut blocks = Vec::new();
        let depth = self.rows.iter().map(|row| row.shared.len()).max().unwrap_or(0);
        for level in 0..depth {
            let path = |row: usize| self.rows[row].shared.get(..=level);
            let mut first = 0;
            while first < self.rows.len() {
                let more = (first + 1..self.rows.len()).take_while(|&row| path(row) == path(first)).count();
                if let Some(keys) = path(first).and_then(<[_]>::last) {
                    let queries = queries[first].start..queries[first + more].end;
                    blocks.push(AttentionBlock { queries, keys: keys.clone(), is_causal: false });
                }
                first += more + 1;
            }
        }
        let own = self.rows.iter().zip(queries);
        blocks.extend(own.map(|(row, queries)| AttentionBlock {
            queries: queries.clone(),
            keys: row.own.clone(),
            is_causal: true,
        }));
        blocks
    }

    /// Appends one layer's new keys and values, `[tokens, kv_heads, head_dim]`, and returns all slots.
    pub(crate) fn append(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let LayerCache { keys: k, values: v } = &mut self.layers[layer];
        k.inplace(|k| write_rows(k, keys, &self.places));
        v.inplace(|v| write_rows(v, values, &self.places));
        (k.clone(), v.clone())
    }

    /// The rows `indices`, in that order; a row may be taken several times (the samples of one prompt, which then share
    /// its slots) or not at all (finished).
    ///
    /// Meant for one fan-out: rows taken several times get new slots for what follows, and slots of rows that are not
    /// taken are not given back.
    #[must_use]
    pub fn select_rows(&self, indices: &[usize]) -> Self {
        let mut taken = vec![0usize; self.rows.len()];
        indices.iter().for_each(|&row| taken[row] += 1);
        let room = self.capacity - self.length;
        let mut slots = self.slots;
        let mut has_room = vec![true; self.rows.len()];
        let rows = indices.iter().map(|&index| {
            let mut row = self.rows[index].clone();
            if taken[index] == 1 {
                return row;
            }
            if !row.own.is_empty() {
                row.shared.push(row.own.clone());
            }
            let start = if std::mem::take(&mut has_room[index]) { row.own.end } else { slots };
            if start == slots {
                slots += room;
            }
            row.own = start..start;
            row.end = start + room;
            row
        });
        let rows: Vec<CachedRow> = rows.collect();
        let mut layers = self.layers.clone();
        if slots > self.slots {
            let grow = |buffer: &mut Tensor<3>| {
                let [_, heads, dim] = buffer.dims();
                let more = Tensor::<3>::zeros([slots - self.slots, heads, dim], &buffer.device()).cast(buffer.dtype());
                buffer.inplace(|buffer| Tensor::cat(vec![buffer, more], 0));
            };
            for LayerCache { keys, values } in &mut layers {
                grow(keys);
                grow(values);
            }
        }
        Self { layers, rows, places: Arc::default(), slots, capacity: self.capacity, length: self.length }
    }
}
