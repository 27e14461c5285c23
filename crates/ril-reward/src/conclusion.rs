/// The part of an answer that states its result; see [`conclusion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conclusion<'a> {
    /// The stated result, trimmed.
    pub text: &'a str,
    /// True when the answer marks its result; false when `text` is merely its last sentence.
    pub is_marked: bool,
}

/// Finds where an answer states its result.
///
/// In this order, and the last one of its kind: `<answer>` tags, `\boxed{}`, `####` to the end of the line, then
/// "answer is", "answer:", "answer =" (any case, Markdown stars allowed) to the end of the sentence. An answer without
/// any of them concludes with its last sentence. The last mark wins because reasoning comes before the result.
///
/// ```
/// use ril_reward::conclusion;
///
/// assert_eq!(conclusion("Add 3 and 4. The answer is 7. Easy!").text, "7");
/// assert_eq!(conclusion("Look left. It is a cat.").text, "It is a cat");
/// ```
pub fn conclusion(response: &str) -> Conclusion<'_> {
    // ASCII lower case keeps byte positions, so that a position found here is one of `response`.
    let lower = response.to_ascii_lowercase();
    let marked = tagged(response, &lower)
        .or_else(|| boxed(response, &lower))
        .or_else(|| after_hashes(response))
        .or_else(|| after_phrase(response, &lower));
    match marked {
        Some(text) => Conclusion { text, is_marked: true },
        None => Conclusion { text: last_sentence(response), is_marked: false },
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

fn tagged<'a>(response: &'a str, lower: &str) -> Option<&'a str> {
    let start = lower.rfind("<answer>")? + "<answer>".len();
    let end = lower[start..].find("</answer>").map_or(lower.len(), |length| start + length);
    non_empty(&response[start..end])
}

fn boxed<'a>(response: &'a str, lower: &str) -> Option<&'a str> {
    let start = lower.rfind("\\boxed{")? + "\\boxed{".len();
    let mut depth = 1;
    let closing = response[start..].find(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    non_empty(closing.map_or(&response[start..], |length| &response[start..start + length]))
}

fn after_hashes(response: &str) -> Option<&str> {
    let (_, rest) = response.rsplit_once("####")?;
    non_empty(rest.lines().find(|line| !line.trim().is_empty())?)
}

fn after_phrase<'a>(response: &'a str, lower: &str) -> Option<&'a str> {
    let is_markup = |c: char| c.is_whitespace() || matches!(c, '*' | '_' | ':');
    lower.rmatch_indices("answer").find_map(|(at, word)| {
        let rest = lower[at + word.len()..].trim_start_matches(['*', '_', ' ']);
        let rest = match rest.strip_prefix("is") {
            Some(after) if after.starts_with(is_markup) => after,
            _ => rest.strip_prefix([':', '='])?,
        };
        let start = lower.len() - rest.trim_start_matches(is_markup).len();
        let stated = &response[start..];
        non_empty(stated[..sentence_end(stated)].trim_end_matches(['*', '_']))
    })
}

fn last_sentence(response: &str) -> &str {
    let mut rest = response.trim();
    loop {
        let (sentence, after) = rest.split_at(sentence_end(rest));
        let after = after.trim_start_matches(is_terminator).trim_start();
        if after.is_empty() {
            return sentence.trim();
        }
        rest = after;
    }
}

fn is_terminator(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '。' | '！' | '？')
}

/// Where the first sentence of `text` ends, its full stop excluded: at a line break, or at a terminator before white
/// space. The full stop of a lone letter (`B. Paris`) does not end a sentence unless nothing follows it.
pub(crate) fn sentence_end(text: &str) -> usize {
    let mut word_length = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let is_before_gap = next.is_none_or(|next| next.is_whitespace() || is_terminator(next));
        let is_label = c == '.' && word_length == 1 && text[..at].ends_with(|c: char| c.is_alphabetic());
        let ends = match c {
            '\n' => true,
            '。' | '！' | '？' => true,
            '.' | '!' | '?' => is_before_gap && (!is_label || text[at + 1..].trim_start().is_empty()),
            _ => false,
        };
        if ends {
            return at;
        }
        word_length = if c.is_alphanumeric() { word_length + 1 } else { 0 };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_are_found_in_order_of_strength() {
        let cases = [
            ("<answer> 7 </answer> or the answer is 8", "7"),
            ("<answer>1</answer> then <Answer>2", "2"),
            ("so \\boxed{\\frac{3}{4}} is it", "\\frac{3}{4}"),
            ("\\boxed{1} and \\boxed{2", "2"),
            ("3 + 4 = 7\n#### 7\n", "7"),
            ("The answer is 12.", "12"),
            ("The answer is 3.5. Good", "3.5"),
            ("the ANSWER is: **B**!", "B"),
            ("**Answer:** (C) because", "(C) because"),
            ("**Answer**: C", "C"),
            ("Answer:\n\nParis\nFrance", "Paris"),
            ("answer = 5", "5"),
            ("The answer is 1. No, the answer is 2.", "2"),
            ("The answer is B. Paris", "B. Paris"),
            ("The answer is B.", "B"),
            ("Answer: 4 is the answer", "4 is the answer"),
            ("My answer is", ""),
        ];
        for (response, expected) in cases {
            let found = conclusion(response);
            if expected.is_empty() {
                assert!(!found.is_marked, "{response:?}");
            } else {
                assert_eq!(found, Conclusion { text: expected, is_marked: true }, "{response:?}");
            }
        }
    }

    #[test]
    fn without_a_mark_the_last_sentence_concludes() {
        let cases = [
            ("", ""),
            ("Paris", "Paris"),
            ("First. Second.", "Second"),
            ("Is it? Yes!!", "Yes"),
            ("one\ntwo\n\n", "two"),
            ("它是猫。不是狗。", "不是狗"),
            ("about 3.5", "about 3.5"),
            ("answering is hard", "answering is hard"),
            ("The answer isn't clear", "The answer isn't clear"),
        ];
        for (response, text) in cases {
            assert_eq!(conclusion(response), Conclusion { text, is_marked: false }, "{response:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_conclusion_inside_it(parts in prop::collection::vec(prop_oneof![
            Just("answer".to_owned()), Just(" is ".to_owned()), Just(":".to_owned()), Just("<answer>".to_owned()),
            Just("\\boxed{".to_owned()), Just("}".to_owned()), Just("####".to_owned()), Just(". ".to_owned()),
            Just("İ".to_owned()), any::<String>(),
        ], 0..8)) {
            let text = parts.concat();
            prop_assert!(text.contains(conclusion(&text).text));
        }
    }
}
