//! What the lexer finds in a formula.

use super::number::Number;
use super::tree::{Constant, Function, Relation};

/// How runs of letters are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Between dollar signs and the like: `xy` is a product.
    Math,
    /// In a sentence: `by` is a word, `xy` a product.
    Prose,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Digits; `true` with a decimal point.
    Number(Number, bool),
    Variable(String),
    Constant(Constant),
    Function(Function),
    /// A word, in small letters; `true` out of `\text{}`.
    Word(String, bool),
    Plus,
    Minus,
    PlusMinus,
    MinusPlus,
    Times,
    Slash,
    Colon,
    Caret,
    Underscore,
    Bang,
    Percent,
    Degree,
    Prime,
    Comma,
    Semicolon,
    /// `and`, `or`.
    And,
    OpenRound,
    CloseRound,
    OpenSquare,
    CloseSquare,
    OpenGroup,
    CloseGroup,
    OpenSet,
    CloseSet,
    OpenFloor,
    CloseFloor,
    OpenCeil,
    CloseCeil,
    Bar,
    Frac,
    Binom,
    Relation(Relation),
    In,
    Cup,
    Cap,
    Without,
    EmptySet,
    Reals,
    OpenMatrix,
    CloseMatrix,
    Column,
    Row,
    /// What has no meaning here.
    Other,
}
