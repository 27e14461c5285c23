//! The 14 benchmarks of the paper and every kind of file that serves them.

use std::path::Path;

use super::error::VlmEvalError;
use super::prompt::{PromptStyle, Thinking};
use super::scorer::{Answers, ChoiceRules, JudgeUse, MatchPrompt, MmVetVersion, QuestionPlace, Scorer};

use crate::eval::aligned;

/// What a file holds: how its rows are asked and scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Name on the command line.
    pub name: &'static str,
    /// The benchmark of the paper's table that it is, as the paper names it.
    pub benchmark: Option<&'static str>,
    /// Names under which VLMEvalKit knows such files, without `.tsv`.
    pub files: &'static [&'static str],
    /// How a row is asked.
    pub prompt: PromptStyle,
    /// How an answer is scored.
    pub scorer: Scorer,
    /// Where the rules come from: file and class under `vlmeval/dataset`.
    pub source: &'static str,
}

const CHOICE: ChoiceRules = ChoiceRules {
    matcher: MatchPrompt::General,
    answers: Answers::Letters,
    thinking: Thinking::Direct,
    question: QuestionPlace::Column,
};
const MMMU: ChoiceRules = ChoiceRules { answers: Answers::LettersOrOpen, ..CHOICE };
const MMMU_COT: ChoiceRules = ChoiceRules { thinking: Thinking::StepByStep, ..MMMU };
const MMMU_VISION: ChoiceRules = ChoiceRules { question: QuestionPlace::Picture, ..MMMU };
const MMMU_VISION_COT: ChoiceRules = ChoiceRules { question: QuestionPlace::Picture, ..MMMU_COT };
const BLINK: ChoiceRules = ChoiceRules { matcher: MatchPrompt::Blink, ..CHOICE };

const MCQ_SOURCE: &str = "image_mcq.py ImageMCQDataset";
const MMMU_PRO_SOURCE: &str = "image_mcq.py MMMUProDataset";
const YES_NO_SOURCE: &str = "image_yorn.py ImageYORNDataset";

const fn choice(name: &'static str, benchmark: Option<&'static str>, files: &'static [&'static str]) -> Kind {
    Kind { name, benchmark, files, prompt: PromptStyle::Choice, scorer: Scorer::Choice(CHOICE), source: MCQ_SOURCE }
}

const fn circular(name: &'static str, benchmark: Option<&'static str>, files: &'static [&'static str]) -> Kind {
    Kind { scorer: Scorer::Circular(CHOICE), ..choice(name, benchmark, files) }
}

const fn mmmu_pro(name: &'static str, files: &'static [&'static str], prompt: PromptStyle, rules: ChoiceRules) -> Kind {
    let scorer = Scorer::Choice(rules);
    Kind { name, benchmark: Some("MMMU-Pro"), files, prompt, scorer, source: MMMU_PRO_SOURCE }
}

/// Every kind: those of the 14 benchmarks in the order of the paper's table, then the general ones.
pub const KINDS: [Kind; 24] = [
    choice("ai2d", Some("AI2D"), &["AI2D_TEST", "AI2D_TEST_NO_MASK"]),
    Kind {
        name: "chartqa",
        benchmark: Some("ChartQA"),
        files: &["ChartQA_TEST", "charts"],
        prompt: PromptStyle::ShortAnswer,
        scorer: Scorer::RelaxedAccuracy,
        source: "image_vqa.py ImageVQADataset",
    },
    Kind {
        name: "mathvista",
        benchmark: Some("MathVista"),
        files: &["MathVista_MINI"],
        prompt: PromptStyle::Question,
        scorer: Scorer::MathVista,
        source: "image_vqa.py MathVista",
    },
    circular(
        "mmb",
        Some("MMB"),
        &["MMBench_DEV_EN_V11", "MMBench_DEV_EN", "MMBench_TEST_EN_V11", "MMBench_TEST_EN", "MMBench_V11", "MMBench"],
    ),
    circular(
        "mmb-cn",
        Some("MMB-CN"),
        &[
            "MMBench_DEV_CN_V11",
            "MMBench_DEV_CN",
            "MMBench_TEST_CN_V11",
            "MMBench_TEST_CN",
            "MMBench_CN_V11",
            "MMBench_CN",
        ],
    ),
    Kind {
        name: "mm-vet",
        benchmark: Some("MM-Vet"),
        files: &["MMVet", "MMVet_Hard"],
        prompt: PromptStyle::Question,
        scorer: Scorer::MmVet(MmVetVersion::V1),
        source: "image_vqa.py MMVet",
    },
    Kind {
        name: "mm-vet-v2",
        benchmark: Some("MM-Vet-v2"),
        files: &["MMVet_v2", "MMVetV2", "mm-vet-v2"],
        prompt: PromptStyle::Interleaved,
        scorer: Scorer::MmVet(MmVetVersion::V2),
        source: "not in VLMEvalKit; yuweihao/MM-Vet v2/mm-vet-v2_evaluator.py",
    },
    Kind {
        name: "mmmu",
        benchmark: Some("MMMU"),
        files: &["MMMU_DEV_VAL", "MMMU_TEST"],
        prompt: PromptStyle::Mmmu,
        scorer: Scorer::Choice(MMMU),
        source: "image_mcq.py MMMUDataset",
    },
    mmmu_pro("mmmu-pro", &["MMMU_Pro_10c"], PromptStyle::MmmuPro(Thinking::Direct), MMMU),
    mmmu_pro("mmmu-pro-cot", &["MMMU_Pro_10c_COT"], PromptStyle::MmmuPro(Thinking::StepByStep), MMMU_COT),
    mmmu_pro("mmmu-pro-vision", &["MMMU_Pro_V"], PromptStyle::MmmuProVision(Thinking::Direct), MMMU_VISION),
    mmmu_pro(
        "mmmu-pro-vision-cot",
        &["MMMU_Pro_V_COT"],
        PromptStyle::MmmuProVision(Thinking::StepByStep),
        MMMU_VISION_COT,
    ),
    choice("mmstar", Some("MMStar"), &["MMStar"]),
    Kind { scorer: Scorer::Choice(BLINK), ..choice("blink", Some("BLINK"), &["BLINK"]) },
    choice("seed", Some("SEED"), &["SEEDBench_IMG", "SEEDBench2"]),
    choice("seed2-plus", Some("SEED-2+"), &["SEEDBench2_Plus"]),
    choice("realworldqa", Some("RealWorldQA"), &["RealWorldQA"]),
    circular("blink-circular", None, &["BLINK_circular"]),
    Kind {
        name: "yes-no",
        benchmark: None,
        files: &["MME", "HallusionBench", "POPE", "digits_yes_no"],
        prompt: PromptStyle::Question,
        scorer: Scorer::YesNo,
        source: YES_NO_SOURCE,
    },
    Kind {
        name: "amber",
        benchmark: None,
        files: &["AMBER"],
        prompt: PromptStyle::YesOrNo,
        scorer: Scorer::YesNo,
        source: YES_NO_SOURCE,
    },
    choice("choice", None, &[]),
    circular("circular", None, &["digits", "CCBench", "MMCR"]),
    // The options are not shown: the answer is matched with their texts. For models that only know a question.
    Kind { prompt: PromptStyle::Question, ..circular("circular-hidden", None, &[]) },
    Kind {
        name: "free",
        benchmark: None,
        files: &["digits_free"],
        prompt: PromptStyle::Question,
        scorer: Scorer::Free,
        source: "ours: the judge of the paper, or rules without one",
    },
];

impl Kind {
    /// The kind of this name.
    ///
    /// # Errors
    /// [`VlmEvalError::UnknownKind`], which lists all names.
    pub fn named(name: &str) -> Result<&'static Self, VlmEvalError> {
        KINDS.iter().find(|kind| kind.name.eq_ignore_ascii_case(name)).ok_or_else(|| unknown(name))
    }

    /// The kind of files of this name, as VLMEvalKit names them; case does not matter, a `_local` at the end neither
    /// (VLMEvalKit adds it to a file whose pictures it has moved out).
    ///
    /// # Errors
    /// [`VlmEvalError::UnknownKind`], which lists all names.
    pub fn of_file(path: &Path) -> Result<&'static Self, VlmEvalError> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let stem = stem.strip_suffix("_local").unwrap_or(&stem);
        let is_known = |kind: &&Self| kind.files.iter().any(|file| file.eq_ignore_ascii_case(stem));
        KINDS.iter().find(is_known).ok_or_else(|| unknown(stem))
    }
}

fn unknown(name: &str) -> VlmEvalError {
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    VlmEvalError::UnknownKind { name: name.into(), known: known.join(", ") }
}

/// The 14 benchmarks in the order of the paper, a line for each kind that serves one, then the general kinds: files,
/// scorer and what a judge is for.
#[must_use]
pub fn benchmark_table() -> String {
    let header = ["benchmark", "--kind", "scorer", "judge", "files"].map(String::from);
    let row = |kind: &Kind| {
        let judge = match kind.scorer.judge_use() {
            JudgeUse::Never => "no",
            JudgeUse::Helps => "helps",
            JudgeUse::Grades => "needed",
        };
        let files = if kind.files.is_empty() { "any, with --kind".into() } else { kind.files.join(", ") };
        let benchmark = kind.benchmark.unwrap_or("-");
        [benchmark.into(), kind.name.into(), kind.scorer.label().into(), judge.into(), files]
    };
    aligned(std::iter::once(header).chain(KINDS.iter().map(row)).collect(), 5)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_fourteen_benchmarks_of_the_paper_are_served() {
        let mut named: Vec<&str> = KINDS.iter().filter_map(|kind| kind.benchmark).collect();
        named.dedup();
        let paper = [
            "AI2D",
            "ChartQA",
            "MathVista",
            "MMB",
            "MMB-CN",
            "MM-Vet",
            "MM-Vet-v2",
            "MMMU",
            "MMMU-Pro",
            "MMStar",
            "BLINK",
            "SEED",
            "SEED-2+",
            "RealWorldQA",
        ];
        assert_eq!(named, paper);
        assert!(paper.iter().all(|name| benchmark_table().contains(name)));
    }

    #[test]
    fn names_of_kinds_and_files_are_unique() {
        let names: Vec<String> = KINDS.iter().map(|kind| kind.name.to_lowercase()).collect();
        let files: Vec<String> = KINDS.iter().flat_map(|kind| kind.files).map(|file| file.to_lowercase()).collect();
        for all in [names, files] {
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
    }

    #[test]
    fn a_file_is_known_by_its_name_and_an_unknown_one_lists_the_kinds() {
        for (path, kind) in [
            ("data/MMBench_DEV_CN_V11.tsv", "mmb-cn"),
            ("mmmu_dev_val.tsv", "mmmu"),
            ("MMMU_Pro_V_COT_local.tsv", "mmmu-pro-vision-cot"),
            ("SEEDBench2_Plus.tsv", "seed2-plus"),
        ] {
            assert_eq!(Kind::of_file(path.as_ref()).unwrap().name, kind);
        }
        let error = Kind::of_file("mine.tsv".as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("\"mine\" is no known benchmark") && error.contains("chartqa"), "{error}");
        assert!(Kind::named("mmb").is_ok() && Kind::named("mmbench").is_err());
    }
}
