//! Who answers: a model in this process, a server, a recording. A judge is an answerer that is shown no pictures.

use std::ops::ControlFlow;
use std::sync::Arc;

use ril_models::ChatModel;
use ril_models::generate::{Completion, FinishReason, SamplingParams, generate};

use super::prompt::Query;
use crate::error::RilError;
use crate::group::{Prompt, prompt_batch};

/// One question to an [`Answerer`].
#[derive(Debug, Clone)]
pub struct Request {
    /// Index of the row that it is about, for logs and recordings.
    pub id: String,
    /// What is asked.
    pub query: Query,
    /// How the answer is drawn; its seed is this request's own, and one answer is drawn.
    pub sampling: SamplingParams,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Without special tokens.
    pub text: String,
    /// Whether the limit of tokens ended it.
    pub is_truncated: bool,
}

/// What is told about each request as soon as it is known: its place, and its answer or why there is none. `Break` asks
/// to stop; what is under way may still be told.
pub type Tell<'a> = dyn FnMut(usize, Result<Answer, RilError>) -> ControlFlow<()> + 'a;

/// A source of answers.
pub trait Answerer {
    /// Answers requests in any order, many at a time if it can, and tells of each at most once. A request that fails is
    /// told as an error and hinders no other; one that nothing is told of is asked again in the next run.
    ///
    /// # Errors
    /// What makes all further requests pointless (a model that does not fit, a server that refuses the key); errors
    /// of one request are told.
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError>;

    /// How many requests, counted from the first of a run, are computed together: in the last bits an answer may depend
    /// on those beside it, so that a resumed run asks for whole blocks. 1 when answers do not depend on each other.
    fn block(&self) -> usize {
        1
    }
}

impl<T: Answerer + ?Sized> Answerer for &mut T {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        (**self).answer(requests, tell)
    }

    fn block(&self) -> usize {
        (**self).block()
    }
}

impl<T: Answerer + ?Sized> Answerer for Box<T> {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        (**self).answer(requests, tell)
    }

    fn block(&self) -> usize {
        (**self).block()
    }
}

/// A model in this process.
#[derive(Debug, Clone)]
pub struct LocalAnswerer<M> {
    /// The model, without autodiff.
    pub model: M,
    /// Requests answered at once; bounds memory.
    pub rows_at_once: usize,
}

impl<M: ChatModel + Sync> Answerer for LocalAnswerer<M> {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        for (block, chunk) in requests.chunks(self.block()).enumerate() {
            let first = block * self.block();
            // A question that cannot be shown to the model (a broken picture, say) is told, and the others go on.
            let mut prompts = Vec::with_capacity(chunk.len());
            for (i, request) in chunk.iter().enumerate() {
                match self.encode(&request.query) {
                    Ok(prompt) => prompts.push((first + i, Arc::new(prompt))),
                    Err(error) => {
                        if tell(first + i, Err(error)).is_break() {
                            return Ok(());
                        }
                    }
                }
            }
            if self.tell_block(&prompts, &chunk[0].sampling, requests, tell).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn block(&self) -> usize {
        self.rows_at_once.max(1)
    }
}

impl<M: ChatModel + Sync> LocalAnswerer<M> {
    fn encode(&self, query: &Query) -> Result<Prompt, RilError> {
        Prompt::encode(&self.model, &[query.message()?])
    }

    /// Answers prompts together and tells of each at its place. When they cannot be generated together (one is longer
    /// than the model's positions, say), each is generated alone, so that only those fail that cannot be.
    fn tell_block(
        &self,
        prompts: &[(usize, Arc<Prompt>)],
        sampling: &SamplingParams,
        requests: &[Request],
        tell: &mut Tell<'_>,
    ) -> ControlFlow<()> {
        match self.generate(prompts, sampling) {
            Ok(answers) => prompts.iter().zip(answers).try_for_each(|((place, _), answer)| tell(*place, Ok(answer))),
            Err(error) if prompts.len() == 1 => tell(prompts[0].0, Err(error)),
            Err(_) => prompts.chunks(1).try_for_each(|row| {
                let place = row[0].0;
                tell(place, self.generate(row, &requests[place].sampling).map(|mut answers| answers.remove(0)))
            }),
        }
    }

    /// One answer to each prompt.
    fn generate(&self, prompts: &[(usize, Arc<Prompt>)], sampling: &SamplingParams) -> Result<Vec<Answer>, RilError> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let input = prompt_batch(&prompts.iter().map(|(_, prompt)| prompt).collect::<Vec<_>>())?;
        let sampling = SamplingParams { num_samples: 1, ..sampling.clone() };
        let answer = |completion: Completion| {
            let text = self.model.decode(&completion.token_ids)?;
            Ok(Answer { text, is_truncated: completion.finish_reason == FinishReason::Length })
        };
        generate(&self.model, &input, &sampling)?.into_iter().map(answer).collect()
    }
}
