//! A `ril-models` model seen as one of the cores' traits: newtypes, as the orphan rule asks.

mod discriminator;
mod policy;

pub use discriminator::{DiscriminatorPrompt, DiscriminatorScope, LmEncoder, authors, response_rows};
pub(crate) use discriminator::{lengths, teacher_indices};
pub use policy::ModelPolicy;
