//! Supervised fine-tuning on given answers: the stage before the loop.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Bool, Tensor, TensorData};
use ril_grpo::Policy;
use serde::{Deserialize, Serialize};

use crate::adapters::ModelPolicy;
use crate::config::OptimizerSettings;
use crate::error::RilError;
use crate::group::{Prompt, ScoringBatch};
use crate::learner::{Learner, TrainableModel, sum_gradients};
use crate::rollout::mix_seed;
use crate::stage::{Stage, StageMetrics, batch_indices};

/// Settings of SFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftConfig {
    /// Examples a step.
    pub rows_per_step: usize,
    /// Steps.
    pub total_steps: usize,
    /// Optimizer.
    pub optimizer: OptimizerSettings,
    /// Seed of the order of examples.
    pub seed: u64,
}

impl SftConfig {
    /// # Errors
    /// [`RilError::Config`] with the broken constraint.
    pub fn validate(&self) -> Result<(), RilError> {
        self.optimizer.validate()?;
        if self.rows_per_step == 0 || self.total_steps == 0 {
            return Err(RilError::Config("SFT needs at least one row a step and one step".into()));
        }
        Ok(())
    }
}

/// A prompt and the ids of the answer to learn, stop token included.
#[derive(Debug, Clone)]
pub struct SftExample {
    /// What is shown.
    pub prompt: Arc<Prompt>,
    /// What should be said.
    pub completion: Vec<u32>,
}

/// Trains a model on examples: mean cross-entropy over all completion tokens of a step.
#[derive(Debug)]
pub struct SftTrainer<M> {
    learner: Learner<M>,
    examples: Vec<SftExample>,
    config: SftConfig,
    step: usize,
}

impl<M: TrainableModel> SftTrainer<M> {
    /// `model` must stand on an autodiff device.
    ///
    /// # Errors
    /// [`RilError::Config`] without examples, steps or rows.
    pub fn new(model: M, examples: Vec<SftExample>, config: SftConfig) -> Result<Self, RilError> {
        config.validate()?;
        if examples.is_empty() {
            return Err(RilError::Config("SFT needs at least one example".into()));
        }
        Ok(Self { learner: Learner::new(model, config.optimizer.clone()), examples, config, step: 0 })
    }

    /// The trainable model, for a next stage.
    #[must_use]
    pub fn into_model(self) -> M {
        self.learner.into_model()
    }

    /// The model as it is now, without autodiff.
    #[must_use]
    pub fn model(&self) -> M {
        self.learner.view()
    }
}

impl<M: TrainableModel> Stage for SftTrainer<M> {
    fn total_steps(&self) -> usize {
        self.config.total_steps
    }

    fn next_step(&self) -> usize {
        self.step
    }

    fn step(&mut self) -> Result<StageMetrics, RilError> {
        let picked = batch_indices(self.examples.len(), self.config.rows_per_step, self.step, self.config.seed);
        let mut rows: Vec<&SftExample> = picked.iter().map(|&i| &self.examples[i]).collect();
        // Rows of like length stand together, so that micro-batches hold little padding.
        rows.sort_by_key(|r| r.completion.len());
        let tokens: usize = rows.iter().map(|r| r.completion.len()).sum();
        let settings = &self.config.optimizer;
        let parts: Vec<&[&SftExample]> = rows.chunks(settings.micro_batch_rows).collect();
        let pass = |model: &M, part: &&[&SftExample]| {
            let rows: Vec<_> = part.iter().map(|r| (&r.prompt, r.completion.as_slice())).collect();
            let batch = ScoringBatch::new(&rows)?;
            let log_probs = ModelPolicy::new(model.clone()).token_log_probs(&batch)?;
            let mask = TensorData::new(batch.completion_mask.clone(), log_probs.dims());
            let padding = Tensor::<2, Bool>::from_data(mask, &model.device()).bool_not();
            let loss = log_probs.mask_fill(padding, 0.0).sum().neg() / tokens as f64;
            Ok((loss.clone(), loss.inner()))
        };
        let model = self.learner.model().clone().at_step(mix_seed(self.config.seed, self.step as u64));
        let (gradients, losses) = sum_gradients(&model, &parts, settings.passes_at_once, pass)?;
        // A copy that outlived the passes would keep the optimizer from writing in place.
        drop(model);
        let loss: f32 = Tensor::cat(losses, 0).sum().into_scalar();
        if !loss.is_finite() {
            return Err(RilError::NonFinite { step: self.step, what: "SFT loss", value: loss });
        }
        let learning_rate = self.config.optimizer.learning_rate_at(self.step, self.config.total_steps);
        let grad_norm = self.learner.step(gradients, learning_rate)?;
        self.step += 1;
        let mut metrics = StageMetrics::default();
        metrics.put("loss", f64::from(loss));
        metrics.put("grad_norm", f64::from(grad_norm));
        metrics.put("learning_rate", learning_rate);
        Ok(metrics)
    }

    fn save(&self, folder: &Path) -> Result<(), RilError> {
        self.learner.save(folder, "model", self.step)
    }

    fn restore(&mut self, folder: &Path, step: usize) -> Result<(), RilError> {
        self.learner.restore(folder, "model", step)?;
        self.step = step;
        Ok(())
    }
}
