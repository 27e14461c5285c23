//! From one placeholder an image to one placeholder an image token.

use crate::error::ModelError;
use crate::input::GridThw;

/// Repeats the n-th `image_pad_id` of a tokenised prompt once for every merged patch of the n-th image,
/// `grid.product() / merge_size^2` times.
///
/// transformers' `Qwen2_5_VLProcessor` repeats the placeholder in the text, before tokenising. The ids are the same:
/// the placeholder is a special token, split off before the rest of the text is looked at.
///
/// # Shapes
/// - `ids`: `[seq]`, with one `image_pad_id` for each entry of `grids`
/// - output: `[seq + image_tokens - grids.len()]`
///
/// # Errors
/// [`ModelError::Input`] when the prompt has more or fewer placeholders than there are grids, or a grid cannot be
/// merged.
pub fn expand_image_tokens(
    ids: &[u32],
    image_pad_id: u32,
    grids: &[GridThw],
    merge_size: usize,
) -> Result<Vec<u32>, ModelError> {
    let placeholders = ids.iter().filter(|&&id| id == image_pad_id).count();
    if placeholders != grids.len() {
        return Err(ModelError::Input {
            what: "images for the image placeholders of the prompt",
            expected: placeholders.to_string(),
            got: grids.len().to_string(),
        });
    }
    let counts = grids.iter().map(|grid| image_tokens(*grid, merge_size)).collect::<Result<Vec<_>, _>>()?;
    let mut expanded = Vec::with_capacity(ids.len() + counts.iter().sum::<usize>());
    let mut counts = counts.into_iter();
    for &id in ids {
        let repeats = if id == image_pad_id { counts.next().unwrap_or_default() } else { 1 };
        expanded.extend(std::iter::repeat_n(id, repeats));
    }
    Ok(expanded)
}

/// Tokens that one image takes in the prompt: its patches, `merge_size^2` of them to a token.
///
/// # Errors
/// [`ModelError::Input`] when height or width is not a multiple of `merge_size`, or the grid is empty.
pub fn image_tokens(grid: GridThw, merge_size: usize) -> Result<usize, ModelError> {
    let [time, height, width] = grid;
    let merges = |length: usize| length > 0 && length.is_multiple_of(merge_size);
    if merge_size == 0 || time == 0 || !merges(height) || !merges(width) {
        return Err(ModelError::Input {
            what: "grid_thw",
            expected: format!("height and width that are positive multiples of merge_size {merge_size}"),
            got: format!("{grid:?}"),
        });
    }
    Ok(time * (height / merge_size) * (width / merge_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 9;

    #[test]
    fn each_placeholder_is_repeated_by_its_own_grid() {
        let grids = [[1, 2, 4], [1, 4, 6]];
        let expanded = expand_image_tokens(&[1, PAD, 2, PAD, 3], PAD, &grids, 2).unwrap();
        assert_eq!(expanded, [&[1][..], &[PAD; 2], &[2], &[PAD; 6], &[3]].concat());
    }

    #[test]
    fn text_without_images_is_unchanged() {
        assert_eq!(expand_image_tokens(&[1, 2, 3], PAD, &[], 2).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_missing_or_extra_image_is_an_error() {
        for grids in [&[][..], &[[1, 2, 2]; 2]] {
            let error = expand_image_tokens(&[1, PAD], PAD, grids, 2).unwrap_err();
            assert!(matches!(error, ModelError::Input { .. }), "{error}");
        }
    }

    #[test]
    fn a_grid_that_does_not_merge_is_an_error() {
        for grid in [[1, 3, 4], [1, 4, 3], [0, 2, 2], [1, 0, 2]] {
            assert!(image_tokens(grid, 2).is_err(), "{grid:?}");
        }
        assert!(image_tokens([1, 2, 2], 0).is_err());
    }
}
