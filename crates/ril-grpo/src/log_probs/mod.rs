//! Log-probabilities of given tokens, and entropies, from hidden states or logits.
//!
//! [`selective_log_probs`] and [`selective_scores`] never hold `[batch, seq, vocab]`: neither in the forward pass,
//! where only `[chunk_tokens, 4096]` is alive, nor on the tape, where the backward pass recomputes the logits.

mod flex;
mod head;
mod operator;
mod softmax;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, DType, Device, Int, Tensor};

use self::head::HeadSettings;
use self::operator::HeadOps;
use crate::error::check_shape;
use crate::{GrpoError, TokenScores};

/// Tokens of the vocabulary whose logits are alive at once.
///
/// Small beside a language model's vocabulary, so that memory is that of the gradient of the weights; large beside
/// the registers of a product, so that a block costs no time.
const BLOCK_VOCAB: usize = 4096;

/// `log softmax(hidden @ head_weight / temperature)[target]` for each token, chunk by chunk.
///
/// A custom differentiable operator: it keeps its inputs and one log-sum-exp per token, and its backward pass
/// recomputes the logits, with gradients to `hidden` and to `head_weight` (only where they are tracked).
/// A token whose log-probability receives no gradient adds exactly 0 to both, whatever its hidden state (NaN
/// included). Logits are produced in the type of `hidden`, the log-softmax is `f32`. First order only.
///
/// On a backend that this crate was not built for (see the features `cuda` and `wgpu`) the same chunks are plain
/// tensor operations: the numbers agree, but the tape keeps the logits. So it is with a quantised weight, which has no
/// gradient; its chunks have as many tokens as keep the memory that is promised below.
///
/// Source: the definition; recomputation instead of storage as in Cut Cross-Entropy, arXiv 2411.09009.
///
/// # Shapes
/// - `hidden`: `[batch, seq, hidden]`, the state that predicts each target (already shifted by the caller)
/// - `head_weight`: `[hidden, vocab]`, the layout of Burn's `Linear`; for a tied embedding `[vocab, hidden]` pass its
///   `transpose()`, a view through which the gradient flows back
/// - `targets`: `[batch, seq]`, token ids; one outside `0..vocab` (-100 at padding, say) scores NaN and has no gradient
/// - `chunk_tokens`: tokens whose logits are alive at once, at least 1. Memory beside inputs, output and gradients is
///   a few times `(chunk_tokens + hidden) * min(vocab, 4096) * 4` bytes
/// - `temperature`: divides the logits, finite and above 0; the one of the sampler, so that this is the distribution
///   sampled from
/// - output: `[batch, seq]`, nats, `f32`
///
/// # Errors
/// [`GrpoError::Shape`]; [`GrpoError::Config`] for `chunk_tokens` or `temperature` out of range, and for an empty
/// vocabulary.
pub fn selective_log_probs(
    hidden: Tensor<3>,
    head_weight: Tensor<2>,
    targets: Tensor<2, Int>,
    chunk_tokens: usize,
    temperature: f64,
) -> Result<Tensor<2>, GrpoError> {
    let settings = settings(chunk_tokens, temperature, false)?;
    Ok(head_scores(hidden, head_weight, targets, settings)?.squeeze_dim(2))
}

/// As [`selective_log_probs`], with the entropy of the distribution that each token was drawn from.
///
/// `H = -sum_v p_v log p_v` with `p = softmax(hidden @ head_weight / temperature)`, `f32`, nats, in `[0, ln vocab]`;
/// differentiable: `dH/dlogit_v = -p_v (log p_v + H) / temperature`. One more pass over each block of logits, no more
/// memory of the size of the vocabulary.
///
/// # Shapes
/// As [`selective_log_probs`]; both fields of the output are `[batch, seq]`.
///
/// # Errors
/// Those of [`selective_log_probs`].
pub fn selective_scores(
    hidden: Tensor<3>,
    head_weight: Tensor<2>,
    targets: Tensor<2, Int>,
    chunk_tokens: usize,
    temperature: f64,
) -> Result<TokenScores, GrpoError> {
    let settings = settings(chunk_tokens, temperature, true)?;
    let scores = head_scores(hidden, head_weight, targets, settings)?;
    let column = |at: usize| scores.clone().slice_dim(2, at..at + 1).squeeze_dim(2);
    Ok(TokenScores { log_probs: column(0), entropy: Some(column(1)) })
}

fn settings(chunk_tokens: usize, temperature: f64, wants_entropy: bool) -> Result<HeadSettings, GrpoError> {
    if chunk_tokens == 0 {
        let message = "chunk_tokens: expected at least 1, got 0";
        return Err(GrpoError::Config(message.into()));
    }
    if !(temperature.is_finite() && temperature > 0.0) {
        let message = format!("temperature: expected a finite value above 0, got {temperature}");
        return Err(GrpoError::Config(message));
    }
    Ok(HeadSettings { chunk_tokens, block_vocab: BLOCK_VOCAB, inverse_temperature: 1.0 / temperature, wants_entropy })
}

/// `[batch, seq, columns]`: the log-probability, then the entropy if it is wanted.
fn head_scores(
    hidden: Tensor<3>,
    head_weight: Tensor<2>,
    targets: Tensor<2, Int>,
    settings: HeadSettings,
) -> Result<Tensor<3>, GrpoError> {
    let [batch, seq, width] = hidden.dims();
    let [_, vocab] = head_weight.dims();
    check_shape("head_weight", &[width, vocab], &head_weight.dims())?;
    check_shape("targets", &[batch, seq], &targets.dims())?;
    if vocab == 0 {
        return Err(GrpoError::Config("head_weight: expected a vocabulary, got 0 tokens".into()));
    }
    let device = hidden.device();
    let columns = 1 + usize::from(settings.wants_entropy);
    if batch * seq == 0 {
        return Ok(Tensor::zeros([batch, seq, columns], &device));
    }
    let hidden = hidden.reshape([batch * seq, width]);
    let (targets, is_outside) = inside(targets, vocab);
    let targets = targets.reshape([batch * seq]);
    let is_quantised = !head_weight.dtype().is_float();
    let scores = if has_operator(&device) && !is_quantised {
        Tensor::<2>::from_dispatch(Dispatch::head_scores(
            hidden.into_dispatch(),
            head_weight.into_dispatch(),
            targets.into_dispatch(),
            settings,
        ))
    } else {
        let whole = settings.chunk_tokens;
        let chunk_tokens =
            if is_quantised { (whole.saturating_mul(BLOCK_VOCAB) / vocab).clamp(1, whole) } else { whole };
        composed(hidden, head_weight, targets, HeadSettings { chunk_tokens, ..settings })
    };
    let scores: Tensor<3> = scores.reshape([batch, seq, columns]);
    Ok(scores.mask_fill(is_outside.unsqueeze_dim::<3>(2).expand([batch, seq, columns]), f32::NAN))
}

/// Targets that a gather can take, and which of them were outside the vocabulary.
fn inside(targets: Tensor<2, Int>, vocab: usize) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let is_outside = targets.clone().lower_elem(0).bool_or(targets.clone().greater_equal_elem(vocab as i64));
    (targets.mask_fill(is_outside.clone(), 0), is_outside)
}

/// `log softmax(logits)[target]` for each token, for logits that exist already; `f32` whatever their type.
///
/// Plain tensor operations: the tape keeps `[batch, seq, vocab]`. Prefer [`selective_log_probs`] with a language
/// model's vocabulary.
///
/// # Shapes
/// - `logits`: `[batch, seq, vocab]`, already divided by the temperature
/// - `targets`: `[batch, seq]`, token ids; one outside `0..vocab` scores NaN and has no gradient
/// - output: `[batch, seq]`, nats
///
/// # Errors
/// [`GrpoError::Shape`].
pub fn gather_log_probs(logits: Tensor<3>, targets: Tensor<2, Int>) -> Result<Tensor<2>, GrpoError> {
    let [batch, seq, vocab] = logits.dims();
    check_shape("targets", &[batch, seq], &targets.dims())?;
    Ok(pick(log_softmax(logits.cast(DType::F32), 2), targets, vocab))
}

/// As [`gather_log_probs`], with the entropy `-sum_v p_v log p_v` of each distribution; both `[batch, seq]`, nats,
/// differentiable.
///
/// # Errors
/// [`GrpoError::Shape`].
pub fn gather_scores(logits: Tensor<3>, targets: Tensor<2, Int>) -> Result<TokenScores, GrpoError> {
    let [batch, seq, vocab] = logits.dims();
    check_shape("targets", &[batch, seq], &targets.dims())?;
    let log_softmax = log_softmax(logits.cast(DType::F32), 2);
    let entropy = entropy_of(log_softmax.clone());
    Ok(TokenScores { log_probs: pick(log_softmax, targets, vocab), entropy: Some(entropy.squeeze_dim(2)) })
}

fn pick(log_softmax: Tensor<3>, targets: Tensor<2, Int>, vocab: usize) -> Tensor<2> {
    let (targets, is_outside) = inside(targets, vocab);
    let picked: Tensor<2> = log_softmax.gather(2, targets.unsqueeze_dim::<3>(2)).squeeze_dim(2);
    picked.mask_fill(is_outside, f32::NAN)
}

/// Over the last dimension, which becomes 1.
fn entropy_of<const D: usize>(log_softmax: Tensor<D>) -> Tensor<D> {
    (log_softmax.clone().exp() * log_softmax).sum_dim(D - 1).neg()
}

/// Whether the operator was compiled for the device's backend; calling it elsewhere would panic.
fn has_operator(device: &Device) -> bool {
    // The operator has a backward pass of its own, so that what counts is the backend below autodiff.
    let device = &device.clone().inner();
    let device = device.as_dispatch();
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    if matches!(device, DispatchDevice::Cube(_)) {
        return true;
    }
    matches!(device, DispatchDevice::Flex(_))
}

/// The operator as plain tensor operations; `hidden`: `[tokens, hidden]`, `targets`: `[tokens]`, output:
/// `[tokens, columns]`.
fn composed(hidden: Tensor<2>, head_weight: Tensor<2>, targets: Tensor<1, Int>, settings: HeadSettings) -> Tensor<2> {
    let chunks = hidden.split(settings.chunk_tokens, 0).into_iter();
    let chunks = chunks.zip(targets.split(settings.chunk_tokens, 0)).map(|(hidden, targets)| {
        let logits =
            ril_kernels::linear(hidden, head_weight.clone(), None).cast(DType::F32) * settings.inverse_temperature;
        let log_softmax = log_softmax(logits, 1);
        let log_probs = log_softmax.clone().gather(1, targets.unsqueeze_dim::<2>(1));
        if settings.wants_entropy { Tensor::cat(vec![log_probs, entropy_of(log_softmax)], 1) } else { log_probs }
    });
    Tensor::cat(chunks.collect(), 0)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
