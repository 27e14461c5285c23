//! When two values are the same answer.

use std::borrow::Cow;

use super::eval::{Point, evaluate};
use super::number::Number;
use super::region::Region;
use super::tree::{Expr, Fence, Relation, Value};
use crate::numeric::{PercentSign, Tolerance};

/// At how many points two expressions with variables are compared; half of them are whole numbers.
const POINTS: u64 = 8;

/// At how many of them both must have a value.
const MIN_POINTS: usize = 3;

/// How far two numbers with `\approx` between them may be apart: a rounding to two digits (`1/7 \approx 0.14`).
const ROUNDING: f64 = 0.025;

/// How two values are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub tolerance: Tolerance,
    pub percent_sign: PercentSign,
}

impl Comparison {
    /// Whether `answer` is `reference`; of `1/3 \approx 0.33` either side is.
    pub fn agrees(&self, reference: &Value, answer: &Value) -> bool {
        let (references, answers) = (readings(reference), readings(answer));
        references.iter().any(|reference| answers.iter().any(|answer| self.agrees_exactly(reference, answer)))
    }

    fn agrees_exactly(&self, reference: &Value, answer: &Value) -> bool {
        let (reference, answer) = aligned(reference, answer);
        match (&*reference, &*answer) {
            (Value::Text(word), other) | (other, Value::Text(word)) => {
                as_word(other).is_some_and(|other| other == *word)
            }
            (Value::Scalar(a), Value::Scalar(b)) => self.same_scalar(a, b),
            (Value::Matrix(a), Value::Matrix(b)) => {
                let is_same_row = |(a, b): (&Vec<Expr>, &Vec<Expr>)| {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same_scalar(a, b))
                };
                a.len() == b.len() && a.iter().zip(b).all(is_same_row)
            }
            (Value::Sequence(left, a, right), Value::Sequence(other_left, b, other_right)) => {
                // The brackets of a pair may be those of an interval; those of a longer sequence mean nothing.
                let is_same_kind = a.len() != 2 || (left == other_left && right == other_right);
                is_same_kind && self.same_in_order(a, b)
            }
            (Value::Sequence(Fence::Round, a, Fence::Round), Value::List(b)) => self.same_in_order(a, b),
            (Value::List(a) | Value::Set(a), Value::Sequence(Fence::Round, b, Fence::Round)) => {
                self.same_in_any_order(a, b)
            }
            (Value::List(a) | Value::Set(a), Value::List(b) | Value::Set(b)) => {
                self.same_in_any_order(a, b) || same_region(&reference, &answer)
            }
            (Value::Set(items), other @ Value::Scalar(_)) => self.same_in_any_order(items, std::slice::from_ref(other)),
            (other @ Value::Scalar(_), Value::Set(items)) => self.same_in_any_order(std::slice::from_ref(other), items),
            (Value::Chain(sides, relations), Value::Chain(other_sides, other_relations)) => {
                self.same_chain((sides, relations), (other_sides, other_relations))
            }
            _ => same_region(&reference, &answer),
        }
    }

    fn same_in_order(&self, a: &[Value], b: &[Value]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.agrees(a, b))
    }

    /// Equal as sets: what stands twice counts once.
    fn same_in_any_order(&self, a: &[Value], b: &[Value]) -> bool {
        let holds = |items: &[Value], value: &Value| items.iter().any(|item| self.agrees(value, item));
        a.iter().all(|value| holds(b, value)) && b.iter().all(|value| a.iter().any(|other| self.agrees(other, value)))
    }

    /// Whether two expressions have the same value, wherever both have one.
    fn same_scalar(&self, a: &Expr, b: &Expr) -> bool {
        if a == b {
            return true;
        }
        if let (Expr::Literal { base: Some(a), .. }, Expr::Literal { base: Some(b), .. }) = (a, b)
            && a != b
        {
            return false;
        }
        match (a, b, self.percent_sign) {
            (Expr::Percent(a), Expr::Percent(b), _) => return self.same_scalar(a, b),
            (Expr::Percent(inner), other, PercentSign::Optional)
            | (other, Expr::Percent(inner), PercentSign::Optional)
                if !is_percent(other) && is_amount(inner) && self.same_value(inner, other) =>
            {
                return true;
            }
            _ => {}
        }
        self.same_value(a, b)
    }

    fn same_value(&self, a: &Expr, b: &Expr) -> bool {
        let names = Expr::Sum(vec![a.clone(), b.clone()]).variables();
        if names.is_empty() {
            let is_decimal = |expr: &Expr| expr.any(&|part| matches!(part, Expr::Literal { is_decimal: true, .. }));
            let (x, y) = (evaluate(a, &Point::NOWHERE), evaluate(b, &Point::NOWHERE));
            return x.equals(&y) || ((is_decimal(a) || is_decimal(b)) && self.is_close(&x, &y));
        }
        let mut agreeing = 0;
        for index in 0..POINTS {
            let point = Point::fixed(&names, index);
            let (x, y) = (evaluate(a, &point), evaluate(b, &point));
            if x.equals(&y) {
                agreeing += 1;
            } else if x.is_finite() && y.is_finite() {
                return false;
            }
        }
        agreeing >= MIN_POINTS
    }

    /// Within the tolerance, which is one of rounding: a small number must keep three digits.
    fn is_close(&self, reference: &Number, answer: &Number) -> bool {
        let is_near = self.tolerance.holds(reference.re, answer.re) && self.tolerance.holds(reference.im, answer.im);
        is_near && reference.distance(answer) <= 1e-3 * reference.size()
    }

    fn same_chain(&self, a: (&[Expr], &[Relation]), b: (&[Expr], &[Relation])) -> bool {
        let swapped: Vec<Relation> = b.1.iter().rev().map(|relation| relation.swapped()).collect();
        let reversed: Vec<Expr> = b.0.iter().rev().cloned().collect();
        let is_same = |sides: &[Expr], relations: &[Relation]| {
            let is_same_side = |(a, b): (&Expr, &Expr)| self.same_scalar(a, b);
            a.1 == relations && a.0.iter().zip(sides).all(is_same_side)
        };
        if is_same(b.0, b.1) || is_same(&reversed, &swapped) {
            return true;
        }
        match (a, b) {
            (([left, right], [relation]), ([other_left, other_right], [other_relation])) => {
                let a = left.clone().minus(right.clone());
                let b = other_left.clone().minus(other_right.clone());
                match factor_between(&a, &b) {
                    Some(factor) if factor < 0.0 => *relation == other_relation.swapped(),
                    Some(_) => relation == other_relation,
                    None => false,
                }
            }
            _ => {
                let names = |sides: &[Expr]| Expr::Sum(sides.to_vec()).variables();
                let regions = Region::of_relation(a.0, a.1).zip(Region::of_relation(b.0, b.1));
                names(a.0) == names(b.0) && regions.is_some_and(|(a, b)| a.equals(&b))
            }
        }
    }
}

/// The real number `c` with `a = c b` everywhere, for two expressions that are 0 on the same line, say.
fn factor_between(a: &Expr, b: &Expr) -> Option<f64> {
    let names = Expr::Sum(vec![a.clone(), b.clone()]).variables();
    let mut factor: Option<Number> = None;
    let mut points = 0;
    for index in 0..POINTS {
        let point = Point::fixed(&names, index);
        let (x, y) = (evaluate(a, &point), evaluate(b, &point));
        if !x.is_finite() || !y.is_finite() || (x.is_zero() && y.is_zero()) {
            continue;
        }
        let ratio = x.div(y);
        if !ratio.is_finite()
            || ratio.is_zero()
            || !ratio.is_real()
            || factor.is_some_and(|factor| !factor.equals(&ratio))
        {
            return None;
        }
        factor = Some(ratio);
        points += 1;
    }
    factor.filter(|_| points >= MIN_POINTS && !names.is_empty()).map(|factor| factor.re)
}

fn is_percent(expr: &Expr) -> bool {
    matches!(expr, Expr::Percent(_))
}

/// Whether a number can be one of percent whose sign was left out; 0.5 beside `0.5%` is rather a mistake by 100.
fn is_amount(expr: &Expr) -> bool {
    evaluate(expr, &Point::NOWHERE).size() >= 1.0
}

/// The word that a value spells.
fn as_word(value: &Value) -> Option<String> {
    match value {
        Value::Text(word) => Some(word.clone()),
        Value::Scalar(expr) => expr.as_word(),
        _ => None,
    }
}

fn same_region(a: &Value, b: &Value) -> bool {
    // A chain of equations is no set of numbers, and neither is one number.
    let is_set = |value: &Value| !matches!(value, Value::Scalar(_));
    let regions = Region::of(a).zip(Region::of(b)).filter(|_| is_set(a) && is_set(b));
    regions.is_some_and(|(a, b)| a.equals(&b))
}

/// What a chain says where it rounds: the sides before the sign, and the first with the last. One that begins with the
/// name of what is rounded is an equation. Of numbers that are no rounding of each other neither is read: `3 \approx 5`
/// would be right for 3 and for 5.
fn readings(value: &Value) -> Vec<Cow<'_, Value>> {
    let Value::Chain(sides, relations) = value else { return vec![Cow::Borrowed(value)] };
    let Some(at) = relations.iter().position(|relation| *relation == Relation::Near) else {
        return vec![Cow::Borrowed(value)];
    };
    let result = |end: usize| match sides[0].is_name() {
        true => Value::Chain(vec![sides[0].clone(), sides[end].clone()], vec![Relation::Equal]),
        false => Value::Scalar(sides[end].clone()),
    };
    let [before, after] = [at, sides.len() - 1].map(|side| evaluate(&sides[side], &Point::NOWHERE));
    let are_numbers = before.is_finite() && after.is_finite();
    if are_numbers && before.distance(&after) > ROUNDING * before.size().max(after.size()) {
        return Vec::new();
    }
    let last = Cow::Owned(result(sides.len() - 1));
    if at == 0 && sides[0].is_name() { vec![last] } else { vec![Cow::Owned(result(at)), last] }
}

/// Both values in the form in which they are compared: `x = 5` is 5 where the other side is a mere value, and
/// `x = 2 + 3 = 5` is `x = 5`.
fn aligned<'a>(reference: &'a Value, answer: &'a Value) -> (Cow<'a, Value>, Cow<'a, Value>) {
    use Cow::{Borrowed, Owned};
    let is_chain = |value: &Value| matches!(value, Value::Chain(..));
    let shorten = |value: &'a Value| match equation(value) {
        Some((first, last)) => Owned(Value::Chain(vec![first.clone(), last.clone()], vec![Relation::Equal])),
        None => Borrowed(value),
    };
    // Of `5 = x` the result is 5.
    let result = |first: &Expr, last: &Expr| match last.is_name() && !first.is_name() {
        true => Owned(Value::Scalar(first.clone())),
        false => Owned(Value::Scalar(last.clone())),
    };
    match (equation(reference), equation(answer)) {
        (None, Some((first, last))) if !is_chain(reference) => (Borrowed(reference), result(first, last)),
        (Some((first, last)), None) if !is_chain(answer) && first.is_name() => (result(first, last), Borrowed(answer)),
        _ => (shorten(reference), shorten(answer)),
    }
}

/// First and last side of a chain of equations.
fn equation(value: &Value) -> Option<(&Expr, &Expr)> {
    match value {
        Value::Chain(sides, relations) if relations.iter().all(|relation| *relation == Relation::Equal) => {
            Some((sides.first()?, sides.last()?))
        }
        _ => None,
    }
}
