//! Algorithm 2 of RIL (arXiv 2510.19307) as five calls.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use ril_gail::{DiscriminatorMode, DiscriminatorUpdate, Round, ScoreOrder};
use ril_grpo::RowRatio;
use ril_models::generate::SamplingParams;
use ril_reward::Judge;

use crate::adapters::lengths;
use crate::config::{FailedStep, GroupPlan, RilConfig};
use crate::error::RilError;
use crate::group::{Group, Origin, Question, Response};
use crate::imitation::{RilDiscriminator, opinion, put_opinion, put_update, score_responses, sharpen};
use crate::learner::{Learner, TrainableModel};
use crate::metrics::Rows;
use crate::monitor::LINE_METRICS;
use crate::optimise::{PolicyUpdate, UpdatePlan, optimise};
use crate::replay::StudentReplay;
use crate::rollout::{LocalRollout, Rollout, mix_seed};
use crate::score::{Scores, judge_groups, rewards};
use crate::served::Draw;
use crate::special::neutralised;
use crate::stage::{Stage, StageMetrics, batch_indices};
use crate::teacher::TeacherCache;

/// What a run trains on.
#[derive(Debug, Clone)]
pub struct TrainingData<J> {
    /// Questions, in any order.
    pub questions: Vec<Question>,
    /// Teacher responses; empty for Algorithm 1.
    pub teachers: TeacherCache,
    /// Decides whether an answer is right.
    pub judge: J,
}

/// Owns models and optimizers and calls the phases; nothing else.
///
/// The reference policy is the policy as it was given. The discriminator may be online, frozen or absent; without one
/// and without teachers the loop is GRPO or Dr.GRPO (Algorithm 1).
#[derive(Debug)]
pub struct RilTrainer<M: TrainableModel, J> {
    policy: Learner<M>,
    reference: M,
    discriminator: Option<Learner<RilDiscriminator<M>>>,
    replay: Option<StudentReplay>,
    data: Arc<TrainingData<J>>,
    config: RilConfig,
    step: usize,
}

impl<M: TrainableModel, J: Judge + Sync> RilTrainer<M, J> {
    /// `policy` and `discriminator` must stand on an autodiff device.
    ///
    /// # Errors
    /// [`RilError::Config`] when the configuration is broken, asks for a discriminator that is not given, or there
    /// are no questions; [`RilError::TeacherResponses`] when a teacher has no response to a question.
    pub fn new(
        policy: M,
        discriminator: Option<RilDiscriminator<M>>,
        data: TrainingData<J>,
        mut config: RilConfig,
    ) -> Result<Self, RilError> {
        config.validate()?;
        if config.has_discriminator() {
            config.gail = config.gail_for(data.teachers.teachers())?;
        }
        if data.questions.is_empty() {
            return Err(RilError::Config("the loop needs at least one question".into()));
        }
        if config.has_discriminator() != discriminator.is_some() {
            return Err(RilError::Config("gail.mode and the discriminator given do not agree".into()));
        }
        if config.groups.teachers_per_question > 0 {
            data.teachers.check_covers(&data.questions)?;
        }
        Ok(Self {
            reference: policy.valid(),
            policy: Learner::new(policy, config.policy.clone()),
            discriminator: discriminator.map(|d| Learner::of_discriminator(d, config.discriminator.clone())),
            replay: config.replay.map(StudentReplay::new).transpose()?,
            data: Arc::new(data),
            config,
            step: 0,
        })
    }

    /// The policy as it is now, without autodiff.
    #[must_use]
    pub fn policy(&self) -> M {
        self.policy.view()
    }

    /// The discriminator as it is now, without autodiff; `None` where there is none.
    #[must_use]
    pub fn discriminator(&self) -> Option<RilDiscriminator<M>> {
        self.discriminator.as_ref().map(Learner::view)
    }

    /// The next step's groups: samples of `rollout` and teacher responses to the questions whose turn it is.
    ///
    /// [`Stage::step`] samples from the policy in this process. A server or a recorded file takes its place so, as long
    /// as it answers as the policy would now, or says how likely its samples were: phase 5 takes the samples for the policy's own,
    /// but for the [`sampler_correction`](RilConfig::sampler_correction).
    ///
    /// Then [`RilTrainer::step_on`] the groups, before the next call; [`RilTrainer::pass`] where there are none.
    /// [`ServedStage`](crate::ServedStage) is this loop.
    ///
    /// # Errors
    /// The rollout's own; those of [`RilTrainer::groups`].
    pub fn collect(&self, rollout: &mut impl Rollout) -> Result<Vec<Group>, RilError> {
        let draw = self.draw(self.step);
        let sampled = draw.sample(rollout)?;
        self.groups(draw, sampled)
    }

    /// What a step, this one or a later one, asks a rollout for. It does not depend on the policy.
    #[must_use]
    pub fn draw(&self, step: usize) -> Draw {
        let plan = &self.config.groups;
        let picked = batch_indices(self.data.questions.len(), plan.questions_per_step, step, self.config.seed);
        let params = SamplingParams {
            num_samples: plan.students_per_question,
            seed: mix_seed(self.config.sampling.seed ^ self.config.seed, step as u64),
            ..self.config.sampling.clone()
        };
        Draw { step, questions: picked.iter().map(|&i| self.data.questions[i].clone()).collect(), params }
    }

    /// Samples and the teachers' responses of their step, as groups; texts without ids are read by the student. Waits for
    /// teachers that answer while the run trains; questions to which these have nothing to say are left out, all of a step if need
    /// be ([`Self::pass`]).
    ///
    /// # Errors
    /// [`RilError::TeacherResponses`], [`RilError::TeacherText`], [`RilError::Teacher`]; the tokenizer's.
    pub fn groups(&self, draw: Draw, sampled: Vec<Vec<Response>>) -> Result<Vec<Group>, RilError> {
        let student = self.policy.view();
        let teachers = self.config.groups.teachers_per_question;
        let mut groups = Vec::with_capacity(draw.questions.len());
        for (question, mut responses) in draw.questions.into_iter().zip(sampled) {
            responses.iter_mut().try_for_each(|response| encode_text(&student, response))?;
            if teachers > 0 {
                let cache = &self.data.teachers;
                match cache.responses_if_any(&question, teachers, draw.step * teachers, &student)? {
                    Some(theirs) => responses.extend(theirs),
                    None => continue,
                }
            }
            groups.push(Group { question, responses });
        }
        Ok(groups)
    }

    /// Counts a step as done that has no group, because teachers that answer while the run trains have nothing to say to any of its
    /// questions.
    pub fn pass(&mut self) -> StageMetrics {
        let mut metrics = StageMetrics::default();
        put_left_out(&mut metrics, &self.data.teachers, self.config.groups.questions_per_step);
        self.step += 1;
        metrics
    }

    /// A step on what [`Self::groups`] gave.
    pub(crate) fn step_or_pass(&mut self, groups: &[Group]) -> Result<StageMetrics, RilError> {
        if groups.is_empty() { Ok(self.pass()) } else { self.step_on(groups) }
    }

    /// One step on given groups: the five phases. The judge is asked on a thread of its own while the discriminator trains and
    /// scores, so that a judge behind a server costs the time that it takes longer than they do. On an error everything is as before the call, or with
    /// [`FailedStep::Kept`] everything but whole updates.
    ///
    /// # Errors
    /// [`RilError::Input`] when a group is not what [`GroupPlan`] says; the judge's, the models' and the cores'
    /// own.
    pub fn step_on(&mut self, groups: &[Group]) -> Result<StageMetrics, RilError> {
        check_groups(groups, &self.config.groups)?;
        let goes_back = self.config.failed_step == FailedStep::TakenBack;
        let discriminator = self.discriminator.as_ref().filter(|_| goes_back).map(Learner::snapshot);
        let policy = (goes_back && self.config.updates_per_rollout > 1).then(|| self.policy.snapshot());
        let replay = self.replay.clone();
        let done = self.phases(groups);
        if done.is_err() {
            if let (Some(learner), Some(snapshot)) = (&mut self.discriminator, discriminator) {
                learner.go_back(snapshot);
            }
            policy.into_iter().for_each(|snapshot| self.policy.go_back(snapshot));
            self.replay = replay;
        }
        done
    }

    fn phases(&mut self, groups: &[Group]) -> Result<StageMetrics, RilError> {
        let data = Arc::clone(&self.data);
        let judge = &data.judge;
        let (verdicts, opinions) = std::thread::scope(|scope| {
            let verdicts = scope.spawn(|| judge_groups(judge, groups));
            let opinions = self.sharpen_and_score(groups);
            (verdicts.join(), opinions)
        });
        let verdicts = verdicts.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let (sharpened, logits_student_is_high) = opinions?;
        let scores = Scores { logits_student_is_high, verdicts };
        let rewards = rewards(&scores, self.config.rewards, self.config.gail.similarity)?; // 3
        let counted = counted(groups, &rewards, self.config.teacher_ratio);
        let group_size = self.config.groups.group_size();
        let advantages = self.config.grpo.advantage.advantages(&counted, group_size, &lengths(groups))?; // 4
        let frozen = match (&sharpened, &scores.logits_student_is_high) {
            (None, Some(logits)) => Some(opinion(logits, groups)?),
            _ => None,
        };
        let update = self.optimise(groups, &advantages)?; // 5

        let (scores, rewards, counted) = (&scores, rewards.as_slice(), counted.as_slice());
        let rows = Rows { groups, scores, rewards, counted, advantages: &advantages, update: &update };
        let mut metrics = rows.metrics(group_size, self.config.grpo.ratio)?;
        metrics.put("learning_rate", self.policy_learning_rate());
        put_staleness(&mut metrics, groups, self.step);
        let left_out = self.config.groups.questions_per_step.saturating_sub(groups.len());
        put_left_out(&mut metrics, &self.data.teachers, left_out);
        let teachers = self.data.teachers.teachers();
        if let Some(sharpened) = &sharpened {
            put_update(&mut metrics, sharpened, teachers);
        }
        if let Some(frozen) = &frozen {
            put_opinion(&mut metrics, frozen, teachers);
        }
        metrics.lead_with(&LEADING);
        self.step += 1;
        if let Some(replay) = &mut self.replay {
            replay.add(groups);
        }
        Ok(metrics)
    }

    /// Phases 1 and 2: what the update did, and a logit for each response.
    fn sharpen_and_score(
        &mut self,
        groups: &[Group],
    ) -> Result<(Option<DiscriminatorUpdate>, Option<Vec<f32>>), RilError> {
        let early = match self.config.gail.score_order {
            ScoreOrder::BeforeUpdate => self.score(groups)?,
            _ => None,
        };
        let sharpened = self.update_discriminator(groups)?;
        let logits = if early.is_some() { early } else { self.score(groups)? };
        Ok((sharpened, logits))
    }

    fn policy_learning_rate(&self) -> f64 {
        self.config.policy.learning_rate_at(self.step, self.config.total_steps)
    }

    /// Phase 1, when the discriminator is online.
    fn update_discriminator(&mut self, groups: &[Group]) -> Result<Option<DiscriminatorUpdate>, RilError> {
        let config = &self.config;
        match &mut self.discriminator {
            Some(discriminator) if config.gail.mode == DiscriminatorMode::Online => {
                let rate = config.discriminator.learning_rate_at(self.step, config.total_steps);
                let round = Round::new(mix_seed(config.seed, self.step as u64), rate).with_number(self.step as u64);
                let shown = match &mut self.replay {
                    Some(replay) => Cow::Owned([groups, &replay.draw(groups, &self.data.questions)?].concat()),
                    None => Cow::Borrowed(groups),
                };
                Ok(Some(sharpen(discriminator, &config.prompt, &shown, &config.gail, round)?))
            }
            _ => Ok(None),
        }
    }

    /// Phase 2, the discriminator's half.
    fn score(&self, groups: &[Group]) -> Result<Option<Vec<f32>>, RilError> {
        let Some(discriminator) = &self.discriminator else { return Ok(None) };
        let rows = self.config.discriminator.micro_batch_rows;
        score_responses(&discriminator.view(), &self.config.prompt, groups, rows).map(Some)
    }

    /// Phase 5.
    fn optimise(&mut self, groups: &[Group], advantages: &[f32]) -> Result<PolicyUpdate, RilError> {
        let config = &self.config;
        let plan = UpdatePlan {
            grpo: &config.grpo,
            teacher_ratio: config.teacher_ratio,
            sampler_correction: config.sampler_correction,
            checks_gradients: config.gradient_checks.covers(self.step),
            updates: config.updates_per_rollout,
            learning_rate: self.policy_learning_rate(),
            temperature: f64::from(config.sampling.temperature),
            step: self.step,
        };
        optimise(&mut self.policy, &self.reference, groups, advantages, plan)
    }
}

impl<M: TrainableModel, J: Judge + Sync> Stage for RilTrainer<M, J> {
    fn total_steps(&self) -> usize {
        self.config.total_steps
    }

    fn next_step(&self) -> usize {
        self.step
    }

    fn step(&mut self) -> Result<StageMetrics, RilError> {
        let mut rollout =
            LocalRollout { rows_at_once: self.config.rows_at_once, ..LocalRollout::student(self.policy.view()) };
        let groups = self.collect(&mut rollout)?;
        drop(rollout);
        self.step_or_pass(&groups)
    }

    fn save(&self, folder: &Path) -> Result<(), RilError> {
        self.policy.save(folder, "policy", self.step)?;
        self.replay.iter().try_for_each(|replay| replay.save(folder, self.step))?;
        match &self.discriminator {
            Some(discriminator) => discriminator.save(folder, "discriminator", self.step),
            None => Ok(()),
        }
    }

    fn restore(&mut self, folder: &Path, step: usize) -> Result<(), RilError> {
        self.policy.restore(folder, "policy", step)?;
        if let Some(discriminator) = &mut self.discriminator {
            discriminator.restore(folder, "discriminator", step)?;
        }
        if let Some(replay) = &mut self.replay {
            replay.restore(folder, step)?;
        }
        self.step = step;
        Ok(())
    }
}

/// How many steps the samplers' weights were behind the policy; nothing where it sampled itself.
fn put_staleness(metrics: &mut StageMetrics, groups: &[Group], step: usize) {
    let steps = groups.iter().flat_map(|g| &g.responses).filter_map(|response| response.policy_step);
    let behind: Vec<f64> = steps.map(|sampled| (step as u64).saturating_sub(sampled) as f64).collect();
    if let Some(most) = behind.iter().copied().reduce(f64::max) {
        metrics.put("sampler/staleness", behind.iter().sum::<f64>() / behind.len() as f64);
        metrics.put("sampler/staleness_max", most);
    }
}

/// How many questions of a step had no answer of a teacher that answers while the run trains, where there are some.
fn put_left_out(metrics: &mut StageMetrics, teachers: &TeacherCache, questions: usize) {
    let is_told = teachers.has_sources() && questions > 0;
    metrics.put("teacher/questions_left_out", is_told.then_some(questions as f64));
}

/// Has the student read a response that came as a text alone.
fn encode_text<M: TrainableModel>(student: &M, response: &mut Response) -> Result<(), RilError> {
    if !response.token_ids.is_empty() {
        return Ok(());
    }
    // What spells a special token was not one to the server: it stays text.
    response.token_ids = student.encode_response(&neutralised(student, &response.text))?;
    if response.is_truncated {
        response.token_ids.pop();
    }
    Ok(())
}

/// What a line of progress shows of a step.
const LEADING: [&str; LINE_METRICS] = [
    "loss",
    "reward/answer",
    "reward/similarity",
    "discriminator/accuracy",
    "kl",
    "entropy",
    "completions/mean_length",
    "grad_norm",
];

/// The rewards that advantages are made of. A teacher row without a policy term has no place in the baseline of the
/// others: CHORD's advantages are those of the rollouts.
fn counted(groups: &[Group], rewards: &[Option<f32>], teacher_ratio: RowRatio) -> Vec<Option<f32>> {
    let origins = groups.iter().flat_map(|g| &g.responses).map(|r| r.origin);
    let is_counted = |origin| origin == Origin::Student || teacher_ratio != RowRatio::Excluded;
    rewards.iter().zip(origins).map(|(reward, origin)| reward.filter(|_| is_counted(origin))).collect()
}

/// Each group as planned, students first.
fn check_groups(groups: &[Group], plan: &GroupPlan) -> Result<(), RilError> {
    if groups.is_empty() {
        return Err(RilError::Input("a step needs at least one group".into()));
    }
    for group in groups {
        let students = group.responses.iter().take_while(|r| r.origin == Origin::Student).count();
        let teachers = group.responses[students..].iter().filter(|r| r.origin != Origin::Student).count();
        let expected = (plan.students_per_question, plan.teachers_per_question);
        if (students, teachers) != expected || students + teachers != group.responses.len() {
            return Err(RilError::Input(format!(
                "question {}: expected {} student responses and then {} of teachers, got {students} and {teachers} of {}",
                group.question.id,
                expected.0,
                expected.1,
                group.responses.len()
            )));
        }
    }
    Ok(())
}
