//! What a model is asked about a row: the prompts of VLMEvalKit's datasets, character by character.
//!
//! Source: `build_prompt` of `vlmeval/dataset/image_base.py`, `image_mcq.py`, `image_vqa.py` and `image_yorn.py` at
//! commit e8e78f05. These are the prompts of its leaderboard for models without a prompt of their own, Qwen2.5-VL
//! included (`use_custom_prompt=False` in its `config.py`).

use std::fmt::Write;
use std::sync::Arc;

use ril_models::{Content, Message, Role};

use super::error::VlmEvalError;
use super::picture::Picture;
use super::table::Row;

/// A piece of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// A picture.
    Picture(Picture),
}

/// One user turn: words and pictures in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// What is said and shown.
    pub parts: Vec<Part>,
}

impl Query {
    /// Words alone: what a judge is asked.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Text(text.into())] }
    }

    /// Pictures first, then the words.
    fn pictures_first(pictures: &[Picture], text: String) -> Self {
        let pictures = pictures.iter().cloned().map(Part::Picture);
        Self { parts: pictures.chain([Part::Text(text)]).collect() }
    }

    /// The turn as a local model reads it, pictures decoded.
    ///
    /// # Errors
    /// [`VlmEvalError::Picture`].
    pub fn message(&self) -> Result<Message, VlmEvalError> {
        let content = self.parts.iter().map(|part| {
            Ok(match part {
                Part::Text(text) => Content::Text(text.clone()),
                Part::Picture(picture) => Content::Image(Arc::new(picture.pixels()?)),
            })
        });
        Ok(Message { role: Role::User, content: content.collect::<Result<_, VlmEvalError>>()? })
    }
}

/// How a final answer is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// The letter alone.
    Direct,
    /// Reasoning first, then a line `Answer: LETTER`.
    StepByStep,
}

/// How a row becomes a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptStyle {
    /// The question as it stands.
    Question,
    /// The question and a request for a word or phrase (`ImageVQADataset`).
    ShortAnswer,
    /// The question and a request for yes or no (AMBER).
    YesOrNo,
    /// Hint, question, options (`ImageMCQDataset`).
    Choice,
    /// As [`Choice`](Self::Choice), pictures where the text names them (`MMMUDataset`).
    Mmmu,
    /// Question and options with a request of its own, pictures where the text names them (`MMMUProDataset`).
    MmmuPro(Thinking),
    /// Everything is in the picture (`MMMUProDataset`, vision).
    MmmuProVision(Thinking),
    /// The question, pictures where it says `<image>`, those without such a place first; ours, for MM-Vet v2.
    Interleaved,
}

const SHORT_ANSWER: &str = "\nAnswer the question using a single word or phrase.";
const YES_OR_NO: &str = "\nPlease answer yes or no.";
const SELECT: &str = "Please select the correct answer from the options above. \n";
const LETTER: &str = "Answer directly with the option letter from the given choices. ";
const STEP_BY_STEP: &str = "The last line of your response should be of the following format: 'Answer: $LETTER' \
                            (without quotes) where LETTER is one of the options. Think step by step before answering. ";
const IN_TEXT: &str = "Answer the following multiple-choice question. ";
const IN_PICTURE: &str = "Answer the following multiple-choice question in the image. ";
/// Stands in front of a picture's number in the text of MMMU.
const MMMU_PLACE: &str = "<image ";
const PLACE: &str = "<image>";

impl PromptStyle {
    /// The query of a row.
    ///
    /// # Errors
    /// [`VlmEvalError::Cell`] for a missing question and for a place of a picture that is not there.
    pub fn query(self, row: &Row<'_>) -> Result<Query, VlmEvalError> {
        let pictures = row.pictures();
        match self {
            Self::Question => Ok(Query::pictures_first(pictures, row.need("question")?.to_string())),
            Self::ShortAnswer => {
                Ok(Query::pictures_first(pictures, format!("{}{SHORT_ANSWER}", row.need("question")?)))
            }
            Self::YesOrNo => Ok(Query::pictures_first(pictures, format!("{}{YES_OR_NO}", row.need("question")?))),
            Self::Choice => Ok(Query::pictures_first(pictures, choice(row)?)),
            Self::Mmmu => by_number(row, choice(row)?),
            Self::MmmuPro(thinking) => by_number(row, mmmu_pro(row, thinking)?),
            Self::MmmuProVision(thinking) => {
                if pictures.len() != 1 {
                    return Err(row.error("image", &format!("expected one picture, got {}", pictures.len())));
                }
                let how = if thinking == Thinking::Direct { LETTER } else { STEP_BY_STEP };
                Ok(Query::pictures_first(pictures, format!("{IN_PICTURE}{how}")))
            }
            Self::Interleaved => interleaved(row),
        }
    }
}

fn choice(row: &Row<'_>) -> Result<String, VlmEvalError> {
    let mut prompt = String::new();
    if let Some(hint) = row.text("hint") {
        let _ = writeln!(prompt, "Hint: {hint}");
    }
    prompt += &question_and_options(row)?;
    if !row.options().is_empty() {
        prompt += SELECT;
    }
    Ok(prompt)
}

fn mmmu_pro(row: &Row<'_>, thinking: Thinking) -> Result<String, VlmEvalError> {
    let mut prompt = question_and_options(row)?;
    if !row.options().is_empty() {
        match thinking {
            Thinking::Direct => prompt += LETTER,
            Thinking::StepByStep => prompt.extend([IN_TEXT, STEP_BY_STEP]),
        }
    }
    Ok(prompt)
}

fn question_and_options(row: &Row<'_>) -> Result<String, VlmEvalError> {
    let mut prompt = format!("Question: {}\n", row.need("question")?);
    let options = row.options();
    if !options.is_empty() {
        prompt += "Options:\n";
    }
    for (letter, text) in options {
        let _ = writeln!(prompt, "{letter}. {text}");
    }
    Ok(prompt)
}

/// Pictures where the text says `<image N>` (`split_MMMU`); those that it does not name are not shown, unless it names
/// none.
fn by_number(row: &Row<'_>, text: String) -> Result<Query, VlmEvalError> {
    let pictures = row.pictures();
    let mut pieces = text.split(MMMU_PLACE);
    let first = pieces.next().unwrap_or_default();
    if first.len() == text.len() {
        return Ok(Query::pictures_first(pictures, text));
    }
    let mut parts = vec![Part::Text(first.to_string())];
    for piece in pieces {
        let number = piece.chars().next().and_then(|c| c.to_digit(10)).filter(|_| piece[1..].starts_with('>'));
        let picture = number.and_then(|number| pictures.get((number as usize).checked_sub(1)?));
        let picture = picture.ok_or_else(|| {
            let shown: String = piece.chars().take(8).collect();
            row.error("question", &format!("{MMMU_PLACE}{shown}: names none of the {} pictures", pictures.len()))
        })?;
        parts.push(Part::Picture(picture.clone()));
        parts.push(Part::Text(piece[2..].to_string()));
    }
    Ok(Query { parts })
}

fn interleaved(row: &Row<'_>) -> Result<Query, VlmEvalError> {
    let question = row.need("question")?;
    let (pieces, pictures): (Vec<&str>, _) = (question.split(PLACE).collect(), row.pictures());
    let Some(before) = pictures.len().checked_sub(pieces.len() - 1) else {
        let reason = format!("{} places of pictures, but {} pictures", pieces.len() - 1, pictures.len());
        return Err(row.error("question", &reason));
    };
    let mut parts: Vec<Part> = pictures[..before].iter().cloned().map(Part::Picture).collect();
    let mut placed = pictures[before..].iter().cloned();
    for piece in pieces {
        if !piece.is_empty() {
            parts.push(Part::Text(piece.to_string()));
        }
        parts.extend(placed.next().map(Part::Picture));
    }
    Ok(Query { parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlmeval::table::Table;

    fn table(question: &str, pictures: usize) -> Table {
        let image = format!("[{}]", vec![format!("'{}'", "QUJD".repeat(20)); pictures].join(", "));
        let text = format!("index\tquestion\tA\tB\timage\n1\t{question}\tone\ttwo\t{image}\n");
        Table::from_bytes("t.tsv".as_ref(), text.as_bytes()).unwrap()
    }

    /// Texts as they are, pictures by number.
    fn shown(style: PromptStyle, question: &str, pictures: usize) -> Result<Vec<String>, VlmEvalError> {
        let table = table(question, pictures);
        let row = table.row(0).unwrap();
        let number = |picture: &Picture| row.pictures().iter().position(|other| other == picture).unwrap().to_string();
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Picture(picture) => number(picture),
        };
        Ok(style.query(&row)?.parts.iter().map(part).collect())
    }

    /// The prompts themselves are compared with VLMEvalKit's own in `tests/vlmeval/parity.rs`.
    #[test]
    fn pictures_stand_where_the_text_names_them() {
        let parts = shown(PromptStyle::Mmmu, "See <image 2> and <image 1>?", 2).unwrap();
        assert_eq!(parts[..4], ["Question: See ", "1", " and ", "0"]);
        assert_eq!(shown(PromptStyle::Interleaved, "See <image> and <image>", 2).unwrap(), ["See ", "0", " and ", "1"]);
        assert_eq!(shown(PromptStyle::Interleaved, "<image>?", 2).unwrap(), ["0", "1", "?"]);
        assert_eq!(shown(PromptStyle::Question, "See <image 1>?", 1).unwrap(), ["0", "See <image 1>?"]);
    }

    #[test]
    fn a_place_of_a_picture_that_is_not_there_is_refused() {
        for (style, question) in [
            (PromptStyle::Mmmu, "<image 3>"),
            (PromptStyle::Mmmu, "<image 0>"),
            (PromptStyle::Mmmu, "<image é>"),
            (PromptStyle::Interleaved, "<image><image><image>"),
            (PromptStyle::MmmuProVision(Thinking::Direct), "?"),
        ] {
            let error = shown(style, question, 2).unwrap_err().to_string();
            assert!(error.starts_with("t.tsv, line 2, column "), "{error}");
        }
    }
}
