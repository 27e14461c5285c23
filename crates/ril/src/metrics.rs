//! Numbers of a step of the loop: TRL's names over all rows, then each origin apart.

use ril_grpo::{CompletionMetrics, RatioLevel, RewardMetrics, RowOrigin, StepMetrics};

use crate::error::RilError;
use crate::group::{Group, Origin, Response};
use crate::optimise::PolicyUpdate;
use crate::score::Scores;
use crate::stage::StageMetrics;

/// The rows of a step, in the order of the groups.
pub(crate) struct Rows<'a> {
    pub groups: &'a [Group],
    pub scores: &'a Scores,
    pub rewards: &'a [Option<f32>],
    /// Those that the advantages are made of.
    pub counted: &'a [Option<f32>],
    pub advantages: &'a [f32],
    pub update: &'a PolicyUpdate,
}

impl Rows<'_> {
    /// `level`: where the ratio is clipped.
    pub(crate) fn metrics(&self, group_size: usize, level: RatioLevel) -> Result<StageMetrics, RilError> {
        let responses: Vec<&Response> = self.groups.iter().flat_map(|g| &g.responses).collect();
        let origins: Vec<RowOrigin> = responses.iter().map(|r| r.origin.into()).collect();
        let rewards = RewardMetrics::new(self.counted, group_size)?;
        let mut step = StepMetrics::new(&self.update.rows, &origins, self.advantages, rewards, level)?;
        let sampled: Vec<&&Response> = responses.iter().filter(|r| r.origin == Origin::Student).collect();
        let lengths: Vec<usize> = sampled.iter().map(|r| r.token_ids.len()).collect();
        let is_truncated: Vec<bool> = sampled.iter().map(|r| r.is_truncated).collect();
        step.completions = Some(CompletionMetrics::new(&lengths, &is_truncated)?);

        let mut metrics = StageMetrics::default();
        metrics.extend(step.entries());
        metrics.put("grad_norm", f64::from(self.update.grad_norm));
        for (name, total, origin) in
            [("reward", "student/reward", RowOrigin::Student), ("teacher", "teacher/reward", RowOrigin::Teacher)]
        {
            let rows: Vec<usize> = (0..origins.len()).filter(|&row| origins[row] == origin).collect();
            metrics.put(total, mean(rows.iter().filter_map(|&row| self.rewards[row])));
            let answers = rows.iter().filter_map(|&row| self.scores.verdicts[row].score());
            metrics.put(format!("{name}/answer"), mean(answers));
            let alike = |logits: &Vec<f32>| mean(rows.iter().map(|&row| f32::from(logits[row] < 0.0)));
            metrics.put(format!("{name}/similarity"), self.scores.logits_student_is_high.as_ref().and_then(alike));
        }
        Ok(metrics)
    }
}

fn mean(values: impl Iterator<Item = f32>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), v| (sum + f64::from(v), count + 1));
    (count > 0).then(|| sum / count as f64)
}
