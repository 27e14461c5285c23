//! What a run found: scores by split and group with their intervals.

use std::path::Path;

use ril_models::files::write_atomic;
use serde::{Deserialize, Serialize};

use super::benchmarks::Kind;
use super::failures::FAILURES_FILE;
use super::scorer::{Decided, Item, JudgeUse};
use super::store::{Settings, read_json};
use super::table::Table;
use crate::error::RilError;
use crate::eval::{aligned, percent, wilson};

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
    /// SHA-256 of the answers and replies that were scored, in hexadecimal digits: what tells whether the scores are theirs.
    #[serde(default)]
    pub evidence_sha256: String,
    /// How answers were read, in words.
    pub reading: String,
    /// Questions whose answer could not be read; they count as wrong.
    pub unread: usize,
    /// Rows without an answer, whose requests failed; they count as wrong.
    #[serde(default)]
    pub unanswered: usize,
    /// Questions that the judge decided.
    pub judged: usize,
    /// Rows without a picture in a file with pictures; they are not asked, as in VLMEvalKit.
    pub rows_left_out: usize,
    /// All questions first, then by group; then each split in the same way.
    pub lines: Vec<Line>,
}

/// What a table is a table of, beside its scores.
pub(super) struct Scored {
    pub settings: Settings,
    pub judge: Option<String>,
    pub evidence_sha256: String,
    pub unanswered: usize,
}

impl Results {
    pub(super) fn new(kind: &Kind, run: Scored, table: &Table, items: &[Item]) -> Self {
        let Scored { settings, judge, evidence_sha256, unanswered } = run;
        let count = |decided| items.iter().filter(|item| item.grade.decided == decided).count();
        let reading = reading(kind, judge.as_deref());
        Self {
            kind: kind.name.into(),
            settings,
            judge,
            evidence_sha256,
            reading,
            unread: count(Decided::Unread),
            unanswered,
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

    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    /// [`RilError::Models`] for the file, [`RilError::Line`] for its content.
    pub fn read(path: &Path) -> Result<Option<Self>, RilError> {
        read_json(path)
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
        if self.unanswered > 0 {
            text += &format!("{} rows have no answer; they count as wrong ({FAILURES_FILE}).\n", self.unanswered);
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
        (JudgeUse::Helps, None) => "No judge: exact matching only, VLMEvalKit's `exact_matching`.".into(),
        (JudgeUse::Helps, Some(judge)) => format!("What exact matching could not read was read by the judge {judge}."),
        (JudgeUse::Grades, None) => {
            "No judge: graded by rules of this project, not to be compared with published numbers.".into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Accuracy;
    use crate::vlmeval::scorer::Grade;

    fn item(split: Option<&str>, groups: &[(&'static str, &str)], score: f64) -> Item {
        Item {
            index: "1".into(),
            split: split.map(str::to_string),
            groups: groups.iter().map(|(by, group)| (*by, (*group).to_string())).collect(),
            grade: Grade { score, read_as: String::new(), decided: Decided::Match },
        }
    }

    #[test]
    fn right_and_wrong_answers_have_the_interval_of_an_accuracy() {
        for (correct, total) in [(0, 9), (4, 9), (9, 9), (0, 0)] {
            let score = Score { points: correct as f64, total };
            assert_eq!(score.interval(), Accuracy { correct, total }.interval());
        }
    }

    #[test]
    fn every_split_has_its_groups_in_order() {
        let items = [
            item(Some("val"), &[("category", "b")], 1.0),
            item(Some("dev"), &[("category", "a"), ("skill", "x"), ("skill", "y")], 0.5),
            item(None, &[("category", "b")], 0.0),
        ];
        let lines = lines(&items);
        let shown: Vec<String> = lines
            .iter()
            .map(|l| format!("{} {} {} {}/{}", l.split, l.by, l.group, l.score.points, l.score.total))
            .collect();
        let expected = [
            "all all all 1.5/3",
            "all category a 0.5/1",
            "all category b 1/2",
            "all skill x 0.5/1",
            "all skill y 0.5/1",
            "val all all 1/1",
            "val category b 1/1",
            "dev all all 0.5/1",
            "dev category a 0.5/1",
            "dev skill x 0.5/1",
            "dev skill y 0.5/1",
        ];
        assert_eq!(shown, expected);
    }
}
