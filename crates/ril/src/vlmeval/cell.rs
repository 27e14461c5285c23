//! Cells as pandas types them: VLMEvalKit prints what `pandas.read_csv` made of a column, and a column of whole numbers
//! with a gap prints `3.0`.

use std::sync::Arc;

use super::python::{float_text, is_space};

/// Spellings that `pandas.read_csv` takes for a missing value.
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// One value of a benchmark table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Empty, or one of the spellings of "not available".
    Missing,
    /// Text, shared by the rows that show it.
    Text(Arc<str>),
    /// A whole number.
    Int(i64),
    /// A number of a column of numbers that are not all whole or not all there.
    Float(f64),
    /// `True` or `False`.
    Bool(bool),
}

impl Cell {
    /// As Python prints it; `None` when missing.
    #[must_use]
    pub fn text(&self) -> Option<Arc<str>> {
        match self {
            Self::Missing => None,
            Self::Text(text) => Some(text.clone()),
            Self::Int(value) => Some(value.to_string().into()),
            Self::Float(value) => Some(float_text(*value).into()),
            Self::Bool(value) => Some(if *value { "True" } else { "False" }.into()),
        }
    }
}

/// Types a column: whole numbers, else numbers, else truth values, else texts; missing values make numbers floats.
pub(super) fn typed(texts: Vec<String>) -> Vec<Cell> {
    let present = || texts.iter().filter(|text| !is_missing(text));
    let has_gap = texts.iter().any(|text| is_missing(text));
    let any = present().next().is_some();
    let each = |cell: &dyn Fn(&str) -> Cell| -> Vec<Cell> {
        texts.iter().map(|text| if is_missing(text) { Cell::Missing } else { cell(text) }).collect()
    };
    if any && !has_gap && present().all(|text| whole(text).is_some()) {
        each(&|text| Cell::Int(whole(text).unwrap_or_default()))
    } else if any && present().all(|text| number(text).is_some()) {
        each(&|text| Cell::Float(number(text).unwrap_or_default()))
    } else if any && present().all(|text| truth(text).is_some()) {
        each(&|text| Cell::Bool(truth(text).unwrap_or_default()))
    } else {
        texts.into_iter().map(|text| if is_missing(&text) { Cell::Missing } else { Cell::Text(text.into()) }).collect()
    }
}

fn is_missing(text: &str) -> bool {
    MISSING.contains(&text)
}

fn whole(text: &str) -> Option<i64> {
    let text = trimmed(text);
    text.strip_prefix('+').unwrap_or(text).parse().ok().filter(|_| !text.starts_with("+-"))
}

/// What pandas' own reader of floats takes: no underscores, no digits of other scripts.
fn number(text: &str) -> Option<f64> {
    let text = trimmed(text);
    let value: f64 = text.parse().ok()?;
    let is_word = text.bytes().any(|b| b.is_ascii_alphabetic() && !b.eq_ignore_ascii_case(&b'e'));
    (!is_word || value.is_infinite()).then_some(value)
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii() && is_space(c))
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "True" | "TRUE" | "true" => Some(true),
        "False" | "FALSE" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(column: &[&str]) -> Vec<String> {
        let cells = typed(column.iter().map(|text| (*text).to_string()).collect());
        cells.iter().map(|cell| cell.text().map_or("-".to_string(), |text| text.to_string())).collect()
    }

    #[test]
    fn a_gap_turns_whole_numbers_into_floats() {
        assert_eq!(texts(&["3", "007", "-4"]), ["3", "7", "-4"]);
        assert_eq!(texts(&["3", "", "12"]), ["3.0", "-", "12.0"]);
    }

    #[test]
    fn one_word_keeps_a_column_as_it_is_written() {
        assert_eq!(texts(&["3.50", "two", "None"]), ["3.50", "two", "-"]);
        assert_eq!(texts(&["1_000", "2"]), ["1_000", "2"]);
        assert_eq!(texts(&["true", "False"]), ["True", "False"]);
    }

    #[test]
    fn a_column_of_nothing_is_missing() {
        assert_eq!(texts(&["", "NA"]), ["-", "-"]);
    }
}
