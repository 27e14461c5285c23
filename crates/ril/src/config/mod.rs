//! Settings of the recipe, nested by crate.

mod optimizer;

use std::collections::BTreeMap;

use ril_gail::{DiscriminatorMode, GailConfig, ReplayConfig};
use ril_grpo::{GrpoConfig, RowOrigin, RowRatio, RowRole, SamplerCorrection};
use ril_models::generate::SamplingParams;
use serde::{Deserialize, Serialize};

pub use self::optimizer::OptimizerSettings;
use crate::adapters::DiscriminatorPrompt;
use crate::error::RilError;
use crate::stage::batch_indices;

/// Who is in a group, and how many groups a step has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// Questions a step, at least 1.
    pub questions_per_step: usize,
    /// Student samples a question, at least 1; the paper's G.
    pub students_per_question: usize,
    /// Teacher responses a question; 0 for GRPO and Dr.GRPO, the paper's G for RIL.
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

/// In which steps a parameter of the policy without a gradient, or with one that is not finite, fails the step
/// ([`ril_grpo::check_gradients`]). Costs one device read for each parameter; a model that is shown no pictures gives its
/// vision tower no gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientChecks {
    /// In none.
    #[default]
    Never,
    /// In the first ones.
    FirstSteps(usize),
    /// In all.
    Always,
}

impl GradientChecks {
    /// Whether a step, counted from 0, is checked.
    #[must_use]
    pub fn covers(self, step: usize) -> bool {
        match self {
            Self::Never => false,
            Self::FirstSteps(steps) => step < steps,
            Self::Always => true,
        }
    }
}

/// Algorithm 2 of RIL; Algorithm 1 (GRPO, Dr.GRPO) is the same with no teachers and no discriminator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RilConfig {
    /// Loss, clip, KL, advantages.
    pub grpo: GrpoConfig,
    /// What stands below the ratio of a teacher row: RIL's `SameOld`, LUFFY's `BehaviourOne`, or CHORD's `Excluded` with
    /// `grpo.sft`. `Given` is refused: cached texts have no log-probabilities.
    #[serde(default = "ril_ratio")]
    pub teacher_ratio: RowRatio,
    /// Correction of student rows for the distribution that they were sampled from; `None`, the paper's, for none.
    #[serde(default)]
    pub sampler_correction: Option<SamplerCorrection>,
    /// Loud checks of the policy's gradients.
    #[serde(default)]
    pub gradient_checks: GradientChecks,
    /// Discriminator: online, frozen or absent; its updates. `micro_batch_rows` and `max_grad_norm` are those of
    /// `discriminator`.
    pub gail: GailConfig,
    /// Student texts of earlier steps that an online discriminator is shown again; `None`, the paper's, for none.
    #[serde(default)]
    pub replay: Option<ReplayConfig>,
    /// Weights of teachers in the discriminator's loss, by name, those that are not named weigh 1; all the same when
    /// empty. Takes the place of `gail.loss.teacher_weights`, which knows teachers by index.
    #[serde(default)]
    pub teacher_weights: BTreeMap<String, f32>,
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
    /// What an error leaves of a step's updates.
    #[serde(default)]
    pub failed_step: FailedStep,
    /// Steps of the loop.
    pub total_steps: usize,
    /// Seed of question order, sampling and shuffles.
    pub seed: u64,
}

/// What becomes of the updates of a step that ends in an error. The number of the step, and the texts of a replay, are
/// in both cases those of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedStep {
    /// They are taken back: the same step can be tried again. From the discriminator's update on until the step ends, its
    /// weights and moments of before take memory too, and with several updates of the policy those of the policy.
    #[default]
    TakenBack,
    /// Whole updates stay. Saves that memory, for programs that end with the first error: a run folder goes on from its last
    /// checkpoint.
    Kept,
}

impl RilConfig {
    /// RIL with the paper's settings (arXiv 2510.19307): G = 4, eps 0.2, beta 0.01, mu 1, learning rate
    /// 1e-6, temperature 1, top-p 0.95, top-k 50, repetition penalty 1.05, 144 rows a batch.
    #[must_use]
    pub fn ril(max_new_tokens: usize, total_steps: usize) -> Self {
        Self {
            grpo: GrpoConfig::ril(max_new_tokens),
            teacher_ratio: RowRatio::SameOld,
            sampler_correction: None,
            gradient_checks: GradientChecks::Never,
            gail: GailConfig::new(),
            replay: None,
            teacher_weights: BTreeMap::new(),
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
            failed_step: FailedStep::TakenBack,
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

    /// The same settings as Algorithm 1: the group holds the student's samples alone, and nothing is left that needs
    /// teachers.
    #[must_use]
    pub fn without_imitation(mut self) -> Self {
        self.gail.mode = DiscriminatorMode::Absent;
        self.groups.teachers_per_question = 0;
        (self.teacher_ratio, self.grpo.sft, self.replay) = (RowRatio::SameOld, None, None);
        (self.teacher_weights, self.gail.loss.teacher_weights) = (BTreeMap::new(), Vec::new());
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
        self.validate_teacher_rows()?;
        self.validate_replay()?;
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

    fn validate_replay(&self) -> Result<(), RilError> {
        let Some(replay) = self.replay else { return Ok(()) };
        if self.gail.mode != DiscriminatorMode::Online {
            return Err(RilError::Config("replay needs an online discriminator".into()));
        }
        if self.gail.loss.objective.is_on_pairs() {
            let message = "replay: expected a loss on rows, as an old text has no teacher's to be paired with";
            return Err(RilError::Config(message.into()));
        }
        Ok(replay.validate()?)
    }

    /// Which of so many questions the steps draw, in the order of their first turn.
    #[must_use]
    pub fn question_order(&self, questions: usize) -> Vec<usize> {
        // The steps walk along one sequence, whose first pass has each question once.
        let drawn = self.total_steps.saturating_mul(self.groups.questions_per_step);
        if questions == 0 { Vec::new() } else { batch_indices(questions, questions.min(drawn), 0, self.seed) }
    }

    /// `gail` for teachers of these names, in the order of their indices: [`RilConfig::teacher_weights`] in the place of
    /// `gail.loss.teacher_weights`.
    ///
    /// # Errors
    /// [`RilError::Config`] for a name or a number of weights that does not fit, or weights in both places.
    pub fn gail_for(&self, teachers: &[String]) -> Result<GailConfig, RilError> {
        let mut gail = self.gail.clone();
        let by_index = &mut gail.loss.teacher_weights;
        if !self.teacher_weights.is_empty() {
            if !by_index.is_empty() {
                return Err(RilError::Config("teacher_weights and gail.loss.teacher_weights are both set".into()));
            }
            if let Some(unknown) = self.teacher_weights.keys().find(|name| !teachers.contains(name)) {
                let message = format!("teacher_weights: expected a teacher among {teachers:?}, got {unknown}");
                return Err(RilError::Config(message));
            }
            *by_index = teachers.iter().map(|name| self.teacher_weights.get(name).copied().unwrap_or(1.0)).collect();
        } else if !by_index.is_empty() && by_index.len() != teachers.len() {
            let (expected, got) = (teachers.len(), by_index.len());
            return Err(RilError::Config(format!("gail.loss.teacher_weights: expected {expected} weights, got {got}")));
        }
        self.discriminator.validate_for_discriminator(&gail)?;
        Ok(gail)
    }

    fn validate_teacher_rows(&self) -> Result<(), RilError> {
        let refuse = |message: &str| Err(RilError::Config(message.into()));
        let has_teachers = self.groups.teachers_per_question > 0;
        RowRole { origin: RowOrigin::Teacher, ratio: self.teacher_ratio }.validate()?;
        if let Some(correction) = self.sampler_correction {
            correction.validate()?;
        }
        if !self.teacher_weights.is_empty() && self.gail.mode == DiscriminatorMode::Absent {
            return refuse("teacher_weights: expected a discriminator, whose loss they are for");
        }
        match self.teacher_ratio {
            RowRatio::SameOld => {}
            _ if !has_teachers => return refuse("teacher_ratio needs teachers_per_question of at least 1"),
            RowRatio::Given => return refuse("teacher_ratio: cached teacher responses have no log-probabilities"),
            RowRatio::Excluded if self.grpo.sft.is_none() => {
                return refuse("teacher_ratio: excluded rows need grpo.sft, or they are in the group for nothing");
            }
            _ => {}
        }
        match self.grpo.sft {
            // It would only shrink the rest of the loss.
            Some(_) if !has_teachers => refuse("grpo.sft needs teachers_per_question of at least 1"),
            _ => Ok(()),
        }
    }
}

fn ril_ratio() -> RowRatio {
    RowRatio::SameOld
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
    fn questions_stand_in_the_order_of_their_first_turn() {
        let mut config = RilConfig::ril(16, 3);
        config.groups.questions_per_step = 4;
        for questions in [1, 5, 12, 30] {
            let draws: Vec<usize> = (0..3).flat_map(|step| batch_indices(questions, 4, step, config.seed)).collect();
            let order = config.question_order(questions);
            let first = |question: &usize| draws.iter().position(|drawn| drawn == question).unwrap();
            assert!(order.is_sorted_by_key(first), "{order:?} for {draws:?}");
            assert_eq!(order.len(), questions.min(12), "each that is drawn, once");
        }
        assert!(config.question_order(0).is_empty());
    }

    #[test]
    fn teacher_rows_that_would_do_nothing_are_refused() {
        let message = |config: &RilConfig| config.validate().unwrap_err().to_string();
        let mut config = RilConfig::ril(16, 10);
        config.teacher_ratio = RowRatio::Given;
        assert!(message(&config).contains("log-probabilities"));
        config.teacher_ratio = RowRatio::Excluded;
        assert!(message(&config).contains("grpo.sft"));
        let token_weight = ril_grpo::SftTokenWeight::Uniform;
        config.grpo.sft = Some(ril_grpo::SftTerm { weight: 0.5, token_weight });
        config.replay = Some(ReplayConfig::new(100));
        config.validate().unwrap();
        config.clone().without_imitation().validate().unwrap();
        (config.gail.mode, config.groups.teachers_per_question) = (DiscriminatorMode::Absent, 0);
        assert!(message(&config).contains("teachers_per_question"));
    }

    #[test]
    fn settings_of_an_older_run_are_read() {
        let mut json = serde_json::to_value(RilConfig::ril(16, 10)).unwrap();
        for added in ["teacher_ratio", "sampler_correction", "gradient_checks", "replay", "teacher_weights"] {
            json.as_object_mut().unwrap().remove(added).unwrap();
        }
        let read: RilConfig = serde_json::from_value(json).unwrap();
        assert_eq!((read.teacher_ratio, read.gradient_checks), (RowRatio::SameOld, GradientChecks::Never));
        assert_eq!([0, 1, 2].map(|step| GradientChecks::FirstSteps(2).covers(step)), [true, true, false]);
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
}
