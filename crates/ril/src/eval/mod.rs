//! Held-out accuracy with its uncertainty: one model alone, two models on the same questions, and the table of a run.
//!
//! The arms of a run answer the same held-out questions, so two of them are compared in pairs
//! ([`PairedComparison`]): what both get right or both get wrong says nothing about their difference, and leaving it
//! out makes the comparison much sharper than two separate intervals.

mod results;
mod table;

use serde::{Deserialize, Serialize};

pub use results::{ArmResult, ArmRole, EvalError, Results};
pub(crate) use table::{aligned, p_value_text, percent, signed_points};
pub use table::{comparison_table, table};

/// The 97.5% quantile of the standard normal: intervals here are two-sided at 95%.
pub(crate) const Z_95: f64 = 1.959_963_984_540_054;

/// `correct` answers out of `total` questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Accuracy {
    /// Questions answered right.
    pub correct: usize,
    /// Questions asked, at least `correct`.
    pub total: usize,
}

impl Accuracy {
    /// Counts the right answers.
    pub fn from_outcomes(outcomes: &[bool]) -> Self {
        Self { correct: outcomes.iter().filter(|&&right| right).count(), total: outcomes.len() }
    }

    /// Share of right answers in `[0, 1]`; NaN when nothing was asked.
    pub fn rate(&self) -> f64 {
        self.correct as f64 / self.total as f64
    }

    /// 95% Wilson score interval of the rate: `(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)`.
    ///
    /// Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927); the
    /// choice for small samples by Brown, Cai and DasGupta, "Interval estimation for a binomial proportion",
    /// Statistical Science 16 (2001). Stays inside `[0, 1]` and does not collapse at 0 or 100%. `(0, 1)` when nothing
    /// was asked.
    pub fn interval(&self) -> (f64, f64) {
        let (low, high) = wilson(self.rate(), self.total);
        // The outer limits are exact in theory; rounding must not move them.
        (if self.correct == 0 { 0.0 } else { low }, if self.correct == self.total { 1.0 } else { high })
    }
}

/// Wilson's 95% interval of a share of `total`; see [`Accuracy::interval`].
pub(crate) fn wilson(share: f64, total: usize) -> (f64, f64) {
    if total == 0 {
        return (0.0, 1.0);
    }
    let n = total as f64;
    let shrink = 1.0 + Z_95 * Z_95 / n;
    let centre = (share + Z_95 * Z_95 / (2.0 * n)) / shrink;
    let half = Z_95 / shrink * (share * (1.0 - share) / n + Z_95 * Z_95 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// Two arms on the same questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedComparison {
    /// The arm that is compared.
    pub candidate: String,
    /// The arm that it is compared with.
    pub baseline: String,
    /// Questions that only the candidate got right.
    pub wins: usize,
    /// Questions that only the baseline got right.
    pub losses: usize,
    /// Questions asked, at least `wins + losses`.
    pub total: usize,
}

impl PairedComparison {
    /// Compares outcome by outcome: `candidate.1[i]` and `baseline.1[i]` answer the same question.
    ///
    /// # Errors
    /// [`EvalError::Unpaired`] when the two differ in length.
    pub fn from_outcomes(candidate: (&str, &[bool]), baseline: (&str, &[bool])) -> Result<Self, EvalError> {
        if candidate.1.len() != baseline.1.len() {
            return Err(EvalError::Unpaired { expected: baseline.1.len(), got: candidate.1.len() });
        }
        let count =
            |wanted: (bool, bool)| candidate.1.iter().zip(baseline.1).filter(|(c, b)| (**c, **b) == wanted).count();
        Ok(Self {
            candidate: candidate.0.to_string(),
            baseline: baseline.0.to_string(),
            wins: count((true, false)),
            losses: count((false, true)),
            total: candidate.1.len(),
        })
    }

    /// Accuracy of the candidate minus accuracy of the baseline, in `[-1, 1]`; NaN when nothing was asked.
    pub fn difference(&self) -> f64 {
        (self.wins as f64 - self.losses as f64) / self.total as f64
    }

    /// 95% interval of the difference: Wald's on Laplace estimates,
    /// `w = (wins + 1)/(n + 2)`, `l = (losses + 1)/(n + 2)`, `w - l ± z √((w + l - (w - l)²)/(n + 2))`.
    ///
    /// Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    /// paired data", J. Educational and Behavioral Statistics 37 (2012); recommended by Fagerland, Lydersen and Laake,
    /// "Recommended tests and confidence intervals for paired binomial proportions", Statistics in Medicine 33 (2014).
    /// It is not centred on [`difference`](Self::difference): the estimates are shrunk towards 0. Cut at ±1.
    pub fn interval(&self) -> (f64, f64) {
        let n = self.total as f64 + 2.0;
        let (win, loss) = ((self.wins as f64 + 1.0) / n, (self.losses as f64 + 1.0) / n);
        let difference = win - loss;
        let half = Z_95 * ((win + loss - difference * difference) / n).sqrt();
        ((difference - half).max(-1.0), (difference + half).min(1.0))
    }

    /// Exact two-sided McNemar p-value: `min(1, 2 P(X <= min(wins, losses)))` with `X ~ Binomial(wins + losses, 1/2)`.
    ///
    /// Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    /// Psychometrika 12 (1947), in its exact conditional form. 1 when the two never differ.
    pub fn p_value(&self) -> f64 {
        let (discordant, fewer) = (self.wins + self.losses, self.wins.min(self.losses));
        // In logarithms: 2^-n is no f64 for n > 1074.
        let mut log_term = -(discordant as f64) * std::f64::consts::LN_2;
        let mut tail = log_term.exp();
        for k in 1..=fewer {
            log_term += ((discordant - k + 1) as f64 / k as f64).ln();
            tail += log_term.exp();
        }
        (2.0 * tail).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_interval((low, high): (f64, f64), expected: (f64, f64), tolerance: f64) {
        assert!((low - expected.0).abs() < tolerance && (high - expected.1).abs() < tolerance, "{low} {high}");
    }

    fn pair(wins: usize, losses: usize, total: usize) -> PairedComparison {
        PairedComparison { candidate: "a".into(), baseline: "b".into(), wins, losses, total }
    }

    /// Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I,
    /// method 3 (score, no continuity correction), four decimals.
    #[test]
    fn wilson_equals_newcombe_table() {
        for (correct, total, expected) in [
            (81, 263, (0.2553, 0.3662)),
            (15, 148, (0.0624, 0.1605)),
            (0, 20, (0.0, 0.1611)),
            (1, 29, (0.0061, 0.1718)),
        ] {
            assert_interval(Accuracy { correct, total }.interval(), expected, 5.1e-5);
        }
    }

    /// The score interval is the set of `q` with `(p - q)² n <= z² q (1 - q)`: both ends satisfy it with equality.
    #[test]
    fn wilson_ends_solve_the_score_equation() {
        for total in [1, 7, 100, 3000] {
            for correct in [1, total / 3, total / 2, total - 1] {
                let accuracy = Accuracy { correct, total };
                let (low, high) = accuracy.interval();
                for end in [low, high] {
                    let left = (accuracy.rate() - end).powi(2) * total as f64;
                    assert!((left - Z_95 * Z_95 * end * (1.0 - end)).abs() < 1e-9, "{correct}/{total}: {end}");
                }
                assert!(low <= accuracy.rate() && accuracy.rate() <= high);
            }
        }
    }

    #[test]
    fn wilson_is_exact_at_the_ends_and_mirrors() {
        assert_eq!(Accuracy { correct: 9, total: 9 }.interval().1, 1.0);
        assert_eq!(Accuracy { correct: 0, total: 0 }.interval(), (0.0, 1.0));
        let (low, high) = Accuracy { correct: 30, total: 100 }.interval();
        assert_interval(Accuracy { correct: 70, total: 100 }.interval(), (1.0 - high, 1.0 - low), 1e-12);
    }

    /// Exact p-values as fractions: `2 sum_{k <= m} C(n, k) / 2^n` in integers.
    #[test]
    fn mcnemar_equals_exact_rational_sum() {
        for discordant in 0..=90_usize {
            for fewer in 0..=discordant / 2 {
                let (mut binomial, mut sum) = (1_u128, 1_u128);
                for k in 1..=fewer as u128 {
                    binomial = binomial * (discordant as u128 - k + 1) / k;
                    sum += binomial;
                }
                let expected = (2.0 * sum as f64 / 2.0_f64.powi(discordant as i32)).min(1.0);
                let got = pair(fewer, discordant - fewer, 200).p_value();
                assert!((got - expected).abs() <= 1e-12 * expected.max(1e-3), "{fewer}/{discordant}: {got} {expected}");
            }
        }
    }

    /// Fagerland, Lydersen and Laake (2014), airway hyper-responsiveness: 1 and 7 discordant of 21. The p-value is the
    /// fraction 9/128; the interval is worked by hand from the formula: w - l = -6/23, variance 194/12167.
    #[test]
    fn paired_comparison_of_a_published_table() {
        let pair = pair(1, 7, 21);
        assert_eq!(pair.p_value(), 18.0 / 256.0);
        assert!((pair.difference() + 6.0 / 21.0).abs() < 1e-12);
        let half = Z_95 * (194.0_f64 / 12167.0).sqrt();
        assert_interval(pair.interval(), (-6.0 / 23.0 - half, -6.0 / 23.0 + half), 1e-12);
        assert_interval(pair.interval(), (-0.5084, -0.0134), 5e-5);
    }

    #[test]
    fn swapping_the_arms_mirrors_the_comparison() {
        let (forth, back) = (pair(40, 12, 300), pair(12, 40, 300));
        assert_eq!(forth.p_value(), back.p_value());
        assert_eq!(forth.difference(), -back.difference());
        let (low, high) = forth.interval();
        assert_interval(back.interval(), (-high, -low), 1e-12);
    }

    #[test]
    fn many_discordant_pairs_do_not_underflow() {
        assert!((pair(2000, 2000, 9000).p_value() - 1.0).abs() < 1e-9);
        let p_value = pair(2000, 2200, 9000).p_value();
        // Normal approximation with continuity correction: z = 199 / sqrt(4200), p = 0.00213.
        assert!((p_value - 0.00213).abs() < 5e-5, "{p_value}");
    }

    #[test]
    fn only_disagreements_count_and_ragged_outcomes_are_an_error() {
        let (a, b) = ([true, true, false, false, true], [true, false, true, false, false]);
        let pair = PairedComparison::from_outcomes(("ril", &a), ("sft", &b)).unwrap();
        assert_eq!((pair.wins, pair.losses, pair.total), (2, 1, 5));
        assert!((pair.difference() - 0.2).abs() < 1e-12);
        assert!(PairedComparison::from_outcomes(("ril", &a), ("sft", &b[1..])).is_err());
    }
}
