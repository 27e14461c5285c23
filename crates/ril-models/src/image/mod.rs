//! Pictures from disk to 8-bit RGB, and Pillow's bicubic resize.

mod jpeg;
mod resize;

use std::io::Cursor;
use std::path::Path;

pub use image::ImageError;
pub use image::RgbImage;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::error::ModelError;

pub use resize::resize_bicubic;

/// Reads a PNG, JPEG, WebP or BMP picture as 8-bit RGB, upright.
///
/// As transformers' `load_image` does with Pillow: the EXIF orientation is applied, then `convert("RGB")`: grey is
/// repeated, palettes are looked up, and an alpha channel is *dropped*, not blended. Of 16-bit colour the high byte
/// is kept; 16-bit grey without alpha is clipped at 255, as Pillow's `I;16` mode is.
/// The format is read from the content, not from the file name.
///
/// PNG, BMP and lossless WebP give Pillow's bytes. JPEG and lossy WebP are decoded by other libraries than Pillow's,
/// which the standards allow to differ by a few units a channel.
///
/// A truncated file is an error, as it is in Pillow. A JPEG must hold its end marker, which Pillow can do without when
/// all pixels are there.
///
/// # Errors
/// [`ModelError::Io`] when the file cannot be opened, [`ModelError::Image`] when it cannot be decoded.
pub fn open_image(path: &Path) -> Result<RgbImage, ModelError> {
    let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
    decode_image(&bytes).map_err(|source| ModelError::Image { path: path.to_path_buf(), source })
}

/// [`open_image`] for the bytes of a file.
///
/// # Errors
/// What the decoder says.
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(bytes).map(to_rgb)
}

/// The media type of a picture file's bytes, `image/png` and so on; `None` for what [`open_image`] does not read.
pub fn media_type(bytes: &[u8]) -> Option<&'static str> {
    let format = image::guess_format(bytes).ok()?;
    format.reading_enabled().then(|| format.to_mime_type())
}

/// The picture as a PNG file, which holds every pixel as it is.
///
/// # Errors
/// [`ImageError`] for a picture without pixels.
pub fn encode_png(picture: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if reader.format() == Some(ImageFormat::Jpeg) {
        jpeg::check_complete(bytes)?;
    }
    let mut decoder = reader.into_decoder()?;
    // A damaged EXIF block does not make the picture unreadable; Pillow ignores it too.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder)?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Pillow's `convert("RGB")`. The image crate's own conversion rounds 16-bit samples, where Pillow truncates.
fn to_rgb(picture: DynamicImage) -> RgbImage {
    let high = |sample: u16| (sample >> 8) as u8;
    match picture {
        DynamicImage::ImageLuma16(grey) => {
            let clip = |sample: u16| sample.min(255) as u8;
            RgbImage::from_fn(grey.width(), grey.height(), |x, y| [clip(grey.get_pixel(x, y).0[0]); 3].into())
        }
        DynamicImage::ImageLumaA16(grey) => {
            RgbImage::from_fn(grey.width(), grey.height(), |x, y| [high(grey.get_pixel(x, y).0[0]); 3].into())
        }
        DynamicImage::ImageRgb16(rgb) => {
            RgbImage::from_fn(rgb.width(), rgb.height(), |x, y| rgb.get_pixel(x, y).0.map(high).into())
        }
        DynamicImage::ImageRgba16(rgba) => RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
            let [r, g, b, _] = rgba.get_pixel(x, y).0.map(high);
            [r, g, b].into()
        }),
        other => other.into_rgb8(),
    }
}
