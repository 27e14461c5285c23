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
}

impl DiscriminatorStats {
    /// Mean of the accuracies of both origins: 0.5 knows nothing, whatever the counts.
    pub fn balanced_accuracy(&self) -> f32 {
        0.5 * (self.student_accuracy + self.teacher_accuracy)
    }

    /// P(`p_student < 0.5` | student): the share of student rows that earn the similarity reward.
    pub fn student_similarity_rate(&self) -> f32 {
        1.0 - self.student_accuracy
    }
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
    let taken_for_student = |logit: f64| f64::from(u8::from(logit >= 0.0));
    let student_loss = mean_of(AuthoredBy::Student, |logit| softplus(-logit));
    let teacher_loss = mean_of(AuthoredBy::Teacher, softplus);
    Ok(DiscriminatorStats {
        loss: (student_loss + teacher_loss) as f32,
        student_accuracy: mean_of(AuthoredBy::Student, taken_for_student) as f32,
        teacher_accuracy: 1.0 - mean_of(AuthoredBy::Teacher, taken_for_student) as f32,
        student_mean_p: mean_of(AuthoredBy::Student, sigmoid) as f32,
        teacher_mean_p: mean_of(AuthoredBy::Teacher, sigmoid) as f32,
        entropy: mean(rows().map(|(logit, _)| entropy(logit))) as f32,
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

/// `-p ln p - (1 - p) ln(1 - p)` at `p = sigmoid(logit)`.
fn entropy(logit: f64) -> f64 {
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

    proptest! {
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
