//! Where samples come from.

use std::ops::ControlFlow;

use ril_models::ChatModel;
use ril_models::generate::{Completion, FinishReason, SamplingParams, generate};
pub use ril_models::seed::mix_seed;

use crate::error::RilError;
use crate::group::{Origin, Question, Response, prompt_batch};

/// A source of completions: the local model, a server, a recorded file.
pub trait Rollout {
    /// `params.num_samples` responses for each question, in order.
    ///
    /// # Errors
    /// Whatever keeps the source from answering; never fewer responses than asked.
    fn sample(&mut self, questions: &[Question], params: &SamplingParams) -> Result<Vec<Vec<Response>>, RilError>;
}

/// Samples from a model in this process. Give it a copy without autodiff (`model.valid()`), which shares storage.
#[derive(Debug, Clone)]
pub struct LocalRollout<M> {
    /// The model.
    pub model: M,
    /// Whom the responses are attributed to.
    pub origin: Origin,
    /// Rows sampled at once, but at least the samples of one question; bounds memory and, with the seed, fixes the noise
    /// of each sample.
    pub rows_at_once: usize,
}

impl<M: ChatModel + Sync> LocalRollout<M> {
    /// A student's rollout, 256 rows at once.
    pub fn student(model: M) -> Self {
        Self { model, origin: Origin::Student, rows_at_once: 256 }
    }

    /// As [`Rollout::sample`]; `progress` is told how many questions are done, and may ask to stop before the next ones:
    /// `None` then.
    ///
    /// # Errors
    /// The model's own.
    pub fn sample_until(
        &mut self,
        questions: &[Question],
        params: &SamplingParams,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<Vec<Response>>>, RilError> {
        let at_once = (self.rows_at_once / params.num_samples.max(1)).max(1);
        let mut all = Vec::with_capacity(questions.len());
        for (i, chunk) in questions.chunks(at_once).enumerate() {
            let prompts: Vec<_> = chunk.iter().map(|q| &q.prompt).collect();
            // Each chunk draws from its own seed, so that chunks of one call never repeat each other's noise.
            let params = SamplingParams { seed: mix_seed(params.seed, i as u64), ..params.clone() };
            let completions = generate(&self.model, &prompt_batch(&prompts)?, &params)?;
            for group in completions.chunks(params.num_samples) {
                all.push(group.iter().map(|c| self.response(c)).collect::<Result<_, RilError>>()?);
            }
            if progress(all.len()).is_break() && all.len() < questions.len() {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }
}

impl<M: ChatModel + Sync> Rollout for LocalRollout<M> {
    fn sample(&mut self, questions: &[Question], params: &SamplingParams) -> Result<Vec<Vec<Response>>, RilError> {
        Ok(self.sample_until(questions, params, |_| ControlFlow::Continue(()))?.unwrap_or_default())
    }
}

impl<M: ChatModel + Sync> LocalRollout<M> {
    fn response(&self, completion: &Completion) -> Result<Response, RilError> {
        Ok(Response {
            text: self.model.decode(&completion.token_ids)?,
            token_ids: completion.token_ids.clone(),
            origin: self.origin,
            is_truncated: completion.finish_reason == FinishReason::Length,
            sampler_log_probs: Some(completion.sampler_log_probs.clone()),
            policy_step: None,
        })
    }
}
