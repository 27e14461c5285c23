use std::error::Error;

/// What a request can end with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting breaks its constraint.
    #[error("client: {0}")]
    Config(String),
    /// The environment variable that should hold the key does not.
    #[error("environment variable {0} is not set, is empty, or holds what cannot be sent in a header")]
    ApiKey(String),
    /// A request that no server could answer.
    #[error("request: {0}")]
    Request(String),
    /// The server refused; these are its words.
    #[error("{url}: status {status} after {attempts} attempts: {message}")]
    Status {
        /// Where the last attempt went.
        url: String,
        /// HTTP status.
        status: u16,
        /// Attempts made.
        attempts: usize,
        /// What the server said, cut after 2,000 characters.
        message: String,
    },
    /// The server wants to be left alone for longer than [`RetryPolicy`](crate::RetryPolicy) allows.
    #[error("{url}: status {status}, and to be asked again only after {retry_after_s} s: {message}")]
    RetryAfter {
        /// Where the attempt went.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the server asks for.
        retry_after_s: u64,
        /// What the server said.
        message: String,
    },
    /// No answer, or one that broke off.
    #[error("{url}: no whole answer in {attempts} attempts")]
    Transport {
        /// Where the last attempt went.
        url: String,
        /// Attempts made.
        attempts: usize,
        /// What happened.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer that is not what the protocol says.
    #[error("{url}: not understood in {attempts} attempts ({reason}): {text:?}")]
    Json {
        /// Where the last attempt went.
        url: String,
        /// Attempts made.
        attempts: usize,
        /// The start of what came.
        text: String,
        /// What is wrong with it, as text: the parser's own error could quote the key that the server repeats.
        reason: String,
    },
    /// The server answered, and not to what was asked: it does not know a field of the request, or does not heed it.
    #[error("{url}: the server ignores {field:?}: asked for {asked}, got {got}")]
    Ignored {
        /// Where the request went.
        url: String,
        /// Field of the request.
        field: &'static str,
        /// Its value.
        asked: String,
        /// What came instead.
        got: String,
    },
    /// The model refused in the protocol's words, called a tool, or reasoned and concluded nothing.
    #[error("{url}: choice {choice} has no text but {got}")]
    NoText {
        /// Where the request went.
        url: String,
        /// Number of the sample.
        choice: usize,
        /// What came instead, cut after 2,000 characters.
        got: String,
    },
    /// [`ChatClient::stop`](crate::ChatClient::stop) was called before an answer came.
    #[error("stopped before an answer came")]
    Stopped,
}

impl ClientError {
    /// Whether the server will not have this one request (400, 413, 422), or its model has no text for it, whatever becomes of
    /// others.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status: 400 | 413 | 422, .. } | Self::NoText { .. })
    }

    /// Whether the request was given up because the client was asked to stop.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}
