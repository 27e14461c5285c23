//! `adapter_config.json` as PEFT writes it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::target::{Matcher, Overrides, TargetModules};
use crate::error::ModelError;

/// Settings of an adapter, under PEFT's names.
///
/// The defaults are PEFT's, but for `target_modules`: the decoder's seven products, which is what vLLM serves
/// of a vision-language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Columns of `A` and rows of `B`; in the file `r`.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Weight of what the adapter adds; in the file `lora_alpha`.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
    /// Share of the adapter's inputs that are zeroed while it is trained, in `[0, 1)`; in the file `lora_dropout`.
    #[serde(rename = "lora_dropout", default)]
    pub dropout: f64,
    /// Layers that get an adapter.
    pub target_modules: TargetModules,
    /// Layers that get none although `target_modules` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<TargetModules>,
    /// Scale `alpha / sqrt(rank)` (rsLoRA, arXiv 2312.03732) instead of `alpha / rank`.
    #[serde(default)]
    pub use_rslora: bool,
    /// Ranks of single layers, by PEFT's patterns; the first that matches counts.
    #[serde(default)]
    pub rank_pattern: Overrides<usize>,
    /// The same for `alpha`.
    #[serde(default)]
    pub alpha_pattern: Overrides<f64>,
    /// The base model, for readers that want to find it by themselves.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            target_modules: TargetModules::decoder(),
            exclude_modules: None,
            use_rslora: false,
            rank_pattern: Overrides::default(),
            alpha_pattern: Overrides::default(),
            base_model_name_or_path: None,
        }
    }
}

/// Rank and scale of one layer's adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub rank: usize,
    pub scale: f64,
}

impl LoraConfig {
    /// # Errors
    /// [`ModelError::Config`] with the setting that is out of range, or a pattern that is not a regular expression.
    pub fn validate(&self) -> Result<(), ModelError> {
        let ranks = [self.rank].into_iter().chain(self.rank_pattern.values().copied());
        check(ranks.clone().all(|rank| rank > 0), || "r: expected at least 1, got 0".into())?;
        let alphas = [self.alpha].into_iter().chain(self.alpha_pattern.values().copied());
        for alpha in alphas {
            check(alpha.is_finite(), || format!("lora_alpha: expected a finite number, got {alpha}"))?;
        }
        check((0.0..1.0).contains(&self.dropout), || {
            format!("lora_dropout: expected 0 or more and less than 1, got {}", self.dropout)
        })?;
        self.matcher().map(|_| ())
    }

    /// The rules of names, compiled.
    pub(crate) fn matcher(&self) -> Result<Matcher, ModelError> {
        Matcher::new(self)
    }

    /// Rank and scale of the layer of this name: `alpha / r`, or `alpha / sqrt(r)`.
    pub(crate) fn shape(&self, matcher: &Matcher, name: &str) -> Shape {
        let rank = matcher.rank(name).unwrap_or(self.rank);
        let alpha = matcher.alpha(name).unwrap_or(self.alpha);
        let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Shape { rank, scale: alpha / divisor }
    }

    /// The same rules for other names: `[the name that they were written for, the name of today]` of each layer with an
    /// adapter.
    pub(crate) fn rename<'a>(&mut self, matcher: &Matcher, layers: impl Iterator<Item = [&'a str; 2]>) {
        let (mut names, mut ranks, mut alphas) = (Vec::new(), Vec::new(), Vec::new());
        for [before, now] in layers {
            let pattern = now.replace('.', r"\.");
            names.push(now.to_string());
            ranks.extend(matcher.rank(before).map(|rank| (pattern.clone(), rank)));
            alphas.extend(matcher.alpha(before).map(|alpha| (pattern, alpha)));
        }
        self.target_modules = TargetModules::Names(names);
        self.exclude_modules = None;
        self.rank_pattern = ranks.into_iter().collect();
        self.alpha_pattern = alphas.into_iter().collect();
    }

    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the field that is missing, out of range, or asks for something that changes the
    /// numbers and is not supported (DoRA, biases, layers that are saved whole, ...). A field that this crate has never
    /// heard of is refused too, unless it is off.
    pub fn from_json(root: &Value) -> Result<Self, ModelError> {
        let fields = root.as_object().ok_or_else(|| ModelError::Config("expected an object".into()))?;
        refuse_unsupported(fields)?;
        let config: Self = serde_json::from_value(root.clone()).map_err(|e| ModelError::Config(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Reads the file of an adapter folder.
    ///
    /// # Errors
    /// Those of [`LoraConfig::from_json`], and [`ModelError::Io`] or [`ModelError::Json`], with the path.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(super::CONFIG_FILE);
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let root: Value = serde_json::from_str(&text).map_err(ModelError::json(&path))?;
        Self::from_json(&root).map_err(|error| error.in_file(&path))
    }

    /// What PEFT and vLLM read.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut root = serde_json::to_value(self).unwrap_or_default();
        let fixed = [
            ("peft_type", Value::from("LORA")),
            ("task_type", Value::from("CAUSAL_LM")),
            ("bias", Value::from("none")),
            ("fan_in_fan_out", Value::from(false)),
            ("inference_mode", Value::from(true)),
            ("init_lora_weights", Value::from(true)),
            ("modules_to_save", Value::Null),
            ("use_dora", Value::from(false)),
        ];
        for (name, value) in fixed {
            root[name] = value;
        }
        if self.alpha.fract() == 0.0 && self.alpha.abs() < 1e9 {
            // PEFT and vLLM declare an integer.
            root["lora_alpha"] = Value::from(self.alpha as i64);
        }
        root
    }
}

/// Fields that say nothing about the numbers of a stored adapter.
const HARMLESS: &str = "auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config inference_mode \
                        layers_pattern lora_ga_config megatron_core peft_version qalora_group_size revision \
                        runtime_config task_type";
/// Fields that are read.
const READ: &str = "alpha_pattern exclude_modules lora_alpha lora_dropout r rank_pattern target_modules use_rslora";

fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), ModelError> {
    let kind = fields.get("peft_type").ok_or_else(|| ModelError::Config("field peft_type is missing".into()))?;
    check(kind == "LORA", || format!("peft_type: expected LORA, got {kind}"))?;
    for (name, value) in fields {
        let is_known = HARMLESS.split_whitespace().chain(READ.split_whitespace()).any(|known| known == name);
        let is_accepted = match (name.as_str(), value) {
            ("peft_type", _) => true,
            ("bias", bias) => bias == "none",
            // These only chose the start values; the others replace the base model's weights.
            ("init_lora_weights", Value::String(rule)) => {
                matches!(rule.as_str(), "gaussian" | "eva" | "orthogonal" | "lora_ga")
            }
            ("init_lora_weights", value) => value.is_boolean(),
            (_, value) => is_known || is_off(value),
        };
        check(is_accepted, || format!("{name}: {value} is not supported"))?;
    }
    Ok(())
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

fn check(holds: bool, message: impl FnOnce() -> String) -> Result<(), ModelError> {
    if holds { Ok(()) } else { Err(ModelError::Config(message())) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(more: &Value) -> Value {
        let mut file = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]});
        for (name, value) in more.as_object().unwrap() {
            file[name] = value.clone();
        }
        file
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = LoraConfig {
            rank: 4,
            alpha: 6.5,
            dropout: 0.1,
            target_modules: TargetModules::Names(vec!["q_proj".into(), "mlp.0".into()]),
            exclude_modules: Some(TargetModules::Pattern(".*visual.*".into())),
            use_rslora: true,
            rank_pattern: Overrides::from_iter([("q_proj".to_string(), 2)]),
            alpha_pattern: Overrides::from_iter([("layers.1.*q_proj".to_string(), 3.0)]),
            base_model_name_or_path: Some("base".into()),
        };
        for config in [config, LoraConfig::default()] {
            assert_eq!(LoraConfig::from_json(&config.to_json()).unwrap(), config);
        }
        let all = LoraConfig { target_modules: TargetModules::AllLinear, ..LoraConfig::default() };
        assert_eq!(all.to_json()["target_modules"], "all-linear");
        assert_eq!(LoraConfig::from_json(&all.to_json()).unwrap(), all);
    }

    #[test]
    fn what_would_change_the_numbers_is_refused_by_name() {
        for more in [
            json!({"use_dora": true}),
            json!({"bias": "all"}),
            json!({"lora_bias": true}),
            json!({"modules_to_save": ["lm_head"]}),
            json!({"layers_to_transform": [1]}),
            json!({"layer_replication": [[0, 1]]}),
            json!({"fan_in_fan_out": true}),
            json!({"trainable_token_indices": [1]}),
            json!({"target_parameters": ["a.weight"]}),
            json!({"megatron_config": {"a": 1}}),
            json!({"loftq_config": {"loftq_bits": 4}}),
            json!({"init_lora_weights": "pissa"}),
            json!({"a_field_of_the_future": 3}),
            json!({"peft_type": "LOHA"}),
            json!({"r": 0}),
            json!({"rank_pattern": {"q_proj": 0}}),
            json!({"lora_dropout": 1.0}),
            json!({"target_modules": "("}),
        ] {
            let name = more.as_object().unwrap().keys().next().unwrap().clone();
            let error = LoraConfig::from_json(&file(&more)).unwrap_err();
            assert!(matches!(error, ModelError::Config(_)), "{error}");
            let shown = if name == "rank_pattern" { "r" } else { name.as_str() };
            assert!(error.to_string().contains(shown), "{name}: {error}");
        }
        for more in [json!({"modules_to_save": []}), json!({"init_lora_weights": false}), json!({"new": null})] {
            LoraConfig::from_json(&file(&more)).unwrap();
        }
        for missing in ["r", "lora_alpha", "target_modules", "peft_type"] {
            let mut file = file(&json!({}));
            file.as_object_mut().unwrap().remove(missing);
            assert!(LoraConfig::from_json(&file).unwrap_err().to_string().contains(missing), "{missing}");
        }
    }

    #[test]
    fn scales_are_those_of_the_papers() {
        let mut config = LoraConfig { rank: 4, alpha: 6.0, ..LoraConfig::default() };
        config.rank_pattern = Overrides::from_iter([("k_proj".to_string(), 9)]);
        config.alpha_pattern = Overrides::from_iter([("self_attn.q_proj".to_string(), 1.0)]);
        let scale = |config: &LoraConfig, name: &str| config.shape(&config.matcher().unwrap(), name).scale;
        assert_eq!(scale(&config, "a.v_proj"), 1.5);
        assert_eq!(scale(&config, "a.k_proj"), 6.0 / 9.0);
        assert_eq!(scale(&config, "a.self_attn.q_proj"), 0.25);
        config.use_rslora = true;
        assert_eq!(scale(&config, "a.v_proj"), 3.0);
        assert_eq!(scale(&config, "a.k_proj"), 2.0);
    }
}
