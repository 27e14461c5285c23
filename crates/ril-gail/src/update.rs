use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::gradients::clip_global_norm;
use crate::score::{check_finite, read, read_logits, row_logits};
use crate::split::{MicroBatch, micro_batches};
use crate::{
    AuthoredBy, Discriminator, DiscriminatorBatch, DiscriminatorRows, GailConfig, GailError, Opinion, RowPair,
    objective_loss, objective_value,
};

/// Which update of a run this is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Number of the update; with [`GailConfig::seed`] it fixes the shuffles, so that a resumed run repeats them.
    pub index: u64,
    /// Step size given to the optimizer, finite, at least 0; 1e-6 in the loop of RIL (arXiv 2510.19307). The warm-up of
    /// [`GailConfig::learning_rate`] makes it smaller.
    pub learning_rate: f64,
    /// How many rounds came before, for both warm-ups ([`AccuracyGate`](crate::AccuracyGate),
    /// [`GailConfig::learning_rate_warmup_rounds`]): `index`, unless
    /// [`with_number`](Self::with_number) says otherwise because the index is a hash.
    pub number: u64,
}

impl Round {
    /// Update number `index` at `learning_rate`.
    pub fn new(index: u64, learning_rate: f64) -> Self {
        Self { index, learning_rate, number: index }
    }

    /// The same update as the `number`-th of the run, counted from 0.
    #[must_use]
    pub fn with_number(self, number: u64) -> Self {
        Self { number, ..self }
    }

    fn validate(self) -> Result<(), GailError> {
        let rate = self.learning_rate;
        match rate.is_finite() && rate >= 0.0 {
            true => Ok(()),
            false => Err(GailError::Config(format!("learning_rate: expected a finite number >= 0, got {rate}"))),
        }
    }
}

/// What [`update_discriminator`] did.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscriminatorUpdate {
    /// The discriminator **before** its first step: its opinion of responses that it has never been trained on.
    pub before: Opinion,
    /// Optimizer steps taken: `updates_per_round`, or fewer when the accuracy gate held one back.
    pub steps: usize,
    /// What each pass minimised, before its step: the configured objective, with regulariser and penalty.
    pub losses: Vec<f32>,
    /// Norm over all gradients of each pass, before clipping.
    pub grad_norms: Vec<f32>,
    /// Step size of the round, after its warm-up ([`GailConfig::learning_rate`]).
    pub learning_rate: f64,
}

impl DiscriminatorUpdate {
    /// Whether the accuracy gate held back the last pass. The passes after it would have seen the same discriminator,
    /// and are not run: `losses` ends with the pass held back.
    pub fn is_gated(&self) -> bool {
        self.steps < self.losses.len()
    }

    /// Names and values to log, flat: [`Opinion::entries`] of `before`, then `discriminator/objective` (what the last
    /// pass minimised), `discriminator/grad_norm` (of the last pass), `discriminator/learning_rate` and `discriminator/steps`.
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        let mut entries = self.before.entries();
        entries.extend(self.losses.last().map(|loss| ("discriminator/objective", f64::from(*loss))));
        entries.extend(self.grad_norms.last().map(|norm| ("discriminator/grad_norm", f64::from(*norm))));
        entries
            .extend([("discriminator/learning_rate", self.learning_rate), ("discriminator/steps", self.steps as f64)]);
        entries
    }
}

/// Updates a discriminator on student and teacher responses: `updates_per_round` passes, one optimizer step a pass.
///
/// Each pass goes over all rows in shuffled micro-batches that mix both origins, adds up their gradients (which equal
/// the gradient of the whole batch, whatever the micro-batches), clips if asked, and steps. Source: the discriminator
/// part of Algorithm 2 of RIL, arXiv 2510.19307; what it minimises is [`LossConfig`](crate::LossConfig), by default
/// its Eq. 1. A loss on pairs keeps both rows of a pair in one micro-batch. Rows by teachers weigh as
/// [`teacher_weights`](crate::LossConfig::teacher_weights) say. An [`AccuracyGate`](crate::AccuracyGate) ends the round
/// before a step that the discriminator does not need.
///
/// `model` must be trainable (on an autodiff device), and **always comes back**: on an error it is as the last whole
/// step left it, hence untouched when the first pass fails. Logits and gradients are checked before they are used.
///
/// # Errors
/// [`GailError::OneOrigin`], [`GailError::NonFiniteLogit`], [`GailError::NonFiniteGradient`],
/// [`GailError::NotTrainable`], [`GailError::Model`], [`GailError::Shape`], [`GailError::Read`],
/// [`GailError::Pair`] and [`GailError::NoPairs`] for a loss on pairs, [`GailError::UnknownTeacher`],
/// [`GailError::Weight`] and [`GailError::NoWeight`] for the weights of teachers, [`GailError::Config`], also for a
/// learning rate that is negative or not finite, and a gradient penalty on a discriminator without
/// [`encoder_gradient_norm_squared`](Discriminator::encoder_gradient_norm_squared).
pub fn update_discriminator<D, R>(
    mut model: D,
    optimizer: &mut ModuleOptimizer,
    rows: &R,
    round: Round,
    config: &GailConfig,
) -> (D, Result<DiscriminatorUpdate, GailError>)
where
    D: Discriminator + Module,
    R: DiscriminatorRows<Input = D::Input>,
{
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(round.index);
    let batch = match round.validate().and_then(|()| whole_batch(rows, config)) {
        Ok(batch) => batch,
        Err(error) => return (model, Err(error)),
    };
    let learning_rate = config.learning_rate(round);
    let mut report: Option<DiscriminatorUpdate> = None;
    for _ in 0..config.updates_per_round {
        let pass = match Pass::run(&model, rows, &batch, config, &mut rng) {
            Ok(pass) => pass,
            Err(error) => return (model, Err(error)),
        };
        let balanced_accuracy = pass.opinion.stats.balanced_accuracy();
        let report = report.get_or_insert_with(|| DiscriminatorUpdate {
            before: pass.opinion,
            steps: 0,
            losses: Vec::new(),
            grad_norms: Vec::new(),
            learning_rate,
        });
        report.losses.push(pass.loss);
        report.grad_norms.push(pass.grad_norm);
        if config.accuracy_gate.is_some_and(|gate| gate.holds_back(round.number, balanced_accuracy)) {
            break;
        }
        model = optimizer.step(learning_rate, model, pass.gradients);
        report.steps += 1;
    }
    let none = || GailError::Config("updates_per_round: expected at least 1, got 0".into());
    (model, report.ok_or_else(none))
}

/// Checks the settings and gathers the constants of a round.
fn whole_batch<R: DiscriminatorRows>(rows: &R, config: &GailConfig) -> Result<DiscriminatorBatch, GailError> {
    config.validate()?;
    let origins = rows.origins();
    let pairs: Vec<RowPair> = if config.loss.objective.is_on_pairs() { rows.pairs() } else { Vec::new() };
    let batch = DiscriminatorBatch::weighted(origins, &row_weights(rows, &config.loss.teacher_weights)?, &pairs)?;
    match config.loss.objective.is_on_pairs() && pairs.is_empty() {
        true => Err(GailError::NoPairs),
        false => Ok(batch),
    }
}

/// 1 for rows by the student, the weight of their teacher for the others.
fn row_weights<R: DiscriminatorRows>(rows: &R, teacher_weights: &[f32]) -> Result<Vec<f32>, GailError> {
    let weight = |(row, origin): (usize, &AuthoredBy)| {
        if *origin == AuthoredBy::Student || teacher_weights.is_empty() {
            return Ok(1.0);
        }
        let (teacher, weights) = (rows.teacher_of(row), teacher_weights.len());
        teacher_weights.get(teacher).copied().ok_or(GailError::UnknownTeacher { row, teacher, weights })
    };
    rows.origins().iter().enumerate().map(weight).collect()
}

/// One pass over all rows, ready for its step.
struct Pass {
    gradients: GradientsParams,
    opinion: Opinion,
    loss: f32,
    grad_norm: f32,
}

impl Pass {
    fn run<D, R>(
        model: &D,
        rows: &R,
        batch: &DiscriminatorBatch,
        config: &GailConfig,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, GailError>
    where
        D: Discriminator + Module,
        R: DiscriminatorRows<Input = D::Input>,
    {
        let split = micro_batches(batch, config.loss.objective, config.micro_batch_rows, rng);
        let mut accumulator = GradientsAccumulator::new();
        let mut logits = Vec::with_capacity(split.len());
        for part in &split {
            let part_logits = row_logits(model, rows, &part.rows)?;
            logits.push(part_logits.clone().inner());
            let loss = objective_loss(part_logits, &batch.part(&part.rows, &part.pairs)?, &config.loss)?;
            if !loss.is_tracked() {
                return Err(GailError::NotTrainable);
            }
            accumulator.accumulate(model, GradientsParams::from_grads(loss.backward(), model));
        }
        let penalty = add_penalty(model, config, &mut accumulator)?;
        let logits = in_row_order(&read_logits(Tensor::cat(logits, 0))?, &split, batch.len());
        check_finite(&logits)?;
        let mut gradients = accumulator.grads();
        let grad_norm = clip_global_norm(model, &mut gradients, config.max_grad_norm)?;
        let loss = (objective_value(&logits, batch, &config.loss)? + penalty) as f32;
        let opinion = Opinion::of_rows(&logits, rows)?;
        Ok(Self { gradients, opinion, loss, grad_norm })
    }
}

/// Adds the gradient of the penalty once a pass; its value, 0 without one.
fn add_penalty<D: Discriminator + Module>(
    model: &D,
    config: &GailConfig,
    accumulator: &mut GradientsAccumulator<D>,
) -> Result<f64, GailError> {
    let Some(penalty) = config.loss.gradient_penalty else { return Ok(0.0) };
    let Some(norm_squared) = model.encoder_gradient_norm_squared() else {
        return Err(GailError::Config(
            "gradient_penalty: expected a discriminator with encoder_gradient_norm_squared, got none".into(),
        ));
    };
    GailError::check_rows("encoder_gradient_norm_squared", 1, norm_squared.dims()[0])?;
    let penalty = penalty.of(norm_squared);
    let value = f64::from(read("gradient penalty", penalty.clone())?[0]);
    // A frozen head has nothing to learn from it.
    if penalty.is_tracked() {
        accumulator.accumulate(model, GradientsParams::from_grads(penalty.backward(), model));
    }
    Ok(value)
}

/// Values in the order of the micro-batches, back in the order of the rows; of a row in several, the last.
fn in_row_order(values: &[f32], split: &[MicroBatch], rows: usize) -> Vec<f32> {
    let mut ordered = vec![0.0; rows];
    for (value, &row) in values.iter().zip(split.iter().flat_map(|part| &part.rows)) {
        ordered[row] = *value;
    }
    ordered
}
