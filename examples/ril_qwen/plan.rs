//! What each stage is run with.

use ril::{FailedStep, OptimizerSettings, RilConfig, RilError, SftConfig};

use crate::args::Settings;
use crate::task::DISCRIMINATOR_SYSTEM;

/// The loop: the paper's settings, except for what a small network on small data needs.
pub fn loop_config(settings: &Settings) -> RilConfig {
    let mut config = RilConfig::ril(settings.max_new_tokens(), settings.steps());
    config.groups.questions_per_step = settings.questions_per_step();
    config.rows_at_once = settings.rollout_rows();
    for optimizer in [&mut config.policy, &mut config.discriminator] {
        optimizer.learning_rate = settings.learning_rate();
        optimizer.final_learning_rate = settings.learning_rate();
        optimizer.micro_batch_rows = settings.micro_batch_rows();
    }
    // The run ends with the first error, and goes on from its last checkpoint.
    config.failed_step = FailedStep::Kept;
    if settings.model.is_none() {
        // The paper's 1.05 is for prose; working out a sum repeats its numbers.
        config.sampling.repetition_penalty = 1.0;
        config.policy.passes_at_once = 2;
        config.prompt.system = DISCRIMINATOR_SYSTEM.into();
    }
    config.sampler_correction = settings.servers.correction();
    config.seed = settings.seed;
    config
}

/// Discriminator pre-training.
pub struct Pretraining {
    /// Updates.
    pub steps: usize,
    /// Answers of the student a question, and as many of teachers.
    pub samples: usize,
    pub optimizer: OptimizerSettings,
}

/// The paper's for a real model: 16 samples of each origin, 1e-5 to 1e-6. Toys learn from a group's worth, as fast as in
/// the loop.
pub fn pretraining(settings: &Settings, config: &RilConfig) -> Pretraining {
    let (samples, optimizer) = (config.groups.students_per_question, config.discriminator.clone());
    let steps = settings.discriminator_steps();
    match settings.model {
        None => Pretraining { steps, samples, optimizer },
        Some(_) => Pretraining { steps, samples: 4 * samples, optimizer: paper_rates(optimizer) },
    }
}

/// Of so many training questions, the first ones that the discriminator is pre-trained on.
pub fn pretraining_questions(settings: &Settings, config: &RilConfig, train: usize) -> usize {
    train.min(settings.discriminator_steps() * config.groups.questions_per_step)
}

/// SFT of a user's student on teachers' answers.
pub fn own_sft(settings: &Settings) -> SftConfig {
    let optimizer =
        OptimizerSettings { micro_batch_rows: settings.micro_batch_rows(), ..OptimizerSettings::constant(1e-5) };
    let optimizer = paper_rates(optimizer);
    SftConfig { rows_per_step: 16, total_steps: settings.sft_steps(), optimizer, seed: settings.seed }
}

/// The paper's rates: both trainings before the loop.
fn paper_rates(optimizer: OptimizerSettings) -> OptimizerSettings {
    OptimizerSettings { learning_rate: 1e-5, final_learning_rate: 1e-6, ..optimizer }
}

/// Everything that settings can get wrong, before anything is read or written.
///
/// # Errors
/// [`RilError::Config`] and those of the cores, with the setting.
pub fn check(settings: &Settings) -> Result<(), RilError> {
    settings.check().map_err(RilError::Config)?;
    settings.servers.check()?;
    let config = loop_config(settings);
    config.validate()?;
    config.clone().without_imitation().validate()?;
    pretraining(settings, &config).optimizer.validate()?;
    if settings.model.is_some() && settings.sft_steps() > 0 {
        own_sft(settings).validate()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn settings(flags: &str) -> Settings {
        Settings::parse_from(format!("ril_qwen {flags}").split_whitespace())
    }

    #[test]
    fn settings_out_of_range_are_found_before_a_run() {
        for flags in ["--learning-rate=-1", "--learning-rate nan", "--micro-batch-rows 0", "--steps 0", "--held-out 0"]
        {
            assert!(check(&settings(flags)).is_err(), "{flags}");
        }
        let own = "--model m --data d --teacher-responses t";
        for flags in ["", "--quick", "--micro-batch-rows 1", "--sft-steps 0", own, &format!("{own} --sft-steps 3")] {
            check(&settings(flags)).unwrap();
        }
    }

    #[test]
    fn real_models_are_pretrained_as_in_the_paper() {
        let settings = settings("--model m --data d --teacher-responses t");
        let plan = pretraining(&settings, &loop_config(&settings));
        let rates = (plan.optimizer.learning_rate, plan.optimizer.final_learning_rate);
        assert_eq!((plan.samples, rates), (16, (1e-5, 1e-6)));
    }
}
