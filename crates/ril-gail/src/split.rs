//! Shuffled micro-batches.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{AuthoredBy, DiscriminatorBatch, DiscriminatorObjective};

/// Some rows of a batch, and some of its pairs whose rows are among them; both by index into the batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MicroBatch {
    pub rows: Vec<usize>,
    pub pairs: Vec<usize>,
}

/// Splits a batch into shuffled micro-batches of at most `micro_batch_rows` rows (at least 2), as its objective asks:
/// each row once, or each pair once.
pub(crate) fn micro_batches(
    batch: &DiscriminatorBatch,
    objective: DiscriminatorObjective,
    micro_batch_rows: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<MicroBatch> {
    if objective.is_on_pairs() {
        return paired_micro_batches(batch, micro_batch_rows, rng);
    }
    let origins: Vec<AuthoredBy> = batch.row_terms().iter().map(|term| term.origin).collect();
    let split = mixed_micro_batches(&origins, micro_batch_rows, rng);
    split.into_iter().map(|rows| MicroBatch { rows, pairs: Vec::new() }).collect()
}

/// Whole pairs, shuffled, in micro-batches whose numbers of pairs differ by at most 1; rows inside are shuffled too. A
/// row of several pairs is in each of their micro-batches. Rows without a pair follow in micro-batches of their own, so
/// that every row has a logit.
fn paired_micro_batches(batch: &DiscriminatorBatch, micro_batch_rows: usize, rng: &mut ChaCha8Rng) -> Vec<MicroBatch> {
    let mut order: Vec<usize> = (0..batch.pairs().len()).collect();
    order.shuffle(rng);
    let batches = order.len().div_ceil((micro_batch_rows / 2).max(1));
    let mut is_paired = vec![false; batch.len()];
    let mut split = Vec::with_capacity(batches);
    for index in 0..batches {
        let pairs = order[index * order.len() / batches..(index + 1) * order.len() / batches].to_vec();
        let mut rows = Vec::with_capacity(2 * pairs.len());
        for term in pairs.iter().map(|&pair| batch.pair_terms()[pair]) {
            for row in [term.pair.student, term.pair.teacher] {
                is_paired[row] = true;
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
        rows.shuffle(rng);
        split.push(MicroBatch { rows, pairs });
    }
    let mut alone: Vec<usize> = (0..batch.len()).filter(|&row| !is_paired[row]).collect();
    alone.shuffle(rng);
    split.extend(
        alone.chunks(micro_batch_rows.max(1)).map(|rows| MicroBatch { rows: rows.to_vec(), pairs: Vec::new() }),
    );
    split.shuffle(rng);
    split
}

/// Splits all rows into shuffled micro-batches of at most `micro_batch_rows` rows.
///
/// Every row occurs once. Sizes differ by at most 1, and so does the share of students: a micro-batch of `n` rows holds
/// `n * students / rows` students, rounded up or down. The order inside a micro-batch is random too, so that position
/// says nothing about origin.
fn mixed_micro_batches(origins: &[AuthoredBy], micro_batch_rows: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let (mut students, mut teachers): (Vec<usize>, Vec<usize>) =
        (0..origins.len()).partition(|&row| origins[row] == AuthoredBy::Student);
    students.shuffle(rng);
    teachers.shuffle(rng);

    let rows = origins.len();
    let batches = rows.div_ceil(micro_batch_rows.max(1));
    let mut split = Vec::with_capacity(batches);
    let (mut taken, mut taken_students) = (0, 0);
    for batch in 1..=batches {
        let end = batch * rows / batches;
        let end_students = end * students.len() / rows;
        let mut picked = students[taken_students..end_students].to_vec();
        picked.extend(&teachers[taken - taken_students..end - end_students]);
        picked.shuffle(rng);
        split.push(picked);
        (taken, taken_students) = (end, end_students);
    }
    split.shuffle(rng);
    split
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::RowPair;

    fn origins(students: usize, teachers: usize) -> Vec<AuthoredBy> {
        [vec![AuthoredBy::Student; students], vec![AuthoredBy::Teacher; teachers]].concat()
    }

    #[test]
    fn order_says_nothing_about_origin() {
        let origins = origins(32, 32);
        let split = mixed_micro_batches(&origins, 64, &mut ChaCha8Rng::seed_from_u64(1));
        let students_first = split[0][..32].iter().filter(|&&row| row < 32).count();
        assert!((8..=24).contains(&students_first), "{students_first}");
    }

    proptest! {
        #[test]
        fn every_row_once_and_origins_mixed(
            students in 0_usize..20, teachers in 0_usize..20, size in 1_usize..12, seed in any::<u64>(),
        ) {
            let origins = origins(students, teachers);
            let split = mixed_micro_batches(&origins, size, &mut ChaCha8Rng::seed_from_u64(seed));
            let mut all = split.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..origins.len()).collect::<Vec<_>>());
            for batch in &split {
                prop_assert!((1..=size).contains(&batch.len()));
                let share = batch.len() as f64 * students as f64 / origins.len() as f64;
                let got = batch.iter().filter(|&&row| row < students).count() as f64;
                prop_assert!((got - share).abs() < 1.0, "{} of {}", got, share);
            }
            let again = mixed_micro_batches(&origins, size, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(split, again);
        }

        #[test]
        fn every_pair_once_with_both_of_its_rows(
            students in 1_usize..12, teachers in 1_usize..12, dropped in 0_usize..6, size in 2_usize..9,
            seed in any::<u64>(),
        ) {
            let origins = origins(students, teachers);
            let mut pairs = RowPair::in_order(&origins);
            pairs.truncate(pairs.len() - dropped.min(pairs.len()));
            let weights = vec![1.0; origins.len()];
            let batch = DiscriminatorBatch::weighted(&origins, &weights, &pairs).expect("valid");
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let split = micro_batches(&batch, DiscriminatorObjective::BradleyTerry, size, &mut rng);
            let mut seen: Vec<usize> = split.iter().flat_map(|part| part.pairs.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..pairs.len()).collect::<Vec<_>>());
            let mut rows: Vec<usize> = split.iter().flat_map(|part| part.rows.clone()).collect();
            rows.sort_unstable();
            rows.dedup();
            prop_assert_eq!(rows, (0..origins.len()).collect::<Vec<_>>());
            for part in &split {
                prop_assert!((1..=size).contains(&part.rows.len()));
                let mut distinct = part.rows.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), part.rows.len());
                batch.part(&part.rows, &part.pairs).expect("both rows are there");
            }
        }
    }
}
