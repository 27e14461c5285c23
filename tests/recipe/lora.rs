//! Students that are trained through adapters: the same trainers, and a base that stays.

use burn::module::Module;
use ril::models::Qwen2_5Vl;
use ril::reward::RuleJudge;
use ril::{RilTrainer, SftTrainer, Stage};

use crate::resume::{resumes_exactly, sft_of};
use crate::support::{STEPS, adapted_student, config, student, trainer, trainer_of, weights};

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
    for _ in 0..STEPS {
        let metrics = trainer.step().unwrap();
        assert!(metrics.get("grad_norm").unwrap() > 0.0 && metrics.get("discriminator/grad_norm").unwrap() > 0.0);
        // Old log-probs are the current ones with their dropout.
        assert_eq!(metrics.get("student/ratio"), Some(1.0));
    }
    assert!(weights(&trainer.policy().without_lora()) == base);
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
