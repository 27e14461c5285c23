//! The text decoder: grouped-query attention with biases on q, k and v, 3-axis rotary positions, SwiGLU.

use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use ril_kernels::{AttentionPlan, RotaryTable, attention, rotate};

use crate::nn::kv_cache::KvCache;
use crate::nn::linear::{Linear, linear, project};
use crate::nn::mlp::SwiGlu;
use crate::nn::rms_norm::RmsNorm;
use crate::nn::rotary::inverse_frequencies;
use crate::qwen2_5_vl::config::TextConfig;

/// Token table, `[vocab, hidden]`.
#[derive(Module, Debug)]
pub struct TokenEmbedding {
    /// `[vocab, hidden]`.
    pub weight: Param<Tensor<2>>,
}

/// Self-attention of one decoder layer.
#[derive(Module, Debug)]
pub struct TextAttention {
    /// Queries, with bias.
    pub q_proj: Linear,
    /// Keys, with bias.
    pub k_proj: Linear,
    /// Values, with bias.
    pub v_proj: Linear,
    /// Output, no bias.
    pub o_proj: Linear,
    #[module(skip)]
    head_dim: usize,
}

/// One decoder layer: `x += attention(norm(x))`, `x += mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Attention.
    pub self_attn: TextAttention,
    /// Feed-forward.
    pub mlp: SwiGlu,
    /// Before the attention.
    pub input_layernorm: RmsNorm,
    /// Before the feed-forward.
    pub post_attention_layernorm: RmsNorm,
}

/// Embedding, layers and the last norm.
#[derive(Module, Debug)]
pub struct TextModel {
    /// Tokens in.
    pub embed_tokens: TokenEmbedding,
    /// Decoder layers.
    pub layers: Vec<DecoderLayer>,
    /// After the last layer.
    pub norm: RmsNorm,
}

/// What all layers of one forward share.
pub(crate) struct Context<'a> {
    pub rotary: RotaryTable,
    pub plan: Arc<AttentionPlan>,
    pub cache: Option<&'a mut KvCache>,
}

impl TextAttention {
    fn new(config: &TextConfig, device: &Device) -> Self {
        let (hidden, kv) = (config.hidden_size, config.num_key_value_heads * config.head_dim());
        Self {
            q_proj: linear(hidden, hidden, true, device),
            k_proj: linear(hidden, kv, true, device),
            v_proj: linear(hidden, kv, true, device),
            o_proj: linear(hidden, hidden, false, device),
            head_dim: config.head_dim(),
        }
    }

    /// `[tokens, hidden]` to the same.
    fn forward(&self, x: Tensor<2>, layer: usize, context: &mut Context<'_>) -> Tensor<2> {
        let heads = |layer: &Linear| {
            let x = project(layer, x.clone());
            let [tokens, width] = x.dims();
            x.reshape([tokens, width / self.head_dim, self.head_dim])
        };
        let (q, k) = (rotate(heads(&self.q_proj), &context.rotary), rotate(heads(&self.k_proj), &context.rotary));
        let (k, v) = match context.cache.as_mut() {
            Some(cache) => cache.append(layer, k, heads(&self.v_proj)),
            None => (k, heads(&self.v_proj)),
        };
        project(&self.o_proj, attention(q, k, v, &context.plan))
    }
}

impl DecoderLayer {
    fn new(config: &TextConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.hidden_size, config.rms_norm_eps, device);
        Self {
            self_attn: TextAttention::new(config, device),
            mlp: SwiGlu::new(config.hidden_size, config.intermediate_size, false, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
        }
    }
}

impl TextModel {
    /// Weights 0 and gains 1, to be filled from a checkpoint or by [`crate::nn::init::init_weights`].
    #[must_use]
    pub fn new(config: &TextConfig, device: &Device) -> Self {
        Self {
            embed_tokens: TokenEmbedding {
                weight: Initializer::Zeros.init([config.vocab_size, config.hidden_size], device),
            },
            layers: (0..config.num_hidden_layers).map(|_| DecoderLayer::new(config, device)).collect(),
            norm: RmsNorm::new(config.hidden_size, config.rms_norm_eps, device),
        }
    }

    /// `[tokens, hidden]` embeddings to hidden states after the last norm.
    pub(crate) fn forward(&self, mut x: Tensor<2>, mut context: Context<'_>) -> Tensor<2> {
        for (i, layer) in self.layers.iter().enumerate() {
            // The branch comes first in the sum: nothing else holds it, so that the sum can take its memory.
            x = layer.self_attn.forward(layer.input_layernorm.forward(x.clone()), i, &mut context) + x;
            x = layer.mlp.forward(layer.post_attention_layernorm.forward(x.clone())) + x;
        }
        self.norm.forward(x)
    }
}

/// Angles of the 3-axis rotary positions of the tokens `sources`: frequency `i` follows time, height or width by
/// `mrope_section`.
///
/// Source: Qwen2-VL, arXiv 2409.12191, section 2.1 (M-RoPE).
#[must_use]
pub fn mrope_table(
    positions: &[Vec<usize>; 3],
    sources: &[usize],
    config: &TextConfig,
    device: &Device,
) -> RotaryTable {
    let frequencies = inverse_frequencies(config.rope_theta, config.head_dim());
    let axes: Vec<usize> = (0..3).flat_map(|axis| std::iter::repeat_n(axis, config.mrope_section[axis])).collect();
    let angle = |token: usize| {
        axes.iter().zip(&frequencies).map(move |(&axis, frequency)| positions[axis][token] as f32 * frequency)
    };
    let angles: Vec<f32> = sources.iter().flat_map(|&token| angle(token)).collect();
    RotaryTable::from_angles(&angles, sources.len(), device)
}
