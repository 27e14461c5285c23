//! The size at which an image is shown to the model.

use crate::error::ModelError;

/// Longest side over shortest side that is still accepted.
const MAX_ASPECT_RATIO: f64 = 200.0;

/// Height and width, multiples of `factor`, near the original aspect ratio; an area outside
/// `min_pixels..=max_pixels` is scaled towards it.
///
/// Source: `smart_resize` of transformers' Qwen2-VL image processor, operation for operation in `f64`, with Python's
/// `round()` (halves to even). Like there, `max_pixels` can be exceeded: a very long image keeps one `factor` on its
/// short side, and enlarging rounds both sides up.
///
/// # Errors
/// [`ModelError::ImageSize`] when a side is 0 or the aspect ratio is above 200; [`ModelError::Config`] when `factor` or
/// `min_pixels` is 0, or `min_pixels` exceeds `max_pixels`.
pub fn smart_resize(
    height: usize,
    width: usize,
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> Result<(usize, usize), ModelError> {
    if factor == 0 || min_pixels == 0 || min_pixels > max_pixels {
        return Err(ModelError::Config(format!(
            "expected factor > 0 and 0 < min_pixels <= max_pixels, got factor {factor}, min_pixels {min_pixels}, max_pixels {max_pixels}"
        )));
    }
    let refuse = |reason: String| ModelError::ImageSize {
        width: u32::try_from(width).unwrap_or(u32::MAX),
        height: u32::try_from(height).unwrap_or(u32::MAX),
        reason,
    };
    if height == 0 || width == 0 {
        return Err(refuse("it has no pixels".into()));
    }
    let (h, w, unit) = (height as f64, width as f64, factor as f64);
    let aspect_ratio = h.max(w) / h.min(w);
    if aspect_ratio > MAX_ASPECT_RATIO {
        return Err(refuse(format!("expected an aspect ratio of at most {MAX_ASPECT_RATIO}, got {aspect_ratio}")));
    }
    let rounded = [h, w].map(|side| (side / unit).round_ties_even() as usize * factor);
    let area = rounded[0] * rounded[1];
    let [h_bar, w_bar] = if area > max_pixels {
        let shrink = ((h * w) / max_pixels as f64).sqrt();
        [h, w].map(|side| ((side / shrink / unit).floor() as usize * factor).max(factor))
    } else if area < min_pixels {
        let grow = (min_pixels as f64 / (h * w)).sqrt();
        [h, w].map(|side| (side * grow / unit).ceil() as usize * factor)
    } else {
        rounded
    };
    Ok((h_bar, w_bar))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_round_to_even_as_in_python() {
        // 70 / 28 = 2.5 -> 2 and 98 / 28 = 3.5 -> 4
        assert_eq!(smart_resize(70, 98, 28, 784, 1 << 24).unwrap(), (56, 112));
    }

    #[test]
    fn the_longest_accepted_image_is_two_hundred_times_its_height() {
        assert!(smart_resize(10, 2000, 28, 784, 1 << 24).is_ok());
        assert!(matches!(smart_resize(10, 2001, 28, 784, 1 << 24), Err(ModelError::ImageSize { .. })));
        assert!(matches!(smart_resize(0, 10, 28, 784, 1 << 24), Err(ModelError::ImageSize { .. })));
    }

    #[test]
    fn bounds_that_contradict_are_refused() {
        assert!(matches!(smart_resize(10, 10, 28, 785, 784), Err(ModelError::Config(_))));
        assert!(matches!(smart_resize(10, 10, 0, 1, 784), Err(ModelError::Config(_))));
        assert!(matches!(smart_resize(10, 10, 28, 0, 784), Err(ModelError::Config(_))));
    }

    proptest! {
        #[test]
        fn sides_are_multiples_and_the_area_is_within_bounds(
            height in 1usize..3000, width in 1usize..3000, factor in 1usize..40,
            min_units in 1usize..64, span in 4usize..64,
        ) {
            prop_assume!(height.max(width) <= 50 * height.min(width));
            let min_pixels = min_units * factor * factor;
            // Room for the sides to round up from `min_pixels`, and for a side of `factor` under `max_pixels`.
            let max_pixels = (min_pixels * span).max(64 * 64 * factor * factor);
            let (h, w) = smart_resize(height, width, factor, min_pixels, max_pixels).unwrap();
            prop_assert!(h > 0 && w > 0 && h % factor == 0 && w % factor == 0);
            prop_assert!((min_pixels..=max_pixels).contains(&(h * w)), "{h} x {w}");
        }

        #[test]
        fn a_size_that_fits_is_kept(h in 2usize..60, w in 2usize..60) {
            prop_assert_eq!(smart_resize(h * 28, w * 28, 28, 3136, 12_845_056).unwrap(), (h * 28, w * 28));
        }

        #[test]
        fn transposing_the_image_transposes_the_size(height in 1usize..2000, width in 1usize..2000) {
            prop_assume!(height.max(width) <= 200 * height.min(width));
            let (h, w) = smart_resize(height, width, 28, 3136, 1_003_520).unwrap();
            prop_assert_eq!(smart_resize(width, height, 28, 3136, 1_003_520).unwrap(), (w, h));
        }
    }
}
