//! What can go wrong between a benchmark's file and its scores.

use std::path::PathBuf;

/// A benchmark file, a folder of answers or a request that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VlmEvalError {
    /// A cell of a benchmark file is not what its column needs.
    #[error("{path}, line {line}, column {column}: {reason}")]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line on which the row begins, counted from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// A row of a benchmark file cannot be read at all.
    #[error("{path}, line {line}: {reason}")]
    Row {
        /// The file.
        path: PathBuf,
        /// Line on which the row begins, counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A column that this kind of benchmark needs is not there.
    #[error("{path}: no column {column:?}; {kind} needs it")]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Name of the kind.
        kind: String,
    },
    /// A picture of a row that cannot be decoded.
    #[error("{place}: picture {picture} cannot be read")]
    Picture {
        /// File and line of the row.
        place: String,
        /// Which of the row's pictures, from 1.
        picture: usize,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A name that no kind of benchmark bears.
    #[error("{name:?} is no known benchmark; name one with --kind: {known}")]
    UnknownKind {
        /// What was given: a name or a file's.
        name: String,
        /// All names.
        known: String,
    },
    /// The folder holds answers that were made otherwise.
    #[error("{path}: holds a run with {setting} = {stored}, not {wanted}; give another folder")]
    OtherSettings {
        /// The file with the settings.
        path: PathBuf,
        /// Which one differs.
        setting: String,
        /// Its value in the folder.
        stored: String,
        /// Its value now.
        wanted: String,
    },
    /// Rows that got no answer; the same command asks for them again.
    #[error("{missing} of {asked} requests failed, the first for row {row}; the same command asks for them again")]
    Unanswered {
        /// Requests without an answer.
        missing: usize,
        /// Requests made.
        asked: usize,
        /// Index of the first such row.
        row: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A run whose answers are not all there is not scored.
    #[error("{path}: {open} of {total} rows have no answer yet, {unjudged} wait for the judge")]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// Rows without an answer.
        open: usize,
        /// Answers that the judge has not settled.
        unjudged: usize,
        /// Rows.
        total: usize,
    },
    /// Two folders whose answers are not to the same questions.
    #[error("{first} and {second} cannot be compared: {reason}")]
    Incomparable {
        /// One folder.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What differs.
        reason: String,
    },
    /// Two folders whose answers were read by different judges: their scores differ by more than the models.
    #[error(
        "{first} and {second} cannot be compared: {} read the answers of the first, {} those of the second",
        judge(.first_judge),
        judge(.second_judge)
    )]
    OtherJudge {
        /// One folder.
        first: PathBuf,
        /// Who judged it; `None` when nobody did.
        first_judge: Option<String>,
        /// The other.
        second: PathBuf,
        /// Who judged that one.
        second_judge: Option<String>,
    },
    /// A folder whose scores are not those of the answers and replies beside them.
    #[error("{path}: was scored before its answers or replies changed; score it again")]
    StaleScores {
        /// The folder.
        path: PathBuf,
    },
}

fn judge(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or("no judge")
}
