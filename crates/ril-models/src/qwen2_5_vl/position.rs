//! Where each token stands: 3-axis rotary ids of the decoder, and which image row fills which placeholder.

use crate::error::ModelError;
use crate::input::{GridThw, ModelInput};
use crate::qwen2_5_vl::config::Qwen2_5VlConfig;

/// Positions of a batch and the sources of its embeddings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Time, height and width position of each token, `[rows * seq]` each; 0 on padding.
    pub positions: [Vec<usize>; 3],
    /// Position of the token that would come next, one a row.
    pub next_position: Vec<usize>,
    /// For each placeholder, its flat index in `[rows * seq]` and the image token that fills it.
    pub image_slots: Vec<(usize, usize)>,
}

/// Lays out a batch that starts at position 0 of every row.
///
/// Text tokens count up on all three axes. An image of `t x h x w` merged patches that starts at position `p` has
/// positions `p + (time, row, column)`, and the text after it goes on at `p + max(t, h, w)`.
///
/// # Errors
/// [`ModelError::ImageTokens`] when the placeholders of a row are not exactly those of the images placed in it;
/// [`ModelError::Input`] when placements name images that do not exist, or are left over, or leave an image out.
pub fn layout(input: &ModelInput, config: &Qwen2_5VlConfig) -> Result<Layout, ModelError> {
    let merge = config.vision.spatial_merge_size;
    let count = input.images.as_ref().map_or(0, |images| images.grid_thw.len());
    if let Some(image) = (0..count).find(|image| !input.placements.contains(image)) {
        return Err(ModelError::Input {
            what: "images",
            expected: "each named by a placement".into(),
            got: format!("image {image} of {count}, named by none"),
        });
    }
    let grids: Vec<GridThw> = input.images.iter().flat_map(|i| &i.grid_thw).map(|&g| merged(g, merge)).collect();
    let starts: Vec<usize> = grids
        .iter()
        .scan(0, |sum, g| {
            let start = *sum;
            *sum += g.iter().product::<usize>();
            Some(start)
        })
        .collect();
    let mut placements = input.placements.iter().map(|&p| {
        grids.get(p).map(|&grid| (grid, starts[p])).ok_or_else(|| ModelError::Input {
            what: "image placement",
            expected: format!("an index below {}", grids.len()),
            got: p.to_string(),
        })
    });
    let (rows, seq) = (input.tokens.rows(), input.tokens.seq());
    let mut layout = Layout {
        positions: [(); 3].map(|()| vec![0; rows * seq]),
        next_position: Vec::with_capacity(rows),
        image_slots: Vec::new(),
    };
    for row in 0..rows {
        layout_row(input, row, config.image_token_id, &mut placements, &mut layout)?;
    }
    let left = placements.count();
    if left > 0 {
        return Err(ModelError::Input {
            what: "images placed",
            expected: "as many as runs of image tokens".into(),
            got: format!("{left} too many"),
        });
    }
    Ok(layout)
}

/// One row: walks its real tokens, text singly and images whole.
fn layout_row(
    input: &ModelInput,
    row: usize,
    image_token_id: u32,
    placements: &mut dyn Iterator<Item = Result<(GridThw, usize), ModelError>>,
    layout: &mut Layout,
) -> Result<(), ModelError> {
    let (ids, mask) = (input.tokens.row(row), input.tokens.row_mask(row));
    let real: Vec<usize> = (0..ids.len()).filter(|&i| mask[i]).collect();
    let placeholders = real.iter().filter(|&&i| ids[i] == image_token_id).count();
    let (mut position, mut at, mut filled) = (0, 0, 0);
    while at < real.len() {
        let flat = row * ids.len() + real[at];
        if ids[real[at]] != image_token_id {
            layout.positions.iter_mut().for_each(|axis| axis[flat] = position);
            position += 1;
            at += 1;
            continue;
        }
        let mismatch = |image_tokens| ModelError::ImageTokens { row, placeholders, image_tokens };
        let ([t, h, w], start) = placements.next().ok_or_else(|| mismatch(filled))??;
        let count = t * h * w;
        filled += count;
        let run = real.get(at..at + count).ok_or_else(|| mismatch(filled))?;
        if run.iter().any(|&i| ids[i] != image_token_id) {
            return Err(mismatch(filled));
        }
        for (k, &i) in run.iter().enumerate() {
            let flat = row * ids.len() + i;
            let offsets = [k / (h * w), k / w % h, k % w];
            for (axis, offset) in layout.positions.iter_mut().zip(offsets) {
                axis[flat] = position + offset;
            }
            layout.image_slots.push((flat, start + k));
        }
        position += t.max(h).max(w);
        at += count;
    }
    layout.next_position.push(position);
    Ok(())
}

/// Lays out text that continues rows which end before `next_position`.
///
/// # Errors
/// [`ModelError::ImageTokens`] when the text holds an image token: images belong to the first forward;
/// [`ModelError::Input`] for images, or another number of rows.
pub fn continue_layout(
    input: &ModelInput,
    config: &Qwen2_5VlConfig,
    next_position: &[usize],
) -> Result<Layout, ModelError> {
    if input.tokens.rows() != next_position.len() {
        return Err(ModelError::Input {
            what: "rows that continue",
            expected: next_position.len().to_string(),
            got: input.tokens.rows().to_string(),
        });
    }
    if let Some(images) = &input.images {
        return Err(ModelError::Input {
            what: "images after the first forward",
            expected: "none".into(),
            got: images.grid_thw.len().to_string(),
        });
    }
    let seq = input.tokens.seq();
    let mut axis = vec![0; input.tokens.ids().len()];
    let mut next_position = next_position.to_vec();
    for (row, position) in next_position.iter_mut().enumerate() {
        let (ids, mask) = (input.tokens.row(row), input.tokens.row_mask(row));
        let placeholders = ids.iter().filter(|&&id| id == config.image_token_id).count();
        if placeholders > 0 {
            return Err(ModelError::ImageTokens { row, placeholders, image_tokens: 0 });
        }
        for i in (0..seq).filter(|&i| mask[i]) {
            axis[row * seq + i] = *position;
            *position += 1;
        }
    }
    Ok(Layout { positions: [axis.clone(), axis.clone(), axis], next_position, image_slots: Vec::new() })
}

/// Grid after merging, in tokens.
pub(crate) fn merged([t, h, w]: GridThw, merge: usize) -> GridThw {
    [t, h / merge, w / merge]
}
