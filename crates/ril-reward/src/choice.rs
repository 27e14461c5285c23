use serde::{Deserialize, Serialize};

use crate::exact::Normalisation;
use crate::letters::{Letter, first_stated, is_joined, letters};
use crate::tokens::is_negation;
use crate::words::{positions_of_run, words};
use crate::{RewardError, Sample, Verdict, conclusion, rule};

/// Right when the answer picks the same option of a multiple-choice question as the reference.
///
/// The options are read from the question (`A. cat`, `(A) cat`, `A) cat`, `A: cat`, in lines or in a row, from `A`
/// on). Reference and answer may be a letter (`B`, `(b)`, `**B**`, `B. dog`, `Option B`) or the text of an option.
/// In an answer, the first of these decides:
///
/// 1. the whole answer is one letter;
/// 2. the **first** letter of its marked [`conclusion`], or the one option that the conclusion names;
/// 3. the **last** letter written as a label (`(B)`, `[B]`, `**B**`, `B.`, `option B`, `the correct option is B`,
///    `B is correct`, or at the very end);
/// 4. the one option that its last sentence names, or the only lone capital letter, `A` and `I` excepted: they are
///    words. When the two disagree, neither.
///
/// Letters and options right behind a negation, and letters that are called wrong (`C and D are wrong`), do not count.
/// A letter that is joined to another by `or`, `and`, a comma or a slash picks nothing.
///
/// * Reference that is neither a letter nor an option: [`Verdict::Unparsed`], because the rule does not apply.
/// * Answer that picks nothing: [`Verdict::Incorrect`].
///
/// ```
/// use ril_reward::{ChoiceMatch, Reward, Sample};
///
/// let question = "What is it?\nA. cat\nB. dog";
/// let score = |response| ChoiceMatch::default().score(&[Sample::new(question, "B", response)]);
/// for response in ["B", "(b)", "The answer is **B**.", "B. dog", "It is a dog."] {
///     assert_eq!(score(response)?, [Some(1.0)], "{response}");
/// }
/// assert_eq!(score("A cat")?, [Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoiceMatch {
    /// The last letter that can be an option, `B` to `Z`; default `J`, the ten options of MMMU-Pro.
    pub last_letter: char,
}

impl Default for ChoiceMatch {
    fn default() -> Self {
        Self { last_letter: 'J' }
    }
}

impl ChoiceMatch {
    /// Checks the last letter, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless it is one of `B` to `Z`.
    pub fn validate(&self) -> Result<(), RewardError> {
        if ('B'..='Z').contains(&self.last_letter) {
            return Ok(());
        }
        Err(RewardError::Config(format!("last_letter: expected B to Z, got {:?}", self.last_letter)))
    }

    /// The verdict on one sample.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        match self.reference_letter(sample) {
            Some(reference) => Verdict::of(self.picked_letter(sample) == Some(reference)),
            None => Verdict::Unparsed(format!("reference is no option: {:?}", sample.reference)),
        }
    }

    /// The letter that the reference stands for; `None` when this rule does not apply.
    pub(crate) fn reference_letter(&self, sample: &Sample<'_>) -> Option<char> {
        let options = self.options(sample.question);
        let text = Normalisation::Folded.apply(sample.reference);
        let same_text = |option: &&Choice<'_>| Normalisation::Folded.apply(option.text) == text;
        let by_text = options.iter().find(same_text).map(|option| option.letter);
        let by_label = || {
            let label = self.labels(sample.reference).into_iter().find(|label| label.start <= 1)?;
            options.iter().find(|option| option.letter == label.letter).map(|option| option.letter)
        };
        by_text.or_else(|| self.lone_letter(sample.reference)).or_else(by_label)
    }

    fn picked_letter(&self, sample: &Sample<'_>) -> Option<char> {
        let options = self.options(sample.question);
        let response = sample.response;
        if let Some(letter) = self.lone_letter(response) {
            return Some(letter);
        }
        let stated = conclusion(response);
        if stated.is_marked {
            if let Some(letter) = self.lone_letter(stated.text) {
                return Some(letter);
            }
            let letters = self.letters(stated.text);
            if !letters.is_empty() {
                return first_stated(&letters);
            }
            if let Some(letter) = named(&options, stated.text) {
                return Some(letter);
            }
        }
        let letters: Vec<Letter> = self.letters(response).into_iter().filter(|letter| !letter.is_denied).collect();
        if let Some(label) = letters.iter().rposition(|found| found.is_label) {
            return (!is_joined(&letters, label)).then_some(letters[label].letter);
        }
        // A letter and the words of another option: two readings, and so none.
        let mut different = letters.iter().map(|found| found.letter).collect::<Vec<_>>();
        different.dedup();
        match (different.as_slice(), named(&options, stated.text)) {
            ([], name) => name,
            ([letter], name) => name.is_none_or(|name| name == *letter).then_some(*letter),
            _ => None,
        }
    }

    /// The letter when the text is nothing but one, in any spelling.
    fn lone_letter(&self, text: &str) -> Option<char> {
        let is_decoration = |c: char| c.is_whitespace() || "()[]{}*_.:,;!'\"`$".contains(c);
        let lower = text.to_ascii_lowercase();
        let mut bare = lower.trim_matches(is_decoration);
        for prefix in ["option", "choice", "\\text", "\\mathrm"] {
            let rest = bare.strip_prefix(prefix).filter(|rest| rest.starts_with(is_decoration));
            bare = rest.map_or(bare, |rest| rest.trim_start_matches(is_decoration));
        }
        let mut letters = bare.chars();
        let letter = letters.next()?.to_ascii_uppercase();
        (letters.next().is_none() && self.is_option(letter)).then_some(letter)
    }

    fn is_option(&self, letter: char) -> bool {
        letter.is_ascii_uppercase() && letter <= self.last_letter
    }

    /// Lone letters of a text that can be meant as options, in order.
    fn letters(&self, text: &str) -> Vec<Letter> {
        letters(text, |c| self.is_option(c))
    }

    /// The options that a question lists: the longest run of labels A, B, C, ...; the last such run if several.
    fn options<'a>(&self, question: &'a str) -> Vec<Choice<'a>> {
        let labels = self.labels(question);
        let mut longest: Vec<Label> = Vec::new();
        // The first label of each letter behind the one at hand, and for each label the first of the next letter.
        let mut first_of = [None; 27];
        let mut next = vec![None; labels.len()];
        for (index, label) in labels.iter().enumerate().rev() {
            let rank = label.letter as usize - 'A' as usize;
            next[index] = first_of[rank + 1];
            first_of[rank] = Some(index);
            if rank == 0 {
                let run = std::iter::successors(Some(index), |&index| next[index]).map(|index| labels[index]);
                let run: Vec<Label> = run.collect();
                if run.len() > longest.len().max(1) {
                    longest = run;
                }
            }
        }
        let ends = longest.iter().skip(1).map(|label| label.start).chain([question.len()]);
        let choice = |(label, end): (&Label, usize)| {
            let text = question[label.text_start..end].lines().next().unwrap_or_default();
            Choice { letter: label.letter, text: text.trim().trim_end_matches([',', ';']) }
        };
        longest.iter().zip(ends).map(choice).collect()
    }

    /// Everything in a text that looks like the label of an option: `A.`, `A)`, `A:`, `(A)`, before white space.
    fn labels(&self, text: &str) -> Vec<Label> {
        let mut found = Vec::new();
        for (at, letter) in text.char_indices().filter(|(_, c)| self.is_option(*c)) {
            let is_bracketed = text[..at].ends_with('(');
            let start = at - usize::from(is_bracketed);
            let is_free = text[..start].chars().next_back().is_none_or(|c| c.is_whitespace() || ",;".contains(c));
            let closers: &[char] = if is_bracketed { &[')'] } else { &['.', ')', ':'] };
            let after = &text[at + 1..];
            let is_closed = after.starts_with(closers) && after[1..].starts_with(char::is_whitespace);
            if is_free && is_closed {
                found.push(Label { letter, start, text_start: at + 2 });
            }
        }
        found
    }
}

rule::impl_rule!(ChoiceMatch, "choice", validate);

#[derive(Clone, Copy)]
struct Label {
    letter: char,
    start: usize,
    text_start: usize,
}

struct Choice<'a> {
    letter: char,
    text: &'a str,
}

/// How many articles may stand between a negation and what it denies: a text of nothing else takes no time.
const MAX_ARTICLES: usize = 16;

/// The option that a text names when it names exactly one; a name inside a longer one (`cat` in `black cat`) does not
/// count where the longer one stands.
fn named(options: &[Choice<'_>], text: &str) -> Option<char> {
    let text = words(text);
    let names: Vec<_> = options.iter().map(|option| (option.letter, words(option.text))).collect();
    let stands_at = |name: &Vec<String>, at: usize| text[at..].starts_with(name);
    let is_inside_longer = |name: &Vec<String>, at: usize| {
        names.iter().filter(|(_, longer)| longer.len() > name.len()).any(|(_, longer)| {
            let offsets = positions_of_run(longer, name);
            offsets.filter_map(|offset| at.checked_sub(offset)).any(|start| stands_at(longer, start))
        })
    };
    let is_denied = |at: usize| {
        let mut near = text[..at].iter().rev().take(MAX_ARTICLES);
        let before = near.find(|word| !matches!(word.as_str(), "a" | "an" | "the"));
        before.is_some_and(|word| is_negation(word))
    };
    let is_named =
        |name: &Vec<String>| positions_of_run(&text, name).any(|at| !is_inside_longer(name, at) && !is_denied(at));
    let mut found = names.iter().filter(|(_, name)| is_named(name)).map(|(letter, _)| *letter);
    let letter = found.next()?;
    found.next().is_none().then_some(letter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Judge;

    const ANIMALS: &str = "What is it?\nA. cat\nB. dog\nC. black cat\nD. none of them";

    fn picked(question: &str, response: &str) -> Option<char> {
        ChoiceMatch::default().picked_letter(&Sample::new(question, "A", response))
    }

    #[test]
    fn the_spellings_of_a_letter() {
        for response in [
            "B",
            "b",
            " B ",
            "B.",
            "(B)",
            "(b)",
            "[B]",
            "**B**",
            "*B*",
            "`B`",
            "\"B\"",
            "$B$",
            "\\boxed{B}",
            "B)",
            "B:",
            "\\boxed{\\text{B}}",
            "Option B",
            "option (b)",
            "answer: B",
            "Answer: **B**",
            "**Answer:** B",
            "**Answer**: (B)",
            "The answer is B",
            "The answer is B.",
            "The answer is B because A is a cat",
            "the correct answer is (B).",
            "<answer>B</answer>",
            "<answer>b</answer>",
            "B. dog",
            "B dog",
            "**B.** dog",
            "(B) dog",
            "It barks, so B.",
            "It barks: option B it is",
            "I think it is B, as it barks",
            "Answer:\nB",
            "A is wrong. (B)",
        ] {
            assert_eq!(picked(ANIMALS, response), Some('B'), "{response:?}");
        }
    }

    #[test]
    fn denied_letters_and_reasons_do_not_decide() {
        let cases = [
            ("The correct option is B, since a cat does not bark.", Some('B')),
            ("B is correct. C and D are wrong.", Some('B')),
            ("The answer is not C but B.", Some('B')),
            ("The answer must be (B), not (A).", Some('B')),
            ("The answer to the question is B because a cat would meow", Some('B')),
            ("The answer is not B.", None),
            ("It is not (B).", None),
            ("The answer is B or C", None),
            ("The answer is (B)/(C).", None),
            ("It is B, C", None),
            ("(B) or (C)", None),
            ("I think C, it is a dog", None),
            ("B, C and D are wrong", None),
            ("It isn't B. It's C.", Some('C')),
            ("It is not a dog", None),
            ("It is not a cat but a dog", Some('B')),
        ];
        for (response, letter) in cases {
            assert_eq!(picked(ANIMALS, response), letter, "{response:?}");
        }
    }

    #[test]
    fn the_text_of_an_option_picks_it() {
        let cases = [
            ("dog", Some('B')),
            ("It is a dog.", Some('B')),
            ("The answer is a dog", Some('B')),
            ("a black cat", Some('C')),
            ("A cat", Some('A')),
            ("a cat, a black cat", None),
            ("a cat or a dog", None),
            ("Could be a cat. It is a dog.", Some('B')),
            ("None of them!", Some('D')),
            ("a horse", None),
            ("", None),
            ("I", Some('I')),
            ("I see A horse", None),
            ("A horse", None),
            ("DNA", None),
        ];
        for (response, letter) in cases {
            assert_eq!(picked(ANIMALS, response), letter, "{response:?}");
        }
    }

    #[test]
    fn options_are_read_from_the_question() {
        let questions = [
            "Which? (A) red (B) dark blue (C) green",
            "Which? A. red B. dark blue C. green",
            "Which? A) red, B) dark blue, C) green",
            "Plan A: what colour?\nA: red\nB: dark blue\nC: green\n",
            "A. red; B. dark blue; C. green",
        ];
        for question in questions {
            let options = ChoiceMatch::default().options(question);
            let texts: Vec<_> = options.iter().map(|option| (option.letter, option.text)).collect();
            assert_eq!(texts, [('A', "red"), ('B', "dark blue"), ('C', "green")], "{question:?}");
            assert_eq!(picked(question, "The colour is dark blue."), Some('B'));
        }
        assert!(ChoiceMatch::default().options("Vitamin A. What is it?").is_empty());
    }

    #[test]
    fn the_reference_may_be_letter_or_text() {
        let verdict = |reference| ChoiceMatch::default().verdict(&Sample::new(ANIMALS, reference, "(B)"));
        for reference in ["B", "b", "(B)", "B.", "B. dog", "dog", "Dog."] {
            assert_eq!(verdict(reference), Verdict::Correct, "{reference:?}");
        }
        for reference in ["A", "cat", "D. none of them"] {
            assert_eq!(verdict(reference), Verdict::Incorrect, "{reference:?}");
        }
        assert_eq!(verdict("horse"), Verdict::Unparsed("reference is no option: \"horse\"".into()));
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(question in ".{0,20}", parts in prop::collection::vec(prop_oneof![
            "[A-K(). :*é]{0,6}".prop_map(String::from), any::<String>(),
        ], 0..4)) {
            let text = parts.concat();
            for sample in [Sample::new(&question, "B", &text), Sample::new(&text, &text, &question)] {
                prop_assert_eq!(ChoiceMatch::default().judge(&[sample]).expect("rules do not fail").len(), 1);
            }
        }

        #[test]
        fn only_the_right_letter_is_correct(reference in 0_u8..10, response in 0_u8..10, form in 0_usize..4) {
            let letter = |index| char::from(b'A' + index);
            let picked = letter(response);
            let text = [format!("({picked})"), format!("**{picked}**"), format!("answer: {picked}"), format!("It is {picked}.")];
            let reference_text = letter(reference).to_string();
            let verdict = ChoiceMatch::default().verdict(&Sample::new("?", &reference_text, &text[form]));
            prop_assert_eq!(verdict, Verdict::of(reference == response));
        }
    }
}
