//! A server whose answers are a function of the request.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use ril::client::{ChatClient, ClientConfig, RetryPolicy};
use ril::models::Qwen2_5Vl;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers};

/// Path and body of each request.
type Requests = Arc<Mutex<Vec<(String, Value)>>>;

pub struct Server {
    _runtime: tokio::runtime::Runtime,
    mock: MockServer,
    requests: Requests,
}

impl Server {
    /// `answer` is given the path and the body.
    pub fn new(answer: impl Fn(&str, &Value) -> ResponseTemplate + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let requests = Requests::default();
        let seen = requests.clone();
        let respond = move |request: &Request| {
            let (path, body) = (request.url.path().to_owned(), request.body_json::<Value>().unwrap_or_default());
            let response = answer(&path, &body);
            seen.lock().unwrap().push((path, body));
            response
        };
        let mock = runtime.block_on(async {
            let mock = MockServer::start().await;
            Mock::given(matchers::any()).respond_with(respond).mount(&mock).await;
            mock
        });
        Self { _runtime: runtime, mock, requests }
    }

    /// Bodies of the requests to this path so far.
    pub fn requests(&self, path: &str) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(to, _)| to == path).map(|(_, body)| body.clone()).collect()
    }

    /// Chat requests so far.
    pub fn chats(&self) -> Vec<Value> {
        self.requests("/v1/chat/completions")
    }
}

pub fn client(servers: &[&Server]) -> ChatClient {
    let retry = RetryPolicy { max_attempts: 2, first_delay_s: 0.002, longest_delay_s: 0.01, ..RetryPolicy::default() };
    let config = ClientConfig { retry, max_in_flight: 4, ..ClientConfig::new(servers.iter().map(|s| s.mock.uri())) };
    ChatClient::new(config).unwrap()
}

/// A response with one choice for each text.
pub fn says(texts: &[String]) -> ResponseTemplate {
    let choice =
        |(i, text): (usize, &String)| json!({"index": i, "message": {"content": text}, "finish_reason": "stop"});
    let choices: Vec<Value> = texts.iter().enumerate().map(choice).collect();
    let usage = json!({"prompt_tokens": 10, "completion_tokens": texts.len(), "total_tokens": 10 + texts.len()});
    ResponseTemplate::new(200).set_body_json(json!({"model": "served-72b", "choices": choices, "usage": usage}))
}

pub fn samples(body: &Value) -> usize {
    body["n"].as_u64().unwrap_or(1) as usize
}

pub fn student(device: &Device) -> Qwen2_5Vl {
    Qwen2_5Vl::from_folder(&fixture(), device).unwrap()
}

fn fixture() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/ril-models/tests/fixtures/qwen2_5_vl/flat"))
}
