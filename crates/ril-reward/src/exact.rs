use serde::{Deserialize, Serialize};

use crate::{Sample, Verdict, rule};

/// What two texts may differ in and still be equal; each variant forgives more than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Normalisation {
    /// Nothing.
    Verbatim,
    /// White space: trimmed, and any run of it is one space.
    WhiteSpace,
    /// Also letter case, quotes, Markdown marks around the text, and punctuation at its end.
    #[default]
    Folded,
    /// Also all ASCII punctuation (a minus sign too) and the words a, an, the: the rule of the SQuAD 1.1 evaluation
    /// script (arXiv 1606.05250).
    Squad,
}

impl Normalisation {
    /// The rule that forgives less and is asked where this one leaves nothing of a text.
    fn weaker(self) -> Option<Self> {
        match self {
            Self::Verbatim | Self::WhiteSpace => None,
            Self::Folded => Some(Self::WhiteSpace),
            Self::Squad => Some(Self::Folded),
        }
    }

    /// `text` without what this rule forgives.
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::Verbatim => text.to_owned(),
            Self::WhiteSpace => collapse(text),
            Self::Folded => {
                let lower = collapse(&text.to_lowercase());
                let is_end = |c: char| is_quote(c) || matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '。');
                lower.trim_start_matches(is_quote).trim_end_matches(is_end).to_owned()
            }
            Self::Squad => {
                let lower = text.to_lowercase().replace(|c: char| c.is_ascii_punctuation(), "");
                let words = lower.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
                words.collect::<Vec<_>>().join(" ")
            }
        }
    }
}

fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_quote(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '*' | '“' | '”' | '‘' | '’')
}

/// Right when the **whole** answer equals the reference under a [`Normalisation`].
///
/// A normalisation that leaves nothing of one of the two (`!` and `?`, `<` and `>`) gives way to the weaker one before it.
/// An empty reference is [`Verdict::Unparsed`], an empty answer wrong.
///
/// ```
/// use ril_reward::{ExactMatch, Reward, Sample};
///
/// let scores = ExactMatch::default().score(&[
///     Sample::new("Capital of France?", "Paris", "  **paris**."),
///     Sample::new("Capital of France?", "Paris", "It is Paris"),
/// ])?;
/// assert_eq!(scores, [Some(1.0), Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactMatch {
    /// Default [`Normalisation::Folded`].
    pub normalisation: Normalisation,
}

impl ExactMatch {
    /// The rule under `normalisation`.
    pub fn new(normalisation: Normalisation) -> Self {
        Self { normalisation }
    }

    /// The verdict on one sample.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        if sample.reference.trim().is_empty() {
            return Verdict::Unparsed("reference is empty".into());
        }
        if sample.is_response_empty() {
            return Verdict::Incorrect;
        }
        let mut rule = self.normalisation;
        loop {
            let [reference, response] = [sample.reference, sample.response].map(|text| rule.apply(text));
            match rule.weaker() {
                Some(weaker) if reference.is_empty() || response.is_empty() => rule = weaker,
                _ => return Verdict::of(reference == response),
            }
        }
    }
}

rule::impl_rule!(ExactMatch, "exact");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_normalisation_forgives_what_it_says() {
        use Normalisation::{Folded, Squad, Verbatim, WhiteSpace};
        let cases = [
            ("Paris", "Paris", Some(Verbatim)),
            ("New York", " New\n York ", Some(WhiteSpace)),
            ("New York", "new york.", Some(Folded)),
            ("Paris", "\"Paris\"!", Some(Folded)),
            ("Paris", "**Paris**", Some(Folded)),
            ("the cat", "A cat", Some(Squad)),
            ("well-known", "wellknown", Some(Squad)),
            ("-5", "5", Some(Squad)),
            ("Paris", "Rome", None),
            ("Paris", "Paris, France", None),
        ];
        for (reference, response, weakest) in cases {
            for (rank, rule) in [Verbatim, WhiteSpace, Folded, Squad].into_iter().enumerate() {
                let expected = weakest.is_some_and(|weakest| rank >= weakest as usize);
                let verdict = ExactMatch::new(rule).verdict(&Sample::new("?", reference, response));
                assert_eq!(verdict, Verdict::of(expected), "{reference:?} {response:?} {rule:?}");
            }
        }
    }

    #[test]
    fn what_a_rule_would_leave_nothing_of_is_compared_by_a_weaker_one() {
        use Normalisation::{Folded, Squad, Verbatim, WhiteSpace};
        for (reference, response, is_same) in [
            ("!", "?", false),
            ("!", " ! ", true),
            ("<", ">", false),
            ("+", "-", false),
            ("+", "+.", true),
            ("**", "*", false),
            ("the", "a", false),
            ("The", "the.", true),
            ("x", "!", false),
        ] {
            for rule in [Folded, Squad] {
                let verdict = ExactMatch::new(rule).verdict(&Sample::new("?", reference, response));
                assert_eq!(verdict, Verdict::of(is_same), "{reference:?} {response:?} {rule:?}");
            }
        }
        for rule in [Verbatim, WhiteSpace, Folded, Squad] {
            let verdict = |reference, response| ExactMatch::new(rule).verdict(&Sample::new("?", reference, response));
            assert_eq!(verdict(" ", "x"), Verdict::Unparsed("reference is empty".into()));
            assert_eq!(verdict("", ""), Verdict::Unparsed("reference is empty".into()));
            assert_eq!(verdict("x", " "), Verdict::Incorrect);
        }
    }

    proptest! {
        #[test]
        fn normalisation_is_idempotent(text in any::<String>()) {
            for rule in [Normalisation::Verbatim, Normalisation::WhiteSpace, Normalisation::Folded] {
                let once = rule.apply(&text);
                prop_assert_eq!(rule.apply(&once), once);
            }
        }
    }
}
