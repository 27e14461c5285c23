//! Command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use ril::monitor::MonitorMode;
use serde::{Deserialize, Serialize};

/// Train a small vision-language model by reinforcement and imitation, and compare it with reinforcement alone.
///
/// Without --model: handwritten digits, two toy teachers, a toy student, all inside this repository.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// Go on with an interrupted run in this folder; its own settings are used
    #[arg(long, value_name = "RUN", conflicts_with_all = ["out", "seed", "steps", "quick", "model", "data", "teacher_responses", "train_teachers"])]
    pub resume: Option<PathBuf>,
    /// New folder for the run [default: runs/ril_qwen-seedN]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Progress: terminal UI, plain lines, nothing
    #[arg(long, default_value = "auto")]
    pub monitor: MonitorMode,
    /// Where to compute; cuda and wgpu need the feature of the same name
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// Train the two toy teachers anew and store them beside this example, then end
    #[arg(long)]
    pub train_teachers: bool,
    #[command(flatten)]
    pub settings: Settings,
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
    /// Questions a step of the loops [default: 24; 4 with --model]
    #[arg(long)]
    pub questions_per_step: Option<usize>,
    /// Learning rate of policy and discriminator in the loops [default: 3e-4; 1e-6 with --model]
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Tokens that an answer may have [default: 34; 256 with --model]
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    /// Rows of one forward and backward pass [default: 64; 4 with --model]
    #[arg(long)]
    pub micro_batch_rows: Option<usize>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 20)]
    pub checkpoint_every: usize,
    /// Measure on the validation split instead of the test split: for choosing settings
    #[arg(long)]
    pub validation: bool,
    /// A small run that shows that everything works
    #[arg(long)]
    pub quick: bool,
    /// Student: a Qwen2.5-VL folder
    #[arg(long, requires = "data", requires = "teacher_responses")]
    pub model: Option<PathBuf>,
    /// Questions, JSON lines: {"id", "images": [paths], "question", "answer"}
    #[arg(long, requires = "model")]
    pub data: Option<PathBuf>,
    /// Cached teacher answers, JSON lines: {"question": id, "teacher": name, "response"}
    #[arg(long, requires = "model")]
    pub teacher_responses: Option<PathBuf>,
}

/// Devices by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    Cpu,
    Cuda,
    Wgpu,
}

impl DeviceName {
    /// The device, without autodiff.
    ///
    /// # Errors
    /// What to build with when this binary lacks the device.
    pub fn open(self) -> Result<burn::tensor::Device, String> {
        match self {
            Self::Cpu => Ok(burn::tensor::Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(burn::tensor::Device::cuda(0)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(burn::tensor::Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[allow(unreachable_patterns, reason = "reachable only without the features")]
            other => Err(format!(
                "this build has no {other:?} device: add --features {}",
                format!("{other:?}").to_lowercase()
            )),
        }
    }
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
        self.pick(self.questions_per_step, 4, 8, 24)
    }

    pub fn learning_rate(&self) -> f64 {
        self.pick(self.learning_rate, 1e-6, 3e-4, 3e-4)
    }

    pub fn max_new_tokens(&self) -> usize {
        self.pick(self.max_new_tokens, 256, 34, 34)
    }

    pub fn micro_batch_rows(&self) -> usize {
        self.pick(self.micro_batch_rows, 4, 64, 64)
    }

    /// Name and value of each setting, for the report.
    pub fn table(&self) -> Vec<(String, String)> {
        let mut table = vec![
            ("seed".to_string(), self.seed.to_string()),
            ("loop steps".into(), self.steps().to_string()),
            ("SFT steps".into(), self.sft_steps().to_string()),
            ("questions a step".into(), self.questions_per_step().to_string()),
            ("learning rate in the loops".into(), format!("{:e}", self.learning_rate())),
            ("longest answer, tokens".into(), self.max_new_tokens().to_string()),
        ];
        for (name, path) in [("student", &self.model), ("data", &self.data), ("teachers", &self.teacher_responses)] {
            table.extend(path.as_ref().map(|p| (name.to_string(), p.display().to_string())));
        }
        table
    }
}
