//! Benchmarks in VLMEvalKit's layout, asked and scored by its rules: the 14 of the paper, and files of one's own.
//!
//! A benchmark is a tab-separated file ([`Table`]); a [`Kind`] says how its rows are asked ([`PromptStyle`]) and scored
//! ([`Scorer`]); an [`Answerer`] answers, in this process or elsewhere; an [`Evaluation`] is a folder that can be left at
//! any point and taken up again. Prompts, matching and averages equal those of VLMEvalKit at commit
//! `e8e78f05f3080fe28154f2130321f17951c3be94`, which the tests hold against its own code.
//!
//! The one design decision: scoring is a pure function of the file, the answers and the judge's replies, all of which
//! are on the disk. What costs time is never done twice, and a table can always be made again.
//!
//! ```
//! use std::ops::ControlFlow;
//! use ril::models::generate::SamplingParams;
//! use ril::vlmeval::{Answer, Answerer, Evaluation, Kind, Plan, Request, Table, Tell};
//!
//! /// Says B to everything; a server would send all requests off at once.
//! struct AlwaysB;
//! impl Answerer for AlwaysB {
//!     fn answer(&mut self, requests: &[Request], tell: &mut Tell<'_>) -> Result<(), ril::RilError> {
//!         for place in 0..requests.len() {
//!             if tell(place, Ok(Answer { text: "B".into(), is_truncated: false })).is_break() {
//!                 break;
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let text = "index\tquestion\tA\tB\tanswer\n1\tIs fire hot?\tno\tyes\tB\n2\tIs ice hot?\tno\tyes\tA\n";
//! let table = Table::from_bytes("questions.tsv".as_ref(), text.as_bytes())?;
//! let folder = tempfile::tempdir().expect("a temporary folder");
//! let sampling = SamplingParams::greedy(16);
//! let (model, identity) = ("always-b".into(), "version 1".into());
//! let plan = Plan { kind: Kind::named("choice")?, table, limit: None, model, identity, sampling };
//! let run = Evaluation::open(plan, folder.path())?;
//! run.ask(&mut AlwaysB, |_| ControlFlow::Continue(()))?;
//! assert_eq!(run.score()?.overall().rate(), 0.5);
//! # Ok::<(), ril::RilError>(())
//! ```

mod answerer;
mod benchmarks;
mod cell;
mod compare;
mod error;
mod evidence;
mod failures;
mod fingerprint;
mod matching;
mod picture;
mod prompt;
mod python;
mod report;
mod run;
mod scorer;
mod store;
mod table;
mod tsv;

pub use answerer::{Answer, Answerer, LocalAnswerer, Request, Tell};
pub use benchmarks::{KINDS, Kind, benchmark_table};
pub use cell::Cell;
pub use compare::Comparison;
pub use error::VlmEvalError;
pub use failures::{FAILURES_FILE, FailedRows};
pub use fingerprint::fingerprint;
pub use matching::infer_choice;
pub use picture::Picture;
pub use prompt::{Part, PromptStyle, Query, Thinking};
pub use report::{ALL, Line, Results, Score, ScoreLine};
pub use run::{ANSWERS_FILE, Evaluation, JUDGE_FILE, Plan, REPLIES_FILE, RESULTS_FILE, RUN_FILE, SCORES_FILE};
pub use scorer::{
    Answers, ChoiceRules, Decided, Evidence, Grade, Inquiry, Item, JudgeUse, Judged, MatchPrompt, MmVetVersion,
    QuestionPlace, Scorer, YesNo, extract_yes_no, relaxed_correctness,
};
pub use store::Settings;
pub use table::{Row, Table};
