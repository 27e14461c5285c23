//! The operator on Burn's CPU backend in `f32`: one buffer for all blocks of logits, softmax and gradient in one pass
//! over each, products added where they belong, and no work for rows without a gradient.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, IntDType, Shape, TensorData};
use rayon::prelude::*;
use ril_kernels::flex::{GRAIN, contiguous, tensor, values};
use ril_kernels::matrix::{Matrix, MatrixMut, Output, multiply};
use ril_kernels::simd;

use super::head::{Head, HeadKernels, HeadSettings};
use super::softmax::{Block, RowGradients, SoftmaxRows};

impl HeadKernels for Flex {
    fn forward(head: &Head<Self>) -> SoftmaxRows<Self> {
        match Inputs::of(head) {
            Some(inputs) => inputs.forward(),
            None => head.forward_in_blocks(),
        }
    }

    fn backward(head: &Head<Self>, rows: &RowGradients<Self>, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        match Inputs::of(head) {
            Some(inputs) => inputs.backward(rows, wanted),
            None => head.backward_in_blocks(rows, wanted),
        }
    }

    /// Flex's own zeros exist twice for a moment.
    fn zeros(shape: Shape, dtype: DType, _: &Self::Device) -> FloatTensor<Self> {
        FlexTensor::from_data(TensorData::full_dtype(shape, 0.0, dtype))
    }
}

/// What the kernels read.
struct Inputs<'a> {
    /// `[tokens, width]`
    hidden: Matrix<'a>,
    /// `[width, vocab]`
    weight: Matrix<'a>,
    /// Whether the weight is stored as `[vocab, width]`, as a tied embedding is.
    is_tied: bool,
    targets: Vec<usize>,
    tokens: usize,
    width: usize,
    vocab: usize,
    settings: HeadSettings,
}

impl<'a> Inputs<'a> {
    /// `None` for other types than `f32`, and for strides that a product cannot read.
    fn of(head: &'a Head<Flex>) -> Option<Self> {
        let Head { hidden, weight, targets, settings } = head;
        let ([tokens, width], [_, vocab]) = (hidden.shape().dims(), weight.shape().dims());
        if hidden.dtype() != DType::F32 || weight.dtype() != DType::F32 || width == 0 {
            return None;
        }
        let targets = contiguous(Flex::int_cast(targets.clone(), IntDType::I64));
        let targets = targets.as_slice::<i64>()?.iter().map(|&id| id as usize).collect();
        let is_tied = weight.layout().strides() == [1, width as isize];
        let (hidden, weight) = (Matrix::of(hidden)?, Matrix::of(weight)?);
        Some(Self { hidden, weight, is_tied, targets, tokens, width, vocab, settings: *settings })
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        Block::split(self.vocab, self.settings.block_vocab)
    }

    /// Room for the logits of one chunk and one block.
    fn buffer(&self, rows: usize) -> Vec<f32> {
        vec![0.0; rows.min(self.settings.chunk_tokens) * self.vocab.min(self.settings.block_vocab)]
    }

    /// Fills `out`, `[rows, block.width]`.
    fn logits(&self, hidden: Matrix<'_>, rows: usize, block: Block, out: &mut [f32]) {
        let weight = self.weight.from(0, block.first);
        let out = MatrixMut::rows(out, block.width);
        multiply([rows, block.width, self.width], hidden, weight, out, Output::Overwritten);
    }

    /// Divides a row by the temperature.
    fn cool(&self, row: &mut [f32]) {
        if self.settings.inverse_temperature != 1.0 {
            simd::scale(row, self.settings.inverse_temperature as f32);
        }
    }

    fn forward(&self) -> SoftmaxRows<Flex> {
        let mut sums = vec![RowSums::EMPTY; self.tokens];
        let mut buffer = self.buffer(self.tokens);
        let step = self.settings.chunk_tokens;
        for (start, sums) in (0..self.tokens).step_by(step).zip(sums.chunks_mut(step)) {
            for block in self.blocks() {
                let logits = &mut buffer[..sums.len() * block.width];
                self.logits(self.hidden.from(start, 0), sums.len(), block, logits);
                let rows = logits.par_chunks_mut(block.width).zip(&mut *sums).enumerate();
                rows.with_min_len(GRAIN.div_ceil(block.width)).for_each(|(row, (logits, sums))| {
                    self.cool(logits);
                    let target = block.column_of(self.targets[start + row]);
                    sums.add(logits, target, self.settings.wants_entropy);
                });
            }
        }
        let column = |value: fn(&RowSums) -> f32| tensor(sums.iter().map(value).collect(), [self.tokens, 1]);
        SoftmaxRows {
            log_probs: column(|row| row.picked - row.log_sum_exp()),
            log_sum_exp: column(RowSums::log_sum_exp),
            entropy: self.settings.wants_entropy.then(|| column(|row| row.sum.ln() - row.weighted / row.sum)),
        }
    }

    fn backward(&self, rows: &RowGradients<Flex>, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let used = self.used_rows(rows);
        let mut hidden = Vec::with_capacity(used.len() * self.width);
        used.iter().for_each(|row| hidden.extend(self.hidden.row(row.at, self.width)));
        let mut hidden_grad = vec![0.0; if wanted[0] { hidden.len() } else { 0 }];
        let mut weight_grad = vec![0.0; if wanted[1] { self.width * self.vocab } else { 0 }];
        let mut buffer = self.buffer(used.len());
        let step = self.settings.chunk_tokens;
        for block in self.blocks() {
            let weight = self.weight.from(0, block.first);
            for (start, used) in (0..used.len()).step_by(step).zip(used.chunks(step)) {
                let places = start * self.width..(start + used.len()) * self.width;
                let hidden = Matrix::rows(&hidden[places.clone()], self.width);
                let logits = &mut buffer[..used.len() * block.width];
                self.logits(hidden, used.len(), block, logits);
                let with_rows = logits.par_chunks_mut(block.width).zip(used);
                with_rows.with_min_len(GRAIN.div_ceil(block.width)).for_each(|(logits, row)| {
                    self.cool(logits);
                    simd::softmax_pull(logits, row.log_sum_exp, row.grad, row.entropy, row.entropy_grad);
                    if let Some(target) = block.column_of(self.targets[row.at]) {
                        logits[target] += row.grad;
                    }
                    self.cool(logits);
                });
                let logits_grad = Matrix::rows(logits, block.width);
                if wanted[0] {
                    let out = MatrixMut::rows(&mut hidden_grad[places], self.width);
                    let sizes = [used.len(), self.width, block.width];
                    multiply(sizes, logits_grad, weight.transposed(), out, Output::AddedTo);
                }
                if wanted[1] {
                    let out = self.weight_block(&mut weight_grad, block);
                    let output = if start == 0 { Output::Overwritten } else { Output::AddedTo };
                    multiply([self.width, block.width, used.len()], hidden.transposed(), logits_grad, out, output);
                }
            }
        }
        let weight_grad = wanted[1].then(|| {
            if self.is_tied {
                return tensor(weight_grad, [self.vocab, self.width]).transpose(0, 1);
            }
            tensor(weight_grad, [self.width, self.vocab])
        });
        [wanted[0].then(|| self.spread(&used, &hidden_grad)), weight_grad]
    }

    /// Columns of the gradient of the weights, which is stored as the weights are.
    fn weight_block<'b>(&self, grad: &'b mut [f32], block: Block) -> MatrixMut<'b> {
        if self.is_tied {
            return MatrixMut::rows(&mut grad[block.first * self.width..], self.width).transposed();
        }
        MatrixMut::rows(&mut grad[block.first..], self.vocab)
    }

    /// `[tokens, width]`, 0 in unused rows.
    fn spread(&self, used: &[UsedRow], grad: &[f32]) -> FlexTensor {
        let mut all = vec![0.0; self.tokens * self.width];
        for (row, grad) in used.iter().zip(grad.chunks_exact(self.width)) {
            all[row.at * self.width..][..self.width].copy_from_slice(grad);
        }
        tensor(all, [self.tokens, self.width])
    }

    fn used_rows(&self, rows: &RowGradients<Flex>) -> Vec<UsedRow> {
        let column = |column: &FlexTensor| values(&contiguous(column.clone())).to_vec();
        let (log_sum_exp, grad) = (column(&rows.log_sum_exp), column(&rows.grad));
        let entropy = rows.entropy.as_ref().map(|(entropy, grad)| (column(entropy), column(grad)));
        let row = |at: usize| {
            let (entropy, entropy_grad) = entropy.as_ref().map_or((0.0, 0.0), |(value, grad)| (value[at], grad[at]));
            UsedRow { at, log_sum_exp: log_sum_exp[at], grad: grad[at], entropy, entropy_grad }
        };
        (0..self.tokens).map(row).filter(|row| row.grad != 0.0 || row.entropy_grad != 0.0).collect()
    }
}

/// A row with a gradient.
struct UsedRow {
    at: usize,
    log_sum_exp: f32,
    grad: f32,
    entropy: f32,
    entropy_grad: f32,
}

/// What is known of a row's softmax after some of its columns.
#[derive(Debug, Clone)]
struct RowSums {
    max: f32,
    /// `sum exp(z)` with `z = logit - max`
    sum: f32,
    /// `sum z exp(z)`, if the entropy is wanted
    weighted: f32,
    /// Logit of the target.
    picked: f32,
}

impl RowSums {
    const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0, picked: 0.0 };

    /// Adds a block of columns (online softmax, arXiv 1805.02867); `logits` hold nothing of use afterwards.
    fn add(&mut self, logits: &mut [f32], target: Option<usize>, wants_entropy: bool) {
        if let Some(target) = target {
            self.picked = logits[target];
        }
        let max = self.max.max(simd::maximum(logits));
        if self.sum != 0.0 {
            // z moves by `d = old - new`: sum z exp(z) becomes exp(d) (sum z exp(z) + d sum exp(z)).
            let by = self.max - max;
            self.weighted = by.exp() * (self.weighted + by * self.sum);
            self.sum *= by.exp();
        }
        self.max = max;
        let (sum, weighted) =
            if wants_entropy { simd::exp_sums(logits, max) } else { (simd::exp_sum(logits, 1.0, max), 0.0) };
        self.sum += sum;
        self.weighted += weighted;
    }

    fn log_sum_exp(&self) -> f32 {
        self.sum.ln() + self.max
    }
}
