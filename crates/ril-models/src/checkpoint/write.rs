//! Writing weights.

use std::borrow::Cow;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, bf16};
use safetensors::tensor::{Dtype, View};
use serde_json::{Map, Value, json};

use super::{INDEX_FILE, ModulePath, TensorLayout, TensorRule, WEIGHTS_FILE, WeightType, transpose};
use crate::error::ModelError;
use crate::files::{rename_synced, sync_file, temporary_name, write_atomic};

/// Bytes above which a checkpoint is cut into shards.
const SHARD_BYTES: usize = 5_000_000_000;

/// Writes a module's parameters into `folder`: one file, or shards of at most 5 GB with an index.
///
/// Only one tensor at a time is brought to the host.
///
/// # Errors
/// [`ModelError::Io`] or [`ModelError::Safetensors`]; files that were there before are untouched then.
pub fn save_module<M: Module>(
    module: &M,
    folder: &Path,
    dtype: WeightType,
    rule: impl Fn(&str, &str) -> TensorRule,
) -> Result<(), ModelError> {
    let mut collector = Collector { rule, path: ModulePath::default(), tensors: Vec::new(), dtype };
    module.visit(&mut collector);
    let mut tensors = collector.tensors;
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut shards: Vec<Vec<(String, StoredTensor)>> = vec![Vec::new()];
    let mut filled = 0;
    for (name, tensor) in tensors {
        let bytes = tensor.data_len();
        if filled > 0 && filled + bytes > SHARD_BYTES {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push((name, tensor));
        }
    }
    write_shards(shards, folder)
}

fn write_shards(shards: Vec<Vec<(String, StoredTensor)>>, folder: &Path) -> Result<(), ModelError> {
    let count = shards.len();
    let (mut weight_map, mut total) = (Map::new(), 0);
    for (i, shard) in shards.into_iter().enumerate() {
        let file =
            if count == 1 { WEIGHTS_FILE.to_string() } else { format!("model-{:05}-of-{count:05}.safetensors", i + 1) };
        for (name, tensor) in &shard {
            total += tensor.data_len();
            weight_map.insert(name.clone(), Value::from(file.clone()));
        }
        let path = folder.join(&file);
        let temporary = temporary_name(&path);
        let metadata = Some([("format".to_string(), "pt".to_string())].into());
        let written = safetensors::serialize_to_file(shard, metadata, &temporary)
            .map_err(|e| ModelError::Safetensors { path: path.clone(), reason: e.to_string() })
            .and_then(|()| {
                sync_file(&temporary).and_then(|()| rename_synced(&temporary, &path)).map_err(ModelError::io(&path))
            });
        if written.is_err() {
            // The write error is the one to report.
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
    }
    remove_stale(folder, &weight_map)?;
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_atomic(&folder.join(INDEX_FILE), format!("{index:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Removes the weights of a checkpoint that stood in the folder before; an old index would hide the new file.
fn remove_stale(folder: &Path, weight_map: &Map<String, Value>) -> Result<(), ModelError> {
    for entry in std::fs::read_dir(folder).map_err(ModelError::io(folder))?.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_weights = name.starts_with("model") && name.ends_with(".safetensors");
        if name == INDEX_FILE || (is_weights && !weight_map.values().any(|file| file == &Value::from(name.clone()))) {
            std::fs::remove_file(entry.path()).map_err(ModelError::io(entry.path()))?;
        }
    }
    Ok(())
}

struct Collector<R> {
    rule: R,
    path: ModulePath,
    tensors: Vec<(String, StoredTensor)>,
    dtype: WeightType,
}

impl<R: Fn(&str, &str) -> TensorRule> ModuleVisitor for Collector<R> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let rule = self.path.rule(&self.rule);
        let value = param.val().detach();
        let dims: [usize; D] = value.dims();
        let tensor = StoredTensor {
            shape: rule.layout.stored_shape(&dims),
            layout: rule.layout,
            dims: dims.to_vec(),
            flat: value.flatten::<1>(0, D - 1),
            dtype: self.dtype,
        };
        self.tensors.push((rule.name, tensor));
    }
}

/// A parameter that is converted when its turn to be written comes.
struct StoredTensor {
    flat: Tensor<1>,
    dims: Vec<usize>,
    shape: Vec<usize>,
    layout: TensorLayout,
    dtype: WeightType,
}

impl View for StoredTensor {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            WeightType::F32 => Dtype::F32,
            WeightType::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values: Vec<f32> = self.flat.clone().cast(DType::F32).into_data().iter::<f32>().collect();
        let values = match self.layout {
            TensorLayout::AsIs => values,
            TensorLayout::Transposed | TensorLayout::Kernel(_) => transpose(&values, self.dims[0], self.dims[1]),
        };
        Cow::Owned(match self.dtype {
            WeightType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            WeightType::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        let element = match self.dtype {
            WeightType::F32 => 4,
            WeightType::Bf16 => 2,
        };
        self.dims.iter().product::<usize>() * element
    }
}
