//! Questions from a JSON-lines file: image path(s), question, answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use ril_models::ChatModel;
use serde::{Deserialize, Serialize};

use crate::error::RilError;
use crate::group::Question;

/// One line of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Unique key; the line number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Pictures, relative to the file.
    #[serde(default)]
    pub images: Vec<PathBuf>,
    /// What is asked.
    pub question: String,
    /// Ground truth.
    pub answer: String,
}

/// Reads every line of a JSON-lines file into `T`; empty lines are skipped.
///
/// # Errors
/// [`RilError::Io`], or [`RilError::Line`] with the number of the first broken line.
pub fn read_lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>, RilError> {
    let text = std::fs::read_to_string(path).map_err(RilError::io(path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let value = serde_json::from_str(line).map_err(|e| RilError::Line {
                path: path.to_path_buf(),
                line: i + 1,
                reason: e.to_string(),
            })?;
            Ok((i + 1, value))
        })
        .collect()
}

/// Reads a dataset and encodes its questions for `model`, in parallel.
///
/// # Errors
/// [`RilError::EmptyDataset`], [`RilError::Line`] with the line number (broken JSON, missing field, a second question
/// with the same id), and the model's errors for an image that cannot be read.
pub fn read_questions<M: ChatModel + Sync>(path: &Path, model: &M) -> Result<Vec<Question>, RilError> {
    let records: Vec<(usize, Record)> = read_lines(path)?;
    if records.is_empty() {
        return Err(RilError::EmptyDataset { path: path.to_path_buf() });
    }
    let mut seen = std::collections::HashSet::new();
    for (line, record) in &records {
        let id = record.id.clone().unwrap_or_else(|| line.to_string());
        if !seen.insert(id.clone()) {
            return Err(RilError::Line {
                path: path.to_path_buf(),
                line: *line,
                reason: format!("a question with id {id} stands further up"),
            });
        }
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    records.par_iter().map(|(line, record)| question(folder, *line, record, model)).collect()
}

fn question<M: ChatModel>(folder: &Path, line: usize, record: &Record, model: &M) -> Result<Question, RilError> {
    let pictures = record.images.iter().map(|image| Ok(Arc::new(ril_models::image::open_image(&folder.join(image))?)));
    let pictures = pictures.collect::<Result<_, RilError>>()?;
    let id = record.id.clone().unwrap_or_else(|| line.to_string());
    Question::encode(model, id, pictures, record.question.clone(), record.answer.clone())
}
