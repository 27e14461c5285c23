//! Yes or no. Source: `YOrN_Extraction`, `YOrN_auxeval` and `default_rating` of `vlmeval/dataset/utils/yorn.py`,
//! `process_punctuation` of `vlmeval/smp/misc.py`, commit e8e78f05.

use super::match_prompts::yes_no_prompt;
use super::{Decided, Grade, Judged};
use crate::vlmeval::error::VlmEvalError;
use crate::vlmeval::python::{digit, split};
use crate::vlmeval::table::Row;

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YesNo {
    /// It says yes and not no.
    Yes,
    /// It says no and not yes.
    No,
    /// Both or neither.
    Unknown,
}

impl YesNo {
    /// As it stands in the column `answer`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Yes => "Yes",
            Self::No => "No",
            Self::Unknown => "Unknown",
        }
    }
}

/// Whether one of the words "yes" and "no" stands in an answer, in any case.
#[must_use]
pub fn extract_yes_no(answer: &str) -> YesNo {
    let plain = without_punctuation(&answer.to_lowercase());
    let has = |wanted| split(&plain).any(|word| word == wanted);
    match (has("yes"), has("no")) {
        (true, false) => YesNo::Yes,
        (false, true) => YesNo::No,
        _ => YesNo::Unknown,
    }
}

pub(super) fn question(row: &Row<'_>, answer: &str) -> Result<Option<String>, VlmEvalError> {
    match extract_yes_no(answer) {
        YesNo::Unknown => Ok(Some(yes_no_prompt(&row.need("question")?, answer))),
        YesNo::Yes | YesNo::No => Ok(None),
    }
}

pub(super) fn grade(row: &Row<'_>, answer: &str, judged: Judged<'_>) -> Result<Grade, VlmEvalError> {
    let truth = row.need("answer")?;
    // AMBER writes its answers in small letters, and is compared in any case.
    let right = |said: YesNo| truth.eq_ignore_ascii_case(said.text());
    let said = extract_yes_no(answer);
    if said != YesNo::Unknown {
        return Ok(Grade::of(right(said), said.text(), Decided::Match));
    }
    let replies = if let Judged::Replies(replies) = judged { replies } else { &[] };
    let said = replies.iter().map(|reply| extract_yes_no(reply)).find(|said| *said != YesNo::Unknown);
    Ok(said.map_or_else(
        || Grade::unread(YesNo::Unknown.text()),
        |said| Grade::of(right(said), said.text(), Decided::Judge),
    ))
}

const PUNCTUATION: [char; 21] =
    [';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!'];
/// Periods that go: `re.UNICODE` stands where `re.sub` expects a count, and is 32.
const PERIODS: usize = 32;

/// A mark beside a space is dropped everywhere, any other becomes a space; all are dropped in a text with a comma
/// between digits. Periods go unless a digit is beside them.
fn without_punctuation(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let is_digit = |c: Option<&char>| c.copied().and_then(digit).is_some();
    let has_thousands = chars.windows(3).any(|w| w[1] == ',' && is_digit(w.first()) && is_digit(w.last()));
    let beside_space = |mark| chars.windows(2).any(|w| w == [mark, ' '] || w == [' ', mark]);
    let dropped = PUNCTUATION.map(|mark| has_thousands || beside_space(mark));
    let mut plain = Vec::with_capacity(chars.len());
    for c in chars {
        match PUNCTUATION.iter().position(|mark| *mark == c) {
            Some(mark) if dropped[mark] => {}
            Some(_) => plain.push(' '),
            None => plain.push(c),
        }
    }
    let mut periods = 0;
    let mut kept = String::with_capacity(text.len());
    for (at, c) in plain.iter().enumerate() {
        let is_free = *c == '.'
            && !is_digit(at.checked_sub(1).and_then(|before| plain.get(before)))
            && !is_digit(plain.get(at + 1));
        if is_free && periods < PERIODS {
            periods += 1;
        } else {
            kept.push(*c);
        }
    }
    kept
}
