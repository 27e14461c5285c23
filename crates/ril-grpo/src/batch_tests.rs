use burn::tensor::Device;

use super::*;

fn mask(rows: [[bool; 3]; 2]) -> Tensor<2, Bool> {
    Tensor::from_data(rows, &Device::flex())
}

fn zeros(shape: [usize; 2]) -> Tensor<2> {
    Tensor::zeros(shape, &Device::flex())
}

#[test]
fn totals_come_from_the_whole_batch_and_survive_a_split() {
    let mask = mask([[true, true, false], [true, false, false]]);
    let advantages = Tensor::zeros([2], &Device::flex());
    let batch = PolicyBatch::new(zeros([2, 3]), None, advantages, mask).unwrap();
    let totals = LossTotals::new(2, 3);
    assert_eq!(batch.totals(), totals);
    let part = batch.rows(1..2).unwrap();
    assert_eq!((part.dims(), part.totals()), ([1, 3], totals));
    let host = [true, true, false, true, false, false];
    assert_eq!(LossTotals::from_mask(&host, 2), totals);
    assert_eq!((totals + totals).tokens, 6);
}

#[test]
fn rows_outside_the_batch_are_an_error() {
    let advantages = Tensor::zeros([2], &Device::flex());
    let batch = PolicyBatch::new(zeros([2, 3]), None, advantages, mask([[true; 3]; 2]));
    let batch = batch.unwrap();
    for (start, end) in [(0, 3), (1, 1), (2, 1)] {
        let error = batch.rows(start..end).unwrap_err();
        assert!(matches!(error, GrpoError::RowRange { rows: 2, .. }));
    }
}

#[test]
fn wrong_shapes_are_named() {
    let flex = Device::flex();
    let build = |old: [usize; 2], reference: [usize; 2], advantages: usize| {
        let advantages = Tensor::zeros([advantages], &flex);
        let mask = mask([[true; 3]; 2]);
        PolicyBatch::new(zeros(old), Some(zeros(reference)), advantages, mask)
    };
    assert!(build([2, 3], [2, 3], 2).is_ok());
    for (result, name) in [
        (build([2, 4], [2, 3], 2), "old_log_probs"),
        (build([2, 3], [1, 3], 2), "ref_log_probs"),
        (build([2, 3], [2, 3], 1), "advantages"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
    let totals = LossTotals::new(1, 6);
    let advantages = Tensor::zeros([2], &flex);
    let mask = mask([[true; 3]; 2]);
    let error = PolicyBatch::with_totals(zeros([2, 3]), None, advantages, mask, totals);
    assert!(matches!(error.unwrap_err(), GrpoError::Totals { rows: 2, sequences: 1 }));
}

#[test]
fn replaced_totals_cover_the_rows_that_count() {
    let batch = || {
        let advantages = Tensor::zeros([2], &Device::flex());
        PolicyBatch::new(zeros([2, 3]), None, advantages, mask([[true; 3]; 2])).unwrap()
    };
    let error = batch().replace_totals(LossTotals::new(1, 9)).unwrap_err();
    assert!(matches!(error, GrpoError::Totals { rows: 2, sequences: 1 }));
    let totals = batch().totals() + LossTotals::new(3, 4);
    assert_eq!(batch().replace_totals(totals).unwrap().totals(), LossTotals::new(5, 10));
    let chord = batch().with_rows(vec![RowRole::STUDENT, RowRole::CHORD_TEACHER], None).unwrap();
    assert_eq!(chord.replace_totals(LossTotals::new(1, 3)).unwrap().totals().sequences, 1);
}

#[test]
fn a_micro_batch_and_a_second_call_are_refused() {
    let advantages = Tensor::zeros([2], &Device::flex());
    let batch = PolicyBatch::new(zeros([2, 3]), None, advantages, mask([[true; 3]; 2])).unwrap();
    let students = |rows| vec![RowRole::STUDENT; rows];
    let part = batch.rows(0..1).unwrap();
    let sampled = batch.clone().with_sampler(zeros([2, 3]), None).unwrap();
    let decided = batch.clone().with_top_entropy_tokens(zeros([2, 3]), 0.5).unwrap();
    let refused = [
        (part.clone().with_rows(students(1), None), "with_rows"),
        (part.clone().with_top_entropy_tokens(zeros([1, 3]), 0.5), "with_top_entropy_tokens"),
        (batch.clone().with_rows(students(2), None).unwrap().with_rows(students(2), None), "with_rows"),
        (decided.clone().with_rows(students(2), None), "with_rows"),
        (sampled.with_sampler(zeros([2, 3]), None), "with_sampler"),
        (decided.with_top_entropy_tokens(zeros([2, 3]), 0.5), "with_top_entropy_tokens"),
    ];
    for (result, name) in refused {
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with(&format!("config: {name}")), "{message}");
    }
    // A correction belongs to its row: no count is taken.
    assert!(part.with_sampler(zeros([1, 3]), None).is_ok());
}

#[test]
fn totals_of_a_step_take_the_place_of_those_of_its_rows() {
    let advantages = || Tensor::zeros([2], &Device::flex());
    let batch = || PolicyBatch::new(zeros([2, 3]), None, advantages(), mask([[true; 3]; 2])).unwrap();
    let roles = || vec![RowRole::STUDENT, RowRole::CHORD_TEACHER];
    let counted = batch().with_rows(roles(), None).unwrap();
    let given = batch().with_rows_and_totals(roles(), None, counted.totals()).unwrap();
    assert_eq!((given.totals(), given.roles()), (counted.totals(), counted.roles()));
    let step = counted.totals() + counted.totals();
    assert_eq!(batch().with_rows_and_totals(roles(), None, step).unwrap().totals(), step);
    let few = batch().with_rows_and_totals(roles(), None, LossTotals::new(0, 0));
    assert!(matches!(few, Err(GrpoError::Totals { rows: 1, sequences: 0 })));
    let twice = given.with_rows_and_totals(roles(), None, step);
    assert!(matches!(twice, Err(GrpoError::Config(_))));
}
