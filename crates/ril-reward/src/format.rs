use regex::Regex;

use crate::{RewardError, Sample, rule};

/// How much of an answer a pattern must match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternScope {
    /// All of it, from the first character to the last, white space around it left out.
    #[default]
    Whole,
    /// Any stretch of it.
    Anywhere,
}

/// 1 for an answer of the asked form, 0 for any other; reference and question do not count.
///
/// Patterns are those of the crate `regex`: linear time on any answer, no look-around and no back-references. A dot matches
/// line breaks too, because answers have several lines; `(?-s)` at the start takes that back.
///
/// ```
/// use ril_reward::{FormatMatch, PatternScope, Reward, Sample};
///
/// let score = |reward: &FormatMatch, response| reward.score(&[Sample::new("?", "", response)]);
/// let tags = FormatMatch::think_answer();
/// assert_eq!(score(&tags, "<think>3 + 4\nis 7</think>\n<answer>7</answer>")?, [Some(1.0)]);
/// assert_eq!(score(&tags, "<answer>7</answer>")?, [Some(0.0)]);
///
/// let boxed = FormatMatch::new(r"\\boxed\{.+\}", PatternScope::Anywhere)?;
/// assert_eq!(score(&boxed, r"So it is \boxed{7}.")?, [Some(1.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FormatMatch {
    pattern: Regex,
    /// What must stand in an answer exactly once, which a pattern without look-around cannot say.
    tags: &'static [&'static str],
}

impl FormatMatch {
    /// The reward of a pattern. An answer of white space only scores 0, whatever the pattern.
    ///
    /// # Errors
    /// [`RewardError::Config`] for a pattern that is none, or that compiles to more than 10 MiB.
    pub fn new(pattern: &str, scope: PatternScope) -> Result<Self, RewardError> {
        let whole = match scope {
            PatternScope::Whole => format!(r"(?s)\A\s*(?:{pattern})\s*\z"),
            PatternScope::Anywhere => format!("(?s){pattern}"),
        };
        // Alone first: a pattern with unbalanced brackets could close the group around it.
        match Regex::new(pattern).and_then(|_| Regex::new(&whole)) {
            Ok(pattern) => Ok(Self { pattern, tags: &[] }),
            Err(error) => Err(RewardError::Config(format!("pattern {pattern:?}: {error}"))),
        }
    }

    /// Reasoning in `<think>`, then the result in `<answer>`, each tag once and nothing beside them but white space: the
    /// form that DeepSeek-R1 asks for (arXiv 2501.12948, section 2.2.2).
    pub fn think_answer() -> Self {
        let pattern = r"(?s)\A\s*<think>.*</think>\s*<answer>.*</answer>\s*\z";
        let pattern = Regex::new(pattern).expect("a constant pattern, compiled by the tests");
        Self { pattern, tags: &["<think>", "</think>", "<answer>", "</answer>"] }
    }

    /// The score of one sample.
    pub fn score_of(&self, sample: &Sample<'_>) -> Option<f32> {
        let response = sample.response;
        let has_form = !sample.is_response_empty() && self.pattern.is_match(response);
        let is_once = |tag: &&str| response.match_indices(*tag).nth(1).is_none();
        Some(f32::from(u8::from(has_form && self.tags.iter().all(is_once))))
    }
}

rule::impl_score!(FormatMatch, "format");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score(reward: &FormatMatch, response: &str) -> f32 {
        reward.score_of(&Sample::new("?", "", response)).expect("always scored")
    }

    #[test]
    fn whole_and_anywhere() {
        let whole = FormatMatch::new("a+|b", PatternScope::Whole).expect("a pattern");
        let anywhere = FormatMatch::new("a+|b", PatternScope::Anywhere).expect("a pattern");
        for (response, is_whole, is_anywhere) in [
            ("aaa", 1.0, 1.0),
            (" aa\n", 1.0, 1.0),
            ("b", 1.0, 1.0),
            ("ab", 0.0, 1.0),
            ("xa", 0.0, 1.0),
            ("x", 0.0, 0.0),
        ] {
            assert_eq!((score(&whole, response), score(&anywhere, response)), (is_whole, is_anywhere), "{response}");
        }
        let lines = FormatMatch::new("a.b", PatternScope::Whole).expect("a pattern");
        let one_line = FormatMatch::new("(?-s)a.b", PatternScope::Whole).expect("a pattern");
        assert_eq!((score(&lines, "a\nb"), score(&one_line, "a\nb")), (1.0, 0.0));
        let any = FormatMatch::new(".*", PatternScope::Whole).expect("a pattern");
        assert_eq!((score(&any, " "), score(&any, "x")), (0.0, 1.0));
    }

    #[test]
    fn broken_patterns_are_settings_to_refuse() {
        for pattern in ["(", "a)|(b", "[", "a{2000}{2000}", r"(?=a)", "(?x)a # (comment)"] {
            let whole = FormatMatch::new(pattern, PatternScope::Whole);
            assert!(matches!(whole, Err(RewardError::Config(_))), "{pattern}");
        }
    }

    #[test]
    fn tags_stand_once_and_in_order() {
        let tags = FormatMatch::think_answer();
        let cases = [
            ("<think>a</think><answer>b</answer>", 1.0),
            ("\n<think>\na < b\n</think>\n\n<answer>b</answer>\n", 1.0),
            ("<think></think><answer></answer>", 1.0),
            ("<answer>b</answer><think>a</think>", 0.0),
            ("<think>a</think><answer>b</answer> and more", 0.0),
            ("So: <think>a</think><answer>b</answer>", 0.0),
            ("<think>a</think>b<answer>b</answer>", 0.0),
            ("<think>a<think>a</think><answer>b</answer>", 0.0),
            ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
            ("<think>a</think><answer>b", 0.0),
            ("", 0.0),
        ];
        for (response, expected) in cases {
            assert_eq!(score(&tags, response), expected, "{response}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_and_text_are_settled(pattern in any::<String>(), response in any::<String>()) {
            for scope in [PatternScope::Whole, PatternScope::Anywhere] {
                if let Ok(reward) = FormatMatch::new(&pattern, scope) {
                    prop_assert!([0.0, 1.0].contains(&score(&reward, &response)));
                }
            }
            let escaped = FormatMatch::new(&regex::escape(response.trim()), PatternScope::Whole).expect("a pattern");
            prop_assert_eq!(score(&escaped, &response) == 1.0, !response.trim().is_empty());
        }
    }
}
