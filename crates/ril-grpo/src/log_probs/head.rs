//! Hidden states through head and log-softmax in chunks of tokens and blocks of the vocabulary; backward by
//! recomputation.

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape, Slice};

use super::softmax::{Block, RowGradients, SoftmaxRows, block_backward, block_sums};

/// Backends that can run the operator; the default bodies are plain primitives.
pub(crate) trait HeadKernels: Backend {
    /// The softmax of each token, over the whole vocabulary.
    fn forward(head: &Head<Self>) -> SoftmaxRows<Self> {
        head.forward_in_blocks()
    }

    /// Gradients of `hidden` and `weight`, each only if wanted, in the type of its tensor.
    fn backward(head: &Head<Self>, rows: &RowGradients<Self>, wanted: [bool; 2]) -> [Option<FloatTensor<Self>>; 2] {
        head.backward_in_blocks(rows, wanted)
    }

    /// Zeros to be written into, in memory that is used once.
    fn zeros(shape: Shape, dtype: DType, device: &Self::Device) -> FloatTensor<Self> {
        Self::float_zeros(shape, device, dtype.into())
    }
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
impl HeadKernels for burn::backend::Cube {}

/// How the operator works; nothing in it changes a result but the temperature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadSettings {
    pub(crate) chunk_tokens: usize,
    pub(crate) block_vocab: usize,
    pub(crate) inverse_temperature: f64,
    pub(crate) wants_entropy: bool,
}

/// Inputs, kept for the backward pass.
#[derive(Debug, Clone)]
pub(crate) struct Head<B: Backend> {
    /// `[tokens, hidden]`
    pub(crate) hidden: FloatTensor<B>,
    /// `[hidden, vocab]`
    pub(crate) weight: FloatTensor<B>,
    /// `[tokens, 1]`
    pub(crate) targets: IntTensor<B>,
    pub(crate) settings: HeadSettings,
}

impl<B: HeadKernels> Head<B> {
    pub(crate) fn new(
        hidden: FloatTensor<B>,
        weight: FloatTensor<B>,
        targets: IntTensor<B>,
        settings: HeadSettings,
    ) -> Self {
        let tokens = hidden.shape()[0];
        let targets = B::int_reshape(targets, Shape::new([tokens, 1]));
        Self { hidden, weight, targets, settings }
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<B> {
        let tokens = self.hidden.shape()[0];
        let step = self.settings.chunk_tokens;
        (0..tokens).step_by(step).map(move |start| start..tokens.min(start + step))
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<B> {
        Block::split(self.weight.shape()[1], self.settings.block_vocab)
    }

    fn weight_block(&self, block: Block) -> FloatTensor<B> {
        if block.is_whole {
            return self.weight.clone();
        }
        B::float_slice(self.weight.clone(), &[Slice::full(), block.columns().into()])
    }

    fn target_rows(&self, rows: Range<usize>) -> IntTensor<B> {
        B::int_slice(self.targets.clone(), &[rows.into(), Slice::full()])
    }

    /// `f32` logits of some tokens, `[rows, width]`, divided by the temperature. `weight`: the block's columns.
    fn logits(&self, rows: Range<usize>, weight: FloatTensor<B>) -> FloatTensor<B> {
        let product = B::float_matmul(cut_rows::<B>(&self.hidden, rows), weight);
        let logits = B::float_cast(product, FloatDType::F32);
        scale::<B>(logits, self.settings.inverse_temperature)
    }

    pub(crate) fn forward_in_blocks(&self) -> SoftmaxRows<B> {
        let parts = self.chunks().map(|rows| {
            let targets = self.target_rows(rows.clone());
            let blocks = self.blocks().map(|block| {
                let logits = self.logits(rows.clone(), self.weight_block(block));
                block_sums(logits, targets.clone(), block, self.settings.wants_entropy)
            });
            blocks.reduce(|left, right| left.merge(right)).expect("the vocabulary is not empty").finish()
        });
        let parts: Vec<SoftmaxRows<B>> = parts.collect();
        let cat = |part: fn(&SoftmaxRows<B>) -> Option<FloatTensor<B>>| {
            let parts: Option<Vec<_>> = parts.iter().map(part).collect();
            parts.map(|parts| B::float_cat(parts, 0))
        };
        SoftmaxRows {
            log_probs: cat(|part| Some(part.log_probs.clone())).expect("every chunk has them"),
            log_sum_exp: cat(|part| Some(part.log_sum_exp.clone())).expect("every chunk has them"),
            entropy: cat(|part| part.entropy.clone()),
        }
    }

    /// Blocks are the outer loop, so that the gradient of the weights is written once, block by block, into one
    /// buffer: no second tensor of its size exists.
    pub(crate) fn backward_in_blocks(&self, rows: &RowGradients<B>, wanted: [bool; 2]) -> [Option<FloatTensor<B>>; 2] {
        let chunks: Vec<Range<usize>> = self.chunks().collect();
        let mut hidden_grads: Vec<Option<FloatTensor<B>>> = vec![None; chunks.len()];
        let mut weight_grad = None;
        for block in self.blocks() {
            let weight = self.weight_block(block);
            let mut block_grad = None;
            for (rows_of_chunk, hidden_grad) in chunks.iter().zip(&mut hidden_grads) {
                let chunk = rows.rows(rows_of_chunk.clone());
                let used = chunk.clone();
                let logits = self.logits(rows_of_chunk.clone(), weight.clone());
                let logits_grad = block_backward::<B>(logits, self.target_rows(rows_of_chunk.clone()), block, chunk);
                let logits_grad = scale::<B>(logits_grad, self.settings.inverse_temperature);
                let logits_grad = B::float_cast(logits_grad, self.hidden.dtype().into());
                if wanted[0] {
                    let product = B::float_matmul(logits_grad.clone(), B::float_transpose(weight.clone()));
                    add::<B>(hidden_grad, B::float_cast(product, FloatDType::F32));
                }
                if wanted[1] {
                    let hidden = used.blank_unused(cut_rows::<B>(&self.hidden, rows_of_chunk.clone()));
                    let product = B::float_matmul(B::float_transpose(hidden), logits_grad);
                    add::<B>(&mut block_grad, B::float_cast(product, FloatDType::F32));
                }
            }
            if let Some(grad) = block_grad {
                weight_grad = Some(self.put_block(weight_grad, block, grad));
            }
        }
        let hidden_grad = wanted[0].then(|| {
            let grads: Option<Vec<_>> = hidden_grads.into_iter().collect();
            let grad = B::float_cat(grads.expect("every chunk went through every block"), 0);
            B::float_cast(grad, self.hidden.dtype().into())
        });
        [hidden_grad, weight_grad]
    }

    /// The gradient of the weights with one more block in it, in the type of the weights.
    fn put_block(&self, all: Option<FloatTensor<B>>, block: Block, grad: FloatTensor<B>) -> FloatTensor<B> {
        let dtype = self.weight.dtype();
        let grad = B::float_cast(grad, dtype.into());
        if block.is_whole {
            return grad;
        }
        let all = all.unwrap_or_else(|| B::zeros(self.weight.shape(), dtype, &self.weight.device()));
        B::float_slice_assign(all, &[Slice::full(), block.columns().into()], grad)
    }
}

/// Adds to a sum that may not have begun.
fn add<B: Backend>(sum: &mut Option<FloatTensor<B>>, part: FloatTensor<B>) {
    *sum = Some(match sum.take() {
        Some(sum) => B::float_add(sum, part),
        None => part,
    });
}

fn cut_rows<B: Backend>(tensor: &FloatTensor<B>, rows: Range<usize>) -> FloatTensor<B> {
    B::float_slice(tensor.clone(), &[rows.into(), Slice::full()])
}

fn scale<B: Backend>(tensor: FloatTensor<B>, factor: f64) -> FloatTensor<B> {
    if factor == 1.0 {
        return tensor;
    }
    B::float_mul_scalar(tensor, Scalar::Float(factor))
}
