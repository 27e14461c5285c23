//! The loop with samples from elsewhere, which may be drawn while the policy still learns from the ones before.

use std::path::Path;

use ril_models::generate::SamplingParams;
use ril_reward::Judge;
use serde::{Deserialize, Serialize};

use crate::error::RilError;
use crate::group::{Question, Response};
use crate::learner::TrainableModel;
use crate::rollout::Rollout;
use crate::stage::{Stage, StageMetrics};
use crate::trainer::RilTrainer;

/// What a step asks a rollout for.
#[derive(Debug, Clone)]
pub struct Draw {
    /// Number of the step.
    pub step: usize,
    /// The questions whose turn it is.
    pub questions: Vec<Question>,
    /// How to sample, with a seed of this step's own.
    pub params: SamplingParams,
}

impl Draw {
    /// Samples for each question.
    ///
    /// # Errors
    /// The rollout's own; [`RilError::Input`] when it answers another number of questions.
    pub fn sample(&self, rollout: &mut impl Rollout) -> Result<Vec<Vec<Response>>, RilError> {
        let sampled = rollout.sample(&self.questions, &self.params)?;
        if sampled.len() == self.questions.len() {
            return Ok(sampled);
        }
        let (expected, got) = (self.questions.len(), sampled.len());
        Err(RilError::Input(format!("rollout: expected samples for {expected} questions, got {got}")))
    }
}

/// When the samples of a step are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleTime {
    /// Before the step, from the policy as it is then.
    #[default]
    BeforeStep,
    /// While the step before is still computed, from the policy of before it: one step stale, and the servers are never idle.
    /// Give the loop a [`sampler_correction`](crate::RilConfig::sampler_correction).
    DuringStepBefore,
}

/// A [`RilTrainer`] whose samples come from a [`Rollout`] of its own: a server, a recorded file.
///
/// Before it samples, `follow` is told of the policy, so that servers get its weights (`server::ServerRollout::push_adapter`, with
/// the feature `http`); an error of it comes before anything has changed. Samples that were drawn ahead are no part of a
/// checkpoint: a run that goes on draws them anew.
pub struct ServedStage<M: TrainableModel, J, R, F> {
    trainer: RilTrainer<M, J>,
    rollout: R,
    follow: F,
    time: SampleTime,
    followed: Option<usize>,
    ahead: Option<(Draw, Vec<Vec<Response>>)>,
}

impl<M: TrainableModel, J, R, F> std::fmt::Debug for ServedStage<M, J, R, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedStage")
            .field("time", &self.time)
            .field("followed", &self.followed)
            .finish_non_exhaustive()
    }
}

impl<M, J, R, F> ServedStage<M, J, R, F>
where
    M: TrainableModel,
    J: Judge + Sync,
    R: Rollout + Send,
    F: FnMut(&mut R, &RilTrainer<M, J>) -> Result<(), RilError>,
{
    /// A stage that samples from `rollout`.
    pub fn new(trainer: RilTrainer<M, J>, rollout: R, follow: F, time: SampleTime) -> Self {
        Self { trainer, rollout, follow, time, followed: None, ahead: None }
    }

    /// The trainer within.
    pub fn trainer(&self) -> &RilTrainer<M, J> {
        &self.trainer
    }

    /// The trainer, without its rollout.
    pub fn into_trainer(self) -> RilTrainer<M, J> {
        self.trainer
    }

    fn draw(&mut self, step: usize) -> Result<(Draw, Vec<Vec<Response>>), RilError> {
        if let Some(ahead) = self.ahead.take_if(|(draw, _)| draw.step == step) {
            return Ok(ahead);
        }
        let draw = self.trainer.draw(step);
        let sampled = draw.sample(&mut self.rollout)?;
        Ok((draw, sampled))
    }
}

impl<M, J, R, F> Stage for ServedStage<M, J, R, F>
where
    M: TrainableModel,
    J: Judge + Sync,
    R: Rollout + Send,
    F: FnMut(&mut R, &RilTrainer<M, J>) -> Result<(), RilError>,
{
    fn total_steps(&self) -> usize {
        self.trainer.total_steps()
    }

    fn next_step(&self) -> usize {
        self.trainer.next_step()
    }

    fn step(&mut self) -> Result<StageMetrics, RilError> {
        let step = self.trainer.next_step();
        if self.followed != Some(step) {
            (self.follow)(&mut self.rollout, &self.trainer)?;
            self.followed = Some(step);
        }
        let (draw, sampled) = self.draw(step)?;
        let groups = match self.trainer.groups(draw.clone(), sampled.clone()) {
            Ok(groups) => groups,
            Err(error) => {
                self.ahead = Some((draw, sampled));
                return Err(error);
            }
        };
        let is_ahead = self.time == SampleTime::DuringStepBefore && step + 1 < self.trainer.total_steps();
        let next = is_ahead.then(|| self.trainer.draw(step + 1));
        let (trainer, rollout) = (&mut self.trainer, &mut self.rollout);
        let (metrics, ahead) = std::thread::scope(|scope| {
            let ahead = next.map(|draw| scope.spawn(move || draw.sample(rollout).map(|sampled| (draw, sampled))));
            let metrics = trainer.step_or_pass(&groups);
            (metrics, ahead.map(|ahead| ahead.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
        });
        if metrics.is_err() {
            // The same step can be tried again, on the same samples.
            self.ahead = Some((draw, sampled));
            return metrics;
        }
        // A failure to sample ahead is no failure of this step: the next one samples again, and fails if it must.
        self.ahead = ahead.and_then(Result::ok);
        metrics
    }

    fn save(&self, folder: &Path) -> Result<(), RilError> {
        self.trainer.save(folder)
    }

    fn restore(&mut self, folder: &Path, step: usize) -> Result<(), RilError> {
        (self.ahead, self.followed) = (None, None);
        self.trainer.restore(folder, step)
    }
}
