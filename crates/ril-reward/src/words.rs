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

/// Where the words `run` stand one after the other in `text`, first position of each occurrence.
pub(crate) fn positions_of_run<'a>(text: &'a [String], run: &'a [String]) -> impl Iterator<Item = usize> + 'a {
    let windows = text.windows(run.len().max(1)).enumerate();
    windows.filter(move |(_, window)| *window == run).map(|(at, _)| at)
}

/// The last number written in words, up to ninety-nine.
pub(crate) fn number_in_words(text: &str) -> Option<f64> {
    let words = words(text);
    let unit = |word: &String| UNITS.iter().position(|name| name == word);
    let tens = |word: &String| TENS.iter().position(|name| name == word).map(|index| 10 * (index + 2));
    let last = words.iter().rposition(|word| unit(word).or_else(|| tens(word)).is_some())?;
    let value = match unit(&words[last]) {
        Some(ones @ 1..=9) => ones + last.checked_sub(1).and_then(|before| tens(&words[before])).unwrap_or(0),
        Some(ones) => ones,
        None => tens(&words[last])?,
    };
    u32::try_from(value).ok().map(f64::from)
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
    fn runs_are_found_whole() {
        let text = words("new york is not new york city");
        assert_eq!(positions_of_run(&text, &words("New York")).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(positions_of_run(&text, &words("york city")).collect::<Vec<_>>(), [5]);
        assert_eq!(positions_of_run(&text, &words("yor")).count(), 0);
        assert_eq!(positions_of_run(&text, &[]).count(), 0);
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
            ("", None),
        ];
        for (text, value) in cases {
            assert_eq!(number_in_words(text), value, "{text:?}");
        }
    }
}
