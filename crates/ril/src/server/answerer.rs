//! Benchmarks put to a server.

use std::ops::ControlFlow;

use ril_client::{ChatClient, ChatContent, ChatMessage, ChatPart, ChatRequest, ChatRole};

use super::picture::bytes_part;
use crate::error::RilError;
use crate::vlmeval::{Answer, Answerer, Part, Query, Request, Tell};

/// Which fields of a request a server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestFields {
    /// Also `top_k` and `repetition_penalty`, as vLLM, SGLang and llama.cpp have them. vLLM takes what a request leaves out from
    /// the model's `generation_config.json`: Qwen2.5-VL's has a repetition penalty of 1.05, which changes greedy answers.
    #[default]
    All,
    /// Those of OpenAI's protocol alone, for servers that refuse others.
    OpenAi,
}

/// A model behind OpenAI-compatible servers that answers a benchmark, or judges it.
///
/// Pictures are sent as the files that the benchmark holds. A request that the server refuses (400, 413, 422) is told and
/// hinders no other; a server that is away ends the call.
#[derive(Debug, Clone)]
pub struct ServerAnswerer {
    /// The client.
    pub client: ChatClient,
    /// The model, as the server names it.
    pub model: String,
    /// Fields of the requests.
    pub fields: RequestFields,
}

impl ServerAnswerer {
    fn ask(&self, client: &ChatClient, request: &Request) -> Result<Answer, RilError> {
        let sampling = &request.sampling;
        let message = ChatMessage { role: ChatRole::User, content: content(&request.query)? };
        let has_all = self.fields == RequestFields::All;
        let chat = ChatRequest {
            top_k: ChatRequest::top_k_of(sampling.top_k).filter(|_| has_all),
            repetition_penalty: has_all.then_some(sampling.repetition_penalty),
            max_tokens: Some(sampling.max_new_tokens),
            temperature: Some(sampling.temperature),
            top_p: Some(sampling.top_p),
            seed: Some(sampling.seed >> 33),
            ..ChatRequest::new(self.model.as_str(), vec![message])
        };
        let failed = |source| RilError::Server { question: request.id.clone(), source };
        let response = client.chat(&chat).map_err(failed)?;
        let choice = response.choices.first();
        Ok(Answer {
            text: choice.map_or("", |choice| choice.text()).to_owned(),
            is_truncated: choice.is_some_and(|choice| choice.finish_reason.is_cut()),
        })
    }
}

impl Answerer for ServerAnswerer {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        let mut failure = None;
        let job = |client: &ChatClient, i: usize| self.ask(client, &requests[i]);
        self.client.parallel(requests.len(), job, |i, answer| match answer {
            // What a stop ends is asked again in the next run.
            Err(error) if error.is_stop() => ControlFlow::Continue(()),
            Err(error) if matches!(error, RilError::Server { .. }) && !error.is_refusal() => {
                failure.get_or_insert(error);
                ControlFlow::Break(())
            }
            answer => tell(i, answer),
        });
        failure.map_or(Ok(()), Err)
    }
}

/// The turn with its pictures as files; text alone as a string.
fn content(query: &Query) -> Result<ChatContent, RilError> {
    if let [Part::Text(text)] = query.parts.as_slice() {
        return Ok(ChatContent::Text(text.clone()));
    }
    let part = |part: &Part| match part {
        Part::Text(text) => Ok(ChatPart::Text { text: text.clone() }),
        Part::Picture(picture) => bytes_part(&picture.bytes()?).map_err(|reason| RilError::Input(reason.into())),
    };
    Ok(ChatContent::Parts(query.parts.iter().map(part).collect::<Result<_, RilError>>()?))
}
