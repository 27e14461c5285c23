//! A benchmark put to a server.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ril::models::generate::SamplingParams;
use ril::run::Outcome;
use ril::server::{RequestFields, ServerAnswerer};
use ril::vlmeval::{Evaluation, FAILURES_FILE, FailedRows, Kind, Plan, Table};
use serde_json::json;
use wiremock::ResponseTemplate;

use crate::support::{Server, client, says};

const ROWS: usize = 8;

fn evaluation(folder: &Path) -> Evaluation {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/evaluate/data/digits_yes_no.tsv");
    let plan = Plan {
        kind: Kind::named("yes-no").unwrap(),
        table: Table::read(&file).unwrap(),
        limit: Some(ROWS),
        model: "served".into(),
        identity: "server, served".into(),
        sampling: SamplingParams::greedy(8),
    };
    Evaluation::open(plan, folder).unwrap()
}

fn answerer(server: &Server, fields: RequestFields) -> ServerAnswerer {
    ServerAnswerer { client: client(&[server]), model: "served".into(), fields }
}

#[test]
fn rows_are_asked_with_their_pictures_and_scored() {
    let server = Server::new(|_, _| says(&["Yes.".into()]));
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluation(folder.path());
    let mut answerer = answerer(&server, RequestFields::All);
    let outcome = evaluation.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((outcome, evaluation.answered().unwrap()), (Outcome::Finished, ROWS));
    assert!(evaluation.score().unwrap().table().contains(&format!("/{ROWS}")));
    let asked = server.chats();
    assert_eq!(asked.len(), ROWS);
    let content = &asked[0]["messages"][0]["content"];
    assert!(content[0]["image_url"]["url"].as_str().unwrap().starts_with("data:image/png;base64,"), "{content}");
    let expected = json!({"temperature": 0.0, "max_tokens": 8, "top_k": -1, "repetition_penalty": 1.0});
    assert!(expected.as_object().unwrap().iter().all(|(name, value)| asked[0][name] == *value), "{}", asked[0]);
    // Done is done.
    evaluation.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(server.chats().len(), ROWS);
}

#[test]
fn a_server_may_be_sent_the_fields_of_the_protocol_alone() {
    let server = Server::new(|_, _| says(&["No.".into()]));
    let folder = tempfile::tempdir().unwrap();
    let mut answerer = answerer(&server, RequestFields::OpenAi);
    evaluation(folder.path()).ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap();
    assert!(server.chats()[0].get("top_k").is_none() && server.chats()[0].get("repetition_penalty").is_none());
}

#[test]
fn a_row_that_is_refused_hinders_no_other_and_is_asked_again() {
    let refuses = Arc::new(AtomicBool::new(true));
    let switch = refuses.clone();
    let (first, seen) = (Arc::new(AtomicBool::new(true)), Arc::new(std::sync::Mutex::new(None)));
    let server = Server::new(move |_, body| {
        let text = body["messages"][0]["content"].to_string();
        // The first row that comes is the one that is refused.
        if first.swap(false, Ordering::SeqCst) {
            *seen.lock().unwrap() = Some(text.clone());
        }
        match switch.load(Ordering::SeqCst) && *seen.lock().unwrap() == Some(text) {
            true => ResponseTemplate::new(400).set_body_string("picture too small"),
            false => says(&["Yes.".into()]),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluation(folder.path());
    let mut answerer = answerer(&server, RequestFields::All);
    let error = evaluation.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(ril::explain(&error).contains("picture too small"), "{}", ril::explain(&error));
    assert_eq!(evaluation.answered().unwrap(), ROWS - 1);
    // It may count as wrong, in the words of the server.
    let evaluation = evaluation.with_failed_rows(FailedRows::Wrong);
    assert_eq!(evaluation.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap(), Outcome::Finished);
    let scored = evaluation.score().unwrap();
    assert_eq!((scored.overall().total, scored.unanswered), (ROWS, 1));
    let reasons = std::fs::read_to_string(folder.path().join(FAILURES_FILE)).unwrap();
    assert!(reasons.contains("status 400") && reasons.contains("picture too small"), "{reasons}");
    refuses.store(false, Ordering::SeqCst);
    let before = server.chats().len();
    assert_eq!(evaluation.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap(), Outcome::Finished);
    assert_eq!(server.chats().len() - before, 1);
}

#[test]
fn a_server_that_dies_ends_the_call_and_what_came_stays() {
    // It dies with its third request, until it is mended.
    let left = Arc::new(AtomicUsize::new(2));
    let lives = left.clone();
    let server = Server::new(move |_, _| {
        match lives.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |lives| lives.checked_sub(1)) {
            Ok(_) => says(&["Yes.".into()]),
            Err(_) => ResponseTemplate::new(503).set_body_string("draining"),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluation(folder.path());
    let mut answerer = answerer(&server, RequestFields::All);
    // Those that were not asked are open, also where rows that fail would count as wrong.
    let evaluation = evaluation.with_failed_rows(FailedRows::Wrong);
    let error = evaluation.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(evaluation.score().is_err());
    assert!(ril::explain(&error).contains("draining"), "{}", ril::explain(&error));
    assert_eq!(evaluation.answered().unwrap(), 2);
    left.store(ROWS, Ordering::SeqCst);
    assert_eq!(evaluation.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap(), Outcome::Finished);
}
