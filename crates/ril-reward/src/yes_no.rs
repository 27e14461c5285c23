use serde::{Deserialize, Serialize};

use crate::judge::polarity;
use crate::words::words;
use crate::{Sample, Verdict, rule};

/// Right when the answer to a yes-or-no question goes the way of the reference.
///
/// Yes and true are one way, no and false the other. Every yes, no, true and false of the marked
/// [`conclusion`](crate::conclusion()), else of the whole answer, must say the same; an answer that says both is wrong.
/// `not true` says false, a `no` before a noun (`there is no dog`) says nothing, nor does what is called wrong (`yes is
/// wrong`).
///
/// * Reference that is more or other than one such word: [`Verdict::Unparsed`], because the rule does not apply.
/// * Answer that says neither: [`Verdict::Incorrect`].
///
/// ```
/// use ril_reward::{Reward, Sample, YesNoMatch};
///
/// let score = |reference, response| YesNoMatch.score(&[Sample::new("Is it red?", reference, response)]);
/// assert_eq!(score("yes", "Yes, it is red.")?, [Some(1.0)]);
/// assert_eq!(score("No", "That is not true.")?, [Some(1.0)]);
/// assert_eq!(score("yes", "Yes and no.")?, [Some(0.0)]);
/// assert_eq!(score("red", "Yes")?, [None]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct YesNoMatch;

impl YesNoMatch {
    /// The verdict on one sample.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        let words = words(sample.reference);
        let only = <[String; 1]>::try_from(words).ok();
        match only.and_then(|[word]| polarity::of(&word)) {
            Some(is_true) => Verdict::of(polarity::stated(sample.response) == Some(is_true)),
            None => Verdict::Unparsed(format!("reference is neither yes nor no: {:?}", sample.reference)),
        }
    }
}

rule::impl_rule!(YesNoMatch, "yes_no");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_goes_one_way() {
        let cases = [
            ("Yes", Some(true)),
            ("yes.", Some(true)),
            ("**No**", Some(false)),
            ("True", Some(true)),
            ("It is false.", Some(false)),
            ("<answer>no</answer> yes", Some(false)),
            ("At first I thought no. The answer is yes.", Some(true)),
            ("\\boxed{\\text{Yes}}", Some(true)),
            ("Yes, there is no dog.", Some(true)),
            ("It isn't true.", Some(false)),
            ("not yes", None),
            ("Yes and no", None),
            ("maybe", None),
            ("yesterday", None),
            ("", None),
        ];
        for (response, said) in cases {
            for (reference, is_true) in [("yes", true), ("TRUE", true), ("no.", false), ("False", false)] {
                let verdict = YesNoMatch.verdict(&Sample::new("?", reference, response));
                assert_eq!(verdict, Verdict::of(said == Some(is_true)), "{reference} {response}");
            }
        }
        for reference in ["", "maybe", "yes no", "no dog"] {
            assert!(
                matches!(YesNoMatch.verdict(&Sample::new("?", reference, "yes")), Verdict::Unparsed(_)),
                "{reference}"
            );
        }
    }

    proptest! {
        #[test]
        fn at_most_one_way_is_right(response in any::<String>(), parts in "((yes|no|true|false|not|is|wrong)[ ,.]){0,8}") {
            for response in [response, parts] {
                let verdict = |reference| YesNoMatch.verdict(&Sample::new("?", reference, &response));
                prop_assert!(verdict("yes") == Verdict::Incorrect || verdict("no") == Verdict::Incorrect);
                prop_assert_eq!(verdict("yes"), verdict("true"));
            }
        }
    }
}
