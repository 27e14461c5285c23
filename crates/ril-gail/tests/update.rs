//! Training a small discriminator: it learns, repeats itself, and survives bad input.

mod common;

use std::cell::RefCell;
use std::convert::Infallible;

use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use common::{SEQ, WIDTH, adamw, as_f64, features, input, largest_gap, model, origins, values};
use ril_gail::{
    AuthoredBy, Discriminator, GailConfig, GailError, Opinion, Round, RowsFromFn, logits_of_rows, score, score_rows,
    update_discriminator,
};

#[test]
fn loss_falls_on_separable_data_and_scores_follow() {
    let origins = origins(12, 12);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    let config = GailConfig::new().with_updates_per_round(60);
    let (model, update) = update_discriminator(model(1), &mut adamw(), &rows, Round::new(0, 0.02), &config);
    let update = update.expect("healthy");
    assert_eq!((update.losses.len(), update.grad_norms.len()), (60, 60));
    assert!((update.losses[0] - 2.0 * std::f32::consts::LN_2).abs() < 1e-6, "{:?}", update.before);
    assert_eq!((update.before.stats.loss, update.before.stats.student_accuracy), (update.losses[0], 1.0));
    assert!(*update.losses.last().expect("60 passes") < 0.05, "{:?}", update.losses);

    let p_student = score_rows(&model.valid(), &rows, 7).expect("finite");
    assert!(p_student[..12].iter().all(|p| *p > 0.9) && p_student[12..].iter().all(|p| *p < 0.1), "{p_student:?}");
    let at_once = score(&model.valid(), &input(&origins, &(0..24).collect::<Vec<_>>()).expect("never fails"));
    for (one, other) in p_student.iter().zip(at_once.expect("finite")) {
        assert!((one - other).abs() < 1e-6);
    }
}

#[test]
fn same_seed_and_round_repeat_and_others_shuffle_anew() {
    let origins = origins(6, 6);
    let run = |seed: u64, index: u64| {
        let seen = RefCell::new(Vec::new());
        let rows = RowsFromFn::new(&origins, |rows: &[usize]| {
            seen.borrow_mut().push(rows.to_vec());
            input(&origins, rows)
        });
        let config = GailConfig::new().with_updates_per_round(3).with_micro_batch_rows(4).with_seed(seed);
        let (model, update) = update_discriminator(model(2), &mut adamw(), &rows, Round::new(index, 0.01), &config);
        let update = update.expect("healthy");
        (values(&model), update, seen.into_inner())
    };
    let first = run(7, 3);
    assert_eq!(first, run(7, 3));
    assert_eq!(first.2.len(), 9);
    for other in [run(8, 3), run(7, 4)] {
        assert_ne!(first.2, other.2);
    }
    assert_ne!(first.2[..3], first.2[3..6], "each pass shuffles");
    let students = |batch: &Vec<usize>| batch.iter().filter(|&&row| row < 6).count();
    assert!(first.2.iter().all(|batch| batch.len() == 4 && students(batch) == 2), "{:?}", first.2);
}

#[test]
fn micro_batches_do_not_change_the_step() {
    let origins = origins(5, 8);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    let step = |micro_batch_rows: usize| {
        let config = GailConfig::new().with_micro_batch_rows(micro_batch_rows).with_updates_per_round(4);
        let mut optimizer = SgdConfig::new().init();
        let (model, update) = update_discriminator(model(3), &mut optimizer, &rows, Round::new(0, 0.5), &config);
        (values(&model), update.expect("healthy"))
    };
    let (whole, whole_update) = step(13);
    for micro_batch_rows in [2, 3, 5, 100] {
        let (parts, update) = step(micro_batch_rows);
        let gap = largest_gap(&as_f64(&parts), &as_f64(&whole));
        assert!(gap < 1e-5, "{micro_batch_rows}: {gap}");
        assert!((whole_update.losses[3] - update.losses[3]).abs() < 1e-5);
    }
    let moved = largest_gap(&as_f64(&whole), &as_f64(&values(&model(3))));
    assert!(moved > 1e-2, "the steps are far from nothing: {moved}");
}

#[test]
fn clipping_shortens_the_step_and_keeps_its_direction() {
    let origins = origins(4, 4);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    let start = values(&model(4));
    let step = |config: &GailConfig| {
        let mut optimizer = SgdConfig::new().init();
        let (model, update) = update_discriminator(model(4), &mut optimizer, &rows, Round::new(0, 1.0), config);
        let moved: Vec<f32> = values(&model).iter().zip(&start).map(|(after, before)| after - before).collect();
        (moved, update.expect("healthy").grad_norms[0])
    };
    let norm_of = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let (free, norm) = step(&GailConfig::new());
    assert!((norm_of(&free) - norm).abs() < 1e-4 * norm, "one SGD step at rate 1 is the gradient");
    let (clipped, reported) = step(&GailConfig::new().with_max_grad_norm(Some(norm / 4.0)));
    assert_eq!(reported, norm, "the norm is reported before clipping");
    assert!((norm_of(&clipped) - norm / 4.0).abs() < 1e-4 * norm);
    assert!(free.iter().zip(&clipped).all(|(free, clipped)| (free / 4.0 - clipped).abs() < 1e-5));
    assert_eq!(step(&GailConfig::new().with_max_grad_norm(Some(norm * 2.0))).0, free);
}

#[test]
fn a_frozen_discriminator_is_reported_from_its_scores_as_an_updated_one_is() {
    let origins = origins(5, 3);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows))
        .with_teachers(vec![0, 0, 0, 0, 0, 1, 0, 1])
        .with_lengths(vec![9, 9, 9, 2, 9, 2, 2, 2]);
    let config = GailConfig::new().with_updates_per_round(3);
    let (model, first) = update_discriminator(model(9), &mut adamw(), &rows, Round::new(0, 0.02), &config);
    assert_eq!(first.expect("healthy").before.length_only_accuracy, Some(0.9));
    let frozen = Opinion::of_rows(&logits_of_rows(&model.valid(), &rows, 3).expect("finite"), &rows).expect("valid");
    let (_, second) = update_discriminator(model, &mut adamw(), &rows, Round::new(1, 0.02), &config);
    let second = second.expect("healthy");
    for ((name, frozen), (same, updated)) in frozen.entries().into_iter().zip(second.before.entries()) {
        assert_eq!(name, same);
        assert!((frozen - updated).abs() < 1e-6, "{name}: {frozen} {updated}");
    }
    let own = &second.entries()[second.before.entries().len()..];
    let expected = [
        ("discriminator/objective", f64::from(second.losses[2])),
        ("discriminator/grad_norm", f64::from(second.grad_norms[2])),
        ("discriminator/learning_rate", 0.02),
        ("discriminator/steps", 3.0),
    ];
    assert_eq!(own, expected);
}

#[test]
fn the_warm_up_shortens_the_first_steps() {
    let origins = origins(4, 4);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    let moved = |number: u64, config: &GailConfig| {
        let round = Round::new(3, 0.8).with_number(number);
        let (model, update) = update_discriminator(model(4), &mut SgdConfig::new().init(), &rows, round, config);
        let (after, before) = (as_f64(&values(&model)), as_f64(&values(&common::model(4))));
        let moved: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        (moved, update.expect("healthy").learning_rate)
    };
    let (whole, rate) = moved(0, &GailConfig::new());
    assert_eq!(rate, 0.8);
    let warm = GailConfig::new().with_learning_rate_warmup_rounds(Some(4));
    for (number, share) in [(0, 0.25), (2, 0.75), (3, 1.0), (9, 1.0)] {
        let (part, rate) = moved(number, &warm);
        assert!((rate - 0.8 * share).abs() < 1e-12, "{number}: {rate}");
        let expected: Vec<f64> = whole.iter().map(|step| step * share).collect();
        assert!(largest_gap(&part, &expected) < 1e-6, "round {number}");
    }
    assert!(largest_gap(&whole, &vec![0.0; whole.len()]) > 1e-2, "the steps are far from nothing");
}

#[test]
fn learning_rates_out_of_range_are_refused() {
    let origins = origins(2, 2);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    for rate in [-1e-3, f64::NAN, f64::INFINITY] {
        let (kept, update) =
            update_discriminator(model(4), &mut adamw(), &rows, Round::new(0, rate), &GailConfig::new());
        let message = format!("invalid setting: learning_rate: expected a finite number >= 0, got {rate}");
        assert_eq!(update.expect_err("out of range").to_string(), message);
        assert_eq!(values(&kept), values(&model(4)));
    }
    let (kept, update) = update_discriminator(model(4), &mut adamw(), &rows, Round::new(0, 0.0), &GailConfig::new());
    assert_eq!((update.expect("the end of a schedule").steps, values(&kept)), (1, values(&model(4))));
}

fn refused(origins: &[AuthoredBy], config: &GailConfig, spoil: Option<(usize, f32)>) -> GailError {
    let rows = RowsFromFn::new(origins, |rows: &[usize]| {
        let mut values: Vec<f32> = rows.iter().flat_map(|&row| features(row, origins[row])).collect();
        for (at, &row) in rows.iter().enumerate() {
            if let Some((_, value)) = spoil.filter(|(spoilt, _)| *spoilt == row) {
                values[(at + 1) * SEQ * WIDTH - 1] = value;
            }
        }
        let input = Tensor::<3>::from_data(TensorData::new(values, [rows.len(), SEQ, WIDTH]), &Device::flex());
        Ok::<_, Infallible>(input)
    });
    let before = values(&model(5));
    let (model, update) = update_discriminator(model(5), &mut adamw(), &rows, Round::new(0, 0.1), config);
    assert_eq!(values(&model), before, "a refused update leaves the model as it was");
    update.expect_err("must be refused")
}

#[test]
fn refused_updates_leave_the_model_unharmed() {
    let config = GailConfig::new();
    for (row, value) in [(3, f32::NAN), (9, f32::INFINITY)] {
        let error = refused(&origins(6, 6), &config, Some((row, value)));
        assert!(matches!(error, GailError::NonFiniteLogit { row: got, .. } if got == row), "{error}");
    }
    assert!(matches!(refused(&origins(3, 0), &config, None), GailError::OneOrigin { students: 3, teachers: 0 }));
    assert!(matches!(refused(&origins(0, 3), &config, None), GailError::OneOrigin { students: 0, teachers: 3 }));
    assert!(matches!(refused(&[], &config, None), GailError::OneOrigin { .. }));
    let error = refused(&origins(2, 2), &config.clone().with_micro_batch_rows(1), None);
    assert!(matches!(error, GailError::Config(_)));
}

#[test]
fn a_no_grad_view_cannot_be_trained() {
    let origins = origins(2, 2);
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| input(&origins, rows));
    let (_, update) =
        update_discriminator(model(6).valid(), &mut adamw(), &rows, Round::new(0, 0.1), &GailConfig::new());
    assert!(matches!(update, Err(GailError::NotTrainable)));
}

#[test]
fn the_callers_own_error_is_kept() {
    let origins = origins(2, 2);
    let rows = RowsFromFn::new(&origins, |_: &[usize]| Err::<Tensor<3>, _>(std::fmt::Error));
    let (_, update) = update_discriminator(model(7), &mut adamw(), &rows, Round::new(0, 0.1), &GailConfig::new());
    let error = update.expect_err("rows fail");
    assert_eq!(error.to_string(), "rows failed");
    assert!(std::error::Error::source(&error).expect("kept").downcast_ref::<std::fmt::Error>().is_some());
    let wrong = RowsFromFn::new(&origins, |_: &[usize]| input(&origins, &[0]));
    let error = score_rows(&model(7).valid(), &wrong, 4).expect_err("one logit for four rows");
    assert_eq!(error.to_string(), "logits_student_is_high: expected shape [4], got [1]");
}

#[test]
fn references_and_boxes_are_discriminators() {
    fn count<D: Discriminator<Input = Tensor<3>>>(discriminator: D) -> usize {
        let input = input(&origins(1, 1), &[0, 1]).expect("never fails");
        score(&discriminator, &input).expect("finite").len()
    }
    let model = model(8).valid();
    assert_eq!(count(&model), 2);
    let boxed: Box<dyn Discriminator<Input = Tensor<3>, Error = GailError>> = Box::new(model);
    assert_eq!(count(boxed), 2);
}
