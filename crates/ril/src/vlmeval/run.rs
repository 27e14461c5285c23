//! One benchmark put to one model, in a folder that can be left and taken up again at any point.
//!
//! ```text
//! RUN/run.json         benchmark, model, sampling: asked for again with other settings, the folder is refused by name
//! RUN/answers.jsonl    one line an answer, in the order in which they came
//! RUN/failures.jsonl   one line a row whose request failed, while it has no answer
//! RUN/judge.json       who judges
//! RUN/judge.jsonl      one line a reply of the judge
//! RUN/scores.jsonl     one line a question: score, what the answer was read as
//! RUN/results.json     the table
//! ```

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ril_models::files::write_atomic;
use ril_models::generate::SamplingParams;

use super::answerer::{Answer, Answerer, Request};
use super::benchmarks::Kind;
use super::error::VlmEvalError;
use super::evidence::{
    AnswerLine, AnswersByRow, RepliesByRow, ReplyLine, by_index, evidence_sha256, stored_answers, stored_replies,
};
use super::failures::{FailedRows, Failures, stored_failures};
use super::prompt::Query;
use super::report::{Results, ScoreLine, Scored};
use super::scorer::{Evidence, Inquiry, Item, JudgeUse};
use super::store::Settings;
use super::table::{Row, Table};
use crate::error::RilError;
use crate::journal::Journal;
use crate::rollout::mix_seed;
use crate::run::Outcome;

/// Settings of a run.
pub const RUN_FILE: &str = "run.json";
/// The model's answers.
pub const ANSWERS_FILE: &str = "answers.jsonl";
/// Settings of the judge.
pub const JUDGE_FILE: &str = "judge.json";
/// The judge's replies.
pub const REPLIES_FILE: &str = "judge.jsonl";
/// Scores by question.
pub const SCORES_FILE: &str = "scores.jsonl";
/// The table.
pub const RESULTS_FILE: &str = "results.json";

/// A benchmark, and the folder of its answers.
#[derive(Debug)]
pub struct Evaluation {
    kind: &'static Kind,
    table: Table,
    folder: PathBuf,
    settings: Settings,
    sampling: SamplingParams,
    failed_rows: FailedRows,
}

/// Everything that decides what a run's answers are.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How rows are asked and scored.
    pub kind: &'static Kind,
    /// The benchmark.
    pub table: Table,
    /// Questions that are asked, from the first; `None` asks all. A question is a row, or in circular evaluation all
    /// rotations of one: with some of them left out it would be easier.
    pub limit: Option<usize>,
    /// Who answers, as tables name it.
    pub model: String,
    /// What else tells models apart: [`fingerprint`](super::fingerprint) of a folder, name of a model on a server.
    pub identity: String,
    /// How answers are drawn.
    pub sampling: SamplingParams,
}

impl Evaluation {
    /// Opens or creates a folder for a plan.
    ///
    /// # Errors
    /// [`VlmEvalError::OtherSettings`] when the folder belongs to another plan; what the scorer misses in the table.
    pub fn open(plan: Plan, folder: &Path) -> Result<Self, RilError> {
        let Plan { kind, mut table, limit, model, identity, sampling } = plan;
        // A file without answers (a test set) is asked all the same: its answers go to whoever has the truth.
        if table.has("answer") {
            kind.scorer.check(&table)?;
        }
        sampling.validate()?;
        if let Some(limit) = limit {
            kind.scorer.limit(&mut table, limit)?;
        }
        for row in table.rows() {
            kind.prompt.query(&row)?;
        }
        let name = table.path().file_name().unwrap_or_default().to_string_lossy().to_string();
        let mut settings = Settings::default()
            .with("benchmark", name)
            .with("benchmark_sha256", table.sha256())
            .with("kind", kind.name)
            .with("limit", limit)
            .with("model", model)
            .with("identity", identity);
        if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(&sampling) {
            for (name, value) in fields {
                settings = settings.with(&format!("sampling.{name}"), value);
            }
        }
        std::fs::create_dir_all(folder).map_err(RilError::io(folder))?;
        settings.claim(&folder.join(RUN_FILE))?;
        Ok(Self { kind, table, folder: folder.to_path_buf(), settings, sampling, failed_rows: FailedRows::default() })
    }

    /// The same, with a rule for rows whose requests fail. It is no setting of the folder: with another one the same answers may be
    /// scored otherwise.
    #[must_use]
    pub fn with_failed_rows(self, failed_rows: FailedRows) -> Self {
        Self { failed_rows, ..self }
    }

    /// The benchmark.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether the file holds the right answers: a test set may not, and is then asked and not scored.
    #[must_use]
    pub fn has_truth(&self) -> bool {
        self.table.has("answer")
    }

    /// Rows that are answered already.
    ///
    /// # Errors
    /// Those of the file.
    pub fn answered(&self) -> Result<usize, RilError> {
        Ok(stored_answers(&self.folder)?.len())
    }

    /// Asks for the answers that are not there yet; `progress` is told how many are there, and may ask to stop. Rows that fail
    /// hinder no other, stand in [`FAILURES_FILE`](super::FAILURES_FILE) with the reason, and are asked again by the next call.
    ///
    /// [`Outcome::Interrupted`] when it stopped before all were there.
    ///
    /// # Errors
    /// The answerer's own; with [`FailedRows::Open`] [`VlmEvalError::Unanswered`] after all others were asked.
    pub fn ask(
        &self,
        answerer: &mut dyn Answerer,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Outcome, RilError> {
        let (mut journal, lines) = Journal::open::<AnswerLine>(&self.folder.join(ANSWERS_FILE))?;
        let mut answered: HashMap<String, String> = lines.into_iter().map(|line| (line.index, line.answer)).collect();
        let places = self.open_blocks(&answered, answerer.block());
        let requests = places.iter().map(|place| self.request(*place)).collect::<Result<Vec<_>, RilError>>()?;
        if requests.is_empty() || progress(answered.len()).is_break() {
            return Ok(outcome(!requests.is_empty()));
        }
        let mut failures = Failures::default();
        let told = answerer.answer(&requests, &mut |i, answer| {
            let index = self.index(places[i]);
            // A block that a kill had cut is computed again; what was stored of it stands.
            if !answered.contains_key(index) {
                failures.note(index, answer, |Answer { text, is_truncated }| {
                    journal.push(&AnswerLine { index: index.into(), answer: text.clone(), is_truncated })?;
                    answered.insert(index.into(), text);
                    Ok(())
                });
            }
            let is_stopped = failures.broken.is_some() || progress(answered.len()).is_break();
            if is_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let stored = failures.store(&self.folder, &answered);
        failures.finish(told, requests.len(), self.failed_rows)?;
        stored?;
        Ok(outcome(self.open_rows(&answered)? > 0))
    }

    /// Asks the judge what exact matching leaves open, once all answers are there. The folder is bound to the judge by
    /// its first reply: until then another one may be asked, and [`score`](Self::score) knows of none. `progress` is told how many of
    /// how many answers are settled, and may ask to stop.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`VlmEvalError::Incomplete`] before, [`VlmEvalError::OtherSettings`] when the replies in the folder are another judge's.
    pub fn judge(
        &self,
        name: &str,
        judge: &mut dyn Answerer,
        mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Outcome, RilError> {
        self.check_truth()?;
        let answers = stored_answers(&self.folder)?;
        self.check_complete(&answers, 0)?;
        let (mut journal, lines) = Journal::open(&self.folder.join(REPLIES_FILE))?;
        let (claim, path) = (Settings::default().with("judge", name), self.folder.join(JUDGE_FILE));
        // A judge that never replied (its name was mistyped, its server away) has no hold on the folder.
        if lines.is_empty() { claim.write(&path) } else { claim.claim(&path) }?;
        let mut replies = by_index(lines);
        let evidence = Evidence { answers: &answers, replies: Some(&replies) };
        let inquiries = self.kind.scorer.inquiries(&self.table, evidence)?;
        let mut failures = Failures::default();
        let (mut asked, mut is_stopped) = (0, false);
        // One round a try, so that a server gets all open inquiries at once.
        for attempt in 0..inquiries.iter().map(|inquiry| inquiry.tries).max().unwrap_or(0) {
            let open = self.open_inquiries(&inquiries, &replies, attempt)?;
            let requests: Vec<Request> = open.iter().map(|inquiry| self.inquiry_request(inquiry, attempt)).collect();
            if requests.is_empty() {
                // All open inquiries have a reply to this try from before.
                continue;
            }
            let mut settled = inquiries.len() - open.len();
            if progress(settled, inquiries.len()).is_break() {
                is_stopped = true;
                break;
            }
            asked += requests.len();
            let told = judge.answer(&requests, &mut |i, answer| {
                let index = self.index(open[i].place);
                failures.note(index, answer, |Answer { text, .. }| {
                    journal.push(&ReplyLine { index: index.into(), attempt, reply: text.clone() })?;
                    replies.entry(index.to_string()).or_default().push(text);
                    Ok(())
                });
                settled += 1;
                is_stopped = failures.broken.is_some() || progress(settled, inquiries.len()).is_break();
                if is_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if is_stopped || told.is_err() || failures.has_any() {
                failures.finish(told, asked, FailedRows::Open)?;
                break;
            }
        }
        Ok(outcome(is_stopped))
    }

    /// Answers that a judge would be asked about and has not settled; only once all answers are there.
    ///
    /// # Errors
    /// Those of the files.
    pub fn open_for_judge(&self) -> Result<usize, RilError> {
        let (answers, replies) = (stored_answers(&self.folder)?, stored_replies(&self.folder)?);
        self.unjudged(&answers, &replies)
    }

    /// Scores the answers, with the replies of the judge if there was one, and writes [`SCORES_FILE`] and
    /// [`RESULTS_FILE`]: the same answers and replies give the same bytes.
    ///
    /// # Errors
    /// [`VlmEvalError::MissingColumn`] for a file without answers, [`VlmEvalError::Incomplete`] while some are not
    /// there; those of the files.
    pub fn score(&self) -> Result<Results, RilError> {
        self.check_truth()?;
        let answers = stored_answers(&self.folder)?;
        let replies = stored_replies(&self.folder)?;
        let (judge, unjudged) = self.judge_of(&answers, &replies)?;
        self.check_complete(&answers, unjudged)?;
        let evidence = Evidence { answers: &answers, replies: judge.is_some().then_some(&replies) };
        let items = self.kind.scorer.items(&self.table, evidence)?;
        let evidence_sha256 = evidence_sha256(&answers, &replies);
        let unanswered = self.table.rows().filter(|row| evidence.answer(row).is_none()).count();
        let run = Scored { settings: self.settings.clone(), judge, evidence_sha256, unanswered };
        let results = Results::new(self.kind, run, &self.table, &items);
        self.write_scores(&items)?;
        results.write(&self.folder.join(RESULTS_FILE))?;
        Ok(results)
    }

    /// Who judged, and how many answers wait for it. Nobody while a judge that was asked has not replied.
    fn judge_of(&self, answers: &AnswersByRow, replies: &RepliesByRow) -> Result<(Option<String>, usize), RilError> {
        // What a rule compares is the same beside any judge.
        let is_of_use = self.kind.scorer.judge_use() != JudgeUse::Never;
        let Some(judge) = Settings::read(&self.folder.join(JUDGE_FILE))?.filter(|_| is_of_use) else {
            return Ok((None, 0));
        };
        let unjudged = self.unjudged(answers, replies)?;
        // Where nothing was left to it, it has read all that it would.
        let has_judged = !replies.is_empty() || unjudged == 0;
        let name = judge.0.get("judge").and_then(|name| name.as_str()).filter(|_| has_judged);
        Ok(name.map_or((None, 0), |name| (Some(name.to_string()), unjudged)))
    }

    fn check_truth(&self) -> Result<(), RilError> {
        if self.has_truth() {
            return Ok(());
        }
        let (path, kind) = (self.table.path().to_path_buf(), self.kind.scorer.label().to_string());
        Err(VlmEvalError::MissingColumn { path, column: "answer".into(), kind }.into())
    }

    fn check_complete(&self, answers: &AnswersByRow, unjudged: usize) -> Result<(), RilError> {
        let open = self.open_rows(answers)?;
        if open + unjudged == 0 {
            return Ok(());
        }
        let total = self.table.len();
        Err(VlmEvalError::Incomplete { path: self.folder.clone(), open, unjudged, total }.into())
    }

    /// Rows without an answer, but for those that may be without.
    fn open_rows(&self, answers: &AnswersByRow) -> Result<usize, RilError> {
        let failed = match self.failed_rows {
            FailedRows::Open => Default::default(),
            FailedRows::Wrong => stored_failures(&self.folder)?,
        };
        let is_open = |row: &Row<'_>| !answers.contains_key(row.index()) && !failed.contains_key(row.index());
        Ok(self.table.rows().filter(is_open).count())
    }

    fn unjudged(&self, answers: &AnswersByRow, replies: &RepliesByRow) -> Result<usize, RilError> {
        let evidence = Evidence { answers, replies: Some(replies) };
        let inquiries = self.kind.scorer.inquiries(&self.table, evidence)?;
        let most = inquiries.iter().map(|inquiry| inquiry.tries).max().unwrap_or(0);
        (0..most).map(|attempt| Ok(self.open_inquiries(&inquiries, replies, attempt)?.len())).sum()
    }

    fn write_scores(&self, items: &[Item]) -> Result<(), RilError> {
        let line =
            |item: &Item| serde_json::to_string(&ScoreLine::from(item)).expect("texts and numbers are JSON") + "\n";
        let text: String = items.iter().map(line).collect();
        Ok(write_atomic(&self.folder.join(SCORES_FILE), text.as_bytes())?)
    }

    /// Places of the rows in every block of `block` rows that is not answered as a whole.
    fn open_blocks(&self, answered: &HashMap<String, String>, block: usize) -> Vec<usize> {
        let places: Vec<usize> = (0..self.table.len()).collect();
        let is_open = |block: &&[usize]| block.iter().any(|place| !answered.contains_key(self.index(*place)));
        places.chunks(block.max(1)).filter(is_open).flatten().copied().collect()
    }

    fn request(&self, place: usize) -> Result<Request, RilError> {
        let row = self.table.row(place).expect("places count the table's rows");
        let sampling = SamplingParams { seed: mix_seed(self.sampling.seed, place as u64), ..self.sampling.clone() };
        Ok(Request { id: row.index().into(), query: self.kind.prompt.query(&row)?, sampling })
    }

    /// Inquiries without a reply that can be used and without one to this try.
    fn open_inquiries<'a>(
        &self,
        inquiries: &'a [Inquiry],
        replies: &RepliesByRow,
        attempt: usize,
    ) -> Result<Vec<&'a Inquiry>, RilError> {
        let mut open = Vec::new();
        for inquiry in inquiries {
            let row = self.table.row(inquiry.place).expect("inquiries name the table's rows");
            let given = replies.get(row.index()).map_or(&[][..], Vec::as_slice);
            let mut is_settled = given.len() != attempt || attempt >= inquiry.tries;
            for reply in given {
                is_settled |= self.kind.scorer.is_usable(&row, reply)?;
            }
            if !is_settled {
                open.push(inquiry);
            }
        }
        Ok(open)
    }

    fn inquiry_request(&self, inquiry: &Inquiry, attempt: usize) -> Request {
        let sampling = SamplingParams {
            temperature: inquiry.temperature_step * attempt as f32,
            seed: mix_seed(mix_seed(self.sampling.seed, attempt as u64), inquiry.place as u64),
            ..SamplingParams::greedy(inquiry.max_new_tokens)
        };
        let id = self.index(inquiry.place).to_string();
        Request { id, query: Query::text(inquiry.prompt.as_str()), sampling }
    }

    fn index(&self, place: usize) -> &str {
        self.table.row(place).expect("places count the table's rows").index()
    }
}

fn outcome(is_stopped: bool) -> Outcome {
    if is_stopped { Outcome::Interrupted } else { Outcome::Finished }
}
