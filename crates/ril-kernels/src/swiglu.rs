//! The gate of a feed-forward block.
#![allow(unsafe_code)] // Fresh memory for the gated values.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, activation};
use rayon::prelude::*;

use crate::flex::{GRAIN, build, contiguous, is_fused, tensor, values, values_mut};
use crate::{simd, tape};

/// `silu(gate) * up` with `silu(x) = x sigmoid(x)` (arXiv 2002.05202).
///
/// # Shapes
/// Both the same; so is the output.
#[must_use]
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    if is_fused(&gate) && is_fused(&up) {
        return Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()));
    }
    plain(gate, up)
}

fn plain<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    activation::silu(gate) * up
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait SwiGluOps: Backend {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SwiGluOps for Flex {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        assert_eq!(gate.shape(), up.shape(), "swiglu: gate and up differ in shape");
        let (gate, up) = (contiguous(gate), contiguous(up));
        let (gates, ups) = (values(&gate), values(&up));
        let fill = |i: usize, out: &mut [_]| {
            let range = i * simd::BLOCK..i * simd::BLOCK + out.len();
            simd::swiglu(out, &gates[range.clone()], &ups[range]);
        };
        // SAFETY: `swiglu` writes the whole block.
        tensor(unsafe { build(gates.len(), simd::BLOCK, fill) }, gate.shape())
    }
}

#[derive(Debug)]
struct SwiGlu;

impl Backward<Flex, 2> for SwiGlu {
    type State = (FloatTensor<Flex>, FloatTensor<Flex>);

    fn backward(self, mut ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut grad = contiguous(grads.consume::<Flex>(&ops.node));
        // The gate's buffer becomes its gradient, if nothing else holds it.
        let flat = tensor(Vec::new(), [0]);
        let (gate, up) = std::mem::replace(&mut ops.state, (flat.clone(), flat));
        let (mut gate, up) = (contiguous(gate), contiguous(up));
        let (grad_values, gate_values) = (values_mut(&mut grad), values_mut(&mut gate));
        let blocks = grad_values.par_chunks_mut(GRAIN).zip(gate_values.par_chunks_mut(GRAIN));
        let blocks = blocks.zip(values(&up).par_chunks(GRAIN));
        blocks.for_each(|((grad, gate), up)| simd::swiglu_gradient(grad, gate, up));
        tape::register(grads, ops, [Some(gate), Some(grad)]);
    }
}

impl<C: CheckpointStrategy> SwiGluOps for Autodiff<Flex, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let output = Flex::swiglu(gate.clone(), up.clone());
        tape::record::<C, _, 2>(SwiGlu, [gate_node, up_node], output, (gate, up))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{assert_close, gradient, scattered, values};

    #[test]
    fn values_and_gradients_are_those_of_the_plain_operations() {
        for shape in [[1, 1], [3, 7], [40, 1000]] {
            let device = Device::flex().autodiff();
            let run = |gated: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
                let gate = (scattered(shape, 0.3, &device) * 4.0).require_grad();
                let up = scattered(shape, 1.9, &device).require_grad();
                let out = gated(gate.clone(), up.clone());
                let weight = scattered(shape, 2.7, &device.clone().inner());
                let gradients = (out.clone() * weight).sum().backward();
                [values(&out), gradient(&gate, &gradients), gradient(&up, &gradients)]
            };
            for (got, want) in run(swiglu::<2>).iter().zip(run(plain::<2>)) {
                assert_close(got, &want, 1e-5);
            }
        }
    }

    /// The backward pass writes into the gate's buffer; a caller who holds it must not see that.
    #[test]
    fn tensors_that_others_hold_stay_as_they_are() {
        let device = Device::flex().autodiff();
        let gate = scattered([3, 5], 0.3, &device).require_grad();
        let before = values(&gate);
        let gradients = swiglu(gate.clone(), gate.clone()).sum().backward();
        assert_eq!(values(&gate), before);
        let plain_gate = scattered([3, 5], 0.3, &device).require_grad();
        let expected = plain(plain_gate.clone(), plain_gate.clone()).sum().backward();
        assert_close(&gradient(&gate, &gradients), &gradient(&plain_gate, &expected), 1e-5);
    }
}
