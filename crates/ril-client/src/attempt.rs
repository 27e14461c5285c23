//! One attempt: bytes out, text or a reason in.

use std::time::{Duration, SystemTime};

use ureq::http::{HeaderValue, Response, StatusCode};
use ureq::{Agent, Body};

use crate::{ClientConfig, ClientError};

/// Longest text of a server that an error repeats, in characters.
const LONGEST_MESSAGE: usize = 2_000;

/// A key that no text shows.
#[derive(Clone)]
pub(crate) struct ApiKey {
    key: String,
    header: HeaderValue,
}

impl ApiKey {
    pub fn from_env(variable: &str) -> Result<Self, ClientError> {
        let missing = || ClientError::ApiKey(variable.to_owned());
        let key = std::env::var(variable).map_err(|_| missing())?.trim().to_owned();
        let mut header = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| missing())?;
        header.set_sensitive(true);
        if key.is_empty() { Err(missing()) } else { Ok(Self { key, header }) }
    }
}

/// What goes over the wire, and how.
pub(crate) struct Wire {
    agent: Agent,
    key: Option<ApiKey>,
    max_body_bytes: u64,
}

/// Why an attempt failed.
pub(crate) enum Failure {
    /// An answer other than 2xx.
    Status { status: u16, message: String, retry_after: Option<Duration> },
    /// No answer, or not all of it.
    Transport(Box<ureq::Error>),
    /// Not the JSON that was expected.
    Json { text: String, reason: String },
}

impl Failure {
    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Transport(error) => !matches!(
                **error,
                ureq::Error::BodyExceedsLimit(_)
                    | ureq::Error::BadUri(_)
                    | ureq::Error::InvalidProxyUrl
                    | ureq::Error::RequireHttpsOnly(_)
                    | ureq::Error::Http(_)
            ),
            Self::Json { .. } => true,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Status { status, message, .. } => format!("status {status}: {message}"),
            Self::Transport(error) => error.to_string(),
            Self::Json { reason, .. } => format!("not understood: {reason}"),
        }
    }

    pub fn into_error(self, url: String, attempts: usize) -> ClientError {
        match self {
            Self::Status { status, message, .. } => ClientError::Status { url, status, attempts, message },
            Self::Transport(source) => ClientError::Transport { url, attempts, source },
            Self::Json { text, reason } => ClientError::Json { url, attempts, text, reason },
        }
    }
}

impl Wire {
    pub fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(config.timeout_s)))
            .http_status_as_error(false)
            // A redirect would turn a POST into a GET, and could carry the key to another host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(config.max_in_flight)
            .max_idle_connections_per_host(config.max_in_flight)
            .user_agent(concat!("ril-client/", env!("CARGO_PKG_VERSION")))
            .build();
        let key = config.api_key_env.as_deref().map(ApiKey::from_env).transpose()?;
        Ok(Self { agent: agent.into(), key, max_body_bytes: config.max_body_bytes })
    }

    pub fn get(&self, url: &str) -> Result<String, Failure> {
        let mut request = self.agent.get(url);
        if let Some(key) = &self.key {
            request = request.header("authorization", key.header.clone());
        }
        self.read(request.call())
    }

    pub fn post(&self, url: &str, json: &[u8]) -> Result<String, Failure> {
        let mut request = self.agent.post(url).content_type("application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", key.header.clone());
        }
        self.read(request.send(json))
    }

    fn read(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<String, Failure> {
        let transport = |error| Failure::Transport(Box::new(error));
        let mut response = answer.map_err(transport)?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let text = response.body_mut().with_config().limit(self.max_body_bytes).lossy_utf8(true).read_to_string();
        if status.is_success() {
            return text.map_err(transport);
        }
        // The words of a refusal may be cut; the refusal stands.
        let message = self.without_key(&text.unwrap_or_else(|error| format!("({error})")));
        let message = if message.trim().is_empty() { reason(status) } else { cut(message.trim()) };
        Err(Failure::Status { status: status.as_u16(), message, retry_after })
    }

    /// A server may repeat the key that it refuses.
    pub fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(&key.key, "(key)"),
            None => text.to_owned(),
        }
    }
}

fn reason(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("the server gave no reason").to_owned()
}

/// The start of a text.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?.trim();
    let date = || httpdate::parse_http_date(value).ok();
    match value.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(date()?.duration_since(SystemTime::now()).unwrap_or_default()),
    }
}
