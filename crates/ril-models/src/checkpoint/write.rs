//! Writing weights.

use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, bf16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use super::staged::StagedFolder;
use super::{INDEX_FILE, ModulePath, TensorLayout, TensorRule, WEIGHTS_FILE, WeightType, transpose};
use crate::error::ModelError;

/// Bytes above which a checkpoint is cut into shards.
pub(crate) const SHARD_BYTES: usize = 5_000_000_000;

/// Files that say that a folder holds a whole checkpoint.
const MARKS: [&str; 2] = [WEIGHTS_FILE, INDEX_FILE];

/// Writes a module's parameters into `folder`: one file, or shards of at most 5 GB with an index.
///
/// Only one tensor at a time is brought to the host. All files are written under temporary names and synced before
/// one of them is renamed; the weights of a checkpoint that stood in the folder are removed.
///
/// # Errors
/// [`ModelError::Quantized`], [`ModelError::Io`]. While files are written, the folder stays as it was. An error (or a
/// crash) while they are renamed leaves a folder without `model.safetensors` and without an index, which does not load.
pub fn save_module<M: Module>(
    module: &M,
    folder: &Path,
    dtype: WeightType,
    rule: impl Fn(&str, &str) -> TensorRule,
) -> Result<(), ModelError> {
    save_with(StagedFolder::new(folder)?, module, (dtype, SHARD_BYTES), rule, |_| false)
}

/// [`save_module`] together with the files staged before; `is_stale` names files that must not survive.
pub(crate) fn save_with<M: Module>(
    mut staged: StagedFolder,
    module: &M,
    (dtype, shard_bytes): (WeightType, usize),
    rule: impl Fn(&str, &str) -> TensorRule,
    is_stale: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let mut collector = Collector { rule, path: ModulePath::default(), tensors: Vec::new(), rounded: None, dtype };
    module.visit(&mut collector);
    if let Some(name) = collector.rounded {
        return Err(ModelError::Quantized { name });
    }
    let mut tensors = collector.tensors;
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut shards: Vec<Vec<(String, StoredTensor)>> = vec![Vec::new()];
    let mut filled = 0;
    for (name, tensor) in tensors {
        let bytes = tensor.data_len();
        if filled > 0 && filled + bytes > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push((name, tensor));
        }
    }
    stage_shards(&mut staged, shards)?;
    let is_weights = |name: &str| name.starts_with("model") && name.ends_with(".safetensors");
    staged.commit(&MARKS, |name| is_weights(name) || is_stale(name))
}

fn stage_shards(staged: &mut StagedFolder, shards: Vec<Vec<(String, StoredTensor)>>) -> Result<(), ModelError> {
    let count = shards.len();
    let (mut weight_map, mut total) = (Map::new(), 0);
    for (i, shard) in shards.into_iter().enumerate() {
        let file =
            if count == 1 { WEIGHTS_FILE.to_string() } else { format!("model-{:05}-of-{count:05}.safetensors", i + 1) };
        for (name, tensor) in &shard {
            total += tensor.data_len();
            weight_map.insert(name.clone(), Value::from(file.clone()));
        }
        staged.write(&file, |out| write_safetensors(out, shard))?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        staged.write(INDEX_FILE, |out| writeln!(out, "{index:#}"))?;
    }
    Ok(())
}

/// Writes matrices into one file, ordered by name.
pub(crate) fn write_tensors(
    staged: &mut StagedFolder,
    file: &str,
    tensors: Vec<(TensorRule, Tensor<2>)>,
    dtype: WeightType,
) -> Result<(), ModelError> {
    let stored = tensors.into_iter().map(|(rule, value)| (rule.name, StoredTensor::new(value, rule.layout, dtype)));
    let mut stored: Vec<_> = stored.collect();
    stored.sort_by(|a, b| a.0.cmp(&b.0));
    staged.write(file, |out| write_safetensors(out, stored))
}

/// The bytes of `safetensors::serialize_to_file`, which would make a file that only its owner may read, unsynced.
fn write_safetensors(out: &mut impl Write, tensors: Vec<(String, StoredTensor)>) -> std::io::Result<()> {
    let mut offset = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let data_offsets = (offset, offset + tensor.data_len());
        offset = data_offsets.1;
        (name.clone(), TensorInfo { dtype: tensor.dtype(), shape: tensor.shape.clone(), data_offsets })
    });
    let format = Some([("format".to_string(), "pt".to_string())].into());
    let metadata = Metadata::new(format, infos.collect()).map_err(std::io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors.iter().try_for_each(|(_, tensor)| out.write_all(&tensor.bytes()))
}

struct Collector<R> {
    rule: R,
    path: ModulePath,
    tensors: Vec<(String, StoredTensor)>,
    /// A parameter of fewer bits than its checkpoint.
    rounded: Option<String>,
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
        let value = param.val();
        if matches!(value.dtype(), DType::QFloat(_)) {
            self.rounded.get_or_insert(rule.name);
            return;
        }
        self.tensors.push((rule.name, StoredTensor::new(value, rule.layout, self.dtype)));
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

impl StoredTensor {
    fn new<const D: usize>(value: Tensor<D>, layout: TensorLayout, dtype: WeightType) -> Self {
        let value = value.detach();
        let dims: [usize; D] = value.dims();
        let shape = layout.stored_shape(&dims);
        Self { shape, layout, dims: dims.to_vec(), flat: value.flatten::<1>(0, D - 1), dtype }
    }

    fn dtype(&self) -> Dtype {
        match self.dtype {
            WeightType::F32 => Dtype::F32,
            WeightType::Bf16 => Dtype::BF16,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let values: Vec<f32> = self.flat.clone().cast(DType::F32).into_data().iter::<f32>().collect();
        let values = match self.layout {
            TensorLayout::AsIs => values,
            TensorLayout::Transposed | TensorLayout::Kernel(_) => transpose(&values, self.dims[0], self.dims[1]),
        };
        match self.dtype {
            WeightType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            WeightType::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        let element = match self.dtype {
            WeightType::F32 => 4,
            WeightType::Bf16 => 2,
        };
        self.dims.iter().product::<usize>() * element
    }
}
