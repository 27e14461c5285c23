//! The fixtures of `scripts/reference/qwen2_5_vl.py`, and comparisons with them.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod lora;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use ril_models::image::open_image;
use ril_models::qwen2_5_vl::processor::ImageProcessorConfig;
use ril_models::{
    CausalLm, ChatModel, Content, ImageBatch, Message, ModelError, ModelInput, Padding, Qwen2_5Vl, Role, TokenBatch,
};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// Checkpoints of the fixture set.
pub const FOLDERS: [&str; 4] = ["nested", "flat", "sharded", "bf16"];
/// Largest accepted difference of a logit or a log-probability.
pub const LOGIT_TOLERANCE: f32 = 1e-4;

/// One checkpoint and what transformers computes with it.
pub struct Fixture {
    pub name: &'static str,
    pub folder: PathBuf,
    pub golden: Golden,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

#[derive(Deserialize)]
pub struct Golden {
    pub stop_ids: Vec<u32>,
    pub forbidden_ids: Vec<u32>,
    pub pad_id: u32,
    pub images: BTreeMap<String, GoldenImage>,
    pub cases: BTreeMap<String, Case>,
    pub batch: Batch,
}

#[derive(Deserialize)]
pub struct GoldenImage {
    pub grid_thw: [usize; 3],
    pub resized: bool,
}

/// A conversation, a response to it, and the most likely completion.
#[derive(Deserialize)]
pub struct Case {
    pub messages: Vec<Value>,
    pub images: Vec<String>,
    pub prompt_ids: Vec<u32>,
    pub response: String,
    pub response_ids: Vec<u32>,
    /// Of prompt and response, by axis.
    pub position_ids: [Vec<usize>; 3],
    /// Tokens whose logits are recorded.
    pub logit_positions: Vec<usize>,
    pub greedy_ids: Vec<u32>,
}

/// Left-padded prompts, right-padded responses, and a Dr.GRPO loss over them.
#[derive(Deserialize)]
pub struct Batch {
    pub cases: Vec<String>,
    pub prompt_len: usize,
    pub ids: Vec<Vec<u32>>,
    pub mask: Vec<Vec<u8>>,
    /// By axis and row.
    pub position_ids: [Vec<Vec<usize>>; 3],
    pub advantages: Vec<f32>,
    pub epsilon: f64,
    pub beta: f64,
    pub max_completion_len: usize,
    pub loss: f32,
    pub gradients: Vec<String>,
}

impl Case {
    /// Prompt and response.
    pub fn ids(&self) -> Vec<u32> {
        [&self.prompt_ids[..], &self.response_ids].concat()
    }

    /// The conversation, pictures read from disk.
    pub fn messages(&self) -> Vec<Message> {
        self.messages.iter().map(message).collect()
    }
}

impl Fixture {
    pub fn open(name: &'static str) -> Self {
        let folder = fixtures().join(name);
        let golden = std::fs::read(folder.join("golden.json")).expect("golden.json");
        let tensors = std::fs::read(folder.join("golden.safetensors")).expect("golden.safetensors");
        Self {
            name,
            golden: serde_json::from_slice(&golden).expect("golden.json parses"),
            tensors: read_f32(&tensors),
            folder,
        }
    }

    /// Every checkpoint.
    pub fn all() -> impl Iterator<Item = Self> {
        FOLDERS.into_iter().map(Self::open)
    }

    /// The model, through the public API.
    pub fn model(&self, device: &Device) -> Qwen2_5Vl {
        Qwen2_5Vl::from_folder(&self.folder, device).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// A golden tensor.
    pub fn tensor(&self, name: &str) -> &[f32] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("{} has no golden {name}", self.name)).1
    }

    /// Shape of a golden tensor.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].0
    }

    /// The reference's own patches of these pictures: what the tower computes does not depend on our processor.
    pub fn images(&self, names: &[String]) -> Option<ImageBatch> {
        let batches: Vec<ImageBatch> = names.iter().map(|name| self.image(name)).collect();
        (!batches.is_empty()).then(|| ImageBatch::concat(&batches).expect("images of one folder"))
    }

    fn image(&self, name: &str) -> ImageBatch {
        let key = format!("image.{name}.pixel_patches");
        ImageBatch {
            pixel_patches: self.tensor(&key).to_vec(),
            patch_dim: self.shape(&key)[1],
            patch_size: ImageProcessorConfig::from_folder(&self.folder).expect("a processor").patch_size,
            grid_thw: vec![self.golden.images[name].grid_thw],
        }
    }

    /// Prompt and response of a case, with the reference's patches.
    pub fn input(&self, case: &Case) -> ModelInput {
        ModelInput {
            tokens: TokenBatch::padded(&[case.ids()], self.golden.pad_id, Padding::Right),
            images: self.images(&case.images),
            placements: (0..case.images.len()).collect(),
        }
    }

    /// The prompts of the batch, padded on the left. Every picture stands once in it, however many rows show it.
    pub fn batch_prompts(&self) -> ModelInput {
        let rows: Vec<&Case> = self.golden.batch.cases.iter().map(|name| &self.golden.cases[name]).collect();
        let shown: Vec<&String> = rows.iter().flat_map(|case| &case.images).collect();
        let mut names: Vec<String> = shown.iter().copied().cloned().collect();
        names.sort();
        names.dedup();
        let place = |name: &String| names.iter().position(|n| n == name).expect("collected above");
        let prompts: Vec<&Vec<u32>> = rows.iter().map(|case| &case.prompt_ids).collect();
        ModelInput {
            tokens: TokenBatch::padded(&prompts, self.golden.pad_id, Padding::Left),
            images: self.images(&names),
            placements: shown.into_iter().map(place).collect(),
        }
    }

    /// The responses of the batch, padded on the right.
    pub fn batch_responses(&self) -> TokenBatch {
        let rows: Vec<&Vec<u32>> =
            self.golden.batch.cases.iter().map(|name| &self.golden.cases[name].response_ids).collect();
        TokenBatch::padded(&rows, self.golden.pad_id, Padding::Right)
    }

    /// Prompts and responses.
    pub fn batch(&self) -> ModelInput {
        let prompts = self.batch_prompts();
        ModelInput { tokens: prompts.tokens.join(&self.batch_responses()).expect("same rows"), ..prompts }
    }
}

/// Folder of all fixtures of this model.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/qwen2_5_vl")
}

fn message(json: &Value) -> Message {
    let role = match json["role"].as_str() {
        Some("system") => Role::System,
        Some("assistant") => Role::Assistant,
        _ => Role::User,
    };
    let part = |part: &Value| match part["type"].as_str() {
        Some("image") => {
            let path = fixtures().join("images").join(part["image"].as_str().expect("a file name"));
            Content::Image(Arc::new(open_image(&path).expect("a readable picture")))
        }
        _ => Content::Text(part["text"].as_str().expect("a text part").to_owned()),
    };
    match &json["content"] {
        Value::String(text) => Message::new(role, text.as_str()),
        parts => Message { role, content: parts.as_array().expect("a list of parts").iter().map(part).collect() },
    }
}

/// All tensors of a safetensors file as f32, by name.
pub fn read_f32(bytes: &[u8]) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let decode = |bytes: &[u8], dtype| match dtype {
        safetensors::Dtype::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        // The upper half of an f32.
        safetensors::Dtype::BF16 => bytes.chunks(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect(),
        other => panic!("no fixture has {other:?}"),
    };
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.shape().to_vec(), decode(view.data(), view.dtype()))))
        .collect()
}

/// All tensors of a checkpoint folder, whatever its shards.
pub fn read_checkpoint(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let is_weights = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("model") && name.ends_with(".safetensors")
    };
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.filter(|path| is_weights(path)).flat_map(|path| read_f32(&std::fs::read(path).expect("a shard"))).collect()
}

/// Values of a tensor, row-major.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("an f32 tensor")
}

/// Logits of every token, `[rows * seq][vocab]`.
pub fn logits(model: &Qwen2_5Vl, input: &ModelInput) -> Vec<Vec<f32>> {
    let hidden = model.hidden_states(input, None).expect("a valid input");
    rows_of(model.lm_head(hidden))
}

/// `[rows, seq, vocab]` as `[rows * seq][vocab]`.
pub fn rows_of(logits: Tensor<3>) -> Vec<Vec<f32>> {
    let vocab = logits.dims()[2];
    values(logits).chunks(vocab).map(<[f32]>::to_vec).collect()
}

/// Natural logarithm of the probability of `id`, on the host in f64.
pub fn log_prob(logits: &[f32], id: u32) -> f32 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - max).exp()).sum();
    (f64::from(logits[id as usize]) - max - sum.ln()) as f32
}

/// Largest difference; infinite when the lengths differ or a number is not finite.
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    a.iter().zip(b).map(difference).fold(0.0, f32::max)
}

/// Fails when `got` is not within `tolerance` of `want`; prints the largest difference for `--nocapture`.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    let difference = max_difference(got, want);
    println!("{what}: {difference:.2e}");
    assert!(
        difference <= tolerance,
        "{what}: {} against {} values, largest difference {difference:e} above {tolerance:e}",
        got.len(),
        want.len()
    );
}

/// A message with those of all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// A copy of a fixture's checkpoint that a test may break.
pub fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// The model of a folder, through the public API.
pub fn load(folder: &Path) -> Result<Qwen2_5Vl, ModelError> {
    Qwen2_5Vl::from_folder(folder, &Device::flex())
}

/// Why a folder does not load.
pub fn refusal(folder: &Path) -> ModelError {
    match load(folder) {
        Ok(_) => panic!("{} was accepted", folder.display()),
        Err(error) => error,
    }
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

/// Ids of a question about a picture, ids of one response to it, and the log-probabilities of these.
pub fn score(model: &Qwen2_5Vl, picture: &Path) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let question = Message::user_with_images("What is it?", vec![open_image(picture).unwrap().into()]);
    let input = model.encode(&[question]).unwrap();
    let mut response = model.parts().tokenizer.encode("A cat, I see.").unwrap();
    response.extend(model.parts().tokenizer.token_id("<|im_end|>"));
    let prompt = input.tokens.ids().to_vec();
    let answer = TokenBatch::padded(std::slice::from_ref(&response), 0, Padding::Right);
    let all = logits(model, &ModelInput { tokens: input.tokens.join(&answer).unwrap(), ..input });
    let log_probs = response.iter().zip(&all[prompt.len() - 1..]).map(|(&id, logits)| log_prob(logits, id)).collect();
    (prompt, response, log_probs)
}

/// What a script of `scripts/reference` prints as JSON for these folders, the picture of [`score`] and its texts; the Python is
/// `RIL_REFERENCE_PYTHON`.
pub fn reference_score<A: AsRef<OsStr>>(script: &str, folders: impl IntoIterator<Item = A>, picture: &Path) -> Value {
    let python = std::env::var("RIL_REFERENCE_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = std::process::Command::new(python)
        .env("HF_HUB_OFFLINE", "1")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/reference").join(script))
        .args(folders)
        .arg("--image")
        .arg(picture)
        .args(["--prompt", "What is it?", "--response", "A cat, I see."])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
