use serde::{Deserialize, Serialize};

use crate::references::references;
use crate::{AnswerPart, RewardError, Sample, Verdict, rule};

/// Right when the answer is a number within 5% of the reference, or else the same text in any letter case.
///
/// `|a - b| <= share * |a|` with reference `a` where **both texts are numbers as a whole**, as Python's `float` reads them
/// (no thousands, no units, `1e3`, `1_000`, `inf`), or such a number and a percent sign, which is a hundredth of it: `5%` is
/// `0.05` and not 5. A reference of 0 has no relative width and is compared as text. Several references are a JSON list of
/// strings, of which one must agree.
///
/// Source: the relaxed accuracy of ChartQA, arXiv 2203.10244, section 5.1, after PlotQA (arXiv 1909.00997), as Pix2Struct and
/// VLMEvalKit compute it. [`NumericMatch::relaxed`](crate::NumericMatch::relaxed) is the lenient one: it finds the number
/// in a sentence, with thousands and units.
///
/// * No reference but white space: [`Verdict::Unparsed`].
///
/// ```
/// use ril_reward::{RelaxedAccuracy, Reward, Sample};
///
/// let score = |reference, response| RelaxedAccuracy::default().score(&[Sample::new("?", reference, response)]);
/// assert_eq!(score("14", "The answer is 14.7.")?, [Some(1.0)]);
/// assert_eq!(score("14", "14.71")?, [Some(0.0)]);
/// assert_eq!(score("5%", "0.05")?, [Some(1.0)]);
/// assert_eq!(score("Yes", "yes")?, [Some(1.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelaxedAccuracy {
    /// Largest relative deviation, inclusive, at least 0; default 0.05.
    pub share: f64,
    /// Default [`AnswerPart::Marked`]; the benchmark compares the whole answer.
    pub part: AnswerPart,
}

impl Default for RelaxedAccuracy {
    fn default() -> Self {
        Self { share: 0.05, part: AnswerPart::default() }
    }
}

impl RelaxedAccuracy {
    /// Checks the share, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless it is finite and not negative.
    pub fn validate(&self) -> Result<(), RewardError> {
        crate::Tolerance::Relative(self.share).validate()
    }

    /// The verdict on one sample; a white-space answer is never right.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        let references = references(sample);
        if references.is_empty() {
            return Verdict::Unparsed("reference is empty".into());
        }
        let response = self.part.of(sample.response);
        Verdict::of(!response.is_empty() && references.iter().any(|reference| self.agrees(reference, response)))
    }

    fn agrees(&self, reference: &str, response: &str) -> bool {
        match (quantity(reference), quantity(response)) {
            (Some(a), Some(b)) if a != 0.0 => (b - a).abs() / a.abs() <= self.share,
            _ => reference.to_lowercase() == response.to_lowercase(),
        }
    }
}

rule::impl_rule!(RelaxedAccuracy, "relaxed", validate);

/// The value of a text that is a number, a hundredth of it before percent signs.
fn quantity(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(_) => Some(float(text.trim_end_matches('%'))? / 100.0),
        None => float(text),
    }
}

/// A number as Python's `float` reads it.
fn float(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let mut underscores = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_');
    let is_parted =
        underscores.all(|(at, _)| is_digit(at.checked_sub(1).map(|at| &bytes[at])) && is_digit(bytes.get(at + 1)));
    if is_parted { text.replace('_', "").parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_as_python_reads_them() {
        let cases = [
            ("14", Some(14.0)),
            (" 1.5e3\n", Some(1500.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1_000", Some(1000.0)),
            ("1__0", None),
            ("_1", None),
            ("1_", None),
            ("1,000", None),
            ("14 m", None),
            ("", None),
            ("5%", Some(0.05)),
            ("5 %", Some(0.05)),
            ("%", None),
        ];
        for (text, expected) in cases {
            assert_eq!(quantity(text), expected, "{text:?}");
        }
    }

    #[test]
    fn one_of_several_references_must_agree() {
        let verdict = |reference| RelaxedAccuracy::default().verdict(&Sample::new("?", reference, "14.2"));
        assert_eq!(verdict("[\"12\", \"14\"]"), Verdict::Correct);
        assert_eq!(verdict("[\"12\", \"13\"]"), Verdict::Incorrect);
        assert_eq!(verdict("[]"), Verdict::Unparsed("reference is empty".into()));
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(reference in any::<String>(), response in any::<String>()) {
            let _ = RelaxedAccuracy::default().verdict(&Sample::new("?", &reference, &response));
        }

        #[test]
        fn five_percent_is_the_border(value in 1.0_f64..1e6, share in -0.2_f64..0.2) {
            prop_assume!((share.abs() - 0.05).abs() > 1e-9);
            let (reference, response) = (format!("{value}"), format!("{}", value * (1.0 + share)));
            let verdict = RelaxedAccuracy::default().verdict(&Sample::new("?", &reference, &response));
            prop_assert_eq!(verdict, Verdict::of(share.abs() < 0.05));
        }
    }
}
