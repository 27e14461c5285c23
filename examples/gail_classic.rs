//! Classic GAIL without a language model: an MLP imitates an expert that balances a pole.
//!
//!     cargo run --release --example gail_classic
//!
//! The policy never sees a reward of the environment, only the discriminator's opinion of its (state, action) pairs.
//! All episodes have 200 steps: after a fall the cart stands still until the end, so that the length of an episode,
//! which would give the task away, says nothing. `ril-gail` gives discriminator updates and rewards, `ril-grpo`
//! advantages and the policy loss; both know nothing of carts.
//!
//! What keeps it from going round in circles is the **replay of all earlier steps**: the discriminator is shown as many
//! of them as of the fresh ones. A discriminator that meets only what the policy does now forgets what was wrong with
//! what it did before, and the policy goes back to that.
//!
//! The settings were chosen while watching seeds 0 to 9 and 14. Seeds 100 to 104, which they were not chosen on, reach 0.999
//! to 1.000 of the expert's return.
//!
//! Other seeds than the five shown: `cargo run --release --example gail_classic -- 100 101`. Ends with an error when a
//! seed stays below 90% of the expert's return.

use std::error::Error;
use std::process::ExitCode;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ril_gail::{
    AuthoredBy, Discriminator, GailConfig, GailError, LossConfig, ReplayBuffer, ReplayConfig, Round, RowsFromFn,
    ScalarHead, ScalarHeadConfig, SimilarityReward, read_logits, update_discriminator,
};
use ril_grpo::{GrpoConfig, PolicyBatch, RewardScale, gather_log_probs, group_advantages, policy_loss};

const STEPS: usize = 200;
const STUDENT_EPISODES: usize = 16;
const EXPERT_EPISODES: usize = 5;
const ROUNDS: u64 = 50;
/// Share of the expert's return that counts as imitation.
const GOAL: f32 = 0.9;
const EPOCHS: usize = 4;
const DISCOUNT: f32 = 0.97;
const WIDTH: usize = 32;
/// About the spread of the expert's states, the units of both networks.
const SPREAD: State = [0.1, 0.3, 0.05, 0.4];

/// Cart position, its velocity, pole angle, its velocity; metres, radians, seconds.
type State = [f32; 4];

/// The cart-pole of Barto, Sutton and Anderson 1983, Euler steps of 0.02 s; action 1 pushes right, 0 left.
fn push([x, speed, angle, spin]: State, action: usize) -> State {
    let force = if action == 1 { 10.0 } else { -10.0 };
    let (sin, cos) = angle.sin_cos();
    let thrust = (force + 0.05 * spin * spin * sin) / 1.1;
    let torque = (9.8 * sin - cos * thrust) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1));
    let pull = thrust - 0.05 * torque * cos / 1.1;
    [x + 0.02 * speed, speed + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * torque]
}

fn is_upright(state: &State) -> bool {
    state[0].abs() < 2.4 && state[2].abs() < 12.0_f32.to_radians()
}

/// A linear controller, written by hand.
fn expert_action([x, speed, angle, spin]: State) -> usize {
    usize::from(0.1 * x + 0.2 * speed + angle + 0.25 * spin > 0.0)
}

fn scaled(state: &State) -> State {
    std::array::from_fn(|at| (state[at] / SPREAD[at]).clamp(-4.0, 4.0))
}

/// What the discriminator sees of a step: the state, and the action as one of two.
type Step = [f32; 6];

/// Some episodes side by side: `[STEPS][episodes]`, flattened.
struct Rollout {
    states: Vec<State>,
    actions: Vec<usize>,
    episodes: usize,
}

impl Rollout {
    fn sample(
        episodes: usize,
        rng: &mut ChaCha8Rng,
        mut act: impl FnMut(&[State], &mut ChaCha8Rng) -> Result<Vec<usize>, Box<dyn Error>>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut now: Vec<State> = (0..episodes).map(|_| [(); 4].map(|()| rng.random_range(-0.05..0.05))).collect();
        let mut rollout = Self { states: Vec::new(), actions: Vec::new(), episodes };
        for _ in 0..STEPS {
            let actions = act(&now, rng)?;
            rollout.states.extend(&now);
            rollout.actions.extend(&actions);
            let next = |(state, action)| if is_upright(&state) { push(state, action) } else { state };
            now = now.into_iter().zip(actions).map(next).collect();
        }
        Ok(rollout)
    }

    /// Steps upright, mean over episodes: the return of the environment, for the report alone.
    fn mean_return(&self) -> f32 {
        self.states.iter().filter(|state| is_upright(state)).count() as f32 / self.episodes as f32
    }

    /// All steps, as the discriminator sees them.
    fn steps(&self) -> Vec<Step> {
        let step = |(state, action): (&State, &usize)| {
            let [x, speed, angle, spin] = scaled(state);
            [x, speed, angle, spin, (*action == 0) as u8 as f32, *action as f32]
        };
        self.states.iter().zip(&self.actions).map(step).collect()
    }

    /// The steps to learn from: those until the fall, and the first one after it for all that repeat it.
    fn different_steps(&self) -> Vec<Step> {
        let is_new = |at: &usize| is_upright(&self.states[at.saturating_sub(self.episodes)]);
        self.steps().into_iter().enumerate().filter(|(at, _)| is_new(at)).map(|(_, step)| step).collect()
    }
}

fn table<const N: usize>(rows: &[[f32; N]], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.as_flattened().to_vec(), [rows.len(), N]), device)
}

/// Two tanh layers.
#[derive(Module, Debug)]
struct Body {
    first: Linear,
    second: Linear,
}

impl Body {
    fn new(inputs: usize, device: &Device) -> Self {
        let linear = |from| LinearConfig::new(from, WIDTH).init(device);
        Self { first: linear(inputs), second: linear(WIDTH) }
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(input).tanh()).tanh()
    }
}

#[derive(Module, Debug)]
struct StepDiscriminator {
    body: Body,
    head: ScalarHead,
}

impl Discriminator for StepDiscriminator {
    type Input = Tensor<2>;
    type Error = GailError;

    fn logits_student_is_high(&self, input: &Tensor<2>) -> Result<Tensor<1>, GailError> {
        Ok(self.head.forward(self.body.forward(input.clone())))
    }

    fn encoder_gradient_norm_squared(&self) -> Option<Tensor<1>> {
        Some(self.head.weight_norm_squared())
    }
}

#[derive(Module, Debug)]
struct Mlp {
    body: Body,
    head: Linear,
}

impl Mlp {
    fn logits(&self, states: &[State], device: &Device) -> Tensor<2> {
        let states: Vec<[f32; 4]> = states.iter().map(scaled).collect();
        self.head.forward(self.body.forward(table(&states, device)))
    }

    /// Log-probability of the action taken at each step, `[rows, 1]`: a step is a completion of one token.
    fn log_probs(&self, rollout: &Rollout, device: &Device) -> Result<Tensor<2>, Box<dyn Error>> {
        let actions: Vec<i64> = rollout.actions.iter().map(|&action| action as i64).collect();
        let targets = Tensor::<2, Int>::from_data(TensorData::new(actions, [rollout.actions.len(), 1]), device);
        Ok(gather_log_probs(self.logits(&rollout.states, device).unsqueeze_dim(1), targets)?)
    }

    /// Actions drawn from the policy.
    fn rollout(&self, episodes: usize, rng: &mut ChaCha8Rng) -> Result<Rollout, Box<dyn Error>> {
        let (policy, device) = (self.valid(), Device::flex());
        Rollout::sample(episodes, rng, |states, rng| {
            let logits = policy.logits(states, &device).into_data().try_to_vec::<f32>()?;
            let p_right = logits.chunks(2).map(|logit| 1.0 / (1.0 + (logit[0] - logit[1]).exp()));
            Ok(p_right.map(|p| usize::from(rng.random::<f32>() < p)).collect())
        })
    }
}

/// Discounted sums of the rewards to come; step-major like the rollout.
fn returns_to_go(rewards: &[f32], episodes: usize) -> Vec<Option<f32>> {
    let mut returns = rewards.to_vec();
    for at in (0..rewards.len() - episodes).rev() {
        returns[at] += DISCOUNT * returns[at + episodes];
    }
    returns.into_iter().map(Some).collect()
}

/// Trains on one rollout: `EPOCHS` steps of the clipped loss. All episodes at one time are a group.
fn improve(
    mut policy: Mlp,
    (optimizer, learning_rate): (&mut ModuleOptimizer, f64),
    rollout: &Rollout,
    rewards: &[f32],
) -> Result<Mlp, Box<dyn Error>> {
    let (device, config) = (Device::flex(), GrpoConfig::dr_grpo(1));
    let returns = returns_to_go(rewards, rollout.episodes);
    let advantages = group_advantages(&returns, rollout.episodes, RewardScale::None)?;
    // After a fall an action changes nothing: there is nothing to learn.
    let is_trained: Vec<bool> = rollout.states.iter().map(is_upright).collect();
    let batch = PolicyBatch::new(
        policy.valid().log_probs(rollout, &device)?,
        None,
        Tensor::from_floats(advantages.as_slice(), &device),
        Tensor::<2, Bool>::from_data(TensorData::new(is_trained, [rollout.states.len(), 1]), &device),
    )?;
    for _ in 0..EPOCHS {
        let loss = policy_loss(&batch, policy.log_probs(rollout, &device)?, &config)?.loss;
        let gradients = GradientsParams::from_grads(loss.backward(), &policy);
        policy = optimizer.step(learning_rate, policy, gradients);
    }
    Ok(policy)
}

/// Tells the steps of the student, some older ones too, from the expert's; then rewards each step of the rollout.
fn judge(
    discriminator: StepDiscriminator,
    optimizer: &mut ModuleOptimizer,
    (rollout, expert): (&Rollout, &Rollout),
    replay: &mut ReplayBuffer<Step>,
    (round, config): (u64, &GailConfig),
) -> Result<(StepDiscriminator, Vec<f32>), Box<dyn Error>> {
    let device = Device::flex();
    let fresh = rollout.different_steps();
    let students: Vec<Step> = fresh.iter().chain(replay.draw(fresh.len())).copied().collect();
    replay.add(fresh);
    let teachers = expert.steps();
    let origins = [vec![AuthoredBy::Student; students.len()], vec![AuthoredBy::Teacher; teachers.len()]].concat();
    let steps = [students, teachers].concat();
    let rows = RowsFromFn::new(&origins, |rows: &[usize]| {
        Ok::<_, GailError>(table(&rows.iter().map(|&row| steps[row]).collect::<Vec<_>>(), &device))
    });
    let (discriminator, report) =
        update_discriminator(discriminator, optimizer, &rows, Round::new(round, 0.003), config);
    report?;
    let logits = read_logits(discriminator.valid().logits_student_is_high(&table(&rollout.steps(), &device))?)?;
    Ok((discriminator, logits.into_iter().map(|logit| config.similarity.reward_of_logit(logit)).collect()))
}

/// Mean returns of the expert, and of the imitator before and after.
fn imitate(seed: u64) -> Result<[f32; 3], Box<dyn Error>> {
    let (plain, mut rng) = (Device::flex(), ChaCha8Rng::seed_from_u64(seed));
    plain.seed(seed);
    let device = plain.autodiff();
    let act = |states: &[State], _: &mut ChaCha8Rng| Ok(states.iter().map(|state| expert_action(*state)).collect());
    let expert = Rollout::sample(EXPERT_EPISODES, &mut rng, act)?;

    let mut policy = Mlp { body: Body::new(4, &device), head: LinearConfig::new(WIDTH, 2).init(&device) };
    let head = ScalarHeadConfig::new(WIDTH).with_initial_std(0.1).init(&device);
    let mut discriminator = StepDiscriminator { body: Body::new(6, &device), head };
    let (mut policy_optimizer, mut optimizer) = (AdamConfig::new().init(), AdamConfig::new().init());
    // Room for every step of the run, one old step for each fresh one.
    let all_steps = ROUNDS as usize * STUDENT_EPISODES * STEPS;
    let mut replay = ReplayBuffer::new(ReplayConfig { seed, ..ReplayConfig::new(all_steps) })?;
    let config = GailConfig::new()
        .with_updates_per_round(6)
        // Keeps the two players from chasing each other.
        .with_loss(LossConfig::new().with_score_regularizer(0.1))
        .with_micro_batch_rows(16_384)
        .with_similarity(SimilarityReward::LogOdds)
        .with_seed(seed);
    let before = policy.rollout(50, &mut rng)?.mean_return();
    for round in 0..ROUNDS {
        let rollout = policy.rollout(STUDENT_EPISODES, &mut rng)?;
        let (updated, rewards) =
            judge(discriminator, &mut optimizer, (&rollout, &expert), &mut replay, (round, &config))?;
        discriminator = updated;
        let learning_rate = 0.004 * (1.0 - round as f64 / ROUNDS as f64);
        policy = improve(policy, (&mut policy_optimizer, learning_rate), &rollout, &rewards)?;
    }
    Ok([expert.mean_return(), before, policy.rollout(50, &mut rng)?.mean_return()])
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let asked = std::env::args().skip(1).map(|seed| seed.parse()).collect::<Result<Vec<u64>, _>>()?;
    let seeds = if asked.is_empty() { (0..5).collect() } else { asked };
    println!("seed  expert  before  after  after / expert");
    let mut exit = ExitCode::SUCCESS;
    for seed in seeds {
        let [expert, before, after] = imitate(seed)?;
        let share = after / expert;
        println!("{seed:4}  {expert:6.1}  {before:6.1}  {after:5.1}  {share:.3}");
        let is_imitated = share >= GOAL;
        if !is_imitated {
            eprintln!("seed {seed}: expected at least {GOAL} of the expert's return");
            exit = ExitCode::FAILURE;
        }
    }
    Ok(exit)
}
