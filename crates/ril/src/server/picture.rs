//! Pictures as servers want them.

use std::path::Path;

use ril_client::ChatPart;
use ril_models::ModelError;
use ril_models::image::{RgbImage, encode_png, media_type};

use crate::error::RilError;

/// A picture file as it is; the server decodes it.
///
/// # Errors
/// [`RilError::Models`] with the path, for a file that cannot be read; [`RilError::Input`] for one that is no PNG, JPEG, WebP or
/// BMP.
pub fn file_part(path: &Path) -> Result<ChatPart, RilError> {
    let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
    bytes_part(&bytes).map_err(|reason| RilError::Input(format!("{}: {reason}", path.display())))
}

/// The bytes of a picture file as they are.
///
/// # Errors
/// What is wrong, for bytes that are no PNG, JPEG, WebP or BMP.
pub(super) fn bytes_part(bytes: &[u8]) -> Result<ChatPart, &'static str> {
    let media_type = media_type(bytes).ok_or("expected a PNG, JPEG, WebP or BMP picture")?;
    Ok(ChatPart::image(bytes, media_type))
}

/// A decoded picture, as a PNG file.
///
/// # Errors
/// [`RilError::Input`] for a picture without pixels.
pub fn picture_part(picture: &RgbImage) -> Result<ChatPart, RilError> {
    let bytes = encode_png(picture).map_err(|e| RilError::Input(format!("picture: {e}")))?;
    Ok(ChatPart::image(&bytes, "image/png"))
}
