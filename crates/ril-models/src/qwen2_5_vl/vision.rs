//! The vision tower: patches in, one token per merged block of patches out.
//!
//! Most blocks attend inside windows, a few inside the whole frame. Patches are reordered once so that windows are
//! contiguous, and put back after the merger. Attention runs over *segments* (windows or frames) of any length.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use ril_kernels::{AttentionPlan, RotaryTable, attention, rotate};

use crate::error::ModelError;
use crate::input::{GridThw, ImageBatch};
use crate::nn::linear::{Linear, linear, project, reorder};
use crate::nn::mlp::SwiGlu;
use crate::nn::rms_norm::RmsNorm;
use crate::nn::rotary::inverse_frequencies;
use crate::qwen2_5_vl::config::VisionConfig;

/// Fixed by the architecture; the configuration has no field for it.
const NORM_EPSILON: f64 = 1e-6;
/// Fixed by the architecture: base of the two-axis rotary frequencies.
const ROPE_THETA: f64 = 10_000.0;

/// A convolution whose stride is its kernel is a product with flattened patches.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// `[patch_dim, hidden]`.
    pub proj: Linear,
}

/// Bidirectional attention inside segments.
#[derive(Module, Debug)]
pub struct VisionAttention {
    /// Queries, keys and values in one product.
    pub qkv: Linear,
    /// Output.
    pub proj: Linear,
    #[module(skip)]
    heads: usize,
}

/// One block.
#[derive(Module, Debug)]
pub struct VisionBlock {
    /// Before the attention.
    pub norm1: RmsNorm,
    /// Before the feed-forward.
    pub norm2: RmsNorm,
    /// Attention.
    pub attn: VisionAttention,
    /// Feed-forward, with biases.
    pub mlp: SwiGlu,
}

/// Joins a block of patches into one token of the decoder's width.
#[derive(Module, Debug)]
pub struct PatchMerger {
    /// Norm of each patch.
    pub ln_q: RmsNorm,
    /// First product, over the joined patches.
    pub fc1: Linear,
    /// Second product.
    pub fc2: Linear,
}

/// The tower.
#[derive(Module, Debug)]
pub struct VisionTower {
    /// Patches to the tower's width.
    pub patch_embed: PatchEmbed,
    /// Blocks.
    pub blocks: Vec<VisionBlock>,
    /// To the decoder's width.
    pub merger: PatchMerger,
    #[module(skip)]
    config: VisionConfig,
}

impl VisionTower {
    /// Weights 0 and gains 1, to be filled from a checkpoint or by [`crate::nn::init::init_weights`].
    #[must_use]
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let (width, joined) = (config.hidden_size, config.hidden_size * config.merge_unit());
        let norm = || RmsNorm::new(width, NORM_EPSILON, device);
        let block = || VisionBlock {
            norm1: norm(),
            norm2: norm(),
            attn: VisionAttention {
                qkv: linear(width, 3 * width, true, device),
                proj: linear(width, width, true, device),
                heads: config.num_heads,
            },
            mlp: SwiGlu::new(width, config.intermediate_size, true, device),
        };
        Self {
            patch_embed: PatchEmbed { proj: linear(config.patch_dim(), width, false, device) },
            blocks: (0..config.depth).map(|_| block()).collect(),
            merger: PatchMerger {
                ln_q: norm(),
                fc1: linear(joined, joined, true, device),
                fc2: linear(joined, config.out_hidden_size, true, device),
            },
            config: config.clone(),
        }
    }

    /// Image tokens, `[image_tokens, out_hidden]`, images in order, blocks row by row.
    ///
    /// # Errors
    /// [`ModelError::Input`] when patches, grids and configuration do not fit together.
    pub fn forward(&self, images: &ImageBatch) -> Result<Tensor<2>, ModelError> {
        self.check(images)?;
        let device = self.patch_embed.proj.weight.val().device().inner();
        let dtype = self.patch_embed.proj.weight.val().dtype();
        let plan = WindowPlan::new(&images.grid_thw, &self.config);
        let patches: usize = images.grid_thw.iter().map(|g| g.iter().product::<usize>()).sum();
        let pixels = TensorData::new(images.pixel_patches.clone(), [patches, images.patch_dim]);
        let pixels = Tensor::<2>::from_data(pixels, &device).cast(dtype);
        let mut x = reorder(project(&self.patch_embed.proj, pixels), &plan.patch_order, &device);
        let rotary = RotaryTable::from_angles(&plan.angles, patches, &device);
        let [windows, frames] = [&plan.windows, &plan.frames].map(|lengths| Arc::new(AttentionPlan::segments(lengths)));
        for (i, block) in self.blocks.iter().enumerate() {
            let segments = if self.config.fullatt_block_indexes.contains(&i) { &frames } else { &windows };
            // The branch comes first in the sum: nothing else holds it, so that the sum can take its memory.
            x = block.attn.forward(block.norm1.forward(x.clone()), &rotary, segments) + x;
            x = block.mlp.forward(block.norm2.forward(x.clone())) + x;
        }
        let x = self.merger.ln_q.forward(x);
        let [rows, width] = x.dims();
        let unit = self.config.merge_unit();
        let x = activation::gelu(project(&self.merger.fc1, x.reshape([rows / unit, width * unit])));
        Ok(reorder(project(&self.merger.fc2, x), &plan.token_restore, &device))
    }

    fn check(&self, images: &ImageBatch) -> Result<(), ModelError> {
        let wrong = |what, expected: String, got: String| Err(ModelError::Input { what, expected, got });
        if images.patch_dim != self.config.patch_dim() {
            return wrong("patch_dim", self.config.patch_dim().to_string(), images.patch_dim.to_string());
        }
        if images.grid_thw.is_empty() {
            return wrong("images", "at least one".into(), "none".into());
        }
        let merge = self.config.spatial_merge_size;
        for grid @ [t, h, w] in &images.grid_thw {
            if *t == 0 || *h == 0 || *w == 0 || h % merge != 0 || w % merge != 0 {
                return wrong("image grid", format!("height and width in multiples of {merge}"), format!("{grid:?}"));
            }
        }
        let floats = images.grid_thw.iter().map(|g| g.iter().product::<usize>()).sum::<usize>() * images.patch_dim;
        if images.pixel_patches.len() != floats {
            return wrong("pixel_patches", format!("{floats} floats"), format!("{}", images.pixel_patches.len()));
        }
        Ok(())
    }
}

impl VisionAttention {
    fn forward(&self, x: Tensor<2>, rotary: &RotaryTable, segments: &Arc<AttentionPlan>) -> Tensor<2> {
        let [patches, width] = x.dims();
        let qkv = project(&self.qkv, x);
        let part = |i: usize| {
            let part = qkv.clone().narrow(1, i * width, width);
            part.reshape([patches, self.heads, width / self.heads])
        };
        let (q, k) = (rotate(part(0), rotary), rotate(part(1), rotary));
        project(&self.proj, attention(q, k, part(2), segments))
    }
}

/// Orders and lengths computed from the grids alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WindowPlan {
    /// Patch at each place of the window order.
    patch_order: Vec<usize>,
    /// Place in window order of each token.
    token_restore: Vec<usize>,
    /// Patches a window, empty windows left out.
    windows: Vec<usize>,
    /// Patches a frame.
    frames: Vec<usize>,
    /// Rotary angles in window order, `[patches, head_dim / 2]`: first half by row, second half by column.
    angles: Vec<f32>,
}

impl WindowPlan {
    fn new(grids: &[GridThw], config: &VisionConfig) -> Self {
        let (merge, unit) = (config.spatial_merge_size, config.merge_unit());
        // Side of a window in merged patches.
        let side = config.window_size / merge / config.patch_size;
        let (mut token_order, mut windows, mut frames, mut positions) = (vec![], vec![], vec![], vec![]);
        for &[t, h, w] in grids {
            let (rows, columns) = (h / merge, w / merge);
            for _ in 0..t {
                let base = positions.len() / unit;
                positions.extend((0..rows * columns * unit).map(|i| {
                    let (token, inner) = (i / unit, i % unit);
                    [token / columns * merge + inner / merge, token % columns * merge + inner % merge]
                }));
                frames.push(h * w);
                for (top, left) in (0..rows).step_by(side).flat_map(|r| (0..columns).step_by(side).map(move |c| (r, c)))
                {
                    let (bottom, right) = ((top + side).min(rows), (left + side).min(columns));
                    token_order.extend((top..bottom).flat_map(|r| (left..right).map(move |c| base + r * columns + c)));
                    windows.push((bottom - top) * (right - left) * unit);
                }
            }
        }
        let mut token_restore = vec![0; token_order.len()];
        for (place, &token) in token_order.iter().enumerate() {
            token_restore[token] = place;
        }
        let patch_order: Vec<usize> = token_order.iter().flat_map(|&t| (0..unit).map(move |i| t * unit + i)).collect();
        let frequencies = inverse_frequencies(ROPE_THETA, config.hidden_size / config.num_heads / 2);
        let angles = patch_order.iter().flat_map(|&patch| {
            positions[patch].iter().flat_map(|&p| frequencies.iter().map(move |f| p as f32 * f)).collect::<Vec<_>>()
        });
        let angles = angles.collect();
        Self { patch_order, token_restore, windows, frames, angles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(window_size: usize) -> VisionConfig {
        VisionConfig {
            depth: 1,
            hidden_size: 16,
            intermediate_size: 16,
            num_heads: 2,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            window_size,
            out_hidden_size: 16,
            fullatt_block_indexes: vec![],
        }
    }

    #[test]
    fn windows_that_do_not_divide_the_grid_are_smaller_at_the_edges() {
        // 3 x 5 tokens, windows of 2 x 2 tokens.
        let plan = WindowPlan::new(&[[1, 6, 10]], &config(56));
        assert_eq!(plan.windows, [16, 16, 8, 8, 8, 4]);
        assert_eq!(plan.frames, [60]);
        let tokens: Vec<usize> = plan.patch_order.iter().step_by(4).map(|p| p / 4).collect();
        assert_eq!(tokens, [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]);
        assert!(plan.token_restore.iter().enumerate().all(|(t, &place)| tokens[place] == t));
    }

    #[test]
    fn one_window_keeps_the_order() {
        let plan = WindowPlan::new(&[[1, 2, 6], [1, 4, 4]], &config(112));
        assert_eq!(plan.patch_order, (0..28).collect::<Vec<_>>());
        assert_eq!(plan.windows, plan.frames);
    }
}
