//! What the loss computes, as one validated value with a preset for each named method.

use burn::config::Config;

use crate::{GrpoError, KlEstimator, LossAggregation, RatioLevel, RewardScale};

/// Settings of [`group_advantages`](crate::group_advantages) and [`policy_loss`](crate::policy_loss).
///
/// ```
/// use ril_grpo::GrpoConfig;
///
/// let config = GrpoConfig::ril(1024).with_beta(0.04);
/// config.validate().unwrap();
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct GrpoConfig {
    /// Lower clip width, in `[0, 1]`: the ratio is kept above `1 - epsilon_low`. Default 0.2 (PPO, arXiv 1707.06347).
    #[config(default = 0.2)]
    pub epsilon_low: f64,
    /// Upper clip width, `>= 0`: the ratio is kept below `1 + epsilon_high`. Default 0.2 (PPO, arXiv 1707.06347);
    /// DAPO widens it to 0.28.
    #[config(default = 0.2)]
    pub epsilon_high: f64,
    /// Weight of the KL term, per token, nats, `>= 0`. With 0 no reference is needed. Default 0 (Dr.GRPO, DAPO).
    #[config(default = 0.0)]
    pub beta: f64,
    /// KL estimator. Default k3 (DeepSeekMath, arXiv 2402.03300).
    #[config(default = "KlEstimator::K3")]
    pub kl: KlEstimator,
    /// Level of the importance ratio. Default one ratio per token (PPO and GRPO).
    #[config(default = "RatioLevel::Token")]
    pub ratio: RatioLevel,
    /// How token losses become one number. No default: it changes the numbers.
    pub aggregation: LossAggregation,
    /// Scale of the advantages inside a group. No default: it changes the numbers.
    pub reward_scale: RewardScale,
}

impl GrpoConfig {
    /// GRPO (DeepSeekMath, arXiv 2402.03300): mean over the tokens of a row, then over rows; advantages divided by
    /// the group's std; k3 KL with beta 0.04; clip 0.2 on both sides.
    pub fn grpo() -> Self {
        Self::new(LossAggregation::SeqMeanTokenMean, RewardScale::GroupStd).with_beta(0.04)
    }

    /// Dr.GRPO (arXiv 2503.20783): sum of tokens over a constant budget, advantages not divided, no KL, clip 0.2.
    ///
    /// `max_completion_len`: longest completion the sampler may produce, in tokens, at least 1.
    pub fn dr_grpo(max_completion_len: usize) -> Self {
        let aggregation = LossAggregation::TokenSumOverBudget { max_completion_len };
        Self::new(aggregation, RewardScale::None)
    }

    /// DAPO (arXiv 2503.14476): mean over all tokens of the batch, clip 0.2 below and 0.28 above, advantages divided
    /// by the group's std, no KL. Its filter of zero-variance groups and its overlong penalty belong to the rewards.
    pub fn dapo() -> Self {
        Self::new(LossAggregation::TokenMean, RewardScale::GroupStd).with_epsilon_high(0.28)
    }

    /// GSPO (arXiv 2507.18071, section 5.1): one ratio per sequence, clip `3e-4` below and `4e-4` above, no KL.
    pub fn gspo() -> Self {
        Self::new(LossAggregation::SeqMeanTokenMean, RewardScale::GroupStd)
            .with_ratio(RatioLevel::Sequence)
            .with_epsilon_low(3e-4)
            .with_epsilon_high(4e-4)
    }

    /// RIL (arXiv 2510.19307, Equation 2 and section 4): Dr.GRPO with beta 0.01 and clip 0.2.
    ///
    /// `max_completion_len`: longest completion the sampler may produce, in tokens, at least 1.
    pub fn ril(max_completion_len: usize) -> Self {
        Self::dr_grpo(max_completion_len).with_beta(0.01)
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`GrpoError::Config`] with the first broken constraint.
    pub fn validate(&self) -> Result<(), GrpoError> {
        let broken = |message: String| Err(GrpoError::Config(message));
        if !(0.0..=1.0).contains(&self.epsilon_low) {
            return broken(format!("epsilon_low: expected 0..=1, got {}", self.epsilon_low));
        }
        for (name, value) in [("epsilon_high", self.epsilon_high), ("beta", self.beta)] {
            if !(value.is_finite() && value >= 0.0) {
                return broken(format!("{name}: expected a finite value >= 0, got {value}"));
            }
        }
        match self.aggregation {
            LossAggregation::TokenSumOverBudget { max_completion_len: 0 } => {
                broken("max_completion_len: expected at least 1, got 0".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_json() {
        let presets =
            [GrpoConfig::grpo(), GrpoConfig::dr_grpo(7), GrpoConfig::dapo(), GrpoConfig::gspo(), GrpoConfig::ril(7)];
        for config in presets {
            config.validate().unwrap();
            let json = config.to_string();
            assert_eq!(GrpoConfig::load_binary(json.as_bytes()).unwrap(), config);
        }
    }

    #[test]
    fn ril_is_dr_grpo_with_a_small_kl() {
        let config = GrpoConfig::ril(512);
        assert_eq!(config, GrpoConfig::dr_grpo(512).with_beta(0.01));
        assert_eq!((config.epsilon_low, config.epsilon_high), (0.2, 0.2));
        assert_eq!(config.reward_scale, RewardScale::None);
    }

    #[test]
    fn each_broken_range_is_named() {
        let ril = || GrpoConfig::ril(8);
        let cases = [
            (ril().with_epsilon_low(-0.1), "epsilon_low"),
            (ril().with_epsilon_low(1.5), "epsilon_low"),
            (ril().with_epsilon_low(f64::NAN), "epsilon_low"),
            (ril().with_epsilon_high(f64::INFINITY), "epsilon_high"),
            (ril().with_epsilon_high(-1.0), "epsilon_high"),
            (ril().with_beta(f64::NAN), "beta"),
            (ril().with_beta(-0.5), "beta"),
            (GrpoConfig::dr_grpo(0), "max_completion_len"),
        ];
        for (config, name) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
