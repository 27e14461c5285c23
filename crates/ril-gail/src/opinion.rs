//! All statistics of a set of rows, from logits that are on the host already.

use serde::{Deserialize, Serialize};

use crate::{
    DiscriminatorRows, DiscriminatorStats, GailError, ImitationStats, TeacherStats, discriminator_stats,
    imitation_stats, length_only_accuracy, teacher_stats,
};

/// What a discriminator thinks of a set of rows: everything that there is to log of its logits.
///
/// [`update_discriminator`](crate::update_discriminator) gives one for the discriminator before its first step. One that
/// is not updated (frozen, or held back) is reported just as well, from the logits that the rewards are made of:
///
/// ```
/// use ril_gail::{AuthoredBy::{Student, Teacher}, GailError, Opinion, RowsFromFn};
///
/// let origins = [Student, Student, Teacher, Teacher];
/// // A build function is needed for the type alone: an opinion never asks for an input.
/// let rows = RowsFromFn::new(&origins, |_: &[usize]| Ok::<(), GailError>(())).with_lengths(vec![9, 7, 3, 8]);
/// let opinion = Opinion::of_rows(&[1.2, -0.1, -2.0, -0.4], &rows)?;
/// assert_eq!((opinion.stats.balanced_accuracy(), opinion.length_only_accuracy), (0.75, Some(0.75)));
/// assert!(opinion.entries().contains(&("discriminator/accuracy_student", 0.5)));
/// # Ok::<(), GailError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opinion {
    /// Loss, accuracies, entropy and calibration.
    pub stats: DiscriminatorStats,
    /// Each teacher that has a row, by index.
    pub teachers: Vec<TeacherStats>,
    /// The same rows in the statistics of the `imitation` library.
    pub imitation: ImitationStats,
    /// [`length_only_accuracy`] of the rows, the alarm for a shortcut; `None` unless every row
    /// [has a length](DiscriminatorRows::length_of).
    pub length_only_accuracy: Option<f32>,
}

impl Opinion {
    /// The opinion that these logits are. Pure and on the host: asks `rows` for origins, teachers and lengths, never
    /// for an input.
    ///
    /// # Shapes
    /// - `logits_student_is_high`: `[rows]`, in the order of the rows, as
    ///   [`logits_of_rows`](crate::logits_of_rows) gives them
    ///
    /// # Errors
    /// [`GailError::Shape`], [`GailError::OneOrigin`], [`GailError::NonFiniteLogit`].
    pub fn of_rows<R: DiscriminatorRows + ?Sized>(logits_student_is_high: &[f32], rows: &R) -> Result<Self, GailError> {
        let origins = rows.origins();
        let lengths: Option<Vec<usize>> = (0..origins.len()).map(|row| rows.length_of(row)).collect();
        Ok(Self {
            stats: discriminator_stats(logits_student_is_high, origins)?,
            teachers: teacher_stats(logits_student_is_high, origins, |row| rows.teacher_of(row))?,
            imitation: imitation_stats(logits_student_is_high, origins)?,
            length_only_accuracy: lengths.map(|lengths| length_only_accuracy(&lengths, origins)).transpose()?,
        })
    }

    /// Names and values to log, flat. Absent where there is no number; the teachers are in
    /// [`teacher_entries`](Self::teacher_entries).
    ///
    /// | name | value |
    /// |---|---|
    /// | `discriminator/loss` | [`DiscriminatorStats::loss`] |
    /// | `discriminator/accuracy` | [`DiscriminatorStats::balanced_accuracy`] |
    /// | `discriminator/accuracy_student`, `_teacher` | share of the origin's rows taken for the origin's |
    /// | `discriminator/teacher_like_student`, `_teacher` | share of the origin's rows taken for a teacher's |
    /// | `discriminator/p_student_student`, `_teacher` | mean `p_student` of the origin's rows |
    /// | `discriminator/entropy` | [`DiscriminatorStats::entropy`] |
    /// | `discriminator/calibration_error` | [`DiscriminatorStats::calibration_error`] |
    /// | `discriminator/length_only_accuracy` | [`length_only_accuracy`](Self::length_only_accuracy) |
    /// | `imitation/disc_loss`, .. | the nine of [`ImitationStats`], by its names |
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        let stats = &self.stats;
        let mut entries: Vec<(&'static str, f32)> = vec![
            ("discriminator/loss", stats.loss),
            ("discriminator/accuracy", stats.balanced_accuracy()),
            ("discriminator/accuracy_student", stats.student_accuracy),
            ("discriminator/accuracy_teacher", stats.teacher_accuracy),
            ("discriminator/teacher_like_student", stats.student_similarity_rate()),
            ("discriminator/teacher_like_teacher", stats.teacher_similarity_rate()),
            ("discriminator/p_student_student", stats.student_mean_p),
            ("discriminator/p_student_teacher", stats.teacher_mean_p),
            ("discriminator/entropy", stats.entropy),
            ("discriminator/calibration_error", stats.calibration_error),
        ];
        entries.extend(self.length_only_accuracy.map(|accuracy| ("discriminator/length_only_accuracy", accuracy)));
        let flat = entries.into_iter().map(|(name, value)| (name, f64::from(value)));
        flat.chain(self.imitation.entries()).collect()
    }

    /// Names and values of each teacher, by its index: `discriminator/rows_teacher/0`,
    /// `discriminator/accuracy_teacher/0`, `discriminator/p_student_teacher/0`, ...
    pub fn teacher_entries(&self) -> Vec<(String, f64)> {
        let of_teacher = |stats: &TeacherStats| {
            let TeacherStats { teacher, rows, accuracy, mean_p } = *stats;
            [
                (format!("discriminator/rows_teacher/{teacher}"), rows as f64),
                (format!("discriminator/accuracy_teacher/{teacher}"), f64::from(accuracy)),
                (format!("discriminator/p_student_teacher/{teacher}"), f64::from(mean_p)),
            ]
        };
        self.teachers.iter().flat_map(of_teacher).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::AuthoredBy::{self, Student, Teacher};
    use crate::RowsFromFn;
    use proptest::prelude::*;

    use super::*;

    type Logits = Vec<f32>;

    /// The opinion of rows whose input must never be asked for.
    fn opinion(
        logits: &[f32],
        origins: &[AuthoredBy],
        teachers: Vec<usize>,
        lengths: Vec<usize>,
    ) -> Result<Opinion, GailError> {
        let rows = RowsFromFn::new(origins, |_: &[usize]| -> Result<Logits, GailError> { panic!("no input needed") });
        Opinion::of_rows(logits, &rows.with_teachers(teachers).with_lengths(lengths))
    }

    #[test]
    fn a_row_without_a_length_leaves_the_alarm_out() {
        let (logits, origins) = ([1.0, -1.0], [Student, Teacher]);
        let with = |lengths| opinion(&logits, &origins, vec![], lengths).expect("valid");
        assert_eq!(with(vec![3, 5]).length_only_accuracy, Some(1.0));
        for lengths in [vec![], vec![3]] {
            let opinion = with(lengths);
            assert_eq!(opinion.length_only_accuracy, None);
            assert!(opinion.entries().iter().all(|(name, _)| !name.contains("length")));
        }
    }

    #[test]
    fn names_are_unique_and_values_those_of_the_fields() {
        let origins = [Student, Student, Teacher, Teacher];
        let opinion = opinion(&[2.0, -1.0, -3.0, 1.0], &origins, vec![0, 0, 4, 1], vec![1, 2, 8, 9]).expect("valid");
        let entries = opinion.entries();
        let value = |wanted: &str| entries.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        for (name, expected) in [
            ("discriminator/loss", f64::from(opinion.stats.loss)),
            ("discriminator/accuracy", 0.5),
            ("discriminator/accuracy_student", 0.5),
            ("discriminator/teacher_like_student", 0.5),
            ("discriminator/p_student_teacher", f64::from(opinion.stats.teacher_mean_p)),
            ("discriminator/calibration_error", f64::from(opinion.stats.calibration_error)),
            ("discriminator/length_only_accuracy", 1.0),
            ("imitation/n_expert", 2.0),
            ("imitation/disc_acc", 0.5),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        let mut names: Vec<String> = entries.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.extend(opinion.teacher_entries().into_iter().map(|(name, _)| name));
        assert_eq!(names.len(), 11 + 9 + 6);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 26, "each name once");
        assert!(opinion.teacher_entries().contains(&("discriminator/accuracy_teacher/4".to_owned(), 1.0)));
    }

    #[test]
    fn broken_batches_are_refused() {
        let of = |logits: &[f32], origins: &[AuthoredBy]| opinion(logits, origins, vec![], vec![]).expect_err("broken");
        assert!(matches!(of(&[0.0], &[Student, Teacher]), GailError::Shape { .. }));
        assert!(matches!(of(&[0.0], &[Student]), GailError::OneOrigin { .. }));
        assert!(matches!(of(&[0.0, f32::NAN], &[Student, Teacher]), GailError::NonFiniteLogit { row: 1, .. }));
    }

    proptest! {
        #[test]
        fn an_opinion_is_what_its_parts_say_and_ignores_the_order_of_rows(
            rows in prop::collection::vec((-5_f32..5.0, any::<bool>(), 0_usize..3, 0_usize..20), 0..12),
            turn in 0_usize..14,
        ) {
            let mut rows = rows;
            rows.extend([(0.3, true, 0, 4), (-0.7, false, 1, 6)]);
            let of = |rows: &[(f32, bool, usize, usize)]| {
                let logits: Logits = rows.iter().map(|row| row.0).collect();
                let origins: Vec<_> = rows.iter().map(|row| if row.1 { Student } else { Teacher }).collect();
                let teachers: Vec<usize> = rows.iter().map(|row| row.2).collect();
                let lengths: Vec<usize> = rows.iter().map(|row| row.3).collect();
                let got = opinion(&logits, &origins, teachers.clone(), lengths.clone()).expect("valid");
                assert_eq!(got.stats, discriminator_stats(&logits, &origins).expect("valid"));
                assert_eq!(got.teachers, teacher_stats(&logits, &origins, |row| teachers[row]).expect("valid"));
                assert_eq!(got.imitation, imitation_stats(&logits, &origins).expect("valid"));
                assert_eq!(got.length_only_accuracy, Some(length_only_accuracy(&lengths, &origins).expect("valid")));
                got.entries()
            };
            let straight = of(&rows);
            let turn = turn % rows.len();
            rows.rotate_left(turn);
            for ((name, one), (_, other)) in straight.into_iter().zip(of(&rows)) {
                prop_assert!((one - other).abs() <= 1e-6, "{} {} {}", name, one, other);
            }
        }
    }
}
