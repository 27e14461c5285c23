//! Answers that are mathematics, compared by what they mean.

mod compare;
mod eval;
mod extract;
mod lexer;
mod names;
mod number;
mod parser;
mod region;
mod sets;
mod symbols;
mod terms;
mod token;
mod tree;

use serde::{Deserialize, Serialize};

use self::compare::Comparison;
use self::extract::stated_value;
use self::parser::parse;
use self::token::Mode;
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
/// * Numbers: exactly in fractions of `i128`, beyond them modulo a prime of 61 bits and to `1e-9` relative; roots,
///   logarithms and their like to `1e-9` relative. Where one is written as a decimal fraction, within
///   [`tolerance`](Self::tolerance).
/// * Expressions with variables: equal at 8 fixed points, 4 of whole numbers and 4 of fractions, wherever both have a
///   value, and that at 3 of them or more. Names count, `x + 1` is not `y + 1`. Two different rational functions whose
///   difference has a numerator of degree `d` agree at a fraction drawn from `S` with probability at most `d / |S|`
///   (Schwartz and Zippel), here about `(d / 6000)^4` for the fractions alone; the points are fixed, so that an answer
///   gets the same verdict every time.
/// * `x = 5` and 5 are the same, whatever the name (`AB = 5`, `(x, y) = (1, 2)`); of `x = 1/3 \approx 0.33` either side,
///   but neither of `3 \approx 5`, whose numbers are more than 2.5% apart; two equations when one is a multiple of the
///   other; inequalities likewise, and when they describe the same real numbers as an interval.
/// * Lists and sets in any order; points and vectors in theirs. `(1, 2)` is a point or an open interval, `[1, 2]` a closed
///   one. A list without brackets agrees with a point.
/// * Units and currency signs do not count, nor does the sign of degrees (but `\sin 30^\circ` is one half). A base
///   (`101_2`) counts where both sides give one.
///
/// * Reference that is empty, or no mathematics and not the answer word by word: [`Verdict::Unparsed`].
/// * Answer without mathematics: [`Verdict::Incorrect`].
///
/// **Bounds.** Any text gets a verdict. A formula is read up to 1,024 characters, a sentence without one too (its end,
/// behind a mark its start), and of joined boxes the last 64; nesting stops at 48, of sets at 4. Powers, factorials and
/// numbers that fit nothing are undefined and equal only themselves as written.
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
        let Some(reference) = reference_value(sample.reference) else {
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

/// The value of a reference, which may be a whole solution with a mark.
fn reference_value(reference: &str) -> Option<Value> {
    let whole = || parse(reference, Mode::Math);
    match conclusion(reference).is_marked {
        true => stated_value(reference).or_else(whole),
        false => whole(),
    }
}

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
    use proptest::prelude::*;

    use super::*;
    use crate::Judge;

    fn verdict(reference: &str, response: &str) -> Verdict {
        MathMatch::default().verdict(&Sample::new("?", reference, response))
    }

    fn check(cases: &[(&str, &str, bool)]) {
        for (reference, response, is_same) in cases {
            assert_eq!(verdict(reference, response), Verdict::of(*is_same), "{reference:?} {response:?}");
        }
    }

    #[test]
    fn decimals_are_rounded_and_exact_numbers_are_not() {
        check(&[
            ("1/3", "\\boxed{0.333333}", true),
            ("1/3", "\\boxed{0.33333}", false),
            ("1/3", "\\boxed{333333/1000000}", false),
            ("0.00000001", "\\boxed{0.00000002}", false),
            ("0", "\\boxed{0.0000001}", false),
            ("0.1 + 0.2", "\\boxed{0.3}", true),
            ("0.333333x", "\\boxed{x/3}", false),
            ("123456789.5", "\\boxed{123456789.4}", false),
        ]);
        let loose = MathMatch { tolerance: Tolerance::Relative(1e-3), ..MathMatch::default() };
        assert_eq!(loose.verdict(&Sample::new("?", "\\pi", "3.1416")), Verdict::Correct);
        assert_eq!(loose.verdict(&Sample::new("?", "\\pi", "22/7")), Verdict::Incorrect);
    }

    #[test]
    fn percent_signs_are_optional_or_exact() {
        check(&[("50\\%", "\\boxed{50}", true), ("50", "\\boxed{50\\%}", true), ("0.5", "\\boxed{0.5\\%}", false)]);
        let exact = MathMatch { percent_sign: PercentSign::Exact, ..MathMatch::default() };
        for (response, is_same) in [("\\boxed{0.5}", true), ("\\boxed{50}", false), ("\\boxed{50\\%}", true)] {
            assert_eq!(exact.verdict(&Sample::new("?", "50\\%", response)), Verdict::of(is_same), "{response}");
        }
    }

    #[test]
    fn large_integers_are_told_apart() {
        check(&[
            ("2^{64}", "\\boxed{8}", false),
            ("8", "\\boxed{2^{64}}", false),
            ("2^{1000}", "\\boxed{2^{24}}", false),
            ("2^{1000}", "\\boxed{4^{500}}", true),
            ("0", "\\boxed{2305843009213693951}", false),
            ("2305843009213693951", "\\boxed{2^{61} - 1}", true),
            ("2^{200}", "\\boxed{2^{200} + 1}", false),
        ]);
    }

    #[test]
    fn both_sides_of_a_rounding_count_where_they_agree() {
        check(&[
            ("3", "\\boxed{3 \\approx 5}", false),
            ("5", "\\boxed{3 \\approx 5}", false),
            ("1/3", "\\boxed{1/3 \\approx 0.33}", true),
            ("0.33", "\\boxed{1/3 \\approx 0.33}", true),
            ("1/6", "\\boxed{x = 1/6 \\approx 0.17}", true),
            ("5", "\\boxed{x = 3 \\approx 5}", false),
            ("3", "\\boxed{x = 3 \\approx 5}", false),
            ("3.14", "\\boxed{\\pi \\approx 3.14}", true),
        ]);
    }

    #[test]
    fn the_last_boxes_that_are_read_are_64() {
        let boxes =
            |values: std::ops::Range<i32>| values.map(|i| format!("\\boxed{{{i}}}")).collect::<Vec<_>>().join(", ");
        let list = |values: std::ops::Range<i32>| values.map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        check(&[(&list(0..64), &boxes(0..64), true), (&list(36..100), &boxes(0..100), true)]);
    }

    #[test]
    fn signs_of_variables_matter() {
        check(&[
            ("\\sqrt{x^2}", "$x$", false),
            ("\\sqrt{x^2y^2}", "$xy$", false),
            ("\\sqrt{x^2y^2}", "$|xy|$", true),
            ("\\sqrt{x^2y^2}", "$-xy$", false),
            ("|x+y|", "$|x|+|y|$", false),
            ("(-1)^{2n}", "$1$", true),
            ("(-1)^{n}", "$1$", false),
            ("n!", "$n(n-1)!$", true),
            ("\\binom{n}{2}", "$\\frac{n(n-1)}{2}$", true),
        ]);
    }

    #[test]
    fn words_are_compared_as_words() {
        check(&[
            ("\\text{no solution}", "The answer is no solution.", true),
            ("\\text{no solution}", "There is no solution", true),
            ("\\text{no solution}", "This has no solution", false),
            ("\\text{even}", "The function is even.", true),
            ("\\text{even}", "The function is not even.", false),
            ("\\text{even}", "The function is odd.", false),
            ("\\text{Infinitely many}", "\\boxed{\\text{infinitely many}}", true),
        ]);
    }

    #[test]
    fn references_that_are_no_mathematics() {
        assert_eq!(verdict("\\int x dx", "\\boxed{\\int x \\, dx}"), Verdict::Correct);
        assert!(matches!(verdict("\\int x dx", "\\boxed{5}"), Verdict::Unparsed(_)));
        assert_eq!(verdict(" ", "5"), Verdict::Unparsed("reference is empty".into()));
        assert_eq!(verdict("5", " "), Verdict::Incorrect);
        assert_eq!(verdict("He sold 48/2 = 24.\n#### 72", "It is 72."), Verdict::Correct);
    }

    #[test]
    fn a_broken_tolerance_is_a_setting_to_refuse() {
        for tolerance in [Tolerance::Absolute(f64::NAN), Tolerance::Relative(-1.0), Tolerance::Absolute(f64::INFINITY)]
        {
            let rule = MathMatch { tolerance, ..MathMatch::default() };
            assert!(matches!(rule.judge(&[]), Err(RewardError::Config(_))), "{tolerance:?}");
        }
    }

    #[test]
    fn hostile_texts_take_no_time() {
        let start = std::time::Instant::now();
        let repeated = |piece: &str| piece.repeat(1_000_000 / piece.len());
        let short = |piece: &str| piece.repeat(1000 / piece.len());
        for piece in [
            "(",
            "{",
            "\\{",
            "[",
            "|",
            "-",
            "\\sqrt{",
            "\\text{",
            "\\boxed{",
            "$",
            "$x$ or ",
            "9^",
            "1/",
            "x_",
            "!",
            "1,",
            "\\pm",
            "7!,",
            "\\frac",
            "\\begin{pmatrix}",
            "a ",
            "\\",
            "é",
            "x\\cup",
            "1:",
        ] {
            for text in [repeated(piece), short(piece)] {
                let _ = (verdict(&text, &text), verdict("1", &text), verdict(&text, "1"));
            }
        }
        for (open, close) in
            [("(", ")"), ("\\{", "\\}"), ("{", "}"), ("\\{1,", "\\}"), ("(1,", ")"), ("\\sqrt{", "}"), ("|", "|")]
        {
            for times in [4, 40, 150] {
                let text = format!("{}1{}", open.repeat(times), close.repeat(times));
                let _ = (verdict(&text, &boxed(&format!("{text}+0"))), verdict(&text, &boxed(&text.replace('1', "2"))));
            }
        }
        let list = (0..64).map(|i| format!("\\{{{i},x\\}}")).collect::<Vec<_>>();
        let reversed = list.iter().rev().cloned().collect::<Vec<_>>().join(",");
        assert_eq!(verdict(&list.join(","), &boxed(&reversed)), Verdict::Correct);
        for text in ["9^{9^{9^{9}}}", "9**9**9**9", "1000000!!!", "\\binom{10^9}{10^8}", "10^{10^{10}}", "2^{-10^{30}}"]
        {
            assert_eq!(verdict(text, &format!("\\boxed{{{text}}}")), Verdict::Correct, "{text}");
            assert_eq!(verdict(text, "\\boxed{1}"), Verdict::Incorrect, "{text}");
        }
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    /// Expressions as LaTeX, from numbers and variables up.
    fn expressions() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (0_u32..100).prop_map(|n| n.to_string()),
            (1_u32..1000).prop_map(|n| format!("{}.{}", n / 10, n % 10)),
            "[a-dx-z]".prop_map(String::from),
            Just("\\pi".to_owned()),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                pair.clone().prop_map(|(a, b)| format!("({a} + {b})")),
                pair.clone().prop_map(|(a, b)| format!("({a} - {b})")),
                pair.clone().prop_map(|(a, b)| format!("{a} \\cdot {b}")),
                pair.clone().prop_map(|(a, b)| format!("\\frac{{{a}}}{{{b}}}")),
                inner.clone().prop_map(|a| format!("\\sqrt{{{a}}}")),
                (inner.clone(), 0_u32..4).prop_map(|(a, n)| format!("({a})^{{{n}}}")),
                inner.prop_map(|a| format!("|{a}|")),
            ]
        })
    }

    fn boxed(text: &str) -> String {
        format!("So \\boxed{{{text}}}.")
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(
            reference in any::<String>(), response in any::<String>(),
            math in "([-+*/^_!%|,;:(){}$\\[\\]0-9a-z. <>=]|\\\\(frac|sqrt|text|pm|cup|left|begin\\{matrix\\}|circ|boxed)){0,60}",
        ) {
            for (a, b) in [(&reference, &response), (&math, &response), (&reference, &math), (&math, &math)] {
                let _ = verdict(a, b);
            }
        }

        #[test]
        fn an_expression_is_itself(a in expressions(), b in expressions()) {
            prop_assert_eq!(verdict(&a, &boxed(&a)), Verdict::Correct);
            // Written in another way, where it has a value at all.
            let (sum, swapped) = (format!("{a} + ({b})"), format!("({b}) + {a}"));
            let is_same = verdict(&sum, &boxed(&swapped));
            let has_value = verdict(&format!("0 \\cdot ({sum})"), "\\boxed{0}") == Verdict::Correct;
            prop_assert!(is_same == Verdict::Correct || !has_value, "{} {}", sum, swapped);
        }

        #[test]
        fn an_expression_plus_one_is_another(a in expressions()) {
            let has_value = verdict(&format!("0 \\cdot ({a})"), "\\boxed{0}") == Verdict::Correct;
            let is_same = verdict(&a, &boxed(&format!("{a} + 1"))) == Verdict::Correct;
            // A value beyond 1e9 that is no fraction hides a one.
            let is_small = verdict(&format!("\\lfloor 10^{{-8}}|{a}|\\rfloor"), "\\boxed{0}") == Verdict::Correct;
            prop_assert!(!is_same || !has_value || !is_small , "{}", a);
        }

        #[test]
        fn fractions_decimals_and_products_agree(above in -999_i64..999, below in 1_i64..64) {
            let fraction = format!("\\frac{{{above}}}{{{below}}}");
            let decimal = above as f64 / below as f64;
            prop_assert_eq!(verdict(&fraction, &boxed(&format!("{}/{}", above * 7, below * 7))), Verdict::Correct);
            prop_assert_eq!(verdict(&fraction, &boxed(&format!("{decimal:.9}"))), Verdict::Correct);
            prop_assert_eq!(verdict(&fraction, &boxed(&format!("{}/{below}", above + 1))), Verdict::Incorrect);
        }

        #[test]
        fn lists_ignore_order_and_points_do_not(items in prop::collection::hash_set(-99_i32..99, 2..8)) {
            let items: Vec<String> = items.iter().map(i32::to_string).collect();
            let reversed: Vec<String> = items.iter().rev().cloned().collect();
            let (list, back) = (items.join(", "), reversed.join(", "));
            prop_assert_eq!(verdict(&list, &boxed(&back)), Verdict::Correct);
            prop_assert_eq!(verdict(&format!("({list})"), &boxed(&format!("({back})"))), Verdict::Incorrect);
            prop_assert_eq!(verdict(&format!("\\{{{list}\\}}"), &boxed(&format!("\\{{{back}\\}}"))), Verdict::Correct);
        }
    }
}
