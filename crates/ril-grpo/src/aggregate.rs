//! From token losses to one number, as per-row weights, so that micro-batches add up.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::LossTotals;

/// How the losses of the trained tokens become one number.
///
/// Every variant divides by totals of the *whole* batch ([`LossTotals`]), so that the losses of micro-batches, and
/// their gradients, add up to those of the batch. A row without trained tokens adds 0 (and still counts as a row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LossAggregation {
    /// Sum over all tokens divided by the number of trained tokens of the batch. Long completions weigh more.
    /// Alias: DAPO (arXiv 2503.14476, Equation 8, which divides inside each group), BNPO in TRL.
    TokenMean,
    /// Mean over the tokens of a row, then over rows: each completion weighs the same.
    /// Alias: GRPO (arXiv 2402.03300, Equation 3).
    SeqMeanTokenMean,
    /// Sum over the tokens of a row, then mean over rows. With a sequence ratio this is LUSPO: a loss that weighs a
    /// sequence by its length. Alias: LUSPO (arXiv 2602.05261), `seq-mean-token-sum` in verl.
    SeqMeanTokenSum,
    /// Sum over all tokens divided by `rows * max_completion_len`: no dependence on the length drawn.
    /// Alias: Dr.GRPO (arXiv 2503.20783).
    TokenSumOverBudget {
        /// Constant budget of tokens per row, at least 1; usually the sampler's length limit.
        max_completion_len: usize,
    },
}

/// Contribution of each row to the loss, `[batch]`, from its sum over trained tokens and their number, both `[batch]`.
pub(crate) fn row_contributions(
    row_sums: Tensor<1>,
    row_tokens: Tensor<1>,
    totals: LossTotals,
    aggregation: LossAggregation,
) -> Tensor<1> {
    let rows = totals.sequences.max(1) as f64;
    match aggregation {
        LossAggregation::TokenMean => row_sums / totals.tokens.max(1) as f64,
        LossAggregation::SeqMeanTokenMean => row_sums / row_tokens.clamp_min(1.0) / rows,
        LossAggregation::SeqMeanTokenSum => row_sums / rows,
        LossAggregation::TokenSumOverBudget { max_completion_len } => row_sums / (rows * max_completion_len as f64),
    }
}
