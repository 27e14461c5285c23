//! Rows that a model cannot be asked.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use ril::models::Qwen2_5Vl;
use ril::run::Outcome;
use ril::vlmeval::{
    Answer, Answerer, Decided, Evaluation, Evidence, FAILURES_FILE, FailedRows, Kind, LocalAnswerer, RESULTS_FILE,
    Request, SCORES_FILE, Table, Tell,
};
use ril::{RilError, explain};

use crate::support::{Pool, Recorded, plan};

/// Answers A, but for some rows.
struct Failing<'a>(&'a [&'a str]);

impl Answerer for Failing<'_> {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        for (place, request) in requests.iter().enumerate() {
            let answer = match self.0.contains(&request.id.as_str()) {
                true => Err(RilError::Input(format!("row {} is too long", request.id))),
                false => Ok(Answer { text: "A".into(), is_truncated: false }),
            };
            if tell(place, answer).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn go(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn table(text: &str) -> Table {
    Table::from_bytes("t.tsv".as_ref(), text.as_bytes()).unwrap()
}

/// A is right in all four.
fn four_rows() -> Table {
    let rows: String = (1..=4).map(|i| format!("{i}\twhat ?\tone\ttwo\tA\n")).collect();
    table(&format!("index\tquestion\tA\tB\tanswer\n{rows}"))
}

fn choice(folder: &Path, rows: FailedRows) -> Evaluation {
    Evaluation::open(plan(Kind::named("choice").unwrap(), four_rows()), folder).unwrap().with_failed_rows(rows)
}

fn results(folder: &Path) -> [Vec<u8>; 2] {
    [SCORES_FILE, RESULTS_FILE].map(|name| std::fs::read(folder.join(name)).unwrap())
}

#[test]
fn they_keep_a_run_open_or_count_as_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let open = choice(folder.path(), FailedRows::Open);
    let error = explain(&open.ask(&mut Failing(&["2", "4"]), go).unwrap_err());
    assert!(error.contains("2 of 4 requests failed, the first for row 2") && error.contains("too long"), "{error}");
    let error = open.score().unwrap_err().to_string();
    assert!(error.contains("2 of 4 rows have no answer yet"), "{error}");
    let reasons = std::fs::read_to_string(folder.path().join(FAILURES_FILE)).unwrap();
    let line = |row: usize| format!("{{\"index\":\"{row}\",\"reason\":\"row {row} is too long\"}}\n");
    assert_eq!(reasons, line(2) + &line(4));

    let wrong = choice(folder.path(), FailedRows::Wrong);
    let scored = wrong.score().unwrap();
    assert_eq!((scored.overall().points, scored.overall().total, scored.unanswered), (2.0, 4, 2));
    assert!(
        scored.table().contains("2 rows have no answer; they count as wrong (failures.jsonl)"),
        "{}",
        scored.table()
    );
    let before = results(folder.path());
    // Asked again, they fail again: no error, and the same results.
    assert_eq!(wrong.ask(&mut Failing(&["2", "4"]), go).unwrap(), Outcome::Finished);
    wrong.score().unwrap();
    assert_eq!(results(folder.path()), before);
}

#[test]
fn what_is_answered_later_is_no_failure() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = choice(folder.path(), FailedRows::Wrong);
    run.ask(&mut Failing(&["2", "4"]), go).unwrap();
    run.ask(&mut Failing(&["4"]), go).unwrap();
    assert_eq!(run.score().unwrap().unanswered, 1);
    run.ask(&mut Failing(&[]), go).unwrap();
    assert!(!folder.path().join(FAILURES_FILE).exists());
    run.score().unwrap();
    let never_failed = choice(whole.path(), FailedRows::Open);
    never_failed.ask(&mut Failing(&[]), go).unwrap();
    never_failed.score().unwrap();
    assert_eq!(results(folder.path()), results(whole.path()));
}

/// A run that was stopped is not finished, whatever failed before.
#[test]
fn rows_that_were_never_asked_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let run = choice(folder.path(), FailedRows::Wrong);
    let stop_at_two = |done| if done < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    assert_eq!(run.ask(&mut Failing(&["1"]), stop_at_two).unwrap(), Outcome::Interrupted);
    let error = run.score().unwrap_err().to_string();
    assert!(error.contains("1 of 4 rows have no answer yet"), "{error}");
    let error = run.judge("pool", &mut pool(), |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("1 of 4 rows have no answer yet"), "{error}");
}

fn pool() -> Pool {
    Pool::new(vec!["A".into(), "1".into(), "yes".into()], HashMap::new())
}

/// Not even where the right answer is none, and whatever a judge would say of an empty one.
#[test]
fn a_row_without_an_answer_is_wrong_by_every_scorer_and_no_judge_is_asked() {
    let columns =
        "index\tquestion\tA\tB\tanswer\tcategory\tquestion_type\tanswer_type\ttask\tskills\tchoices\tanswer_option\n";
    let row = |answer: &str| {
        format!("{columns}1\twhat ?\tone\ttwo\t{answer}\trec\tmulti_choice\ttext\tt\t['s']\t['x', 'y']\tA\n")
    };
    for (kind, answer) in [
        ("choice", "A"),
        ("circular", "A"),
        ("yes-no", "Yes"),
        ("chartqa", "['', '1']"),
        ("mathvista", "x"),
        ("mm-vet", "1"),
        ("free", "1"),
    ] {
        let (scorer, table) = (Kind::named(kind).unwrap().scorer, table(&row(answer)));
        let (none, replies) = (HashMap::new(), HashMap::from([("1".to_string(), vec!["1".to_string()])]));
        for replies in [None, Some(&replies)] {
            let evidence = Evidence { answers: &none, replies };
            assert_eq!(scorer.inquiries(&table, evidence).unwrap(), [], "{kind}");
            let items = scorer.items(&table, evidence).unwrap();
            assert_eq!((items.len(), items[0].grade.score), (1, 0.0), "{kind}");
            assert_eq!(items[0].grade.decided, Decided::Missing, "{kind}");
        }
    }
}

/// Two rotations of two questions, in each of which a rotation cannot be read; the first question's other one failed.
#[test]
fn a_question_with_a_rotation_that_failed_is_wrong() {
    let first = "1\twhat ?\tone\ttwo\tA\n2\twhat ?\tone\ttwo\tA\n";
    let second = "1000001\twhat ?\ttwo\tone\tB\n1000002\twhat ?\ttwo\tone\tB\n";
    let table = table(&format!("index\tquestion\tA\tB\tanswer\n{first}{second}"));
    let answers = [("1", "hm"), ("2", "A"), ("1000001", "B"), ("1000002", "hm")];
    let answers = answers.map(|(index, answer)| (index.to_string(), answer.to_string())).into();
    let folder = tempfile::tempdir().unwrap();
    let run = Evaluation::open(plan(Kind::named("circular").unwrap(), table), folder.path()).unwrap();
    let run = run.with_failed_rows(FailedRows::Wrong);
    let mut failing = WithFailure(Recorded::new(answers, 1), "1000001");
    assert_eq!(run.ask(&mut failing, go).unwrap(), Outcome::Finished);
    let mut judge = Pool::new(vec!["B".into()], HashMap::new());
    assert_eq!(run.judge("pool", &mut judge, |_, _| ControlFlow::Continue(())).unwrap(), Outcome::Finished);
    assert_eq!(judge.calls, 1, "what is wrong already is not judged");
    let scored = run.score().unwrap();
    assert_eq!((scored.overall().points, scored.overall().total, scored.unanswered), (1.0, 2, 1));
}

/// Recorded answers, but for a row.
struct WithFailure(Recorded, &'static str);

impl Answerer for WithFailure {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        let failed = self.1;
        self.0.answer(requests, &mut |place, answer| match requests[place].id == failed {
            true => tell(place, Err(RilError::Input("refused".into()))),
            false => tell(place, answer),
        })
    }
}

/// One question is longer than the model's positions, another one's picture is none.
#[test]
fn what_a_model_in_this_process_cannot_read_is_told_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let text = std::fs::read_to_string(examples.join("evaluate/data/digits_free.tsv")).unwrap();
    let mut lines: Vec<Vec<&str>> = text.lines().take(5).map(|line| line.split('\t').collect()).collect();
    let column = |name: &str| lines[0].iter().position(|column| *column == name).unwrap();
    let (image, question) = (column("image"), column("question"));
    let long = "how ".repeat(33_000);
    lines[2][question] = &long;
    lines[3][image] = &lines[3][image][..200];
    let rows: Vec<String> = lines.iter().map(|line| line.join("\t")).collect();
    let table = table(&(rows.join("\n") + "\n"));
    let model = Qwen2_5Vl::from_folder(&examples.join("ril_qwen/assets/teacher_a"), &Device::flex()).unwrap();
    let run = Evaluation::open(plan(Kind::named("free").unwrap(), table), folder.path()).unwrap();
    let run = run.with_failed_rows(FailedRows::Wrong);
    assert_eq!(run.ask(&mut LocalAnswerer { model, rows_at_once: 3 }, go).unwrap(), Outcome::Finished);
    let reasons = std::fs::read_to_string(folder.path().join(FAILURES_FILE)).unwrap();
    let reasons: Vec<&str> = reasons.lines().collect();
    assert!(reasons.len() == 2 && reasons[0].contains("positions of the model"), "{reasons:?}");
    assert!(reasons[1].contains("t.tsv, line 4: picture 1 cannot be read"), "{reasons:?}");
    let scored = run.score().unwrap();
    assert_eq!((scored.overall().total, scored.unanswered), (4, 2));
}
