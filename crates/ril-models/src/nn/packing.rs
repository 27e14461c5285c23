//! Real tokens of a batch, one behind the other, with every beginning that rows share standing once.

use ril_kernels::{AttentionBlock, AttentionPlan};

use crate::input::TokenBatch;

/// Beginnings shorter than this are computed for each row: they save less than the smaller products cost.
const SHARED_TOKENS: usize = 32;

/// Where the tokens of a batch stand in a row of packed tokens. What a causal model computes for a token depends on the
/// tokens before it alone, so that rows with the same beginning share its numbers, gradients included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    /// Index in `[rows * seq]` of each packed token.
    pub(crate) sources: Vec<usize>,
    /// Packed token of each index in `[rows * seq]`; padding shows some token of its row, or the first of all.
    pub(crate) places: Vec<usize>,
}

impl Packing {
    /// The real tokens row by row.
    #[must_use]
    pub fn rows(tokens: &TokenBatch) -> Self {
        let mut packing = Self::empty(tokens);
        for row in 0..tokens.rows() {
            for flat in real(tokens, row) {
                packing.places[flat] = packing.sources.len();
                packing.sources.push(flat);
            }
        }
        packing.fill_padding(tokens);
        packing
    }

    /// The real tokens, each shared beginning once, and which of them see which. Tokens are equal where `identity`,
    /// `[rows * seq]`, is.
    #[must_use]
    pub fn shared(tokens: &TokenBatch, identity: &[usize]) -> (Self, AttentionPlan) {
        let rows: Vec<Vec<usize>> = (0..tokens.rows()).map(|row| real(tokens, row).collect()).collect();
        let mut tree = Tree { identity, rows: &rows, packing: Self::empty(tokens), blocks: Vec::new() };
        tree.grow(&(0..rows.len()).collect::<Vec<_>>(), 0);
        let Tree { mut packing, blocks, .. } = tree;
        packing.fill_padding(tokens);
        let count = packing.sources.len();
        (packing, AttentionPlan::new(blocks, count, count))
    }

    fn empty(tokens: &TokenBatch) -> Self {
        Self { sources: Vec::new(), places: vec![0; tokens.ids().len()] }
    }

    fn fill_padding(&mut self, tokens: &TokenBatch) {
        let seq = tokens.seq();
        for row in 0..tokens.rows() {
            let any = real(tokens, row).next().map_or(0, |flat| self.places[flat]);
            for (column, &is_real) in tokens.row_mask(row).iter().enumerate() {
                if !is_real {
                    self.places[row * seq + column] = any;
                }
            }
        }
    }
}

fn real(tokens: &TokenBatch, row: usize) -> impl Iterator<Item = usize> {
    let start = row * tokens.seq();
    tokens.row_mask(row).iter().enumerate().filter(|(_, real)| **real).map(move |(column, _)| start + column)
}

/// A radix tree over the rows, written down as packed tokens: a node, then everything behind it.
struct Tree<'a> {
    identity: &'a [usize],
    /// Indices in `[rows * seq]` of the real tokens of each row.
    rows: &'a [Vec<usize>],
    packing: Packing,
    blocks: Vec<AttentionBlock>,
}

impl Tree<'_> {
    /// Packs what `rows`, which agree in their first `from` tokens, hold behind them.
    fn grow(&mut self, rows: &[usize], from: usize) {
        let mut left: Vec<usize> = rows.to_vec();
        while let Some(&first) = left.first() {
            let shared: Vec<usize> = left.iter().map(|&row| self.common(first, row, from)).collect();
            let is_member = |i: usize| i == 0 || shared[i] >= SHARED_TOKENS;
            let members: Vec<usize> = (0..left.len()).filter(|&i| is_member(i)).map(|i| left[i]).collect();
            let length = (0..left.len()).filter(|&i| is_member(i)).map(|i| shared[i]).min().unwrap_or(0);
            left = (0..left.len()).filter(|&i| !is_member(i)).map(|i| left[i]).collect();
            let start = self.packing.sources.len();
            let tokens = from..from + length;
            self.packing.sources.extend_from_slice(&self.rows[first][tokens.clone()]);
            for &member in &members {
                for (offset, &flat) in self.rows[member][tokens.clone()].iter().enumerate() {
                    self.packing.places[flat] = start + offset;
                }
            }
            let keys = start..start + length;
            self.blocks.push(AttentionBlock { queries: keys.clone(), keys: keys.clone(), is_causal: true });
            if members.len() > 1 {
                self.grow(&members, tokens.end);
                let queries = keys.end..self.packing.sources.len();
                self.blocks.push(AttentionBlock { queries, keys, is_causal: false });
            }
        }
    }

    /// How many tokens of two rows agree from `from` on.
    fn common(&self, a: usize, b: usize, from: usize) -> usize {
        let tokens = self.rows[a][from..].iter().zip(&self.rows[b][from..]);
        tokens.take_while(|(a, b)| self.identity[**a] == self.identity[**b]).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::input::Padding;

    fn packed(rows: &[Vec<u32>], padding: Padding) -> (TokenBatch, Packing, AttentionPlan) {
        let tokens = TokenBatch::padded(rows, 0, padding);
        let identity: Vec<usize> = tokens.ids().iter().map(|&id| id as usize).collect();
        let (packing, plan) = Packing::shared(&tokens, &identity);
        (tokens, packing, plan)
    }

    #[test]
    fn samples_of_one_prompt_share_it() {
        let prompt: Vec<u32> = (0..40).collect();
        let row = |answer: &[u32]| [prompt.as_slice(), answer].concat();
        let (_, packing, _) = packed(&[row(&[1, 2]), row(&[3]), (50..60).collect(), row(&[1, 4, 5])], Padding::Right);
        assert_eq!(packing.sources.len(), 40 + 2 + 1 + 3 + 10, "the short beginning of two answers is not shared");
    }

    #[test]
    fn equal_rows_stand_once() {
        let row: Vec<u32> = (0..50).collect();
        assert_eq!(packed(&[row.clone(), row], Padding::Left).1.sources.len(), 50);
    }

    /// Rows out of pieces, so that beginnings are often shared, at several depths.
    fn rows() -> impl Strategy<Value = Vec<Vec<u32>>> {
        let pieces = prop::collection::vec((0u32..3, prop::sample::select(vec![1usize, 31, 32, 40])), 0..4);
        let row = pieces.prop_map(|pieces| {
            pieces.into_iter().flat_map(|(piece, length)| (0..length as u32).map(move |i| piece * 100 + i)).collect()
        });
        prop::collection::vec(row, 1..7)
    }

    proptest! {
        /// Each token stands somewhere with its own id, and sees exactly the tokens of its row up to itself.
        #[test]
        fn every_token_sees_its_row(rows in rows(), is_left in any::<bool>()) {
            let (tokens, packing, plan) = packed(&rows, if is_left { Padding::Left } else { Padding::Right });
            let ids = |packed: usize| tokens.ids()[packing.sources[packed]];
            let seen = |query: usize| -> Vec<usize> {
                let blocks = plan.blocks().iter().filter(|block| block.queries.contains(&query));
                let mut keys: Vec<usize> = blocks.flat_map(|block| block.keys.clone().take(block.seen_by(query))).collect();
                keys.sort_unstable();
                keys
            };
            for (row, ids_of_row) in rows.iter().enumerate() {
                let places: Vec<usize> = real(&tokens, row).map(|flat| packing.places[flat]).collect();
                prop_assert_eq!(places.len(), ids_of_row.len());
                for (at, &place) in places.iter().enumerate() {
                    prop_assert_eq!(ids(place), ids_of_row[at]);
                    prop_assert_eq!(seen(place), places[..=at].to_vec());
                }
            }
        }
    }
}
