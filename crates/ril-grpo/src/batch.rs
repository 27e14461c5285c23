//! What the loss needs besides the current log-probabilities, checked once.

use std::ops::Range;

use burn::tensor::{Bool, DType, Tensor, TensorData};

use crate::entropy::top_entropy_threshold;
use crate::error::check_shape;
use crate::rows::RowTensors;
use crate::surrogate::in_range;
use crate::{GrpoError, LossTotals, RowOrigin, RowRatio, RowRole, SamplerCorrection};

/// Constants of one optimisation step: behaviour and reference log-probabilities, advantages, mask, totals.
///
/// Shapes are checked on construction; everything is stripped of autodiff and kept in `f32` on the device.
/// Content under a false mask is arbitrary (may be NaN).
#[derive(Debug, Clone)]
pub struct PolicyBatch {
    old_log_probs: Tensor<2>,
    ref_log_probs: Option<Tensor<2>>,
    advantages: Tensor<1>,
    padding: Tensor<2, Bool>,
    totals: LossTotals,
    /// Whether these are some rows of a batch, whose totals cover rows that are not here.
    is_part: bool,
    rows: Option<RowTensors>,
    sampler: Option<Sampler>,
    /// True where a token is among those of highest entropy, `[batch, seq]`.
    top_entropy: Option<Tensor<2, Bool>>,
}

/// What the sampler said, and what follows from it.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    /// `[batch, seq]`, NaN where the sampler gave none.
    pub log_probs: Tensor<2>,
    /// What the trainer says of the same tokens, `[batch, seq]`.
    pub policy_log_probs: Tensor<2>,
    pub correction: Option<SamplerCorrection>,
    /// `[batch, seq]` or `[batch, 1]`.
    pub weights: Option<Tensor<2>>,
}

impl PolicyBatch {
    /// Checks the shapes and counts the trained tokens with one read of the mask from the device.
    ///
    /// # Shapes
    /// - `old_log_probs`, `ref_log_probs`: `[batch, seq]`, nats; the reference is needed when `beta` is not 0, and
    ///   gives the KL metric otherwise
    /// - `advantages`: `[batch]`, broadcast over the tokens of a row
    /// - `completion_mask`: `[batch, seq]`, true = trained token
    ///
    /// # Errors
    /// [`GrpoError::Shape`], [`GrpoError::DeviceRead`].
    pub fn new(
        old_log_probs: Tensor<2>,
        ref_log_probs: Option<Tensor<2>>,
        advantages: Tensor<1>,
        completion_mask: Tensor<2, Bool>,
    ) -> Result<Self, GrpoError> {
        let host = read_mask("completion_mask", completion_mask.clone())?;
        let totals = LossTotals::from_mask(&host, completion_mask.dims()[0]);
        Self::with_totals(old_log_probs, ref_log_probs, advantages, completion_mask, totals)
    }

    /// As [`PolicyBatch::new`] with totals known on the host: reads nothing from the device.
    ///
    /// `totals` may cover more rows than these, when the step spans several batches.
    ///
    /// # Errors
    /// [`GrpoError::Shape`]; [`GrpoError::Totals`] if `totals` counts fewer sequences than there are rows.
    pub fn with_totals(
        old_log_probs: Tensor<2>,
        ref_log_probs: Option<Tensor<2>>,
        advantages: Tensor<1>,
        completion_mask: Tensor<2, Bool>,
        totals: LossTotals,
    ) -> Result<Self, GrpoError> {
        let shape = completion_mask.dims();
        let [rows, _] = shape;
        check_shape("old_log_probs", &shape, &old_log_probs.dims())?;
        if let Some(ref_log_probs) = &ref_log_probs {
            check_shape("ref_log_probs", &shape, &ref_log_probs.dims())?;
        }
        check_shape("advantages", &[rows], &advantages.dims())?;
        check_totals(totals, rows)?;
        Ok(Self {
            old_log_probs: old_log_probs.inner().cast(DType::F32),
            ref_log_probs: ref_log_probs.map(|t| t.inner().cast(DType::F32)),
            advantages: advantages.inner().cast(DType::F32),
            padding: completion_mask.inner().bool_not(),
            totals,
            is_part: false,
            rows: None,
            sampler: None,
            top_entropy: None,
        })
    }

    /// Says who wrote each row and what its ratio is. Without this call every row is [`RowRole::STUDENT`].
    ///
    /// Rows that are [`RowRatio::Excluded`] leave the denominators of the policy term; tokens of teacher rows become
    /// the denominator of the SFT term. Reads the mask from the device once. Call it once, before the other `with_`
    /// methods and before [`PolicyBatch::rows`].
    ///
    /// # Shapes
    /// - `roles`: `[batch]`
    /// - `behaviour_log_probs`: `[batch, seq]`, nats, under the model that wrote the row; read in rows that are
    ///   [`RowRatio::Given`], arbitrary elsewhere
    ///
    /// # Errors
    /// [`GrpoError::Shape`], [`GrpoError::DeviceRead`]; [`GrpoError::Config`] for a shaping out of range, for
    /// `Given` rows without `behaviour_log_probs`, after another `with_` method, and on a micro-batch.
    pub fn with_rows(self, roles: Vec<RowRole>, behaviour_log_probs: Option<Tensor<2>>) -> Result<Self, GrpoError> {
        let mut batch = self.set_rows(roles, behaviour_log_probs)?;
        let row_tokens = batch.read_row_tokens()?;
        let roles = batch.roles();
        let tokens_of = |test: fn(&RowRole) -> bool| -> usize {
            roles.iter().zip(&row_tokens).filter(|(role, _)| test(role)).map(|(_, tokens)| tokens).sum()
        };
        let is_excluded = |role: &RowRole| role.ratio == RowRatio::Excluded;
        let excluded_rows = roles.iter().filter(|role| is_excluded(role)).count();
        let excluded_tokens = tokens_of(is_excluded);
        let totals = &mut batch.totals;
        totals.sequences = totals.sequences.saturating_sub(excluded_rows);
        totals.tokens = totals.tokens.saturating_sub(excluded_tokens);
        totals.entropy_tokens = totals.entropy_tokens.saturating_sub(excluded_tokens);
        totals.sft_tokens += tokens_of(|role| role.origin == RowOrigin::Teacher);
        Ok(batch)
    }

    /// As [`PolicyBatch::with_rows`] with totals known on the host, which stand for the whole step: reads nothing from the
    /// device. For a step that spans several batches; the totals count no row that is [`RowRatio::Excluded`], and the
    /// tokens of teacher rows in [`LossTotals::sft_tokens`].
    ///
    /// # Errors
    /// Those of [`PolicyBatch::with_rows`] but for the read, and of [`PolicyBatch::replace_totals`].
    pub fn with_rows_and_totals(
        self,
        roles: Vec<RowRole>,
        behaviour_log_probs: Option<Tensor<2>>,
        totals: LossTotals,
    ) -> Result<Self, GrpoError> {
        self.set_rows(roles, behaviour_log_probs)?.replace_totals(totals)
    }

    fn set_rows(mut self, roles: Vec<RowRole>, behaviour_log_probs: Option<Tensor<2>>) -> Result<Self, GrpoError> {
        let [rows, seq] = self.dims();
        check_shape("roles", &[rows], &[roles.len()])?;
        self.check_whole("with_rows")?;
        let is_first = self.rows.is_none() && self.sampler.is_none() && self.top_entropy.is_none();
        check_order(is_first, "with_rows: expected the first of the with_ calls")?;
        let tensors = RowTensors::new(roles, &self.padding.device())?;
        let is_given: Vec<bool> = tensors.roles.iter().map(|role| role.ratio == RowRatio::Given).collect();
        if is_given.contains(&true) {
            let Some(given) = behaviour_log_probs else {
                return Err(GrpoError::Config(
                    "behaviour_log_probs: expected a tensor for rows Given, got none".into(),
                ));
            };
            check_shape("behaviour_log_probs", &[rows, seq], &given.dims())?;
            let is_given: Vec<bool> = is_given.into_iter().flat_map(|is_given| vec![is_given; seq]).collect();
            let is_given = Tensor::from_data(TensorData::new(is_given, [rows, seq]), &self.padding.device());
            self.old_log_probs = self.old_log_probs.mask_where(is_given, given.inner().cast(DType::F32));
        }
        self.rows = Some(tensors);
        Ok(self)
    }

    /// Adds the sampler's own log-probabilities: for the metrics, for the off-policy mask, and for a correction of the
    /// policy term ([`SamplerCorrection`]).
    ///
    /// # Shapes
    /// - `sampler_log_probs`: `[batch, seq]`, nats; NaN where the sampler gave none (teacher rows): weight 1 there
    ///
    /// # Errors
    /// [`GrpoError::Shape`]; [`GrpoError::Config`] for a bound out of range, and on a second call.
    pub fn with_sampler(
        self,
        sampler_log_probs: Tensor<2>,
        correction: Option<SamplerCorrection>,
    ) -> Result<Self, GrpoError> {
        let old = self.old_log_probs.clone();
        self.with_sampler_against(old, sampler_log_probs, correction)
    }

    /// As [`PolicyBatch::with_sampler`], which holds the sampler's log-probabilities against the old ones, with others in their
    /// place: old ones of passes with dropout carry noise that is not the sampler's.
    ///
    /// # Shapes
    /// - `policy_log_probs`: `[batch, seq]`, nats; of a pass without dropout, say
    ///
    /// # Errors
    /// Those of [`PolicyBatch::with_sampler`].
    pub fn with_sampler_against(
        mut self,
        policy_log_probs: Tensor<2>,
        sampler_log_probs: Tensor<2>,
        correction: Option<SamplerCorrection>,
    ) -> Result<Self, GrpoError> {
        check_order(self.sampler.is_none(), "with_sampler: expected one call")?;
        check_shape("policy_log_probs", &self.dims(), &policy_log_probs.dims())?;
        check_shape("sampler_log_probs", &self.dims(), &sampler_log_probs.dims())?;
        let log_probs = sampler_log_probs.inner().cast(DType::F32);
        let policy_log_probs = policy_log_probs.inner().cast(DType::F32);
        correction.as_ref().map(SamplerCorrection::validate).transpose()?;
        let weights = correction.map(|c| c.weights(policy_log_probs.clone(), log_probs.clone(), self.padding.clone()));
        self.sampler = Some(Sampler { log_probs, policy_log_probs, correction, weights });
        Ok(self)
    }

    /// Lets only the `share` tokens of highest entropy carry the policy term and the entropy bonus; the threshold is
    /// the quantile over the trained tokens of this batch, and the denominators of the policy term stay those of all
    /// tokens.
    ///
    /// Reads the entropies from the device once; give those of the behaviour policy, and call it on the whole batch,
    /// before [`PolicyBatch::rows`]. Source: "Beyond the 80/20 rule", arXiv 2506.01939; TRL's `top_entropy_quantile`,
    /// which takes the quantile of each micro-batch instead.
    ///
    /// # Shapes
    /// - `entropy`: `[batch, seq]`, nats
    ///
    /// # Errors
    /// [`GrpoError::Shape`], [`GrpoError::DeviceRead`]; [`GrpoError::Config`] unless `0 < share <= 1`, on a second call,
    /// and on a micro-batch; [`GrpoError::NonFinite`] for an entropy of a trained token that is not finite.
    pub fn with_top_entropy_tokens(mut self, entropy: Tensor<2>, share: f64) -> Result<Self, GrpoError> {
        self.check_whole("with_top_entropy_tokens")?;
        check_order(self.top_entropy.is_none(), "with_top_entropy_tokens: expected one call")?;
        in_range("share", share, f64::MIN_POSITIVE, 1.0)?;
        let shape = self.dims();
        check_shape("entropy", &shape, &entropy.dims())?;
        let trained = read_mask("completion_mask", self.policy_padding().bool_not())?;
        let data = entropy.inner().cast(DType::F32).try_into_data();
        let data = data.map_err(|source| GrpoError::DeviceRead { what: "entropy", source })?;
        let entropy: Vec<f32> = data.iter::<f32>().collect();
        if let Some(at) = (0..entropy.len()).find(|&at| trained[at] && !entropy[at].is_finite()) {
            let (row, token) = (at / shape[1], at % shape[1]);
            return Err(GrpoError::NonFinite { what: "entropy", row, token, value: entropy[at] });
        }
        let of_trained = entropy.iter().zip(&trained).filter(|(_, trained)| **trained).map(|(entropy, _)| *entropy);
        let threshold = top_entropy_threshold(of_trained.collect(), share).unwrap_or(0.0);
        let keep: Vec<bool> = entropy.iter().zip(&trained).map(|(e, &trained)| trained && *e >= threshold).collect();
        self.totals.entropy_tokens = keep.iter().filter(|&&keep| keep).count();
        self.top_entropy = Some(Tensor::from_data(TensorData::new(keep, shape), &self.padding.device()));
        Ok(self)
    }

    /// Replaces the totals: for a step that spans several batches, the sum of theirs. Call it after the `with_` methods.
    ///
    /// # Errors
    /// [`GrpoError::Totals`] if `totals` counts fewer sequences than there are rows that are not
    /// [`RowRatio::Excluded`].
    pub fn replace_totals(mut self, totals: LossTotals) -> Result<Self, GrpoError> {
        let counted = self.roles().iter().filter(|role| role.ratio != RowRatio::Excluded).count();
        check_totals(totals, counted)?;
        self.totals = totals;
        Ok(self)
    }

    /// A count over some rows would be taken for one over the batch.
    fn check_whole(&self, method: &str) -> Result<(), GrpoError> {
        if self.is_part {
            return Err(GrpoError::Config(format!("{method}: expected a whole batch, got rows of one")));
        }
        Ok(())
    }

    /// Number of trained tokens of each row, read from the device.
    fn read_row_tokens(&self) -> Result<Vec<usize>, GrpoError> {
        let [rows, seq] = self.dims();
        let padding = read_mask("completion_mask", self.padding.clone())?;
        let tokens = |row: usize| padding[row * seq..(row + 1) * seq].iter().filter(|&&padding| !padding).count();
        Ok((0..rows).map(tokens).collect())
    }

    /// The micro-batch of some rows. It keeps the totals, so that losses and gradients of a partition add up to those
    /// of the whole batch.
    ///
    /// # Errors
    /// [`GrpoError::RowRange`] if the range is empty or leaves the batch.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self, GrpoError> {
        let total = self.dims()[0];
        if rows.start >= rows.end || rows.end > total {
            let Range { start, end } = rows;
            return Err(GrpoError::RowRange { rows: total, start, end });
        }
        let cut = |tensor: &Tensor<2>| tensor.clone().slice_dim(0, rows.clone());
        Ok(Self {
            old_log_probs: cut(&self.old_log_probs),
            ref_log_probs: self.ref_log_probs.as_ref().map(cut),
            advantages: self.advantages.clone().slice_dim(0, rows.clone()),
            padding: self.padding.clone().slice_dim(0, rows.clone()),
            totals: self.totals,
            is_part: true,
            rows: self.rows.as_ref().map(|tensors| tensors.rows(rows.clone())),
            sampler: self.sampler.as_ref().map(|sampler| Sampler {
                log_probs: cut(&sampler.log_probs),
                policy_log_probs: cut(&sampler.policy_log_probs),
                correction: sampler.correction,
                weights: sampler.weights.as_ref().map(cut),
            }),
            top_entropy: self.top_entropy.as_ref().map(|keep| keep.clone().slice_dim(0, rows.clone())),
        })
    }

    /// Whether there is no token at all, trained or not: no rows, or rows of no columns.
    pub(crate) fn is_empty(&self) -> bool {
        self.dims().contains(&0)
    }

    /// `[batch, seq]`.
    pub fn dims(&self) -> [usize; 2] {
        self.padding.dims()
    }

    /// Totals of the whole batch, also in a micro-batch.
    pub fn totals(&self) -> LossTotals {
        self.totals
    }

    /// Log-probabilities under the behaviour policy, `[batch, seq]`, nats.
    pub fn old_log_probs(&self) -> Tensor<2> {
        self.old_log_probs.clone()
    }

    /// Log-probabilities under the frozen reference policy, `[batch, seq]`, nats.
    pub fn ref_log_probs(&self) -> Option<Tensor<2>> {
        self.ref_log_probs.clone()
    }

    /// Advantages, `[batch]`.
    pub fn advantages(&self) -> Tensor<1> {
        self.advantages.clone()
    }

    /// True where a token is trained, `[batch, seq]`.
    pub fn completion_mask(&self) -> Tensor<2, Bool> {
        self.padding.clone().bool_not()
    }

    /// Who wrote each row and what its ratio is, `[batch]`.
    pub fn roles(&self) -> Vec<RowRole> {
        self.rows.as_ref().map_or_else(|| vec![RowRole::STUDENT; self.dims()[0]], |rows| rows.roles.clone())
    }

    pub(crate) fn row_tensors(&self) -> Option<&RowTensors> {
        self.rows.as_ref()
    }

    pub(crate) fn sampler(&self) -> Option<&Sampler> {
        self.sampler.as_ref()
    }

    /// True where a token has no entropy bonus and no policy term.
    pub(crate) fn low_entropy(&self) -> Option<Tensor<2, Bool>> {
        self.top_entropy.clone().map(Tensor::bool_not)
    }

    /// 1 where a row is [`RowRatio::Excluded`], `[batch]`.
    pub(crate) fn is_excluded(&self) -> Tensor<1> {
        match &self.rows {
            Some(rows) => rows.is_excluded.clone().float().squeeze_dim(1),
            None => Tensor::zeros([self.dims()[0]], &self.padding.device()),
        }
    }

    /// True where a token has no policy term, `[batch, seq]`: padding, and rows that are excluded.
    pub(crate) fn policy_padding(&self) -> Tensor<2, Bool> {
        match &self.rows {
            Some(rows) if !self.is_empty() => {
                self.padding.clone().bool_or(rows.is_excluded.clone().expand(self.dims()))
            }
            _ => self.padding.clone(),
        }
    }

    /// True where a token is not trained, `[batch, seq]`.
    pub(crate) fn padding(&self) -> Tensor<2, Bool> {
        self.padding.clone()
    }
}

fn check_totals(totals: LossTotals, rows: usize) -> Result<(), GrpoError> {
    let sequences = totals.sequences;
    if sequences < rows { Err(GrpoError::Totals { rows, sequences }) } else { Ok(()) }
}

fn check_order(is_in_order: bool, message: &str) -> Result<(), GrpoError> {
    if is_in_order { Ok(()) } else { Err(GrpoError::Config(message.into())) }
}

/// A mask on the host.
fn read_mask(what: &'static str, mask: Tensor<2, Bool>) -> Result<Vec<bool>, GrpoError> {
    let data = mask.try_into_data().map_err(|source| GrpoError::DeviceRead { what, source })?;
    Ok(data.iter::<bool>().collect())
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
