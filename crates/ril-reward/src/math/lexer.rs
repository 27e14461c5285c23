//! LaTeX and plain ASCII mathematics as tokens.

use super::names::{is_unit_letter, read_letters};
use super::number::Number;
use super::symbols::{Meaning, command, symbol};
use super::token::{Mode, Token};
use super::tree::Relation;

/// Longest text that is read, in characters: every bound on time follows from it.
pub(super) const MAX_CHARS: usize = 1024;

/// Deepest `\text{}` in `\text{}` that is read.
const MAX_NESTING: usize = 4;

/// The tokens of a text; `None` when it is longer than [`MAX_CHARS`].
pub(super) fn tokens(text: &str, mode: Mode) -> Option<Vec<Token>> {
    let chars: Vec<char> = text.chars().take(MAX_CHARS + 1).collect();
    (chars.len() <= MAX_CHARS).then(|| Lexer { chars, at: 0, mode, nesting: 0, found: Vec::new() }.run())
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    mode: Mode,
    /// How many `\text{}` this one is inside of.
    nesting: usize,
    found: Vec<Token>,
}

impl Lexer {
    fn run(mut self) -> Vec<Token> {
        while let Some(c) = self.peek(0) {
            match c {
                '0'..='9' => self.number(),
                '.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => self.number(),
                '\\' => self.command(),
                '*' if self.peek(1) == Some('*') => self.push(Token::Caret, 2),
                '<' | '>' | '!' | '=' if self.peek(1) == Some('=') => {
                    let relation = match c {
                        '<' => Relation::LessEqual,
                        '>' => Relation::GreaterEqual,
                        '!' => Relation::NotEqual,
                        _ => Relation::Equal,
                    };
                    self.push(Token::Relation(relation), 2);
                }
                _ if c.is_alphabetic() && symbol(c).is_none() => self.letters(),
                _ => {
                    self.at += 1;
                    self.found.extend(symbol(c).unwrap_or_else(|| vec![Token::Other]));
                }
            }
        }
        self.found
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn push(&mut self, token: Token, length: usize) {
        self.found.push(token);
        self.at += length;
    }

    /// Whether `text` stands `ahead` characters from here.
    fn looking_at(&self, ahead: usize, text: &str) -> bool {
        text.chars().enumerate().all(|(offset, c)| self.peek(ahead + offset) == Some(c))
    }

    fn digits(&mut self) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    /// Digits with thousands (`1,234`, `1{,}234`, `1\,234`, `1 234`), decimals, and repeating decimals.
    fn number(&mut self) {
        let mut whole = self.digits();
        // Inside brackets a comma parts two items: `(1,234)`.
        let is_inside = self.depth() > 0;
        let is_exponent = self.found.last() == Some(&Token::Caret);
        if (1..=3).contains(&whole.len()) && !whole.starts_with('0') && !is_exponent {
            while let Some(length) = self.thousands_mark(is_inside) {
                self.at += length;
                whole.push_str(&self.digits());
            }
        }
        let is_decimal = self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit());
        let is_repeating = (0..=1).any(|ahead| self.peek(0) == Some('.') && self.looking_at(ahead + 1, "\\overline{"));
        let mut fraction = String::new();
        if is_decimal || is_repeating {
            self.at += 1;
            fraction = self.digits();
        }
        let mut value = Number::from_digits(&whole, &fraction);
        let repeating = self.repeating();
        if !repeating.is_empty() {
            let shift =
                Number::from_digits("1", "").div(Number::integer(10).pow(Number::integer(fraction.len() as i128)));
            let nines = Number::from_digits(&"9".repeat(repeating.len()), "");
            value = value.add(Number::from_digits(&repeating, "").div(nines).mul(shift));
        }
        self.found.push(Token::Number(value, !fraction.is_empty() && repeating.is_empty()));
        self.exponent_of_ten();
    }

    /// How many brackets are open here.
    fn depth(&self) -> usize {
        use Token::{CloseRound, CloseSet, CloseSquare, OpenRound, OpenSet, OpenSquare};
        let is_open = |token: &&Token| matches!(token, OpenRound | OpenSquare | OpenSet);
        let is_close = |token: &&Token| matches!(token, CloseRound | CloseSquare | CloseSet);
        let opened = self.found.iter().filter(is_open).count();
        opened.saturating_sub(self.found.iter().filter(is_close).count())
    }

    /// The length of a mark before exactly three digits.
    fn thousands_mark(&self, is_inside: bool) -> Option<usize> {
        let marks = ["{,}", ",\\! ", ",\\!", "\\,", "\\ ", "\u{202f}", "\u{2009}", "\u{a0}", ",", " "];
        let mark = marks.iter().find(|mark| self.looking_at(0, mark))?;
        let length = mark.chars().count();
        let digits = (0..4).take_while(|i| self.peek(length + i).is_some_and(|c| c.is_ascii_digit())).count();
        (digits == 3 && !(is_inside && matches!(*mark, "," | " "))).then_some(length)
    }

    /// The digits under `\overline{}`, else nothing.
    fn repeating(&mut self) -> String {
        let opening = "\\overline{";
        if !self.looking_at(0, opening) || !self.chars[..self.at].iter().rev().take(40).any(|c| *c == '.') {
            return String::new();
        }
        let start = self.at;
        self.at += opening.len();
        let digits = self.digits();
        if digits.is_empty() || self.peek(0) != Some('}') {
            self.at = start;
            return String::new();
        }
        self.at += 1;
        digits
    }

    /// `e5`, `E-3` right behind digits; `2e` and `2ex` are products.
    fn exponent_of_ten(&mut self) {
        let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
        let has_digits = self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit());
        if !matches!(self.peek(0), Some('e' | 'E')) || !has_digits {
            return;
        }
        let is_negative = self.peek(1) == Some('-');
        self.at += 1 + sign;
        let exponent = self.digits().parse().unwrap_or(i128::from(i32::MAX));
        let scale = Number::integer(10).pow(Number::integer(if is_negative { -exponent } else { exponent }));
        if let Some(Token::Number(value, _)) = self.found.last_mut() {
            *value = value.mul(scale);
        }
    }

    /// A run of letters: a word, the name of a function, or variables.
    fn letters(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_alphabetic() && symbol(c).is_none()) {
            self.at += 1;
        }
        // `isn't` is one word; `f'` is a derivative.
        if self.at - start > 1
            && matches!(self.peek(0), Some('\'' | '’'))
            && self.peek(1).is_some_and(char::is_alphabetic)
        {
            self.at += 1;
            while self.peek(0).is_some_and(char::is_alphabetic) {
                self.at += 1;
            }
        }
        let run: String = self.chars[start..self.at].iter().collect();
        let is_lone = self.mode == Mode::Prose && self.at == start + 1;
        let before = start.checked_sub(1).map(|before| self.chars[before]);
        // `5 m` and `5m²`, but not `5m`, which may be a product.
        let is_parted = before == Some(' ') || matches!(self.peek(0), Some('²' | '³'));
        let is_unit = is_parted && matches!(self.found.last(), Some(Token::Number(..))) && is_unit_letter(&run);
        let is_before_word = self.peek(0) == Some(' ') && self.peek(1).is_some_and(char::is_alphabetic);
        let is_pronoun = matches!(run.as_str(), "a" | "A" | "I") && is_before_word;
        match is_lone && (is_unit || is_pronoun) {
            true => self.found.push(Token::Word(run.to_lowercase(), false)),
            false => self.found.extend(read_letters(&run, self.mode)),
        }
        if self.mode == Mode::Prose && matches!(self.found.last(), Some(Token::Word(..))) {
            self.pass_exponent();
        }
    }

    /// Passes over the exponent of a unit: `cm^2`, `cm^{2}`, `cm²`, `cm2`.
    fn pass_exponent(&mut self) {
        let opening = ["^{", "^", ""].into_iter().find(|opening| self.looking_at(0, opening)).unwrap_or_default();
        let length = opening.len();
        match self.peek(length) {
            Some('²' | '³') => self.at += length + 1,
            Some(c) if c.is_ascii_digit() => {
                self.at += length;
                self.digits();
                self.at += usize::from(opening == "^{" && self.peek(0) == Some('}'));
            }
            _ => {}
        }
    }

    fn command(&mut self) {
        let start = self.at + 1;
        let length = self.chars[start..].iter().take_while(|c| c.is_ascii_alphabetic()).count();
        let name: String = match length {
            0 => self.peek(1).map(String::from).unwrap_or_default(),
            _ => self.chars[start..start + length].iter().collect(),
        };
        self.at = start + name.chars().count();
        match command(&name) {
            Meaning::Nothing => {
                // `\left.` has no bracket.
                if matches!(name.as_str(), "left" | "right") && self.peek(0) == Some('.') {
                    self.at += 1;
                }
            }
            Meaning::Token(token) => {
                let is_fraction = matches!(token, Token::Frac | Token::Binom);
                self.found.push(token);
                if is_fraction {
                    self.single_digits();
                }
            }
            Meaning::Text => self.text(),
            Meaning::Blackboard => {
                let name = self.argument();
                self.found.push(if name == "R" { Token::Reals } else { Token::Variable(name) });
            }
            Meaning::Environment(token) => {
                let name = self.argument();
                let is_matrix = name.trim_end_matches('*').ends_with("matrix") || name == "array";
                if name == "array" && token == Token::OpenMatrix {
                    self.argument();
                }
                self.found.push(if is_matrix { token } else { Token::Other });
            }
        }
    }

    /// `\frac12` is one half.
    fn single_digits(&mut self) {
        for _ in 0..2 {
            while self.peek(0) == Some(' ') {
                self.at += 1;
            }
            let Some(digit) = self.peek(0).and_then(|c| c.to_digit(10)) else { return };
            self.push(Token::Number(Number::integer(digit.into()), false), 1);
        }
    }

    /// The text of a braced argument; empty without one.
    fn argument(&mut self) -> String {
        if self.peek(0) != Some('{') {
            return String::new();
        }
        let mut depth = 0_usize;
        let length = self.chars[self.at..].iter().position(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let end = length.map_or(self.chars.len(), |length| self.at + length);
        let text = self.chars[self.at + 1..end].iter().collect();
        self.at = (end + 1).min(self.chars.len());
        text
    }

    /// `\text{ cm}`: words, unless it holds something else (`\text{(B)}`, `\text{5}`).
    fn text(&mut self) {
        let text = self.argument();
        if self.nesting == MAX_NESTING {
            return self.found.push(Token::Other);
        }
        let nesting = self.nesting + 1;
        let inner = Lexer { chars: text.chars().collect(), at: 0, mode: Mode::Prose, nesting, found: Vec::new() };
        let mark = |token| match token {
            Token::Word(word, _) => Token::Word(word, true),
            Token::Variable(name) => Token::Word(name, true),
            other => other,
        };
        self.found.extend(inner.run().into_iter().map(mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn math(text: &str) -> Vec<Token> {
        tokens(text, Mode::Math).expect("short")
    }

    #[test]
    fn spellings_of_numbers() {
        for text in ["1,234", "1{,}234", "1,\\!234", "1\\,234", "1 234", "1234", "1234.0", "1.234e3", "\\$1,234"] {
            let [Token::Number(value, _)] = math(text)[..] else { panic!("{text}: {:?}", math(text)) };
            assert_eq!(value.as_integer(), Some(1234), "{text}");
        }
        assert_eq!(math("(1,234)").len(), 5);
        assert_eq!(math("1,2").len(), 3);
        assert_eq!(math("2^10")[2], Token::Number(Number::integer(10), false));
    }

    #[test]
    fn repeating_decimals_are_fractions() {
        for (text, above, below) in
            [("0.\\overline{3}", 1, 3), ("0.1\\overline{6}", 1, 6), ("2.\\overline{45}", 27, 11)]
        {
            let [Token::Number(value, is_decimal)] = math(text)[..] else { panic!("{text}: {:?}", math(text)) };
            assert!(value.equals(&Number::integer(above).div(Number::integer(below))) && !is_decimal, "{text}");
        }
    }

    #[test]
    fn letters_are_words_functions_or_variables() {
        let word = |word: &str, is_text| Token::Word(word.to_owned(), is_text);
        assert_eq!(math("xy"), [Token::Variable("x".into()), Token::Variable("y".into())]);
        assert_eq!(math("cm"), [word("cm", false)]);
        assert_eq!(math("\\text{cm}"), [word("cm", true)]);
        assert_eq!(math("\\text{m}"), [word("m", true)]);
        assert_eq!(math("Evelyn"), [word("evelyn", false)]);
        assert_eq!(math("\\sin"), math("sin"));
        assert_eq!(tokens("isn't", Mode::Prose).expect("short"), [word("isnt", false)]);
        assert_eq!(tokens("xyz", Mode::Prose).expect("short"), [word("xyz", false)]);
        for text in ["5 m", "5m²", "5 m^2", "5 m^{2}"] {
            assert_eq!(tokens(text, Mode::Prose).expect("short")[1..], [word("m", false)], "{text}");
        }
        assert_eq!(math("\\mathbb{R}"), [Token::Reals]);
        assert_eq!(math("\\frac12").len(), 3);
    }

    #[test]
    fn long_texts_are_refused() {
        assert!(tokens(&"(".repeat(1_000_000), Mode::Math).is_none());
    }
}
