//! Held-out questions put to a model.

use ril_models::ChatModel;
use ril_models::generate::SamplingParams;
use ril_reward::{Judge, Sample, Verdict};
use serde::{Deserialize, Serialize};

use crate::error::RilError;
use crate::eval::Accuracy;
use crate::group::Question;
use crate::rollout::{LocalRollout, Rollout};

/// One model's answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Question id.
    pub question: String,
    /// What the model said.
    pub response: String,
    /// What the judge said of it; an answer that could not be judged is not right.
    pub is_right: bool,
}

/// Likeliest answers to `questions`, judged; `progress` is told how many are done, `batch` at a time.
///
/// # Errors
/// The model's and the judge's own.
pub fn answer_all<M: ChatModel + Clone, J: Judge>(
    model: &M,
    questions: &[Question],
    judge: &J,
    params: &SamplingParams,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Answered>, RilError> {
    const BATCH: usize = 250;
    let mut rollout = LocalRollout { questions_per_batch: BATCH, ..LocalRollout::student(model.clone()) };
    let mut all = Vec::with_capacity(questions.len());
    for chunk in questions.chunks(BATCH) {
        let responses = rollout.sample(chunk, params)?;
        let texts: Vec<&str> = responses.iter().map(|r| r.first().map_or("", |r| r.text.as_str())).collect();
        let samples: Vec<Sample<'_>> =
            chunk.iter().zip(&texts).map(|(q, text)| Sample::new(&q.text, &q.answer, text)).collect();
        for ((question, text), verdict) in chunk.iter().zip(&texts).zip(judge.judge(&samples)?) {
            all.push(Answered {
                question: question.id.clone(),
                response: (*text).to_string(),
                is_right: verdict == Verdict::Correct && !text.trim().is_empty(),
            });
        }
        progress(all.len());
    }
    Ok(all)
}

/// Share of right answers.
#[must_use]
pub fn accuracy(answers: &[Answered]) -> Accuracy {
    Accuracy::from_outcomes(&answers.iter().map(|a| a.is_right).collect::<Vec<_>>())
}
