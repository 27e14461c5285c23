use super::{check_range, clip_scores, gate_scores, score_part};
use crate::{Reward, RewardError, Sample};

/// [`gate_scores`] as a reward: `gate * reward`, named after the reward.
#[derive(Clone, Debug)]
pub struct JudgeGate<G, R> {
    gate: G,
    reward: R,
}

impl<G: Reward, R: Reward> JudgeGate<G, R> {
    /// `reward` where `gate` scores 1, 0 where `gate` scores 0.
    pub fn new(gate: G, reward: R) -> Self {
        Self { gate, reward }
    }
}

impl<G: Reward, R: Reward> Reward for JudgeGate<G, R> {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        let gate = score_part(self.name(), &self.gate, samples)?;
        gate_scores(&gate, &score_part(self.name(), &self.reward, samples)?)
    }
}

/// [`clip_scores`] as a reward, named after the reward within.
#[derive(Clone, Debug)]
pub struct Clip<R> {
    reward: R,
    min: f32,
    max: f32,
}

impl<R: Reward> Clip<R> {
    /// `reward` kept in `[min, max]`.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless `min <= max`.
    pub fn new(reward: R, min: f32, max: f32) -> Result<Self, RewardError> {
        check_range(min, max)?;
        Ok(Self { reward, min, max })
    }
}

impl<R: Reward> Reward for Clip<R> {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        clip_scores(&score_part(self.name(), &self.reward, samples)?, self.min, self.max)
    }
}
