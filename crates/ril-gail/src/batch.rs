//! What a discriminator loss needs besides the logits, checked once.

use crate::{AuthoredBy, DiscriminatorTotals, GailError, RowPair};

/// Constants of one pass: origins, weights and pairs of the **whole** batch, or of a micro-batch of it.
///
/// Every weight is divided by its sum over the whole batch on construction, so that losses and gradients of
/// micro-batches ([`part`](Self::part)) add up to those of the whole, for every
/// [`DiscriminatorObjective`](crate::DiscriminatorObjective).
#[derive(Clone, Debug, PartialEq)]
pub struct DiscriminatorBatch {
    rows: Vec<RowTerm>,
    pairs: Vec<PairTerm>,
}

/// A row and its share of its origin's mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowTerm {
    pub origin: AuthoredBy,
    pub weight: f64,
}

/// A pair, by positions among the rows, and its share of the mean over pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PairTerm {
    pub pair: RowPair,
    pub weight: f64,
}

impl DiscriminatorBatch {
    /// A whole batch in which every row of an origin weighs the same, paired by [`RowPair::in_order`].
    ///
    /// # Errors
    /// [`GailError::OneOrigin`] unless both origins occur.
    pub fn new(origins: &[AuthoredBy]) -> Result<Self, GailError> {
        Self::weighted(origins, &vec![1.0; origins.len()], &RowPair::in_order(origins))
    }

    /// A whole batch with relative weights and pairs.
    ///
    /// A row counts by its share of the weights of its origin. A pair counts by its teacher's weight.
    ///
    /// # Shapes
    /// - `origins`, `weights`: `[rows]`; weights are finite, at least 0, in any unit
    /// - `pairs`: any number, none is fine for objectives on rows; a row may be in several
    ///
    /// # Errors
    /// [`GailError::OneOrigin`]; [`GailError::Shape`]; [`GailError::Weight`]; [`GailError::NoWeight`] where all of an
    /// origin or of the pairs are 0; [`GailError::Pair`] for a pair of other rows than a student's and a teacher's.
    pub fn weighted(origins: &[AuthoredBy], weights: &[f32], pairs: &[RowPair]) -> Result<Self, GailError> {
        GailError::check_rows("weights", origins.len(), weights.len())?;
        DiscriminatorTotals::new(origins)?;
        if let Some(row) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            return Err(GailError::Weight { what: "row", index: row, value: weights[row] });
        }
        let of = |wanted| move |(_, origin): &(_, &AuthoredBy)| **origin == wanted;
        let sum = |wanted| -> f64 {
            weights.iter().zip(origins).filter(of(wanted)).map(|(weight, _)| f64::from(*weight)).sum()
        };
        let (students, teachers) = (sum(AuthoredBy::Student), sum(AuthoredBy::Teacher));
        let term = |(weight, origin): (&f32, &AuthoredBy)| {
            let whole = if *origin == AuthoredBy::Student { students } else { teachers };
            RowTerm { origin: *origin, weight: f64::from(*weight) / whole }
        };
        if students == 0.0 || teachers == 0.0 {
            return Err(GailError::NoWeight("an origin"));
        }
        let rows = weights.iter().zip(origins).map(term).collect();
        Ok(Self { rows, pairs: pair_terms(origins, weights, pairs)? })
    }

    /// Rows without pairs whose shares are known, by origin: student, teacher.
    pub(crate) fn from_shares(origins: &[AuthoredBy], shares: [f64; 2]) -> Self {
        let share = |origin: &AuthoredBy| shares[usize::from(*origin == AuthoredBy::Teacher)];
        let rows = origins.iter().map(|origin| RowTerm { origin: *origin, weight: share(origin) }).collect();
        Self { rows, pairs: Vec::new() }
    }

    /// The micro-batch of some rows and some pairs, both by index into this batch. Shares stay those of this batch:
    /// rows and pairs that each occur in one part add up to the whole.
    ///
    /// Losses on rows read `rows`, losses on pairs read `pairs`, hence a row may be in several parts of a pair loss.
    ///
    /// # Errors
    /// [`GailError::Pair`] if a pair's row is not among `rows`; [`GailError::Index`] for an index outside.
    pub fn part(&self, rows: &[usize], pairs: &[usize]) -> Result<Self, GailError> {
        let outside = |what, index, len| GailError::Index { what, index, len };
        let picked = rows.iter().map(|&row| self.rows.get(row).copied().ok_or(outside("row", row, self.rows.len())));
        let picked = picked.collect::<Result<Vec<_>, _>>()?;
        let place = |row| rows.iter().position(|&candidate| candidate == row);
        let local = |&index: &usize| {
            let term = *self.pairs.get(index).ok_or(outside("pair", index, self.pairs.len()))?;
            match (place(term.pair.student), place(term.pair.teacher)) {
                (Some(student), Some(teacher)) => {
                    Ok(PairTerm { pair: RowPair { student, teacher, ..term.pair }, ..term })
                }
                _ => Err(GailError::Pair { pair: index, student: term.pair.student, teacher: term.pair.teacher }),
            }
        };
        Ok(Self { rows: picked, pairs: pairs.iter().map(local).collect::<Result<_, _>>()? })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True for a part without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The pairs, by index into this batch's rows.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = RowPair> + '_ {
        self.pairs.iter().map(|term| term.pair)
    }

    pub(crate) fn row_terms(&self) -> &[RowTerm] {
        &self.rows
    }

    pub(crate) fn pair_terms(&self) -> &[PairTerm] {
        &self.pairs
    }
}

fn pair_terms(origins: &[AuthoredBy], weights: &[f32], pairs: &[RowPair]) -> Result<Vec<PairTerm>, GailError> {
    let is = |row: usize, wanted| origins.get(row) == Some(&wanted);
    let is_valid = |pair: &RowPair| is(pair.student, AuthoredBy::Student) && is(pair.teacher, AuthoredBy::Teacher);
    if let Some(index) = pairs.iter().position(|pair| !is_valid(pair)) {
        let RowPair { student, teacher, .. } = pairs[index];
        return Err(GailError::Pair { pair: index, student, teacher });
    }
    let whole: f64 = pairs.iter().map(|pair| f64::from(weights[pair.teacher])).sum();
    if whole == 0.0 && !pairs.is_empty() {
        return Err(GailError::NoWeight("the pairs"));
    }
    let term = |pair: &RowPair| PairTerm { pair: *pair, weight: f64::from(weights[pair.teacher]) / whole };
    Ok(pairs.iter().map(term).collect())
}

#[cfg(test)]
mod tests {
    use AuthoredBy::{Student, Teacher};

    use super::*;

    #[test]
    fn weights_are_shares_of_their_origin_and_pairs_follow_the_teacher() {
        let origins = [Student, Student, Teacher, Teacher];
        let pairs = RowPair::in_order(&origins);
        let batch = DiscriminatorBatch::weighted(&origins, &[1.0, 1.0, 3.0, 1.0], &pairs).expect("valid");
        assert_eq!(batch.row_terms().iter().map(|term| term.weight).collect::<Vec<_>>(), [0.5, 0.5, 0.75, 0.25]);
        assert_eq!(batch.pair_terms().iter().map(|term| term.weight).collect::<Vec<_>>(), [0.75, 0.25]);
        let part = batch.part(&[3, 1], &[1]).expect("both rows are there");
        assert_eq!(part.pairs().collect::<Vec<_>>(), [RowPair::new(1, 0)]);
        assert_eq!((part.len(), part.pair_terms()[0].weight, part.row_terms()[1].weight), (2, 0.25, 0.5));
        assert!(batch.part(&[], &[]).expect("nothing").is_empty());
    }

    #[test]
    fn broken_batches_are_refused() {
        let origins = [Student, Teacher];
        let refused = |weights: &[f32], pairs: &[RowPair]| {
            DiscriminatorBatch::weighted(&origins, weights, pairs).expect_err("broken").to_string()
        };
        assert_eq!(refused(&[1.0], &[]), "weights: expected shape [2], got [1]");
        for value in [f32::NAN, -1.0, f32::INFINITY] {
            let message = refused(&[1.0, value], &[]);
            assert_eq!(message, format!("weight of row 1: expected a finite number of at least 0, got {value}"));
        }
        assert_eq!(refused(&[1.0, 0.0], &[]), "weights of an origin: expected one above 0, got none");
        let swapped = refused(&[1.0, 1.0], &[RowPair::new(1, 0)]);
        assert_eq!(swapped, "pair 0: expected a student row and a teacher row of the batch, got rows 1 and 0");
        assert!(matches!(DiscriminatorBatch::new(&[Student]), Err(GailError::OneOrigin { .. })));
        let batch = DiscriminatorBatch::new(&origins).expect("valid");
        assert!(matches!(batch.part(&[0], &[0]), Err(GailError::Pair { pair: 0, .. })));
        assert!(matches!(batch.part(&[2], &[]), Err(GailError::Index { what: "row", index: 2, len: 2 })));
        assert!(matches!(batch.part(&[0], &[1]), Err(GailError::Index { what: "pair", .. })));
    }
}
