use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::attempt::{Failure, Wire, cut};
use crate::endpoints::Endpoints;
use crate::gate::{Gate, Stop};
use crate::{ChatRequest, ChatResponse, ClientConfig, ClientError, RetryPolicy, Usage};

/// A client of one model on one or more OpenAI-compatible servers.
///
/// Clones share connections, limits and counters. Calls block; [`parallel`](Self::parallel) keeps as many under way as the
/// configuration allows.
#[derive(Clone)]
pub struct ChatClient {
    shared: Arc<Shared>,
    pub(crate) stop: Stop,
}

struct Shared {
    config: ClientConfig,
    wire: Wire,
    endpoints: Endpoints,
    gate: Gate,
    counters: Counters,
    observer: Option<Observer>,
}

type Observer = Box<dyn Fn(&RetryNotice<'_>) + Send + Sync>;

/// An attempt that failed and will be made again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryNotice<'a> {
    /// What happened, in one line.
    pub reason: &'a str,
    /// How long the request waits now.
    pub delay: Duration,
}

/// One line for people, without its end.
impl fmt::Display for RetryNotice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "again in {:.1} s: {}", self.delay.as_secs_f64(), self.reason)
    }
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

/// What a client and its clones have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Requests answered.
    pub requests: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// Tokens read and written by the answers, as the servers count them.
    pub usage: Usage,
}

impl fmt::Debug for ChatClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatClient").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl ChatClient {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Config`] for a setting out of range, [`ClientError::ApiKey`] when the environment lacks the key.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        Self::build(config, None)
    }

    /// A client that tells `observer` about each attempt that fails and will be made again, from the thread that made it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_observer(
        config: ClientConfig,
        observer: impl Fn(&RetryNotice<'_>) + Send + Sync + 'static,
    ) -> Result<Self, ClientError> {
        Self::build(config, Some(Box::new(observer)))
    }

    fn build(config: ClientConfig, observer: Option<Observer>) -> Result<Self, ClientError> {
        config.validate()?;
        let shared = Shared {
            wire: Wire::new(&config)?,
            endpoints: Endpoints::new(&config.base_urls)?,
            gate: Gate::new(config.max_in_flight, config.requests_per_second),
            counters: Counters::default(),
            config,
            observer,
        };
        Ok(Self { shared: Arc::new(shared), stop: Stop::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// What this client and its clones have done so far.
    pub fn stats(&self) -> ClientStats {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let usage =
            Usage { prompt_tokens: get(&counters.prompt_tokens), completion_tokens: get(&counters.completion_tokens) };
        ClientStats { requests: get(&counters.requests), retries: get(&counters.retries), usage }
    }

    /// Ends every wait of this client and of its clones with [`ClientError::Stopped`]; a request under way is finished.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// A clone with a wish to stop of its own.
    pub(crate) fn scoped(&self) -> Self {
        Self { shared: self.shared.clone(), stop: self.stop.child() }
    }

    /// One request, answered in full: as many choices as samples were asked for, with everything that was asked for.
    ///
    /// # Errors
    /// [`ClientError::Request`]; [`ClientError::Status`], [`ClientError::RetryAfter`], [`ClientError::Transport`] or
    /// [`ClientError::Json`] once the attempts are used up or another one is no use; [`ClientError::Ignored`] when the server
    /// does not do what was asked; [`ClientError::NoText`] when it gives something else than a text.
    pub fn chat(&self, request: &ChatRequest) -> Result<ChatResponse, ClientError> {
        request.validate()?;
        let call = Call::Post("chat/completions", &json(request)?);
        let (url, response): (String, ChatResponse) = self.request(call)?;
        if let Some(usage) = response.usage {
            self.shared.counters.prompt_tokens.fetch_add(usage.prompt_tokens, Ordering::Relaxed);
            self.shared.counters.completion_tokens.fetch_add(usage.completion_tokens, Ordering::Relaxed);
        }
        response.checked(request, &url, |text| self.told(text))
    }

    /// Names of the models that a server has, from the first one that answers.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub fn models(&self) -> Result<Vec<String>, ClientError> {
        #[derive(serde::Deserialize)]
        struct List {
            data: Vec<Entry>,
        }
        #[derive(serde::Deserialize)]
        struct Entry {
            id: String,
        }
        let (_, list): (_, List) = self.request(Call::Get("models"))?;
        Ok(list.data.into_iter().map(|entry| entry.id).collect())
    }

    /// Posts JSON to a path of **every** server, one after the other, and returns what each said: below the base address
    /// (`load_lora_adapter`), or below the host for a path that starts with a slash. Each has its attempts, whatever became of the
    /// others; errors are those of [`Self::chat`].
    pub fn post_to_all(&self, path: &str, body: &Value) -> Vec<Result<String, ClientError>> {
        self.post_with(self.shared.config.retry, path, body)
    }

    /// [`Self::post_to_all`] with one attempt a server: for what is not worth waiting for.
    pub fn post_once_to_all(&self, path: &str, body: &Value) -> Vec<Result<String, ClientError>> {
        self.post_with(RetryPolicy { max_attempts: 1, ..self.shared.config.retry }, path, body)
    }

    /// [`Self::post_to_all`] for one server alone: the one that was asked at `url`, as errors tell it.
    ///
    /// # Errors
    /// [`ClientError::Request`] when none of the servers has this address: nothing is sent, since the key is theirs alone.
    /// Others are those of [`Self::chat`].
    pub fn post_to(&self, url: &str, path: &str, body: &Value) -> Result<String, ClientError> {
        self.post_below(self.shared.endpoints.base_of(url)?, self.shared.config.retry, path, body)
    }

    fn post_with(&self, policy: RetryPolicy, path: &str, body: &Value) -> Vec<Result<String, ClientError>> {
        self.shared.endpoints.bases().iter().map(|base| self.post_below(base, policy, path, body)).collect()
    }

    fn post_below(&self, base: &str, policy: RetryPolicy, path: &str, body: &Value) -> Result<String, ClientError> {
        let url = if path.starts_with('/') { format!("{}{path}", host(base)) } else { format!("{base}/{path}") };
        let body = json(body)?;
        let attempt = || (url.clone(), self.shared.wire.post(&url, &body));
        self.attempts(policy, || false, attempt).map(|(_, text)| text)
    }

    fn request<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<(String, T), ClientError> {
        let _pass = self.shared.gate.enter(&self.stop)?;
        let can_move = || self.shared.endpoints.has_awake();
        let answer = self.attempts(self.shared.config.retry, can_move, || {
            let lease = self.shared.endpoints.begin();
            let url = format!("{}/{}", lease.base(), call.path());
            let answer = match call {
                Call::Get(_) => self.shared.wire.get(&url),
                Call::Post(_, body) => self.shared.wire.post(&url, body),
            };
            let answer = answer.and_then(|text| {
                let wrong = |reason: String| Failure::Json { text: self.told(&text), reason: self.told(&reason) };
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
            });
            match &answer {
                Err(failure) if failure.is_transient() => lease.failed(failure.retry_after()),
                _ => lease.worked(),
            }
            (url, answer)
        });
        self.shared.counters.requests.fetch_add(u64::from(answer.is_ok()), Ordering::Relaxed);
        answer
    }

    /// A server's words as an error may quote them: their start, without the key.
    fn told(&self, text: &str) -> String {
        cut(&self.shared.wire.without_key(text))
    }

    /// Attempts until one succeeds, fails for good, or was the last.
    ///
    /// A server that asks to be left alone is; the request waits for it only where no other server can take it.
    fn attempts<T>(
        &self,
        policy: RetryPolicy,
        can_move: impl Fn() -> bool,
        attempt: impl Fn() -> (String, Result<T, Failure>),
    ) -> Result<(String, T), ClientError> {
        let longest = Duration::from_secs_f64(policy.longest_retry_after_s);
        let mut delays = backoff(policy).build();
        for made in 1.. {
            self.shared.gate.pace(&self.stop)?;
            let (url, answer) = attempt();
            let failure = match answer {
                Ok(value) => return Ok((url, value)),
                Err(failure) => failure,
            };
            let is_transient = failure.is_transient();
            let asked = failure.retry_after().filter(|_| is_transient && !can_move()).unwrap_or_default();
            if let (Failure::Status { status, message, .. }, true) = (&failure, asked > longest) {
                let (status, message, retry_after_s) = (*status, message.clone(), asked.as_secs());
                return Err(ClientError::RetryAfter { url, status, retry_after_s, message });
            }
            let delay = delays.next().filter(|_| is_transient);
            let Some(delay) = delay.map(|delay| delay.max(asked)) else { return Err(failure.into_error(url, made)) };
            self.shared.counters.retries.fetch_add(1, Ordering::Relaxed);
            if let Some(observer) = &self.shared.observer {
                observer(&RetryNotice { reason: &failure.describe(), delay });
            }
            self.stop.sleep(delay);
        }
        unreachable!("a policy has a last attempt")
    }
}

/// What is sent where.
#[derive(Clone, Copy)]
enum Call<'a> {
    Get(&'a str),
    Post(&'a str, &'a [u8]),
}

impl Call<'_> {
    fn path(&self) -> &str {
        match self {
            Self::Get(path) | Self::Post(path, _) => path,
        }
    }
}

/// Scheme and host of a base address.
fn host(base: &str) -> &str {
    let authority = base.find("://").map_or(0, |at| at + 3);
    base[authority..].find('/').map_or(base, |length| &base[..authority + length])
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|error| ClientError::Request(error.to_string()))
}

fn backoff(policy: RetryPolicy) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_factor(2.0)
        .with_min_delay(Duration::from_secs_f64(policy.first_delay_s))
        .with_max_delay(Duration::from_secs_f64(policy.longest_delay_s.max(policy.first_delay_s)))
        .with_max_times(policy.max_attempts - 1)
        .with_jitter()
}
