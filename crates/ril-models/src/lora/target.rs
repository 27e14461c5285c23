//! Which layers get an adapter: PEFT's rules of names.

use fancy_regex::Regex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::LoraConfig;
use crate::error::ModelError;

const ALL_LINEAR: &str = "all-linear";

/// Names of layers, as PEFT's `target_modules` may give them. Names are those of transformers 5's module tree:
/// `model.language_model.layers.0.self_attn.q_proj`, `model.visual.blocks.0.attn.qkv`, `model.visual.merger.mlp.0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum TargetModules {
    /// A layer whose name is one of these, or ends in a dot and one of these. `gate_proj` thus names layers of the decoder
    /// *and* of the vision tower.
    Names(Vec<String>),
    /// Every linear layer but the head: `all-linear`.
    AllLinear,
    /// A regular expression that the whole name matches, as Python's `re.fullmatch`.
    Pattern(String),
}

impl TargetModules {
    /// The decoder's seven products, and nothing of the vision tower: what vLLM serves.
    #[must_use]
    pub fn decoder() -> Self {
        Self::Pattern(r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)".into())
    }
}

/// A list or a string, as in the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Names(Vec<String>),
    Text(String),
}

impl From<Written> for TargetModules {
    fn from(written: Written) -> Self {
        match written {
            Written::Names(names) => Self::Names(names),
            Written::Text(text) if text.to_lowercase() == ALL_LINEAR => Self::AllLinear,
            Written::Text(text) => Self::Pattern(text),
        }
    }
}

impl From<TargetModules> for Written {
    fn from(targets: TargetModules) -> Self {
        match targets {
            TargetModules::Names(names) => Self::Names(names),
            TargetModules::AllLinear => Self::Text(ALL_LINEAR.into()),
            TargetModules::Pattern(pattern) => Self::Text(pattern),
        }
    }
}

/// Values for layers whose names match a pattern, in the order of the file; a pattern is a regular expression for the end
/// of a name, from a dot on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overrides<T>(Vec<(String, T)>);

impl<T> Default for Overrides<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(String, T)> for Overrides<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<T> Overrides<T> {
    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<T: Serialize> Serialize for Overrides<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(pattern, value)| (pattern, value)))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Overrides<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A map of JSON values keeps the order; PEFT writes null for none too.
        let entries = Option::<Map<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
        let entries = entries.into_iter().map(|(pattern, value)| Ok((pattern, serde_json::from_value(value)?)));
        let entries: Result<Vec<_>, serde_json::Error> = entries.collect();
        entries.map(Self).map_err(serde::de::Error::custom)
    }
}

/// The rules of a configuration, compiled.
#[derive(Debug)]
pub(crate) struct Matcher {
    targets: Rule,
    excluded: Option<Rule>,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
}

/// Whether a layer is one that linear layers' rules are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A linear layer other than the head.
    Linear,
    /// The head, an embedding, a convolution.
    Other,
}

impl Matcher {
    pub(crate) fn new(config: &LoraConfig) -> Result<Self, ModelError> {
        Ok(Self {
            targets: Rule::new("target_modules", &config.target_modules)?,
            excluded: config.exclude_modules.as_ref().map(|rule| Rule::new("exclude_modules", rule)).transpose()?,
            ranks: Patterns::new("rank_pattern", &config.rank_pattern)?,
            alphas: Patterns::new("alpha_pattern", &config.alpha_pattern)?,
        })
    }

    /// Whether the layer of this name gets an adapter.
    pub(crate) fn is_target(&self, name: &str, kind: Kind) -> bool {
        self.targets.names(name, kind) && !self.excluded.as_ref().is_some_and(|rule| rule.names(name, kind))
    }

    pub(crate) fn rank(&self, name: &str) -> Option<usize> {
        self.ranks.first(name)
    }

    pub(crate) fn alpha(&self, name: &str) -> Option<f64> {
        self.alphas.first(name)
    }
}

#[derive(Debug)]
enum Rule {
    Names(Vec<String>),
    AllLinear,
    Pattern(Regex),
}

impl Rule {
    fn new(field: &str, modules: &TargetModules) -> Result<Self, ModelError> {
        Ok(match modules {
            TargetModules::Names(names) => Self::Names(names.clone()),
            TargetModules::AllLinear => Self::AllLinear,
            TargetModules::Pattern(pattern) => Self::Pattern(regex(field, &format!(r"\A(?:{pattern})\z"))?),
        })
    }

    fn names(&self, name: &str, kind: Kind) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|suffix| is_suffix(name, suffix)),
            Self::AllLinear => kind == Kind::Linear,
            // A pattern that gives up (backtracking without end) names nothing, and the caller finds no layer.
            Self::Pattern(pattern) => pattern.is_match(name).unwrap_or(false),
        }
    }
}

fn is_suffix(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[derive(Debug)]
struct Patterns<T> {
    entries: Vec<(Regex, T)>,
}

impl<T: Copy> Patterns<T> {
    fn new(field: &str, overrides: &Overrides<T>) -> Result<Self, ModelError> {
        let entry =
            |(pattern, value): &(String, T)| Ok((regex(field, &format!(r"\A(?:.*\.)?(?:{pattern})\z"))?, *value));
        Ok(Self { entries: overrides.0.iter().map(entry).collect::<Result<_, ModelError>>()? })
    }

    fn first(&self, name: &str) -> Option<T> {
        let mut entries = self.entries.iter();
        entries.find(|(pattern, _)| pattern.is_match(name).unwrap_or(false)).map(|(_, value)| *value)
    }
}

fn regex(field: &str, pattern: &str) -> Result<Regex, ModelError> {
    Regex::new(pattern).map_err(|error| ModelError::Config(format!("{field}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "model.language_model.layers.10.self_attn.q_proj";
    const TOWER: &str = "model.visual.blocks.1.mlp.gate_proj";

    fn is_target(targets: TargetModules, name: &str) -> bool {
        let config = LoraConfig { target_modules: targets, ..LoraConfig::default() };
        config.matcher().unwrap().is_target(name, Kind::Linear)
    }

    fn names(names: &[&str]) -> TargetModules {
        TargetModules::Names(names.iter().map(|&name| name.into()).collect())
    }

    #[test]
    fn a_list_holds_ends_of_names_from_a_dot_on() {
        for (list, expected) in
            [(vec!["q_proj"], true), (vec!["self_attn.q_proj"], true), (vec![Q], true), (vec!["proj"], false)]
        {
            assert_eq!(is_target(names(&list), Q), expected, "{list:?}");
        }
        assert!(is_target(names(&["gate_proj"]), TOWER), "the tower has such layers too");
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let pattern = |text: &str| TargetModules::Pattern(text.into());
        assert!(is_target(pattern(".*q_proj"), Q) && !is_target(pattern("q_proj"), Q));
        assert!(is_target(pattern("a|.*q_proj"), Q), "an alternative is no anchor");
        let elsewhere = pattern("^(?!.*visual).*(?:gate_proj|q_proj).*");
        assert!(is_target(elsewhere.clone(), Q) && !is_target(elsewhere, TOWER));
        assert!(is_target(TargetModules::decoder(), Q) && !is_target(TargetModules::decoder(), TOWER));
    }

    #[test]
    fn exclusion_is_the_stronger_rule() {
        let mut config = LoraConfig { target_modules: TargetModules::AllLinear, ..LoraConfig::default() };
        config.exclude_modules = Some(TargetModules::Pattern(".*visual.*".into()));
        let matcher = config.matcher().unwrap();
        assert!(matcher.is_target(Q, Kind::Linear) && !matcher.is_target(TOWER, Kind::Linear));
        assert!(!matcher.is_target("lm_head", Kind::Other), "all-linear leaves the head out");
    }

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let mut config = LoraConfig::default();
        let ranks = [("layers.1.self_attn.q_proj", 2), ("q_proj", 3), (r"layers\.\d+.*", 5)];
        config.rank_pattern = ranks.into_iter().map(|(pattern, rank)| (pattern.to_string(), rank)).collect();
        let matcher = config.matcher().unwrap();
        assert_eq!(matcher.rank("model.layers.1.self_attn.q_proj"), Some(2));
        assert_eq!(matcher.rank(Q), Some(3));
        assert_eq!(matcher.rank("model.layers.1.self_attn.k_proj"), Some(5));
        assert_eq!(matcher.rank("eq_proj"), None);
    }
}
