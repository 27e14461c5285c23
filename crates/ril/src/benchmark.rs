//! Held-out questions put to a model.

use std::ops::ControlFlow;

use ril_models::ChatModel;
use ril_models::generate::SamplingParams;
use ril_reward::{Judge, Sample, Verdict, judge_answers};
use serde::{Deserialize, Serialize};

use crate::error::RilError;
use crate::eval::Accuracy;
use crate::group::Question;
use crate::rollout::LocalRollout;

/// One model's answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Question id.
    pub question: String,
    /// What the model said.
    pub response: String,
    /// What the judge said of it; an answer that could not be judged is not right.
    pub is_right: bool,
    /// True when the judge gave no verdict: a table of such answers says something of the judge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unjudged: bool,
}

/// What is put to a model, and how.
#[derive(Debug, Clone)]
pub struct Benchmark<'a, J> {
    /// Questions, in the order of the answers.
    pub questions: &'a [Question],
    /// Decides whether an answer is right.
    pub judge: J,
    /// How answers are drawn; one a question.
    pub params: SamplingParams,
    /// Questions read at once; bounds memory.
    pub rows_at_once: usize,
}

impl<J: Judge> Benchmark<'_, J> {
    /// One answer to each question, judged; `None` when `progress`, which is told how many are answered, asks to stop.
    ///
    /// # Errors
    /// The model's and the judge's own.
    pub fn run<M: ChatModel + Clone + Sync>(
        &self,
        model: &M,
        progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<Answered>>, RilError> {
        let mut rollout = LocalRollout { rows_at_once: self.rows_at_once, ..LocalRollout::student(model.clone()) };
        let params = SamplingParams { num_samples: 1, ..self.params.clone() };
        let Some(responses) = rollout.sample_until(self.questions, &params, progress)? else { return Ok(None) };
        let texts: Vec<&str> = responses.iter().map(|r| r.first().map_or("", |r| r.text.as_str())).collect();
        let asked = self.questions.iter().zip(&texts);
        let samples: Vec<Sample<'_>> = asked.map(|(q, text)| Sample::new(&q.text, &q.answer, text)).collect();
        let verdicts = judge_answers("judge", &self.judge, &samples)?;
        let answered = self.questions.iter().zip(texts).zip(verdicts).map(|((question, text), verdict)| Answered {
            question: question.id.clone(),
            response: text.to_string(),
            is_right: verdict == Verdict::Correct,
            is_unjudged: matches!(verdict, Verdict::Unparsed(_)),
        });
        Ok(Some(answered.collect()))
    }
}

/// Share of right answers.
#[must_use]
pub fn accuracy(answers: &[Answered]) -> Accuracy {
    Accuracy::from_outcomes(&answers.iter().map(|a| a.is_right).collect::<Vec<_>>())
}
