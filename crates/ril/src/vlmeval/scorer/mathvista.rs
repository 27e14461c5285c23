//! MathVista. Source: `post_check`, `MathVista_auxeval` and `MathVista_acc` of `vlmeval/dataset/utils/mathvista.py`,
//! commit e8e78f05.
//!
//! An answer that is right as it stands is not sent to the judge, except 0 (a Python number that counts as false). Free
//! answers that are neither whole numbers nor numbers (texts, lists) are never right there, since `post_check` compares
//! the word `None` with the truth; so they are not here. Without a judge, which VLMEvalKit does not allow, the answer as it
//! stands is what is compared.

use super::match_prompts::mathvista_prompt;
use super::{Decided, Grade, Judged};
use crate::vlmeval::cell::Cell;
use crate::vlmeval::error::VlmEvalError;
use crate::vlmeval::matching::{FAILED, NONE, infer_choice};
use crate::vlmeval::python;
use crate::vlmeval::table::Row;

/// How a response compares with the truth of a row.
struct Check {
    is_right: bool,
    read_as: String,
    /// Whether `post_check(prefetch=True)` is true in Python's sense: nobody need be asked.
    is_settled: bool,
}

pub(super) fn question(row: &Row<'_>, answer: &str) -> Result<Option<String>, VlmEvalError> {
    let question = row.need("question")?;
    Ok((!check(row, answer)?.is_settled).then(|| mathvista_prompt(&question, answer)))
}

pub(super) fn grade(row: &Row<'_>, answer: &str, judged: Judged<'_>) -> Result<Grade, VlmEvalError> {
    let own = check(row, answer)?;
    let replies = match judged {
        Judged::Replies(replies) if !own.is_settled => replies,
        _ => {
            let unread = !own.is_settled && !own.is_right && own.read_as.is_empty();
            return Ok(if unread { Grade::unread("") } else { Grade::of(own.is_right, own.read_as, Decided::Match) });
        }
    };
    let Some(reply) = replies.iter().find(|reply| !reply.contains(FAILED)) else { return Ok(Grade::unread("")) };
    let extracted = check(row, reply)?;
    Ok(match extracted.read_as.is_empty() {
        true => Grade::unread(reply.as_str()),
        false => Grade::of(extracted.is_right, extracted.read_as, Decided::Judge),
    })
}

/// `task` and every skill of `skills`.
pub(super) fn groups(row: &Row<'_>) -> Vec<(&'static str, String)> {
    let skills = row.text("skills").map(|text| python::list(&text).unwrap_or_else(|| vec![text.to_string()]));
    let task = row.text("task").map(|task| ("task", task.to_string()));
    task.into_iter().chain(skills.unwrap_or_default().into_iter().map(|skill| ("skill", skill))).collect()
}

fn check(row: &Row<'_>, response: &str) -> Result<Check, VlmEvalError> {
    if &*row.need("question_type")? == "multi_choice" {
        return check_letter(row, response);
    }
    let truth = row.cell("answer");
    let (is_right, read_as) = match &*row.need("answer_type")? {
        "integer" => {
            let read = python::int(response);
            (read.is_some() && read == whole(truth), read)
        }
        "float" => {
            let read = python::float(response);
            (read.is_some() && read == real(truth), read.map(python::float_text))
        }
        _ => (false, None),
    };
    let read_as = read_as.unwrap_or_default();
    let is_zero = matches!(read_as.as_str(), "0" | "0.0" | "-0.0");
    Ok(Check { is_right, is_settled: is_right && !is_zero, read_as })
}

fn check_letter(row: &Row<'_>, response: &str) -> Result<Check, VlmEvalError> {
    let options = row.need("choices")?;
    let options = python::list(&options).ok_or_else(|| row.error("choices", "expected a list of options"))?;
    if options.len() > 26 {
        return Err(row.error("choices", &format!("expected at most 26 options, got {}", options.len())));
    }
    let choices: Vec<_> = ('A'..=NONE).zip(options.into_iter().map(Into::into)).collect();
    let letter = infer_choice(response, &choices);
    let truth = row.need("answer_option")?;
    let read_as = letter.map(String::from).unwrap_or_default();
    Ok(Check { is_right: *truth == *read_as, is_settled: letter.is_some(), read_as })
}

/// `int(answer)`.
fn whole(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Missing => None,
        Cell::Text(text) => python::int(text),
        Cell::Int(value) => Some(value.to_string()),
        Cell::Float(value) => value.is_finite().then(|| format!("{:.0}", value.trunc() + 0.0)),
        Cell::Bool(value) => Some(u8::from(*value).to_string()),
    }
}

/// `float(answer)`.
fn real(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Missing => None,
        Cell::Text(text) => python::float(text),
        Cell::Int(value) => Some(*value as f64),
        Cell::Float(value) => Some(*value),
        Cell::Bool(value) => Some(f64::from(u8::from(*value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlmeval::table::Table;

    /// Answer type, truth, answer; whether it is right and whether nobody need be asked.
    #[test]
    fn zero_is_asked_about_and_free_texts_are_never_right() {
        for (kind, truth, answer, expected) in [
            ("integer", "14", " 14 ", (true, true)),
            ("integer", "14", "14.0", (false, false)),
            ("integer", "0", "0", (true, false)),
            ("float", "1.2", "1.20", (true, true)),
            ("float", "0.0", "0", (true, false)),
            ("text", "red", "red", (false, false)),
        ] {
            let text = format!("index\tquestion_type\tanswer_type\tanswer\nx\tfree_form\t{kind}\t{truth}\n");
            let table = Table::from_bytes("t.tsv".as_ref(), text.as_bytes()).unwrap();
            let check = check(&table.row(0).unwrap(), answer).unwrap();
            assert_eq!((check.is_right, check.is_settled), expected, "{kind} {truth} {answer}");
        }
    }
}
