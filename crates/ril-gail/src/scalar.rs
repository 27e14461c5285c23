//! The objectives once more, on the host in `f64`: what a pass reports, and what tests compare with.

use crate::batch::DiscriminatorBatch;
use crate::objective::{Terms, square_shares};
use crate::score::{check_finite, softplus};
use crate::{AuthoredBy, DiscriminatorObjective, GailError, LossConfig};

/// [`objective_loss`](crate::objective_loss) of logits on the host, in `f64`.
///
/// # Shapes
/// - `logits_student_is_high`: `[rows]`, in the order of the batch's rows
///
/// # Errors
/// [`GailError::Shape`], [`GailError::NonFiniteLogit`].
pub fn objective_value(
    logits_student_is_high: &[f32],
    batch: &DiscriminatorBatch,
    config: &LossConfig,
) -> Result<f64, GailError> {
    GailError::check_rows("logits_student_is_high", batch.len(), logits_student_is_high.len())?;
    check_finite(logits_student_is_high)?;
    let logit = |row: usize| f64::from(logits_student_is_high[row]);
    let margins: Vec<f64> = match config.objective.is_on_pairs() {
        true => batch.pairs().map(|pair| logit(pair.student) - logit(pair.teacher)).collect(),
        false => {
            let sign = |origin| if origin == AuthoredBy::Student { 1.0 } else { -1.0 };
            batch.row_terms().iter().enumerate().map(|(row, term)| sign(term.origin) * logit(row)).collect()
        }
    };
    let terms = Terms::new(batch, config.objective);
    let shares = terms.weights.iter().zip(&terms.opposite_shares);
    let loss: f64 = (margins.iter().zip(shares))
        .map(|(margin, (weight, opposite))| f64::from(*weight) * of_margin(config.objective, *margin, *opposite))
        .sum();
    let shares = square_shares(batch, config.objective);
    let squares: f64 = shares.iter().enumerate().map(|(row, share)| f64::from(*share) * logit(row).powi(2)).sum();
    Ok(loss + f64::from(config.score_regularizer) * squares)
}

fn of_margin(objective: DiscriminatorObjective, margin: f64, opposite_share: f32) -> f64 {
    match objective {
        DiscriminatorObjective::LeastSquares => 0.5 * (margin - 1.0).powi(2),
        DiscriminatorObjective::Hinge => (1.0 - margin).max(0.0),
        _ => {
            let wrong = f64::from(opposite_share);
            (1.0 - wrong) * softplus(-margin) + wrong * softplus(margin)
        }
    }
}
