//! AdamW, its learning rate over the steps, and how gradients are gathered.

use ril_gail::GailConfig;
use serde::{Deserialize, Serialize};

use crate::error::RilError;

/// AdamW and what surrounds it, for one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSettings {
    /// Learning rate at the first step.
    pub learning_rate: f64,
    /// Steps at the start over which the learning rate rises to where it would be: step `s` takes `(s + 1) / warmup_steps` of
    /// it. Default 0, none: the paper names none.
    #[serde(default)]
    pub warmup_steps: usize,
    /// Learning rate at the last step; linear in between (the paper: 1e-5 to 1e-6 for SFT and discriminator
    /// pre-training, constant 1e-6 in the loop).
    pub final_learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Bound on the norm of all gradients together; `None` leaves them.
    pub max_grad_norm: Option<f32>,
    /// Rows of one forward and backward pass; bounds memory, changes no gradient. A discriminator's update takes at
    /// least 2, so that both origins fit.
    pub micro_batch_rows: usize,
    /// Passes that run side by side on threads of their own. Networks too small to keep the cores busy gain; each
    /// pass needs memory of its own. Changes no gradient: they are added in the order of the micro-batches. 1 for a
    /// discriminator, whose update knows no other way.
    pub passes_at_once: usize,
}

impl OptimizerSettings {
    /// A constant learning rate, no weight decay, gradients clipped at norm 1.
    #[must_use]
    pub fn constant(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            warmup_steps: 0,
            final_learning_rate: learning_rate,
            weight_decay: 0.0,
            max_grad_norm: Some(1.0),
            micro_batch_rows: 64,
            passes_at_once: 1,
        }
    }

    /// Learning rate of a step, counted from 0.
    #[must_use]
    pub fn learning_rate_at(&self, step: usize, total_steps: usize) -> f64 {
        let done = step as f64 / (total_steps.max(2) - 1) as f64;
        let rate = self.learning_rate + (self.final_learning_rate - self.learning_rate) * done.min(1.0);
        if step < self.warmup_steps { rate * (step + 1) as f64 / self.warmup_steps as f64 } else { rate }
    }

    /// A discriminator's update under these settings: one source for what both name.
    pub(crate) fn discriminator_update(&self, config: &GailConfig) -> GailConfig {
        let mut config = config.clone();
        config.micro_batch_rows = self.micro_batch_rows.max(2);
        config.max_grad_norm = self.max_grad_norm;
        config
    }

    pub(crate) fn validate_for_discriminator(&self, config: &GailConfig) -> Result<(), RilError> {
        self.validate()?;
        if self.passes_at_once != 1 {
            let message = format!("passes_at_once of a discriminator: expected 1, got {}", self.passes_at_once);
            return Err(RilError::Config(message));
        }
        if self.warmup_steps > 0 && config.learning_rate_warmup_rounds.is_some() {
            let message =
                "warmup_steps and gail.learning_rate_warmup_rounds: expected one of them, as they would multiply";
            return Err(RilError::Config(message.into()));
        }
        Ok(self.discriminator_update(config).validate()?)
    }

    /// # Errors
    /// [`RilError::Config`] with the broken constraint.
    pub fn validate(&self) -> Result<(), RilError> {
        let rates = [self.learning_rate, self.final_learning_rate, f64::from(self.weight_decay)];
        if rates.iter().any(|r| !r.is_finite() || *r < 0.0) {
            return Err(RilError::Config("learning rates and weight decay must be finite and not negative".into()));
        }
        if self.micro_batch_rows == 0 || self.passes_at_once == 0 {
            let message = "micro_batch_rows and passes_at_once: expected at least 1, got 0";
            return Err(RilError::Config(message.into()));
        }
        match self.max_grad_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => {
                Err(RilError::Config(format!("max_grad_norm: expected a finite number above 0, got {norm}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_go_linearly_to_the_last_step() {
        let settings = OptimizerSettings { final_learning_rate: 0.0, ..OptimizerSettings::constant(1.0) };
        assert_eq!([0, 5, 10].map(|s| settings.learning_rate_at(s, 11)), [1.0, 0.5, 0.0]);
        let warm = OptimizerSettings { warmup_steps: 4, ..OptimizerSettings::constant(1.0) };
        assert_eq!([0, 1, 3, 4, 10].map(|s| warm.learning_rate_at(s, 11)), [0.25, 0.5, 1.0, 1.0, 1.0]);
    }
}
