//! Log-softmax of one chunk of logits at one target per row, and its gradient.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape};

/// Backends that can run the operator; the default bodies are plain primitives.
pub(crate) trait SoftmaxKernels: Backend {
    /// `(log softmax(logits)[target], logsumexp(logits))`, both `[rows, 1]`; `targets`: `[rows, 1]`.
    fn target_log_probs(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let max = Self::float_max_dim(logits.clone(), 1);
        let shifted = Self::float_exp(Self::float_sub(logits.clone(), max.clone()));
        let log_sum_exp = Self::float_add(Self::float_log(Self::float_sum_dim(shifted, 1)), max);
        let picked = Self::float_gather(1, logits, targets);
        (Self::float_sub(picked, log_sum_exp.clone()), log_sum_exp)
    }

    /// `grad * (one_hot(target) - softmax(logits))`, `[rows, vocab]`, exactly 0 in a row whose `grad` is 0.
    fn target_log_probs_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sum_exp: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let shape = logits.shape();
        let unused = zero_rows::<Self>(grad.clone(), shape);
        let softmax = Self::float_exp(Self::float_sub(logits, log_sum_exp));
        let spread = Self::float_mul(softmax, Self::float_neg(grad.clone()));
        let full = Self::float_scatter(1, spread, targets, grad, IndexingUpdateOp::Add);
        Self::float_mask_fill(full, unused, Scalar::Float(0.0))
    }
}

/// True in the rows where `column`, `[rows, 1]`, is 0; expanded to `shape`, `[rows, width]`.
pub(crate) fn zero_rows<B: Backend>(column: FloatTensor<B>, shape: Shape) -> burn::backend::tensor::BoolTensor<B> {
    let device = column.device();
    let dtype = burn::backend::get_device_settings::<B>(&device).bool_dtype;
    B::bool_expand(B::float_equal_elem(column, Scalar::Float(0.0), dtype), shape)
}

impl SoftmaxKernels for burn::backend::Flex {}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
impl SoftmaxKernels for burn::backend::Cube {}
