//! The policy loss: surrogate, KL, entropy bonus and supervised term of one (micro-)batch.

use burn::tensor::{Bool, DType, Tensor};

use crate::aggregate::row_contributions;
use crate::error::check_shape;
use crate::kl::kl_per_token;
use crate::metrics::SamplerColumns;
use crate::ratio::{importance_ratio, log_ratio};
use crate::rows::probability;
use crate::sampler::sampler_difference;
use crate::surrogate::{ClippedTokens, SurrogateInput, TokenLoss, token_loss};
use crate::{GrpoConfig, GrpoError, PolicyBatch, PolicyMetrics, SftTerm, SftTokenWeight, Surrogate, TokenScores};

/// Loss of one (micro-)batch and what it reports.
#[derive(Debug, Clone)]
pub struct PolicyLoss {
    /// To be minimised, `[1]`, differentiable with respect to `log_probs`; a share of the whole batch's loss.
    pub loss: Tensor<1>,
    /// Sums per row, without autodiff, still on the device.
    pub metrics: PolicyMetrics,
}

impl PolicyLoss {
    /// That of a batch without rows or without columns: Burn cannot expand to them.
    fn of_nothing(batch: &PolicyBatch, scores: TokenScores) -> Self {
        let zeros = || Tensor::<1>::zeros([batch.dims()[0]], &batch.padding().device());
        let metrics = PolicyMetrics {
            row_loss: zeros(),
            row_tokens: zeros(),
            row_is_excluded: batch.is_excluded(),
            row_log_prob: zeros(),
            row_ratio: zeros(),
            row_clip_low: zeros(),
            row_clip_high: zeros(),
            row_kl: batch.ref_log_probs().map(|_| zeros()),
            row_entropy: scores.entropy.map(|_| zeros()),
            sampler: batch.sampler().map(|sampler| SamplerColumns::new(batch, sampler)),
        };
        Self { loss: scores.log_probs.sum(), metrics }
    }
}

/// `mean_t [ w_t surrogate(rho_t, A) + beta KL_t ]`, less an entropy bonus, mixed with a supervised term; minimised.
///
/// * `rho` is the importance ratio ([`RatioLevel`](crate::RatioLevel), [`RowRatio`](crate::RowRatio)), the surrogate
///   one of [`Surrogate`], the mean a [`LossAggregation`](crate::LossAggregation).
/// * `w_t` is 1, times the sampler correction, times 0 for a token below the entropy threshold, times 0 for a row that
///   the off-policy mask drops. It weighs the policy-gradient term, not the KL.
/// * The bonus is `entropy_coefficient` times the mean entropy over the tokens that carry it.
/// * With [`SftTerm`] the loss is `(1 - weight)` times all that, plus `weight` times the mean cross-entropy of teacher
///   tokens. A micro-batch may lack them; the batch may not, for the loss would only shrink.
///
/// Every mean divides by the totals of the whole batch, so losses and gradients of micro-batches add up. Computed in
/// `f32` whatever the type of the scores.
///
/// Source: DeepSeekMath, arXiv 2402.03300, Equation 3, and the papers that the variants name. Differs from TRL 1.16:
/// log-ratios are kept in `[-20, 20]` (gradient 0 outside), as verl keeps those of tokens. Differs from both: content
/// under a false mask, NaN included, changes neither loss nor gradient. On the border of a clip, where any slope between the two branches is right, the
/// gradient is that of the unclipped term (TRL's is half of it).
///
/// # Shapes
/// - `scores`: log-probabilities `[batch, seq]`, nats, under the current policy, alone or with entropies
///   ([`TokenScores`])
/// - output: `[1]`; a batch without trained tokens gives 0, one without rows or columns too
///
/// # Errors
/// [`GrpoError::Shape`] if a score has not the batch's shape, [`GrpoError::MissingReference`] if `beta` is not 0
/// and the batch holds no reference, [`GrpoError::MissingEntropy`] if there is a bonus and the scores hold no
/// entropies, [`GrpoError::Config`] as [`GrpoConfig::validate`], and for an [`SftTerm`] of weight above 0 when the
/// totals count no teacher tokens.
pub fn policy_loss(
    batch: &PolicyBatch,
    scores: impl Into<TokenScores>,
    config: &GrpoConfig,
) -> Result<PolicyLoss, GrpoError> {
    config.validate()?;
    let scores = checked(batch, scores.into(), config)?;
    if batch.is_empty() {
        return Ok(PolicyLoss::of_nothing(batch, scores));
    }
    let terms = Terms::new(batch, scores, config);
    let TokenLoss { loss: policy, clipped } = terms.policy(batch, config);
    let per_token = match &terms.kl {
        Some(kl) if config.beta != 0.0 => policy + kl.clone() * config.beta,
        _ => policy,
    };
    let row_sums = sum_tokens(per_token, terms.padding.clone());
    let policy_tokens = count_tokens(terms.padding.clone());
    let mut row_loss = row_contributions(row_sums, policy_tokens, batch.totals(), config.aggregation);
    if config.entropy_coefficient > 0.0 {
        row_loss = row_loss - terms.entropy_bonus(batch) * config.entropy_coefficient;
    }
    if let Some(sft) = config.sft {
        row_loss = row_loss * (1.0 - sft.weight) + terms.supervised(batch, sft) * sft.weight;
    }
    let metrics = terms.metrics(batch, row_loss.clone(), clipped);
    Ok(PolicyLoss { loss: row_loss.sum(), metrics })
}

fn checked(batch: &PolicyBatch, scores: TokenScores, config: &GrpoConfig) -> Result<TokenScores, GrpoError> {
    let shape = batch.dims();
    check_shape("log_probs", &shape, &scores.log_probs.dims())?;
    if let Some(entropy) = &scores.entropy {
        check_shape("entropy", &shape, &entropy.dims())?;
    } else if config.entropy_coefficient > 0.0 {
        return Err(GrpoError::MissingEntropy { coefficient: config.entropy_coefficient });
    }
    if config.beta != 0.0 && batch.ref_log_probs().is_none() {
        return Err(GrpoError::MissingReference { beta: config.beta });
    }
    if batch.totals().sft_tokens == 0 && config.sft.is_some_and(|sft| sft.weight > 0.0) {
        return Err(GrpoError::Config("sft: expected teacher tokens in the batch (with_rows), got none".into()));
    }
    Ok(TokenScores {
        log_probs: scores.log_probs.cast(DType::F32),
        entropy: scores.entropy.map(|entropy| entropy.cast(DType::F32)),
    })
}

/// Per-token quantities, `[batch, seq]`, that the parts of the loss share; log-probabilities are 0 at padding.
struct Terms {
    log_probs: Tensor<2>,
    log_ratio: Tensor<2>,
    ratio: Tensor<2>,
    advantages: Tensor<2>,
    /// `[batch, 1]`, at least 1.
    row_tokens: Tensor<2>,
    kl: Option<Tensor<2>>,
    entropy: Option<Tensor<2>>,
    /// True where a token has no policy term.
    padding: Tensor<2, Bool>,
}

impl Terms {
    fn new(batch: &PolicyBatch, scores: TokenScores, config: &GrpoConfig) -> Self {
        let shape = batch.dims();
        let outside = batch.padding();
        let log_ratio_old = log_ratio(scores.log_probs.clone(), batch.old_log_probs(), outside.clone());
        let row_tokens = count_tokens(outside.clone()).clamp_min(1.0).unsqueeze_dim::<2>(1);
        let ratio = importance_ratio(log_ratio_old.clone(), row_tokens.clone(), config.ratio);
        let kl = batch.ref_log_probs().map(|reference| {
            let log_ratio_ref = log_ratio(reference, scores.log_probs.clone(), outside.clone());
            kl_per_token(log_ratio_ref, &ratio, config.kl, config.kl_gradient)
        });
        Self {
            log_probs: scores.log_probs.mask_fill(outside, 0.0),
            log_ratio: log_ratio_old,
            ratio,
            advantages: batch.advantages().unsqueeze_dim::<2>(1).expand(shape),
            row_tokens,
            kl,
            entropy: scores.entropy,
            padding: batch.policy_padding(),
        }
    }

    /// Weighted policy-gradient term of each token.
    fn policy(&self, batch: &PolicyBatch, config: &GrpoConfig) -> TokenLoss {
        let shape = batch.dims();
        let sampler_weights = batch.sampler().and_then(|sampler| sampler.weights.clone());
        let is_gamma = matches!(config.surrogate, Surrogate::GammaWeight { .. });
        let input = SurrogateInput {
            log_probs: self.log_probs.clone(),
            log_ratio: self.log_ratio.clone(),
            ratio: self.ratio.clone(),
            advantages: self.advantages.clone(),
            row_tokens: self.row_tokens.clone(),
            sampler_weights: if is_gamma { sampler_weights.clone() } else { None },
        };
        let TokenLoss { mut loss, mut clipped } = token_loss(input, config.surrogate);
        if let Some(rows) = batch.row_tensors().filter(|rows| rows.has_behaviour_one()) {
            let is_behaviour_one = rows.is_behaviour_one.clone().expand(shape);
            let shaped = rows.shaped_probability(self.log_probs.clone()) * self.advantages.clone();
            loss = loss.mask_where(is_behaviour_one.clone(), shaped.neg());
            clipped = clipped.map(|clipped| clipped.outside(is_behaviour_one));
        }
        if let Some(threshold) = config.off_policy_threshold {
            loss = loss.mask_fill(self.is_off_policy(batch, threshold).expand(shape), 0.0);
        }
        if let Some(low_entropy) = batch.low_entropy() {
            loss = loss.mask_fill(low_entropy, 0.0);
        }
        if let Some(weights) = sampler_weights.filter(|_| !is_gamma) {
            loss = loss * weights.expand(shape);
        }
        TokenLoss { loss, clipped }
    }

    /// Sums per row; `inner`, not `detach`: a detached leaf stays tracked.
    fn metrics(self, batch: &PolicyBatch, row_loss: Tensor<1>, clipped: Option<ClippedTokens>) -> PolicyMetrics {
        let (shape, device) = (batch.dims(), self.padding.device());
        let sum = |per_token: Tensor<2>| sum_tokens(per_token.inner(), batch.padding());
        let mut ratio = self.ratio;
        if let Some(rows) = batch.row_tensors().filter(|rows| rows.has_behaviour_one()) {
            ratio = ratio.mask_where(rows.is_behaviour_one.clone().expand(shape), probability(self.log_probs.clone()));
        }
        let clip = |tokens: Option<Tensor<2, Bool>>| match tokens {
            Some(tokens) => sum_tokens(tokens.float(), self.padding.clone()),
            None => Tensor::zeros([shape[0]], &device),
        };
        let (low, high) = clipped.map_or((None, None), |clipped| (Some(clipped.low), Some(clipped.high)));
        PolicyMetrics {
            row_loss: row_loss.inner(),
            row_tokens: count_tokens(batch.padding()),
            row_is_excluded: batch.is_excluded(),
            row_log_prob: sum(self.log_probs),
            row_ratio: sum(ratio),
            row_clip_low: clip(low),
            row_clip_high: clip(high),
            row_kl: self.kl.map(sum),
            row_entropy: self.entropy.map(sum),
            sampler: batch.sampler().map(|sampler| SamplerColumns::new(batch, sampler)),
        }
    }

    /// `[batch, 1]`: rows of negative advantage that the policy has moved away from.
    fn is_off_policy(&self, batch: &PolicyBatch, threshold: f64) -> Tensor<2, Bool> {
        let old = batch.old_log_probs();
        let behaviour = match batch.sampler() {
            Some(sampler) => sampler.log_probs.clone().mask_where(sampler.log_probs.clone().is_nan(), old),
            None => old,
        };
        let difference = sampler_difference(self.log_probs.clone().inner(), behaviour, batch.padding()).neg();
        let mean = difference.sum_dim(1) / self.row_tokens.clone();
        let is_negative = batch.advantages().unsqueeze_dim::<2>(1).lower_elem(0.0);
        mean.greater_elem(threshold).bool_and(is_negative)
    }

    /// Share of each row in the mean entropy, `[batch]`.
    fn entropy_bonus(&self, batch: &PolicyBatch) -> Tensor<1> {
        let outside = match batch.low_entropy() {
            Some(low) => self.padding.clone().bool_or(low),
            None => self.padding.clone(),
        };
        // `checked` has made sure that there are entropies.
        let entropy = self.entropy.clone().unwrap_or_else(|| self.log_probs.zeros_like());
        sum_tokens(entropy, outside) / batch.totals().entropy_tokens.max(1) as f64
    }

    /// Share of each row in the mean cross-entropy of teacher tokens, `[batch]`.
    fn supervised(&self, batch: &PolicyBatch, sft: SftTerm) -> Tensor<1> {
        let shape = batch.dims();
        let Some(rows) = batch.row_tensors() else {
            return Tensor::zeros([shape[0]], &self.padding.device());
        };
        let weighted = match sft.token_weight {
            SftTokenWeight::Uniform => self.log_probs.clone(),
            SftTokenWeight::Uncertainty => {
                let p = probability(self.log_probs.clone().inner());
                self.log_probs.clone() * (p.clone() * (p.neg() + 1.0))
            }
        };
        let outside = batch.padding().bool_or(rows.is_not_imitated.clone().expand(shape));
        sum_tokens(weighted.neg(), outside) / batch.totals().sft_tokens.max(1) as f64
    }
}

/// Sum over the trained tokens of each row, `[batch]`.
fn sum_tokens(per_token: Tensor<2>, padding: Tensor<2, Bool>) -> Tensor<1> {
    per_token.mask_fill(padding, 0.0).sum_dim(1).squeeze_dim(1)
}

/// Number of trained tokens of each row, `[batch]`.
fn count_tokens(padding: Tensor<2, Bool>) -> Tensor<1> {
    padding.bool_not().float().sum_dim(1).squeeze_dim(1)
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "loss_examples.rs"]
mod examples;
