//! `MathMatch` against Math-Verify 0.9.0, pair by pair (`scripts/reference/math_verify.py`).

use ril_reward::{MathMatch, Sample, Verdict};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    reference: String,
    answer: String,
    /// What a careful reader says.
    is_same: bool,
    math_verify: bool,
}

/// Every pair on which the two differ: reference, answer, why.
const DISAGREEMENTS: [(&str, &str, &str); 21] = [
    ("5600", r"\boxed{5\,600}", "Math-Verify reads a thin space before three digits as a product, 5 * 600"),
    ("-3", "The sum is −3", "it does not know the typographic minus sign"),
    ("3.5", "The result is 3 1/2.", "it reads the 1 of a mixed number in a sentence"),
    (r"\frac{1}{3}", r"\boxed{0.\overline{3}}", "it does not know repeating decimals"),
    (r"0.1\overline{6}", r"\boxed{\frac{1}{6}}", "it does not know repeating decimals"),
    ("1500", "The value is 1.5e3", "it reads 1.5"),
    (r"12.5\%", r"\boxed{12.5}", "it lets a percent sign be left out of whole numbers only"),
    (r"\sin 30^\circ", r"\boxed{\frac{1}{2}}", "by default it takes degrees for radians"),
    ("x+1", "The answer is x+1.", "it finds letters only between dollar signs and in boxes"),
    ("(1+i)^2", r"\boxed{2i}", "it takes i for a variable where a letter or digit stands right beside it"),
    ("-1", r"\boxed{i^2}", "it takes i for a variable where it does not know the text to be complex"),
    ("2x<6", r"\boxed{x<3}", "it does not solve inequalities with a factor"),
    (r"(-\infty,3)", r"\boxed{x<3}", "by default it reads an inequality as an interval only in the reference"),
    ("(1,2)", r"\boxed{1<x<2}", "by default it reads an inequality as an interval only in the reference"),
    ("[1,2]", r"\boxed{1\le x\le 2}", "by default it reads an inequality as an interval only in the reference"),
    ("1<x<2", r"\boxed{2>x>1}", "it does not turn a chain around"),
    (r"\varnothing", r"\boxed{\emptyset}", "it takes one of the two signs for a variable"),
    ("(1,-2)", "The point is (1,-2).", "it finds points only between dollar signs and in boxes"),
    (r"2\sqrt{3}", "The length is 2√3", "it reads 2"),
    (r"\frac{1}{2}", "One half of it, ½", "it does not know the sign"),
    ("2516_8", r"\boxed{2516_9}", "it passes over the base"),
];

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/math_verify.json")).expect("a fixture")
}

fn says_same(case: &Case) -> bool {
    let sample = Sample::new("?", &case.reference, &case.answer);
    MathMatch::default().verdict(&sample) == Verdict::Correct
}

#[test]
fn verdicts_are_those_of_math_verify_but_for_the_listed_pairs() {
    let cases = fixture().cases;
    assert!(cases.len() >= 300, "{} pairs", cases.len());
    let mut unexpected = Vec::new();
    for case in &cases {
        let agrees = says_same(case) == case.math_verify;
        let is_listed = DISAGREEMENTS.iter().any(|(a, b, _)| (*a, *b) == (&*case.reference, &*case.answer));
        if agrees == is_listed {
            let listed = if is_listed { "listed, but agrees" } else { "not listed" };
            unexpected
                .push(format!("{listed}: {} | {} | Math-Verify: {}", case.reference, case.answer, case.math_verify));
        }
    }
    for (reference, answer, _) in DISAGREEMENTS {
        let stands = cases.iter().any(|case| case.reference == reference && case.answer == answer);
        assert!(stands, "listed, but no pair: {reference} | {answer}");
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    println!("{} of {} pairs agree", cases.len() - DISAGREEMENTS.len(), cases.len());
}

#[test]
fn verdicts_are_those_of_a_careful_reader() {
    let cases = fixture().cases;
    let wrong = cases.iter().filter(|case| says_same(case) != case.is_same);
    let wrong: Vec<String> =
        wrong.map(|case| format!("{} | {} | {}", case.reference, case.answer, case.is_same)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
