//! ANLS and relaxed accuracy against VLMEvalKit's own functions (`scripts/reference/vqa_metrics.py`).

use ril_reward::{Anls, AnswerPart, RelaxedAccuracy, Reward, Sample};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    relaxed: Vec<Case>,
    anls: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    references: Vec<String>,
    prediction: String,
    score: f64,
    /// What the package `anls` says.
    anls_package: Option<f64>,
}

impl Case {
    fn score_under(&self, reward: &impl Reward) -> Option<f32> {
        let reference = match &self.references[..] {
            [only] => only.clone(),
            several => serde_json::to_string(several).expect("strings"),
        };
        reward.score(&[Sample::new("?", &reference, &self.prediction)]).expect("a rule")[0]
    }

    fn is_blank(&self) -> bool {
        self.references.iter().all(|reference| reference.trim().is_empty())
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/vqa_metrics.json")).expect("a fixture")
}

#[test]
fn relaxed_accuracy_equals_vlmevalkit() {
    let reward = RelaxedAccuracy { part: AnswerPart::Whole, ..RelaxedAccuracy::default() };
    let cases = fixture().relaxed;
    assert!(cases.len() > 100);
    for case in &cases {
        // Where there is no reference we do not score.
        let expected = (!case.is_blank()).then_some(case.score as f32);
        assert_eq!(case.score_under(&reward), expected, "{:?} {:?}", case.references, case.prediction);
    }
}

#[test]
fn anls_equals_vlmevalkit() {
    let reward = Anls { part: AnswerPart::Whole, ..Anls::default() };
    let cases = fixture().anls;
    let mut same_as_package = 0;
    for case in &cases {
        let score = case.score_under(&reward);
        let expected = (!case.is_blank()).then_some(case.score as f32);
        assert_eq!(score, expected, "{:?} {:?}", case.references, case.prediction);
        // At exactly the threshold the package gives 0, as the equation does.
        let package = case.anls_package.expect("asked for every case") as f32;
        let is_same = score.is_none_or(|score| (score - package).abs() < 1e-6);
        assert!(is_same || (score == Some(0.5) && package == 0.0), "{:?} {:?}", case.references, case.prediction);
        same_as_package += usize::from(is_same);
    }
    println!("{same_as_package} of {} as the package `anls`", cases.len());
}
