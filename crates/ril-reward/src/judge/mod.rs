//! Judges: who decides whether an answer is right.

mod agreement;
mod cached;
#[cfg(feature = "http")]
mod http;
mod parse;
pub(crate) mod polarity;
mod prompt;
mod rule;
#[cfg(feature = "http")]
mod store;

use std::sync::Arc;

pub use agreement::{Agreement, LabelledAnswer};
pub use cached::CachedJudge;
#[cfg(feature = "http")]
pub use http::HttpJudge;
pub use parse::parse_verdict;
pub use prompt::PromptTemplate;
pub use rule::RuleJudge;
#[cfg(feature = "http")]
pub use store::AnswerStore;

use crate::{Reward, RewardError, Sample};

/// What a judge says about one answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The answer agrees with the ground truth.
    Correct,
    /// The answer does not agree with the ground truth.
    Incorrect,
    /// No verdict could be read; holds what the judge wrote, or why a rule does not apply.
    Unparsed(String),
}

impl Verdict {
    /// [`Correct`](Self::Correct) when `holds`, else [`Incorrect`](Self::Incorrect).
    pub fn of(holds: bool) -> Self {
        if holds { Self::Correct } else { Self::Incorrect }
    }

    /// The verdict as a score: 1, 0, or `None` when unparsed.
    pub fn score(&self) -> Option<f32> {
        match self {
            Self::Correct => Some(1.0),
            Self::Incorrect => Some(0.0),
            Self::Unparsed(_) => None,
        }
    }
}

/// Decides whether answers agree with their ground truth; object safe.
pub trait Judge {
    /// One verdict per sample, in order. A judge behind a network parallelises in here.
    ///
    /// # Errors
    /// A judge that cannot be reached is an error ([`RewardError::failed`]), never a verdict.
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError>;
}

macro_rules! forward_judge {
    ($($pointer:ty),*) => {$(
        impl<T: Judge + ?Sized> Judge for $pointer {
            fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
                (**self).judge(samples)
            }
        }
    )*};
}

forward_judge!(&T, Box<T>, Arc<T>);

/// One verdict per sample, in order: an answer of white space only is wrong without a call, and a judge that gives
/// another number of verdicts than it was given samples is an error under `name`. Whoever asks a judge asks here.
///
/// # Errors
/// The judge's own; [`RewardError::Count`].
///
/// ```
/// use ril_reward::{RuleJudge, Sample, Verdict, judge_answers};
///
/// let samples = [Sample::new("1 + 1?", "2", " "), Sample::new("1 + 1?", "2", "It is 2.")];
/// assert_eq!(judge_answers("rules", &RuleJudge::default(), &samples)?, [Verdict::Incorrect, Verdict::Correct]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub fn judge_answers<J: Judge + ?Sized>(
    name: &str,
    judge: &J,
    samples: &[Sample<'_>],
) -> Result<Vec<Verdict>, RewardError> {
    let asked: Vec<Sample<'_>> = samples.iter().filter(|sample| !sample.is_response_empty()).copied().collect();
    let verdicts = if asked.is_empty() { Vec::new() } else { judge.judge(&asked)? };
    RewardError::check_count(name, asked.len(), verdicts.len())?;
    let mut verdicts = verdicts.into_iter();
    let verdict = |sample: &Sample<'_>| match sample.is_response_empty() {
        true => Verdict::Incorrect,
        false => verdicts.next().expect("counted above: a verdict for each answer that was asked about"),
    };
    Ok(samples.iter().map(verdict).collect())
}

/// Reads a judge's verdicts as scores: 1 for correct, 0 for incorrect, `None` for unparsed.
///
/// An answer of white space only scores 0 and never reaches the judge. Source: the answer reward `Judge(q, a, o)` of
/// RIL, arXiv 2510.19307; the treatment of empty answers and unparsed verdicts is ours.
#[derive(Clone, Debug)]
pub struct JudgeReward<J> {
    judge: J,
    name: String,
}

impl<J: Judge> JudgeReward<J> {
    /// A reward called `judge`.
    pub fn new(judge: J) -> Self {
        Self { judge, name: "judge".to_owned() }
    }

    /// The same reward under another name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The judge within.
    pub fn judge(&self) -> &J {
        &self.judge
    }
}

impl<J: Judge> Reward for JudgeReward<J> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        Ok(judge_answers(&self.name, &self.judge, samples)?.iter().map(Verdict::score).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers from a list and notes what it was asked.
    struct Scripted {
        verdicts: Vec<Verdict>,
        asked: Mutex<Vec<String>>,
    }

    impl Scripted {
        fn new(verdicts: Vec<Verdict>) -> Self {
            Self { verdicts, asked: Mutex::new(Vec::new()) }
        }
    }

    impl Judge for Scripted {
        fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
            let mut asked = self.asked.lock().expect("no panic while held");
            asked.extend(samples.iter().map(|sample| sample.response.to_owned()));
            Ok(self.verdicts.clone())
        }
    }

    struct Unreachable;

    impl Judge for Unreachable {
        fn judge(&self, _: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
            Err(RewardError::failed("judge", "connection refused"))
        }
    }

    fn samples<'a>(responses: &[&'a str]) -> Vec<Sample<'a>> {
        responses.iter().map(|response| Sample::new("?", "7", response)).collect()
    }

    #[test]
    fn verdicts_become_one_zero_and_none() {
        let judge =
            Scripted::new(vec![Verdict::Correct, Verdict::Incorrect, Verdict::Unparsed("hm".into()), Verdict::Correct]);
        let scores = JudgeReward::new(judge).score(&samples(&["a", "b", "c", "d"])).expect("scored");
        assert_eq!(scores, [Some(1.0), Some(0.0), None, Some(1.0)]);
    }

    #[test]
    fn empty_answers_score_zero_without_a_call() {
        let reward = JudgeReward::new(Scripted::new(vec![Verdict::Correct, Verdict::Unparsed(String::new())]));
        let scores = reward.score(&samples(&["", "a", " \n\t", "b", ""])).expect("scored");
        assert_eq!(scores, [Some(0.0), Some(1.0), Some(0.0), None, Some(0.0)]);
        assert_eq!(*reward.judge().asked.lock().expect("no panic while held"), ["a", "b"]);
    }

    #[test]
    fn a_batch_of_empty_answers_needs_no_judge() {
        assert_eq!(JudgeReward::new(Unreachable).score(&samples(&["", " "])).expect("scored"), [Some(0.0); 2]);
        assert!(JudgeReward::new(Unreachable).score(&[]).expect("scored").is_empty());
    }

    #[test]
    fn a_failing_judge_is_an_error_and_keeps_its_cause() {
        let error = JudgeReward::new(Unreachable).score(&samples(&["", "a"])).expect_err("the judge is away");
        assert_eq!(error.to_string(), "judge failed");
        let cause = std::error::Error::source(&error).expect("has a cause");
        assert_eq!(cause.to_string(), "connection refused");
    }

    #[test]
    fn a_judge_that_loses_samples_is_an_error() {
        let error = JudgeReward::new(Scripted::new(vec![Verdict::Correct]))
            .with_name("short")
            .score(&samples(&["a", "b"]))
            .expect_err("one verdict for two samples");
        assert_eq!(error.to_string(), "short: expected 2 results, got 1");
    }

    #[test]
    fn judges_and_rewards_are_object_safe_and_forward() {
        let judge: Box<dyn Judge> = Box::new(Scripted::new(vec![Verdict::Correct]));
        let reward: Box<dyn Reward> = Box::new(JudgeReward::new(&judge));
        assert_eq!(reward.score(&samples(&["a"])).expect("scored"), [Some(1.0)]);
        assert_eq!(reward.name(), "judge");
    }
}
