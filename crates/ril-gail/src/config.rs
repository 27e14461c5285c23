use burn::config::Config;
use serde::{Deserialize, Serialize};

use crate::{DiscriminatorObjective, GailError, GradientPenalty, Round, SimilarityReward};

/// What becomes of the discriminator in the loop. Read by the loop, not by
/// [`update_discriminator`](crate::update_discriminator), which pre-trains a frozen one too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DiscriminatorMode {
    /// Updated on the responses of every step: RIL's own (79.7 on MathVista, Table 5 of arXiv 2510.19307).
    #[default]
    Online,
    /// Pre-trained, then only asked (75.3). There is no update then, so that both [`ScoreOrder`]s are the same.
    Frozen,
    /// No discriminator and no similarity reward (69.5).
    Absent,
}

/// When responses are scored, within one step. Says nothing where a step has no update ([`DiscriminatorMode`]).
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
    /// How the logit becomes a reward. Default `Step`, the paper's. One that
    /// [has a threshold](SimilarityReward::has_threshold) is refused with a loss on pairs and no
    /// [`score_regularizer`](LossConfig::score_regularizer), and so is an `accuracy_gate`: nothing fixes the zero then.
    #[config(default = "SimilarityReward::Step")]
    pub similarity: SimilarityReward,
    /// Largest norm of all gradients together, above 0; larger ones are scaled down to it. Default `None`, no clipping:
    /// the paper names none.
    pub max_grad_norm: Option<f32>,
    /// Rounds over which the learning rate rises to the one of the [`Round`], at least 1:
    /// [`learning_rate`](Self::learning_rate). Default `None`, no warm-up: the paper names none.
    pub learning_rate_warmup_rounds: Option<u64>,
    /// Seed of the shuffles; with the number of the round it fixes them. Default 0.
    #[config(default = 0)]
    pub seed: u64,
}

impl GailConfig {
    /// Step size of a round: `rate min(1, (number + 1) / warmup_rounds)`, from `rate / warmup_rounds` in the first round
    /// to `rate`, the [`Round::learning_rate`], in the last of the warm-up and ever after.
    ///
    /// Counts by [`Round::number`], as the [`AccuracyGate`] does. Source: the gradual warm-up of arXiv 1706.02677; here
    /// because Adam's first steps are as long as its later ones, while a new head knows nothing yet.
    pub fn learning_rate(&self, round: Round) -> f64 {
        match self.learning_rate_warmup_rounds {
            Some(rounds) if round.number < rounds => round.learning_rate * ((round.number + 1) as f64 / rounds as f64),
            _ => round.learning_rate,
        }
    }

    /// Checks every range, and that what has a threshold has a zero.
    ///
    /// # Errors
    /// [`GailError::Config`] names the first setting out of range, or the one that needs another;
    /// [`GailError::Weight`] a teacher's weight.
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
        check_max_norm(self.max_grad_norm)?;
        if let Some(rounds) = self.learning_rate_warmup_rounds {
            at_least("learning_rate_warmup_rounds", 1, usize::try_from(rounds).unwrap_or(usize::MAX))?;
        }
        self.check_zero()
    }

    /// A loss on pairs leaves the offset of the logits free, and a threshold on them to chance.
    fn check_zero(&self) -> Result<(), GailError> {
        if !self.loss.objective.is_on_pairs() || self.loss.score_regularizer > 0.0 {
            return Ok(());
        }
        let needs_zero = match (self.similarity, self.accuracy_gate) {
            (similarity, _) if similarity.has_threshold() => format!("similarity {similarity:?}"),
            (_, Some(_)) => "accuracy_gate".into(),
            _ => return Ok(()),
        };
        Err(GailError::Config(format!(
            "{needs_zero}: expected a score_regularizer above 0 or a loss on rows, got {:?} without one, which fixes no \
             zero of the logits",
            self.loss.objective
        )))
    }
}

/// `None`, or a bound that gradients can be scaled down to.
pub(crate) fn check_max_norm(max_norm: Option<f32>) -> Result<(), GailError> {
    match max_norm {
        Some(norm) if !(norm > 0.0 && norm.is_finite()) => {
            Err(GailError::Config(format!("max_grad_norm: expected a finite number above 0, got {norm}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            .with_accuracy_gate(Some(AccuracyGate { above: 0.9, warmup_rounds: 10 }))
            .with_learning_rate_warmup_rounds(Some(20));
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
        let message = "learning_rate_warmup_rounds: expected at least 1, got 0";
        invalid(new().with_learning_rate_warmup_rounds(Some(0)), message);
        let one = SimilarityReward::Levels { k: std::num::NonZeroU32::MIN };
        invalid(new().with_similarity(one), "similarity levels: expected at least 2, got 1");
        for above in [0.4, 1.1, f32::NAN] {
            let gated = new().with_accuracy_gate(Some(AccuracyGate::new(above)));
            invalid(gated, &format!("accuracy_gate: expected a bound in 0.5..=1, got {above}"));
        }
    }

    #[test]
    fn a_threshold_on_logits_without_a_zero_is_refused() {
        use DiscriminatorObjective::{BradleyTerry, Hinge, Relativistic};
        let with = |objective, score_regularizer, similarity| {
            let loss = LossConfig::new().with_objective(objective).with_score_regularizer(score_regularizer);
            GailConfig::new().with_loss(loss).with_similarity(similarity)
        };
        let levels = SimilarityReward::levels(3).expect("three levels");
        for objective in [BradleyTerry, Relativistic] {
            for similarity in [SimilarityReward::Step, levels] {
                let message = format!(
                    "invalid setting: similarity {similarity:?}: expected a score_regularizer above 0 or a loss on \
                     rows, got {objective:?} without one, which fixes no zero of the logits"
                );
                refused(with(objective, 0.0, similarity), &message);
                with(objective, 0.01, similarity).validate().expect("the regulariser fixes the zero");
            }
            for similarity in [SimilarityReward::LogOdds, SimilarityReward::Softplus, SimilarityReward::Probability] {
                let config = with(objective, 0.0, similarity);
                config.validate().expect("no threshold");
                let gated = config.with_accuracy_gate(Some(AccuracyGate::new(0.9)));
                let message = gated.validate().expect_err("the gate has a threshold").to_string();
                assert!(
                    message.starts_with("invalid setting: accuracy_gate: expected a score_regularizer"),
                    "{message}"
                );
            }
        }
        with(Hinge, 0.0, levels).validate().expect("a loss on rows has a zero");
    }

    #[test]
    fn a_config_without_the_warm_up_of_the_learning_rate_reads_as_none() {
        let mut fields: serde_json::Value = serde_json::from_str(&GailConfig::new().to_string()).expect("JSON");
        fields.as_object_mut().expect("a map").remove("learning_rate_warmup_rounds").expect("was there");
        let read = GailConfig::load_binary(fields.to_string().as_bytes()).expect("as saved before the setting existed");
        assert_eq!(read, GailConfig::new());
    }

    #[test]
    fn the_learning_rate_rises_to_its_end_by_the_number_of_the_round() {
        let rates = |config: &GailConfig, rounds: std::ops::Range<u64>| -> Vec<f64> {
            rounds.map(|number| config.learning_rate(Round::new(u64::MAX - 7, 0.5).with_number(number))).collect()
        };
        let warm = GailConfig::new().with_learning_rate_warmup_rounds(Some(4));
        assert_eq!(rates(&warm, 0..6), [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]);
        assert_eq!(rates(&GailConfig::new(), 0..2), [0.5, 0.5]);
        assert_eq!(rates(&GailConfig::new().with_learning_rate_warmup_rounds(Some(1)), 0..2), [0.5, 0.5]);
    }

    proptest! {
        #[test]
        fn a_warm_up_never_falls_starts_at_its_share_and_ends_at_the_rate(
            warmup in 1_u64..2000, number in 0_u64..3000, rate in 1e-8_f64..1.0,
        ) {
            let config = GailConfig::new().with_learning_rate_warmup_rounds(Some(warmup));
            let at = |number| config.learning_rate(Round::new(number, rate));
            prop_assert_eq!(at(0), rate * (1.0 / warmup as f64));
            prop_assert!(0.0 < at(number) && at(number) <= at(number + 1) && at(number + 1) <= rate);
            if number + 1 >= warmup {
                prop_assert_eq!(at(number), rate);
            } else {
                // Equal steps.
                prop_assert!((at(number + 1) - at(number) - rate / warmup as f64).abs() <= 1e-12 * rate);
            }
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
