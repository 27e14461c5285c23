//! What a run found: scores by split and group with their intervals, and two runs compared question by question.

use std::path::{Path, PathBuf};

use ril_models::files::write_atomic;
use serde::{Deserialize, Serialize};

use super::benchmarks::Kind;
use super::error::VlmEvalError;
use super::run::{RUN_FILE, SCORES_FILE};
use super::scorer::{Decided, Item, JudgeUse};
use super::store::{Journal, Settings};
use super::table::Table;
use crate::error::RilError;
use crate::eval::{PairedComparison, Z_95, aligned, percent, wilson};

/// All splits together, and all groups of a split.
pub const ALL: &str = "all";

/// Points of a set of questions, each worth 0 to 1.
///
/// As JSON `{"points", "total", "score", "interval_95"}`; the last two are for the reader.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(into = "ScoreRecord", from = "ScoreRecord")]
pub struct Score {
    /// Points reached; right answers where every question is right or wrong.
    pub points: f64,
    /// Questions.
    pub total: usize,
}

impl Score {
    fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let grades: Vec<f64> = items.map(|item| item.grade.score).collect();
        Self { points: grades.iter().sum(), total: grades.len() }
    }

    /// Mean in `[0, 1]`; NaN without questions.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.points / self.total as f64
    }

    /// 95% Wilson interval of the mean. For grades between 0 and 1 it can only be too wide: with a mean of `p` their
    /// variance is at most `p(1-p)`, that of right and wrong answers.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        let (low, high) = wilson(self.rate(), self.total);
        let is_full = self.points == self.total as f64;
        (if self.points == 0.0 { 0.0 } else { low }, if is_full { 1.0 } else { high })
    }
}

/// [`Score`] as it stands in the file.
#[derive(Serialize, Deserialize)]
struct ScoreRecord {
    points: f64,
    total: usize,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    interval_95: Option<(f64, f64)>,
}

impl From<Score> for ScoreRecord {
    fn from(score: Score) -> Self {
        let rate = (score.total > 0).then(|| score.rate());
        Self { points: score.points, total: score.total, score: rate, interval_95: Some(score.interval()) }
    }
}

impl From<ScoreRecord> for Score {
    fn from(record: ScoreRecord) -> Self {
        Self { points: record.points, total: record.total }
    }
}

/// A line of the table: the questions of one split that are in one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Name of the split, or [`ALL`].
    pub split: String,
    /// What divides into groups: a column, or [`ALL`].
    pub by: String,
    /// The group, or [`ALL`].
    pub group: String,
    /// Its score.
    pub score: Score,
}

/// The table of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Name of the kind.
    pub kind: String,
    /// Settings of the run.
    pub settings: Settings,
    /// Who judged, if anybody.
    pub judge: Option<String>,
    /// How answers were read, in words.
    pub reading: String,
    /// Questions whose answer could not be read; they count as wrong.
    pub unread: usize,
    /// Questions that the judge decided.
    pub judged: usize,
    /// Rows without a picture in a file with pictures; they are not asked, as in VLMEvalKit.
    pub rows_left_out: usize,
    /// All questions first, then by group; then each split in the same way.
    pub lines: Vec<Line>,
}

impl Results {
    pub(super) fn new(kind: &Kind, settings: Settings, judge: Option<String>, table: &Table, items: &[Item]) -> Self {
        let count = |decided| items.iter().filter(|item| item.grade.decided == decided).count();
        let reading = reading(kind, judge.as_deref());
        Self {
            kind: kind.name.into(),
            settings,
            judge,
            reading,
            unread: count(Decided::Unread),
            judged: count(Decided::Judge),
            rows_left_out: table.left_out(),
            lines: lines(items),
        }
    }

    /// The score of all questions.
    #[must_use]
    pub fn overall(&self) -> Score {
        self.lines.first().map(|line| line.score).unwrap_or_default()
    }

    /// Writes the file in one piece.
    ///
    /// # Errors
    /// [`RilError::Models`] with the path.
    pub fn write(&self, path: &Path) -> Result<(), RilError> {
        let text = serde_json::to_string_pretty(self).expect("texts and numbers are JSON") + "\n";
        Ok(write_atomic(path, text.as_bytes())?)
    }

    /// The table for the terminal, and how the answers were read.
    #[must_use]
    pub fn table(&self) -> String {
        let header = ["split", "group", "points", "score", "95% interval"].map(String::from);
        let rows = self.lines.iter().map(|line| {
            let (low, high) = line.score.interval();
            let group = if line.by == ALL { ALL.to_string() } else { format!("{}: {}", line.by, line.group) };
            [
                line.split.clone(),
                group,
                format!("{}/{}", points_text(line.score.points), line.score.total),
                percent(line.score.rate()),
                format!("{:>5.1} - {:>5.1} %", 100.0 * low, 100.0 * high),
            ]
        });
        let mut text = aligned(std::iter::once(header).chain(rows).collect(), 2);
        text += &format!("\n{}\n", self.reading);
        if self.unread > 0 {
            text += &format!("{} answers could not be read; they count as wrong.\n", self.unread);
        }
        if self.rows_left_out > 0 {
            text += &format!("{} rows have no picture and were left out.\n", self.rows_left_out);
        }
        text
    }
}

/// How answers were read: what published numbers assume is not always what was done here.
fn reading(kind: &Kind, judge: Option<&str>) -> String {
    match (kind.scorer.judge_use(), judge) {
        (JudgeUse::Never, _) => "Answers are compared by rule.".into(),
        (JudgeUse::Helps, None) => {
            "No judge: exact matching only (VLMEvalKit's exact_matching); an answer that names no option is wrong."
                .into()
        }
        (JudgeUse::Helps, Some(judge)) => format!("Answers that name no option were read by the judge {judge}."),
        (JudgeUse::Grades, None) => {
            "No judge: graded by rules of this project; do not compare with published numbers.".into()
        }
        (JudgeUse::Grades, Some(judge)) => format!("Graded by the judge {judge}."),
    }
}

fn points_text(points: f64) -> String {
    if points.fract() == 0.0 { format!("{points}") } else { format!("{points:.2}") }
}

fn lines(items: &[Item]) -> Vec<Line> {
    let mut splits: Vec<&str> = Vec::new();
    for split in items.iter().filter_map(|item| item.split.as_deref()) {
        if !splits.contains(&split) {
            splits.push(split);
        }
    }
    let mut all = lines_of(ALL, &items.iter().collect::<Vec<_>>());
    for split in splits {
        let of_split: Vec<&Item> = items.iter().filter(|item| item.split.as_deref() == Some(split)).collect();
        all.extend(lines_of(split, &of_split));
    }
    all
}

/// A split's line, then one for each of its groups: dividers as they first appear, groups in the order of the alphabet.
fn lines_of(split: &str, items: &[&Item]) -> Vec<Line> {
    let line = |by: &str, group: &str, score| Line { split: split.into(), by: by.into(), group: group.into(), score };
    let mut lines = vec![line(ALL, ALL, Score::of(items.iter().copied()))];
    let mut dividers: Vec<&str> = Vec::new();
    for (by, _) in items.iter().flat_map(|item| &item.groups) {
        if !dividers.contains(by) {
            dividers.push(by);
        }
    }
    for by in dividers {
        let of_divider = items.iter().flat_map(|item| &item.groups).filter(|(other, _)| *other == by);
        let mut groups: Vec<&str> = of_divider.map(|(_, group)| group.as_str()).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let is_in = |item: &&&Item| item.groups.iter().any(|(b, g)| *b == by && g == group);
            lines.push(line(by, group, Score::of(items.iter().filter(is_in).copied())));
        }
    }
    lines
}

/// A line of `scores.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreLine {
    /// Index of the row, or of the first rotation.
    pub index: String,
    /// 0 to 1.
    pub score: f64,
    /// What the answer was read as.
    pub read_as: String,
    /// What decided.
    pub decided: Decided,
}

impl From<&Item> for ScoreLine {
    fn from(item: &Item) -> Self {
        let (grade, index) = (item.grade.clone(), item.index.clone());
        Self { index, score: grade.score, read_as: grade.read_as, decided: grade.decided }
    }
}

/// Two runs on the same questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Questions that one or the other answered better, and McNemar's exact test on them. With grades between 0 and 1
    /// this is the sign test.
    pub pair: PairedComparison,
    /// Mean score of the candidate minus that of the baseline, in `[-1, 1]`.
    pub difference: f64,
    /// 95% interval of the difference: [`PairedComparison::interval`] where every question is right or wrong, else
    /// the normal one of the mean of paired differences.
    pub interval: (f64, f64),
}

impl Comparison {
    /// Compares two folders that were scored.
    ///
    /// # Errors
    /// [`VlmEvalError::Incomparable`] for other questions or none; those of the files.
    pub fn of_folders(candidate: &Path, baseline: &Path) -> Result<Self, RilError> {
        let incomparable = |reason: String| VlmEvalError::Incomparable {
            first: candidate.to_path_buf(),
            second: baseline.to_path_buf(),
            reason,
        };
        let (ours, theirs) = (Scored::read(candidate)?, Scored::read(baseline)?);
        for name in ["benchmark_sha256", "kind", "limit"] {
            let (a, b) = (ours.settings.0.get(name), theirs.settings.0.get(name));
            if a != b {
                return Err(incomparable(format!("{name} differs")).into());
            }
        }
        let indices = |scored: &Scored| scored.lines.iter().map(|line| line.index.clone()).collect::<Vec<_>>();
        if indices(&ours) != indices(&theirs) || ours.lines.is_empty() {
            return Err(incomparable("they were not scored on the same questions".into()).into());
        }
        let (a, b) = (ours.name(&theirs), theirs.name(&ours));
        let scores = |scored: &Scored| scored.lines.iter().map(|line| line.score).collect::<Vec<_>>();
        Ok(Self::of_scores((&a, &scores(&ours)), (&b, &scores(&theirs))))
    }

    /// Compares scores of the same questions, in the same order.
    #[must_use]
    pub fn of_scores(candidate: (&str, &[f64]), baseline: (&str, &[f64])) -> Self {
        let differences: Vec<f64> = candidate.1.iter().zip(baseline.1).map(|(a, b)| a - b).collect();
        let n = differences.len() as f64;
        let pair = PairedComparison {
            candidate: candidate.0.into(),
            baseline: baseline.0.into(),
            wins: differences.iter().filter(|d| **d > 0.0).count(),
            losses: differences.iter().filter(|d| **d < 0.0).count(),
            total: differences.len(),
        };
        let difference = differences.iter().sum::<f64>() / n;
        let is_binary = candidate.1.iter().chain(baseline.1).all(|score| *score == 0.0 || *score == 1.0);
        let squares: f64 = differences.iter().map(|d| (d - difference).powi(2)).sum();
        let half = Z_95 * (squares / (n - 1.0).max(1.0) / n).sqrt();
        let interval = if is_binary { pair.interval() } else { (difference - half, difference + half) };
        Self { pair, difference, interval }
    }

    /// The comparison for the terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let header = ["comparison", "wins", "losses", "difference", "95% interval, p"].map(String::from);
        let (low, high) = self.interval;
        let row = [
            format!("{} vs {}", self.pair.candidate, self.pair.baseline),
            self.pair.wins.to_string(),
            self.pair.losses.to_string(),
            crate::eval::signed_points(self.difference),
            format!(
                "{:>+5.1} to {:>+5.1}, p {}",
                100.0 * low,
                100.0 * high,
                crate::eval::p_value_text(self.pair.p_value())
            ),
        ];
        aligned(vec![header, row], 1)
    }
}

/// A folder with scores.
struct Scored {
    folder: PathBuf,
    settings: Settings,
    lines: Vec<ScoreLine>,
}

impl Scored {
    fn read(folder: &Path) -> Result<Self, RilError> {
        let missing = |name: &str| {
            let path = folder.join(name);
            move || RilError::io(path)(std::io::Error::from(std::io::ErrorKind::NotFound))
        };
        let settings = Settings::read(&folder.join(RUN_FILE))?.ok_or_else(missing(RUN_FILE))?;
        let scores = folder.join(SCORES_FILE);
        if !scores.exists() {
            return Err(missing(SCORES_FILE)());
        }
        let (_, lines) = Journal::open(&scores)?;
        Ok(Self { folder: folder.to_path_buf(), settings, lines })
    }

    /// The model's name, or the folder's when both have the same model.
    fn name(&self, other: &Self) -> String {
        let model = |scored: &Self| scored.settings.0.get("model").and_then(|m| m.as_str()).map(str::to_string);
        match model(self) {
            Some(name) if model(other).as_ref() != Some(&name) => name,
            _ => self.folder.display().to_string(),
        }
    }
}
