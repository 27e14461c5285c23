//! Command line.

use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use ril::monitor::MonitorMode;

use crate::asking::Asking;
use crate::device::DeviceName;

/// Put a benchmark in VLMEvalKit's layout to a model, and score it by VLMEvalKit's rules
///
/// Every answer is stored when it comes; the same command goes on where it was stopped.
#[derive(Debug, Clone, Parser)]
#[command(version)]
#[command(group = ArgGroup::new("who").args(["model", "server", "list"]).required(true))]
pub struct Args {
    /// Folder of a Qwen2.5-VL checkpoint
    #[arg(long, value_name = "DIR", requires = "benchmark")]
    pub model: Option<PathBuf>,
    /// Address of an OpenAI-compatible server; several share the load
    #[arg(long, value_name = "URL", requires_all = ["benchmark", "server_model"])]
    pub server: Vec<String>,
    /// Model, as the server names it
    #[arg(long, value_name = "NAME", requires = "server")]
    pub server_model: Option<String>,
    /// Benchmark: a tab-separated file
    #[arg(long, value_name = "FILE.tsv")]
    pub benchmark: Option<PathBuf>,
    /// What the file holds [default: by the file's name, as VLMEvalKit names it]
    #[arg(long, value_name = "NAME")]
    pub kind: Option<String>,
    /// Folder for answers and scores [default: runs/evaluate/BENCHMARK-KIND-MODEL, without a KIND that was not given]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Ask the first N questions only; of a question with rotations, all of them
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Count rows that the model cannot be asked (too long for it, refused by its server) as wrong; without it they keep the run from
    /// being scored
    #[arg(long)]
    pub failed_as_wrong: bool,
    /// Compare with the scores in another folder, question by question
    #[arg(long, value_name = "FOLDER")]
    pub compare: Option<PathBuf>,
    /// Folder of a checkpoint that reads and grades answers where rules do not; without it only exact matching counts
    #[arg(long, value_name = "DIR")]
    pub judge: Option<PathBuf>,
    /// Address of a server whose model reads and grades answers
    #[arg(long, value_name = "URL", requires = "judge_model", conflicts_with = "judge")]
    pub judge_server: Vec<String>,
    /// The judge, as its server names it
    #[arg(long, value_name = "NAME", requires = "judge_server")]
    pub judge_model: Option<String>,
    /// Send the fields of OpenAI's protocol alone: no top_k, no repetition_penalty. May change answers: a setting of the run
    #[arg(long)]
    pub openai_fields_only: bool,
    /// Environment variable that holds the key of the judge's server; --api-key-env is the one of --server
    #[arg(long, value_name = "VARIABLE", requires = "judge_server")]
    pub judge_key_env: Option<String>,
    #[command(flatten)]
    pub asking: Asking,
    /// Longest answer, stop token included; VLMEvalKit's for Qwen2.5-VL
    #[arg(long, default_value_t = 2048)]
    pub max_new_tokens: usize,
    /// Rows answered at once; bounds memory
    #[arg(long, default_value_t = 16)]
    pub rows_at_once: usize,
    /// Round the weights of the decoder and of the head to 8 bits
    #[arg(long)]
    pub int8: bool,
    /// Where to compute; cuda and wgpu need the feature of the same name
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceName,
    /// Progress: terminal UI, plain lines, nothing
    #[arg(long, default_value = "plain")]
    pub monitor: MonitorMode,
    /// Print the 14 benchmarks of the paper and what serves each, then end
    #[arg(long)]
    pub list: bool,
}

impl Args {
    /// What tells a model on a server from another one. A server may move: the model's name counts, and what it is sent.
    pub fn server_identity(&self, model: &str) -> String {
        let fields = if self.openai_fields_only { ", OpenAI's fields only" } else { "" };
        format!("server, {model}{fields}")
    }

    /// Where answers and scores go.
    pub fn folder(&self) -> PathBuf {
        let name = |path: Option<&PathBuf>| path.and_then(|p| p.file_stem()).map(|n| n.to_string_lossy().to_string());
        // A model on a server may be named by a path.
        let plain = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "_");
        let served = || self.server_model.as_deref().map(plain);
        let who = name(self.model.as_ref()).or_else(served).unwrap_or_default();
        let what = name(self.benchmark.as_ref()).unwrap_or_default();
        let kind = self.kind.as_ref().map(|kind| format!("-{kind}")).unwrap_or_default();
        self.out.clone().unwrap_or_else(|| PathBuf::from("runs/evaluate").join(format!("{what}{kind}-{who}")))
    }
}
