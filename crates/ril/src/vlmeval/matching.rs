//! Which option an answer names, without asking anybody.
//!
//! Source: `can_infer` of `vlmeval/utils/matching_util.py` at commit e8e78f05, whose every corner counts: "a" in "answer
//! is a dog" names option A there, so it does here.

use std::sync::Arc;

use super::python::{is_space, split};

/// The letter that stands for "none of the options".
pub(super) const NONE: char = 'Z';
/// What VLMEvalKit's clients answer when a server failed.
pub(super) const FAILED: &str = "Failed to obtain answer via API";

const REFUSALS: [&str; 4] = [
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
];
/// Read as spaces when letters are looked for.
const PUNCTUATION: &str = ".()[],:;!*#{}";
/// A letter before the last words is part of an explanation.
const LAST_WORDS: usize = 4;

/// Options by letter.
pub(super) type Choices = [(char, Arc<str>)];

/// The option that `answer` names: by its letter, else by its text; `Z` for a refusal, `None` when it names none or
/// several.
#[must_use]
pub fn infer_choice(answer: &str, choices: &Choices) -> Option<char> {
    by_letter(answer, choices).or_else(|| by_text(answer, choices))
}

/// `can_infer_option`.
fn by_letter(answer: &str, choices: &Choices) -> Option<char> {
    if answer.contains(FAILED) {
        return None;
    }
    if REFUSALS.iter().any(|refusal| answer.contains(refusal)) {
        return Some(NONE);
    }
    let spaced = answer.replace(|c| PUNCTUATION.contains(c), " ");
    let words: Vec<&str> = split(&spaced).collect();
    let place = |letter: char| words.iter().position(|word| is_letter(word, letter));
    let named: Vec<(char, usize)> = choices.iter().filter_map(|(c, _)| Some((*c, place(*c)?))).collect();
    match named[..] {
        [(letter, at)] if at + LAST_WORDS >= words.len() => return Some(letter),
        [] if place(NONE).is_some() => return Some(NONE),
        _ => {}
    }
    stated(answer).filter(|letter| choices.iter().any(|(c, _)| c == letter))
}

fn is_letter(word: &str, letter: char) -> bool {
    let mut chars = word.chars();
    chars.next() == Some(letter) && chars.next().is_none()
}

/// The letter behind the first "answer is" that one of A to D follows, asterisks between, in any case.
fn stated(answer: &str) -> Option<char> {
    let chars: Vec<char> = answer.chars().collect();
    (0..chars.len()).find_map(|start| stated_at(&chars[start..]))
}

/// `(?i)answer\s+is\s+\**([ABCD])` at the start of `chars`; what may stand before it changes no match.
fn stated_at(chars: &[char]) -> Option<char> {
    let rest = chars.get(after_word(chars, "answer")?..)?;
    let rest = &rest[spaces(rest)?..];
    let rest = &rest[after_word(rest, "is")?..];
    let rest = &rest[spaces(rest)?..];
    let stars = rest.iter().take_while(|c| **c == '*').count();
    let letter = rest.get(stars)?.to_ascii_uppercase();
    ('A'..='D').contains(&letter).then_some(letter)
}

/// Length of `word` when `chars` begin with it in any case, as `re.IGNORECASE` compares.
fn after_word(chars: &[char], word: &str) -> Option<usize> {
    let same = |(c, wanted): (&char, char)| match wanted {
        's' if *c == 'ſ' => true,
        'i' if matches!(c, 'ı' | 'İ') => true,
        _ => c.eq_ignore_ascii_case(&wanted),
    };
    (chars.len() >= word.len() && chars.iter().zip(word.chars()).all(same)).then_some(word.len())
}

/// Length of the white space at the start, at least one character.
fn spaces(chars: &[char]) -> Option<usize> {
    Some(chars.iter().take_while(|c| is_space(**c)).count()).filter(|count| *count > 0)
}

/// `can_infer_text`: the one option whose text stands in the answer.
fn by_text(answer: &str, choices: &Choices) -> Option<char> {
    let answer = answer.to_lowercase();
    let longest = 2 * choices.iter().map(|(_, text)| text.chars().count()).sum::<usize>();
    if answer.chars().count() > longest {
        return None;
    }
    let mut named = choices.iter().filter(|(_, text)| answer.contains(&text.to_lowercase())).map(|(c, _)| *c);
    named.next().filter(|_| named.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn animals() -> Vec<(char, Arc<str>)> {
        [('A', "teddy bear"), ('B', "rabbit"), ('C', "cat"), ('D', "dog")].map(|(c, text)| (c, text.into())).to_vec()
    }

    /// The rest is in the fixture of VLMEvalKit's own results.
    #[test]
    fn letters_come_before_texts_and_doubts_are_none() {
        for (answer, expected) in [
            ("B", Some('B')),
            ("(C) rabbit", Some('C')),
            ("I see a Rabbit.", Some('B')),
            ("A or B", None),
            ("a cat and a dog", None),
            ("The answer is a dog", Some('A')),
            ("Z", Some('Z')),
            ("Cannot determine the answer", Some('Z')),
            ("Failed to obtain answer via API. B", None),
            ("", None),
        ] {
            assert_eq!(infer_choice(answer, &animals()), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_letter_far_from_the_end_is_part_of_an_explanation() {
        assert_eq!(infer_choice("B is right I am sure", &animals()), None);
        assert_eq!(infer_choice("B, I am sure", &animals()), Some('B'));
    }
}
