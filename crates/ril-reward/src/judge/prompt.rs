use crate::{RewardError, Sample};

const JUDGE: &str = include_str!("../../prompts/judge.txt");
const JUDGE_SHORT: &str = include_str!("../../prompts/judge_short.txt");

/// A judge prompt with slots for question, ground truth and answer, filled in **one pass**.
///
/// The template is cut into literals and slots once; a text is copied into its slot and never read again, so that an
/// answer that contains `{reference}` stays those eleven characters. A literal brace is doubled: `{{`, `}}`.
///
/// ```
/// use ril_reward::{PromptTemplate, Sample};
///
/// let template = PromptTemplate::parse("Q: {question} A: {reference} R: {response} {{json}}")?;
/// let prompt = template.render(&Sample::new("1 + 1?", "2", "{reference}"));
/// assert_eq!(prompt, "Q: 1 + 1? A: 2 R: {reference} {json}");
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplate {
    parts: Vec<Part>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Slot(Slot),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Question,
    Reference,
    Response,
}

impl Slot {
    const ALL: [Self; 3] = [Self::Question, Self::Reference, Self::Response];

    fn name(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Reference => "reference",
            Self::Response => "response",
        }
    }

    fn text<'a>(self, sample: &Sample<'a>) -> &'a str {
        match self {
            Self::Question => sample.question,
            Self::Reference => sample.reference,
            Self::Response => sample.response,
        }
    }
}

impl PromptTemplate {
    /// The embedded template: question, ground truth and answer in, a short reason and then 0 or 1 in `<answer>` tags
    /// out, as [`parse_verdict`](crate::parse_verdict) reads it.
    ///
    /// The idea is Fig. 4 of RIL (arXiv 2510.19307), the words are ours. It shows no image: the judge reads text only.
    pub fn judge() -> Self {
        Self::parse(JUDGE).expect("the embedded judge template is well formed (tested)")
    }

    /// The embedded template without rules and without a reason: the verdict costs a few tokens. For judges that are paid by
    /// the token, or too small to follow the rules of [`Self::judge`].
    pub fn judge_short() -> Self {
        Self::parse(JUDGE_SHORT).expect("the embedded judge template is well formed (tested)")
    }

    /// Reads a template with the slots `{question}`, `{reference}` and `{response}`.
    ///
    /// # Errors
    /// [`RewardError::Template`] for a missing or unknown slot and for a lone brace.
    pub fn parse(template: &str) -> Result<Self, RewardError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let (slot, after) = take_slot(rest)?;
                parts.push(Part::Literal(std::mem::take(&mut literal)));
                parts.push(Part::Slot(slot));
                rest = after;
            }
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        if let Some(slot) = Slot::ALL.iter().find(|slot| !parts.contains(&Part::Slot(**slot))) {
            return Err(RewardError::Template(format!("slot {{{}}} is missing", slot.name())));
        }
        Ok(Self { parts, text: template.to_owned() })
    }

    /// The template as it was read: its version, for a cache.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The prompt for one sample.
    pub fn render(&self, sample: &Sample<'_>) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.as_str(),
                Part::Slot(slot) => slot.text(sample),
            })
            .collect()
    }
}

impl Default for PromptTemplate {
    fn default() -> Self {
        Self::judge()
    }
}

/// The slot at the start of `rest`, which starts with a brace, and what follows it.
fn take_slot(rest: &str) -> Result<(Slot, &str), RewardError> {
    let lone = || RewardError::Template(format!("a lone brace before {:?}", rest.chars().take(20).collect::<String>()));
    let (name, after) = rest.strip_prefix('{').and_then(|inside| inside.split_once('}')).ok_or_else(lone)?;
    let slot = Slot::ALL.into_iter().find(|slot| slot.name() == name);
    let slot = slot.ok_or_else(|| RewardError::Template(format!("unknown slot {{{name}}}")))?;
    Ok((slot, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_embedded_template_shows_the_three_texts_and_asks_for_tags() {
        let prompt = PromptTemplate::judge().render(&Sample::new("Which city?", "Paris", "It is Rome."));
        for text in
            ["<question>\nWhich city?\n", "<ground_truth>\nParis\n", "<response>\nIt is Rome.\n", "<answer>1</answer>"]
        {
            assert!(prompt.contains(text), "{text:?} is missing from {prompt:?}");
        }
    }

    #[test]
    fn the_short_template_shows_the_three_texts_and_asks_for_tags() {
        let prompt = PromptTemplate::judge_short().render(&Sample::new("Which city?", "Paris", "It is Rome."));
        let expected = "Question: Which city?\nGround truth: Paris\nResponse: It is Rome.\n\n";
        assert!(prompt.starts_with(expected) && prompt.contains("<answer>1</answer>"), "{prompt:?}");
    }

    #[test]
    fn malformed_templates_are_refused() {
        let cases = [
            ("{question} {reference}", "prompt template: slot {response} is missing"),
            ("{question} {reference} {response} {image}", "prompt template: unknown slot {image}"),
            ("{question", "prompt template: a lone brace before \"{question\""),
            ("} {question}", "prompt template: a lone brace before \"} {question}\""),
        ];
        for (template, message) in cases {
            let error = PromptTemplate::parse(template).expect_err(template);
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn slots_may_repeat_and_come_in_any_order() {
        let template = PromptTemplate::parse("{response}{reference}{{{question}}}{response}").expect("well formed");
        assert_eq!(template.render(&Sample::new("q", "a", "r")), "ra{q}r");
    }

    fn tricky() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("{question}".to_owned()),
            Just("{reference}".to_owned()),
            Just("{response}".to_owned()),
            Just("{{".to_owned()),
            Just("}}".to_owned()),
            any::<String>(),
        ];
        prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn texts_never_fill_a_slot(question in tricky(), reference in tricky(), response in tricky()) {
            let template = PromptTemplate::parse("[{question}|{reference}|{response}]").expect("well formed");
            let prompt = template.render(&Sample::new(&question, &reference, &response));
            prop_assert_eq!(prompt, format!("[{question}|{reference}|{response}]"));
        }

        #[test]
        fn any_template_is_read_or_refused(template in tricky()) {
            let _ = PromptTemplate::parse(&template);
        }
    }
}
