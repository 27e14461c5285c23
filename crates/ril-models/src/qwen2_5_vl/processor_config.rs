//! The image processor's file, in each of the three spellings found on the hub.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::files::read_if_present;

/// Pillow's number for bicubic.
const BICUBIC: u32 = 3;

/// How pictures become patches. Read from `preprocessor_config.json`, with the pixel bounds either as `min_pixels` and
/// `max_pixels` or as `size.shortest_edge` and `size.longest_edge`. No field has a default, except that a file without
/// `rescale_factor` means 1/255, as the files of the hub do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ConfigFile", into = "ConfigFile")]
pub struct ImageProcessorConfig {
    /// Fewest pixels an image is shown with; smaller ones are enlarged.
    pub min_pixels: usize,
    /// Most pixels an image is shown with; larger ones are shrunk.
    pub max_pixels: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Frames a patch spans; a still image is repeated.
    pub temporal_patch_size: usize,
    /// Patches along each side that become one image token.
    pub merge_size: usize,
    /// Multiplies the 8-bit sample; 1/255.
    pub rescale_factor: f64,
    /// Subtracted from the rescaled red, green and blue.
    pub image_mean: [f64; 3],
    /// Divides after the mean is subtracted.
    pub image_std: [f64; 3],
}

impl ImageProcessorConfig {
    /// Checks that every field can be honoured.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the field.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.broken_constraint().map_or(Ok(()), |reason| Err(ModelError::Config(reason)))
    }

    /// Reads `processor_config.json` where it holds an image processor, else `preprocessor_config.json`: the order of
    /// transformers.
    ///
    /// # Errors
    /// [`ModelError::Json`] when the file does not parse or a field that changes the numbers is missing, contradicts
    /// itself or asks for another processing; [`ModelError::Io`] when there is no such file.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("processor_config.json");
        if let Some(bytes) = read_if_present(&path)? {
            let file: ProcessorFile = serde_json::from_slice(&bytes).map_err(ModelError::json(&path))?;
            if let Some(config) = file.image_processor {
                return Ok(config);
            }
        }
        let path = folder.join("preprocessor_config.json");
        let bytes = std::fs::read(&path).map_err(ModelError::io(&path))?;
        serde_json::from_slice(&bytes).map_err(ModelError::json(&path))
    }

    fn broken_constraint(&self) -> Option<String> {
        let Self { min_pixels, max_pixels, rescale_factor, image_mean, image_std, .. } = self;
        let lengths = [
            ("min_pixels", *min_pixels),
            ("patch_size", self.patch_size),
            ("temporal_patch_size", self.temporal_patch_size),
            ("merge_size", self.merge_size),
        ];
        if let Some((name, _)) = lengths.into_iter().find(|(_, length)| *length == 0) {
            return Some(format!("{name}: expected a positive number, got 0"));
        }
        if min_pixels > max_pixels {
            return Some(format!("min_pixels: expected at most max_pixels {max_pixels}, got {min_pixels}"));
        }
        if !rescale_factor.is_finite() || !image_mean.iter().all(|mean| mean.is_finite()) {
            return Some(format!(
                "rescale_factor and image_mean: expected finite numbers, got {rescale_factor} and {image_mean:?}"
            ));
        }
        if !image_std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return Some(format!("image_std: expected positive numbers, got {image_std:?}"));
        }
        None
    }
}

/// `processor_config.json`: the newer layout, with one section a modality.
#[derive(Deserialize)]
struct ProcessorFile {
    image_processor: Option<ImageProcessorConfig>,
}

/// `preprocessor_config.json` as it stands on disk.
#[derive(Clone, Serialize, Deserialize)]
struct ConfigFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    min_pixels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_pixels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<SizeBounds>,
    patch_size: usize,
    temporal_patch_size: usize,
    merge_size: usize,
    rescale_factor: Option<f64>,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    do_convert_rgb: Option<bool>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    resample: Option<u32>,
    image_processor_type: Option<String>,
    processor_class: Option<String>,
}

/// Pixel counts, whatever the names say.
#[derive(Clone, Serialize, Deserialize)]
struct SizeBounds {
    shortest_edge: Option<usize>,
    longest_edge: Option<usize>,
}

impl TryFrom<ConfigFile> for ImageProcessorConfig {
    type Error = String;

    fn try_from(file: ConfigFile) -> Result<Self, String> {
        let steps =
            [("do_resize", file.do_resize), ("do_rescale", file.do_rescale), ("do_normalize", file.do_normalize)];
        if let Some((name, _)) = steps.into_iter().find(|(_, step)| *step == Some(false)) {
            return Err(format!("{name}: expected true, got false"));
        }
        if let Some(resample) = file.resample.filter(|resample| *resample != BICUBIC) {
            return Err(format!("resample: expected {BICUBIC} (bicubic), got {resample}"));
        }
        let (shortest, longest) = file.size.map_or((None, None), |size| (size.shortest_edge, size.longest_edge));
        let config = Self {
            min_pixels: file.min_pixels.or(shortest).ok_or("missing field `min_pixels` (or `size.shortest_edge`)")?,
            max_pixels: file.max_pixels.or(longest).ok_or("missing field `max_pixels` (or `size.longest_edge`)")?,
            patch_size: file.patch_size,
            temporal_patch_size: file.temporal_patch_size,
            merge_size: file.merge_size,
            rescale_factor: file.rescale_factor.unwrap_or(1.0 / 255.0),
            image_mean: file.image_mean,
            image_std: file.image_std,
        };
        config.broken_constraint().map_or(Ok(config), Err)
    }
}

/// The hub's own spelling, which every version of transformers reads.
impl From<ImageProcessorConfig> for ConfigFile {
    fn from(config: ImageProcessorConfig) -> Self {
        Self {
            min_pixels: Some(config.min_pixels),
            max_pixels: Some(config.max_pixels),
            size: None,
            patch_size: config.patch_size,
            temporal_patch_size: config.temporal_patch_size,
            merge_size: config.merge_size,
            rescale_factor: Some(config.rescale_factor),
            image_mean: config.image_mean,
            image_std: config.image_std,
            do_convert_rgb: Some(true),
            do_resize: Some(true),
            do_rescale: Some(true),
            do_normalize: Some(true),
            resample: Some(BICUBIC),
            image_processor_type: Some("Qwen2VLImageProcessor".into()),
            processor_class: Some("Qwen2_5_VLProcessor".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `preprocessor_config.json` as the hub's Qwen2.5-VL checkpoints carry it.
    fn hub() -> Value {
        json!({
            "min_pixels": 3136, "max_pixels": 12_845_056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"
        })
    }

    fn changed(changes: Value) -> Result<ImageProcessorConfig, String> {
        let mut file = hub();
        for (name, value) in changes.as_object().unwrap() {
            file[name] = value.clone();
        }
        serde_json::from_value(file).map_err(|error| error.to_string())
    }

    #[test]
    fn the_hubs_file_is_read() {
        let config = changed(json!({})).unwrap();
        assert_eq!((config.min_pixels, config.max_pixels), (3136, 12_845_056));
        assert_eq!(config.rescale_factor.to_bits(), (1.0f64 / 255.0).to_bits());
    }

    #[test]
    fn min_pixels_stands_above_size_as_in_transformers() {
        let config = changed(json!({"max_pixels": null, "size": {"shortest_edge": 1, "longest_edge": 5000}})).unwrap();
        assert_eq!((config.min_pixels, config.max_pixels), (3136, 5000));
    }

    #[test]
    fn each_missing_number_is_an_error_that_names_it() {
        let names =
            ["min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std"];
        for name in names {
            let mut file = hub();
            file.as_object_mut().unwrap().remove(name);
            let error = serde_json::from_value::<ImageProcessorConfig>(file).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn another_processing_is_refused() {
        let cases = [
            json!({"do_resize": false}),
            json!({"do_rescale": false}),
            json!({"do_normalize": false}),
            json!({"resample": 2}),
            json!({"patch_size": 0}),
            json!({"max_pixels": 1}),
            json!({"image_std": [1, 1, 0]}),
        ];
        for case in cases {
            let name = case.as_object().unwrap().keys().next().unwrap().clone();
            let error = changed(case).unwrap_err();
            assert!(error.contains(&name), "{error}");
        }
    }

    #[test]
    fn the_nested_file_comes_first_and_errors_carry_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let read = || ImageProcessorConfig::from_folder(folder.path());
        let write = |name: &str, value: &Value| std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        assert!(matches!(read(), Err(ModelError::Io { .. })));
        write("preprocessor_config.json", &hub());
        write("processor_config.json", &json!({"processor_class": "Qwen2_5_VLProcessor"}));
        assert_eq!(read().unwrap().patch_size, 14);
        let mut nested = hub();
        nested["patch_size"] = json!(16);
        write("processor_config.json", &json!({"image_processor": nested}));
        assert_eq!(read().unwrap().patch_size, 16);
        write("processor_config.json", &json!({"image_processor": {"patch_size": 14}}));
        let error = read().unwrap_err();
        assert!(matches!(error, ModelError::Json { .. }) && error.to_string().contains("processor_config.json"));
    }
}
