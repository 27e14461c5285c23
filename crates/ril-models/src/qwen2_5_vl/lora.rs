//! Adapters on this model's layers.

use std::path::Path;

use burn::module::Module;

use super::Qwen2_5Vl;
use crate::checkpoint::WeightType;
use crate::error::ModelError;
use crate::input::ModelInput;
use crate::lora::{self, Layer, LoraConfig, LoraState};
use crate::nn::linear::Linear;
use crate::nn::mlp::SwiGlu;

/// Modules of the tree with weights that rules may name and that have no adapters here.
const OTHERS: [&str; 3] = ["lm_head", "model.language_model.embed_tokens", "model.visual.patch_embed.proj"];

impl Qwen2_5Vl {
    /// The model with fresh adapters on the layers that `config` names; everything else is frozen from here on. The outputs
    /// are those of the model as it was, since `B` is 0.
    ///
    /// `seed` decides the values of `A` and, with [`CausalLm::at_step`](crate::CausalLm::at_step), the noise of dropout. Names of
    /// layers are those of transformers 5, or of its earlier module trees.
    ///
    /// # Errors
    /// [`ModelError::Config`] when a setting is out of range, no layer is named, or one that is not a linear layer;
    /// [`ModelError::Adapters`] when there are adapters already.
    pub fn with_lora(self, config: &LoraConfig, seed: u64) -> Result<Self, ModelError> {
        if self.has_lora() {
            return Err(ModelError::Adapters("with_lora"));
        }
        let mut model = self.no_grad();
        let mut config = config.clone();
        lora::attach(model.layers(), &OTHERS, &mut config, seed)?;
        Ok(Self { lora: Some(LoraState::new(config, seed)), ..model })
    }

    /// The model with the adapters of a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`), ready to be trained
    /// on: everything else is frozen. The seed of dropout is 0.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming a setting that is out of range or not supported; [`ModelError::MissingTensor`],
    /// [`ModelError::UnknownTensors`], [`ModelError::TensorShape`] when tensors are not those that the settings name;
    /// [`ModelError::Adapters`] when there are adapters already; errors of the files.
    pub fn load_adapter(self, folder: &Path) -> Result<Self, ModelError> {
        if self.has_lora() {
            return Err(ModelError::Adapters("load_adapter"));
        }
        let mut model = self.no_grad();
        let config = lora::load(model.layers(), &OTHERS, folder)?;
        Ok(Self { lora: Some(LoraState::new(config, 0)), ..model })
    }

    /// Writes the adapters alone, as a folder that PEFT and vLLM open, in place of an adapter that may stand there. Names of
    /// tensors are those that PEFT writes with transformers 5. The folder holds the old adapter, the new one, or none that
    /// would load, whenever the process dies.
    ///
    /// # Errors
    /// [`ModelError::NoAdapters`], [`ModelError::Io`].
    pub fn save_adapter(&self, folder: &Path, dtype: WeightType) -> Result<(), ModelError> {
        let lora = self.lora.as_ref().ok_or(ModelError::NoAdapters("save_adapter"))?;
        // A copy shares storage.
        lora::save(&self.clone().layers(), &lora.config, folder, dtype)
    }

    /// A plain model whose weights are `W + scale * A B`, trainable as a whole; a model without adapters stays as it is.
    ///
    /// # Errors
    /// [`ModelError::Quantized`] after [`Self::into_int8`].
    pub fn merge_lora(mut self) -> Result<Self, ModelError> {
        if !self.has_lora() {
            return Ok(self);
        }
        lora::merge(self.layers())?;
        self.lora = None;
        Ok(self.set_require_grad(true))
    }

    /// The model below the adapters, trainable as a whole.
    #[must_use]
    pub fn without_lora(mut self) -> Self {
        if !self.has_lora() {
            return self;
        }
        self.layers().into_iter().for_each(|layer| layer.linear.lora = None);
        self.lora = None;
        self.set_require_grad(true)
    }

    /// Whether the model has adapters.
    #[must_use]
    pub fn has_lora(&self) -> bool {
        self.lora.is_some()
    }

    /// Settings of the adapters.
    #[must_use]
    pub fn lora_config(&self) -> Option<&LoraConfig> {
        self.lora.as_ref().map(|lora| &*lora.config)
    }

    pub(super) fn scales_of_adapters(&self) -> Vec<(String, f64)> {
        // A copy shares storage.
        lora::scales(self.clone().layers())
    }

    /// The model for one forward of training, if its adapters have dropout; no other forward has any.
    pub(super) fn with_dropout(&self, input: &ModelInput) -> Option<Self> {
        let lora = self.lora.as_ref()?;
        let seed = lora.dropout_seed(input.tokens.ids())?;
        if !self.model.norm.weight.lazy_device().is_autodiff() {
            return None;
        }
        let mut model = self.clone();
        lora::set_dropout(model.layers(), lora.config.dropout, seed);
        Some(model)
    }

    /// Every linear layer but the head.
    fn layers(&mut self) -> Vec<Layer<'_>> {
        let mut layers = Vec::new();
        for (i, block) in self.visual.blocks.iter_mut().enumerate() {
            let mut add = |name: &str, linear| layers.push(tower_layer(&format!("blocks.{i}.{name}"), linear));
            add("attn.qkv", &mut block.attn.qkv);
            add("attn.proj", &mut block.attn.proj);
            products(&mut block.mlp).into_iter().for_each(|(name, linear)| add(name, linear));
        }
        layers.push(tower_layer("merger.mlp.0", &mut self.visual.merger.fc1));
        layers.push(tower_layer("merger.mlp.2", &mut self.visual.merger.fc2));
        for (i, layer) in self.model.layers.iter_mut().enumerate() {
            let mut add = |name: &str, linear| layers.push(decoder_layer(&format!("layers.{i}.{name}"), linear));
            let attention = &mut layer.self_attn;
            add("self_attn.q_proj", &mut attention.q_proj);
            add("self_attn.k_proj", &mut attention.k_proj);
            add("self_attn.v_proj", &mut attention.v_proj);
            add("self_attn.o_proj", &mut attention.o_proj);
            products(&mut layer.mlp).into_iter().for_each(|(name, linear)| add(name, linear));
        }
        layers
    }
}

/// Names since transformers 4.52, before, and where a language model with a head stood inside.
fn decoder_layer<'a>(name: &str, linear: &'a mut Linear) -> Layer<'a> {
    let names = ["model.language_model", "model", "language_model.model"].map(|tree| format!("{tree}.{name}"));
    Layer { names, linear }
}

fn tower_layer<'a>(name: &str, linear: &'a mut Linear) -> Layer<'a> {
    Layer { names: ["model.visual", "visual", "visual"].map(|tree| format!("{tree}.{name}")), linear }
}

fn products(mlp: &mut SwiGlu) -> [(&'static str, &mut Linear); 3] {
    [("mlp.gate_proj", &mut mlp.gate_proj), ("mlp.up_proj", &mut mlp.up_proj), ("mlp.down_proj", &mut mlp.down_proj)]
}
