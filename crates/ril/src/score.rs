//! Scores to rewards to advantages: pure, on the host.

use ril_gail::SimilarityReward;
use ril_reward::{Judge, Sample, Verdict, WeightedScores, judge_answers, weighted_sum};

use crate::config::RewardWeights;
use crate::error::RilError;
use crate::group::Group;

/// What the two judges of a response said; one entry a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// The discriminator's logits, high = student; `None` without a discriminator.
    pub logits_student_is_high: Option<Vec<f32>>,
    /// Whether the answer is right.
    pub verdicts: Vec<Verdict>,
}

/// Asks the judge about every response, rows in order, through [`judge_answers`].
///
/// # Errors
/// [`RilError::Reward`]; a judge that cannot be reached never becomes a 0.
pub fn judge_groups<J: Judge>(judge: &J, groups: &[Group]) -> Result<Vec<Verdict>, RilError> {
    let rows: Vec<Sample<'_>> = groups
        .iter()
        .flat_map(|g| g.responses.iter().map(move |r| Sample::new(&g.question.text, &g.question.answer, &r.text)))
        .collect();
    Ok(judge_answers("judge", judge, &rows)?)
}

/// `R = w_s 1[p_student < 0.5] + w_a 1[right]`, one a row; a row whose verdict could not be read has none.
///
/// Source: arXiv 2510.19307, below Eq. 2 (both weights 1).
///
/// # Errors
/// [`RilError::Reward`] when the scores are of different lengths.
pub fn rewards(
    scores: &Scores,
    weights: RewardWeights,
    similarity: SimilarityReward,
) -> Result<Vec<Option<f32>>, RilError> {
    let answer: Vec<Option<f32>> = scores.verdicts.iter().map(Verdict::score).collect();
    let mut columns = vec![WeightedScores { name: "answer", weight: weights.answer, scores: &answer }];
    let logits = scores.logits_student_is_high.as_ref();
    let alike: Option<Vec<Option<f32>>> =
        logits.map(|logits| logits.iter().map(|&logit| Some(similarity.reward_of_logit(logit))).collect());
    if let Some(alike) = &alike {
        columns.push(WeightedScores { name: "similarity", weight: weights.similarity, scores: alike });
    }
    Ok(weighted_sum(&columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: RewardWeights = RewardWeights { similarity: 1.0, answer: 1.0 };

    #[test]
    fn both_rewards_add_up_and_unread_verdicts_have_none() {
        let scores = Scores {
            logits_student_is_high: Some(vec![-1.4, -1.4, 0.0, 2.2, -2.2]),
            verdicts: vec![
                Verdict::Correct,
                Verdict::Incorrect,
                Verdict::Correct,
                Verdict::Incorrect,
                Verdict::Unparsed("?".into()),
            ],
        };
        let got = rewards(&scores, WEIGHTS, SimilarityReward::Step).unwrap();
        assert_eq!(got, [Some(2.0), Some(1.0), Some(1.0), Some(0.0), None]);
    }

    #[test]
    fn without_a_discriminator_the_answer_decides() {
        let scores = Scores { logits_student_is_high: None, verdicts: vec![Verdict::Correct, Verdict::Incorrect] };
        assert_eq!(rewards(&scores, WEIGHTS, SimilarityReward::Step).unwrap(), [Some(1.0), Some(0.0)]);
    }
}
