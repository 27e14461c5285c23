//! Checkpoint keys and layouts of Qwen2.5-VL.

use crate::checkpoint::{TensorLayout, TensorRule};
use crate::qwen2_5_vl::config::VisionConfig;

/// Where a parameter stands in the checkpoint.
///
/// The module tree bears the hub's names, so that only three things differ: linear weights are stored transposed,
/// the patch embedding is stored as a convolution kernel, and the merger's products are numbered.
pub(crate) fn rule(path: &str, container: &str, vision: &VisionConfig) -> TensorRule {
    let layout = if path == "visual.patch_embed.proj.weight" {
        let side = vision.patch_size;
        let kernel = vec![vision.hidden_size, vision.in_channels, vision.temporal_patch_size, side, side];
        TensorLayout::Kernel(kernel)
    } else if container == "Struct:Linear" && path.ends_with(".weight") {
        TensorLayout::Transposed
    } else {
        TensorLayout::AsIs
    };
    let name = path.replace("merger.fc1.", "merger.mlp.0.").replace("merger.fc2.", "merger.mlp.2.");
    TensorRule { aliases: aliases(&name), name, layout }
}

/// The same tensor's name inside newer module trees.
fn aliases(name: &str) -> Vec<String> {
    if let Some(rest) = name.strip_prefix("model.") {
        vec![format!("model.language_model.{rest}"), format!("language_model.model.{rest}")]
    } else if name.starts_with("visual.") {
        vec![format!("model.{name}")]
    } else {
        vec![format!("language_model.{name}")]
    }
}

/// Tensors that checkpoints hold and this model does not read: a head that is tied to the embedding, and the rotary
/// frequencies that old checkpoints store.
pub(crate) fn is_spare(name: &str, is_tied: bool) -> bool {
    (is_tied && matches!(name, "lm_head.weight" | "language_model.lm_head.weight")) || name.ends_with(".inv_freq")
}
