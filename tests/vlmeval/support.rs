//! Answers without a model.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use ril::RilError;
use ril::models::generate::SamplingParams;
use ril::run::Outcome;
use ril::vlmeval::{Answer, Answerer, Evaluation, Kind, Part, Plan, Request, Table, Tell};
use sha2::{Digest, Sha256};

/// Answers by the index of the row.
pub struct Recorded {
    pub answers: HashMap<String, String>,
    pub block: usize,
    /// Indices asked for, in order.
    pub asked: Vec<String>,
}

impl Recorded {
    pub fn new(answers: HashMap<String, String>, block: usize) -> Self {
        Self { answers, block, asked: Vec::new() }
    }
}

impl Answerer for Recorded {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        for (place, request) in requests.iter().enumerate() {
            self.asked.push(request.id.clone());
            let text = self.answers[&request.id].clone();
            if tell(place, Ok(Answer { text, is_truncated: false })).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn block(&self) -> usize {
        self.block
    }
}

/// A judge that draws its reply by the hash of prompt and try, as the fixture's did.
pub struct Pool {
    pub replies: Vec<String>,
    /// Replies so far, by prompt.
    pub tries: HashMap<String, usize>,
    pub calls: usize,
}

impl Pool {
    pub fn new(replies: Vec<String>, tries: HashMap<String, usize>) -> Self {
        Self { replies, tries, calls: 0 }
    }
}

impl Answerer for Pool {
    fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), RilError> {
        for (place, request) in requests.iter().enumerate() {
            let [Part::Text(prompt)] = &request.query.parts[..] else { panic!("a judge is shown words alone") };
            let attempt = self.tries.entry(prompt.clone()).or_default();
            let text = self.replies[pick(prompt, *attempt, self.replies.len())].clone();
            *attempt += 1;
            self.calls += 1;
            if tell(place, Ok(Answer { text, is_truncated: false })).is_break() {
                break;
            }
        }
        Ok(())
    }
}

pub fn pick(prompt: &str, attempt: usize, count: usize) -> usize {
    Sha256::digest(format!("{prompt}#{attempt}"))[0] as usize % count
}

pub fn plan(kind: &'static Kind, table: Table) -> Plan {
    Plan {
        kind,
        table,
        limit: None,
        model: "recorded".into(),
        identity: "1".into(),
        sampling: SamplingParams::greedy(8),
    }
}

/// A folder with all answers and, with a pool, all replies.
pub fn answered(
    kind: &'static Kind,
    table: &Table,
    folder: &Path,
    answers: &HashMap<String, String>,
    pool: Option<&mut Pool>,
) -> Evaluation {
    let run = Evaluation::open(plan(kind, table.clone()), folder).unwrap();
    assert!(
        run.ask(&mut Recorded::new(answers.clone(), 1), |_| ControlFlow::Continue(())).unwrap() == Outcome::Finished
    );
    if let Some(pool) = pool {
        assert!(run.judge("pool", pool, |_, _| ControlFlow::Continue(())).unwrap() == Outcome::Finished);
    }
    run
}
