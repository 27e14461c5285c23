//! Settings of the recipe, nested by crate.

use ril_gail::{DiscriminatorMode, GailConfig};
use ril_grpo::GrpoConfig;
use ril_models::generate::SamplingParams;
use serde::{Deserialize, Serialize};

use crate::adapters::DiscriminatorPrompt;
use crate::error::RilError;

/// Who is in a group, and how many groups a step has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// Questions a step, at least 1.
    pub questions_per_step: usize,
    /// Student samples a question, at least 1; the paper's G.
    pub students_per_question: usize,
    /// Cached teacher responses a question; 0 for GRPO and Dr.GRPO, the paper's G for RIL.
    pub teachers_per_question: usize,
}

impl GroupPlan {
    /// Rows a question.
    #[must_use]
    pub fn group_size(&self) -> usize {
        self.students_per_question + self.teachers_per_question
    }
}

/// What the two rewards weigh.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewardWeights {
    /// Of the similarity reward, `1[p_student < 0.5]`; ignored without a discriminator.
    pub similarity: f32,
    /// Of the answer reward, `1[right]`.
    pub answer: f32,
}

/// AdamW and what surrounds it, for one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSettings {
    /// Learning rate at the first step.
    pub learning_rate: f64,
    /// Learning rate at the last step; linear in between (the paper: 1e-5 to 1e-6 for SFT and discriminator
    /// pre-training, constant 1e-6 in the loop).
    pub final_learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Bound on the norm of all gradients together; `None` leaves them.
    pub max_grad_norm: Option<f32>,
    /// Rows of one forward and backward pass; bounds memory, changes no gradient. A discriminator's update takes at
    /// least 2, so that both origins fit.
    pub micro_batch_rows: usize,
    /// Passes that run side by side on threads of their own. Networks too small to keep the cores busy gain; each
    /// pass needs memory of its own. Changes no gradient: they are added in the order of the micro-batches. 1 for a
    /// discriminator, whose update knows no other way.
    pub passes_at_once: usize,
}

impl OptimizerSettings {
    /// A constant learning rate, no weight decay, gradients clipped at norm 1.
    #[must_use]
    pub fn constant(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            final_learning_rate: learning_rate,
            weight_decay: 0.0,
            max_grad_norm: Some(1.0),
            micro_batch_rows: 64,
            passes_at_once: 1,
        }
    }

    /// Learning rate of a step, counted from 0.
    #[must_use]
    pub fn learning_rate_at(&self, step: usize, total_steps: usize) -> f64 {
        let done = step as f64 / (total_steps.max(2) - 1) as f64;
        self.learning_rate + (self.final_learning_rate - self.learning_rate) * done.min(1.0)
    }

    /// A discriminator's update under these settings: one source for what both name.
    pub(crate) fn discriminator_update(&self, config: &GailConfig) -> GailConfig {
        let mut config = config.clone();
        config.micro_batch_rows = self.micro_batch_rows.max(2);
        config.max_grad_norm = self.max_grad_norm;
        config
    }

    pub(crate) fn validate_for_discriminator(&self, config: &GailConfig) -> Result<(), RilError> {
        self.validate()?;
        if self.passes_at_once != 1 {
            let message = format!("passes_at_once of a discriminator: expected 1, got {}", self.passes_at_once);
            return Err(RilError::Config(message));
        }
        Ok(self.discriminator_update(config).validate()?)
    }

    /// # Errors
    /// [`RilError::Config`] with the broken constraint.
    pub fn validate(&self) -> Result<(), RilError> {
        let rates = [self.learning_rate, self.final_learning_rate, f64::from(self.weight_decay)];
        if rates.iter().any(|r| !r.is_finite() || *r < 0.0) {
            return Err(RilError::Config("learning rates and weight decay must be finite and not negative".into()));
        }
        if self.micro_batch_rows == 0 || self.passes_at_once == 0 {
            let message = "micro_batch_rows and passes_at_once: expected at least 1, got 0";
            return Err(RilError::Config(message.into()));
        }
        match self.max_grad_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => {
                Err(RilError::Config(format!("max_grad_norm: expected a finite number above 0, got {norm}")))
            }
            _ => Ok(()),
        }
    }
}

/// Algorithm 2 of RIL; Algorithm 1 (GRPO, Dr.GRPO) is the same with no teachers and no discriminator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RilConfig {
    /// Loss, clip, KL, advantages.
    pub grpo: GrpoConfig,
    /// Discriminator: online, frozen or absent; its updates. `micro_batch_rows` and `max_grad_norm` are those of
    /// `discriminator`.
    pub gail: GailConfig,
    /// What the discriminator is shown.
    pub prompt: DiscriminatorPrompt,
    /// Sampling of the student, temperature above 0; `num_samples` is taken from [`GroupPlan`].
    pub sampling: SamplingParams,
    /// Rows sampled at once, but at least the samples of one question; bounds memory, and with the seed fixes the noise.
    pub rows_at_once: usize,
    /// Groups.
    pub groups: GroupPlan,
    /// Rewards.
    pub rewards: RewardWeights,
    /// Optimizer of the policy.
    pub policy: OptimizerSettings,
    /// Optimizer of the discriminator.
    pub discriminator: OptimizerSettings,
    /// Policy updates on each batch of rollouts; the paper's mu, which is best at 1 (Table 5).
    pub updates_per_rollout: usize,
    /// Steps of the loop.
    pub total_steps: usize,
    /// Seed of question order, sampling and shuffles.
    pub seed: u64,
}

impl RilConfig {
    /// RIL with the paper's settings (arXiv 2510.19307, section 4.1): G = 4, eps 0.2, beta 0.01, mu 1, learning rate
    /// 1e-6, temperature 1, top-p 0.95, top-k 50, repetition penalty 1.05, 144 rows a batch.
    #[must_use]
    pub fn ril(max_new_tokens: usize, total_steps: usize) -> Self {
        Self {
            grpo: GrpoConfig::ril(max_new_tokens),
            gail: GailConfig::new(),
            prompt: DiscriminatorPrompt::default(),
            sampling: SamplingParams {
                max_new_tokens,
                top_p: 0.95,
                top_k: 50,
                repetition_penalty: 1.05,
                ..SamplingParams::default()
            },
            rows_at_once: 256,
            groups: GroupPlan { questions_per_step: 18, students_per_question: 4, teachers_per_question: 4 },
            rewards: RewardWeights { similarity: 1.0, answer: 1.0 },
            policy: OptimizerSettings::constant(1e-6),
            discriminator: OptimizerSettings::constant(1e-6),
            updates_per_rollout: 1,
            total_steps,
            seed: 0,
        }
    }

    /// Dr.GRPO with the same sampling and KL: no teachers, no discriminator, the answer reward alone.
    #[must_use]
    pub fn dr_grpo(max_new_tokens: usize, total_steps: usize) -> Self {
        Self::ril(max_new_tokens, total_steps).without_imitation()
    }

    /// GRPO: as Dr.GRPO, with advantages divided by the group's deviation and a mean over each row's tokens.
    #[must_use]
    pub fn grpo(max_new_tokens: usize, total_steps: usize) -> Self {
        let mut config = Self::dr_grpo(max_new_tokens, total_steps);
        config.grpo = GrpoConfig::grpo().with_beta(config.grpo.beta);
        config
    }

    /// The same settings as Algorithm 1: the group holds the student's samples alone.
    #[must_use]
    pub fn without_imitation(mut self) -> Self {
        self.gail.mode = DiscriminatorMode::Absent;
        self.groups.teachers_per_question = 0;
        self
    }

    /// Whether the similarity reward exists.
    #[must_use]
    pub fn has_discriminator(&self) -> bool {
        self.gail.mode != DiscriminatorMode::Absent
    }

    /// # Errors
    /// [`RilError::Config`] and the cores' own with the broken constraint.
    pub fn validate(&self) -> Result<(), RilError> {
        self.grpo.validate()?;
        // The loop gives the loss neither entropies nor roles of rows: a supervised term would only shrink the rest.
        let unfed = [("entropy_coefficient", self.grpo.entropy_coefficient > 0.0), ("sft", self.grpo.sft.is_some())];
        if let Some((name, _)) = unfed.iter().find(|(_, is_set)| *is_set) {
            return Err(RilError::Config(format!(
                "grpo.{name}: not served by this loop; ril_grpo::policy_loss has it"
            )));
        }
        if self.has_discriminator() {
            self.discriminator.validate_for_discriminator(&self.gail)?;
        }
        self.sampling.validate()?;
        if self.sampling.temperature <= 0.0 {
            let message = "temperature: expected a number above 0, as equal samples teach nothing, got 0";
            return Err(RilError::Config(message.into()));
        }
        self.policy.validate()?;
        let at_least_one = [
            ("rows_at_once", self.rows_at_once),
            ("questions_per_step", self.groups.questions_per_step),
            ("students_per_question", self.groups.students_per_question),
            ("updates_per_rollout", self.updates_per_rollout),
            ("total_steps", self.total_steps),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(RilError::Config(format!("{name}: expected at least 1, got 0")));
        }
        if self.groups.group_size() < 2 {
            return Err(RilError::Config("group_size: expected at least 2 rows a question, got 1".into()));
        }
        if self.has_discriminator() && self.groups.teachers_per_question == 0 {
            return Err(RilError::Config("a discriminator needs teachers_per_question of at least 1".into()));
        }
        if !(self.rewards.similarity.is_finite() && self.rewards.answer.is_finite()) {
            return Err(RilError::Config("reward weights must be finite".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_json() {
        for config in [RilConfig::ril(16, 10), RilConfig::dr_grpo(16, 10), RilConfig::grpo(16, 10)] {
            config.validate().unwrap();
            let json = serde_json::to_string(&config).unwrap();
            let read: RilConfig = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
    }

    #[test]
    fn broken_settings_are_named() {
        let mut lonely = RilConfig::dr_grpo(16, 10);
        lonely.groups.students_per_question = 1;
        assert!(lonely.validate().unwrap_err().to_string().contains("group_size"));
        let mut unmatched = RilConfig::ril(16, 10);
        unmatched.groups.teachers_per_question = 0;
        assert!(unmatched.validate().unwrap_err().to_string().contains("teachers_per_question"));
        let mut greedy = RilConfig::ril(16, 10);
        greedy.sampling.temperature = 0.0;
        assert!(greedy.validate().unwrap_err().to_string().contains("temperature"));
        let mut threaded = RilConfig::ril(16, 10);
        threaded.discriminator.passes_at_once = 2;
        assert!(threaded.validate().unwrap_err().to_string().contains("passes_at_once"));
        threaded.without_imitation().validate().unwrap();
    }

    #[test]
    fn terms_that_the_loop_does_not_feed_are_refused() {
        let mut bonus = RilConfig::ril(16, 10);
        bonus.grpo.entropy_coefficient = 0.01;
        assert!(bonus.validate().unwrap_err().to_string().contains("entropy_coefficient"));
        let mut supervised = RilConfig::ril(16, 10);
        let token_weight = ril_grpo::SftTokenWeight::Uniform;
        supervised.grpo.sft = Some(ril_grpo::SftTerm { weight: 0.5, token_weight });
        assert!(supervised.validate().unwrap_err().to_string().contains("sft"));
    }

    #[test]
    fn one_row_a_pass_is_enough_for_a_policy_and_two_for_a_discriminator() {
        let mut config = RilConfig::ril(16, 10);
        config.policy.micro_batch_rows = 1;
        config.discriminator.micro_batch_rows = 1;
        config.validate().unwrap();
        config.discriminator.max_grad_norm = Some(0.5);
        let update = config.discriminator.discriminator_update(&config.gail);
        assert_eq!((update.micro_batch_rows, update.max_grad_norm), (2, Some(0.5)));
    }

    #[test]
    fn learning_rates_go_linearly_to_the_last_step() {
        let settings = OptimizerSettings { final_learning_rate: 0.0, ..OptimizerSettings::constant(1.0) };
        assert_eq!([0, 5, 10].map(|s| settings.learning_rate_at(s, 11)), [1.0, 0.5, 0.0]);
    }
}
