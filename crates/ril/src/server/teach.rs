//! Answers of a teacher behind a server, for the cache that a run reads.

use std::ops::ControlFlow;
use std::path::Path;

use ril_client::{ChatClient, ChatRequest};

use super::lesson::{Lesson, Line, Listener};
use crate::data::Record;
use crate::error::RilError;
use crate::journal::Journal;

/// What a teacher is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct TeachPlan {
    /// Its name in the cache.
    pub teacher: String,
    /// Model and settings. Messages in it, a system prompt say, come before each question; `n` and `seed` are set here.
    pub request: ChatRequest,
    /// Responses to each question.
    pub responses: usize,
    /// Responses asked for in one request, `n`; 1 for servers that know no `n`.
    pub samples_per_request: usize,
    /// Requests for one response at most: a response that the budget of tokens cut, or the server broke off, is no use to a run
    /// and is asked for again.
    pub tries: usize,
    /// Seed of the sampling; each request has its own, made from it.
    pub seed: u64,
}

/// What was done, and what the file holds now of this teacher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TeachReport {
    /// Responses that were there already.
    pub found: usize,
    /// Responses that were added.
    pub added: usize,
    /// Responses, of all, that the budget of tokens cut or the server broke off: a run leaves them out.
    pub cut: usize,
    /// Responses, of all, without a text.
    pub empty: usize,
    /// Questions without a response that a run could use.
    pub uncovered: usize,
    /// True when `progress` asked to stop before all was done.
    pub is_interrupted: bool,
}

impl TeachPlan {
    /// # Errors
    /// [`RilError::Config`] when a count is 0.
    pub(super) fn validate(&self) -> Result<(), RilError> {
        if self.responses == 0 || self.samples_per_request == 0 || self.tries == 0 {
            return Err(RilError::Config("responses, samples a request and tries: expected at least 1, got 0".into()));
        }
        Ok(())
    }
}

/// Asks a teacher about every question until the file holds `responses` to each, and appends each answer as it comes.
///
/// The file may hold other teachers' lines and answers of before: nothing that is there is asked again, so that a program that
/// was killed goes on where it was. A question that the server refuses (400, 413, 422) hinders no other; the call ends with the
/// first refusal as its error once all others are done. `progress` is told how many responses are there that a run can use, and may
/// ask to stop. [`TeacherFeed`](super::TeacherFeed) does the same while a run trains.
///
/// # Errors
/// [`RilError::Config`] when the plan is empty, a question lacks an id of its own, or the file holds answers of this teacher under
/// other settings; the files' own; [`RilError::Server`] with the question, for the first request that failed for good.
pub fn teach(
    client: &ChatClient,
    plan: &TeachPlan,
    records: &[(usize, Record)],
    out: &Path,
    progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<TeachReport, RilError> {
    plan.validate()?;
    let (mut journal, lines) = Journal::open::<Line>(out)?;
    let mut lesson = Lesson::new(plan, records, &lines, out)?;
    lesson.ask_refused_again();
    let mut listener = ToFile { journal: &mut journal, progress, refusal: None };
    let done = lesson.carry_out(client, &mut listener);
    let refusal = listener.refusal;
    journal.sync()?;
    done?;
    refusal.map_or(Ok(lesson.report()), Err)
}

struct ToFile<'a, P> {
    journal: &'a mut Journal,
    progress: P,
    refusal: Option<RilError>,
}

impl<P: FnMut(usize) -> ControlFlow<()>> Listener for ToFile<'_, P> {
    fn keep(&mut self, lines: &[Line]) -> Result<(), RilError> {
        self.journal.extend(lines)
    }

    fn answered(&mut self, lesson: &Lesson<'_>, _question: &str) -> ControlFlow<()> {
        (self.progress)(lesson.usable())
    }

    fn refused(&mut self, _question: &str, error: RilError) -> Result<(), RilError> {
        self.refusal.get_or_insert(error);
        Ok(())
    }
}
