//! The statistics of the `imitation` library.

use serde::{Deserialize, Serialize};

use crate::score::{check_finite, softplus};
use crate::stats::entropy;
use crate::{AuthoredBy, GailError, teacher_like_logit};

/// The nine statistics that the `imitation` library (1.0.1, `compute_train_stats`) logs of a discriminator, with its
/// names and meaning, so that runs can be laid side by side. Expert = teacher, generated = student.
///
/// They differ from [`DiscriminatorStats`](crate::DiscriminatorStats): means go over all rows, not over each origin by
/// itself, and a logit of exactly 0 counts as *expert*. Where `imitation` gives NaN, this gives `None`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImitationStats {
    /// Mean binary cross-entropy over all rows, nats; `None` without rows.
    pub disc_loss: Option<f32>,
    /// Share of rows told right; `None` without rows.
    pub disc_acc: Option<f32>,
    /// Share of expert rows told right; `None` without expert rows.
    pub disc_acc_expert: Option<f32>,
    /// Share of generated rows told right; 0 without generated rows, as `imitation` has it.
    pub disc_acc_gen: f32,
    /// Mean entropy of the verdicts, nats; `None` without rows.
    pub disc_entropy: Option<f32>,
    /// Share of rows that are an expert's; `None` without rows.
    pub disc_proportion_expert_true: Option<f32>,
    /// Share of rows taken for an expert's; `None` without rows.
    pub disc_proportion_expert_pred: Option<f32>,
    /// Expert rows.
    pub n_expert: usize,
    /// Generated rows.
    pub n_generated: usize,
}

impl ImitationStats {
    /// Names and values to log: `imitation/` and the name of the field. Absent where there is no number.
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        let means = [
            ("imitation/disc_loss", self.disc_loss),
            ("imitation/disc_acc", self.disc_acc),
            ("imitation/disc_acc_expert", self.disc_acc_expert),
            ("imitation/disc_acc_gen", Some(self.disc_acc_gen)),
            ("imitation/disc_entropy", self.disc_entropy),
            ("imitation/disc_proportion_expert_true", self.disc_proportion_expert_true),
            ("imitation/disc_proportion_expert_pred", self.disc_proportion_expert_pred),
        ];
        let counts = [("imitation/n_expert", self.n_expert), ("imitation/n_generated", self.n_generated)];
        let means = means.into_iter().filter_map(|(name, mean)| Some((name, f64::from(mean?))));
        means.chain(counts.map(|(name, count)| (name, count as f64))).collect()
    }
}

/// [`ImitationStats`] of a batch from its logits, in `f64`. A batch may be empty or hold one origin.
///
/// # Shapes
/// - `logits_student_is_high`, `origins`: `[batch]`, in the same order
///
/// # Errors
/// [`GailError::Shape`], [`GailError::NonFiniteLogit`].
pub fn imitation_stats(logits_student_is_high: &[f32], origins: &[AuthoredBy]) -> Result<ImitationStats, GailError> {
    GailError::check_rows("logits_student_is_high", origins.len(), logits_student_is_high.len())?;
    check_finite(logits_student_is_high)?;
    let mut sums = Sums::default();
    for (logit, origin) in logits_student_is_high.iter().zip(origins) {
        sums.add(teacher_like_logit(*logit), *origin);
    }
    let rows = origins.len();
    let n_expert = origins.iter().filter(|origin| **origin == AuthoredBy::Teacher).count();
    let share = |sum: f64, of: usize| (of > 0).then(|| (sum / of as f64) as f32);
    Ok(ImitationStats {
        disc_loss: share(sums.loss, rows),
        disc_acc: share(sums.right_expert + sums.right_generated, rows),
        disc_acc_expert: share(sums.right_expert, n_expert),
        disc_acc_gen: (sums.right_generated / (rows - n_expert).max(1) as f64) as f32,
        disc_entropy: share(sums.entropy, rows),
        disc_proportion_expert_true: share(n_expert as f64, rows),
        disc_proportion_expert_pred: share(sums.taken_for_expert, rows),
        n_expert,
        n_generated: rows - n_expert,
    })
}

#[derive(Default)]
struct Sums {
    loss: f64,
    entropy: f64,
    right_expert: f64,
    right_generated: f64,
    taken_for_expert: f64,
}

impl Sums {
    /// One row, by the logit that is high for an expert.
    fn add(&mut self, t: f64, origin: AuthoredBy) {
        let taken_for_expert = f64::from(u8::from(t >= 0.0));
        self.entropy += entropy(t);
        self.taken_for_expert += taken_for_expert;
        match origin {
            AuthoredBy::Teacher => {
                self.loss += softplus(-t);
                self.right_expert += taken_for_expert;
            }
            AuthoredBy::Student => {
                self.loss += softplus(t);
                self.right_generated += 1.0 - taken_for_expert;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use AuthoredBy::{Student, Teacher};

    use super::*;
    use crate::score::sigmoid;

    #[test]
    fn a_hand_made_batch() {
        let stats = imitation_stats(&[2.0, -1.0, 0.0, -3.0], &[Student, Student, Student, Teacher]).expect("finite");
        assert_eq!((stats.n_expert, stats.n_generated), (1, 3));
        assert_eq!((stats.disc_acc, stats.disc_acc_expert), (Some(0.5), Some(1.0)));
        assert!((stats.disc_acc_gen - 1.0 / 3.0).abs() < 1e-6, "a logit of 0 is taken for an expert's");
        assert_eq!(stats.disc_proportion_expert_true, Some(0.25));
        assert_eq!(stats.disc_proportion_expert_pred, Some(0.75));
        let p = |logit: f64| sigmoid(logit).ln();
        let loss = -(p(2.0) + p(-1.0) + p(0.0) + p(3.0)) / 4.0;
        assert!((f64::from(stats.disc_loss.expect("rows")) - loss).abs() < 1e-6);
    }

    #[test]
    fn what_imitation_calls_nan_is_none() {
        let empty = imitation_stats(&[], &[]).expect("nothing to be wrong");
        assert_eq!((empty.disc_loss, empty.disc_acc, empty.disc_entropy), (None, None, None));
        assert_eq!((empty.disc_acc_expert, empty.disc_proportion_expert_true), (None, None));
        assert_eq!((empty.disc_proportion_expert_pred, empty.disc_acc_gen), (None, 0.0));
        let students = imitation_stats(&[1.0], &[Student]).expect("finite");
        assert!(students.entries().iter().all(|(name, _)| *name != "imitation/disc_acc_expert"));
        assert_eq!((students.entries().len(), empty.entries().len()), (8, 3), "what is None has no entry");
        assert_eq!((students.disc_acc_expert, students.disc_acc_gen, students.disc_acc), (None, 1.0, Some(1.0)));
        let experts = imitation_stats(&[-1.0], &[Teacher]).expect("finite");
        assert_eq!((experts.disc_acc_expert, experts.disc_acc_gen), (Some(1.0), 0.0));
        assert!(matches!(imitation_stats(&[f32::NAN], &[Student]), Err(GailError::NonFiniteLogit { .. })));
        assert!(matches!(imitation_stats(&[0.0], &[]), Err(GailError::Shape { .. })));
    }
}
