//! Answers that are mathematics, compared by what they mean.

mod compare;
mod eval;
mod extract;
mod lexer;
mod number;
mod parser;
mod region;
mod symbols;
mod terms;
mod tree;

use serde::{Deserialize, Serialize};

use self::compare::Comparison;
use self::extract::stated_value;
use self::lexer::Mode;
use self::parser::parse;
use self::tree::Value;
use crate::tokens::is_negation;
use crate::words::words;
use crate::{PercentSign, RewardError, Sample, Tolerance, Verdict, conclusion, rule};

/// Right when the answer states the same mathematics as the reference, in LaTeX or in plain ASCII.
///
/// **What is read.** Numbers (thousands, decimals, repeating decimals, mixed numbers, percents, powers of ten), `+ - * /
/// ^`, fractions, roots, `!`, `|x|`, floor and ceiling, binomials, logarithms, trigonometric and hyperbolic functions,
/// `\pi`, `e`, `i`, `\infty`, variables with subscripts, `\pm`; points, vectors and matrices; sets, intervals, unions,
/// intersections and differences; equations, inequalities and their chains; lists with commas, `and`, `or`; words.
///
/// **Where.** In the [`conclusion`](crate::conclusion()) of the answer; several boxes or formulas that `and`, `or` or a
/// comma joins are a list. In a sentence the first formula or number behind a mark ("the answer is") counts, without a
/// mark the last one; where the last sentence has none, the last of the answer.
///
/// **When two values agree.**
/// * Numbers: exactly, in fractions of `i128` and beyond them modulo `2^61 - 1`; roots, logarithms and their like to
///   `1e-9` relative. Where one is written as a decimal fraction, within [`tolerance`](Self::tolerance).
/// * Expressions with variables: equal at 8 fixed points, 4 of whole numbers and 4 of fractions, wherever both have a
///   value, and that at 3 of them or more. Names count, `x + 1` is not `y + 1`. Two different rational functions whose
///   difference has a numerator of degree `d` agree at a fraction drawn from `S` with probability at most `d / |S|`
///   (Schwartz and Zippel), here about `(d / 6000)^4` for the fractions alone; the points are fixed, so that an answer
///   gets the same verdict every time.
/// * `x = 5` and 5 are the same; two equations when one is a multiple of the other; inequalities likewise, and when they
///   describe the same real numbers as an interval.
/// * Lists and sets in any order; points and vectors in theirs. `(1, 2)` is a point or an open interval, `[1, 2]` a closed
///   one. A list without brackets agrees with a point.
/// * Units and currency signs do not count, nor does the sign of degrees (but `\sin 30^\circ` is one half). A base
///   (`101_2`) counts where both sides give one.
///
/// * Reference that is empty, or no mathematics and not the answer word by word: [`Verdict::Unparsed`].
/// * Answer without mathematics: [`Verdict::Incorrect`].
///
/// **Bounds.** Any text gets a verdict. At most 1,024 characters are read (of an answer, its end), nesting stops at 48, powers,
/// factorials and numbers that fit nothing are undefined and equal only themselves as written.
///
/// ```
/// use ril_reward::{MathMatch, Reward, Sample};
///
/// let score = |reference, response| MathMatch::default().score(&[Sample::new("?", reference, response)]);
/// assert_eq!(score("\\frac{1}{2}", "So it is $0.5$.")?, [Some(1.0)]);
/// assert_eq!(score("x^2 + 2x + 1", "\\boxed{(x+1)^2}")?, [Some(1.0)]);
/// assert_eq!(score("[2, \\infty)", "The answer is $x \\ge 2$.")?, [Some(1.0)]);
/// assert_eq!(score("2\\sqrt{3}", "\\boxed{3\\sqrt{2}}")?, [Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MathMatch {
    /// How far two numbers may lie apart when at least one of them is written as a decimal fraction; default
    /// `Absolute(5e-7)`, six decimals. Whatever it says, the deviation is at most a thousandth of the reference.
    pub tolerance: Tolerance,
    /// Default [`PercentSign::Optional`].
    pub percent_sign: PercentSign,
}

impl Default for MathMatch {
    fn default() -> Self {
        Self { tolerance: Tolerance::Absolute(5e-7), percent_sign: PercentSign::Optional }
    }
}

impl MathMatch {
    /// Checks the tolerance, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless it is finite and not negative.
    pub fn validate(&self) -> Result<(), RewardError> {
        self.tolerance.validate()
    }

    /// The verdict on one sample.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        if sample.reference.trim().is_empty() {
            return Verdict::Unparsed("reference is empty".into());
        }
        if sample.is_response_empty() {
            return Verdict::Incorrect;
        }
        let stated = conclusion(sample.response).text;
        if bare(stated) == bare(sample.reference) && !bare(stated).is_empty() {
            return Verdict::Correct;
        }
        let read_marked = || conclusion(sample.reference).is_marked.then(|| stated_value(sample.reference)).flatten();
        let Some(reference) = parse(sample.reference, Mode::Math).or_else(read_marked) else {
            return Verdict::Unparsed(format!("reference is no mathematics: {:?}", sample.reference));
        };
        if let Value::Text(word) = &reference
            && ends_with(stated, word)
        {
            return Verdict::Correct;
        }
        let comparison = Comparison { tolerance: self.tolerance, percent_sign: self.percent_sign };
        Verdict::of(stated_value(sample.response).is_some_and(|answer| comparison.agrees(&reference, &answer)))
    }
}

rule::impl_rule!(MathMatch, "math", validate);

/// A text without layout: white space, dollar signs, the commands of sizes and gaps, a full stop at the end.
fn bare(text: &str) -> String {
    let mut text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac");
    for layout in ["\\left", "\\right", "\\displaystyle", "\\,", "\\!", "\\;", "\\ ", "$", "\\(", "\\)", "\\[", "\\]"] {
        text = text.replace(layout, "");
    }
    text.split_whitespace().collect::<String>().trim_end_matches('.').to_owned()
}

/// Whether a text is these words, or ends with them behind a form of "to be" or an article.
fn ends_with(text: &str, expected: &str) -> bool {
    let (text, expected) = (words(&text.replace("\\text", " ")), words(expected));
    let Some(rest) = text.strip_suffix(expected.as_slice()).filter(|_| !expected.is_empty()) else { return false };
    let may_precede = |word: &String| matches!(word.as_str(), "is" | "are" | "be" | "a" | "an" | "the");
    let is_denied = rest.iter().rev().take(2).any(|word| is_negation(word));
    !is_denied && rest.last().is_none_or(may_precede)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(reference: &str, response: &str) -> Verdict {
        MathMatch::default().verdict(&Sample::new("?", reference, response))
    }
}
