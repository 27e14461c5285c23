//! Pictures of a benchmark row: base64 text in the table, or files beside it.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ril_models::image::{RgbImage, decode_image, open_image};

use super::error::VlmEvalError;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Missing padding is forgiven.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a picture's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Base64(Arc<str>),
    File(PathBuf),
}

/// A picture that is decoded when it is needed: a table holds thousands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    source: Source,
    /// File and line of its row.
    place: Arc<str>,
    /// Which of the row's pictures, from 0.
    number: usize,
}

impl Picture {
    pub(super) fn base64(text: Arc<str>, place: Arc<str>, number: usize) -> Self {
        Self { source: Source::Base64(text), place, number }
    }

    pub(super) fn file(path: PathBuf, place: Arc<str>, number: usize) -> Self {
        Self { source: Source::File(path), place, number }
    }

    /// The file's bytes as they are, for a server that decodes by itself.
    ///
    /// # Errors
    /// [`VlmEvalError::Picture`].
    pub fn bytes(&self) -> Result<Vec<u8>, VlmEvalError> {
        let bytes = match &self.source {
            Source::Base64(text) => decode(text),
            Source::File(path) => std::fs::read(path).map_err(AnyError::from),
        };
        bytes.map_err(|source| self.error(source))
    }

    /// The pixels, as [`open_image`] reads them.
    ///
    /// # Errors
    /// [`VlmEvalError::Picture`].
    pub fn pixels(&self) -> Result<RgbImage, VlmEvalError> {
        let pixels = match &self.source {
            Source::Base64(text) => decode(text).and_then(|bytes| Ok(decode_image(&bytes)?)),
            Source::File(path) => open_image(path).map_err(AnyError::from),
        };
        pixels.map_err(|source| self.error(source))
    }

    fn error(&self, source: AnyError) -> VlmEvalError {
        VlmEvalError::Picture { place: self.place.to_string(), picture: self.number + 1, source }
    }
}

/// As Python's `b64decode`: characters that are not of the alphabet (line ends, say) are passed over.
fn decode(text: &str) -> Result<Vec<u8>, AnyError> {
    let is_known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    let known: Vec<u8> = text.bytes().filter(is_known).collect();
    Ok(ENGINE.decode(known)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_be_broken_into_lines_and_lack_its_padding() {
        for text in ["QUJDRA==", "QUJD\nRA==\n", "QUJDRA"] {
            assert_eq!(decode(text).unwrap(), b"ABCD");
        }
        assert!(decode("QUJDR").is_err());
    }

    #[test]
    fn bytes_that_are_no_picture_are_named_with_their_row() {
        let picture = Picture::base64("QUJDRA==".into(), "t.tsv, line 4".into(), 1);
        assert_eq!(picture.bytes().unwrap(), b"ABCD");
        assert_eq!(picture.pixels().unwrap_err().to_string(), "t.tsv, line 4: picture 2 cannot be read");
    }
}
