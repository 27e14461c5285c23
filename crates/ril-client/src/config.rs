use serde::{Deserialize, Serialize};

use crate::ClientError;

/// How to reach a server. Everything but the key itself, which is read from the environment and kept out of all text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Servers of one model, at least one: `http://host:8000` or, as the OpenAI clients write it, `http://host:8000/v1`.
    /// A request goes to the one with the fewest requests under way.
    pub base_urls: Vec<String>,
    /// Name of the environment variable that holds the key; `None` sends none.
    pub api_key_env: Option<String>,
    /// Requests under way at once over all servers and threads, at least 1.
    pub max_in_flight: usize,
    /// Requests started a second, over all servers; `None` for no limit.
    pub requests_per_second: Option<f64>,
    /// Seconds that one attempt may take, from connecting to the last byte.
    pub timeout_s: f64,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Longest answer that is read, in bytes; a longer one is an error.
    pub max_body_bytes: u64,
}

/// When a request is tried again: on 408, 429, 5xx, connection errors, timeouts, and answers that are cut or no JSON of a
/// chat completion.
///
/// The delay doubles from `first_delay_s` to `longest_delay_s`, plus a random share of itself, so that many clients do not come
/// back at the same moment. A `Retry-After` of the server is waited for when it is longer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub max_attempts: usize,
    /// Seconds before the second attempt.
    pub first_delay_s: f64,
    /// Longest delay of our own, seconds.
    pub longest_delay_s: f64,
    /// A `Retry-After` above this is an error at once, seconds.
    pub longest_retry_after_s: f64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            base_urls: Vec::new(),
            api_key_env: None,
            max_in_flight: 16,
            requests_per_second: None,
            timeout_s: 600.0,
            retry: RetryPolicy::default(),
            max_body_bytes: 64 << 20,
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 8, first_delay_s: 0.5, longest_delay_s: 30.0, longest_retry_after_s: 300.0 }
    }
}

impl ClientConfig {
    /// The defaults, for these servers.
    pub fn new(base_urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { base_urls: base_urls.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// # Errors
    /// [`ClientError::Config`] with the setting that is out of range.
    pub fn validate(&self) -> Result<(), ClientError> {
        let seconds = |name: &str, value: f64| at_most_a_year(name, value, 0.0);
        let count = |name: &str, value: usize| match value {
            0 => Err(ClientError::Config(format!("{name}: expected at least 1, got 0"))),
            _ => Ok(()),
        };
        count("base_urls", self.base_urls.len())?;
        count("max_in_flight", self.max_in_flight)?;
        count("retry.max_attempts", self.retry.max_attempts)?;
        at_most_a_year("timeout_s", self.timeout_s, 1e-3)?;
        seconds("retry.first_delay_s", self.retry.first_delay_s)?;
        seconds("retry.longest_delay_s", self.retry.longest_delay_s)?;
        seconds("retry.longest_retry_after_s", self.retry.longest_retry_after_s)?;
        match self.requests_per_second {
            Some(rate) if !(1e-3..=1e6).contains(&rate) => Err(ClientError::Config(format!(
                "requests_per_second: expected a number from 0.001 to 1,000,000, got {rate}"
            ))),
            _ => Ok(()),
        }
    }
}

fn at_most_a_year(name: &str, value: f64, least: f64) -> Result<(), ClientError> {
    if (least..=31_536_000.0).contains(&value) {
        return Ok(());
    }
    Err(ClientError::Config(format!("{name}: expected seconds from {least} to a year, got {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let good = ClientConfig::new(["http://localhost:8000"]);
        good.validate().expect("the defaults hold");
        type Breakage = (&'static str, fn(&mut ClientConfig));
        let broken: [Breakage; 7] = [
            ("base_urls", |c| c.base_urls.clear()),
            ("max_in_flight", |c| c.max_in_flight = 0),
            ("retry.max_attempts", |c| c.retry.max_attempts = 0),
            ("timeout_s", |c| c.timeout_s = 0.0),
            ("retry.first_delay_s", |c| c.retry.first_delay_s = f64::NAN),
            ("retry.longest_delay_s", |c| c.retry.longest_delay_s = -1.0),
            ("requests_per_second", |c| c.requests_per_second = Some(0.0)),
        ];
        for (name, change) in broken {
            let mut config = good.clone();
            change(&mut config);
            let error = config.validate().expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_file_may_give_some_fields_and_no_unknown_ones() {
        let config: ClientConfig = serde_json::from_str(r#"{"base_urls": ["http://a"], "timeout_s": 5}"#).unwrap();
        assert_eq!(config, ClientConfig { timeout_s: 5.0, ..ClientConfig::new(["http://a"]) });
        assert!(serde_json::from_str::<ClientConfig>(r#"{"base_url": "http://a"}"#).is_err());
    }
}
