use serde::{Deserialize, Serialize};

use crate::score::{check_finite, sigmoid, softplus};
use crate::{AuthoredBy, DiscriminatorTotals, GailError};

/// What a discriminator thinks of a batch of known origin. A row counts as student where its logit is at
/// least 0 (`p_student >= 0.5`), the complement of [`SimilarityReward::Step`](crate::SimilarityReward::Step).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiscriminatorStats {
    /// [`discriminator_loss`](crate::discriminator_loss) of the batch, nats; `2 ln 2` = 1.386 knows nothing.
    pub loss: f32,
    /// Share of student rows taken for students. Near 1 no student earns a similarity reward.
    pub student_accuracy: f32,
    /// Share of teacher rows taken for teachers.
    pub teacher_accuracy: f32,
    /// Mean `p_student` of student rows.
    pub student_mean_p: f32,
    /// Mean `p_student` of teacher rows.
    pub teacher_mean_p: f32,
    /// Mean entropy of the verdicts, nats, in `[0, ln 2]`; near 0 the discriminator is sure of everything.
    pub entropy: f32,
    /// [`calibration_error`] of `p_student`, in `[0, 1]`: 0 where a `p_student` of 0.8 is right 8 times in 10.
    pub calibration_error: f32,
}

impl DiscriminatorStats {
    /// Mean of the accuracies of both origins: 0.5 knows nothing, whatever the counts.
    pub fn balanced_accuracy(&self) -> f32 {
        0.5 * (self.student_accuracy + self.teacher_accuracy)
    }

    /// P(teacher-like | student) = P(`p_student < 0.5` | student): the share of student rows that earn the step reward.
    pub fn student_similarity_rate(&self) -> f32 {
        1.0 - self.student_accuracy
    }

    /// P(teacher-like | teacher): the share of teacher rows that earn it.
    pub fn teacher_similarity_rate(&self) -> f32 {
        self.teacher_accuracy
    }
}

/// What a discriminator thinks of the rows by one teacher.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherStats {
    /// Index of the teacher.
    pub teacher: usize,
    /// Its rows, at least 1.
    pub rows: usize,
    /// Share of them taken for a teacher's.
    pub accuracy: f32,
    /// Mean `p_student` of them: low where the teacher is easy to tell from the student.
    pub mean_p: f32,
}

/// Statistics of each teacher that has a row, by index.
///
/// # Shapes
/// - `logits_student_is_high`, `origins`: `[batch]`, in the same order; `teacher_of` is asked for rows by teachers
///   alone
///
/// # Errors
/// [`GailError::Shape`], [`GailError::NonFiniteLogit`].
pub fn teacher_stats(
    logits_student_is_high: &[f32],
    origins: &[AuthoredBy],
    teacher_of: impl Fn(usize) -> usize,
) -> Result<Vec<TeacherStats>, GailError> {
    GailError::check_rows("logits_student_is_high", origins.len(), logits_student_is_high.len())?;
    check_finite(logits_student_is_high)?;
    let mut of_teacher = std::collections::BTreeMap::<usize, Vec<f64>>::new();
    for (row, logit) in logits_student_is_high.iter().enumerate() {
        if origins[row] == AuthoredBy::Teacher {
            of_teacher.entry(teacher_of(row)).or_default().push(f64::from(*logit));
        }
    }
    let stats = |(teacher, logits): (usize, Vec<f64>)| TeacherStats {
        teacher,
        rows: logits.len(),
        accuracy: 1.0 - mean(logits.iter().map(|logit| taken_for_student(*logit))) as f32,
        mean_p: mean(logits.iter().map(|logit| sigmoid(*logit))) as f32,
    };
    Ok(of_teacher.into_iter().map(stats).collect())
}

/// Expected calibration error with 10 bins of equal width: `sum_b (n_b / n) |mean p_student - share of students|`.
///
/// Source: arXiv 1706.04599, on the probability of the label *student* rather than on the confidence of the
/// verdict. A bin holds its lower end, the last one both. In `[0, 1]`; 0 without rows. Rows of both origins count as
/// they come: 0.5 everywhere is calibrated for equal counts alone.
///
/// # Shapes
/// - `logits_student_is_high`, `origins`: `[batch]`, in the same order
///
/// # Errors
/// [`GailError::Shape`], [`GailError::NonFiniteLogit`].
pub fn calibration_error(logits_student_is_high: &[f32], origins: &[AuthoredBy]) -> Result<f32, GailError> {
    const BINS: usize = 10;
    GailError::check_rows("logits_student_is_high", origins.len(), logits_student_is_high.len())?;
    check_finite(logits_student_is_high)?;
    // `n (mean p - share of students)` of a bin is the sum of `p - label`.
    let mut excess = [0.0_f64; BINS];
    for (logit, origin) in logits_student_is_high.iter().zip(origins) {
        let p = sigmoid(f64::from(*logit));
        let bin = ((p * BINS as f64) as usize).min(BINS - 1);
        excess[bin] += p - f64::from(u8::from(*origin == AuthoredBy::Student));
    }
    Ok((excess.iter().map(|excess| excess.abs()).sum::<f64>() / origins.len().max(1) as f64) as f32)
}

/// Statistics of a batch from its logits, in `f64`.
///
/// # Shapes
/// - `logits_student_is_high`, `origins`: `[batch]`, in the same order
///
/// # Errors
/// [`GailError::Shape`], [`GailError::OneOrigin`], [`GailError::NonFiniteLogit`].
pub fn discriminator_stats(
    logits_student_is_high: &[f32],
    origins: &[AuthoredBy],
) -> Result<DiscriminatorStats, GailError> {
    GailError::check_rows("logits_student_is_high", origins.len(), logits_student_is_high.len())?;
    DiscriminatorTotals::new(origins)?;
    check_finite(logits_student_is_high)?;
    let rows = || logits_student_is_high.iter().map(|logit| f64::from(*logit)).zip(origins);
    let mean_of = |wanted: AuthoredBy, value: fn(f64) -> f64| {
        mean(rows().filter(|(_, origin)| **origin == wanted).map(|(logit, _)| value(logit)))
    };
    let student_loss = mean_of(AuthoredBy::Student, |logit| softplus(-logit));
    let teacher_loss = mean_of(AuthoredBy::Teacher, softplus);
    Ok(DiscriminatorStats {
        loss: (student_loss + teacher_loss) as f32,
        student_accuracy: mean_of(AuthoredBy::Student, taken_for_student) as f32,
        teacher_accuracy: 1.0 - mean_of(AuthoredBy::Teacher, taken_for_student) as f32,
        student_mean_p: mean_of(AuthoredBy::Student, sigmoid) as f32,
        teacher_mean_p: mean_of(AuthoredBy::Teacher, sigmoid) as f32,
        entropy: mean(rows().map(|(logit, _)| entropy(logit))) as f32,
        calibration_error: calibration_error(logits_student_is_high, origins)?,
    })
}

/// Balanced accuracy of the best classifier that sees **only lengths**: one threshold, either side; in `[0.5, 1]`.
///
/// The alarm for a shortcut: a discriminator that is no better than this may be reading the length and nothing else.
/// It is fitted on the rows that it is measured on, so that few rows give a high figure by chance. Ours.
///
/// # Shapes
/// - `lengths`: `[batch]`, in any unit (tokens, characters); `origins`: `[batch]`, in the same order
///
/// # Errors
/// [`GailError::Shape`], [`GailError::OneOrigin`].
pub fn length_only_accuracy(lengths: &[usize], origins: &[AuthoredBy]) -> Result<f32, GailError> {
    GailError::check_rows("lengths", origins.len(), lengths.len())?;
    let totals = DiscriminatorTotals::new(origins)?;
    let mut rows: Vec<_> = lengths.iter().zip(origins).collect();
    rows.sort_unstable_by_key(|(length, _)| **length);
    let (mut short_students, mut short_teachers) = (0_usize, 0_usize);
    let mut best = 0.5_f64;
    for same_length in rows.chunk_by(|a, b| a.0 == b.0) {
        let students = same_length.iter().filter(|(_, origin)| **origin == AuthoredBy::Student).count();
        short_students += students;
        short_teachers += same_length.len() - students;
        let student_share = short_students as f64 / totals.students() as f64;
        let teacher_share = short_teachers as f64 / totals.teachers() as f64;
        // "Short is student" has this accuracy, "short is teacher" its complement.
        let accuracy = 0.5 * (student_share + 1.0 - teacher_share);
        best = best.max(accuracy).max(1.0 - accuracy);
    }
    Ok(best as f32)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}

/// 1 where `p_student >= 0.5`.
fn taken_for_student(logit: f64) -> f64 {
    f64::from(u8::from(logit >= 0.0))
}

/// `-p ln p - (1 - p) ln(1 - p)` at `p = sigmoid(logit)`.
pub(crate) fn entropy(logit: f64) -> f64 {
    sigmoid(logit) * softplus(-logit) + sigmoid(-logit) * softplus(logit)
}

#[cfg(test)]
mod tests {
    use AuthoredBy::{Student, Teacher};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stats_of_a_hand_made_batch() {
        let stats = discriminator_stats(&[2.0, -1.0, 0.0, -3.0], &[Student, Student, Teacher, Teacher]).expect("valid");
        let p = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let expected = [
            (stats.loss, -(p(2.0).ln() + p(-1.0).ln()) / 2.0 - (p(0.0).ln() + p(3.0).ln()) / 2.0),
            (stats.student_accuracy, 0.5),
            (stats.teacher_accuracy, 0.5),
            (stats.student_mean_p, (p(2.0) + p(-1.0)) / 2.0),
            (stats.teacher_mean_p, (0.5 + p(-3.0)) / 2.0),
            (stats.balanced_accuracy(), 0.5),
            (stats.student_similarity_rate(), 0.5),
            (stats.teacher_similarity_rate(), 0.5),
            // Bins of one row each: 0.8808, 0.2689, 0.5, 0.0474 of students 1, 1, 0, 0.
            (stats.calibration_error, (1.0 - p(2.0) + 1.0 - p(-1.0) + 0.5 + p(-3.0)) / 4.0),
        ];
        for (got, expected) in expected {
            assert!((f64::from(got) - expected).abs() < 1e-6, "{got} {expected} {stats:?}");
        }
    }

    #[test]
    fn ignorance_and_certainty() {
        let unsure = discriminator_stats(&[0.0, 0.0], &[Student, Teacher]).expect("valid");
        assert!((unsure.loss - 2.0 * std::f32::consts::LN_2).abs() < 1e-6);
        assert!((unsure.entropy - std::f32::consts::LN_2).abs() < 1e-6);
        let sure = discriminator_stats(&[1e4, -1e4], &[Student, Teacher]).expect("valid");
        assert_eq!((sure.loss, sure.entropy, sure.balanced_accuracy()), (0.0, 0.0, 1.0));
        assert_eq!(sure.student_similarity_rate(), 0.0);
    }

    #[test]
    fn broken_batches_are_refused() {
        assert!(matches!(discriminator_stats(&[0.0], &[Student, Teacher]), Err(GailError::Shape { .. })));
        assert!(matches!(discriminator_stats(&[0.0], &[Student]), Err(GailError::OneOrigin { .. })));
        let nan = discriminator_stats(&[0.0, f32::NAN], &[Student, Teacher]);
        assert!(matches!(nan, Err(GailError::NonFiniteLogit { row: 1, .. })));
    }

    #[test]
    fn length_only_accuracy_of_hand_made_lengths() {
        let origins = [Student, Student, Teacher, Teacher];
        for (lengths, expected) in
            [([1, 2, 8, 9], 1.0), ([8, 9, 1, 2], 1.0), ([5, 5, 5, 5], 0.5), ([1, 9, 8, 9], 0.75), ([1, 4, 2, 3], 0.75)]
        {
            assert_eq!(length_only_accuracy(&lengths, &origins).expect("valid"), expected, "{lengths:?}");
        }
        assert_eq!(length_only_accuracy(&[3, 3, 3, 9], &[Student, Student, Student, Teacher]).expect("valid"), 1.0);
        assert!(matches!(length_only_accuracy(&[1], &origins), Err(GailError::Shape { .. })));
    }

    #[test]
    fn each_teacher_has_statistics_of_its_own() {
        let origins = [Student, Teacher, Teacher, Teacher, Student];
        let teachers = [9, 2, 0, 2, 9];
        let stats = teacher_stats(&[1.0, -1.0, 0.0, 3.0, 1.0], &origins, |row| teachers[row]).expect("finite");
        let p = |logit: f64| sigmoid(logit) as f32;
        assert_eq!(stats.iter().map(|s| (s.teacher, s.rows)).collect::<Vec<_>>(), [(0, 1), (2, 2)]);
        assert_eq!((stats[0].accuracy, stats[0].mean_p), (0.0, 0.5));
        assert_eq!(stats[1].accuracy, 0.5);
        assert!((stats[1].mean_p - (p(-1.0) + p(3.0)) / 2.0).abs() < 1e-6);
        assert!(matches!(teacher_stats(&[0.0], &origins, |_| 0), Err(GailError::Shape { .. })));
        assert!(matches!(teacher_stats(&[f32::NAN], &[Teacher], |_| 0), Err(GailError::NonFiniteLogit { .. })));
        assert_eq!(teacher_stats(&[0.0], &[Student], |_| 0).expect("no teacher"), []);
    }

    #[test]
    fn calibration_at_the_ends() {
        let of = |logits: &[f32], origins: &[AuthoredBy]| calibration_error(logits, origins).expect("finite");
        assert_eq!(of(&[1e4, -1e4], &[Student, Teacher]), 0.0);
        assert_eq!(of(&[-1e4, 1e4], &[Student, Teacher]), 1.0);
        assert_eq!(of(&[0.0, 0.0], &[Student, Teacher]), 0.0, "half of them are students");
        assert_eq!(of(&[0.0, 0.0], &[Teacher, Teacher]), 0.5);
        assert_eq!(of(&[], &[]), 0.0);
        // Errors of opposite sign cancel inside a bin only.
        assert!((of(&[0.05, 0.05, 0.05, 0.05], &[Student, Teacher, Student, Teacher]) - 0.0125).abs() < 1e-4);
    }

    proptest! {
        #[test]
        fn teachers_add_up_to_the_origin(
            rows in prop::collection::vec((-5_f32..5.0, any::<bool>(), 0_usize..3), 1..20),
        ) {
            let mut logits: Vec<f32> = rows.iter().map(|row| row.0).collect();
            let mut origins: Vec<_> = rows.iter().map(|row| if row.1 { Student } else { Teacher }).collect();
            logits.extend([0.3, 0.2]);
            origins.extend([Student, Teacher]);
            let teachers = teacher_stats(&logits, &origins, |row| rows.get(row).map_or(0, |r| r.2)).expect("finite");
            let whole = discriminator_stats(&logits, &origins).expect("both origins");
            let count: usize = teachers.iter().map(|teacher| teacher.rows).sum();
            prop_assert_eq!(count, origins.iter().filter(|origin| **origin == Teacher).count());
            let weighted = |of: fn(&TeacherStats) -> f32| {
                teachers.iter().map(|t| of(t) * t.rows as f32).sum::<f32>() / count as f32
            };
            prop_assert!((weighted(|t| t.accuracy) - whole.teacher_accuracy).abs() < 1e-5);
            prop_assert!((weighted(|t| t.mean_p) - whole.teacher_mean_p).abs() < 1e-5);
        }

        #[test]
        fn calibration_error_lies_between_the_whole_and_each_row(
            rows in prop::collection::vec((-6_f32..6.0, any::<bool>()), 1..20),
        ) {
            let logits: Vec<f32> = rows.iter().map(|row| row.0).collect();
            let origins: Vec<_> = rows.iter().map(|row| if row.1 { Student } else { Teacher }).collect();
            let got = f64::from(calibration_error(&logits, &origins).expect("finite"));
            let excess = |row: &(f32, bool)| sigmoid(f64::from(row.0)) - f64::from(u8::from(row.1));
            let one_bin = mean(rows.iter().map(excess)).abs();
            let a_bin_a_row = mean(rows.iter().map(|row| excess(row).abs()));
            prop_assert!(one_bin - 1e-6 <= got && got <= a_bin_a_row + 1e-6, "{} {} {}", one_bin, got, a_bin_a_row);
        }

        #[test]
        fn length_only_accuracy_equals_trying_every_threshold(rows in prop::collection::vec((0_usize..9, any::<bool>()), 0..12)) {
            let mut lengths: Vec<usize> = rows.iter().map(|row| row.0).collect();
            let mut origins: Vec<_> = rows.iter().map(|row| if row.1 { Student } else { Teacher }).collect();
            lengths.extend([4, 4]);
            origins.extend([Student, Teacher]);
            let share_below = |wanted, threshold| {
                let of_origin: Vec<_> = lengths.iter().zip(&origins).filter(|(_, o)| **o == wanted).collect();
                of_origin.iter().filter(|(length, _)| **length < threshold).count() as f64 / of_origin.len() as f64
            };
            let accuracy = |threshold| 0.5 * (share_below(Student, threshold) + 1.0 - share_below(Teacher, threshold));
            let best = (0..=9).map(accuracy).map(|a| a.max(1.0 - a)).fold(0.0, f64::max);
            let got = length_only_accuracy(&lengths, &origins).expect("valid");
            prop_assert!((f64::from(got) - best).abs() < 1e-6);
        }
    }
}
