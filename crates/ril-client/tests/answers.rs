//! What a server may answer: it is read whole, or it is an error that says what is wrong with it.

#[allow(dead_code, reason = "the tests need a part of the support")]
mod support;

use proptest::prelude::*;
use ril_client::{ChatClient, ChatMessage, ChatRequest, ClientConfig, ClientError, FinishReason, RetryPolicy};
use serde_json::{Value, json};
use support::{FAST, Server, answer, choice, client, config, raw_server, request};
use wiremock::matchers::body_partial_json;
use wiremock::{Mock, ResponseTemplate};

#[test]
fn an_answer_is_read_whole() {
    let server = Server::answering(vec![answer(&["four", "4"])]);
    let client = client(&server.mock);
    let mut request = request();
    request.n = Some(2);
    let response = client.chat(&request).unwrap();
    let texts: Vec<&str> = response.choices.iter().map(|c| c.text()).collect();
    assert_eq!((response.model.as_str(), texts), ("m-served", vec!["four", "4"]));
    assert_eq!(response.choices[0].finish_reason, FinishReason::Stop);
    let stats = client.stats();
    assert_eq!((stats.requests, stats.retries, stats.usage.prompt_tokens, stats.usage.completion_tokens), (1, 0, 7, 3));
}

#[test]
fn garbage_and_missing_choices_are_errors_with_the_text() {
    for body in [
        "",
        "null",
        "[]",
        "{\"choices\": 3}",
        "{}",
        "{\"error\": \"model is loading\"}",
        "<html>",
        "{\"choices\": [{}",
        "{\"choices\": [{}]}",
        "{\"choices\": [{\"text\": \"of another protocol\", \"finish_reason\": \"stop\"}]}",
    ] {
        let server = Server::answering(vec![ResponseTemplate::new(200).set_body_string(body)]);
        let error = client(&server.mock).chat(&request()).unwrap_err();
        let ClientError::Json { attempts: 4, ref text, .. } = error else { panic!("{body}: {error}") };
        assert_eq!(text, body);
    }
}

#[test]
fn something_else_than_a_text_is_no_empty_answer() {
    for (message, told) in [
        (json!({"content": null, "refusal": "I will not."}), "refusal \"I will not.\""),
        (json!({"content": null, "tool_calls": [{"id": "1"}]}), "tool_calls [{\"id\":\"1\"}]"),
        (json!({"reasoning_content": "Let me see"}), "reasoning \"Let me see\""),
        (json!({"content": null, "reasoning": "Let me see"}), "reasoning \"Let me see\""),
    ] {
        let body = |reason: &str| json!({"choices": [{"index": 0, "message": message, "finish_reason": reason}]});
        let server = Server::answering(vec![ResponseTemplate::new(200).set_body_json(body("stop"))]);
        let error = client(&server.mock).chat(&request()).unwrap_err();
        assert!(matches!(error, ClientError::NoText { .. }) && error.is_refusal(), "{error}");
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(server.requests(), 1);
        // The budget may end before a text begins.
        let server = Server::answering(vec![ResponseTemplate::new(200).set_body_json(body("length"))]);
        assert_eq!(client(&server.mock).chat(&request()).unwrap().choices[0].text(), "");
    }
}

#[test]
fn a_body_without_end_is_refused() {
    let long = "x".repeat(200_000);
    let server = Server::answering(vec![answer(&[&long])]);
    let config = ClientConfig { max_body_bytes: 100_000, ..config(server.mock.uri()) };
    let error = ChatClient::new(config).unwrap().chat(&request()).unwrap_err();
    assert!(matches!(error, ClientError::Transport { attempts: 1, .. }), "{error}");
    assert_eq!(server.requests(), 1);
    // A refusal of that length is still a refusal.
    let server = Server::answering(vec![ResponseTemplate::new(400).set_body_string(long)]);
    let error = client(&server.mock).chat(&request()).unwrap_err();
    assert!(matches!(error, ClientError::Status { status: 400, .. }) && error.to_string().len() < 3_000);
}

#[test]
fn a_server_that_ignores_n_is_noticed() {
    for got in [&["4"][..], &["4", "4", "4"], &[]] {
        let server = Server::answering(vec![answer(got)]);
        let mut request = request();
        request.n = Some(2);
        let error = client(&server.mock).chat(&request).unwrap_err();
        let ClientError::Ignored { field: "n", .. } = error else { panic!("{got:?}: {error}") };
        assert_eq!(server.requests(), 1);
    }
    // Two choices of the same number are not two samples.
    let twice = json!({"choices": [choice(0, "a"), choice(0, "b")]});
    let server = Server::answering(vec![ResponseTemplate::new(200).set_body_json(twice)]);
    let request = ChatRequest { n: Some(2), ..request() };
    assert!(matches!(client(&server.mock).chat(&request), Err(ClientError::Ignored { field: "n", .. })));
}

#[test]
fn a_server_that_ignores_what_was_asked_for_is_noticed() {
    type Ask = (&'static str, fn(&mut ChatRequest));
    let ask: [Ask; 3] = [
        ("logprobs", |r| r.logprobs = Some(true)),
        ("return_token_ids", |r| r.return_token_ids = Some(true)),
        ("prompt_logprobs", |r| r.prompt_logprobs = Some(0)),
    ];
    for (name, ask) in ask {
        let mut request = request();
        ask(&mut request);
        let mut empty = json!({"choices": [choice(0, "4")], "prompt_logprobs": []});
        empty["choices"][0]["logprobs"] = json!({"content": []});
        for answer in [answer(&["4"]), ResponseTemplate::new(200).set_body_json(empty)] {
            let server = Server::answering(vec![answer]);
            let error = client(&server.mock).chat(&request).unwrap_err();
            assert!(matches!(error, ClientError::Ignored { field, .. } if field == name), "{name}: {error}");
        }
    }
}

#[test]
fn choices_come_in_order_and_texts_in_any_script() {
    // SGLang has no other word for an empty completion.
    let nothing =
        json!({"index": 2, "message": {"content": null, "refusal": null, "tool_calls": []}, "finish_reason": ""});
    let body = json!({"choices": [choice(1, "𝄞 \u{0} \\\" 北京"), choice(0, "é\n"), nothing]});
    let server = Server::answering(vec![ResponseTemplate::new(200).set_body_json(body)]);
    let request =
        ChatRequest { n: Some(3), ..ChatRequest::new("m", vec![ChatMessage::user("Größe \u{1f600} \"?\"")]) };
    let response = client(&server.mock).chat(&request).unwrap();
    let texts: Vec<&str> = response.choices.iter().map(|c| c.text()).collect();
    assert!(!response.choices[2].finish_reason.is_cut());
    assert_eq!(texts, ["é\n", "𝄞 \u{0} \\\" 北京", ""]);
    let received = server.runtime.block_on(server.mock.received_requests()).unwrap();
    let sent: Value = received[0].body_json().unwrap();
    assert_eq!(sent, json!({"model": "m", "n": 3, "messages": [{"role": "user", "content": "Größe \u{1f600} \"?\""}]}));
}

#[test]
fn the_fields_of_vllm_are_sent_by_their_names() {
    let server = Server::new();
    let expected = json!({
        "model": "m", "n": 2, "max_tokens": 8, "temperature": 0.5, "top_p": 0.95, "seed": 3, "logprobs": true,
        "stop": ["</answer>"], "top_k": 50, "repetition_penalty": 1.05, "return_token_ids": true, "prompt_logprobs": 0,
        "min_p": 0.25,
    });
    let body = json!({
        "choices": [
            {"index": 0, "message": {"content": "4"}, "token_ids": [19], "finish_reason": "length",
             "logprobs": {"content": [{"token": "4", "logprob": -0.5, "bytes": [52], "top_logprobs": []}]}},
            {"index": 1, "message": {"content": ""}, "token_ids": [], "finish_reason": "abort"},
        ],
        "prompt_token_ids": [1, 2],
        "prompt_logprobs": [null, {"2": {"logprob": -1.25, "rank": 1, "decoded_token": "x"}}],
    });
    let mock = Mock::given(body_partial_json(expected)).respond_with(ResponseTemplate::new(200).set_body_json(body));
    server.runtime.block_on(mock.mount(&server.mock));
    let mut request = ChatRequest {
        n: Some(2),
        max_tokens: Some(8),
        temperature: Some(0.5),
        top_p: Some(0.95),
        seed: Some(3),
        logprobs: Some(true),
        stop: vec!["</answer>".into()],
        top_k: Some(50),
        repetition_penalty: Some(1.05),
        return_token_ids: Some(true),
        prompt_logprobs: Some(0),
        ..request()
    };
    request.extra.insert("min_p".into(), json!(0.25));
    let response = client(&server.mock).chat(&request).unwrap();
    let first = &response.choices[0];
    assert_eq!((first.token_ids.as_deref(), &first.finish_reason), (Some(&[19][..]), &FinishReason::Length));
    assert_eq!(first.log_probs().unwrap()[0].logprob, -0.5);
    assert_eq!(response.choices[1].finish_reason, FinishReason::Other("abort".into()));
    assert_eq!(response.prompt_ids(), Some(&[1, 2][..]));
    assert_eq!(response.prompt_logprobs.unwrap()[1].as_ref().unwrap()[&2].logprob, -1.25);
}

#[test]
fn what_servers_add_in_forms_of_their_own_is_no_error() {
    for (metadata, version) in [
        (json!({"weight_version": "step-2"}), Some("step-2")),
        (json!({"weight_version": 2, "request": "x"}), None),
        (json!(["a"]), None),
        (json!("b"), None),
        (Value::Null, None),
    ] {
        let body = json!({"choices": [choice(0, "4")], "metadata": metadata, "system_fingerprint": null});
        let server = Server::answering(vec![ResponseTemplate::new(200).set_body_json(body)]);
        assert_eq!(client(&server.mock).chat(&request()).unwrap().weight_version(), version);
    }
}

#[test]
fn impossible_requests_are_not_sent() {
    let client = ChatClient::new(config("http://127.0.0.1:9")).unwrap();
    let none = ChatRequest { n: Some(0), ..request() };
    assert!(matches!(client.chat(&none), Err(ClientError::Request(_))));
    assert!(matches!(client.chat(&ChatRequest::new("m", vec![])), Err(ClientError::Request(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let retry = RetryPolicy { max_attempts: 1, ..FAST };
        let url = raw_server(vec![bytes]);
        let client = ChatClient::new(ClientConfig { retry, timeout_s: 5.0, ..config(url) }).unwrap();
        prop_assert!(client.chat(&request()).is_err());
    }
}
