//! Folders on disk: what is written is read back bit for bit, and what is broken is named.

mod common;

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use common::{
    Fixture, LOGIT_TOLERANCE, assert_close, chain, copy, fixtures, load, logits, read_checkpoint, read_json, refusal,
    write_json,
};
use ril_models::checkpoint::{INDEX_FILE, WEIGHTS_FILE, WeightType};
use ril_models::image::open_image;
use ril_models::{ChatModel, ModelError};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// Rewrites one tensor of a weight file, or leaves it out.
fn rewrite(file: &Path, name: &str, shape: Option<Vec<usize>>) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert!(tensors.tensor(name).is_ok(), "{name}");
    let changed = tensors.tensors().into_iter().filter_map(|(key, view)| {
        let shape = if key == name { shape.clone()? } else { view.shape().to_vec() };
        let bytes = shape.iter().product::<usize>() * 4;
        Some((key, TensorView::new(view.dtype(), shape, &view.data()[..bytes]).unwrap()))
    });
    let changed = safetensors::serialize(changed, None).unwrap();
    fs::write(file, changed).unwrap();
}

#[test]
fn a_saved_folder_has_the_tensors_of_the_checkpoint_and_reloads_bit_for_bit() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path(), WeightType::F32).unwrap();
        assert!(read_checkpoint(&fixture.folder) == read_checkpoint(saved.path()), "{}: other tensors", fixture.name);
        let reloaded = load(saved.path()).unwrap();
        for (name, case) in &fixture.golden.cases {
            let input = reloaded.encode(&case.messages()).unwrap();
            assert_eq!(input, model.encode(&case.messages()).unwrap(), "{} {name}", fixture.name);
            assert!(logits(&model, &input) == logits(&reloaded, &input), "{} {name}: other logits", fixture.name);
        }
        assert_eq!(reloaded.stop_ids(), model.stop_ids());
    }
}

#[test]
fn a_bf16_checkpoint_keeps_its_bits_in_both_types() {
    let fixture = Fixture::open("bf16");
    let saved = tempfile::tempdir().unwrap();
    fixture.model(&Device::flex()).save(saved.path(), WeightType::Bf16).unwrap();
    assert!(read_checkpoint(&fixture.folder) == read_checkpoint(saved.path()));
    let size = |folder: &Path| fs::metadata(folder.join(WEIGHTS_FILE)).unwrap().len();
    assert!(size(saved.path()) < size(&fixture.folder) + 1024, "not two bytes a number");
    assert_eq!(read_json(&saved.path().join("config.json"))["dtype"], "bfloat16");
}

#[test]
fn rounding_to_bf16_is_the_only_change() {
    let fixture = Fixture::open("flat");
    let saved = tempfile::tempdir().unwrap();
    fixture.model(&Device::flex()).save(saved.path(), WeightType::Bf16).unwrap();
    let (exact, rounded) = (read_checkpoint(&fixture.folder), read_checkpoint(saved.path()));
    assert!(exact.keys().eq(rounded.keys()));
    for (name, (shape, values)) in &exact {
        assert_eq!(shape, &rounded[name].0);
        for (a, b) in values.iter().zip(&rounded[name].1) {
            assert!((a - b).abs() <= a.abs() / 256.0, "{name}: {a} became {b}");
        }
    }
}

#[test]
fn a_model_on_an_autodiff_device_saves_the_same_folder() {
    let fixture = Fixture::open("nested");
    let saved = tempfile::tempdir().unwrap();
    fixture.model(&Device::flex().autodiff()).save(saved.path(), WeightType::F32).unwrap();
    assert!(read_checkpoint(&fixture.folder) == read_checkpoint(saved.path()));
}

/// A trainer saves into the folder that it started from, which may hold shards.
#[test]
fn saving_over_another_checkpoint_replaces_it() {
    let model = Fixture::open("nested").model(&Device::flex());
    let folder = copy("sharded");
    model.save(folder.path(), WeightType::F32).unwrap();
    let reloaded = load(folder.path()).unwrap();
    let input = Fixture::open("nested").golden.cases["one_image"].messages();
    let input = model.encode(&input).unwrap();
    assert!(logits(&model, &input) == logits(&reloaded, &input));
    assert_eq!(reloaded.parts().processor.config(), model.parts().processor.config());
}

#[test]
fn a_missing_shard_is_named() {
    let folder = copy("sharded");
    let shard = "model-00003-of-00005.safetensors";
    fs::remove_file(folder.path().join(shard)).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, ModelError::Io { .. }), "{error}");
    assert!(error.to_string().contains(shard), "{error}");
}

#[test]
fn a_truncated_shard_is_named_wherever_it_is_cut() {
    let shard = "model-00002-of-00005.safetensors";
    let whole = fs::read(fixtures().join("sharded").join(shard)).unwrap();
    for length in [0, 5, 8, 100, 4000, whole.len() / 2, whole.len() - 1] {
        let folder = copy("sharded");
        fs::write(folder.path().join(shard), &whole[..length]).unwrap();
        let error = refusal(folder.path());
        assert!(matches!(error, ModelError::Safetensors { .. }), "{length}: {error}");
        assert!(error.to_string().contains(shard), "{length}: {error}");
    }
}

#[test]
fn a_file_that_is_not_safetensors_is_named() {
    for junk in [vec![0xff; 64], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n".to_vec()] {
        let folder = copy("flat");
        fs::write(folder.path().join(WEIGHTS_FILE), junk).unwrap();
        let error = refusal(folder.path());
        assert!(matches!(error, ModelError::Safetensors { .. }), "{error}");
        assert!(error.to_string().contains(WEIGHTS_FILE), "{error}");
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    for (name, expected, got) in [
        ("model.layers.0.self_attn.k_proj.weight", vec![16, 48], vec![48, 16]),
        ("model.layers.1.input_layernorm.weight", vec![48], vec![47]),
        ("model.embed_tokens.weight", vec![312, 48], vec![311, 48]),
        ("visual.patch_embed.proj.weight", vec![16, 3, 2, 4, 4], vec![16, 3, 1, 4, 4]),
        ("visual.blocks.0.attn.qkv.bias", vec![48], vec![1, 48]),
    ] {
        let folder = copy("flat");
        rewrite(&folder.path().join(WEIGHTS_FILE), name, Some(got.clone()));
        let error = refusal(folder.path());
        assert!(matches!(error, ModelError::TensorShape { .. }), "{error}");
        for part in [name.to_string(), format!("{expected:?}"), format!("{got:?}"), WEIGHTS_FILE.to_string()] {
            assert!(error.to_string().contains(&part), "{error} lacks {part}");
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    for name in ["model.layers.1.mlp.up_proj.weight", "visual.merger.mlp.2.bias", "model.norm.weight"] {
        let folder = copy("flat");
        rewrite(&folder.path().join(WEIGHTS_FILE), name, None);
        let error = refusal(folder.path());
        assert!(matches!(&error, ModelError::MissingTensor { name: got, .. } if got == name), "{error}");
    }
}

#[test]
fn a_tied_configuration_needs_no_head_and_an_untied_one_does() {
    let folder = copy("flat");
    let path = folder.path().join("config.json");
    let mut config = read_json(&path);
    config["tie_word_embeddings"] = Value::from(false);
    write_json(&path, &config);
    let error = refusal(folder.path());
    assert!(matches!(&error, ModelError::MissingTensor { name, .. } if name == "lm_head.weight"), "{error}");
}

#[test]
fn an_index_that_names_no_shards_is_an_error() {
    let folder = copy("sharded");
    fs::write(folder.path().join(INDEX_FILE), "{}").unwrap();
    assert!(refusal(folder.path()).to_string().contains(INDEX_FILE));
    fs::write(folder.path().join(INDEX_FILE), "{").unwrap();
    assert!(matches!(refusal(folder.path()), ModelError::Json { .. }));
}

/// Every field that changes the numbers, in both forms of the configuration.
#[test]
fn a_configuration_without_a_field_is_refused_by_name() {
    let text = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads rms_norm_eps";
    let vision = "depth hidden_size intermediate_size num_heads patch_size spatial_merge_size temporal_patch_size \
                  window_size out_hidden_size fullatt_block_indexes";
    let ids = "image_token_id video_token_id vision_start_token_id vision_end_token_id vision_config";
    let within = |part: &str, names: &str| -> Vec<(String, String)> {
        names.split_whitespace().map(|name| (part.to_string(), name.to_string())).collect()
    };
    let flat = [within("", text), within("/vision_config", vision), within("", ids), within("", "rope_theta")];
    let nested = [
        within("/text_config", text),
        within("/vision_config", vision),
        within("", ids),
        within("/text_config/rope_parameters", "rope_theta mrope_section"),
    ];
    for (name, fields) in [("flat", flat.concat()), ("nested", nested.concat())] {
        for (part, field) in fields {
            let folder = copy(name);
            let path = folder.path().join("config.json");
            let mut config = read_json(&path);
            let removed = config.pointer_mut(&part).unwrap().as_object_mut().unwrap().remove(&field);
            assert!(removed.is_some(), "{name} has no {part}/{field}");
            write_json(&path, &config);
            let error = refusal(folder.path());
            assert!(matches!(error, ModelError::Config(_) | ModelError::Json { .. }), "{error}");
            assert!(chain(&error).contains(&field), "{part}/{field}: {error}");
        }
    }
}

#[test]
fn a_file_that_is_missing_or_broken_is_named() {
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json", WEIGHTS_FILE] {
        let folder = copy("flat");
        fs::remove_file(folder.path().join(file)).unwrap();
        assert!(refusal(folder.path()).to_string().contains(file), "{file}");
        if file.ends_with("json") {
            fs::write(folder.path().join(file), "{\"a\": ").unwrap();
            assert!(refusal(folder.path()).to_string().contains(file), "{file}");
        }
    }
}

#[test]
fn an_image_processor_of_another_patch_size_is_refused() {
    let folder = copy("flat");
    let path = folder.path().join("preprocessor_config.json");
    let mut config = read_json(&path);
    config["patch_size"] = Value::from(14);
    write_json(&path, &config);
    let error = refusal(folder.path());
    assert!(matches!(error, ModelError::Config(_)), "{error}");
    assert!(error.to_string().contains("patch_size"), "{error}");
}

#[test]
fn an_unreadable_picture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.png");
    let whole = fs::read(fixtures().join("images/tall.png")).unwrap();
    for bytes in [&b"not a picture"[..], &[], &whole[..whole.len() / 2]] {
        fs::write(&broken, bytes).unwrap();
        let error = open_image(&broken).unwrap_err();
        assert!(error.to_string().contains("broken.png"), "{error}");
        assert!(matches!(error, ModelError::Image { .. }), "{error}");
    }
    let error = open_image(&folder.path().join("none.png")).unwrap_err();
    assert!(matches!(error, ModelError::Io { .. }), "{error}");
    assert!(error.to_string().contains("none.png"), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(!error.to_string().contains(&cause), "{error}: who prints the causes would print this one twice");
}

/// `RIL_REFERENCE_PYTHON=python cargo test -p ril-models --test qwen2_5_vl_folders -- --ignored`
#[test]
#[ignore = "needs a Python with scripts/reference/requirements.txt"]
fn transformers_opens_a_saved_folder_and_scores_as_we_do() {
    let picture = fixtures().join("images/photo.png");
    for (fixture, dtype) in Fixture::all().zip([WeightType::F32, WeightType::F32, WeightType::Bf16, WeightType::Bf16]) {
        let saved = tempfile::tempdir().unwrap();
        fixture.model(&Device::flex()).save(saved.path(), dtype).unwrap();
        let theirs = common::reference_score("open_saved.py", [saved.path()], &picture);
        let (prompt, response, log_probs) = common::score(&load(saved.path()).unwrap(), &picture);
        assert_eq!(theirs["prompt_token_ids"], serde_json::json!(prompt));
        assert_eq!(theirs["response_token_ids"], serde_json::json!(response));
        let want: Vec<f32> = serde_json::from_value(theirs["log_probs"].clone()).unwrap();
        assert_close(&format!("{}: saved, log-probs", fixture.name), &log_probs, &want, LOGIT_TOLERANCE);
    }
}
