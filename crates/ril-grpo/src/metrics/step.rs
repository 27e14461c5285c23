//! All numbers of a step, by origin of the rows.

use super::{CompletionMetrics, PolicySummary, RewardMetrics, RowMetrics};
use crate::error::check_shape;
use crate::{GrpoError, RatioLevel, RowOrigin};

/// Rows of one origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OriginSummary {
    /// Means over their tokens.
    pub policy: PolicySummary,
    /// Mean of their advantages, over rows; 0 without rows.
    pub mean_advantage: f64,
}

/// Everything that a step reports, from one device read ([`PolicyMetrics::read`](super::PolicyMetrics::read)).
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// All rows.
    pub policy: PolicySummary,
    /// Rows of the policy in training.
    pub students: OriginSummary,
    /// Rows of other models; `None` if there are none.
    pub teachers: Option<OriginSummary>,
    /// Rewards of all rows.
    pub rewards: RewardMetrics,
    /// Lengths of the completions; `None` until the caller sets it, since only it knows which were cut off.
    pub completions: Option<CompletionMetrics>,
}

impl StepMetrics {
    /// Joins what the device and the host know.
    ///
    /// # Shapes
    /// - `rows`, `origins`, `advantages`, all `[batch]`, in the same order; `rewards` of as many rows
    ///
    /// # Errors
    /// [`GrpoError::Shape`] unless the lengths agree.
    pub fn new(
        rows: &[RowMetrics],
        origins: &[RowOrigin],
        advantages: &[f32],
        rewards: RewardMetrics,
        level: RatioLevel,
    ) -> Result<Self, GrpoError> {
        check_shape("origins", &[rows.len()], &[origins.len()])?;
        check_shape("advantages", &[rows.len()], &[advantages.len()])?;
        check_shape("rewards", &[rows.len()], &[rewards.rows])?;
        let of = |wanted: RowOrigin| {
            let picked: Vec<usize> = (0..rows.len()).filter(|&row| origins[row] == wanted).collect();
            let summary = PolicySummary::with_level(picked.iter().map(|&row| &rows[row]), level);
            let sum: f64 = picked.iter().map(|&row| f64::from(advantages[row])).sum();
            OriginSummary { policy: summary, mean_advantage: sum / picked.len().max(1) as f64 }
        };
        let teachers = of(RowOrigin::Teacher);
        Ok(Self {
            policy: PolicySummary::with_level(rows, level),
            students: of(RowOrigin::Student),
            teachers: (teachers.policy.rows > 0).then_some(teachers),
            rewards,
            completions: None,
        })
    }

    /// Names and values: those of TRL 1.16 over all rows, then those of each origin.
    ///
    /// - `loss`, without unit
    /// - those of [`RewardMetrics::entries`], [`PolicySummary::entries`] (`sampling/...` of student rows alone),
    ///   [`CompletionMetrics::entries`]
    /// - `student/advantage`: mean over rows, in the unit of the advantages; `student/ratio`: mean over tokens;
    ///   `student/log_prob`, `student/kl`, `student/entropy`: nats per token; `student/clip_ratio`: share clipped on either
    ///   side
    /// - the same six for `teacher/`, absent without teacher rows; `.../kl` absent without a reference, `.../entropy`
    ///   without entropies
    pub fn entries(&self) -> Vec<(String, f64)> {
        let mut entries: Vec<(String, f64)> = vec![("loss".into(), self.policy.loss)];
        // Nobody sampled a teacher's row here: its weights of 1 would only thin the others out.
        let policy = PolicySummary { sampler: self.students.policy.sampler, ..self.policy };
        let named = self.rewards.entries().into_iter().chain(policy.entries());
        let named = named.chain(self.completions.iter().flat_map(CompletionMetrics::entries));
        entries.extend(named.map(|(name, value)| (name.to_string(), value)));
        let origins = [("student", Some(self.students)), ("teacher", self.teachers)];
        for (name, origin) in origins.into_iter().filter_map(|(name, of)| of.map(|of| (name, of))) {
            let OriginSummary { policy: summary, mean_advantage } = origin;
            let clipped = summary.clip_fraction_low + summary.clip_fraction_high;
            let values = [
                ("advantage", Some(mean_advantage)),
                ("ratio", Some(summary.mean_ratio)),
                ("log_prob", Some(summary.mean_log_prob)),
                ("clip_ratio", Some(clipped)),
                ("kl", summary.mean_kl),
                ("entropy", summary.mean_entropy),
            ];
            entries.extend(values.into_iter().filter_map(|(key, value)| Some((format!("{name}/{key}"), value?))));
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::row;
    use super::*;

    #[test]
    fn origins_are_reported_apart() {
        let rows = [row(1.0, 1.0, 0.0), row(3.0, 7.0, 2.0)];
        let rewards = RewardMetrics::new(&[Some(1.0), Some(0.0)], 2).unwrap();
        let metrics =
            |origins: &[RowOrigin]| StepMetrics::new(&rows, origins, &[0.5, -0.5], rewards, RatioLevel::Token).unwrap();
        let mixed = metrics(&[RowOrigin::Student, RowOrigin::Teacher]);
        let entries = mixed.entries();
        let value = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        assert_eq!((value("student/advantage"), value("teacher/advantage")), (Some(0.5), Some(-0.5)));
        assert_eq!((value("teacher/kl"), value("reward")), (Some(2.0 / 3.0), Some(0.5)));
        let names: std::collections::BTreeSet<_> = entries.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), entries.len());
        assert!(metrics(&[RowOrigin::Student; 2]).teachers.is_none());
        let few = RewardMetrics::new(&[Some(1.0)], 1).unwrap();
        let few = StepMetrics::new(&rows, &[RowOrigin::Student; 2], &[0.0; 2], few, RatioLevel::Token);
        assert!(matches!(few, Err(GrpoError::Shape { what: "rewards", .. })));
        let short = StepMetrics::new(&rows, &[RowOrigin::Student], &[0.0; 2], rewards, RatioLevel::Token);
        assert!(matches!(short, Err(GrpoError::Shape { .. })));
    }
}
