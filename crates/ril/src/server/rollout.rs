//! Student samples from servers whose weights follow the student.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ril_client::{ChatChoice, ChatClient, ChatMessage, ChatRequest, ChatResponse, ClientError, FinishReason};
use ril_models::generate::SamplingParams;
use ril_models::image::{RgbImage, resize_bicubic};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::picture::picture_part;
use crate::error::RilError;
use crate::group::{Origin, Question, Response};
use crate::rollout::{Rollout, mix_seed};

/// What the student learns from: the tokens that the server drew, or its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampledTokens {
    /// Token ids and log-probabilities, as vLLM and SGLang give them. The ids of the prompt must be those that the student
    /// reads: another template, tokenizer or number of image tokens is an error.
    #[default]
    Returned,
    /// The text alone, read anew by the student's tokenizer, for servers that tell no ids (llama.cpp). There are no
    /// log-probabilities for a sampler correction then.
    Encoded,
}

/// How samples are asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerRolloutConfig {
    /// The student on the server, by its name there. Adapters are loaded beside it.
    pub model: String,
    /// Tokens or text.
    #[serde(default)]
    pub tokens: SampledTokens,
    /// Samples asked for in one request, `n`; `None` for all samples of a question.
    #[serde(default)]
    pub samples_per_request: Option<usize>,
    /// Where adapters and models are written, and read by the server: a folder that both see. `None` when neither is pushed from here.
    #[serde(default)]
    pub adapter_folder: Option<AdapterFolder>,
    /// Adapters and pushed weights are named `PREFIX-step-N`. It must be new for each run and each arm of a run: a server keeps what it computed for
    /// a prompt by the adapter's name, and would sample from what an adapter of that name once was.
    #[serde(default = "default_prefix")]
    pub adapter_prefix: String,
}

fn default_prefix() -> String {
    ServerRolloutConfig::new_prefix("adapter")
}

impl ServerRolloutConfig {
    /// A prefix that no other call gives, with a name in front for people.
    #[must_use]
    pub fn new_prefix(name: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = mix_seed(mix_seed(since, u64::from(std::process::id())), number) >> 32;
        format!("{name}-{tag:08x}")
    }
}

/// A folder under its two names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterFolder {
    /// As this process sees it.
    pub here: PathBuf,
    /// As the server sees it; an absolute path.
    pub at_server: PathBuf,
}

impl AdapterFolder {
    /// Removes what no server is asked for any more.
    fn remove(&self, name: &str) -> Result<(), RilError> {
        let folder = self.here.join(name);
        std::fs::remove_dir_all(&folder).map_err(RilError::io(&folder))
    }
}

/// Samples from OpenAI-compatible servers.
///
/// Each question is one request with its pictures, or several when `samples_per_request` is smaller than the number of samples;
/// as many are under way as the client allows. Tokens that the student never writes (placeholders of pictures) get a bias of
/// -100. Pictures are sent at the size that the student sees: vLLM resizes with torchvision, whose pixels differ from Pillow's.
///
/// **Weights.** [`Self::push_adapter`] loads a LoRA adapter into vLLM, [`Self::push_weights`] a checkpoint folder into SGLang.
/// Samples carry the step that was pushed last ([`Response::policy_step`]); how far behind the policy it is stands in the
/// metrics (`sampler/staleness`). Servers of unequal weights are never mixed: an adapter that one server refuses is an error, and
/// the one before, which all still have, goes on being asked. A server that was started anew has lost its adapter and says so (404):
/// it alone is given it again.
///
/// **Log-probabilities** are those of the distribution that was sampled from only when the server says so: start vLLM with
/// `--logprobs-mode processed_logprobs`, or sample at temperature 1 without truncation and penalties. They enter the step through
/// [`RilConfig::sampler_correction`](crate::RilConfig::sampler_correction).
#[derive(Debug)]
pub struct ServerRollout {
    client: ChatClient,
    config: ServerRolloutConfig,
    /// Ids that are never sampled, as the protocol's `logit_bias`.
    forbidden: BTreeMap<String, f32>,
    /// What is asked now: the model, or its adapter.
    current: String,
    /// Steps that the policy had done when the weights of `current` were pushed.
    step: u64,
    /// Name of the weights that were pushed, where they are whole.
    weights: Option<String>,
    /// Their folder.
    model_folder: Option<String>,
}

impl ServerRollout {
    /// Samples of the server's own weights, those of step 0; `forbidden_ids` are the student's
    /// ([`CausalLm::forbidden_ids`](ril_models::CausalLm::forbidden_ids)).
    #[must_use]
    pub fn new(client: ChatClient, config: ServerRolloutConfig, forbidden_ids: &[u32]) -> Self {
        let forbidden = forbidden_ids.iter().map(|id| (id.to_string(), -100.0)).collect();
        Self { client, current: config.model.clone(), config, forbidden, step: 0, weights: None, model_folder: None }
    }

    /// Steps that the policy had done when the weights in use were pushed.
    #[must_use]
    pub fn policy_step(&self) -> u64 {
        self.step
    }

    /// Loads the student's adapter into every server (vLLM's `/v1/load_lora_adapter`; start it with `--enable-lora` and
    /// `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`) and samples from it from now on. `save` writes it as a PEFT folder to the
    /// path that it is given. The adapter before is unloaded and removed.
    ///
    /// # Errors
    /// [`RilError::Config`] without an `adapter_folder`; what `save` says; [`RilError::Push`] when a server refuses.
    pub fn push_adapter(
        &mut self,
        step: u64,
        save: impl FnOnce(&Path) -> Result<(), RilError>,
    ) -> Result<(), RilError> {
        let folders = self.folders("adapters")?.clone();
        let name = self.name_of(step);
        save(&folders.here.join(&name))?;
        if let Err(error) = self.post(LOAD_ADAPTER, &adapter(&folders, &name)) {
            self.unload(&name);
            return Err(error);
        }
        self.step = step;
        let had_adapter = self.has_adapter();
        let before = std::mem::replace(&mut self.current, name);
        if !had_adapter || before == self.current {
            return Ok(());
        }
        self.unload(&before);
        folders.remove(&before)
    }

    /// Of an adapter or a model, and of its folder.
    fn name_of(&self, step: u64) -> String {
        format!("{}-step-{step}", self.config.adapter_prefix)
    }

    fn folders(&self, what: &str) -> Result<&AdapterFolder, RilError> {
        let missing = || RilError::Config(format!("rollout: adapter_folder is needed to push {what}"));
        self.config.adapter_folder.as_ref().ok_or_else(missing)
    }

    /// Whether an adapter is asked, and not the model below it.
    fn has_adapter(&self) -> bool {
        self.current != self.config.model
    }

    /// What a server does not give back, or never had, is not worth a run.
    fn unload(&self, name: &str) {
        let _ = self.client.post_once_to_all("unload_lora_adapter", &json!({"lora_name": name}));
    }

    /// Loads the adapter in use into the server that was asked at `url`, and into no other.
    fn load_again(&self, url: &str) -> Result<(), RilError> {
        let Some(folders) = &self.config.adapter_folder else { return Ok(()) };
        let failed = |source| RilError::Push { path: LOAD_ADAPTER, source };
        self.client.post_to(url, LOAD_ADAPTER, &adapter(folders, &self.current)).map(|_| ()).map_err(failed)
    }

    /// Loads a checkpoint folder into every server (SGLang's `/update_weights_from_disk`) and samples from it from now on. Samples
    /// whose server names other weights are an error: it was started anew.
    ///
    /// Start SGLang with `SGLANG_VLM_CACHE_SIZE_MB=0` where the student reads pictures: version 0.5.23 else goes on with what the vision
    /// tower of before made of them.
    ///
    /// vLLM has no such call: push adapters, or restart it on the saved folder and say so with [`Self::set_policy_step`].
    ///
    /// # Errors
    /// [`RilError::Push`] when a server refuses.
    pub fn push_weights(&mut self, step: u64, folder_at_server: &Path) -> Result<(), RilError> {
        let version = self.name_of(step);
        let body = json!({"model_path": folder_at_server, "weight_version": version});
        self.post("/update_weights_from_disk", &body)?;
        self.set_policy_step(step);
        self.weights = Some(version);
        Ok(())
    }

    /// [`Self::push_weights`] of a model that `save` writes to the path that it is given, in the folder of the adapters. The folder of before
    /// is removed.
    ///
    /// # Errors
    /// [`RilError::Config`] without an `adapter_folder`; what `save` says; [`RilError::Push`].
    pub fn push_model(&mut self, step: u64, save: impl FnOnce(&Path) -> Result<(), RilError>) -> Result<(), RilError> {
        let folders = self.folders("models")?.clone();
        let name = self.name_of(step);
        save(&folders.here.join(&name))?;
        self.push_weights(step, &folders.at_server.join(&name))?;
        match self.model_folder.replace(name.clone()) {
            Some(before) if before != name => folders.remove(&before),
            _ => Ok(()),
        }
    }

    /// Says that the servers were given, by other means, the weights of the policy after this step.
    pub fn set_policy_step(&mut self, step: u64) {
        self.step = step;
    }

    fn post(&self, path: &'static str, body: &serde_json::Value) -> Result<(), RilError> {
        let failed = |source| RilError::Push { path, source };
        self.client.post_to_all(path, body).into_iter().try_for_each(|answer| answer.map(|_| ()).map_err(failed))
    }

    fn request(&self, question: &Question, params: &SamplingParams, job: Job) -> Result<ChatRequest, RilError> {
        let pictures = (0..question.pictures.len()).map(|i| picture_part(&shown(question, i)));
        let pictures = pictures.collect::<Result<Vec<_>, _>>()?;
        let message = ChatMessage::user_with_images(pictures, question.text.as_str());
        let has_ids = (self.config.tokens == SampledTokens::Returned).then_some(true);
        let mut request = ChatRequest {
            n: Some(job.samples),
            max_tokens: Some(params.max_new_tokens),
            temperature: Some(params.temperature),
            top_p: Some(params.top_p),
            top_k: ChatRequest::top_k_of(params.top_k),
            repetition_penalty: Some(params.repetition_penalty),
            seed: Some(job.seed),
            logprobs: has_ids,
            return_token_ids: has_ids,
            ..ChatRequest::new(self.current.as_str(), vec![message])
        };
        request.extra.insert("logit_bias".into(), json!(self.forbidden));
        Ok(request)
    }

    fn responses(&self, question: &Question, response: &ChatResponse) -> Result<Vec<Response>, RilError> {
        if let (Some(pushed), Some(got)) = (&self.weights, response.weight_version())
            && got != pushed
        {
            return Err(RilError::Input(format!(
                "question {}: the server samples from the weights {got:?}, not from {pushed:?}: it was started anew",
                question.id
            )));
        }
        if let (SampledTokens::Returned, Some(ids)) = (self.config.tokens, response.prompt_ids())
            && ids != question.prompt.token_ids
        {
            let (ours, theirs) = (question.prompt.token_ids.as_slice(), ids);
            let first = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            return Err(RilError::Input(format!(
                "question {}: the server reads another prompt than the student: {} tokens, not {}, the first that differs at {first}",
                question.id,
                theirs.len(),
                ours.len()
            )));
        }
        response.choices.iter().map(|choice| self.response(question, choice)).collect()
    }

    fn response(&self, question: &Question, choice: &ChatChoice) -> Result<Response, RilError> {
        if let FinishReason::Other(reason) = &choice.finish_reason {
            let message = format!("question {}: the server broke off a sample ({reason})", question.id);
            return Err(RilError::Input(message));
        }
        let (token_ids, sampler_log_probs) = match self.config.tokens {
            SampledTokens::Encoded => (Vec::new(), None),
            SampledTokens::Returned => {
                let ids = choice.token_ids.clone().unwrap_or_default();
                let log_probs: Vec<f32> = choice.log_probs().unwrap_or_default().iter().map(|t| t.logprob).collect();
                if ids.len() != log_probs.len() {
                    return Err(RilError::Input(format!(
                        "question {}: the server gives {} tokens and {} log-probabilities",
                        question.id,
                        ids.len(),
                        log_probs.len()
                    )));
                }
                (ids, Some(log_probs))
            }
        };
        Ok(Response {
            text: choice.text().to_owned(),
            token_ids,
            origin: Origin::Student,
            is_truncated: choice.finish_reason == FinishReason::Length,
            sampler_log_probs,
            policy_step: Some(self.step),
        })
    }
}

/// A picture at the size that the student's processor gives it, so that no server resizes it in its own way.
fn shown(question: &Question, index: usize) -> Cow<'_, RgbImage> {
    let picture = question.pictures[index].as_ref();
    let size = question.prompt.images.as_ref().and_then(|images| images.pixel_size(index));
    let Some((width, height)) = size.map(|(width, height)| (width as u32, height as u32)) else {
        return Cow::Borrowed(picture);
    };
    match picture.dimensions() == (width, height) {
        true => Cow::Borrowed(picture),
        false => Cow::Owned(resize_bicubic(picture, width, height)),
    }
}

/// vLLM's path for adapters.
const LOAD_ADAPTER: &str = "load_lora_adapter";

/// What [`LOAD_ADAPTER`] is sent for a written adapter; a server that has it already takes it again.
fn adapter(folders: &AdapterFolder, name: &str) -> serde_json::Value {
    json!({"lora_name": name, "lora_path": folders.at_server.join(name), "load_inplace": true})
}

/// One request.
#[derive(Clone, Copy)]
struct Job {
    question: usize,
    samples: usize,
    seed: u64,
}

/// Requests for `num_samples` samples of each question.
fn jobs(questions: usize, params: &SamplingParams, at_once: usize) -> Vec<Job> {
    let of_question = |question: usize| {
        let firsts = (0..params.num_samples).step_by(at_once);
        firsts.map(move |first| {
            let seed = mix_seed(mix_seed(params.seed, question as u64), first as u64) >> 33;
            Job { question, samples: at_once.min(params.num_samples - first), seed }
        })
    };
    (0..questions).flat_map(of_question).collect()
}

impl Rollout for ServerRollout {
    fn sample(&mut self, questions: &[Question], params: &SamplingParams) -> Result<Vec<Vec<Response>>, RilError> {
        let at_once = self.config.samples_per_request.unwrap_or(params.num_samples).max(1);
        let jobs = jobs(questions.len(), params, at_once);
        let mut answers: Vec<Option<Vec<Response>>> = vec![None; jobs.len()];
        self.with_adapter(|| self.ask(questions, params, &jobs, &mut answers))?;
        let mut all = vec![Vec::with_capacity(params.num_samples); questions.len()];
        for (job, answer) in jobs.iter().zip(answers) {
            let stopped =
                || RilError::Server { question: questions[job.question].id.clone(), source: ClientError::Stopped };
            all[job.question].extend(answer.ok_or_else(stopped)?);
        }
        Ok(all)
    }
}

impl ServerRollout {
    /// `ask`, until no server lacks the adapter.
    ///
    /// A server that was started anew lacks the adapter and says 404: it alone is given it again. Each is once, so that one whose
    /// 404 means something else ends the call with its words.
    fn with_adapter(&self, mut ask: impl FnMut() -> Result<(), RilError>) -> Result<(), RilError> {
        let mut given: Vec<String> = Vec::new();
        loop {
            match ask() {
                Err(RilError::Server { source: ClientError::Status { status: 404, url, .. }, .. })
                    if self.has_adapter() && !given.contains(&url) =>
                {
                    self.load_again(&url)?;
                    given.push(url);
                }
                asked => return asked,
            }
        }
    }

    /// Asks for the answers that are not there yet.
    fn ask(
        &self,
        questions: &[Question],
        params: &SamplingParams,
        jobs: &[Job],
        answers: &mut [Option<Vec<Response>>],
    ) -> Result<(), RilError> {
        let open: Vec<usize> = (0..jobs.len()).filter(|&i| answers[i].is_none()).collect();
        let ask = |client: &ChatClient, i: usize| {
            let job = jobs[open[i]];
            let question = &questions[job.question];
            let failed = |source| RilError::Server { question: question.id.clone(), source };
            let response = client.chat(&self.request(question, params, job)?).map_err(failed)?;
            self.responses(question, &response)
        };
        let mut failure = None;
        self.client.parallel(open.len(), ask, |i, answer| match answer {
            Ok(responses) => {
                answers[open[i]] = Some(responses);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure.get_or_insert(error);
                ControlFlow::Break(())
            }
        });
        failure.map_or(Ok(()), Err)
    }
}
