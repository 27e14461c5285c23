//! Repetition and length penalties against TRL 1.16.0 (`scripts/reference/text_penalties.py`).

use ril_reward::{LengthPenalty, RepetitionPenalty, Reward, Sample, TextUnit};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    unit: String,
    ngram_size: usize,
    max_penalty: f32,
    repetition: f64,
    max_length: usize,
    cache: usize,
    length: f64,
}

#[test]
fn penalties_equal_trl() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/text_penalties.json")).expect("a fixture");
    assert!(fixture.cases.len() > 50);
    for case in fixture.cases {
        let unit = if case.unit == "words" { TextUnit::Words } else { TextUnit::Characters };
        let repetition = RepetitionPenalty { ngram_size: case.ngram_size, weight: -case.max_penalty, unit };
        let length = LengthPenalty { max_length: case.max_length, cache: case.cache, unit };
        let score = |reward: &dyn Reward| reward.score(&[Sample::new("?", "", &case.text)]).expect("a rule")[0];
        assert_eq!(score(&repetition), Some(case.repetition as f32), "{:?}", case.text);
        assert_eq!(score(&length), Some(case.length as f32), "{:?}", case.text);
    }
}
