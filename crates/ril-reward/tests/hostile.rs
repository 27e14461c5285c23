//! No answer takes a rule long: a model that loops fills its context with one piece.

use std::time::{Duration, Instant};

use ril_reward::{
    Anls, BoxChoice, BoxIou, ChoiceMatch, ExactMatch, FormatMatch, JudgeReward, LengthPenalty, MathMatch,
    Normalisation, NumericMatch, PatternScope, RelaxedAccuracy, RepetitionPenalty, Reward, RewardError, RuleJudge,
    Sample, TextUnit, UnitRule, YesNoMatch, conclusion, numbers, parse_verdict,
};

/// Far more than any rule needs for a megabyte in the slowest profile, far less than the square of it takes.
const LIMIT: Duration = Duration::from_secs(5);

const BYTES: usize = 1 << 20;

const PIECES: [&str; 18] = [
    "B ",
    "A or B, ",
    "not 5 ",
    "the ",
    "cat ",
    "cat, ",
    "yes no ",
    "answer: a. ",
    "answer",
    "A. B) (C) ",
    "(((",
    "one hundred ",
    "thousand ",
    "[1,2,3,4] ",
    "\\boxed{",
    "\\boxed{1}, ",
    "a.      ",
    "é",
];

const QUESTION: &str = "What is it?\nA. cat\nB. dog\nC. black cat\nD. the";

type RuleAndReference = (Box<dyn Reward>, &'static str);

/// Every rule with a reference that it applies to; the rule judge with one for each of its rules.
fn rules() -> Result<Vec<RuleAndReference>, RewardError> {
    let mut rules: Vec<RuleAndReference> = vec![
        (Box::new(ExactMatch::default()), "B"),
        (Box::new(ExactMatch::new(Normalisation::Squad)), "B"),
        (Box::new(NumericMatch { units: UnitRule::Converted, ..NumericMatch::default() }), "5 cm"),
        (Box::new(ChoiceMatch::default()), "B"),
        (Box::new(YesNoMatch), "yes"),
        (Box::new(MathMatch::default()), "5"),
        (Box::new(RelaxedAccuracy::default()), "5"),
        (Box::new(Anls::default()), "cat"),
        (Box::new(BoxIou { choice: BoxChoice::Best, ..BoxIou::default() }), "[1, 2, 3, 4]"),
        (Box::new(FormatMatch::think_answer()), ""),
        (Box::new(FormatMatch::new("(a|b)*c", PatternScope::Anywhere)?), ""),
        (Box::new(LengthPenalty { max_length: 100, cache: 10, unit: TextUnit::Words }), ""),
        (Box::new(RepetitionPenalty::default()), ""),
    ];
    for reference in ["B", "5", "yes", "cat", "Mt. Cat", "!"] {
        rules.push((Box::new(JudgeReward::new(RuleJudge::default())), reference));
    }
    Ok(rules)
}

fn timed<T>(what: &str, piece: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    assert!(start.elapsed() < LIMIT, "{what} of {piece:?}: {:?}", start.elapsed());
    result
}

#[test]
fn a_megabyte_of_one_piece_is_scored_in_linear_time() -> Result<(), RewardError> {
    for piece in PIECES {
        let text = piece.repeat(BYTES / piece.len());
        for (rule, reference) in rules()? {
            let sample = [Sample::new(QUESTION, reference, &text)];
            let scores = timed(rule.name(), piece, || rule.score(&sample))?;
            assert!(matches!(scores[..], [Some(_)]), "{} of {piece:?}: {scores:?}", rule.name());
        }
        timed("conclusion", piece, || conclusion(&text).text.len());
        timed("numbers", piece, || numbers(&text).len());
        timed("parse_verdict", piece, || parse_verdict(&text));
    }
    Ok(())
}

#[test]
fn a_megabyte_of_labels_is_a_question_as_any() {
    for piece in ["A. ", "B) ", "A. B. C. "] {
        let question = piece.repeat(BYTES / piece.len());
        timed("choice", piece, || ChoiceMatch::default().verdict(&Sample::new(&question, "B", "B")));
    }
}
