//! A client for OpenAI-compatible chat servers (vLLM, SGLang, llama.cpp, hosted ones), for programs that ask thousands of
//! questions and must not lose or invent an answer.
//!
//! Pictures travel as data URLs; `n`, `logprobs` and `seed` are asked for as the protocol has them, `top_k`,
//! `repetition_penalty`, `return_token_ids` and `prompt_logprobs` as vLLM has them. Several servers share the load. Requests
//! are bounded in number and rate, time out, and are tried again with growing, randomised delays.
//!
//! The one design decision: **what was asked for is there, or the call is an error.** A response has as many choices as samples
//! were wanted, and the log-probabilities and ids that were wanted; a server that silently ignores a field is
//! [`ClientError::Ignored`]. A request that keeps failing ends with the server's own words.
//!
//! ```no_run
//! use ril_client::{ChatClient, ChatMessage, ChatPart, ChatRequest, ClientConfig};
//!
//! let client = ChatClient::new(ClientConfig::new(["http://localhost:8000"]))?;
//! let picture = ChatPart::image(&std::fs::read("cat.png")?, "image/png");
//! let mut request = ChatRequest::new("Qwen2.5-VL-72B", vec![ChatMessage::user_with_images([picture], "What is it?")]);
//! request.n = Some(4);
//! for choice in client.chat(&request)?.choices {
//!     println!("{}", choice.text());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod attempt;
mod client;
mod config;
mod endpoints;
mod error;
mod gate;
mod message;
mod parallel;
mod request;
mod response;

pub use client::{ChatClient, ClientStats, RetryNotice};
pub use config::{ClientConfig, RetryPolicy};
pub use error::ClientError;
pub use message::{ChatContent, ChatMessage, ChatPart, ChatRole, ImageUrl};
pub use request::ChatRequest;
pub use response::{ChatChoice, ChatResponse, FinishReason, PromptLogProb, TokenLogProb, Usage};
