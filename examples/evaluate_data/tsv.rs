//! Rows and pictures as VLMEvalKit stores them.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};

/// Lines of tab-separated fields. No field holds a tab, a quote or a line end, so that none is quoted.
pub fn lines(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| row.join("\t") + "\n").collect()
}

/// A picture as base64 text of a PNG file.
pub fn base64(picture: &RgbImage) -> String {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).expect("memory takes every picture");
    STANDARD.encode(bytes.into_inner())
}

/// Texts as a row.
pub fn row(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| (*field).to_string()).collect()
}
