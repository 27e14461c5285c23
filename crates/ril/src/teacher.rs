//! Cached teacher responses, keyed by question and teacher.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use ril_models::ChatModel;
use ril_models::files::write_atomic;
use serde::{Deserialize, Serialize};

use crate::data::read_lines;
use crate::error::RilError;
use crate::group::{Origin, Question, Response};
use crate::special::plain_text;

/// One line of a cache file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedResponse {
    /// Question id.
    pub question: String,
    /// Teacher name.
    pub teacher: String,
    /// What it wrote.
    pub response: String,
}

/// A line as `teach` writes it.
#[derive(Deserialize)]
struct Sourced {
    #[serde(flatten)]
    entry: CachedResponse,
    #[serde(default)]
    finish_reason: Option<String>,
}

/// Whether a server's reason says that a text does not end where its model would have ended it.
pub(crate) fn is_cut(finish_reason: &str) -> bool {
    !matches!(finish_reason, "" | "stop")
}

/// Texts that teachers wrote before the run. Only text is kept: the student's tokenizer reads it anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TeacherCache {
    teachers: Vec<String>,
    texts: HashMap<(usize, String), Vec<String>>,
}

impl TeacherCache {
    /// Names, in order of first appearance; the index is that of [`Origin::Teacher`].
    #[must_use]
    pub fn teachers(&self) -> &[String] {
        &self.teachers
    }

    /// Adds one response.
    pub fn insert(&mut self, entry: CachedResponse) {
        let known = self.teachers.iter().position(|t| *t == entry.teacher);
        let teacher = known.unwrap_or_else(|| {
            self.teachers.push(entry.teacher);
            self.teachers.len() - 1
        });
        self.texts.entry((teacher, entry.question)).or_default().push(entry.response);
    }

    /// Reads a JSON-lines file of [`CachedResponse`].
    ///
    /// # Errors
    /// [`RilError::Io`], [`RilError::Line`] with the line number.
    pub fn read(path: &Path) -> Result<Self, RilError> {
        let mut cache = Self::default();
        for (_, entry) in read_lines::<CachedResponse>(path)? {
            cache.insert(entry);
        }
        Ok(cache)
    }

    /// Reads a JSON-lines file that somebody else wrote, for these questions and this student: each line must belong to
    /// a question, and be plain text to the student's tokenizer. Stop tokens at the end of a text are dropped. Lines with a
    /// `finish_reason` other than "stop" are left out: a text that a budget or a filter cut would teach to stop in the middle of a
    /// sentence.
    ///
    /// # Errors
    /// [`RilError::Io`]; [`RilError::EmptyFile`]; [`RilError::Line`] with the line number.
    pub fn read_for<M: ChatModel>(path: &Path, questions: &[Question], student: &M) -> Result<Self, RilError> {
        let known: HashSet<&str> = questions.iter().map(|q| q.id.as_str()).collect();
        let mut cache = Self::default();
        for (line, Sourced { mut entry, finish_reason }) in read_lines(path)? {
            let refuse = |reason| RilError::Line { path: path.to_path_buf(), line, reason };
            if !known.contains(entry.question.as_str()) {
                return Err(refuse(format!("there is no question with id {}", entry.question)));
            }
            if finish_reason.as_deref().is_some_and(is_cut) {
                continue;
            }
            entry.response = plain_text(student, &entry.response).map_err(refuse)?.to_string();
            cache.insert(entry);
        }
        if cache.teachers.is_empty() {
            return Err(RilError::EmptyFile { path: path.to_path_buf(), what: "teacher responses" });
        }
        Ok(cache)
    }

    /// Checks that every teacher has a response to every question.
    ///
    /// # Errors
    /// [`RilError::TeacherResponses`] with the first question and teacher without.
    pub fn check_covers(&self, questions: &[Question]) -> Result<(), RilError> {
        for question in questions {
            if self.teachers.is_empty() {
                return Err(missing(question, "(none)"));
            }
            for (teacher, name) in self.teachers.iter().enumerate() {
                if self.texts(&question.id, teacher).is_empty() {
                    return Err(missing(question, name));
                }
            }
        }
        Ok(())
    }

    /// Writes all responses as JSON lines, complete or not at all.
    ///
    /// # Errors
    /// [`RilError::Models`] with the path.
    pub fn write(&self, path: &Path) -> Result<(), RilError> {
        let sorted: BTreeMap<_, _> = self.texts.iter().collect();
        let mut lines = String::new();
        for ((teacher, question), texts) in sorted {
            for text in texts {
                let entry = serde_json::json!({
                    "question": question, "teacher": self.teachers[*teacher], "response": text,
                });
                lines.push_str(&entry.to_string());
                lines.push('\n');
            }
        }
        Ok(write_atomic(path, lines.as_bytes())?)
    }

    /// Only the teachers with these names, in this order.
    #[must_use]
    pub fn restricted(&self, teachers: &[&str]) -> Self {
        let mut cache = Self { teachers: teachers.iter().map(ToString::to_string).collect(), texts: HashMap::new() };
        for ((teacher, question), texts) in &self.texts {
            if let Some(at) = teachers.iter().position(|t| *t == self.teachers[*teacher]) {
                cache.texts.insert((at, question.clone()), texts.clone());
            }
        }
        cache
    }

    /// Cached texts of one teacher for one question.
    #[must_use]
    pub fn texts(&self, question: &str, teacher: usize) -> &[String] {
        self.texts.get(&(teacher, question.to_string())).map_or(&[], Vec::as_slice)
    }

    /// `count` responses to a question, taken from the teachers in turn and from different texts of each, starting
    /// at `offset`; tokenised by the student.
    ///
    /// # Errors
    /// [`RilError::TeacherResponses`] when a teacher has no response for the question; [`RilError::TeacherText`] when a
    /// text spells a special token of the student's (stop tokens at its end are dropped).
    pub fn responses<M: ChatModel>(
        &self,
        question: &Question,
        count: usize,
        offset: usize,
        student: &M,
    ) -> Result<Vec<Response>, RilError> {
        (0..count).map(|i| self.response(question, offset + i, student)).collect()
    }

    fn response<M: ChatModel>(&self, question: &Question, turn: usize, student: &M) -> Result<Response, RilError> {
        if self.teachers.is_empty() {
            return Err(missing(question, "(none)"));
        }
        let teacher = turn % self.teachers.len();
        let name = &self.teachers[teacher];
        let texts = self.texts(&question.id, teacher);
        let text = texts.get(turn / self.teachers.len() % texts.len().max(1)).ok_or_else(|| missing(question, name))?;
        let text = plain_text(student, text).map_err(|reason| RilError::TeacherText {
            question: question.id.clone(),
            teacher: name.clone(),
            reason,
        })?;
        Ok(Response {
            text: text.to_string(),
            token_ids: student.encode_response(text)?,
            origin: Origin::Teacher(teacher),
            is_truncated: false,
            sampler_log_probs: None,
            policy_step: None,
        })
    }
}

fn missing(question: &Question, teacher: &str) -> RilError {
    RilError::TeacherResponses { question: question.id.clone(), teacher: teacher.to_string(), expected: 1, got: 0 }
}
