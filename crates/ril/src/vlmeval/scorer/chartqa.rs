//! ChartQA. Source: `relaxed_correctness` and `process_line(method='relaxed_accuracy')` of
//! `vlmeval/dataset/utils/vqa_eval.py`, commit e8e78f05; the measure is that of arXiv 2203.10244, section 5.1.

use super::{Decided, Grade};
use crate::vlmeval::error::VlmEvalError;
use crate::vlmeval::python::{self, strip};
use crate::vlmeval::table::Row;

/// Share of the truth by which a number may differ.
const TOLERANCE: f64 = 0.05;

/// Whether an answer is the truth: numbers within 5% of it (a percentage is read as its fraction), other texts in any
/// case. A truth of 0 is compared as text.
#[must_use]
pub fn relaxed_correctness(truth: &str, answer: &str) -> bool {
    match (number(answer), number(truth)) {
        (Some(answer), Some(truth)) if truth != 0.0 => ((answer - truth).abs() / truth.abs()) <= TOLERANCE,
        _ => answer.to_lowercase() == truth.to_lowercase(),
    }
}

fn number(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(percent) => Some(python::float(percent.trim_end_matches('%'))? / 100.0),
        None => python::float(text),
    }
}

/// Right when one of the answers of the row (a list, or one) is met.
pub(super) fn grade(row: &Row<'_>, answer: &str) -> Result<Grade, VlmEvalError> {
    let truth = row.need("answer")?;
    let truths = python::list(&truth).unwrap_or_else(|| vec![truth.to_string()]);
    if truths.is_empty() {
        return Err(row.error("answer", "is a list without an answer"));
    }
    let answer = strip(answer);
    let is_right = truths.iter().any(|truth| relaxed_correctness(truth, answer));
    Ok(Grade::of(is_right, answer, Decided::Match))
}
