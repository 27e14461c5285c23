//! The `f64` twin of every formula, in obvious loops: slow, and the yardstick of the tensor code.

use crate::advantage::STD_FLOOR;
use crate::{GrpoConfig, KlEstimator, LossAggregation, LossTotals, MAX_LOG_RATIO, RatioLevel, RewardScale};

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
}

/// Twin of [`group_advantages`](crate::group_advantages); expects whole groups of finite rewards.
pub fn group_advantages(rewards: &[Option<f32>], group_size: usize, scale: RewardScale) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    for start in (0..rewards.len()).step_by(group_size) {
        let members = start..start + group_size;
        let mut count = 0.0;
        let mut sum = 0.0;
        for i in members.clone() {
            if let Some(reward) = rewards[i] {
                count += 1.0;
                sum += f64::from(reward);
            }
        }
        if count < 2.0 {
            continue;
        }
        let mean = sum / count;
        let mut squares = 0.0;
        for i in members.clone() {
            if let Some(reward) = rewards[i] {
                squares += (f64::from(reward) - mean) * (f64::from(reward) - mean);
            }
        }
        let std = (squares / (count - 1.0)).sqrt();
        for i in members {
            if let Some(reward) = rewards[i] {
                advantages[i] = f64::from(reward) - mean;
                if scale == RewardScale::GroupStd {
                    advantages[i] /= std + STD_FLOOR;
                }
            }
        }
    }
    advantages
}

/// KL estimate of one token, nats.
pub fn kl(log_prob: f64, ref_log_prob: f64, estimator: KlEstimator) -> f64 {
    let d = (ref_log_prob - log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    match estimator {
        KlEstimator::K1 => -d,
        KlEstimator::K2 => d * d / 2.0,
        KlEstimator::K3 => d.exp() - d - 1.0,
    }
}

/// Importance ratio of each token of a row; 1 where the mask is false.
pub fn ratios(log_probs: &[f64], old: &[f64], mask: &[bool], level: RatioLevel) -> Vec<f64> {
    let mut log_ratios = vec![0.0; mask.len()];
    let mut sum = 0.0;
    let mut tokens: f64 = 0.0;
    for t in 0..mask.len() {
        if mask[t] {
            log_ratios[t] = log_probs[t] - old[t];
            sum += log_ratios[t];
            tokens += 1.0;
        }
    }
    for t in 0..mask.len() {
        if mask[t] && level == RatioLevel::Sequence {
            log_ratios[t] = sum / tokens;
        }
    }
    let clamp = |d: &f64| d.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
    log_ratios.iter().map(clamp).collect()
}

/// Clipped surrogate of one token, to be minimised.
pub fn surrogate(ratio: f64, advantage: f64, config: &GrpoConfig) -> f64 {
    let clipped = ratio.clamp(1.0 - config.epsilon_low, 1.0 + config.epsilon_high);
    -(ratio * advantage).min(clipped * advantage)
}

/// Twin of [`policy_loss`](crate::policy_loss).
pub fn policy_loss(batch: &ScalarBatch, log_probs: &[Vec<f64>], config: &GrpoConfig) -> f64 {
    let rows = batch.totals.sequences as f64;
    let mut loss = 0.0;
    for (i, mask) in batch.completion_mask.iter().enumerate() {
        let ratios = ratios(&log_probs[i], &batch.old_log_probs[i], mask, config.ratio);
        let mut row_sum = 0.0;
        let mut row_tokens: f64 = 0.0;
        for t in 0..mask.len() {
            if !mask[t] {
                continue;
            }
            row_tokens += 1.0;
            row_sum += surrogate(ratios[t], batch.advantages[i], config);
            if config.beta != 0.0 {
                row_sum += config.beta * kl(log_probs[i][t], batch.ref_log_probs[i][t], config.kl);
            }
        }
        if row_tokens == 0.0 {
            continue;
        }
        loss += match config.aggregation {
            LossAggregation::TokenMean => row_sum / batch.totals.tokens as f64,
            LossAggregation::SeqMeanTokenMean => row_sum / row_tokens / rows,
            LossAggregation::TokenSumOverBudget { max_completion_len } => row_sum / (rows * max_completion_len as f64),
        };
    }
    loss
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
