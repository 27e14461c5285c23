//! Properties of every loss, over random batches.

use AuthoredBy::{Student, Teacher};
use DiscriminatorObjective::{BradleyTerry, Hinge, LeastSquares, Relativistic};
use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use ril_gail::{
    AuthoredBy, DiscriminatorBatch, DiscriminatorObjective, LabelSmoothing, LossConfig, PairOutcome, RowPair,
    objective_loss,
};

fn bce(label_smoothing: LabelSmoothing) -> DiscriminatorObjective {
    DiscriminatorObjective::Bce { label_smoothing }
}

fn any_objective() -> impl Strategy<Value = DiscriminatorObjective> {
    let amount = || 0.0_f32..0.45;
    prop_oneof![
        Just(bce(LabelSmoothing::None)),
        amount().prop_map(|amount| bce(LabelSmoothing::OneSided { amount })),
        amount().prop_map(|amount| bce(LabelSmoothing::TwoSided { amount })),
        Just(BradleyTerry),
        Just(LeastSquares),
        Just(Hinge),
        Just(Relativistic),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    logits: Vec<f32>,
    origins: Vec<AuthoredBy>,
    weights: Vec<f32>,
    pairs: Vec<RowPair>,
}

impl Case {
    fn batch(&self) -> DiscriminatorBatch {
        DiscriminatorBatch::weighted(&self.origins, &self.weights, &self.pairs).expect("valid")
    }

    /// Loss and gradient of some rows and pairs, with the shares of the whole.
    fn part(&self, config: &LossConfig, rows: &[usize], pairs: &[usize]) -> (f64, Vec<f64>) {
        let logits: Vec<f32> = rows.iter().map(|&row| self.logits[row]).collect();
        let input = Tensor::<1>::from_floats(logits.as_slice(), &Device::flex().autodiff()).require_grad();
        let batch = self.batch().part(rows, pairs).expect("inside");
        let loss = objective_loss(input.clone(), &batch, config).expect("one logit a row");
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradient = input.grad(&loss.backward()).expect("tracked").into_data();
        (value, gradient.iter::<f32>().map(f64::from).collect())
    }

    fn whole(&self, config: &LossConfig) -> (f64, Vec<f64>) {
        let rows: Vec<usize> = (0..self.logits.len()).collect();
        let pairs: Vec<usize> = (0..self.pairs.len()).collect();
        self.part(config, &rows, &pairs)
    }
}

fn case(limit: f32) -> impl Strategy<Value = Case> {
    let row = (-limit..limit, any::<bool>(), 0.1_f32..3.0);
    (prop::collection::vec(row, 0..8), prop::collection::vec((any::<usize>(), any::<usize>(), any::<bool>()), 1..8))
        .prop_map(|(rows, picks)| {
            let mut case = Case { logits: vec![0.5, -0.25], origins: vec![], weights: vec![1.0, 2.0], pairs: vec![] };
            case.origins = vec![Student, Teacher];
            for (logit, is_student, weight) in rows {
                case.logits.push(logit);
                case.origins.push(if is_student { Student } else { Teacher });
                case.weights.push(weight);
            }
            let of = |wanted| (0..case.origins.len()).filter(|&row| case.origins[row] == wanted).collect::<Vec<_>>();
            let (students, teachers) = (of(Student), of(Teacher));
            let pair = |(student, teacher, is_tie): &(usize, usize, bool)| RowPair {
                outcome: if *is_tie { PairOutcome::Tie } else { PairOutcome::Teacher },
                ..RowPair::new(students[student % students.len()], teachers[teacher % teachers.len()])
            };
            case.pairs = picks.iter().map(pair).collect();
            case
        })
}

fn loss_of(objective: DiscriminatorObjective, logits: [f32; 2], outcome: PairOutcome) -> f64 {
    let pairs = vec![RowPair { outcome, ..RowPair::new(0, 1) }];
    let case = Case { logits: logits.into(), origins: vec![Student, Teacher], weights: vec![1.0; 2], pairs };
    case.whole(&LossConfig::new().with_objective(objective)).0
}

#[test]
fn knowing_nothing_costs_what_the_table_says_and_being_right_costs_less() {
    let ln_2 = std::f64::consts::LN_2;
    let table = [
        (bce(LabelSmoothing::None), 2.0 * ln_2),
        (bce(LabelSmoothing::OneSided { amount: 0.1 }), 2.0 * ln_2),
        (bce(LabelSmoothing::TwoSided { amount: 0.1 }), 2.0 * ln_2),
        (LeastSquares, 1.0),
        (Hinge, 2.0),
        (BradleyTerry, ln_2),
        (Relativistic, ln_2),
    ];
    for (objective, expected) in table {
        let cost = |student, teacher| loss_of(objective, [student, teacher], PairOutcome::Teacher);
        assert!((cost(0.0, 0.0) - expected).abs() < 1e-6, "{objective:?}");
        assert!(cost(0.5, -0.5) < expected && cost(-0.5, 0.5) > expected, "{objective:?}: student is high");
    }
}

#[test]
fn a_tie_is_cheapest_at_equal_scores_and_only_the_relativistic_loss_reads_it() {
    let tie = |student, teacher| loss_of(Relativistic, [student, teacher], PairOutcome::Tie);
    assert!((tie(3.0, 3.0) - std::f64::consts::LN_2).abs() < 1e-6);
    assert!(tie(3.0, 1.0) > tie(3.0, 3.0) && (tie(3.0, 1.0) - tie(1.0, 3.0)).abs() < 1e-6);
    for objective in [bce(LabelSmoothing::None), LeastSquares, Hinge, BradleyTerry] {
        let cost = |outcome| loss_of(objective, [0.3, 0.8], outcome);
        assert_eq!(cost(PairOutcome::Tie), cost(PairOutcome::Teacher));
    }
}

#[test]
fn smoothing_moves_the_cheapest_logit_to_that_of_its_label() {
    // The label 0.1 has the logit ln(0.1 / 0.9) = -2.197.
    let (best, amount) = (-2.197_224_6, 0.1);
    for smoothing in [LabelSmoothing::OneSided { amount }, LabelSmoothing::TwoSided { amount }] {
        let cost = |teacher: f32| loss_of(bce(smoothing), [0.0, teacher], PairOutcome::Teacher);
        assert!(cost(best) < cost(best - 0.1) && cost(best) < cost(best + 0.1));
    }
    let student = |smoothing, logit: f32| loss_of(bce(smoothing), [logit, 0.0], PairOutcome::Teacher);
    let one_sided = LabelSmoothing::OneSided { amount };
    assert_eq!(student(one_sided, 4.0), student(LabelSmoothing::None, 4.0), "the student's label stays 1");
    assert!(student(LabelSmoothing::TwoSided { amount }, 4.0) > student(LabelSmoothing::None, 4.0));
}

#[test]
fn parts_without_terms_cost_nothing() {
    let case = Case {
        logits: vec![f32::NAN, 1.0],
        origins: vec![Student, Teacher],
        weights: vec![1.0; 2],
        pairs: vec![RowPair::new(0, 1)],
    };
    let config = LossConfig::new().with_objective(BradleyTerry).with_score_regularizer(1.0);
    assert_eq!(case.part(&config, &[0, 1], &[]), (0.0, vec![0.0, 0.0]));
}

proptest! {
    #[test]
    fn micro_batches_add_up_to_the_whole(
        case in case(20.0), objective in any_objective(), regularizer in 0.0_f32..0.5, cut in 1_usize..5,
    ) {
        let config = LossConfig::new().with_objective(objective).with_score_regularizer(regularizer);
        let (whole, gradient) = case.whole(&config);
        let all: Vec<usize> = (0..case.logits.len()).collect();
        let pairs: Vec<usize> = (0..case.pairs.len()).collect();
        let parts: Vec<(Vec<usize>, Vec<usize>)> = match objective.is_on_pairs() {
            // All rows come with every part: a row may be in pairs of several.
            true => pairs.chunks(cut).map(|pairs| (all.clone(), pairs.to_vec())).collect(),
            false => all.chunks(cut).map(|rows| (rows.to_vec(), Vec::new())).collect(),
        };
        let (mut sum, mut summed) = (0.0, vec![0.0; all.len()]);
        for (rows, pairs) in parts {
            let (loss, gradient) = case.part(&config, &rows, &pairs);
            sum += loss;
            rows.iter().zip(gradient).for_each(|(&row, gradient)| summed[row] += gradient);
        }
        prop_assert!((sum - whole).abs() <= 1e-5 * whole.max(1.0), "{} {}", sum, whole);
        for (got, expected) in summed.iter().zip(&gradient) {
            prop_assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{} {}", got, expected);
        }
    }

    #[test]
    fn loss_and_gradient_are_finite_for_huge_logits(case in case(1e4), objective in any_objective()) {
        let (loss, gradient) = case.whole(&LossConfig::new().with_objective(objective));
        prop_assert!(loss.is_finite() && loss >= 0.0);
        prop_assert!(gradient.iter().all(|gradient| gradient.is_finite()));
    }

    #[test]
    fn descent_parts_the_origins(case in case(0.9), objective in any_objective()) {
        // Below a margin of 1, every loss but a tie pushes students up and teachers down.
        let is_smoothed = |smoothing| smoothing != LabelSmoothing::None;
        prop_assume!(!matches!(objective, DiscriminatorObjective::Bce { label_smoothing } if is_smoothed(label_smoothing)));
        let mut case = case;
        case.pairs.iter_mut().for_each(|pair| pair.outcome = PairOutcome::Teacher);
        let (_, gradient) = case.whole(&LossConfig::new().with_objective(objective));
        for (gradient, origin) in gradient.iter().zip(&case.origins) {
            let toward_origin = if *origin == Student { -gradient } else { *gradient };
            prop_assert!(toward_origin >= 0.0);
        }
        prop_assert!(gradient.iter().any(|gradient| *gradient != 0.0));
    }

    #[test]
    fn swapping_roles_and_negating_logits_changes_nothing(case in case(50.0), objective in any_objective()) {
        let is_one_sided = |smoothing| matches!(smoothing, LabelSmoothing::OneSided { .. });
        prop_assume!(!matches!(objective, DiscriminatorObjective::Bce { label_smoothing } if is_one_sided(label_smoothing)));
        // A pair counts by its teacher's weight, which a swap would change.
        let mut case = case;
        if objective.is_on_pairs() {
            case.weights.fill(1.0);
        }
        let mirrored = Case {
            logits: case.logits.iter().map(|logit| -logit).collect(),
            origins: case.origins.iter().map(|o| if *o == Student { Teacher } else { Student }).collect(),
            weights: case.weights.clone(),
            pairs: case.pairs.iter().map(|p| RowPair { student: p.teacher, teacher: p.student, ..*p }).collect(),
        };
        let config = LossConfig::new().with_objective(objective).with_score_regularizer(0.1);
        let ((loss, gradient), (other, mirrored)) = (case.whole(&config), mirrored.whole(&config));
        prop_assert!((loss - other).abs() <= 1e-5 * loss.max(1.0), "{} {}", loss, other);
        for (one, other) in gradient.iter().zip(mirrored) {
            prop_assert!((one + other).abs() <= 1e-5 * one.abs().max(1.0));
        }
    }

    #[test]
    fn pair_losses_ignore_a_shift_and_row_losses_ignore_pairs(case in case(5.0), objective in any_objective()) {
        let config = LossConfig::new().with_objective(objective);
        let mut other = case.clone();
        match objective.is_on_pairs() {
            true => other.logits.iter_mut().for_each(|logit| *logit += 8.0),
            false => other.pairs.clear(),
        }
        let (one, other) = (case.whole(&config).0, other.whole(&config).0);
        prop_assert!((one - other).abs() <= 1e-5 * one.max(1.0), "{} {}", one, other);
    }

    #[test]
    fn weights_count_by_their_ratio(case in case(5.0), objective in any_objective(), scale in 0.1_f32..9.0) {
        let config = LossConfig::new().with_objective(objective);
        let mut scaled = case.clone();
        scaled.weights.iter_mut().for_each(|weight| *weight *= scale);
        let (one, other) = (case.whole(&config).0, scaled.whole(&config).0);
        prop_assert!((one - other).abs() <= 1e-5 * one.max(1.0), "{} {}", one, other);
    }

    #[test]
    fn a_row_without_weight_is_as_if_absent(case in case(5.0), objective in any_objective(), logit in -5_f32..5.0) {
        let config = LossConfig::new().with_objective(objective).with_score_regularizer(0.3);
        let mut longer = case.clone();
        longer.logits.push(logit);
        longer.origins.push(Teacher);
        longer.weights.push(0.0);
        longer.pairs.push(RowPair::new(0, longer.logits.len() - 1));
        let ((one, _), (other, gradient)) = (case.whole(&config), longer.whole(&config));
        prop_assert!((one - other).abs() <= 1e-5 * one.max(1.0), "{} {}", one, other);
        prop_assert_eq!(gradient.last(), Some(&0.0));
    }

    #[test]
    fn hinge_rows_beyond_the_margin_give_no_gradient(case in case(4.0)) {
        let (_, gradient) = case.whole(&LossConfig::new().with_objective(Hinge));
        for ((gradient, origin), logit) in gradient.iter().zip(&case.origins).zip(&case.logits) {
            let margin = if *origin == Student { *logit } else { -*logit };
            prop_assert_eq!(*gradient == 0.0, margin >= 1.0);
        }
    }

    #[test]
    fn without_ties_the_relativistic_loss_is_bradley_terry(mut case in case(50.0)) {
        case.pairs.iter_mut().for_each(|pair| pair.outcome = PairOutcome::Teacher);
        let of = |objective| case.whole(&LossConfig::new().with_objective(objective));
        prop_assert_eq!(of(Relativistic), of(BradleyTerry));
    }

    #[test]
    fn the_regularizer_adds_the_balanced_mean_square(case in case(5.0), weight in 0.01_f32..2.0) {
        let of = |weight| case.whole(&LossConfig::new().with_score_regularizer(weight)).0;
        let mean = |wanted| {
            let rows = || (0..case.logits.len()).filter(|&row| case.origins[row] == wanted);
            let sum: f64 = rows().map(|row| f64::from(case.weights[row]) * f64::from(case.logits[row]).powi(2)).sum();
            sum / rows().map(|row| f64::from(case.weights[row])).sum::<f64>()
        };
        let expected = f64::from(weight) * (mean(Student) + mean(Teacher)) / 2.0;
        let got = of(weight) - of(0.0);
        prop_assert!((got - expected).abs() <= 1e-5 * expected.max(1.0), "{} {}", got, expected);
    }
}
