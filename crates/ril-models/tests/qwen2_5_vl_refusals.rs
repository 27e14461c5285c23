//! Folders and pictures that are refused, each with its file and the cause.

mod common;

use std::fs;
use std::path::Path;

use common::{copy, fixtures, load, read_json, refusal, write_json};
use ril_models::ModelError;
use ril_models::checkpoint::WEIGHTS_FILE;
use ril_models::image::open_image;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// transformers writes its own `in_channels` beside the hub's `in_chans` when it saves a folder of the hub again.
#[test]
fn a_resaved_folder_may_give_the_channels_twice() {
    let folder = copy("flat");
    let path = folder.path().join("config.json");
    let mut config = read_json(&path);
    config["vision_config"]["in_channels"] = Value::from(3);
    write_json(&path, &config);
    assert_eq!(load(folder.path()).unwrap().config().vision.in_channels, 3);
    config["vision_config"]["in_channels"] = Value::from(1);
    write_json(&path, &config);
    let error = refusal(folder.path()).to_string();
    assert!(error.contains("in_chans") && error.contains("config.json"), "{error}");
}

#[test]
fn a_configuration_of_another_model_is_refused_with_its_path() {
    let cases = [
        ("/model_type", Value::from("qwen2_vl"), "model_type"),
        ("/num_hidden_layers", Value::from(0), "num_hidden_layers"),
        ("/vision_config/depth", Value::from(0), "depth"),
        ("/head_dim", Value::from(17), "head_dim"),
        ("/tie_word_embeddings", Value::from("yes"), "tie_word_embeddings"),
        ("/rope_theta", Value::from(0.0), "rope_theta"),
        ("/rms_norm_eps", Value::from(-1e-6), "rms_norm_eps"),
        ("/rope_scaling/mrope_section", serde_json::json!([usize::MAX, 1, 8]), "mrope_section"),
        ("/vision_config/spatial_merge_size", Value::from(usize::MAX), "spatial_merge_size"),
        ("/hidden_act", Value::from("gelu"), "hidden_act"),
    ];
    for (pointer, value, name) in cases {
        let folder = copy("flat");
        let path = folder.path().join("config.json");
        let mut config = read_json(&path);
        let (part, field) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(part).unwrap()[field] = value;
        write_json(&path, &config);
        let error = refusal(folder.path());
        assert!(matches!(error, ModelError::Config(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains(name) && error.contains(path.to_str().unwrap()), "{pointer}: {error}");
    }
    let folder = copy("flat");
    let path = folder.path().join("config.json");
    let mut config = read_json(&path);
    config["head_dim"] = Value::from(16);
    write_json(&path, &config);
    assert!(load(folder.path()).is_ok());
}

#[test]
fn a_broken_template_is_named_with_its_file() {
    for (name, file) in [("nested", "chat_template.jinja"), ("flat", "chat_template.json")] {
        let folder = copy(name);
        let path = folder.path().join(file);
        let broken = if file.ends_with("json") { r#"{"chat_template": "{% if %}"}"# } else { "{% if %}" };
        fs::write(&path, broken).unwrap();
        let error = refusal(folder.path());
        assert!(matches!(error, ModelError::Template(_)), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

/// Adds tensors of one number to a weight file.
fn add_tensors(file: &Path, names: &[&str]) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let one = 1.0_f32.to_le_bytes();
    let view = |name: &&str| (name.to_string(), TensorView::new(safetensors::Dtype::F32, vec![1], &one).unwrap());
    let all: Vec<_> = tensors.tensors().into_iter().chain(names.iter().map(view)).collect();
    fs::write(file, safetensors::serialize(all, None).unwrap()).unwrap();
}

#[test]
fn tensors_that_the_model_has_no_place_for_are_an_error() {
    let folder = copy("flat");
    let file = folder.path().join(WEIGHTS_FILE);
    // The head of a tied model, and frequencies that old checkpoints store.
    add_tensors(&file, &["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]);
    assert!(load(folder.path()).is_ok());
    add_tensors(&file, &["model.layers.2.mlp.up_proj.weight"]);
    let error = refusal(folder.path());
    assert!(matches!(error, ModelError::UnknownTensors { .. }), "{error}");
    assert!(error.to_string().contains("model.layers.2.mlp.up_proj.weight"), "{error}");
}

/// The cause is in the chain of sources, so the message does not repeat it.
#[test]
fn a_chain_of_messages_has_the_cause_once() {
    let folder = copy("flat");
    fs::write(folder.path().join("config.json"), "{").unwrap();
    let broken_json = refusal(folder.path());
    fs::remove_file(folder.path().join("config.json")).unwrap();
    for error in [broken_json, refusal(folder.path())] {
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(!error.to_string().contains(&cause), "{error}");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}

#[test]
fn a_jpeg_that_is_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.jpg");
    for name in ["photo.jpg", "grey.jpg", "rotated.jpg"] {
        let whole = fs::read(fixtures().join("../processor/decode").join(name)).unwrap();
        for length in (2..whole.len()).step_by(23).chain(whole.len() - 8..whole.len()) {
            fs::write(&path, &whole[..length]).unwrap();
            let error = open_image(&path).map(|_| ()).expect_err(&format!("{name} of {length} bytes"));
            assert!(matches!(error, ModelError::Image { .. }), "{error}");
        }
        fs::write(&path, [&whole[..], b"trailing bytes"].concat()).unwrap();
        assert!(open_image(&path).is_ok(), "{name}");
    }
}
