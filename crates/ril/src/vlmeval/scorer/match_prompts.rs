//! What a judge is asked to match an answer with: functional strings that must be VLMEvalKit's to the character, or the
//! judge's replies are not comparable.
//!
//! Source: `build_prompt`, `build_prompt_cn` and `build_prompt_blink` of `vlmeval/dataset/utils/multiple_choice.py`,
//! `YOrN_match_prompt` of `utils/yorn.py`, `build_mathvista_gpt4_prompt` of `utils/mathvista.py`,
//! `build_mmvet_gpt4_prompt` of `utils/mmvet.py`, commit e8e78f05 (Apache-2.0); the grading prompt of MM-Vet v2 is that
//! of `v2/mm-vet-v2_evaluator.py` of yuweihao/MM-Vet, commit acde843e (Apache-2.0).

const GENERAL: &str = include_str!("../prompts/match_choice.txt");
const CHINESE: &str = include_str!("../prompts/match_choice_cn.txt");
const BLINK: &str = include_str!("../prompts/match_choice_blink.txt");
const YES_NO: &str = include_str!("../prompts/match_yes_no.txt");
const MATHVISTA: &str = include_str!("../prompts/extract_mathvista.txt");
const MM_VET: &str = include_str!("../prompts/grade_mm_vet.txt");
const MM_VET_V2: &str = include_str!("../prompts/grade_mm_vet_v2.txt");

pub(super) fn general_prompt(question: &str, options: &str, answer: &str) -> String {
    filled(GENERAL, &[question, options, answer])
}

pub(super) fn chinese_prompt(question: &str, options: &str, answer: &str) -> String {
    filled(CHINESE, &[question, options, answer])
}

pub(super) fn blink_prompt(question: &str, options: &str, answer: &str) -> String {
    filled(BLINK, &[question, options, answer])
}

pub(super) fn yes_no_prompt(question: &str, answer: &str) -> String {
    filled(YES_NO, &[question, answer])
}

pub(super) fn mathvista_prompt(question: &str, answer: &str) -> String {
    filled(MATHVISTA, &[question, answer])
}

pub(super) fn mm_vet_prompt(question: &str, truth: &str, answer: &str) -> String {
    filled(MM_VET, &[question, truth, answer])
}

pub(super) fn mm_vet_v2_prompt(question: &str, truth: &str, answer: &str) -> String {
    filled(MM_VET_V2, &[question, truth, answer])
}

/// Puts texts into the slots `{}` of a template in one pass: what stands in a text is never a slot.
fn filled(template: &str, texts: &[&str]) -> String {
    let mut texts = texts.iter().copied();
    let pieces = template.split("{}").enumerate();
    pieces.flat_map(|(i, piece)| [if i == 0 { "" } else { texts.next().unwrap_or_default() }, piece]).collect()
}
