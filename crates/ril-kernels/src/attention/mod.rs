//! Softmax attention over packed tokens.

mod backward;
mod forward;
mod plain;
mod plan;

use std::sync::Arc;

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use crate::flex::{contiguous, is_fused, tensor};
use crate::tape;

pub use plan::{AttentionBlock, AttentionPlan};

/// Rows of scores that are held at once: queries times the query heads of one key/value head.
const ROWS: usize = 96;
/// Keys whose scores are held at once.
const KEYS: usize = 256;

/// `softmax(q k^T / sqrt(head_dim)) v` over the keys that the plan lets each query see; query head `h` reads key/value
/// head `h / (heads / kv_heads)`.
///
/// On the fused path the scores exist block by block (online softmax, arXiv 1805.02867; tiles as in FlashAttention,
/// arXiv 2205.14135): memory beside the output is one log-sum-exp for each query and head, and the backward pass
/// computes the scores again. Elsewhere queries and keys are gathered into padded rows. The softmax runs in `f32`
/// whatever the type of the operands.
///
/// # Shapes
/// - `q`: `[queries, heads, head_dim]`; `k`, `v`: `[keys, kv_heads, head_dim]`
/// - output: `[queries, heads * head_dim]`
///
/// # Panics
/// If the tensors do not have the plan's tokens, or `heads` is not a positive multiple of `kv_heads`.
#[must_use]
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, plan: &Arc<AttentionPlan>) -> Tensor<2> {
    let ([queries, heads, dim], [keys, kv_heads, _]) = (q.dims(), k.dims());
    assert_eq!([queries, keys], [plan.queries, plan.keys], "attention: queries and keys of the tensors and the plan");
    assert_eq!(k.dims(), v.dims(), "attention: keys and values");
    let are_heads = heads > 0 && kv_heads > 0 && heads % kv_heads == 0;
    assert!(k.dims()[2] == dim && are_heads, "attention: q {:?}, k {:?}", q.dims(), k.dims());
    if is_fused(&q) && is_fused(&k) && is_fused(&v) {
        let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
        return Tensor::from_dispatch(Dispatch::attention(q, k, v, plan.clone()));
    }
    plain::attention(q, k, v, plan)
}

#[backend_extension(Autodiff, Flex)]
pub(crate) trait AttentionOps: Backend {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: Arc<AttentionPlan>,
    ) -> FloatTensor<Self>;
}

/// The operands, contiguous, and their sizes.
#[derive(Debug, Clone)]
struct Operands {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    plan: Arc<AttentionPlan>,
}

/// Sizes of one attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    /// Query heads that share a key/value head.
    group: usize,
    scale: f32,
}

impl Operands {
    fn new(q: FlexTensor, k: FlexTensor, v: FlexTensor, plan: Arc<AttentionPlan>) -> Self {
        Self { q: contiguous(q), k: contiguous(k), v: contiguous(v), plan }
    }

    fn sizes(&self) -> Sizes {
        let ([_, heads, dim], [_, kv_heads, _]) = (self.q.shape().dims(), self.k.shape().dims());
        Sizes { heads, kv_heads, dim, group: heads / kv_heads, scale: (dim as f32).powf(-0.5) }
    }
}

impl AttentionOps for Flex {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: Arc<AttentionPlan>,
    ) -> FloatTensor<Self> {
        let operands = Operands::new(q, k, v, plan);
        output(&operands).0
    }
}

/// `[queries, heads * head_dim]`, and the log-sum-exp of each query's scores, `[queries, heads]`.
fn output(operands: &Operands) -> (FlexTensor, Vec<f32>) {
    let Sizes { heads, dim, .. } = operands.sizes();
    let (values, log_sum_exp) = forward::run(operands);
    (tensor(values, [operands.plan.queries, heads * dim]), log_sum_exp)
}

#[derive(Debug)]
struct Attention;

impl Backward<Flex, 3> for Attention {
    type State = (Operands, FlexTensor, Vec<f32>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let (operands, output, log_sum_exp) = &ops.state;
        let [q, k, v] = backward::run(operands, output, log_sum_exp, &grad);
        let like = |values, operand: &FlexTensor| Some(tensor(values, operand.shape()));
        let values = [like(q, &operands.q), like(k, &operands.k), like(v, &operands.v)];
        tape::register(grads, ops, values);
    }
}

impl<C: CheckpointStrategy> AttentionOps for Autodiff<Flex, C> {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: Arc<AttentionPlan>,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let operands = Operands::new(q, k, v, plan);
        let (output, log_sum_exp) = output(&operands);
        tape::record::<C, _, 3>(Attention, [q_node, k_node, v_node], output.clone(), (operands, output, log_sum_exp))
    }
}

/// Memory that tasks write to in disjoint parts.
#[derive(Debug, Clone, Copy)]
struct Shared {
    start: *mut f32,
    length: usize,
}

#[allow(unsafe_code)] // Tasks write parts of one buffer, as the two below.
// SAFETY: a pointer and a length; whoever takes a part answers for nobody else having it.
unsafe impl Send for Shared {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(values: &mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), length: values.len() }
    }

    /// # Safety
    /// The memory must be alive, and nothing else may hold a part that overlaps while this one is in use.
    #[allow(unsafe_code)]
    unsafe fn part<'a>(self, range: std::ops::Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.length, "a part outside the memory");
        // SAFETY: inside the memory (checked); the caller answers for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Where a matrix begins that strides over parts of others.
    fn at(self, index: usize) -> *mut f32 {
        assert!(index <= self.length, "a matrix outside the memory");
        self.start.wrapping_add(index)
    }
}

#[cfg(test)]
mod tests;
