//! Teachers and samplers behind OpenAI-compatible servers (feature `http`).

mod answerer;
mod feed;
mod lesson;
mod picture;
mod rollout;
mod teach;

pub use answerer::{RequestFields, ServerAnswerer};
pub use feed::TeacherFeed;
pub use picture::{file_part, picture_part};
pub use rollout::{AdapterFolder, SampledTokens, ServerRollout, ServerRolloutConfig};
pub use teach::{TeachPlan, TeachReport, teach};
