//! Multiple choice. Source: `vlmeval/dataset/utils/multiple_choice.py` (`mcq_vanilla_eval`, `extract_answer_from_item`,
//! `MMMU_preproc`) and `MMMUProDataset.cot_postproc` of `image_mcq.py`, commit e8e78f05.
//!
//! Where VLMEvalKit draws a random option after three replies that name none, `Z` stands here: wrong, and the same in
//! every run.

use std::sync::Arc;

use super::match_prompts::{blink_prompt, chinese_prompt, general_prompt};
use super::{Decided, Grade, Judged};
use crate::vlmeval::error::VlmEvalError;
use crate::vlmeval::matching::{FAILED, NONE, infer_choice};
use crate::vlmeval::prompt::Thinking;
use crate::vlmeval::python::strip;
use crate::vlmeval::table::Row;

/// In what the rules for a multiple-choice benchmark differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChoiceRules {
    /// What the judge is asked.
    pub matcher: MatchPrompt,
    /// What stands in the column `answer`.
    pub answers: Answers,
    /// Whether the answer is looked for in a last line `Answer: LETTER`.
    pub thinking: Thinking,
    /// Where the question is.
    pub question: QuestionPlace,
}

/// Where a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionPlace {
    /// In the column `question`.
    Column,
    /// In the picture; a judge reads "placeholder" in its place (MMMU-Pro, vision).
    Picture,
}

/// The prompt with which a judge matches an answer with the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchPrompt {
    /// In English, or in Chinese for a question with Chinese characters.
    General,
    /// BLINK's.
    Blink,
}

/// What stands in the column `answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// A letter.
    Letters,
    /// A letter, or a text when there are no options: that text and "Other Answers" are then the options (MMMU).
    LettersOrOpen,
}

impl ChoiceRules {
    pub(super) fn inquiry(self, row: &Row<'_>, answer: &str) -> Result<Option<String>, VlmEvalError> {
        let (answer, choices) = (self.final_part(answer), self.choices(row)?);
        if infer_choice(&answer, &choices).is_some() {
            return Ok(None);
        }
        let question = match self.question {
            QuestionPlace::Picture => "placeholder".into(),
            QuestionPlace::Column => row.need("question")?,
        };
        let options = option_text(&choices);
        Ok(Some(match self.matcher {
            MatchPrompt::Blink => blink_prompt(&question, &options, &answer),
            MatchPrompt::General if has_chinese(&question) => chinese_prompt(&question, &options, &answer),
            MatchPrompt::General => general_prompt(&question, &options, &answer),
        }))
    }

    pub(super) fn is_usable(self, row: &Row<'_>, reply: &str) -> Result<bool, VlmEvalError> {
        Ok(infer_choice(reply, &self.choices(row)?).is_some())
    }

    pub(super) fn grade(self, row: &Row<'_>, answer: &str, judged: Judged<'_>) -> Result<Grade, VlmEvalError> {
        let (letter, decided) = self.read(row, answer, judged)?;
        Ok(Grade::of(self.truth(row)? == letter.to_string(), letter, decided))
    }

    /// The option that an answer names by itself.
    pub(super) fn named(self, row: &Row<'_>, answer: &str) -> Result<Option<char>, VlmEvalError> {
        Ok(infer_choice(&self.final_part(answer), &self.choices(row)?))
    }

    /// The option that an answer is read as, `Z` for none.
    fn read(self, row: &Row<'_>, answer: &str, judged: Judged<'_>) -> Result<(char, Decided), VlmEvalError> {
        if let Some(letter) = self.named(row, answer)? {
            return Ok((letter, Decided::Match));
        }
        let choices = self.choices(row)?;
        if let Judged::Replies(replies) = judged {
            for reply in replies {
                let letter = infer_choice(reply, &choices).filter(|_| !reply.contains(FAILED));
                if let Some(letter) = letter {
                    return Ok((letter, Decided::Judge));
                }
            }
        }
        Ok((NONE, Decided::Unread))
    }

    /// The right option.
    pub(super) fn truth(self, row: &Row<'_>) -> Result<String, VlmEvalError> {
        let answer = row.need("answer")?;
        let is_letter = answer.len() == 1 && answer.starts_with(|c: char| c.is_ascii_uppercase());
        Ok(if is_letter || self.answers == Answers::Letters { answer.to_string() } else { "A".into() })
    }

    fn choices(self, row: &Row<'_>) -> Result<Vec<(char, Arc<str>)>, VlmEvalError> {
        let mut choices = row.options();
        if self.answers == Answers::LettersOrOpen && choices.first().is_none_or(|(letter, _)| *letter != 'A') {
            choices.retain(|(letter, _)| *letter != 'B');
            choices.splice(..0, [('A', row.need("answer")?), ('B', "Other Answers".into())]);
        }
        Ok(choices)
    }

    /// What is matched: the whole answer, or what a last line `Answer:` says (`cot_postproc`).
    fn final_part(self, answer: &str) -> String {
        if self.thinking == Thinking::Direct {
            return answer.to_string();
        }
        let lines = strip(answer).split('\n').map(strip);
        let Some(tail) = lines.filter_map(|line| line.strip_prefix("Answer:")).next_back() else {
            return answer.to_string();
        };
        let mut letters: Vec<char> = tail.chars().filter(char::is_ascii_uppercase).collect();
        letters.dedup();
        match letters[..] {
            [letter] => letter.to_string(),
            _ => tail.to_string(),
        }
    }
}

/// `build_option_str`.
fn option_text(choices: &[(char, Arc<str>)]) -> String {
    let lines = choices.iter().map(|(letter, text)| format!("{letter}. {text}\n"));
    std::iter::once("There are several options: \n".to_string()).chain(lines).collect()
}

fn has_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}
