//! Texts as words: lower case, punctuation dropped.

const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// The words of a text: runs of letters and digits in lower case; apostrophes vanish (`isn't` is `isnt`).
pub(crate) fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace(['\'', '’'], "");
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// How many bytes of a text are looked at beside a place in it: more than a clause, so that a text which repeats itself
/// takes no more time than another of its length.
const NEIGHBOURHOOD_BYTES: usize = 256;

/// The words at the start of a text up to one of `ends`, one by one.
pub(crate) fn words_after(text: &str, ends: &[char]) -> impl Iterator<Item = String> {
    let near = &text[..text.floor_char_boundary(NEIGHBOURHOOD_BYTES)];
    let mut is_over = false;
    let parts = near.split_inclusive(|c| !is_in_word(c));
    let parts = parts.map_while(move |part| (!std::mem::replace(&mut is_over, part.ends_with(ends))).then_some(part));
    parts.map(word).filter(|word| !word.is_empty())
}

/// The words at the end of a text back to one of `ends`, the last one first.
pub(crate) fn words_before(text: &str, ends: &[char]) -> impl Iterator<Item = String> {
    let near = &text[text.ceil_char_boundary(text.len().saturating_sub(NEIGHBOURHOOD_BYTES))..];
    let parts = near.split_inclusive(|c| !is_in_word(c)).rev();
    parts.take_while(move |part| !part.ends_with(ends)).map(word).filter(|word| !word.is_empty())
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\'' | '’')
}

/// What [`words`] makes of a word and the mark behind it.
fn word(part: &str) -> String {
    part.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Where the words `run` stand one after the other in `text`, first position of each occurrence.
pub(crate) fn positions_of_run<'a>(text: &'a [String], run: &'a [String]) -> impl Iterator<Item = usize> + 'a {
    let windows = text.windows(run.len().max(1)).enumerate();
    windows.filter(move |(_, window)| *window == run).map(|(at, _)| at)
}

/// The last number written in words, below a thousand millions. "One" counts only where a number can stand: at the
/// start, behind a verb or a word such as "only", or as a part of a longer number. A last number that does not fit `u64`
/// is none.
pub(crate) fn number_in_words(text: &str) -> Option<f64> {
    let words = words(text);
    let mut last = None;
    let mut at = 0;
    while at < words.len() {
        let (value, end) = match spelled(&words, at) {
            Some(found) => found,
            None => {
                at += 1;
                continue;
            }
        };
        if !(words[at] == "one" && end == at + 1) || counts(&words, at) {
            last = value.map(|value| signed(&words, at, value as f64));
        }
        at = end;
    }
    last
}

/// The number that starts at `at`, if it fits, and where it ends.
fn spelled(words: &[String], at: usize) -> Option<(Option<u64>, usize)> {
    let (mut group, mut end) = match below_hundred(words, at) {
        Some((value, after)) => (Some(Some(value)), after),
        None => (None, at),
    };
    let mut total = Some(0_u64);
    loop {
        let (scale, word) = match words.get(end).map(String::as_str) {
            Some("hundred") => (100, true),
            Some("thousand") => (1_000, true),
            Some("million") => (1_000_000, true),
            _ => (1, false),
        };
        if word {
            let scaled = group.unwrap_or(Some(1)).and_then(|value| value.checked_mul(scale));
            end += 1;
            if scale == 100 {
                group = Some(scaled);
            } else {
                total = total.zip(scaled).and_then(|(total, value)| total.checked_add(value));
                group = Some(Some(0));
            }
            continue;
        }
        let value = group?;
        // Only what is smaller than the last scale can follow it: `two hundred (and) five`.
        let behind_scale = end > at && matches!(words[end - 1].as_str(), "hundred" | "thousand" | "million");
        let next = end + usize::from(words.get(end).is_some_and(|word| word == "and"));
        match below_hundred(words, next).filter(|_| behind_scale) {
            Some((more, after)) => {
                (group, end) = (Some(value.and_then(|value| value.checked_add(more))), after);
            }
            None => return Some((total.zip(value).and_then(|(total, value)| total.checked_add(value)), end)),
        }
    }
}

/// A number up to ninety-nine at `at`, and where it ends.
fn below_hundred(words: &[String], at: usize) -> Option<(u64, usize)> {
    let unit = |word: &String| UNITS.iter().position(|name| name == word);
    let word = words.get(at)?;
    if let Some(units) = unit(word) {
        return Some((units as u64, at + 1));
    }
    let tens = 10 * (TENS.iter().position(|name| name == word)? as u64 + 2);
    match words.get(at + 1).and_then(unit) {
        Some(ones @ 1..=9) => Some((tens + ones as u64, at + 2)),
        _ => Some((tens, at + 1)),
    }
}

/// The value with the sign in words before it; between two numbers `minus` is no sign.
fn signed(words: &[String], at: usize, value: f64) -> f64 {
    let is_minus = at > 0 && matches!(words[at - 1].as_str(), "minus" | "negative");
    let is_number = |word: &String| UNITS.contains(&word.as_str()) || TENS.contains(&word.as_str());
    let is_between = at > 1 && is_number(&words[at - 2]);
    if is_minus && !is_between { -value } else { value }
}

/// Whether the lone `one` at `at` is a number and not a pronoun.
fn counts(words: &[String], at: usize) -> bool {
    const BEFORE: &str = " is are was were be see sees saw has have contains contain only just exactly answer says equals \
        makes gives get count counted find found total minus negative plus times or and about ";
    at == 0 || BEFORE.split_whitespace().any(|before| before == words[at - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_runs_of_letters_and_digits() {
        assert_eq!(words("It isn't B2, Zoë!  "), ["it", "isnt", "b2", "zoë"]);
        assert!(words(" ... ").is_empty());
    }

    #[test]
    fn words_beside_a_place_stop_at_a_mark() {
        let after = |text| words_after(text, &['.', ',']).collect::<Vec<_>>();
        assert_eq!(after(" isn't (B) right, but wrong"), ["isnt", "b", "right"]);
        assert_eq!(after(", but wrong"), [] as [&str; 0]);
        let before = |text| words_before(text, &['.', ',']).collect::<Vec<_>>();
        assert_eq!(before("Not Rome, It’s the Option "), ["option", "the", "its"]);
        assert_eq!(before("Rome. "), [] as [&str; 0]);
        assert_eq!(before("Rome"), ["rome"]);
        assert!(before(&"né ".repeat(1000)).len() < 100 && after(&"né ".repeat(1000)).len() < 100);
    }

    #[test]
    fn runs_are_found_whole() {
        let text = words("new york is not new york city");
        assert_eq!(positions_of_run(&text, &words("New York")).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(positions_of_run(&text, &words("york city")).collect::<Vec<_>>(), [5]);
        assert_eq!(positions_of_run(&text, &words("yor")).count(), 0);
        assert_eq!(positions_of_run(&text, &[]).count(), 0);
    }

    #[test]
    fn a_number_in_words_that_does_not_fit_is_none() {
        for last in ["hundred", "thousand", "million"] {
            assert_eq!(number_in_words(&format!("one {}{last}", "hundred ".repeat(12))), None, "{last}");
        }
        assert_eq!(number_in_words(&format!("five, one {}", "hundred ".repeat(12))), None);
        assert_eq!(number_in_words(&format!("one {} cats, five", "hundred ".repeat(12))), Some(5.0));
    }

    #[test]
    fn numbers_in_words() {
        let cases = [
            ("zero", Some(0.0)),
            ("It is Twelve.", Some(12.0)),
            ("twenty-one", Some(21.0)),
            ("ninety nine", Some(99.0)),
            ("forty", Some(40.0)),
            ("two or three", Some(3.0)),
            ("twenty ten", Some(10.0)),
            ("none", None),
            ("one hundred and five", Some(105.0)),
            ("two thousand three hundred", Some(2300.0)),
            ("a hundred", Some(100.0)),
            ("two and three", Some(3.0)),
            ("minus five", Some(-5.0)),
            ("ten minus five", Some(5.0)),
            ("which one", None),
            ("just one", Some(1.0)),
            ("", None),
        ];
        for (text, value) in cases {
            assert_eq!(number_in_words(text), value, "{text:?}");
        }
    }
}
