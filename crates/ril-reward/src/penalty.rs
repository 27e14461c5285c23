use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{RewardError, Sample, rule};

/// What the length of an answer is counted in. Tokens are the policy's: see `ril_grpo::soft_overlong_penalty`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TextUnit {
    /// Stretches without white space.
    #[default]
    Words,
    /// Unicode scalar values, white space included: for languages that part no words.
    Characters,
}

/// Penalty on long answers, in `[-1, 0]`: 0 up to `max_length - cache`, then linear down to -1 at `max_length` and beyond.
///
/// Source: the soft overlong punishment of DAPO, arXiv 2503.14476, Eq. 13, there in tokens. A model that cannot be
/// counted in tokens here, such as a teacher behind a server, is counted in words or characters of its text.
///
/// ```
/// use ril_reward::{LengthPenalty, Reward, Sample, TextUnit};
///
/// let penalty = LengthPenalty { max_length: 10, cache: 4, unit: TextUnit::Characters };
/// let samples = ["123456", "12345678", "1234567890", "12345678901"].map(|text| Sample::new("?", "", text));
/// assert_eq!(penalty.score(&samples)?, [Some(0.0), Some(-0.5), Some(-1.0), Some(-1.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthPenalty {
    /// Length from which the penalty is -1, in `unit`, at least 1.
    pub max_length: usize,
    /// Width of the slope before it, in `unit`, 1 to `max_length`.
    pub cache: usize,
    /// What both are counted in.
    pub unit: TextUnit,
}

impl LengthPenalty {
    /// Checks the lengths, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless `1 <= cache <= max_length`.
    pub fn validate(&self) -> Result<(), RewardError> {
        if (1..=self.max_length).contains(&self.cache) {
            return Ok(());
        }
        Err(RewardError::Config(format!("cache: expected 1 to max_length {}, got {}", self.max_length, self.cache)))
    }

    /// The score of one sample.
    pub fn score_of(&self, sample: &Sample<'_>) -> Option<f32> {
        let length = match self.unit {
            TextUnit::Words => sample.response.split_whitespace().count(),
            TextUnit::Characters => sample.response.chars().count(),
        };
        let over = length.saturating_sub(self.max_length.saturating_sub(self.cache));
        Some(if over == 0 { 0.0 } else { -(over as f64 / self.cache as f64).min(1.0) as f32 })
    }
}

rule::impl_score!(LengthPenalty, "length", validate);

/// Penalty on repetition, in `[-weight, 0]`: `-weight (1 - different / all)` over the n-grams of an answer.
///
/// 0 where every n-gram is another one, and for an answer shorter than one; near `-weight` for an answer that says one
/// thing over and over. Letter case does not count.
///
/// Source: after the repetition penalty of arXiv 2502.03373, appendix C.2, which is paid by each repeated token; the share
/// of a whole answer is that of Open R1 (words) and TRL (token ids).
///
/// ```
/// use ril_reward::{RepetitionPenalty, Reward, Sample};
///
/// let penalty = RepetitionPenalty { ngram_size: 2, ..RepetitionPenalty::default() };
/// let samples = ["go go go go go", "a b c d e", "go"].map(|text| Sample::new("?", "", text));
/// assert_eq!(penalty.score(&samples)?, [Some(-0.75), Some(0.0), Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepetitionPenalty {
    /// Units per n-gram, at least 1; default 3, that of TRL.
    pub ngram_size: usize,
    /// Largest penalty, finite and not negative; default 1.
    pub weight: f32,
    /// What an n-gram is made of; default [`TextUnit::Words`].
    pub unit: TextUnit,
}

impl Default for RepetitionPenalty {
    fn default() -> Self {
        Self { ngram_size: 3, weight: 1.0, unit: TextUnit::default() }
    }
}

impl RepetitionPenalty {
    /// Checks size and weight, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`] for n-grams of nothing, and for a weight that is negative or not finite.
    pub fn validate(&self) -> Result<(), RewardError> {
        if self.ngram_size == 0 {
            return Err(RewardError::Config("ngram_size: expected at least 1, got 0".into()));
        }
        if !(self.weight.is_finite() && self.weight >= 0.0) {
            return Err(RewardError::Config(format!("weight: expected a number of at least 0, got {}", self.weight)));
        }
        Ok(())
    }

    /// The score of one sample.
    pub fn score_of(&self, sample: &Sample<'_>) -> Option<f32> {
        let text = sample.response.to_lowercase();
        let repeated = match self.unit {
            TextUnit::Words => repeated_share(&text.split_whitespace().collect::<Vec<_>>(), self.ngram_size),
            TextUnit::Characters => repeated_share(&text.chars().collect::<Vec<_>>(), self.ngram_size),
        };
        Some(if repeated == 0.0 { 0.0 } else { -(f64::from(self.weight) * repeated) as f32 })
    }
}

rule::impl_score!(RepetitionPenalty, "repetition", validate);

/// `1 - different / all` over the n-grams; 0 without any.
fn repeated_share<T: Eq + std::hash::Hash>(units: &[T], ngram_size: usize) -> f64 {
    let all = (units.len() + 1).saturating_sub(ngram_size.max(1));
    if all == 0 {
        return 0.0;
    }
    let different = units.windows(ngram_size.max(1)).collect::<HashSet<_>>().len();
    1.0 - different as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Reward;

    fn length(max_length: usize, cache: usize, words: usize) -> f32 {
        let response = "word ".repeat(words);
        let penalty = LengthPenalty { max_length, cache, unit: TextUnit::Words };
        penalty.score_of(&Sample::new("?", "", &response)).expect("always scored")
    }

    fn repetition(ngram_size: usize, response: &str) -> f32 {
        let penalty = RepetitionPenalty { ngram_size, ..RepetitionPenalty::default() };
        penalty.score_of(&Sample::new("?", "", response)).expect("always scored")
    }

    #[test]
    fn broken_settings_are_refused() {
        for (max_length, cache) in [(0, 0), (10, 0), (10, 11)] {
            let penalty = LengthPenalty { max_length, cache, unit: TextUnit::Words };
            assert!(matches!(penalty.score(&[]), Err(RewardError::Config(_))), "{max_length} {cache}");
        }
        for (ngram_size, weight) in [(0, 1.0), (1, -1.0), (1, f32::NAN), (1, f32::INFINITY)] {
            let penalty = RepetitionPenalty { ngram_size, weight, unit: TextUnit::Words };
            assert!(matches!(penalty.score(&[]), Err(RewardError::Config(_))), "{ngram_size} {weight}");
            let _ = penalty.score_of(&Sample::new("?", "", "a a a"));
        }
    }

    #[test]
    fn case_and_white_space_do_not_count() {
        assert_eq!(repetition(1, "Go go\n\nGO"), -(2.0_f32 / 3.0));
        assert_eq!(repetition(3, "go go"), 0.0);
        let characters = RepetitionPenalty { ngram_size: 1, unit: TextUnit::Characters, weight: 0.5 };
        assert_eq!(characters.score_of(&Sample::new("?", "", "哈哈哈哈")), Some(-0.375));
    }

    proptest! {
        #[test]
        fn a_longer_answer_is_never_better(max_length in 1_usize..40, share in 0.0_f64..1.0, words in 0_usize..60) {
            let cache = 1 + ((max_length - 1) as f64 * share) as usize;
            let (shorter, longer) = (length(max_length, cache, words), length(max_length, cache, words + 1));
            prop_assert!((-1.0..=0.0).contains(&shorter) && longer <= shorter);
            prop_assert_eq!(shorter == 0.0, words <= max_length - cache);
            prop_assert_eq!(shorter == -1.0, words >= max_length);
        }

        #[test]
        fn repetition_is_bounded_and_saying_it_twice_is_worse(text in "[a-c ]{0,30}", other in any::<String>(), ngram_size in 1_usize..5) {
            for text in [&text, &other] {
                prop_assert!((-1.0..=0.0).contains(&repetition(ngram_size, text)));
            }
            let thrice = [&*text, &*text, &*text].join(" ");
            prop_assert!(repetition(ngram_size, &thrice) <= repetition(ngram_size, &text) + 1e-6);
        }
    }
}
