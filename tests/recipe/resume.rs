//! Stages that are killed, stopped or damaged and go on, on a network of a few thousand weights.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use ril::models::{ChatModel, Qwen2_5Vl};
use ril::monitor::{Monitor, MonitorMode};
use ril::run::{METRICS_FILE, Outcome, RunFolder};
use ril::{
    DiscriminatorTrainer, Group, LocalRollout, OptimizerSettings, PretrainPlan, RilError, RilTrainer, Rollout,
    SftConfig, SftExample, SftTrainer, Stage, StageMetrics, discriminator_from,
};

use crate::models::questions;
use crate::support::{STEPS, config, examples, questions_and_teachers, student, trainer, weights};
use crate::task::Style;

fn sft() -> SftTrainer<Qwen2_5Vl> {
    sft_of(student())
}

pub fn sft_of(student: Qwen2_5Vl) -> SftTrainer<Qwen2_5Vl> {
    let examples = examples();
    let answers = questions(&student, &examples, "q").unwrap().into_iter().zip(&examples);
    let examples = answers.map(|(question, example)| SftExample {
        prompt: question.prompt,
        completion: student.encode_response(&Style::A.answer(example)).unwrap(),
    });
    let optimizer = OptimizerSettings { micro_batch_rows: 3, ..OptimizerSettings::constant(1e-3) };
    let config = SftConfig { rows_per_step: 4, total_steps: STEPS, optimizer, seed: 1 };
    let examples = examples.collect();
    SftTrainer::new(student, examples, config).unwrap()
}

fn pretraining() -> DiscriminatorTrainer<Qwen2_5Vl> {
    let (student, config) = (student(), config());
    let (questions, teachers) = questions_and_teachers(&student);
    let params = ril::models::generate::SamplingParams { num_samples: 2, ..config.sampling };
    let sampled = LocalRollout::student(student.valid()).sample(&questions, &params).unwrap();
    let groups = questions.into_iter().zip(sampled).map(|(question, mut responses)| {
        responses.extend(teachers.responses(&question, 2, 0, &student).unwrap());
        Group { question, responses }
    });
    let (groups, plan) = (groups.collect(), PretrainPlan { groups_per_step: 2, total_steps: STEPS, seed: 3 });
    let discriminator = discriminator_from(student, 5, &Device::flex().autodiff());
    let prompt = (config.prompt, config.gail);
    DiscriminatorTrainer::new(discriminator, config.discriminator, groups, prompt, plan).unwrap()
}

/// A stage that dies when it has done `left` steps more.
pub struct Mortal<S> {
    pub stage: S,
    pub left: usize,
}

impl<S: Stage> Stage for Mortal<S> {
    fn total_steps(&self) -> usize {
        self.stage.total_steps()
    }

    fn next_step(&self) -> usize {
        self.stage.next_step()
    }

    fn step(&mut self) -> Result<StageMetrics, RilError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| RilError::Input("killed".into()))?;
        self.stage.step()
    }

    fn save(&self, folder: &Path) -> Result<(), RilError> {
        self.stage.save(folder)
    }

    fn restore(&mut self, folder: &Path, step: usize) -> Result<(), RilError> {
        self.stage.restore(folder, step)
    }
}

pub fn run<S: Stage>(folder: &Path, stage: &mut S) -> Result<(), RilError> {
    let mut monitor = Monitor::new(MonitorMode::Silent);
    RunFolder::open(folder, 2)?.run_stage("stage", stage, &mut monitor).map(|_| ())
}

/// Weights as others read them, and the metrics file.
pub fn outcome(folder: &Path, model: &Qwen2_5Vl) -> (Vec<u8>, String) {
    (weights(model), std::fs::read_to_string(folder.join(METRICS_FILE)).unwrap())
}

/// Runs a stage whole, then killed after every number of steps and resumed; `model` gives its result.
pub fn resumes_exactly<S: Stage>(new: impl Fn() -> S, model: impl Fn(&S) -> Qwen2_5Vl) {
    let whole = tempfile::tempdir().unwrap();
    let mut stage = new();
    run(whole.path(), &mut stage).unwrap();
    let expected = outcome(whole.path(), &model(&stage));
    assert_eq!(expected.1.lines().count(), STEPS);
    for killed_after in 0..STEPS {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &mut Mortal { stage: new(), left: killed_after }).unwrap_err();
        // What a kill may leave: half a line, half a checkpoint.
        let metrics = folder.path().join(METRICS_FILE);
        let cut = std::fs::read_to_string(&metrics).unwrap() + "{\"stage\":\"sta";
        std::fs::write(&metrics, cut).unwrap();
        std::fs::create_dir_all(folder.path().join("checkpoints/stage/partial")).unwrap();
        let mut stage = new();
        run(folder.path(), &mut stage).unwrap();
        assert!(outcome(folder.path(), &model(&stage)) == expected, "killed after {killed_after} steps");
    }
}

#[test]
fn a_killed_loop_ends_with_the_same_weights_and_metrics() {
    resumes_exactly(|| trainer(config()).unwrap(), RilTrainer::policy);
}

#[test]
fn a_killed_sft_ends_with_the_same_weights_and_metrics() {
    resumes_exactly(sft, SftTrainer::model);
}

#[test]
fn a_killed_pretraining_ends_with_the_same_weights_and_metrics() {
    resumes_exactly(pretraining, |trainer| trainer.discriminator().encoder().model.valid());
}

#[test]
fn a_stage_that_is_asked_to_stop_keeps_its_last_step() {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut stage = sft();
    run(whole.path(), &mut stage).unwrap();
    let expected = outcome(whole.path(), &stage.model());
    let runs = RunFolder::open(stopped.path(), 100).unwrap();
    for done in 1..=STEPS {
        let mut monitor = Monitor::new(MonitorMode::Silent);
        monitor.interrupter().stop(None);
        let mut stage = sft();
        assert_eq!(runs.run_stage("stage", &mut stage, &mut monitor).unwrap(), Outcome::Interrupted);
        assert_eq!(stage.next_step(), done);
    }
    let mut stage = sft();
    assert_eq!(runs.run_stage("stage", &mut stage, &mut Monitor::new(MonitorMode::Silent)).unwrap(), Outcome::Finished);
    assert!(outcome(stopped.path(), &stage.model()) == expected);
}

#[test]
fn a_broken_checkpoint_gives_way_to_the_one_before() {
    let (whole, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut stage = sft();
    run(whole.path(), &mut stage).unwrap();
    let expected = outcome(whole.path(), &stage.model());
    run(damaged.path(), &mut Mortal { stage: sft(), left: 4 }).unwrap_err();
    let checkpoints = damaged.path().join("checkpoints/stage");
    let file = |step: usize, name: &str| checkpoints.join(format!("step-{step}/{name}-{step}.bpk"));
    std::fs::write(file(4, "model-optimizer"), b"cut").unwrap();
    let mut stage = sft();
    run(damaged.path(), &mut stage).unwrap();
    assert!(outcome(damaged.path(), &stage.model()) == expected, "from step 2, over the broken step 4");

    for step in [4, 5] {
        std::fs::write(file(step, "model"), b"cut").unwrap();
    }
    let error = run(damaged.path(), &mut sft()).unwrap_err();
    let message = ril::explain(&error);
    assert!(message.contains("model-5.bpk") && message.contains("because"), "{message}");
}
