//! One error type for the whole crate.

use std::path::{Path, PathBuf};

/// Everything that can go wrong between a folder on disk and an answer.
///
/// Where an error has a [`source`](std::error::Error::source), its own message does not repeat it: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{path}: cannot be read or written")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file does not parse, or lacks a field that changes the numbers.
    #[error("{path}: not the JSON expected")]
    Json {
        /// The file.
        path: PathBuf,
        /// Field, line and column.
        source: serde_json::Error,
    },
    /// A safetensors file is truncated or malformed.
    #[error("{path}: not a valid safetensors file: {reason}")]
    Safetensors {
        /// The shard.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight that should be saved has been rounded.
    #[error("{name}: expected a weight in floats, got one rounded to 8 bits: save the model before it is rounded")]
    Quantized {
        /// Name as in the checkpoint.
        name: String,
    },
    /// A model with adapters that was asked for something that a plain model does.
    #[error("{0}: the model has adapters: merge them first, or save them alone")]
    Adapters(&'static str),
    /// Adapters were asked for, and the model has none.
    #[error("{0}: the model has no adapters")]
    NoAdapters(&'static str),
    /// The checkpoint lacks a tensor that the model needs.
    #[error("{path}: tensor {name} is missing")]
    MissingTensor {
        /// The checkpoint folder.
        path: PathBuf,
        /// Name as in the checkpoint.
        name: String,
    },
    /// The checkpoint has tensors that the model has no place for: it is one of another model.
    #[error("{path}: {} tensors that the model does not have: {}", .names.len(), first_names(.names))]
    UnknownTensors {
        /// The checkpoint folder.
        path: PathBuf,
        /// Names as in the checkpoint.
        names: Vec<String>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{path}: tensor {name}: expected shape {expected:?}, got {got:?}")]
    TensorShape {
        /// The shard.
        path: PathBuf,
        /// Name as in the checkpoint.
        name: String,
        /// Shape by the configuration, in checkpoint layout.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor has an element type that cannot be read as a float.
    #[error("{path}: tensor {name}: expected F32, F16 or BF16, got {got}")]
    TensorType {
        /// The shard.
        path: PathBuf,
        /// Name as in the checkpoint.
        name: String,
        /// Element type in the file.
        got: String,
    },
    /// A configuration value that cannot be honoured.
    #[error("config: {0}")]
    Config(String),
    /// A picture could not be decoded.
    #[error("{path}: cannot read the image")]
    Image {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A picture that the image processor refuses.
    #[error("image of {width} x {height} pixels: {reason}")]
    ImageSize {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Why it is refused.
        reason: String,
    },
    /// Image placeholders in the text and images given do not match.
    #[error("row {row}: {placeholders} image tokens in the prompt, but the images give {image_tokens}")]
    ImageTokens {
        /// Row of the batch.
        row: usize,
        /// `<|image_pad|>` tokens found.
        placeholders: usize,
        /// Merged patches of the images placed in this row.
        image_tokens: usize,
    },
    /// Logits from which no token can be drawn: the weights or the input broke down on the way.
    #[error("row {row}, step {step}: {reason}")]
    Logits {
        /// Completion, counted over all prompts and samples.
        row: usize,
        /// Tokens drawn before.
        step: usize,
        /// What is wrong with them.
        reason: String,
    },
    /// The tokenizer failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template failed.
    #[error("chat template: {0}")]
    Template(String),
    /// A call with arguments that do not fit together.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// The argument.
        what: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
}

impl ModelError {
    /// Attaches the path to an I/O error: `.map_err(ModelError::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// Puts the file in front of what a configuration or a template lacks; other errors have their path.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Config(reason) => Self::Config(format!("{}: {reason}", path.display())),
            Self::Template(reason) => Self::Template(format!("{}: {reason}", path.display())),
            other => other,
        }
    }

    /// Attaches the path to a JSON error: `.map_err(ModelError::json(path))`.
    pub fn json(path: impl AsRef<Path>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Json { path, source }
    }
}

/// The first few of many names.
fn first_names(names: &[String]) -> String {
    let rest = if names.len() > 4 { ", ..." } else { "" };
    names.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ") + rest
}
