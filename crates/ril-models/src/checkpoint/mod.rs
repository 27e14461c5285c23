//! Weights in and out of a Hugging Face folder: one safetensors file, or shards with an index.
//!
//! Tensors are read one at a time from the open files, so that loading needs the model's memory and one tensor more.
//! Where both `model.safetensors` and an index stand in a folder, the single file is read, as transformers does.
//!
//! A save writes all files under temporary names and syncs them; then it removes the old weights, or their index, and
//! renames: the shards, and last `model.safetensors` or the index. So the folder holds the old checkpoint, the new one,
//! or none that would load, whenever the process dies.

mod read;
mod staged;
mod write;

pub use read::{WeightFiles, load_module};
pub(crate) use staged::StagedFolder;
pub use write::save_module;
pub(crate) use write::{SHARD_BYTES, save_with, write_tensors};

use rayon::prelude::*;

/// Name of the index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Name of an unsharded checkpoint.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// How a parameter is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorLayout {
    /// As in the module.
    AsIs,
    /// `[output, input]`; the module has `[input, output]`.
    Transposed,
    /// A convolution kernel of this shape, output channels first; the module has `[input, output]`.
    Kernel(Vec<usize>),
}

/// One parameter's place in the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRule {
    /// Name to write, and to read first.
    pub name: String,
    /// Other names to try when reading.
    pub aliases: Vec<String>,
    /// How it is stored.
    pub layout: TensorLayout,
}

/// Element type of written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    /// 4 bytes, exact.
    #[default]
    F32,
    /// 2 bytes, rounded to nearest even.
    Bf16,
}

/// The way through a module tree; the last container is the struct that owns the parameter.
#[derive(Debug, Default)]
pub(crate) struct ModulePath {
    names: Vec<String>,
    containers: Vec<String>,
}

impl ModulePath {
    fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_string());
        self.containers.push(container.to_string());
    }

    fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    fn rule(&self, rule: &impl Fn(&str, &str) -> TensorRule) -> TensorRule {
        rule(&self.names.join("."), self.containers.last().map_or("", String::as_str))
    }
}

impl TensorLayout {
    /// Shape in the checkpoint of a parameter of this shape in the module.
    fn stored_shape(&self, shape: &[usize]) -> Vec<usize> {
        match self {
            Self::AsIs => shape.to_vec(),
            Self::Transposed => shape.iter().rev().copied().collect(),
            Self::Kernel(kernel) => kernel.clone(),
        }
    }
}

/// Matrix `[rows, columns]` to `[columns, rows]`.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    out.par_chunks_mut(rows.max(1)).enumerate().for_each(|(column, line)| {
        for (row, value) in line.iter_mut().enumerate() {
            *value = values[row * columns + column];
        }
    });
    out
}
