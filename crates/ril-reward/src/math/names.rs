//! What runs of letters are: words, units, functions, variables.

use super::token::{Mode, Token};
use super::tree::{Constant, Function};
use crate::words::words;

/// Units that are no products of variables.
const UNITS: &str = " cm mm km nm kg mg lb lbs oz ft yd mi mph kmh kph hr hrs min sec ms ml kj kw hz day cup cups deg rad \
    sq cu usd eur rs mol pa gal qt pt ton units am pm in ";

/// Short words of sentences that are no products of variables.
const SHORT_WORDS: &str = " is are was the for not per of at on to by it we so if as no yes be has had can all any men \
    way bag box car cat dog egg an my do he ";

/// Letters that are units behind a number and a space.
const UNIT_LETTERS: &str = "mgshLlNJWVK";

/// True for a letter that is a unit behind a number and a gap.
pub(super) fn is_unit_letter(letter: &str) -> bool {
    UNIT_LETTERS.contains(letter)
}

fn is_in(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

/// Letters without a gap, as [`Mode`] says.
pub(super) fn read_letters(run: &str, mode: Mode) -> Vec<Token> {
    let length = run.chars().count();
    let lower = run.to_lowercase();
    let is_word = is_in(UNITS, &lower) || (mode == Mode::Prose && is_in(SHORT_WORDS, &lower));
    if let Some(function) = Function::of_name(&lower).filter(|_| length > 1 && !is_word) {
        return vec![Token::Function(function)];
    }
    match lower.as_str() {
        "and" | "or" => return vec![Token::And],
        "pi" => return vec![Token::Constant(Constant::Pi)],
        "infinity" | "oo" => return vec![Token::Constant(Constant::Infinity)],
        "percent" | "percentage" | "pct" => return vec![Token::Percent],
        "degree" | "degrees" => return vec![Token::Degree],
        _ => {}
    }
    let longest_product = if mode == Mode::Math { 3 } else { 2 };
    if length > longest_product || (length > 1 && is_word) || !run.is_ascii() {
        let word = words(run).concat();
        return vec![Token::Word(if word.is_empty() { lower } else { word }, false)];
    }
    run.chars().map(variable).collect()
}

/// A letter as a name, unless it stands for a constant.
fn variable(c: char) -> Token {
    match c {
        'e' => Token::Constant(Constant::E),
        'i' => Token::Constant(Constant::I),
        _ => Token::Variable(c.to_string()),
    }
}
