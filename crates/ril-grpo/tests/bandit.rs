//! The whole core at work: a softmax policy over arms learns the best one from group-relative rewards.

use burn::tensor::{Bool, Device, Distribution, Int, Tensor, TensorData};
use ril_grpo::{GrpoConfig, GrpoError, Policy, PolicyBatch, gather_log_probs, policy_loss};

const ARMS: usize = 4;
const ROWS: usize = 16;
const REWARDS: [f32; ARMS] = [0.1, 0.2, 1.0, 0.4];

/// One token, whose distribution is `softmax(logits)`.
struct Bandit {
    logits: Tensor<1>,
}

impl Policy for Bandit {
    type Input = Tensor<2, Int>;
    type Error = GrpoError;

    fn token_log_probs(&self, arms: &Self::Input) -> Result<Tensor<2>, GrpoError> {
        let [rows, seq] = arms.dims();
        let logits = self.logits.clone().unsqueeze::<3>().expand([rows, seq, ARMS]);
        gather_log_probs(logits, arms.clone())
    }
}

fn probabilities(logits: &Tensor<1>) -> Vec<f32> {
    let logits = logits.clone().inner().into_data().try_to_vec::<f32>().unwrap();
    let total: f32 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / total).collect()
}

fn sample(probabilities: &[f32], device: &Device) -> Vec<i64> {
    let uniform = Tensor::<1>::random([ROWS], Distribution::Uniform(0.0, 1.0), device);
    let draw = |mut left: f32| {
        let arm = probabilities.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        arm.unwrap_or(ARMS - 1) as i64
    };
    uniform.into_data().iter::<f32>().map(draw).collect()
}

/// Expected reward after 200 steps of plain gradient descent.
fn learn(config: &GrpoConfig) -> f32 {
    let device = Device::flex();
    device.seed(3);
    let mut logits = Tensor::<1>::zeros([ARMS], &device.clone().autodiff()).require_grad();
    let reference = Bandit { logits: logits.clone().inner() };
    for _ in 0..200 {
        let arms = sample(&probabilities(&logits), &device);
        let rewards: Vec<_> = arms.iter().map(|arm| Some(REWARDS[*arm as usize])).collect();
        let advantages = config.advantage.advantages(&rewards, ROWS, &[1; ROWS]).unwrap();
        let arms = Tensor::<2, Int>::from_data(TensorData::new(arms, [ROWS, 1]), &device);
        let old = Bandit { logits: logits.clone().inner() }.token_log_probs(&arms).unwrap();
        let batch = PolicyBatch::new(
            old,
            Some(reference.token_log_probs(&arms).unwrap()),
            Tensor::from_floats(advantages.as_slice(), &device),
            Tensor::<2, Bool>::from_data([[true]; ROWS], &device),
        )
        .unwrap();
        let log_probs = Bandit { logits: logits.clone() }.token_log_probs(&arms).unwrap();
        let loss = policy_loss(&batch, log_probs, config).unwrap().loss;
        let gradient = logits.grad(&loss.backward()).unwrap();
        let step = logits.inner() - gradient * 0.3;
        logits = step.autodiff().require_grad();
    }
    probabilities(&logits).iter().zip(REWARDS).map(|(p, r)| p * r).sum()
}

#[test]
fn two_hundred_steps_raise_the_mean_reward() {
    let uniform: f32 = REWARDS.iter().sum::<f32>() / ARMS as f32;
    let presets = [
        GrpoConfig::ril(1),
        GrpoConfig::dapo(),
        GrpoConfig::grpo().with_beta(0.001),
        GrpoConfig::gspo_token(),
        GrpoConfig::cispo(),
        GrpoConfig::sapo(),
        GrpoConfig::luspo(),
        GrpoConfig::vespo(),
        GrpoConfig::gmpo(),
        GrpoConfig::rloo(),
        GrpoConfig::reinforce_plus_plus().with_beta(0.001),
    ];
    for config in presets {
        let learned = learn(&config);
        assert!(learned > 0.9 && learned > uniform, "{config}: {learned}");
    }
}

#[test]
fn a_heavy_kl_term_keeps_the_reference() {
    let uniform: f32 = REWARDS.iter().sum::<f32>() / ARMS as f32;
    let learned = learn(&GrpoConfig::ril(1).with_beta(2.0));
    assert!((learned - uniform).abs() < 0.15, "{learned}");
}
