use std::error::Error;

use crate::compose::check_finite;
use crate::{Reward, RewardError, Sample, rule};

/// A reward made of a function of one sample: see [`per_sample`].
#[derive(Clone, Debug)]
pub struct PerSample<F> {
    name: String,
    rule: F,
}

/// The reward called `name` that scores each sample by `rule`; large batches run in parallel.
///
/// # Errors
/// Scoring fails with the first sample of the batch that does, and names it: [`RewardError::Sample`] for an error of
/// `rule`, with its cause; [`RewardError::Panicked`] for a panic (not in a program that aborts on panics; the panic hook
/// still prints); [`RewardError::NonFiniteScore`].
///
/// ```
/// use ril_reward::{Reward, Sample, per_sample};
///
/// let reward = per_sample("digits", |sample: &Sample<'_>| -> Result<Option<f32>, std::num::ParseIntError> {
///     Ok(Some(sample.response.trim().parse::<i32>()?.ilog10() as f32 + 1.0))
/// });
/// assert_eq!(reward.score(&[Sample::new("?", "", "123")])?, [Some(3.0)]);
///
/// let samples = [Sample::new("?", "", "5"), Sample::new("?", "", "five"), Sample::new("?", "", "0")];
/// let error = reward.score(&samples).expect_err("sample 1 is no number, and 0 has no logarithm");
/// assert_eq!(error.to_string(), "digits: sample 1 failed");
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub fn per_sample<F, E>(name: impl Into<String>, rule: F) -> PerSample<F>
where
    F: Fn(&Sample<'_>) -> Result<Option<f32>, E> + Sync,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    PerSample { name: name.into(), rule }
}

impl<F, E> Reward for PerSample<F>
where
    F: Fn(&Sample<'_>) -> Result<Option<f32>, E> + Sync,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        let score = |index: usize, sample: &Sample<'_>| {
            let failed = |cause: E| RewardError::Sample { name: self.name.clone(), index, source: cause.into() };
            (self.rule)(sample).map_err(failed)
        };
        let scores = rule::each(&self.name, samples, score)?;
        check_finite(&self.name, &scores)?;
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(responses: &[String]) -> Result<Vec<Option<f32>>, RewardError> {
        let reward = per_sample("picky", |sample: &Sample<'_>| match sample.response {
            "panic" => panic!("cannot read {:?}", sample.response),
            "error" => Err("no good"),
            "nan" => Ok(Some(f32::NAN)),
            "none" => Ok(None),
            _ => Ok(Some(1.0)),
        });
        let samples: Vec<_> = responses.iter().map(|response| Sample::new("?", "", response)).collect();
        reward.score(&samples)
    }

    /// Small batches run on one thread, large ones on several.
    fn batches(special: &[(usize, &str)]) -> [Vec<String>; 2] {
        [10, 2000].map(|length| {
            let response = |i: usize| special.iter().find(|(at, _)| *at == i).map_or("fine", |(_, text)| text);
            (0..length).map(|i| response(i).to_owned()).collect()
        })
    }

    #[test]
    fn the_first_failure_is_named_whatever_thread_met_it() {
        for responses in batches(&[(3, "panic"), (5, "error"), (9, "nan")]) {
            let error = score(&responses).expect_err("three samples fail");
            assert_eq!(error.to_string(), "picky: sample 3: panicked: cannot read \"panic\"");
        }
        for responses in batches(&[(3, "error"), (5, "panic")]) {
            let error = score(&responses).expect_err("two samples fail");
            assert_eq!(error.to_string(), "picky: sample 3 failed");
            assert_eq!(error.source().expect("has a cause").to_string(), "no good");
        }
        for responses in batches(&[(4, "nan")]) {
            let error = score(&responses).expect_err("no number");
            assert_eq!(error.to_string(), "picky: score 4 is not finite: NaN");
        }
    }

    #[test]
    fn samples_that_cannot_be_scored_stay_so() {
        for responses in batches(&[(2, "none")]) {
            let scores = score(&responses).expect("scored");
            assert_eq!((scores.len(), scores[1], scores[2]), (responses.len(), Some(1.0), None));
        }
    }
}
