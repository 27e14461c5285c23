//! Which student row a pair loss compares with which teacher row.

use serde::{Deserialize, Serialize};

use crate::AuthoredBy;

/// Who should win a pair; read by [`DiscriminatorObjective::Relativistic`](crate::DiscriminatorObjective::Relativistic)
/// alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PairOutcome {
    /// The teacher's response is the better one.
    #[default]
    Teacher,
    /// Neither: the two texts are the same.
    Tie,
}

/// A student row and a teacher row of one batch, compared by a pair loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowPair {
    /// Index of the student's row.
    pub student: usize,
    /// Index of the teacher's row.
    pub teacher: usize,
    /// Who should win.
    pub outcome: PairOutcome,
}

impl RowPair {
    /// A pair that the teacher should win.
    pub fn new(student: usize, teacher: usize) -> Self {
        Self { student, teacher, outcome: PairOutcome::Teacher }
    }

    /// The k-th student row with the k-th teacher row, in order. Where one origin has fewer rows, they start over, so
    /// that every row is in a pair; none when an origin is missing.
    ///
    /// ```
    /// use ril_gail::{AuthoredBy::{Student, Teacher}, RowPair};
    ///
    /// let pairs = RowPair::in_order(&[Student, Teacher, Student, Student, Teacher]);
    /// assert_eq!(pairs, [RowPair::new(0, 1), RowPair::new(2, 4), RowPair::new(3, 1)]);
    /// ```
    pub fn in_order(origins: &[AuthoredBy]) -> Vec<Self> {
        Self::within_groups(origins, |_| 0)
    }

    /// As [`in_order`](Self::in_order) inside each group of rows, such as the responses to one question, groups in the
    /// order of their first row. `group_of` names the group of a row. A group with one origin has no pair.
    ///
    /// ```
    /// use ril_gail::{AuthoredBy::{Student, Teacher}, RowPair};
    ///
    /// let origins = [Student, Teacher, Teacher, Student];
    /// assert_eq!(RowPair::within_groups(&origins, |row| row / 2), [RowPair::new(0, 1), RowPair::new(3, 2)]);
    /// ```
    pub fn within_groups(origins: &[AuthoredBy], group_of: impl Fn(usize) -> usize) -> Vec<Self> {
        let mut order: Vec<usize> = Vec::new();
        let mut members: std::collections::HashMap<usize, [Vec<usize>; 2]> = std::collections::HashMap::new();
        for (row, origin) in origins.iter().enumerate() {
            let group = group_of(row);
            let sides = members.entry(group).or_insert_with(|| {
                order.push(group);
                Default::default()
            });
            sides[usize::from(*origin == AuthoredBy::Teacher)].push(row);
        }
        let pairs_of = |group: &usize| {
            let [students, teachers] = &members[group];
            let pairs = if students.is_empty() { 0 } else { teachers.len().max(students.len()) };
            let pairs = if teachers.is_empty() { 0 } else { pairs };
            (0..pairs)
                .map(|k| Self::new(students[k % students.len()], teachers[k % teachers.len()]))
                .collect::<Vec<_>>()
        };
        order.iter().flat_map(pairs_of).collect()
    }

    /// Marks as ties the pairs of which `is_tie(student row, teacher row)` holds.
    pub fn with_ties(pairs: Vec<Self>, is_tie: impl Fn(usize, usize) -> bool) -> Vec<Self> {
        let outcome = |pair: &Self| match is_tie(pair.student, pair.teacher) {
            true => PairOutcome::Tie,
            false => pair.outcome,
        };
        pairs.into_iter().map(|pair| Self { outcome: outcome(&pair), ..pair }).collect()
    }
}

#[cfg(test)]
mod tests {
    use AuthoredBy::{Student, Teacher};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_with_one_origin_have_no_pair_and_ties_are_marked() {
        let origins = [Student, Student, Student, Teacher, Teacher, Student];
        let pairs = RowPair::within_groups(&origins, |row| usize::from(row >= 2));
        assert_eq!(pairs, [RowPair::new(2, 3), RowPair::new(5, 4)]);
        let tied = RowPair::with_ties(pairs, |student, teacher| (student, teacher) == (5, 4));
        assert_eq!(tied.iter().map(|pair| pair.outcome).collect::<Vec<_>>(), [PairOutcome::Teacher, PairOutcome::Tie]);
        assert!(RowPair::in_order(&[Student, Student]).is_empty() && RowPair::in_order(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn every_row_of_a_mixed_group_is_in_a_pair_of_its_group(
            rows in prop::collection::vec((any::<bool>(), 0_usize..3), 0..16),
        ) {
            let origins: Vec<_> = rows.iter().map(|row| if row.0 { Student } else { Teacher }).collect();
            let pairs = RowPair::within_groups(&origins, |row| rows[row].1);
            for pair in &pairs {
                prop_assert_eq!((origins[pair.student], origins[pair.teacher]), (Student, Teacher));
                prop_assert_eq!(rows[pair.student].1, rows[pair.teacher].1);
            }
            for group in 0..3 {
                let of = |wanted| (0..rows.len()).filter(|&row| rows[row].1 == group && origins[row] == wanted).count();
                let expected = if of(Student).min(of(Teacher)) == 0 { 0 } else { of(Student).max(of(Teacher)) };
                let got: Vec<_> = pairs.iter().filter(|pair| rows[pair.student].1 == group).collect();
                prop_assert_eq!(got.len(), expected);
                let mut seen: Vec<usize> = got.iter().flat_map(|pair| [pair.student, pair.teacher]).collect();
                seen.sort_unstable();
                seen.dedup();
                prop_assert!(expected == 0 || seen.len() == of(Student) + of(Teacher));
            }
        }
    }
}
