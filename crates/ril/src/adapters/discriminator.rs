//! A model as the encoder of a discriminator, and the prompt under which it reads responses.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use ril_gail::{AuthoredBy, DiscriminatorRows, RowPair, RowsFromFn, SequenceEncoder};
use ril_models::{ChatModel, Content, Message, ModelInput, Role};
use serde::{Deserialize, Serialize};

use crate::error::RilError;
use crate::group::{Group, Origin, Prompt, Question, prompt_batch};
use crate::learner::TrainableModel;
use crate::special::neutralised;

/// A language model as a [`SequenceEncoder`]; the discriminator of RIL starts as a copy of the student.
#[derive(Module, Debug)]
pub struct LmEncoder<M: Module> {
    /// The model, without use for its head.
    pub model: M,
}

impl<M: TrainableModel> LmEncoder<M> {
    /// The encoder for one step of training: see [`CausalLm::at_step`](ril_models::CausalLm::at_step).
    #[must_use]
    pub fn at_step(self, step: u64) -> Self {
        Self { model: self.model.at_step(step) }
    }
}

impl<M: TrainableModel> SequenceEncoder for LmEncoder<M> {
    type Input = ModelInput;
    type Error = RilError;

    fn encode(&self, input: &ModelInput) -> Result<Tensor<3>, RilError> {
        Ok(self.model.hidden_states(input, None)?)
    }

    fn last_valid_positions(&self, input: &ModelInput) -> Vec<usize> {
        let last = |row| input.tokens.row_mask(row).iter().rposition(|&real| real).unwrap_or(0);
        (0..input.tokens.rows()).map(last).collect()
    }
}

/// What the discriminator sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorScope {
    /// The response alone, as the paper's Fig. 3 shows.
    #[default]
    Response,
    /// Question and response, as the notation `D(q, o)` says.
    QuestionAndResponse,
    /// Pictures, question and response.
    ImageQuestionAndResponse,
}

/// The discriminator's instruction (after Fig. 3 of arXiv 2510.19307, in our words) and what it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscriminatorPrompt {
    /// System text.
    pub system: String,
    /// What follows it.
    pub scope: DiscriminatorScope,
}

impl Default for DiscriminatorPrompt {
    /// The response alone, and a text for models that read English.
    fn default() -> Self {
        Self {
            system:
                "You are a discriminator. You are given one response in <response></response> tags. It was written \
                     either by a teacher model or by a student model. Answer 0 if the teacher wrote it and 1 if the \
                     student wrote it."
                    .into(),
            scope: DiscriminatorScope::Response,
        }
    }
}

impl DiscriminatorPrompt {
    /// A response in its tags.
    #[must_use]
    pub fn tagged(response: &str) -> String {
        format!("<response> {response} </response>")
    }

    /// The conversation that asks about one response.
    #[must_use]
    pub fn messages(&self, question: &Question, response: &str) -> Vec<Message> {
        let mut content = Vec::new();
        if self.scope == DiscriminatorScope::ImageQuestionAndResponse {
            content.extend(question.pictures.iter().cloned().map(Content::Image));
        }
        let tagged = Self::tagged(response);
        content.push(Content::Text(match self.scope {
            DiscriminatorScope::Response => tagged,
            _ => format!("{} {tagged}", question.text),
        }));
        let system = Message { role: Role::System, content: vec![Content::Text(self.system.clone())] };
        vec![system, Message { role: Role::User, content }]
    }
}

/// All responses of some groups as rows for the discriminator, groups in order; each is encoded once. A special token
/// that a response or a question spells out is shown as plain letters: it is not to open a turn or ask for a picture.
///
/// A loss on pairs compares responses to one question, and equal texts are ties.
///
/// # Errors
/// The model's errors in rendering or tokenising.
pub fn response_rows<'a, M: ChatModel>(
    model: &M,
    prompt: &DiscriminatorPrompt,
    groups: &[Group],
    origins: &'a [AuthoredBy],
) -> Result<impl DiscriminatorRows<Input = ModelInput> + use<'a, M>, RilError> {
    let responses = groups.iter().flat_map(|g| g.responses.iter().map(move |r| (&g.question, r)));
    let rows: Vec<Arc<Prompt>> = responses
        .map(|(question, response)| {
            let question = Question { text: neutralised(model, &question.text), ..question.clone() };
            let messages = prompt.messages(&question, &neutralised(model, &response.text));
            Prompt::encode(model, &messages).map(Arc::new)
        })
        .collect::<Result<_, _>>()?;
    let rows = RowsFromFn::new(origins, move |picked: &[usize]| {
        prompt_batch(&picked.iter().map(|&row| &rows[row]).collect::<Vec<_>>())
    });
    Ok(rows.with_teachers(teacher_indices(groups)).with_lengths(lengths(groups)).with_pairs(response_pairs(groups)))
}

/// Which teacher wrote each row, by index; 0 for the student.
pub(crate) fn teacher_indices(groups: &[Group]) -> Vec<usize> {
    let teacher = |origin| if let Origin::Teacher(teacher) = origin { teacher } else { 0 };
    groups.iter().flat_map(|g| &g.responses).map(|r| teacher(r.origin)).collect()
}

/// Length of each row, tokens.
pub(crate) fn lengths(groups: &[Group]) -> Vec<usize> {
    groups.iter().flat_map(|g| &g.responses).map(|r| r.token_ids.len()).collect()
}

/// Students with teachers inside each group, by row; ties where both wrote the same text.
fn response_pairs(groups: &[Group]) -> Vec<RowPair> {
    let numbered = groups.iter().enumerate().flat_map(|(index, g)| g.responses.iter().map(move |r| (index, &r.text)));
    let texts: Vec<(usize, &String)> = numbered.collect();
    let pairs = RowPair::within_groups(&authors(groups), |row| texts[row].0);
    RowPair::with_ties(pairs, |student, teacher| texts[student].1 == texts[teacher].1)
}

/// Who wrote each row of [`response_rows`], as the imitation core asks.
#[must_use]
pub fn authors(groups: &[Group]) -> Vec<AuthoredBy> {
    let origins = groups.iter().flat_map(|g| &g.responses).map(|r| r.origin);
    origins
        .map(|origin| match origin {
            Origin::Student => AuthoredBy::Student,
            Origin::Teacher(_) => AuthoredBy::Teacher,
        })
        .collect()
}
