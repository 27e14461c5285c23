//! Properties of adapters, and what is refused.

mod common;

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use common::lora::{Adapter, ByName, cross_entropy, gradients, parameters, recorded_logits};
use common::{Fixture, assert_close, logits, max_difference, read_json, write_json};
use ril_models::checkpoint::WeightType;
use ril_models::lora::{CONFIG_FILE, LoraConfig, Overrides, TargetModules, WEIGHTS_FILE};
use ril_models::{CausalLm, ModelError, Qwen2_5Vl};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::json;

fn all_linear(dropout: f64) -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, dropout, target_modules: TargetModules::AllLinear, ..LoraConfig::default() }
}

fn names(names: &[&str]) -> TargetModules {
    TargetModules::Names(names.iter().map(|&name| name.into()).collect())
}

/// Adapters trained for some steps on one case; the loss of each step.
fn trained(model: Qwen2_5Vl, fixture: &Fixture, steps: u64) -> (Qwen2_5Vl, Vec<f32>) {
    let case = &fixture.golden.cases["one_image"];
    let mut optimizer = AdamWConfig::new().init();
    let (mut model, mut losses) = (model, Vec::new());
    for step in 0..steps {
        model = model.at_step(step);
        let loss = cross_entropy(&model, fixture, case);
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-2, model, gradients);
    }
    (model, losses)
}

fn is_factor(path: &str) -> bool {
    path.ends_with(".lora.a") || path.ends_with(".lora.b")
}

#[test]
fn a_fresh_adapter_changes_no_logit() {
    for fixture in Fixture::all() {
        let plain = fixture.model(&Device::flex());
        let adapted = plain.clone().with_lora(&all_linear(0.5), 1).unwrap();
        for case in fixture.golden.cases.values() {
            let input = fixture.input(case);
            assert!(logits(&plain, &input) == logits(&adapted, &input), "{}", fixture.name);
        }
    }
}

#[test]
fn training_moves_the_factors_alone() {
    let fixture = Fixture::open("flat");
    let base = fixture.model(&Device::flex().autodiff());
    let before = parameters(&base);
    let (model, losses) = trained(base.with_lora(&all_linear(0.0), 1).unwrap(), &fixture, 8);
    assert!(losses[7] < losses[0] * 0.9, "{losses:?}");
    let after = parameters(&model);
    let factors: ByName =
        after.iter().filter(|(path, _)| is_factor(path)).map(|(k, v)| (k.clone(), v.clone())).collect();
    assert_eq!(factors.len(), 2 * (5 * 3 + 2 + 7 * 2), "two factors of each linear layer but the head");
    assert!(before.iter().all(|(path, value)| &after[path] == value), "a weight below the adapters has moved");
    assert_eq!(before.len() + factors.len(), after.len());
    assert!(factors.iter().filter(|(path, _)| path.ends_with('b')).all(|(_, b)| b.1.iter().any(|&v| v != 0.0)));

    let loss = cross_entropy(&model, &fixture, &fixture.golden.cases["one_image"]);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    assert_eq!(gradients.len(), factors.len(), "frozen weights have no gradient");
}

#[test]
fn merging_changes_nothing_and_gives_a_model_that_is_trained_as_a_whole() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex().autodiff()).with_lora(&all_linear(0.0), 1).unwrap();
        let (model, _) = trained(model, &fixture, 3);
        let merged = model.clone().merge_lora().unwrap();
        for (name, case) in &fixture.golden.cases {
            let [got, want] = [&merged, &model].map(|model| recorded_logits(&model.valid(), &fixture, case));
            let plain = recorded_logits(&fixture.model(&Device::flex()), &fixture, case);
            assert!(max_difference(&plain, &want) > 1e-2, "{} {name}", fixture.name);
            assert_close(&format!("{} {name}: merged", fixture.name), &got, &want, 2e-5);
        }
        let case = &fixture.golden.cases["one_image"];
        let found = gradients(&merged, &cross_entropy(&merged, &fixture, case).backward());
        assert_eq!(found.len(), parameters(&merged).len(), "{}: a weight is still frozen", fixture.name);
        assert!(parameters(&merged).keys().all(|path| !is_factor(path)));
    }
}

#[test]
fn without_its_adapters_a_model_is_what_it_was() {
    let adapter = Adapter::open("all_linear");
    let (with, base) = (adapter.model(&Device::flex()), adapter.base.model(&Device::flex()));
    assert!(with.has_lora() && parameters(&with) != parameters(&base));
    let without = with.without_lora();
    assert!(!without.has_lora() && parameters(&without) == parameters(&base));
}

/// One adapted layer after which nothing is bent: what is added to the logits is linear in the scale.
#[test]
fn twice_the_alpha_adds_twice_as_much() {
    let fixture = Fixture::open("nested");
    let case = &fixture.golden.cases["text"];
    let config = LoraConfig { target_modules: names(&["layers.0.self_attn.q_proj"]), ..all_linear(0.0) };
    let (model, _) = trained(fixture.model(&Device::flex().autodiff()).with_lora(&config, 1).unwrap(), &fixture, 2);
    let folder = tempfile::tempdir().unwrap();
    model.save_adapter(folder.path(), WeightType::F32).unwrap();
    let weight = |alpha: f64| {
        let path = folder.path().join(CONFIG_FILE);
        let mut settings = read_json(&path);
        settings["lora_alpha"] = json!(alpha);
        write_json(&path, &settings);
        let merged = fixture.model(&Device::flex()).load_adapter(folder.path()).unwrap().merge_lora().unwrap();
        parameters(&merged).remove("model.layers.0.self_attn.q_proj.weight").unwrap().1
    };
    let (zero, once, twice) = (weight(0.0), weight(6.0), weight(12.0));
    let moved = max_difference(&zero, &once);
    assert!(moved > 1e-3, "{moved}");
    let want: Vec<f32> = zero.iter().zip(&once).map(|(zero, once)| 2.0 * once - zero).collect();
    assert_close("twice the alpha", &twice, &want, moved * 1e-4);
    let at_zero = fixture.model(&Device::flex());
    assert_eq!(parameters(&at_zero)["model.layers.0.self_attn.q_proj.weight"].1, zero);
    assert!(recorded_logits(&at_zero, &fixture, case).iter().all(|logit| logit.is_finite()));
}

#[test]
fn the_seed_decides_and_each_layer_has_its_own() {
    let fixture = Fixture::open("nested");
    let factors = |seed| parameters(&fixture.model(&Device::flex()).with_lora(&all_linear(0.0), seed).unwrap());
    let (one, two) = (factors(1), factors(2));
    assert!(one == factors(1));
    let mut seen: Vec<&Vec<f32>> = Vec::new();
    for (path, (shape, a)) in one.iter().filter(|(path, _)| path.ends_with(".lora.a")) {
        assert_ne!(a, &two[path].1, "{path}");
        let bound = (shape[1] as f32).powf(-0.5);
        assert!(a.iter().all(|value| value.abs() <= bound), "{path}");
        assert!(a.iter().any(|value| value.abs() > 0.8 * bound), "{path}");
        assert!(seen.iter().all(|other| other[..4] != a[..4]), "{path}");
        seen.push(a);
    }
}

#[test]
fn dropout_is_drawn_anew_in_each_step_and_never_without_a_tape() {
    let fixture = Fixture::open("nested");
    let model = fixture.model(&Device::flex().autodiff()).with_lora(&all_linear(0.3), 1).unwrap();
    let (model, _) = trained(model, &fixture, 3);
    let case = &fixture.golden.cases["one_image"];
    let loss = |model: &Qwen2_5Vl| cross_entropy(model, &fixture, case).into_scalar::<f32>();
    let at = |step| loss(&model.clone().at_step(step));
    assert_eq!(at(7), at(7));
    assert_ne!(at(7), at(8));
    let undropped = loss(&model.valid());
    assert_eq!(loss(&model.valid().at_step(8)), undropped);
    assert_ne!(at(7), undropped);
    // On a fork too, where a micro-batch runs.
    assert_eq!(loss(&model.clone().at_step(7).fork(&Device::flex().autodiff())), at(7));
    // The mean over many draws is near the model without dropout, for one layer whose output the loss is smooth in.
    let mean = (0..200).map(at).sum::<f32>() / 200.0;
    assert!((mean - undropped).abs() < 0.1 * undropped, "{mean} {undropped}");
}

#[test]
fn an_adapter_goes_on_a_rounded_base() {
    let fixture = Fixture::open("flat");
    let device = Device::flex().autodiff();
    let rounded = fixture.model(&device).into_int8();
    let model = rounded.clone().with_lora(&LoraConfig { rank: 4, ..LoraConfig::default() }, 1).unwrap();
    let case = &fixture.golden.cases["one_image"];
    assert!(recorded_logits(&model.valid(), &fixture, case) == recorded_logits(&rounded.valid(), &fixture, case));
    let (model, losses) = trained(model, &fixture, 6);
    assert!(losses[5] < losses[0], "{losses:?}");
    let folder = tempfile::tempdir().unwrap();
    model.save_adapter(folder.path(), WeightType::F32).unwrap();
    let again = fixture.model(&Device::flex()).into_int8().load_adapter(folder.path()).unwrap();
    assert!(recorded_logits(&again, &fixture, case) == recorded_logits(&model.valid(), &fixture, case));
    // The other order gives the same: rounding leaves the factors alone.
    let other = fixture.model(&Device::flex()).load_adapter(folder.path()).unwrap().into_int8();
    assert!(recorded_logits(&other, &fixture, case) == recorded_logits(&model.valid(), &fixture, case));
    assert!(matches!(model.merge_lora(), Err(ModelError::Quantized { .. })));
}

#[test]
fn a_record_carries_the_adapters() {
    let adapter = Adapter::open("all_linear");
    let (model, base) = (adapter.model(&Device::flex()), adapter.base.model(&Device::flex()));
    let record = model.clone().into_record();
    let restored = base.with_lora(&LoraConfig { rank: 3, alpha: 5.0, ..all_linear(0.0) }, 9).unwrap();
    let restored = restored.try_load_record(record).unwrap();
    assert!(parameters(&restored) == parameters(&model));
    assert!(
        recorded_logits(&restored, &adapter.base, adapter.case())
            == recorded_logits(&model, &adapter.base, adapter.case())
    );
}

#[test]
fn what_a_model_with_adapters_cannot_do_is_refused() {
    let adapter = Adapter::open("attention");
    let model = adapter.model(&Device::flex());
    let folder = tempfile::tempdir().unwrap();
    let error = model.save(folder.path(), WeightType::F32).unwrap_err();
    assert!(matches!(error, ModelError::Adapters("save")), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let error = model.clone().load_adapter(&adapter.folder).map(|_| ()).unwrap_err();
    assert!(matches!(error, ModelError::Adapters("load_adapter")), "{error}");
    let error = model.with_lora(&LoraConfig::default(), 0).map(|_| ()).unwrap_err();
    assert!(matches!(error, ModelError::Adapters("with_lora")), "{error}");
    let error = adapter.base.model(&Device::flex()).save_adapter(folder.path(), WeightType::F32).unwrap_err();
    assert!(matches!(error, ModelError::NoAdapters("save_adapter")), "{error}");
}

#[test]
fn settings_that_name_no_linear_layer_are_refused() {
    let model = Fixture::open("nested").model(&Device::flex());
    for (targets, named) in [
        (names(&["none"]), "none"),
        (names(&["q_proj", "lm_head"]), "lm_head"),
        (names(&["embed_tokens"]), "embed_tokens"),
        // A convolution in the reference; `all-linear` leaves it out.
        (names(&["proj"]), "patch_embed.proj"),
        (TargetModules::Pattern("q_proj".into()), "q_proj"),
        (TargetModules::Pattern("(".into()), "target_modules"),
        // PEFT refuses a module that holds others, whatever else is named.
        (names(&["self_attn", "q_proj"]), "layers.0.self_attn is named"),
        (TargetModules::Pattern(".*self_attn.*".into()), "layers.0.self_attn is named"),
    ] {
        let config = LoraConfig { target_modules: targets, ..LoraConfig::default() };
        let error = model.clone().with_lora(&config, 0).map(|_| ()).unwrap_err();
        assert!(matches!(error, ModelError::Config(_)) && error.to_string().contains(named), "{error}");
    }
    let config = LoraConfig { rank: 0, ..LoraConfig::default() };
    assert!(matches!(model.with_lora(&config, 0), Err(ModelError::Config(_))));
}

/// Rewrites an adapter's tensors under other names, or leaves some out.
fn rename(folder: &Path, name: impl Fn(&str) -> Option<String>) {
    let path = folder.join(WEIGHTS_FILE);
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.tensors().into_iter().filter_map(|(key, view)| {
        Some((name(&key)?, TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap()))
    });
    let renamed = safetensors::serialize(renamed, None).unwrap();
    fs::write(&path, renamed).unwrap();
}

#[test]
fn names_of_earlier_module_trees_are_read_and_todays_are_written() {
    let adapter = Adapter::open("all_linear");
    let expected = recorded_logits(&adapter.model(&Device::flex()), &adapter.base, adapter.case());
    for (text, vision) in [("model", "visual"), ("language_model.model", "visual"), ("model.language_model", "visual")]
    {
        let folder = adapter.copy();
        rename(folder.path(), |name| {
            let name = name.replace("model.model.language_model", &format!("model.{text}"));
            Some(name.replace("model.model.visual", &format!("model.{vision}")))
        });
        let model = adapter.base.model(&Device::flex()).load_adapter(folder.path()).unwrap();
        assert!(recorded_logits(&model, &adapter.base, adapter.case()) == expected, "{text}");
        let saved = tempfile::tempdir().unwrap();
        model.save_adapter(saved.path(), WeightType::F32).unwrap();
        let read = |folder: &Path| common::read_f32(&fs::read(folder.join(WEIGHTS_FILE)).unwrap());
        assert!(read(saved.path()) == read(&adapter.folder), "{text}");
    }
}

/// Rules that fit an earlier module tree alone become rules for today's, or PEFT would find no layer.
#[test]
fn rules_for_an_earlier_module_tree_are_rewritten() {
    let fixture = Fixture::open("nested");
    let config = LoraConfig {
        target_modules: TargetModules::Pattern(r"model\.layers\.\d+\.self_attn\.(q|k)_proj|visual\..*gate_proj".into()),
        exclude_modules: Some(TargetModules::Pattern(r"visual\.blocks\.0\..*".into())),
        rank_pattern: Overrides::from_iter([(r"model\.layers\.1.*".to_string(), 2)]),
        ..LoraConfig::default()
    };
    let model = fixture.model(&Device::flex()).with_lora(&config, 0).unwrap();
    let found = parameters(&model);
    assert_eq!(found.keys().filter(|path| path.ends_with(".lora.a")).count(), 2 * 2 + 2);
    let rank = |layer: usize| found[&format!("model.layers.{layer}.self_attn.q_proj.lora.a")].0[0];
    assert_eq!((rank(0), rank(1)), (8, 2));
    let rewritten = model.lora_config().unwrap();
    assert!(matches!(&rewritten.target_modules, TargetModules::Names(names) if names.len() == 6));
    assert_eq!(rewritten.exclude_modules, None);
    let folder = tempfile::tempdir().unwrap();
    model.save_adapter(folder.path(), WeightType::F32).unwrap();
    let again = fixture.model(&Device::flex()).load_adapter(folder.path()).unwrap();
    assert!(parameters(&again) == found);
    assert_eq!(again.lora_config(), Some(rewritten));
}

#[test]
fn a_broken_adapter_is_named() {
    let adapter = Adapter::open("attention");
    let refusal = |folder: &Path| adapter.base.model(&Device::flex()).load_adapter(folder).map(|_| ()).unwrap_err();
    let missing = "base_model.model.model.language_model.layers.1.self_attn.k_proj.lora_B.weight";
    let folder = adapter.copy();
    rename(folder.path(), |name| (name != missing).then(|| name.into()));
    let error = refusal(folder.path());
    assert!(matches!(&error, ModelError::MissingTensor { name, .. } if name == missing), "{error}");

    let folder = adapter.copy();
    rename(folder.path(), |name| Some(name.replace("layers.1.self_attn.k_proj", "layers.7.self_attn.k_proj")));
    assert!(matches!(refusal(folder.path()), ModelError::MissingTensor { .. }));

    // Fewer layers named than the file has tensors of.
    let folder = adapter.copy();
    let path = folder.path().join(CONFIG_FILE);
    let mut settings = read_json(&path);
    settings["target_modules"] = json!(["q_proj"]);
    write_json(&path, &settings);
    let error = refusal(folder.path());
    assert!(matches!(&error, ModelError::UnknownTensors { names, .. } if names.len() == 12), "{error}");

    settings["target_modules"] = json!(["q_proj", "k_proj", "v_proj", "o_proj"]);
    settings["r"] = json!(5);
    write_json(&path, &settings);
    let error = refusal(folder.path());
    assert!(matches!(&error, ModelError::TensorShape { .. }), "{error}");
    assert!(error.to_string().contains("lora_A"), "{error}");

    for name in [CONFIG_FILE, WEIGHTS_FILE] {
        let folder = adapter.copy();
        fs::remove_file(folder.path().join(name)).unwrap();
        assert!(refusal(folder.path()).to_string().contains(name));
        fs::write(folder.path().join(name), "{").unwrap();
        assert!(refusal(folder.path()).to_string().contains(name));
    }

    settings["r"] = json!(4);
    settings["use_dora"] = json!(true);
    write_json(&path, &settings);
    let error = refusal(path.parent().unwrap()).to_string();
    assert!(error.contains("use_dora") && error.contains(CONFIG_FILE), "{error}");
}

#[test]
fn an_adapter_is_saved_over_another_one() {
    let (small, large) = (Adapter::open("attention"), Adapter::open("patterns"));
    let folder = small.copy();
    let model = large.model(&Device::flex());
    model.save_adapter(folder.path(), WeightType::F32).unwrap();
    let again = large.base.model(&Device::flex()).load_adapter(folder.path()).unwrap();
    assert!(parameters(&again) == parameters(&model));
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 2, "no temporary file stays");
}

#[test]
fn ranks_of_single_layers_are_used() {
    let fixture = Fixture::open("nested");
    let config = LoraConfig {
        rank_pattern: Overrides::from_iter([(r"layers\.1\.self_attn\.q_proj".to_string(), 2)]),
        target_modules: names(&["q_proj"]),
        ..LoraConfig::default()
    };
    let found = parameters(&fixture.model(&Device::flex()).with_lora(&config, 0).unwrap());
    let rank = |layer: usize| found[&format!("model.layers.{layer}.self_attn.q_proj.lora.a")].0[0];
    assert_eq!((rank(0), rank(1)), (8, 2));
}
