//! What a mathematical text says, as a tree.

use super::number::Number;

/// An expression: something with a value once its variables have one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// Written in digits.
    Literal {
        value: Number,
        /// It has a decimal point, and so may be rounded.
        is_decimal: bool,
        /// The base in its subscript, if any; the value is that of the digits in base ten.
        base: Option<u32>,
    },
    Constant(Constant),
    Variable(String),
    Sum(Vec<Expr>),
    Product(Vec<Expr>),
    Negated(Box<Expr>),
    Quotient(Box<Expr>, Box<Expr>),
    Power(Box<Expr>, Box<Expr>),
    Percent(Box<Expr>),
    /// An angle in degrees; the same number as without the sign, except in a trigonometric function.
    Degrees(Box<Expr>),
    Apply(Function, Vec<Expr>),
}

impl Expr {
    pub fn integer(value: i128) -> Self {
        Self::Literal { value: Number::integer(value), is_decimal: false, base: None }
    }

    pub fn negated(self) -> Self {
        Self::Negated(Box::new(self))
    }

    pub fn over(self, below: Self) -> Self {
        Self::Quotient(Box::new(self), Box::new(below))
    }

    pub fn raised_to(self, exponent: Self) -> Self {
        Self::Power(Box::new(self), Box::new(exponent))
    }

    /// `self - other`.
    pub fn minus(self, other: Self) -> Self {
        Self::Sum(vec![self, other.negated()])
    }

    /// The expressions right inside this one.
    pub fn children(&self) -> Vec<&Self> {
        match self {
            Self::Literal { .. } | Self::Constant(_) | Self::Variable(_) => Vec::new(),
            Self::Sum(items) | Self::Product(items) | Self::Apply(_, items) => items.iter().collect(),
            Self::Negated(inner) | Self::Percent(inner) | Self::Degrees(inner) => vec![&**inner],
            Self::Quotient(a, b) | Self::Power(a, b) => vec![&**a, &**b],
        }
    }

    /// Whether `holds` for this expression or one inside it. The depth is bounded by the parser.
    pub fn any(&self, holds: &impl Fn(&Self) -> bool) -> bool {
        holds(self) || self.children().into_iter().any(|child| child.any(holds))
    }

    /// The names of the variables, sorted, each once.
    pub fn variables(&self) -> Vec<String> {
        fn collect(expr: &Expr, names: &mut Vec<String>) {
            if let Expr::Variable(name) = expr {
                names.push(name.clone());
            }
            expr.children().into_iter().for_each(|child| collect(child, names));
        }
        let mut names = Vec::new();
        collect(self, &mut names);
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether this can be the name of something: a variable, `AB`, `|AB|`, `a/b`.
    pub fn is_name(&self) -> bool {
        match self {
            Self::Variable(_) => true,
            Self::Product(items) | Self::Apply(Function::Abs, items) => items.iter().all(Self::is_name),
            Self::Quotient(above, below) => above.is_name() && below.is_name(),
            _ => false,
        }
    }

    /// The letters, in small ones, when this is a lone variable or a product of them: a word that was read as one.
    pub fn as_word(&self) -> Option<String> {
        match self {
            Self::Variable(name) => Some(name.to_lowercase()),
            Self::Constant(Constant::E) => Some("e".to_owned()),
            Self::Constant(Constant::I) => Some("i".to_owned()),
            Self::Product(items) => items.iter().map(Self::as_word).collect(),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    Pi,
    E,
    I,
    Infinity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// Root of the first argument; its degree is the second.
    Root,
    /// Logarithm of the first argument to the base of the second.
    Log,
    Ln,
    Exp,
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Sinh,
    Cosh,
    Tanh,
    Abs,
    Floor,
    Ceil,
    Factorial,
    Binomial,
    Min,
    Max,
    Gcd,
    Lcm,
}

impl Function {
    /// The function of this name, as LaTeX and programs write it.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "sqrt" => Self::Root,
            "log" => Self::Log,
            "ln" => Self::Ln,
            "exp" => Self::Exp,
            "sin" => Self::Sin,
            "cos" => Self::Cos,
            "tan" => Self::Tan,
            "cot" => Self::Cot,
            "sec" => Self::Sec,
            "csc" => Self::Csc,
            "arcsin" | "asin" => Self::Arcsin,
            "arccos" | "acos" => Self::Arccos,
            "arctan" | "atan" => Self::Arctan,
            "sinh" => Self::Sinh,
            "cosh" => Self::Cosh,
            "tanh" => Self::Tanh,
            "abs" => Self::Abs,
            "floor" => Self::Floor,
            "ceil" => Self::Ceil,
            "min" => Self::Min,
            "max" => Self::Max,
            "gcd" => Self::Gcd,
            "lcm" => Self::Lcm,
            _ => return None,
        })
    }

    pub fn is_trigonometric(self) -> bool {
        matches!(self, Self::Sin | Self::Cos | Self::Tan | Self::Cot | Self::Sec | Self::Csc)
    }

    /// The inverse, where `f^{-1}` means it.
    pub fn inverse(self) -> Option<Self> {
        match self {
            Self::Sin => Some(Self::Arcsin),
            Self::Cos => Some(Self::Arccos),
            Self::Tan => Some(Self::Arctan),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    /// Equal up to rounding.
    Near,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Relation {
    /// The relation of the two sides in the other order.
    pub fn swapped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            Self::Equal | Self::Near | Self::NotEqual => self,
        }
    }
}

/// What stands at the end of a sequence: whether it holds its border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    Round,
    Square,
}

/// What an answer can be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Scalar(Expr),
    /// `(a, b)`, `[a, b)`: a point, a vector, or an interval.
    Sequence(Fence, Vec<Value>, Fence),
    /// `{a, b}`; empty for the empty set.
    Set(Vec<Value>),
    /// `a, b`, `a or b`, `a \pm b`.
    List(Vec<Value>),
    Union(Vec<Value>),
    Intersection(Vec<Value>),
    Difference(Box<Value>, Box<Value>),
    Reals,
    /// `sides[0] relations[0] sides[1] ...`; one side more than relations.
    Chain(Vec<Expr>, Vec<Relation>),
    Matrix(Vec<Vec<Expr>>),
    /// Words, in small letters.
    Text(String),
}
