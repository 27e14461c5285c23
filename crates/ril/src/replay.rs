//! Student texts of earlier steps, shown to the discriminator again.

use std::path::{Path, PathBuf};

use ril_gail::{ReplayBuffer, ReplayConfig};
use ril_models::files::write_atomic;
use serde::{Deserialize, Serialize};

use crate::error::RilError;
use crate::group::{Group, Origin, Question, Response};

/// A student's text and the question that it answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Replayed {
    question: String,
    text: String,
    token_ids: Vec<u32>,
}

/// The buffer of a loop; [`ReplayBuffer`] says what it keeps and draws.
#[derive(Debug, Clone)]
pub(crate) struct StudentReplay {
    buffer: ReplayBuffer<Replayed>,
}

impl StudentReplay {
    pub fn new(config: ReplayConfig) -> Result<Self, RilError> {
        Ok(Self { buffer: ReplayBuffer::new(config)? })
    }

    /// Old texts to go with `fresh` groups, each in a group of its own, so that a loss on pairs leaves them out.
    pub fn draw(&mut self, fresh: &[Group], questions: &[Question]) -> Result<Vec<Group>, RilError> {
        let drawn = self.buffer.draw(students(fresh).count());
        let group = |replayed: &Replayed| {
            let question = questions.iter().find(|question| question.id == replayed.question);
            let question = question.ok_or_else(|| {
                RilError::Input(format!("replay: question {} is not among the training questions", replayed.question))
            })?;
            let response = Response {
                text: replayed.text.clone(),
                token_ids: replayed.token_ids.clone(),
                origin: Origin::Student,
                is_truncated: false,
                sampler_log_probs: None,
                policy_step: None,
            };
            Ok(Group { question: question.clone(), responses: vec![response] })
        };
        drawn.into_iter().map(group).collect()
    }

    /// Keeps the student texts of a step that is done.
    pub fn add(&mut self, groups: &[Group]) {
        let replayed = |(question, response): (&Question, &Response)| Replayed {
            question: question.id.clone(),
            text: response.text.clone(),
            token_ids: response.token_ids.clone(),
        };
        self.buffer.add(students(groups).map(replayed));
    }

    pub fn save(&self, folder: &Path, step: usize) -> Result<(), RilError> {
        let path = file(folder, step);
        let json = serde_json::to_vec(&self.buffer).map_err(|e| RilError::checkpoint(path.clone())(e.to_string()))?;
        Ok(write_atomic(&path, &json)?)
    }

    /// Settings are those of this run; texts and counters those of the file.
    pub fn restore(&mut self, folder: &Path, step: usize) -> Result<(), RilError> {
        let path = file(folder, step);
        let json = std::fs::read(&path).map_err(RilError::io(&path))?;
        let buffer: ReplayBuffer<Replayed> =
            serde_json::from_slice(&json).map_err(|e| RilError::checkpoint(path.clone())(e.to_string()))?;
        if buffer.config() != self.buffer.config() {
            return Err(RilError::checkpoint(path)("replay settings differ from those of this run".to_string()));
        }
        self.buffer = buffer;
        Ok(())
    }
}

fn students(groups: &[Group]) -> impl Iterator<Item = (&Question, &Response)> {
    let all = groups.iter().flat_map(|group| group.responses.iter().map(move |response| (&group.question, response)));
    all.filter(|(_, response)| response.origin == Origin::Student)
}

fn file(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("replay-{step}.json"))
}
