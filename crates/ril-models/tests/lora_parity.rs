//! Adapters of PEFT's folders: logits and gradients are PEFT's, and what is saved is what was read.

mod common;

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use common::lora::{Adapter, cross_entropy, gradients, peft_name, recorded_logits};
use common::{LOGIT_TOLERANCE, assert_close, fixtures, load, max_difference, read_f32, read_json};
use ril_models::checkpoint::WeightType;
use ril_models::lora::{CONFIG_FILE, LoraConfig, WEIGHTS_FILE};
use serde_json::json;

/// Largest accepted difference of a gradient, relative to the reference's norm and to its largest value.
const GRADIENT_TOLERANCE: f32 = 1e-4;

#[test]
fn logits_equal_peft() {
    for adapter in Adapter::all() {
        let model = adapter.model(&Device::flex());
        for (name, case) in &adapter.base.golden.cases {
            let what = format!("{} {name}: logits", adapter.name);
            let got = recorded_logits(&model, &adapter.base, case);
            assert_close(&what, &got, adapter.logits(name), LOGIT_TOLERANCE);
        }
    }
}

#[test]
fn a_merged_model_has_the_logits_of_peft_and_saves_them() {
    for adapter in Adapter::all() {
        let merged = adapter.model(&Device::flex()).merge_lora().unwrap();
        assert!(!merged.has_lora());
        let folder = tempfile::tempdir().unwrap();
        merged.save(folder.path(), WeightType::F32).unwrap();
        let reloaded = load(folder.path()).unwrap();
        for (name, case) in &adapter.base.golden.cases {
            let what = format!("{} {name}: merged, logits", adapter.name);
            let got = recorded_logits(&reloaded, &adapter.base, case);
            assert_close(&what, &got, adapter.logits(name), LOGIT_TOLERANCE);
        }
    }
}

#[test]
fn gradients_of_the_factors_equal_peft_and_nothing_else_has_one() {
    for adapter in Adapter::all() {
        // PEFT's gradients are those of a model in evaluation, where dropout does nothing.
        let model = adapter.with_settings(&json!({"lora_dropout": 0.0}), &Device::flex().autodiff());
        let loss = cross_entropy(&model, &adapter.base, adapter.case());
        let value = loss.clone().into_scalar::<f32>();
        assert!((value / adapter.golden.loss - 1.0).abs() < 1e-5, "{}: {value}", adapter.name);
        let got = gradients(&model, &loss.backward());
        let wanted = adapter.tensors.keys().filter(|name| name.starts_with("gradient.")).count();
        assert_eq!(got.len(), wanted, "{}: {:?}", adapter.name, got.keys());
        let (mut by_norm, mut by_max) = (0.0_f32, 0.0_f32);
        for (path, (shape, got)) in &got {
            let (want_shape, want) = &adapter.tensors[&format!("gradient.{}", peft_name(path))];
            assert_eq!(shape, want_shape, "{} {path}", adapter.name);
            let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
            let largest = |v: &[f32]| v.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let difference: Vec<f32> = got.iter().zip(want).map(|(a, b)| a - b).collect();
            by_norm = by_norm.max(norm(&difference) / norm(want));
            by_max = by_max.max(largest(&difference) / largest(want));
        }
        println!("{}: gradients: norm {by_norm:.2e}, max {by_max:.2e}", adapter.name);
        assert!(by_norm <= GRADIENT_TOLERANCE && by_max <= GRADIENT_TOLERANCE, "{}", adapter.name);
    }
}

#[test]
fn a_saved_adapter_has_the_tensors_and_the_settings_that_were_read() {
    for adapter in Adapter::all() {
        let dtype = if adapter.name == "bf16" { WeightType::Bf16 } else { WeightType::F32 };
        let saved = tempfile::tempdir().unwrap();
        adapter.model(&Device::flex()).save_adapter(saved.path(), dtype).unwrap();
        let tensors = |folder: &Path| read_f32(&fs::read(folder.join(WEIGHTS_FILE)).unwrap());
        assert!(tensors(saved.path()) == tensors(&adapter.folder), "{}: other tensors", adapter.name);
        let size = |folder: &Path| fs::metadata(folder.join(WEIGHTS_FILE)).unwrap().len();
        assert!(size(saved.path()) < size(&adapter.folder) + 1024, "{}: a larger file", adapter.name);
        let settings = |folder: &Path| LoraConfig::from_folder(folder).unwrap();
        assert_eq!(settings(saved.path()), settings(&adapter.folder), "{}", adapter.name);
        // Every field is one that PEFT writes, with the value that it wrote.
        let (ours, theirs) = (read_json(&saved.path().join(CONFIG_FILE)), read_json(&adapter.folder.join(CONFIG_FILE)));
        for (name, value) in ours.as_object().unwrap() {
            let same = value == &theirs[name] || value.as_f64().is_some_and(|v| Some(v) == theirs[name].as_f64());
            let is_exact = same || name == "alpha_pattern";
            assert!(is_exact, "{}: {name} is {value}, not {}", adapter.name, theirs[name]);
        }
        let again = adapter.base.model(&Device::flex()).load_adapter(saved.path()).unwrap();
        let got = recorded_logits(&again, &adapter.base, adapter.case());
        let want = recorded_logits(&adapter.model(&Device::flex()), &adapter.base, adapter.case());
        assert!(got == want, "{}: other logits", adapter.name);
    }
}

/// `RIL_REFERENCE_PYTHON=python cargo test -p ril-models --test lora_parity -- --ignored`
#[test]
#[ignore = "needs a Python with scripts/reference/requirements.txt"]
fn peft_opens_a_saved_adapter_and_scores_as_we_do() {
    let picture = fixtures().join("images/photo.png");
    for adapter in Adapter::all() {
        let saved = tempfile::tempdir().unwrap();
        let dtype = if adapter.name == "bf16" { WeightType::Bf16 } else { WeightType::F32 };
        let model = adapter.model(&Device::flex());
        model.save_adapter(saved.path(), dtype).unwrap();
        let theirs = common::reference_score(
            "peft_lora.py",
            ["--score".as_ref(), adapter.base.folder.as_os_str(), saved.path().as_os_str()],
            &picture,
        );
        let (prompt, response, log_probs) = common::score(&model, &picture);
        assert_eq!(theirs["prompt_token_ids"], serde_json::json!(prompt));
        assert_eq!(theirs["response_token_ids"], serde_json::json!(response));
        let want: Vec<f32> = serde_json::from_value(theirs["log_probs"].clone()).unwrap();
        assert_close(&format!("{}: saved, log-probs", adapter.name), &log_probs, &want, LOGIT_TOLERANCE);
        let plain = common::score(&adapter.base.model(&Device::flex()), &picture).2;
        assert!(max_difference(&plain, &want) > 0.1, "{}: the adapter does nothing", adapter.name);
    }
}
