//! Adapters in and out of PEFT's folders.

use std::io::Write;
use std::path::Path;

use super::{CONFIG_FILE, Layer, LoraConfig, WEIGHTS_FILE, factors, targets};
use crate::checkpoint::{StagedFolder, TensorLayout, TensorRule, WeightFiles, WeightType, write_tensors};
use crate::error::ModelError;

/// What PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";

/// The tensor of one factor, under the name that is written and those that other versions of transformers gave it.
fn rule(layer: &Layer<'_>, factor: &str) -> TensorRule {
    let full = |name: &String| format!("{PREFIX}{name}.{factor}.weight");
    TensorRule {
        name: full(&layer.name),
        aliases: layer.older_names.iter().map(full).collect(),
        layout: TensorLayout::Transposed,
    }
}

/// Puts the adapters of a folder on the layers that its settings name.
pub(crate) fn load(layers: Vec<Layer<'_>>, others: &[&str], folder: &Path) -> Result<LoraConfig, ModelError> {
    let config = LoraConfig::from_folder(folder)?;
    let matcher = config.matcher()?;
    let layers =
        targets(layers, others, &config, &matcher).map_err(|error| error.in_file(&folder.join(CONFIG_FILE)))?;
    let mut files = WeightFiles::open_file(&folder.join(WEIGHTS_FILE))?;
    for layer in layers {
        let [input, output] = layer.linear.weight.lazy_shape().dims();
        let shape = config.shape(&matcher, &layer.name);
        let a = files.read_matrix(&rule(&layer, "lora_A"), [input, shape.rank])?;
        let b = files.read_matrix(&rule(&layer, "lora_B"), [shape.rank, output])?;
        let device = layer.linear.weight.lazy_device();
        layer.linear.lora = Some(factors([a, b], [input, shape.rank, output], shape.scale, &device));
    }
    files.check_all_read(|_| false)?;
    Ok(config)
}

/// Writes settings and adapters, in place of those that may stand in the folder.
pub(crate) fn save(
    layers: &[Layer<'_>],
    config: &LoraConfig,
    folder: &Path,
    dtype: WeightType,
) -> Result<(), ModelError> {
    let mut tensors = Vec::new();
    for layer in layers {
        let Some(lora) = &layer.linear.lora else { continue };
        tensors.push((rule(layer, "lora_A"), lora.a.val()));
        tensors.push((rule(layer, "lora_B"), lora.b.val()));
    }
    let mut staged = StagedFolder::new(folder)?;
    let settings = config.to_json();
    staged.write(CONFIG_FILE, |out| writeln!(out, "{settings:#}"))?;
    write_tensors(&mut staged, WEIGHTS_FILE, tensors, dtype)?;
    staged.commit(&[WEIGHTS_FILE], |_| false)
}
