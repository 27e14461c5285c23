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
    /// Relative weight of a row by the teacher with this index, finite, at least 0; the mean over teachers is a
    /// weighted one. Empty, the default, weighs all rows the same; else one for every teacher.
    #[config(default = "Vec::new()")]
    pub teacher_weights: Vec<f32>,
}

impl LossConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`GailError::Config`] names the first setting out of range; [`GailError::Weight`] a teacher's weight.
    pub fn validate(&self) -> Result<(), GailError> {
        self.objective.validate()?;
        let weight = self.score_regularizer;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(GailError::Config(format!("score_regularizer: expected a finite number >= 0, got {weight}")));
        }
        if let Some(index) = self.teacher_weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            return Err(GailError::Weight { what: "teacher", index, value: self.teacher_weights[index] });
        }
        self.gradient_penalty.map_or(Ok(()), GradientPenalty::validate)
    }
}

/// Spares a discriminator that is already good enough: one that is always right leaves the student no reward to climb.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyGate {
    /// A pass takes no step when its balanced accuracy, measured before the step, is **above** this; in `[0.5, 1]`,
    /// where 1 never holds a step back.
    pub above: f32,
    /// Rounds ([`Round::number`](crate::Round)) at the start in which every step is taken, whatever the accuracy: a new
    /// discriminator must learn something before its accuracy means anything.
    pub warmup_rounds: u64,
}

impl AccuracyGate {
    /// A gate from the first round on.
    pub fn new(above: f32) -> Self {
        Self { above, warmup_rounds: 0 }
    }

    /// Whether a pass of this round, of this balanced accuracy, takes no step.
    pub fn holds_back(self, round: u64, balanced_accuracy: f32) -> bool {
        round >= self.warmup_rounds && balanced_accuracy > self.above
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
    /// When the discriminator is good enough to be left alone. Default `None`, it never is: the paper names no gate.
    pub accuracy_gate: Option<AccuracyGate>,
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
    /// [`GailError::Config`] names the first setting out of range; [`GailError::Weight`] a teacher's weight.
    pub fn validate(&self) -> Result<(), GailError> {
        let at_least = |name: &str, least: usize, got: usize| match got >= least {
            true => Ok(()),
            false => Err(GailError::Config(format!("{name}: expected at least {least}, got {got}"))),
        };
        at_least("updates_per_round", 1, self.updates_per_round)?;
        at_least("micro_batch_rows", 2, self.micro_batch_rows)?;
        self.loss.validate()?;
        self.similarity.validate()?;
        if let Some(AccuracyGate { above, .. }) = self.accuracy_gate
            && !(0.5..=1.0).contains(&above)
        {
            return Err(GailError::Config(format!("accuracy_gate: expected a bound in 0.5..=1, got {above}")));
        }
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
    use crate::LabelSmoothing;

    #[test]
    fn defaults_are_valid_and_survive_json() {
        GailConfig::new().validate().expect("in range");
        let loss = LossConfig::new()
            .with_objective(DiscriminatorObjective::Bce { label_smoothing: LabelSmoothing::OneSided { amount: 0.1 } })
            .with_gradient_penalty(Some(GradientPenalty::ZeroCentred { weight: 5.0 }))
            .with_teacher_weights(vec![1.0, 0.5]);
        let config = GailConfig::new()
            .with_max_grad_norm(Some(1.0))
            .with_mode(DiscriminatorMode::Frozen)
            .with_loss(loss)
            .with_similarity(SimilarityReward::levels(5).expect("five levels"))
            .with_accuracy_gate(Some(AccuracyGate { above: 0.9, warmup_rounds: 10 }));
        config.validate().expect("in range");
        let read = GailConfig::load_binary(config.to_string().as_bytes()).expect("its own JSON");
        assert_eq!(read, config);
    }

    fn refused(config: GailConfig, message: &str) {
        assert_eq!(config.validate().expect_err(message).to_string(), message);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let new = GailConfig::new;
        let invalid = |config, message: &str| refused(config, &format!("invalid setting: {message}"));
        invalid(new().with_updates_per_round(0), "updates_per_round: expected at least 1, got 0");
        invalid(new().with_micro_batch_rows(1), "micro_batch_rows: expected at least 2, got 1");
        let norm = "max_grad_norm: expected a finite number above 0, got";
        invalid(new().with_max_grad_norm(Some(0.0)), &format!("{norm} 0"));
        invalid(new().with_max_grad_norm(Some(f32::NAN)), &format!("{norm} NaN"));
        let one = SimilarityReward::Levels { k: std::num::NonZeroU32::MIN };
        invalid(new().with_similarity(one), "similarity levels: expected at least 2, got 1");
        for above in [0.4, 1.1, f32::NAN] {
            let gated = new().with_accuracy_gate(Some(AccuracyGate::new(above)));
            invalid(gated, &format!("accuracy_gate: expected a bound in 0.5..=1, got {above}"));
        }
    }

    #[test]
    fn losses_out_of_range_are_named() {
        let with = |loss: LossConfig| GailConfig::new().with_loss(loss);
        for weight in [-1.0, f32::NAN, f32::INFINITY] {
            let message = format!("invalid setting: score_regularizer: expected a finite number >= 0, got {weight}");
            refused(with(LossConfig::new().with_score_regularizer(weight)), &message);
            let message = format!("weight of teacher 1: expected a finite number of at least 0, got {weight}");
            refused(with(LossConfig::new().with_teacher_weights(vec![1.0, weight])), &message);
        }
        for amount in [0.5, -0.1, f32::NAN] {
            let message = format!("invalid setting: label smoothing: expected an amount in 0..0.5, got {amount}");
            for label_smoothing in [LabelSmoothing::OneSided { amount }, LabelSmoothing::TwoSided { amount }] {
                let objective = DiscriminatorObjective::Bce { label_smoothing };
                refused(with(LossConfig::new().with_objective(objective)), &message);
            }
        }
        let penalty = Some(GradientPenalty::OneCentred { weight: 0.0 });
        let message = "invalid setting: gradient_penalty: expected a finite weight above 0, got 0";
        refused(with(LossConfig::new().with_gradient_penalty(penalty)), message);
    }
}
