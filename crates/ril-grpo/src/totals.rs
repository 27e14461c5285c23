//! What the losses of every micro-batch divide by.

/// Sizes of the *whole* batch that every micro-batch divides by.
///
/// Add the totals of several batches (other devices, other sequence widths) to let their losses add up too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossTotals {
    /// Number of rows, rows without trained tokens included.
    pub sequences: usize,
    /// Number of trained tokens.
    pub tokens: usize,
    /// Number of tokens that the entropy bonus acts on: all trained ones, unless
    /// [`with_top_entropy_tokens`](crate::PolicyBatch::with_top_entropy_tokens) chose some.
    pub entropy_tokens: usize,
    /// Number of trained tokens of teacher rows, which the SFT term divides by; 0 until
    /// [`with_rows`](crate::PolicyBatch::with_rows).
    pub sft_tokens: usize,
}

impl LossTotals {
    /// Totals of a batch without teacher rows.
    pub fn new(sequences: usize, tokens: usize) -> Self {
        Self { sequences, tokens, entropy_tokens: tokens, sft_tokens: 0 }
    }

    /// Totals of a host-side mask, row-major `[sequences, seq]`, true = trained token.
    pub fn from_mask(completion_mask: &[bool], sequences: usize) -> Self {
        let tokens = completion_mask.iter().filter(|&&trained| trained).count();
        Self::new(sequences, tokens)
    }
}

impl std::ops::Add for LossTotals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sequences: self.sequences + other.sequences,
            tokens: self.tokens + other.tokens,
            entropy_tokens: self.entropy_tokens + other.entropy_tokens,
            sft_tokens: self.sft_tokens + other.sft_tokens,
        }
    }
}
