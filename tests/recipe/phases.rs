//! The loop step by step: what decides its numbers, its configurations, its failures, samples from elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use ril::gail::{DiscriminatorMode, ScoreOrder};
use ril::models::Qwen2_5Vl;
use ril::models::generate::SamplingParams;
use ril::reward::{Judge, RewardError, RuleJudge, Sample, Verdict};
use ril::{
    FailedStep, Group, LocalRollout, Question, Response, RilConfig, RilError, RilTrainer, Rollout, Stage, StageMetrics,
};

use crate::support::{STEPS, config, trainer, trainer_with, weights};

fn all_steps(config: RilConfig) -> (Vec<StageMetrics>, Vec<u8>) {
    all_steps_of(trainer(config).unwrap())
}

fn all_steps_of<J: Judge + Sync>(mut trainer: RilTrainer<Qwen2_5Vl, J>) -> (Vec<StageMetrics>, Vec<u8>) {
    let metrics = (0..STEPS).map(|_| trainer.step().unwrap()).collect();
    (metrics, weights(&trainer.policy()))
}

#[test]
fn the_seed_decides_and_threads_do_not() {
    let (one, mut two, mut other) = (config(), config(), config());
    two.policy.passes_at_once = 2;
    other.seed = 1;
    let expected = all_steps(one);
    assert!(all_steps(two) == expected, "passes side by side change nothing");
    assert!(all_steps(other) != expected);
}

#[test]
fn with_one_update_every_ratio_is_one_and_advantages_cancel() {
    for metrics in all_steps(config()).0 {
        assert_eq!(metrics.get("student/ratio"), Some(1.0));
        assert_eq!(metrics.get("teacher/ratio"), Some(1.0));
        let sum = metrics.get("student/advantage").unwrap() + metrics.get("teacher/advantage").unwrap();
        assert!(sum.abs() < 1e-6, "{sum}");
    }
}

#[test]
fn algorithm_one_is_a_configuration() {
    let (metrics, weights) = all_steps(config().without_imitation());
    assert!(metrics.iter().all(|m| m.get("reward/similarity").is_none() && m.get("teacher/answer").is_none()));
    assert!(weights != all_steps(config()).1);
}

#[test]
fn grpo_scales_advantages_and_averages_rows() {
    let mut grpo = RilConfig::grpo(6, STEPS);
    let mut dr_grpo = config().without_imitation();
    dr_grpo.groups.students_per_question = 4;
    (grpo.groups, grpo.policy, grpo.sampling) =
        (dr_grpo.groups.clone(), dr_grpo.policy.clone(), dr_grpo.sampling.clone());
    let (metrics, weights) = all_steps_of(trainer_with(grpo, Fickle).unwrap());
    assert!(metrics.iter().all(|m| m.get("loss").is_some_and(f64::is_finite)));
    assert!(weights != all_steps_of(trainer_with(dr_grpo, Fickle).unwrap()).1);
}

/// Finds about half of the answers right, whatever a model has learnt.
struct Fickle;

impl Judge for Fickle {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        let verdict = |sample: &Sample<'_>| match sample.response.len() % 2 {
            0 => Verdict::Correct,
            _ => Verdict::Incorrect,
        };
        Ok(samples.iter().map(verdict).collect())
    }
}

fn with(mode: DiscriminatorMode, order: ScoreOrder) -> RilConfig {
    let mut config = config();
    (config.gail.mode, config.gail.score_order) = (mode, order);
    // One step of this moves the discriminator's opinion of some row across 1/2.
    config.discriminator.learning_rate = 0.1;
    config.discriminator.final_learning_rate = 0.1;
    config
}

fn discriminator_bytes(trainer: &RilTrainer<Qwen2_5Vl, RuleJudge>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    trainer.save(folder.path()).unwrap();
    std::fs::read(folder.path().join(format!("discriminator-{}.bpk", trainer.next_step()))).unwrap()
}

#[test]
fn a_frozen_discriminator_scores_and_stays() {
    let mut trainer = trainer(with(DiscriminatorMode::Frozen, ScoreOrder::AfterUpdate)).unwrap();
    let before = discriminator_bytes(&trainer);
    for _ in 0..STEPS {
        let metrics = trainer.step().unwrap();
        assert!(metrics.get("reward/similarity").is_some() && metrics.get("discriminator/grad_norm").is_none());
        let accuracy = metrics.get("discriminator/accuracy_student").unwrap();
        assert!(
            (accuracy + metrics.get("reward/similarity").unwrap() - 1.0).abs() < 1e-6,
            "the opinion is the reward's"
        );
        assert!(metrics.get("discriminator/accuracy_teacher/b").is_some());
    }
    assert!(discriminator_bytes(&trainer) == before);
}

#[test]
fn before_the_update_responses_meet_the_discriminator_that_has_not_seen_them() {
    let first = |mode, order| {
        let mut trainer = trainer(with(mode, order)).unwrap();
        let metrics = trainer.step().unwrap();
        let similarity = ["reward/similarity", "teacher/similarity"].map(|name| metrics.get(name).unwrap());
        (similarity, weights(&trainer.policy()), metrics.get("discriminator/grad_norm").is_some())
    };
    let frozen = first(DiscriminatorMode::Frozen, ScoreOrder::AfterUpdate);
    let before = first(DiscriminatorMode::Online, ScoreOrder::BeforeUpdate);
    let after = first(DiscriminatorMode::Online, ScoreOrder::AfterUpdate);
    assert_eq!((frozen.2, before.2, after.2), (false, true, true));
    assert_eq!(before.0, frozen.0);
    assert!(before.1 == frozen.1, "the same rewards, hence the same policy");
    assert_ne!(after.0, frozen.0);
}

/// In the second step the learning rate is 0 and the policy is no longer the reference.
#[test]
fn with_several_updates_ratios_are_against_the_policy_that_sampled() {
    let mut config = config();
    (config.total_steps, config.updates_per_rollout) = (2, 2);
    (config.policy.learning_rate, config.policy.final_learning_rate) = (1e-2, 0.0);
    let mut trainer = trainer(config).unwrap();
    let first = trainer.step().unwrap();
    assert!((first.get("student/ratio").unwrap() - 1.0).abs() > 1e-4, "the second update sees the first");
    let second = trainer.step().unwrap();
    assert!(second.get("kl").unwrap() > 1e-5, "the policy has left the reference");
    for name in ["student/ratio", "teacher/ratio"] {
        assert!((second.get(name).unwrap() - 1.0).abs() < 1e-5, "{name}: {:?}", second.get(name));
    }
}

/// A judge that is away when it is asked for the second time.
#[derive(Default)]
struct Shaky {
    was_asked: AtomicBool,
    was_away: AtomicBool,
}

impl Judge for Shaky {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        let is_second = self.was_asked.swap(true, Ordering::Relaxed);
        if is_second && !self.was_away.swap(true, Ordering::Relaxed) {
            return Err(RewardError::failed("judge", "connection refused"));
        }
        RuleJudge::default().judge(samples)
    }
}

#[test]
fn a_step_that_failed_can_be_tried_again() {
    let mut whole = trainer(config()).unwrap();
    let mut shaky = trainer_with(config(), Shaky::default()).unwrap();
    let mut failures = 0;
    for _ in 0..STEPS {
        let expected = whole.step().unwrap();
        let got = shaky.step().or_else(|_| {
            failures += 1;
            shaky.step()
        });
        assert_eq!(got.unwrap(), expected);
    }
    assert_eq!(failures, 1);
    assert!(weights(&shaky.policy()) == weights(&whole.policy()));
}

/// The reward overflows, which is found when the discriminator has been sharpened already.
#[test]
fn an_error_in_a_late_phase_leaves_the_discriminator_as_it_was() {
    let changed = parts_changed_by_an_error(FailedStep::TakenBack);
    assert_eq!(changed, [false; 4]);
}

/// Only what was a whole update, and only if that is asked for.
#[test]
fn an_error_in_a_late_phase_can_keep_the_discriminators_update() {
    let changed = parts_changed_by_an_error(FailedStep::Kept);
    assert_eq!(changed, [false, false, true, true]);
}

/// Policy and its optimizer, discriminator and its optimizer.
fn parts_changed_by_an_error(failed_step: FailedStep) -> [bool; 4] {
    let mut config = RilConfig { failed_step, ..config() };
    config.rewards.answer = f32::MAX;
    config.rewards.similarity = f32::MAX;
    let mut trainer = trainer_with(config, Always).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let saved = |trainer: &RilTrainer<Qwen2_5Vl, Always>, name: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        trainer.save(&folder).unwrap();
        ["policy", "policy-optimizer", "discriminator", "discriminator-optimizer"]
            .map(|part| std::fs::read(folder.join(format!("{part}-0.bpk"))).unwrap())
    };
    let before = saved(&trainer, "before");
    let error = trainer.step().unwrap_err();
    assert_eq!(trainer.next_step(), 0, "{error}");
    let after = saved(&trainer, "after");
    std::array::from_fn(|part| after[part] != before[part])
}

/// Finds every answer right.
struct Always;

impl Judge for Always {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        Ok(vec![Verdict::Correct; samples.len()])
    }
}

/// What another process sampled.
struct Recorded(HashMap<String, Vec<Response>>);

impl Rollout for Recorded {
    fn sample(&mut self, questions: &[Question], _: &SamplingParams) -> Result<Vec<Vec<Response>>, RilError> {
        Ok(questions.iter().map(|q| self.0[&q.id].clone()).collect())
    }
}

#[test]
fn samples_from_elsewhere_train_as_those_from_here() {
    let (mut own, mut fed) = (trainer(config()).unwrap(), trainer(config()).unwrap());
    for _ in 0..2 {
        let groups = own.collect(&mut LocalRollout::student(own.policy())).unwrap();
        let students = |group: &Group| group.responses[..2].to_vec();
        let mut recorded = Recorded(groups.iter().map(|g| (g.question.id.clone(), students(g))).collect());
        let groups = fed.collect(&mut recorded).unwrap();
        assert_eq!(fed.step_on(&groups).unwrap(), own.step().unwrap());
    }
    assert!(weights(&fed.policy()) == weights(&own.policy()));
}

#[test]
fn groups_that_are_not_as_planned_are_refused() {
    let mut trainer = trainer(config()).unwrap();
    let groups = trainer.collect(&mut LocalRollout::student(trainer.policy())).unwrap();
    let mut cut = groups.clone();
    cut[1].responses.pop();
    let mut turned = groups.clone();
    turned[0].responses.reverse();
    for broken in [cut, turned, Vec::new()] {
        assert!(matches!(trainer.step_on(&broken), Err(RilError::Input(_))));
    }
    trainer.step_on(&groups).unwrap();
}
