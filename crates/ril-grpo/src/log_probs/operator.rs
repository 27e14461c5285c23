//! The differentiable operator: chunks of tokens through head and log-softmax, backward by recomputation.

use std::ops::Range;

use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Scalar, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType, Shape, Slice};

use super::softmax::{SoftmaxKernels, zero_rows};

/// The operator as the dispatcher sees it; the macro adds the match over run-time backends.
#[backend_extension(Autodiff, Flex, Cube: cfg(any(feature = "cuda", feature = "wgpu")))]
pub(crate) trait LogProbOps: Backend {
    /// `hidden`: `[tokens, hidden]`, `head_weight`: `[hidden, vocab]`, `targets`: `[tokens]`; output `[tokens]`, `f32`.
    fn head_log_probs(
        hidden: FloatTensor<Self>,
        head_weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        chunk_tokens: usize,
        inverse_temperature: f64,
    ) -> FloatTensor<Self>;
}

/// Inputs kept for the backward pass.
#[derive(Debug, Clone)]
struct Head<B: Backend> {
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    /// `[tokens, 1]`
    targets: IntTensor<B>,
    chunk_tokens: usize,
    inverse_temperature: f64,
}

impl<B: SoftmaxKernels> Head<B> {
    fn new(
        hidden: FloatTensor<B>,
        weight: FloatTensor<B>,
        targets: IntTensor<B>,
        chunk_tokens: usize,
        inverse_temperature: f64,
    ) -> Self {
        let tokens = hidden.shape()[0];
        let targets = B::int_reshape(targets, Shape::new([tokens, 1]));
        Self { hidden, weight, targets, chunk_tokens, inverse_temperature }
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<B> {
        let tokens = self.hidden.shape()[0];
        let step = self.chunk_tokens;
        (0..tokens).step_by(step).map(move |start| start..tokens.min(start + step))
    }

    fn hidden_rows(&self, rows: Range<usize>) -> FloatTensor<B> {
        B::float_slice(self.hidden.clone(), &[rows.into(), Slice::full()])
    }

    fn target_rows(&self, rows: Range<usize>) -> IntTensor<B> {
        B::int_slice(self.targets.clone(), &[rows.into(), Slice::full()])
    }

    /// `f32` logits of some tokens, `[rows, vocab]`, divided by the temperature.
    fn logits(&self, rows: Range<usize>) -> FloatTensor<B> {
        let product = B::float_matmul(self.hidden_rows(rows), self.weight.clone());
        let logits = B::float_cast(product, FloatDType::F32);
        scale::<B>(logits, self.inverse_temperature)
    }

    /// `(log_probs [tokens], log_sum_exp [tokens, 1])`
    fn forward(&self) -> (FloatTensor<B>, FloatTensor<B>) {
        let parts = self.chunks().map(|rows| B::target_log_probs(self.logits(rows.clone()), self.target_rows(rows)));
        let (log_probs, log_sum_exps): (Vec<_>, Vec<_>) = parts.unzip();
        let log_probs = B::float_cat(log_probs, 0);
        let tokens = self.hidden.shape()[0];
        let log_probs = B::float_reshape(log_probs, Shape::new([tokens]));
        (log_probs, B::float_cat(log_sum_exps, 0))
    }

    /// Gradients of `hidden` and `weight`, each only if wanted, in the type of its tensor. `grad`: `[tokens]`.
    fn backward(
        &self,
        log_sum_exp: FloatTensor<B>,
        grad: FloatTensor<B>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let tokens = self.hidden.shape()[0];
        let grad = B::float_reshape(grad, Shape::new([tokens, 1]));
        let transposed_weight = B::float_transpose(self.weight.clone());
        let mut hidden_grads = Vec::new();
        let mut weight_grad: Option<FloatTensor<B>> = None;
        for rows in self.chunks() {
            let cut = |t: &FloatTensor<B>| B::float_slice(t.clone(), &[rows.clone().into(), Slice::full()]);
            let chunk_grad = cut(&grad);
            let logits = self.logits(rows.clone());
            let targets = self.target_rows(rows.clone());
            let logits_grad = B::target_log_probs_backward(logits, targets, cut(&log_sum_exp), chunk_grad.clone());
            let logits_grad = scale::<B>(logits_grad, self.inverse_temperature);
            let logits_grad = B::float_cast(logits_grad, float_dtype(self.hidden.dtype()));
            if wanted[0] {
                hidden_grads.push(B::float_matmul(logits_grad.clone(), transposed_weight.clone()));
            }
            if wanted[1] {
                let part = self.weight_grad(rows.clone(), logits_grad, chunk_grad);
                weight_grad = Some(match weight_grad {
                    Some(sum) => B::float_add(sum, part),
                    None => part,
                });
            }
        }
        let hidden_grad = wanted[0].then(|| B::float_cat(hidden_grads, 0));
        let weight_dtype = float_dtype(self.weight.dtype());
        [hidden_grad, weight_grad.map(|sum| B::float_cast(sum, weight_dtype))]
    }

    /// `hidden^T @ logits_grad` of one chunk, `f32`. Rows without gradient are blanked: `0 * NaN` is NaN.
    fn weight_grad(&self, rows: Range<usize>, logits_grad: FloatTensor<B>, grad: FloatTensor<B>) -> FloatTensor<B> {
        let hidden = self.hidden_rows(rows);
        let unused = zero_rows::<B>(grad, hidden.shape());
        let hidden = B::float_mask_fill(hidden, unused, Scalar::Float(0.0));
        let product = B::float_matmul(B::float_transpose(hidden), logits_grad);
        B::float_cast(product, FloatDType::F32)
    }
}

fn scale<B: Backend>(tensor: FloatTensor<B>, factor: f64) -> FloatTensor<B> {
    if factor == 1.0 {
        return tensor;
    }
    B::float_mul_scalar(tensor, Scalar::Float(factor))
}

fn float_dtype(dtype: DType) -> FloatDType {
    FloatDType::from(dtype)
}

/// Every plain backend with kernels has the operator.
impl<B: SoftmaxKernels> LogProbOps for B {
    fn head_log_probs(
        hidden: FloatTensor<B>,
        head_weight: FloatTensor<B>,
        targets: IntTensor<B>,
        chunk_tokens: usize,
        inverse_temperature: f64,
    ) -> FloatTensor<B> {
        let head = Head::<B>::new(hidden, head_weight, targets, chunk_tokens, inverse_temperature);
        head.forward().0
    }
}

#[derive(Debug)]
struct HeadLogProbs;

impl<B: SoftmaxKernels> Backward<B, 2> for HeadLogProbs {
    type State = (Head<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (head, log_sum_exp) = ops.state;
        let parents: [Option<NodeId>; 2] = ops.parents.map(|parent| parent.map(|node| node.id));
        let wanted = parents.map(|parent| parent.is_some());
        let values = head.backward(log_sum_exp, grad, wanted);
        for (parent, value) in parents.into_iter().zip(values) {
            if let (Some(id), Some(value)) = (parent, value) {
                grads.register::<B>(id, value);
            }
        }
    }
}

impl<B: SoftmaxKernels, C: CheckpointStrategy> LogProbOps for Autodiff<B, C> {
    fn head_log_probs(
        hidden: FloatTensor<Self>,
        head_weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        chunk_tokens: usize,
        inverse_temperature: f64,
    ) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (weight, weight_node)) = (hidden.into_parts(), head_weight.into_parts());
        let head = Head::<B>::new(hidden, weight, targets, chunk_tokens, inverse_temperature);
        let (log_probs, log_sum_exp) = head.forward();
        let prepared = HeadLogProbs.prepare::<C>([hidden_node, weight_node]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish((head, log_sum_exp), log_probs),
            OpsKind::UnTracked(untracked) => untracked.finish(log_probs),
        }
    }
}
