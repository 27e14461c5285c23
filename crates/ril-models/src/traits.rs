//! The interfaces at which models, samplers and trainers meet.

use burn::tensor::{Device, Tensor};

use crate::chat_template::Message;
use crate::error::ModelError;
use crate::input::{ImageBatch, ModelInput};
use crate::nn::kv_cache::KvCache;

/// A causal language model: hidden states, and a head over them.
pub trait CausalLm {
    /// Final hidden states, `[batch, seq, hidden]`, after the last norm.
    ///
    /// With a cache, `input` holds the new tokens only, and the cache what stood before them. Cached keys and values are
    /// constants: no gradient flows through them, so that training goes without a cache.
    ///
    /// # Errors
    /// [`ModelError::ImageTokens`] when placeholders and images do not match; [`ModelError::Input`] when an
    /// id is outside the vocabulary or the cache is full.
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor<3>, ModelError>;

    /// The head's weight, `[hidden, vocab]` (a transposed view of the embedding when tied).
    fn head_weight(&self) -> Tensor<2>;

    /// Logits `[batch, seq, vocab]` of `[batch, seq, hidden]`.
    fn lm_head(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, seq, width] = hidden.dims();
        let logits = ril_kernels::linear(hidden.reshape([batch * seq, width]), self.head_weight(), None);
        let vocab = logits.dims()[1];
        logits.reshape([batch, seq, vocab])
    }

    /// An empty cache for `rows` rows of at most `capacity` tokens.
    fn new_cache(&self, rows: usize, capacity: usize) -> KvCache;

    /// Tokens that a row may have, prompt and completion together; `None` when any number will do.
    fn max_positions(&self) -> Option<usize> {
        None
    }

    /// The model for one step of training: what it draws at random in a forward with autodiff (LoRA's dropout)
    /// follows from a seed of its own, this number and the input. Models that draw nothing stay as they are.
    #[must_use]
    fn at_step(self, step: u64) -> Self
    where
        Self: Sized,
    {
        let _ = step;
        self
    }

    /// Whether a forward with autodiff draws at random; none without does. Models that draw nothing say no.
    fn has_dropout(&self) -> bool {
        false
    }

    /// Layers with adapters and the scale of what each adds: with the weights, all that decides the outputs of models of one
    /// architecture. A checkpoint of adapters alone is for a model with the same ones. Empty for models without adapters.
    fn adapter_scales(&self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// Ids that sampling must never produce (image and vision tokens).
    fn forbidden_ids(&self) -> &[u32];

    /// The device of the parameters.
    fn device(&self) -> Device;
}

/// Text in, text out: template, tokenizer and stop ids around a [`CausalLm`].
pub trait ChatModel: CausalLm {
    /// Renders the conversation, with the generation prompt, and tokenises it; images are processed.
    ///
    /// # Errors
    /// Template, tokenizer and image errors.
    fn encode(&self, messages: &[Message]) -> Result<ModelInput, ModelError>;

    /// Ids of a response as the model would have written it: the text, then the first stop token. Image and vision
    /// tokens that the text happens to spell are left out, since no images stand behind them.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    fn encode_response(&self, text: &str) -> Result<Vec<u32>, ModelError>;

    /// Text of `token_ids`, special tokens left out.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    fn decode(&self, token_ids: &[u32]) -> Result<String, ModelError>;

    /// Ids that end a completion, the usual one first; never empty.
    fn stop_ids(&self) -> &[u32];

    /// Ids of the special tokens and how they are spelled: [`ChatModel::encode`] and [`ChatModel::encode_response`]
    /// read a text that holds such a spelling as the token, whoever wrote it. Empty by default: no text can spell one.
    fn special_tokens(&self) -> &[(u32, String)] {
        &[]
    }
}

/// A [`ChatModel`] that sees.
pub trait VisionLanguageModel: ChatModel {
    /// Image tokens in embedding space, `[image_tokens, hidden]`, images in order.
    ///
    /// # Errors
    /// [`ModelError::Input`] when the patches do not fit the tower.
    fn image_embeddings(&self, images: &ImageBatch) -> Result<Tensor<2>, ModelError>;
}
