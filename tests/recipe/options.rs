//! The loop's options beyond the paper's: other ratios of teacher rows, an entropy bonus, replay, loud checks, scopes.

use burn::tensor::Device;
use ril::adapters::{DiscriminatorPrompt, DiscriminatorScope};
use ril::gail::ReplayConfig;
use ril::grpo::{GrpoError, RowRatio, SamplerBound, SamplerCorrection, SamplerLevel, SftTerm, SftTokenWeight};
use ril::imitation::score_responses;
use ril::optimise::{UpdatePlan, optimise};
use ril::reward::RuleJudge;
use ril::{
    GradientChecks, Group, Learner, LocalRollout, Question, RilConfig, RilError, Stage, StageMetrics,
    discriminator_from,
};

use crate::support::{STEPS, config, questions_and_teachers, student, trainer, trainer_with, weights};

/// Numbers of all steps and the weights after them.
fn run(config: RilConfig) -> (Vec<StageMetrics>, Vec<u8>) {
    let mut trainer = trainer(config).unwrap();
    let metrics = (0..STEPS).map(|_| trainer.step().unwrap()).collect();
    (metrics, weights(&trainer.policy()))
}

fn with(change: impl FnOnce(&mut RilConfig)) -> RilConfig {
    let mut config = config();
    change(&mut config);
    config
}

#[test]
fn teacher_rows_may_have_the_ratio_of_luffy_or_the_loss_of_chord() {
    let ril = run(config());
    let luffy = run(with(|c| c.teacher_ratio = RowRatio::BehaviourOne { shaping: Some(0.1) }));
    let sft = SftTerm { weight: 0.5, token_weight: SftTokenWeight::Uniform };
    let chord = run(with(|c| (c.teacher_ratio, c.grpo.sft) = (RowRatio::Excluded, Some(sft))));
    assert!(luffy.1 != ril.1 && chord.1 != ril.1 && luffy.1 != chord.1);
    // In the first step all three policies are the same, and so are the texts.
    let first = |name: &str| [&ril, &luffy, &chord].map(|(metrics, _)| metrics[0].get(name).unwrap());
    let [a, b, c] = first("teacher/log_prob");
    assert_eq!((a, a), (b, c));
    // Half of it is the mean surprise of a teacher's token. The other half is the policy term of student rows, with a
    // ratio of 1 and the full length: their mean advantage, negated.
    let of_chord = |name: &str| chord.0[0].get(name).unwrap();
    assert_eq!(of_chord("completions/min_length"), 6.0);
    let (loss, expected) = (of_chord("loss"), -0.5 * c - 0.5 * of_chord("student/advantage"));
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    // A row without a policy term is in nobody's baseline.
    assert!(of_chord("student/advantage").abs() < 1e-6 && of_chord("teacher/advantage") == 0.0);
    assert!(ril.0[0].get("student/advantage").unwrap() < -0.1, "in RIL it is");
    let several = |ratio, sft| with(|c| (c.teacher_ratio, c.grpo.sft, c.updates_per_rollout) = (ratio, sft, 2));
    for config in [several(RowRatio::Excluded, Some(sft)), several(RowRatio::BehaviourOne { shaping: Some(0.1) }, None)]
    {
        assert!(run(config).0.iter().all(|metrics| metrics.get("loss").unwrap().is_finite()));
    }
}

#[test]
fn an_entropy_bonus_keeps_the_policy_undecided() {
    let entropy_after = |coefficient: f64| {
        let (metrics, _) = run(with(|c| {
            c.grpo.entropy_coefficient = coefficient;
            (c.policy.learning_rate, c.policy.final_learning_rate) = (1e-2, 1e-2);
        }));
        metrics.last().unwrap().get("entropy").unwrap()
    };
    let (without, with) = (entropy_after(0.0), entropy_after(1.0));
    assert!(with > without + 0.1, "{with} {without}");
}

#[test]
fn a_correction_for_the_sampler_changes_the_update_and_is_reported() {
    let correction =
        SamplerCorrection { level: SamplerLevel::Token, bound: SamplerBound::Truncate, min_ratio: 0.0, max_ratio: 1.0 };
    let plain = run(config());
    let corrected = run(with(|c| c.sampler_correction = Some(correction)));
    assert!(plain.1 != corrected.1);
    let difference = plain.0[0].get("sampling/sampling_logp_difference/mean").unwrap();
    assert!(difference > 0.0, "top-k and top-p move the sampler: {difference}");
    let weight = corrected.0[0].get("sampling/importance_sampling_ratio/min").unwrap();
    assert!(weight < 1.0, "{weight}");
    assert!(plain.0[0].get("sampling/importance_sampling_ratio/min").is_none());
    let largest = corrected.0[0].get("sampling/importance_sampling_ratio/max").unwrap();
    let mean = corrected.0[0].get("sampling/importance_sampling_ratio/mean").unwrap();
    assert!(largest < 1.0 && mean < 1.0, "teacher rows, which nobody sampled here, do not count: {mean} {largest}");

    // A sample of unknown probability cannot be corrected.
    for spoil in [|_: &mut Vec<f32>| None, |known: &mut Vec<f32>| Some(vec![f32::NAN; known.len()])] {
        let mut trainer = trainer(with(|c| c.sampler_correction = Some(correction))).unwrap();
        let mut groups = trainer.collect(&mut LocalRollout::student(trainer.policy())).unwrap();
        let response = &mut groups[1].responses[1];
        response.sampler_log_probs = response.sampler_log_probs.take().as_mut().and_then(spoil);
        let error = trainer.step_on(&groups).unwrap_err().to_string();
        assert!(error.contains("sampler_correction: row 5"), "{error}");
    }
}

/// Without pictures the vision tower has nothing to learn from.
#[test]
fn a_parameter_without_a_gradient_fails_the_step_by_name_if_asked() {
    let blind = |checks| {
        let mut trainer = trainer(with(|c| c.gradient_checks = checks)).unwrap();
        let mut groups = trainer.collect(&mut LocalRollout::student(trainer.policy())).unwrap();
        for group in &mut groups {
            let question = &group.question;
            let (id, text, answer) = (question.id.clone(), question.text.clone(), question.answer.clone());
            group.question = Question::encode(&student(), id, Vec::new(), text, answer).unwrap();
        }
        let before = weights(&trainer.policy());
        (trainer.step_on(&groups), weights(&trainer.policy()) == before)
    };
    let (outcome, is_untouched) = blind(GradientChecks::FirstSteps(1));
    let Err(RilError::Grpo(GrpoError::NoGradient { parameter, .. })) = outcome else { panic!("{outcome:?}") };
    assert!(parameter.starts_with("visual."), "{parameter}");
    assert!(is_untouched);
    assert!(blind(GradientChecks::Never).0.is_ok());
    run(with(|c| c.gradient_checks = GradientChecks::Always));
}

#[test]
fn sampler_log_probs_must_be_one_for_each_token() {
    let mut trainer = trainer(config()).unwrap();
    let mut groups = trainer.collect(&mut LocalRollout::student(trainer.policy())).unwrap();
    groups[1].responses[0].sampler_log_probs.as_mut().unwrap().pop();
    let error = trainer.step_on(&groups).unwrap_err().to_string();
    assert!(error.contains("sampler_log_probs: expected one for each of 6 tokens, got 5"), "{error}");
}

#[test]
fn replayed_texts_reach_the_discriminator_and_survive_a_restart() {
    let replayed = || with(|c| c.replay = Some(ReplayConfig::new(8)));
    let (whole, policy) = run(replayed());
    let without = run(config()).0;
    let loss = |metrics: &[StageMetrics], step: usize| metrics[step].get("discriminator/loss").unwrap();
    assert_eq!(loss(&whole, 0), loss(&without, 0), "nothing to replay in the first step");
    assert_ne!(loss(&whole, 1), loss(&without, 1));

    let folder = tempfile::tempdir().unwrap();
    let mut first = trainer(replayed()).unwrap();
    let mut metrics: Vec<StageMetrics> = (0..2).map(|_| first.step().unwrap()).collect();
    first.save(folder.path()).unwrap();
    let mut second = trainer(replayed()).unwrap();
    second.restore(folder.path(), 2).unwrap();
    metrics.extend((2..STEPS).map(|_| second.step().unwrap()));
    assert_eq!(metrics, whole);
    assert!(weights(&second.policy()) == policy);

    // A step that failed late is tried again with the same old texts.
    let mut failing = trainer_with(replayed(), RuleJudge::default()).unwrap();
    failing.step().unwrap();
    let groups = failing.collect(&mut LocalRollout::student(failing.policy())).unwrap();
    let mut broken = groups.clone();
    broken[0].responses[0].sampler_log_probs.as_mut().unwrap().pop();
    assert!(failing.step_on(&broken).is_err());
    assert_eq!(failing.step_on(&groups).unwrap(), whole[1]);

    let mut other = trainer(with(|c| c.replay = Some(ReplayConfig::new(9)))).unwrap();
    assert!(matches!(other.restore(folder.path(), 2), Err(RilError::Checkpoint { .. })));
    let frozen = with(|c| (c.replay, c.gail.mode) = (Some(ReplayConfig::new(8)), ril::gail::DiscriminatorMode::Frozen));
    assert!(frozen.validate().unwrap_err().to_string().contains("online"));
}

#[test]
fn options_that_cannot_work_are_refused_before_the_run() {
    let wrong = [
        (with(|c| c.teacher_ratio = RowRatio::BehaviourOne { shaping: Some(0.0) }), "shaping"),
        (with(|c| c.teacher_ratio = RowRatio::BehaviourOne { shaping: None }).without_imitation(), ""),
        (
            with(|c| {
                let (level, bound) = (SamplerLevel::Token, SamplerBound::Mask);
                c.sampler_correction = Some(SamplerCorrection { level, bound, min_ratio: 0.0, max_ratio: 0.0 });
            }),
            "max_ratio",
        ),
        (with(|c| (c.discriminator.warmup_steps, c.gail.learning_rate_warmup_rounds) = (3, Some(3))), "one of them"),
        (
            with(|c| {
                c.gail.loss.objective = ril::gail::DiscriminatorObjective::BradleyTerry;
                c.gail.loss.score_regularizer = 0.1;
                c.replay = Some(ReplayConfig::new(8));
            }),
            "loss on rows",
        ),
    ];
    for (config, word) in wrong {
        match (config.validate(), word) {
            (Ok(()), "") => {}
            (Err(error), word) if !word.is_empty() => assert!(error.to_string().contains(word), "{error}"),
            (outcome, word) => panic!("{word}: {outcome:?}"),
        }
    }
}

#[test]
fn teachers_weigh_by_name() {
    let weigh =
        |weights: &[(&str, f32)]| with(|c| c.teacher_weights = weights.iter().map(|&(n, w)| (n.into(), w)).collect());
    let loss = |config| trainer(config).unwrap().step().map(|m| m.get("discriminator/grad_norm").unwrap()).unwrap();
    assert_eq!(loss(weigh(&[("a", 1.0), ("b", 1.0)])), loss(config()));
    assert_ne!(loss(weigh(&[("b", 0.25)])), loss(config()));
    let by_index = with(|c| c.gail.loss.teacher_weights = vec![1.0, 0.25]);
    assert_eq!(loss(weigh(&[("b", 0.25)])), loss(by_index));
    for (broken, word) in [
        (weigh(&[("c", 1.0)]), "teacher_weights"),
        (with(|c| c.gail.loss.teacher_weights = vec![1.0]), "expected 2 weights"),
        (
            with(|c| (c.gail.loss.teacher_weights, c.teacher_weights) = (vec![1.0; 2], [("a".into(), 1.0)].into())),
            "both",
        ),
    ] {
        let error = trainer(broken).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn the_discriminator_sees_what_its_scope_says() {
    let student = student();
    let discriminator = discriminator_from(student.clone(), 5, &Device::flex());
    let (questions, _) = questions_and_teachers(&student);
    let mut trainer = trainer(config()).unwrap();
    let response = trainer.collect(&mut LocalRollout::student(trainer.policy())).unwrap()[0].responses[0].clone();
    let asked = questions[0].clone();
    let other = questions.iter().find(|q| q.text != asked.text && q.pictures != asked.pictures).unwrap();
    let group = |question: Question| Group { question, responses: vec![response.clone()] };
    let groups = [
        group(asked.clone()),
        group(Question { text: other.text.clone(), ..asked.clone() }),
        group(Question { pictures: other.pictures.clone(), ..asked.clone() }),
    ];
    for (scope, sees_text, sees_picture) in [
        (DiscriminatorScope::Response, false, false),
        (DiscriminatorScope::QuestionAndResponse, true, false),
        (DiscriminatorScope::ImageQuestionAndResponse, true, true),
    ] {
        let prompt = DiscriminatorPrompt { scope, ..config().prompt };
        let logits = score_responses(&discriminator, &prompt, &groups, 1).unwrap();
        assert_eq!((logits[1] != logits[0], logits[2] != logits[0]), (sees_text, sees_picture), "{scope:?} {logits:?}");
        trainer = crate::support::trainer(with(|c| c.prompt.scope = scope)).unwrap();
        assert!(trainer.step().unwrap().get("discriminator/loss").unwrap().is_finite());
    }
}

#[test]
fn a_loss_that_is_not_finite_names_the_row_in_the_order_of_the_groups() {
    let config = config();
    let trainer = trainer(config.clone()).unwrap();
    let groups = trainer.collect(&mut LocalRollout::student(trainer.policy())).unwrap();
    let mut policy = Learner::new(student(), config.policy.clone());
    let plan = UpdatePlan {
        grpo: &config.grpo,
        teacher_ratio: config.teacher_ratio,
        sampler_correction: None,
        checks_gradients: false,
        updates: 1,
        learning_rate: 1e-3,
        temperature: 1.0,
        step: 0,
    };
    let before = weights(&policy.view());
    for spoiled in [2, 5] {
        let mut advantages = [0.5; 8];
        advantages[spoiled] = f32::INFINITY;
        let error = optimise(&mut policy, &student(), &groups, &advantages, plan).unwrap_err();
        let RilError::Grpo(GrpoError::NonFinite { what, row, .. }) = error else { panic!("{error}") };
        assert_eq!((what, row), ("advantages", spoiled));
    }
    assert!(weights(&policy.view()) == before);
}
