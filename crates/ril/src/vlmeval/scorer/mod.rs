//! From answers to scores, by VLMEvalKit's rules.
//!
//! Scoring is a pure function of the table, the answers and what a judge replied: [`Scorer::inquiries`] says what the
//! judge must be asked, and [`Scorer::items`] scores. Without a judge only what can be matched exactly counts
//! (VLMEvalKit's `exact_matching`).

mod chartqa;
mod choice;
mod circular;
mod free;
mod match_prompts;
mod mathvista;
mod mmvet;
mod yes_no;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub use chartqa::relaxed_correctness;
pub use choice::{Answers, ChoiceRules, MatchPrompt, QuestionPlace};
pub use mmvet::MmVetVersion;
pub use yes_no::{YesNo, extract_yes_no};

use super::error::VlmEvalError;
use super::matching::FAILED;
use super::table::{Row, Table};

/// How answers are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scorer {
    /// One of several options.
    Choice(ChoiceRules),
    /// One of several options that are shown in every rotation: right when every rotation is.
    Circular(ChoiceRules),
    /// Yes or no.
    YesNo,
    /// ChartQA: numbers within 5%, texts alike.
    RelaxedAccuracy,
    /// MathVista: a letter, a whole number or a number.
    MathVista,
    /// MM-Vet: a judge's grade from 0 to 1.
    MmVet(MmVetVersion),
    /// Any text: the judge of the paper.
    Free,
}

/// What a judge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgeUse {
    /// Nobody is asked.
    Never,
    /// It is asked where exact matching finds nothing.
    Helps,
    /// It grades every answer; what is scored without it is a substitute of ours.
    Grades,
}

/// What the judge is asked about one answer, until a reply can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// Place of the row in the table.
    pub place: usize,
    /// All of it.
    pub prompt: String,
    /// How often it is asked at most.
    pub tries: usize,
    /// Sampling temperature of a try, counted from 0, divided by the try.
    pub temperature_step: f32,
    /// Longest reply.
    pub max_new_tokens: usize,
}

/// What is known from a judge about the answer to one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged<'a> {
    /// There is no judge.
    Absent,
    /// Its replies in order; none when it was not asked.
    Replies(&'a [String]),
}

/// What decided a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// The answer alone.
    Match,
    /// A reply of the judge.
    Judge,
    /// Nothing: the answer could not be read, and counts as wrong.
    Unread,
    /// Nothing: there is no answer, and that counts as wrong.
    Missing,
}

/// The score of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Grade {
    /// 0 to 1.
    pub score: f64,
    /// What the answer was read as.
    pub read_as: String,
    /// What decided.
    pub decided: Decided,
}

/// One scored question: a row, or the rotations of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Index of the row, or of the first rotation.
    pub index: String,
    /// Its part of the benchmark.
    pub split: Option<String>,
    /// Groups that it counts in: (what divides, group).
    pub groups: Vec<(&'static str, String)>,
    /// Its score.
    pub grade: Grade,
}

/// Answers and judge's replies of one run.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Answers by index of the row.
    pub answers: &'a HashMap<String, String>,
    /// Replies by index of the row; `None` without a judge.
    pub replies: Option<&'a HashMap<String, Vec<String>>>,
}

impl<'a> Evidence<'a> {
    /// The answer to a row.
    #[must_use]
    pub fn answer(&self, row: &Row<'_>) -> Option<&'a str> {
        self.answers.get(row.index()).map(String::as_str)
    }

    fn judged(&self, row: &Row<'_>) -> Judged<'a> {
        match self.replies {
            None => Judged::Absent,
            Some(replies) => Judged::Replies(replies.get(row.index()).map_or(&[], Vec::as_slice)),
        }
    }
}

impl Scorer {
    /// What a judge is for.
    #[must_use]
    pub fn judge_use(self) -> JudgeUse {
        match self {
            Self::RelaxedAccuracy => JudgeUse::Never,
            Self::Choice(_) | Self::Circular(_) | Self::YesNo | Self::MathVista => JudgeUse::Helps,
            Self::MmVet(_) | Self::Free => JudgeUse::Grades,
        }
    }

    /// What the scorer is called in tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Choice(_) => "choice",
            Self::Circular(_) => "choice, circular",
            Self::YesNo => "yes / no",
            Self::RelaxedAccuracy => "relaxed accuracy",
            Self::MathVista => "MathVista",
            Self::MmVet(_) => "MM-Vet grade",
            Self::Free => "free answer",
        }
    }

    /// Checks that the table has what this scorer reads of every row.
    ///
    /// # Errors
    /// [`VlmEvalError::MissingColumn`]; [`VlmEvalError::Cell`] for a row without its answer.
    pub fn check(self, table: &Table) -> Result<(), VlmEvalError> {
        let columns: &[&str] = match self {
            Self::MathVista => &["question", "answer", "question_type", "answer_type", "task", "skills"],
            Self::MmVet(_) => &["question", "answer", "category"],
            Self::Choice(ChoiceRules { question: QuestionPlace::Picture, .. }) => &["answer"],
            _ => &["question", "answer"],
        };
        if let Some(column) = columns.iter().find(|column| !table.has(column)) {
            let (path, kind) = (table.path().to_path_buf(), self.label().to_string());
            return Err(VlmEvalError::MissingColumn { path, column: (*column).into(), kind });
        }
        for row in table.rows() {
            columns.iter().try_for_each(|column| row.need(column).map(drop))?;
            if let Self::Circular(_) = self {
                circular::group_of(&row)?;
            }
            self.grade(&row, "", Judged::Absent)?;
        }
        Ok(())
    }

    /// Keeps the first `count` questions: rows, or where rotations count together all rotations of each.
    ///
    /// # Errors
    /// [`VlmEvalError::Cell`].
    pub fn limit(self, table: &mut Table, count: usize) -> Result<(), VlmEvalError> {
        match self {
            Self::Circular(_) => {
                let places = circular::first_places(table, count)?;
                table.retain(|place| places.contains(&place));
            }
            _ => table.truncate(count),
        }
        Ok(())
    }

    /// What a judge must be asked, in the order of the table; nothing about a row without an answer.
    ///
    /// # Errors
    /// [`VlmEvalError::Cell`].
    pub fn inquiries(self, table: &Table, evidence: Evidence<'_>) -> Result<Vec<Inquiry>, VlmEvalError> {
        let decided = match self {
            Self::Circular(rules) => circular::decided(rules, table, evidence)?,
            _ => Default::default(),
        };
        let mut inquiries = Vec::new();
        for (place, row) in table.rows().enumerate() {
            if decided.contains(row.index()) {
                continue;
            }
            let Some(answer) = evidence.answer(&row) else { continue };
            if let Some(prompt) = self.question(&row, answer)? {
                let (tries, temperature_step, max_new_tokens) = self.patience();
                inquiries.push(Inquiry { place, prompt, tries, temperature_step, max_new_tokens });
            }
        }
        Ok(inquiries)
    }

    /// Every question of the table that counts, scored, in the order of the table; without an answer it is wrong.
    ///
    /// # Errors
    /// [`VlmEvalError::Cell`].
    pub fn items(self, table: &Table, evidence: Evidence<'_>) -> Result<Vec<Item>, VlmEvalError> {
        if let Self::Circular(rules) = self {
            return circular::items(rules, table, evidence);
        }
        let item = |row: Row<'_>| {
            Ok(Item {
                index: row.index().to_string(),
                split: row.text("split").map(|split| split.to_string()),
                groups: self.groups(&row),
                grade: self.grade_of(&row, evidence)?,
            })
        };
        table.rows().map(item).collect()
    }

    /// Whether a judge's reply decides, so that it is not asked again.
    ///
    /// # Errors
    /// [`VlmEvalError::Cell`].
    pub fn is_usable(self, row: &Row<'_>, reply: &str) -> Result<bool, VlmEvalError> {
        if reply.contains(FAILED) {
            return Ok(false);
        }
        match self {
            Self::Choice(rules) | Self::Circular(rules) => rules.is_usable(row, reply),
            Self::YesNo => Ok(extract_yes_no(reply) != YesNo::Unknown),
            Self::RelaxedAccuracy | Self::MathVista => Ok(true),
            Self::MmVet(_) => Ok(mmvet::grade_in(reply).is_some()),
            Self::Free => Ok(free::verdict(reply).is_some()),
        }
    }

    /// The score of an answer to a row.
    ///
    /// # Errors
    /// [`VlmEvalError::Cell`].
    pub fn grade(self, row: &Row<'_>, answer: &str, judged: Judged<'_>) -> Result<Grade, VlmEvalError> {
        match self {
            Self::Choice(rules) | Self::Circular(rules) => rules.grade(row, answer, judged),
            Self::YesNo => yes_no::grade(row, answer, judged),
            Self::RelaxedAccuracy => chartqa::grade(row, answer),
            Self::MathVista => mathvista::grade(row, answer, judged),
            Self::MmVet(_) => mmvet::grade(row, answer, judged),
            Self::Free => free::grade(row, answer, judged),
        }
    }

    /// The score of a row.
    fn grade_of(self, row: &Row<'_>, evidence: Evidence<'_>) -> Result<Grade, VlmEvalError> {
        let missing = Grade { score: 0.0, read_as: String::new(), decided: Decided::Missing };
        evidence.answer(row).map_or(Ok(missing), |answer| self.grade(row, answer, evidence.judged(row)))
    }

    /// What the judge is asked about an answer; `None` when it need not be.
    fn question(self, row: &Row<'_>, answer: &str) -> Result<Option<String>, VlmEvalError> {
        match self {
            Self::Choice(rules) | Self::Circular(rules) => rules.inquiry(row, answer),
            Self::YesNo => yes_no::question(row, answer),
            Self::RelaxedAccuracy => Ok(None),
            Self::MathVista => mathvista::question(row, answer),
            Self::MmVet(version) => mmvet::question(version, row, answer).map(Some),
            Self::Free => free::question(row, answer),
        }
    }

    /// Tries, temperature added at each, longest reply.
    fn patience(self) -> (usize, f32, usize) {
        match self {
            Self::Choice(_) | Self::Circular(_) | Self::RelaxedAccuracy => (3, 0.0, 2048),
            Self::YesNo | Self::MmVet(_) => (5, 0.5, 2048),
            Self::MathVista => (5, 0.5, 128),
            Self::Free => (3, 0.5, 2048),
        }
    }

    fn groups(self, row: &Row<'_>) -> Vec<(&'static str, String)> {
        match self {
            Self::MathVista => mathvista::groups(row),
            Self::MmVet(version) => mmvet::groups(version, row),
            _ => categories(row),
        }
    }
}

/// `l2-category` and `category`.
fn categories(row: &Row<'_>) -> Vec<(&'static str, String)> {
    let group = |column: &'static str| Some((column, row.text(column)?.to_string()));
    ["l2-category", "category"].into_iter().filter_map(group).collect()
}

impl Grade {
    fn of(is_right: bool, read_as: impl Into<String>, decided: Decided) -> Self {
        Self { score: f64::from(u8::from(is_right)), read_as: read_as.into(), decided }
    }

    /// Wrong, since nothing could be read.
    fn unread(read_as: impl Into<String>) -> Self {
        Self { score: 0.0, read_as: read_as.into(), decided: Decided::Unread }
    }
}
