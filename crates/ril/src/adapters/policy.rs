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

    /// What the head is asked: of real tokens alone, whatever the padding of their rows.
    fn questions(&self, input: &ScoringBatch) -> Result<Questions, RilError> {
        let hidden = self.model.hidden_states(&input.input, None)?;
        let device = self.model.device();
        let [rows, _, width] = hidden.dims();
        let shape = [rows, input.completion_len()];
        // The state at a position predicts the token after it.
        let hidden = hidden.narrow(1, input.prompt_len - 1, shape[1]).reshape([1, rows * shape[1], width]);
        let is_real = |at: &usize| input.completion_mask[*at];
        let real: Vec<usize> = (0..input.targets.len()).filter(is_real).collect();
        let targets: Vec<i64> = real.iter().map(|&at| i64::from(input.targets[at])).collect();
        let targets = Tensor::from_data(TensorData::new(targets, [1, real.len()]), &device);
        if real.len() == input.targets.len() {
            return Ok(Questions { hidden, targets, shape, places: None });
        }
        let index = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        // Padding shows the number of the real token before it, or of the first.
        let places = input.completion_mask.iter().scan(0, |seen, &is_real| {
            *seen += i64::from(is_real);
            Some((*seen - 1).max(0))
        });
        let places = Some(index(places.collect()));
        let hidden = hidden.select(1, index(real.into_iter().map(|at| at as i64).collect()));
        Ok(Questions { hidden, targets, shape, places })
    }
}

struct Questions {
    /// States that predict a real token, `[1, real, hidden]`.
    hidden: Tensor<3>,
    /// The tokens they predict, `[1, real]`.
    targets: Tensor<2, Int>,
    /// Of the answers: `[rows, completion_len]`.
    shape: [usize; 2],
    /// Which real token each of `rows * completion_len` shows, if they are more than those.
    places: Option<Tensor<1, Int>>,
}

/// One number for each real token as `[rows, completion_len]`.
fn laid_out(values: Tensor<2>, shape: [usize; 2], places: Option<&Tensor<1, Int>>) -> Tensor<2> {
    match places {
        Some(places) => values.select(1, places.clone()).reshape(shape),
        None => values.reshape(shape),
    }
}

impl<M: CausalLm> Policy for ModelPolicy<M> {
    type Input = ScoringBatch;
    type Error = RilError;

    fn token_log_probs(&self, input: &ScoringBatch) -> Result<Tensor<2>, RilError> {
        let Questions { hidden, targets, shape, places } = self.questions(input)?;
        let log_probs =
            selective_log_probs(hidden, self.model.head_weight(), targets, self.chunk_tokens, self.temperature)?;
        Ok(laid_out(log_probs, shape, places.as_ref()))
    }

    fn token_scores(&self, input: &ScoringBatch) -> Result<TokenScores, RilError> {
        let Questions { hidden, targets, shape, places } = self.questions(input)?;
        let scores = selective_scores(hidden, self.model.head_weight(), targets, self.chunk_tokens, self.temperature)?;
        let laid_out = |values| laid_out(values, shape, places.as_ref());
        Ok(TokenScores { log_probs: laid_out(scores.log_probs), entropy: scores.entropy.map(laid_out) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::Device;
    use ril_models::nn::kv_cache::KvCache;
    use ril_models::{ModelError, ModelInput};

    use super::*;
    use crate::group::Prompt;

    /// States that are a function of the token alone.
    struct Bigrams;

    impl CausalLm for Bigrams {
        fn hidden_states(&self, input: &ModelInput, _: Option<&mut KvCache>) -> Result<Tensor<3>, ModelError> {
            let state = |&id: &u32| (0..4).map(move |i| ((id * 7 + i) as f32 * 0.71).sin());
            let states: Vec<f32> = input.tokens.ids().iter().flat_map(state).collect();
            let shape = [input.tokens.rows(), input.tokens.seq(), 4];
            Ok(Tensor::from_data(TensorData::new(states, shape), &self.device()))
        }

        fn head_weight(&self) -> Tensor<2> {
            let weight: Vec<f32> = (0..40).map(|i| (i as f32 * 1.3).cos()).collect();
            Tensor::from_data(TensorData::new(weight, [4, 10]), &self.device())
        }

        fn new_cache(&self, _: usize, _: usize) -> KvCache {
            unreachable!("scoring needs no cache")
        }

        fn forbidden_ids(&self) -> &[u32] {
            &[]
        }

        fn device(&self) -> Device {
            Device::flex()
        }
    }

    #[test]
    fn rows_of_a_padded_batch_have_the_scores_that_they_have_alone() {
        let prompt = |ids: &[u32]| Arc::new(Prompt { token_ids: ids.to_vec(), images: None });
        let (a, b) = (prompt(&[1, 2, 3]), prompt(&[4]));
        let rows: [(&Arc<Prompt>, &[u32]); 4] = [(&a, &[5, 6]), (&b, &[]), (&a, &[7, 8, 9, 1]), (&b, &[2])];
        let policy = ModelPolicy::new(Bigrams);
        let scored = |rows: &[(&Arc<Prompt>, &[u32])]| {
            let scores = policy.token_scores(&ScoringBatch::new(rows).unwrap()).unwrap();
            let log_probs = policy.token_log_probs(&ScoringBatch::new(rows).unwrap()).unwrap();
            let values = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
            [values(scores.log_probs), values(log_probs), values(scores.entropy.unwrap())]
        };
        let together = scored(&rows);
        for (row, alone) in rows.iter().enumerate().filter(|(_, row)| !row.1.is_empty()) {
            for (together, alone) in together.iter().zip(scored(std::slice::from_ref(alone))) {
                assert!(together.iter().all(|value| value.is_finite()), "padding: {together:?}");
                assert_eq!(together[row * 4..][..alone.len()], alone, "row {row}");
            }
        }
        let want = |states: u32, id: usize| {
            let state: Vec<f32> = (0..4).map(|i| ((states * 7 + i) as f32 * 0.71).sin()).collect();
            let logit = |id: usize| (0..4).map(|i| state[i] * ((i * 10 + id) as f32 * 1.3).cos()).sum::<f32>();
            logit(id) - (0..10).map(|id| logit(id).exp()).sum::<f32>().ln()
        };
        let moved = (together[0][2 * 4 + 3] - want(9, 1)).abs();
        assert!(moved < 1e-5, "the last token of the third row is off by {moved}");
    }
}
