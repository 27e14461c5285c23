//! Text into HTML, bytes into `data:` URIs.

use std::fmt::Write;

/// `text` for element content and double-quoted attributes: nothing in it can open a tag or leave an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No control character belongs in HTML; models do produce them.
            control if control.is_control() && !matches!(control, '\n' | '\t') => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// Appends formatted text; writing to a `String` cannot fail.
pub(super) fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(arguments);
}

/// `data:` URI of a picture; its type by the first bytes, PNG when unknown.
pub(super) fn picture_uri(bytes: &[u8]) -> String {
    let kind = match bytes {
        [0xff, 0xd8, 0xff, ..] => "jpeg",
        [b'B', b'M', ..] => "bmp",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        _ => "png",
    };
    format!("data:image/{kind};base64,{}", base64(bytes))
}

/// Base64 with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|index| u32::from(chunk.get(index).copied().unwrap_or(0)));
        let word = a << 16 | b << 8 | c;
        for (index, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            // `n` bytes fill `n + 1` characters.
            let filled = index <= chunk.len();
            out.push(if filled { char::from(ALPHABET[(word >> shift & 63) as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn base64_equals_rfc_vectors() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn picture_type_follows_the_bytes() {
        assert!(picture_uri(&[0xff, 0xd8, 0xff, 0xe0]).starts_with("data:image/jpeg;base64,"));
        assert!(picture_uri(b"\x89PNG\r\n").starts_with("data:image/png;base64,"));
        assert!(picture_uri(b"RIFF\0\0\0\0WEBPVP8 ").starts_with("data:image/webp;base64,"));
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape(r#"<a b="c" d='e'>&"#), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
        assert_eq!(escape("a\u{1b}[31m\nb"), "a\u{fffd}[31m\nb");
    }
}
