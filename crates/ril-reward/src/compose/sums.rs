use super::{NamedScores, WeightedScores, check_weight, min_scores, score_part, weighted_sum};
use crate::{Reward, RewardError, Sample};

/// [`weighted_sum`] of rewards chosen at run time; itself a reward.
///
/// ```
/// use ril_reward::{ExactMatch, JudgeReward, Reward, RuleJudge, Sample, WeightedSum};
///
/// let sum = WeightedSum::new("total")
///     .with(1.0, JudgeReward::new(RuleJudge::default()))?
///     .with(0.5, ExactMatch::default())?;
/// assert_eq!(sum.score(&[Sample::new("3 + 4?", "7", "It is 7.")])?, [Some(1.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub struct WeightedSum {
    name: String,
    terms: Vec<(f32, Box<dyn Reward + Send + Sync>)>,
}

impl WeightedSum {
    /// A sum without terms; it scores nothing until it gets one.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), terms: Vec::new() }
    }

    /// Adds a term.
    ///
    /// # Errors
    /// [`RewardError::DuplicateName`]; [`RewardError::Config`] for a weight that is not finite.
    pub fn with(mut self, weight: f32, reward: impl Reward + Send + Sync + 'static) -> Result<Self, RewardError> {
        check_weight(reward.name(), weight)?;
        if self.terms.iter().any(|(_, term)| term.name() == reward.name()) {
            return Err(RewardError::DuplicateName(reward.name().to_owned()));
        }
        self.terms.push((weight, Box::new(reward)));
        Ok(self)
    }

    /// The scores of each term, unweighted, with the term's name: what metrics are made of.
    ///
    /// # Errors
    /// [`RewardError::Part`] with the name and the error of the first term that fails or panics.
    pub fn term_scores(&self, samples: &[Sample<'_>]) -> Result<NamedScores<'_>, RewardError> {
        let scores = |reward: &(dyn Reward + Send + Sync)| score_part(&self.name, reward, samples);
        self.terms.iter().map(|(_, reward)| Ok((reward.name(), scores(&**reward)?))).collect()
    }
}

impl Reward for WeightedSum {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        let scored = self.term_scores(samples)?;
        let columns: Vec<_> = self
            .terms
            .iter()
            .zip(&scored)
            .map(|((weight, _), (name, scores))| WeightedScores { name, weight: *weight, scores })
            .collect();
        if columns.is_empty() {
            return Ok(vec![None; samples.len()]);
        }
        weighted_sum(&columns)
    }
}

/// [`min_scores`] of rewards chosen at run time; itself a reward.
///
/// ```
/// use ril_reward::{ExactMatch, MinOf, NumericMatch, Reward, Sample};
///
/// let both = MinOf::new("both").with(NumericMatch::default())?.with(ExactMatch::default())?;
/// let samples = [Sample::new("3 + 4?", "7", "7"), Sample::new("3 + 4?", "7", "It is 7.")];
/// assert_eq!(both.score(&samples)?, [Some(1.0), Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub struct MinOf {
    name: String,
    parts: Vec<Box<dyn Reward + Send + Sync>>,
}

impl MinOf {
    /// A minimum of nothing; it scores nothing until it gets a part.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), parts: Vec::new() }
    }

    /// Adds a part.
    ///
    /// # Errors
    /// [`RewardError::DuplicateName`].
    pub fn with(mut self, reward: impl Reward + Send + Sync + 'static) -> Result<Self, RewardError> {
        if self.parts.iter().any(|part| part.name() == reward.name()) {
            return Err(RewardError::DuplicateName(reward.name().to_owned()));
        }
        self.parts.push(Box::new(reward));
        Ok(self)
    }
}

impl Reward for MinOf {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        if self.parts.is_empty() {
            return Ok(vec![None; samples.len()]);
        }
        let scores = self.parts.iter().map(|part| score_part(&self.name, &**part, samples));
        let scores = scores.collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<_> = self.parts.iter().zip(&scores).map(|(part, scores)| (part.name(), &**scores)).collect();
        min_scores(&columns)
    }
}
