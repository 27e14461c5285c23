//! Tokens as a [`Value`]: lists, sets, intervals, matrices, relations. What is inside them: [`super::terms`].

use super::lexer::tokens;
use super::token::{Mode, Token};
use super::tree::{Expr, Fence, Relation, Value};

/// Deepest nesting that is read: every bound on recursion follows from it.
pub(super) const MAX_DEPTH: usize = 48;

/// Most items of a list, a set or a sequence, and most rows of a matrix.
pub(super) const MAX_ITEMS: usize = 64;

/// What a text says; `None` when it is no mathematics that this crate reads.
pub(super) fn parse(text: &str, mode: Mode) -> Option<Value> {
    read(&tokens(text, mode)?)
}

/// [`parse`] of tokens. `\pm` gives the list of both values; all `\pm` of one text have the same sign, all `\mp` the
/// other one.
pub(super) fn read(tokens: &[Token]) -> Option<Value> {
    let upper = Parser::new(tokens, true).whole()?;
    if !tokens.iter().any(|token| matches!(token, Token::PlusMinus | Token::MinusPlus)) {
        return Some(upper);
    }
    let lower = Parser::new(tokens, false).whole()?;
    Some(Value::List([upper, lower].into_iter().flat_map(items_of).collect()))
}

/// The items of a list; a list of one for anything else.
fn items_of(value: Value) -> Vec<Value> {
    match value {
        Value::List(items) => items,
        other => vec![other],
    }
}

pub(super) struct Parser<'a> {
    pub(super) tokens: &'a [Token],
    pub(super) at: usize,
    pub(super) depth: usize,
    /// How many sets are open.
    pub(super) set_depth: usize,
    /// Whether `|` opens or closes.
    pub(super) is_in_bars: bool,
    /// The sign of `\pm`.
    pub(super) is_upper: bool,
    /// For each opening bracket, where it closes, and whether a comma stands right inside.
    pub(super) closings: Vec<Option<(usize, bool)>>,
}

impl<'a> Parser<'a> {
    fn new(tokens: &'a [Token], is_upper: bool) -> Self {
        Self { tokens, at: 0, depth: 0, set_depth: 0, is_in_bars: false, is_upper, closings: closings(tokens) }
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead)
    }

    /// Passes over `token` if it is next.
    pub(super) fn eat(&mut self, token: &Token) -> bool {
        let is_next = self.peek() == Some(token);
        self.at += usize::from(is_next);
        is_next
    }

    /// Runs `read` one level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn whole(mut self) -> Option<Value> {
        let mut items = self.items()?;
        if self.at < self.tokens.len() {
            return None;
        }
        if items.len() == 1 { items.pop() } else { Some(Value::List(items)) }
    }

    /// Items with commas or words between them.
    pub(super) fn items(&mut self) -> Option<Vec<Value>> {
        let mut items = vec![self.item()?];
        while self.separator() {
            if items.len() == MAX_ITEMS {
                return None;
            }
            items.push(self.item()?);
        }
        Some(items)
    }

    fn separator(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(Token::Comma | Token::Semicolon | Token::And)) {
            self.at += 1;
        }
        // `1, 2, and 3` has two marks, `1,,,2` none that means anything.
        (1..=2).contains(&(self.at - start))
    }

    fn item(&mut self) -> Option<Value> {
        if let Some(text) = self.text() {
            return Some(text);
        }
        let value = self.deeper(Self::related)?;
        self.units();
        Some(value)
    }

    /// Words and nothing else up to the end of the item. Words before mathematics are passed over; before an equals
    /// sign they are the name of a variable.
    fn text(&mut self) -> Option<Value> {
        let rest = &self.tokens[self.at..];
        let is_word = |token: &&Token| matches!(token, Token::Word(..));
        let leading = rest.iter().take_while(is_word).count();
        let is_letter = |token: &Token| matches!(token, Token::Word(..) | Token::Variable(_) | Token::Constant(_));
        let length = rest.iter().take_while(|token| is_letter(token)).count();
        let ends =
            matches!(rest.get(length), None | Some(Token::Comma | Token::Semicolon | Token::And | Token::CloseSet));
        let is_lone_letter = matches!(rest, [Token::Word(word, _), ..] if length == 1 && word.chars().count() == 1);
        if leading > 0 && ends && !is_lone_letter {
            let words = rest[..length].iter().map(|token| match token {
                Token::Word(word, _) => word.to_lowercase(),
                Token::Variable(name) => name.to_lowercase(),
                _ => "e".to_owned(),
            });
            self.at += length;
            return Some(Value::Text(words.collect::<Vec<_>>().join(" ")));
        }
        if !is_lone_letter && rest.get(leading).is_some_and(|next| !matches!(next, Token::Caret | Token::Slash)) {
            let is_named = matches!(rest.get(leading), Some(Token::Relation(_)));
            self.at += if is_named { leading.saturating_sub(1) } else { leading };
        }
        None
    }

    /// Units behind a value: words with their exponents, and the scale of a temperature.
    fn units(&mut self) {
        let start = self.at;
        if matches!(self.tokens[..self.at].last(), Some(Token::Degree))
            && matches!(self.peek(), Some(Token::Variable(name)) if name == "C" || name == "F")
        {
            self.at += 1;
        }
        let is_word = |token: Option<&Token>| matches!(token, Some(Token::Word(..)));
        loop {
            match self.peek() {
                Some(Token::Word(..)) => self.at += 1,
                Some(Token::Slash | Token::Times) if is_word(self.peek_at(1)) => self.at += 2,
                Some(Token::Caret) if self.at > start => {
                    self.at += 1;
                    if self.exponent().is_none() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Sides with relations, `x \in S`, ratios `a : b`.
    fn related(&mut self) -> Option<Value> {
        if let Some(name) = self.function_head() {
            self.eat(&Token::Relation(Relation::Equal));
            return self.chain(Expr::Variable(name), Relation::Equal);
        }
        if self.is_set() {
            let set = self.sets()?;
            // `(x, y) = (1, 2)`: the last side is the result.
            return if self.eat(&Token::Relation(Relation::Equal)) { self.deeper(Self::related) } else { Some(set) };
        }
        let mut parts = vec![self.sum()?];
        while self.eat(&Token::Colon) {
            parts.push(self.sum()?);
        }
        let first = match <[Expr; 2]>::try_from(parts) {
            Ok([above, below]) => above.over(below),
            Err(mut parts) if parts.len() == 1 => parts.pop()?,
            Err(parts) => {
                let parts = parts.into_iter().map(Value::Scalar).collect();
                return Some(Value::Sequence(Fence::Round, parts, Fence::Round));
            }
        };
        match self.peek() {
            Some(Token::In) => {
                self.at += 1;
                self.sets()
            }
            Some(Token::Relation(relation)) => {
                self.at += 1;
                self.chain(first, *relation)
            }
            _ => Some(Value::Scalar(first)),
        }
    }

    /// What follows the first side of a relation. `A = {1, 2}` is the set.
    fn chain(&mut self, first: Expr, relation: Relation) -> Option<Value> {
        if self.is_set() && relation == Relation::Equal {
            return self.sets();
        }
        let (mut sides, mut relations) = (vec![first, self.side()?], vec![relation]);
        while let Some(Token::Relation(relation)) = self.peek() {
            self.at += 1;
            relations.push(*relation);
            sides.push(self.side()?);
        }
        Some(Value::Chain(sides, relations))
    }

    /// A sum or a ratio.
    fn side(&mut self) -> Option<Expr> {
        let above = self.sum()?;
        if self.eat(&Token::Colon) { Some(above.over(self.sum()?)) } else { Some(above) }
    }

    /// `f(x)` before an equals sign, as the name of one variable.
    fn function_head(&mut self) -> Option<String> {
        let (Token::Variable(name), Token::OpenRound) = (self.peek()?, self.peek_at(1)?) else { return None };
        let (close, _) = self.closings[self.at + 1]?;
        let inside = self.tokens[self.at + 2..close].iter().map(|token| match token {
            Token::Variable(name) => Some(name.as_str()),
            Token::Comma => Some(","),
            _ => None,
        });
        let arguments = inside.collect::<Option<String>>().filter(|arguments| !arguments.is_empty())?;
        let is_defined = self.tokens.get(close + 1) == Some(&Token::Relation(Relation::Equal));
        is_defined.then(|| {
            self.at = close + 1;
            format!("{name}({arguments})")
        })
    }
}

/// See [`Parser::closings`]. Round and square brackets close each other: `[0, 1)`.
fn closings(tokens: &[Token]) -> Vec<Option<(usize, bool)>> {
    use Token::{CloseGroup, CloseRound, CloseSet, CloseSquare, OpenGroup, OpenRound, OpenSet, OpenSquare};
    let mut found = vec![None; tokens.len()];
    let mut open: Vec<(usize, bool)> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            OpenRound | OpenSquare | OpenGroup | OpenSet => open.push((at, false)),
            Token::Comma | Token::Semicolon => {
                if let Some((_, has_comma)) = open.last_mut() {
                    *has_comma = true;
                }
            }
            CloseRound | CloseSquare | CloseGroup | CloseSet => {
                let Some((start, has_comma)) = open.pop() else { continue };
                let is_pair = match tokens[start] {
                    OpenGroup => *token == CloseGroup,
                    OpenSet => *token == CloseSet,
                    _ => matches!(token, CloseRound | CloseSquare),
                };
                found[start] = is_pair.then_some((at, has_comma));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn math(text: &str) -> Value {
        parse(text, Mode::Math).unwrap_or_else(|| panic!("not read: {text}"))
    }

    #[test]
    fn the_kinds_of_values() {
        type IsKind = fn(&Value) -> bool;
        let cases: [(&str, IsKind); 19] = [
            ("2x + 1", |value| matches!(value, Value::Scalar(_))),
            ("1, 2, and 3", |value| matches!(value, Value::List(items) if items.len() == 3)),
            ("(1, 2)", |value| matches!(value, Value::Sequence(Fence::Round, items, Fence::Round) if items.len() == 2)),
            ("\\left[0, 1\\right)", |value| matches!(value, Value::Sequence(Fence::Square, _, Fence::Round))),
            ("\\{1, 2\\}", |value| matches!(value, Value::Set(items) if items.len() == 2)),
            ("{1, 2}", |value| matches!(value, Value::List(_))),
            ("\\emptyset", |value| matches!(value, Value::Set(items) if items.is_empty())),
            ("(0,1)\\cup(2,3]\\cup\\{5\\}", |value| matches!(value, Value::Union(parts) if parts.len() == 3)),
            ("\\mathbb{R}\\setminus\\{0\\}", |value| matches!(value, Value::Difference(..))),
            ("x \\in [1, 2]", |value| matches!(value, Value::Sequence(..))),
            ("x = 5", |value| matches!(value, Value::Chain(sides, _) if sides.len() == 2)),
            ("1 < x \\le 2", |value| matches!(value, Value::Chain(sides, _) if sides.len() == 3)),
            ("f(x) = 2x", |value| matches!(value, Value::Chain(sides, _) if sides[0] == Expr::Variable("f(x)".into()))),
            (
                "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
                |value| matches!(value, Value::Matrix(rows) if rows.len() == 2 && rows[0].len() == 2),
            ),
            ("3 \\pm 2", |value| matches!(value, Value::List(items) if items.len() == 2)),
            ("\\text{no solution}", |value| *value == Value::Text("no solution".into())),
            ("Evelyn", |value| *value == Value::Text("evelyn".into())),
            ("12\\text{ cm}^2", |value| *value == Value::Scalar(Expr::integer(12))),
            ("1:2", |value| matches!(value, Value::Scalar(Expr::Quotient(..)))),
        ];
        for (text, is_kind) in cases {
            assert!(is_kind(&math(text)), "{text}: {:?}", math(text));
        }
    }

    #[test]
    fn what_is_no_mathematics_is_refused() {
        for text in
            ["", "+", "(", ")", "1 +", "(1, 2", "\\frac{1}", "\\int x dx", "{", "1,,,2", "2 3", "\\begin{pmatrix}"]
        {
            assert_eq!(parse(text, Mode::Math), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |open: &str, close: &str, times| format!("{}1{}", open.repeat(times), close.repeat(times));
        assert!(parse(&nested("(", ")", 8), Mode::Math).is_some());
        assert!(parse(&nested("\\{2,", "\\}", 3), Mode::Math).is_some());
        assert!(parse(&nested("\\{2,", "\\}", 9), Mode::Math).is_none());
        for (open, close) in [
            ("(", ")"),
            ("{", "}"),
            ("\\{", "\\}"),
            ("-", ""),
            ("\\sqrt{", "}"),
            ("2^{", "}"),
            ("|", "|"),
            ("\\sin ", ""),
            ("x^", ""),
        ] {
            let _ = parse(&nested(open, close, 300), Mode::Math);
        }
        for chain in ["1/", "1!", "1+", "1^", "1-", "1=", "\\{1\\}\\cap", "f'", "2x"] {
            let _ = parse(&format!("{}1", chain.repeat(300)), Mode::Math);
        }
    }
}
