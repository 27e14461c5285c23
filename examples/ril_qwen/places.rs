//! Where servers are and how they are asked: nothing here decides a number of the run, so that a run may go on with other
//! addresses.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use ril::RilError;
use ril::client::{ChatClient, ClientConfig, RetryPolicy};
use serde::{Deserialize, Serialize};

/// Addresses, keys, patience.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Places {
    /// Address of an OpenAI-compatible server whose model judges the answers; several share the load [default: rules]
    #[arg(long, value_name = "URL")]
    pub judge_server: Vec<String>,
    /// Address of a server whose model is a teacher that answers while the run trains; several share the load
    #[arg(long, value_name = "URL")]
    pub teacher_server: Vec<String>,
    /// Address of a server that samples the student's answers in the loops. With --lora-rank it is vLLM, which is pushed the adapters:
    /// start it with --enable-lora --logprobs-mode processed_logprobs, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True. Without, it is SGLang,
    /// which is pushed whole models: start it with SGLANG_VLM_CACHE_SIZE_MB=0
    #[arg(long, value_name = "URL")]
    pub rollout_server: Vec<String>,
    /// Folder for adapters and pushed models, which this program and the sampling server see under the same absolute path
    #[arg(long, value_name = "FOLDER")]
    pub adapter_folder: Option<PathBuf>,
    /// Environment variable that holds the judge's key
    #[arg(long, value_name = "VARIABLE")]
    pub judge_key_env: Option<String>,
    /// Environment variable that holds the teacher's key
    #[arg(long, value_name = "VARIABLE")]
    pub teacher_key_env: Option<String>,
    /// Environment variable that holds the sampler's key
    #[arg(long, value_name = "VARIABLE")]
    pub rollout_key_env: Option<String>,
    /// Requests under way at once, to each kind of server [default: 16]
    #[arg(long, value_name = "N")]
    pub requests_at_once: Option<usize>,
    /// Requests begun a second, to each kind of server [default: no limit]
    #[arg(long, value_name = "N")]
    pub requests_per_second: Option<f64>,
    /// Seconds that one attempt of a request may take [default: 600]
    #[arg(long, value_name = "SECONDS")]
    pub request_timeout: Option<f64>,
    /// Attempts of a request, with growing pauses between them; each one that fails is told in RUN/servers.log [default: 8]
    #[arg(long, value_name = "N")]
    pub request_attempts: Option<usize>,
}

/// Who stands behind a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Judge,
    Teacher,
    Rollout,
}

impl Role {
    /// Those that a run may have.
    pub const ALL: [Self; 3] = [Self::Judge, Self::Teacher, Self::Rollout];

    /// As in the flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Teacher => "teacher",
            Self::Rollout => "rollout",
        }
    }
}

impl Places {
    /// Addresses of a role.
    pub fn servers(&self, role: Role) -> &[String] {
        match role {
            Role::Judge => &self.judge_server,
            Role::Teacher => &self.teacher_server,
            Role::Rollout => &self.rollout_server,
        }
    }

    /// The variable with the key of a role.
    pub fn key_env(&self, role: Role) -> Option<&String> {
        match role {
            Role::Judge => self.judge_key_env.as_ref(),
            Role::Teacher => self.teacher_key_env.as_ref(),
            Role::Rollout => self.rollout_key_env.as_ref(),
        }
    }

    /// What is given here, and elsewhere what is given there.
    pub fn or(self, other: Self) -> Self {
        let servers = |given: Vec<String>, other| if given.is_empty() { other } else { given };
        Self {
            judge_server: servers(self.judge_server, other.judge_server),
            teacher_server: servers(self.teacher_server, other.teacher_server),
            rollout_server: servers(self.rollout_server, other.rollout_server),
            adapter_folder: self.adapter_folder.or(other.adapter_folder),
            judge_key_env: self.judge_key_env.or(other.judge_key_env),
            teacher_key_env: self.teacher_key_env.or(other.teacher_key_env),
            rollout_key_env: self.rollout_key_env.or(other.rollout_key_env),
            requests_at_once: self.requests_at_once.or(other.requests_at_once),
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            request_timeout: self.request_timeout.or(other.request_timeout),
            request_attempts: self.request_attempts.or(other.request_attempts),
        }
    }

    /// A client of a role's servers that tells failed attempts to `log`.
    ///
    /// # Errors
    /// [`RilError::Config`] with the setting.
    pub fn client(&self, role: Role, log: Option<PathBuf>) -> Result<ChatClient, RilError> {
        let usual = ClientConfig::new(self.servers(role));
        let retry =
            RetryPolicy { max_attempts: self.request_attempts.unwrap_or(usual.retry.max_attempts), ..usual.retry };
        let config = ClientConfig {
            api_key_env: self.key_env(role).cloned(),
            max_in_flight: self.requests_at_once.unwrap_or(usual.max_in_flight),
            requests_per_second: self.requests_per_second,
            timeout_s: self.request_timeout.unwrap_or(usual.timeout_s),
            retry,
            ..usual
        };
        let client = ChatClient::with_observer(config, move |retry| {
            log.iter().for_each(|path| note(path, &retry.to_string()));
        });
        client.map_err(|error| RilError::Config(error.to_string()))
    }
}

/// Adds a line to a log. What cannot be logged must not stop a run.
pub fn note(log: &std::path::Path, line: &str) {
    let file = File::options().create(true).append(true).open(log).ok();
    // In one write: several threads may have something to say.
    let _ = file.map(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}
