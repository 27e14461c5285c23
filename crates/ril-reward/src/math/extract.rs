//! Where an answer states its mathematics.

use super::lexer::{MAX_CHARS, tokens};
use super::parser::{parse, read};
use super::token::{Mode, Token};
use super::tree::{Constant, Value};
use crate::conclusion;

/// How many joined boxes are read, the last ones.
const MAX_BOXES: usize = 64;

/// The value that an answer states, as [`MathMatch`](crate::MathMatch) defines it.
pub(super) fn stated_value(response: &str) -> Option<Value> {
    let stated = conclusion(response);
    if !stated.is_marked {
        return pick(stated.text, End::Last).or_else(|| pick(response, End::Last));
    }
    // Tags go before boxes, but may hold one.
    let inside = if response.to_ascii_lowercase().contains("<answer>") { stated.text } else { response };
    let boxes = last_boxes(inside);
    if boxes.is_empty() {
        return parse(stated.text, Mode::Math).filter(is_mathematics).or_else(|| pick(stated.text, End::First));
    }
    let values = boxes.iter().map(|text| parse(text, Mode::Math).or_else(|| pick(text, End::Last)));
    let mut values = values.collect::<Option<Vec<_>>>()?;
    if values.len() == 1 { values.pop() } else { Some(Value::List(values)) }
}

/// A sentence can be read as a word; that is no reason not to look for numbers in it.
fn is_mathematics(value: &Value) -> bool {
    !matches!(value, Value::Text(_))
}

/// The contents of the last `\boxed{}`, and of those before it that only `and`, `or` or a comma parts from it; at most
/// [`MAX_BOXES`].
fn last_boxes(text: &str) -> Vec<&str> {
    let mut found: Vec<(usize, usize, &str)> = Vec::new();
    let mut at = 0;
    while let Some(length) = text[at..].find("\\boxed{") {
        let start = at + length + "\\boxed{".len();
        let content = braced(&text[start..]);
        let end = (start + content.len() + 1).min(text.len());
        found.push((at + length, end, content));
        at = end;
    }
    let is_joined = |pair: &[(usize, usize, &str)]| is_join(&text[pair[0].1..pair[1].0]);
    let joined = found.windows(2).rev().take(MAX_BOXES - 1).take_while(|pair| is_joined(pair)).count() + 1;
    found[found.len().saturating_sub(joined)..].iter().map(|(_, _, content)| *content).collect()
}

/// `text` up to the brace that closes the one before it; all of it when none does.
fn braced(text: &str) -> &str {
    let mut depth = 1_usize;
    let end = text.find(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.map_or(text, |end| &text[..end])
}

/// Whether a text between two formulas joins them to a list.
fn is_join(between: &str) -> bool {
    let mut bare = between.to_owned();
    for layout in ["\\quad", "\\qquad", "\\text", "\\textrm", "\\mathrm", "\\", "$", "{", "}", "(", ")", "[", "]"] {
        bare = bare.replace(layout, " ");
    }
    let words: Vec<&str> = bare.split_whitespace().collect();
    matches!(words.as_slice(), [] | ["," | ";" | "and" | "or" | ",and" | ",or"] | [",", "and" | "or"])
}

/// Which value of a text counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// The first or last stretch of a text that is mathematics. Letters alone (`the value of x is 5`) count where nothing
/// else does, or where the text starts with them.
fn pick(text: &str, end: End) -> Option<Value> {
    let tokens = mixed_tokens(excerpt(text, end));
    let mut runs = runs(&tokens);
    if end == End::Last {
        runs.reverse();
    }
    let is_eligible = |run: &&[Token]| is_strong(run) || (end == End::First && run.as_ptr() == tokens.as_ptr());
    let mut strong = runs.iter().copied().filter(is_eligible);
    strong.find_map(read).or_else(|| runs.iter().copied().find_map(read))
}

/// As much of a text as the lexer reads.
fn excerpt(text: &str, end: End) -> &str {
    let length = text.chars().count();
    if length <= MAX_CHARS {
        return text;
    }
    let nth = |index| text.char_indices().nth(index).map_or(text.len(), |(at, _)| at);
    match end {
        End::First => &text[..nth(MAX_CHARS)],
        End::Last => &text[nth(length - MAX_CHARS)..],
    }
}

/// The tokens of a sentence and of the formulas in it; [`Token::Other`] parts them, a comma joins them.
fn mixed_tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut is_behind_formula = false;
    while let Some((start, content, end)) = formula(rest) {
        let between = &rest[..start];
        if is_behind_formula && is_join(between) {
            found.push(Token::Comma);
        } else {
            push_prose(between, is_behind_formula, &mut found);
            push_break(&mut found);
        }
        found.extend(tokens(content, Mode::Math).unwrap_or_default());
        (rest, is_behind_formula) = (&rest[end..], true);
    }
    push_prose(rest, is_behind_formula, &mut found);
    found
}

fn push_prose(text: &str, is_behind_formula: bool, found: &mut Vec<Token>) {
    // A percent sign right behind a formula belongs to it.
    let is_percent = text.trim_start().starts_with(['%', '\\']) || text.trim_start().starts_with("percent");
    if is_behind_formula && !is_percent {
        push_break(found);
    }
    found.extend(tokens(text, Mode::Prose).unwrap_or_default());
}

fn push_break(found: &mut Vec<Token>) {
    if !found.is_empty() {
        found.push(Token::Other);
    }
}

/// The first formula between delimiters: its start, its content, its end. A dollar sign before an amount is none.
fn formula(text: &str) -> Option<(usize, &str, usize)> {
    const DELIMITERS: [(&str, &str); 4] = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")];
    let mut from = 0;
    loop {
        let start = from + text[from..].find(['$', '\\'])?;
        let delimiter = DELIMITERS.iter().find(|(opening, _)| text[start..].starts_with(opening));
        if let Some((opening, closing)) = delimiter
            && let Some(length) = text[start + opening.len()..].find(closing)
        {
            let content = &text[start + opening.len()..start + opening.len() + length];
            let is_amount = *opening == "$"
                && content.starts_with(|c: char| c.is_ascii_digit())
                && (content.ends_with(char::is_whitespace) || has_words(content));
            if !is_amount {
                return Some((start, content, start + opening.len() + length + closing.len()));
            }
        }
        // An escaped dollar sign opens nothing.
        from = start + 1 + usize::from(text[start..].starts_with("\\$"));
    }
}

/// Whether words stand between two spaces, out of any command: `$5 and then $`.
fn has_words(content: &str) -> bool {
    content.split(' ').any(|word| word.chars().count() > 2 && word.chars().all(char::is_alphabetic))
}

/// The stretches of tokens between words, without what cannot start or end a formula.
fn runs(tokens: &[Token]) -> Vec<&[Token]> {
    let is_break = |token: &Token| matches!(token, Token::Word(_, false) | Token::Other);
    tokens.split(is_break).map(trimmed).filter(|run| !run.is_empty()).collect()
}

fn trimmed(mut run: &[Token]) -> &[Token] {
    use Token::{
        And, Bang, Caret, Colon, Comma, Minus, Percent, Plus, Prime, Relation, Semicolon, Slash, Times, Underscore,
    };
    let is_open = |token: &Token| matches!(token, Token::OpenRound | Token::OpenSquare | Token::OpenGroup);
    let is_close = |token: &Token| matches!(token, Token::CloseRound | Token::CloseSquare | Token::CloseGroup);
    loop {
        let (has_open, has_close) = (run.iter().any(is_open), run.iter().any(is_close));
        run = match run {
            [
                Comma | Semicolon | Colon | And | Relation(_) | Slash | Times | Prime | Caret | Bang | Percent,
                rest @ ..,
            ] => rest,
            [rest @ .., Comma | Semicolon | Colon | And | Relation(_) | Slash | Times | Prime | Caret | Underscore] => {
                rest
            }
            [rest @ .., Plus | Minus] => rest,
            [first, rest @ ..] if (is_open(first) && !has_close) || is_close(first) => rest,
            [rest @ .., last] if (is_close(last) && !has_open) || is_open(last) => rest,
            _ => return run,
        };
    }
}

/// Whether a run is more than letters.
fn is_strong(run: &[Token]) -> bool {
    let is_weak = |token: &Token| {
        matches!(token, Token::Variable(_) | Token::Constant(Constant::E | Constant::I) | Token::Word(..))
            || matches!(token, Token::Comma | Token::And | Token::Minus | Token::Prime | Token::Colon)
    };
    !run.iter().all(is_weak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_value_is_found() {
        let cases = [
            ("\\boxed{12}", "12"),
            ("So \\boxed{12} or \\boxed{13}.", "12, 13"),
            ("First \\boxed{11}. Then it is \\boxed{12}.", "12"),
            ("\\boxed{\\frac{1}{2}", "1/2"),
            ("<answer>\\boxed{12}</answer> 13", "12"),
            ("<answer>$x = 5$</answer>", "x = 5"),
            ("The answer is 12 because 3 rows of 4", "12"),
            ("The answer is $x = 1$ or $x = 2$.", "x = 1, x = 2"),
            ("The value of $x$ is 5.", "5"),
            ("8 * 9 = 72 apples", "8 * 9 = 72"),
            ("It costs $5 and not $7", "7"),
            ("It is $\\frac{1}{2}$ of all.", "1/2"),
            ("It is \\(x + 1\\).", "x + 1"),
            ("\\[ x + 1 \\]", "x + 1"),
            ("The answer is x+1.", "x+1"),
            ("The point is (1, -2).", "(1, -2)"),
            ("The total is $12$. Easy!", "12"),
            ("#### 72", "72"),
            ("$$\\boxed{(2, 2)} \\quad \\text{and} \\quad \\boxed{(6, 2)}$$", "(2, 2), (6, 2)"),
            ("The area is 5 m^2.", "5"),
            ("It rose by $50$%", "50\\%"),
            ("The answer is B.", "B"),
            ("The answer is B because of 3 rows", "B"),
            ("(so there are 12)", "12"),
            ("The answer is 3, as shown in row 2.", "3"),
        ];
        for (response, expected) in cases {
            let expected = parse(expected, Mode::Math);
            assert_eq!(stated_value(response), expected, "{response}");
        }
        assert_eq!(stated_value("I do not know"), None);
        assert_eq!(stated_value(""), None);
    }
}
