//! Expressions: sums of products of powers.

use super::parser::{MAX_DEPTH, Parser};
use super::token::Token;
use super::tree::{Constant, Expr, Function};

impl Parser<'_> {
    /// Terms with signs between them.
    pub(super) fn sum(&mut self) -> Option<Expr> {
        self.deeper(|parser| {
            let mut terms = Vec::new();
            loop {
                let is_negative = parser.signs();
                let term = parser.product()?;
                terms.push(if is_negative { term.negated() } else { term });
                if !matches!(parser.peek(), Some(Token::Plus | Token::Minus | Token::PlusMinus | Token::MinusPlus)) {
                    break;
                }
            }
            if terms.len() == 1 { terms.pop() } else { Some(Expr::Sum(terms)) }
        })
    }

    /// Passes over signs; true when they make a minus.
    fn signs(&mut self) -> bool {
        let mut is_negative = false;
        while let Some(token) = self.peek() {
            is_negative ^= match token {
                Token::Plus => false,
                Token::Minus => true,
                Token::PlusMinus => !self.is_upper,
                Token::MinusPlus => self.is_upper,
                _ => break,
            };
            self.at += 1;
        }
        is_negative
    }

    /// Factors, from left to right: `a / b c` is `a c / b`, as `\frac{a}{b} c` would be.
    fn product(&mut self) -> Option<Expr> {
        let (mut above, mut below) = (vec![self.factor()?], Vec::new());
        let mut is_negative = false;
        loop {
            match self.peek() {
                Some(Token::Times) if !matches!(self.peek_at(1), Some(Token::Word(..))) => {
                    self.at += 1;
                    is_negative ^= self.signs();
                    above.push(self.factor()?);
                }
                Some(Token::Slash) if !matches!(self.peek_at(1), Some(Token::Word(..))) => {
                    self.at += 1;
                    is_negative ^= self.signs();
                    below.push(self.factor()?);
                }
                Some(Token::Frac | Token::Number(..)) if below.is_empty() && self.is_mixed(&above) => {
                    let fraction = self.fraction()?;
                    let whole = above.pop()?;
                    above.push(Expr::Sum(vec![whole, fraction]));
                }
                Some(Token::Number(..)) if matches!(self.tokens[..self.at].last(), Some(Token::Number(..))) => {
                    return None;
                }
                Some(token) if self.starts_factor(token) => above.push(self.factor()?),
                _ => break,
            }
        }
        let product = |mut factors: Vec<Expr>| match factors.len() {
            1 => factors.pop(),
            _ => Some(Expr::Product(factors)),
        };
        let value = product(above)?;
        let value = if below.is_empty() { value } else { value.over(product(below)?) };
        Some(if is_negative { value.negated() } else { value })
    }

    fn starts_factor(&self, token: &Token) -> bool {
        match token {
            Token::Number(..) | Token::Variable(_) | Token::Constant(_) | Token::Function(_) => true,
            Token::OpenRound | Token::OpenSquare | Token::OpenGroup | Token::OpenFloor | Token::OpenCeil => true,
            Token::Frac | Token::Binom => true,
            Token::Bar => !self.is_in_bars,
            _ => false,
        }
    }

    /// Whether `3 \frac{1}{2}` or `3 1/2` stands here, the whole number read.
    fn is_mixed(&self, above: &[Expr]) -> bool {
        let is_whole =
            |token: Option<&Token>| matches!(token, Some(Token::Number(value, false)) if value.as_integer().is_some());
        let is_behind_whole = above.len() == 1 && self.at > 0 && is_whole(self.tokens.get(self.at - 1));
        let is_behind_exponent = self.at > 1 && matches!(self.tokens[self.at - 2], Token::Caret | Token::Underscore);
        let in_braces = |at: usize| {
            self.peek_at(at) == Some(&Token::OpenGroup)
                && is_whole(self.peek_at(at + 1))
                && self.peek_at(at + 2) == Some(&Token::CloseGroup)
        };
        let is_fraction = match self.peek() {
            Some(Token::Frac) if is_whole(self.peek_at(1)) => is_whole(self.peek_at(2)),
            Some(Token::Frac) => in_braces(1) && in_braces(4),
            _ => is_whole(self.peek()) && self.peek_at(1) == Some(&Token::Slash) && is_whole(self.peek_at(2)),
        };
        is_behind_whole && !is_behind_exponent && is_fraction
    }

    /// The fraction of a mixed number.
    fn fraction(&mut self) -> Option<Expr> {
        if self.peek() == Some(&Token::Frac) {
            return self.primary();
        }
        let above = self.primary()?;
        self.at += 1;
        Some(above.over(self.primary()?))
    }

    /// A value with exponents and signs behind it.
    fn factor(&mut self) -> Option<Expr> {
        let mut value = self.deeper(Self::primary)?;
        // Each sign wraps what stands left of it.
        for _ in 0..MAX_DEPTH / 4 {
            value = match self.peek() {
                Some(Token::Caret) => {
                    self.at += 1;
                    match self.exponent()? {
                        Exponent::Power(exponent) => value.raised_to(exponent),
                        Exponent::Degree => Expr::Degrees(Box::new(value)),
                    }
                }
                Some(Token::Bang) => {
                    self.at += 1;
                    Expr::Apply(Function::Factorial, vec![value])
                }
                Some(Token::Percent) => {
                    self.at += 1;
                    Expr::Percent(Box::new(value))
                }
                Some(Token::Degree) => {
                    self.at += 1;
                    Expr::Degrees(Box::new(value))
                }
                _ => return Some(value),
            };
        }
        None
    }

    /// What stands behind `^`.
    pub(super) fn exponent(&mut self) -> Option<Exponent> {
        self.deeper(|parser| {
            if parser.eat(&Token::Degree) {
                return Some(Exponent::Degree);
            }
            if parser.peek() == Some(&Token::OpenGroup)
                && parser.peek_at(1) == Some(&Token::Degree)
                && parser.peek_at(2) == Some(&Token::CloseGroup)
            {
                parser.at += 3;
                return Some(Exponent::Degree);
            }
            let is_negative = parser.signs();
            let mut value = parser.primary()?;
            if parser.eat(&Token::Caret) {
                match parser.exponent()? {
                    Exponent::Power(exponent) => value = value.raised_to(exponent),
                    Exponent::Degree => return None,
                }
            }
            Some(Exponent::Power(if is_negative { value.negated() } else { value }))
        })
    }

    fn primary(&mut self) -> Option<Expr> {
        let token = self.peek()?;
        self.at += 1;
        match token {
            Token::Number(value, is_decimal) => {
                let base = self.eat(&Token::Underscore).then(|| self.base());
                let base = base.map_or(Some(None), |base| base.map(Some))?;
                Some(Expr::Literal { value: *value, is_decimal: *is_decimal, base })
            }
            Token::Constant(Constant::E | Constant::I) if self.peek() == Some(&Token::Underscore) => {
                self.name(if *token == Token::Constant(Constant::E) { "e" } else { "i" })
            }
            Token::Constant(constant) => Some(Expr::Constant(*constant)),
            Token::Variable(name) => self.name(name),
            Token::Word(word, _) => self.name(word),
            Token::OpenRound | Token::OpenSquare => {
                let value = self.free_of_bars(Self::sum)?;
                (self.eat(&Token::CloseRound) || self.eat(&Token::CloseSquare)).then_some(value)
            }
            Token::OpenGroup => {
                let value = self.free_of_bars(Self::sum)?;
                self.eat(&Token::CloseGroup).then_some(value)
            }
            Token::OpenFloor => self.enclosed(Function::Floor, &Token::CloseFloor),
            Token::OpenCeil => self.enclosed(Function::Ceil, &Token::CloseCeil),
            // Where a value must start, a bar opens.
            Token::Bar => {
                let is_in_bars = std::mem::replace(&mut self.is_in_bars, true);
                let value = self.enclosed(Function::Abs, &Token::Bar);
                self.is_in_bars = is_in_bars;
                value
            }
            Token::Frac => {
                let above = self.argument()?;
                Some(above.over(self.argument()?))
            }
            Token::Binom => Some(Expr::Apply(Function::Binomial, vec![self.argument()?, self.argument()?])),
            Token::Function(function) => self.deeper(|parser| parser.application(*function)),
            _ => None,
        }
    }

    fn enclosed(&mut self, function: Function, close: &Token) -> Option<Expr> {
        let value = self.sum()?;
        self.eat(close).then(|| Expr::Apply(function, vec![value]))
    }

    /// Runs `read` where a bar opens again, inside brackets of its own.
    fn free_of_bars<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let is_in_bars = std::mem::replace(&mut self.is_in_bars, false);
        let value = read(self);
        self.is_in_bars = is_in_bars;
        value
    }

    /// A variable with its primes and its subscript.
    fn name(&mut self, name: &str) -> Option<Expr> {
        let mut name = name.to_owned();
        while self.eat(&Token::Prime) {
            name.push('\'');
        }
        // `f(x)` is the value of a function; `x(y)` and `f(x + 1)` are read as products.
        if let [Token::OpenRound, Token::Variable(argument), Token::CloseRound, ..] = &self.tokens[self.at..]
            && matches!(&*name, "f" | "g" | "h" | "F" | "G" | "H" | "f'" | "g'" | "h'")
        {
            self.at += 3;
            return Some(Expr::Variable(format!("{name}({argument})")));
        }
        if self.eat(&Token::Underscore) {
            let start = self.at;
            self.deeper(|parser| parser.subscript())?;
            let subscript = self.tokens[start..self.at].iter().filter_map(|token| match token {
                Token::Number(value, _) => Some(format!("{}", value.re)),
                Token::Variable(name) | Token::Word(name, _) => Some(name.clone()),
                Token::OpenGroup | Token::CloseGroup => None,
                other => Some(format!("{other:?}")),
            });
            name = format!("{name}_{}", subscript.collect::<Vec<_>>().join(","));
        }
        Some(Expr::Variable(name))
    }

    fn subscript(&mut self) -> Option<()> {
        if !self.eat(&Token::OpenGroup) {
            self.at += 1;
            return (self.at <= self.tokens.len()).then_some(());
        }
        let length = self.tokens[self.at..].iter().position(|token| *token == Token::CloseGroup)?;
        self.at += length + 1;
        Some(())
    }

    /// The base in the subscript of a number.
    fn base(&mut self) -> Option<u32> {
        let is_braced = self.eat(&Token::OpenGroup);
        let Some(Token::Number(base, false)) = self.peek() else { return None };
        self.at += 1;
        let base = u32::try_from(base.as_integer()?).ok();
        base.filter(|_| !is_braced || self.eat(&Token::CloseGroup))
    }

    /// A braced argument, or the next thing alone.
    fn argument(&mut self) -> Option<Expr> {
        self.deeper(Self::primary)
    }

    fn application(&mut self, function: Function) -> Option<Expr> {
        match function {
            Function::Root => {
                let mut arguments = Vec::new();
                if self.eat(&Token::OpenSquare) {
                    arguments.push(self.sum()?);
                    self.eat(&Token::CloseSquare).then_some(())?;
                }
                arguments.insert(0, self.argument()?);
                return Some(Expr::Apply(Function::Root, arguments));
            }
            Function::Min | Function::Max | Function::Gcd | Function::Lcm => return self.call(function),
            _ => {}
        }
        let base = match function == Function::Log && self.eat(&Token::Underscore) {
            true => Some(self.argument()?),
            false => None,
        };
        let exponent = match self.eat(&Token::Caret) {
            true => Some(self.exponent()?),
            false => None,
        };
        let mut arguments = vec![self.operand()?];
        if function == Function::Log {
            arguments.push(base.unwrap_or(Expr::integer(10)));
        }
        match exponent {
            None => Some(Expr::Apply(function, arguments)),
            // `\sin^{-1}` is the inverse, `\sin^2` the square of the value.
            Some(Exponent::Power(exponent)) if exponent == Expr::integer(1).negated() => {
                Some(Expr::Apply(function.inverse()?, arguments))
            }
            Some(Exponent::Power(exponent)) => Some(Expr::Apply(function, arguments).raised_to(exponent)),
            Some(Exponent::Degree) => None,
        }
    }

    /// What a function without brackets is of: `\sin 2x \cos x` is `\sin(2x) \cos x`.
    fn operand(&mut self) -> Option<Expr> {
        if matches!(self.peek(), Some(Token::OpenRound | Token::OpenSquare | Token::Bar)) {
            return self.argument();
        }
        let is_negative = self.signs();
        let mut factors = vec![self.factor()?];
        while self.peek().is_some_and(|token| !matches!(token, Token::Function(_)) && self.starts_factor(token)) {
            factors.push(self.factor()?);
        }
        if self.peek() == Some(&Token::Slash)
            && factors.len() == 1
            && !matches!(self.peek_at(1), Some(Token::Function(_)))
        {
            self.at += 1;
            let below = self.factor()?;
            factors = vec![factors.pop()?.over(below)];
        }
        let value = if factors.len() == 1 { factors.pop()? } else { Expr::Product(factors) };
        Some(if is_negative { value.negated() } else { value })
    }

    /// Arguments in brackets.
    fn call(&mut self, function: Function) -> Option<Expr> {
        self.eat(&Token::OpenRound).then_some(())?;
        let mut arguments = vec![self.sum()?];
        while self.eat(&Token::Comma) {
            arguments.push(self.sum()?);
        }
        self.eat(&Token::CloseRound).then_some(Expr::Apply(function, arguments))
    }
}

/// What stands behind `^`.
pub(super) enum Exponent {
    Power(Expr),
    /// `90^\circ`.
    Degree,
}
