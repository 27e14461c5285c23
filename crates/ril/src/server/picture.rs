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
    let unknown = || RilError::Input(format!("{}: expected a PNG, JPEG, WebP or BMP picture", path.display()));
    Ok(ChatPart::image(&bytes, media_type(&bytes).ok_or_else(unknown)?))
}

/// A decoded picture, as a PNG file.
///
/// # Errors
/// [`RilError::Input`] for a picture without pixels.
pub fn picture_part(picture: &RgbImage) -> Result<ChatPart, RilError> {
    let bytes = encode_png(picture).map_err(|e| RilError::Input(format!("picture: {e}")))?;
    Ok(ChatPart::image(&bytes, "image/png"))
}
