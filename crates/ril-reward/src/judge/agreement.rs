use std::fmt;

use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::{RewardError, Sample};

/// An answer that somebody has called right or wrong: what a judge is measured by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledAnswer {
    /// The question, options included.
    pub question: String,
    /// The ground truth.
    pub reference: String,
    /// The answer.
    pub response: String,
    /// The label.
    pub is_right: bool,
}

impl LabelledAnswer {
    /// What a judge is shown of it.
    pub fn sample(&self) -> Sample<'_> {
        Sample::new(&self.question, &self.reference, &self.response)
    }
}

/// How a judge's verdicts agree with labels that people gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Right answers that the judge calls correct.
    pub true_correct: usize,
    /// Wrong answers that the judge calls correct.
    pub false_correct: usize,
    /// Wrong answers that the judge calls incorrect.
    pub true_incorrect: usize,
    /// Right answers that the judge calls incorrect.
    pub false_incorrect: usize,
    /// Answers without a verdict.
    pub unparsed: usize,
}

impl Agreement {
    /// Counts; `is_right` are the labels, one a verdict, in order.
    ///
    /// # Errors
    /// [`RewardError::Count`] when the two are of different length.
    pub fn of(is_right: &[bool], verdicts: &[Verdict]) -> Result<Self, RewardError> {
        RewardError::check_count("labels", verdicts.len(), is_right.len())?;
        let mut counts = Self::default();
        for (is_right, verdict) in is_right.iter().zip(verdicts) {
            *match (verdict, is_right) {
                (Verdict::Correct, true) => &mut counts.true_correct,
                (Verdict::Correct, false) => &mut counts.false_correct,
                (Verdict::Incorrect, false) => &mut counts.true_incorrect,
                (Verdict::Incorrect, true) => &mut counts.false_incorrect,
                (Verdict::Unparsed(_), _) => &mut counts.unparsed,
            } += 1;
        }
        Ok(counts)
    }

    /// Verdicts that could be read.
    pub fn judged(&self) -> usize {
        self.true_correct + self.false_correct + self.true_incorrect + self.false_incorrect
    }

    /// Share of the judged answers whose verdict is the label; NaN when there are none.
    pub fn accuracy(&self) -> f64 {
        (self.true_correct + self.true_incorrect) as f64 / self.judged() as f64
    }

    /// Cohen's kappa, `(p_o - p_e) / (1 - p_e)`: the accuracy `p_o` above that of chance, `p_e`, which two raters have who know
    /// nothing but how often each says "correct". 1 is full agreement, 0 is chance; NaN when both always say the same.
    ///
    /// Source: Cohen (1960), *A coefficient of agreement for nominal scales*.
    pub fn kappa(&self) -> f64 {
        let total = self.judged() as f64;
        let share = |count: usize| count as f64 / total;
        let judge = share(self.true_correct + self.false_correct);
        let label = share(self.true_correct + self.false_incorrect);
        let chance = judge * label + (1.0 - judge) * (1.0 - label);
        (self.accuracy() - chance) / (1.0 - chance)
    }
}

/// A table of five lines.
impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name, right, wrong| writeln!(f, "{name:<18}{right:>8}{wrong:>8}");
        writeln!(f, "{:<18}{:>8}{:>8}", "", "right", "wrong")?;
        row(f, "judged correct", self.true_correct, self.false_correct)?;
        row(f, "judged incorrect", self.false_incorrect, self.true_incorrect)?;
        writeln!(f, "{:<18}{:>8}", "unparsed", self.unparsed)?;
        if self.judged() == 0 {
            return write!(f, "no agreement to measure: no verdict could be read");
        }
        write!(f, "agreement {:.1} %, Cohen's kappa ", 100.0 * self.accuracy())?;
        if self.kappa().is_nan() { write!(f, "undefined: one kind of label") } else { write!(f, "{:.3}", self.kappa()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_accuracy_and_kappa() {
        // The textbook table of 50 items: 20 and 15 agreed, 5 and 10 not; kappa is 0.4.
        let mut labels = vec![true; 20];
        let mut verdicts = vec![Verdict::Correct; 20];
        for (count, is_right, verdict) in
            [(5, false, Verdict::Correct), (10, true, Verdict::Incorrect), (15, false, Verdict::Incorrect)]
        {
            labels.extend(vec![is_right; count]);
            verdicts.extend(vec![verdict; count]);
        }
        labels.push(true);
        verdicts.push(Verdict::Unparsed("hm".into()));
        let counts = Agreement::of(&labels, &verdicts).expect("as many labels as verdicts");
        assert_eq!((counts.judged(), counts.unparsed), (50, 1));
        assert!((counts.accuracy() - 0.7).abs() < 1e-12 && (counts.kappa() - 0.4).abs() < 1e-12, "{counts}");
        assert_eq!(
            counts.to_string(),
            "                     right   wrong\njudged correct          20       5\njudged incorrect        10      15\n\
             unparsed                 1\nagreement 70.0 %, Cohen's kappa 0.400"
        );
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let told = |labels: &[bool], verdict: Verdict| {
            let counts = Agreement::of(labels, &vec![verdict; labels.len()]).expect("as many labels as verdicts");
            counts.to_string().lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(
            told(&[true, false], Verdict::Unparsed("hm".into())),
            "no agreement to measure: no verdict could be read"
        );
        assert_eq!(
            told(&[true, true], Verdict::Correct),
            "agreement 100.0 %, Cohen's kappa undefined: one kind of label"
        );
        assert_eq!(told(&[true, false], Verdict::Correct), "agreement 50.0 %, Cohen's kappa 0.000");
    }

    #[test]
    fn labels_and_verdicts_must_be_as_many() {
        let error = Agreement::of(&[true], &[]).expect_err("a label too many");
        assert_eq!(error.to_string(), "labels: expected 0 results, got 1");
    }
}
