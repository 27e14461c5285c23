use serde::{Deserialize, Serialize};

use super::{Verdict, polarity};
use crate::conclusion::sentence_end;
use crate::number::Number;
use crate::tokens::{Token, runs, tokens};
use crate::words::words;
use crate::{ChoiceMatch, ExactMatch, Normalisation, NumericMatch, Sample, conclusion, rule};

/// A judge without a model or a network: the form of the reference picks the rule.
///
/// | reference | rule |
/// |---|---|
/// | an option of the question, or a lone capital letter | [`ChoiceMatch`] |
/// | yes, no, true, false | the polarity of the answer: see below |
/// | a number and nothing else | [`NumericMatch`] |
/// | words | the [`conclusion`] of the answer states them: see below |
/// | signs only (`+`, `≥`) | [`ExactMatch`] on the conclusion |
///
/// Whatever its form, a reference that is the whole answer, or all of it behind its mark, is right. An empty reference
/// is [`Verdict::Unparsed`].
///
/// **Polarity.** Every yes, no, true and false of the marked conclusion, else of the whole answer, must say the same.
/// `not true` says false; a `no` before a noun (`no dog`) says nothing; what is called wrong says nothing.
///
/// **Words.** Numbers are compared by value, and with their unit (`12cm` is `12 cm`, not `12 m`; `3.5 kg` does not hold
/// `5 kg`). The words must stand in the conclusion one after the other, not right after a negation. A conclusion without
/// any function word (`left right`) must be the reference and nothing more, articles aside: a list of candidates is no
/// answer. For the same reason nothing may be joined to the reference by `or`, `and`, a comma, a slash, unless it is
/// denied (`Paris, not Rome`) or a clause (`Paris, where I live`). A reference with a sentence end inside (`Mt. Everest`)
/// is searched in the whole answer.
///
/// Where two readings of an answer disagree, it is wrong.
///
/// A stand-in for the language-model judge of RIL (arXiv 2510.19307), for data whose references are short.
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
    /// Checks the settings of the rules within, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`](crate::RewardError::Config).
    pub fn validate(&self) -> Result<(), crate::RewardError> {
        self.choice.validate()
    }

    /// The verdict on one sample.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        if sample.reference.trim().is_empty() {
            return Verdict::Unparsed("reference is empty".into());
        }
        if sample.is_response_empty() {
            return Verdict::Incorrect;
        }
        if repeats(sample.response, sample.reference) {
            return Verdict::Correct;
        }
        if self.is_choice(sample) {
            return self.choice.verdict(sample);
        }
        if let [word] = words(sample.reference).as_slice()
            && let Some(is_true) = polarity::of(word)
        {
            return Verdict::of(polarity::stated(sample.response) == Some(is_true));
        }
        if Number::whole(sample.reference).is_some() {
            return self.numeric.verdict(sample);
        }
        let reference = tokens(sample.reference);
        if !reference.iter().any(Token::is_content) {
            let stated = conclusion(sample.response).text;
            return ExactMatch::new(Normalisation::Folded).verdict(&Sample { response: stated, ..*sample });
        }
        Verdict::of(says(sample.response, sample.reference, &reference))
    }

    /// True for an option of the question and for a lone capital letter; `a` alone may be a word.
    fn is_choice(&self, sample: &Sample<'_>) -> bool {
        let is_small_letter = sample.reference.trim().chars().all(char::is_lowercase);
        let has_digits = Number::whole(sample.reference).is_some();
        self.choice.reference_letter(sample).is_some()
            && (!is_small_letter || has_digits || sample.reference.trim().len() > 1)
    }
}

rule::impl_rule!(RuleJudge, "rule", validate);

/// True when the answer, or what stands behind its mark, is the reference and nothing else.
fn repeats(response: &str, reference: &str) -> bool {
    let exact = ExactMatch::new(Normalisation::Folded);
    let is_same = |text: &str| exact.verdict(&Sample::new("", reference, text)) == Verdict::Correct;
    is_same(response) || behind_mark(response).is_some_and(is_same)
}

/// The answer from its marked conclusion on, whatever sentences follow.
fn behind_mark(response: &str) -> Option<&str> {
    let stated = conclusion(response);
    let start = stated.text.as_ptr() as usize - response.as_ptr() as usize;
    stated.is_marked.then(|| &response[start..])
}

/// How many tokens beside the reference are looked at: a clause has fewer, and a text that repeats the reference takes no
/// more time than another of its length.
const MAX_NEIGHBOURS: usize = 64;

/// True when the answer states the reference: see [`RuleJudge`].
fn says(response: &str, reference: &str, run: &[Token]) -> bool {
    let has_sentence_end = sentence_end(reference.trim()) < reference.trim().trim_end_matches(['.', '!', '?']).len();
    // A conclusion ends with its sentence, so it cannot hold a reference of two.
    let stated = match has_sentence_end {
        true => behind_mark(response).unwrap_or(response),
        false => conclusion(response).text,
    };
    let stated = tokens(stated);
    let bare = |tokens: &[Token]| -> Vec<Token> {
        tokens.iter().filter(|token| token.is_content() && !token.is_article()).cloned().collect()
    };
    if bare(&stated) == bare(run) {
        return true;
    }
    let is_sentence = stated.iter().any(is_function_word);
    let near = |at: usize| stated[..at].iter().rev().take(MAX_NEIGHBOURS);
    let denied = |at: usize| near(at).find(|token| !token.is_article()).is_some_and(Token::is_negation);
    let mut affirmed = runs(&stated, run).into_iter().filter(|&(at, _)| !denied(at)).peekable();
    is_sentence && affirmed.peek().is_some() && !affirmed.any(|(at, end)| has_alternative(&stated, at, end))
}

/// True when another item is joined to the tokens `at..end`: `a cat or a dog`, `cat, dog`. A clause behind a comma
/// (`Paris, which I know`) and a denied item (`Paris, not Rome`) are none.
fn has_alternative(stated: &[Token], at: usize, end: usize) -> bool {
    let after: Vec<&Token> = stated[end..].iter().take(MAX_NEIGHBOURS).filter(|token| !token.is_article()).collect();
    let before = stated[..at].iter().rev().take(MAX_NEIGHBOURS).filter(|token| !token.is_article());
    let before: Vec<&Token> = before.collect();
    is_joined(&after) || is_joined(&before)
}

/// Whether a way out of the reference, in either direction, starts with a join and an item.
fn is_joined(way: &[&Token]) -> bool {
    let is_word_join = |token: &Token| token.word().is_some_and(|word| matches!(word, "or" | "and"));
    let joins = way.iter().take_while(|token| matches!(token, Token::Join) || is_word_join(token)).count();
    if joins == 0 {
        return false;
    }
    let item: Vec<&&Token> = way[joins..].iter().take_while(|t| t.is_content() && !is_word_join(t)).collect();
    let has_word_join = way[..joins].iter().any(|token| is_word_join(token));
    // `a dog or a cat`: words right beside `or` are an item. Behind a comma alone, a clause is told by its small words.
    let is_item = item.first().is_some_and(|first| !is_function_word(first));
    is_item && (has_word_join || !item.iter().any(|token| is_function_word(token)))
}

/// Words that make a sentence rather than name a thing.
fn is_function_word(token: &Token) -> bool {
    const WORDS: &str = " is are was were be it its this that these those there here i you he she we they would will can \
        could may must should might has have had do does did say says see sees think believe answer shows show called \
        of in on at to by for from with as so not no never but than because since if when while which who what where \
        isnt arent wasnt im id my me your his her their our looks seems appears located stands 答案 ";
    let is_listed = |word: &str| WORDS.split_whitespace().any(|listed| listed == word);
    token.word().is_some_and(is_listed)
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
            ("Which mark?", "!", "!", true),
            ("Which mark?", "!", "?", false),
            ("Which mark?", "...", "\u{201c}", false),
            ("Where?", "12 cm", "It is 12 cm long", true),
            ("Where?", "12 cm", "It is 12 m long", false),
            ("Where?", "北京", "答案 北京", true),
        ];
        for (question, reference, response, is_correct) in cases {
            let expected = Verdict::of(is_correct);
            assert_eq!(verdict(question, reference, response), expected, "{question:?} {reference:?} {response:?}");
        }
    }

    fn check(cases: &[(&str, &str, bool)]) {
        for (reference, response, is_correct) in cases {
            let expected = Verdict::of(*is_correct);
            assert_eq!(verdict("What is it?", reference, response), expected, "{reference:?} {response:?}");
        }
    }

    #[test]
    fn numbers_with_units_are_compared_whole() {
        check(&[
            ("5 kg", "It is 3.5 kg.", false),
            ("5 kg", "It is 5 kg.", true),
            ("3.5 kg", "3.5kg", true),
            ("-5 °C", "It is 5 °C.", false),
            ("-5 °C", "It is -5 °C.", true),
            ("5 °C", "It is −5 °C.", false),
            ("12 cm", "12cm", true),
            ("12 cm", "It is 112 cm.", false),
            ("1,200 m", "The height is 1200 m", true),
        ]);
    }

    #[test]
    fn a_reference_with_a_sentence_end_is_found() {
        check(&[
            ("Mt. Everest", "Mt. Everest", true),
            ("Mt. Everest", "It is Mt. Everest.", true),
            ("Mt. Everest", "It is not Mt. Everest.", false),
            ("Mt. Everest", "It is Mt. Blanc.", false),
            ("St. Louis", "The answer is St. Louis.", true),
            ("St. Louis", "The answer is St. Paul.", false),
            ("The answer is St. Louis.", "The answer is St. Louis.", true),
            ("Dr. No", "I say: Dr. No!", true),
        ]);
    }

    #[test]
    fn a_list_of_candidates_is_no_answer() {
        check(&[
            ("left", "left right", false),
            ("right", "left right", false),
            ("left", "left", true),
            ("left", "The answer is left right", false),
            ("left", "left or right", false),
            ("left", "left, right", false),
            ("left", "It is on the left.", true),
            ("cat", "It is a cat or a dog", false),
            ("dog", "It is a cat or a dog", false),
            ("cat", "It is a cat, dog", false),
            ("cat", "It is a cat/dog", false),
            ("dog", "It is a cat and a dog", false),
            ("cat", "It is a cat, as it meows.", true),
            ("cat", "A cat.", true),
            ("cat", "It is a cat but not a dog", true),
            ("black and white", "It is black and white.", true),
            ("yes", "The answer is yes no", false),
            ("no", "The answer is yes no", false),
        ]);
    }

    #[test]
    fn polarity_is_stated_one_way() {
        check(&[
            ("true", "That is not true.", false),
            ("false", "That is not true.", true),
            ("true", "It isn't false.", true),
            ("yes", "Yes and no.", false),
            ("yes", "Yes, there is no dog.", true),
            ("yes", "Yes. On the other hand, no.", false),
            ("no", "No, that is false.", true),
            ("yes", "I do not know", false),
            ("true", "The statement is true.", true),
            ("yes", "not yes", false),
        ]);
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
            prop_assume!(words(&reference).iter().all(|word| polarity::of(word).is_none()));
            let response = format!("Some {filler} first. The answer is {reference}.");
            prop_assert_eq!(verdict("What?", &reference, &response), Verdict::Correct);
        }
    }
}
