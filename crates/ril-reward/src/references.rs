//! Which texts of a sample are compared: several references in one, and the part of the answer that counts.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Sample, conclusion};

/// Which part of an answer is compared with the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AnswerPart {
    /// The marked [`conclusion`](crate::conclusion()), else all of it: for models that reason first.
    #[default]
    Marked,
    /// All of it, as benchmarks of short answers do.
    Whole,
}

impl AnswerPart {
    /// That part of an answer, trimmed.
    pub fn of(self, response: &str) -> &str {
        let stated = conclusion(response);
        match self {
            Self::Marked if stated.is_marked => stated.text,
            Self::Marked | Self::Whole => response.trim(),
        }
    }
}

/// The references of a sample: the strings of a JSON list of strings (`["1/8/93", "January 8, 1993"]`), else the one text.
/// Those of white space only are left out.
pub(crate) fn references<'a>(sample: &Sample<'a>) -> Vec<Cow<'a, str>> {
    let listed = || serde_json::from_str::<Vec<String>>(sample.reference).ok();
    let is_list = sample.reference.trim_start().starts_with('[');
    let all = match is_list.then(listed).flatten() {
        Some(texts) => texts.into_iter().map(Cow::Owned).collect(),
        None => vec![Cow::Borrowed(sample.reference)],
    };
    all.into_iter().filter(|text: &Cow<'_, str>| !text.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_strings_is_several_references() {
        let cases: [(&str, &[&str]); 7] = [
            ("Paris", &["Paris"]),
            (" Paris ", &[" Paris "]),
            ("[\"a\", \" \", \"b\"]", &["a", "b"]),
            (" [\"a\"] ", &["a"]),
            ("[1, 2]", &["[1, 2]"]),
            ("[a, b]", &["[a, b]"]),
            ("  ", &[]),
        ];
        for (reference, expected) in cases {
            assert_eq!(references(&Sample::new("?", reference, "")), expected, "{reference:?}");
        }
        assert!(references(&Sample::new("?", "[]", "")).is_empty());
    }

    #[test]
    fn the_marked_part_of_an_answer() {
        assert_eq!(AnswerPart::Marked.of("I see. The answer is 14."), "14");
        assert_eq!(AnswerPart::Marked.of(" Dr. A. Smith "), "Dr. A. Smith");
        assert_eq!(AnswerPart::Whole.of(" The answer is 14. "), "The answer is 14.");
    }
}
