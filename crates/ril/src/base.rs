//! What a checkpoint without the frozen weights says of them, so that trained ones are not put on another model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::kind::Basic;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use ril_models::files::{read_if_present, write_atomic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::RilError;

/// Most values of a tensor that are hashed.
const SAMPLED: usize = 1024;

/// A model's frozen tensors by path, and the scales of what is trained on top of them by layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Base {
    frozen: BTreeMap<String, FrozenTensor>,
    adapter_scales: BTreeMap<String, f64>,
}

/// What is kept of a tensor. Hashing all values would read the whole model from its device; up to [`SAMPLED`] of them,
/// evenly apart, the first and the last included, tell two trained models apart. They do not find a single weight that
/// was changed by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FrozenTensor {
    dtype: String,
    shape: Vec<usize>,
    /// SHA-256 of the sampled values as little-endian `f64`.
    sample: String,
}

impl Base {
    /// Asks the device once for each frozen tensor.
    pub fn of<M: Module>(model: &M, adapter_scales: BTreeMap<String, f64>) -> Self {
        let mut visitor = Visitor::default();
        model.visit(&mut visitor);
        Self { frozen: visitor.frozen, adapter_scales }
    }

    /// # Errors
    /// [`RilError::Checkpoint`] with the file.
    pub fn save(&self, path: &Path) -> Result<(), RilError> {
        let bytes = serde_json::to_vec(self).map_err(RilError::checkpoint(path))?;
        write_atomic(path, &bytes).map_err(RilError::checkpoint(path))
    }

    /// Whether this base is the one that the file was written of.
    ///
    /// # Errors
    /// [`RilError::Checkpoint`] when there is no file, it is broken, or it says something else: with what it says.
    pub fn check(&self, path: &Path) -> Result<(), RilError> {
        let refuse = |reason: &str| Err(RilError::checkpoint(path)(reason));
        let Some(bytes) = read_if_present(path).map_err(RilError::checkpoint(path))? else {
            return refuse("no such file: it must say which frozen weights the checkpoint is for");
        };
        let saved: Self = serde_json::from_slice(&bytes).map_err(RilError::checkpoint(path))?;
        let scales = difference("scale of adapter", &saved.adapter_scales, &self.adapter_scales);
        match scales.or_else(|| difference("frozen tensor", &saved.frozen, &self.frozen)) {
            Some(difference) => refuse(&difference),
            None => Ok(()),
        }
    }
}

/// The first entry that is not the same, and how many others there are.
fn difference<T: PartialEq + fmt::Display>(
    what: &str,
    expected: &BTreeMap<String, T>,
    got: &BTreeMap<String, T>,
) -> Option<String> {
    let names: BTreeSet<&String> = expected.keys().chain(got.keys()).collect();
    let mut different = names.into_iter().filter(|&name| expected.get(name) != got.get(name));
    let name = different.next()?;
    let shown = |value: Option<&T>| value.map_or("none".into(), T::to_string);
    let (expected, got) = (shown(expected.get(name)), shown(got.get(name)));
    let others = match different.count() {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    Some(format!("{what} {name}: expected {expected}, got {got}{others}"))
}

impl fmt::Display for FrozenTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sample = self.sample.get(..8).unwrap_or(&self.sample);
        write!(f, "{} {:?} with values of hash {sample}", self.dtype, self.shape)
    }
}

#[derive(Default)]
struct Visitor {
    path: Vec<String>,
    frozen: BTreeMap<String, FrozenTensor>,
}

impl Visitor {
    /// `dtype` is that of the parameter, `value` something that can be read value by value.
    fn add<const D: usize, K: Basic>(&mut self, dtype: DType, value: Tensor<D, K>) {
        let shape = value.dims().to_vec();
        let mut hash = Sha256::new();
        for value in sampled(value).iter::<f64>() {
            hash.update(value.to_le_bytes());
        }
        let sample = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.frozen.insert(self.path.join("."), FrozenTensor { dtype: dtype.name().into(), shape, sample });
    }
}

impl ModuleVisitor for Visitor {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            return;
        }
        let value = param.val().inner();
        let dtype = value.dtype();
        // Picking from blocks of 8 bits would round once more.
        self.add(dtype, if matches!(dtype, DType::QFloat(_)) { value.dequantize() } else { value });
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let value = param.val().inner();
        self.add(value.dtype(), value);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let value = param.val().inner();
        self.add(value.dtype(), value);
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

/// Up to [`SAMPLED`] values, picked on the device: no others are read.
fn sampled<const D: usize, K: Basic>(tensor: Tensor<D, K>) -> TensorData {
    let values = tensor.dims().iter().product();
    let flat = tensor.reshape([values]);
    let indices = sampled_indices(values);
    let indices = Tensor::from_data(TensorData::new(indices.clone(), [indices.len()]), &flat.device());
    flat.select(0, indices).into_data()
}

fn sampled_indices(values: usize) -> Vec<i64> {
    let count = values.min(SAMPLED);
    // Products of both stay far below 2^63.
    (0..count).map(|i| (i * (values - 1) / (count - 1).max(1)) as i64).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Weights {
        frozen: Param<Tensor<2>>,
        trained: Param<Tensor<1>>,
    }

    fn base(values: &[f32], shape: [usize; 2]) -> Base {
        let device = Device::flex().autodiff();
        let data = TensorData::new(values.to_vec(), shape);
        let frozen = Param::from_tensor(Tensor::<2>::from_data(data, &device)).set_require_grad(false);
        let trained = Param::from_tensor(Tensor::ones([3], &device));
        Base::of(&Weights { frozen, trained }, BTreeMap::new())
    }

    #[test]
    fn samples_are_evenly_apart_from_the_first_to_the_last() {
        for values in [0, 1, 2, SAMPLED - 1, SAMPLED, SAMPLED + 1, 5000, 1_000_000] {
            let indices = sampled_indices(values);
            assert_eq!(indices.len(), values.min(SAMPLED));
            assert_eq!(indices.last().copied(), values.checked_sub(1).map(|last| last as i64));
            let steps: Vec<i64> = indices.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (steps.iter().min().unwrap_or(&1), steps.iter().max().unwrap_or(&1));
            assert!(*least > 0 && most - least <= 1, "{values}: {least} {most}");
        }
    }

    #[test]
    fn any_value_of_a_small_tensor_and_its_shape_count() {
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let own = base(&values, [3, 4]);
        assert_eq!(own.frozen.keys().collect::<Vec<_>>(), ["frozen"]);
        assert_eq!(base(&values, [3, 4]), own);
        assert_ne!(base(&values, [4, 3]), own);
        for at in 0..12 {
            let mut moved = values.clone();
            moved[at] = f32::from_bits(moved[at].to_bits() + 1);
            assert_ne!(base(&moved, [3, 4]), own, "{at}");
        }
    }

    #[test]
    fn a_difference_is_told_with_both_sides() {
        let of = |entries: &[(&str, f64)]| entries.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
        let (one, other) = (of(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]), of(&[("a", 1.0), ("c", 0.5)]));
        assert_eq!(difference("scale", &one, &one), None);
        assert_eq!(difference("scale", &one, &other).unwrap(), "scale b: expected 2, got none (and 1 more)");
        assert_eq!(difference("scale", &other, &one).unwrap(), "scale b: expected none, got 2 (and 1 more)");
    }
}
