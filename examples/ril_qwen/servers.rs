//! Judges and samplers behind servers: settings, and what they make.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use ril::client::{ChatClient, ChatRequest, ClientConfig, RetryPolicy};
use ril::grpo::{SamplerBound, SamplerCorrection, SamplerLevel};
use ril::models::checkpoint::WeightType;
use ril::models::{CausalLm, Qwen2_5Vl};
use ril::reward::{AnswerStore, HttpJudge, Judge, PromptTemplate, RuleJudge};
use ril::run::{Outcome, RunFolder};
use ril::server::{AdapterFolder, SampledTokens, ServerRollout, ServerRolloutConfig};
use ril::{RilError, RilTrainer, SampleTime, ServedStage, Stage};
use serde::{Deserialize, Serialize};

/// Name of the file with the attempts that failed.
const LOG_FILE: &str = "servers.log";

/// Who decides in a run whether an answer is right.
pub type RunJudge = Arc<dyn Judge + Send + Sync>;

/// A language model as the judge, and a server that samples.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// Address of an OpenAI-compatible server whose model judges the answers; several share the load [default: rules]
    #[arg(long, requires = "judge_model", value_name = "URL")]
    pub judge_server: Vec<String>,
    /// The judge, as its server names it
    #[arg(long, requires = "judge_server", value_name = "NAME")]
    pub judge_model: Option<String>,
    /// Prompt of the judge: a short reason and then the verdict, or the verdict alone
    #[arg(long, value_enum, default_value = "reasoned")]
    pub judge_prompt: JudgePrompt,
    /// Longest verdict, in tokens
    #[arg(long, default_value_t = 512)]
    pub judge_max_tokens: usize,
    /// Further fields of each request to the judge, a JSON object: the verdict's form, for servers that can hold a model to one
    #[arg(long, requires = "judge_server", value_name = "JSON")]
    pub judge_extra: Option<String>,
    /// Address of a vLLM server that samples the student's answers in the loops; it is pushed the adapters. Start it with
    /// --enable-lora --logprobs-mode processed_logprobs, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True
    #[arg(long, requires_all = ["rollout_model", "adapter_folder", "lora_rank"], value_name = "URL")]
    pub rollout_server: Vec<String>,
    /// The student before the loops (models/sft of this run, or what it started from), as that server names it
    #[arg(long, requires = "rollout_server", value_name = "NAME")]
    pub rollout_model: Option<String>,
    /// Folder for the adapters, which this program and the server see under the same absolute path
    #[arg(long, requires = "rollout_server", value_name = "FOLDER")]
    pub adapter_folder: Option<PathBuf>,
    /// Sample a step's answers while the step before is computed: one step stale, corrected by importance
    #[arg(long, requires = "rollout_server")]
    pub sample_ahead: bool,
    /// Requests under way at once, to each kind of server
    #[arg(long, default_value_t = 16)]
    pub requests_at_once: usize,
    /// Seconds that one attempt of a request may take
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS")]
    pub request_timeout: f64,
    /// Attempts of a request, with growing pauses between them; each one that fails is told in RUN/servers.log
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub request_attempts: usize,
    /// Environment variable that holds the judge's key
    #[arg(long, requires = "judge_server", value_name = "VARIABLE")]
    pub judge_key_env: Option<String>,
    /// Environment variable that holds the sampler's key
    #[arg(long, requires = "rollout_server", value_name = "VARIABLE")]
    pub rollout_key_env: Option<String>,
}

/// The embedded prompts of judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgePrompt {
    #[default]
    Reasoned,
    Short,
}

impl JudgePrompt {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reasoned => "reasoned",
            Self::Short => "short",
        }
    }
}

/// No server, and the numbers of the command line's defaults.
impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            judge_server: Vec::new(),
            judge_model: None,
            judge_prompt: JudgePrompt::Reasoned,
            judge_max_tokens: 512,
            judge_extra: None,
            rollout_server: Vec::new(),
            rollout_model: None,
            adapter_folder: None,
            sample_ahead: false,
            requests_at_once: 16,
            request_timeout: 600.0,
            request_attempts: 8,
            judge_key_env: None,
            rollout_key_env: None,
        }
    }
}

impl ServerSettings {
    /// A client that tells failed attempts to `log`.
    fn client(
        &self,
        (servers, key): (&[String], &Option<String>),
        log: Option<PathBuf>,
    ) -> Result<ChatClient, RilError> {
        let config = ClientConfig {
            api_key_env: key.clone(),
            max_in_flight: self.requests_at_once,
            timeout_s: self.request_timeout,
            retry: RetryPolicy { max_attempts: self.request_attempts, ..RetryPolicy::default() },
            ..ClientConfig::new(servers)
        };
        let client = ChatClient::with_observer(config, move |retry| {
            let file = log.as_ref().and_then(|path| File::options().create(true).append(true).open(path).ok());
            // What cannot be logged must not stop a run.
            let _ = file.map(|mut file| writeln!(file, "{retry}"));
        });
        client.map_err(|error| RilError::Config(error.to_string()))
    }

    fn judge_client(&self, log: Option<PathBuf>) -> Result<ChatClient, RilError> {
        self.client((&self.judge_server, &self.judge_key_env), log)
    }

    fn rollout_client(&self, log: Option<PathBuf>) -> Result<ChatClient, RilError> {
        self.client((&self.rollout_server, &self.rollout_key_env), log)
    }

    fn extra(&self) -> Result<serde_json::Map<String, serde_json::Value>, RilError> {
        let wrong = |error| RilError::Config(format!("--judge-extra: expected a JSON object: {error}"));
        self.judge_extra.as_deref().map_or(Ok(Default::default()), |text| serde_json::from_str(text).map_err(wrong))
    }

    /// Everything that can be wrong before a run begins: addresses, counts, a key that is missing.
    ///
    /// # Errors
    /// [`RilError::Config`] with the setting.
    pub fn check(&self) -> Result<(), RilError> {
        if !self.judge_server.is_empty() {
            self.judge_client(None)?;
        }
        if !self.rollout_server.is_empty() {
            self.rollout_client(None)?;
        }
        let wrong = |what: &str| Err(RilError::Config(what.into()));
        if self.judge_max_tokens == 0 {
            return wrong("--judge-max-tokens: expected at least 1, got 0");
        }
        if self.adapter_folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            return wrong("--adapter-folder: expected an absolute path, which the server sees too");
        }
        self.extra().map(|_| ())
    }

    /// The judge of a run, which keeps its verdicts in the run's folder.
    ///
    /// # Errors
    /// The client's and the store's.
    pub fn judge(&self, run: &RunFolder) -> Result<RunJudge, RilError> {
        let Some(model) = &self.judge_model else { return Ok(Arc::new(RuleJudge::default())) };
        let client = self.judge_client(Some(run.file(LOG_FILE)))?;
        let template = match self.judge_prompt {
            JudgePrompt::Reasoned => PromptTemplate::judge(),
            JudgePrompt::Short => PromptTemplate::judge_short(),
        };
        let request = ChatRequest {
            temperature: Some(0.0),
            max_tokens: Some(self.judge_max_tokens),
            extra: self.extra()?,
            ..ChatRequest::new(model.as_str(), vec![])
        };
        let store = AnswerStore::open(run.file("verdicts.redb"))?;
        Ok(Arc::new(HttpJudge::new(client, request, template).with_store(Arc::new(store))))
    }

    /// Weights of samples by how likely they are to the policy now; `None` where the policy itself samples.
    pub fn correction(&self) -> Option<SamplerCorrection> {
        let (level, bound) = (SamplerLevel::Token, SamplerBound::Truncate);
        let correction = SamplerCorrection { level, bound, min_ratio: 0.0, max_ratio: 3.0 };
        (!self.rollout_server.is_empty()).then_some(correction)
    }

    /// A loop whose samples come from the server, which gets the adapters of each step; `None` where the policy samples.
    ///
    /// # Errors
    /// The client's.
    pub fn stage(
        &self,
        run: &RunFolder,
        arm: &str,
        trainer: RilTrainer<Qwen2_5Vl, RunJudge>,
    ) -> Result<Loop, RilError> {
        let (Some(model), Some(folder)) = (&self.rollout_model, &self.adapter_folder) else {
            return Ok(Loop::Local(Box::new(trainer)));
        };
        let client = self.rollout_client(Some(run.file(LOG_FILE)))?;
        let config = ServerRolloutConfig {
            model: model.clone(),
            tokens: SampledTokens::Returned,
            samples_per_request: None,
            adapter_folder: Some(AdapterFolder { here: folder.clone(), at_server: folder.clone() }),
            adapter_prefix: ServerRolloutConfig::new_prefix(arm),
        };
        let rollout = ServerRollout::new(client, config, trainer.policy().forbidden_ids());
        let time = if self.sample_ahead { SampleTime::DuringStepBefore } else { SampleTime::BeforeStep };
        Ok(Loop::Served(Box::new(ServedStage::new(trainer, rollout, push as Push, time))))
    }
}

fn push(rollout: &mut ServerRollout, trainer: &RilTrainer<Qwen2_5Vl, RunJudge>) -> Result<(), RilError> {
    let save = |folder: &std::path::Path| Ok(trainer.policy().save_adapter(folder, WeightType::F32)?);
    rollout.push_adapter(trainer.next_step() as u64, save)
}

type Push = fn(&mut ServerRollout, &RilTrainer<Qwen2_5Vl, RunJudge>) -> Result<(), RilError>;

/// A loop, wherever its samples come from.
pub enum Loop {
    Local(Box<RilTrainer<Qwen2_5Vl, RunJudge>>),
    Served(Box<ServedStage<Qwen2_5Vl, RunJudge, ServerRollout, Push>>),
}

impl Loop {
    /// All steps, in the run's folder.
    ///
    /// # Errors
    /// The stage's.
    pub fn run(
        &mut self,
        run: &RunFolder,
        name: &str,
        monitor: &mut ril::monitor::Monitor,
    ) -> Result<Outcome, RilError> {
        match self {
            Self::Local(trainer) => run.run_stage(name, trainer.as_mut(), monitor),
            Self::Served(stage) => run.run_stage(name, stage.as_mut(), monitor),
        }
    }

    /// The policy as it is now.
    pub fn policy(&self) -> Qwen2_5Vl {
        match self {
            Self::Local(trainer) => trainer.policy(),
            Self::Served(stage) => stage.trainer().policy(),
        }
    }
}
