//! Logit to reward.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::GailError;
use crate::score::{sigmoid, softplus};

/// Largest teacher-like logit that enters [`SimilarityReward::Fairl`]: `e^t` of a larger one leaves `f32`.
pub const MAX_FAIRL_LOGIT: f64 = 20.0;

/// `t = -logit`: the logit of P(written by a teacher), high where a response reads like a teacher's.
///
/// The **one place that turns the sign**: discriminators speak `logits_student_is_high` (Eq. 1 of RIL, arXiv
/// 2510.19307), rewards and the papers of the imitation literature speak `t = logit(D)` with `D` = P(expert).
///
/// ```
/// assert_eq!(ril_gail::teacher_like_logit(-3.0), 3.0);
/// ```
pub fn teacher_like_logit(logit_student_is_high: f32) -> f64 {
    // Not a bare negation, which would make a negative zero of zero.
    0.0 - f64::from(logit_student_is_high)
}

/// How the discriminator's opinion of a response becomes its reward.
///
/// With `t` the [`teacher_like_logit`] and `D = sigmoid(t)` = P(written by a teacher). All are computed in `f64` from
/// the logit, never from a rounded probability, and are finite for any finite logit.
///
/// | variant | reward | range | `t -> -inf` | `t = 0` | `t -> inf` |
/// |---|---|---|---|---|---|
/// | `Step` | `1[t > 0]` | `{0, 1}` | 0 | 0 | 1 |
/// | `Levels` | `(ceil(k D) - 1) / (k - 1)` | `{0, 1/(k-1), .., 1}` | 0 | `(ceil(k/2) - 1) / (k - 1)` | 1 |
/// | `Probability` | `D` | `[0, 1]` | 0 | 1/2 | 1 |
/// | `Softplus` | `-log(1 - D)` | `[0, inf)` | 0, as `e^t` | `ln 2` | as `t` |
/// | `LogOdds` | `t` | all | as `t` | 0 | as `t` |
/// | `Fairl` | `-t e^t` | `(-inf, 1/e]` | 0, from above | 0 | falls as `-t e^t`, held from `t = 20` |
/// | `Dail` | `D (tanh t + 1) / 2` | `[0, 1]` | 0, as `e^3t` | 1/4 | 1 |
///
/// `docs/similarity_rewards.svg` of the repository draws them all, from these values.
///
/// Every variant but `Fairl` never falls with `t`. `Softplus` is nowhere negative and `LogOdds` takes both signs: where
/// an episode can end early, the first rewards staying alive and the second may reward ending it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SimilarityReward {
    /// `1[t > 0]`, 0 at exactly 0: RIL, arXiv 2510.19307, Eq. 2 (binary beats continuous and multi-level, Fig.
    /// 6).
    #[default]
    Step,
    /// `k` equal levels of `D`: `(ceil(k D) - 1) / (k - 1)`, at least 0. A level's upper end belongs to it, so that `k
    /// = 2` is [`Step`](Self::Step), strict at 1/2. RIL compares multi-level rewards in Fig. 6 without a formula; this
    /// one is ours.
    Levels {
        /// Number of levels, at least 2.
        k: NonZeroU32,
    },
    /// `D`: the continuous reward of RIL's Fig. 6. Saturates on both sides.
    Probability,
    /// `-log(1 - D) = log(1 + e^t)`: GAIL, arXiv 1606.03476, with the reward of its common implementations
    /// (`imitation`'s `RewardNetFromDiscriminatorLogit`). Unbounded above, saturates at 0 below.
    Softplus,
    /// `log D - log(1 - D) = t`: AIRL, arXiv 1710.11248, without its policy term. Unbounded on both sides.
    LogOdds,
    /// `-t e^t`: FAIRL, arXiv 1911.02256, whose maximum `1/e` is at `t = -1`; the forward KL. `t` is held at
    /// [`MAX_FAIRL_LOGIT`], ours: the reward is never below `-20 e^20` = -9.7e9. Not monotone, the only one.
    Fairl,
    /// `sigmoid(t) (tanh(t) + 1) / 2`: DAIL, arXiv 2510.00922. Saturates on both sides, faster below.
    Dail,
}

impl SimilarityReward {
    /// `k` levels.
    ///
    /// # Errors
    /// [`GailError::Config`] when `k` is less than 2.
    pub fn levels(k: u32) -> Result<Self, GailError> {
        let levels = NonZeroU32::new(k).map(|k| Self::Levels { k });
        let levels = levels.ok_or_else(|| GailError::Config("similarity levels: expected at least 2, got 0".into()))?;
        levels.validate()?;
        Ok(levels)
    }

    /// Checks the number of levels.
    ///
    /// # Errors
    /// [`GailError::Config`].
    pub fn validate(self) -> Result<(), GailError> {
        match self {
            Self::Levels { k } if k.get() < 2 => {
                Err(GailError::Config(format!("similarity levels: expected at least 2, got {k}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether it asks on which side of a fixed logit a response lies, and so needs a discriminator whose logits have a
    /// zero: `Step` and `Levels`.
    pub fn has_threshold(self) -> bool {
        matches!(self, Self::Step | Self::Levels { .. })
    }

    /// The reward of one response, by the formula of the variant.
    ///
    /// `logit_student_is_high`: finite ([`logits_of_rows`](crate::logits_of_rows) refuses others). NaN gives 0 under
    /// [`Step`](Self::Step) and NaN elsewhere.
    ///
    /// ```
    /// use ril_gail::SimilarityReward;
    ///
    /// assert_eq!([-2.0, 0.0, 2.0].map(|logit| SimilarityReward::Step.reward_of_logit(logit)), [1.0, 0.0, 0.0]);
    /// assert_eq!(SimilarityReward::LogOdds.reward_of_logit(-2.0), 2.0);
    /// ```
    pub fn reward_of_logit(self, logit_student_is_high: f32) -> f32 {
        let t = teacher_like_logit(logit_student_is_high);
        let reward = match self {
            Self::Step => f64::from(u8::from(t > 0.0)),
            Self::Levels { k } => level(sigmoid(t), k),
            Self::Probability => sigmoid(t),
            Self::Softplus => softplus(t),
            Self::LogOdds => t,
            Self::Fairl => fairl(t.min(MAX_FAIRL_LOGIT)),
            // (tanh t + 1) / 2 = sigmoid(2t), without cancellation at the lower end.
            Self::Dail => sigmoid(t) * sigmoid(2.0 * t),
        };
        reward as f32
    }
}

fn level(p_teacher: f64, k: NonZeroU32) -> f64 {
    let k = f64::from(k.get());
    let last = (k - 1.0).max(1.0);
    ((k * p_teacher).ceil() - 1.0).clamp(0.0, last) / last
}

fn fairl(t: f64) -> f64 {
    -t * t.exp() + 0.0
}

/// Similarity reward: `1[p_student < 0.5]`, 1 = reads like a teacher, **0 at exactly 0.5** (strict).
///
/// Source: RIL, arXiv 2510.19307, Eq. 2. A discriminator that knows nothing (`p_student = 0.5`) rewards nobody;
/// so does NaN, which [`p_student`](crate::p_student) refuses before it gets here. [`SimilarityReward::Step`] is the
/// same from the logit.
///
/// ```
/// use ril_gail::similarity_reward;
///
/// assert_eq!([0.0, 0.49, 0.5, 0.51, 1.0].map(similarity_reward), [1.0, 1.0, 0.0, 0.0, 0.0]);
/// ```
pub fn similarity_reward(p_student: f32) -> f32 {
    if p_student < 0.5 { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use SimilarityReward::{Dail, Fairl, LogOdds, Probability, Softplus, Step};
    use proptest::prelude::*;

    use super::*;
    use crate::p_student;

    fn levels(k: u32) -> SimilarityReward {
        SimilarityReward::levels(k).expect("at least 2")
    }

    fn of_teacher_like(reward: SimilarityReward, t: f32) -> f64 {
        f64::from(reward.reward_of_logit(-t))
    }

    #[test]
    fn the_step_is_strict() {
        assert_eq!([0.0, -0.0].map(|logit| Step.reward_of_logit(logit)), [0.0, 0.0]);
        assert_eq!(similarity_reward(0.5), 0.0);
        assert_eq!(similarity_reward(0.5_f32.next_down()), 1.0);
        assert_eq!(similarity_reward(f32::NAN), 0.0);
        assert_eq!(Step.reward_of_logit(f32::NAN), 0.0);
        assert_eq!([-1e4, -1e-30, 1e-30, 1e4].map(|logit| Step.reward_of_logit(logit)), [1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn ends_and_middle_are_those_of_the_table() {
        let ln_2 = std::f64::consts::LN_2;
        let fairl_floor = -20.0 * 20.0_f64.exp();
        let table = [
            (Step, [0.0, 0.0, 1.0]),
            (levels(2), [0.0, 0.0, 1.0]),
            (levels(3), [0.0, 0.5, 1.0]),
            (levels(4), [0.0, 1.0 / 3.0, 1.0]),
            (levels(5), [0.0, 0.5, 1.0]),
            (Probability, [0.0, 0.5, 1.0]),
            (Softplus, [0.0, ln_2, 1e4]),
            (LogOdds, [-1e4, 0.0, 1e4]),
            (Fairl, [0.0, 0.0, fairl_floor]),
            (Dail, [0.0, 0.25, 1.0]),
        ];
        for (reward, expected) in table {
            for (t, expected) in [-1e4, 0.0, 1e4].into_iter().zip(expected) {
                let got = of_teacher_like(reward, t);
                assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{reward:?} at {t}: {got} {expected}");
            }
        }
    }

    #[test]
    fn hand_made_values() {
        // By a pocket calculator: sigmoid(1) = 0.7310586, tanh(1) = 0.7615942, sigmoid(-1) = 0.2689414.
        let cases = [
            (Probability, 1.0, 0.731_058_6),
            (Softplus, 1.0, 1.313_261_7),
            (Softplus, -1.0, 0.313_261_7),
            (LogOdds, -1.5, -1.5),
            (Fairl, 1.0, -std::f64::consts::E),
            (Fairl, -1.0, 0.367_879_4),
            (Dail, 1.0, 0.643_914_3),
            (Dail, -1.0, 0.032_058_6),
            (levels(4), 1.0, 2.0 / 3.0),
            (levels(10), -1.0, 2.0 / 9.0),
        ];
        for (reward, t, expected) in cases {
            let got = of_teacher_like(reward, t);
            assert!((got - expected).abs() < 2e-7 * expected.abs().max(1.0), "{reward:?} at {t}: {got} {expected}");
        }
    }

    #[test]
    fn too_few_levels_are_refused() {
        for k in [0, 1] {
            let error = SimilarityReward::levels(k).expect_err("one level says nothing").to_string();
            assert_eq!(error, format!("invalid setting: similarity levels: expected at least 2, got {k}"));
        }
        assert!(SimilarityReward::Levels { k: NonZeroU32::MIN }.reward_of_logit(0.0).is_finite());
    }

    #[test]
    fn json_names_the_variant_and_refuses_no_levels() {
        for reward in [Step, levels(7), Dail] {
            let text = serde_json::to_string(&reward).expect("serialisable");
            assert_eq!(serde_json::from_str::<SimilarityReward>(&text).expect("its own JSON"), reward);
        }
        assert!(serde_json::from_str::<SimilarityReward>(r#"{"Levels":{"k":0}}"#).is_err());
    }

    fn any_reward() -> impl Strategy<Value = SimilarityReward> {
        let k = (2_u32..40).prop_map(levels);
        prop_oneof![Just(Step), k, Just(Probability), Just(Softplus), Just(LogOdds), Just(Fairl), Just(Dail)]
    }

    fn range(reward: SimilarityReward) -> (f64, f64) {
        match reward {
            Softplus => (0.0, f64::INFINITY),
            LogOdds => (f64::NEG_INFINITY, f64::INFINITY),
            Fairl => (f64::NEG_INFINITY, 0.367_879_5),
            _ => (0.0, 1.0),
        }
    }

    proptest! {
        #[test]
        fn step_is_the_reward_of_p_student(logit in -1e4_f32..1e4) {
            let [p] = p_student(&[logit]).expect("finite")[..] else { panic!("one row") };
            // Within rounding of 0 the probability is 1/2 while the logit still has a side.
            prop_assume!(logit.abs() > 1e-6);
            prop_assert_eq!(Step.reward_of_logit(logit), similarity_reward(p));
            prop_assert_eq!(levels(2).reward_of_logit(logit), similarity_reward(p));
        }

        #[test]
        fn rewards_are_finite_and_keep_their_range(reward in any_reward(), t in -1e4_f32..1e4) {
            let (least, most) = range(reward);
            let got = of_teacher_like(reward, t);
            prop_assert!(got.is_finite() && least <= got && got <= most, "{:?} {}", reward, got);
        }

        #[test]
        fn rewards_never_fall_with_the_teacher_like_logit(
            reward in any_reward(), a in -50_f32..50.0, b in -50_f32..50.0,
        ) {
            let (low, high) = (of_teacher_like(reward, a.min(b)), of_teacher_like(reward, a.max(b)));
            match reward {
                // Rises up to -1, falls from there.
                Fairl => {
                    let (a, b) = (a.min(b), a.max(b));
                    prop_assert!(b > -1.0 || low <= high);
                    prop_assert!(a < -1.0 || low >= high);
                }
                _ => prop_assert!(low <= high, "{:?}", reward),
            }
        }

        #[test]
        fn levels_are_k_equal_steps(k in 2_u32..20, logit in -20_f32..20.0) {
            let got = f64::from(levels(k).reward_of_logit(logit)) * f64::from(k - 1);
            prop_assert!((got - got.round()).abs() < 1e-5, "one of k levels");
            let p_teacher = sigmoid(teacher_like_logit(logit));
            let (floor, ceiling) = (got.round() / f64::from(k), (got.round() + 1.0) / f64::from(k));
            prop_assert!(floor - 1e-12 <= p_teacher && p_teacher <= ceiling + 1e-12);
        }
    }
}
