//! The numbers of every preset, written out: a changed constant is a decision, with a source.

use ril_grpo::{
    AdvantageEstimator, ClipRange, GammaShape, GrpoConfig, KlEstimator, KlGradient, LossAggregation, RatioLevel,
    RewardScale, Surrogate,
};

const BUDGET: usize = 1024;

fn clipped(epsilon_low: f64, epsilon_high: f64) -> Surrogate {
    Surrogate::Clipped(ClipRange { epsilon_low, epsilon_high })
}

/// What presets differ in; the rest is off in all of them.
struct Pin {
    surrogate: Surrogate,
    ratio: RatioLevel,
    kl: (KlEstimator, f64),
    aggregation: LossAggregation,
    advantage: AdvantageEstimator,
}

/// Per-token clip at 0.2 (PPO, arXiv 1707.06347), no KL (k3 where it is only measured: arXiv 2402.03300, Equation 4),
/// the mean over all tokens, the group's deviation.
const BASE: Pin = Pin {
    surrogate: Surrogate::Clipped(ClipRange { epsilon_low: 0.2, epsilon_high: 0.2 }),
    ratio: RatioLevel::Token,
    kl: (KlEstimator::K3, 0.0),
    aggregation: LossAggregation::TokenMean,
    advantage: AdvantageEstimator::GroupMean(RewardScale::GroupStd),
};

fn pins() -> Vec<(&'static str, GrpoConfig, Pin)> {
    use LossAggregation::{SeqMeanTokenMean, SeqMeanTokenSum, TokenMean, TokenSumOverBudget};
    let budget = TokenSumOverBudget { max_completion_len: BUDGET };
    let centred = AdvantageEstimator::GroupMean(RewardScale::None);
    vec![
        // DeepSeekMath, arXiv 2402.03300: Equation 3, KL coefficient 0.04
        ("grpo", GrpoConfig::grpo(), Pin { kl: (KlEstimator::K3, 0.04), aggregation: SeqMeanTokenMean, ..BASE }),
        // Dr.GRPO, arXiv 2503.20783
        ("dr_grpo", GrpoConfig::dr_grpo(BUDGET), Pin { aggregation: budget, advantage: centred, ..BASE }),
        // RIL, arXiv 2510.19307: Equation 2 and Table 5
        (
            "ril",
            GrpoConfig::ril(BUDGET),
            Pin { kl: (KlEstimator::K3, 0.01), aggregation: budget, advantage: centred, ..BASE },
        ),
        // TRL 1.16, loss_type "bnpo"
        ("bnpo", GrpoConfig::bnpo(), Pin { ..BASE }),
        // DAPO, arXiv 2503.14476: Equation 8, clip 0.2 / 0.28
        ("dapo", GrpoConfig::dapo(), Pin { surrogate: clipped(0.2, 0.28), ..BASE }),
        // GSPO, arXiv 2507.18071: clip 3e-4 / 4e-4 (section 5.1)
        (
            "gspo",
            GrpoConfig::gspo(),
            Pin { surrogate: clipped(3e-4, 4e-4), ratio: RatioLevel::Sequence, aggregation: SeqMeanTokenMean, ..BASE },
        ),
        // GSPO-token, arXiv 2507.18071, section 4.3
        (
            "gspo_token",
            GrpoConfig::gspo_token(),
            Pin {
                surrogate: clipped(3e-4, 4e-4),
                ratio: RatioLevel::SequenceToken,
                aggregation: SeqMeanTokenMean,
                ..BASE
            },
        ),
        // CISPO, arXiv 2506.13585, no lower bound; upper bound 5 of ScaleRL, arXiv 2510.13786
        (
            "cispo",
            GrpoConfig::cispo(),
            Pin { surrogate: Surrogate::TruncatedRatio { min_ratio: 0.0, max_ratio: 5.0 }, ..BASE },
        ),
        // SAPO, arXiv 2511.20347: temperatures 1.0 and 1.05
        (
            "sapo",
            GrpoConfig::sapo(),
            Pin {
                surrogate: Surrogate::SoftGate { temperature_positive: 1.0, temperature_negative: 1.05 },
                aggregation: SeqMeanTokenMean,
                ..BASE
            },
        ),
        // LUSPO, arXiv 2602.05261: clip 2e-3 / 2.5e-3 as TRL's paper index gives it
        (
            "luspo",
            GrpoConfig::luspo(),
            Pin { surrogate: clipped(2e-3, 2.5e-3), ratio: RatioLevel::Sequence, aggregation: SeqMeanTokenSum, ..BASE },
        ),
        // VESPO, arXiv 2602.10693: k and lambda as TRL 1.16's defaults
        (
            "vespo",
            GrpoConfig::vespo(),
            Pin {
                surrogate: Surrogate::GammaWeight {
                    positive: GammaShape { k: 2.0, lambda: 3.0 },
                    negative: GammaShape { k: 3.0, lambda: 2.0 },
                },
                ..BASE
            },
        ),
        // GMPO, arXiv 2507.20673: log-ratios clipped to (e^-0.4, e^0.4)
        (
            "gmpo",
            GrpoConfig::gmpo(),
            Pin {
                surrogate: Surrogate::GeometricMean(ClipRange { epsilon_low: 0.4, epsilon_high: 0.4 }),
                aggregation: SeqMeanTokenMean,
                ..BASE
            },
        ),
        // RLOO, arXiv 2402.14740
        (
            "rloo",
            GrpoConfig::rloo(),
            Pin { aggregation: SeqMeanTokenSum, advantage: AdvantageEstimator::LeaveOneOut, ..BASE },
        ),
        // REINFORCE++ with a baseline, arXiv 2501.03262: k2; the coefficient is ours
        (
            "reinforce_plus_plus",
            GrpoConfig::reinforce_plus_plus(),
            Pin {
                kl: (KlEstimator::K2, 0.01),
                aggregation: TokenMean,
                advantage: AdvantageEstimator::ReinforcePlusPlus,
                ..BASE
            },
        ),
    ]
}

#[test]
fn every_preset_has_the_numbers_of_its_source() {
    for (name, preset, pin) in pins() {
        let Pin { surrogate, ratio, kl: (kl, beta), aggregation, advantage } = pin;
        let expected = GrpoConfig {
            surrogate,
            ratio,
            beta,
            kl,
            kl_gradient: KlGradient::Own,
            entropy_coefficient: 0.0,
            off_policy_threshold: None,
            sft: None,
            aggregation,
            advantage,
        };
        assert_eq!(preset, expected, "{name}");
    }
}

#[test]
fn the_defaults_are_those_of_ppo_without_kl() {
    let config = GrpoConfig::new(BASE.aggregation, BASE.advantage);
    assert_eq!(config, GrpoConfig::bnpo());
    assert_eq!(clipped(0.2, 0.2), Surrogate::Clipped(ClipRange::default()));
}
