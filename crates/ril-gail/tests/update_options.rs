//! Training with every loss, penalty, weight and gate.

mod common;

use std::convert::Infallible;

use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use common::{Model, SEQ, WIDTH, adamw, as_f64, features, input, largest_gap, model, origins, values};
use ril_gail::{
    AccuracyGate, AuthoredBy, Discriminator, DiscriminatorObjective, DiscriminatorUpdate, GailConfig, GailError,
    GradientPenalty, LabelSmoothing, LossConfig, PairOutcome, ReplayBuffer, ReplayConfig, Round, RowPair, RowsFromFn,
    SimilarityReward, score, score_rows, update_discriminator,
};

const OBJECTIVES: [DiscriminatorObjective; 6] = [
    DiscriminatorObjective::Bce { label_smoothing: LabelSmoothing::None },
    DiscriminatorObjective::Bce { label_smoothing: LabelSmoothing::TwoSided { amount: 0.1 } },
    DiscriminatorObjective::BradleyTerry,
    DiscriminatorObjective::LeastSquares,
    DiscriminatorObjective::Hinge,
    DiscriminatorObjective::Relativistic,
];

/// A reward without a threshold: a loss on pairs fixes no zero for one.
fn without_threshold() -> GailConfig {
    GailConfig::new().with_similarity(SimilarityReward::LogOdds)
}

/// Runs one round on `origins` with an optimizer of plain gradient steps.
fn run(
    origins: &[AuthoredBy],
    teachers: &[usize],
    pairs: Vec<RowPair>,
    config: &GailConfig,
) -> (Model, Result<DiscriminatorUpdate, GailError>) {
    let rows = RowsFromFn::new(origins, |rows: &[usize]| input(origins, rows))
        .with_teachers(teachers.to_vec())
        .with_pairs(pairs);
    let mut optimizer = SgdConfig::new().init();
    update_discriminator(model(3), &mut optimizer, &rows, Round::new(0, 0.2), config)
}

fn gap(one: &[f32], other: &[f32]) -> f64 {
    largest_gap(&as_f64(one), &as_f64(other))
}

#[test]
fn every_loss_falls_on_separable_data_and_the_scores_follow() {
    let origins = origins(12, 12);
    for objective in OBJECTIVES {
        let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
        let loss = LossConfig::new().with_objective(objective);
        let config = without_threshold().with_updates_per_round(40).with_loss(loss);
        let (model, update) = update_discriminator(model(1), &mut adamw(), &rows, Round::new(0, 0.02), &config);
        let update = update.expect("healthy");
        assert!(update.losses[39] < 0.6 * update.losses[0], "{objective:?}: {:?}", update.losses);
        let p_student = score_rows(&model.valid(), &rows, 24).expect("finite");
        let (students, teachers) = p_student.split_at(12);
        // A loss on pairs promises no more than the order inside each pair.
        assert!(
            students.iter().zip(teachers).all(|(student, teacher)| student > teacher),
            "{objective:?}: {p_student:?}"
        );
    }
}

#[test]
fn micro_batches_do_not_change_the_step_of_any_loss() {
    let origins = origins(5, 8);
    // Unequal counts: students are in several pairs. One row is in none.
    let mut pairs = RowPair::with_ties(RowPair::in_order(&origins), |student, _| student == 2);
    pairs.truncate(7);
    let teachers: Vec<usize> = (0..13).map(|row| row % 2).collect();
    for objective in OBJECTIVES {
        for gradient_penalty in [None, Some(GradientPenalty::OneCentred { weight: 0.5 })] {
            let loss = LossConfig::new()
                .with_objective(objective)
                .with_score_regularizer(0.05)
                .with_gradient_penalty(gradient_penalty)
                .with_teacher_weights(vec![1.0, 0.25]);
            let step = |micro_batch_rows: usize| {
                let config = GailConfig::new().with_micro_batch_rows(micro_batch_rows).with_updates_per_round(4);
                let (model, update) = run(&origins, &teachers, pairs.clone(), &config.with_loss(loss.clone()));
                (values(&model), update.expect("healthy"))
            };
            let (whole, whole_update) = step(100);
            for micro_batch_rows in [2, 3, 5] {
                let (parts, update) = step(micro_batch_rows);
                assert!(gap(&whole, &parts) < 2e-5, "{objective:?} {micro_batch_rows}: {}", gap(&whole, &parts));
                assert!(gap(&whole_update.losses, &update.losses) < 2e-5, "{objective:?}");
            }
            assert!(gap(&whole, &values(&model(3))) > 1e-3, "the steps are far from nothing");
        }
    }
}

#[test]
fn a_gradient_penalty_shrinks_the_head_and_is_part_of_the_loss() {
    let origins = origins(6, 6);
    let norm = |model: &Model| -> f32 {
        model.valid().encoder_gradient_norm_squared().expect("a linear head").into_scalar::<f32>().sqrt()
    };
    let train = |gradient_penalty| {
        let loss = LossConfig::new().with_gradient_penalty(gradient_penalty);
        let config = GailConfig::new().with_updates_per_round(60).with_loss(loss);
        let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
        let (model, update) = update_discriminator(model(1), &mut adamw(), &rows, Round::new(0, 0.02), &config);
        (norm(&model), update.expect("healthy"))
    };
    let (free, _) = train(None);
    let (shrunk, _) = train(Some(GradientPenalty::ZeroCentred { weight: 1.0 }));
    let (near_one, update) = train(Some(GradientPenalty::OneCentred { weight: 10.0 }));
    assert!(shrunk < 0.5 * free, "{shrunk} {free}");
    assert!((near_one - 1.0).abs() < 0.2, "{near_one} {free}");
    // The head starts at 0: the loss holds the penalty, the statistics do not.
    assert!((update.losses[0] - update.before.stats.loss - 10.0).abs() < 1e-3, "{:?}", update.losses);
}

/// A discriminator without a linear head.
#[derive(Module, Debug)]
struct Opaque {
    inner: Model,
}

impl Discriminator for Opaque {
    type Input = Tensor<3>;
    type Error = GailError;

    fn logits_student_is_high(&self, input: &Tensor<3>) -> Result<Tensor<1>, GailError> {
        self.inner.logits_student_is_high(input)
    }
}

#[test]
fn a_penalty_without_a_closed_form_is_refused() {
    let origins = origins(2, 2);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    let loss = LossConfig::new().with_gradient_penalty(Some(GradientPenalty::ZeroCentred { weight: 1.0 }));
    let config = GailConfig::new().with_loss(loss);
    let (_, update) =
        update_discriminator(Opaque { inner: model(1) }, &mut adamw(), &rows, Round::new(0, 0.1), &config);
    let message = update.expect_err("no closed form").to_string();
    assert!(message.starts_with("invalid setting: gradient_penalty: expected a discriminator with"), "{message}");
}

#[test]
fn pairs_and_teachers_out_of_range_are_refused() {
    let origins = origins(2, 2);
    let pair_loss =
        without_threshold().with_loss(LossConfig::new().with_objective(DiscriminatorObjective::BradleyTerry));
    let refused = |teachers: &[usize], pairs, config: &GailConfig| {
        let before = values(&model(3));
        let (model, update) = run(&origins, teachers, pairs, config);
        assert_eq!(values(&model), before);
        update.expect_err("must be refused")
    };
    assert!(matches!(refused(&[], vec![], &pair_loss), GailError::NoPairs));
    assert!(matches!(refused(&[], vec![RowPair::new(2, 0)], &pair_loss), GailError::Pair { pair: 0, .. }));
    let weighted = |weights| GailConfig::new().with_loss(LossConfig::new().with_teacher_weights(weights));
    let error = refused(&[0, 0, 0, 2], vec![], &weighted(vec![1.0, 1.0]));
    assert_eq!(error.to_string(), "teacher of row 3: expected less than 2, the number of teacher_weights, got 2");
    assert!(matches!(refused(&[0, 0, 1, 1], vec![], &weighted(vec![1.0, 0.0])), GailError::NoWeight(_)));
}

#[test]
fn only_tied_pairs_teach_the_relativistic_loss_to_keep_still() {
    let origins = origins(3, 3);
    let pairs = RowPair::in_order(&origins);
    let loss = LossConfig::new().with_objective(DiscriminatorObjective::Relativistic);
    let config = without_threshold().with_loss(loss).with_updates_per_round(3);
    let moved = |pairs| gap(&values(&run(&origins, &[], pairs, &config).0), &values(&model(3)));
    // All scores start at 0, where a tie is cheapest.
    assert_eq!(moved(RowPair::with_ties(pairs.clone(), |_, _| true)), 0.0);
    assert!(moved(pairs.clone()) > 1e-3);
    assert_eq!(pairs[0].outcome, PairOutcome::Teacher);
}

#[test]
fn teacher_weights_and_statistics_follow_the_teacher() {
    let origins = origins(4, 6);
    let teachers = [0, 0, 0, 0, 0, 1, 1, 0, 1, 1];
    let with = |weights: Vec<f32>| {
        let loss = LossConfig::new().with_teacher_weights(weights);
        let (model, update) = run(&origins, &teachers, vec![], &GailConfig::new().with_loss(loss));
        (values(&model), update.expect("healthy"))
    };
    let (plain, update) = with(vec![]);
    assert_eq!(with(vec![2.0, 2.0]).0, plain, "only the ratio counts");
    assert_ne!(with(vec![1.0, 0.0]).0, plain);
    let of: Vec<_> = update.before.teachers.iter().map(|stats| (stats.teacher, stats.rows, stats.mean_p)).collect();
    assert_eq!(of, [(0, 2, 0.5), (1, 4, 0.5)]);

    // Weight 0 is as if the other teacher's rows alone were there.
    let kept: Vec<usize> = (0..10).filter(|&row| row < 4 || teachers[row] == 0).collect();
    let kept_origins: Vec<AuthoredBy> = kept.iter().map(|&row| origins[row]).collect();
    let rows = RowsFromFn::new(&kept_origins, |picked: &[usize]| {
        input(&origins, &picked.iter().map(|&row| kept[row]).collect::<Vec<_>>())
    });
    let mut optimizer = SgdConfig::new().init();
    let (alone, _) = update_discriminator(model(3), &mut optimizer, &rows, Round::new(0, 0.2), &GailConfig::new());
    assert!(gap(&with(vec![1.0, 0.0]).0, &values(&alone)) < 1e-5);
}

#[test]
fn the_gate_holds_back_a_good_discriminator_after_the_warm_up() {
    let origins = origins(8, 8);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    let config = GailConfig::new().with_updates_per_round(30);
    let gated = config.clone().with_accuracy_gate(Some(AccuracyGate { above: 0.9, warmup_rounds: 2 }));
    let update = |model, number, config: &GailConfig| {
        let round = Round::new(77, 0.02).with_number(number);
        let (model, update) = update_discriminator(model, &mut adamw(), &rows, round, config);
        (model, update.expect("healthy"))
    };
    let (model, warm) = update(model(1), 1, &gated);
    assert_eq!((warm.steps, warm.is_gated()), (30, false), "every step is taken in the warm-up");
    let before = values(&model);
    let (model, held) = update(model, 2, &gated);
    assert_eq!((held.steps, held.losses.len(), held.is_gated()), (0, 1, true));
    assert_eq!((values(&model), held.before.stats.balanced_accuracy()), (before, 1.0));
    let (_, free) = update(model, 2, &config);
    assert_eq!((free.steps, free.is_gated()), (30, false));

    // A fresh one learns until it is good enough, then stops inside the round.
    let (_, partly) = update(common::model(1), 2, &gated);
    assert!(partly.is_gated() && partly.steps > 0 && partly.steps + 1 == partly.losses.len(), "{partly:?}");
}

/// Texts whose first feature says teacher or not, and whose second one tells an earlier student from a teacher.
fn texts(kind: &[f32; 2], texts: std::ops::Range<usize>) -> Vec<Vec<f32>> {
    texts
        .map(|text| {
            let mut features = features(text, AuthoredBy::Teacher);
            for step in features.chunks_mut(WIDTH) {
                step[..2].copy_from_slice(kind);
            }
            features
        })
        .collect()
}

#[test]
fn replayed_rows_keep_an_old_student_known() {
    let (old, fresh) = (texts(&[-1.0, 2.0], 0..8), texts(&[1.0, 0.0], 8..16));
    let teacher = texts(&[-1.0, 0.0], 16..24);
    let mut buffer = ReplayBuffer::new(ReplayConfig { ratio: 0.5, ..ReplayConfig::new(8) }).expect("valid");
    buffer.add(old.clone());
    let replayed: Vec<Vec<f32>> = buffer.draw(fresh.len()).into_iter().cloned().collect();
    assert_eq!(replayed.len(), 4);

    // The share of all old texts, those not drawn among them, that is known for a student's after a round.
    let known_after = |students: Vec<Vec<f32>>| {
        let origins = origins(students.len(), teacher.len());
        let texts = [students, teacher.clone()].concat();
        let rows = RowsFromFn::new(&origins, |rows: &[usize]| {
            let values: Vec<f32> = rows.iter().flat_map(|&row| texts[row].clone()).collect();
            Ok::<_, Infallible>(Tensor::from_data(TensorData::new(values, [rows.len(), SEQ, WIDTH]), &Device::flex()))
        });
        let config = GailConfig::new().with_updates_per_round(40);
        let (model, update) = update_discriminator(model(1), &mut adamw(), &rows, Round::new(0, 0.02), &config);
        assert_eq!(update.expect("healthy").before.imitation.n_generated, texts.len() - 8);
        let scores = score_rows(&model.valid(), &rows, 24).expect("finite");
        assert!(scores[..8].iter().all(|p| *p > 0.5) && scores[texts.len() - 8..].iter().all(|p| *p < 0.5));
        let old = TensorData::new(old.concat(), [old.len(), SEQ, WIDTH]);
        let p_student = score(&model.valid(), &Tensor::from_data(old, &Device::flex())).expect("finite");
        p_student.iter().filter(|p| **p > 0.5).count()
    };
    assert_eq!(known_after(fresh.clone()), 0, "to the fresh texts alone, the old ones look like a teacher's");
    assert_eq!(known_after([fresh, replayed].concat()), 8);
}

/// A discriminator that knows the first feature well meets 4 students, 2 of whom write like a teacher, and 4 teachers:
/// its balanced accuracy is 0.75.
#[test]
fn the_gate_holds_back_above_its_bound_alone_and_only_after_the_warm_up() {
    let seen = origins(8, 8);
    let rows = RowsFromFn::new(&seen, |rows: &[usize]| input(&seen, rows));
    let config = GailConfig::new().with_updates_per_round(30);
    let (model, _) = update_discriminator(model(1), &mut adamw(), &rows, Round::new(0, 0.02), &config);
    let (truth, looks) = (origins(4, 4), origins(2, 6));
    let rows = RowsFromFn::new(&truth, |rows: &[usize]| input(&looks, rows));
    for (above, warmup_rounds, number, is_held) in [
        (0.74, 0, 0, true),
        (0.75, 0, 0, false),
        (0.76, 0, 9, false),
        (1.0, 0, 9, false),
        (0.5, 3, 2, false),
        (0.5, 3, 3, true),
        (0.5, 3, 4, true),
        (0.8, 3, 4, false),
    ] {
        let gate = AccuracyGate { above, warmup_rounds };
        let config = GailConfig::new().with_accuracy_gate(Some(gate));
        let round = Round::new(1, 0.02).with_number(number);
        let (after, update) = update_discriminator(model.clone(), &mut adamw(), &rows, round, &config);
        let update = update.expect("healthy");
        assert_eq!(update.before.stats.balanced_accuracy(), 0.75);
        assert_eq!((update.steps, update.is_gated()), (usize::from(!is_held), is_held), "{gate:?} in round {number}");
        assert_eq!(values(&after) == values(&model), is_held, "{gate:?} in round {number}");
    }
}

#[test]
fn defaults_of_the_rows_are_one_teacher_and_pairs_in_order() {
    use ril_gail::DiscriminatorRows;
    let origins = origins(2, 1);
    let rows = RowsFromFn::new(&origins, |_: &[usize]| Ok::<_, Infallible>(()));
    assert_eq!((rows.teacher_of(2), rows.pairs()), (0, vec![RowPair::new(0, 2), RowPair::new(1, 2)]));
    assert_eq!((rows.length_of(0), rows.clone().with_lengths(vec![5]).length_of(0)), (None, Some(5)));
    assert_eq!(rows.with_teachers(vec![0, 0, 3]).teacher_of(2), 3);
}
