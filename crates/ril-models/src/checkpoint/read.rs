//! Reading weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData, bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use super::{INDEX_FILE, ModulePath, TensorLayout, TensorRule, WEIGHTS_FILE, transpose};
use crate::error::ModelError;

/// The open weight files of a folder.
#[derive(Debug)]
pub struct WeightFiles {
    folder: PathBuf,
    files: Vec<(PathBuf, File)>,
    entries: BTreeMap<String, Entry>,
    /// Names of the tensors read so far.
    read: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: (u64, usize),
}

impl WeightFiles {
    /// Opens `model.safetensors`, else every shard that the index names, and checks that each is complete.
    ///
    /// # Errors
    /// [`ModelError::Io`] for a file that is missing, [`ModelError::Safetensors`] for one that is truncated or
    /// malformed, [`ModelError::Json`] for a broken index.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let index = folder.join(INDEX_FILE);
        let is_sharded = !folder.join(WEIGHTS_FILE).exists() && index.exists();
        let names = if is_sharded { shard_names(&index)? } else { vec![WEIGHTS_FILE.to_string()] };
        let (files, entries, read) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let mut this = Self { folder: folder.to_path_buf(), files, entries, read };
        for name in names {
            this.add(folder.join(name))?;
        }
        Ok(this)
    }

    /// Opens one file of any name, checked as by [`Self::open`].
    pub(crate) fn open_file(path: &Path) -> Result<Self, ModelError> {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let mut this = Self { folder, files: Vec::new(), entries: BTreeMap::new(), read: BTreeSet::new() };
        this.add(path.to_path_buf())?;
        Ok(this)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let broken = |reason: String| ModelError::Safetensors { path: path.clone(), reason };
        let mut file = File::open(&path).map_err(ModelError::io(&path))?;
        let size = file.metadata().map_err(ModelError::io(&path))?.len();
        let mut start = [0; 8];
        file.read_exact(&mut start).map_err(|_| broken(format!("{size} bytes are no header")))?;
        let header = u64::from_le_bytes(start);
        if header > size.saturating_sub(8) {
            return Err(broken(format!("the header says {header} bytes, the file has {size}")));
        }
        let mut buffer = Vec::new();
        (&mut file).take(header).read_to_end(&mut buffer).map_err(ModelError::io(&path))?;
        // Not `read_metadata`: it wants the whole file in memory.
        let metadata: Metadata = serde_json::from_slice(&buffer).map_err(|e| broken(e.to_string()))?;
        let data = 8 + header;
        let expected = data + metadata.data_len() as u64;
        if size != expected {
            return Err(broken(format!("expected {expected} bytes, the file has {size}")));
        }
        let at = self.files.len();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let elements = info.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
            let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
            if bits.is_none() || to.checked_sub(from).and_then(|n| n.checked_mul(8)) != bits || to > metadata.data_len()
            {
                return Err(broken(format!("tensor {name}: offsets {from}..{to} do not fit shape {:?}", info.shape)));
            }
            let entry = Entry {
                file: at,
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: (data + from as u64, to - from),
            };
            self.entries.insert(name, entry);
        }
        self.files.push((path, file));
        Ok(())
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Checks that every tensor has been read, or `may_stay` of its name.
    ///
    /// # Errors
    /// [`ModelError::UnknownTensors`].
    pub fn check_all_read(&self, may_stay: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let names: Vec<_> = self.names().filter(|&name| !self.read.contains(name) && !may_stay(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let names = names.into_iter().map(String::from).collect();
        Err(ModelError::UnknownTensors { path: self.folder.clone(), names })
    }

    /// A tensor as f32, row-major, after checking its shape.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorShape`], [`ModelError::TensorType`].
    pub fn read(&mut self, rule: &TensorRule, expected: &[usize]) -> Result<Vec<f32>, ModelError> {
        let names = std::iter::once(&rule.name).chain(&rule.aliases);
        let (name, entry) = names
            .filter_map(|name| self.entries.get_key_value(name))
            .next()
            .ok_or_else(|| ModelError::MissingTensor { path: self.folder.clone(), name: rule.name.clone() })?;
        self.read.insert(name.clone());
        let (path, file) = &mut self.files[entry.file];
        if entry.shape != expected {
            return Err(ModelError::TensorShape {
                path: path.clone(),
                name: name.clone(),
                expected: expected.to_vec(),
                got: entry.shape.clone(),
            });
        }
        let mut bytes = vec![0; entry.range.1];
        file.seek(SeekFrom::Start(entry.range.0)).map_err(ModelError::io(&*path))?;
        file.read_exact(&mut bytes).map_err(ModelError::io(&*path))?;
        decode(&bytes, entry.dtype).ok_or_else(|| ModelError::TensorType {
            path: path.clone(),
            name: name.clone(),
            got: format!("{:?}", entry.dtype),
        })
    }
}

impl WeightFiles {
    /// A matrix row by row as the module has it, `shape` = `[input, output]`.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub(crate) fn read_matrix(&mut self, rule: &TensorRule, shape: [usize; 2]) -> Result<Vec<f32>, ModelError> {
        let values = self.read(rule, &rule.layout.stored_shape(&shape))?;
        Ok(match rule.layout {
            TensorLayout::AsIs => values,
            TensorLayout::Transposed | TensorLayout::Kernel(_) => transpose(&values, shape[1], shape[0]),
        })
    }
}

fn shard_names(index: &Path) -> Result<Vec<String>, ModelError> {
    let text = std::fs::read_to_string(index).map_err(ModelError::io(index))?;
    let json: Value = serde_json::from_str(&text).map_err(ModelError::json(index))?;
    let map = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| ModelError::Safetensors {
        path: index.to_path_buf(),
        reason: "the index has no weight_map".into(),
    })?;
    let mut names: Vec<String> = map.values().filter_map(Value::as_str).map(String::from).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn decode(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => bytes.par_chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::BF16 => bytes.par_chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F16 => bytes.par_chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => return None,
    })
}

/// Fills a module from the files; `rule` gives each parameter's place from its path in the module and the type of the
/// struct that owns it.
///
/// # Errors
/// Those of [`WeightFiles::read`]; the first one found.
pub fn load_module<M: Module>(
    module: M,
    files: &mut WeightFiles,
    rule: impl Fn(&str, &str) -> TensorRule,
) -> Result<M, ModelError> {
    let mut loader = Loader { files, rule, path: ModulePath::default(), error: None };
    let module = module.map(&mut loader);
    loader.error.map_or(Ok(module), Err)
}

struct Loader<'a, R> {
    files: &'a mut WeightFiles,
    rule: R,
    path: ModulePath,
    error: Option<ModelError>,
}

impl<R: Fn(&str, &str) -> TensorRule> ModuleMapper for Loader<'_, R> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let rule = self.path.rule(&self.rule);
        let shape: [usize; D] = param.lazy_shape().dims();
        match self.files.read(&rule, &rule.layout.stored_shape(&shape)) {
            Err(error) => {
                self.error = Some(error);
                param
            }
            Ok(values) => {
                let values = match rule.layout {
                    TensorLayout::AsIs => values,
                    TensorLayout::Transposed | TensorLayout::Kernel(_) => transpose(&values, shape[1], shape[0]),
                };
                let (id, device, grad) = (param.id, param.lazy_device(), param.is_require_grad());
                let value = Tensor::from_data(TensorData::new(values, shape), &device);
                Param::initialized(id, value).set_require_grad(grad)
            }
        }
    }
}
