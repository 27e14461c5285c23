//! MM-Vet and MM-Vet v2: a judge grades every answer from 0 to 1.
//!
//! Source: `MMVet_auxeval` and `MMVet_acc` of `vlmeval/dataset/utils/mmvet.py`, commit e8e78f05. VLMEvalKit has no MM-Vet
//! v2: its prompt and its seventh capability come from its own evaluator (`v2/mm-vet-v2_evaluator.py` of
//! yuweihao/MM-Vet, commit acde843e); how often it is asked is as in the first version. A reply "nan", which VLMEvalKit
//! takes for a grade, is asked again here: it would turn every mean into no number.
//!
//! Without a judge the share of the truth's parts that stand in the answer is what counts: a substitute of ours that no
//! published number can be compared with.

use super::match_prompts::{mm_vet_prompt, mm_vet_v2_prompt};
use super::{Decided, Grade, Judged};
use crate::vlmeval::error::VlmEvalError;
use crate::vlmeval::python;
use crate::vlmeval::table::Row;

/// Which edition of MM-Vet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmVetVersion {
    /// arXiv 2308.02490.
    V1,
    /// arXiv 2408.00765, with sequences of pictures.
    V2,
}

/// Capabilities by the names of the files; the last one is of version 2.
const CAPABILITIES: [&str; 7] = ["rec", "ocr", "know", "gen", "spat", "math", "seq"];
const AND: &str = "<AND>";
const OR: &str = "<OR>";

pub(super) fn question(version: MmVetVersion, row: &Row<'_>, answer: &str) -> Result<String, VlmEvalError> {
    let spaced = |text: &str| text.replace(AND, " <AND> ").replace(OR, " <OR> ");
    let (question, truth) = (row.need("question")?, spaced(&row.need("answer")?));
    Ok(match version {
        MmVetVersion::V1 => mm_vet_prompt(&question, &truth, answer),
        MmVetVersion::V2 => {
            let one_line = |text: &str| text.replace('\n', "<br>");
            mm_vet_v2_prompt(&one_line(&question), &one_line(&truth), &one_line(answer))
        }
    })
}

/// The grade that a reply is.
pub(super) fn grade_in(reply: &str) -> Option<f64> {
    python::float(reply).filter(|grade| (0.0..=1.0).contains(grade))
}

pub(super) fn grade(row: &Row<'_>, answer: &str, judged: Judged<'_>) -> Result<Grade, VlmEvalError> {
    let Judged::Replies(replies) = judged else {
        let score = share_of_parts(&row.need("answer")?, answer);
        return Ok(Grade { score, read_as: python::strip(answer).to_string(), decided: Decided::Match });
    };
    let graded = replies.iter().find_map(|reply| grade_in(reply));
    Ok(graded.map_or_else(
        || Grade::unread(""),
        |score| Grade { score, read_as: python::strip(answer).to_string(), decided: Decided::Judge },
    ))
}

/// Every capability that the row's `category` names, and all of them together.
pub(super) fn groups(version: MmVetVersion, row: &Row<'_>) -> Vec<(&'static str, String)> {
    let Some(category) = row.text("category") else { return Vec::new() };
    let known = if version == MmVetVersion::V1 { &CAPABILITIES[..6] } else { &CAPABILITIES[..] };
    let named = known.iter().filter(|name| category.contains(**name)).map(|name| ("capability", (*name).to_string()));
    named.chain([("capabilities", category.replace(',', "_"))]).collect()
}

/// Of the alternatives (`<OR>`) the best: the share of its parts (`<AND>`) that stand in the answer as words.
fn share_of_parts(truth: &str, answer: &str) -> f64 {
    let answer = words(answer);
    let share = |alternative: &str| {
        let parts: Vec<String> = alternative.split(AND).map(words).filter(|part| part.len() > 1).collect();
        let found = parts.iter().filter(|part| answer.contains(part.as_str())).count();
        found as f64 / parts.len().max(1) as f64
    };
    truth.split(OR).map(share).fold(0.0, f64::max)
}

/// Words in small letters with a space before and behind each; signs and points inside numbers stay.
fn words(text: &str) -> String {
    let lower = text.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '/' | '%');
    let words = lower.split(|c| !is_part(c)).map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty());
    words.fold(" ".to_string(), |all, word| all + word + " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_judge_the_parts_that_stand_in_the_answer_count() {
        for (truth, answer, share) in [
            ("-1<AND>-5", "x = -1", 0.5),
            ("-1<AND>-5", "x = -5 or x = -1.", 1.0),
            ("-1<AND>-5", "x = -15", 0.0),
            ("cat<OR>black dog", "A Black dog!", 1.0),
            ("7", "", 0.0),
            ("", "7", 0.0),
        ] {
            assert_eq!(share_of_parts(truth, answer), share, "{truth} {answer}");
        }
    }

    #[test]
    fn only_a_number_from_0_to_1_is_a_grade() {
        assert_eq!(["0.5", " 1.0\n", "0"].map(grade_in), [Some(0.5), Some(1.0), Some(0.0)]);
        assert_eq!(["1.1", "-0.1", "nan", "good", ""].map(grade_in), [None; 5]);
    }
}
