//! Sets, sequences and matrices.

use super::parser::{MAX_DEPTH, MAX_ITEMS, Parser};
use super::token::Token;
use super::tree::{Fence, Value};

/// Deepest set in a set, a sequence in a sequence: comparing each level in any order doubles the work.
const MAX_SET_DEPTH: usize = 4;

impl Parser<'_> {
    /// Whether a set, a sequence or a matrix starts here.
    pub(super) fn is_set(&self) -> bool {
        let is_open = |token: &&Token| matches!(token, Token::OpenGroup | Token::OpenRound | Token::OpenSquare);
        let opens = self.tokens[self.at..].iter().take_while(is_open).count();
        let has_comma = |at: usize| self.closings[at].is_some_and(|(_, has_comma)| has_comma);
        // `((1, 2) + 3)` is none, but nothing that is read has that form.
        let inside = self.tokens.get(self.at + opens);
        (self.at..self.at + opens).any(has_comma)
            || matches!(inside, Some(Token::OpenSet | Token::EmptySet | Token::Reals | Token::OpenMatrix))
    }

    /// Sets joined by union, intersection and difference, from left to right.
    pub(super) fn sets(&mut self) -> Option<Value> {
        let mut value = self.deeper(Self::set)?;
        // Each operator wraps what stands left of it.
        for _ in 0..MAX_DEPTH {
            value = match self.peek() {
                Some(Token::Cup) => {
                    self.at += 1;
                    let next = self.deeper(Self::set)?;
                    match value {
                        Value::Union(mut parts) => {
                            parts.push(next);
                            Value::Union(parts)
                        }
                        other => Value::Union(vec![other, next]),
                    }
                }
                Some(Token::Cap) => {
                    self.at += 1;
                    Value::Intersection(vec![value, self.deeper(Self::set)?])
                }
                Some(Token::Without) => {
                    self.at += 1;
                    Value::Difference(Box::new(value), Box::new(self.deeper(Self::set)?))
                }
                _ => return Some(value),
            };
        }
        None
    }

    fn set(&mut self) -> Option<Value> {
        if self.set_depth == MAX_SET_DEPTH {
            return None;
        }
        self.set_depth += 1;
        let value = self.set_here();
        self.set_depth -= 1;
        value
    }

    fn set_here(&mut self) -> Option<Value> {
        let opening = self.peek()?;
        self.at += 1;
        match opening {
            Token::Reals => Some(Value::Reals),
            Token::EmptySet => Some(Value::Set(Vec::new())),
            Token::OpenMatrix => self.matrix(),
            Token::OpenSet if self.eat(&Token::CloseSet) => Some(Value::Set(Vec::new())),
            Token::OpenSet => {
                let items = self.deeper(Self::items)?;
                self.eat(&Token::CloseSet).then_some(Value::Set(items))
            }
            Token::OpenGroup => {
                let (_, has_comma) = self.closings[self.at - 1]?;
                // LaTeX shows no braces.
                let value = match has_comma {
                    true => Value::List(self.deeper(Self::items)?),
                    false => self.deeper(Self::sets)?,
                };
                self.eat(&Token::CloseGroup).then_some(value)
            }
            Token::OpenRound | Token::OpenSquare => {
                let (_, has_comma) = self.closings[self.at - 1]?;
                if !has_comma {
                    let value = self.deeper(Self::sets)?;
                    return (self.eat(&Token::CloseRound) || self.eat(&Token::CloseSquare)).then_some(value);
                }
                let left = if *opening == Token::OpenRound { Fence::Round } else { Fence::Square };
                let items = self.deeper(Self::items)?;
                let right = if self.eat(&Token::CloseRound) {
                    Fence::Round
                } else {
                    self.eat(&Token::CloseSquare).then_some(Fence::Square)?
                };
                Some(Value::Sequence(left, items, right))
            }
            _ => None,
        }
    }

    /// Rows of equal length.
    fn matrix(&mut self) -> Option<Value> {
        let mut rows = vec![vec![self.sum()?]];
        loop {
            if self.eat(&Token::Column) {
                let entry = self.sum()?;
                rows.last_mut()?.push(entry);
            } else if self.eat(&Token::Row) {
                if self.peek() != Some(&Token::CloseMatrix) {
                    rows.push(vec![self.sum()?]);
                }
            } else {
                let is_even = rows.iter().all(|row| row.len() == rows[0].len()) && rows.len() <= MAX_ITEMS;
                return (self.eat(&Token::CloseMatrix) && is_even).then_some(Value::Matrix(rows));
            }
        }
    }
}
