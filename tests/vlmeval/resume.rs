//! A run that is stopped anywhere and taken up again ends with the bytes of one that was not.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use proptest::prelude::*;
use ril::explain;
use ril::models::generate::SamplingParams;
use ril::run::Outcome;
use ril::vlmeval::{
    ANSWERS_FILE, Answer, Answerer, Comparison, Evaluation, JUDGE_FILE, Kind, Plan, REPLIES_FILE, RESULTS_FILE,
    Request, SCORES_FILE, Table, Tell,
};

use crate::support::{Pool, Recorded, answered, plan};

const ROWS: usize = 7;

fn table() -> Table {
    let row = |i: usize| format!("{i}\twhat ? {i}\tone\ttwo\t{}\tg{}\n", ["A", "B"][i % 2], i % 3);
    let text: String = (0..ROWS).map(row).collect();
    Table::from_bytes("t.tsv".as_ref(), format!("index\tquestion\tA\tB\tanswer\tcategory\n{text}").as_bytes()).unwrap()
}

fn answers() -> HashMap<String, String> {
    (0..ROWS).map(|i| (i.to_string(), ["A", "hm", "two", "B\nor\u{2028}so"][i % 4].to_string())).collect()
}

fn choice() -> &'static Kind {
    Kind::named("choice").unwrap()
}

fn pool() -> Pool {
    Pool::new(["A", "B", "none at all", "?"].map(String::from).to_vec(), HashMap::new())
}

fn bytes(folder: &Path) -> [Vec<u8>; 2] {
    [SCORES_FILE, RESULTS_FILE].map(|name| std::fs::read(folder.join(name)).unwrap())
}

/// Every end of a line, the bytes beside it, and some between.
fn cuts(stored: &[u8]) -> impl Iterator<Item = usize> {
    let is_cut = |cut: &usize| {
        cut.is_multiple_of(11) || stored[cut.saturating_sub(2)..(cut + 1).min(stored.len())].contains(&b'\n')
    };
    (0..=stored.len()).filter(is_cut)
}

/// The lines of a file that was cut here; one that only lacks its end is whole.
fn whole_lines(stored: &[u8], cut: usize) -> &[u8] {
    let end = stored[..cut].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if stored.get(cut) == Some(&b'\n') { &stored[..=cut] } else { &stored[..end] }
}

fn go(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn any_prefix_of_the_answers_ends_in_the_same_files_and_asks_for_what_is_missing() {
    let whole = tempfile::tempdir().unwrap();
    answered(choice(), &table(), whole.path(), &answers(), None).score().unwrap();
    let expected = bytes(whole.path());
    let stored = std::fs::read(whole.path().join(ANSWERS_FILE)).unwrap();
    for cut in cuts(&stored) {
        for block in [1, 3] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(whole.path().join("run.json"), folder.path().join("run.json")).unwrap();
            std::fs::write(folder.path().join(ANSWERS_FILE), &stored[..cut]).unwrap();
            let lines = whole_lines(&stored, cut).iter().filter(|b| **b == b'\n').count();
            let mut answerer = Recorded::new(answers(), block);
            let run = Evaluation::open(plan(choice(), table()), folder.path()).unwrap();
            assert!(run.ask(&mut answerer, go).unwrap() == Outcome::Finished);
            run.score().unwrap();
            assert_eq!(bytes(folder.path()), expected, "cut at {cut}, blocks of {block}");
            assert_eq!(std::fs::read(folder.path().join(ANSWERS_FILE)).unwrap(), stored);
            assert_eq!(answerer.asked.len(), if lines == ROWS { 0 } else { ROWS - lines / block * block });
        }
    }
}

#[test]
fn any_prefix_of_the_replies_ends_in_the_same_files() {
    let whole = tempfile::tempdir().unwrap();
    answered(choice(), &table(), whole.path(), &answers(), Some(&mut pool())).score().unwrap();
    let expected = bytes(whole.path());
    let stored = std::fs::read(whole.path().join(REPLIES_FILE)).unwrap();
    for cut in cuts(&stored) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["run.json", "judge.json", ANSWERS_FILE] {
            std::fs::copy(whole.path().join(name), folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join(REPLIES_FILE), &stored[..cut]).unwrap();
        let run = Evaluation::open(plan(choice(), table()), folder.path()).unwrap();
        let lines = whole_lines(&stored, cut).iter().filter(|b| **b == b'\n').count();
        let open = run.open_for_judge().unwrap();
        assert_eq!(run.score().is_err(), open > 0 && lines > 0, "a run that waits for its judge is not scored");
        run.judge("pool", &mut Counting::at(&run, whole_lines(&stored, cut)), |_, _| ControlFlow::Continue(()))
            .unwrap();
        run.score().unwrap();
        assert_eq!(bytes(folder.path()), expected, "cut at {cut}");
    }
}

/// The pool of [`pool`], which has replied already as often as a journal says.
struct Counting;

impl Counting {
    fn at(run: &Evaluation, journal: &[u8]) -> Pool {
        let evidence_answers = answers();
        let none = HashMap::new();
        let evidence = ril::vlmeval::Evidence { answers: &evidence_answers, replies: Some(&none) };
        let prompts: HashMap<String, String> = choice()
            .scorer
            .inquiries(run.table(), evidence)
            .unwrap()
            .into_iter()
            .map(|inquiry| (run.table().row(inquiry.place).unwrap().index().to_string(), inquiry.prompt))
            .collect();
        let whole = journal.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let mut tries = HashMap::new();
        for line in journal[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            *tries.entry(prompts[line["index"].as_str().unwrap()].clone()).or_insert(0) += 1;
        }
        Pool::new(pool().replies, tries)
    }
}

#[test]
fn a_run_that_is_stopped_says_so_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let run = Evaluation::open(plan(choice(), table()), folder.path()).unwrap();
    let mut answerer = Recorded::new(answers(), 1);
    for done in 1..=ROWS {
        let outcome = run.ask(&mut answerer, |count| if count < done { go(count) } else { ControlFlow::Break(()) });
        assert_eq!(outcome.unwrap() == Outcome::Interrupted, done < ROWS);
        assert_eq!(run.answered().unwrap(), done);
        if done < ROWS {
            let error = explain(&run.score().unwrap_err());
            assert!(error.contains(&format!("{} of {ROWS} rows have no answer yet", ROWS - done)), "{error}");
        }
    }
    assert_eq!(answerer.asked.len(), ROWS, "nothing is asked twice");
}

/// Fails for one row.
struct Failing(&'static str);

impl Answerer for Failing {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), ril::RilError> {
        for (place, request) in requests.iter().enumerate().rev() {
            let answer = match request.id == self.0 {
                true => Err(ril::RilError::Input("too long".into())),
                false => Ok(Answer { text: answers()[&request.id].clone(), is_truncated: false }),
            };
            let _ = tell(place, answer);
        }
        Ok(())
    }
}

/// Forgets every other request.
struct Forgetful;

impl Answerer for Forgetful {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), ril::RilError> {
        for (place, request) in requests.iter().enumerate().step_by(2) {
            let _ = tell(place, Ok(Answer { text: answers()[&request.id].clone(), is_truncated: false }));
        }
        Ok(())
    }
}

#[test]
fn a_run_with_open_questions_is_not_finished_and_not_judged() {
    let folder = tempfile::tempdir().unwrap();
    let run = Evaluation::open(plan(choice(), table()), folder.path()).unwrap();
    assert_eq!(run.ask(&mut Forgetful, go).unwrap(), Outcome::Interrupted);
    assert_eq!(run.answered().unwrap(), 4);
    let error = run.judge("pool", &mut pool(), |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.ends_with("3 of 7 rows have no answer yet, 0 wait for the judge"), "{error}");
}

#[test]
fn a_request_that_fails_hinders_no_other_and_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = Evaluation::open(plan(choice(), table()), folder.path()).unwrap();
    let error = explain(&run.ask(&mut Failing("3"), go).unwrap_err());
    assert!(error.contains("1 of 7 requests failed, the first for row 3") && error.contains("too long"), "{error}");
    assert_eq!(run.answered().unwrap(), ROWS - 1);
    let mut answerer = Recorded::new(answers(), 1);
    run.ask(&mut answerer, go).unwrap();
    assert_eq!(answerer.asked, ["3"]);
    // Answers came in another order; the results do not show it.
    run.score().unwrap();
    let whole = tempfile::tempdir().unwrap();
    answered(choice(), &table(), whole.path(), &answers(), None).score().unwrap();
    assert_eq!(bytes(folder.path()), bytes(whole.path()));
}

#[test]
fn other_settings_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    answered(choice(), &table(), folder.path(), &answers(), Some(&mut pool()));
    let base = || plan(choice(), table());
    let other_table = Table::from_bytes("t.tsv".as_ref(), b"index\tquestion\tanswer\n0\twhat ?\tA\n").unwrap();
    let sampling = SamplingParams::greedy(9);
    let cases: [(Plan, &str); 6] = [
        (Plan { model: "other".into(), ..base() }, "model = \"recorded\", not \"other\""),
        (Plan { identity: "2".into(), ..base() }, "identity = \"1\", not \"2\""),
        (Plan { limit: Some(2), ..base() }, "limit = null, not 2"),
        (Plan { table: other_table, ..base() }, "benchmark_sha256"),
        (Plan { kind: Kind::named("free").unwrap(), ..base() }, "kind = \"choice\", not \"free\""),
        (Plan { sampling, ..base() }, "sampling.max_new_tokens = 8, not 9"),
    ];
    for (plan, expected) in cases {
        let error = Evaluation::open(plan, folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let run = Evaluation::open(base(), folder.path()).unwrap();
    let error = run.judge("other", &mut pool(), |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("judge = \"pool\", not \"other\""), "{error}");
}

/// A server that is not there.
struct Away;

impl Answerer for Away {
    fn answer(&mut self, _: &[Request], _: &mut Tell<'_>) -> Result<(), ril::RilError> {
        Err(ril::RilError::Input("connection refused".into()))
    }
}

#[test]
fn a_judge_that_never_replied_does_not_bind_the_folder() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = Evaluation::open(plan(choice(), table()), folder.path()).unwrap();
    run.judge("early", &mut pool(), |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(!folder.path().join(JUDGE_FILE).exists(), "a judge is claimed once all answers are there");
    let run = answered(choice(), &table(), folder.path(), &answers(), None);
    let error = run.judge("mistyped", &mut Away, |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("connection refused"), "{error}");
    assert_eq!(run.score().unwrap().judge, None, "who never replied did not judge");
    run.judge("pool", &mut pool(), |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(run.score().unwrap().judge.as_deref(), Some("pool"));
    answered(choice(), &table(), whole.path(), &answers(), Some(&mut pool())).score().unwrap();
    assert_eq!(bytes(folder.path()), bytes(whole.path()));
    run.judge("mistyped", &mut Away, |_, _| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(run.score().unwrap().judge.as_deref(), Some("pool"), "the replies stay their judge's");
}

/// Nothing was left to it: both runs below were read by the same rules and the same judge.
#[test]
fn a_judge_that_had_nothing_to_decide_is_named_all_the_same() {
    let (idle, busy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all_a = (0..ROWS).map(|i| (i.to_string(), "A".to_string())).collect();
    let run = answered(choice(), &table(), idle.path(), &all_a, Some(&mut pool()));
    assert_eq!(run.score().unwrap().judge.as_deref(), Some("pool"));
    answered(choice(), &table(), busy.path(), &answers(), Some(&mut pool())).score().unwrap();
    Comparison::of_folders(idle.path(), busy.path()).unwrap();
}

#[test]
fn two_runs_are_compared_question_by_question() {
    let (ours, theirs, limited) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    answered(choice(), &table(), ours.path(), &answers(), None).score().unwrap();
    let all_a = (0..ROWS).map(|i| (i.to_string(), "A".to_string())).collect();
    answered(choice(), &table(), theirs.path(), &all_a, None).score().unwrap();
    let comparison = Comparison::of_folders(ours.path(), theirs.path()).unwrap();
    // Right are rows 0, 3, 4 here and 0, 2, 4, 6 there.
    assert_eq!((comparison.pair.wins, comparison.pair.losses, comparison.pair.total), (1, 2, 7));
    assert!((comparison.difference + 1.0 / 7.0).abs() < 1e-12);
    assert_eq!(comparison.interval, comparison.pair.interval());
    assert!(comparison.table().contains("p = 1.000"), "{}", comparison.table());
    let run = Evaluation::open(Plan { limit: Some(3), ..plan(choice(), table()) }, limited.path()).unwrap();
    run.ask(&mut Recorded::new(answers(), 1), go).unwrap();
    run.score().unwrap();
    let error = Comparison::of_folders(ours.path(), limited.path()).unwrap_err().to_string();
    assert!(error.contains("limit differs"), "{error}");
    let error = Comparison::of_folders(ours.path(), "/nowhere".as_ref()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/run.json"), "{error}");
}

#[test]
fn runs_with_unequal_judges_are_not_compared() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [plain, pooled, other] = &folders;
    answered(choice(), &table(), plain.path(), &answers(), None).score().unwrap();
    answered(choice(), &table(), pooled.path(), &answers(), Some(&mut pool())).score().unwrap();
    let run = answered(choice(), &table(), other.path(), &answers(), None);
    run.judge("other", &mut pool(), |_, _| ControlFlow::Continue(())).unwrap();
    run.score().unwrap();
    for (first, second, expected) in [
        (plain, pooled, "no judge read the answers of the first, pool those of the second"),
        (pooled, other, "pool read the answers of the first, other those of the second"),
    ] {
        let error = Comparison::of_folders(first.path(), second.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&first.path().display().to_string()), "{error}");
    }
    Comparison::of_folders(pooled.path(), pooled.path()).unwrap();
}

/// A rule needs no judge, and is the same beside one.
#[test]
fn a_judge_of_answers_that_a_rule_compares_is_not_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = answered(Kind::named("chartqa").unwrap(), &table(), folder.path(), &answers(), Some(&mut pool()));
    assert_eq!(run.score().unwrap().judge, None);
}

#[test]
fn scores_of_other_answers_or_replies_are_not_compared() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = answered(choice(), &table(), ours.path(), &answers(), Some(&mut pool()));
    answered(choice(), &table(), theirs.path(), &answers(), Some(&mut pool())).score().unwrap();
    run.score().unwrap();
    for name in [ANSWERS_FILE, REPLIES_FILE] {
        let path = ours.path().join(name);
        let stored = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, stored.replacen(":\"A\"", ":\"B\"", 1)).unwrap();
        for (first, second) in [(&ours, &theirs), (&theirs, &ours)] {
            let error = Comparison::of_folders(first.path(), second.path()).unwrap_err().to_string();
            assert!(error.contains("scored before its answers or replies changed"), "{name}: {error}");
            assert!(error.starts_with(&ours.path().display().to_string()), "{name}: {error}");
        }
        run.score().unwrap();
        Comparison::of_folders(ours.path(), theirs.path()).unwrap();
        std::fs::write(&path, stored).unwrap();
        run.score().unwrap();
    }
}

/// Both rotations of each question, as MMBench has them: all first rotations, then all second ones.
#[test]
fn a_limit_counts_questions_with_all_their_rotations() {
    let row =
        |turn: usize, i: usize| format!("{}\twhat ?\tone\ttwo\t{}\n", turn * 1_000_000 + i, ["A", "B"][(i + turn) % 2]);
    let rows: String = (0..2).flat_map(|turn| (1..=3).map(move |i| row(turn, i))).collect();
    let table =
        Table::from_bytes("t.tsv".as_ref(), format!("index\tquestion\tA\tB\tanswer\n{rows}").as_bytes()).unwrap();
    let all_a: HashMap<String, String> = table.rows().map(|row| (row.index().to_string(), "A".into())).collect();
    for (kind, asked, points) in
        [("circular", &["1", "2", "1000001", "1000002"][..], 0.0), ("choice", &["1", "2"], 1.0)]
    {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { limit: Some(2), ..plan(Kind::named(kind).unwrap(), table.clone()) };
        let run = Evaluation::open(plan, folder.path()).unwrap();
        let mut answerer = Recorded::new(all_a.clone(), 1);
        assert_eq!(run.ask(&mut answerer, go).unwrap(), Outcome::Finished);
        assert_eq!(answerer.asked, asked);
        let overall = run.score().unwrap().overall();
        assert_eq!((overall.points, overall.total), (points, 2), "{kind}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A comparison mirrors when its sides are swapped.
    #[test]
    fn a_comparison_mirrors(pairs in prop::collection::vec((0_u8..=10, 0_u8..=10), 1..40)) {
        let side = |pick: fn(&(u8, u8)) -> u8| pairs.iter().map(|pair| f64::from(pick(pair)) / 10.0).collect::<Vec<_>>();
        let (a, b) = (side(|pair| pair.0), side(|pair| pair.1));
        let forth = Comparison::of_scores(("a", &a), ("b", &b));
        let back = Comparison::of_scores(("b", &b), ("a", &a));
        prop_assert_eq!(forth.pair.wins, back.pair.losses);
        prop_assert!((forth.difference + back.difference).abs() < 1e-12);
        prop_assert!((forth.interval.0 + back.interval.1).abs() < 1e-12);
    }
}
