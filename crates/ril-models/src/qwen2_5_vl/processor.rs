//! Pictures to the patches that the vision tower reads.

use std::borrow::Borrow;
use std::path::Path;

use image::RgbImage;
use rayon::prelude::*;
use ril_kernels::flex::fresh_rows;

use crate::error::ModelError;
use crate::files::write_atomic;
use crate::image::resize_bicubic;
use crate::input::{GridThw, ImageBatch};

pub use super::processor_config::ImageProcessorConfig;
use super::prompt;
pub use super::smart_resize::smart_resize;

const CHANNELS: usize = 3;
const PROCESSOR_FILE: &str = "preprocessor_config.json";
/// Where newer checkpoints keep the same; it is read first.
pub(crate) const NEWER_PROCESSOR_FILE: &str = "processor_config.json";

/// Resizes, normalises and cuts pictures into patches as transformers' `Qwen2VLImageProcessorPil`.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    config: ImageProcessorConfig,
    /// The normalised value of each 8-bit sample, by channel: two roundings to `f32` in the reference's order.
    normalized: [[f32; 256]; CHANNELS],
}

impl ImageProcessor {
    /// A processor for `config`.
    ///
    /// # Errors
    /// [`ModelError::Config`] when a field cannot be honoured.
    pub fn new(config: ImageProcessorConfig) -> Result<Self, ModelError> {
        config.validate()?;
        let normalized = std::array::from_fn(|channel| {
            let (mean, std) = (config.image_mean[channel] as f32, config.image_std[channel] as f32);
            std::array::from_fn(|sample| {
                let rescaled = (sample as f64 * config.rescale_factor) as f32;
                (rescaled - mean) / std
            })
        });
        Ok(Self { config, normalized })
    }

    /// Reads the configuration of a checkpoint folder: `processor_config.json` or `preprocessor_config.json`.
    ///
    /// # Errors
    /// See [`ImageProcessorConfig::from_folder`].
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::new(ImageProcessorConfig::from_folder(folder)?)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ImageProcessorConfig {
        &self.config
    }

    /// Floats a patch, ordered `[channel, temporal, patch, patch]`.
    #[must_use]
    pub fn patch_dim(&self) -> usize {
        CHANNELS * self.config.temporal_patch_size * self.config.patch_size * self.config.patch_size
    }

    /// Cuts `images` into patches, on all threads.
    ///
    /// Source: `Qwen2VLImageProcessorPil` of transformers: [`smart_resize`] and [`resize_bicubic`], then
    /// `(sample * rescale_factor - mean) / std`, the one frame repeated `temporal_patch_size` times.
    ///
    /// # Shapes
    /// - output `pixel_patches`: `[patches, patch_dim]`, the images one after the other; inside an image the patches
    ///   are ordered `[height / merge, width / merge, merge, merge]`, so that the patches of one image token are
    ///   neighbours
    /// - output `grid_thw`: `[1, height / patch_size, width / patch_size]` an image
    ///
    /// # Errors
    /// [`ModelError::Input`] without images, [`ModelError::ImageSize`] when [`smart_resize`] refuses one.
    pub fn process<I: Borrow<RgbImage> + Sync>(&self, images: &[I]) -> Result<ImageBatch, ModelError> {
        if images.is_empty() {
            return Err(ModelError::Input { what: "images", expected: "at least one".into(), got: "none".into() });
        }
        let grid_thw =
            images.iter().map(|image| self.grid(image.borrow())).collect::<Result<Vec<GridThw>, ModelError>>()?;
        let size = |cells: usize| (cells * self.config.patch_size) as u32;
        let resized: Vec<RgbImage> = images
            .par_iter()
            .zip(&grid_thw)
            .map(|(image, [_, rows, columns])| resize_bicubic(image.borrow(), size(*columns), size(*rows)))
            .collect();
        // Where the patches of an image end.
        let ends: Vec<usize> = grid_thw
            .iter()
            .scan(0, |end, grid| {
                *end += grid.iter().product::<usize>();
                Some(*end)
            })
            .collect();
        let patches = ends.last().copied().unwrap_or(0);
        let pixel_patches = fresh_rows(patches, self.patch_dim(), |index, patch| {
            let image = ends.partition_point(|&end| end <= index);
            let start = if image == 0 { 0 } else { ends[image - 1] };
            self.fill(&resized[image], grid_thw[image][2], index - start, patch);
        });
        Ok(ImageBatch { pixel_patches, patch_dim: self.patch_dim(), patch_size: self.config.patch_size, grid_thw })
    }

    /// Tokens that an image of this grid takes in the prompt.
    ///
    /// # Errors
    /// [`ModelError::Input`] when the grid cannot be merged; the grids of [`Self::process`] always can.
    pub fn image_tokens(&self, grid: GridThw) -> Result<usize, ModelError> {
        prompt::image_tokens(grid, self.config.merge_size)
    }

    /// Writes `preprocessor_config.json`, as transformers' `AutoProcessor` and `AutoImageProcessor` read it.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let (name, json) = self.file()?;
        write_atomic(&folder.join(name), &json)?;
        // The newer file of an older checkpoint in this folder would be read instead.
        let newer = folder.join(NEWER_PROCESSOR_FILE);
        if newer.exists() {
            std::fs::remove_file(&newer).map_err(ModelError::io(&newer))?;
        }
        Ok(())
    }

    /// Name and content of the file that [`Self::save`] writes.
    pub(crate) fn file(&self) -> Result<(&'static str, Vec<u8>), ModelError> {
        let mut json = serde_json::to_vec_pretty(&self.config).map_err(ModelError::json(PROCESSOR_FILE))?;
        json.push(b'\n');
        Ok((PROCESSOR_FILE, json))
    }

    fn grid(&self, image: &RgbImage) -> Result<GridThw, ModelError> {
        let ImageProcessorConfig { min_pixels, max_pixels, patch_size, merge_size, .. } = self.config;
        let (height, width) = (image.height() as usize, image.width() as usize);
        let (height, width) = smart_resize(height, width, patch_size * merge_size, min_pixels, max_pixels)?;
        if u32::try_from(height.max(width)).is_err() {
            return Err(ModelError::Config(format!("max_pixels {max_pixels} allows images of {height} x {width}")));
        }
        Ok([1, height / patch_size, width / patch_size])
    }

    /// Writes the patch at `index` of a resized image of `columns` patches in a row.
    fn fill(&self, image: &RgbImage, columns: usize, index: usize, patch: &mut [f32]) {
        let ImageProcessorConfig { patch_size, temporal_patch_size, merge_size, .. } = self.config;
        let row_len = columns * patch_size * CHANNELS;
        let plane_len = patch_size * patch_size;
        let (block, within) = (index / (merge_size * merge_size), index % (merge_size * merge_size));
        let blocks_per_row = columns / merge_size;
        let top = (block / blocks_per_row * merge_size + within / merge_size) * patch_size;
        let left = (block % blocks_per_row * merge_size + within % merge_size) * patch_size;
        let mut frames = patch.chunks_exact_mut(temporal_patch_size * plane_len);
        let mut planes: [_; CHANNELS] = std::array::from_fn(|_| frames.next().expect("a plane for each channel"));
        for y in 0..patch_size {
            let (pixels, _) = image.as_raw()[(top + y) * row_len + left * CHANNELS..].as_chunks::<CHANNELS>();
            for (x, pixel) in pixels[..patch_size].iter().enumerate() {
                for ((plane, values), &sample) in planes.iter_mut().zip(&self.normalized).zip(pixel) {
                    plane[y * patch_size + x] = values[usize::from(sample)];
                }
            }
        }
        for plane in planes {
            let (first, repeats) = plane.split_at_mut(plane_len);
            repeats.chunks_exact_mut(plane_len).for_each(|frame| frame.copy_from_slice(first));
        }
    }
}
