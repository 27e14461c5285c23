//! The few rules of Python on which VLMEvalKit's scores depend: white space, `float()`, `int()`, `str()` of a number and
//! literals. Rust's own differ in corners that answers of models do reach (`1_000`, `５`, `3.0`).

/// What `str.split()` and `str.strip()` take for white space: Unicode's, and four control characters.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `text.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The value of a decimal digit of any script, as `float()` and `int()` and `\d` of `re` read it.
pub(super) fn digit(c: char) -> Option<u32> {
    if c.is_ascii() {
        return c.to_digit(10);
    }
    let code = c as u32;
    let zero = DIGIT_ZEROS.iter().rev().find(|&&zero| zero <= code)?;
    (code - zero < 10).then_some(code - zero)
}

/// Unicode's digits zero beyond ASCII (general category Nd, Unicode 14, the version of Python 3.11); each is followed by
/// its one to nine.
const DIGIT_ZEROS: [u32; 65] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
    0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
    0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0,
    0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0,
    0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// Digits of any script as ASCII; an underscore between two digits is dropped, any other stays and spoils the number.
fn plain_number(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = strip(text).chars().peekable();
    while let Some(c) = rest.next() {
        let is_joint = c == '_' && before.and_then(digit).is_some() && rest.peek().copied().and_then(digit).is_some();
        match digit(c).and_then(|value| char::from_digit(value, 10)) {
            Some(ascii) => plain.push(ascii),
            None if is_joint => {}
            None if c.is_ascii() && c != '_' => plain.push(c),
            None => return None,
        }
        before = Some(c);
    }
    Some(plain)
}

/// `float(text)`; `None` for a `ValueError`.
pub(super) fn float(text: &str) -> Option<f64> {
    plain_number(text)?.parse().ok()
}

/// `int(text)` as decimal digits with a minus sign where needed, of any length; `None` for a `ValueError`.
pub(super) fn int(text: &str) -> Option<String> {
    let plain = plain_number(text)?;
    let (is_negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    Some(match (digits, is_negative) {
        ("", _) => "0".to_string(),
        (digits, true) => format!("-{digits}"),
        (digits, false) => digits.to_string(),
    })
}

/// `repr()` of a float: the shortest digits that read back, always with a point or an exponent.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').expect("the format puts an e");
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |rest| ("-", rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The elements of a list literal (`['a', "b", 3]`) as `str()` gives them; `None` when `text` is no list of strings,
/// numbers, `True`, `False` and `None`. JSON lists of strings and numbers are such literals.
pub(super) fn list(text: &str) -> Option<Vec<String>> {
    let mut rest = strip(text).strip_prefix('[')?;
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(']') {
            return after.trim().is_empty().then_some(items);
        }
        let (item, after) = element(rest)?;
        items.push(item);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with(']') => {}
            None => return None,
        }
    }
}

/// The element at the start of `text` and what follows it. Strings that stand side by side are one.
fn element(text: &str) -> Option<(String, &str)> {
    if text.starts_with(['\'', '"']) {
        let (mut all, mut rest) = quoted(text)?;
        while rest.trim_start().starts_with(['\'', '"']) {
            let (more, after) = quoted(rest.trim_start())?;
            all += &more;
            rest = after;
        }
        return Some((all, rest));
    }
    let end = text.find([',', ']']).unwrap_or(text.len());
    let (word, rest) = (text[..end].trim(), &text[end..]);
    if matches!(word, "True" | "False" | "None") {
        return Some((word.to_string(), rest));
    }
    if !word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')) {
        return None;
    }
    let is_zero = word.bytes().all(|b| b == b'0');
    let has_leading_zero = word.len() > 1 && word.starts_with('0') && !is_zero;
    match int(word) {
        Some(_) if has_leading_zero => None,
        Some(whole) => Some((whole, rest)),
        None => Some((float_text(float(word)?), rest)),
    }
}

/// A string literal at the start of `text` without its quotes, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next()?;
    let mut value = String::new();
    let mut rest = text[1..].chars();
    loop {
        match rest.next()? {
            '\n' => return None,
            '\\' => escape(&mut rest, &mut value)?,
            c if c == quote => return Some((value, rest.as_str())),
            c => value.push(c),
        }
    }
}

/// What stands behind a backslash; an escape that Python does not know stays as it is.
fn escape(rest: &mut std::str::Chars<'_>, value: &mut String) -> Option<()> {
    let c = rest.next()?;
    let count = match c {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => {
            simple_escape(c, value);
            return Some(());
        }
    };
    let digits: String = rest.by_ref().take(count).filter(char::is_ascii_hexdigit).collect();
    let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == count)?;
    value.push(char::from_u32(code)?);
    Some(())
}

fn simple_escape(c: char, value: &mut String) {
    match c {
        '\n' => {}
        'n' => value.push('\n'),
        't' => value.push('\t'),
        'r' => value.push('\r'),
        '0' => value.push('\0'),
        '\\' | '\'' | '"' => value.push(c),
        other => value.extend(['\\', other]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        let cases = [
            (" 3.50\n", Some(3.5)),
            ("1_000", Some(1000.0)),
            ("１２", Some(12.0)),
            ("-.5e1", Some(-5.0)),
            ("_1", None),
            ("1__0", None),
            ("1_.5", None),
            ("", None),
            ("3 4", None),
            ("0x10", None),
        ];
        for (text, expected) in cases {
            assert_eq!(float(text), expected, "{text:?}");
        }
        assert_eq!(float("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(
            [int("+07"), int("-0"), int("1_0"), int("٣"), int("3.0"), int("-")].map(|i| i.unwrap_or_default()),
            ["7", "0", "10", "3", "", ""]
        );
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (3.0, "3.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1.5e-5, "1.5e-05"),
            (1e-4, "0.0001"),
        ] {
            assert_eq!(float_text(value), text);
        }
    }

    #[test]
    fn lists_are_read_and_everything_else_is_not() {
        let cases: [(&str, Option<&[&str]>); 12] = [
            ("['a', \"b's\", 3]", Some(&["a", "b's", "3"])),
            ("[]", Some(&[])),
            ("[ 'x\\n\\u00e9', 1.50, -2, True,]", Some(&["x\né", "1.5", "-2", "True"])),
            ("['a' 'b']", Some(&["ab"])),
            ("[1e20]", Some(&["1e+20"])),
            ("[007]", None),
            ("[,]", None),
            ("['a'", None),
            ("['a'] x", None),
            ("[a]", None),
            ("['\\x1']", None),
            ("(1, 2)", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|items| items.iter().map(|item| (*item).to_string()).collect::<Vec<_>>());
            assert_eq!(list(text), expected, "{text}");
        }
    }
}
