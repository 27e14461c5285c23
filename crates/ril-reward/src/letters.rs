//! Lone letters in an answer, and what the answer says of them.

use crate::tokens::is_negation;
use crate::words::{words_after, words_before};

/// A lone letter that can be meant as an option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    pub letter: char,
    /// It is written as a label, or called the answer.
    pub is_label: bool,
    /// It stands behind a negation, or is called wrong.
    pub is_denied: bool,
    /// The letter before it is only a comma, slash, `or` or `and` away.
    joins_the_one_before: bool,
}

/// Lone letters of a text that can be meant as options, in order.
pub(crate) fn letters(text: &str, is_option: impl Fn(char) -> bool) -> Vec<Letter> {
    let mut found: Vec<Letter> = Vec::new();
    let mut end = None;
    let last = text.trim_end().len();
    for (at, c) in text.char_indices().filter(|(_, c)| is_option(c.to_ascii_uppercase())) {
        let (before, after) = (&text[..at], &text[at + 1..]);
        let joins = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '-' | '_' | '\\');
        if before.ends_with(joins) || after.starts_with(joins) {
            continue;
        }
        let is_enclosed = before.ends_with(['(', '[', '{', '*']) && after.starts_with([')', ']', '}', '*', '.', ':']);
        let is_closed = after.starts_with(['.', ')', ':', ']']) || at + 1 >= last;
        let is_right = || says_of(after, &["correct", "right", "true", "answer", "best"]);
        let is_label = is_enclosed || (c.is_ascii_uppercase() && (is_closed || is_announced(before) || is_right()));
        let is_word = matches!(c, 'A' | 'I') && after.starts_with(char::is_whitespace) && !is_right();
        if !is_label && (!c.is_ascii_uppercase() || is_word) {
            continue;
        }
        let joins_the_one_before = end.is_some_and(|end| is_join(&text[end..at]));
        let is_denied = is_behind_negation(before) || says_of(after, &["wrong", "incorrect", "false", "not", "out"]);
        if is_denied && joins_the_one_before {
            // `C and D are wrong`: what is said of the last is said of all.
            let joined = found
                .iter()
                .rev()
                .scan(true, |goes_on, letter| std::mem::replace(goes_on, letter.joins_the_one_before).then_some(()));
            let first = found.len() - joined.count();
            found[first..].iter_mut().for_each(|letter| letter.is_denied = true);
        }
        let letter = c.to_ascii_uppercase();
        found.push(Letter { letter, is_label, is_denied, joins_the_one_before });
        end = Some(at + 1);
    }
    found
}

/// The first letter that is not denied; `None` when another is offered beside it.
pub(crate) fn first_stated(letters: &[Letter]) -> Option<char> {
    let kept: Vec<Letter> = letters.iter().filter(|letter| !letter.is_denied).copied().collect();
    let first = kept.first()?;
    (!is_joined(&kept, 0)).then_some(first.letter)
}

/// True when the letter before or behind `at` is joined to it, and is another one.
pub(crate) fn is_joined(letters: &[Letter], at: usize) -> bool {
    let differs = |other: usize| letters[other].letter != letters[at].letter;
    let before = at > 0 && letters[at].joins_the_one_before && differs(at - 1);
    before || letters.get(at + 1).is_some_and(|next| next.joins_the_one_before && differs(at + 1))
}

/// True for what stands between two items of a list.
fn is_join(between: &str) -> bool {
    let bare: String = between.chars().filter(|c| !c.is_whitespace() && !"()[]{}*.".contains(*c)).collect();
    matches!(bare.to_ascii_lowercase().as_str(), "," | "/" | "&" | "or" | "and" | ",or" | ",and" | "and/or")
}

/// `option B`, `answer: B`, `the correct option is B`, `the answer to the question is B`, `it must be B`.
fn is_announced(before: &str) -> bool {
    let is_name = |word: String| matches!(word.as_str(), "option" | "choice" | "answer");
    let mut words = words_before(before, &['.', ',', ';', '!', '?', '\n']);
    let Some(last) = words.next() else { return false };
    let is_verb = matches!(last.as_str(), "is" | "be");
    is_name(last) || (is_verb && words.any(is_name))
}

/// Whether `after` goes on with "is", "are" or their like and one of `verdicts`, items of a list left out.
fn says_of(after: &str, verdicts: &[&str]) -> bool {
    let words = words_after(after, &['!', '?', '\n', ',', ';']);
    let mut words = words.filter(|word| !matches!(word.as_str(), "the" | "a" | "an"));
    let is_verb = words.next().is_some_and(|word| matches!(word.as_str(), "is" | "are" | "must" | "should"));
    is_verb && words.find(|word| word != "be").is_some_and(|word| verdicts.contains(&word.as_str()))
}

fn is_behind_negation(before: &str) -> bool {
    let is_filler = |word: &String| matches!(word.as_str(), "option" | "choice" | "answer" | "the");
    let mut words = words_before(before, &['.', ',', ';', ':', '!', '?', '\n']);
    words.find(|word| !is_filler(word)).is_some_and(|word| is_negation(&word))
}
