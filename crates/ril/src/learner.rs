//! A model with its optimizer, stepped together and saved together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param, ParamGroup};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::store::ModuleRecord;
use burn::tensor::Tensor;
use burn_train::checkpoint::{Checkpointer, CheckpointerError, FileCheckpointer};
use rayon::prelude::*;
use ril_gail::clip_global_norm;
use ril_models::ChatModel;

use crate::base::Base;
use crate::config::OptimizerSettings;
use crate::error::RilError;
use crate::imitation::RilDiscriminator;

/// AdamW with the epsilon and betas of the Python references.
#[must_use]
pub fn adamw(settings: &OptimizerSettings) -> ModuleOptimizer {
    AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(settings.weight_decay).init()
}

/// A model that can be sampled, scored and trained; every such type is one.
pub trait TrainableModel: ChatModel + Module + ModuleDisplay + Sync {}

impl<M: ChatModel + Module + ModuleDisplay + Sync> TrainableModel for M {}

/// A trainable model and its AdamW state.
pub struct Learner<M> {
    // `None` only while a step owns the model.
    model: Option<M>,
    optimizer: ModuleOptimizer,
    settings: OptimizerSettings,
    adapter_scales: BTreeMap<String, f64>,
    // Made for the first checkpoint: what is frozen does not change.
    base: OnceLock<Base>,
}

impl<M: std::fmt::Debug> std::fmt::Debug for Learner<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learner").field("model", &self.model).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Paths of the parameters that are trained, and whether there are others.
#[derive(Default)]
struct Trainable {
    path: Vec<String>,
    paths: Vec<String>,
    has_frozen: bool,
}

impl ModuleVisitor for Trainable {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match param.is_require_grad() {
            true => self.paths.push(self.path.join(".")),
            false => self.has_frozen = true,
        }
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

impl<M: TrainableModel> Learner<M> {
    /// `model` must stand on an autodiff device.
    pub fn new(model: M, settings: OptimizerSettings) -> Self {
        let adapter_scales = model.adapter_scales();
        Self::with_scales(model, settings, adapter_scales)
    }
}

impl<M: TrainableModel> Learner<RilDiscriminator<M>> {
    /// `discriminator` must stand on an autodiff device.
    pub fn of_discriminator(discriminator: RilDiscriminator<M>, settings: OptimizerSettings) -> Self {
        let adapter_scales = discriminator.encoder().model.adapter_scales();
        Self::with_scales(discriminator, settings, adapter_scales)
    }
}

impl<M: Module> Learner<M> {
    fn with_scales(model: M, settings: OptimizerSettings, adapter_scales: Vec<(String, f64)>) -> Self {
        Self {
            model: Some(model),
            optimizer: adamw(&settings),
            settings,
            adapter_scales: adapter_scales.into_iter().collect(),
            base: OnceLock::new(),
        }
    }

    /// Paths of the trainable parameters; `None` when all are.
    fn trainable(&self) -> Option<Vec<String>> {
        let mut trainable = Trainable::default();
        self.model().visit(&mut trainable);
        trainable.has_frozen.then_some(trainable.paths)
    }

    fn base(&self) -> &Base {
        self.base.get_or_init(|| Base::of(self.model(), self.adapter_scales.clone()))
    }

    /// The trainable model.
    ///
    /// # Panics
    /// Never: the model is absent only inside this type's own methods, which always put it back.
    pub fn model(&self) -> &M {
        self.model.as_ref().expect("a learner holds its model between steps")
    }

    /// The trainable model, without its optimizer.
    ///
    /// # Panics
    /// Never, as [`Learner::model`].
    #[must_use]
    pub fn into_model(self) -> M {
        self.model.expect("a learner holds its model between steps")
    }

    /// A copy without autodiff that shares storage: for sampling, scoring and evaluation.
    #[must_use]
    pub fn view(&self) -> M {
        self.model().valid()
    }

    /// Settings of the optimizer.
    #[must_use]
    pub fn settings(&self) -> &OptimizerSettings {
        &self.settings
    }

    /// Clips the gathered gradients and steps; returns their norm before clipping.
    ///
    /// # Errors
    /// [`RilError::Gail`] when a gradient is not finite; the model is untouched then.
    pub fn step(&mut self, mut gradients: GradientsParams, learning_rate: f64) -> Result<f32, RilError> {
        let norm = clip_global_norm(self.model(), &mut gradients, self.settings.max_grad_norm)?;
        self.replace(|model, optimizer| (optimizer.step(learning_rate, model, gradients), ()));
        Ok(norm)
    }

    /// Lets `change` own model and optimizer for a moment. It must leave frozen weights as they are.
    pub fn replace<T>(&mut self, change: impl FnOnce(M, &mut ModuleOptimizer) -> (M, T)) -> T {
        let model = self.model.take().expect("a learner holds its model between steps");
        let (model, value) = change(model, &mut self.optimizer);
        self.model = Some(model);
        value
    }

    /// Model and optimizer as they are now, to go back to with [`Learner::go_back`]. Storage is shared until the next
    /// step; from then on it holds weights and moments of its own.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<M> {
        Snapshot { model: self.model().clone(), optimizer: self.optimizer.clone() }
    }

    /// Undoes everything since the snapshot.
    pub fn go_back(&mut self, snapshot: Snapshot<M>) {
        self.model = Some(snapshot.model);
        self.optimizer = snapshot.optimizer;
    }

    /// Writes weights and optimizer state into `folder` with burn-train's checkpointer. Frozen weights are left out: they
    /// are those of the model that the learner was made of. `NAME-base-STEP.json` says which those were: path, shape, type and the hash
    /// of a sample of each, up to 1,024 values evenly apart; and the scales of the adapters. The device is asked for the samples once
    /// in a learner's life; a tensor of 8 bits is made a float one for it.
    ///
    /// # Errors
    /// [`RilError::Checkpoint`] with the file.
    pub fn save(&self, folder: &Path, name: &str, step: usize) -> Result<(), RilError> {
        let record = match self.trainable() {
            Some(paths) => {
                self.base().save(&base_file(folder, name, step))?;
                self.model().clone().into_record_group(ParamGroup::from_paths(paths))
            }
            None => self.model().clone().into_record(),
        };
        FileCheckpointer::new(folder, name).save(step, record).map_err(failed(folder, name, step))?;
        let name = optimizer_name(name);
        let state = self.optimizer.to_record();
        FileCheckpointer::new(folder, &name).save(step, state).map_err(failed(folder, &name, step))
    }

    /// Restores what [`Learner::save`] wrote, into a model of the same architecture, with the same frozen weights and scales
    /// of adapters.
    ///
    /// # Errors
    /// [`RilError::Checkpoint`] when files are missing, broken, of another architecture, or of other frozen weights or
    /// scales, as far as the samples show; the learner is untouched then.
    pub fn restore(&mut self, folder: &Path, name: &str, step: usize) -> Result<(), RilError> {
        let record: ModuleRecord =
            FileCheckpointer::new(folder, name).restore(step).map_err(failed(folder, name, step))?;
        let broken = |reason| RilError::checkpoint(checkpoint_file(folder, name, step))(reason);
        let trainable = self.trainable();
        if let Some(paths) = &trainable {
            if record.len() != paths.len() {
                let reason = format!("expected {} trainable tensors, got {}", paths.len(), record.len());
                return Err(broken(reason));
            }
            self.base().check(&base_file(folder, name, step))?;
        }
        let record = record.allow_partial(trainable.is_some());
        let model = self.model().clone().try_load_record(record).map_err(|error| broken(error.to_string()))?;
        let name = optimizer_name(name);
        let state = FileCheckpointer::new(folder, &name).restore(step).map_err(failed(folder, &name, step))?;
        self.optimizer = adamw(&self.settings).load_record(state);
        self.model = Some(model);
        Ok(())
    }
}

/// What [`Learner::snapshot`] keeps.
pub struct Snapshot<M> {
    model: M,
    optimizer: ModuleOptimizer,
}

impl<M> std::fmt::Debug for Snapshot<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

fn optimizer_name(name: &str) -> String {
    format!("{name}-optimizer")
}

/// Where it stands what a checkpoint leaves out.
fn base_file(folder: &Path, name: &str, step: usize) -> PathBuf {
    folder.join(format!("{name}-base-{step}.json"))
}

/// Where burn-train's checkpointer puts a record.
fn checkpoint_file(folder: &Path, name: &str, step: usize) -> PathBuf {
    folder.join(format!("{name}-{step}.bpk"))
}

fn failed(folder: &Path, name: &str, step: usize) -> impl FnOnce(CheckpointerError) -> RilError + use<> {
    RilError::checkpoint(checkpoint_file(folder, name, step))
}

/// Gradients of several micro-batches, added in their order, and what each pass gives beside its loss.
///
/// `passes_at_once` of them run on threads of their own, each on a fork of the model, so that their graphs share
/// nothing.
///
/// # Errors
/// The first error of a pass.
pub fn sum_gradients<M: TrainableModel, P: Sync, T: Send>(
    model: &M,
    parts: &[P],
    passes_at_once: usize,
    pass: impl Fn(&M, &P) -> Result<(Tensor<1>, T), RilError> + Sync,
) -> Result<(GradientsParams, Vec<T>), RilError> {
    let device = model.device().autodiff();
    let one = |part: &P| {
        let model = model.clone().fork(&device);
        let (loss, value) = pass(&model, part)?;
        Ok((GradientsParams::from_grads(loss.backward(), &model), value))
    };
    let mut sum = GradientsAccumulator::<M>::new();
    let mut values = Vec::with_capacity(parts.len());
    for parts in parts.chunks(passes_at_once.max(1)) {
        let passes: Vec<(GradientsParams, T)> = match parts {
            [part] => vec![one(part)?],
            parts => parts.par_iter().map(one).collect::<Result<_, RilError>>()?,
        };
        for (gradients, value) in passes {
            sum.accumulate(model, gradients);
            values.push(value);
        }
    }
    Ok((sum.grads(), values))
}
