//! Servers that answer as they are told, and a client that does not wait long.

use std::io::{Read, Write};
use std::net::TcpListener;

use ril_client::{ChatClient, ChatMessage, ChatRequest, ClientConfig, RetryPolicy};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

pub const FAST: RetryPolicy =
    RetryPolicy { max_attempts: 4, first_delay_s: 0.005, longest_delay_s: 0.02, longest_retry_after_s: 5.0 };

pub fn config(url: impl Into<String>) -> ClientConfig {
    ClientConfig { retry: FAST, timeout_s: 10.0, ..ClientConfig::new([url.into()]) }
}

pub fn client(server: &MockServer) -> ChatClient {
    ChatClient::new(config(server.uri())).expect("a good configuration")
}

pub fn request() -> ChatRequest {
    ChatRequest::new("m", vec![ChatMessage::user("2 + 2?")])
}

pub fn choice(index: usize, text: &str) -> Value {
    json!({"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"})
}

pub fn answer(texts: &[&str]) -> ResponseTemplate {
    let choices: Vec<Value> = texts.iter().enumerate().map(|(i, text)| choice(i, text)).collect();
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10});
    ResponseTemplate::new(200).set_body_json(json!({"model": "m-served", "choices": choices, "usage": usage}))
}

/// A server on a thread pool of its own, so that the blocking client can be called from the test.
pub struct Server {
    pub runtime: tokio::runtime::Runtime,
    pub mock: MockServer,
}

impl Server {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mock = runtime.block_on(MockServer::start());
        Self { runtime, mock }
    }

    /// Answers in the order given; the last one stays.
    pub fn answering(answers: Vec<ResponseTemplate>) -> Self {
        let server = Self::new();
        let last = answers.len() - 1;
        for (i, template) in answers.into_iter().enumerate() {
            let mock = Mock::given(method("POST")).and(path("/v1/chat/completions")).respond_with(template);
            let mock = if i == last { mock } else { mock.up_to_n_times(1) };
            server.runtime.block_on(mock.mount(&server.mock));
        }
        server
    }

    pub fn requests(&self) -> usize {
        self.runtime.block_on(self.mock.received_requests()).map_or(0, |requests| requests.len())
    }
}

/// Sends these bytes to each connection, whatever is asked, and closes it.
pub fn raw_server(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (stream, bytes) in listener.incoming().zip(answers) {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 65_536];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(&bytes);
        }
    });
    format!("http://{address}")
}

pub fn http(length: usize, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}
