//! One teacher's questions: what is there of its answers, what is missing, and what is asked next.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ril_client::{ChatClient, ChatMessage, ChatRequest, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::picture::file_part;
use super::teach::{TeachPlan, TeachReport};
use crate::data::Record;
use crate::error::RilError;
use crate::rollout::mix_seed;
use crate::teacher::{REFUSED, is_cut};

/// One line of the file: what [`TeacherCache`](crate::TeacherCache) reads, and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) question: String,
    pub(super) teacher: String,
    response: String,
    /// Which of the responses to the question it is, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<usize>,
    #[serde(default)]
    finish_reason: String,
    /// The server's name for the model.
    #[serde(default)]
    model: String,
    /// The request without question, `n` and seed.
    #[serde(default)]
    settings: Value,
    /// Of the whole request, on the line of its first response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// So many refusals without an answer between them, beside two for each request that may be under way, do not lie with the questions:
/// the server has another model, no budget left, reads no pictures. Refusals are quicker than answers, and some of them are first.
const REFUSALS_IN_A_ROW: usize = 8;

impl Line {
    /// A question that `plan`'s server would not have.
    pub(super) fn refused(plan: &TeachPlan, question: &str) -> Self {
        Self {
            question: question.to_owned(),
            teacher: plan.teacher.clone(),
            response: String::new(),
            sample: None,
            finish_reason: REFUSED.to_owned(),
            model: String::new(),
            settings: plan.settings(),
            usage: None,
        }
    }

    fn is_refused(&self) -> bool {
        self.finish_reason == REFUSED && self.sample.is_none()
    }
}

/// Questions, by their records, that were refused since the last answer.
type Refusals = BTreeMap<usize, RilError>;

/// One request: responses `first..first + samples` to a question.
#[derive(Clone, Copy)]
struct Job {
    record: usize,
    first: usize,
    samples: usize,
    seed: u64,
}

/// What is known of one response.
#[derive(Clone, Default)]
struct Slot {
    tries: usize,
    /// `None` as long as no answer was of use.
    text: Option<String>,
}

/// What becomes of the answers of a [`Lesson`].
pub(super) trait Listener {
    /// Stores answers to one question; what fails to be stored ends the lesson.
    fn keep(&mut self, lines: &[Line]) -> Result<(), RilError>;

    /// The answers to this question count now.
    fn answered(&mut self, lesson: &Lesson<'_>, question: &str) -> ControlFlow<()>;

    /// The server will not have this question, whatever becomes of the others; an error ends the lesson.
    fn refused(&mut self, question: &str, error: RilError) -> Result<(), RilError>;
}

/// The questions to one teacher, and what is there of its answers.
pub(super) struct Lesson<'a> {
    plan: &'a TeachPlan,
    records: &'a [(usize, Record)],
    settings: Value,
    /// Of each question.
    slots: HashMap<String, BTreeMap<usize, Slot>>,
    /// Questions that the server will not have, as the listener was told or the file says.
    refused: HashSet<String>,
    report: TeachReport,
}

impl<'a> Lesson<'a> {
    /// `lines` are those of the file `out`, of all teachers.
    ///
    /// # Errors
    /// [`RilError::Config`] for answers under other settings, or a question without an id or with that of another one.
    pub(super) fn new(
        plan: &'a TeachPlan,
        records: &'a [(usize, Record)],
        lines: &[Line],
        out: &Path,
    ) -> Result<Self, RilError> {
        let mut ids = HashSet::new();
        if let Some((line, _)) = records.iter().find(|(_, record)| record.id.is_none() || !ids.insert(id(record))) {
            return Err(RilError::Config(format!("question of line {line}: expected an id of its own")));
        }
        let (settings, report) = (plan.settings(), TeachReport::default());
        let (slots, refused) = (HashMap::new(), HashSet::new());
        let mut lesson = Self { plan, records, settings, slots, refused, report };
        for line in lines.iter().filter(|line| line.teacher == plan.teacher) {
            if line.settings != lesson.settings {
                return Err(RilError::Config(format!(
                    "{}: holds answers of {} under other settings ({}, now {}); give the teacher another name, or another file",
                    out.display(),
                    plan.teacher,
                    line.settings,
                    lesson.settings
                )));
            }
            if line.is_refused() {
                lesson.refused.insert(line.question.clone());
                continue;
            }
            // What came after it was asked for again.
            lesson.refused.remove(&line.question);
            lesson.report.found += 1;
            lesson.note(line);
        }
        Ok(lesson)
    }

    /// Asks also about what the server would not have before.
    pub(super) fn ask_refused_again(&mut self) {
        self.refused.clear();
    }

    /// Asks until nothing is missing, or `listener` asks to stop. What is missing of a question comes before later ones, also where an
    /// answer that was cut is asked for again.
    pub(super) fn carry_out(&mut self, client: &ChatClient, listener: &mut impl Listener) -> Result<(), RilError> {
        let (plan, records, settings) = (self.plan, self.records, self.settings.clone());
        let most_refusals = REFUSALS_IN_A_ROW + 2 * client.config().max_in_flight;
        let mut failure = None;
        self.report.is_interrupted = false;
        loop {
            let jobs = self.jobs();
            if jobs.is_empty() || failure.is_some() || self.report.is_interrupted {
                return failure.map_or(Ok(()), Err);
            }
            // A turn for each request that there can be; those for which there is nothing to do end at once.
            let turns = jobs.iter().map(|job| job.samples * plan.tries).sum();
            let queue = Mutex::new(VecDeque::from(jobs));
            let ask = |client: &ChatClient, _: usize| {
                let job = lock(&queue).pop_front()?;
                Some((job, plan.ask(client, &records[job.record].1, job, &settings)))
            };
            let (mut done, mut is_stopped, mut refusals) = (0, false, Refusals::new());
            client.parallel(turns, ask, |_, turn| {
                let Some((job, answer)) = turn else { return ControlFlow::Continue(()) };
                done += 1;
                let taken = match answer {
                    Ok(lines) => self.take(job, &lines, &queue, listener, &mut refusals),
                    Err(error) if error.is_refusal() => {
                        lock(&queue).retain(|open| open.record != job.record);
                        if !self.refused.contains(id(&records[job.record].1)) {
                            refusals.entry(job.record).or_insert(error);
                        }
                        Ok(ControlFlow::Continue(()))
                    }
                    // What a stop ends is a consequence of it.
                    Err(error) if error.is_stop() => Ok(ControlFlow::Break(())),
                    Err(error) => Err(error),
                };
                let taken = match refusals.len() < most_refusals {
                    true => taken,
                    false => Err(refusals.pop_first().expect("there are many").1),
                };
                let flow = taken.unwrap_or_else(|error| {
                    failure.get_or_insert(error);
                    ControlFlow::Break(())
                });
                is_stopped |= flow.is_break();
                flow
            });
            // Else they are asked again.
            if failure.is_none() && !is_stopped {
                failure = self.settle_refusals(&mut refusals, listener).err();
            }
            // A client that was stopped before does nothing.
            self.report.is_interrupted = (is_stopped || done == 0) && !self.jobs().is_empty();
        }
    }

    /// Answers to a question: they are kept, count, and say of those that were refused that it lies with them.
    fn take(
        &mut self,
        job: Job,
        lines: &[Line],
        queue: &Mutex<VecDeque<Job>>,
        listener: &mut impl Listener,
        refusals: &mut Refusals,
    ) -> Result<ControlFlow<()>, RilError> {
        let question = id(&self.records[job.record].1);
        // Another request about it was refused meanwhile: it is left out.
        if self.refused.contains(question) || refusals.contains_key(&job.record) {
            return Ok(ControlFlow::Continue(()));
        }
        listener.keep(lines)?;
        self.report.added += lines.len();
        lines.iter().for_each(|line| self.note(line));
        let missing = lines.iter().filter_map(|line| line.sample).filter(|sample| !self.is_done(question, *sample));
        let again: Vec<Job> = missing.map(|sample| self.single(job.record, sample)).collect();
        let mut queue = lock(queue);
        again.into_iter().rev().for_each(|job| queue.push_front(job));
        drop(queue);
        let flow = listener.answered(self, question);
        self.settle_refusals(refusals, listener)?;
        Ok(flow)
    }

    /// Tells of questions that were refused, once the server has shown that it answers others.
    fn settle_refusals(&mut self, refusals: &mut Refusals, listener: &mut impl Listener) -> Result<(), RilError> {
        while let Some((record, error)) = refusals.pop_first() {
            if self.report.found + self.report.added == 0 {
                return Err(error);
            }
            let question = id(&self.records[record].1);
            listener.refused(question, error)?;
            self.refused.insert(question.to_owned());
        }
        Ok(())
    }

    /// A request for one response, with the seed of its next try.
    fn single(&self, record: usize, first: usize) -> Job {
        let question = id(&self.records[record].1);
        let tries = self.slot(question, first).map_or(0, |slot| slot.tries);
        Job { record, first, samples: 1, seed: self.plan.seed_of(question, first, tries, 1) }
    }

    /// What was done, and what there is.
    pub(super) fn report(&self) -> TeachReport {
        let is_uncovered = |(_, record): &&(usize, Record)| self.texts(id(record)).next().is_none();
        TeachReport { uncovered: self.records.iter().filter(is_uncovered).count(), ..self.report }
    }

    /// Whether it was asked to stop before all was done.
    pub(super) fn is_interrupted(&self) -> bool {
        self.report.is_interrupted
    }

    /// Responses that are there and whole.
    pub(super) fn usable(&self) -> usize {
        self.report.found + self.report.added - self.report.cut
    }

    /// The texts that are there and whole, in the order of their numbers. Of a question that the server then refused there are none:
    /// whether some came before is an accident.
    pub(super) fn texts(&self, question: &str) -> impl Iterator<Item = &String> {
        let slots = self.slots.get(question).filter(|_| !self.refused.contains(question));
        slots.into_iter().flatten().filter_map(|(_, slot)| slot.text.as_ref())
    }

    /// Whether nothing more is asked about a question.
    pub(super) fn is_settled(&self, question: &str) -> bool {
        self.refused.contains(question) || (0..self.plan.responses).all(|sample| self.is_done(question, sample))
    }

    fn slot(&self, question: &str, sample: usize) -> Option<&Slot> {
        self.slots.get(question)?.get(&sample)
    }

    fn is_done(&self, question: &str, sample: usize) -> bool {
        self.slot(question, sample).is_some_and(|slot| slot.text.is_some() || slot.tries >= self.plan.tries)
    }

    fn note(&mut self, line: &Line) {
        let is_cut = is_cut(&line.finish_reason);
        self.report.cut += usize::from(is_cut);
        self.report.empty += usize::from(line.response.trim().is_empty());
        let slots = self.slots.entry(line.question.clone()).or_default();
        // A line from elsewhere has no number: it takes the first place that is free.
        let free = || (0..).find(|sample| !slots.contains_key(sample)).unwrap_or_default();
        let slot = slots.entry(line.sample.unwrap_or_else(free)).or_default();
        slot.tries += 1;
        if !is_cut {
            slot.text = Some(line.response.clone());
        }
    }

    /// What is missing: whole requests of `samples_per_request` where nothing is there yet, else single responses.
    fn jobs(&self) -> Vec<Job> {
        let plan = self.plan;
        let mut jobs = Vec::new();
        for (record, (_, asked)) in self.records.iter().enumerate() {
            let question = id(asked);
            if self.refused.contains(question) {
                continue;
            }
            for first in (0..plan.responses).step_by(plan.samples_per_request) {
                let samples = plan.samples_per_request.min(plan.responses - first);
                let range = first..first + samples;
                if range.clone().all(|sample| self.slot(question, sample).is_none()) {
                    jobs.push(Job { record, first, samples, seed: plan.seed_of(question, first, 0, samples) });
                    continue;
                }
                let missing = range.filter(|sample| !self.is_done(question, *sample));
                jobs.extend(missing.map(|sample| self.single(record, sample)));
            }
        }
        jobs
    }
}

/// What a panic left is whole: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every record that was read has one.
pub(super) fn id(record: &Record) -> &str {
    record.id.as_deref().unwrap_or_default()
}

impl TeachPlan {
    fn settings(&self) -> Value {
        let request = ChatRequest { n: None, seed: None, ..self.request.clone() };
        // Through text: a value would hold 0.7f32 as 0.699999988.
        let text = serde_json::to_string(&request).expect("a request of plain fields is JSON");
        serde_json::from_str(&text).expect("JSON that was just written")
    }

    /// A seed of its own for each request that can ever be made, whatever else is asked and in whatever order: no response is a
    /// repetition of another.
    fn seed_of(&self, question: &str, first: usize, tries: usize, samples: usize) -> u64 {
        let single = u64::from(samples < self.samples_per_request.min(self.responses - first));
        let request = (first as u64) << 20 | (tries as u64) << 1 | single;
        let digest = Sha256::digest(question.as_bytes());
        let question = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        // Servers take 63 bits at most, some 31.
        mix_seed(mix_seed(self.seed, question), request) >> 33
    }

    fn ask(&self, client: &ChatClient, record: &Record, job: Job, settings: &Value) -> Result<Vec<Line>, RilError> {
        let question = id(record);
        let pictures = record.images.iter().map(|path| file_part(path)).collect::<Result<Vec<_>, _>>()?;
        let mut request =
            ChatRequest { n: (job.samples > 1).then_some(job.samples), seed: Some(job.seed), ..self.request.clone() };
        request.messages.push(ChatMessage::user_with_images(pictures, record.question.as_str()));
        let failed = |source| RilError::Server { question: question.to_owned(), source };
        let response = client.chat(&request).map_err(failed)?;
        let mut usage = response.usage;
        let line = |choice: &ril_client::ChatChoice| Line {
            question: question.to_owned(),
            teacher: self.teacher.clone(),
            response: choice.text().to_owned(),
            sample: Some(job.first + choice.index),
            finish_reason: choice.finish_reason.as_str().to_owned(),
            model: response.model.clone(),
            settings: settings.clone(),
            usage: usage.take(),
        };
        Ok(response.choices.iter().map(line).collect())
    }
}
