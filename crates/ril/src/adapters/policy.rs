//! A model as a policy.

use burn::tensor::{Int, Tensor, TensorData};
use ril_grpo::{Policy, TokenScores, selective_log_probs, selective_scores};
use ril_models::CausalLm;

use crate::error::RilError;
use crate::group::ScoringBatch;

/// A [`CausalLm`] as a [`Policy`] over [`ScoringBatch`]es.
#[derive(Debug, Clone, Copy)]
pub struct ModelPolicy<M> {
    /// The model: trainable for the policy, `valid()` for old and reference log-probs.
    pub model: M,
    /// Divides the logits, as in sampling.
    pub temperature: f64,
    /// Positions whose logits exist at one time; bounds memory.
    pub chunk_tokens: usize,
}

impl<M: CausalLm> ModelPolicy<M> {
    /// Temperature 1, 512 positions at a time.
    pub fn new(model: M) -> Self {
        Self { model, temperature: 1.0, chunk_tokens: 512 }
    }

    /// Hidden states that predict the completion, `[rows, completion_len, hidden]`, and the tokens they predict.
    fn states(&self, input: &ScoringBatch) -> Result<(Tensor<3>, Tensor<2, Int>), RilError> {
        let hidden = self.model.hidden_states(&input.input, None)?;
        let (rows, length) = (input.rows(), input.completion_len());
        // The state at a position predicts the token after it.
        let hidden = hidden.narrow(1, input.prompt_len - 1, length);
        let ids: Vec<i64> = input.targets.iter().map(|&id| i64::from(id)).collect();
        let targets = TensorData::new(ids, [rows, length]);
        Ok((hidden, Tensor::<2, Int>::from_data(targets, &self.model.device())))
    }
}

impl<M: CausalLm> Policy for ModelPolicy<M> {
    type Input = ScoringBatch;
    type Error = RilError;

    fn token_log_probs(&self, input: &ScoringBatch) -> Result<Tensor<2>, RilError> {
        let (hidden, targets) = self.states(input)?;
        Ok(selective_log_probs(hidden, self.model.head_weight(), targets, self.chunk_tokens, self.temperature)?)
    }

    fn token_scores(&self, input: &ScoringBatch) -> Result<TokenScores, RilError> {
        let (hidden, targets) = self.states(input)?;
        Ok(selective_scores(hidden, self.model.head_weight(), targets, self.chunk_tokens, self.temperature)?)
    }
}
