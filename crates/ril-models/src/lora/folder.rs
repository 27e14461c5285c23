//! Adapters in and out of PEFT's folders.

use std::io::Write;
use std::path::Path;

use super::{CONFIG_FILE, Layer, LoraConfig, Target, WEIGHTS_FILE, factors, targets};
use crate::checkpoint::{StagedFolder, TensorLayout, TensorRule, WeightFiles, WeightType, write_tensors};
use crate::error::ModelError;

/// What PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";

/// The tensor of one factor, under the name that is written and those that other versions of transformers gave it.
fn rule(layer: &Layer<'_>, factor: &str) -> TensorRule {
    let mut names = layer.names.iter().map(|name| format!("{PREFIX}{name}.{factor}.weight"));
    TensorRule { name: names.next().unwrap_or_default(), aliases: names.collect(), layout: TensorLayout::Transposed }
}

/// Puts the adapters of a folder on the layers that its settings name.
pub(crate) fn load(layers: Vec<Layer<'_>>, others: &[&str], folder: &Path) -> Result<LoraConfig, ModelError> {
    let mut config = LoraConfig::from_folder(folder)?;
    let targets = targets(layers, others, &mut config).map_err(|error| error.in_file(&folder.join(CONFIG_FILE)))?;
    let mut files = WeightFiles::open_file(&folder.join(WEIGHTS_FILE))?;
    for Target { layer, shape } in targets {
        let [input, output] = layer.linear.weight.lazy_shape().dims();
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
