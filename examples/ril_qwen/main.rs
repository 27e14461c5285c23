//! The full recipe of RIL (arXiv 2510.19307), flat: SFT, cached teacher answers, discriminator pre-training, then from
//! the same student Dr.GRPO, RIL with one teacher and RIL with all, measured on questions that nothing was trained on.
//!
//!     cargo run --release --example ril_qwen            # digits, toys, about five minutes on two cores
//!     cargo run --release --example ril_qwen -- --help

mod args;
mod data;
mod lessons;
mod models;
mod outcome;
mod task;
mod teachers;
mod vocabulary;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use clap::Parser;
use ril::benchmark::{Answered, answer_all};
use ril::eval::ArmRole;
use ril::models::Qwen2_5Vl;
use ril::models::checkpoint::WeightType;
use ril::models::files::write_atomic;
use ril::models::generate::SamplingParams;
use ril::monitor::Monitor;
use ril::reward::RuleJudge;
use ril::rollout::mix_seed;
use ril::run::{Outcome, RunFolder};
use ril::{
    DiscriminatorTrainer, Group, LocalRollout, PretrainPlan, RilConfig, RilDiscriminator, RilError, RilTrainer,
    Rollout, SftTrainer, Stage, TeacherCache, TrainingData, discriminator_from,
};

use crate::args::{Args, Settings};
use crate::outcome::Arm;
use crate::world::World;

/// glibc gives large buffers back to the kernel and faults them in again on every operation: a third of the time here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Updates of the discriminator before the loop.
const PRETRAIN_STEPS: usize = 20;
/// Name of the file with the settings of a run.
const SETTINGS_FILE: &str = "settings.json";

fn main() -> ExitCode {
    let args = Args::parse();
    match start(args) {
        Ok(Outcome::Finished) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> Result<Outcome, Box<dyn Error>> {
    let device = args.device.open()?;
    let mut monitor = Monitor::new(args.monitor);
    if args.train_teachers {
        teachers::train(args.settings.seed, &device, &mut monitor)?;
        return Ok(Outcome::Finished);
    }
    let (folder, settings) = open_run(&args)?;
    let run = RunFolder::open(&folder, settings.checkpoint_every)?;
    let recipe = Recipe { run, settings, device, monitor };
    let outcome = recipe.carry_out()?;
    if outcome == Outcome::Interrupted {
        println!("Stopped. Go on with: cargo run --release --example ril_qwen -- --resume {}", folder.display());
    }
    Ok(outcome)
}

/// A new folder with its settings, or an old one with those that it was begun with.
fn open_run(args: &Args) -> Result<(PathBuf, Settings), Box<dyn Error>> {
    if let Some(folder) = &args.resume {
        let path = folder.join(SETTINGS_FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let settings = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        return Ok((folder.clone(), settings));
    }
    let folder = match &args.out {
        Some(folder) if folder.join(SETTINGS_FILE).exists() => {
            return Err(
                format!("{0} holds a run: go on with --resume {0}, or name another folder", folder.display()).into()
            );
        }
        Some(folder) => folder.clone(),
        None => {
            let base = format!("runs/ril_qwen-seed{}", args.settings.seed);
            let names = std::iter::once(base.clone()).chain((2..).map(|i| format!("{base}-{i}")));
            names.map(PathBuf::from).find(|f| !f.exists()).ok_or("no free folder under runs")?
        }
    };
    write_atomic(
        &folder.join(SETTINGS_FILE),
        format!("{}\n", serde_json::to_string_pretty(&args.settings)?).as_bytes(),
    )?;
    Ok((folder, args.settings.clone()))
}

struct Recipe {
    run: RunFolder,
    settings: Settings,
    device: Device,
    monitor: Monitor,
}

/// A stage's result, unless the user asked to stop.
type Unless<T> = Result<Option<T>, RilError>;

impl Recipe {
    fn carry_out(mut self) -> Result<Outcome, RilError> {
        let world = World::new(&self.settings, &self.device)?;
        let mut arms = Vec::new();
        for teacher in &world.teachers {
            if let Some(model) = &teacher.model {
                arms.push(self.measure(&teacher.name, ArmRole::Teacher, model, &world)?);
            }
        }
        let Some(student) = self.sft(&world)? else { return Ok(Outcome::Interrupted) };
        arms.push(self.measure("sft", ArmRole::Start, &student, &world)?);
        let cache = world.teacher_cache(&self.settings, &self.run, &mut self.monitor)?;
        let names: Vec<&str> = cache.teachers().iter().map(String::as_str).collect();
        let mut plans = vec![("dr_grpo", None), ("ril_one_teacher", Some(cache.restricted(&names[..1])))];
        if names.len() > 1 {
            plans.push(("ril_two_teachers", Some(cache.clone())));
        }
        for (name, teachers) in plans {
            let Some(model) = self.arm(name, teachers, &world)? else { return Ok(Outcome::Interrupted) };
            arms.push(self.measure(name, ArmRole::Arm, &model, &world)?);
        }
        outcome::write(&self.run, &self.settings, &world, &arms)?;
        Ok(Outcome::Finished)
    }

    /// The supervised stages of the student; without any it is as it came.
    fn sft(&mut self, world: &World) -> Unless<Qwen2_5Vl> {
        if self.is_stored("sft") {
            return Ok(Some(self.stored("sft", || unreachable!("stored"))?));
        }
        let mut student = world.student.clone();
        for lesson in &world.lessons {
            let (examples, config) = lesson.prepare(&student)?;
            let mut trainer = SftTrainer::new(student, examples, config)?;
            if self.run.run_stage(lesson.name(), &mut trainer, &mut self.monitor)? == Outcome::Interrupted {
                return Ok(None);
            }
            student = trainer.into_model();
        }
        let stored = self.stored("sft", || Ok(student))?;
        for lesson in &world.lessons {
            self.run.forget_checkpoints(lesson.name())?;
        }
        Ok(Some(stored))
    }

    /// One loop from the fine-tuned student: RIL with these teachers, Dr.GRPO without.
    fn arm(&mut self, name: &str, teachers: Option<TeacherCache>, world: &World) -> Unless<Qwen2_5Vl> {
        if self.is_stored(name) {
            return Ok(Some(self.stored(name, || unreachable!("stored"))?));
        }
        let student = Qwen2_5Vl::from_folder(&self.model_folder("sft"), &self.device.clone().autodiff())?;
        let mut config = self.config();
        let discriminator = match &teachers {
            None => {
                config = config.without_imitation();
                None
            }
            Some(cache) => match self.pretrain(name, &student, cache, world, &config)? {
                None => return Ok(None),
                trained => trained,
            },
        };
        let data = TrainingData {
            questions: world.train.clone(),
            teachers: teachers.unwrap_or_default(),
            judge: RuleJudge::default(),
        };
        let mut trainer = RilTrainer::new(student, discriminator, data, config)?;
        let model = self.finish(name, &mut trainer, RilTrainer::policy)?;
        if model.is_some() {
            self.run.forget_checkpoints(&format!("{name}-discriminator"))?;
        }
        Ok(model)
    }

    /// The paper's settings, except for what a small network on small data needs.
    fn config(&self) -> RilConfig {
        let settings = &self.settings;
        let mut config = RilConfig::ril(settings.max_new_tokens(), settings.steps());
        config.groups.questions_per_step = settings.questions_per_step();
        if settings.model.is_none() {
            // The paper's 1.05 is for prose; working out a sum repeats its numbers.
            config.sampling.repetition_penalty = 1.0;
        }
        for optimizer in [&mut config.policy, &mut config.discriminator] {
            optimizer.learning_rate = settings.learning_rate();
            optimizer.final_learning_rate = settings.learning_rate();
            optimizer.micro_batch_rows = settings.micro_batch_rows();
            optimizer.passes_at_once = if settings.model.is_none() { 2 } else { 1 };
        }
        config.gail.micro_batch_rows = settings.micro_batch_rows();
        config.gail.max_grad_norm = Some(1.0);
        config.seed = settings.seed;
        config
    }

    /// A discriminator that starts as the student and has seen answers of both origins.
    fn pretrain(
        &mut self,
        arm: &str,
        student: &Qwen2_5Vl,
        cache: &TeacherCache,
        world: &World,
        config: &RilConfig,
    ) -> Unless<RilDiscriminator<Qwen2_5Vl>> {
        use burn::module::Module;

        let seed = mix_seed(self.settings.seed, 1);
        let questions = &world.train[..world.train.len().min(PRETRAIN_STEPS * config.groups.questions_per_step)];
        let params = SamplingParams { num_samples: 4, seed, ..config.sampling.clone() };
        let sampled = LocalRollout::student(student.valid()).sample(questions, &params)?;
        let groups = questions.iter().zip(sampled).enumerate().map(|(i, (question, mut responses))| {
            responses.extend(cache.responses(question, 4, i * 4, student)?);
            Ok(Group { question: question.clone(), responses })
        });
        let groups = groups.collect::<Result<_, RilError>>()?;
        let discriminator = discriminator_from(student.clone(), seed, &self.device.clone().autodiff());
        let plan =
            PretrainPlan { groups_per_step: config.groups.questions_per_step, total_steps: PRETRAIN_STEPS, seed };
        let prompt = (config.prompt.clone(), config.gail.clone());
        let mut trainer = DiscriminatorTrainer::new(discriminator, config.discriminator.clone(), groups, prompt, plan)?;
        let outcome = self.run.run_stage(&format!("{arm}-discriminator"), &mut trainer, &mut self.monitor)?;
        Ok((outcome == Outcome::Finished).then(|| trainer.discriminator()))
    }

    /// Runs a stage and stores its model; a model that is stored already is read instead.
    fn finish<S: Stage>(&mut self, name: &str, stage: &mut S, model: impl Fn(&S) -> Qwen2_5Vl) -> Unless<Qwen2_5Vl> {
        if !self.is_stored(name) && self.run.run_stage(name, stage, &mut self.monitor)? == Outcome::Interrupted {
            return Ok(None);
        }
        let stored = self.stored(name, || Ok(model(stage)))?;
        self.run.forget_checkpoints(name)?;
        Ok(Some(stored))
    }

    fn model_folder(&self, name: &str) -> PathBuf {
        self.run.file("models").join(name)
    }

    /// Weights are a folder's last file, so that a folder with weights is whole.
    fn is_stored(&self, name: &str) -> bool {
        self.model_folder(name).join("model.safetensors").exists()
            || self.model_folder(name).join("model.safetensors.index.json").exists()
    }

    /// Stores a model unless it is, and reads it back: a resumed run goes through the same numbers as one that was
    /// never stopped.
    fn stored(&self, name: &str, model: impl FnOnce() -> Result<Qwen2_5Vl, RilError>) -> Result<Qwen2_5Vl, RilError> {
        if !self.is_stored(name) {
            model()?.save(&self.model_folder(name), WeightType::F32)?;
        }
        Ok(Qwen2_5Vl::from_folder(&self.model_folder(name), &self.device)?)
    }

    /// Puts the held-out questions to a model, once a run.
    fn measure(&mut self, name: &str, role: ArmRole, model: &Qwen2_5Vl, world: &World) -> Result<Arm, RilError> {
        let file = self.run.file("answers").join(format!("{name}.jsonl"));
        if !file.exists() {
            let monitor = &mut self.monitor;
            monitor.start_evaluation(&format!("{name}: held-out questions"), world.held_out.len());
            let params = SamplingParams::greedy(self.settings.max_new_tokens());
            let judge = RuleJudge::default();
            let answers = answer_all(model, &world.held_out, &judge, &params, |done| monitor.step(done, &[]))?;
            monitor.finish();
            let lines: Vec<String> = answers.iter().filter_map(|a| serde_json::to_string(a).ok()).collect();
            write_atomic(&file, (lines.join("\n") + "\n").as_bytes())?;
        }
        let answers = ril::data::read_lines::<Answered>(&file)?.into_iter().map(|(_, answer)| answer).collect();
        Ok(Arm { name: name.to_string(), role, answers })
    }
}
