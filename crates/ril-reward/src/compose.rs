use crate::{Reward, RewardError, Sample};

/// Columns of scores with the names of their rewards.
pub type NamedScores<'a> = Vec<(&'a str, Vec<Option<f32>>)>;

/// One column of a weighted sum.
#[derive(Clone, Copy, Debug)]
pub struct WeightedScores<'a> {
    /// Name of the reward, unique in the sum.
    pub name: &'a str,
    /// Finite; may be negative (a penalty) or 0 (logged, not counted).
    pub weight: f32,
    /// One score per sample; `None` = not scored.
    pub scores: &'a [Option<f32>],
}

/// Weighted sum of score columns: `R_i = sum_k weight_k * score_ki`.
///
/// A sample that **any** column could not score is `None`, whatever the weight. Columns are summed in `f64` in the
/// order of their names, so that the order given never changes a bit. No column gives no scores.
/// Source: `R = similarity + answer` of RIL, arXiv 2510.19307, Eq. 2, is the case of two weights of 1.
///
/// # Errors
/// [`RewardError::Count`] for columns of different length, [`RewardError::DuplicateName`],
/// [`RewardError::NonFiniteScore`] for a score or a sum, [`RewardError::Config`] for a weight that is not finite.
///
/// ```
/// use ril_reward::{WeightedScores, weighted_sum};
///
/// let rewards = weighted_sum(&[
///     WeightedScores { name: "similarity", weight: 1.0, scores: &[Some(1.0), Some(0.0)] },
///     WeightedScores { name: "judge", weight: 1.0, scores: &[Some(1.0), None] },
/// ])?;
/// assert_eq!(rewards, [Some(2.0), None]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
pub fn weighted_sum(columns: &[WeightedScores<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
    let mut columns = columns.to_vec();
    columns.sort_by_key(|column| column.name);
    let rows = columns.first().map_or(0, |column| column.scores.len());
    for column in &columns {
        RewardError::check_count(column.name, rows, column.scores.len())?;
        check_weight(column.name, column.weight)?;
        check_finite(column.name, column.scores)?;
    }
    if let Some(pair) = columns.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(RewardError::DuplicateName(pair[0].name.to_owned()));
    }
    let total = |row: usize| {
        let terms = columns.iter().map(|column| Some(f64::from(column.weight) * f64::from(column.scores[row]?)));
        terms.sum::<Option<f64>>().map(|total| total as f32)
    };
    finite("weighted sum", (0..rows).map(total).collect())
}

/// Scores that count only where a gate is open: `R_i = gate_i * score_i`, `None` where either is.
///
/// Source: the judge-gated product of VARL, arXiv 2607.01181.
///
/// # Errors
/// [`RewardError::Count`] for columns of different length, [`RewardError::NonFiniteScore`] for a gate, a score or a
/// product that is not finite.
pub fn gate_scores(gate: &[Option<f32>], scores: &[Option<f32>]) -> Result<Vec<Option<f32>>, RewardError> {
    RewardError::check_count("gate", scores.len(), gate.len())?;
    check_finite("gate", gate)?;
    check_finite("gated score", scores)?;
    finite("gate", gate.iter().zip(scores).map(|(gate, score)| Some((*gate)? * (*score)?)).collect())
}

/// Scores kept in `[min, max]`; `None` stays.
///
/// # Errors
/// [`RewardError::Config`] unless `min <= max`, [`RewardError::NonFiniteScore`] for a score that is not finite.
pub fn clip_scores(scores: &[Option<f32>], min: f32, max: f32) -> Result<Vec<Option<f32>>, RewardError> {
    check_range(min, max)?;
    check_finite("clip", scores)?;
    finite("clip", scores.iter().map(|score| score.map(|score| score.clamp(min, max))).collect())
}

fn check_weight(name: &str, weight: f32) -> Result<(), RewardError> {
    if weight.is_finite() {
        return Ok(());
    }
    Err(RewardError::Config(format!("weight of {name:?}: expected a finite number, got {weight}")))
}

fn check_range(min: f32, max: f32) -> Result<(), RewardError> {
    if min <= max {
        return Ok(());
    }
    Err(RewardError::Config(format!("clip: expected min <= max, got {min} and {max}")))
}

/// `scores`, once [`check_finite`] has passed them.
fn finite(name: &str, scores: Vec<Option<f32>>) -> Result<Vec<Option<f32>>, RewardError> {
    check_finite(name, &scores).map(|()| scores)
}

fn check_finite(name: &str, scores: &[Option<f32>]) -> Result<(), RewardError> {
    let broken = scores.iter().enumerate().find_map(|(index, score)| Some((index, score.filter(|s| !s.is_finite())?)));
    match broken {
        Some((index, value)) => Err(RewardError::NonFiniteScore { name: name.to_owned(), index, value }),
        None => Ok(()),
    }
}

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
    /// Those of the terms.
    pub fn term_scores(&self, samples: &[Sample<'_>]) -> Result<NamedScores<'_>, RewardError> {
        self.terms.iter().map(|(_, reward)| Ok((reward.name(), reward.score(samples)?))).collect()
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
        RewardError::check_count(columns[0].name, samples.len(), columns[0].scores.len())?;
        weighted_sum(&columns)
    }
}

/// [`gate_scores`] as a reward: `gate * reward`, named after the reward.
#[derive(Clone, Debug)]
pub struct JudgeGate<G, R> {
    gate: G,
    reward: R,
}

impl<G: Reward, R: Reward> JudgeGate<G, R> {
    /// `reward` where `gate` scores 1, 0 where `gate` scores 0.
    pub fn new(gate: G, reward: R) -> Self {
        Self { gate, reward }
    }
}

impl<G: Reward, R: Reward> Reward for JudgeGate<G, R> {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        gate_scores(&self.gate.score(samples)?, &self.reward.score(samples)?)
    }
}

/// [`clip_scores`] as a reward, named after the reward within.
#[derive(Clone, Debug)]
pub struct Clip<R> {
    reward: R,
    min: f32,
    max: f32,
}

impl<R: Reward> Clip<R> {
    /// `reward` kept in `[min, max]`.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless `min <= max`.
    pub fn new(reward: R, min: f32, max: f32) -> Result<Self, RewardError> {
        check_range(min, max)?;
        Ok(Self { reward, min, max })
    }
}

impl<R: Reward> Reward for Clip<R> {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
        clip_scores(&self.reward.score(samples)?, self.min, self.max)
    }
}
