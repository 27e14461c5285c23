//! Teacher responses, keyed by question and teacher: cached, or from teachers that answer while the run trains.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

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
    /// Which of the responses to the question it is.
    #[serde(default)]
    sample: Option<usize>,
}

impl Sourced {
    fn is_refused(&self) -> bool {
        self.sample.is_none() && self.finish_reason.as_deref() == Some(REFUSED)
    }
}

/// What stands in the place of a reason to end, on a line without a number, where a server would not have a question.
pub(crate) const REFUSED: &str = "refused";

/// Whether a server's reason says that a text does not end where its model would have ended it.
pub(crate) fn is_cut(finish_reason: &str) -> bool {
    !matches!(finish_reason, "" | "stop")
}

/// Teachers that answer while a run trains, so that their time costs nothing as long as they are ahead of it.
///
/// `server::TeacherFeed`, with the feature `http`, is one.
pub trait TeacherSource: fmt::Debug + Send + Sync {
    /// All texts of a teacher for a question, always the same ones in the same order; waits until they are there. Empty when
    /// there will be none: steps leave the question out.
    ///
    /// # Errors
    /// What keeps the teacher from answering anything more.
    fn texts(&self, question: &str, teacher: &str) -> Result<Vec<String>, RilError>;
}

/// Texts of teachers, written before the run or while it trains. Only text is kept: the student's tokenizer reads it anew.
#[derive(Debug, Clone, Default)]
pub struct TeacherCache {
    teachers: Vec<String>,
    texts: HashMap<(usize, String), Vec<String>>,
    /// Of the teachers that have one.
    sources: HashMap<usize, Arc<dyn TeacherSource>>,
}

impl TeacherCache {
    /// Names, in order of first appearance; the index is that of [`Origin::Teacher`].
    #[must_use]
    pub fn teachers(&self) -> &[String] {
        &self.teachers
    }

    /// Adds one response.
    pub fn insert(&mut self, entry: CachedResponse) {
        let teacher = self.index_of(&entry.teacher);
        self.texts.entry((teacher, entry.question)).or_default().push(entry.response);
    }

    /// The same with a teacher that answers while the run trains; all of its texts come from `source`, and none from here.
    #[must_use]
    pub fn with_source(mut self, teacher: &str, source: Arc<dyn TeacherSource>) -> Self {
        let index = self.index_of(teacher);
        self.texts.retain(|(of, _), _| *of != index);
        self.sources.insert(index, source);
        self
    }

    /// Whether some teacher answers while the run trains.
    pub(crate) fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    fn index_of(&mut self, teacher: &str) -> usize {
        let known = self.teachers.iter().position(|t| t == teacher);
        known.unwrap_or_else(|| {
            self.teachers.push(teacher.to_owned());
            self.teachers.len() - 1
        })
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
    /// sentence. Numbered texts of a teacher for a question stand in the order of their numbers.
    ///
    /// # Errors
    /// [`RilError::Io`]; [`RilError::EmptyFile`]; [`RilError::Line`] with the line number.
    pub fn read_for<M: ChatModel>(path: &Path, questions: &[Question], student: &M) -> Result<Self, RilError> {
        let known: HashSet<&str> = questions.iter().map(|q| q.id.as_str()).collect();
        let mut cache = Self::default();
        let mut lines: Vec<(usize, Sourced)> = read_lines(path)?;
        // Teachers keep the order in which they appear, whatever their first number is.
        for (_, Sourced { entry, .. }) in &lines {
            cache.index_of(&entry.teacher);
        }
        // A question that was refused is left out, also where a part of its answers came before; after it they came because it was asked
        // again.
        let key = |line: &Sourced| (line.entry.teacher.clone(), line.entry.question.clone());
        let is_refused: HashMap<_, bool> = lines.iter().map(|(_, line)| (key(line), line.is_refused())).collect();
        lines.retain(|(_, line)| !is_refused[&key(line)]);
        lines.sort_by_key(|(_, line)| line.sample);
        for (line, Sourced { mut entry, finish_reason, .. }) in lines {
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

    /// Checks that every teacher has a response to every question, but for those that answer while the run trains.
    ///
    /// # Errors
    /// [`RilError::TeacherResponses`] with the first question and teacher without.
    pub fn check_covers(&self, questions: &[Question]) -> Result<(), RilError> {
        for question in questions {
            if self.teachers.is_empty() {
                return Err(missing(question, "(none)"));
            }
            for (teacher, name) in self.teachers.iter().enumerate() {
                if !self.sources.contains_key(&teacher) && self.texts(&question.id, teacher).is_empty() {
                    return Err(missing(question, name));
                }
            }
        }
        Ok(())
    }

    /// Writes all cached responses as JSON lines, complete or not at all.
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
        let mut cache = Self { teachers: teachers.iter().map(ToString::to_string).collect(), ..Self::default() };
        let place = |teacher: &usize| teachers.iter().position(|t| *t == self.teachers[*teacher]);
        for ((teacher, question), texts) in &self.texts {
            if let Some(at) = place(teacher) {
                cache.texts.insert((at, question.clone()), texts.clone());
            }
        }
        let sources = self.sources.iter().filter_map(|(teacher, source)| Some((place(teacher)?, source.clone())));
        cache.sources.extend(sources);
        cache
    }

    /// Cached texts of one teacher for one question.
    #[must_use]
    pub fn texts(&self, question: &str, teacher: usize) -> &[String] {
        self.texts.get(&(teacher, question.to_string())).map_or(&[], Vec::as_slice)
    }

    /// `count` responses to a question, taken from the teachers in turn and from different texts of each, starting
    /// at `offset`; tokenised by the student. Waits for a teacher that has not answered yet, and leaves out those of its texts that
    /// spell a special token of the student's.
    ///
    /// # Errors
    /// [`RilError::TeacherResponses`] when a teacher has no response for the question; [`RilError::TeacherText`] when a
    /// cached text spells a special token of the student's (stop tokens at its end are dropped); the source's own.
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
        let texts = self.known_texts(question, teacher, student)?;
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

    /// [`Self::responses`], or `None` where a teacher that answers while the run trains has nothing to say to the question.
    ///
    /// # Errors
    /// As [`Self::responses`].
    pub fn responses_if_any<M: ChatModel>(
        &self,
        question: &Question,
        count: usize,
        offset: usize,
        student: &M,
    ) -> Result<Option<Vec<Response>>, RilError> {
        let is_awaited = |name: &String| self.sources.keys().any(|teacher| self.teachers[*teacher] == *name);
        match self.responses(question, count, offset, student) {
            Err(RilError::TeacherResponses { teacher, .. }) if is_awaited(&teacher) => Ok(None),
            responses => responses.map(Some),
        }
    }

    /// The cached texts of a teacher, or those of its source that the student can read.
    fn known_texts<M: ChatModel>(
        &self,
        question: &Question,
        teacher: usize,
        student: &M,
    ) -> Result<Cow<'_, [String]>, RilError> {
        let Some(source) = self.sources.get(&teacher) else {
            return Ok(Cow::Borrowed(self.texts(&question.id, teacher)));
        };
        let mut texts = source.texts(&question.id, &self.teachers[teacher])?;
        texts.retain(|text| plain_text(student, text).is_ok());
        Ok(Cow::Owned(texts))
    }
}

fn missing(question: &Question, teacher: &str) -> RilError {
    RilError::TeacherResponses { question: question.id.clone(), teacher: teacher.to_string(), expected: 1, got: 0 }
}
