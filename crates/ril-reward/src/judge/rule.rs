use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::number::Number;
use crate::words::{positions_of_run, words};
use crate::{ChoiceMatch, ExactMatch, Normalisation, NumericMatch, Sample, conclusion, rule};

/// A judge without a model or a network: the form of the reference picks the rule.
///
/// | reference | rule |
/// |---|---|
/// | an option of the question, or a lone capital letter | [`ChoiceMatch`] |
/// | yes, no, true, false | the polarity of the answer: see below |
/// | a number and nothing else | [`NumericMatch`] |
/// | words | they stand in the [`conclusion`] of the answer, one after the other, not right after a negation |
/// | signs only (`+`, `≥`) | [`ExactMatch`] on the conclusion |
///
/// Polarity is the first of yes, no, true, false in a marked conclusion, else the first word of the answer if it is
/// one of them, else the last one in the answer. An answer that keeps its result out of its last sentence and marks
/// it nowhere is wrong. An empty reference is [`Verdict::Unparsed`].
///
/// A stand-in for the language-model judge of RIL (arXiv 2510.19307, section 3.3), for data whose references are short.
///
/// ```
/// use ril_reward::{Judge, RuleJudge, Sample, Verdict};
///
/// let verdicts = RuleJudge::default().judge(&[
///     Sample::new("How many?", "12", "Seven and five are 12."),
///     Sample::new("Is it red?", "yes", "Yes, it is."),
///     Sample::new("Where?", "New York", "Not Rome. It is in New York."),
///     Sample::new("Which?\nA. cat\nB. dog", "B", "It is a cat."),
/// ])?;
/// assert_eq!(verdicts, [Verdict::Correct, Verdict::Correct, Verdict::Correct, Verdict::Incorrect]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleJudge {
    /// The rule for options.
    pub choice: ChoiceMatch,
    /// The rule for numbers.
    pub numeric: NumericMatch,
}

impl RuleJudge {
    /// The verdict on one sample.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        if sample.reference.trim().is_empty() {
            return Verdict::Unparsed("reference is empty".into());
        }
        if sample.is_response_empty() {
            return Verdict::Incorrect;
        }
        if self.is_choice(sample) {
            return self.choice.verdict(sample);
        }
        let reference = words(sample.reference);
        if let [word] = reference.as_slice()
            && let Some(is_true) = polarity(word)
        {
            return Verdict::of(stated_polarity(sample.response) == Some(is_true));
        }
        if Number::whole(sample.reference).is_some() {
            return self.numeric.verdict(sample);
        }
        let stated = conclusion(sample.response).text;
        if reference.is_empty() {
            return ExactMatch::new(Normalisation::Folded).verdict(&Sample { response: stated, ..*sample });
        }
        Verdict::of(affirms(&words(stated), &reference))
    }

    /// True for an option of the question and for a lone capital letter; `a` alone may be a word.
    fn is_choice(&self, sample: &Sample<'_>) -> bool {
        let is_small_letter = sample.reference.trim().chars().all(char::is_lowercase);
        let has_digits = Number::whole(sample.reference).is_some();
        self.choice.reference_letter(sample).is_some()
            && (!is_small_letter || has_digits || sample.reference.trim().len() > 1)
    }
}

rule::impl_rule!(RuleJudge, "rule");

fn polarity(word: &str) -> Option<bool> {
    match word {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

fn stated_polarity(response: &str) -> Option<bool> {
    let stated = conclusion(response);
    let first_stated = words(stated.text).iter().find_map(|word| polarity(word)).filter(|_| stated.is_marked);
    let all = words(response);
    let opening = || all.first().and_then(|word| polarity(word));
    let last = || all.iter().rev().find_map(|word| polarity(word));
    first_stated.or_else(opening).or_else(last)
}

/// True when `reference` stands in `stated` at least once without a negation right before it.
fn affirms(stated: &[String], reference: &[String]) -> bool {
    let is_negation =
        |word: &String| matches!(word.as_str(), "not" | "no" | "never" | "isnt" | "without" | "neither" | "nor");
    let is_article = |word: &&String| matches!(word.as_str(), "a" | "an" | "the");
    positions_of_run(stated, reference).any(|at| {
        let before = stated[..at].iter().rev().find(|word| !is_article(word));
        !before.is_some_and(is_negation)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Judge, JudgeReward, Reward};

    fn verdict(question: &str, reference: &str, response: &str) -> Verdict {
        RuleJudge::default().verdict(&Sample::new(question, reference, response))
    }

    #[test]
    fn the_form_of_the_reference_picks_the_rule() {
        let listed = "Which?\nA. 12\nB. 15\nC. yes";
        let cases = [
            ("How many?", "12", "3 times 4 is 12.", true),
            ("How many?", "12", "12 minus 1 is 11.", false),
            ("How many?", "12", "The picture shows 5 and 7. The answer is 12.", true),
            ("How many?", "1,200", "1200", true),
            ("How many?", "50%", "one half, 50 %", true),
            (listed, "A", "12", true),
            (listed, "A", "B", false),
            (listed, "15", "(B)", true),
            (listed, "15", "It is 15.", true),
            (listed, "yes", "C", true),
            ("Which?", "C", "The answer is (C).", true),
            ("Which?", "C", "(D)", false),
            ("Is it?", "yes", "Yes, it is not bad.", true),
            ("Is it?", "yes", "No.", false),
            ("Is it?", "No", "The answer is no, yes is wrong.", true),
            ("Is it?", "no", "I looked twice: no", true),
            ("Is it?", "True", "yes", true),
            ("Is it?", "false", "It is not.", false),
            ("Where?", "New York", "I would say New York!", true),
            ("Where?", "New York", "new-york", true),
            ("Where?", "New York", "York", false),
            ("Where?", "New York", "Answer: New York, not Rome", true),
            ("Where?", "New York", "It is not New York", false),
            ("What?", "cat", "It isn't a cat.", false),
            ("What?", "cat", "It is not a dog but a cat.", true),
            ("What?", "cat", "A cat? It is a dog.", false),
            ("What?", "cat", "category", false),
            ("What?", "a", "it is a", true),
            ("Which sign?", "+", "The answer is +.", true),
            ("Which sign?", "+", "The answer is -.", false),
            ("Where?", "12 cm", "It is 12 cm long", true),
            ("Where?", "12 cm", "It is 12 m long", false),
            ("Where?", "北京", "答案 北京", true),
        ];
        for (question, reference, response, is_correct) in cases {
            let expected = Verdict::of(is_correct);
            assert_eq!(verdict(question, reference, response), expected, "{question:?} {reference:?} {response:?}");
        }
    }

    #[test]
    fn empty_texts() {
        assert_eq!(verdict("?", "12", " "), Verdict::Incorrect);
        assert_eq!(verdict("?", " ", "12"), Verdict::Unparsed("reference is empty".into()));
        let scores =
            JudgeReward::new(RuleJudge::default()).score(&[Sample::new("?", " ", ""), Sample::new("?", "", "x")]);
        assert_eq!(scores.expect("rules do not fail"), [Some(0.0), None]);
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(question in any::<String>(), reference in any::<String>(), response in any::<String>()) {
            let verdicts = RuleJudge::default().judge(&[Sample::new(&question, &reference, &response)]);
            prop_assert_eq!(verdicts.expect("rules do not fail").len(), 1);
        }

        #[test]
        fn a_stated_reference_is_right(reference in "[b-z]{4,9}( [b-z]{4,9})?", filler in "[b-z]{2,9}") {
            prop_assume!(words(&reference).iter().all(|word| polarity(word).is_none()));
            let response = format!("Some {filler} first. The answer is {reference}.");
            prop_assert_eq!(verdict("What?", &reference, &response), Verdict::Correct);
        }
    }
}
