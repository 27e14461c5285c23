use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{ChatRequest, ClientError};

/// A server's answer, checked against its request: as many choices as samples were wanted, in order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChatResponse {
    /// Name of the model that answered, as the server says it.
    #[serde(default)]
    pub model: String,
    /// One a sample.
    pub choices: Vec<ChatChoice>,
    /// Tokens read and written.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// What some servers add, in forms of their own.
    #[serde(default)]
    metadata: Value,
    /// Ids of the prompt, where vLLM puts them: see [`Self::prompt_ids`].
    #[serde(default)]
    prompt_token_ids: Option<Vec<u32>>,
    /// For each token of the prompt, log-probabilities of that token and of its alternatives by id, nats; `None` for the first.
    #[serde(default)]
    pub prompt_logprobs: Option<Vec<Option<HashMap<u32, PromptLogProb>>>>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChatChoice {
    /// Number of the sample, from 0.
    #[serde(default)]
    pub index: usize,
    message: AnswerMessage,
    /// What ended it.
    #[serde(default)]
    pub finish_reason: FinishReason,
    #[serde(default)]
    logprobs: Option<ChoiceLogProbs>,
    /// Ids of the completion, when asked for: vLLM's `token_ids`, SGLang's `response_token_ids`.
    #[serde(default, alias = "response_token_ids")]
    pub token_ids: Option<Vec<u32>>,
    /// Ids of the prompt, where SGLang puts them.
    #[serde(default)]
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct AnswerMessage {
    /// `null` for an empty completion (SGLang), and where something else came of it.
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<Value>,
    #[serde(default)]
    tool_calls: Option<Value>,
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<Value>,
}

impl AnswerMessage {
    /// What came in the place of a text: a refusal, calls of tools, reasoning without a conclusion.
    fn instead_of_text(&self) -> Option<String> {
        let others =
            [("refusal", &self.refusal), ("tool_calls", &self.tool_calls), ("reasoning", &self.reasoning_content)];
        let is_there = |value: &Value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(values) => !values.is_empty(),
            _ => true,
        };
        let other = others.into_iter().filter(|_| self.content.is_none());
        let mut there = other.filter_map(|(name, value)| Some((name, value.as_ref().filter(|value| is_there(value))?)));
        there.next().map(|(name, value)| format!("{name} {value}"))
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct ChoiceLogProbs {
    #[serde(default)]
    content: Option<Vec<TokenLogProb>>,
}

/// A token of a completion.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TokenLogProb {
    /// Its text; not always whole characters.
    pub token: String,
    /// Its log-probability, nats. Of which distribution, the server decides: vLLM's `--logprobs-mode`.
    pub logprob: f32,
}

/// A token of a prompt.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PromptLogProb {
    /// Its log-probability, nats.
    pub logprob: f32,
}

/// Why a completion ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token, or a text of [`ChatRequest::stop`].
    Stop,
    /// The budget of tokens.
    Length,
    /// Anything else, in the server's words.
    Other(String),
    /// Nothing was said.
    #[default]
    Unknown,
}

impl<'de> Deserialize<'de> for FinishReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::<String>::deserialize(deserializer)?.as_deref() {
            Some("stop") => Self::Stop,
            Some("") | None => Self::Unknown,
            Some("length") => Self::Length,
            Some(other) => Self::Other(other.to_owned()),
        })
    }
}

impl FinishReason {
    /// Whether the text does not end where its model would have ended it: the budget, a filter, a request that was aborted.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Length | Self::Other(_))
    }

    /// In the protocol's words.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Other(other) => other,
            Self::Unknown => "",
        }
    }
}

/// Tokens that a request cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens written, all samples together.
    #[serde(default)]
    pub completion_tokens: u64,
}

impl ChatChoice {
    /// The completion; empty where there is none.
    pub fn text(&self) -> &str {
        self.message.content.as_deref().unwrap_or("")
    }

    /// Its tokens with their log-probabilities, when asked for.
    pub fn log_probs(&self) -> Option<&[TokenLogProb]> {
        self.logprobs.as_ref()?.content.as_deref()
    }
}

impl ChatResponse {
    /// Name of the weights that answered, where the server says it (SGLang).
    pub fn weight_version(&self) -> Option<&str> {
        self.metadata.get("weight_version")?.as_str()
    }

    /// Ids of the prompt, when asked for.
    pub fn prompt_ids(&self) -> Option<&[u32]> {
        let of_choice = || self.choices.first()?.prompt_token_ids.as_deref();
        self.prompt_token_ids.as_deref().or_else(of_choice)
    }

    /// The response, choices in order, once it holds what `request` asked for.
    /// `told` is how its words may be quoted.
    pub(crate) fn checked(
        mut self,
        request: &ChatRequest,
        url: &str,
        told: impl Fn(&str) -> String,
    ) -> Result<Self, ClientError> {
        let ignored =
            |field, asked: String, got: String| ClientError::Ignored { url: url.to_owned(), field, asked, got };
        let wanted = request.samples();
        self.choices.sort_by_key(|choice| choice.index);
        let is_numbered = self.choices.iter().enumerate().all(|(i, choice)| choice.index == i);
        if self.choices.len() != wanted || !is_numbered {
            let numbers: Vec<usize> = self.choices.iter().map(|choice| choice.index).collect();
            let got = format!("{} with the numbers {numbers:?}", numbers.len());
            return Err(ignored("n", format!("{wanted} choices"), got));
        }
        for choice in &self.choices {
            // No empty answer: whoever scores it would score what was not said. A text that was cut may not have begun.
            if let Some(got) = choice.message.instead_of_text().filter(|_| !choice.finish_reason.is_cut()) {
                return Err(ClientError::NoText { url: url.to_owned(), choice: choice.index, got: told(&got) });
            }
            let nothing = || format!("none for choice {}", choice.index);
            let has_log_probs = choice.log_probs().is_some_and(|tokens| !tokens.is_empty());
            if request.logprobs == Some(true) && !has_log_probs && !choice.text().is_empty() {
                return Err(ignored("logprobs", "log-probabilities".into(), nothing()));
            }
            if request.return_token_ids == Some(true) && choice.token_ids.is_none() {
                return Err(ignored("return_token_ids", "token ids".into(), nothing()));
            }
        }
        if request.return_token_ids == Some(true) && self.prompt_ids().is_none() {
            return Err(ignored("return_token_ids", "token ids".into(), "none for the prompt".into()));
        }
        if request.prompt_logprobs.is_some() && self.prompt_logprobs.as_ref().is_none_or(Vec::is_empty) {
            return Err(ignored("prompt_logprobs", "log-probabilities of the prompt".into(), "none".into()));
        }
        Ok(self)
    }
}
