//! What a run starts from: a student, questions, teachers. Two sources: the digits in this repository, or the user's.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use ril::models::Qwen2_5Vl;
use ril::models::generate::SamplingParams;
use ril::monitor::Monitor;
use ril::run::RunFolder;
use ril::server::TeacherFeed;
use ril::{CachedResponse, LocalRollout, Question, RilError, Rollout, SftConfig, SftExample, TeacherCache};

use crate::args::Settings;
use crate::data::{Mix, Split, generate};
use crate::lessons::{self, Lesson};
use crate::models::{STUDENT, fresh, questions};
use crate::user;
use crate::vocabulary::Vocabulary;

/// Sampled answers of each toy teacher to each training question; a step uses four.
const TEACHER_SAMPLES: usize = 4;
/// Different training questions there are at most; a longer run repeats them.
const MOST_QUESTIONS: usize = 24_000;

/// A teacher by name; the toys are at hand, a user's teacher is only its cached texts.
pub struct Teacher {
    pub name: String,
    pub model: Option<Qwen2_5Vl>,
}

/// A supervised stage of the student.
pub enum Teaching {
    /// Of a toy; its examples are made when it begins.
    Lesson(Lesson),
    /// On teachers' answers to the user's questions.
    Own(SftConfig),
}

impl Teaching {
    /// Name of the stage.
    pub fn name(&self) -> &str {
        match self {
            Self::Lesson(lesson) => &lesson.name,
            Self::Own(..) => "sft",
        }
    }

    /// Examples and how to train on them.
    pub fn prepare(&self, model: &Qwen2_5Vl, world: &World) -> Result<(Vec<SftExample>, SftConfig), RilError> {
        match self {
            Self::Lesson(lesson) => lesson.prepare(model),
            Self::Own(config) => Ok((user::examples(world)?, config.clone())),
        }
    }
}

/// Everything before the first step.
pub struct World {
    /// Before SFT, on an autodiff device.
    pub student: Qwen2_5Vl,
    /// Supervised stages, in order.
    pub lessons: Vec<Teaching>,
    pub train: Vec<Question>,
    pub held_out: Vec<Question>,
    pub teachers: Vec<Teacher>,
    /// The user's teacher responses.
    pub cache: Option<TeacherCache>,
    /// The teacher that answers while the run trains.
    pub feed: Option<Arc<TeacherFeed>>,
}

/// Folder of a toy teacher in the repository.
pub fn teacher_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/ril_qwen/assets").join(name)
}

impl World {
    /// Reads or makes everything; the same settings give the same world.
    pub fn new(settings: &Settings, device: &Device) -> Result<Self, RilError> {
        match (&settings.model, &settings.data) {
            (Some(model), Some(data)) => user::world(settings, model, data, device),
            _ => Self::of_digits(settings, device),
        }
    }

    fn of_digits(settings: &Settings, device: &Device) -> Result<Self, RilError> {
        let student = fresh(STUDENT, &Vocabulary::new(), settings.seed, &device.clone().autodiff())?;
        let view = student.valid();
        let mix = Mix::default();
        let count = (settings.steps() * settings.questions_per_step()).min(MOST_QUESTIONS);
        let train = questions(&view, &generate(Split::Train, count, !settings.seed, &mix), "train")?;
        // The held-out questions are the same for every seed, so that runs can be compared.
        let split = if settings.validation { Split::Validation } else { Split::Test };
        let held_out = generate(split, settings.held_out().unwrap_or_default(), 0, &mix);
        let held_out = questions(&view, &held_out, "held-out")?;
        let teacher = |name: &str| {
            let model = Qwen2_5Vl::from_folder(&teacher_folder(name), device)?;
            Ok(Teacher { name: name.to_string(), model: Some(model) })
        };
        let teachers = ["teacher_a", "teacher_b"].into_iter().map(teacher).collect::<Result<_, RilError>>()?;
        let lessons = lessons::student(settings.sft_steps(), settings.seed).into_iter().map(Teaching::Lesson).collect();
        Ok(Self { student, lessons, train, held_out, teachers, cache: None, feed: None })
    }

    /// Lets the teacher behind a server begin, and waits for its answers to the first question: what is wrong with it shows before anything
    /// is trained. Breaks when the user asks to stop.
    ///
    /// # Errors
    /// Its client's and its own, and those of the files.
    pub fn begin_feed(
        &mut self,
        settings: &Settings,
        run: &RunFolder,
        monitor: &mut Monitor,
    ) -> Result<ControlFlow<()>, RilError> {
        let Some(data) = settings.data.as_deref().filter(|_| settings.servers.teacher_model.is_some()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let records = user::in_turn(settings, data, &self.train)?;
        let first = records.first().and_then(|(_, record)| record.id.clone());
        self.feed = settings.servers.feed(run, records)?;
        if let Some(feed) = &self.feed {
            let teacher = |name: &String| Teacher { name: name.clone(), model: None };
            self.teachers.extend(feed.teachers().iter().map(teacher));
            self.cache = self.cache.take().map(|cache| feed.join(cache));
        }
        let first: Vec<Question> = self.train.iter().filter(|q| Some(&q.id) == first.as_ref()).cloned().collect();
        self.await_teacher(&first, monitor)
    }

    /// Says so where answers are under way that the end of the run must wait for.
    pub fn end_feed(&self) {
        if let Some(feed) = self.feed.as_ref().filter(|feed| !feed.is_finished()) {
            println!("Waiting for the answers of {} that are under way.", feed.teachers().join(", "));
        }
    }

    /// Waits for the answers of the teacher behind a server to these questions; breaks when the user asks to stop.
    ///
    /// # Errors
    /// The teacher's.
    pub fn await_teacher(&self, questions: &[Question], monitor: &mut Monitor) -> Result<ControlFlow<()>, RilError> {
        let Some(feed) = &self.feed else { return Ok(ControlFlow::Continue(())) };
        monitor.start_evaluation(&format!("answers of {}", feed.teachers().join(", ")), questions.len());
        let flow = feed.wait(questions, |done| monitor.advance(done))?;
        monitor.finish();
        Ok(flow)
    }

    /// Teacher answers to the training questions: the user's, or sampled from the toys once a run and kept; `None` when
    /// the user asks to stop.
    pub fn teacher_cache(
        &self,
        settings: &Settings,
        run: &RunFolder,
        monitor: &mut Monitor,
    ) -> Result<Option<TeacherCache>, RilError> {
        if let Some(cache) = &self.cache {
            return Ok(Some(cache.clone()));
        }
        let file = run.file("teacher_responses.jsonl");
        if !file.exists() {
            let mut cache = TeacherCache::default();
            for teacher in &self.teachers {
                if self.sample_teacher(teacher, settings, &mut cache, monitor)?.is_break() {
                    return Ok(None);
                }
            }
            cache.write(&file)?;
        }
        TeacherCache::read(&file).map(Some)
    }

    fn sample_teacher(
        &self,
        teacher: &Teacher,
        settings: &Settings,
        cache: &mut TeacherCache,
        monitor: &mut Monitor,
    ) -> Result<ControlFlow<()>, RilError> {
        let Some(model) = &teacher.model else { return Ok(ControlFlow::Continue(())) };
        let params = SamplingParams {
            num_samples: TEACHER_SAMPLES,
            max_new_tokens: settings.max_new_tokens(),
            top_p: 0.95,
            seed: settings.seed,
            ..SamplingParams::default()
        };
        let rows_at_once = settings.rollout_rows();
        let at_once = (rows_at_once / TEACHER_SAMPLES).max(1);
        monitor.start_evaluation(&format!("answers of {}", teacher.name), self.train.len());
        let mut rollout = LocalRollout { rows_at_once, ..LocalRollout::student(model.clone()) };
        for (i, chunk) in self.train.chunks(at_once).enumerate() {
            let params = SamplingParams { seed: params.seed ^ (i as u64) << 32, ..params.clone() };
            for (question, responses) in chunk.iter().zip(rollout.sample(chunk, &params)?) {
                for response in responses {
                    cache.insert(CachedResponse {
                        question: question.id.clone(),
                        teacher: teacher.name.clone(),
                        response: response.text,
                    });
                }
            }
            let done = i * at_once + chunk.len();
            if monitor.advance(done).is_break() && done < self.train.len() {
                return Ok(ControlFlow::Break(()));
            }
        }
        monitor.finish();
        Ok(ControlFlow::Continue(()))
    }
}
