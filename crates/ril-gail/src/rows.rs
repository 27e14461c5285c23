use std::error::Error;
use std::marker::PhantomData;

use crate::{AuthoredBy, RowPair};

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

    /// Which teacher wrote a row, by index; 0 by default. Read for rows by a teacher alone: their weight
    /// ([`LossConfig::teacher_weights`](crate::LossConfig::teacher_weights)) and statistics.
    fn teacher_of(&self, row: usize) -> usize {
        let _ = row;
        0
    }

    /// Length of a row in any unit, the same for all rows (tokens, characters); `None`, the default, where it is not
    /// known. Read for the alarm for a shortcut alone ([`Opinion::length_only_accuracy`](crate::Opinion)), never shown
    /// to the discriminator.
    fn length_of(&self, row: usize) -> Option<usize> {
        let _ = row;
        None
    }

    /// The pairs that a loss on pairs compares; asked once an update, and only by such a loss. Default
    /// [`RowPair::in_order`]; override it to pair inside a question or to mark ties.
    fn pairs(&self) -> Vec<RowPair> {
        RowPair::in_order(self.origins())
    }
}

/// [`DiscriminatorRows`] from a list of origins and a closure.
#[derive(Clone, Debug)]
pub struct RowsFromFn<'a, F, I> {
    origins: &'a [AuthoredBy],
    teachers: Vec<usize>,
    lengths: Vec<usize>,
    pairs: Option<Vec<RowPair>>,
    build: F,
    input: PhantomData<fn() -> I>,
}

impl<'a, F, I> RowsFromFn<'a, F, I> {
    /// Rows with these origins, whose inputs `build` makes from row indices.
    pub fn new<E>(origins: &'a [AuthoredBy], build: F) -> Self
    where
        F: Fn(&[usize]) -> Result<I, E>,
    {
        Self { origins, teachers: Vec::new(), lengths: Vec::new(), pairs: None, build, input: PhantomData }
    }

    /// The same rows by these teachers: an index for each row, whatever it is for rows by the student; 0 for rows
    /// beyond the end of the list.
    #[must_use]
    pub fn with_teachers(self, teachers: Vec<usize>) -> Self {
        Self { teachers, ..self }
    }

    /// The same rows with these lengths, one for each row; none for rows beyond the end of the list.
    #[must_use]
    pub fn with_lengths(self, lengths: Vec<usize>) -> Self {
        Self { lengths, ..self }
    }

    /// The same rows with these pairs in place of [`RowPair::in_order`].
    #[must_use]
    pub fn with_pairs(self, pairs: Vec<RowPair>) -> Self {
        Self { pairs: Some(pairs), ..self }
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

    fn teacher_of(&self, row: usize) -> usize {
        self.teachers.get(row).copied().unwrap_or(0)
    }

    fn length_of(&self, row: usize) -> Option<usize> {
        self.lengths.get(row).copied()
    }

    fn pairs(&self) -> Vec<RowPair> {
        self.pairs.clone().unwrap_or_else(|| RowPair::in_order(self.origins))
    }
}
