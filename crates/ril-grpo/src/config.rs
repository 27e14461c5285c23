//! What the loss computes, as one validated value with a preset for each named method.

use burn::config::Config;

use crate::advantage::AdvantageEstimator;
use crate::surrogate::{above, in_range};
use crate::{
    ClipRange, GammaShape, GrpoError, KlEstimator, KlGradient, LossAggregation, RatioLevel, RewardScale, SftTerm,
    Surrogate,
};

/// Settings of [`AdvantageEstimator::advantages`] and [`policy_loss`](crate::policy_loss).
///
/// ```
/// use ril_grpo::GrpoConfig;
///
/// let config = GrpoConfig::ril(1024).with_beta(0.04);
/// config.validate().unwrap();
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct GrpoConfig {
    /// Policy-gradient term of a token. Default: clipped at 0.2 on both sides (PPO, arXiv 1707.06347).
    #[config(default = "Surrogate::Clipped(ClipRange { epsilon_low: 0.2, epsilon_high: 0.2 })")]
    pub surrogate: Surrogate,
    /// Level of the importance ratio. Default one ratio per token (PPO and GRPO).
    #[config(default = "RatioLevel::Token")]
    pub ratio: RatioLevel,
    /// Weight of the KL term, per token, nats, `>= 0`. With 0 no reference is needed. Default 0 (Dr.GRPO, DAPO).
    #[config(default = 0.0)]
    pub beta: f64,
    /// KL estimator. Default k3 (DeepSeekMath, arXiv 2402.03300).
    #[config(default = "KlEstimator::K3")]
    pub kl: KlEstimator,
    /// Where the gradient of the KL term comes from. Default: the estimator's own.
    #[config(default = "KlGradient::Own")]
    pub kl_gradient: KlGradient,
    /// Weight of the entropy bonus, `>= 0`: the loss is lessened by this times the mean entropy per token. With 0 no
    /// entropies are needed. Default 0. For an adaptive one see [`EntropyController`](crate::EntropyController).
    #[config(default = 0.0)]
    pub entropy_coefficient: f64,
    /// Largest mean of `sampler - current` log-probabilities, nats per token and above 0, at which a row of *negative*
    /// advantage still counts; a row beyond it has no policy-gradient term. The batch's sampler log-probabilities where it
    /// has them, else the old ones. Default none. Source: off-policy sequence masking, DeepSeek-V3.2, arXiv 2512.02556.
    pub off_policy_threshold: Option<f64>,
    /// Supervised term on teacher rows. Default none.
    pub sft: Option<SftTerm>,
    /// How token losses become one number. No default: it changes the numbers.
    pub aggregation: LossAggregation,
    /// How rewards become advantages. No default: it changes the numbers.
    pub advantage: AdvantageEstimator,
}

impl GrpoConfig {
    /// GRPO (DeepSeekMath, arXiv 2402.03300): mean over the tokens of a row, then over rows; advantages divided by
    /// the group's std; k3 KL with beta 0.04. The clip, 0.2 on both sides, is PPO's: the paper names none.
    pub fn grpo() -> Self {
        Self::scaled(LossAggregation::SeqMeanTokenMean).with_beta(0.04)
    }

    /// Dr.GRPO (arXiv 2503.20783): sum of tokens over a constant budget, advantages not divided, no KL, clip 0.2.
    ///
    /// `max_completion_len`: longest completion the sampler may produce, in tokens, at least 1.
    pub fn dr_grpo(max_completion_len: usize) -> Self {
        let aggregation = LossAggregation::TokenSumOverBudget { max_completion_len };
        Self::new(aggregation, AdvantageEstimator::GroupMean(RewardScale::None))
    }

    /// RIL (arXiv 2510.19307, Equation 2 and Table 5): Dr.GRPO with beta 0.01 and clip 0.2.
    ///
    /// `max_completion_len`: longest completion the sampler may produce, in tokens, at least 1.
    pub fn ril(max_completion_len: usize) -> Self {
        Self::dr_grpo(max_completion_len).with_beta(0.01)
    }

    /// BNPO in TRL's sense: GRPO without KL, mean over all tokens of the batch. Differs from TRL, which takes the mean
    /// in each micro-batch.
    pub fn bnpo() -> Self {
        Self::scaled(LossAggregation::TokenMean)
    }

    /// DAPO (arXiv 2503.14476): mean over all tokens of the batch, clip 0.2 below and 0.28 above, advantages divided
    /// by the group's std, no KL. Its filter of constant groups is [`filter_groups`](crate::filter_groups), its
    /// overlong penalty [`soft_overlong_penalty`](crate::soft_overlong_penalty).
    pub fn dapo() -> Self {
        Self::bnpo().with_surrogate(Surrogate::Clipped(ClipRange::new(0.2, 0.28)))
    }

    /// GSPO (arXiv 2507.18071, section 5.1): one ratio per sequence, clip `3e-4` below and `4e-4` above, no KL.
    pub fn gspo() -> Self {
        Self::scaled(LossAggregation::SeqMeanTokenMean)
            .with_ratio(RatioLevel::Sequence)
            .with_surrogate(Surrogate::Clipped(ClipRange::new(3e-4, 4e-4)))
    }

    /// GSPO-token (arXiv 2507.18071, section 4.3): GSPO with each token's own gradient.
    pub fn gspo_token() -> Self {
        Self::gspo().with_ratio(RatioLevel::SequenceToken)
    }

    /// CISPO (MiniMax-M1, arXiv 2506.13585): truncated weights on `log pi`, mean over all tokens, no KL. The bound 5 is
    /// ScaleRL's (arXiv 2510.13786), as in TRL's recipe.
    pub fn cispo() -> Self {
        Self::bnpo().with_surrogate(Surrogate::TruncatedRatio { min_ratio: 0.0, max_ratio: 5.0 })
    }

    /// SAPO (arXiv 2511.20347): soft gate with temperatures 1.0 and 1.05, mean over each row's tokens, no KL.
    pub fn sapo() -> Self {
        let surrogate = Surrogate::SoftGate { temperature_positive: 1.0, temperature_negative: 1.05 };
        Self::scaled(LossAggregation::SeqMeanTokenMean).with_surrogate(surrogate)
    }

    /// LUSPO (arXiv 2602.05261): GSPO's ratio, each sequence weighted by its length, clip 2e-3 below and 2.5e-3 above
    /// (the paper's, as TRL's paper index gives them), no KL.
    pub fn luspo() -> Self {
        let surrogate = Surrogate::Clipped(ClipRange::new(2e-3, 2.5e-3));
        Self { aggregation: LossAggregation::SeqMeanTokenSum, ..Self::gspo().with_surrogate(surrogate) }
    }

    /// VESPO (arXiv 2602.10693): gamma-shaped weights of sequences on `log pi`, mean over all tokens, no KL.
    pub fn vespo() -> Self {
        let (positive, negative) = (GammaShape { k: 2.0, lambda: 3.0 }, GammaShape { k: 3.0, lambda: 2.0 });
        Self::bnpo().with_surrogate(Surrogate::GammaWeight { positive, negative })
    }

    /// GMPO (arXiv 2507.20673): geometric mean of the row's ratios, log-ratios clipped at 0.4, no KL.
    pub fn gmpo() -> Self {
        Self::scaled(LossAggregation::SeqMeanTokenMean)
            .with_surrogate(Surrogate::GeometricMean(ClipRange::new(0.4, 0.4)))
    }

    /// RLOO (arXiv 2402.14740): leave-one-out advantages, summed over a row's tokens, no KL term in the loss. With one
    /// update a sample the clip is idle and this is REINFORCE.
    pub fn rloo() -> Self {
        Self::new(LossAggregation::SeqMeanTokenSum, AdvantageEstimator::LeaveOneOut)
    }

    /// REINFORCE++ with a group baseline (arXiv 2501.03262): advantages whitened over the tokens of the batch, mean
    /// over all tokens, k2 KL with beta 0.01 (ours).
    pub fn reinforce_plus_plus() -> Self {
        Self::new(LossAggregation::TokenMean, AdvantageEstimator::ReinforcePlusPlus)
            .with_kl(KlEstimator::K2)
            .with_beta(0.01)
    }

    fn scaled(aggregation: LossAggregation) -> Self {
        Self::new(aggregation, AdvantageEstimator::GroupMean(RewardScale::GroupStd))
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`GrpoError::Config`] with the first broken constraint.
    pub fn validate(&self) -> Result<(), GrpoError> {
        self.surrogate.validate()?;
        in_range("beta", self.beta, 0.0, f64::MAX)?;
        in_range("entropy_coefficient", self.entropy_coefficient, 0.0, f64::MAX)?;
        if let Some(threshold) = self.off_policy_threshold {
            above("off_policy_threshold", threshold, 0.0)?;
        }
        if let Some(sft) = self.sft {
            in_range("sft weight", sft.weight, 0.0, 1.0)?;
        }
        match (self.aggregation, self.surrogate) {
            (LossAggregation::TokenSumOverBudget { max_completion_len: 0 }, _) => {
                Err(GrpoError::Config("max_completion_len: expected at least 1, got 0".into()))
            }
            // Its weight belongs to the sequence already.
            (_, Surrogate::GammaWeight { .. } | Surrogate::GeometricMean(_)) if self.ratio != RatioLevel::Token => {
                let ratio = self.ratio;
                Err(GrpoError::Config(format!("ratio: expected Token with a surrogate of sequences, got {ratio:?}")))
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
        let presets = [
            GrpoConfig::grpo(),
            GrpoConfig::dr_grpo(7),
            GrpoConfig::ril(7),
            GrpoConfig::bnpo(),
            GrpoConfig::dapo(),
            GrpoConfig::gspo(),
            GrpoConfig::gspo_token(),
            GrpoConfig::cispo(),
            GrpoConfig::sapo(),
            GrpoConfig::luspo(),
            GrpoConfig::vespo(),
            GrpoConfig::gmpo(),
            GrpoConfig::rloo(),
            GrpoConfig::reinforce_plus_plus(),
        ];
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
        assert_eq!(config.surrogate, Surrogate::Clipped(ClipRange::default()));
        assert_eq!(config.advantage, AdvantageEstimator::GroupMean(RewardScale::None));
    }

    #[test]
    fn each_broken_range_is_named() {
        let ril = || GrpoConfig::ril(8);
        let with = |surrogate| ril().with_surrogate(surrogate);
        let clip = |low, high| with(Surrogate::Clipped(ClipRange::new(low, high)));
        let range = ClipRange::default();
        let one = GammaShape { k: 1.0, lambda: 1.0 };
        let gamma = |k, lambda| Surrogate::GammaWeight { positive: GammaShape { k, lambda }, negative: one };
        let gate = |temperature_positive, temperature_negative| {
            with(Surrogate::SoftGate { temperature_positive, temperature_negative })
        };
        let sft = |weight| ril().with_sft(Some(SftTerm { weight, token_weight: crate::SftTokenWeight::Uniform }));
        let cases = [
            (clip(-0.1, 0.2), "epsilon_low"),
            (clip(1.5, 0.2), "epsilon_low"),
            (clip(f64::NAN, 0.2), "epsilon_low"),
            (clip(0.2, f64::INFINITY), "epsilon_high"),
            (clip(0.2, -1.0), "epsilon_high"),
            (with(Surrogate::GeometricMean(ClipRange::new(-1.0, 0.4))), "epsilon_low"),
            (with(Surrogate::TwoSided { clip: range, max_ratio: 1.1 }), "max_ratio"),
            (with(Surrogate::DualClip { clip: range, max_ratio: 1.0 }), "max_ratio"),
            (with(Surrogate::TruncatedRatio { min_ratio: 1.5, max_ratio: 2.0 }), "min_ratio"),
            (with(Surrogate::TruncatedRatio { min_ratio: 0.0, max_ratio: 0.5 }), "max_ratio"),
            (gate(0.0, 1.0), "temperature_positive"),
            (gate(1.0, f64::NAN), "temperature_negative"),
            (with(gamma(-1.0, 1.0)), "k"),
            (with(gamma(1.0, 0.0)), "lambda"),
            (GrpoConfig::vespo().with_ratio(RatioLevel::Sequence), "ratio"),
            (GrpoConfig::gmpo().with_ratio(RatioLevel::SequenceToken), "ratio"),
            (ril().with_beta(f64::NAN), "beta"),
            (ril().with_beta(-0.5), "beta"),
            (ril().with_entropy_coefficient(-0.1), "entropy_coefficient"),
            (ril().with_off_policy_threshold(Some(0.0)), "off_policy_threshold"),
            (sft(1.5), "sft weight"),
            (GrpoConfig::dr_grpo(0), "max_completion_len"),
        ];
        for (config, name) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("config: {name}")), "{message}");
        }
    }
}
