//! Log-probabilities of given tokens from hidden states or logits.
//!
//! [`selective_log_probs`] never holds `[batch, seq, vocab]`: neither in the forward pass, where only
//! `[chunk_tokens, vocab]` is alive, nor on the tape, where the backward pass recomputes each chunk's logits.

mod operator;
mod softmax;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor};

use self::operator::LogProbOps;
use crate::GrpoError;
use crate::error::check_shape;

/// `log softmax(hidden @ head_weight / temperature)[target]` for each token, chunk by chunk.
///
/// A custom differentiable operator: it keeps its inputs and one log-sum-exp per token, and its backward pass
/// recomputes each chunk's logits, with gradients to `hidden` and to `head_weight` (only where they are tracked).
/// A token whose log-probability receives no gradient adds exactly 0 to both, whatever its hidden state (NaN
/// included). Logits are produced in the type of `hidden`, the log-softmax is `f32`. First order only.
///
/// On a backend that this crate was not built for (see the features `cuda` and `wgpu`) the same chunks are plain
/// tensor operations: the numbers agree, but the tape keeps the logits.
///
/// Source: the definition; recomputation instead of storage as in Cut Cross-Entropy, arXiv 2411.09009.
///
/// # Shapes
/// - `hidden`: `[batch, seq, hidden]`, the state that predicts each target (already shifted by the caller)
/// - `head_weight`: `[hidden, vocab]`, the layout of Burn's `Linear`; for a tied embedding `[vocab, hidden]` pass its
///   `transpose()`, a view through which the gradient flows back
/// - `targets`: `[batch, seq]`, token ids in `0..vocab`, padding included
/// - `chunk_tokens`: tokens whose logits are alive at once, at least 1; memory is a few times
///   `chunk_tokens * vocab * 4` bytes
/// - `temperature`: divides the logits, finite and above 0; the one of the sampler, so that this is the distribution
///   sampled from
/// - output: `[batch, seq]`, nats, `f32`
///
/// # Errors
/// [`GrpoError::Shape`]; [`GrpoError::Config`] for `chunk_tokens` or `temperature` out of range.
pub fn selective_log_probs(
    hidden: Tensor<3>,
    head_weight: Tensor<2>,
    targets: Tensor<2, Int>,
    chunk_tokens: usize,
    temperature: f64,
) -> Result<Tensor<2>, GrpoError> {
    let [batch, seq, width] = hidden.dims();
    let [_, vocab] = head_weight.dims();
    check_shape("head_weight", &[width, vocab], &head_weight.dims())?;
    check_shape("targets", &[batch, seq], &targets.dims())?;
    if chunk_tokens == 0 {
        let message = "chunk_tokens: expected at least 1, got 0";
        return Err(GrpoError::Config(message.into()));
    }
    if !(temperature.is_finite() && temperature > 0.0) {
        let message = format!("temperature: expected a finite value above 0, got {temperature}");
        return Err(GrpoError::Config(message));
    }
    let device = hidden.device();
    if batch * seq == 0 {
        return Ok(Tensor::zeros([batch, seq], &device));
    }
    let hidden = hidden.reshape([batch * seq, width]);
    let targets = targets.reshape([batch * seq]);
    let log_probs = if has_operator(&device) {
        Tensor::<1>::from_dispatch(Dispatch::head_log_probs(
            hidden.into_dispatch(),
            head_weight.into_dispatch(),
            targets.into_dispatch(),
            chunk_tokens,
            1.0 / temperature,
        ))
    } else {
        composed(hidden, head_weight, targets, chunk_tokens, temperature)
    };
    Ok(log_probs.reshape([batch, seq]))
}

/// `log softmax(logits)[target]` for each token, for logits that exist already; `f32` whatever their type.
///
/// Plain tensor operations: the tape keeps `[batch, seq, vocab]`. Prefer [`selective_log_probs`] with a language
/// model's vocabulary.
///
/// # Shapes
/// - `logits`: `[batch, seq, vocab]`, already divided by the temperature
/// - `targets`: `[batch, seq]`, token ids in `0..vocab`, padding included
/// - output: `[batch, seq]`, nats
///
/// # Errors
/// [`GrpoError::Shape`].
pub fn gather_log_probs(logits: Tensor<3>, targets: Tensor<2, Int>) -> Result<Tensor<2>, GrpoError> {
    let [batch, seq, _] = logits.dims();
    check_shape("targets", &[batch, seq], &targets.dims())?;
    let log_probs = log_softmax(logits.cast(DType::F32), 2);
    Ok(log_probs.gather(2, targets.unsqueeze_dim::<3>(2)).squeeze_dim(2))
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

/// The operator as plain tensor operations; `hidden`: `[tokens, hidden]`, `targets` and output: `[tokens]`.
fn composed(
    hidden: Tensor<2>,
    head_weight: Tensor<2>,
    targets: Tensor<1, Int>,
    chunk_tokens: usize,
    temperature: f64,
) -> Tensor<1> {
    let chunks = hidden.split(chunk_tokens, 0).into_iter();
    let chunks = chunks.zip(targets.split(chunk_tokens, 0)).map(|(hidden, targets)| {
        let logits = hidden.matmul(head_weight.clone()).cast(DType::F32) / temperature;
        log_softmax(logits, 1).gather(1, targets.unsqueeze_dim::<2>(1)).squeeze_dim::<1>(1)
    });
    Tensor::cat(chunks.collect(), 0)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
