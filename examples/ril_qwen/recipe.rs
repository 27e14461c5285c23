//! The recipe, stage by stage. Whatever is stored already is read instead of made again, so that a resumed run goes
//! through the same numbers as one that was never stopped; where servers sample, as far as those repeat themselves.

use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Device;
use ril::benchmark::{Answered, Benchmark};
use ril::eval::ArmRole;
use ril::models::checkpoint::WeightType;
use ril::models::files::write_atomic;
use ril::models::generate::SamplingParams;
use ril::models::{ModelError, Qwen2_5Vl, lora};
use ril::monitor::Monitor;
use ril::rollout::mix_seed;
use ril::run::{Outcome, RunFolder};
use ril::{
    DiscriminatorTrainer, Group, LocalRollout, PretrainPlan, RilConfig, RilDiscriminator, RilError, RilTrainer,
    SftTrainer, TeacherCache, TrainingData, discriminator_from,
};

use crate::args::Settings;
use crate::outcome::{self, Arm};
use crate::plan::{loop_config, pretraining, pretraining_questions};
use crate::servers::RunJudge;
use crate::world::{Teaching, World};

/// A run with all that it needs.
pub struct Recipe {
    pub run: RunFolder,
    pub settings: Settings,
    pub device: Device,
    pub monitor: Monitor,
    pub world: World,
    pub judge: RunJudge,
}

/// Why a stage gives no result.
pub enum Halt {
    /// The user asked to stop; what was done is stored.
    Asked,
    Failed(RilError),
}

impl<E: Into<RilError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Recipe {
    /// All stages, measurements and the report.
    ///
    /// # Errors
    /// The stages' own.
    pub fn carry_out(mut self) -> Result<Outcome, RilError> {
        let arms = self.stages();
        self.monitor.finish();
        self.world.end_feed();
        match arms {
            Ok(arms) => {
                outcome::write(&self.run, &self.settings, &self.world, &arms)?;
                Ok(Outcome::Finished)
            }
            Err(Halt::Asked) => Ok(Outcome::Interrupted),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn stages(&mut self) -> Result<Vec<Arm>, Halt> {
        let mut arms = Vec::new();
        for i in 0..self.world.teachers.len() {
            let teacher = &self.world.teachers[i];
            let name = teacher.name.clone();
            if let Some(model) = teacher.model.clone() {
                arms.push(self.measure(&name, ArmRole::Teacher, &model)?);
            }
        }
        let student = self.sft()?;
        arms.push(self.measure("sft", ArmRole::Start, &student)?);
        drop(student);
        let cache = self.world.teacher_cache(&self.settings, &self.run, &mut self.monitor)?.ok_or(Halt::Asked)?;
        let names: Vec<&str> = cache.teachers().iter().map(String::as_str).collect();
        let first = names.first().ok_or_else(|| RilError::Config("teacher responses: there are none".into()))?;
        let mut plans = vec![("dr_grpo", None), ("ril_one_teacher", Some(cache.restricted(&[first])))];
        match names.len() {
            1 => {}
            2 => plans.push(("ril_two_teachers", Some(cache.clone()))),
            _ => plans.push(("ril_all_teachers", Some(cache.clone()))),
        }
        for (name, teachers) in plans {
            let model = self.arm(name, teachers)?;
            arms.push(self.measure(name, ArmRole::Arm, &model)?);
        }
        Ok(arms)
    }

    /// The supervised stages of the student; without any it is as it came.
    fn sft(&mut self) -> Result<Qwen2_5Vl, Halt> {
        if !self.is_stored("sft") {
            let mut student = self.world.student.clone();
            for lesson in &self.world.lessons {
                if let Teaching::Own(_) = lesson {
                    answered(self.world.await_teacher(&self.world.train, &mut self.monitor)?)?;
                }
                let (examples, config) = lesson.prepare(&student, &self.world)?;
                let mut trainer = SftTrainer::new(student, examples, config)?;
                finished(self.run.run_stage(lesson.name(), &mut trainer, &mut self.monitor)?)?;
                student = trainer.into_model();
            }
            self.store("sft", &student)?;
        }
        for lesson in &self.world.lessons {
            self.run.forget_checkpoints(lesson.name())?;
        }
        Ok(self.stored("sft")?)
    }

    /// One loop from the fine-tuned student: RIL with these teachers, Dr.GRPO without.
    fn arm(&mut self, name: &str, teachers: Option<TeacherCache>) -> Result<Qwen2_5Vl, Halt> {
        if !self.is_stored(name) {
            let student = Qwen2_5Vl::from_folder(&self.model_folder("sft"), &self.device.clone().autodiff())?;
            let student = match self.settings.lora() {
                Some(config) => student.with_lora(&config, self.settings.seed)?,
                None => student,
            };
            let mut config = loop_config(&self.settings);
            let discriminator = match &teachers {
                None => {
                    config = config.without_imitation();
                    None
                }
                Some(cache) => Some(self.pretrain(name, &student, cache, &config)?),
            };
            let data = TrainingData {
                questions: self.world.train.clone(),
                teachers: teachers.unwrap_or_default(),
                judge: self.judge.clone(),
            };
            let trainer = RilTrainer::new(student, discriminator, data, config)?;
            let mut steps = self.settings.servers.stage(&self.run, name, trainer)?;
            finished(steps.run(&self.run, name, &mut self.monitor)?)?;
            self.store(name, &steps.policy())?;
        }
        self.run.forget_checkpoints(name)?;
        self.run.forget_checkpoints(&discriminator_stage(name))?;
        Ok(self.stored(name)?)
    }

    /// A discriminator that starts as the student and has seen answers of both origins.
    fn pretrain(
        &mut self,
        arm: &str,
        student: &Qwen2_5Vl,
        cache: &TeacherCache,
        config: &RilConfig,
    ) -> Result<RilDiscriminator<Qwen2_5Vl>, Halt> {
        let plan = pretraining(&self.settings, config);
        let (stage, seed) = (discriminator_stage(arm), mix_seed(self.settings.seed, 1));
        let groups_per_step = config.groups.questions_per_step;
        let train = &self.world.train;
        let questions = &train[..pretraining_questions(&self.settings, config, train.len())];
        let params = SamplingParams { num_samples: plan.samples, seed, ..config.sampling.clone() };
        let mut rollout = LocalRollout { rows_at_once: config.rows_at_once, ..LocalRollout::student(student.valid()) };
        self.monitor.start_evaluation(&format!("{stage}: answers of the student"), questions.len());
        let sampled = rollout.sample_until(questions, &params, |done| self.monitor.advance(done))?;
        self.monitor.finish();
        let sampled = sampled.ok_or(Halt::Asked)?;
        answered(self.world.await_teacher(questions, &mut self.monitor)?)?;
        let groups = questions.iter().zip(sampled).enumerate().map(|(i, (question, mut responses))| {
            let theirs = cache.responses_if_any(question, plan.samples, i * plan.samples, student)?;
            Ok(theirs.map(|theirs| {
                responses.extend(theirs);
                Group { question: question.clone(), responses }
            }))
        });
        let groups: Vec<Group> = groups.filter_map(Result::transpose).collect::<Result<_, RilError>>()?;
        if groups.is_empty() {
            let message =
                format!("teachers have nothing to say to any of {} questions: see servers.log", questions.len());
            return Err(RilError::Input(message).into());
        }
        let discriminator = discriminator_from(student.clone(), seed, &self.device.clone().autodiff());
        let length = PretrainPlan { groups_per_step, total_steps: plan.steps, seed };
        let prompt = (config.prompt.clone(), config.gail_for(cache.teachers())?);
        let trainer = DiscriminatorTrainer::new(discriminator, plan.optimizer, groups, prompt, length)?;
        let mut trainer = trainer.with_teachers(cache.teachers().to_vec());
        finished(self.run.run_stage(&stage, &mut trainer, &mut self.monitor)?)?;
        Ok(trainer.discriminator())
    }

    fn model_folder(&self, name: &str) -> PathBuf {
        self.run.file("models").join(name)
    }

    /// Weights are a folder's last file, so that a folder with weights is whole.
    fn is_stored(&self, name: &str) -> bool {
        let folder = self.model_folder(name);
        let weights = ["model.safetensors", "model.safetensors.index.json", lora::WEIGHTS_FILE];
        weights.iter().any(|weights| folder.join(weights).exists())
    }

    /// A whole model, or its adapters, which stand on the fine-tuned student.
    fn store(&self, name: &str, model: &Qwen2_5Vl) -> Result<(), ModelError> {
        let folder = self.model_folder(name);
        if model.has_lora() {
            return model.save_adapter(&folder, WeightType::F32);
        }
        model.save(&folder, WeightType::F32)
    }

    /// A model is read back also when it has just been stored.
    fn stored(&self, name: &str) -> Result<Qwen2_5Vl, ModelError> {
        let folder = self.model_folder(name);
        if folder.join(lora::WEIGHTS_FILE).exists() {
            return Qwen2_5Vl::from_folder(&self.model_folder("sft"), &self.device)?.load_adapter(&folder);
        }
        Qwen2_5Vl::from_folder(&folder, &self.device)
    }

    /// Puts the held-out questions to a model, once a run.
    fn measure(&mut self, name: &str, role: ArmRole, model: &Qwen2_5Vl) -> Result<Arm, Halt> {
        let file = self.run.file("answers").join(format!("{name}.jsonl"));
        let questions = &self.world.held_out;
        if !file.exists() {
            let benchmark = Benchmark {
                questions,
                judge: self.judge.clone(),
                params: SamplingParams::greedy(self.settings.max_new_tokens()),
                rows_at_once: self.settings.evaluation_rows(),
            };
            self.monitor.start_evaluation(&format!("{name}: held-out questions"), questions.len());
            let answers = benchmark.run(model, |done| self.monitor.advance(done))?;
            self.monitor.finish();
            let lines: Vec<String> =
                answers.ok_or(Halt::Asked)?.iter().filter_map(|a| serde_json::to_string(a).ok()).collect();
            write_atomic(&file, (lines.join("\n") + "\n").as_bytes())?;
        }
        let answers: Vec<Answered> = ril::data::read_lines(&file)?.into_iter().map(|(_, answer)| answer).collect();
        if !answers.iter().map(|a| &a.question).eq(questions.iter().map(|q| &q.id)) {
            let message = format!("{}: expected one answer to each held-out question, in order", file.display());
            return Err(RilError::Input(message).into());
        }
        Ok(Arm { name: name.to_string(), role, answers })
    }
}

fn discriminator_stage(arm: &str) -> String {
    format!("{arm}-discriminator")
}

fn answered(flow: ControlFlow<()>) -> Result<(), Halt> {
    if flow.is_break() { Err(Halt::Asked) } else { Ok(()) }
}

fn finished(outcome: Outcome) -> Result<(), Halt> {
    match outcome {
        Outcome::Finished => Ok(()),
        Outcome::Interrupted => Err(Halt::Asked),
    }
}
