//! Unified reinforcement and imitation learning for vision-language models: the recipe of arXiv 2510.19307 on top of
//! four cores that can each be used alone.
//!
//! One step of the loop is five calls (`RilTrainer`'s [`Stage::step`]): the discriminator is sharpened on student and
//! teacher responses, both judges score every response, scores become rewards, rewards become group-relative
//! advantages, and the policy is optimised. GRPO and Dr.GRPO are the same loop with no teachers and no discriminator.

pub mod adapters;
pub mod benchmark;
pub mod config;
pub mod data;
mod error;
pub mod eval;
pub mod group;
pub mod imitation;
pub mod learner;
pub mod monitor;
pub mod optimise;
pub mod report;
pub mod rollout;
pub mod run;
pub mod score;
pub mod sft;
pub mod stage;
pub mod teacher;
mod trainer;

pub use config::{GroupPlan, OptimizerSettings, RewardWeights, RilConfig};
pub use error::RilError;
pub use group::{Group, Origin, Prompt, Question, Response, ScoringBatch};
pub use imitation::{DiscriminatorTrainer, PretrainPlan, RilDiscriminator, discriminator_from};
pub use learner::{Learner, TrainableModel};
pub use rollout::{LocalRollout, Rollout};
pub use sft::{SftConfig, SftExample, SftTrainer};
pub use stage::{Stage, StepMetrics};
pub use teacher::{CachedResponse, TeacherCache};
pub use trainer::{RilTrainer, TrainingData};

pub use ril_gail as gail;
pub use ril_grpo as grpo;
pub use ril_models as models;
pub use ril_reward as reward;
