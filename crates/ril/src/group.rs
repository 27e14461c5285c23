//! Questions, responses and the groups they form: the only types that know all four cores.

use std::sync::Arc;

use ril_grpo::RowOrigin;
use ril_models::{ChatModel, Content, ImageBatch, Message, ModelInput, Padding, Role, TokenBatch, image::RgbImage};
use serde::{Deserialize, Serialize};

use crate::error::RilError;

/// One training or test question, encoded for the student.
///
/// A clone shares pixels and ids.
#[derive(Debug, Clone)]
pub struct Question {
    /// Key of the teacher cache and of logs; unique in a dataset.
    pub id: String,
    /// What is asked.
    pub text: String,
    /// Ground truth, read by the judge alone.
    pub answer: String,
    /// Its pictures, for the report and for a discriminator that is shown them.
    pub pictures: Vec<Arc<RgbImage>>,
    /// Prompt as the student reads it, generation prompt included.
    pub prompt: Arc<Prompt>,
}

impl Question {
    /// Encodes a question: the pictures in order, then the text, in one user turn.
    ///
    /// # Errors
    /// Those of [`Prompt::encode`].
    pub fn encode<M: ChatModel>(
        model: &M,
        id: String,
        pictures: Vec<Arc<RgbImage>>,
        text: String,
        answer: String,
    ) -> Result<Self, RilError> {
        let mut content: Vec<Content> = pictures.iter().cloned().map(Content::Image).collect();
        content.push(Content::Text(text.clone()));
        let prompt = Arc::new(Prompt::encode(model, &[Message { role: Role::User, content }])?);
        Ok(Self { id, text, answer, pictures, prompt })
    }
}

/// Token ids and pixels of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Ids, image tokens expanded.
    pub token_ids: Vec<u32>,
    /// Pixels of its images, in order.
    pub images: Option<ImageBatch>,
}

impl Prompt {
    /// Renders, tokenises and preprocesses a conversation once.
    ///
    /// # Errors
    /// Template, tokenizer and image errors of the model.
    pub fn encode<M: ChatModel>(model: &M, messages: &[Message]) -> Result<Self, RilError> {
        let input = model.encode(messages)?;
        Ok(Self { token_ids: input.tokens.ids().to_vec(), images: input.images })
    }

    fn image_count(&self) -> usize {
        self.images.as_ref().map_or(0, |i| i.grid_thw.len())
    }
}

/// Who wrote a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Sampled from the policy that is being trained.
    Student,
    /// A cached text of the teacher with this index.
    Teacher(usize),
}

impl From<Origin> for RowOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Student => Self::Student,
            Origin::Teacher(_) => Self::Teacher,
        }
    }
}

/// A completion as text and as the student's tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Text without special tokens.
    pub text: String,
    /// The student's tokens, stop token included unless truncated. A rollout that knows the text alone leaves them empty:
    /// [`RilTrainer::collect`](crate::RilTrainer::collect) has the student read it.
    pub token_ids: Vec<u32>,
    /// Who wrote it.
    pub origin: Origin,
    /// True when the token budget ended it.
    pub is_truncated: bool,
    /// Log-probability of each token under the distribution that it was drawn from, nats; `None` for texts that
    /// were not sampled here.
    pub sampler_log_probs: Option<Vec<f32>>,
    /// Steps that the policy had done when the weights that sampled this were made; `None` for the policy itself, and for
    /// texts that no policy sampled.
    pub policy_step: Option<u64>,
}

/// All responses to one question; students first, then teachers.
#[derive(Debug, Clone)]
pub struct Group {
    /// The question.
    pub question: Question,
    /// `group_size` of them.
    pub responses: Vec<Response>,
}

/// A rectangular batch of prompts and completions: prompts padded on the left, completions on the right, so that the
/// completion is one range of columns.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoringBatch {
    /// All tokens and the different images.
    pub input: ModelInput,
    /// Columns of the prompt part.
    pub prompt_len: usize,
    /// Completion ids, `[rows * completion_len]`, 0 on padding.
    pub targets: Vec<u32>,
    /// True = a token of the completion, `[rows * completion_len]`.
    pub completion_mask: Vec<bool>,
}

impl ScoringBatch {
    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.input.tokens.rows()
    }

    /// Columns of the completion part.
    #[must_use]
    pub fn completion_len(&self) -> usize {
        self.input.tokens.seq() - self.prompt_len
    }

    /// Lays out rows of (prompt, completion ids). A prompt that stands in several rows (by address) gives its
    /// images once.
    ///
    /// # Errors
    /// [`RilError::Input`] without rows, or when every completion is empty.
    pub fn new(rows: &[(&Arc<Prompt>, &[u32])]) -> Result<Self, RilError> {
        if rows.iter().all(|(_, completion)| completion.is_empty()) {
            return Err(RilError::Input("a scoring batch needs at least one completion token".into()));
        }
        let prompts: Vec<&Arc<Prompt>> = rows.iter().map(|r| r.0).collect();
        let left = prompt_batch(&prompts)?;
        let completions: Vec<&[u32]> = rows.iter().map(|r| r.1).collect();
        let right = TokenBatch::padded(&completions, 0, Padding::Right);
        let (targets, completion_mask) = (right.ids().to_vec(), right.mask().to_vec());
        let prompt_len = left.tokens.seq();
        let tokens = left.tokens.join(&right)?;
        Ok(Self { input: ModelInput { tokens, ..left }, prompt_len, targets, completion_mask })
    }
}

/// Left-padded prompts; images of a prompt that stands in several rows (by address) are given once.
///
/// # Errors
/// [`RilError::Models`] when image batches do not fit together.
pub fn prompt_batch(prompts: &[&Arc<Prompt>]) -> Result<ModelInput, RilError> {
    let mut distinct: Vec<(&Arc<Prompt>, usize)> = Vec::new();
    let (mut placements, mut images) = (Vec::new(), 0);
    for prompt in prompts {
        // Rows of one question stand together: the last entry is nearly always the one.
        let known = distinct.iter().rev().find(|(p, _)| Arc::ptr_eq(p, prompt)).map(|(_, first)| *first);
        let first = known.unwrap_or_else(|| {
            distinct.push((*prompt, images));
            images += prompt.image_count();
            images - prompt.image_count()
        });
        placements.extend(first..first + prompt.image_count());
    }
    let batches: Vec<&ImageBatch> = distinct.iter().filter_map(|(p, _)| p.images.as_ref()).collect();
    let images = if batches.is_empty() { None } else { Some(ImageBatch::concat(batches)?) };
    let ids: Vec<&[u32]> = prompts.iter().map(|p| p.token_ids.as_slice()).collect();
    Ok(ModelInput { tokens: TokenBatch::padded(&ids, 0, Padding::Left), images, placements })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(ids: &[u32], pixel: f32) -> Arc<Prompt> {
        let images =
            ImageBatch { pixel_patches: vec![pixel; 8], patch_dim: 2, patch_size: 1, grid_thw: vec![[1, 2, 2]] };
        Arc::new(Prompt { token_ids: ids.to_vec(), images: Some(images) })
    }

    #[test]
    fn completions_are_one_range_of_columns() {
        let (a, b) = (prompt(&[1, 2, 3], 0.5), prompt(&[4], 0.25));
        let batch = ScoringBatch::new(&[(&a, &[7, 8]), (&a, &[9]), (&b, &[])]).unwrap();
        assert_eq!((batch.rows(), batch.prompt_len, batch.completion_len()), (3, 3, 2));
        assert_eq!(batch.input.tokens.row(1), [1, 2, 3, 9, 0]);
        assert_eq!(batch.input.tokens.row_mask(2), [false, false, true, false, false]);
        assert_eq!(batch.completion_mask, [true, true, true, false, false, false]);
    }

    #[test]
    fn rows_of_one_prompt_share_its_images() {
        let (a, b) = (prompt(&[1], 0.5), prompt(&[2], 0.25));
        let batch = ScoringBatch::new(&[(&a, &[7]), (&a, &[8]), (&b, &[9])]).unwrap();
        assert_eq!(batch.input.placements, [0, 0, 1]);
        assert_eq!(batch.input.images.unwrap().grid_thw.len(), 2);
    }

    #[test]
    fn a_batch_of_nothing_is_refused() {
        assert!(ScoringBatch::new(&[]).is_err());
        assert!(ScoringBatch::new(&[(&prompt(&[1], 0.0), &[])]).is_err());
    }
}
