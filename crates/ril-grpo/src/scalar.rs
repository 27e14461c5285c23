//! The `f64` twin of every formula, in obvious loops: slow, and the yardstick of the tensor code.

use crate::advantage::{STD_FLOOR, VARIANCE_FLOOR};
use crate::surrogate::MIN_LOG_SEQUENCE_RATIO;
use crate::{
    AdvantageEstimator, GrpoConfig, KlEstimator, KlGradient, LossAggregation, LossTotals, MAX_LOG_RATIO, RatioLevel,
    RewardScale, RowOrigin, RowRatio, RowRole, SamplerBound, SamplerCorrection, SamplerLevel, SftTokenWeight,
    Surrogate,
};

/// Inputs of [`policy_loss`] on the host; each table is `[batch][seq]`.
#[derive(Debug, Clone)]
pub struct ScalarBatch {
    /// Log-probabilities under the behaviour policy, nats.
    pub old_log_probs: Vec<Vec<f64>>,
    /// Log-probabilities under the reference policy, nats; read only when `beta` is not 0.
    pub ref_log_probs: Vec<Vec<f64>>,
    /// One advantage per row.
    pub advantages: Vec<f64>,
    /// True = trained token.
    pub completion_mask: Vec<Vec<bool>>,
    /// Totals of the whole batch.
    pub totals: LossTotals,
    /// One role per row.
    pub roles: Vec<RowRole>,
    /// Log-probabilities of the sampler; NaN = none, and `None` = no sampler.
    pub sampler_log_probs: Option<Vec<Vec<f64>>>,
    /// Weight of each token's policy term; `[batch][1]` for weights of sequences.
    pub sampler_weights: Option<Vec<Vec<f64>>>,
    /// True = among the tokens of highest entropy.
    pub is_top_entropy: Option<Vec<Vec<bool>>>,
    /// Entropy of each token, nats; read only with a bonus.
    pub entropies: Vec<Vec<f64>>,
}

/// Twin of [`AdvantageEstimator::advantages`]: `A_i = (r_i - baseline) / scale`, higher = better than its group.
///
/// Mean and deviation are those of the scored members, Bessel-corrected; a group with fewer than two gives 0. Source:
/// that of each variant ([`crate::group_advantages`], [`crate::leave_one_out_advantages`],
/// [`crate::reinforce_plus_plus_advantages`]). Panics unless the groups are whole; rewards are expected to be finite.
///
/// # Shapes
/// - `rewards`: `[questions * group_size]`, group-contiguous; `None` = not scored, advantage 0
/// - `completion_tokens`: `[questions * group_size]`; read by [`AdvantageEstimator::ReinforcePlusPlus`] alone
/// - output: `[questions * group_size]`, in the unit of the rewards, or without unit where they are scaled
pub fn advantages(
    estimator: AdvantageEstimator,
    rewards: &[Option<f32>],
    group_size: usize,
    completion_tokens: &[usize],
) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    let batch_std = std_of(&scored(rewards));
    for start in (0..rewards.len()).step_by(group_size) {
        let group = scored(&rewards[start..start + group_size]);
        let count = group.len() as f64;
        let mean = group.iter().sum::<f64>() / count;
        for i in start..start + group_size {
            let Some(reward) = rewards[i].map(f64::from) else { continue };
            advantages[i] = match estimator {
                _ if group.len() < 2 => 0.0,
                AdvantageEstimator::GroupMean(RewardScale::GroupStd) => (reward - mean) / (std_of(&group) + STD_FLOOR),
                AdvantageEstimator::GroupMean(RewardScale::BatchStd) => (reward - mean) / (batch_std + STD_FLOOR),
                AdvantageEstimator::LeaveOneOut => reward - (mean * count - reward) / (count - 1.0),
                AdvantageEstimator::GroupMean(RewardScale::None) | AdvantageEstimator::ReinforcePlusPlus => {
                    reward - mean
                }
            };
        }
    }
    if estimator == AdvantageEstimator::ReinforcePlusPlus {
        whiten_by_tokens(&mut advantages, rewards, completion_tokens);
    }
    advantages
}

/// Every advantage repeated once a token, whitened as one list.
fn whiten_by_tokens(advantages: &mut [f64], rewards: &[Option<f32>], completion_tokens: &[usize]) {
    let mut tokens = Vec::new();
    for i in 0..advantages.len() {
        if rewards[i].is_some() {
            tokens.extend(std::iter::repeat_n(advantages[i], completion_tokens[i]));
        }
    }
    if tokens.len() < 2 {
        advantages.fill(0.0);
        return;
    }
    let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
    let scale = (std_of(&tokens).powi(2) + VARIANCE_FLOOR).sqrt();
    for i in 0..advantages.len() {
        advantages[i] = if rewards[i].is_some() { (advantages[i] - mean) / scale } else { 0.0 };
    }
}

fn scored(rewards: &[Option<f32>]) -> Vec<f64> {
    rewards.iter().flatten().map(|&r| f64::from(r)).collect()
}

/// Bessel-corrected; 0 for fewer than two values.
fn std_of(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    if values.len() < 2 { 0.0 } else { (squares / (values.len() as f64 - 1.0)).sqrt() }
}

/// Estimate of `KL(policy || reference)` from one token, nats: with `d = ref_log_prob - log_prob`, kept in `[-20, 20]`,
/// `-d` (k1), `d^2 / 2` (k2) or `e^d - d - 1` (k3); positive where the policy has moved away, k1 of either sign.
///
/// Source: J. Schulman, "Approximating KL divergence" (2020).
pub fn kl(log_prob: f64, ref_log_prob: f64, estimator: KlEstimator) -> f64 {
    let d = (ref_log_prob - log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    match estimator {
        KlEstimator::K1 => -d,
        KlEstimator::K2 => d * d / 2.0,
        KlEstimator::K3 => d.exp() - d - 1.0,
    }
}

/// One row of a batch. A stopped gradient sees `frozen` where the formula has the log-probabilities, so that a
/// difference quotient in `log_probs` is the gradient.
#[derive(Debug, Clone, Copy)]
pub struct ScalarRow<'a> {
    /// Log-probabilities, nats.
    pub log_probs: &'a [f64],
    /// Log-probabilities that a stopped gradient sees, nats.
    pub frozen: &'a [f64],
    /// Log-probabilities under the behaviour policy, nats.
    pub old: &'a [f64],
    /// True = trained token.
    pub mask: &'a [bool],
    /// Advantage of the row.
    pub advantage: f64,
    /// Weights of the sampler correction; empty without one.
    pub sampler_weights: &'a [f64],
}

impl ScalarRow<'_> {
    /// Importance ratio of token `t`; 1 where the mask is false.
    pub fn ratio(&self, t: usize, level: RatioLevel) -> f64 {
        let mean = |log_probs: &[f64]| {
            let log_ratios = (0..self.mask.len()).filter(|&t| self.mask[t]).map(|t| log_probs[t] - self.old[t]);
            log_ratios.sum::<f64>() / self.mask.iter().filter(|&&trained| trained).count() as f64
        };
        let log_ratio = match level {
            _ if !self.mask[t] => 0.0,
            RatioLevel::Token => self.log_probs[t] - self.old[t],
            RatioLevel::Sequence => mean(self.log_probs),
            RatioLevel::SequenceToken => self.log_probs[t] - self.frozen[t] + mean(self.frozen),
        };
        log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    }

    fn stopped(&self) -> Self {
        Self { log_probs: self.frozen, ..*self }
    }
}

/// Policy-gradient term of token `t`, to be minimised: the formula of each [`Surrogate`], in the unit of the advantage.
///
/// Falls with the log-probability where `A > 0`, rises where `A < 0`. Without the sampler's weight (but for
/// [`Surrogate::GammaWeight`], which takes it in) and without the aggregation. Source: the paper of each variant.
pub fn surrogate(row: &ScalarRow<'_>, t: usize, config: &GrpoConfig) -> f64 {
    let ratio = row.ratio(t, config.ratio);
    let a = row.advantage;
    match config.surrogate {
        Surrogate::Clipped(clip) => -(ratio * a).min(ratio.clamp(clip.low(), clip.high()) * a),
        Surrogate::TwoSided { clip, max_ratio } => {
            -(ratio.min(max_ratio) * a).min(ratio.clamp(clip.low(), clip.high()) * a)
        }
        Surrogate::DualClip { clip, max_ratio } => {
            let loss = -(ratio * a).min(ratio.clamp(clip.low(), clip.high()) * a);
            if a < 0.0 { loss.min(-max_ratio * a) } else { loss }
        }
        Surrogate::TruncatedRatio { min_ratio, max_ratio } => {
            -row.stopped().ratio(t, config.ratio).clamp(min_ratio, max_ratio) * a * row.log_probs[t]
        }
        Surrogate::SoftGate { temperature_positive, temperature_negative } => {
            let tau = if a > 0.0 { temperature_positive } else { temperature_negative };
            -a * 4.0 / tau / (1.0 + (-tau * (ratio - 1.0)).exp())
        }
        Surrogate::GammaWeight { positive, negative } => {
            let shape = if a >= 0.0 { positive } else { negative };
            let mut log_w = 0.0;
            for s in (0..row.mask.len()).filter(|&s| row.mask[s]) {
                log_w += (row.frozen[s] - row.old[s]).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
            }
            for weight in row.sampler_weights {
                log_w += weight.ln().clamp(MIN_LOG_SEQUENCE_RATIO, MAX_LOG_RATIO);
            }
            let log_w = log_w.clamp(MIN_LOG_SEQUENCE_RATIO, MAX_LOG_RATIO);
            let lambda = shape.lambda.max(1e-4);
            -(lambda + shape.k * log_w - lambda * log_w.exp()).exp() * a * row.log_probs[t]
        }
        Surrogate::GeometricMean(clip) => {
            let (mut sum, mut tokens) = (0.0, 0.0);
            for s in (0..row.mask.len()).filter(|&s| row.mask[s]) {
                let d = (row.log_probs[s] - row.old[s]).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
                let clipped = d.clamp(-clip.epsilon_low, clip.epsilon_high);
                sum += if a < 0.0 { d.max(clipped) } else { d.min(clipped) };
                tokens += 1.0;
            }
            -a * (sum / tokens).exp()
        }
    }
}

/// Twin of [`policy_loss`](crate::policy_loss): the same sum over rows, divided by the totals of the batch, to be
/// minimised.
///
/// Source: DeepSeekMath, arXiv 2402.03300, Equation 3, and the papers that the variants name. Panics where the tables
/// have fewer rows or columns than the mask.
///
/// # Shapes
/// - `log_probs`: `[batch][seq]`, nats, under the current policy
/// - `frozen`: the same at the point where the gradient is taken, see [`ScalarRow`]
/// - output: a number, in the unit of the advantages (KL, entropy and cross-entropy in nats)
pub fn policy_loss(batch: &ScalarBatch, log_probs: &[Vec<f64>], frozen: &[Vec<f64>], config: &GrpoConfig) -> f64 {
    policy_loss_terms(batch, log_probs, frozen, config).iter().sum()
}

/// What [`policy_loss`] adds up: for each trained token its policy, KL, entropy and cross-entropy terms as far as the
/// settings ask for them, with their weights. Their size, not that of the sum, is what rounding is relative to.
pub fn policy_loss_terms(
    batch: &ScalarBatch,
    log_probs: &[Vec<f64>],
    frozen: &[Vec<f64>],
    config: &GrpoConfig,
) -> Vec<f64> {
    let rows = (0..batch.completion_mask.len()).flat_map(|i| {
        let row = ScalarRow {
            log_probs: &log_probs[i],
            frozen: &frozen[i],
            old: &batch.old_log_probs[i],
            mask: &batch.completion_mask[i],
            advantage: batch.advantages[i],
            sampler_weights: batch.sampler_weights.as_ref().map_or(&[], |weights| &weights[i]),
        };
        row_terms(batch, i, &row, config)
    });
    rows.collect()
}

fn row_terms(batch: &ScalarBatch, i: usize, row: &ScalarRow<'_>, config: &GrpoConfig) -> Vec<f64> {
    let trained: Vec<usize> = (0..row.mask.len()).filter(|&t| row.mask[t]).collect();
    let rows = batch.totals.sequences.max(1) as f64;
    let divisor = match config.aggregation {
        LossAggregation::TokenMean => batch.totals.tokens as f64,
        LossAggregation::SeqMeanTokenMean => trained.len() as f64 * rows,
        LossAggregation::SeqMeanTokenSum => rows,
        LossAggregation::TokenSumOverBudget { max_completion_len } => rows * max_completion_len as f64,
    };
    let entropy_weight = config.entropy_coefficient / batch.totals.entropy_tokens.max(1) as f64;
    let (policy_share, sft_share) = config.sft.map_or((1.0, 0.0), |sft| (1.0 - sft.weight, sft.weight));
    let mut terms = Vec::new();
    for t in trained {
        if let (Some(sft), RowOrigin::Teacher) = (config.sft, batch.roles[i].origin) {
            let p = row.frozen[t].min(0.0).exp();
            let weight = match sft.token_weight {
                SftTokenWeight::Uncertainty => p * (1.0 - p),
                SftTokenWeight::Uniform => 1.0,
            };
            terms.push(-sft_share * weight * row.log_probs[t] / batch.totals.sft_tokens.max(1) as f64);
        }
        if batch.roles[i].ratio == RowRatio::Excluded {
            continue;
        }
        terms.push(policy_share * policy_term(batch, i, t, row, config) / divisor);
        if config.beta != 0.0 {
            terms.push(policy_share * config.beta * kl_term(batch.ref_log_probs[i][t], t, row, config) / divisor);
        }
        if config.entropy_coefficient > 0.0 && batch.is_top_entropy.as_ref().is_none_or(|top| top[i][t]) {
            terms.push(-policy_share * entropy_weight * batch.entropies[i][t]);
        }
    }
    terms
}

/// Weighted policy-gradient term of a token.
fn policy_term(batch: &ScalarBatch, i: usize, t: usize, row: &ScalarRow<'_>, config: &GrpoConfig) -> f64 {
    let mut term = match batch.roles[i].ratio {
        RowRatio::BehaviourOne { shaping } => {
            let p = row.log_probs[t].min(0.0).exp();
            -row.advantage * shaping.map_or(p, |gamma| p / (p + gamma))
        }
        _ => surrogate(row, t, config),
    };
    if batch.is_top_entropy.as_ref().is_some_and(|top| !top[i][t]) {
        term = 0.0;
    }
    if let (Some(threshold), true) = (config.off_policy_threshold, row.advantage < 0.0) {
        let sampler = |s: usize| batch.sampler_log_probs.as_ref().map(|sampler| sampler[i][s]).filter(|l| !l.is_nan());
        let behaviour = |s: usize| sampler(s).unwrap_or(row.old[s]);
        let trained: Vec<usize> = (0..row.mask.len()).filter(|&s| row.mask[s]).collect();
        let moved: f64 = trained.iter().map(|&s| behaviour(s) - row.frozen[s]).sum();
        if moved / trained.len() as f64 > threshold {
            term = 0.0;
        }
    }
    match row.sampler_weights {
        _ if matches!(config.surrogate, Surrogate::GammaWeight { .. }) => term,
        [] => term,
        [weight] => term * weight,
        weights => term * weights[t],
    }
}

fn kl_term(reference: f64, t: usize, row: &ScalarRow<'_>, config: &GrpoConfig) -> f64 {
    let value = |log_prob: f64, estimator| kl(log_prob, reference, estimator);
    match config.kl_gradient {
        KlGradient::Own => value(row.log_probs[t], config.kl),
        KlGradient::RatioWeighted => value(row.log_probs[t], config.kl) * row.ratio(t, config.ratio),
        KlGradient::OfK2 => {
            let moved = value(row.log_probs[t], KlEstimator::K2) - value(row.frozen[t], KlEstimator::K2);
            moved + value(row.frozen[t], config.kl)
        }
    }
}

/// `log softmax(logits / temperature)[target]`, nats.
pub fn log_prob(logits: &[f64], target: usize, temperature: f64) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for logit in logits {
        sum += ((logit - max) / temperature).exp();
    }
    (logits[target] - max) / temperature - sum.ln()
}

/// Entropy of `softmax(logits / temperature)`, nats.
pub fn entropy(logits: &[f64], temperature: f64) -> f64 {
    let log_probs = (0..logits.len()).map(|target| log_prob(logits, target, temperature));
    log_probs.map(|log_prob| -log_prob * log_prob.exp()).sum()
}

/// Twin of [`SamplerCorrection`]: `w = clip(pi_old / pi_sampler)`, `[batch][seq]` for tokens, `[batch][1]` for
/// sequences (the product over trained tokens). A token whose sampler log-probability is NaN has ratio 1.
///
/// Source: Yao et al. 2025; IcePop and MIS where the bound masks.
pub fn sampler_weights(
    old: &[Vec<f64>],
    sampler: &[Vec<f64>],
    mask: &[Vec<bool>],
    correction: SamplerCorrection,
) -> Vec<Vec<f64>> {
    let bounded = |log_ratio: f64| {
        let ratio = log_ratio.clamp(-4.0 * MAX_LOG_RATIO, 4.0 * MAX_LOG_RATIO).exp();
        let is_outside = ratio < correction.min_ratio || ratio > correction.max_ratio;
        match correction.bound {
            SamplerBound::Mask if is_outside => 0.0,
            SamplerBound::Mask => ratio,
            SamplerBound::Truncate => ratio.max(correction.min_ratio).min(correction.max_ratio),
        }
    };
    let mut weights = Vec::new();
    for i in 0..old.len() {
        let is_known = |t: usize| mask[i][t] && !sampler[i][t].is_nan();
        let log_ratio = |t: usize| if is_known(t) { old[i][t] - sampler[i][t] } else { 0.0 };
        let tokens = 0..old[i].len();
        weights.push(match correction.level {
            SamplerLevel::Token => tokens.map(|t| bounded(log_ratio(t))).collect(),
            SamplerLevel::Sequence => vec![bounded(tokens.map(log_ratio).sum())],
        });
    }
    weights
}

/// The `level` quantile of some values, `level` in `[0, 1]`, linearly interpolated; NaN for no values.
pub fn quantile(values: &[f64], level: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = level * last as f64;
    let below = position as usize;
    let above = (below + 1).min(last);
    sorted[below] * (1.0 - (position - below as f64)) + sorted[above] * (position - below as f64)
}
