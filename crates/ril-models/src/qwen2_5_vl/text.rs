//! The text decoder: grouped-query attention with biases on q, k and v, 3-axis rotary positions, SwiGLU.

use burn::module::{Initializer, Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use crate::nn::attention::grouped_attention;
use crate::nn::kv_cache::KvCache;
use crate::nn::mlp::{SwiGlu, linear};
use crate::nn::rms_norm::RmsNorm;
use crate::nn::rotary::{RotaryTable, inverse_frequencies};
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
    pub bias: Option<Tensor<4>>,
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

    fn forward(&self, x: Tensor<3>, layer: usize, context: &mut Context<'_>) -> Tensor<3> {
        let [rows, seq, _] = x.dims();
        let heads = |x: Tensor<3>| {
            let heads = x.dims()[2] / self.head_dim;
            x.reshape([rows, seq, heads, self.head_dim]).swap_dims(1, 2)
        };
        let q = context.rotary.apply(heads(self.q_proj.forward(x.clone())));
        let k = context.rotary.apply(heads(self.k_proj.forward(x.clone())));
        let v = heads(self.v_proj.forward(x));
        let (k, v) = match context.cache.as_mut() {
            Some(cache) => cache.append(layer, k, v),
            None => (k, v),
        };
        self.o_proj.forward(grouped_attention(q, k, v, context.bias.as_ref()))
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

    /// `[rows, seq, hidden]` embeddings to hidden states after the last norm.
    pub(crate) fn forward(&self, mut x: Tensor<3>, mut context: Context<'_>) -> Tensor<3> {
        for (i, layer) in self.layers.iter().enumerate() {
            x = x.clone() + layer.self_attn.forward(layer.input_layernorm.forward(x), i, &mut context);
            x = x.clone() + layer.mlp.forward(layer.post_attention_layernorm.forward(x));
        }
        self.norm.forward(x)
    }
}

/// Angles of the 3-axis rotary positions: frequency `i` follows time, height or width by `mrope_section`.
///
/// Source: Qwen2-VL, arXiv 2409.12191, section 2.1 (M-RoPE).
#[must_use]
pub fn mrope_table(positions: &[Vec<usize>; 3], rows: usize, config: &TextConfig, device: &Device) -> RotaryTable {
    let frequencies = inverse_frequencies(config.rope_theta, config.head_dim());
    let axes: Vec<usize> = (0..3).flat_map(|axis| std::iter::repeat_n(axis, config.mrope_section[axis])).collect();
    let tokens = positions[0].len();
    let mut angles = Vec::with_capacity(tokens * frequencies.len());
    for ((time, height), width) in positions[0].iter().zip(&positions[1]).zip(&positions[2]) {
        let position = [*time, *height, *width];
        angles.extend(axes.iter().zip(&frequencies).map(|(&axis, f)| position[axis] as f32 * f));
    }
    RotaryTable::from_angles(&angles, rows, tokens.checked_div(rows).unwrap_or(0), device)
}
