//! The words of the example, and the files with which transformers reads a model that speaks them.
//!
//! One token a word: texts are split at white space, special tokens also where they touch other text.

use std::collections::BTreeSet;

use ril::adapters::DiscriminatorPrompt;
use serde_json::{Map, Value, json};

use crate::data::{Digit, Example, Kind, Picture};
use crate::task::{DISCRIMINATOR_SYSTEM, Style};

/// Pads a batch.
pub const PAD: &str = "<|endoftext|>";
/// Ends a message.
pub const END: &str = "<|im_end|>";
/// Stands where a picture's tokens go.
pub const IMAGE: &str = "<|image_pad|>";
/// Stands for a word that is not known.
pub const UNKNOWN: &str = "[UNK]";
/// The conversation format: that of Qwen2.5-VL without its default system message.
pub const CHAT_TEMPLATE: &str = include_str!("assets/chat_template.jinja");

const SPECIAL: [&str; 9] =
    [PAD, "<|im_start|>", END, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", IMAGE, "<|video_pad|>", UNKNOWN];
const NUMBERS: u32 = 100;
/// Side of a patch and patches merged along a side: a digit of 28 pixels is one image token.
const PATCH_SIZE: u32 = 14;
const MERGE_SIZE: u32 = 2;

/// The words by id: the special tokens, the numbers 0 to 99, then all other words in order of the alphabet.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    words: Vec<String>,
}

impl Vocabulary {
    /// Every word of the questions, the answers in all styles, the discriminator's prompt and the names of the roles.
    pub fn new() -> Self {
        let numbers: Vec<String> = (0..NUMBERS).map(|number| number.to_string()).collect();
        let mut others: BTreeSet<String> = ["system", "user", "assistant"].map(str::to_owned).into();
        for text in every_text() {
            others.extend(text.split(' ').map(str::to_owned));
        }
        others.retain(|word| !numbers.contains(word));
        Self { words: SPECIAL.map(str::to_owned).into_iter().chain(numbers).chain(others).collect() }
    }

    /// Number of words, special tokens included: the rows that an embedding needs.
    pub fn size(&self) -> usize {
        self.words.len()
    }

    /// The id of a word or special token.
    pub fn id(&self, word: &str) -> Option<u32> {
        self.words.iter().position(|known| known == word).map(|id| id as u32)
    }

    /// Names and contents of the files that stand beside a model's `config.json` and weights: with them transformers'
    /// `AutoTokenizer` and `AutoProcessor` open the folder.
    pub fn files(&self) -> [(&'static str, String); 4] {
        [
            ("tokenizer.json", self.tokenizer_json()),
            ("tokenizer_config.json", pretty(&tokenizer_config())),
            ("preprocessor_config.json", pretty(&preprocessor_config())),
            ("chat_template.jinja", CHAT_TEMPLATE.to_owned()),
        ]
    }

    /// The tokenizer as the `tokenizers` crate and transformers read it. Without a decoder tokens are joined by single
    /// spaces.
    pub fn tokenizer_json(&self) -> String {
        let added = |(id, content): (usize, &&str)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true
            })
        };
        let vocab: Map<String, Value> = self.words.iter().cloned().zip((0u32..).map(Value::from)).collect();
        pretty(&json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
            "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": null,
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN}
        }))
    }
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self::new()
    }
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "Qwen2_5_VLProcessor",
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 4096
    })
}

/// Means and deviations are those of OpenAI's CLIP, as for Qwen2.5-VL.
fn preprocessor_config() -> Value {
    let token_pixels = (PATCH_SIZE * MERGE_SIZE).pow(2);
    json!({
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": token_pixels,
        "max_pixels": token_pixels * 64,
        "patch_size": PATCH_SIZE,
        "temporal_patch_size": 2,
        "merge_size": MERGE_SIZE,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Texts that hold every word: each question in each phrasing, and each answer in each style to every pair of digits;
/// four digits say nothing that two do not, but for the names of their places.
fn every_text() -> Vec<String> {
    let mut texts = vec![DISCRIMINATOR_SYSTEM.to_owned(), DiscriminatorPrompt::tagged("0")];
    let reads = (0..4).map(|place| Kind::Read { place });
    let kinds = reads.chain([Kind::Sum, Kind::Difference, Kind::Largest, Kind::Even, Kind::AboveFive]);
    for kind in kinds {
        texts.extend(kind.phrasings());
        for pair in 0..100 {
            let labels = [pair / 10, pair % 10, 0, 0];
            let length = if matches!(kind, Kind::Read { .. }) { 4 } else { 2 };
            let digits: Vec<Digit> = labels[..length].iter().map(|&label| Digit { index: 0, label }).collect();
            let answer = kind.answer(&labels[..length]);
            let example = Example { picture: Picture { digits, look: 0 }, kind, question: String::new(), answer };
            texts.extend([Style::Short, Style::A, Style::B].map(|style| style.answer(&example)));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Mix, Split, generate};

    #[test]
    fn every_generated_text_survives_the_vocabulary() {
        let vocabulary = Vocabulary::new();
        let mix = Mix { digits: [0, 1, 1, 1], ..Mix::default() };
        for example in generate(Split::Test, 3000, 4, &mix) {
            let styles = [Style::Short, Style::A, Style::B].map(|style| style.answer(&example));
            let shown = styles.clone().map(|text| DiscriminatorPrompt::tagged(&text));
            let fixed = [example.question.clone(), DISCRIMINATOR_SYSTEM.to_owned()];
            for text in fixed.into_iter().chain(styles).chain(shown) {
                let ids: Vec<u32> = text.split_whitespace().map(|word| vocabulary.id(word).expect(word)).collect();
                let words: Vec<&str> = ids.iter().map(|id| vocabulary.words[*id as usize].as_str()).collect();
                assert_eq!(words.join(" "), text);
                assert_eq!(text, text.to_lowercase());
            }
        }
    }

    #[test]
    fn ids_are_unique_and_special_tokens_come_first() {
        let vocabulary = Vocabulary::new();
        assert_eq!(vocabulary.words.iter().collect::<BTreeSet<_>>().len(), vocabulary.size());
        assert_eq!((vocabulary.id(PAD), vocabulary.id(END), vocabulary.id(UNKNOWN)), (Some(0), Some(2), Some(8)));
        assert_eq!((vocabulary.id("0"), vocabulary.id("99"), vocabulary.id("100")), (Some(9), Some(108), None));
        assert!(vocabulary.words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)));
    }

    #[test]
    fn the_tokenizer_file_lists_every_word_once() {
        let vocabulary = Vocabulary::new();
        let file: Value = serde_json::from_str(&vocabulary.tokenizer_json()).unwrap();
        let words = file["model"]["vocab"].as_object().unwrap();
        assert_eq!(words.len(), vocabulary.size());
        assert!(words.iter().all(|(word, id)| vocabulary.id(word).map(Value::from).as_ref() == Some(id)));
        for added in file["added_tokens"].as_array().unwrap() {
            assert_eq!(vocabulary.id(added["content"].as_str().unwrap()).map(Value::from), Some(added["id"].clone()));
        }
    }

    #[test]
    fn a_digit_is_one_image_token() {
        let file = preprocessor_config();
        assert_eq!((file["min_pixels"].as_u64(), file["max_pixels"].as_u64()), (Some(784), Some(784 * 64)));
    }
}
