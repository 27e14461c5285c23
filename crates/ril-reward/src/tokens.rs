//! Texts as a judge compares them: numbers by value, words in lower case, and what joins or ends them.

use crate::number::{plain, scan};
use crate::words::words;

/// One thing that a text says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A number with its sign; `true` when a percent sign follows.
    Number(f64, bool),
    /// A word, as [`words`] makes it.
    Word(String),
    /// A comma, semicolon, slash or their like: what joins the items of a list.
    Join,
    /// The end of a sentence or of a line, a colon, a bracket: what ends a thought.
    Stop,
}

impl Token {
    /// The word, if it is one.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    /// True for a number or a word.
    pub fn is_content(&self) -> bool {
        matches!(self, Self::Number(..) | Self::Word(_))
    }

    /// True for a, an, the.
    pub fn is_article(&self) -> bool {
        self.word().is_some_and(|word| matches!(word, "a" | "an" | "the"))
    }

    /// True for a word that denies what stands right behind it.
    pub fn is_negation(&self) -> bool {
        self.word().is_some_and(is_negation)
    }
}

/// The words that deny what stands right behind them.
pub(crate) fn is_negation(word: &str) -> bool {
    let listed = ["not", "no", "never", "without", "neither", "nor", "cannot", "than"].contains(&word);
    listed || ["isnt", "arent", "wasnt", "werent", "dont", "doesnt", "cant", "wont", "aint"].contains(&word)
}

/// All tokens of a text, in order. Digits that belong to a word (`H2O`) stay in it; a unit is a word of its own, whether
/// it is written with a space (`12 cm`) or without (`12cm`).
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let plain = plain(text);
    let mut found = Vec::new();
    let mut at = 0;
    for (number, span) in scan(&plain) {
        push_words(&plain[at..span.start], &mut found);
        found.push(Token::Number(number.value, number.is_percent));
        at = span.end;
    }
    push_words(&plain[at..], &mut found);
    found
}

/// Words, joins and stops of a stretch of text without numbers.
fn push_words(text: &str, found: &mut Vec<Token>) {
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let mark = match c {
            ',' | ';' | '/' | '|' | '&' | '、' | '，' | '；' => Token::Join,
            '.' | '!' | '?' | ':' | '\n' | '(' | ')' | '[' | ']' | '。' | '！' | '？' | '：' => Token::Stop,
            _ => continue,
        };
        found.extend(words(&text[start..at]).into_iter().map(Token::Word));
        found.push(mark);
        start = at + c.len_utf8();
    }
    found.extend(words(&text[start..]).into_iter().map(Token::Word));
}

/// Where `run` stands in `text`, marks left out of the comparison: first index, and the one behind its last token.
pub(crate) fn runs(text: &[Token], run: &[Token]) -> Vec<(usize, usize)> {
    let places: Vec<usize> = (0..text.len()).filter(|&i| text[i].is_content()).collect();
    let run: Vec<&Token> = run.iter().filter(|token| token.is_content()).collect();
    let matches = |places: &&[usize]| places.iter().zip(&run).all(|(&i, token)| text[i] == **token);
    let windows = places.windows(run.len().max(1)).filter(|_| !run.is_empty());
    windows.filter(matches).map(|places| (places[0], places[places.len() - 1] + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Token {
        Token::Number(value, false)
    }

    fn word(word: &str) -> Token {
        Token::Word(word.into())
    }

    #[test]
    fn numbers_are_compared_by_value_and_units_are_words() {
        assert_eq!(tokens("12cm"), tokens("12 CM"));
        assert_eq!(tokens("3.5 kg"), [number(3.5), word("kg")]);
        assert_eq!(tokens("-5 °C"), [number(-5.0), word("c")]);
        assert_eq!(tokens("1,200 m"), tokens("1200m"));
        assert_eq!(tokens("H2O, New-York!"), [word("h2o"), Token::Join, word("new"), word("york"), Token::Stop]);
        assert_eq!(tokens("50 %"), [Token::Number(50.0, true)]);
    }

    #[test]
    fn runs_pass_over_marks() {
        let text = tokens("On Mt. Everest, or Everest");
        assert_eq!(runs(&text, &tokens("mt everest")), [(1, 4)]);
        assert_eq!(runs(&text, &tokens("everest")).len(), 2);
        assert!(runs(&text, &[]).is_empty());
        assert!(runs(&tokens("5"), &tokens("5 kg")).is_empty());
    }
}
