//! Flags that decide how servers are asked, shared by the examples that ask them.

use clap::Args;
use ril::client::{ChatClient, ClientConfig, ClientError, RetryPolicy};

/// Limits, patience, key.
#[derive(Debug, Clone, Args)]
pub struct Asking {
    /// Requests under way at once
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub requests_at_once: usize,
    /// Requests begun a second [default: no limit]
    #[arg(long, value_name = "N")]
    pub requests_per_second: Option<f64>,
    /// Seconds that one attempt may take
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS")]
    pub request_timeout: f64,
    /// Attempts of a request, with growing pauses between them
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub request_attempts: usize,
    /// Environment variable that holds the key
    #[arg(long, value_name = "VARIABLE")]
    pub api_key_env: Option<String>,
}

impl Asking {
    /// A client that tells failed attempts on standard error.
    ///
    /// # Errors
    /// [`ClientError::Config`] with the setting, [`ClientError::ApiKey`].
    pub fn client(&self, servers: &[String], key_env: Option<&String>) -> Result<ChatClient, ClientError> {
        let usual = ClientConfig::new(servers);
        let config = ClientConfig {
            api_key_env: key_env.cloned(),
            max_in_flight: self.requests_at_once,
            requests_per_second: self.requests_per_second,
            timeout_s: self.request_timeout,
            retry: RetryPolicy { max_attempts: self.request_attempts, ..usual.retry },
            ..usual
        };
        ChatClient::with_observer(config, |retry| eprintln!("{retry}"))
    }
}
