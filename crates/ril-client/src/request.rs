use serde::Serialize;
use serde_json::{Map, Value};

use crate::{ChatMessage, ClientError};

/// A request for chat completions. What is `None` is not sent, and the server's default holds.
///
/// Fields below `stop` are no part of OpenAI's protocol: vLLM and SGLang know them, llama.cpp knows `top_k`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChatRequest {
    /// Model, or adapter, by the name that the server knows it by.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// Samples wanted; `None` for one. A server that gives another number is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    /// Longest completion, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// 0 takes the likeliest token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Smallest set of likeliest tokens whose probability reaches this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Seed of the sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Log-probability of each token of a completion. A server that gives none is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// Texts that end a completion.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Likeliest tokens kept; -1 keeps all, for every server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Above 1 makes tokens that were seen less likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// Ids of prompt and completion. A server that gives none of either is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_token_ids: Option<bool>,
    /// Log-probabilities of the prompt's tokens, with this many alternatives each. A server that gives none is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<usize>,
    /// Further fields of a server's own.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A conversation, everything else as the server has it.
    pub fn new(model: impl Into<String>, messages: Vec<ChatMessage>) -> Self {
        Self { model: model.into(), messages, ..Self::default() }
    }

    /// [`top_k`](Self::top_k) from a number where 0 keeps all.
    pub fn top_k_of(top_k: usize) -> Option<i64> {
        Some(if top_k == 0 { -1 } else { i64::try_from(top_k).unwrap_or(i64::MAX) })
    }

    /// Samples wanted.
    pub(crate) fn samples(&self) -> usize {
        self.n.unwrap_or(1)
    }

    pub(crate) fn validate(&self) -> Result<(), ClientError> {
        let refuse = |message: &str| Err(ClientError::Request(message.to_owned()));
        if self.messages.is_empty() {
            return refuse("expected at least one message");
        }
        if self.n == Some(0) {
            return refuse("n: expected at least 1 sample, got 0");
        }
        Ok(())
    }
}
