//! The table of commands and signs.

use super::lexer::Token;
use super::number::Number;
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

/// The meaning of the command `\name`; one that is not known is the name of a variable.
pub(super) fn command(name: &str) -> Meaning {
    let token = match name {
        "left" | "right" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl" | "Bigr" | "displaystyle"
        | "textstyle" | "limits" | "nolimits" | "," | "!" | ";" | ":" | " " | ">" | "quad" | "qquad" | "$" | "("
        | ")" | "[" | "]" | "boxed" | "fbox" | "vec" | "overline" | "bar" | "hat" | "mathstrut" | "phantom"
        | "middle" => {
            return Meaning::Nothing;
        }
        "text" | "textnormal" | "textbf" | "textit" | "textrm" | "textsf" | "mathrm" | "mbox" | "hbox"
        | "operatorname" | "rm" => {
            return Meaning::Text;
        }
        "mathbf" | "mathit" | "boldsymbol" | "bm" | "mathsf" | "mathcal" => return Meaning::Nothing,
        "begin" => return Meaning::Environment(Token::OpenMatrix),
        "end" => return Meaning::Environment(Token::CloseMatrix),
        "\\" | "cr" => Token::Row,
        "{" | "lbrace" => Token::OpenSet,
        "}" | "rbrace" => Token::CloseSet,
        "%" => Token::Percent,
        "&" => Token::And,
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
        "langle" => Token::OpenRound,
        "rangle" => Token::CloseRound,
        "lfloor" => Token::OpenFloor,
        "rfloor" => Token::CloseFloor,
        "lceil" => Token::OpenCeil,
        "rceil" => Token::CloseCeil,
        "vert" | "lvert" | "rvert" | "mid" | "|" | "Vert" => Token::Bar,
        "lbrack" => Token::OpenSquare,
        "rbrack" => Token::CloseSquare,
        "le" | "leq" | "leqslant" => Token::Relation(Relation::LessEqual),
        "ge" | "geq" | "geqslant" => Token::Relation(Relation::GreaterEqual),
        "lt" => Token::Relation(Relation::Less),
        "gt" => Token::Relation(Relation::Greater),
        "ne" | "neq" => Token::Relation(Relation::NotEqual),
        "approx" | "simeq" => Token::Relation(Relation::Near),
        "equiv" => Token::Relation(Relation::Equal),
        "in" => Token::In,
        "cup" => Token::Cup,
        "cap" => Token::Cap,
        "setminus" | "backslash" => Token::Without,
        "emptyset" | "varnothing" => Token::EmptySet,
        "mathbb" | "Bbb" => return Meaning::Blackboard,
        "lor" | "vee" => Token::And,
        "colon" => Token::Colon,
        "ldots" | "dots" | "cdots" | "int" | "sum" | "prod" | "lim" | "to" | "rightarrow" | "implies" => Token::Other,
        _ => Function::of_name(name).map_or_else(|| Token::Variable(name.to_owned()), Token::Function),
    };
    Meaning::Token(token)
}

/// The tokens of a sign; `None` for one without a meaning, and for letters.
pub(super) fn symbol(c: char) -> Option<Vec<Token>> {
    let number = |value| Token::Number(Number::integer(value), false);
    let fraction = |above, below| Some(vec![number(above), Token::Slash, number(below)]);
    let power = |value| Some(vec![Token::Caret, number(value)]);
    let token = match c {
        _ if c.is_whitespace() => return Some(Vec::new()),
        '.' | '$' | '€' | '£' | '¥' | '₹' | '~' | '`' | '"' | '“' | '”' | '\u{200b}' => {
            return Some(Vec::new());
        }
        '½' => return fraction(1, 2),
        '⅓' => return fraction(1, 3),
        '⅔' => return fraction(2, 3),
        '¼' => return fraction(1, 4),
        '¾' => return fraction(3, 4),
        '¹' => return power(1),
        '²' => return power(2),
        '³' => return power(3),
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
        '=' | '≡' => Token::Relation(Relation::Equal),
        '≈' => Token::Relation(Relation::Near),
        '<' => Token::Relation(Relation::Less),
        '>' => Token::Relation(Relation::Greater),
        '≤' | '⩽' => Token::Relation(Relation::LessEqual),
        '≥' | '⩾' => Token::Relation(Relation::GreaterEqual),
        '≠' => Token::Relation(Relation::NotEqual),
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
    };
    Some(vec![token])
}
