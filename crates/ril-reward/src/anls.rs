use serde::{Deserialize, Serialize};

use crate::references::references;
use crate::{AnswerPart, RewardError, Sample, rule};

/// Normalised Levenshtein similarity to the nearest reference: `s = 1 - min_r distance / length`, 0 below a threshold; its
/// mean over a data set is ANLS.
///
/// Distance in characters, after small letters and single spaces; `length` is that of the longer of the two texts **as
/// written**. A score in `[0, 1]`, 1 for the same text. Several references are a JSON list of strings
/// (`["1/8/93", "January 8, 1993"]`); anything else is one reference.
///
/// Source: ST-VQA, arXiv 1907.00490, Eq. 1, as the evaluation of DocVQA (arXiv 2007.00398) computes it. The two differ at
/// exactly the threshold: the equation gives 0 there, the evaluation, and this reward, `s`.
///
/// * No reference but white space: not scored.
///
/// ```
/// use ril_reward::{Anls, Reward, Sample};
///
/// let score = |reference, response| Anls::default().score(&[Sample::new("Who signed?", reference, response)]);
/// assert_eq!(score("ITC Limited", "itc  limited")?, [Some(1.0)]);
/// assert_eq!(score("ITC Limited", "The answer is ITC Limitid.")?, [Some(10.0 / 11.0)]);
/// assert_eq!(score("[\"ITC Limited\", \"ITC\"]", "ITC")?, [Some(1.0)]);
/// assert_eq!(score("ITC Limited", "Philip Morris")?, [Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anls {
    /// Similarity below which the score is 0, in `[0, 1]`; default 0.5, that of both papers.
    pub threshold: f64,
    /// Default [`AnswerPart::Marked`]; the benchmarks compare the whole answer.
    pub part: AnswerPart,
}

impl Default for Anls {
    fn default() -> Self {
        Self { threshold: 0.5, part: AnswerPart::default() }
    }
}

impl Anls {
    /// Checks the threshold, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless it is in `[0, 1]`.
    pub fn validate(&self) -> Result<(), RewardError> {
        if (0.0..=1.0).contains(&self.threshold) {
            return Ok(());
        }
        Err(RewardError::Config(format!("threshold: expected a number in [0, 1], got {}", self.threshold)))
    }

    /// The score of one sample.
    pub fn score_of(&self, sample: &Sample<'_>) -> Option<f32> {
        let response = self.part.of(sample.response);
        let similarities = references(sample).into_iter().map(|reference| self.similarity(&reference, response));
        let best = similarities.reduce(f64::max)?;
        Some(if best < self.threshold { 0.0 } else { best as f32 })
    }

    /// `1 - distance / length`, or any number below the threshold where that is known to lie there.
    fn similarity(&self, reference: &str, response: &str) -> f64 {
        let length = upper_length(reference).max(upper_length(response)) as f64;
        let (reference, response) = (folded(reference), folded(response));
        // The distance is at least the difference in length: a long answer is settled without a table.
        let at_least = reference.len().abs_diff(response.len()) as f64;
        if 1.0 - at_least / length < self.threshold {
            return 0.0;
        }
        1.0 - distance(&reference, &response) as f64 / length
    }
}

rule::impl_score!(Anls, "anls", validate);

/// Characters in capital letters, where some are two: what the evaluations count.
fn upper_length(text: &str) -> usize {
    text.chars().flat_map(char::to_uppercase).count()
}

fn folded(text: &str) -> Vec<char> {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ").chars().collect()
}

/// Levenshtein's distance: insertions, deletions and substitutions, one each.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Reward;

    fn between(a: &str, b: &str) -> usize {
        distance(&folded(a), &folded(b))
    }

    fn score(reference: &str, response: &str) -> Option<f32> {
        Anls { part: AnswerPart::Whole, ..Anls::default() }.score_of(&Sample::new("?", reference, response))
    }

    #[test]
    fn distances_of_the_textbooks() {
        for (a, b, expected) in
            [("kitten", "sitting", 3), ("saturday", "sunday", 3), ("", "abc", 3), ("flaw", "lawn", 2)]
        {
            assert_eq!((between(a, b), between(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn a_threshold_is_kept_and_what_lies_below_is_nothing() {
        assert_eq!(score("abcd", "abxy"), Some(0.5));
        assert_eq!(score("abcd", "axyz"), Some(0.0));
        assert_eq!(score("abcd", ""), Some(0.0));
        assert_eq!(score(" ", "x"), None);
        let any = Anls { threshold: 0.0, part: AnswerPart::Whole };
        assert_eq!(any.score_of(&Sample::new("?", "abcd", "axyz")), Some(0.25));
        for threshold in [-0.1, 1.1, f64::NAN] {
            let broken = Anls { threshold, ..Anls::default() };
            assert!(matches!(broken.score(&[]), Err(RewardError::Config(_))), "{threshold}");
        }
    }

    #[test]
    fn a_long_answer_takes_no_time() {
        assert_eq!(score("Paris", &"Paris ".repeat(1_000_000)), Some(0.0));
    }

    proptest! {
        #[test]
        fn scores_are_bounded_and_a_text_is_itself(a in any::<String>(), b in any::<String>()) {
            let threshold_free = Anls { threshold: 0.0, part: AnswerPart::Whole };
            let of = |a: &str, b: &str| threshold_free.similarity(a, b);
            prop_assert!((0.0..=1.0).contains(&of(&a, &b)) || a.is_empty() && b.is_empty());
            prop_assert_eq!(of(&a, &b).to_bits(), of(&b, &a).to_bits());
            prop_assert!(a.is_empty() || of(&a, &a) == 1.0);
            prop_assert!(score(&a, &b).is_none_or(|score| score == 0.0 || (0.5..=1.0).contains(&score)));
        }

        #[test]
        fn distances_are_a_metric(a in "[ab]{0,6}", b in "[ab]{0,6}", c in "[ab]{0,6}") {
            prop_assert!(between(&a, &c) <= between(&a, &b) + between(&b, &c));
            prop_assert_eq!(between(&a, &b) == 0, a == b);
        }
    }
}
