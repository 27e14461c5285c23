//! Low-rank adapters (LoRA, arXiv 2106.09685) on a frozen model, in and out of PEFT's folders.
//!
//! A linear layer with an adapter computes `x W + bias + scale * (dropout(x) A) B` with `A: [input, rank]`, `B: [rank, output]`
//! and `scale = alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA (arXiv 2312.03732). `B` starts at 0, so that a new adapter changes
//! nothing; `A` is uniform in `+-1 / sqrt(input)`, as PEFT's. Only `A` and `B` are trained: every other parameter is
//! frozen, gets no gradient and has no state in an optimizer.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use ril_models::checkpoint::WeightType;
//! use ril_models::{LoraConfig, Qwen2_5Vl};
//!
//! # fn main() -> Result<(), ril_models::ModelError> {
//! let base = Qwen2_5Vl::from_folder("Qwen2.5-VL-3B-Instruct".as_ref(), &Device::flex().autodiff())?;
//! let student = base.with_lora(&LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() }, 0)?;
//! // ... train it ...
//! student.save_adapter("adapter".as_ref(), WeightType::F32)?;
//! student.merge_lora()?.save("merged".as_ref(), WeightType::Bf16)?;
//! # Ok(())
//! # }
//! ```

mod config;
mod dropout;
mod folder;
mod target;

pub use config::LoraConfig;
pub use target::{Overrides, TargetModules};

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::config::Shape;
use self::dropout::Dropout;
use self::target::Kind;
use crate::error::ModelError;
use crate::nn::linear::Linear;
use crate::seed::mix_seed;

pub(crate) use self::folder::{load, save};

/// Name of PEFT's settings file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of PEFT's weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The adapter of one layer.
#[derive(Module, Debug)]
pub struct LoraFactors {
    /// `[input, rank]`; PEFT's `lora_A.weight`, transposed.
    pub a: Param<Tensor<2>>,
    /// `[rank, output]`; PEFT's `lora_B.weight`, transposed.
    pub b: Param<Tensor<2>>,
    #[module(skip)]
    scale: f64,
    /// Set for one forward of a training step.
    #[module(skip)]
    dropout: Option<Dropout>,
}

impl LoraFactors {
    /// `x weight + bias + scale * (dropout(x) a) b`.
    pub(crate) fn project(&self, x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        let dropped = match self.dropout {
            Some(dropout) => dropout.apply(x.clone()),
            None => x.clone(),
        };
        let y = ril_kernels::linear(x, weight, bias);
        ril_kernels::add_low_rank(y, dropped, [self.a.val(), self.b.val()], self.scale)
    }

    /// `scale * a b`, `[input, output]`.
    fn delta(&self) -> Tensor<2> {
        ril_kernels::linear(self.a.val().detach(), self.b.val().detach(), None) * self.scale
    }
}

/// What a model with adapters knows of them.
#[derive(Debug, Clone)]
pub(crate) struct LoraState {
    pub config: Arc<LoraConfig>,
    seed: u64,
    step: u64,
}

impl LoraState {
    pub fn new(config: LoraConfig, seed: u64) -> Self {
        Self { config: Arc::new(config), seed, step: 0 }
    }

    /// The same for another step.
    pub fn at_step(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// The seed of dropout for an input, if there is dropout: another one in each step and for each micro-batch, which
    /// the ids of its tokens tell apart.
    pub fn dropout_seed(&self, ids: &[u32]) -> Option<u64> {
        let step = mix_seed(self.seed, self.step);
        (self.config.dropout > 0.0).then(|| ids.iter().fold(step, |seed, &id| mix_seed(seed, u64::from(id))))
    }
}

/// Module trees that transformers has had for a model, the one of today first.
pub(crate) const TREES: usize = 3;

/// A layer that may have an adapter.
pub(crate) struct Layer<'a> {
    /// Its name in each of the trees.
    pub names: [String; TREES],
    pub linear: &'a mut Linear,
}

impl Layer<'_> {
    fn name(&self) -> &str {
        &self.names[0]
    }
}

/// A layer that gets an adapter, with the rank and the scale of it.
struct Target<'a> {
    layer: Layer<'a>,
    shape: Shape,
}

/// Names of the modules that hold a module, from the inside out.
fn containers(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.rsplit_once('.').map(|(outer, _)| outer), |name| Some(name.rsplit_once('.')?.0))
}

/// The layers that the configuration names, checked: at least one, none of `others`, the modules that are no linear
/// layers (or the head), and no module that holds others. Names are those of one tree, the first in which any is named; where that is not the one of
/// today, the configuration is rewritten.
fn targets<'a>(
    layers: Vec<Layer<'a>>,
    others: &[&str],
    config: &mut LoraConfig,
) -> Result<Vec<Target<'a>>, ModelError> {
    config.validate()?;
    let matcher = config.matcher()?;
    let refuse = |other: &str| {
        let message =
            format!("target_modules: {other} is named, but adapters are for linear layers other than the head");
        Err(ModelError::Config(message))
    };
    if let Some(other) = others.iter().find(|name| matcher.is_target(name, Kind::Other)) {
        return refuse(other);
    }
    let names = |layer: &Layer<'_>, tree: usize| matcher.is_target(&layer.names[tree], Kind::Linear);
    let Some(tree) = (0..TREES).find(|&tree| layers.iter().any(|layer| names(layer, tree))) else {
        return Err(ModelError::Config(format!("target_modules: {:?} names no layer", config.target_modules)));
    };
    // PEFT goes over every module, and refuses a rule that names one that holds others.
    let containers: BTreeSet<&str> = layers.iter().flat_map(|layer| containers(&layer.names[tree])).collect();
    if let Some(other) = containers.into_iter().find(|name| matcher.is_target(name, Kind::Other)) {
        return refuse(other);
    }
    let named = layers.into_iter().filter(|layer| names(layer, tree));
    let targets = named.map(|layer| Target { shape: config.shape(&matcher, &layer.names[tree]), layer });
    let targets: Vec<_> = targets.collect();
    if tree > 0 {
        config.rename(&matcher, targets.iter().map(|target| [&target.layer.names[tree], target.layer.name()]));
    }
    Ok(targets)
}

/// Puts fresh adapters on the layers that the configuration names.
pub(crate) fn attach(
    layers: Vec<Layer<'_>>,
    others: &[&str],
    config: &mut LoraConfig,
    seed: u64,
) -> Result<(), ModelError> {
    for (number, Target { layer, shape }) in targets(layers, others, config)?.into_iter().enumerate() {
        let [input, output] = layer.linear.weight.lazy_shape().dims();
        let mut rng = ChaCha8Rng::seed_from_u64(mix_seed(seed, number as u64));
        let bound = (input as f32).powf(-0.5);
        let a = (0..input * shape.rank).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect();
        let device = layer.linear.weight.lazy_device();
        let factors = factors([a, vec![0.0; shape.rank * output]], [input, shape.rank, output], shape.scale, &device);
        layer.linear.lora = Some(factors);
    }
    Ok(())
}

/// `values` are `a` and `b` row by row.
fn factors(values: [Vec<f32>; 2], [input, rank, output]: [usize; 3], scale: f64, device: &Device) -> LoraFactors {
    let [a, b] = values;
    let param =
        |values, shape: [usize; 2]| Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device));
    LoraFactors { a: param(a, [input, rank]), b: param(b, [rank, output]), scale, dropout: None }
}

/// Adds every adapter to the weight below it, and takes it off.
pub(crate) fn merge(layers: Vec<Layer<'_>>) -> Result<(), ModelError> {
    let rounded =
        layers.iter().find(|l| matches!(l.linear.weight.val().dtype(), DType::QFloat(_)) && l.linear.lora.is_some());
    if let Some(layer) = rounded {
        return Err(ModelError::Quantized { name: layer.name().into() });
    }
    for Layer { linear, .. } in layers {
        let Some(lora) = linear.lora.take() else { continue };
        let weight = linear.weight.val().detach();
        // Detached, since only a leaf can be trained.
        let merged = (lora.delta().cast(weight.dtype()) + weight).detach();
        linear.weight = Param::initialized(linear.weight.id, merged);
    }
    Ok(())
}

/// Names of the layers with adapters, and their scales.
pub(crate) fn scales(layers: Vec<Layer<'_>>) -> Vec<(String, f64)> {
    let scale = |layer: Layer<'_>| Some((layer.name().to_string(), layer.linear.lora.as_ref()?.scale));
    layers.into_iter().filter_map(scale).collect()
}

/// Sets the seeds of one forward.
pub(crate) fn set_dropout(layers: Vec<Layer<'_>>, share: f64, seed: u64) {
    for (number, Layer { linear, .. }) in layers.into_iter().enumerate() {
        if let Some(lora) = &mut linear.lora {
            lora.dropout = Some(Dropout { share, seed: mix_seed(seed, number as u64) });
        }
    }
}
