//! Properties of advantages: those of `group_advantages` numbered as in the design (1 to 5).

use proptest::prelude::*;
use ril_grpo::{RewardScale, group_advantages, leave_one_out_advantages, reinforce_plus_plus_advantages};

const SCALES: [RewardScale; 2] = [RewardScale::GroupStd, RewardScale::None];

fn advantages(rewards: &[Option<f32>], group_size: usize, scale: RewardScale) -> Vec<f32> {
    group_advantages(rewards, group_size, scale).unwrap()
}

/// Whole groups of rewards, some not scored, with their group size.
fn groups() -> impl Strategy<Value = (Vec<Option<f32>>, usize)> {
    (2usize..6, 1usize..4).prop_flat_map(|(group_size, questions)| {
        let reward = prop::option::weighted(0.8, -3f32..3.0);
        (prop::collection::vec(reward, group_size * questions), Just(group_size))
    })
}

fn sample_std(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Values of the scored members of a group.
fn scored(values: &[f32], rewards: &[Option<f32>]) -> Vec<f64> {
    let pairs = values.iter().zip(rewards);
    pairs.filter(|(_, r)| r.is_some()).map(|(v, _)| f64::from(*v)).collect()
}

fn near(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

proptest! {
    // 1
    #[test]
    fn scored_advantages_sum_to_zero_with_unit_std((rewards, group_size) in groups()) {
        for scale in SCALES {
            let all = advantages(&rewards, group_size, scale);
            for (group, rewards) in all.chunks(group_size).zip(rewards.chunks(group_size)) {
                let values = scored(group, rewards);
                prop_assert!(values.iter().sum::<f64>().abs() < 1e-5);
                let original: Vec<f64> = rewards.iter().flatten().map(|&r| f64::from(r)).collect();
                if scale == RewardScale::GroupStd && values.len() > 1 && sample_std(&original) > 0.1 {
                    prop_assert!((sample_std(&values) - 1.0).abs() < 2e-3);
                }
            }
        }
    }

    // 2
    #[test]
    fn a_constant_group_gives_exactly_zero(reward in -1e6f32..1e6, size in 1usize..40) {
        for scale in SCALES {
            prop_assert_eq!(advantages(&vec![Some(reward); size], size, scale), vec![0.0; size]);
        }
    }

    // 3
    #[test]
    fn a_shift_changes_nothing_and_a_factor_scales(
        (rewards, group_size) in groups(), shift in -8f32..8.0, factor in 0.5f32..20.0,
    ) {
        let map = |f: &dyn Fn(f32) -> f32| rewards.iter().map(|r| r.map(f)).collect::<Vec<_>>();
        let shifted = map(&|r| r + shift);
        let scaled = map(&|r| r * factor);
        let none = |rewards: &[Option<f32>]| advantages(rewards, group_size, RewardScale::None);
        let std = |rewards: &[Option<f32>]| advantages(rewards, group_size, RewardScale::GroupStd);
        prop_assert!(near(&none(&shifted), &none(&rewards), 1e-5));
        let times: Vec<f32> = none(&rewards).iter().map(|a| a * factor).collect();
        prop_assert!(near(&none(&scaled), &times, 1e-5 * factor));
        let originals = rewards.chunks(group_size);
        let results = std(&scaled).into_iter().zip(std(&rewards)).collect::<Vec<_>>();
        for (group, pairs) in originals.zip(results.chunks(group_size)) {
            let values: Vec<f64> = group.iter().flatten().map(|&r| f64::from(r)).collect();
            if values.len() > 1 && sample_std(&values) > 0.1 {
                prop_assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 5e-3));
            }
        }
    }

    #[test]
    fn the_deviation_of_the_batch_removes_its_scale((rewards, group_size) in groups(), factor in 0.5f32..20.0) {
        let all: Vec<f64> = rewards.iter().flatten().map(|&r| f64::from(r)).collect();
        prop_assume!(all.len() > 1 && sample_std(&all) > 0.1);
        let scaled: Vec<Option<f32>> = rewards.iter().map(|r| r.map(|r| r * factor)).collect();
        let before = advantages(&rewards, group_size, RewardScale::BatchStd);
        prop_assert!(near(&advantages(&scaled, group_size, RewardScale::BatchStd), &before, 1e-2));
        // One factor for all groups.
        let centred = advantages(&rewards, group_size, RewardScale::None);
        let divided: Vec<f32> = centred.iter().map(|a| a / (sample_std(&all) + 1e-4) as f32).collect();
        prop_assert!(near(&before, &divided, 1e-5));
    }

    #[test]
    fn leaving_one_out_is_n_over_n_minus_one_times_centring((rewards, group_size) in groups()) {
        let left_out = leave_one_out_advantages(&rewards, group_size).unwrap();
        let centred = advantages(&rewards, group_size, RewardScale::None);
        for (start, group) in rewards.chunks(group_size).enumerate().map(|(i, group)| (i * group_size, group)) {
            let n = group.iter().flatten().count() as f32;
            let factor = if n < 2.0 { 0.0 } else { n / (n - 1.0) };
            let expected: Vec<f32> = centred[start..][..group_size].iter().map(|a| a * factor).collect();
            prop_assert!(near(&left_out[start..][..group_size], &expected, 1e-5));
            // The baseline of a member is the mean of the others.
            for (i, reward) in group.iter().enumerate().filter_map(|(i, reward)| Some((i, (*reward)?))) {
                let others: f32 = group.iter().flatten().sum::<f32>() - reward;
                let expected = if n < 2.0 { 0.0 } else { reward - others / (n - 1.0) };
                prop_assert!((left_out[start + i] - expected).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn whitened_advantages_have_mean_zero_and_variance_one_over_tokens(
        (rewards, group_size) in groups(), lengths in prop::collection::vec(0usize..9, 15),
    ) {
        let lengths = &lengths[..rewards.len()];
        let whitened = reinforce_plus_plus_advantages(&rewards, group_size, lengths).unwrap();
        let centred = advantages(&rewards, group_size, RewardScale::None);
        let per_token = |values: &[f32]| -> Vec<f64> {
            let scored = values.iter().zip(lengths).zip(&rewards).filter(|(_, reward)| reward.is_some());
            scored.flat_map(|((a, n), _)| std::iter::repeat_n(f64::from(*a), *n)).collect()
        };
        let before = per_token(&centred);
        prop_assume!(before.len() > 1 && sample_std(&before) > 0.1);
        let tokens = per_token(&whitened);
        prop_assert!((tokens.iter().sum::<f64>() / tokens.len() as f64).abs() < 1e-5);
        prop_assert!((sample_std(&tokens) - 1.0).abs() < 1e-4);
    }

    // 4
    #[test]
    fn groups_are_independent_and_equivariant(
        (rewards, group_size) in groups(),
        turn in 0usize..6,
        replacement in prop::option::of(-3f32..3.0),
    ) {
        for scale in SCALES {
            let before = advantages(&rewards, group_size, scale);
            let mut turned = rewards.clone();
            let mut expected = before.clone();
            let turn = turn % group_size;
            turned[..group_size].rotate_left(turn);
            expected[..group_size].rotate_left(turn);
            let after = advantages(&turned, group_size, scale);
            prop_assert!(near(&after, &expected, 1e-5));
            let mut changed = rewards.clone();
            changed[0] = replacement;
            let after = advantages(&changed, group_size, scale);
            prop_assert_eq!(&after[group_size..], &before[group_size..]);
        }
    }

    // 5
    #[test]
    fn an_unscored_member_gets_zero_and_leaves_the_baseline((rewards, group_size) in groups()) {
        for scale in SCALES {
            let all = advantages(&rewards, group_size, scale);
            for (group, rewards) in all.chunks(group_size).zip(rewards.chunks(group_size)) {
                let kept: Vec<Option<f32>> = rewards.iter().copied().filter(Option::is_some).collect();
                let mut alone = match kept.len() {
                    0 => vec![],
                    size => advantages(&kept, size, scale),
                }.into_iter();
                for (value, reward) in group.iter().zip(rewards) {
                    prop_assert_eq!(*value, reward.map_or(0.0, |_| alone.next().unwrap()));
                }
            }
        }
    }
}
