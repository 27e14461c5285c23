//! Properties of `group_advantages`, numbered as in the design (1 to 5).

use proptest::prelude::*;
use ril_grpo::{RewardScale, group_advantages};

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
    fn a_shift_changes_nothing_and_a_factor_scales((rewards, group_size) in groups(), shift in -8f32..8.0) {
        let map = |f: &dyn Fn(f32) -> f32| rewards.iter().map(|r| r.map(f)).collect::<Vec<_>>();
        let shifted = map(&|r| r + shift);
        let scaled = map(&|r| r * 4.0);
        let none = |rewards: &[Option<f32>]| advantages(rewards, group_size, RewardScale::None);
        let std = |rewards: &[Option<f32>]| advantages(rewards, group_size, RewardScale::GroupStd);
        prop_assert!(near(&none(&shifted), &none(&rewards), 1e-5));
        let four_times: Vec<f32> = none(&rewards).iter().map(|a| a * 4.0).collect();
        prop_assert!(near(&none(&scaled), &four_times, 1e-6));
        let originals = rewards.chunks(group_size);
        let results = std(&scaled).into_iter().zip(std(&rewards)).collect::<Vec<_>>();
        for (group, pairs) in originals.zip(results.chunks(group_size)) {
            let values: Vec<f64> = group.iter().flatten().map(|&r| f64::from(r)).collect();
            if values.len() > 1 && sample_std(&values) > 0.1 {
                prop_assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 5e-3));
            }
        }
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
