//! Command line.

use std::path::PathBuf;

use clap::Parser;
use ril::models::LoraConfig;
use ril::monitor::MonitorMode;
use serde::{Deserialize, Serialize};

use crate::device::DeviceName;
use crate::places::Places;
use crate::servers::ServerSettings;

/// Train a small vision-language model by reinforcement and imitation, and compare it with reinforcement alone.
///
/// Without --model: handwritten digits, two toy teachers, a toy student, all inside this repository.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// Go on with an interrupted run in this folder; its own settings are used, but for addresses and patience of servers
    #[arg(long, value_name = "RUN", conflicts_with_all = ["Settings", "ServerSettings", "out", "train_teachers"])]
    pub resume: Option<PathBuf>,
    /// New folder for the run [default: runs/ril_qwen-seedN]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Progress: terminal UI, plain lines, nothing
    #[arg(long, default_value = "auto")]
    pub monitor: MonitorMode,
    /// Where to compute; cuda and wgpu need the feature of the same name [default: cpu; with --resume that of the run]
    #[arg(long, value_enum)]
    pub device: Option<DeviceName>,
    /// Train the two toy teachers anew and store them beside this example, then end
    #[arg(long)]
    pub train_teachers: bool,
    #[command(flatten)]
    settings: Settings,
    // Beside the settings and not in them: clap makes no group of a struct that holds another one.
    #[command(flatten)]
    servers: ServerSettings,
    #[command(flatten)]
    places: Places,
}

impl Args {
    /// The settings, those of servers and the device among them.
    pub fn settings(&self) -> Settings {
        let device = self.device.unwrap_or_default();
        let servers = ServerSettings { places: self.places.clone(), ..self.servers.clone() };
        Settings { servers, device, ..self.settings.clone() }
    }

    /// The settings of a run that goes on: those it was begun with, but for the device and the places of servers.
    pub fn resumed(&self, begun: Settings) -> Settings {
        let places = self.places.clone().or(begun.servers.places);
        let servers = ServerSettings { places, ..begun.servers };
        Settings { device: self.device.unwrap_or(begun.device), servers, ..begun }
    }

    /// Places that are given on the command line.
    pub fn places(&self) -> &Places {
        &self.places
    }
}

/// Everything that decides the numbers of a run; stored in the run folder.
#[derive(Debug, Clone, PartialEq, Parser, Serialize, Deserialize)]
pub struct Settings {
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Steps of each reinforcement loop [default: 60; 8 with --quick]
    #[arg(long)]
    pub steps: Option<usize>,
    /// Steps of SFT before the loops [default: 1250; 100 with --quick; 0 with --model]
    #[arg(long)]
    pub sft_steps: Option<usize>,
    /// Questions held out for the table [default: 3000; 300 with --quick; a fifth of the data with --model]
    #[arg(long)]
    pub held_out: Option<usize>,
    /// Questions a step of the loops [default: 48; 4 with --model]
    #[arg(long)]
    pub questions_per_step: Option<usize>,
    /// Learning rate of policy and discriminator in the loops [default: 3e-4; 1e-6 with --model, and ten times that for its
    /// adapters]
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Tokens that an answer may have [default: 34; 256 with --model]
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    /// Steps of discriminator pre-training before each loop with teachers [default: 20]
    #[arg(long)]
    pub discriminator_steps: Option<usize>,
    /// Train policies and discriminators of the loops through adapters of this rank on a frozen student; results are PEFT folders
    /// on models/sft
    #[arg(long)]
    pub lora_rank: Option<usize>,
    /// Weight of the adapters [default: twice the rank]
    #[arg(long, requires = "lora_rank")]
    pub lora_alpha: Option<f64>,
    /// Rows of one forward and backward pass [default: 64; 4 with --model]
    #[arg(long)]
    pub micro_batch_rows: Option<usize>,
    /// Rows sampled at once, in rollouts and evaluation [default: 256 and 250; 16 with --model]
    #[arg(long)]
    pub rows_at_once: Option<usize>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 20)]
    pub checkpoint_every: usize,
    /// Measure on the validation split instead of the test split: for choosing settings
    #[arg(long, conflicts_with = "model")]
    pub validation: bool,
    /// A small run that shows that everything works
    #[arg(long, conflicts_with = "model")]
    pub quick: bool,
    /// Student: a Qwen2.5-VL folder
    #[arg(long, requires = "data")]
    pub model: Option<PathBuf>,
    /// Questions, JSON lines: {"id", "images": [paths], "question", "answer"}
    #[arg(long, requires = "model")]
    pub data: Option<PathBuf>,
    /// Cached teacher answers, JSON lines: {"question": id, "teacher": name, "response"}
    #[arg(long, requires = "model")]
    pub teacher_responses: Option<PathBuf>,
    /// Judges, teachers and samplers elsewhere
    #[arg(skip)]
    #[serde(flatten)]
    pub servers: ServerSettings,
    /// Where the run computes
    #[arg(skip)]
    pub device: DeviceName,
}

impl Settings {
    fn pick<T>(&self, given: Option<T>, own_model: T, quick: T, full: T) -> T {
        given.unwrap_or(if self.model.is_some() {
            own_model
        } else if self.quick {
            quick
        } else {
            full
        })
    }

    pub fn steps(&self) -> usize {
        self.pick(self.steps, 60, 8, 60)
    }

    pub fn sft_steps(&self) -> usize {
        self.pick(self.sft_steps, 0, 100, 1250)
    }

    /// `None` = a share of the data.
    pub fn held_out(&self) -> Option<usize> {
        self.held_out.or(if self.model.is_some() { None } else { Some(self.pick(None, 0, 300, 3000)) })
    }

    pub fn questions_per_step(&self) -> usize {
        self.pick(self.questions_per_step, 4, 8, 48)
    }

    pub fn learning_rate(&self) -> f64 {
        let own_model = if self.lora_rank.is_some() { 1e-5 } else { 1e-6 };
        self.pick(self.learning_rate, own_model, 3e-4, 3e-4)
    }

    pub fn max_new_tokens(&self) -> usize {
        self.pick(self.max_new_tokens, 256, 34, 34)
    }

    pub fn discriminator_steps(&self) -> usize {
        self.discriminator_steps.unwrap_or(20)
    }

    pub fn micro_batch_rows(&self) -> usize {
        self.pick(self.micro_batch_rows, 4, 64, 64)
    }

    /// Adapters of the loops, on the decoder's products; `None` trains everything.
    pub fn lora(&self) -> Option<LoraConfig> {
        let rank = self.lora_rank?;
        let alpha = self.lora_alpha.unwrap_or(2.0 * rank as f64);
        Some(LoraConfig { rank, alpha, ..LoraConfig::default() })
    }

    /// Rows that a rollout samples at once.
    pub fn rollout_rows(&self) -> usize {
        self.pick(self.rows_at_once, 16, 256, 256)
    }

    /// Questions that an evaluation puts at once.
    pub fn evaluation_rows(&self) -> usize {
        self.pick(self.rows_at_once, 16, 250, 250)
    }

    /// Numbers that must not be 0; what else can be wrong is found where it is used, before a run begins too.
    ///
    /// # Errors
    /// The flag.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("--steps", self.steps()),
            ("--held-out", self.held_out().unwrap_or(1)),
            ("--questions-per-step", self.questions_per_step()),
            ("--max-new-tokens", self.max_new_tokens()),
            ("--discriminator-steps", self.discriminator_steps()),
            ("--lora-rank", self.lora_rank.unwrap_or(1)),
            ("--micro-batch-rows", self.micro_batch_rows()),
            ("--rows-at-once", self.rollout_rows()),
            ("--checkpoint-every", self.checkpoint_every),
        ];
        if self.model.is_some() && self.teacher_responses.is_none() && self.servers.teacher_model.is_none() {
            return Err("--model: expected --teacher-responses or a --teacher-server too".into());
        }
        if self.servers.rollout_model.is_some() && (self.sft_steps() > 0 || self.model.is_none()) {
            // Nothing tells whether the sampler has other weights below its adapters.
            return Err("--rollout-server: expected --model and no --sft-steps, as the sampler serves what the loops start from; \
                        fine-tune in a run of its own and take its models/sft as --model"
                .into());
        }
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((flag, _)) => Err(format!("{flag}: expected at least 1, got 0")),
            None => self.lora().map_or(Ok(()), |lora| lora.validate().map_err(|error| error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn refusal(flags: &str) -> ErrorKind {
        Args::try_parse_from(format!("ril_qwen {flags}").split(' ')).expect_err(flags).kind()
    }

    #[test]
    fn no_setting_is_silently_ignored_when_a_run_goes_on() {
        let flags = [
            "--seed 0",
            "--steps 3",
            "--sft-steps 3",
            "--held-out 3",
            "--questions-per-step 3",
            "--learning-rate 3",
            "--max-new-tokens 3",
            "--discriminator-steps 3",
            "--lora-rank 3",
            "--lora-rank 3 --lora-alpha 3",
            "--micro-batch-rows 3",
            "--rows-at-once 3",
            "--checkpoint-every 3",
            "--judge-model m",
            "--judge-prompt short",
            "--judge-max-tokens 3",
            "--model m --data d --teacher-model t",
            "--teacher-answers 3",
            "--teacher-max-tokens 3",
            "--rollout-model m",
            "--validation",
            "--quick",
            "--model m --data d --teacher-responses t",
            "--out o",
            "--train-teachers",
        ];
        for flag in flags {
            assert_eq!(refusal(&format!("--resume run {flag}")), ErrorKind::ArgumentConflict, "{flag}");
        }
        Args::try_parse_from("ril_qwen --resume run --device cpu --monitor plain".split(' ')).unwrap();
    }

    #[test]
    fn a_run_goes_on_with_other_places_and_the_same_settings() {
        let parse = |flags: &str| Args::try_parse_from(format!("ril_qwen {flags}").split(' ')).unwrap();
        let begun =
            parse("--seed 3 --judge-server http://a --judge-model j --judge-key-env A --request-timeout 5").settings();
        let same = parse("--resume run").resumed(begun.clone());
        assert_eq!(same, begun);
        let flags = "--judge-server http://b --judge-server http://c --request-timeout 6 --requests-at-once 2";
        let moved = parse(&format!("--resume run {flags}")).resumed(begun);
        let places = &moved.servers.places;
        assert_eq!((places.judge_server.join(" "), places.request_timeout), ("http://b http://c".into(), Some(6.0)));
        assert_eq!((places.requests_at_once, places.judge_key_env.as_deref()), (Some(2), Some("A")));
        assert_eq!((moved.seed, moved.servers.judge_model.as_deref()), (3, Some("j")));
    }

    #[test]
    fn the_defaults_of_servers_are_those_of_the_command_line() {
        assert_eq!(Args::parse_from(["ril_qwen"]).settings().servers, ServerSettings::default());
    }

    #[test]
    fn flags_of_the_digits_do_not_go_with_a_model() {
        for flag in ["--quick", "--validation"] {
            let flags = format!("--model m --data d --teacher-responses t {flag}");
            assert_eq!(refusal(&flags), ErrorKind::ArgumentConflict, "{flag}");
        }
        assert_eq!(refusal("--model m"), ErrorKind::MissingRequiredArgument);
        let no_teacher = Settings::try_parse_from("ril_qwen --model m --data d".split(' ')).unwrap();
        assert!(no_teacher.check().unwrap_err().contains("--teacher-server"));
    }

    #[test]
    fn zeros_are_refused_by_name() {
        let flags = "--steps --held-out --questions-per-step --lora-rank --micro-batch-rows --checkpoint-every";
        for flag in flags.split(' ') {
            let settings = Settings::try_parse_from(["ril_qwen", flag, "0"]).unwrap();
            assert_eq!(settings.check(), Err(format!("{flag}: expected at least 1, got 0")));
        }
        Settings::try_parse_from(["ril_qwen", "--sft-steps", "0"]).unwrap().check().unwrap();
        let endless = Settings::try_parse_from(["ril_qwen", "--lora-rank", "2", "--lora-alpha", "inf"]).unwrap();
        assert!(endless.check().unwrap_err().contains("lora_alpha"));
        assert_eq!(refusal("--lora-alpha 4"), ErrorKind::MissingRequiredArgument);
    }
}
