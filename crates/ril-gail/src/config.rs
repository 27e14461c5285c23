use burn::config::Config;
use serde::{Deserialize, Serialize};

use crate::{DiscriminatorObjective, GailError, GradientPenalty, SimilarityReward};

/// What becomes of the discriminator in the loop. Read by the loop, not by
/// [`update_discriminator`](crate::update_discriminator), which pre-trains a frozen one too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DiscriminatorMode {
    /// Updated on the responses of every step: RIL's own (79.7 on MathVista, Table 5 of arXiv 2510.19307).
    #[default]
    Online,
    /// Pre-trained, then only asked (75.3).
    Frozen,
    /// No discriminator and no similarity reward (69.5).
    Absent,
}

/// When responses are scored, within one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ScoreOrder {
    /// After the update on the same responses: Algorithm 2 of RIL, arXiv 2510.19307.
    #[default]
    AfterUpdate,
    /// Before it, so that a discriminator that memorises cannot reward what it has just learned by heart. Ours.
    BeforeUpdate,
}

/// What the discriminator minimises.
#[derive(Config, Debug, PartialEq)]
pub struct LossConfig {
    /// The loss. Default `Bce` without smoothing: RIL's own (arXiv 2510.19307, Eq. 1).
    #[config(default = "DiscriminatorObjective::default()")]
    pub objective: DiscriminatorObjective,
    /// Weight of the mean squared logit, at least 0. Default 0: the paper names none.
    #[config(default = 0.0)]
    pub score_regularizer: f32,
    /// Penalty on the gradient with respect to the encoder's output. Default `None`: the paper names none.
    pub gradient_penalty: Option<GradientPenalty>,
}

impl LossConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`GailError::Config`] names the first setting out of range.
    pub fn validate(&self) -> Result<(), GailError> {
        self.objective.validate()?;
        let weight = self.score_regularizer;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(GailError::Config(format!("score_regularizer: expected a finite number >= 0, got {weight}")));
        }
        self.gradient_penalty.map_or(Ok(()), GradientPenalty::validate)
    }
}

/// Settings of the adversarial part.
#[derive(Config, Debug, PartialEq)]
pub struct GailConfig {
    /// What becomes of the discriminator in the loop. Default `Online`.
    #[config(default = "DiscriminatorMode::Online")]
    pub mode: DiscriminatorMode,
    /// Passes (optimizer steps) over the responses of one step, at least 1: mu of the paper, the K of GAN training.
    /// Default 1; more hurts (Table 5: 79.7 at 1, 73.8 at 12).
    #[config(default = 1)]
    pub updates_per_round: usize,
    /// What the discriminator minimises. Default RIL's Eq. 1.
    #[config(default = "LossConfig::new()")]
    pub loss: LossConfig,
    /// Rows of one forward pass, at least 2 so that both origins fit; bounds memory, does not change the gradient.
    /// Pairs stay together: an odd number holds one row less in a loss on pairs. Default 8, ours.
    #[config(default = 8)]
    pub micro_batch_rows: usize,
    /// Whether responses are scored before or after the update on them. Default `AfterUpdate`, the paper's.
    #[config(default = "ScoreOrder::AfterUpdate")]
    pub score_order: ScoreOrder,
    /// How the logit becomes a reward. Default `Step`, the paper's.
    #[config(default = "SimilarityReward::Step")]
    pub similarity: SimilarityReward,
    /// Largest norm of all gradients together, above 0; larger ones are scaled down to it. Default `None`, no clipping:
    /// the paper names none.
    pub max_grad_norm: Option<f32>,
    /// Seed of the shuffles; with the number of the round it fixes them. Default 0.
    #[config(default = 0)]
    pub seed: u64,
}

impl GailConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`GailError::Config`] names the first setting out of range.
    pub fn validate(&self) -> Result<(), GailError> {
        let at_least = |name: &str, least: usize, got: usize| match got >= least {
            true => Ok(()),
            false => Err(GailError::Config(format!("{name}: expected at least {least}, got {got}"))),
        };
        at_least("updates_per_round", 1, self.updates_per_round)?;
        at_least("micro_batch_rows", 2, self.micro_batch_rows)?;
        self.loss.validate()?;
        self.similarity.validate()?;
        match self.max_grad_norm {
            Some(norm) if !(norm > 0.0 && norm.is_finite()) => {
                Err(GailError::Config(format!("max_grad_norm: expected a finite number above 0, got {norm}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_survive_json() {
        let config = GailConfig::new().with_max_grad_norm(Some(1.0)).with_mode(DiscriminatorMode::Frozen);
        config.validate().expect("in range");
        let read = GailConfig::load_binary(config.to_string().as_bytes()).expect("its own JSON");
        assert_eq!(read, config);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let cases = [
            (GailConfig::new().with_updates_per_round(0), "updates_per_round: expected at least 1, got 0"),
            (GailConfig::new().with_micro_batch_rows(1), "micro_batch_rows: expected at least 2, got 1"),
            (GailConfig::new().with_max_grad_norm(Some(0.0)), "max_grad_norm: expected a finite number above 0, got 0"),
            (
                GailConfig::new().with_max_grad_norm(Some(f32::NAN)),
                "max_grad_norm: expected a finite number above 0, got NaN",
            ),
        ];
        for (config, message) in cases {
            assert_eq!(config.validate().expect_err(message).to_string(), format!("invalid setting: {message}"));
        }
    }
}
