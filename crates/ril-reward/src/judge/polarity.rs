//! Which way an answer to a yes-or-no question goes.

use crate::conclusion;
use crate::tokens::{Token, tokens};

/// What one word says: `Some(true)` for yes and true.
pub(crate) fn of(word: &str) -> Option<bool> {
    match word {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// What an answer says in its marked conclusion, else in all of it; `None` when it says nothing, or both.
pub(crate) fn stated(response: &str) -> Option<bool> {
    let stated = conclusion(response);
    let marked = Some(stated.text).filter(|_| stated.is_marked).and_then(all);
    let said = marked.or_else(|| all(response))?;
    said.iter().all(|is_true| *is_true == said[0]).then_some(said[0])
}

/// Every polarity that a text states; `None` instead of none at all.
fn all(text: &str) -> Option<Vec<bool>> {
    let tokens = tokens(text);
    let said: Vec<bool> = (0..tokens.len()).filter_map(|at| at_token(&tokens, at)).collect();
    (!said.is_empty()).then_some(said)
}

fn at_token(tokens: &[Token], at: usize) -> Option<bool> {
    let word = tokens[at].word()?;
    let is_true = of(word)?;
    let next = |offset: usize| tokens.get(at + offset).and_then(Token::word);
    if next(1) == Some("is") && matches!(next(2), Some("wrong" | "incorrect")) {
        return None;
    }
    // `no dog`: a noun follows, so that it is no answer. `no it is not`: an answer without its comma.
    let is_answer_word =
        |word: &str| of(word).is_some() || matches!(word, "it" | "that" | "this" | "there" | "i" | "is");
    let is_determiner = word == "no" && at > 0 && next(1).is_some_and(|next| !is_answer_word(next));
    if is_determiner {
        return None;
    }
    let is_denied = tokens[..at].last().is_some_and(|before| before.is_negation() && before.word() != Some("no"));
    match word {
        "true" | "false" => Some(is_true != is_denied),
        _ => (!is_denied).then_some(is_true),
    }
}
