//! The value of an expression where its variables have one.

use std::f64::consts::{E, PI};

use super::number::{Number, Ratio};
use super::tree::{Constant, Expr, Function};

/// Largest argument of a factorial or a binomial: a bound on the time of one.
const MAX_FACTORIAL: i128 = 300;

/// A value for each variable.
pub(super) struct Point<'a> {
    names: &'a [String],
    values: Vec<Number>,
}

impl<'a> Point<'a> {
    /// The point without variables.
    pub const NOWHERE: Point<'static> = Point { names: &[], values: Vec::new() };

    /// The `index`-th of the fixed points for these variables.
    ///
    /// Even ones have small positive whole numbers, where factorials and even roots are real; odd ones fractions of both
    /// signs, drawn from about 6,000.
    pub fn fixed(names: &'a [String], index: u64) -> Self {
        let value = |position: usize| {
            let bits = split_mix(index << 32 | position as u64);
            let (high, low) = (i128::from(bits >> 32), i128::from(bits & 0xffff_ffff));
            match index % 2 {
                0 => Number::integer(2 + low % 29),
                _ => {
                    let below = [101, 103, 107][(high % 3) as usize];
                    // Two variables meet in every combination of signs, and so a third with either of them.
                    let (first, second) = (index >> 1 & 1, index >> 2 & 1);
                    let is_negative = [first, second, first ^ second][position % 3] == 1;
                    let sign = if is_negative { -1 } else { 1 };
                    Ratio::new(sign * (1 + low % 1009), below).map_or(Number::UNDEFINED, Number::from)
                }
            }
        };
        Self { names, values: (0..names.len()).map(value).collect() }
    }

    /// The point where the only variable is `value`.
    pub fn at(names: &'a [String], value: Number) -> Self {
        Self { names, values: vec![value; names.len()] }
    }

    fn value(&self, name: &str) -> Number {
        let index = self.names.iter().position(|known| known == name);
        index.map_or(Number::UNDEFINED, |index| self.values[index])
    }
}

/// Steele, Lea and Flood's generator (SplitMix64), one step from `seed`.
fn split_mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The value of `expr` at `point`; undefined where it has none.
pub(super) fn evaluate(expr: &Expr, point: &Point<'_>) -> Number {
    let value = |expr: &Expr| evaluate(expr, point);
    match expr {
        Expr::Literal { value, .. } => *value,
        Expr::Constant(Constant::Pi) => Number::real(PI),
        Expr::Constant(Constant::E) => Number::real(E),
        Expr::Constant(Constant::I) => Number::IMAGINARY,
        Expr::Constant(Constant::Infinity) => Number::real(f64::INFINITY),
        Expr::Variable(name) => point.value(name),
        Expr::Sum(terms) => terms.iter().map(value).fold(Number::integer(0), Number::add),
        Expr::Product(factors) => factors.iter().map(value).fold(Number::integer(1), Number::mul),
        Expr::Negated(inner) => value(inner).neg(),
        Expr::Quotient(above, below) => value(above).div(value(below)),
        // `e^x` is exact in a way that 2.718^x is not.
        Expr::Power(base, exponent) if **base == Expr::Constant(Constant::E) => value(exponent).exp(),
        Expr::Power(base, exponent) => value(base).pow(value(exponent)),
        Expr::Percent(inner) => value(inner).div(Number::integer(100)),
        Expr::Degrees(inner) => value(inner),
        Expr::Apply(function, arguments) => {
            let is_in_degrees =
                function.is_trigonometric() && arguments.iter().any(|a| a.any(&|e| matches!(e, Expr::Degrees(_))));
            let mut values: Vec<Number> = arguments.iter().map(value).collect();
            if is_in_degrees {
                values.iter_mut().for_each(|angle| *angle = angle.mul(Number::real(PI / 180.0)));
            }
            apply(*function, &values)
        }
    }
}

fn apply(function: Function, arguments: &[Number]) -> Number {
    let Some(&x) = arguments.first() else { return Number::UNDEFINED };
    let one = Number::integer(1);
    let second = arguments.get(1).copied();
    match function {
        Function::Root => x.root(second.unwrap_or(Number::integer(2))),
        Function::Log => x.ln().div(second.unwrap_or(Number::integer(10)).ln()),
        Function::Ln => x.ln(),
        Function::Exp => x.exp(),
        Function::Sin => x.map_real(f64::sin),
        Function::Cos => x.map_real(f64::cos),
        Function::Tan => tangent(x),
        Function::Cot => one.div(tangent(x)),
        Function::Sec => one.div(x.map_real(f64::cos)),
        Function::Csc => one.div(x.map_real(f64::sin)),
        Function::Arcsin => x.map_real(f64::asin),
        Function::Arccos => x.map_real(f64::acos),
        Function::Arctan => x.map_real(f64::atan),
        Function::Sinh => x.map_real(f64::sinh),
        Function::Cosh => x.map_real(f64::cosh),
        Function::Tanh => x.map_real(f64::tanh),
        Function::Abs => x.abs(),
        Function::Floor => rounded(x, f64::floor, |ratio| ratio.above.div_euclid(ratio.below)),
        Function::Ceil => rounded(x, f64::ceil, |ratio| -(-ratio.above).div_euclid(ratio.below)),
        Function::Factorial => factorial(x),
        Function::Binomial => second.map_or(Number::UNDEFINED, |k| binomial(x, k)),
        Function::Min => extreme(arguments, |a, b| a < b),
        Function::Max => extreme(arguments, |a, b| a > b),
        Function::Gcd => fold_integers(arguments, gcd),
        Function::Lcm => {
            fold_integers(arguments, |a, b| a.checked_div(gcd(a, b)).and_then(|a| a.checked_mul(b)).unwrap_or(0))
        }
    }
}

/// Without a value at the poles, which rounding would pass over.
fn tangent(x: Number) -> Number {
    let cosine = x.map_real(f64::cos);
    if cosine.size() < 1e-12 { Number::UNDEFINED } else { x.map_real(f64::sin).div(cosine) }
}

fn rounded(x: Number, float: impl Fn(f64) -> f64, exact: impl Fn(Ratio) -> i128) -> Number {
    match x.exact.filter(|ratio| ratio.above > i128::MIN) {
        Some(ratio) => Number::integer(exact(ratio)),
        // A whole number that rounding has moved stays what it is.
        None if (x.re - x.re.round()).abs() < 1e-9 => x.map_real(f64::round),
        None => x.map_real(float),
    }
}

fn factorial(x: Number) -> Number {
    match x.as_integer().filter(|n| (0..=MAX_FACTORIAL).contains(n)) {
        Some(n) => (1..=n).map(Number::integer).fold(Number::integer(1), Number::mul),
        None => Number::UNDEFINED,
    }
}

fn binomial(n: Number, k: Number) -> Number {
    let Some(k) = k.as_integer().filter(|k| (0..=MAX_FACTORIAL).contains(k)) else { return Number::UNDEFINED };
    let factor = |i: i128| n.add(Number::integer(-i)).div(Number::integer(i + 1));
    (0..k).map(factor).fold(Number::integer(1), Number::mul)
}

fn extreme(arguments: &[Number], is_better: impl Fn(f64, f64) -> bool) -> Number {
    if !arguments.iter().all(|argument| argument.is_finite() && argument.is_real()) {
        return Number::UNDEFINED;
    }
    let better = |a: Number, b: Number| if is_better(b.re, a.re) { b } else { a };
    arguments.iter().copied().reduce(better).unwrap_or(Number::UNDEFINED)
}

fn fold_integers(arguments: &[Number], fold: impl Fn(i128, i128) -> i128) -> Number {
    let bounded = |number: &Number| number.as_integer().filter(|value| value.unsigned_abs() <= 1 << 62);
    let integers = arguments.iter().map(|number| bounded(number).map(i128::abs)).collect::<Option<Vec<_>>>();
    let value = integers.and_then(|integers| integers.into_iter().reduce(fold));
    value.filter(|value| *value > 0).map_or(Number::UNDEFINED, Number::integer)
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse;
    use super::super::token::Mode;
    use super::super::tree::Value;
    use super::*;

    fn value(text: &str) -> Number {
        match parse(text, Mode::Math) {
            Some(Value::Scalar(expr)) => evaluate(&expr, &Point::NOWHERE),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn values_of_expressions() {
        let cases = [
            ("1 + 2 \\cdot 3", 7.0),
            ("2^{3^2}", 512.0),
            ("-2^2", -4.0),
            ("\\frac{1}{2} + \\frac13", 5.0 / 6.0),
            ("3\\frac{1}{2}", 3.5),
            ("-3\\frac12", -3.5),
            ("3 1/2", 3.5),
            ("2\\sqrt{3}", 2.0 * 3_f64.sqrt()),
            ("\\sqrt[3]{-8}", -2.0),
            ("8^{1/3}", 2.0),
            ("|-3| + |2|", 5.0),
            ("||-3| - 5|", 2.0),
            ("\\lfloor -3.5 \\rfloor", -4.0),
            ("\\lceil 7/2 \\rceil", 4.0),
            ("5!", 120.0),
            ("\\binom{5}{2}", 10.0),
            ("\\log_2 8", 3.0),
            ("\\log 100", 2.0),
            ("\\ln e^2", 2.0),
            ("\\sin 30^\\circ", 0.5),
            ("\\sin^2 1 + \\cos^2 1", 1.0),
            ("\\sin^{-1} 1", PI / 2.0),
            ("90^\\circ", 90.0),
            ("12.5\\%", 0.125),
            ("e^{i\\pi}", -1.0),
            ("i^2", -1.0),
            ("2(3+4)", 14.0),
            ("6/2/3", 1.0),
            ("2^10", 1024.0),
            ("2**3", 8.0),
            ("\\gcd(12, 18)", 6.0),
            ("\\max(1, 3, 2)", 3.0),
            ("2√9", 6.0),
            ("2½", 2.5),
            ("3²", 9.0),
            ("1.5 × 10^3", 1500.0),
            ("--3", 3.0),
            ("2 \\cdot -3", -6.0),
        ];
        for (text, expected) in cases {
            let got = value(text);
            assert!(got.distance(&Number::real(expected)) < 1e-12, "{text}: {got:?}, not {expected}");
        }
    }

    #[test]
    fn what_has_no_value_is_undefined() {
        for text in
            ["1/0", "0^{-1}", "\\ln 0", "\\tan 90^\\circ", "1000000!", "(1/2)!", "\\arcsin 2", "x", "\\gcd(1/2, 3)"]
        {
            assert!(!value(text).is_finite(), "{text}");
        }
    }

    #[test]
    fn points_are_fixed_and_different() {
        let names = ["x".to_owned(), "y".to_owned()];
        let values = |index| Point::fixed(&names, index).values;
        assert_eq!(values(3), values(3));
        let all: Vec<Number> = (0..8).flat_map(values).collect();
        for (index, value) in all.iter().enumerate() {
            assert!(value.is_finite() && !value.is_zero());
            assert!(all[..index].iter().filter(|other| *other == value).count() < 2);
        }
    }
}
