//! The number that an answer ends on.

use crate::conclusion;
use crate::number::{Number, plain, scan};
use crate::tokens::is_negation;
use crate::units::Unit;
use crate::words::{number_in_words, words, words_before};

/// A number and the unit behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantity {
    pub number: Number,
    pub unit: Option<Unit>,
}

/// The final number of a text, as [`NumericMatch`](crate::NumericMatch) defines it.
pub(crate) fn final_number(text: &str) -> Option<Quantity> {
    let stated = conclusion(text);
    match Some(stated.text).filter(|_| stated.is_marked).map(last_number) {
        Some(Last::Number(number)) => Some(number),
        Some(Last::Denied) => None,
        Some(Last::Missing) | None => match last_number(text) {
            Last::Number(number) => Some(number),
            Last::Denied | Last::Missing => None,
        },
    }
}

enum Last {
    Number(Quantity),
    /// All numbers are denied, or two readings disagree.
    Denied,
    Missing,
}

fn last_number(text: &str) -> Last {
    let text = plain(text);
    let text = without_parentheses(&text).filter(|rest| has_number(rest)).unwrap_or(text);
    let text = without_aside(&text);
    let found = scan(text);
    let Some(last) = found.iter().rfind(|(_, span)| !is_denied(&text[..span.start])) else {
        return if found.is_empty() { in_words(text) } else { Last::Denied };
    };
    let (number, span) = last;
    // A number word further on is a unit (`3 million`) or another number.
    match number_in_words(&text[span.end..]) {
        Some(value) if value.to_bits() != number.value.to_bits() => Last::Denied,
        _ => Last::Number(Quantity { number: *number, unit: Unit::at_start(&text[span.end..]) }),
    }
}

fn in_words(text: &str) -> Last {
    let number = |value| Last::Number(Quantity { number: Number { value, is_percent: false }, unit: None });
    let all = words(text);
    match number_in_words(text) {
        // The words alone do not say which of them the number was; one denial makes all doubtful.
        Some(_) if all.iter().any(|word| is_negation(word)) => Last::Denied,
        Some(value) => number(value),
        None if all.iter().any(|word| word == "none") => number(0.0),
        None => Last::Missing,
    }
}

fn has_number(text: &str) -> bool {
    !scan(text).is_empty() || number_in_words(text).is_some()
}

/// True when the last word before a number denies it.
fn is_denied(before: &str) -> bool {
    let is_article = |word: &String| matches!(word.as_str(), "a" | "an" | "the");
    let mut words = words_before(before, &['.', ',', ';', ':', '!', '?', '\n', '=']);
    words.find(|word| !is_article(word)).is_some_and(|word| is_negation(&word))
}

/// `text` without what stands in parentheses; `None` when there are none, or they do not close.
fn without_parentheses(text: &str) -> Option<String> {
    let (mut depth, mut outside) = (0_usize, String::new());
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    (depth == 0 && outside.len() < text.len()).then_some(outside)
}

/// `text` up to the aside of its last sentence, where a number stands before it in the sentence.
fn without_aside(text: &str) -> &str {
    const OPENERS: [&str; 12] = [
        ", as ",
        ", see ",
        ", since ",
        ", because ",
        ", which ",
        ", where ",
        ", according ",
        ", from ",
        ", shown ",
        " because ",
        " since ",
        ", in row ",
    ];
    let trimmed = text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '.' | '!' | '?'));
    let is_sentence_end = |pair: &[u8]| matches!(pair[0], b'.' | b'!' | b'?' | b'\n') && pair[1].is_ascii_whitespace();
    let start = trimmed.as_bytes().windows(2).rposition(is_sentence_end).map_or(0, |at| at + 2);
    let lower = trimmed[start..].to_ascii_lowercase();
    let aside = OPENERS.iter().filter_map(|opener| lower.find(opener)).min().map(|at| start + at);
    aside.filter(|&at| has_number(&trimmed[start..at])).map_or(text, |at| &text[..at])
}
