use burn::tensor::Tensor;

use crate::{DiscriminatorBatch, GailError, LossConfig, objective_loss};

/// Who wrote a response: the label of the discriminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum AuthoredBy {
    /// The model in training; label 1.
    Student,
    /// A bigger model, whose responses are imitated; label 0.
    Teacher,
}

/// How many rows of each origin the **whole** batch holds: the denominators of [`discriminator_loss`].
///
/// Counted once and passed to every micro-batch, so that micro-batch losses add up to the loss of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscriminatorTotals {
    students: usize,
    teachers: usize,
}

impl DiscriminatorTotals {
    /// Counts the origins of a whole batch.
    ///
    /// # Errors
    /// [`GailError::OneOrigin`] unless both occur.
    pub fn new(origins: &[AuthoredBy]) -> Result<Self, GailError> {
        let students = origins.iter().filter(|origin| **origin == AuthoredBy::Student).count();
        let teachers = origins.len() - students;
        if students == 0 || teachers == 0 {
            return Err(GailError::OneOrigin { students, teachers });
        }
        Ok(Self { students, teachers })
    }

    /// Rows by the student, at least 1.
    pub fn students(self) -> usize {
        self.students
    }

    /// Rows by a teacher, at least 1.
    pub fn teachers(self) -> usize {
        self.teachers
    }
}

/// Discriminator loss, nats: `mean_students(-log sigmoid(l)) + mean_teachers(-log(1 - sigmoid(l)))`, `2 ln 2` at 0.
///
/// Source: the negative of Eq. 1 of RIL, arXiv 2510.19307. Each origin is averaged over its own rows, which equals the
/// paper's mean over pairs where both have the same number and stays balanced where they do not. Computed in `f32` from
/// logits, as `log_sigmoid(l)` and `log_sigmoid(-l)`: finite for any finite logit. The same as [`objective_loss`] with
/// the default [`LossConfig`], which has the other losses.
///
/// # Shapes
/// - `logits_student_is_high`: `[batch]`, rows of the whole batch or of a micro-batch
/// - `origins`: `[batch]`, in the same order; may hold one origin only
/// - `totals`: counted on the whole batch
/// - output: `[1]`; micro-batch losses **sum** to the loss of the whole batch, and so do their gradients
///
/// # Errors
/// [`GailError::Shape`] when there is not one origin per logit.
pub fn discriminator_loss(
    logits_student_is_high: Tensor<1>,
    origins: &[AuthoredBy],
    totals: DiscriminatorTotals,
) -> Result<Tensor<1>, GailError> {
    let weights = [1.0 / totals.students as f64, 1.0 / totals.teachers as f64];
    let batch = DiscriminatorBatch::from_shares(origins, weights);
    objective_loss(logits_student_is_high, &batch, &LossConfig::new())
}

#[cfg(test)]
mod tests {
    use AuthoredBy::{Student, Teacher};
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;

    fn loss(logits: &[f32], origins: &[AuthoredBy]) -> f32 {
        let totals = DiscriminatorTotals::new(origins).expect("both origins");
        let logits = Tensor::from_floats(logits, &Device::flex());
        discriminator_loss(logits, origins, totals).expect("one origin per logit").into_scalar()
    }

    /// Eq. 1, negated, as written and in f64.
    fn naive(logits: &[f32], origins: &[AuthoredBy]) -> f64 {
        let mean = |wanted: AuthoredBy, term: fn(f64) -> f64| {
            let rows: Vec<f64> = (logits.iter().zip(origins).filter(|(_, origin)| **origin == wanted))
                .map(|(logit, _)| term(1.0 / (1.0 + (-f64::from(*logit)).exp())))
                .collect();
            rows.iter().sum::<f64>() / rows.len() as f64
        };
        mean(Student, |p| -p.ln()) + mean(Teacher, |p| -(1.0 - p).ln())
    }

    fn rows(limit: f32) -> impl Strategy<Value = (Vec<f32>, Vec<AuthoredBy>)> {
        let origin = prop_oneof![Just(Student), Just(Teacher)];
        prop::collection::vec((-limit..limit, origin), 0..10).prop_map(|rows| {
            let (mut logits, mut origins): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            logits.extend([0.5, -0.25]);
            origins.extend([Student, Teacher]);
            (logits, origins)
        })
    }

    #[test]
    fn zero_logits_cost_two_ln_two_whatever_the_counts() {
        for (students, teachers) in [(1, 1), (4, 4), (1, 7), (5, 2)] {
            let origins = [vec![Student; students], vec![Teacher; teachers]].concat();
            let got = loss(&vec![0.0; origins.len()], &origins);
            assert!((got - 2.0 * std::f32::consts::LN_2).abs() < 1e-6, "{students} {teachers}: {got}");
        }
    }

    #[test]
    fn a_discriminator_that_is_right_costs_less() {
        assert!(loss(&[3.0, -3.0], &[Student, Teacher]) < 0.1);
        assert!(loss(&[-3.0, 3.0], &[Student, Teacher]) > 6.0);
    }

    #[test]
    fn broken_batches_are_refused() {
        let one = DiscriminatorTotals::new(&[Student, Student]).expect_err("no teacher");
        assert_eq!(one.to_string(), "origins: expected students and teachers, got 2 students and 0 teachers");
        assert!(matches!(DiscriminatorTotals::new(&[]), Err(GailError::OneOrigin { students: 0, teachers: 0 })));
        let totals = DiscriminatorTotals::new(&[Student, Teacher]).expect("both origins");
        let short = discriminator_loss(Tensor::zeros([3], &Device::flex()), &[Student, Teacher], totals);
        let message = short.expect_err("three logits for two rows").to_string();
        assert_eq!(message, "logits_student_is_high: expected shape [2], got [3]");
    }

    proptest! {
        #[test]
        fn loss_equals_the_naive_formula((logits, origins) in rows(10.0)) {
            let (got, expected) = (f64::from(loss(&logits, &origins)), naive(&logits, &origins));
            prop_assert!((got - expected).abs() <= 1e-5 * expected.abs().max(0.1), "{} {}", got, expected);
        }

        #[test]
        fn loss_and_gradient_are_finite_for_huge_logits((logits, origins) in rows(1e4)) {
            let device = Device::flex().autodiff();
            let input = Tensor::<1>::from_floats(logits.as_slice(), &device).require_grad();
            let totals = DiscriminatorTotals::new(&origins).expect("both origins");
            let loss = discriminator_loss(input.clone(), &origins, totals).expect("one origin per logit");
            prop_assert!(loss.clone().into_scalar::<f32>().is_finite());
            let gradient = input.grad(&loss.backward()).expect("tracked").into_data();
            for (gradient, origin) in gradient.iter::<f32>().zip(&origins) {
                prop_assert!(gradient.is_finite());
                // Descent raises the logit of students and lowers that of teachers.
                let toward_origin = if *origin == Student { -gradient } else { gradient };
                prop_assert!(toward_origin >= 0.0);
            }
        }

        #[test]
        fn swapping_roles_and_negating_logits_changes_nothing((logits, origins) in rows(100.0)) {
            let negated: Vec<f32> = logits.iter().map(|logit| -logit).collect();
            let swapped: Vec<_> = origins.iter().map(|o| if *o == Student { Teacher } else { Student }).collect();
            let (loss, mirrored) = (loss(&logits, &origins), loss(&negated, &swapped));
            prop_assert!((loss - mirrored).abs() <= 1e-6 * loss.abs().max(1.0));
        }
    }
}
