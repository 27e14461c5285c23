//! The toy models: the architecture of Qwen2.5-VL at the size of a laptop's patience.

use std::sync::Arc;

use burn::tensor::Device;
use ril::models::chat_template::ChatTemplate;
use ril::models::nn::init::InitialStd;
use ril::models::qwen2_5_vl::Qwen2_5VlParts;
use ril::models::qwen2_5_vl::config::{Qwen2_5VlConfig, TextConfig, VisionConfig};
use ril::models::qwen2_5_vl::processor::{ImageProcessor, ImageProcessorConfig};
use ril::models::tokenizer::TextTokenizer;
use ril::models::{ModelError, Qwen2_5Vl};
use ril::{Question, RilError};

use crate::data::Example;
use crate::vocabulary::{CHAT_TEMPLATE, IMAGE, Vocabulary};

/// Sizes of a toy.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Width of decoder and tower; a multiple of 16.
    pub width: usize,
    /// Decoder layers.
    pub text_layers: usize,
    /// Vision blocks.
    pub vision_layers: usize,
}

/// The student.
pub const STUDENT: Size = Size { width: 64, text_layers: 2, vision_layers: 2 };
/// Both teachers.
pub const TEACHER: Size = Size { width: 96, text_layers: 3, vision_layers: 2 };

fn config(size: Size, vocabulary: &Vocabulary) -> Qwen2_5VlConfig {
    let Size { width, text_layers, vision_layers } = size;
    let id = |token: &str| vocabulary.id(token).unwrap_or_default();
    let quarter = width / 4 / 8;
    Qwen2_5VlConfig {
        text: TextConfig {
            vocab_size: vocabulary.size(),
            hidden_size: width,
            intermediate_size: width * 5 / 2,
            num_hidden_layers: text_layers,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            mrope_section: [width / 8 - 2 * (quarter + quarter / 2), quarter + quarter / 2, quarter + quarter / 2],
        },
        vision: VisionConfig {
            depth: vision_layers,
            hidden_size: width,
            intermediate_size: width * 2,
            num_heads: 4,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            window_size: 56,
            out_hidden_size: width,
            fullatt_block_indexes: vec![vision_layers - 1],
        },
        image_token_id: id(IMAGE),
        video_token_id: id("<|video_pad|>"),
        vision_start_token_id: id("<|vision_start|>"),
        vision_end_token_id: id("<|vision_end|>"),
        tie_word_embeddings: true,
    }
}

/// A model with fresh weights.
pub fn fresh(size: Size, vocabulary: &Vocabulary, seed: u64, device: &Device) -> Result<Qwen2_5Vl, RilError> {
    let files = vocabulary.files();
    let content = |wanted: &str| files.iter().find(|(name, _)| *name == wanted).map_or("", |(_, text)| text.as_str());
    let tokenizer = content("tokenizer.json").parse().map_err(|e| ModelError::Tokenizer(format!("{e}")))?;
    let side_files = vec![("tokenizer_config.json".to_string(), content("tokenizer_config.json").into())];
    let processor: ImageProcessorConfig = serde_json::from_str(content("preprocessor_config.json"))
        .map_err(|e| ModelError::Config(format!("image processor: {e}")))?;
    let parts = Qwen2_5VlParts::new(
        config(size, vocabulary),
        TextTokenizer::new(tokenizer, side_files)?,
        ChatTemplate::new(CHAT_TEMPLATE.into())?,
        ImageProcessor::new(processor)?,
    )?;
    Ok(Qwen2_5Vl::init(parts, InitialStd::FanIn, seed, device))
}

/// Examples as the models read them. All toys share vocabulary and image processor, so one encoding serves them all.
pub fn questions(model: &Qwen2_5Vl, examples: &[Example], prefix: &str) -> Result<Vec<Question>, RilError> {
    let encode = |(i, example): (usize, &Example)| {
        let picture = Arc::new(example.picture.render());
        let answer = example.answer.to_string();
        Question::encode(model, format!("{prefix}-{i}"), vec![picture], example.question.clone(), answer)
    };
    examples.iter().enumerate().map(encode).collect()
}
