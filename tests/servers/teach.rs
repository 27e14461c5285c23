//! Teachers: nothing asked twice, nothing lost, and a file that a run can read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use ril::client::{ChatClient, ChatMessage, ChatRequest, ChatRole};
use ril::data::{Record, read_questions, read_records};
use ril::server::{TeachPlan, TeachReport, teach};
use ril::{RilError, TeacherCache};
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{Server, client, samples, says, student};

const QUESTIONS: usize = 5;

/// A folder with questions, the first of which shows a picture.
struct Data {
    folder: tempfile::TempDir,
    records: Vec<(usize, Record)>,
}

impl Data {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::from_pixel(28, 28, image::Rgb([200, 30, 30])).save(folder.path().join("red.png")).unwrap();
        let line = |i: usize| match i {
            0 => json!({"id": "q0", "images": ["red.png"], "question": "Which colour?", "answer": "red"}),
            i => json!({"id": format!("q{i}"), "question": format!("What is {i} + 1?"), "answer": (i + 1).to_string()}),
        };
        let lines: String = (0..QUESTIONS).map(|i| format!("{}\n", line(i))).collect();
        std::fs::write(folder.path().join("questions.jsonl"), lines).unwrap();
        let records = read_records(&folder.path().join("questions.jsonl")).unwrap();
        Self { folder, records }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("teachers.jsonl")
    }

    fn teach(&self, client: &ChatClient, plan: &TeachPlan) -> Result<TeachReport, RilError> {
        teach(client, plan, &self.records, &self.out(), |_| ControlFlow::Continue(()))
    }

    /// Responses by question and teacher.
    fn counts(&self) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for line in lines(&self.out()) {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            *counts.entry((text("question"), text("teacher"))).or_default() += 1;
        }
        counts
    }
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn plan(teacher: &str) -> TeachPlan {
    let system = vec![ChatMessage::text(ChatRole::System, "Be brief.")];
    let request = ChatRequest { temperature: Some(0.75), max_tokens: Some(64), ..ChatRequest::new("72b", system) };
    TeachPlan { teacher: teacher.into(), request, responses: 3, samples_per_request: 2, tries: 2, seed: 1 }
}

/// Says something else each time, by the seed.
fn teacher() -> Server {
    Server::new(|_, body| says(&(0..samples(body)).map(|i| format!("Answer {} {i}", body["seed"])).collect::<Vec<_>>()))
}

#[test]
fn every_question_is_asked_with_its_pictures_and_the_file_says_where_answers_come_from() {
    let (data, server) = (Data::new(), teacher());
    let report = data.teach(&client(&[&server]), &plan("big")).unwrap();
    assert_eq!((report.found, report.added, report.cut, report.uncovered), (0, 3 * QUESTIONS, 0, 0));
    assert_eq!(data.counts().into_values().collect::<Vec<_>>(), [3; QUESTIONS]);

    let asked = server.chats();
    assert_eq!(asked.len(), 2 * QUESTIONS, "two samples and one");
    let shown = asked.iter().find(|body| body["messages"][1]["content"].is_array()).unwrap();
    assert_eq!(shown["messages"][0], json!({"role": "system", "content": "Be brief."}));
    let url = shown["messages"][1]["content"][0]["image_url"]["url"].as_str().unwrap();
    assert!(url.starts_with("data:image/png;base64,iVBOR"), "{url}");
    assert_eq!(shown["messages"][1]["content"][1], json!({"type": "text", "text": "Which colour?"}));
    let mut seeds: Vec<u64> = asked.iter().map(|body| body["seed"].as_u64().unwrap()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), asked.len(), "each request has a seed of its own");

    let lines = lines(&data.out());
    let line = &lines[0];
    assert_eq!((&line["model"], &line["finish_reason"]), (&json!("served-72b"), &json!("stop")));
    assert_eq!((&line["settings"]["temperature"], &line["settings"]["max_tokens"]), (&json!(0.75), &json!(64)));
    let written: u64 = lines.iter().filter_map(|l| l["usage"]["completion_tokens"].as_u64()).sum();
    assert_eq!(written, 3 * QUESTIONS as u64, "the usage of a request stands on one line");
}

#[test]
fn cut_answers_are_asked_for_again_and_left_out_of_a_run() {
    let data = Data::new();
    // The first answer to each question is always cut.
    let server = Server::new(|_, body| {
        let choice = |i: usize| {
            let reason = if i == 0 { "length" } else { "stop" };
            json!({"index": i, "message": {"content": format!("text {i}")}, "finish_reason": reason})
        };
        let choices: Vec<Value> = (0..samples(body)).map(choice).collect();
        ResponseTemplate::new(200).set_body_json(json!({"choices": choices}))
    });
    let three = TeachPlan { samples_per_request: 3, ..plan("big") };
    let report = data.teach(&client(&[&server]), &three).unwrap();
    assert_eq!((report.added, report.cut, report.uncovered), (4 * QUESTIONS, 2 * QUESTIONS, 0));
    // What was tried often enough is not tried again.
    let report = data.teach(&client(&[&server]), &three).unwrap();
    assert_eq!((report.found, report.added), (4 * QUESTIONS, 0));
    let student = student(&Device::flex());
    let questions = read_questions(&data.folder.path().join("questions.jsonl"), &student).unwrap();
    let cache = TeacherCache::read_for(&data.out(), &questions, &student).unwrap();
    cache.check_covers(&questions).unwrap();
    assert_eq!(cache.texts("q1", 0), ["text 1", "text 2"]);
}

#[test]
fn questions_without_any_answer_are_counted() {
    let data = Data::new();
    let server = Server::new(|_, body| {
        let cut = body["messages"][1]["content"] == "What is 2 + 1?";
        let reason = if cut { "content_filter" } else { "stop" };
        let choice = |i: usize| json!({"index": i, "message": {"content": "three"}, "finish_reason": reason});
        let choices: Vec<Value> = (0..samples(body)).map(choice).collect();
        ResponseTemplate::new(200).set_body_json(json!({"choices": choices}))
    });
    let report = data.teach(&client(&[&server]), &plan("big")).unwrap();
    assert_eq!((report.uncovered, report.cut), (1, 6));
}

#[test]
fn a_kill_at_any_byte_asks_for_what_is_missing_and_nothing_else() {
    let (data, server) = (Data::new(), teacher());
    let client = client(&[&server]);
    data.teach(&client, &plan("big")).unwrap();
    let bytes = std::fs::read(data.out()).unwrap();
    for cut in (0..bytes.len()).step_by(97).chain([bytes.len() - 1, bytes.len()]) {
        std::fs::write(data.out(), &bytes[..cut]).unwrap();
        // A line that only lacks its end is whole.
        let whole = bytes[..cut].iter().filter(|b| **b == b'\n').count() + usize::from(bytes.get(cut) == Some(&b'\n'));
        let before = server.chats().len();
        let report = data.teach(&client, &plan("big")).unwrap();
        assert_eq!((report.found, report.added), (whole, 3 * QUESTIONS - whole), "cut at {cut}");
        assert_eq!(data.counts().into_values().collect::<Vec<_>>(), [3; QUESTIONS], "cut at {cut}");
        let asked: usize = server.chats()[before..].iter().map(samples).sum();
        assert_eq!(asked, report.added, "cut at {cut}");
        // Each answer comes from a request of its own: none is a repetition.
        let texts: BTreeSet<String> = lines(&data.out()).iter().map(|line| line["response"].to_string()).collect();
        assert_eq!(texts.len(), 3 * QUESTIONS, "cut at {cut}");
        assert_eq!(
            std::fs::read(data.out()).unwrap()[..cut.min(whole_end(&bytes, cut))],
            bytes[..whole_end(&bytes, cut)]
        );
    }
}

#[test]
fn answers_that_came_out_of_order_are_not_asked_again() {
    let (data, server) = (Data::new(), teacher());
    let client = client(&[&server]);
    data.teach(&client, &plan("big")).unwrap();
    let all = std::fs::read_to_string(data.out()).unwrap();
    // The first request of each question is lost, the second one came before.
    let kept: Vec<&str> = all.lines().filter(|line| line.contains("\"sample\":2")).collect();
    std::fs::write(data.out(), kept.join("\n") + "\n").unwrap();
    let report = data.teach(&client, &plan("big")).unwrap();
    assert_eq!((report.found, report.added), (QUESTIONS, 2 * QUESTIONS));
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&std::fs::read_to_string(data.out()).unwrap()), sorted(&all));
}

/// Where the last whole line before `cut` ends.
fn whole_end(bytes: &[u8], cut: usize) -> usize {
    bytes[..cut].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
}

#[test]
fn stopping_keeps_what_came_and_teachers_share_a_file() {
    let data = Data::new();
    // Slow enough that a stop is heard before all is done.
    let server = Server::new(|_, body| {
        let texts: Vec<String> = (0..samples(body)).map(|i| format!("Answer {} {i}", body["seed"])).collect();
        says(&texts).set_delay(Duration::from_millis(30))
    });
    let client = client(&[&server]);
    let stop = |there: usize| if there >= 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let report = teach(&client, &plan("big"), &data.records, &data.out(), stop).unwrap();
    assert!(report.is_interrupted && (4..3 * QUESTIONS).contains(&report.added), "{report:?}");
    assert_eq!(lines(&data.out()).len(), report.added);
    data.teach(&client, &plan("other")).unwrap();
    data.teach(&client, &plan("big")).unwrap();
    assert_eq!(data.counts().into_values().collect::<Vec<_>>(), [3; 2 * QUESTIONS]);
    let asked: usize = server.chats().iter().map(samples).sum();
    assert_eq!(asked, 2 * 3 * QUESTIONS);
}

#[test]
fn answers_under_other_settings_are_not_mixed() {
    let (data, server) = (Data::new(), teacher());
    let client = client(&[&server]);
    data.teach(&client, &plan("big")).unwrap();
    let before = std::fs::read(data.out()).unwrap();
    let mut other = plan("big");
    other.request.temperature = Some(0.5);
    let error = data.teach(&client, &other).unwrap_err().to_string();
    assert!(error.contains("other settings") && error.contains("0.75") && error.contains("0.5"), "{error}");
    assert_eq!(std::fs::read(data.out()).unwrap(), before);
}

#[test]
fn a_question_that_is_refused_hinders_no_other_and_is_told() {
    let data = Data::new();
    let server = Server::new(|_, body| match body["messages"][1]["content"].is_array() {
        true => ResponseTemplate::new(400).set_body_string("this model reads no images"),
        false => says(&vec!["fine".into(); samples(body)]),
    });
    let error = data.teach(&client(&[&server]), &plan("big")).unwrap_err();
    let told = ril::explain(&error);
    assert!(told.contains("question q0") && told.contains("this model reads no images"), "{told}");
    assert_eq!(data.counts().into_values().collect::<Vec<_>>(), [3; QUESTIONS - 1]);
    // Nothing in the file keeps it from being asked again.
    assert!(data.teach(&client(&[&teacher()]), &plan("big")).is_ok());
    assert_eq!(data.counts().into_values().collect::<Vec<_>>(), [3; QUESTIONS]);
}

#[test]
fn a_server_that_breaks_down_ends_the_call_and_what_came_stays() {
    let data = Data::new();
    let server = Server::new(|_, body| match body["messages"][1]["content"] == "What is 3 + 1?" {
        true => ResponseTemplate::new(500).set_body_string("engine died"),
        false => says(&vec!["fine".into(); samples(body)]),
    });
    let told = ril::explain(&data.teach(&client(&[&server]), &plan("big")).unwrap_err());
    assert!(told.contains("question q3") && told.contains("engine died"), "{told}");
    let healed = teacher();
    let kept = lines(&data.out()).len();
    let report = data.teach(&client(&[&healed]), &plan("big")).unwrap();
    assert_eq!((report.found, report.added), (kept, 3 * QUESTIONS - kept));
}

#[test]
fn a_server_that_ignores_n_is_an_error_and_single_samples_are_the_way_out() {
    let data = Data::new();
    let server = Server::new(|_, body| says(&[format!("only one, {}", body["seed"])]));
    let client = client(&[&server]);
    let told = ril::explain(&data.teach(&client, &plan("big")).unwrap_err());
    assert!(told.contains("the server ignores \"n\""), "{told}");
    data.teach(&client, &TeachPlan { samples_per_request: 1, ..plan("big") }).unwrap();
    assert_eq!(data.counts().into_values().collect::<Vec<_>>(), [3; QUESTIONS]);
}

#[test]
fn two_programs_at_once_are_refused() {
    let (data, server) = (Data::new(), teacher());
    let client = client(&[&server]);
    let inner = |_: usize| {
        let second = data.teach(&client, &plan("big"));
        assert!(matches!(second, Err(RilError::Busy { .. })), "{second:?}");
        ControlFlow::Break(())
    };
    teach(&client, &plan("big"), &data.records, &data.out(), inner).unwrap();
}
