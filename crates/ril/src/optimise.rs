//! Phase 5: old and reference log-probabilities, the policy loss, one optimizer step for each update.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor, TensorData};
use rayon::prelude::*;
use ril_grpo::{GrpoConfig, LossTotals, Policy, PolicyBatch, PolicyMetrics, RowMetrics, policy_loss};

use crate::adapters::ModelPolicy;
use crate::error::RilError;
use crate::group::{Group, Prompt, ScoringBatch};
use crate::learner::{Learner, TrainableModel, sum_gradients};

/// How often and how hard the policy is updated on one batch of rollouts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdatePlan<'a> {
    /// Loss, clip, KL.
    pub grpo: &'a GrpoConfig,
    /// Updates; the paper's mu.
    pub updates: usize,
    /// Learning rate.
    pub learning_rate: f64,
    /// Temperature that the samples were drawn at; the log-probs are those of the model at this temperature.
    pub temperature: f64,
    /// For messages.
    pub step: usize,
}

/// What the updates did; the rows are those of the last update.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyUpdate {
    /// Per row, students and teachers in the order of the groups.
    pub rows: Vec<RowMetrics>,
    /// Norm of all gradients together before clipping, last update.
    pub grad_norm: f32,
}

/// Updates the policy on all rows of `groups` (Eq. 2 of arXiv 2510.19307, or whatever `plan.grpo` says).
///
/// Teacher rows have the same ratio as student rows, `pi_theta / pi_old`. With one update the policy is still the one
/// that sampled, so that its own detached log-probs *are* the old ones and a forward pass is saved; the gradient is
/// the same to the bit. `reference` is asked only when the KL has a weight.
///
/// # Errors
/// The cores' and the model's own; [`RilError::NonFinite`] when the loss is not a number. The policy is then what it
/// was after the last whole update.
pub fn optimise<M: TrainableModel>(
    policy: &mut Learner<M>,
    reference: &M,
    groups: &[Group],
    advantages: &[f32],
    plan: UpdatePlan<'_>,
) -> Result<PolicyUpdate, RilError> {
    let rows: Vec<(&Arc<Prompt>, &[u32])> = groups
        .iter()
        .flat_map(|g| g.responses.iter().map(move |r| (&g.question.prompt, r.token_ids.as_slice())))
        .collect();
    if rows.len() != advantages.len() {
        return Err(RilError::Input(format!("expected {} advantages, got {}", rows.len(), advantages.len())));
    }
    // Rows of like length stand together, so that micro-batches hold little padding; the loss does not see the order.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| rows[row].1.len());
    let totals = LossTotals::new(rows.len(), rows.iter().map(|r| r.1.len()).sum());
    let size = policy.settings().micro_batch_rows;
    let part = |picked: &[usize]| {
        let rows: Vec<_> = picked.iter().map(|&row| rows[row]).collect();
        let advantages: Vec<f32> = picked.iter().map(|&row| advantages[row]).collect();
        Part::new(ScoringBatch::new(&rows)?, advantages, policy, reference, plan)
    };
    let picked: Vec<&[usize]> = order.chunks(size).collect();
    let mut parts = Vec::with_capacity(picked.len());
    for picked in picked.chunks(policy.settings().passes_at_once) {
        parts.extend(picked.par_iter().map(|picked| part(picked)).collect::<Result<Vec<_>, RilError>>()?);
    }
    let mut update = PolicyUpdate { rows: Vec::new(), grad_norm: 0.0 };
    for _ in 0..plan.updates {
        update = one_update(policy, &parts, totals, plan)?;
    }
    let mut in_order: Vec<(usize, RowMetrics)> = order.into_iter().zip(update.rows).collect();
    in_order.sort_by_key(|(row, _)| *row);
    Ok(PolicyUpdate { rows: in_order.into_iter().map(|(_, metrics)| metrics).collect(), ..update })
}

/// A micro-batch with everything that stays the same over the updates.
struct Part {
    batch: ScoringBatch,
    old_log_probs: Option<Tensor<2>>,
    ref_log_probs: Option<Tensor<2>>,
    advantages: Tensor<1>,
    mask: Tensor<2, Bool>,
}

impl Part {
    fn new<M: TrainableModel>(
        batch: ScoringBatch,
        advantages: Vec<f32>,
        policy: &Learner<M>,
        reference: &M,
        plan: UpdatePlan<'_>,
    ) -> Result<Self, RilError> {
        let device = policy.model().device();
        let shape = [batch.rows(), batch.completion_len()];
        let score = |model| scorer(model, plan).token_log_probs(&batch);
        let old_log_probs = if plan.updates > 1 { Some(score(policy.view())?) } else { None };
        let ref_log_probs = if plan.grpo.beta > 0.0 { Some(score(reference.clone())?) } else { None };
        Ok(Self {
            old_log_probs,
            ref_log_probs,
            advantages: Tensor::from_data(TensorData::new(advantages, [shape[0]]), &device),
            mask: Tensor::from_data(TensorData::new(batch.completion_mask.clone(), shape), &device),
            batch,
        })
    }
}

fn scorer<M: TrainableModel>(model: M, plan: UpdatePlan<'_>) -> ModelPolicy<M> {
    ModelPolicy { temperature: plan.temperature, ..ModelPolicy::new(model) }
}

fn one_update<M: TrainableModel>(
    policy: &mut Learner<M>,
    parts: &[Part],
    totals: LossTotals,
    plan: UpdatePlan<'_>,
) -> Result<PolicyUpdate, RilError> {
    let passes_at_once = policy.settings().passes_at_once;
    let (gradients, metrics) = sum_gradients(policy.model(), parts, passes_at_once, |model, part| {
        let log_probs = scorer(model.clone(), plan).token_log_probs(&part.batch)?;
        let old = part.old_log_probs.clone().unwrap_or_else(|| log_probs.clone().inner());
        let (reference, advantages) = (part.ref_log_probs.clone(), part.advantages.clone());
        let batch = PolicyBatch::with_totals(old, reference, advantages, part.mask.clone(), totals)?;
        let loss = policy_loss(&batch, log_probs, plan.grpo)?;
        Ok((loss.loss, loss.metrics))
    })?;
    let rows = PolicyMetrics::cat(&metrics).map(PolicyMetrics::read).transpose()?.unwrap_or_default();
    let loss: f64 = rows.iter().map(|r| r.loss).sum();
    if !loss.is_finite() {
        return Err(RilError::NonFinite { step: plan.step, what: "policy loss", value: loss as f32 });
    }
    let grad_norm = policy.step(gradients, plan.learning_rate)?;
    Ok(PolicyUpdate { rows, grad_norm })
}
