//! Log-softmax over blocks of the vocabulary at one target per row, its entropy, and the gradient of both.

use std::ops::Range;

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, Scalar, TensorMetadata, get_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

/// The softmax of one block of logits, `[rows, width]`, whose first column is token `first` of the vocabulary.
/// `targets`: `[rows, 1]`.
pub(crate) fn block_sums<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    block: Block,
    wants_entropy: bool,
) -> SoftmaxSums<B> {
    let max = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits.clone(), max.clone());
    let exponentials = B::float_exp(shifted.clone());
    let weighted = wants_entropy.then(|| B::float_sum_dim(B::float_mul(exponentials.clone(), shifted), 1));
    let picked = if block.is_whole {
        B::float_gather(1, logits, targets)
    } else {
        let (column, elsewhere) = block.column::<B>(targets);
        B::float_mask_fill(B::float_gather(1, logits, column), elsewhere, Scalar::Float(0.0))
    };
    SoftmaxSums { max, sum: B::float_sum_dim(exponentials, 1), weighted, picked }
}

/// Gradient of a block of logits, `[rows, width]`: with `p = softmax(logits)` and `H` its entropy
/// `grad (one_hot(target) - p) - entropy_grad p (log p + H)`, exactly 0 in a row without any gradient.
pub(crate) fn block_backward<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    block: Block,
    rows: RowGradients<B>,
) -> FloatTensor<B> {
    let unused = rows.unused(logits.shape());
    let RowGradients { log_sum_exp, grad, entropy } = rows;
    let log_softmax = B::float_sub(logits, log_sum_exp);
    let softmax = B::float_exp(log_softmax.clone());
    let pull = match entropy {
        Some((entropy, entropy_grad)) => {
            let surprise = B::float_add(log_softmax, entropy);
            B::float_add(B::float_mul(surprise, entropy_grad), grad.clone())
        }
        None => grad.clone(),
    };
    let spread = B::float_mul(softmax, B::float_neg(pull));
    let (column, grad) = if block.is_whole {
        (targets, grad)
    } else {
        let (column, elsewhere) = block.column::<B>(targets);
        (column, B::float_mask_fill(grad, elsewhere, Scalar::Float(0.0)))
    };
    let full = B::float_scatter(1, spread, column, grad, IndexingUpdateOp::Add);
    B::float_mask_fill(full, unused, Scalar::Float(0.0))
}

/// Some columns of the vocabulary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// Id of the token of the first column.
    pub(crate) first: usize,
    pub(crate) width: usize,
    /// Whether these are all columns there are.
    pub(crate) is_whole: bool,
}

impl Block {
    /// `vocab` columns in blocks of at most `width`.
    pub(crate) fn split(vocab: usize, width: usize) -> impl Iterator<Item = Self> {
        let block = move |first| Self { first, width: width.min(vocab - first), is_whole: vocab <= width };
        (0..vocab).step_by(width).map(block)
    }

    pub(crate) fn columns(self) -> Range<usize> {
        self.first..self.first + self.width
    }

    /// Column of a token inside the block.
    pub(crate) fn column_of(self, token: usize) -> Option<usize> {
        self.columns().contains(&token).then(|| token - self.first)
    }

    /// Column of each target inside the block, and whether it is elsewhere (the column is any then).
    fn column<B: Backend>(self, targets: IntTensor<B>) -> (IntTensor<B>, BoolTensor<B>) {
        let dtype = get_device_settings::<B>(&targets.device()).bool_dtype;
        let column = B::int_sub_scalar(targets, Scalar::Int(self.first as i64));
        let is_before = B::int_lower_elem(column.clone(), Scalar::Int(0), dtype);
        let is_after = B::int_greater_equal_elem(column.clone(), Scalar::Int(self.width as i64), dtype);
        let elsewhere = B::bool_or(is_before, is_after);
        (B::int_mask_fill(column, elsewhere.clone(), Scalar::Int(0)), elsewhere)
    }
}

/// What is known of a softmax after some of its columns; each `[rows, 1]`.
#[derive(Debug)]
pub(crate) struct SoftmaxSums<B: Backend> {
    max: FloatTensor<B>,
    /// `sum exp(z)` with `z = logit - max`
    sum: FloatTensor<B>,
    /// `sum z exp(z)`, if the entropy is wanted
    weighted: Option<FloatTensor<B>>,
    /// Logit of the target, 0 before its block came.
    picked: FloatTensor<B>,
}

impl<B: Backend> SoftmaxSums<B> {
    /// The sums over the columns of both (online softmax, arXiv 1805.02867).
    pub(crate) fn merge(self, other: Self) -> Self {
        let is_other = {
            let dtype = get_device_settings::<B>(&self.max.device()).bool_dtype;
            B::float_greater(other.max.clone(), self.max.clone(), dtype)
        };
        let max = B::float_mask_where(self.max.clone(), is_other, other.max.clone());
        let (left, right) = (self.moved_to(&max), other.moved_to(&max));
        let weighted = left.weighted.zip(right.weighted).map(|(left, right)| B::float_add(left, right));
        let (sum, picked) = (B::float_add(left.sum, right.sum), B::float_add(left.picked, right.picked));
        Self { max, sum, weighted, picked }
    }

    /// The same sums with another `max`: `z` moves by `d = old - new`, so that `sum z exp(z)` becomes
    /// `exp(d) (sum z exp(z) + d sum exp(z))`.
    fn moved_to(self, max: &FloatTensor<B>) -> Self {
        let by = B::float_sub(self.max, max.clone());
        let factor = B::float_exp(by.clone());
        let weighted = self.weighted.map(|weighted| {
            let moved = B::float_add(weighted, B::float_mul(by, self.sum.clone()));
            B::float_mul(moved, factor.clone())
        });
        Self { max: max.clone(), sum: B::float_mul(self.sum, factor), weighted, picked: self.picked }
    }

    /// Log-probability of the target, log-sum-exp, and entropy `log sum - weighted / sum` if it was wanted.
    pub(crate) fn finish(self) -> SoftmaxRows<B> {
        let log_sum = B::float_log(self.sum.clone());
        let entropy = self.weighted.map(|weighted| B::float_sub(log_sum.clone(), B::float_div(weighted, self.sum)));
        let log_sum_exp = B::float_add(log_sum, self.max);
        SoftmaxRows { log_probs: B::float_sub(self.picked, log_sum_exp.clone()), log_sum_exp, entropy }
    }
}

/// What the forward pass knows of each row, each `[rows, 1]`.
#[derive(Debug, Clone)]
pub(crate) struct SoftmaxRows<B: Backend> {
    pub(crate) log_probs: FloatTensor<B>,
    pub(crate) log_sum_exp: FloatTensor<B>,
    pub(crate) entropy: Option<FloatTensor<B>>,
}

/// What the backward pass needs of each row, each `[rows, 1]`.
#[derive(Debug, Clone)]
pub(crate) struct RowGradients<B: Backend> {
    pub(crate) log_sum_exp: FloatTensor<B>,
    /// Gradient of the log-probability.
    pub(crate) grad: FloatTensor<B>,
    /// Entropy and its gradient.
    pub(crate) entropy: Option<(FloatTensor<B>, FloatTensor<B>)>,
}

impl<B: Backend> RowGradients<B> {
    /// Those of some rows.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Self {
        let cut = |tensor: &FloatTensor<B>| B::float_slice(tensor.clone(), &[rows.clone().into(), Slice::full()]);
        Self {
            log_sum_exp: cut(&self.log_sum_exp),
            grad: cut(&self.grad),
            entropy: self.entropy.as_ref().map(|(entropy, grad)| (cut(entropy), cut(grad))),
        }
    }

    /// True in the rows without any gradient, expanded to `shape`, `[rows, width]`.
    fn unused(&self, shape: Shape) -> BoolTensor<B> {
        let dtype = get_device_settings::<B>(&self.grad.device()).bool_dtype;
        let is_zero = |column: &FloatTensor<B>| B::float_equal_elem(column.clone(), Scalar::Float(0.0), dtype);
        let unused = match &self.entropy {
            Some((_, entropy_grad)) => B::bool_and(is_zero(&self.grad), is_zero(entropy_grad)),
            None => is_zero(&self.grad),
        };
        B::bool_expand(unused, shape)
    }

    /// `tensor`, `[rows, width]`, with 0 in the rows without any gradient: `0 * NaN` is NaN.
    pub(crate) fn blank_unused(&self, tensor: FloatTensor<B>) -> FloatTensor<B> {
        let unused = self.unused(tensor.shape());
        B::float_mask_fill(tensor, unused, Scalar::Float(0.0))
    }
}
