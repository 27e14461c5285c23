//! Judges, teachers and samplers behind servers: settings, and what they make.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use ril::client::ChatRequest;
use ril::data::Record;
use ril::grpo::{SamplerBound, SamplerCorrection, SamplerLevel};
use ril::models::checkpoint::WeightType;
use ril::models::{CausalLm, Qwen2_5Vl};
use ril::reward::{AnswerStore, HttpJudge, Judge, PromptTemplate, RuleJudge};
use ril::run::{Outcome, RunFolder};
use ril::server::{AdapterFolder, SampledTokens, ServerRollout, ServerRolloutConfig, TeachPlan, TeacherFeed};
use ril::{RilError, RilTrainer, SampleTime, ServedStage, Stage, explain};
use serde::{Deserialize, Serialize};

use crate::places::{Places, Role, note};

/// Name of the file with the attempts that failed.
const LOG_FILE: &str = "servers.log";
/// Name of the file with the answers of a teacher that answers while the run trains.
const TEACHER_FILE: &str = "teacher_answers.jsonl";

/// Who decides in a run whether an answer is right.
pub type RunJudge = Arc<dyn Judge + Send + Sync>;

/// Models behind servers: what decides the numbers of a run, and where they are.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// The judge, as its server names it
    #[arg(long, value_name = "NAME")]
    pub judge_model: Option<String>,
    /// Prompt of the judge: a short reason and then the verdict, or the verdict alone
    #[arg(long, value_enum, default_value = "reasoned")]
    pub judge_prompt: JudgePrompt,
    /// Longest verdict, in tokens
    #[arg(long, default_value_t = 512)]
    pub judge_max_tokens: usize,
    /// Further fields of each request to the judge, a JSON object: the verdict's form, for servers that can hold a model to one
    #[arg(long, requires = "judge_model", value_name = "JSON")]
    pub judge_extra: Option<String>,
    /// A teacher, as its server names it. Its answers are kept in RUN/teacher_answers.jsonl; it is asked about the questions of
    /// the steps, in their order
    #[arg(long, requires = "model", value_name = "NAME")]
    pub teacher_model: Option<String>,
    /// Answers of that teacher to each question
    #[arg(long, default_value_t = 4)]
    pub teacher_answers: usize,
    /// Answers asked for in one request to that teacher; 1 for servers that know no `n` [default: all]
    #[arg(long, value_name = "N")]
    pub teacher_samples_per_request: Option<usize>,
    /// Longest answer of that teacher, in tokens; longer ones are asked for again
    #[arg(long, default_value_t = 1024)]
    pub teacher_max_tokens: usize,
    /// The student, as the sampling server names it: what --model is
    #[arg(long, value_name = "NAME")]
    pub rollout_model: Option<String>,
    /// Sample a step's answers while the step before is computed: one step stale, corrected by importance
    #[arg(long, requires = "rollout_model")]
    pub sample_ahead: bool,
    /// Addresses
    #[arg(skip)]
    #[serde(flatten)]
    pub places: Places,
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
            judge_model: None,
            judge_prompt: JudgePrompt::Reasoned,
            judge_max_tokens: 512,
            judge_extra: None,
            teacher_model: None,
            teacher_answers: 4,
            teacher_samples_per_request: None,
            teacher_max_tokens: 1024,
            rollout_model: None,
            sample_ahead: false,
            places: Places::default(),
        }
    }
}

impl ServerSettings {
    /// The model of a role, as its server names it.
    fn model(&self, role: Role) -> Option<&String> {
        match role {
            Role::Judge => self.judge_model.as_ref(),
            Role::Teacher => self.teacher_model.as_ref(),
            Role::Rollout => self.rollout_model.as_ref(),
        }
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
        let wrong = |what: String| Err(RilError::Config(what));
        for role in Role::ALL {
            let (name, servers) = (role.name(), self.places.servers(role));
            match (self.model(role), servers.is_empty()) {
                (Some(_), true) => return wrong(format!("--{name}-model: expected a --{name}-server too")),
                (None, false) => return wrong(format!("--{name}-server: expected a --{name}-model too")),
                (None, true) if self.places.key_env(role).is_some() => {
                    return wrong(format!("--{name}-key-env: expected a --{name}-server too"));
                }
                (Some(_), false) => drop(self.places.client(role, None)?),
                (None, true) => {}
            }
        }
        let counts = [
            ("--judge-max-tokens", self.judge_max_tokens),
            ("--teacher-answers", self.teacher_answers),
            ("--teacher-samples-per-request", self.teacher_samples_per_request.unwrap_or(1)),
            ("--teacher-max-tokens", self.teacher_max_tokens),
        ];
        if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return wrong(format!("{flag}: expected at least 1, got 0"));
        }
        match (&self.places.adapter_folder, self.rollout_model.is_some()) {
            (None, true) => return wrong("--rollout-model: expected an --adapter-folder too".into()),
            (Some(_), false) => return wrong("--adapter-folder: expected a --rollout-model too".into()),
            (Some(folder), true) if !folder.is_absolute() => {
                return wrong("--adapter-folder: expected an absolute path, which the server sees too".into());
            }
            _ => {}
        }
        self.extra().map(|_| ())
    }

    /// The judge of a run, which keeps its verdicts in the run's folder.
    ///
    /// # Errors
    /// The client's and the store's.
    pub fn judge(&self, run: &RunFolder) -> Result<RunJudge, RilError> {
        let Some(model) = &self.judge_model else { return Ok(Arc::new(RuleJudge::default())) };
        let client = self.places.client(Role::Judge, Some(run.file(LOG_FILE)))?;
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

    /// The teacher that answers these questions, in this order, while the run trains; its answers are kept in the run's folder.
    ///
    /// # Errors
    /// The client's and the file's.
    pub fn feed(&self, run: &RunFolder, records: Vec<(usize, Record)>) -> Result<Option<Arc<TeacherFeed>>, RilError> {
        let Some(model) = &self.teacher_model else { return Ok(None) };
        let log = run.file(LOG_FILE);
        let client = self.places.client(Role::Teacher, Some(log.clone()))?;
        let request = ChatRequest {
            max_tokens: Some(self.teacher_max_tokens),
            temperature: Some(1.0),
            top_p: Some(0.95),
            ..ChatRequest::new(model.as_str(), vec![])
        };
        let plan = TeachPlan {
            teacher: model.clone(),
            request,
            responses: self.teacher_answers,
            samples_per_request: self.teacher_samples_per_request.unwrap_or(self.teacher_answers),
            tries: 3,
            seed: 0,
        };
        let tell = move |teacher: &str, error: &RilError| note(&log, &format!("teacher {teacher}: {}", explain(error)));
        let feed = TeacherFeed::start(vec![(client, plan)], records, &run.file(TEACHER_FILE), tell)?;
        Ok(Some(Arc::new(feed)))
    }

    /// Weights of samples by how likely they are to the policy now; `None` where the policy itself samples.
    pub fn correction(&self) -> Option<SamplerCorrection> {
        let (level, bound) = (SamplerLevel::Token, SamplerBound::Truncate);
        let correction = SamplerCorrection { level, bound, min_ratio: 0.0, max_ratio: 3.0 };
        self.rollout_model.as_ref().map(|_| correction)
    }

    /// A loop whose samples come from the server, which gets the weights of each step; `None` where the policy samples.
    ///
    /// # Errors
    /// The client's.
    pub fn stage(
        &self,
        run: &RunFolder,
        arm: &str,
        trainer: RilTrainer<Qwen2_5Vl, RunJudge>,
    ) -> Result<Loop, RilError> {
        let (Some(model), Some(folder)) = (&self.rollout_model, &self.places.adapter_folder) else {
            return Ok(Loop::Local(Box::new(trainer)));
        };
        let client = self.places.client(Role::Rollout, Some(run.file(LOG_FILE)))?;
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
    let (policy, step) = (trainer.policy(), trainer.next_step() as u64);
    match policy.has_lora() {
        true => rollout.push_adapter(step, |folder| Ok(policy.save_adapter(folder, WeightType::F32)?)),
        false => rollout.push_model(step, |folder| Ok(policy.save(folder, WeightType::F32)?)),
    }
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
