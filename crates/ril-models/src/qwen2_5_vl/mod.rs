//! Qwen2.5-VL (arXiv 2502.13923): vision tower, decoder, processor and folder, one struct.

pub mod config;
mod lora;
pub mod position;
pub mod processor;
mod processor_config;
pub mod prompt;
mod smart_resize;
pub mod text;
pub mod vision;
mod weights;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use ril_kernels::{AttentionPlan, to_int8};
use serde_json::Value;

use crate::chat_template::{ChatTemplate, Content, Message};
use crate::checkpoint::{SHARD_BYTES, StagedFolder, WeightFiles, WeightType, load_module, save_with};
use crate::error::ModelError;
use crate::input::{ImageBatch, ModelInput, Padding, TokenBatch};
use crate::lora::LoraState;
use crate::nn::init::{InitialStd, init_weights};
use crate::nn::kv_cache::KvCache;
use crate::nn::linear::{Linear, index, linear, reorder};
use crate::nn::packing::Packing;
use crate::tokenizer::TextTokenizer;
use crate::traits::{CausalLm, ChatModel, VisionLanguageModel};

use config::{DEFAULT_MAX_POSITIONS, Qwen2_5VlConfig, max_positions};
use position::{Layout, continue_layout, layout};
use processor::{ImageProcessor, NEWER_PROCESSOR_FILE};
use prompt::expand_image_tokens;
use text::{Context, TextModel, mrope_table};
use vision::VisionTower;

/// Tokens that a completion never holds: placeholders without images would break the next forward.
const VISION_TOKENS: [&str; 5] =
    ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"];
/// Tokens that end a completion.
const STOP_TOKENS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];

/// A Qwen2.5-VL model with its tokenizer, template and image processor.
///
/// The parameters are a Burn [`Module`]: `model.valid()` is a copy without autodiff that shares storage, and an
/// optimizer steps the struct as it is. Everything else is shared behind an [`Arc`].
#[derive(Module, Debug)]
pub struct Qwen2_5Vl {
    /// Vision tower.
    pub visual: VisionTower,
    /// Decoder.
    pub model: TextModel,
    /// Head; `None` when tied to the embedding.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    parts: Arc<Qwen2_5VlParts>,
    #[module(skip)]
    lora: Option<LoraState>,
}

/// What a folder holds beside the weights.
#[derive(Debug)]
pub struct Qwen2_5VlParts {
    /// Numbers of the architecture.
    pub config: Qwen2_5VlConfig,
    /// `config.json` as it was read, written back with the weights.
    config_json: Value,
    /// Text to ids.
    pub tokenizer: TextTokenizer,
    /// Conversation to text.
    pub template: ChatTemplate,
    /// Pictures to patches.
    pub processor: ImageProcessor,
    max_positions: usize,
    stop_ids: Vec<u32>,
    forbidden_ids: Vec<u32>,
}

impl Qwen2_5VlParts {
    /// Puts the parts of a new model together.
    ///
    /// # Errors
    /// [`ModelError::Config`] when the configuration is broken or the tokenizer does not fit it.
    pub fn new(
        config: Qwen2_5VlConfig,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        processor: ImageProcessor,
    ) -> Result<Self, ModelError> {
        let (config_json, max_positions) = (config.to_json(), DEFAULT_MAX_POSITIONS);
        let (stop_ids, forbidden_ids) = (vec![], vec![]);
        Self { config, config_json, tokenizer, template, processor, max_positions, stop_ids, forbidden_ids }.checked()
    }

    /// Reads everything but the weights of a folder.
    ///
    /// # Errors
    /// The file that is missing or broken, and the field.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let config_json: Value = serde_json::from_str(&text).map_err(ModelError::json(&path))?;
        let config = Qwen2_5VlConfig::from_json(&config_json).map_err(|error| error.in_file(&path))?;
        let tokenizer = TextTokenizer::from_folder(folder)?;
        let template = ChatTemplate::from_folder(folder)?;
        let processor = ImageProcessor::from_folder(folder)?;
        let max_positions = max_positions(&config_json).map_err(|error| error.in_file(&path))?;
        let (stop_ids, forbidden_ids) = (vec![], vec![]);
        Self { config, config_json, tokenizer, template, processor, max_positions, stop_ids, forbidden_ids }
            .checked()
            .map_err(|error| error.in_file(folder))
    }

    fn checked(mut self) -> Result<Self, ModelError> {
        self.config.validate()?;
        self.stop_ids = STOP_TOKENS.iter().filter_map(|t| self.tokenizer.token_id(t)).collect();
        let named = VISION_TOKENS.iter().filter_map(|t| self.tokenizer.token_id(t));
        let c = &self.config;
        let by_config = [c.image_token_id, c.video_token_id, c.vision_start_token_id, c.vision_end_token_id];
        self.forbidden_ids = named.chain(by_config).collect();
        self.forbidden_ids.sort_unstable();
        self.forbidden_ids.dedup();
        let fits = |what: &str, holds: bool| {
            if holds { Ok(()) } else { Err(ModelError::Config(format!("{what} does not fit config.json"))) }
        };
        fits("the tokenizer's <|image_pad|>", self.tokenizer.token_id("<|image_pad|>") == Some(c.image_token_id))?;
        fits("the tokenizer's vocabulary", self.tokenizer.vocab_size() <= c.text.vocab_size)?;
        let (p, v) = (self.processor.config(), &c.vision);
        fits("the image processor's patch_size", p.patch_size == v.patch_size)?;
        fits("the image processor's merge_size", p.merge_size == v.spatial_merge_size)?;
        fits("the image processor's temporal_patch_size", p.temporal_patch_size == v.temporal_patch_size)?;
        if self.stop_ids.is_empty() {
            return Err(ModelError::Config("the tokenizer has neither <|im_end|> nor <|endoftext|>".into()));
        }
        Ok(self)
    }
}

impl Qwen2_5Vl {
    /// A model with fresh weights: matrices from a normal distribution, biases 0, gains 1.
    #[must_use]
    pub fn init(parts: Qwen2_5VlParts, std: InitialStd, seed: u64, device: &Device) -> Self {
        init_weights(Self::empty(Arc::new(parts), device), std, seed)
    }

    fn empty(parts: Arc<Qwen2_5VlParts>, device: &Device) -> Self {
        let config = &parts.config;
        let head = || linear(config.text.hidden_size, config.text.vocab_size, false, device);
        Self {
            visual: VisionTower::new(&config.vision, device),
            model: TextModel::new(&config.text, device),
            lm_head: (!config.tie_word_embeddings).then(head),
            parts,
            lora: None,
        }
    }

    /// Loads a Hugging Face folder; weights become f32 whatever their type in the files.
    ///
    /// # Errors
    /// Any file that is missing, truncated or does not fit, with its path, tensor name and shapes.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let parts = Arc::new(Qwen2_5VlParts::from_folder(folder)?);
        let mut files = WeightFiles::open(folder)?;
        let (vision, is_tied) = (parts.config.vision.clone(), parts.config.tie_word_embeddings);
        let empty = Self::empty(parts, device);
        let model = load_module(empty, &mut files, |path, owner| weights::rule(path, owner, &vision))?;
        files.check_all_read(|name| weights::is_spare(name, is_tied))?;
        Ok(model)
    }

    /// Writes a folder that this crate and transformers open, in place of a checkpoint that may stand there: see
    /// [`checkpoint`](crate::checkpoint).
    ///
    /// # Errors
    /// [`ModelError::Quantized`] after [`Self::into_int8`], [`ModelError::Adapters`] before [`Self::merge_lora`],
    /// [`ModelError::Io`] with the path. A folder of before is
    /// untouched, unless renaming the finished files failed:
    /// then it has neither `model.safetensors` nor an index, and does not load.
    pub fn save(&self, folder: &Path, dtype: WeightType) -> Result<(), ModelError> {
        self.save_in_shards(folder, dtype, SHARD_BYTES)
    }

    fn save_in_shards(&self, folder: &Path, dtype: WeightType, shard_bytes: usize) -> Result<(), ModelError> {
        if self.has_lora() {
            return Err(ModelError::Adapters("save"));
        }
        let parts = &self.parts;
        let mut config = parts.config_json.clone();
        let name = match dtype {
            WeightType::F32 => "float32",
            WeightType::Bf16 => "bfloat16",
        };
        for key in ["torch_dtype", "dtype"] {
            if key == "dtype" || config.get(key).is_some() {
                config[key] = Value::from(name);
            }
        }
        let mut staged = StagedFolder::new(folder)?;
        staged.write("config.json", |out| writeln!(out, "{config:#}"))?;
        let (template, processor) = (parts.template.file(), parts.processor.file()?);
        let files = parts.tokenizer.files().chain([template, (processor.0, &processor.1)]);
        for (name, content) in files {
            staged.write(name, |out| out.write_all(content))?;
        }
        let rule = |path: &str, owner: &str| weights::rule(path, owner, &parts.config.vision);
        save_with(staged, self, (dtype, shard_bytes), rule, |name| name == NEWER_PROCESSOR_FILE)
    }

    /// The model with weights of 8 bits in the decoder's products and the head ([`ril_kernels::to_int8`]; those without a
    /// fitting block stay); embedding, norms, biases and vision tower are as they were. For sampling and scoring on modest
    /// machines: a quarter of the memory for those weights, and of what is read for each token. A tied head is there
    /// twice then, in 8 bits beside the embedding.
    ///
    /// Memory is given back layer by layer, unless another copy of the model holds it. The result cannot be saved; its
    /// rounded weights cannot be trained and get no gradient.
    #[must_use]
    pub fn into_int8(mut self) -> Self {
        let head = to_int8(self.head_weight());
        let products = self.model.layers.iter_mut().flat_map(|layer| {
            let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
            [
                &mut attention.q_proj,
                &mut attention.k_proj,
                &mut attention.v_proj,
                &mut attention.o_proj,
                &mut mlp.gate_proj,
                &mut mlp.up_proj,
                &mut mlp.down_proj,
            ]
        });
        for layer in products {
            if let Some(weight) = to_int8(layer.weight.val()) {
                layer.weight = Param::initialized(layer.weight.id, weight);
            }
        }
        if let Some(weight) = head {
            let id = self.lm_head.as_ref().map_or_else(ParamId::new, |head| head.weight.id);
            self.lm_head = Some(Linear { weight: Param::initialized(id, weight), bias: None, lora: None });
        }
        self
    }

    /// Everything beside the weights.
    #[must_use]
    pub fn parts(&self) -> &Arc<Qwen2_5VlParts> {
        &self.parts
    }

    /// Numbers of the architecture.
    #[must_use]
    pub fn config(&self) -> &Qwen2_5VlConfig {
        &self.parts.config
    }

    /// What stands at each place of `[rows * seq]`: the id of a text token, or the vocabulary and the number of an image
    /// token.
    fn contents(&self, input: &ModelInput, layout: &Layout) -> Result<Vec<usize>, ModelError> {
        let [vocab, _] = self.model.embed_tokens.weight.lazy_shape().dims();
        if let Some(id) = input.tokens.ids().iter().find(|&&id| id as usize >= vocab) {
            return Err(ModelError::Input {
                what: "token id",
                expected: format!("below the vocabulary's {vocab}"),
                got: id.to_string(),
            });
        }
        let mut contents: Vec<usize> = input.tokens.ids().iter().map(|&id| id as usize).collect();
        for &(slot, token) in &layout.image_slots {
            contents[slot] = vocab + token;
        }
        Ok(contents)
    }

    fn forward(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor<3>, ModelError> {
        let (rows, seq) = (input.tokens.rows(), input.tokens.seq());
        if !input.tokens.mask().contains(&true) {
            let got = format!("{rows} rows of {seq}, none of them real");
            return Err(ModelError::Input { what: "tokens", expected: "at least one".into(), got });
        }
        let config = &self.parts.config;
        let layout = match &cache {
            Some(cache) if !cache.is_empty() => continue_layout(input, config, &cache.next_position())?,
            _ => layout(input, config)?,
        };
        let device = self.device();
        let contents = self.contents(input, &layout)?;
        let mut cache = cache;
        let (packing, mut plan) = match &cache {
            Some(_) => (Packing::rows(&input.tokens), AttentionPlan::default()),
            None => Packing::shared(&input.tokens, &contents),
        };
        let packed: Vec<usize> = packing.sources.iter().map(|&flat| contents[flat]).collect();
        let rotary = mrope_table(&layout.positions, &packing.sources, &config.text, &device);
        let embedded = self.embed(input, &packed)?;
        // Behind everything that can fail: an input that is refused leaves the cache as it was.
        if let Some(cache) = &mut cache {
            plan = cache.extend(input.tokens.mask(), seq, &layout.next_position)?;
        }
        let hidden = self.model.forward(embedded, Context { rotary, plan: Arc::new(plan), cache });
        let width = hidden.dims()[1];
        Ok(reorder(hidden, &packing.places, &device).reshape([rows, seq, width]))
    }

    /// `[tokens, hidden]`: embeddings of [`Self::contents`].
    fn embed(&self, input: &ModelInput, contents: &[usize]) -> Result<Tensor<2>, ModelError> {
        let weight = self.model.embed_tokens.weight.val();
        let device = weight.device().inner();
        let [vocab, _] = weight.dims();
        let ids: Vec<usize> = contents.iter().copied().filter(|&content| content < vocab).collect();
        let text = weight.select(0, index(&ids, &device));
        let Some(images) = input.images.as_ref().filter(|_| ids.len() < contents.len()) else {
            return Ok(text);
        };
        // Text and image tokens stand one after the other; one gather puts them in order.
        let mut texts = 0..ids.len();
        let order = contents.iter().map(|&content| match content.checked_sub(vocab) {
            Some(image_token) => ids.len() + image_token,
            None => texts.next().unwrap_or_default(),
        });
        let order: Vec<usize> = order.collect();
        Ok(reorder(Tensor::cat(vec![text, self.visual.forward(images)?], 0), &order, &device))
    }
}

impl CausalLm for Qwen2_5Vl {
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor<3>, ModelError> {
        // As one task of the pool: otherwise each operator is one, and wakes a thread before it starts.
        match self.with_dropout(input) {
            None => rayon::join(|| self.forward(input, cache), || ()).0,
            Some(model) => rayon::join(|| model.forward(input, cache), || ()).0,
        }
    }

    fn head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.model.embed_tokens.weight.val().transpose(),
        }
    }

    fn new_cache(&self, rows: usize, capacity: usize) -> KvCache {
        let text = &self.parts.config.text;
        let head = [text.num_key_value_heads, text.head_dim()];
        KvCache::new(text.num_hidden_layers, rows, capacity, head, &self.device())
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.parts.max_positions)
    }

    fn at_step(self, step: u64) -> Self {
        Self { lora: self.lora.map(|lora| lora.at_step(step)), ..self }
    }

    fn has_dropout(&self) -> bool {
        self.lora_config().is_some_and(|lora| lora.dropout > 0.0)
    }

    fn adapter_scales(&self) -> Vec<(String, f64)> {
        self.scales_of_adapters()
    }

    fn forbidden_ids(&self) -> &[u32] {
        &self.parts.forbidden_ids
    }

    fn device(&self) -> Device {
        self.model.norm.weight.lazy_device().inner()
    }
}

impl ChatModel for Qwen2_5Vl {
    fn encode(&self, messages: &[Message]) -> Result<ModelInput, ModelError> {
        let parts = &self.parts;
        let pictures: Vec<_> = messages
            .iter()
            .flat_map(|m| &m.content)
            .filter_map(|c| match c {
                Content::Image(picture) => Some(picture.clone()),
                Content::Text(_) => None,
            })
            .collect();
        let images = if pictures.is_empty() { None } else { Some(parts.processor.process(&pictures)?) };
        let grids = images.as_ref().map_or(&[][..], |i: &ImageBatch| &i.grid_thw);
        let ids = parts.tokenizer.encode(&parts.template.render(messages, true)?)?;
        let merge = parts.config.vision.spatial_merge_size;
        let ids = expand_image_tokens(&ids, parts.config.image_token_id, grids, merge)?;
        let placements = (0..grids.len()).collect();
        Ok(ModelInput { tokens: TokenBatch::padded(&[ids], 0, Padding::Right), images, placements })
    }

    fn encode_response(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let ids = self.parts.tokenizer.encode(text)?;
        let kept = ids.into_iter().filter(|id| !self.parts.forbidden_ids.contains(id));
        Ok(kept.chain(self.parts.stop_ids.first().copied()).collect())
    }

    fn decode(&self, token_ids: &[u32]) -> Result<String, ModelError> {
        self.parts.tokenizer.decode(token_ids)
    }

    fn stop_ids(&self) -> &[u32] {
        &self.parts.stop_ids
    }

    fn special_tokens(&self) -> &[(u32, String)] {
        self.parts.tokenizer.special_tokens()
    }
}

impl VisionLanguageModel for Qwen2_5Vl {
    fn image_embeddings(&self, images: &ImageBatch) -> Result<Tensor<2>, ModelError> {
        self.visual.forward(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{INDEX_FILE, WEIGHTS_FILE};

    /// Shards over a single file, fewer shards over more, and a single file over shards.
    #[test]
    fn shards_replace_what_stood_there() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/qwen2_5_vl/flat");
        let model = Qwen2_5Vl::from_folder(&fixture, &Device::flex()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for shard_bytes in [SHARD_BYTES, 20_000, 60_000, SHARD_BYTES] {
            model.save_in_shards(folder.path(), WeightType::F32, shard_bytes).unwrap();
            let (is_single, is_sharded) =
                (folder.path().join(WEIGHTS_FILE).exists(), folder.path().join(INDEX_FILE).exists());
            assert_eq!((is_single, is_sharded), (shard_bytes == SHARD_BYTES, shard_bytes < SHARD_BYTES));
            let again = Qwen2_5Vl::from_folder(folder.path(), &Device::flex()).unwrap();
            let weight = |model: &Qwen2_5Vl| model.visual.merger.fc2.weight.val().into_data();
            assert_eq!(weight(&again), weight(&model));
        }
    }
}
