use std::ops::Range;

/// A number written in a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// The digits as written: `50%` has value 50.
    pub value: f64,
    /// True when a percent sign or the word "percent" follows.
    pub is_percent: bool,
}

impl Number {
    /// The quantity meant: `value`, or a hundredth of it for a percentage.
    pub fn as_fraction(self) -> f64 {
        if self.is_percent { self.value / 100.0 } else { self.value }
    }

    /// The number when `text` holds one number and nothing else but white space, currency signs, Markdown and math
    /// marks and a final full stop.
    pub fn whole(text: &str) -> Option<Self> {
        let plain = plain(text);
        let [(number, span)] = scan(&plain).try_into().ok()?;
        let is_decoration = |c: char| c.is_whitespace() || matches!(c, '$' | '€' | '£' | '¥' | '*' | '.' | '-' | '+');
        let around = plain[..span.start].chars().chain(plain[span.end..].chars());
        around.into_iter().all(is_decoration).then_some(number)
    }
}

/// All numbers in a text, in order.
///
/// * Signs (`-3`, `−3`, `+3`, `-$3`): not between two terms (`10-3` is 10 and 3).
/// * Thousands in commas (`1,234,567`); a comma with anything but three digits behind it ends the number (`3, 5`).
/// * Decimals (`0.5`, `.5`), scientific notation (`1.5e-3`), powers (`10^3` is 1000).
/// * Fractions (`3/4`, `\frac{3}{4}`): without spaces, not by zero, and not in a chain (`2024/05/06` is three numbers).
/// * Percentages (`50%`, `50 %`, `50 percent`).
/// * Digits that belong to a word (`H2O`, `x2`) or to an exponent (`cm^2`) are no numbers; a unit may follow (`12cm`).
///
/// Values that do not fit an `f64` are left out.
///
/// ```
/// use ril_reward::numbers;
///
/// let values: Vec<f64> = numbers("H2O costs $1,234.50, half of it -3/4.").iter().map(|n| n.value).collect();
/// assert_eq!(values, [1234.5, -0.75]);
/// ```
pub fn numbers(text: &str) -> Vec<Number> {
    scan(&plain(text)).into_iter().map(|(number, _)| number).collect()
}

/// `text` with typographic and LaTeX spellings of signs, percent and fractions in plain ASCII.
pub(crate) fn plain(text: &str) -> String {
    let text = text.replace('−', "-").replace('％', "%").replace("\\%", "%").replace("{,}", ",").replace("\\$", "$");
    let text = text.replace("\\dfrac{", "\\frac{").replace("\\tfrac{", "\\frac{");
    let mut parts = text.split("\\frac{");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let fraction = part.split_once("}{").and_then(|(above, rest)| Some((above, rest.split_once('}')?)));
        match fraction {
            Some((above, (below, rest))) if !above.contains('}') => plain.extend([above, "/", below, rest]),
            _ => plain.push_str(part),
        }
    }
    plain
}

pub(crate) fn scan(text: &str) -> Vec<(Number, Range<usize>)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let is_point = bytes[at] == b'.' && !at.checked_sub(1).is_some_and(|before| is_word_byte(bytes[before]));
        let starts = bytes[at].is_ascii_digit() || (is_point && digits(bytes, at + 1) > 0);
        if !starts {
            at += 1;
            continue;
        }
        let (magnitude, end) = magnitude(text, at);
        let (sign, start) = sign(bytes, at);
        let is_part_of_word = bytes[..at].last().is_some_and(|&b| b.is_ascii_alphabetic() || b == b'_' || b == b'^')
            || bytes[..start].last() == Some(&b'^');
        if !is_part_of_word && magnitude.is_finite() {
            let (is_percent, end) = percent(text, end);
            found.push((Number { value: sign * magnitude, is_percent }, start..end));
        }
        at = end;
    }
    found
}

/// How many digits stand at `at`.
fn digits(bytes: &[u8], at: usize) -> usize {
    bytes.iter().skip(at).take_while(|b| b.is_ascii_digit()).count()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'.'
}

/// The sign in front of the digits at `at`, and where the number starts with it; a currency sign may stand between.
fn sign(bytes: &[u8], at: usize) -> (f64, usize) {
    let before_currency = at - usize::from(bytes[..at].ends_with(b"$"));
    let Some((&sign @ (b'-' | b'+'), before)) = bytes[..before_currency].split_last() else {
        return (1.0, at);
    };
    if before.last().is_some_and(|&b| b.is_ascii_alphanumeric() || matches!(b, b')' | b']' | b'%')) {
        return (1.0, at);
    }
    (if sign == b'-' { -1.0 } else { 1.0 }, before.len())
}

/// The unsigned number that starts at `start` with its exponent, power or denominator, and where it ends.
fn magnitude(text: &str, start: usize) -> (f64, usize) {
    let bytes = text.as_bytes();
    let (value, end) = decimal(text, start);
    match bytes.get(end) {
        Some(b'^') => {
            let exponent = end + 1 + usize::from(bytes.get(end + 1) == Some(&b'{'));
            let length = digits(bytes, exponent);
            match text[exponent..exponent + length].parse::<i32>() {
                Ok(power) => (value.powi(power), exponent + length),
                Err(_) => (value, end),
            }
        }
        Some(b'/') if digits(bytes, end + 1) > 0 && !bytes[..start].ends_with(b"/") => {
            let (divisor, divisor_end) = decimal(text, end + 1);
            let is_chain = bytes.get(divisor_end) == Some(&b'/') && digits(bytes, divisor_end + 1) > 0;
            if is_chain || divisor == 0.0 { (value, end) } else { (value / divisor, divisor_end) }
        }
        _ => (value, end),
    }
}

/// Digits with thousands, decimals and an exponent of ten.
fn decimal(text: &str, start: usize) -> (f64, usize) {
    let bytes = text.as_bytes();
    let mut end = start + digits(bytes, start);
    if (1..=3).contains(&(end - start)) {
        while bytes.get(end) == Some(&b',') && digits(bytes, end + 1) == 3 {
            end += 4;
        }
    }
    if bytes.get(end) == Some(&b'.') && digits(bytes, end + 1) > 0 {
        end += 1 + digits(bytes, end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let length = digits(bytes, exponent);
        if length > 0 && !bytes.get(exponent + length).is_some_and(u8::is_ascii_alphabetic) {
            end = exponent + length;
        }
    }
    // The slice is ASCII digits, points and an exponent: what `f64` reads. NaN would be left out by the caller.
    (text[start..end].replace(',', "").parse().unwrap_or(f64::NAN), end)
}

fn percent(text: &str, end: usize) -> (bool, usize) {
    let rest = text[end..].trim_start_matches(' ');
    let after = rest.strip_prefix('%').or_else(|| rest.strip_prefix("percent"));
    after.map_or((false, end), |after| (true, text.len() - after.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<f64> {
        numbers(text).iter().map(|number| number.value).collect()
    }

    #[test]
    fn spellings_of_numbers() {
        let cases: [(&str, &[f64]); 42] = [
            ("", &[]),
            ("no number", &[]),
            ("12", &[12.0]),
            ("The answer is 12.", &[12.0]),
            ("3 + 4 = 7", &[3.0, 4.0, 7.0]),
            ("1,234", &[1234.0]),
            ("1,234,567.89", &[1_234_567.89]),
            ("3, 5", &[3.0, 5.0]),
            ("3,5", &[3.0, 5.0]),
            ("1,23", &[1.0, 23.0]),
            ("1234,567", &[1234.0, 567.0]),
            ("1,2345", &[1.0, 2345.0]),
            ("$1,234.50!", &[1234.5]),
            ("-3", &[-3.0]),
            ("−3", &[-3.0]),
            ("+3", &[3.0]),
            ("= -3.5", &[-3.5]),
            ("-$5", &[-5.0]),
            ("$-5", &[-5.0]),
            ("10-3", &[10.0, 3.0]),
            ("10 - 3", &[10.0, 3.0]),
            ("(2)-3", &[2.0, 3.0]),
            ("5%-3%", &[5.0, 3.0]),
            (".5", &[0.5]),
            ("No.5", &[5.0]),
            ("5.", &[5.0]),
            ("3/4", &[0.75]),
            ("-3/4", &[-0.75]),
            ("3/0", &[3.0, 0.0]),
            ("2024/05/06", &[2024.0, 5.0, 6.0]),
            ("\\frac{3}{4}", &[0.75]),
            ("-\\dfrac{1}{8}", &[-0.125]),
            ("\\frac{x}{y} 2", &[2.0]),
            ("1e3", &[1000.0]),
            ("1.5e-3", &[0.0015]),
            ("2em", &[2.0]),
            ("10^3", &[1000.0]),
            ("10^{2}", &[100.0]),
            ("5 cm^2 of H2O, x2", &[5.0]),
            ("12cm", &[12.0]),
            ("1.2.3", &[1.2, 3.0]),
            ("1\\,000 and 2{,}000", &[1.0, 0.0, 2000.0]),
        ];
        for (text, expected) in cases {
            assert_eq!(values(text), expected, "{text:?}");
        }
    }

    #[test]
    fn percentages_keep_their_digits_and_know_their_fraction() {
        for text in ["50%", "50 %", "50\\%", "50 percent", "50％"] {
            let [number] = numbers(text)[..] else { panic!("{text:?}") };
            assert_eq!((number.value, number.is_percent, number.as_fraction()), (50.0, true, 0.5), "{text:?}");
        }
        assert!(!numbers("50 per cent")[0].is_percent);
    }

    #[test]
    fn whole_numbers_have_nothing_beside_them() {
        for text in ["7", " 7. ", "$7", "**7**", "$7$", "-7%", "1,234.5", "3/4", "1e5"] {
            assert!(Number::whole(text).is_some(), "{text:?}");
        }
        for text in ["", "seven", "7 apples", "7 and 8", "H2O", "1, 2", "B7", "7:30"] {
            assert!(Number::whole(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn values_beyond_f64_are_left_out() {
        assert_eq!(values("1e999 and 10^999"), [] as [f64; 0]);
        assert_eq!(values(&"9".repeat(400)), [] as [f64; 0]);
    }

    proptest! {
        #[test]
        fn any_text_gives_finite_numbers(text in "[-+0-9.,/%^eE${}\\\\ frac−é]{0,40}", other in any::<String>()) {
            prop_assert!(numbers(&text).iter().chain(&numbers(&other)).all(|number| number.value.is_finite()));
            let _ = Number::whole(&text);
        }

        #[test]
        fn what_rust_prints_is_read_back(value in -1e12..1e12) {
            prop_assert_eq!(values(&format!("it is {value}.")), [value]);
        }

        #[test]
        fn whole_thousands_are_read_back(value in 0_u64..1_000_000_000) {
            let digits = value.to_string();
            let mut grouped = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            prop_assert_eq!(values(&grouped), [value as f64]);
        }
    }
}
