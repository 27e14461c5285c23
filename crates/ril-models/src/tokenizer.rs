//! Text to token ids and back.

use std::fmt;
use std::path::Path;

use tokenizers::Tokenizer;

use crate::error::ModelError;
use crate::files::{read_if_present, write_atomic};

const TOKENIZER_FILE: &str = "tokenizer.json";

/// Files that belong to a tokenizer and travel with it unread.
const SIDE_FILES: [&str; 6] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
];

/// A Hugging Face fast tokenizer without hidden behaviour: no token is added, nothing is truncated or padded.
#[derive(Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// Ids and spellings, in order of the ids.
    special_tokens: Vec<(u32, String)>,
    /// `tokenizer.json` and its side files, as they will be saved.
    files: Vec<(String, Vec<u8>)>,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, and keeps its side files to be saved verbatim.
    ///
    /// # Errors
    /// [`ModelError::Io`] when a file cannot be read, [`ModelError::Tokenizer`] when it does not parse.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(TOKENIZER_FILE);
        let json = std::fs::read(&path).map_err(ModelError::io(&path))?;
        let tokenizer = Tokenizer::from_bytes(&json)
            .map_err(|error| ModelError::Tokenizer(format!("{}: {error}", path.display())))?;
        let mut files = vec![(TOKENIZER_FILE.to_owned(), json)];
        for name in SIDE_FILES {
            if let Some(content) = read_if_present(&folder.join(name))? {
                files.push((name.to_owned(), content));
            }
        }
        Self::with_files(tokenizer, files)
    }

    /// Wraps a tokenizer built in memory. [`Self::save`] writes it as `tokenizer.json`, beside `side_files`, which are
    /// pairs of file name and content.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it cannot be written as JSON; [`ModelError::Input`] when a side file's name is
    /// not a plain file name, or is `tokenizer.json`.
    pub fn new(tokenizer: Tokenizer, side_files: Vec<(String, Vec<u8>)>) -> Result<Self, ModelError> {
        let is_plain = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
        if let Some((name, _)) = side_files.iter().find(|(name, _)| name == TOKENIZER_FILE || !is_plain(name)) {
            return Err(ModelError::Input {
                what: "side file",
                expected: format!("a plain file name other than {TOKENIZER_FILE}"),
                got: name.clone(),
            });
        }
        let json = tokenizer.to_string(true).map_err(failed)?;
        let mut files = vec![(TOKENIZER_FILE.to_owned(), json.into_bytes())];
        files.extend(side_files);
        Self::with_files(tokenizer, files)
    }

    fn with_files(mut tokenizer: Tokenizer, files: Vec<(String, Vec<u8>)>) -> Result<Self, ModelError> {
        tokenizer.with_truncation(None).map_err(failed)?;
        tokenizer.with_padding(None);
        let mut special_tokens: Vec<(u32, String)> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter_map(|(id, token)| token.special.then_some((id, token.content)))
            .collect();
        special_tokens.sort_unstable();
        Ok(Self { tokenizer, special_tokens, files })
    }

    /// Ids of the special tokens and how they are spelled, in order of the ids: a text that holds such a spelling is
    /// read as the token.
    #[must_use]
    pub fn special_tokens(&self) -> &[(u32, String)] {
        &self.special_tokens
    }

    /// Token ids of `text`. Special tokens written in the text are recognised; none are added.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `token_ids`, special tokens left out. Ids outside the vocabulary give nothing, and bytes that are not
    /// UTF-8 give U+FFFD.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn decode(&self, token_ids: &[u32]) -> Result<String, ModelError> {
        self.tokenizer.decode(token_ids, true).map_err(failed)
    }

    /// As [`Self::decode`], special tokens written out.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn decode_with_special(&self, token_ids: &[u32]) -> Result<String, ModelError> {
        self.tokenizer.decode(token_ids, false).map_err(failed)
    }

    /// The id of one token, such as `<|im_end|>`.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Number of different tokens, added ones included. A model's embedding may have more rows.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Writes `tokenizer.json` and the side files, each whole or not at all; unchanged bytes where they were read.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.files().try_for_each(|(name, content)| write_atomic(&folder.join(name), content))
    }

    /// Names and contents of the files that [`Self::save`] writes.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))
    }
}

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

fn failed(error: tokenizers::Error) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::models::bpe::BPE;
    use tokenizers::{AddedToken, PaddingParams, TruncationParams};

    fn tiny() -> Tokenizer {
        let vocab = [("a".to_owned(), 0), ("b".to_owned(), 1), ("ab".to_owned(), 2)];
        let merges = vec![("a".to_owned(), "b".to_owned())];
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).build().unwrap();
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.add_special_tokens([AddedToken::from("<|end|>", true)]).unwrap();
        tokenizer
    }

    #[test]
    fn special_tokens_are_recognised_and_skipped() {
        let tokenizer = TextTokenizer::new(tiny(), Vec::new()).unwrap();
        assert_eq!(tokenizer.encode("ab<|end|>a").unwrap(), [2, 3, 0]);
        assert_eq!(tokenizer.decode(&[2, 3]).unwrap(), "ab");
        assert_eq!(tokenizer.decode_with_special(&[2, 3]).unwrap(), "ab <|end|>");
        assert_eq!((tokenizer.token_id("<|end|>"), tokenizer.token_id("c")), (Some(3), None));
        assert_eq!(tokenizer.vocab_size(), 4);
        assert_eq!(tokenizer.special_tokens(), [(3, "<|end|>".to_string())]);
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_ignored() {
        let mut inner = tiny();
        inner.with_truncation(Some(TruncationParams { max_length: 1, ..Default::default() })).unwrap();
        inner.with_padding(Some(PaddingParams::default()));
        let tokenizer = TextTokenizer::new(inner, Vec::new()).unwrap();
        assert_eq!(tokenizer.encode("aab").unwrap(), [0, 2]);
    }

    #[test]
    fn a_saved_folder_is_read_back_with_its_side_files() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let side = vec![("tokenizer_config.json".to_owned(), b"{ \"odd\":  1}".to_vec())];
        TextTokenizer::new(tiny(), side).unwrap().save(first.path()).unwrap();
        let tokenizer = TextTokenizer::from_folder(first.path()).unwrap();
        assert_eq!(tokenizer.encode("ab").unwrap(), [2]);
        tokenizer.save(second.path()).unwrap();
        for name in [TOKENIZER_FILE, "tokenizer_config.json"] {
            let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
            assert_eq!(read(first.path()), read(second.path()));
        }
    }

    #[test]
    fn side_files_cannot_leave_the_folder() {
        for name in ["../a", "/a", "a/b", "", "..", TOKENIZER_FILE] {
            assert!(TextTokenizer::new(tiny(), vec![(name.to_owned(), Vec::new())]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = TextTokenizer::from_folder(folder.path()).unwrap_err();
        assert!(matches!(error, ModelError::Io { .. }), "{error}");
        std::fs::write(folder.path().join(TOKENIZER_FILE), "{").unwrap();
        let error = TextTokenizer::from_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains(TOKENIZER_FILE), "{error}");
    }
}
