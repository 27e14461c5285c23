//! The recipe through its public API, on a network of a few thousand weights: resuming, repeating, refusing bad input.

#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/data/mod.rs"]
mod data;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/models.rs"]
mod models;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/task.rs"]
mod task;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/vocabulary.rs"]
mod vocabulary;

use std::path::Path;

use burn::tensor::Device;
use ril::models::checkpoint::WeightType;
use ril::models::{ChatModel, Qwen2_5Vl};
use ril::monitor::{Monitor, MonitorMode};
use ril::reward::RuleJudge;
use ril::run::{METRICS_FILE, RunFolder};
use ril::{
    CachedResponse, OptimizerSettings, RilConfig, RilError, RilTrainer, SftConfig, SftExample, SftTrainer, Stage,
    StepMetrics, TeacherCache, TrainingData, discriminator_from,
};

use data::{Example, Mix, Split, generate};
use models::{Size, fresh, questions};
use task::Style;
use vocabulary::Vocabulary;

const TINY: Size = Size { width: 32, text_layers: 1, vision_layers: 1 };
const STEPS: usize = 5;

fn student() -> Qwen2_5Vl {
    fresh(TINY, &Vocabulary::new(), 7, &Device::flex().autodiff()).unwrap()
}

fn examples() -> Vec<Example> {
    generate(Split::Train, 6, 3, &Mix::default())
}

fn config() -> RilConfig {
    let mut config = RilConfig::ril(6, STEPS);
    config.groups.questions_per_step = 2;
    config.groups.students_per_question = 2;
    config.groups.teachers_per_question = 2;
    config.policy = OptimizerSettings { micro_batch_rows: 3, ..OptimizerSettings::constant(1e-3) };
    config.discriminator = config.policy.clone();
    config
}

/// RIL with an online discriminator and two teachers.
fn trainer(config: RilConfig) -> Result<RilTrainer<Qwen2_5Vl, RuleJudge>, RilError> {
    let (student, examples) = (student(), examples());
    let questions = questions(&student, &examples, "q")?;
    let mut teachers = TeacherCache::default();
    for (question, example) in questions.iter().zip(&examples) {
        for (teacher, style) in [("a", Style::A), ("b", Style::B)] {
            let (question, response) = (question.id.clone(), style.answer(example));
            teachers.insert(CachedResponse { question, teacher: teacher.into(), response });
        }
    }
    let discriminator = discriminator_from(student.clone(), 5, &Device::flex().autodiff());
    let data = TrainingData { questions, teachers, judge: RuleJudge::default() };
    RilTrainer::new(student, config.has_discriminator().then_some(discriminator), data, config)
}

fn sft() -> SftTrainer<Qwen2_5Vl> {
    let (student, examples) = (student(), examples());
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

/// A stage that dies when it has done `left` steps more.
struct Mortal<S> {
    stage: S,
    left: usize,
}

impl<S: Stage> Stage for Mortal<S> {
    fn total_steps(&self) -> usize {
        self.stage.total_steps()
    }

    fn next_step(&self) -> usize {
        self.stage.next_step()
    }

    fn step(&mut self) -> Result<StepMetrics, RilError> {
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

fn run<S: Stage>(folder: &Path, stage: &mut S) -> Result<(), RilError> {
    let mut monitor = Monitor::new(MonitorMode::Silent);
    RunFolder::open(folder, 2)?.run_stage("stage", stage, &mut monitor).map(|_| ())
}

/// Weights as a folder that others read, and the metrics file.
fn outcome(folder: &Path, model: &Qwen2_5Vl) -> (Vec<u8>, String) {
    model.save(&folder.join("model"), WeightType::F32).unwrap();
    let weights = std::fs::read(folder.join("model/model.safetensors")).unwrap();
    (weights, std::fs::read_to_string(folder.join(METRICS_FILE)).unwrap())
}

/// Runs a stage whole, then killed after every number of steps and resumed; `model` gives its result.
fn resumes_exactly<S: Stage>(new: impl Fn() -> S, model: impl Fn(&S) -> Qwen2_5Vl) {
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

fn all_steps(config: RilConfig) -> (Vec<StepMetrics>, Vec<u8>) {
    let mut trainer = trainer(config).unwrap();
    let metrics = (0..STEPS).map(|_| trainer.step().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    trainer.policy().save(folder.path(), WeightType::F32).unwrap();
    (metrics, std::fs::read(folder.path().join("model.safetensors")).unwrap())
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
        assert_eq!(metrics.get("ratio/student"), Some(1.0));
        assert_eq!(metrics.get("ratio/teacher"), Some(1.0));
        let sum = metrics.get("advantage/student").unwrap() + metrics.get("advantage/teacher").unwrap();
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
fn a_question_without_teacher_answers_is_named() {
    let student = student();
    let questions = questions(&student, &examples(), "q").unwrap();
    let data = TrainingData { questions, teachers: TeacherCache::default(), judge: RuleJudge::default() };
    let discriminator = discriminator_from(student.clone(), 5, &Device::flex().autodiff());
    let error = RilTrainer::new(student, Some(discriminator), data, config()).unwrap_err();
    assert!(error.to_string().starts_with("question q-0: expected 1 cached responses"), "{error}");
}

#[test]
fn broken_datasets_are_refused_with_the_line() {
    let student = student();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    let good = r#"{"id": "1", "question": "what ?", "answer": "1"}"#;
    for (text, message) in [
        (String::new(), "no questions"),
        (format!("{good}\n\n{{\"question\": \"what ?\"}}\n"), "line 3: missing field `answer`"),
        (format!("{good}\n{good}\n"), "line 2: a question with id 1 stands further up"),
        (r#"{"images": ["none.png"], "question": "what ?", "answer": "1"}"#.to_string(), "none.png"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = ril::data::read_questions(&path, &student).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
