//! Records hand-written backward passes.

use burn::backend::Flex;
use burn::backend::autodiff::{
    Autodiff,
    checkpoint::strategy::CheckpointStrategy,
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;

/// Puts `output` on the tape if a parent is tracked. The state holds its tensors directly, so that the backward pass
/// may reuse a buffer that nothing else holds.
pub(crate) fn record<C: CheckpointStrategy, O: Backward<Flex, N>, const N: usize>(
    operator: O,
    parents: [NodeGuard; N],
    output: FloatTensor<Flex>,
    state: O::State,
) -> FloatTensor<Autodiff<Flex, C>> {
    match operator.prepare::<C>(parents).compute_bound().stateful() {
        OpsKind::Tracked(tracked) => tracked.finish(state, output),
        OpsKind::UnTracked(untracked) => untracked.finish(output),
    }
}

/// Which parents want a gradient.
pub(crate) fn wanted<S, const N: usize>(ops: &Ops<S, N>) -> [bool; N] {
    std::array::from_fn(|i| ops.parents[i].is_some())
}

/// Hands gradients to the parents that want one; the others may be `None`.
pub(crate) fn register<S, const N: usize>(
    grads: &mut Gradients,
    parents: Ops<S, N>,
    values: [Option<FloatTensor<Flex>>; N],
) {
    for (parent, value) in parents.parents.into_iter().zip(values) {
        if let (Some(parent), Some(value)) = (parent, value) {
            grads.register::<Flex>(parent.id, value);
        }
    }
}

/// A tensor that is not tracked.
pub(crate) fn constant<C: CheckpointStrategy>(value: FloatTensor<Flex>) -> FloatTensor<Autodiff<Flex, C>> {
    <Autodiff<Flex, C> as burn::backend::AutodiffBackend>::from_inner(value)
}
