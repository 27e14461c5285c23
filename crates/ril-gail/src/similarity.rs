/// How `p_student` becomes a reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum SimilarityReward {
    /// `1[p_student < 0.5]`: RIL, arXiv 2510.19307, section 3.3 (binary beats continuous and multi-level, Fig. 6).
    #[default]
    Step,
}

impl SimilarityReward {
    /// The reward of one response, high where it reads like a teacher's; `p_student` in `[0, 1]`.
    pub fn reward(self, p_student: f32) -> f32 {
        match self {
            Self::Step => similarity_reward(p_student),
        }
    }
}

/// Similarity reward: `1[p_student < 0.5]`, 1 = reads like a teacher, **0 at exactly 0.5** (strict).
///
/// Source: RIL, arXiv 2510.19307, section 3.3. A discriminator that knows nothing (`p_student = 0.5`) rewards nobody;
/// so does NaN, which [`p_student`](crate::p_student) refuses before it gets here.
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
    use proptest::prelude::*;

    use super::*;
    use crate::p_student;

    fn reward(logit: f32) -> f32 {
        let [p_student] = p_student(&[logit]).expect("finite")[..] else { panic!("one row") };
        SimilarityReward::Step.reward(p_student)
    }

    #[test]
    fn the_step_is_strict() {
        assert_eq!(reward(0.0), 0.0);
        assert_eq!(similarity_reward(0.5), 0.0);
        assert_eq!(similarity_reward(0.5_f32.next_down()), 1.0);
        assert_eq!(similarity_reward(f32::NAN), 0.0);
        assert_eq!([-1e4, -0.1, 0.1, 1e4].map(reward), [1.0, 1.0, 0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn reward_is_binary_and_never_rises_with_the_logit(a in -1e4_f32..1e4, b in -1e4_f32..1e4) {
            let (low, high) = (reward(a.min(b)), reward(a.max(b)));
            prop_assert!(low == 0.0 || low == 1.0);
            prop_assert!(high <= low);
        }
    }
}
