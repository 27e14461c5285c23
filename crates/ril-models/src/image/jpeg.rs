//! Whether a JPEG file is all there: the decoder fills what is missing with grey and says nothing.

use image::error::{DecodingError, ImageFormatHint};
use image::{ImageError, ImageFormat};

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Walks the segments of a JPEG up to its end marker.
///
/// # Errors
/// [`ImageError::Decoding`] when the file ends before it.
pub(super) fn check_complete(bytes: &[u8]) -> Result<(), ImageError> {
    if holds_end_marker(bytes) {
        return Ok(());
    }
    let reason = format!("the file of {} bytes is truncated: it has no end marker", bytes.len());
    Err(ImageError::Decoding(DecodingError::new(ImageFormatHint::Exact(ImageFormat::Jpeg), reason)))
}

fn holds_end_marker(bytes: &[u8]) -> bool {
    let mut at = 0;
    loop {
        // Entropy-coded data hides a byte of 0xff behind a 0; any number of 0xff may stand before a marker.
        let Some(gap) = bytes[at..].windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff)) else {
            return false;
        };
        let marker = bytes[at + gap + 1];
        at += gap + 2;
        match marker {
            END_OF_IMAGE => return true,
            // Start of image, restarts and TEM stand alone.
            0xd0..=0xd8 | 0x01 => {}
            _ => {
                let Some(length) = bytes.get(at..at + 2) else { return false };
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                // A thumbnail inside a segment has an end marker of its own, so segments are stepped over whole.
                let is_scan = marker == START_OF_SCAN;
                if length < 2 || at + length + usize::from(is_scan) > bytes.len() {
                    return false;
                }
                at += length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: [u8; 21] = [
        0xff, 0xd8, // start
        0xff, 0xe1, 0, 6, 0xff, 0xd9, 0xff, 0xd9, // a segment that holds end markers
        0xff, 0xff, 0xda, 0, 2, // a scan, behind a fill byte
        7, 0xff, 0, 0xff, 0xd0, 9, // its data, with an escaped byte and a restart
    ];

    #[test]
    fn only_a_file_with_its_own_end_marker_is_complete() {
        let whole = [&PICTURE[..], &[0xff, END_OF_IMAGE]].concat();
        assert!(check_complete(&whole).is_ok());
        assert!(check_complete(&[&whole[..], b"junk"].concat()).is_ok());
        for length in 0..whole.len() {
            assert!(check_complete(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn broken_segment_lengths_are_incomplete() {
        assert!(check_complete(&[0xff, 0xd8, 0xff, 0xe0, 0, 0, 0xff, END_OF_IMAGE]).is_err());
        assert!(check_complete(&[0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0xff, END_OF_IMAGE]).is_err());
    }
}
