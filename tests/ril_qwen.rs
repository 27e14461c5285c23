//! The example from its command line on, at a size that takes seconds: what it refuses before it writes, and that a run
//! that is stopped at every place where it can be ends with the files of one that was not.

#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/args.rs"]
mod args;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/data/mod.rs"]
mod data;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/describe.rs"]
mod describe;
#[path = "../examples/device.rs"]
mod device;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/inputs.rs"]
mod inputs;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/lessons.rs"]
mod lessons;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/models.rs"]
mod models;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/outcome.rs"]
mod outcome;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/places.rs"]
mod places;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/plan.rs"]
mod plan;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/recipe.rs"]
mod recipe;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/servers.rs"]
mod servers;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/start.rs"]
mod start;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/task.rs"]
mod task;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/teachers.rs"]
mod teachers;
#[path = "support/tiny_server.rs"]
mod tiny_server;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/user.rs"]
mod user;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/vocabulary.rs"]
mod vocabulary;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../examples/ril_qwen/world.rs"]
mod world;

use std::path::Path;

use clap::Parser;
use ril::models::checkpoint::WeightType;
use ril::models::{ChatModel, Qwen2_5Vl};
use ril::monitor::{Monitor, MonitorMode};
use ril::run::Outcome;

use args::Args;
use burn::tensor::Device;
use serde_json::{Value, json};
use start::start;
use tempfile::TempDir;

const TINY: &str = "--steps 1 --sft-steps 4 --held-out 3 --questions-per-step 2 --discriminator-steps 1 --seed 3";

fn args(flags: &str) -> Args {
    Args::try_parse_from(format!("ril_qwen {flags}").split_whitespace()).unwrap()
}

fn run(flags: &str) -> Result<Outcome, String> {
    start(&args(flags), Monitor::new(MonitorMode::Silent)).map_err(|e| ril::explain(e.as_ref()))
}

/// Everything that a run leaves, except for what holds times or the name of its folder.
fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec!["metrics.jsonl".to_string(), "results.json".into(), "teacher_responses.jsonl".into()];
    let entries = |name: &str| std::fs::read_dir(folder.join(name)).unwrap().map(|entry| entry.unwrap().file_name());
    names.extend(entries("answers").map(|file| format!("answers/{}", file.display())));
    let weights = |model: &str| {
        let files = ["model.safetensors", "adapter_model.safetensors"].map(|file| format!("models/{model}/{file}"));
        files.into_iter().find(|file| folder.join(file).exists()).unwrap()
    };
    names.extend(entries("models").map(|model| weights(&model.to_string_lossy())));
    names.sort();
    names.into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
}

/// A run in `whole` and one with many stops in `stopped`, both with these flags, compared; the folder around them.
fn whole_and_stopped(flags: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let whole = format!("{TINY} {flags} --out {}", path("whole").display());
    assert_eq!(run(&whole), Ok(Outcome::Finished));
    let expected = results(&path("whole"));
    // 3 files, 6 models asked, 4 stored.
    assert_eq!(expected.len(), 13);

    let mut flags = format!("{TINY} {flags} --out {}", path("stopped").display());
    let mut stops = 0;
    loop {
        let monitor = Monitor::new(MonitorMode::Silent);
        monitor.interrupter().stop(None);
        let outcome = start(&args(&flags), monitor).unwrap();
        flags = format!("--resume {}", path("stopped").display());
        if outcome == Outcome::Finished {
            break;
        }
        stops += 1;
    }
    // 3 lessons of 4 steps, 1 step of each loop, 1 of each pre-training.
    assert_eq!(stops, 4 + 3 + 2);
    for (got, expected) in results(&path("stopped")).iter().zip(&expected) {
        assert!(got == expected, "{}", expected.0);
    }
    assert!(run(&whole).unwrap_err().contains("holds a run"));
    folder
}

#[test]
fn a_run_with_adapters_stores_them_alone_and_ends_the_same_too() {
    let folder = whole_and_stopped("--lora-rank 2 --lora-alpha 6 --learning-rate 0.01");
    let models = folder.path().join("whole/models");
    let base = Qwen2_5Vl::from_folder(&models.join("sft"), &Device::flex()).unwrap();
    for arm in ["dr_grpo", "ril_one_teacher", "ril_two_teachers"] {
        assert!(!models.join(arm).join("model.safetensors").exists(), "{arm}");
        let student = base.clone().load_adapter(&models.join(arm)).unwrap();
        let config = student.lora_config().unwrap();
        assert_eq!((config.rank, config.alpha), (2, 6.0));
    }
    let report = std::fs::read_to_string(folder.path().join("whole/report.html")).unwrap();
    assert!(report.contains("--lora-rank 2 --lora-alpha 6.0"));
}

#[test]
fn a_run_that_is_stopped_again_and_again_ends_the_same() {
    let folder = whole_and_stopped("");
    let path = |name: &str| folder.path().join(name);
    let answers = path("whole").join("answers/sft.jsonl");
    let text = std::fs::read_to_string(&answers).unwrap();
    std::fs::write(&answers, text.lines().skip(1).map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let error = run(&format!("--resume {}", path("whole").display())).unwrap_err();
    assert!(error.contains("sft.jsonl"), "{error}");
}

#[test]
fn a_run_that_cannot_begin_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let own = "--model nowhere --data nowhere.jsonl --teacher-responses nowhere.jsonl";
    for (flags, message) in [
        ("--steps 0", "--steps: expected at least 1, got 0"),
        ("--questions-per-step 0", "--questions-per-step"),
        ("--micro-batch-rows 0", "--micro-batch-rows"),
        ("--learning-rate=-1", "learning rates"),
        ("--device cuda", "--features cuda"),
        (own, "nowhere"),
    ] {
        let error = run(&format!("{flags} --out {}", out.display())).unwrap_err();
        assert!(error.contains(message), "{error}");
        assert!(!out.exists(), "{flags}");
    }
}

#[test]
fn a_users_files_are_checked_before_a_run_and_when_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let size = models::Size { width: 32, text_layers: 1, vision_layers: 1 };
    let student = models::fresh(size, &vocabulary::Vocabulary::new(), 1, &Device::flex()).unwrap();
    Qwen2_5Vl::save(&student, &path("model"), WeightType::F32).unwrap();
    let questions: String = (0..6)
        .map(|i| format!("{{\"id\": \"{i}\", \"question\": \"what is the sum ?\", \"answer\": \"3\"}}\n"))
        .collect();
    std::fs::write(path("data.jsonl"), questions).unwrap();
    let responses = |ids: std::ops::Range<usize>| -> String {
        let line = |i, teacher| {
            format!("{{\"question\": \"{i}\", \"teacher\": \"{teacher}\", \"response\": \"so it is 3\"}}\n")
        };
        ids.flat_map(|i| ["a", "b", "c"].map(|teacher| line(i, teacher))).collect()
    };
    let flags = format!(
        "--model {0}/model --data {0}/data.jsonl --teacher-responses {0}/teachers.jsonl --out {0}/run --steps 1 \
         --questions-per-step 1 --discriminator-steps 1 --max-new-tokens 4 --micro-batch-rows 1 --sft-steps 1",
        folder.path().display()
    );
    for (text, message) in [
        (responses(0..1), "responses of teacher a, got 0"),
        (responses(0..7), "line 19: there is no question with id 6"),
        (String::new(), "no teacher responses"),
    ] {
        std::fs::write(path("teachers.jsonl"), text).unwrap();
        let error = run(&flags).unwrap_err();
        assert!(error.contains(message) && !path("run").exists(), "{error}");
    }
    std::fs::write(path("teachers.jsonl"), responses(0..6)).unwrap();
    assert_eq!(run(&flags), Ok(Outcome::Finished));
    let names = ["sft", "dr_grpo", "ril_one_teacher", "ril_all_teachers"];
    let results = std::fs::read_to_string(path("run/results.json")).unwrap();
    assert!(names.iter().all(|name| results.contains(&format!("\"{name}\""))), "{results}");
    assert!(std::fs::read_to_string(path("run/report.html")).unwrap().contains("--micro-batch-rows 1"));

    std::fs::write(path("teachers.jsonl"), responses(0..6) + "\n").unwrap();
    let error = run(&format!("--resume {}", path("run").display())).unwrap_err();
    assert!(error.contains("teachers.jsonl: has changed since this run began"), "{error}");
}

/// The student, six questions and one teacher's answers in a folder, and the flags of a run on them.
fn own_files(folder: &Path) -> String {
    let size = models::Size { width: 32, text_layers: 1, vision_layers: 1 };
    let student = models::fresh(size, &vocabulary::Vocabulary::new(), 1, &Device::flex()).unwrap();
    Qwen2_5Vl::save(&student, &folder.join("model"), WeightType::F32).unwrap();
    let question = |i: usize| json!({"id": i.to_string(), "question": "what is the sum ?", "answer": "3"});
    let response = |i: usize| json!({"question": i.to_string(), "teacher": "a", "response": "so it is 3"});
    let lines = |line: &dyn Fn(usize) -> Value| (0..6).map(|i| format!("{}\n", line(i))).collect::<String>();
    std::fs::write(folder.join("data.jsonl"), lines(&question)).unwrap();
    std::fs::write(folder.join("teachers.jsonl"), lines(&response)).unwrap();
    format!(
        "--model {0}/model --data {0}/data.jsonl --teacher-responses {0}/teachers.jsonl --out {0}/run --steps 2 \
         --questions-per-step 1 --discriminator-steps 1 --max-new-tokens 8 --held-out 2",
        folder.display()
    )
}

#[test]
fn a_judge_and_a_sampler_may_stand_behind_servers() {
    let folder = tempfile::tempdir().unwrap();
    let flags = own_files(folder.path());
    let student = Qwen2_5Vl::from_folder(&folder.path().join("model"), &Device::flex()).unwrap();
    let prompt = ril::Prompt::encode(&student, &[ril::models::Message::user("what is the sum ?")]).unwrap().token_ids;
    let answer = student.encode_response("so it is 3").unwrap();
    let (sampler, requests) = tiny_server::serve(move |_, body| {
        let tokens: Vec<Value> = answer.iter().map(|_| json!({"token": "x", "logprob": -2.0})).collect();
        let choice = |i| {
            json!({"index": i, "message": {"content": "so it is 3"}, "finish_reason": "stop", "token_ids": answer,
                   "logprobs": {"content": tokens}})
        };
        let choices: Vec<Value> = (0..body["n"].as_u64().unwrap_or(1)).map(choice).collect();
        json!({"choices": choices, "prompt_token_ids": prompt})
    });
    // Right is what ends in 3, whatever else the student writes on the held-out questions.
    let (judge, judged) = tiny_server::serve(|_, body| {
        let text = body["messages"][0]["content"].as_str().unwrap();
        let response = text.split("<response>\n").nth(1).unwrap().split("\n</response>").next().unwrap();
        let verdict = format!("<answer>{}</answer>", u8::from(response.ends_with('3')));
        json!({"choices": [{"index": 0, "message": {"content": verdict}, "finish_reason": "stop"}]})
    });
    let servers = format!(
        "{flags} --judge-server {judge} --judge-model j --rollout-server {sampler} --rollout-model s --lora-rank 2 \
         --adapter-folder {}/adapters --sample-ahead",
        folder.path().display()
    );
    assert_eq!(run(&servers), Ok(Outcome::Finished));
    let sampled: Vec<(String, Value)> = requests.lock().unwrap().clone();
    let models: Vec<&str> = sampled.iter().filter_map(|(_, body)| body["model"].as_str()).collect();
    // Two arms of two steps, each asked of an adapter of its own; sampling ahead, both steps ask that of step 0.
    assert_eq!(models.len(), 4, "{models:?}");
    assert!(models.iter().all(|model| model.ends_with("-step-0")), "{models:?}");
    let mut names = models.clone();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2, "{models:?}");
    let loads = sampled.iter().filter(|(path, _)| path == "/v1/load_lora_adapter").count();
    assert_eq!(loads, 4);

    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let loops = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let loops: Vec<Value> = loops.filter(|line| !line["reward/answer"].is_null()).collect();
    assert_eq!(
        loops.iter().map(|line| line["sampler/staleness"].as_f64()).collect::<Vec<_>>(),
        [Some(0.0), Some(1.0), Some(0.0), Some(1.0)]
    );
    assert!(loops.iter().all(|line| line["reward/answer"] == 1.0), "{metrics}");
    // Equal answers to equal questions are judged once a run.
    let texts: Vec<String> = judged.lock().unwrap().iter().map(|(_, body)| body["messages"].to_string()).collect();
    let distinct: std::collections::BTreeSet<&String> = texts.iter().collect();
    assert_eq!(texts.len(), distinct.len());
    assert!(folder.path().join("run/verdicts.redb").exists());
    let settings = std::fs::read_to_string(folder.path().join("run/settings.json")).unwrap();
    assert!(settings.contains(&judge), "{settings}");

    // Without adapters whole models are pushed, each under a name of its own; one is left.
    let servers = servers.replace("--lora-rank 2", "").replace("/adapters", "/models").replace("/run ", "/run-whole ");
    assert_eq!(run(&servers), Ok(Outcome::Finished));
    let pushed: Vec<Value> =
        requests.lock().unwrap().iter().filter(|r| r.0 == "/update_weights_from_disk").map(|r| r.1.clone()).collect();
    let versions: std::collections::BTreeSet<String> =
        pushed.iter().map(|body| body["weight_version"].to_string()).collect();
    assert_eq!((pushed.len(), versions.len()), (4, 4), "{pushed:?}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path().join("models")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the last one of each arm: {left:?}");
}

#[test]
fn a_key_stays_out_of_the_run_folder() {
    let (key, folder) = ("sk-very-secret", tempfile::tempdir().unwrap());
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "with_a_key", "--ignored", "--nocapture"])
        .env("RIL_QWEN_TEST_KEY", key)
        .env("RIL_QWEN_TEST_FOLDER", folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && !told.contains(key), "{told}");
    let mut open = vec![folder.path().join("run")];
    let mut files = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        files += 1;
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "{}", path.display());
    }
    assert!(files > 10, "{files}");
    let log = std::fs::read_to_string(folder.path().join("run/servers.log")).unwrap();
    assert!(log.contains("Bearer (key)"), "the server was given it, and its words are kept without it: {log}");
}

/// Run by [`a_key_stays_out_of_the_run_folder`] in a process of its own: the environment belongs to the whole process.
#[test]
#[ignore = "needs variables that only a_key_stays_out_of_the_run_folder sets"]
fn with_a_key() {
    let folder = std::path::PathBuf::from(std::env::var("RIL_QWEN_TEST_FOLDER").unwrap());
    let flags = own_files(&folder);
    // The first request is answered with prose that repeats the key.
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let (judge, _) = tiny_server::serve_with_heads(move |head, _, _| {
        let key = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization")).unwrap().to_owned();
        if is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return json!({"error": key, "choices": key});
        }
        json!({"choices": [{"index": 0, "message": {"content": "<answer>1</answer>"}, "finish_reason": "stop"}]})
    });
    let servers = format!("{flags} --judge-server {judge} --judge-model j --judge-key-env RIL_QWEN_TEST_KEY");
    assert_eq!(run(&servers), Ok(Outcome::Finished));
}

/// The first run finds nobody at the teacher's address; it goes on with another one.
#[test]
fn a_teacher_may_answer_while_the_run_trains_and_move() {
    let folder = tempfile::tempdir().unwrap();
    let flags = own_files(folder.path());
    let flags = flags.replace(&format!("--teacher-responses {}/teachers.jsonl", folder.path().display()), "");
    let (address, asked) = tiny_server::serve(|_, body| {
        let choice = |i| json!({"index": i, "message": {"content": "so it is 3"}, "finish_reason": "stop"});
        let choices: Vec<Value> = (0..body["n"].as_u64().unwrap_or(1)).map(choice).collect();
        json!({"model": "served", "choices": choices})
    });
    let nobody = "--teacher-server http://127.0.0.1:9 --teacher-model big --teacher-answers 2 --request-attempts 1";
    let error = run(&format!("{flags} --sft-steps 1 {nobody}")).unwrap_err();
    assert!(error.contains("teacher big answers no more") && error.contains("http://127.0.0.1:9"), "{error}");
    let resume = format!("--resume {}/run", folder.path().display());
    assert!(run(&format!("{resume} --judge-server http://a")).unwrap_err().contains("expected a --judge-model"));
    assert_eq!(run(&format!("{resume} --teacher-server {address}")), Ok(Outcome::Finished));

    // Two answers to each of the four questions that are not held out, in one request each.
    let file = std::fs::read_to_string(folder.path().join("run/teacher_answers.jsonl")).unwrap();
    assert_eq!((file.lines().count(), asked.lock().unwrap().len()), (8, 4));
    assert!(file.lines().all(|line| line.contains("\"teacher\":\"big\"")), "{file}");
    let results = std::fs::read_to_string(folder.path().join("run/results.json")).unwrap();
    assert!(["sft", "dr_grpo", "ril_one_teacher"].iter().all(|name| results.contains(name)), "{results}");
    // What was begun with is what is stored.
    let settings = std::fs::read_to_string(folder.path().join("run/settings.json")).unwrap();
    assert!(settings.contains("127.0.0.1:9") && !settings.contains(&address), "{settings}");
}

#[test]
fn servers_that_cannot_be_are_refused_before_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let flags = own_files(folder.path());
    for (servers, message) in [
        ("--judge-server localhost --judge-model j", "http://"),
        ("--judge-server http://a --judge-model j --judge-key-env RIL_NO_SUCH_KEY", "RIL_NO_SUCH_KEY"),
        ("--judge-server http://a --judge-model j --judge-max-tokens 0", "--judge-max-tokens"),
        ("--judge-server http://a --judge-model j --judge-extra [1]", "--judge-extra"),
        ("--judge-server http://a --judge-model j --requests-at-once 0", "max_in_flight"),
        ("--lora-rank 2 --rollout-server http://a --rollout-model s --adapter-folder here", "--adapter-folder"),
        ("--lora-rank 2 --rollout-server http://a --rollout-model s", "--adapter-folder"),
        ("--adapter-folder /here", "--rollout-model"),
        ("--judge-server http://a", "--judge-model"),
        ("--judge-model j", "--judge-server"),
        ("--rollout-server http://a", "--rollout-model"),
        ("--teacher-server http://a --teacher-model t --teacher-answers 0", "--teacher-answers"),
        ("--teacher-server http://a --teacher-model t --requests-per-second 0", "requests_per_second"),
        ("--teacher-model t", "--teacher-server"),
        (
            "--sft-steps 3 --lora-rank 2 --rollout-server http://a --rollout-model s --adapter-folder /here",
            "--sft-steps",
        ),
        ("--teacher-key-env K", "--teacher-server"),
        ("--teacher-server http://a --teacher-model a", "holds answers of a, who is to answer"),
    ] {
        let error = run(&format!("{flags} {servers}")).unwrap_err();
        assert!(error.contains(message) && !folder.path().join("run").exists(), "{servers}: {error}");
    }
}
