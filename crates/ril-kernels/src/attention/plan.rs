//! Which queries look at which keys.

use std::ops::Range;

/// Queries that look at a range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionBlock {
    /// Tokens that ask.
    pub queries: Range<usize>,
    /// Tokens that are looked at.
    pub keys: Range<usize>,
    /// Whether the ranges end together and no query sees past itself: the last query sees all keys, the one before it
    /// all but one. Without it, every query sees every key.
    pub is_causal: bool,
}

impl AttentionBlock {
    /// How many of the block's keys, from the first on, one of its queries sees.
    #[must_use]
    pub fn seen_by(&self, query: usize) -> usize {
        if !self.is_causal {
            return self.keys.len();
        }
        (self.keys.len() + query + 1).saturating_sub(self.queries.end)
    }
}

/// The blocks of one forward pass over packed tokens. A query sees the keys of all blocks that hold it, in one softmax;
/// a query in no block has output 0. A pair of query and key must not be in two blocks.
///
/// * rows one behind the other: a causal block each
/// * windows and frames of a picture: a block each, not causal
/// * rows with the same beginning: a causal block for the beginning, which stands once; one block of all continuations
///   over the beginning; a causal block for each continuation over itself
/// * new tokens behind a cache: the same, with keys numbered by their places in the cache
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttentionPlan {
    pub(crate) blocks: Vec<AttentionBlock>,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// Runs of queries that share blocks with no query outside, and the blocks of each.
    pub(crate) runs: Vec<Run>,
}

/// Adjacent queries, and the blocks that hold any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) queries: Range<usize>,
    pub(crate) blocks: Vec<usize>,
}

impl AttentionPlan {
    /// A plan for `queries` tokens that look at `keys` tokens. Empty blocks are left out. That no pair is in two blocks
    /// is not checked: such a key would count twice.
    ///
    /// # Panics
    /// If a block reaches outside of them, or a causal block has more queries than keys.
    #[must_use]
    pub fn new(blocks: Vec<AttentionBlock>, queries: usize, keys: usize) -> Self {
        let mut blocks = blocks;
        blocks.retain(|block| !block.queries.is_empty() && !block.keys.is_empty());
        for block in &blocks {
            let is_inside = block.queries.end <= queries && block.keys.end <= keys;
            assert!(is_inside, "attention: {block:?} reaches outside {queries} queries and {keys} keys");
            let is_aligned = !block.is_causal || block.queries.len() <= block.keys.len();
            assert!(is_aligned, "attention: {block:?} is causal with more queries than keys");
        }
        blocks.sort_by_key(|block| (block.queries.start, block.keys.start));
        let mut runs: Vec<Run> = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if block.queries.start < run.queries.end => {
                    run.queries.end = run.queries.end.max(block.queries.end);
                    run.blocks.push(index);
                }
                _ => runs.push(Run { queries: block.queries.clone(), blocks: vec![index] }),
            }
        }
        Self { blocks, queries, keys, runs }
    }

    /// Who looks at what, in order of the queries.
    #[must_use]
    pub fn blocks(&self) -> &[AttentionBlock] {
        &self.blocks
    }

    /// Rows of `lengths` tokens one behind the other, each causal over itself.
    #[must_use]
    pub fn causal_rows(lengths: &[usize]) -> Self {
        Self::rows(lengths, true)
    }

    /// Segments of `lengths` tokens one behind the other, each of which sees all of itself.
    #[must_use]
    pub fn segments(lengths: &[usize]) -> Self {
        Self::rows(lengths, false)
    }

    fn rows(lengths: &[usize], is_causal: bool) -> Self {
        let mut start = 0;
        let blocks = lengths.iter().map(|length| {
            let range = start..start + length;
            start = range.end;
            AttentionBlock { queries: range.clone(), keys: range, is_causal }
        });
        let blocks: Vec<_> = blocks.collect();
        Self::new(blocks, start, start)
    }

    /// Groups of runs that share keys, so that no two groups write the gradient of the same key.
    pub(crate) fn independent(&self) -> Vec<Vec<usize>> {
        let mut by_keys: Vec<(Range<usize>, usize)> = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            by_keys.extend(run.blocks.iter().map(|&block| (self.blocks[block].keys.clone(), index)));
        }
        by_keys.sort_by_key(|(keys, _)| keys.start);
        let mut group_of: Vec<usize> = (0..self.runs.len()).collect();
        let mut reach = 0;
        let mut last = None;
        for (keys, run) in by_keys {
            match last {
                Some(other) if keys.start < reach => join(&mut group_of, other, run),
                _ => {}
            }
            reach = reach.max(keys.end);
            last = Some(run);
        }
        let mut groups: Vec<Vec<usize>> = vec![Vec::new(); self.runs.len()];
        for run in 0..self.runs.len() {
            let group = root(&group_of, run);
            groups[group].push(run);
        }
        groups.retain(|group| !group.is_empty());
        groups
    }
}

fn root(group_of: &[usize], mut run: usize) -> usize {
    while group_of[run] != run {
        run = group_of[run];
    }
    run
}

fn join(group_of: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(group_of, a), root(group_of, b));
    group_of[a.max(b)] = a.min(b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block;

    #[test]
    fn runs_are_split_where_no_block_reaches_over() {
        let plan = AttentionPlan::causal_rows(&[3, 0, 2]);
        assert_eq!(plan.runs.iter().map(|run| run.queries.clone()).collect::<Vec<_>>(), [0..3, 3..5]);
        assert_eq!(plan.independent(), [vec![0], vec![1]]);
    }

    #[test]
    fn rows_behind_one_beginning_are_one_group() {
        let blocks = vec![
            block(0..4, 0..4, true),
            block(4..9, 0..4, false),
            block(4..6, 4..6, true),
            block(6..9, 6..9, true),
            block(9..12, 9..12, true),
        ];
        let plan = AttentionPlan::new(blocks, 12, 12);
        assert_eq!(plan.runs.iter().map(|run| run.queries.clone()).collect::<Vec<_>>(), [0..4, 4..9, 9..12]);
        assert_eq!(plan.independent(), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn a_causal_query_sees_up_to_itself() {
        let block = block(2..4, 10..15, true);
        assert_eq!([block.seen_by(2), block.seen_by(3)], [4, 5]);
    }

    #[test]
    #[should_panic(expected = "reaches outside")]
    fn a_block_outside_is_refused() {
        let _ = AttentionPlan::new(vec![block(0..2, 0..3, false)], 2, 2);
    }
}
