//! The table of commands and signs.

use super::number::Number;
use super::token::Token;
use super::tree::{Constant, Function, Relation};

/// What a LaTeX command means.
pub(super) enum Meaning {
    /// Layout.
    Nothing,
    Token(Token),
    /// Its argument is text.
    Text,
    /// Its argument is a letter of a set of numbers.
    Blackboard,
    /// Its argument names an environment; the token is that of a matrix.
    Environment(Token),
}

/// Commands of layout, and of letters that mean the same in any style.
const LAYOUT: &str = " left right middle big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits nolimits \
    quad qquad boxed fbox vec overline bar hat mathstrut phantom mathbf mathit boldsymbol bm mathsf mathcal ";

/// Commands of one sign that are layout; `\(` and its like stand around a formula.
const LAYOUT_SIGNS: &str = ",!;:> $()[]";

/// Commands whose argument is text.
const TEXT: &str = " text textnormal textbf textit textrm textsf mathrm mbox hbox operatorname rm ";

/// Commands that are not read.
const OTHER: &str = " ldots dots cdots int sum prod lim to rightarrow implies ";

fn is_in(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|listed| listed == name)
}

/// The meaning of the command `\name`; one that is not known is the name of a variable.
pub(super) fn command(name: &str) -> Meaning {
    match name {
        "begin" => Meaning::Environment(Token::OpenMatrix),
        "end" => Meaning::Environment(Token::CloseMatrix),
        "mathbb" | "Bbb" => Meaning::Blackboard,
        _ if is_in(LAYOUT, name) || (name.chars().count() == 1 && LAYOUT_SIGNS.contains(name)) => Meaning::Nothing,
        _ if is_in(TEXT, name) => Meaning::Text,
        _ if is_in(OTHER, name) => Meaning::Token(Token::Other),
        _ => {
            let known = bracket(name).or_else(|| operator(name)).or_else(|| relation(name).map(Token::Relation));
            let named = || Function::of_name(name).map(Token::Function);
            Meaning::Token(known.or_else(named).unwrap_or_else(|| Token::Variable(name.to_owned())))
        }
    }
}

fn bracket(name: &str) -> Option<Token> {
    Some(match name {
        "{" | "lbrace" => Token::OpenSet,
        "}" | "rbrace" => Token::CloseSet,
        "langle" => Token::OpenRound,
        "rangle" => Token::CloseRound,
        "lbrack" => Token::OpenSquare,
        "rbrack" => Token::CloseSquare,
        "lfloor" => Token::OpenFloor,
        "rfloor" => Token::CloseFloor,
        "lceil" => Token::OpenCeil,
        "rceil" => Token::CloseCeil,
        "vert" | "lvert" | "rvert" | "mid" | "|" | "Vert" => Token::Bar,
        _ => return None,
    })
}

fn operator(name: &str) -> Option<Token> {
    Some(match name {
        "\\" | "cr" => Token::Row,
        "%" => Token::Percent,
        "&" | "lor" | "vee" => Token::And,
        "frac" | "dfrac" | "tfrac" | "cfrac" => Token::Frac,
        "binom" | "dbinom" | "tbinom" => Token::Binom,
        "pi" => Token::Constant(Constant::Pi),
        "infty" => Token::Constant(Constant::Infinity),
        "imath" => Token::Constant(Constant::I),
        "cdot" | "times" | "ast" => Token::Times,
        "div" => Token::Slash,
        "pm" => Token::PlusMinus,
        "mp" => Token::MinusPlus,
        "circ" | "degree" => Token::Degree,
        "prime" => Token::Prime,
        "colon" => Token::Colon,
        "in" => Token::In,
        "cup" => Token::Cup,
        "cap" => Token::Cap,
        "setminus" | "backslash" => Token::Without,
        "emptyset" | "varnothing" => Token::EmptySet,
        _ => return None,
    })
}

fn relation(name: &str) -> Option<Relation> {
    Some(match name {
        "le" | "leq" | "leqslant" | "≤" | "⩽" => Relation::LessEqual,
        "ge" | "geq" | "geqslant" | "≥" | "⩾" => Relation::GreaterEqual,
        "lt" | "<" => Relation::Less,
        "gt" | ">" => Relation::Greater,
        "ne" | "neq" | "≠" => Relation::NotEqual,
        "approx" | "simeq" | "≈" => Relation::Near,
        "equiv" | "=" | "≡" => Relation::Equal,
        _ => return None,
    })
}

/// The tokens of a sign; `None` for one without a meaning, and for letters.
pub(super) fn symbol(c: char) -> Option<Vec<Token>> {
    if c.is_whitespace() || ".$€£¥₹~`\"“”\u{200b}".contains(c) {
        return Some(Vec::new());
    }
    let number = |value| Token::Number(Number::integer(value), false);
    let fraction = |above, below| Some(vec![number(above), Token::Slash, number(below)]);
    let power = |value| Some(vec![Token::Caret, number(value)]);
    match c {
        '½' => fraction(1, 2),
        '⅓' => fraction(1, 3),
        '⅔' => fraction(2, 3),
        '¼' => fraction(1, 4),
        '¾' => fraction(3, 4),
        '¹' => power(1),
        '²' => power(2),
        '³' => power(3),
        _ => {
            let known = relation(c.encode_utf8(&mut [0; 4])).map(Token::Relation);
            known.or_else(|| bracket_sign(c)).or_else(|| operator_sign(c)).map(|token| vec![token])
        }
    }
}

fn bracket_sign(c: char) -> Option<Token> {
    Some(match c {
        '(' | '（' | '⟨' => Token::OpenRound,
        ')' | '）' | '⟩' => Token::CloseRound,
        '[' => Token::OpenSquare,
        ']' => Token::CloseSquare,
        '{' => Token::OpenGroup,
        '}' => Token::CloseGroup,
        '⌊' => Token::OpenFloor,
        '⌋' => Token::CloseFloor,
        '⌈' => Token::OpenCeil,
        '⌉' => Token::CloseCeil,
        '|' => Token::Bar,
        _ => return None,
    })
}

fn operator_sign(c: char) -> Option<Token> {
    Some(match c {
        '+' => Token::Plus,
        '-' | '−' | '–' => Token::Minus,
        '±' => Token::PlusMinus,
        '∓' => Token::MinusPlus,
        '*' | '×' | '·' | '⋅' => Token::Times,
        '/' | '÷' | '∕' => Token::Slash,
        ':' => Token::Colon,
        '^' => Token::Caret,
        '_' => Token::Underscore,
        '!' => Token::Bang,
        '%' | '％' => Token::Percent,
        '°' | 'º' => Token::Degree,
        '\'' | '′' | '’' => Token::Prime,
        ',' | '，' | '、' => Token::Comma,
        ';' | '；' => Token::Semicolon,
        '∈' => Token::In,
        '∪' => Token::Cup,
        '∩' => Token::Cap,
        '∖' => Token::Without,
        '∅' => Token::EmptySet,
        'ℝ' => Token::Reals,
        '√' => Token::Function(Function::Root),
        'π' => Token::Constant(Constant::Pi),
        '∞' => Token::Constant(Constant::Infinity),
        '&' => Token::Column,
        _ => return None,
    })
}
