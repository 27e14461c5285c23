//! Phase 5: old and reference log-probabilities, the policy loss, one optimizer step for each update.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor, TensorData};
use rayon::prelude::*;
use ril_grpo::{
    GrpoConfig, GrpoError, LossTotals, Policy, PolicyBatch, PolicyMetrics, RowMetrics, RowOrigin, RowRatio, RowRole,
    SamplerCorrection, TokenScores, check_gradients, check_tokens, policy_loss,
};

use crate::adapters::ModelPolicy;
use crate::error::RilError;
use crate::group::{Group, Origin, Prompt, Response, ScoringBatch};
use crate::learner::{Learner, TrainableModel, sum_gradients};
use crate::rollout::mix_seed;

/// How often and how hard the policy is updated on one batch of rollouts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdatePlan<'a> {
    /// Loss, clip, KL, entropy bonus, supervised term.
    pub grpo: &'a GrpoConfig,
    /// What stands below the ratio of a teacher row.
    pub teacher_ratio: RowRatio,
    /// Correction for the distribution that student rows were sampled from.
    pub sampler_correction: Option<SamplerCorrection>,
    /// Whether a parameter without a gradient is an error.
    pub checks_gradients: bool,
    /// Updates; the paper's mu.
    pub updates: usize,
    /// Learning rate.
    pub learning_rate: f64,
    /// Temperature that the samples were drawn at; the log-probs are those of the model at this temperature.
    pub temperature: f64,
    /// For messages, and for what the model draws at random in its passes with a gradient.
    pub step: usize,
}

impl UpdatePlan<'_> {
    /// Whether rows have roles; else the batch is left as it is.
    fn tells_rows_apart(&self) -> bool {
        self.teacher_ratio != RowRatio::SameOld || self.grpo.sft.is_some()
    }

    fn role(&self, response: &Response) -> RowRole {
        match response.origin {
            Origin::Student => RowRole::STUDENT,
            Origin::Teacher(_) => RowRole { origin: response.origin.into(), ratio: self.teacher_ratio },
        }
    }

    /// Denominators of the whole batch.
    fn totals(&self, responses: &[&Response]) -> LossTotals {
        let tokens = |test: &dyn Fn(&RowRole) -> bool| -> usize {
            responses.iter().filter(|r| test(&self.role(r))).map(|r| r.token_ids.len()).sum()
        };
        let is_trained = |role: &RowRole| role.ratio != RowRatio::Excluded;
        let sequences = responses.iter().filter(|r| is_trained(&self.role(r))).count();
        let sft_tokens = if self.tells_rows_apart() { tokens(&|role| role.origin == RowOrigin::Teacher) } else { 0 };
        LossTotals { sft_tokens, ..LossTotals::new(sequences, tokens(&is_trained)) }
    }
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
/// Teacher rows have the ratio that `plan` says; RIL's is that of student rows, `pi_theta / pi_old`. With one update the
/// policy is still the one that sampled, so that its own detached log-probs *are* the old ones and a forward pass is
/// saved; the gradient is the same to the bit. `reference` is asked only when the KL has a weight.
///
/// Samplers draw without dropout. Where the policy has some, a correction for the sampler therefore holds the sampler's log-probs against
/// those of a pass without dropout: with one update a forward of its own, while the ratio stays that of the pass with the gradient and
/// itself, exactly 1. With several updates that pass gives the old log-probs of the ratio too, whose numerator has dropout in every
/// update. verl does both (`compute_log_prob` in evaluation mode, `on_policy`); TRL 1.16 makes that pass in training mode, unless `disable_dropout` is set.
///
/// # Errors
/// The cores' and the model's own; [`RilError::Input`] when a row has another number of sampler log-probs than tokens, or a
/// correction for the sampler lacks them;
/// [`GrpoError::NonFinite`] with the row (in the order of the groups) and token that spoiled the loss;
/// [`RilError::NonFinite`] when no single one did; [`GrpoError::NoGradient`] if `plan` asks for the check. The policy is
/// then what it was after the last whole update.
pub fn optimise<M: TrainableModel>(
    policy: &mut Learner<M>,
    reference: &M,
    groups: &[Group],
    advantages: &[f32],
    plan: UpdatePlan<'_>,
) -> Result<PolicyUpdate, RilError> {
    let rows: Vec<Row<'_>> = groups
        .iter()
        .flat_map(|g| g.responses.iter().map(|response| Row { prompt: &g.question.prompt, response }))
        .collect();
    if rows.len() != advantages.len() {
        return Err(RilError::Input(format!("expected {} advantages, got {}", rows.len(), advantages.len())));
    }
    let responses: Vec<&Response> = rows.iter().map(|row| row.response).collect();
    if plan.sampler_correction.is_some() {
        check_samplers(&responses)?;
    }
    let step = StepConstants {
        plan,
        totals: plan.totals(&responses),
        has_sampler: responses.iter().any(|r| r.sampler_log_probs.is_some()),
    };
    // In the order of the groups: a micro-batch reads a prompt and its pictures once for all of its rows.
    let size = policy.settings().micro_batch_rows;
    let slices: Vec<_> = rows.chunks(size).zip(advantages.chunks(size)).collect();
    let mut parts = Vec::with_capacity(slices.len());
    for slices in slices.chunks(policy.settings().passes_at_once) {
        let new = |(rows, advantages): &(&[Row<'_>], &[f32])| Part::new(rows, advantages, policy, reference, step);
        parts.extend(slices.par_iter().map(new).collect::<Result<Vec<_>, RilError>>()?);
    }
    let mut update = PolicyUpdate { rows: Vec::new(), grad_norm: 0.0 };
    for number in 0..plan.updates {
        update = one_update(policy, &parts, step, number)?;
    }
    Ok(update)
}

/// A correction needs to know of every sample how likely it was.
fn check_samplers(responses: &[&Response]) -> Result<(), RilError> {
    for (row, response) in responses.iter().enumerate().filter(|(_, r)| r.origin == Origin::Student) {
        let log_probs = response.sampler_log_probs.as_deref();
        if log_probs.is_none_or(|log_probs| log_probs.iter().any(|l| !l.is_finite())) {
            let message =
                format!("sampler_correction: row {row} has no finite log-probability of the sampler for each token");
            return Err(RilError::Input(message));
        }
    }
    Ok(())
}

/// One completion of the step.
#[derive(Clone, Copy)]
struct Row<'a> {
    prompt: &'a Arc<Prompt>,
    response: &'a Response,
}

/// What all micro-batches of a step share.
#[derive(Clone, Copy)]
struct StepConstants<'a> {
    plan: UpdatePlan<'a>,
    totals: LossTotals,
    /// Whether any row has sampler log-probs: then every micro-batch says so.
    has_sampler: bool,
}

/// A micro-batch with everything that stays the same over the updates.
struct Part {
    batch: ScoringBatch,
    old_log_probs: Option<Tensor<2>>,
    ref_log_probs: Option<Tensor<2>>,
    sampler_log_probs: Option<Tensor<2>>,
    /// Of the policy without dropout, for the correction; `None` where the old log-probs are those.
    undropped_log_probs: Option<Tensor<2>>,
    advantages: Tensor<1>,
    mask: Tensor<2, Bool>,
    roles: Vec<RowRole>,
}

impl Part {
    fn new<M: TrainableModel>(
        rows: &[Row<'_>],
        advantages: &[f32],
        policy: &Learner<M>,
        reference: &M,
        step: StepConstants<'_>,
    ) -> Result<Self, RilError> {
        let plan = step.plan;
        let texts: Vec<_> = rows.iter().map(|row| (row.prompt, row.response.token_ids.as_slice())).collect();
        let batch = ScoringBatch::new(&texts)?;
        let device = policy.model().device();
        let shape = [batch.rows(), batch.completion_len()];
        let score = |model| scorer(model, plan).token_log_probs(&batch);
        let old_log_probs = if plan.updates > 1 { Some(score(policy.view())?) } else { None };
        let needs_undropped = plan.updates == 1 && plan.sampler_correction.is_some() && policy.model().has_dropout();
        let undropped_log_probs = if needs_undropped { Some(score(policy.view())?) } else { None };
        let ref_log_probs = if plan.grpo.beta > 0.0 { Some(score(reference.clone())?) } else { None };
        let sampler_log_probs = if step.has_sampler { Some(sampler_table(rows, shape)?) } else { None };
        Ok(Self {
            old_log_probs,
            ref_log_probs,
            undropped_log_probs,
            sampler_log_probs: sampler_log_probs.map(|data| Tensor::from_data(data, &device)),
            advantages: Tensor::from_data(TensorData::new(advantages.to_vec(), [shape[0]]), &device),
            mask: Tensor::from_data(TensorData::new(batch.completion_mask.clone(), shape), &device),
            roles: rows.iter().map(|row| plan.role(row.response)).collect(),
            batch,
        })
    }

    /// The batch of the loss. `current`: log-probs of the policy as it is, which are the old ones of a first update.
    fn policy_batch(&self, current: &Tensor<2>, step: StepConstants<'_>) -> Result<PolicyBatch, GrpoError> {
        let old = self.old_log_probs.clone().unwrap_or_else(|| current.clone().inner());
        let (reference, advantages) = (self.ref_log_probs.clone(), self.advantages.clone());
        let mask = self.mask.clone();
        let batch = if step.plan.tells_rows_apart() {
            let own = LossTotals::from_mask(&self.batch.completion_mask, self.roles.len());
            let batch = PolicyBatch::with_totals(old, reference, advantages, mask, own)?;
            batch.with_rows_and_totals(self.roles.clone(), None, step.totals)?
        } else {
            PolicyBatch::with_totals(old, reference, advantages, mask, step.totals)?
        };
        let correction = step.plan.sampler_correction;
        match (self.sampler_log_probs.clone(), self.undropped_log_probs.clone()) {
            (Some(sampler), Some(undropped)) => batch.with_sampler_against(undropped, sampler, correction),
            (Some(sampler), None) => batch.with_sampler(sampler, correction),
            (None, _) => Ok(batch),
        }
    }
}

/// Log-probs that the sampler gave, `shape` = `[rows, completion_len]`; NaN where it gave none.
fn sampler_table(rows: &[Row<'_>], shape: [usize; 2]) -> Result<TensorData, RilError> {
    let mut table = vec![f32::NAN; shape[0] * shape[1]];
    for (row, cells) in rows.iter().zip(table.chunks_mut(shape[1])) {
        let Some(sampled) = &row.response.sampler_log_probs else { continue };
        let tokens = row.response.token_ids.len();
        if sampled.len() != tokens {
            let message = format!("sampler_log_probs: expected one for each of {tokens} tokens, got {}", sampled.len());
            return Err(RilError::Input(message));
        }
        cells[..tokens].copy_from_slice(sampled);
    }
    Ok(TensorData::new(table, shape))
}

fn scorer<M: TrainableModel>(model: M, plan: UpdatePlan<'_>) -> ModelPolicy<M> {
    ModelPolicy { temperature: plan.temperature, ..ModelPolicy::new(model) }
}

fn one_update<M: TrainableModel>(
    policy: &mut Learner<M>,
    parts: &[Part],
    step: StepConstants<'_>,
    number: usize,
) -> Result<PolicyUpdate, RilError> {
    let (passes_at_once, plan) = (policy.settings().passes_at_once, step.plan);
    let drawing = policy.model().clone().at_step(mix_seed(plan.step as u64, number as u64));
    let (gradients, passes) = sum_gradients(&drawing, parts, passes_at_once, |model, part| {
        let scores = scorer(model.clone(), plan).token_scores(&part.batch)?;
        let batch = part.policy_batch(&scores.log_probs, step)?;
        let entropy = scores.entropy.clone().map(Tensor::inner);
        let detached = TokenScores { log_probs: scores.log_probs.clone().inner(), entropy };
        let loss = policy_loss(&batch, scores, plan.grpo)?;
        Ok((loss.loss, (loss.metrics, batch, detached)))
    })?;
    // A copy that outlived the passes would keep the optimizer from writing in place.
    drop(drawing);
    let metrics: Vec<PolicyMetrics> = passes.iter().map(|(metrics, ..)| metrics.clone()).collect();
    let rows = PolicyMetrics::cat(&metrics).map(PolicyMetrics::read).transpose()?.unwrap_or_default();
    let loss: f64 = rows.iter().map(|r| r.loss).sum();
    if !loss.is_finite() {
        let mut first_row = 0;
        for (_, batch, scores) in &passes {
            check_tokens(batch, scores.clone(), first_row)?;
            first_row += batch.dims()[0];
        }
        return Err(RilError::NonFinite { step: plan.step, what: "policy loss", value: loss as f32 });
    }
    if plan.checks_gradients {
        check_gradients(policy.model(), &gradients)?;
    }
    let grad_norm = policy.step(gradients, plan.learning_rate)?;
    Ok(PolicyUpdate { rows, grad_norm })
}
