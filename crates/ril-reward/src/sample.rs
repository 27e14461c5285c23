/// Borrowed view of one answer to score.
///
/// Build it with [`Sample::new`]: the struct may grow fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Sample<'a> {
    /// The question as the model saw it, options included; images are not part of a sample.
    pub question: &'a str,
    /// The ground truth.
    pub reference: &'a str,
    /// The answer to score, without prompt and special tokens.
    pub response: &'a str,
}

impl<'a> Sample<'a> {
    /// A sample from question, ground truth and answer, in that order.
    pub fn new(question: &'a str, reference: &'a str, response: &'a str) -> Self {
        Self { question, reference, response }
    }

    /// True when the answer holds nothing but white space; such an answer is wrong without a judge.
    pub fn is_response_empty(&self) -> bool {
        self.response.trim().is_empty()
    }
}
