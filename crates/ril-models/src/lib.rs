//! Vision-language models on [Burn](burn): Qwen2.5-VL whole, from pictures and text to sampled answers.
//!
//! The one design decision: a model is a plain `&self` function of its input ([`ModelInput`], host side) and of a
//! cache that the *caller* owns ([`nn::kv_cache::KvCache`]). Training never sees the cache, sampling never sees a
//! tape, and a frozen copy is `model.valid()`, which shares storage.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use ril_models::generate::{SamplingParams, generate};
//! use ril_models::{ChatModel, Message, Qwen2_5Vl};
//!
//! # fn main() -> Result<(), ril_models::ModelError> {
//! let model = Qwen2_5Vl::from_folder("Qwen2.5-VL-3B-Instruct".as_ref(), &Device::flex())?;
//! let picture = ril_models::image::open_image("cat.png".as_ref())?;
//! let prompt = model.encode(&[Message::user_with_images("What is this?", vec![picture.into()])])?;
//! for answer in generate(&model, &prompt, &SamplingParams { num_samples: 4, ..Default::default() })? {
//!     println!("{}", model.decode(&answer.token_ids)?);
//! }
//! # Ok(())
//! # }
//! ```

pub mod chat_template;
pub mod checkpoint;
mod error;
pub mod files;
pub mod generate;
pub mod image;
mod input;
pub mod lora;
pub mod nn;
pub mod qwen2_5_vl;
pub mod seed;
pub mod tokenizer;
mod traits;

pub use chat_template::{Content, Message, Role};
pub use error::ModelError;
pub use input::{GridThw, ImageBatch, ModelInput, Padding, TokenBatch};
pub use lora::LoraConfig;
pub use qwen2_5_vl::Qwen2_5Vl;
pub use traits::{CausalLm, ChatModel, VisionLanguageModel};
