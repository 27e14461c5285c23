use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::gradients::clip_global_norm;
use crate::rows::mixed_micro_batches;
use crate::score::{check_finite, read_logits, row_logits};
use crate::{
    AuthoredBy, Discriminator, DiscriminatorRows, DiscriminatorStats, DiscriminatorTotals, GailConfig, GailError,
    discriminator_loss, discriminator_stats,
};

/// Which update of a run this is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Number of the update; with [`GailConfig::seed`] it fixes the shuffles, so that a resumed run repeats them.
    pub index: u64,
    /// Step size given to the optimizer; 1e-6 in the loop of RIL (arXiv 2510.19307, section 4.1).
    pub learning_rate: f64,
}

impl Round {
    /// Update number `index` at `learning_rate`.
    pub fn new(index: u64, learning_rate: f64) -> Self {
        Self { index, learning_rate }
    }
}

/// What [`update_discriminator`] did.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscriminatorUpdate {
    /// The discriminator **before** its first step: its opinion of responses that it has never been trained on.
    pub before: DiscriminatorStats,
    /// Loss of each pass, before its step, nats.
    pub losses: Vec<f32>,
    /// Norm over all gradients of each pass, before clipping.
    pub grad_norms: Vec<f32>,
}

/// Updates a discriminator on student and teacher responses: `updates_per_round` passes, one optimizer step a pass.
///
/// Each pass goes over all rows in shuffled micro-batches that mix both origins, adds up their gradients (which equal
/// the gradient of the whole batch, whatever the micro-batches), clips if asked, and steps. Source: the discriminator
/// part of Algorithm 2 of RIL, arXiv 2510.19307, with Eq. 1 as [`discriminator_loss`].
///
/// `model` must be trainable (on an autodiff device), and **always comes back**: on an error it is as the last whole
/// step left it, hence untouched when the first pass fails. Logits and gradients are checked before they are used.
///
/// # Errors
/// [`GailError::OneOrigin`], [`GailError::NonFiniteLogit`], [`GailError::NonFiniteGradient`],
/// [`GailError::NotTrainable`], [`GailError::Model`], [`GailError::Shape`], [`GailError::Read`],
/// [`GailError::Config`].
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
    let mut passes = Vec::with_capacity(config.updates_per_round);
    if let Err(error) = config.validate() {
        return (model, Err(error));
    }
    for _ in 0..config.updates_per_round {
        let pass = match Pass::run(&model, rows, config, &mut rng) {
            Ok(pass) => pass,
            Err(error) => return (model, Err(error)),
        };
        model = optimizer.step(round.learning_rate, model, pass.gradients);
        passes.push((pass.stats, pass.grad_norm));
    }
    let update = DiscriminatorUpdate {
        before: passes[0].0,
        losses: passes.iter().map(|(stats, _)| stats.loss).collect(),
        grad_norms: passes.iter().map(|(_, grad_norm)| *grad_norm).collect(),
    };
    (model, Ok(update))
}

/// One pass over all rows, ready for its step.
struct Pass {
    gradients: GradientsParams,
    stats: DiscriminatorStats,
    grad_norm: f32,
}

impl Pass {
    fn run<D, R>(model: &D, rows: &R, config: &GailConfig, rng: &mut ChaCha8Rng) -> Result<Self, GailError>
    where
        D: Discriminator + Module,
        R: DiscriminatorRows<Input = D::Input>,
    {
        let origins = rows.origins();
        let totals = DiscriminatorTotals::new(origins)?;
        let split = mixed_micro_batches(origins, config.micro_batch_rows, rng);
        let mut accumulator = GradientsAccumulator::new();
        let mut logits = Vec::with_capacity(split.len());
        for picked in &split {
            let batch_logits = row_logits(model, rows, picked)?;
            logits.push(batch_logits.clone().inner());
            let batch_origins: Vec<AuthoredBy> = picked.iter().map(|&row| origins[row]).collect();
            let loss = discriminator_loss(batch_logits, &batch_origins, totals)?;
            if !loss.is_tracked() {
                return Err(GailError::NotTrainable);
            }
            accumulator.accumulate(model, GradientsParams::from_grads(loss.backward(), model));
        }
        let logits = in_row_order(&read_logits(Tensor::cat(logits, 0))?, &split);
        check_finite(&logits)?;
        let mut gradients = accumulator.grads();
        let grad_norm = clip_global_norm(model, &mut gradients, config.max_grad_norm)?;
        Ok(Self { gradients, stats: discriminator_stats(&logits, origins)?, grad_norm })
    }
}

/// Values in the order of the micro-batches, back in the order of the rows.
fn in_row_order(values: &[f32], split: &[Vec<usize>]) -> Vec<f32> {
    let mut ordered = vec![0.0; values.len()];
    for (value, &row) in values.iter().zip(split.iter().flatten()) {
        ordered[row] = *value;
    }
    ordered
}
