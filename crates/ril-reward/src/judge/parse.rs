use super::Verdict;

const OPEN: &str = "<answer>";
const CLOSE: &str = "</answer>";

/// The verdict in a judge's text: what stands in its **last** `<answer>` tag, `1` = correct, `0` = incorrect.
///
/// Total: any other text is [`Verdict::Unparsed`] and holds that text. Tags may be in any case and the number in white
/// space. The closing tag may be missing, because a server that stops at `</answer>` takes it away, but then nothing
/// else may follow. The last tag wins because a judge quotes the answer that it judges before it decides.
///
/// Source of the format: RIL, arXiv 2510.19307, Fig. 4.
///
/// ```
/// use ril_reward::{Verdict, parse_verdict};
///
/// assert_eq!(parse_verdict("Both say seven. <answer>1</answer>"), Verdict::Correct);
/// assert!(matches!(parse_verdict("I would say 1"), Verdict::Unparsed(_)));
/// ```
pub fn parse_verdict(text: &str) -> Verdict {
    // ASCII lower case keeps byte positions, so that tags are found in any case.
    let lower = text.to_ascii_lowercase();
    let content = lower.rsplit_once(OPEN).map(|(_, rest)| rest.split_once(CLOSE).map_or(rest, |(inside, _)| inside));
    match content.map(str::trim) {
        Some("1") => Verdict::Correct,
        Some("0") => Verdict::Incorrect,
        _ => Verdict::Unparsed(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_zero_or_one_in_the_last_tag_is_a_verdict() {
        let correct = [
            "<answer>1</answer>",
            "Fine.\n<answer> 1 </answer>\n",
            "<ANSWER>1</Answer>",
            "It wrote <answer>0</answer>, which is right. <answer>1</answer>",
            "stopped early: <answer>1",
            "<answer><answer>1</answer>",
            "<answer>1</answer> I hope this helps, 0 doubts.",
        ];
        let incorrect = ["<answer>0</answer>", "<answer>1</answer> no: <answer>0</answer>", "<answer>\n0\n</answer>"];
        let unparsed = [
            "",
            "1",
            "answer: 1",
            "<answer></answer>",
            "<answer>2</answer>",
            "<answer>01</answer>",
            "<answer>1 or 0</answer>",
            "<answer>1</answer><answer>maybe</answer>",
            "</answer>1<answer>",
            "<answer>1 because it says so",
            "< answer>1</ answer>",
            "<answer>１</answer>",
        ];
        for text in correct {
            assert_eq!(parse_verdict(text), Verdict::Correct, "{text:?}");
        }
        for text in incorrect {
            assert_eq!(parse_verdict(text), Verdict::Incorrect, "{text:?}");
        }
        for text in unparsed {
            assert_eq!(parse_verdict(text), Verdict::Unparsed(text.to_owned()), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_string_gets_a_verdict(text in any::<String>()) {
            let verdict = parse_verdict(&text);
            if !text.to_ascii_lowercase().contains(OPEN) {
                prop_assert_eq!(verdict, Verdict::Unparsed(text));
            }
        }

        #[test]
        fn any_mix_of_tags_gets_a_verdict(parts in prop::collection::vec(
            prop_oneof![Just("<answer>"), Just("</answer>"), Just("1"), Just("0"), Just(" "), Just("é"), Just("İ"), Just("<")],
            0..12,
        )) {
            let text = parts.concat();
            if let Verdict::Unparsed(kept) = parse_verdict(&text) {
                prop_assert_eq!(kept, text);
            }
        }

        #[test]
        fn the_last_tag_wins_whatever_stands_before(before in any::<String>(), is_correct in any::<bool>()) {
            let text = format!("{before}<answer>{}</answer>", u8::from(is_correct));
            prop_assert_eq!(parse_verdict(&text), Verdict::of(is_correct));
        }
    }
}
