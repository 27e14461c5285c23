//! Students that are trained through adapters: the same trainers, and a base that stays.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device};
use ril::grpo::{SamplerBound, SamplerCorrection, SamplerLevel};
use ril::models::{CausalLm, LoraConfig, Qwen2_5Vl};
use ril::reward::RuleJudge;
use ril::{Learner, RilConfig, RilTrainer, SftTrainer, Stage, discriminator_from};

use crate::models::fresh;
use crate::resume::{Mortal, outcome, resumes_exactly, run, sft_of};
use crate::support::{STEPS, TINY, adapted_student, adapters, config, student, trainer, trainer_of, weights};
use crate::vocabulary::Vocabulary;

fn loop_of(student: Qwen2_5Vl) -> RilTrainer<Qwen2_5Vl, RuleJudge> {
    trainer_of(student, config(), RuleJudge::default()).unwrap()
}

#[test]
fn a_killed_loop_ends_with_the_same_adapters_and_metrics() {
    resumes_exactly(|| loop_of(adapted_student()), RilTrainer::policy);
}

#[test]
fn a_killed_sft_ends_with_the_same_adapters_and_metrics() {
    resumes_exactly(|| sft_of(adapted_student()), SftTrainer::model);
}

#[test]
fn sft_lowers_the_loss_and_leaves_the_base() {
    let base = weights(&student().valid());
    let mut trainer = sft_of(adapted_student());
    let fresh = weights(&trainer.model());
    let losses: Vec<f64> = (0..30).map(|_| trainer.step().unwrap().get("loss").unwrap()).collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[25..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
    assert!(weights(&trainer.model()) != fresh, "the adapters are where they were");
    assert!(weights(&trainer.model().without_lora()) == base, "the base has moved");
    assert!(weights(&trainer.model().merge_lora().unwrap()) != base);
}

#[test]
fn the_loop_leaves_the_base_of_policy_and_discriminator() {
    let base = weights(&student().valid());
    let mut trainer = loop_of(adapted_student());
    let read = |trainer: &RilTrainer<Qwen2_5Vl, RuleJudge>| {
        trainer.discriminator().expect("the loop has one").encoder().model.clone()
    };
    let fresh = weights(&read(&trainer));
    for _ in 0..STEPS {
        let metrics = trainer.step().unwrap();
        assert!(metrics.get("grad_norm").unwrap() > 0.0 && metrics.get("discriminator/grad_norm").unwrap() > 0.0);
        // Old log-probs are the current ones with their dropout.
        assert_eq!(metrics.get("student/ratio"), Some(1.0));
    }
    assert!(weights(&trainer.policy().without_lora()) == base);
    let discriminator = read(&trainer);
    assert!(weights(&discriminator) != fresh, "its adapters are where they were");
    assert!(weights(&discriminator.without_lora()) == base);
    let without = trainer_of(adapted_student(), RilConfig::dr_grpo(6, STEPS), RuleJudge::default()).unwrap();
    assert!(without.discriminator().is_none());
}

/// The sampler draws without dropout, so that the correction for it is the same with dropout and without.
#[test]
fn dropout_is_not_taken_for_the_sampler() {
    let (level, bound) = (SamplerLevel::Token, SamplerBound::Truncate);
    let mut config = config();
    config.sampler_correction = Some(SamplerCorrection { level, bound, min_ratio: 0.0, max_ratio: 3.0 });
    (config.policy.learning_rate, config.policy.final_learning_rate) = (3e-2, 3e-2);
    let new = |dropout: f64, config: &RilConfig| {
        let student = student().with_lora(&LoraConfig { dropout, ..adapters() }, 11).unwrap();
        trainer_of(student, config.clone(), RuleJudge::default()).unwrap()
    };
    // Fresh adapters add nothing, with dropout or without.
    let folder = tempfile::tempdir().unwrap();
    let mut trained = new(0.1, &config);
    (0..2).for_each(|_| drop(trained.step().unwrap()));
    trained.save(folder.path()).unwrap();
    for updates in [1, 2] {
        config.updates_per_rollout = updates;
        let [with, without] = [0.1, 0.0].map(|dropout| {
            let mut trainer = new(dropout, &config);
            trainer.restore(folder.path(), 2).unwrap();
            trainer.step().unwrap()
        });
        for name in ["sampling_logp_difference/mean", "importance_sampling_ratio/min", "importance_sampling_ratio/max"]
        {
            let [with, without] = [&with, &without].map(|metrics| metrics.get(&format!("sampling/{name}")).unwrap());
            assert!((with - without).abs() < 1e-5, "{updates} updates, {name}: {with} {without}");
        }
        let log_probs = [&with, &without].map(|metrics| metrics.get("student/log_prob").unwrap());
        assert!((log_probs[0] - log_probs[1]).abs() > 1e-3, "the passes with a gradient have dropout: {log_probs:?}");
        // With one update the ratio has the same dropout above and below.
        assert_eq!(with.get("student/ratio").unwrap() == 1.0, updates == 1);
    }
}

#[test]
fn threads_change_nothing() {
    let run = |passes_at_once| {
        let mut config = config();
        config.policy.passes_at_once = passes_at_once;
        let mut trainer = trainer_of(adapted_student(), config, RuleJudge::default()).unwrap();
        let metrics: Vec<_> = (0..STEPS).map(|_| trainer.step().unwrap()).collect();
        (metrics, weights(&trainer.policy()))
    };
    assert!(run(1) == run(2));
}

#[test]
fn checkpoints_hold_adapters_alone() {
    let bytes = |student: Qwen2_5Vl| {
        let folder = tempfile::tempdir().unwrap();
        let trainer = loop_of(student);
        trainer.save(folder.path()).unwrap();
        ["policy", "discriminator"].map(|name| folder.path().join(format!("{name}-0.bpk")).metadata().unwrap().len())
    };
    let (whole, adapters) = (bytes(student()), bytes(adapted_student()));
    for (whole, adapters) in whole.iter().zip(adapters) {
        assert!(adapters * 2 < *whole, "{adapters} of {whole}");
    }
}

#[test]
fn a_checkpoint_of_a_whole_model_does_not_fit_adapters() {
    let folder = tempfile::tempdir().unwrap();
    trainer(config()).unwrap().save(folder.path()).unwrap();
    let error = loop_of(adapted_student()).restore(folder.path(), 0).unwrap_err();
    let message = ril::explain(&error);
    assert!(message.contains("policy-0.bpk") && message.contains("trainable"), "{message}");
    loop_of(adapted_student()).save(folder.path()).unwrap();
    let message = ril::explain(&trainer(config()).unwrap().restore(folder.path(), 0).unwrap_err());
    assert!(message.contains("policy-0.bpk"), "{message}");
}

/// The message of a checkpoint that a student refuses; whether the student is as it was then.
fn refused(folder: &Path, student: Qwen2_5Vl) -> String {
    let mut trainer = sft_of(student.clone());
    let message = ril::explain(&trainer.restore(folder, 2).unwrap_err());
    let mut untouched = sft_of(student);
    assert_eq!(trainer.next_step(), 0);
    for _ in 0..2 {
        assert_eq!(trainer.step().unwrap(), untouched.step().unwrap());
    }
    assert!(weights(&trainer.model()) == weights(&untouched.model()));
    message
}

/// A checkpoint of two steps.
fn checkpoint_of(student: Qwen2_5Vl) -> (tempfile::TempDir, SftTrainer<Qwen2_5Vl>) {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = sft_of(student);
    (0..2).for_each(|_| drop(trainer.step().unwrap()));
    trainer.save(folder.path()).unwrap();
    (folder, trainer)
}

fn other_student() -> Qwen2_5Vl {
    fresh(TINY, &Vocabulary::new(), 8, &Device::flex().autodiff()).unwrap()
}

#[test]
fn adapters_do_not_go_on_another_base() {
    let (folder, _) = checkpoint_of(adapted_student());
    let message = refused(folder.path(), other_student().with_lora(&adapters(), 11).unwrap());
    assert!(message.contains("model-base-2.json") && message.contains("frozen tensor"), "{message}");
    // One layer alone is enough.
    let mut merged = student();
    merged.model.layers[0].mlp.up_proj = other_student().model.layers[0].mlp.up_proj.clone();
    let message = refused(folder.path(), merged.with_lora(&adapters(), 11).unwrap());
    assert!(message.contains("frozen tensor model.layers.0.mlp.up_proj.weight: expected f32"), "{message}");
}

#[test]
fn adapters_do_not_go_on_with_another_scale() {
    let (folder, _) = checkpoint_of(adapted_student());
    let with = |lora: LoraConfig| student().with_lora(&lora, 11).unwrap();
    for lora in [LoraConfig { alpha: 4.0, ..adapters() }, LoraConfig { use_rslora: true, ..adapters() }] {
        let message = refused(folder.path(), with(lora));
        assert!(message.contains("model-base-2.json") && message.contains("expected 2, got"), "{message}");
    }
    let one = [("q_proj".to_string(), 4.0)].into_iter().collect();
    let message = refused(folder.path(), with(LoraConfig { alpha_pattern: one, ..adapters() }));
    let layer = "scale of adapter model.language_model.layers.0.self_attn.q_proj: expected 2, got 1";
    assert!(message.contains(layer), "{message}");
}

#[test]
fn adapters_go_on_the_same_base_however_the_settings_are_spelled() {
    let (folder, mut trainer) = checkpoint_of(adapted_student());
    // The same scale, and what only training depends on.
    let lora = LoraConfig { alpha: 4.0, use_rslora: true, ..adapters() };
    let mut restored = sft_of(student().with_lora(&lora, 11).unwrap());
    restored.restore(folder.path(), 2).unwrap();
    assert!(weights(&restored.model()) == weights(&trainer.model()));
    assert_eq!(restored.step().unwrap(), trainer.step().unwrap());
    let mut without_dropout = sft_of(student().with_lora(&LoraConfig { dropout: 0.0, ..lora }, 3).unwrap());
    without_dropout.restore(folder.path(), 2).unwrap();
}

#[test]
fn a_checkpoint_of_adapters_says_what_base_it_is_for() {
    let (folder, _) = checkpoint_of(adapted_student());
    let file = folder.path().join("model-base-2.json");
    std::fs::write(&file, "{").unwrap();
    let message = refused(folder.path(), adapted_student());
    assert!(message.contains("model-base-2.json") && message.contains("EOF"), "{message}");
    std::fs::remove_file(&file).unwrap();
    let message = refused(folder.path(), adapted_student());
    assert!(message.contains("model-base-2.json") && message.contains("no such file"), "{message}");
    // A whole model is in its checkpoint.
    let (folder, _) = checkpoint_of(student());
    assert!(!folder.path().join("model-base-2.json").exists());
    sft_of(other_student()).restore(folder.path(), 2).unwrap();
}

#[test]
fn a_discriminator_keeps_its_base_and_scales_apart() {
    let folder = tempfile::tempdir().unwrap();
    let of = |student: Qwen2_5Vl| {
        let discriminator = discriminator_from(student, 5, &Device::flex().autodiff());
        Learner::of_discriminator(discriminator, config().discriminator)
    };
    of(adapted_student()).save(folder.path(), "discriminator", 0).unwrap();
    of(adapted_student()).restore(folder.path(), "discriminator", 0).unwrap();
    let others = [(other_student(), adapters()), (student(), LoraConfig { alpha: 1.0, ..adapters() })];
    for ((student, lora), what) in others.into_iter().zip(["frozen tensor encoder.model.", "scale of adapter"]) {
        let mut learner = of(student.with_lora(&lora, 11).unwrap());
        let message = ril::explain(&learner.restore(folder.path(), "discriminator", 0).unwrap_err());
        assert!(message.contains("discriminator-base-0.json") && message.contains(what), "{message}");
    }
}

#[test]
fn a_base_of_8_bits_is_told_from_others() {
    let adapted = |student: Qwen2_5Vl| student.into_int8().with_lora(&adapters(), 11).unwrap();
    let dtype = adapted(student()).head_weight().dtype();
    assert!(matches!(dtype, DType::QFloat(_)), "{dtype:?}");
    let (folder, mut trainer) = checkpoint_of(adapted(student()));
    let mut restored = sft_of(adapted(student()));
    restored.restore(folder.path(), 2).unwrap();
    assert!(weights(&restored.model()) == weights(&trainer.model()));
    assert_eq!(restored.step().unwrap(), trainer.step().unwrap());
    for other in [adapted_student(), adapted(other_student())] {
        let message = refused(folder.path(), other);
        assert!(message.contains("frozen tensor") && message.contains("expected qfloat"), "{message}");
    }
}

#[test]
fn a_run_goes_on_from_the_checkpoint_before_one_without_its_base() {
    let (whole, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut stage = sft_of(adapted_student());
    run(whole.path(), &mut stage).unwrap();
    let expected = outcome(whole.path(), &stage.model());
    run(damaged.path(), &mut Mortal { stage: sft_of(adapted_student()), left: 4 }).unwrap_err();
    let checkpoints = damaged.path().join("checkpoints/stage");
    std::fs::remove_file(checkpoints.join("step-4/model-base-4.json")).unwrap();
    let mut stage = sft_of(adapted_student());
    run(damaged.path(), &mut stage).unwrap();
    assert!(outcome(damaged.path(), &stage.model()) == expected, "from step 2");
    assert_eq!(std::fs::read_dir(checkpoints).unwrap().count(), 2);
    let error = run(damaged.path(), &mut sft_of(other_student().with_lora(&adapters(), 11).unwrap())).unwrap_err();
    assert!(ril::explain(&error).contains("model-base-5.json"), "{error}");
}
