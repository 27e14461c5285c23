//! Batched sampling with a key/value cache: each prompt is read once and shared by its samples.

mod sampler;

pub use sampler::{Drawn, Sampler, log_softmax};

use burn::tensor::{DType, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::input::{ModelInput, Padding, TokenBatch};
use crate::nn::kv_cache::KvCache;
use crate::traits::ChatModel;

/// How completions are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// Tokens a completion may have, the stop token included; at least 1.
    pub max_new_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Smallest set of likeliest tokens whose probability reaches this, in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Likeliest tokens kept; 0 keeps all.
    pub top_k: usize,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or completion; 1 does nothing.
    pub repetition_penalty: f32,
    /// Completions a prompt; at least 1.
    pub num_samples: usize,
    /// Same seed, same prompts, same device: same completions.
    pub seed: u64,
}

impl Default for SamplingParams {
    /// One plain sample of at most 64 tokens.
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            repetition_penalty: 1.0,
            num_samples: 1,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// The likeliest token at each place.
    #[must_use]
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, temperature: 0.0, ..Self::default() }
    }

    /// # Errors
    /// [`ModelError::Config`] with the value that is out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        let checks = [
            (self.max_new_tokens >= 1, "max_new_tokens must be at least 1"),
            (self.num_samples >= 1, "num_samples must be at least 1"),
            (self.temperature.is_finite() && self.temperature >= 0.0, "temperature must be finite and not negative"),
            (self.top_p > 0.0 && self.top_p <= 1.0, "top_p must be in (0, 1]"),
            (
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "repetition_penalty must be finite and positive",
            ),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(ModelError::Config((*message).into())),
            None => Ok(()),
        }
    }
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token, which is the completion's last.
    Stop,
    /// `max_new_tokens` were drawn.
    Length,
}

/// One sampled completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Tokens, the stop token included.
    pub token_ids: Vec<u32>,
    /// Log-probability of each token under the plain model (temperature 1, nothing truncated), nats.
    pub log_probs: Vec<f32>,
    /// Log-probability of each token under the distribution that it was drawn from, nats.
    pub sampler_log_probs: Vec<f32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// A row that is still being written.
struct Open {
    /// Place in the result.
    at: usize,
    sampler: Sampler,
    completion: Completion,
}

/// Draws `params.num_samples` completions for each row of `prompts`; those of one prompt stand together.
///
/// `prompts` must be padded on the left; no rows give no completions. Rows that have ended leave the batch.
///
/// # Errors
/// [`ModelError::Config`] for parameters out of range, [`ModelError::Input`] for right-padded prompts or more tokens
/// than the model has positions for, [`ModelError::Logits`] when logits are not numbers, and whatever the model says of
/// its input.
pub fn generate<M: ChatModel + Sync>(
    model: &M,
    prompts: &ModelInput,
    params: &SamplingParams,
) -> Result<Vec<Completion>, ModelError> {
    // As one task of the pool: otherwise each operator of each token is one, and wakes a thread before it starts.
    rayon::join(|| complete(model, prompts, params), || ()).0
}

fn complete<M: ChatModel>(
    model: &M,
    prompts: &ModelInput,
    params: &SamplingParams,
) -> Result<Vec<Completion>, ModelError> {
    params.validate()?;
    let (rows, seq) = (prompts.tokens.rows(), prompts.tokens.seq());
    if let Some(row) = (0..rows).find(|&row| prompts.tokens.row_mask(row).last() != Some(&true)) {
        return Err(ModelError::Input {
            what: "prompts",
            expected: "padding on the left".into(),
            got: format!("row {row} that ends in padding"),
        });
    }
    if rows == 0 {
        return Ok(Vec::new());
    }
    let mut cache = model.new_cache(rows, capacity(seq, params, model.max_positions())?);
    let hidden = model.hidden_states(prompts, Some(&mut cache))?;
    let logits = Logits::after(model, hidden);
    let owners: Vec<usize> = (0..rows).flat_map(|row| std::iter::repeat_n(row, params.num_samples)).collect();
    let mut open: Vec<Open> =
        owners.iter().enumerate().map(|(at, &row)| open_row(model, prompts, params, at, row)).collect();
    let mut done: Vec<Option<Completion>> = vec![None; open.len()];
    if params.num_samples > 1 {
        cache = cache.select_rows(&owners);
    }
    draw(&mut open, |i| logits.row(owners[i]), model.stop_ids())?;
    loop {
        let ended: Vec<bool> = open.iter().map(|o| is_finished(o, params)).collect();
        for (row, _) in open.iter_mut().zip(&ended).filter(|(_, ended)| **ended) {
            done[row.at] = Some(row.completion.clone());
        }
        if ended.iter().all(|&e| e) {
            break;
        }
        compact(&mut open, &mut cache, &ended);
        let new: Vec<[u32; 1]> = open.iter().map(|o| [o.completion.token_ids.last().copied().unwrap_or(0)]).collect();
        let step = ModelInput::text(TokenBatch::padded(&new, 0, Padding::Right));
        let logits = Logits::after(model, model.hidden_states(&step, Some(&mut cache))?);
        draw(&mut open, |i| logits.row(i), model.stop_ids())?;
    }
    Ok(done.into_iter().flatten().collect())
}

fn open_row<M: ChatModel>(model: &M, prompts: &ModelInput, params: &SamplingParams, at: usize, row: usize) -> Open {
    let ids = prompts.tokens.row(row).iter().zip(prompts.tokens.row_mask(row));
    let prompt = ids.filter(|(_, real)| **real).map(|(&id, _)| id);
    Open {
        at,
        sampler: Sampler::new(params, prompt, model.forbidden_ids(), at as u64),
        completion: Completion {
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            sampler_log_probs: Vec::new(),
            finish_reason: FinishReason::Length,
        },
    }
}

/// Logits after the last position, one row each, on the host.
struct Logits {
    values: Vec<f32>,
    vocab: usize,
}

impl Logits {
    fn after<M: ChatModel>(model: &M, hidden: Tensor<3>) -> Self {
        let seq = hidden.dims()[1];
        let logits = model.lm_head(hidden.narrow(1, seq - 1, 1)).cast(DType::F32);
        let vocab = logits.dims()[2];
        let values = logits.into_data().try_into_vec().expect("cast to f32");
        Self { values, vocab }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.vocab..][..self.vocab]
    }
}

/// One token more for every row; those that have ended are gone.
fn draw<'a>(open: &mut [Open], logits: impl Fn(usize) -> &'a [f32] + Sync, stop_ids: &[u32]) -> Result<(), ModelError> {
    open.par_iter_mut().enumerate().try_for_each(|(i, row)| {
        if let Some(reason) = row.sampler.refusal(logits(i)) {
            return Err(ModelError::Logits { row: row.at, step: row.completion.token_ids.len(), reason });
        }
        let drawn = row.sampler.draw(logits(i));
        row.completion.token_ids.push(drawn.token_id);
        row.completion.log_probs.push(drawn.log_prob);
        row.completion.sampler_log_probs.push(drawn.sampler_log_prob);
        if stop_ids.contains(&drawn.token_id) {
            row.completion.finish_reason = FinishReason::Stop;
        }
        Ok(())
    })
}

/// Tokens that prompt and completion may take together.
fn capacity(prompt: usize, params: &SamplingParams, max_positions: Option<usize>) -> Result<usize, ModelError> {
    let most = max_positions.unwrap_or(usize::MAX);
    let tokens = prompt.checked_add(params.max_new_tokens).filter(|&tokens| tokens <= most);
    tokens.ok_or_else(|| ModelError::Input {
        what: "max_new_tokens",
        expected: format!(
            "at most {}, the positions of the model less a prompt of {prompt}",
            most.saturating_sub(prompt)
        ),
        got: params.max_new_tokens.to_string(),
    })
}

fn is_finished(row: &Open, params: &SamplingParams) -> bool {
    row.completion.finish_reason == FinishReason::Stop || row.completion.token_ids.len() >= params.max_new_tokens
}

/// Drops ended rows.
fn compact(open: &mut Vec<Open>, cache: &mut KvCache, ended: &[bool]) {
    if !ended.contains(&true) {
        return;
    }
    let keep: Vec<usize> = (0..ended.len()).filter(|&i| !ended[i]).collect();
    *cache = cache.select_rows(&keep);
    let mut ended = ended.iter();
    open.retain(|_| ended.next() == Some(&false));
}
