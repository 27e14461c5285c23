//! Unified reinforcement and imitation learning for vision-language models: the recipe of arXiv 2510.19307 on top of
//! four cores that can each be used alone.
//!
//! One step of the loop is five calls (`RilTrainer`'s [`Stage::step`]): the discriminator is sharpened on student and
//! teacher responses, both judges score every response, scores become rewards, rewards become group-relative
//! advantages, and the policy is optimised. GRPO and Dr.GRPO are the same loop with no teachers and no discriminator.
//!
//! The one design decision: a [`Stage`] draws everything from its seed and the number of its step, so that weights,
//! optimizer state and a number are all that a checkpoint holds, and a run that was killed ends with the same bytes.
//!
//! ```
//! use burn::{module::Module, tensor::Device};
//! use ril::models::Qwen2_5Vl;
//! use ril::reward::RuleJudge;
//! use ril::{CachedResponse, Question, RilConfig, RilTrainer, Stage, TeacherCache, TrainingData, discriminator_from};
//!
//! // Any Qwen2.5-VL folder; this one has random weights.
//! let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../ril-models/tests/fixtures/qwen2_5_vl/flat");
//! let device = Device::flex().autodiff();
//! let student = Qwen2_5Vl::from_folder(folder.as_ref(), &device)?;
//! let question = Question::encode(&student, "q1".into(), vec![], "What is 1 + 2?".into(), "3".into())?;
//! let mut teachers = TeacherCache::default();
//! for (teacher, response) in [("first", "1 + 2 = 3"), ("second", "It is 3.")] {
//!     teachers.insert(CachedResponse { question: "q1".into(), teacher: teacher.into(), response: response.into() });
//! }
//!
//! let mut config = RilConfig::ril(4, 1); // answers of 4 tokens, 1 step; otherwise the paper's settings
//! config.groups.questions_per_step = 1;
//! let discriminator = discriminator_from(student.clone(), 0, &device);
//! let data = TrainingData { questions: vec![question], teachers, judge: RuleJudge::default() };
//! let mut trainer = RilTrainer::new(student, Some(discriminator), data, config)?;
//! while trainer.next_step() < trainer.total_steps() {
//!     let metrics = trainer.step()?;
//!     assert!(metrics.get("reward/similarity").is_some());
//! }
//! let trained: Qwen2_5Vl = trainer.policy();
//! # let _ = trained.num_params();
//! # Ok::<(), ril::RilError>(())
//! ```
//!
//! With files, resuming and progress: [`run::RunFolder::run_stage`]. With samples from elsewhere: [`Rollout`] and
//! [`ServedStage`]. With teachers, judges and samplers behind servers: `server`, with the feature `http`.
//! Benchmarks in VLMEvalKit's layout: [`vlmeval`].

pub mod adapters;
mod base;
pub mod benchmark;
pub mod config;
pub mod data;
mod error;
pub mod eval;
pub mod group;
pub mod imitation;
pub mod journal;
pub mod learner;
mod metrics;
pub mod monitor;
pub mod optimise;
mod replay;
pub mod report;
pub mod rollout;
pub mod run;
pub mod score;
mod served;
#[cfg(feature = "http")]
pub mod server;
pub mod sft;
mod special;
pub mod stage;
pub mod teacher;
mod trainer;
pub mod vlmeval;

pub use config::{FailedStep, GradientChecks, GroupPlan, OptimizerSettings, RewardWeights, RilConfig};
pub use error::{RilError, explain};
pub use group::{Group, Origin, Prompt, Question, Response, ScoringBatch};
pub use imitation::{DiscriminatorTrainer, PretrainPlan, RilDiscriminator, discriminator_from};
pub use learner::{Learner, TrainableModel};
pub use rollout::{LocalRollout, Rollout};
pub use served::{Draw, SampleTime, ServedStage};
pub use sft::{SftConfig, SftExample, SftTrainer};
pub use stage::{Stage, StageMetrics};
pub use teacher::{CachedResponse, TeacherCache, TeacherSource};
pub use trainer::{RilTrainer, TrainingData};

#[cfg(feature = "http")]
pub use ril_client as client;
pub use ril_gail as gail;
pub use ril_grpo as grpo;
pub use ril_models as models;
pub use ril_reward as reward;
