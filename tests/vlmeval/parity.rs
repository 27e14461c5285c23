//! Against VLMEvalKit's own code: `scripts/reference/vlmevalkit.py`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use ril::vlmeval::{Kind, Line, Part, Query, Results, SCORES_FILE, ScoreLine, Table, extract_yes_no, infer_choice};
use ril::vlmeval::{VlmEvalError, relaxed_correctness};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Pool, answered};

static FIXTURE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../crates/ril/tests/fixtures/vlmevalkit.json")).unwrap());

/// VLMEvalKit's short names of MMBench's categories, as far as they are in the fixture.
const ABBREVIATIONS: [(&str, &str); 2] = [("CP", "coarse_perception"), ("LR", "logic_reasoning")];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn texts(value: &Value) -> HashMap<String, String> {
    value.as_object().unwrap().iter().map(|(key, value)| (key.clone(), text(value).to_string())).collect()
}

fn runs() -> &'static [Value] {
    array(&FIXTURE["runs"])
}

fn table(run: &Value) -> Table {
    let name = format!("{}.tsv", text(&run["dataset"]));
    Table::from_bytes(name.as_ref(), text(&run["tsv"]).as_bytes()).unwrap()
}

fn kind(run: &Value) -> &'static Kind {
    let kind = Kind::named(text(&run["kind"])).unwrap();
    let by_file = Kind::of_file(format!("data/{}.tsv", text(&run["dataset"])).as_ref()).unwrap();
    assert_eq!(kind, by_file);
    kind
}

#[test]
fn cells_are_read_as_pandas_reads_them() {
    for file in array(&FIXTURE["cells"]) {
        let tsv = text(&file["tsv"]);
        let table = Table::from_bytes("cells.tsv".as_ref(), tsv.as_bytes()).unwrap();
        assert_eq!(table.len(), array(&file["rows"]).len(), "{tsv:?}");
        for (row, expected) in table.rows().zip(array(&file["rows"])) {
            for (column, value) in expected.as_object().unwrap() {
                let got = row.text(column).map(|text| text.to_string());
                // Of two columns of one name the second is called q.1 there, and is not to be had here.
                if column != "q.1" {
                    assert_eq!(got.as_deref(), value.as_str(), "{tsv:?}, column {column}");
                }
            }
        }
    }
}

#[test]
fn options_are_read_from_answers_alike() {
    let functions = &FIXTURE["functions"];
    let mut compared = 0;
    for case in array(&functions["infer"]) {
        let choices = case["choices"].as_object().unwrap();
        let choices: Vec<(char, Arc<str>)> =
            choices.iter().map(|(letter, option)| (letter.chars().next().unwrap(), text(option).into())).collect();
        for (answer, expected) in array(&functions["answers"]).iter().zip(array(&case["results"])) {
            let got = infer_choice(text(answer), &choices).map(String::from);
            assert_eq!(got.as_deref(), expected.as_str(), "{answer} among {choices:?}");
            compared += 1;
        }
    }
    println!("{compared} answers");
    assert!(compared >= 400);
}

#[test]
fn yes_and_no_are_read_alike() {
    for case in array(&FIXTURE["functions"]["yes_no"]) {
        assert_eq!(extract_yes_no(text(&case[0])).text(), text(&case[1]), "{}", case[0]);
    }
}

#[test]
fn relaxed_accuracy_is_equal() {
    for case in array(&FIXTURE["functions"]["relaxed"]) {
        let (truth, answer) = (text(&case[0]), text(&case[1]));
        assert_eq!(relaxed_correctness(truth, answer), case[2].as_bool().unwrap(), "{truth:?} {answer:?}");
    }
}

/// The first 16 digits of the SHA-256.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|b| format!("{b:02x}")).collect()
}

fn parts(query: &Query) -> Value {
    let part = |part: &Part| match part {
        Part::Text(text) => serde_json::json!({ "text": text }),
        Part::Picture(picture) => {
            serde_json::json!({ "picture": hash(&picture.bytes().unwrap()) })
        }
    };
    query.parts.iter().map(part).collect()
}

#[test]
fn prompts_are_equal_to_the_character_and_the_picture() {
    for run in runs() {
        let (kind, table) = (kind(run), table(run));
        let prompts = run["prompts"].as_object().unwrap();
        assert_eq!(table.len(), prompts.len(), "{}", kind.name);
        for row in table.rows() {
            let query = kind.prompt.query(&row).unwrap();
            assert_eq!(parts(&query), prompts[row.index()], "{} {}", kind.name, row.index());
            let pictures = query.message().unwrap().images().count();
            assert!(pictures > 0, "{} {}", kind.name, row.index());
        }
    }
}

/// Scores by question and every number of the report.
fn assert_results(run: &Value, expected: &Value, results: &Results, folder: &std::path::Path) {
    let name = text(&run["dataset"]);
    let lines = std::fs::read_to_string(folder.join(SCORES_FILE)).unwrap();
    let scores: HashMap<String, f64> = lines
        .lines()
        .map(|line| serde_json::from_str::<ScoreLine>(line).unwrap())
        .map(|line| (line.index, line.score))
        .collect();
    let hits = expected["hits"].as_object().unwrap();
    assert_eq!(scores.len(), hits.len(), "{name}");
    for (index, hit) in hits {
        assert_eq!(scores[index], hit.as_f64().unwrap(), "{name}, row {index}");
    }
    for number in array(&expected["table"]).iter().chain(expected["fine"].as_array().into_iter().flatten()) {
        let (split, label, value) = (number[0].as_str(), text(&number[1]), number[2].as_f64().unwrap());
        // How many answers VLMEvalKit did not ask about is compared by the number of calls.
        if label.contains("|prefetch") {
            continue;
        }
        let got = number_of(results, split, label);
        assert!((got - value).abs() < 1e-12 * value.abs().max(1.0), "{name} {split:?} {label}: {got} {value}");
    }
}

/// The number of our table that VLMEvalKit's report gives under a split and a label.
///
/// Its reports for MM-Vet count capabilities and sets of capabilities under the same names: a question with one
/// capability counts twice there, under a name that stands on two lines here.
fn number_of(results: &Results, split: Option<&str>, label: &str) -> f64 {
    let (label, column) = label.split_once('|').map_or((label, None), |(label, column)| (label, Some(column)));
    let full = ABBREVIATIONS.iter().find(|(short, _)| *short == label).map_or(label, |(_, full)| full);
    let wanted_split = split.filter(|split| *split != "none").unwrap_or("all");
    let is_line = |line: &&Line| match full {
        "Overall" => line.split == wanted_split && line.by == "all",
        // ChartQA's report has a column for each split.
        _ if split.is_none() && line.by == "all" => line.split == full,
        _ => line.split == wanted_split && line.group == full,
    };
    let lines: Vec<&Line> = results.lines.iter().filter(is_line).collect();
    assert!(lines.len() == 1 || lines.len() == 2 && results.kind == "mm-vet", "{split:?} {label}: {lines:?}");
    let points: f64 = lines.iter().map(|line| line.score.points).sum();
    let total = lines.iter().map(|line| line.score.total).sum::<usize>() as f64;
    match column {
        Some("tot") => total,
        Some("hit") => points,
        // Shares for multiple choice, which has splits; percentages elsewhere.
        _ if split.is_some() => points / total,
        _ => points / total * 100.0,
    }
}

#[test]
fn scores_by_exact_matching_are_equal() {
    for run in runs().iter().filter(|run| run["exact"].is_object()) {
        let folder = tempfile::tempdir().unwrap();
        let (kind, table) = (kind(run), table(run));
        let evaluation = answered(kind, &table, folder.path(), &texts(&run["predictions"]), None);
        let results = evaluation.score().unwrap();
        assert_results(run, &run["exact"], &results, folder.path());
        println!("{}: {} questions, {:?}", kind.name, results.overall().total, results.overall().rate());
    }
}

#[test]
fn scores_with_a_judge_are_equal_and_so_are_its_prompts() {
    for run in runs().iter().filter(|run| run["judged"].is_object()) {
        let folder = tempfile::tempdir().unwrap();
        let (kind, table) = (kind(run), table(run));
        let replies = array(&FIXTURE["replies"][text(&run["pool"])]).iter().map(|reply| text(reply).to_string());
        let mut pool = Pool::new(replies.collect(), HashMap::new());
        let evaluation = answered(kind, &table, folder.path(), &texts(&run["predictions"]), Some(&mut pool));
        let results = evaluation.score().unwrap();
        assert_results(run, &run["judged"], &results, folder.path());
        let asked: BTreeSet<String> = pool.tries.keys().map(|prompt| hash(prompt.as_bytes())).collect();
        let expected: BTreeSet<String> =
            array(&run["judged"]["prompts"]).iter().map(|hash| text(hash).to_string()).collect();
        // A circular group is given up at its first wrong rotation there, and asked about as a whole here.
        match results.kind.as_str() {
            "mmb" | "mmb-cn" | "blink-circular" => assert!(asked.is_superset(&expected), "{}", kind.name),
            _ => {
                assert_eq!(asked, expected, "{}", kind.name);
                assert_eq!(pool.calls as u64, run["judged"]["calls"].as_u64().unwrap(), "{}", kind.name);
            }
        }
        assert!(pool.calls > 0, "{}: nobody was asked", kind.name);
    }
}

#[test]
fn mm_vet_v2_is_graded_with_its_own_prompt() -> Result<(), VlmEvalError> {
    let kind = Kind::named("mm-vet-v2")?;
    for case in array(&FIXTURE["mm_vet_v2"]) {
        let pictures = text(&case[0]).matches("<image>").count();
        let images = serde_json::to_string(&vec!["QUJDREVG".repeat(20); pictures]).unwrap();
        let tsv = format!(
            "index\tquestion\tanswer\tcategory\timage\n1\t\"{}\"\t{}\trec,seq\t\"{}\"\n",
            text(&case[0]),
            text(&case[1]),
            images.replace('"', "\"\"")
        );
        let table = Table::from_bytes("v2.tsv".as_ref(), tsv.as_bytes())?;
        let answers = HashMap::from([("1".to_string(), text(&case[2]).to_string())]);
        let replies = HashMap::new();
        let evidence = ril::vlmeval::Evidence { answers: &answers, replies: Some(&replies) };
        assert_eq!(kind.scorer.inquiries(&table, evidence)?[0].prompt, text(&case[3]));
    }
    Ok(())
}
