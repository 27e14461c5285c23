//! `config.json` of a Qwen2.5-VL folder: the flat form of the hub and the nested form of newer libraries.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ModelError;

/// What `config.json` says of itself, on the hub and when written by transformers.
const MODEL_TYPE: &str = "qwen2_5_vl";

/// Positions of a model whose `config.json` does not say: transformers' default for this model.
pub(crate) const DEFAULT_MAX_POSITIONS: usize = 32_768;

/// The text decoder, in Hugging Face's field names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Rotary frequencies that follow time, height and width; sums to `head_dim / 2`.
    pub mrope_section: [usize; 3],
}

/// The vision tower, in Hugging Face's field names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Colour channels.
    #[serde(alias = "in_chans", default = "rgb")]
    pub in_channels: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Patches a side that become one token.
    pub spatial_merge_size: usize,
    /// Frames a patch.
    pub temporal_patch_size: usize,
    /// Side of an attention window, pixels.
    pub window_size: usize,
    /// Width of the tokens given to the decoder: its `hidden_size`.
    pub out_hidden_size: usize,
    /// Blocks that see the whole image; the others see their window.
    pub fullatt_block_indexes: Vec<usize>,
}

/// A wrong value shows as a tensor of another shape, so this default cannot change numbers silently.
fn rgb() -> usize {
    3
}

/// Everything that `config.json` says about the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Qwen2_5VlConfig {
    /// Decoder.
    pub text: TextConfig,
    /// Tower.
    pub vision: VisionConfig,
    /// `<|image_pad|>`.
    pub image_token_id: u32,
    /// `<|video_pad|>`.
    pub video_token_id: u32,
    /// `<|vision_start|>`.
    pub vision_start_token_id: u32,
    /// `<|vision_end|>`.
    pub vision_end_token_id: u32,
    /// The head is the embedding, transposed.
    pub tie_word_embeddings: bool,
}

impl TextConfig {
    /// Floats a head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

impl VisionConfig {
    /// Floats a flattened patch.
    #[must_use]
    pub fn patch_dim(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches that become one token.
    #[must_use]
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }
}

impl Qwen2_5VlConfig {
    /// Reads either form.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the field that is missing, of the wrong type, or asks for something that this
    /// implementation does not have (sliding windows, scaled rotary positions, another activation).
    pub fn from_json(root: &Value) -> Result<Self, ModelError> {
        let kind = root.get("model_type").ok_or_else(|| missing("model_type"))?;
        check(kind == MODEL_TYPE, || format!("model_type: expected {MODEL_TYPE:?}, got {kind}"))?;
        let text = root.get("text_config").filter(|t| t.is_object()).unwrap_or(root);
        let vision = root.get("vision_config").ok_or_else(|| missing("vision_config"))?;
        refuse_unsupported(text, vision)?;
        let rope = ["rope_parameters", "rope_scaling"].iter().find_map(|k| text.get(*k).filter(|r| r.is_object()));
        let theta = rope.and_then(|r| r.get("rope_theta")).or_else(|| text.get("rope_theta"));
        let section = rope.and_then(|r| r.get("mrope_section")).ok_or_else(|| missing("mrope_section"))?;
        let mut fields = text.clone();
        fields["rope_theta"] = theta.cloned().ok_or_else(|| missing("rope_theta"))?;
        fields["mrope_section"] = section.clone();
        let config = Self {
            text: parse("text_config", fields)?,
            vision: parse("vision_config", one_channel_count(vision)?)?,
            image_token_id: token_id(root, "image_token_id")?,
            video_token_id: token_id(root, "video_token_id")?,
            vision_start_token_id: token_id(root, "vision_start_token_id")?,
            vision_end_token_id: token_id(root, "vision_end_token_id")?,
            tie_word_embeddings: is_tied(root)? || is_tied(text)?,
        };
        config.validate()?;
        check_head_dim(text, &config.text)?;
        Ok(config)
    }

    /// The nested form, as transformers 5 writes and reads it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (t, v) = (&self.text, &self.vision);
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": MODEL_TYPE,
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "text_config": {
                "model_type": "qwen2_5_vl_text",
                "vocab_size": t.vocab_size,
                "hidden_size": t.hidden_size,
                "intermediate_size": t.intermediate_size,
                "num_hidden_layers": t.num_hidden_layers,
                "num_attention_heads": t.num_attention_heads,
                "num_key_value_heads": t.num_key_value_heads,
                "hidden_act": "silu",
                "rms_norm_eps": t.rms_norm_eps,
                "use_sliding_window": false,
                "tie_word_embeddings": self.tie_word_embeddings,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": t.rope_theta,
                    "mrope_section": t.mrope_section,
                },
            },
            "vision_config": {
                "model_type": "qwen2_5_vl_vision",
                "depth": v.depth,
                "hidden_size": v.hidden_size,
                "hidden_act": "silu",
                "intermediate_size": v.intermediate_size,
                "num_heads": v.num_heads,
                "in_channels": v.in_channels,
                "patch_size": v.patch_size,
                "spatial_merge_size": v.spatial_merge_size,
                "temporal_patch_size": v.temporal_patch_size,
                "window_size": v.window_size,
                "out_hidden_size": v.out_hidden_size,
                "fullatt_block_indexes": v.fullatt_block_indexes,
            },
        })
    }

    /// # Errors
    /// [`ModelError::Config`] with the broken constraint.
    pub fn validate(&self) -> Result<(), ModelError> {
        validate_text(&self.text)?;
        validate_vision(&self.vision)?;
        let (t, v) = (&self.text, &self.vision);
        check(v.out_hidden_size == t.hidden_size, || {
            format!("out_hidden_size {} differs from the decoder's hidden_size {}", v.out_hidden_size, t.hidden_size)
        })
    }
}

fn validate_text(t: &TextConfig) -> Result<(), ModelError> {
    check_lengths(&[
        ("vocab_size", t.vocab_size),
        ("hidden_size", t.hidden_size),
        ("intermediate_size", t.intermediate_size),
        ("num_hidden_layers", t.num_hidden_layers),
        ("num_attention_heads", t.num_attention_heads),
        ("num_key_value_heads", t.num_key_value_heads),
    ])?;
    for (name, value) in [("rms_norm_eps", t.rms_norm_eps), ("rope_theta", t.rope_theta)] {
        check(value.is_finite() && value > 0.0, || format!("{name}: expected a positive number, got {value}"))?;
    }
    check(t.hidden_size.is_multiple_of(t.num_attention_heads) && t.head_dim().is_multiple_of(2), || {
        format!("hidden_size {} does not split into {} heads of even width", t.hidden_size, t.num_attention_heads)
    })?;
    check(t.num_attention_heads.is_multiple_of(t.num_key_value_heads), || {
        format!("{} heads cannot share {} key/value heads", t.num_attention_heads, t.num_key_value_heads)
    })?;
    let frequencies = t.mrope_section.iter().try_fold(0_usize, |sum, &n| sum.checked_add(n));
    check(frequencies == Some(t.head_dim() / 2), || {
        format!("mrope_section {:?} does not sum to head_dim / 2 = {}", t.mrope_section, t.head_dim() / 2)
    })
}

fn validate_vision(v: &VisionConfig) -> Result<(), ModelError> {
    check_lengths(&[
        ("vision_config.depth", v.depth),
        ("vision_config.hidden_size", v.hidden_size),
        ("vision_config.intermediate_size", v.intermediate_size),
        ("vision_config.num_heads", v.num_heads),
        ("vision_config.in_channels", v.in_channels),
        ("vision_config.patch_size", v.patch_size),
        ("vision_config.spatial_merge_size", v.spatial_merge_size),
        ("vision_config.temporal_patch_size", v.temporal_patch_size),
        ("vision_config.window_size", v.window_size),
    ])?;
    let (patch, merge, frames) = (v.patch_size, v.spatial_merge_size, v.temporal_patch_size);
    let products = [
        ("in_channels * temporal_patch_size * patch_size^2", vec![v.in_channels, frames, patch, patch]),
        ("hidden_size * spatial_merge_size^2", vec![v.hidden_size, merge, merge]),
        ("patch_size * spatial_merge_size", vec![patch, merge]),
    ];
    for (name, factors) in products {
        let product = factors.iter().try_fold(1_usize, |product, &factor| product.checked_mul(factor));
        check(product.is_some_and(|product| product <= MAX_LENGTH), || {
            format!("vision_config: {name} of {factors:?} is larger than {MAX_LENGTH}")
        })?;
    }
    check(v.hidden_size.is_multiple_of(v.num_heads) && (v.hidden_size / v.num_heads).is_multiple_of(4), || {
        format!("vision hidden_size {} does not split into {} heads of 4n", v.hidden_size, v.num_heads)
    })?;
    check(v.window_size >= patch * merge, || format!("window_size {} is smaller than one merged patch", v.window_size))
}

/// Longest axis of a tensor that is believed; products of two of them still fit a `usize` of 64 bits.
const MAX_LENGTH: usize = 1 << 24;

fn check_lengths(lengths: &[(&str, usize)]) -> Result<(), ModelError> {
    lengths.iter().try_for_each(|&(name, length)| {
        check((1..=MAX_LENGTH).contains(&length), || format!("{name}: expected 1 to {MAX_LENGTH}, got {length}"))
    })
}

/// transformers writes the hub's `in_chans` back beside its own `in_channels`; the latter is what it reads.
fn one_channel_count(vision: &Value) -> Result<Value, ModelError> {
    let mut vision = vision.clone();
    let (Some(channels), Some(legacy)) = (vision.get("in_channels"), vision.get("in_chans")) else {
        return Ok(vision);
    };
    check(channels == legacy, || format!("vision_config: in_channels is {channels}, but in_chans is {legacy}"))?;
    if let Some(fields) = vision.as_object_mut() {
        fields.remove("in_chans");
    }
    Ok(vision)
}

fn is_tied(part: &Value) -> Result<bool, ModelError> {
    match part.get("tie_word_embeddings") {
        None => Ok(false),
        Some(Value::Bool(is_tied)) => Ok(*is_tied),
        Some(other) => Err(ModelError::Config(format!("tie_word_embeddings: expected true or false, got {other}"))),
    }
}

/// The width of a head is computed here; a file that states another one asks for another model.
fn check_head_dim(text: &Value, config: &TextConfig) -> Result<(), ModelError> {
    let stated = text.get("head_dim").filter(|stated| !stated.is_null());
    check(stated.is_none_or(|stated| stated.as_u64() == Some(config.head_dim() as u64)), || {
        let stated = stated.cloned().unwrap_or_default();
        format!("head_dim: expected hidden_size / num_attention_heads = {}, got {stated}", config.head_dim())
    })
}

/// `max_position_embeddings` of `config.json`, in either form.
pub(crate) fn max_positions(root: &Value) -> Result<usize, ModelError> {
    let text = root.get("text_config").filter(|t| t.is_object()).unwrap_or(root);
    let Some(stated) = text.get("max_position_embeddings") else { return Ok(DEFAULT_MAX_POSITIONS) };
    let positions = stated.as_u64().and_then(|positions| usize::try_from(positions).ok()).filter(|&p| p > 0);
    positions
        .ok_or_else(|| ModelError::Config(format!("max_position_embeddings: expected a positive number, got {stated}")))
}

fn refuse_unsupported(text: &Value, vision: &Value) -> Result<(), ModelError> {
    for (name, part) in [("text_config", text), ("vision_config", vision)] {
        let act = part.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        check(act == "silu", || format!("{name}.hidden_act: expected silu, got {act}"))?;
    }
    let sliding = text.get("use_sliding_window").and_then(Value::as_bool).unwrap_or(false);
    check(!sliding, || "use_sliding_window: expected false, got true".into())?;
    for key in ["rope_parameters", "rope_scaling"] {
        let kind = text.get(key).and_then(|r| r.get("rope_type").or_else(|| r.get("type"))).and_then(Value::as_str);
        check(matches!(kind, None | Some("default" | "mrope")), || {
            format!("{key}.rope_type: expected default or mrope, got {}", kind.unwrap_or_default())
        })?;
    }
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(part: &str, value: Value) -> Result<T, ModelError> {
    serde_json::from_value(value).map_err(|e| ModelError::Config(format!("{part}: {e}")))
}

fn token_id(root: &Value, name: &str) -> Result<u32, ModelError> {
    let value = root.get(name).ok_or_else(|| missing(name))?;
    value
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| ModelError::Config(format!("{name}: expected a token id, got {value}")))
}

fn missing(name: &str) -> ModelError {
    ModelError::Config(format!("field {name} is missing"))
}

fn check(holds: bool, message: impl FnOnce() -> String) -> Result<(), ModelError> {
    if holds { Ok(()) } else { Err(ModelError::Config(message())) }
}
