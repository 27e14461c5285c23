//! The small benchmarks in `examples/evaluate/data`, and a model of this repository on them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ril::models::Qwen2_5Vl;
use ril::models::generate::SamplingParams;
use ril::run::Outcome;
use ril::vlmeval::{
    ANSWERS_FILE, Evaluation, KINDS, Kind, LocalAnswerer, Plan, RESULTS_FILE, Results, SCORES_FILE, Table,
};

use crate::{charts, digits};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn file(name: &str) -> PathBuf {
    examples().join("evaluate/data").join(name)
}

#[test]
fn the_files_are_what_their_generator_writes() {
    for (name, text) in [
        ("digits.tsv", digits::circular()),
        ("digits_yes_no.tsv", digits::yes_no()),
        ("digits_free.tsv", digits::free()),
        ("charts.tsv", charts::table()),
    ] {
        let stored = std::fs::read_to_string(file(name)).unwrap();
        assert!(stored == text, "{name}: run the example evaluate_data");
        assert!(stored.len() < 200_000, "{name}: {} bytes", stored.len());
    }
}

#[test]
fn the_files_pass_their_checks_and_their_pictures_open() {
    for (name, kind, rows) in [
        ("digits.tsv", "circular", 144),
        ("digits_yes_no.tsv", "yes-no", 44),
        ("digits_free.tsv", "free", 44),
        ("charts.tsv", "chartqa", 72),
    ] {
        let (kind, table) = (Kind::named(kind).unwrap(), Table::read(&file(name)).unwrap());
        assert_eq!(Kind::of_file(&file(name)).unwrap(), kind);
        assert_eq!((table.len(), table.left_out()), (rows, 0), "{name}");
        kind.scorer.check(&table).unwrap();
        for row in table.rows() {
            assert_eq!(
                kind.prompt.query(&row).unwrap().message().unwrap().images().count(),
                1,
                "{name} {}",
                row.index()
            );
        }
    }
}

#[test]
fn the_documentation_lists_every_kind_with_its_files() {
    let text = std::fs::read_to_string(examples().join("../docs/evaluation.md")).unwrap();
    for kind in &KINDS {
        assert!(text.contains(&format!("`{}`", kind.name)), "{}", kind.name);
        let files = kind.files.iter().filter(|_| kind.benchmark.is_some());
        files.filter(|file| !file.contains("charts") && !file.starts_with("mm-vet") && **file != "MMVetV2").for_each(
            |file| {
                assert!(text.contains(file), "{file}");
            },
        );
    }
}

/// Half of the claims are right, and the place of the right option is not to be guessed.
#[test]
fn a_constant_answer_is_not_rewarded() {
    let table = Table::read(&file("digits_yes_no.tsv")).unwrap();
    let yes = table.rows().filter(|row| row.text("answer").as_deref() == Some("Yes")).count();
    assert_eq!(2 * yes, table.len());
    let table = Table::read(&file("digits.tsv")).unwrap();
    for letter in ["A", "B", "C", "D"] {
        let right = table.rows().filter(|row| row.text("answer").as_deref() == Some(letter)).count();
        assert_eq!(4 * right, table.len(), "in all rotations together every letter is right alike");
    }
}

fn ask(folder: &Path, rows: usize, stop_at: usize) -> (Outcome, Evaluation) {
    let model = Qwen2_5Vl::from_folder(&examples().join("ril_qwen/assets/teacher_a"), &Device::flex()).unwrap();
    let plan = Plan {
        kind: Kind::named("free").unwrap(),
        table: Table::read(&file("digits_free.tsv")).unwrap(),
        limit: Some(rows),
        model: "teacher_a".into(),
        identity: String::new(),
        sampling: SamplingParams::greedy(40),
    };
    let run = Evaluation::open(plan, folder).unwrap();
    let stop = |done| if done < stop_at { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let outcome = run.ask(&mut LocalAnswerer { model, rows_at_once: 5 }, stop).unwrap();
    (outcome, run)
}

fn results(folder: &Path) -> Results {
    serde_json::from_slice(&std::fs::read(folder.join(RESULTS_FILE)).unwrap()).unwrap()
}

#[test]
fn a_model_that_is_stopped_and_resumed_gives_the_files_of_one_that_was_not() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(ask(whole.path(), 22, usize::MAX).0, Outcome::Finished);
    for stop_at in [3, 11, 12] {
        let (outcome, run) = ask(parts.path(), 22, stop_at);
        assert_eq!((outcome, run.answered().unwrap()), (Outcome::Interrupted, stop_at));
    }
    for folder in [&whole, &parts] {
        let (outcome, run) = ask(folder.path(), 22, usize::MAX);
        assert_eq!(outcome, Outcome::Finished);
        run.score().unwrap();
    }
    for name in [ANSWERS_FILE, SCORES_FILE, RESULTS_FILE] {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read(&whole), read(&parts), "{name}");
    }
    // The teacher knows these questions; it must not be the scorer that fails.
    let overall = results(whole.path()).overall();
    assert!(overall.rate() > 0.85, "{overall:?}");
}

/// The third of six questions is longer than the model's positions allow, in a block of five.
#[test]
fn a_question_that_cannot_be_generated_hinders_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let long = "how ".repeat(33_000);
    let question = |i: usize| if i == 3 { long.as_str() } else { "how many ?" };
    let rows: String = (1..=6).map(|i| format!("{i}\t{}\t1\n", question(i))).collect();
    let table = Table::from_bytes("t.tsv".as_ref(), format!("index\tquestion\tanswer\n{rows}").as_bytes()).unwrap();
    let model = Qwen2_5Vl::from_folder(&examples().join("ril_qwen/assets/teacher_a"), &Device::flex()).unwrap();
    let run = Evaluation::open(crate::support::plan(Kind::named("free").unwrap(), table), folder.path()).unwrap();
    let mut answerer = LocalAnswerer { model, rows_at_once: 5 };
    let error = run.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap_err();
    let error = ril::explain(&error);
    assert!(error.contains("1 of 6 requests failed, the first for row 3"), "{error}");
    assert_eq!(run.answered().unwrap(), 5);
    // Asked again with others of its block, they keep what they have.
    let stored = std::fs::read(folder.path().join(ANSWERS_FILE)).unwrap();
    run.ask(&mut answerer, |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(std::fs::read(folder.path().join(ANSWERS_FILE)).unwrap(), stored);
}

#[test]
fn a_file_without_answers_is_asked_and_not_scored() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::from_bytes("t.tsv".as_ref(), b"index\tquestion\tA\tB\n1\twhat ?\tone\ttwo\n").unwrap();
    let answers = [("1".to_string(), "A".to_string())].into();
    let run = crate::support::answered(Kind::named("mmb").unwrap(), &table, folder.path(), &answers, None);
    assert!(!run.has_truth());
    let error = run.score().unwrap_err().to_string();
    assert_eq!(error, "t.tsv: no column \"answer\"; choice, circular needs it");
}
