//! One teacher's questions: what is there of its answers, what is missing, and what is asked next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use ril_client::{ChatClient, ChatMessage, ChatRequest, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::picture::file_part;
use super::teach::{TeachPlan, TeachReport};
use crate::data::Record;
use crate::error::RilError;
use crate::rollout::mix_seed;
use crate::teacher::is_cut;

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

    /// The server will not have this question, whatever becomes of the others.
    fn refused(&mut self, question: &str, error: RilError);
}

/// The questions to one teacher, and what is there of its answers.
pub(super) struct Lesson<'a> {
    plan: &'a TeachPlan,
    records: &'a [(usize, Record)],
    settings: Value,
    /// Of each question.
    slots: HashMap<String, BTreeMap<usize, Slot>>,
    report: TeachReport,
}

impl<'a> Lesson<'a> {
    /// `lines` are those of the file `out`, of all teachers.
    pub(super) fn new(
        plan: &'a TeachPlan,
        records: &'a [(usize, Record)],
        lines: &[Line],
        out: &Path,
    ) -> Result<Self, RilError> {
        let report = TeachReport::default();
        let mut lesson = Self { plan, records, settings: plan.settings(), slots: HashMap::new(), report };
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
            lesson.report.found += 1;
            lesson.note(line);
        }
        Ok(lesson)
    }

    /// Asks until nothing is missing, or `listener` asks to stop.
    pub(super) fn carry_out(&mut self, client: &ChatClient, listener: &mut impl Listener) -> Result<(), RilError> {
        let (plan, records) = (self.plan, self.records);
        let mut failure = None;
        let mut refused = HashSet::new();
        loop {
            let mut jobs = self.jobs();
            jobs.retain(|job| !refused.contains(&job.record));
            if jobs.is_empty() || failure.is_some() || self.report.is_interrupted {
                return failure.map_or(Ok(()), Err);
            }
            let settings = self.settings.clone();
            let mut open = jobs.len();
            let ask = |client: &ChatClient, i: usize| plan.ask(client, &records[jobs[i].record].1, jobs[i], &settings);
            client.parallel(jobs.len(), ask, |i, answer| {
                let question = id(&records[jobs[i].record].1);
                match answer.and_then(|lines| listener.keep(&lines).map(|()| lines)) {
                    Ok(lines) => {
                        open -= 1;
                        self.report.added += lines.len();
                        lines.iter().for_each(|line| self.note(line));
                        listener.answered(self, question)
                    }
                    Err(error) if error.is_refusal() => {
                        open -= 1;
                        if refused.insert(jobs[i].record) {
                            listener.refused(question, error);
                        }
                        ControlFlow::Continue(())
                    }
                    // What a stop ends is a consequence of it.
                    Err(error) if error.is_stop() => ControlFlow::Break(()),
                    Err(error) => {
                        failure.get_or_insert(error);
                        ControlFlow::Break(())
                    }
                }
            });
            self.report.is_interrupted = open > 0;
        }
    }

    /// What was done, and what there is.
    pub(super) fn report(&self) -> TeachReport {
        let is_uncovered = |(_, record): &&(usize, Record)| self.texts(id(record)).is_empty();
        TeachReport { uncovered: self.records.iter().filter(is_uncovered).count(), ..self.report }
    }

    /// Responses that are there and whole.
    pub(super) fn usable(&self) -> usize {
        self.report.found + self.report.added - self.report.cut
    }

    /// The texts that are there and whole, in the order of their numbers.
    pub(super) fn texts(&self, question: &str) -> Vec<String> {
        self.slots.get(question).into_iter().flatten().filter_map(|(_, slot)| slot.text.clone()).collect()
    }

    /// Whether nothing more is asked about a question.
    pub(super) fn is_settled(&self, question: &str) -> bool {
        let slots = self.slots.get(question);
        (0..self.plan.responses).all(|sample| slots.is_some_and(|slots| self.is_done(slots.get(&sample))))
    }

    fn is_done(&self, slot: Option<&Slot>) -> bool {
        slot.is_some_and(|slot| slot.text.is_some() || slot.tries >= self.plan.tries)
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
        let (plan, none) = (self.plan, BTreeMap::new());
        let mut jobs = Vec::new();
        for (record, (_, asked)) in self.records.iter().enumerate() {
            let slots = self.slots.get(id(asked)).unwrap_or(&none);
            for first in (0..plan.responses).step_by(plan.samples_per_request) {
                let samples = plan.samples_per_request.min(plan.responses - first);
                let range = first..first + samples;
                if range.clone().all(|sample| !slots.contains_key(&sample)) {
                    jobs.push(Job { record, first, samples, seed: plan.seed_of(id(asked), first, 0, samples) });
                    continue;
                }
                for first in range.filter(|sample| !self.is_done(slots.get(sample))) {
                    let tries = slots.get(&first).map_or(0, |slot| slot.tries);
                    jobs.push(Job { record, first, samples: 1, seed: plan.seed_of(id(asked), first, tries, 1) });
                }
            }
        }
        jobs
    }
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

    /// A seed of its own for each request that can ever be made, whatever else is asked: no response is a repetition of another.
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
