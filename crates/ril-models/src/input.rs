//! What a model reads: token rows and the images behind their placeholders. All on the host, so that
//! position ids and masks are computed without reading anything back from a device.

use crate::error::ModelError;

/// Patches of one image along time, height and width, before merging.
pub type GridThw = [usize; 3];

/// Pixels of one or more images, cut into patches by the image processor.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBatch {
    /// `[patches, patch_dim]`, row-major; the images one after the other.
    pub pixel_patches: Vec<f32>,
    /// Floats a patch: `channels * temporal_patch_size * patch_size^2`.
    pub patch_dim: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// One entry an image.
    pub grid_thw: Vec<GridThw>,
}

impl ImageBatch {
    /// Joins the images of several batches, in order.
    ///
    /// # Errors
    /// [`ModelError::Input`] when `batches` is empty or the patch sizes differ.
    pub fn concat<'a>(batches: impl IntoIterator<Item = &'a Self>) -> Result<Self, ModelError> {
        let mut batches = batches.into_iter();
        let mut all = batches.next().cloned().ok_or_else(|| ModelError::Input {
            what: "image batches",
            expected: "at least one".into(),
            got: "none".into(),
        })?;
        for batch in batches {
            for (what, expected, got) in
                [("patch_dim", all.patch_dim, batch.patch_dim), ("patch_size", all.patch_size, batch.patch_size)]
            {
                if expected != got {
                    return Err(ModelError::Input { what, expected: expected.to_string(), got: got.to_string() });
                }
            }
            all.pixel_patches.extend_from_slice(&batch.pixel_patches);
            all.grid_thw.extend_from_slice(&batch.grid_thw);
        }
        Ok(all)
    }

    /// Width and height, in pixels, of an image as the model sees it: after the processor resized it. `None` when there is no
    /// image of this index.
    #[must_use]
    pub fn pixel_size(&self, index: usize) -> Option<(usize, usize)> {
        let [_, height, width] = self.grid_thw.get(index)?;
        Some((width * self.patch_size, height * self.patch_size))
    }
}

/// Rows of token ids of equal length; `mask` is false on padding, which may stand on either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    ids: Vec<u32>,
    mask: Vec<bool>,
    rows: usize,
}

/// Which end of a shorter row is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Padding before the row: prompts that will be continued.
    Left,
    /// Padding after the row.
    Right,
}

impl TokenBatch {
    /// Pads `rows` with `pad_id` to the longest of them.
    #[must_use]
    pub fn padded(rows: &[impl AsRef<[u32]>], pad_id: u32, padding: Padding) -> Self {
        let seq = rows.iter().map(|r| r.as_ref().len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * seq);
        let mut mask = Vec::with_capacity(rows.len() * seq);
        for row in rows.iter().map(AsRef::as_ref) {
            let fill = seq - row.len();
            let (before, after) = match padding {
                Padding::Left => (fill, 0),
                Padding::Right => (0, fill),
            };
            ids.extend(std::iter::repeat_n(pad_id, before));
            ids.extend_from_slice(row);
            ids.extend(std::iter::repeat_n(pad_id, after));
            mask.extend(std::iter::repeat_n(false, before));
            mask.extend(std::iter::repeat_n(true, row.len()));
            mask.extend(std::iter::repeat_n(false, after));
        }
        Self { ids, mask, rows: rows.len() }
    }

    /// Puts `right` behind `self`, row by row: left-padded prompts, then right-padded completions.
    ///
    /// # Errors
    /// [`ModelError::Input`] when the row counts differ.
    pub fn join(&self, right: &Self) -> Result<Self, ModelError> {
        if self.rows != right.rows {
            return Err(ModelError::Input {
                what: "rows to join",
                expected: self.rows.to_string(),
                got: right.rows.to_string(),
            });
        }
        let (a, b) = (self.seq(), right.seq());
        let mut joined = Self { ids: Vec::new(), mask: Vec::new(), rows: self.rows };
        for row in 0..self.rows {
            joined.ids.extend_from_slice(&self.ids[row * a..(row + 1) * a]);
            joined.ids.extend_from_slice(&right.ids[row * b..(row + 1) * b]);
            joined.mask.extend_from_slice(&self.mask[row * a..(row + 1) * a]);
            joined.mask.extend_from_slice(&right.mask[row * b..(row + 1) * b]);
        }
        Ok(joined)
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, padding included.
    #[must_use]
    pub fn seq(&self) -> usize {
        self.ids.len().checked_div(self.rows).unwrap_or(0)
    }

    /// All ids, `[rows * seq]`.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// All mask bits, `[rows * seq]`, true = a real token.
    #[must_use]
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// Ids of one row, padding included.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u32] {
        &self.ids[row * self.seq()..(row + 1) * self.seq()]
    }

    /// Mask of one row.
    #[must_use]
    pub fn row_mask(&self, row: usize) -> &[bool] {
        &self.mask[row * self.seq()..(row + 1) * self.seq()]
    }

    /// True when no row is padded.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        self.mask.iter().all(|&m| m)
    }
}

/// A batch that a vision-language model can score.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInput {
    /// Token rows.
    pub tokens: TokenBatch,
    /// The different images of the batch; each is encoded once.
    pub images: Option<ImageBatch>,
    /// For each image placeholder run, rows first to last and left to right, the image that it shows.
    /// Rows of one group share their image through this list.
    pub placements: Vec<usize>,
}

impl ModelInput {
    /// Text alone.
    #[must_use]
    pub fn text(tokens: TokenBatch) -> Self {
        Self { tokens, images: None, placements: Vec::new() }
    }
}
