//! What holds for any file and any answer.

use std::collections::HashMap;

use proptest::prelude::*;
use ril::vlmeval::{Evidence, Judged, KINDS, Kind, Table, extract_yes_no, infer_choice, relaxed_correctness};

/// Cells that a benchmark may hold, and some that it should not.
fn cell() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "1", "2", "7", "1000001", "A", "B", "what ?", "NA", "", "3.5", "True", "[1, 2]", "['a', 'b']", "[", "\"x\ty\"",
            "\"", "<image 1>", "<image 9>", "integer", "float", "multi_choice", "猫",
        ]).prop_map(String::from),
        1 => any::<String>(),
    ]
}

const COLUMNS: [&str; 17] = [
    "index",
    "question",
    "answer",
    "A",
    "B",
    "C",
    "hint",
    "category",
    "l2-category",
    "split",
    "task",
    "skills",
    "choices",
    "question_type",
    "answer_type",
    "answer_option",
    "image",
];

fn file() -> impl Strategy<Value = Vec<u8>> {
    let rows = prop::collection::vec(prop::collection::vec(cell(), COLUMNS.len()), 1..6);
    (rows, 1..=COLUMNS.len()).prop_map(|(rows, width)| {
        let lines = rows.iter().enumerate().map(|(i, row)| format!("{i}\t{}\n", row[1..width].join("\t")));
        format!("{}\n{}", COLUMNS[..width].join("\t"), lines.collect::<String>()).into_bytes()
    })
}

/// Everything that is done with a file, for every kind.
fn use_up(bytes: &[u8], answer: &str) {
    let Ok(table) = Table::from_bytes("any.tsv".as_ref(), bytes) else { return };
    for kind in &KINDS {
        for row in table.rows() {
            if let Ok(query) = kind.prompt.query(&row) {
                let _ = query.message();
            }
            let _ = kind.scorer.grade(&row, answer, Judged::Absent);
            let _ = kind.scorer.grade(&row, answer, Judged::Replies(&[answer.to_string()]));
            let _ = kind.scorer.is_usable(&row, answer);
        }
        let answers: HashMap<_, _> = table.rows().map(|row| (row.index().to_string(), answer.to_string())).collect();
        let replies = HashMap::new();
        let evidence = Evidence { answers: &answers, replies: Some(&replies) };
        if kind.scorer.check(&table).is_ok() {
            assert!(kind.scorer.items(&table, evidence).is_ok(), "a file that passes the check is scored");
            let _ = kind.scorer.inquiries(&table, evidence);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), answer in any::<String>()) {
        use_up(&bytes, &answer);
    }

    #[test]
    fn any_table_is_scored_or_refused(bytes in file(), answer in cell()) {
        use_up(&bytes, &answer);
    }

    #[test]
    fn any_answer_is_matched_or_not(answer in any::<String>(), options in prop::collection::vec(any::<String>(), 0..5)) {
        let choices: Vec<_> = ('A'..='Z').zip(options.iter().map(|option| option.as_str().into())).collect();
        let letter = infer_choice(&answer, &choices);
        prop_assert!(letter.is_none_or(|letter| letter == 'Z' || choices.iter().any(|(c, _)| *c == letter)));
        let _ = extract_yes_no(&answer);
        let _ = relaxed_correctness(&answer, &answer);
    }

    /// All rotations right means the first one right.
    #[test]
    fn circular_accuracy_is_at_most_the_plain_one(
        said in prop::collection::vec(prop::sample::select(vec!["A", "B", "(A)", "the answer is B", "hm"]), 24),
        turns in 1_usize..4,
    ) {
        let questions = 24 / turns;
        let mut text = "index\tquestion\tA\tB\tanswer\tcategory\n".to_string();
        for turn in 0..turns {
            for i in 1..=questions {
                let answer = ["A", "B"][(i + turn) % 2];
                text += &format!("{}\twhat ?\tone\ttwo\t{answer}\tc{}\n", turn * 1_000_000 + i, i % 3);
            }
        }
        let table = Table::from_bytes("t.tsv".as_ref(), text.as_bytes()).unwrap();
        let answers: HashMap<String, String> =
            table.rows().zip(&said).map(|(row, said)| (row.index().to_string(), (*said).to_string())).collect();
        let evidence = Evidence { answers: &answers, replies: None };
        let circular = Kind::named("circular").unwrap().scorer.items(&table, evidence).unwrap();
        let mut first = table.clone();
        first.truncate(questions);
        let plain = Kind::named("choice").unwrap().scorer.items(&first, evidence).unwrap();
        prop_assert_eq!(circular.len(), plain.len());
        for (circular, plain) in circular.iter().zip(&plain) {
            prop_assert_eq!(&circular.index, &plain.index);
            prop_assert!(circular.grade.score <= plain.grade.score);
        }
    }
}
