//! Any text, judged as in training: the judge of RIL's Fig. 4 (`ril_reward::PromptTemplate::judge`) asked up to three
//! times, or `ril_reward::RuleJudge` when there is none. An empty answer is wrong without a call.

use ril_reward::{PromptTemplate, RuleJudge, Sample, Verdict, judge_answers, parse_verdict};

use super::{Decided, Grade, Judged};
use crate::vlmeval::error::VlmEvalError;
use crate::vlmeval::table::Row;

pub(super) fn question(row: &Row<'_>, answer: &str) -> Result<Option<String>, VlmEvalError> {
    let (question, truth) = (row.need("question")?, row.need("answer")?);
    let sample = Sample::new(&question, &truth, answer);
    Ok((!sample.is_response_empty()).then(|| PromptTemplate::judge().render(&sample)))
}

/// Whether a reply calls the answer right.
pub(super) fn verdict(reply: &str) -> Option<bool> {
    match parse_verdict(reply) {
        Verdict::Correct => Some(true),
        Verdict::Incorrect => Some(false),
        Verdict::Unparsed(_) => None,
    }
}

pub(super) fn grade(row: &Row<'_>, answer: &str, judged: Judged<'_>) -> Result<Grade, VlmEvalError> {
    let (question, truth) = (row.need("question")?, row.need("answer")?);
    let sample = Sample::new(&question, &truth, answer);
    if sample.is_response_empty() {
        return Ok(Grade::of(false, "", Decided::Match));
    }
    let (said, decided) = match judged {
        Judged::Replies(replies) => (replies.iter().find_map(|reply| verdict(reply)), Decided::Judge),
        Judged::Absent => {
            let verdicts = judge_answers("rules", &RuleJudge::default(), &[sample]);
            (verdicts.ok().and_then(|verdicts| Some(verdicts.first()?.score()? == 1.0)), Decided::Match)
        }
    };
    Ok(said.map_or_else(|| Grade::unread(answer), |is_right| Grade::of(is_right, answer, decided)))
}
