//! Phases 1 and 2: the discriminator is sharpened on the responses of a step, then asked about each.

use std::path::Path;

use burn::tensor::Device;
use ril_gail::{
    DiscriminatorUpdate, GailConfig, LlmDiscriminator, Opinion, Round, RowsFromFn, ScalarHeadConfig, logits_of_rows,
    update_discriminator,
};
use ril_models::nn::init::{InitialStd, init_weights};

use crate::adapters::{DiscriminatorPrompt, LmEncoder, authors, lengths, response_rows, teacher_indices};
use crate::config::OptimizerSettings;
use crate::error::RilError;
use crate::group::Group;
use crate::learner::{Learner, TrainableModel};
use crate::rollout::mix_seed;
use crate::stage::{Stage, StageMetrics, batch_indices};

/// The discriminator of RIL: the student's network with a scalar head.
pub type RilDiscriminator<M> = LlmDiscriminator<LmEncoder<M>>;

/// A discriminator that starts from the student's weights; the head from a normal distribution of deviation 0.02.
///
/// `device` must be an autodiff device if the discriminator is to be trained.
pub fn discriminator_from<M: TrainableModel>(student: M, seed: u64, device: &Device) -> RilDiscriminator<M> {
    let hidden_size = student.head_weight().dims()[0];
    let head = init_weights(ScalarHeadConfig::new(hidden_size).init(device), InitialStd::Fixed(0.02), seed);
    LlmDiscriminator::new(LmEncoder { model: student }, head)
}

/// Phase 1: `config.updates_per_round` passes of Eq. 1 over all responses, origins shuffled into every micro-batch.
///
/// Rows a micro-batch and the bound on the gradients are those of the learner's settings, whatever `config` says.
///
/// # Errors
/// [`RilError::Gail`]: a group without students or without teachers, numbers that are not finite.
pub fn sharpen<M: TrainableModel>(
    discriminator: &mut Learner<RilDiscriminator<M>>,
    prompt: &DiscriminatorPrompt,
    groups: &[Group],
    config: &GailConfig,
    round: Round,
) -> Result<DiscriminatorUpdate, RilError> {
    let origins = authors(groups);
    let rows = response_rows(&discriminator.model().encoder().model, prompt, groups, &origins)?;
    let config = discriminator.settings().discriminator_update(config);
    Ok(discriminator.replace(|model, optimizer| {
        let (encoder, head) = model.into_parts();
        let model = LlmDiscriminator::new(encoder.at_step(round.index), head);
        update_discriminator(model, optimizer, &rows, round, &config)
    })?)
}

/// Phase 2: the logit of every response, high = student, one device read.
///
/// # Errors
/// [`RilError::Gail`].
pub fn score_responses<M: TrainableModel>(
    discriminator: &RilDiscriminator<M>,
    prompt: &DiscriminatorPrompt,
    groups: &[Group],
    micro_batch_rows: usize,
) -> Result<Vec<f32>, RilError> {
    let origins = authors(groups);
    let rows = response_rows(&discriminator.encoder().model, prompt, groups, &origins)?;
    Ok(logits_of_rows(discriminator, &rows, micro_batch_rows)?)
}

/// What the discriminator thinks of responses whose logits are known, [`score_responses`]'s, say: every statistic that
/// there is, for one that is not updated.
///
/// # Errors
/// [`RilError::Gail`]: one logit for each response, responses of both origins.
pub fn opinion(logits_student_is_high: &[f32], groups: &[Group]) -> Result<Opinion, RilError> {
    let origins = authors(groups);
    // An opinion asks for no input.
    let rows = RowsFromFn::new(&origins, |_: &[usize]| Ok::<(), RilError>(()));
    let rows = rows.with_teachers(teacher_indices(groups)).with_lengths(lengths(groups));
    Ok(Opinion::of_rows(logits_student_is_high, &rows)?)
}

/// Pre-trains a discriminator on cached responses (the paper: 16 of the student and 16 of teachers a question).
#[derive(Debug)]
pub struct DiscriminatorTrainer<M: TrainableModel> {
    learner: Learner<RilDiscriminator<M>>,
    groups: Vec<Group>,
    prompt: DiscriminatorPrompt,
    config: GailConfig,
    plan: PretrainPlan,
    teachers: Vec<String>,
    step: usize,
}

/// Length and size of discriminator pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PretrainPlan {
    /// Groups a step.
    pub groups_per_step: usize,
    /// Steps.
    pub total_steps: usize,
    /// Seed of the order of groups.
    pub seed: u64,
}

impl<M: TrainableModel> DiscriminatorTrainer<M> {
    /// `groups` hold responses of both origins.
    ///
    /// # Errors
    /// [`RilError::Config`] without groups or steps, or with an invalid configuration.
    pub fn new(
        discriminator: RilDiscriminator<M>,
        optimizer: OptimizerSettings,
        groups: Vec<Group>,
        (prompt, config): (DiscriminatorPrompt, GailConfig),
        plan: PretrainPlan,
    ) -> Result<Self, RilError> {
        optimizer.validate_for_discriminator(&config)?;
        if groups.is_empty() || plan.groups_per_step == 0 || plan.total_steps == 0 {
            return Err(RilError::Config("discriminator pre-training needs groups and at least one step".into()));
        }
        Ok(Self {
            learner: Learner::of_discriminator(discriminator, optimizer),
            groups,
            prompt,
            config,
            plan,
            teachers: Vec::new(),
            step: 0,
        })
    }

    /// The same with names for the teachers' numbers, in the order of their indices.
    #[must_use]
    pub fn with_teachers(self, teachers: Vec<String>) -> Self {
        Self { teachers, ..self }
    }

    /// The discriminator as it is now, trainable.
    #[must_use]
    pub fn discriminator(&self) -> RilDiscriminator<M> {
        self.learner.model().clone()
    }
}

impl<M: TrainableModel> Stage for DiscriminatorTrainer<M> {
    fn total_steps(&self) -> usize {
        self.plan.total_steps
    }

    fn next_step(&self) -> usize {
        self.step
    }

    fn step(&mut self) -> Result<StageMetrics, RilError> {
        let plan = self.plan;
        let picked = batch_indices(self.groups.len(), plan.groups_per_step, self.step, plan.seed);
        let groups: Vec<Group> = picked.iter().map(|&i| self.groups[i].clone()).collect();
        let rate = self.learner.settings().learning_rate_at(self.step, plan.total_steps);
        let round = Round::new(mix_seed(plan.seed, self.step as u64), rate).with_number(self.step as u64);
        let before = (self.config.updates_per_round > 1).then(|| self.learner.snapshot());
        let update = match sharpen(&mut self.learner, &self.prompt, &groups, &self.config, round) {
            Ok(update) => update,
            Err(error) => {
                before.into_iter().for_each(|snapshot| self.learner.go_back(snapshot));
                return Err(error);
            }
        };
        self.step += 1;
        let mut metrics = StageMetrics::default();
        put_update(&mut metrics, &update, &self.teachers);
        Ok(metrics)
    }

    fn save(&self, folder: &Path) -> Result<(), RilError> {
        self.learner.save(folder, "discriminator", self.step)
    }

    fn restore(&mut self, folder: &Path, step: usize) -> Result<(), RilError> {
        self.learner.restore(folder, "discriminator", step)?;
        self.step = step;
        Ok(())
    }
}

/// Numbers of a discriminator that is not updated.
pub(crate) fn put_opinion(metrics: &mut StageMetrics, opinion: &Opinion, teachers: &[String]) {
    metrics.extend(opinion.entries());
    put_teachers(metrics, opinion, teachers);
}

/// Numbers of an update, and of the opinion before it.
pub(crate) fn put_update(metrics: &mut StageMetrics, update: &DiscriminatorUpdate, teachers: &[String]) {
    metrics.extend(update.entries());
    put_teachers(metrics, &update.before, teachers);
}

/// Numbers of each teacher, by its name.
fn put_teachers(metrics: &mut StageMetrics, opinion: &Opinion, teachers: &[String]) {
    for stats in &opinion.teachers {
        let name = teachers.get(stats.teacher).cloned().unwrap_or_else(|| stats.teacher.to_string());
        metrics.put(format!("discriminator/accuracy_teacher/{name}"), f64::from(stats.accuracy));
        metrics.put(format!("discriminator/p_student_teacher/{name}"), f64::from(stats.mean_p));
    }
}
