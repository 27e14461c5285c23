//! The differentiable operator around [`Head`]: what the dispatcher and the tape see.

use burn::backend::Backend;
use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::backend_extension;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Slice;

use super::head::{Head, HeadKernels, HeadSettings};
use super::softmax::{RowGradients, SoftmaxRows};

/// The operator as the dispatcher sees it; the macro adds the match over run-time backends.
#[backend_extension(Autodiff, Flex, Cube: cfg(any(feature = "cuda", feature = "wgpu")))]
pub(crate) trait HeadOps: Backend {
    /// `hidden`: `[tokens, hidden]`, `head_weight`: `[hidden, vocab]`, `targets`: `[tokens]`. Output, `f32`: `[tokens, 1]`,
    /// the log-probability of each target, or `[tokens, 2]` with the entropy behind it.
    fn head_scores(
        hidden: FloatTensor<Self>,
        head_weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> FloatTensor<Self>;
}

/// One tensor with a column for each result.
fn columns<B: Backend>(rows: &SoftmaxRows<B>) -> FloatTensor<B> {
    match &rows.entropy {
        Some(entropy) => B::float_cat(vec![rows.log_probs.clone(), entropy.clone()], 1),
        None => rows.log_probs.clone(),
    }
}

/// Every plain backend with kernels has the operator.
impl<B: HeadKernels> HeadOps for B {
    fn head_scores(
        hidden: FloatTensor<B>,
        head_weight: FloatTensor<B>,
        targets: IntTensor<B>,
        settings: HeadSettings,
    ) -> FloatTensor<B> {
        columns(&B::forward(&Head::new(hidden, head_weight, targets, settings)))
    }
}

#[derive(Debug)]
struct HeadScores;

impl<B: HeadKernels> Backward<B, 2> for HeadScores {
    type State = (Head<B>, SoftmaxRows<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (head, rows) = ops.state;
        let column = |at: usize| B::float_slice(grad.clone(), &[Slice::full(), (at..at + 1).into()]);
        let rows = RowGradients {
            log_sum_exp: rows.log_sum_exp,
            grad: column(0),
            entropy: rows.entropy.map(|entropy| (entropy, column(1))),
        };
        let parents: [Option<NodeId>; 2] = ops.parents.map(|parent| parent.map(|node| node.id));
        let wanted = parents.map(|parent| parent.is_some());
        let values = B::backward(&head, &rows, wanted);
        for (parent, value) in parents.into_iter().zip(values) {
            if let (Some(id), Some(value)) = (parent, value) {
                grads.register::<B>(id, value);
            }
        }
    }
}

impl<B: HeadKernels, C: CheckpointStrategy> HeadOps for Autodiff<B, C> {
    fn head_scores(
        hidden: FloatTensor<Self>,
        head_weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (weight, weight_node)) = (hidden.into_parts(), head_weight.into_parts());
        let head = Head::<B>::new(hidden, weight, targets, settings);
        let rows = B::forward(&head);
        let scores = columns(&rows);
        let prepared = HeadScores.prepare::<C>([hidden_node, weight_node]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish((head, rows), scores),
            OpsKind::UnTracked(untracked) => untracked.finish(scores),
        }
    }
}
