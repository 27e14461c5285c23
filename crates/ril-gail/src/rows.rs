use std::error::Error;
use std::marker::PhantomData;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::AuthoredBy;

/// Responses that a discriminator is trained on or asked about; the texts stay with the caller.
pub trait DiscriminatorRows {
    /// What the discriminator takes.
    type Input;
    /// The caller's own error.
    type Error: Error + Send + Sync + 'static;

    /// Who wrote each row; its length is the number of rows.
    fn origins(&self) -> &[AuthoredBy];

    /// The discriminator's input for some rows, in the order given; each index is less than the number of rows.
    ///
    /// # Errors
    /// The caller's own.
    fn input(&self, rows: &[usize]) -> Result<Self::Input, Self::Error>;
}

/// [`DiscriminatorRows`] from a list of origins and a closure.
#[derive(Clone, Debug)]
pub struct RowsFromFn<'a, F, I> {
    origins: &'a [AuthoredBy],
    build: F,
    input: PhantomData<fn() -> I>,
}

impl<'a, F, I> RowsFromFn<'a, F, I> {
    /// Rows with these origins, whose inputs `build` makes from row indices.
    pub fn new<E>(origins: &'a [AuthoredBy], build: F) -> Self
    where
        F: Fn(&[usize]) -> Result<I, E>,
    {
        Self { origins, build, input: PhantomData }
    }
}

impl<F, I, E> DiscriminatorRows for RowsFromFn<'_, F, I>
where
    F: Fn(&[usize]) -> Result<I, E>,
    E: Error + Send + Sync + 'static,
{
    type Input = I;
    type Error = E;

    fn origins(&self) -> &[AuthoredBy] {
        self.origins
    }

    fn input(&self, rows: &[usize]) -> Result<I, E> {
        (self.build)(rows)
    }
}

/// Splits all rows into shuffled micro-batches of at most `micro_batch_rows` rows.
///
/// Every row occurs once. Sizes differ by at most 1, and so does the share of students: a micro-batch of `n` rows holds
/// `n * students / rows` students, rounded up or down. The order inside a micro-batch is random too, so that position
/// says nothing about origin.
pub(crate) fn mixed_micro_batches(
    origins: &[AuthoredBy],
    micro_batch_rows: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
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
    }
}
