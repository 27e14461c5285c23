//! What scores are made of, as it stands in a run's folder: answers, and replies of the judge.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::run::{ANSWERS_FILE, REPLIES_FILE};
use super::table::hex;
use crate::error::RilError;
use crate::journal::Journal;

/// A line of [`ANSWERS_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AnswerLine {
    pub index: String,
    pub answer: String,
    pub is_truncated: bool,
}

/// A line of [`REPLIES_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReplyLine {
    pub index: String,
    pub attempt: usize,
    pub reply: String,
}

/// Answers by row.
pub(super) type AnswersByRow = HashMap<String, String>;

/// Replies by row, in the order of the tries.
pub(super) type RepliesByRow = HashMap<String, Vec<String>>;

/// Answers in a folder.
pub(super) fn stored_answers(folder: &Path) -> Result<AnswersByRow, RilError> {
    let lines: Vec<AnswerLine> = Journal::read(&folder.join(ANSWERS_FILE))?;
    Ok(lines.into_iter().map(|line| (line.index, line.answer)).collect())
}

/// Replies in a folder.
pub(super) fn stored_replies(folder: &Path) -> Result<RepliesByRow, RilError> {
    Ok(by_index(Journal::read(&folder.join(REPLIES_FILE))?))
}

/// Lines by row.
pub(super) fn by_index(lines: Vec<ReplyLine>) -> RepliesByRow {
    let mut by_attempt: HashMap<String, BTreeMap<usize, String>> = HashMap::new();
    for line in lines {
        by_attempt.entry(line.index).or_default().insert(line.attempt, line.reply);
    }
    by_attempt.into_iter().map(|(index, replies)| (index, replies.into_values().collect())).collect()
}

/// SHA-256 of answers and replies, in hexadecimal digits; the order in which they came does not count.
pub(super) fn evidence_sha256(answers: &AnswersByRow, replies: &RepliesByRow) -> String {
    let (answers, replies): (BTreeMap<_, _>, BTreeMap<_, _>) = (answers.iter().collect(), replies.iter().collect());
    hex(&Sha256::digest(serde_json::to_vec(&(answers, replies)).expect("maps of texts are JSON")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_answers_from_replies_and_one_row_from_another() {
        let answers = |index: &str| HashMap::from([(index.to_string(), "A".to_string())]);
        let replies =
            |tries: &[&str]| HashMap::from([("1".to_string(), tries.iter().map(ToString::to_string).collect())]);
        let hashes = [
            evidence_sha256(&answers("1"), &HashMap::new()),
            evidence_sha256(&answers("2"), &HashMap::new()),
            evidence_sha256(&answers("1"), &replies(&["A"])),
            evidence_sha256(&answers("1"), &replies(&["A", ""])),
            evidence_sha256(&HashMap::new(), &replies(&["A"])),
        ];
        assert_eq!(hashes.iter().collect::<std::collections::BTreeSet<_>>().len(), hashes.len());
    }
}
