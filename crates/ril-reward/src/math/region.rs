//! Sets of real numbers: unions of intervals.

use super::eval::{Point, evaluate};
use super::number::Number;
use super::tree::{Expr, Fence, Relation, Value};

/// An interval that is not empty; a border at infinity is open.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    low: Border,
    high: Border,
}

/// Where an interval ends, and whether it holds that number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Border {
    at: f64,
    is_closed: bool,
}

/// Disjoint intervals in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Region(Vec<Span>);

const ALL: Span = Span {
    low: Border { at: f64::NEG_INFINITY, is_closed: false },
    high: Border { at: f64::INFINITY, is_closed: false },
};

impl Region {
    /// The real numbers that a value describes; `None` when it is no set of them, or depends on a parameter.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Reals => Some(Self(vec![ALL])),
            Value::Set(items) => {
                let points = items.iter().map(|item| border(item, true).map(|at| Span { low: at, high: at }));
                Some(Self::new(points.collect::<Option<Vec<_>>>()?))
            }
            Value::Sequence(left, items, right) => {
                let [low, high] = items.as_slice() else { return None };
                let low = border(low, *left == Fence::Square)?;
                let high = border(high, *right == Fence::Square)?;
                Some(Self::new(vec![Span { low, high }]))
            }
            Value::Union(parts) => {
                let parts = parts.iter().map(Self::of).collect::<Option<Vec<_>>>()?;
                Some(Self::new(parts.into_iter().flat_map(|region| region.0).collect()))
            }
            Value::Intersection(parts) => {
                let parts = parts.iter().map(Self::of).collect::<Option<Vec<_>>>()?;
                Some(parts.iter().fold(Self(vec![ALL]), |whole, part| whole.intersect(part)))
            }
            Value::Difference(whole, part) => Some(Self::of(whole)?.intersect(&Self::of(part)?.complement())),
            Value::Chain(sides, relations) => Self::of_relation(sides, relations),
            Value::List(items) => {
                let sides = items.iter().map(|item| match item {
                    Value::Chain(sides, _) => Some(sides.as_slice()),
                    _ => None,
                });
                let sides = sides.collect::<Option<Vec<_>>>()?.concat();
                let parts = items.iter().map(Self::of).collect::<Option<Vec<_>>>()?;
                let is_of_one_variable = Expr::Sum(sides).variables().len() == 1;
                is_of_one_variable.then(|| Self::new(parts.into_iter().flat_map(|region| region.0).collect()))
            }
            _ => None,
        }
    }

    /// Where a chain of relations that are linear in one variable holds.
    pub fn of_relation(sides: &[Expr], relations: &[Relation]) -> Option<Self> {
        let names = Expr::Sum(sides.to_vec()).variables();
        let links = sides.windows(2).zip(relations);
        let parts = links.map(|(pair, relation)| solve(&pair[0], *relation, &pair[1], &names));
        let parts = parts.collect::<Option<Vec<_>>>().filter(|_| names.len() == 1)?;
        Some(parts.iter().fold(Self(vec![ALL]), |whole, part| whole.intersect(part)))
    }

    fn new(mut spans: Vec<Span>) -> Self {
        spans.retain(|span| {
            let is_point = is_same(span.low.at, span.high.at);
            if is_point { span.low.is_closed && span.high.is_closed } else { span.low.at < span.high.at }
        });
        spans.sort_by(|a, b| a.low.at.total_cmp(&b.low.at).then(b.low.is_closed.cmp(&a.low.is_closed)));
        let mut merged: Vec<Span> = Vec::new();
        for span in spans {
            match merged.last_mut() {
                Some(last) if touches(last.high, span.low) => {
                    if is_same(last.high.at, span.high.at) {
                        last.high.is_closed |= span.high.is_closed;
                    } else if span.high.at > last.high.at {
                        last.high = span.high;
                    }
                    if is_same(last.low.at, span.low.at) {
                        last.low.is_closed |= span.low.is_closed;
                    }
                }
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    fn intersect(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        let tighter = |a: Border, b: Border, is_low: bool| match () {
            () if is_same(a.at, b.at) => Border { at: a.at, is_closed: a.is_closed && b.is_closed },
            () if (a.at > b.at) == is_low => a,
            () => b,
        };
        Self::new(
            pairs
                .map(|(a, b)| Span { low: tighter(a.low, b.low, true), high: tighter(a.high, b.high, false) })
                .collect(),
        )
    }

    fn complement(&self) -> Self {
        let mut low = ALL.low;
        let mut gaps = Vec::new();
        for span in &self.0 {
            gaps.push(Span { low, high: Border { is_closed: !span.low.is_closed, ..span.low } });
            low = Border { is_closed: !span.high.is_closed, ..span.high };
        }
        gaps.push(Span { low, high: ALL.high });
        gaps.retain(|gap| gap.low.at < f64::INFINITY && gap.high.at > f64::NEG_INFINITY);
        Self::new(gaps)
    }

    /// Equal up to rounding of the borders.
    pub fn equals(&self, other: &Self) -> bool {
        let is_same_border = |a: Border, b: Border| is_same(a.at, b.at) && a.is_closed == b.is_closed;
        let is_same_span = |(a, b): (&Span, &Span)| is_same_border(a.low, b.low) && is_same_border(a.high, b.high);
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(is_same_span)
    }
}

fn is_same(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).clamp(1e-4, f64::MAX)
}

/// Whether no number lies between an upper border and the next lower one.
fn touches(high: Border, low: Border) -> bool {
    if is_same(high.at, low.at) { high.is_closed || low.is_closed } else { high.at > low.at }
}

fn border(value: &Value, is_closed: bool) -> Option<Border> {
    let Value::Scalar(expr) = value else { return None };
    let number = evaluate(expr, &Point::NOWHERE);
    let is_known = number.is_real() && !number.re.is_nan();
    is_known.then_some(Border { at: number.re, is_closed: is_closed && number.re.is_finite() })
}

/// Where `left relation right` holds, when that is linear in its only variable.
fn solve(left: &Expr, relation: Relation, right: &Expr, names: &[String]) -> Option<Region> {
    let difference = left.clone().minus(right.clone());
    let value = |x: i128| evaluate(&difference, &Point::at(names, Number::integer(x)));
    let (start, slope) = (value(0), value(1).add(value(0).neg()));
    let is_linear = [-3, 2, 7, 50].iter().all(|&x| value(x).equals(&slope.mul(Number::integer(x)).add(start)));
    if relation == Relation::Near || !is_linear || slope.is_zero() || !slope.is_real() || !start.is_real() {
        return None;
    }
    let at = start.neg().div(slope).re;
    let relation = if slope.re < 0.0 { relation.swapped() } else { relation };
    let (open, closed) = (Border { at, is_closed: false }, Border { at, is_closed: true });
    let (below, above) = (|high| Span { low: ALL.low, high }, |low| Span { low, high: ALL.high });
    Some(Region(match relation {
        Relation::Equal | Relation::Near => vec![Span { low: closed, high: closed }],
        Relation::NotEqual => vec![below(open), above(open)],
        Relation::Less => vec![below(open)],
        Relation::LessEqual => vec![below(closed)],
        Relation::Greater => vec![above(open)],
        Relation::GreaterEqual => vec![above(closed)],
    }))
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse;
    use super::super::token::Mode;
    use super::*;

    fn region(text: &str) -> Region {
        let value = parse(text, Mode::Math).unwrap_or_else(|| panic!("not read: {text}"));
        Region::of(&value).unwrap_or_else(|| panic!("no region: {text}"))
    }

    #[test]
    fn equal_regions() {
        let cases = [
            ("1 < x < 2", "(1, 2)"),
            ("x \\ge 3", "[3, \\infty)"),
            ("-2x < 6", "(-3, \\infty)"),
            ("3 > x", "x < 3"),
            ("x \\ne 1", "(-\\infty, 1) \\cup (1, \\infty)"),
            ("\\mathbb{R} \\setminus \\{1, 2\\}", "(2, \\infty) \\cup (-\\infty, 1) \\cup (1, 2)"),
            ("[0, 2] \\cup [1, 3]", "[0, 3]"),
            ("[0, 1] \\cup (1, 3]", "[0, 3]"),
            ("[0, 2] \\cap [1, 3]", "[1, 2]"),
            ("[0, 1] \\cap [1, 3]", "\\{1\\}"),
            ("(0, 1) \\cap (1, 3)", "\\emptyset"),
            ("\\mathbb{R}", "(-\\infty, \\infty)"),
            ("[0, 1/3]", "0 \\le 3x \\le 1"),
            ("x < 1, x > 2", "(-\\infty, 1) \\cup (2, \\infty)"),
        ];
        for (a, b) in cases {
            assert!(region(a).equals(&region(b)), "{a} and {b}: {:?} {:?}", region(a), region(b));
        }
    }

    #[test]
    fn regions_that_differ() {
        let cases = [
            ("(1, 2)", "[1, 2)"),
            ("(1, 2)", "(1, 3)"),
            ("x < 3", "x \\le 3"),
            ("x < 3", "x > 3"),
            ("\\mathbb{R}", "x \\ne 0"),
            ("(0, 1) \\cup (1, 2)", "(0, 2)"),
            ("\\emptyset", "\\{0\\}"),
        ];
        for (a, b) in cases {
            assert!(!region(a).equals(&region(b)), "{a} and {b}");
        }
        for text in ["x^2 < 4", "x < y", "(a, b)", "x", "1 < 2"] {
            let value = parse(text, Mode::Math).unwrap_or_else(|| panic!("not read: {text}"));
            assert_eq!(Region::of(&value), None, "{text}");
        }
    }
}
