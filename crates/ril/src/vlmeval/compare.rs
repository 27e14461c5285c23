//! Two runs compared question by question.

use std::path::{Path, PathBuf};

use super::error::VlmEvalError;
use super::evidence::{evidence_sha256, stored_answers, stored_replies};
use super::report::{Results, ScoreLine};
use super::run::{RESULTS_FILE, RUN_FILE, SCORES_FILE};
use super::store::Settings;
use crate::error::RilError;
use crate::eval::{PairedComparison, Z_95, aligned, p_value_text, signed_points};
use crate::journal::Journal;

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
    /// [`VlmEvalError::Incomparable`] for other questions or none, [`VlmEvalError::OtherJudge`] for other judges,
    /// [`VlmEvalError::StaleScores`] where answers or replies changed after they were scored; those of the files.
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
        if ours.judge != theirs.judge {
            let (first, second) = (candidate.to_path_buf(), baseline.to_path_buf());
            let (first_judge, second_judge) = (ours.judge, theirs.judge);
            return Err(VlmEvalError::OtherJudge { first, first_judge, second, second_judge }.into());
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
            signed_points(self.difference),
            format!("{:>+5.1} to {:>+5.1}, p {}", 100.0 * low, 100.0 * high, p_value_text(self.pair.p_value())),
        ];
        aligned(vec![header, row], 1)
    }
}

/// A folder with scores.
struct Scored {
    folder: PathBuf,
    settings: Settings,
    judge: Option<String>,
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
        let lines = Journal::read(&scores)?;
        let results = Results::read(&folder.join(RESULTS_FILE))?.ok_or_else(missing(RESULTS_FILE))?;
        if results.evidence_sha256 != evidence_sha256(&stored_answers(folder)?, &stored_replies(folder)?) {
            return Err(VlmEvalError::StaleScores { path: folder.to_path_buf() }.into());
        }
        Ok(Self { folder: folder.to_path_buf(), settings, judge: results.judge, lines })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences 0.3, -0.1, 0.1: mean 0.1, sample deviation 0.2.
    #[test]
    fn grades_are_compared_by_their_mean_difference() {
        let comparison = Comparison::of_scores(("a", &[0.8, 0.4, 0.6]), ("b", &[0.5, 0.5, 0.5]));
        assert_eq!((comparison.pair.wins, comparison.pair.losses), (2, 1));
        assert!((comparison.difference - 0.1).abs() < 1e-12);
        let half = Z_95 * 0.2 / 3.0_f64.sqrt();
        assert!((comparison.interval.1 - 0.1 - half).abs() < 1e-12);
    }
}
