//! The fixtures of `scripts/reference/peft_lora.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData, activation};
use ril_models::lora::{CONFIG_FILE, WEIGHTS_FILE};
use ril_models::{CausalLm, Qwen2_5Vl};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::{Case, Fixture, fixtures, read_f32, values};

/// Adapters of the fixture set.
pub const ADAPTERS: [&str; 5] = ["attention", "all_linear", "rslora", "patterns", "bf16"];

/// Tensors by name, with their shapes.
pub type ByName = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// An adapter that PEFT wrote, and what PEFT computes with it.
pub struct Adapter {
    pub name: &'static str,
    pub folder: PathBuf,
    pub base: Fixture,
    pub golden: GoldenAdapter,
    pub tensors: ByName,
}

#[derive(Deserialize)]
pub struct GoldenAdapter {
    base: String,
    pub case: String,
    pub loss: f32,
}

impl Adapter {
    pub fn open(name: &'static str) -> Self {
        let folder = fixtures().join("lora").join(name);
        let golden = std::fs::read(folder.join("golden.json")).expect("golden.json");
        let golden: GoldenAdapter = serde_json::from_slice(&golden).expect("golden.json parses");
        let base = super::FOLDERS.into_iter().find(|base| *base == golden.base).expect("a base of the set");
        let tensors = read_f32(&std::fs::read(folder.join("golden.safetensors")).expect("golden.safetensors"));
        Self { name, base: Fixture::open(base), folder, golden, tensors }
    }

    pub fn all() -> impl Iterator<Item = Self> {
        ADAPTERS.into_iter().map(Self::open)
    }

    /// The base with the adapter on it, through the public API.
    pub fn model(&self, device: &Device) -> Qwen2_5Vl {
        let model = self.base.model(device).load_adapter(&self.folder);
        model.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The same with other settings.
    pub fn with_settings(&self, settings: &Value, device: &Device) -> Qwen2_5Vl {
        let folder = self.copy();
        let path = folder.path().join(CONFIG_FILE);
        let mut config = super::read_json(&path);
        for (name, value) in settings.as_object().expect("an object") {
            config[name] = value.clone();
        }
        super::write_json(&path, &config);
        self.base.model(device).load_adapter(folder.path()).expect("settings that are supported")
    }

    /// A copy of the folder that a test may break.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        for name in [CONFIG_FILE, WEIGHTS_FILE] {
            std::fs::copy(self.folder.join(name), copy.path().join(name)).expect("a file of the fixture");
        }
        copy
    }

    /// Logits of the recorded tokens of a case.
    pub fn logits(&self, name: &str) -> &[f32] {
        &self.tensors[&format!("case.{name}.logits")].1
    }

    /// The case of the gradients.
    pub fn case(&self) -> &Case {
        &self.base.golden.cases[&self.golden.case]
    }
}

/// Logits of the recorded tokens of a case, as we compute them.
pub fn recorded_logits(model: &Qwen2_5Vl, fixture: &Fixture, case: &Case) -> Vec<f32> {
    let all = super::logits(model, &fixture.input(case));
    case.logit_positions.iter().flat_map(|&i| all[i].clone()).collect()
}

/// Cross-entropy of a case's response, summed.
pub fn cross_entropy(model: &Qwen2_5Vl, fixture: &Fixture, case: &Case) -> Tensor<1> {
    let hidden = model.hidden_states(&fixture.input(case), None).expect("a valid input");
    let (start, count) = (case.prompt_ids.len(), case.response_ids.len());
    let log_probs = activation::log_softmax(model.lm_head(hidden.narrow(1, start - 1, count)), 2);
    let ids: Vec<i64> = case.response_ids.iter().map(|&id| i64::from(id)).collect();
    let ids = Tensor::<3, Int>::from_data(TensorData::new(ids, [1, count, 1]), &Device::flex());
    log_probs.gather(2, ids).sum().neg()
}

/// Gradients of all parameters that have one, by the path in the module; matrices as PEFT stores them.
pub fn gradients(model: &Qwen2_5Vl, gradients: &Gradients) -> ByName {
    let mut collector = Collector { gradients: Some(gradients), path: Vec::new(), found: ByName::new() };
    model.visit(&mut collector);
    collector.found
}

/// Values of all parameters, by the path in the module; matrices as PEFT stores them.
pub fn parameters(model: &Qwen2_5Vl) -> ByName {
    let mut collector = Collector { gradients: None, path: Vec::new(), found: ByName::new() };
    model.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    gradients: Option<&'a Gradients>,
    path: Vec<String>,
    found: ByName,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = match self.gradients {
            Some(gradients) => param.val().grad(gradients),
            None => Some(param.val().detach()),
        };
        let Some(value) = value else { return };
        let value = if D == 2 { value.swap_dims(0, 1) } else { value };
        self.found.insert(self.path.join("."), (value.dims().to_vec(), values(value)));
    }

    fn enter_module(&mut self, name: &str, _owner: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _owner: &str) {
        self.path.pop();
    }
}

/// PEFT's name of a factor with this path in the module.
pub fn peft_name(path: &str) -> String {
    let name = path.replace("merger.fc1.", "merger.mlp.0.").replace("merger.fc2.", "merger.mlp.2.");
    let name = match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => format!("model.{name}"),
    };
    let name = name.replace(".lora.a", ".lora_A.weight").replace(".lora.b", ".lora_B.weight");
    format!("base_model.model.{name}")
}
