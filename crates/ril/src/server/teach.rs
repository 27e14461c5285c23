//! Answers of a teacher behind a server, for the cache that a run reads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use ril_client::{ChatClient, ChatMessage, ChatRequest, ClientError, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::picture::file_part;
use crate::data::Record;
use crate::error::RilError;
use crate::journal::Journal;
use crate::rollout::mix_seed;
use crate::teacher::is_cut;

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

/// One line of the file: what [`TeacherCache`](crate::TeacherCache) reads, and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    question: String,
    teacher: String,
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

/// What the file holds of a response.
#[derive(Clone, Copy, Default)]
struct Slot {
    tries: usize,
    is_usable: bool,
}

/// Slots of each question.
type Slots = BTreeMap<String, BTreeMap<usize, Slot>>;

/// Asks a teacher about every question until the file holds `responses` to each, and appends each answer as it comes.
///
/// The file may hold other teachers' lines and answers of before: nothing that is there is asked again, so that a program that
/// was killed goes on where it was. A question that the server refuses (400, 413, 422) hinders no other; the call ends with the
/// first refusal as its error once all others are done. `progress` is told how many responses are there that a run can use, and may
/// ask to stop.
///
/// # Errors
/// [`RilError::Config`] when the plan is empty or the file holds answers of this teacher under other settings; the files'
/// own; [`RilError::Server`] with the question, for the first request that failed for good.
pub fn teach(
    client: &ChatClient,
    plan: &TeachPlan,
    records: &[(usize, Record)],
    out: &Path,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<TeachReport, RilError> {
    if plan.responses == 0 || plan.samples_per_request == 0 || plan.tries == 0 {
        return Err(RilError::Config("responses, samples a request and tries: expected at least 1, got 0".into()));
    }
    let (mut journal, lines) = Journal::open::<Line>(out)?;
    let settings = plan.settings();
    let mut report = TeachReport::default();
    let mut slots = known(&lines, plan, &settings, out, &mut report)?;
    let mut failure = None;
    loop {
        let jobs = plan.jobs(records, &slots);
        if jobs.is_empty() || failure.is_some() || report.is_interrupted {
            break;
        }
        let wanted: usize = jobs.iter().map(|job| job.samples).sum();
        let before = report.added;
        let ask = |client: &ChatClient, i: usize| plan.ask(client, &records[jobs[i].record].1, jobs[i], &settings);
        client.parallel(jobs.len(), ask, |_, answer| {
            let kept = answer.and_then(|lines| {
                journal.extend(&lines)?;
                report.added += lines.len();
                lines.iter().for_each(|line| report.note(line, &mut slots));
                Ok(())
            });
            if let Err(error) = kept {
                let goes_on = is_refusal(&error);
                // What a stop ends is a consequence of it.
                if !is_stop(&error) {
                    failure.get_or_insert(error);
                }
                return if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            }
            progress(report.found + report.added - report.cut)
        });
        report.is_interrupted = report.added - before < wanted;
    }
    journal.sync()?;
    let is_covered = |record: &Record| {
        let slots = slots.get(record.id.as_deref().unwrap_or_default());
        slots.is_some_and(|slots| slots.values().any(|slot| slot.is_usable))
    };
    report.uncovered = records.iter().filter(|(_, record)| !is_covered(record)).count();
    failure.map_or(Ok(report), Err)
}

/// What the file holds of this teacher.
fn known(
    lines: &[Line],
    plan: &TeachPlan,
    settings: &Value,
    out: &Path,
    report: &mut TeachReport,
) -> Result<Slots, RilError> {
    let mut slots = Slots::new();
    for line in lines.iter().filter(|line| line.teacher == plan.teacher) {
        if line.settings != *settings {
            return Err(RilError::Config(format!(
                "{}: holds answers of {} under other settings ({}, now {settings}); give the teacher another name, or another file",
                out.display(),
                plan.teacher,
                line.settings
            )));
        }
        report.found += 1;
        report.note(line, &mut slots);
    }
    Ok(slots)
}

impl TeachReport {
    fn note(&mut self, line: &Line, slots: &mut Slots) {
        self.cut += usize::from(is_cut(&line.finish_reason));
        self.empty += usize::from(line.response.trim().is_empty());
        let slots = slots.entry(line.question.clone()).or_default();
        // A line from elsewhere has no number: it takes the first place that is free.
        let free = || (0..).find(|sample| !slots.contains_key(sample)).unwrap_or_default();
        let slot = slots.entry(line.sample.unwrap_or_else(free)).or_default();
        slot.tries += 1;
        slot.is_usable |= !is_cut(&line.finish_reason);
    }
}

impl TeachPlan {
    fn settings(&self) -> Value {
        let request = ChatRequest { n: None, seed: None, ..self.request.clone() };
        // Through text: a value would hold 0.7f32 as 0.699999988.
        let text = serde_json::to_string(&request).expect("a request of plain fields is JSON");
        serde_json::from_str(&text).expect("JSON that was just written")
    }

    /// What is missing: whole requests of `samples_per_request` where nothing is there yet, else single responses.
    fn jobs(&self, records: &[(usize, Record)], slots: &Slots) -> Vec<Job> {
        let mut jobs = Vec::new();
        let none = BTreeMap::new();
        for (index, (_, record)) in records.iter().enumerate() {
            let slots = slots.get(record.id.as_deref().unwrap_or_default()).unwrap_or(&none);
            for first in (0..self.responses).step_by(self.samples_per_request) {
                let samples = self.samples_per_request.min(self.responses - first);
                let range = first..first + samples;
                if range.clone().all(|sample| !slots.contains_key(&sample)) {
                    jobs.push(Job { record: index, first, samples, seed: self.seed_of(index, first, 0, samples) });
                    continue;
                }
                for sample in range {
                    let slot = slots.get(&sample).copied().unwrap_or_default();
                    if !slot.is_usable && slot.tries < self.tries {
                        let seed = self.seed_of(index, sample, slot.tries, 1);
                        jobs.push(Job { record: index, first: sample, samples: 1, seed });
                    }
                }
            }
        }
        jobs
    }

    /// A seed of its own for each request that can ever be made: no response is a repetition of another.
    fn seed_of(&self, record: usize, first: usize, tries: usize, samples: usize) -> u64 {
        let single = u64::from(samples < self.samples_per_request.min(self.responses - first));
        let request = (first as u64) << 20 | (tries as u64) << 1 | single;
        // Servers take 63 bits at most, some 31.
        mix_seed(mix_seed(self.seed, record as u64), request) >> 33
    }

    fn ask(&self, client: &ChatClient, record: &Record, job: Job, settings: &Value) -> Result<Vec<Line>, RilError> {
        let question = record.id.clone().unwrap_or_default();
        let pictures = record.images.iter().map(|path| file_part(path)).collect::<Result<Vec<_>, _>>()?;
        let mut request =
            ChatRequest { n: (job.samples > 1).then_some(job.samples), seed: Some(job.seed), ..self.request.clone() };
        request.messages.push(ChatMessage::user_with_images(pictures, record.question.as_str()));
        let failed = |source| RilError::Server { question: question.clone(), source };
        let response = client.chat(&request).map_err(failed)?;
        let mut usage = response.usage;
        let line = |choice: &ril_client::ChatChoice| Line {
            question: question.clone(),
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

/// Whether the server will not have this one question, whatever becomes of the others.
pub(super) fn is_refusal(error: &RilError) -> bool {
    matches!(error, RilError::Server { source: ClientError::Status { status: 400 | 413 | 422, .. }, .. })
}

fn is_stop(error: &RilError) -> bool {
    matches!(error, RilError::Server { source: ClientError::Stopped, .. })
}
