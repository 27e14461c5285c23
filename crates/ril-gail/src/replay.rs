//! Earlier student texts, kept to be shown to the discriminator again.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::GailError;

/// Which texts a full buffer keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReplayPolicy {
    /// The latest ones: a new text replaces the oldest.
    #[default]
    Latest,
    /// A uniform sample of all texts ever added: Algorithm R of Vitter 1985 (doi 10.1145/3147.3165).
    Reservoir,
}

/// Size and use of a [`ReplayBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayConfig {
    /// Most texts kept, at least 1.
    pub capacity: usize,
    /// Replayed texts for each fresh student text, finite, at least 0; 1 shows as many old texts as new ones.
    pub ratio: f32,
    /// Which texts a full buffer keeps.
    pub policy: ReplayPolicy,
    /// Seed of the reservoir and of the draws.
    pub seed: u64,
}

impl ReplayConfig {
    /// The latest `capacity` texts, one drawn for each fresh text, seed 0.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ratio: 1.0, policy: ReplayPolicy::Latest, seed: 0 }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`GailError::Config`] names the setting.
    pub fn validate(&self) -> Result<(), GailError> {
        if self.capacity == 0 {
            return Err(GailError::Config("replay capacity: expected at least 1, got 0".into()));
        }
        if !(self.ratio.is_finite() && self.ratio >= 0.0) {
            return Err(GailError::Config(format!("replay ratio: expected a finite number >= 0, got {}", self.ratio)));
        }
        Ok(())
    }
}

/// Student texts of earlier rounds, so that a discriminator does not forget what the student used to write.
///
/// Source: the history of generated images of arXiv 1612.07828, and the generator's replay buffer of the
/// `imitation` library (`gen_replay_buffer_capacity`). `T` is whatever the caller's rows are built from: texts, token
/// ids, state-action pairs.
///
/// Draw **before** adding the texts of a round, so that no row is in the batch twice; give the drawn texts to
/// [`update_discriminator`](crate::update_discriminator) as student rows beside the fresh ones, and reward the fresh
/// alone.
///
/// Deterministic: the same seed, additions and draws give the same texts. Serialisable: what a checkpoint restores goes
/// on as if it had never stopped, since the random numbers depend on the seed and on two counters only.
///
/// ```
/// use ril_gail::{ReplayBuffer, ReplayConfig};
///
/// let mut buffer = ReplayBuffer::new(ReplayConfig { ratio: 0.5, ..ReplayConfig::new(100) })?;
/// let fresh = ["a", "b", "c", "d"];
/// assert!(buffer.draw(fresh.len()).is_empty(), "nothing to replay in the first round");
/// buffer.add(fresh);
/// assert_eq!(buffer.draw(4).len(), 2);
/// # Ok::<(), ril_gail::GailError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayBuffer<T> {
    config: ReplayConfig,
    items: Vec<T>,
    added: u64,
    draws: u64,
}

impl<T> ReplayBuffer<T> {
    /// An empty buffer.
    ///
    /// # Errors
    /// [`GailError::Config`].
    pub fn new(config: ReplayConfig) -> Result<Self, GailError> {
        config.validate()?;
        Ok(Self { config, items: Vec::new(), added: 0, draws: 0 })
    }

    /// Adds texts, in order; a full buffer replaces some, by its [`ReplayPolicy`].
    pub fn add(&mut self, items: impl IntoIterator<Item = T>) {
        for item in items {
            let index = self.added;
            self.added += 1;
            if self.items.len() < self.config.capacity {
                self.items.push(item);
                continue;
            }
            let capacity = self.items.len() as u64;
            let slot = match self.config.policy {
                ReplayPolicy::Latest => index % capacity,
                ReplayPolicy::Reservoir => self.rng(2 * index).random_range(0..=index),
            };
            if slot < capacity {
                self.items[slot as usize] = item;
            }
        }
    }

    /// Draws `round(ratio * fresh)` different texts, in random order; all that there are when they are fewer.
    pub fn draw(&mut self, fresh: usize) -> Vec<&T> {
        // A ratio that asks for more than `usize` saturates, and the buffer is smaller anyway.
        let wanted = (f64::from(self.config.ratio) * fresh as f64).round() as usize;
        let mut rng = self.rng(2 * self.draws + 1);
        self.draws += 1;
        let picked = rand::seq::index::sample(&mut rng, self.items.len(), wanted.min(self.items.len()));
        picked.into_iter().map(|index| &self.items[index]).collect()
    }

    /// Number of texts kept, at most the capacity.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True before the first addition.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of texts ever added.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// The settings.
    pub fn config(&self) -> &ReplayConfig {
        &self.config
    }

    /// The texts kept, in no particular order.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// A generator of its own for every addition and draw: no state but the counters.
    fn rng(&self, stream: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(stream);
        rng
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buffer(capacity: usize, ratio: f32, policy: ReplayPolicy, seed: u64) -> ReplayBuffer<u32> {
        ReplayBuffer::new(ReplayConfig { capacity, ratio, policy, seed }).expect("valid")
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let refused = |config| ReplayBuffer::<u32>::new(config).expect_err("out of range").to_string();
        assert_eq!(refused(ReplayConfig::new(0)), "invalid setting: replay capacity: expected at least 1, got 0");
        for ratio in [-0.5, f32::NAN, f32::INFINITY] {
            let message = refused(ReplayConfig { ratio, ..ReplayConfig::new(1) });
            assert_eq!(message, format!("invalid setting: replay ratio: expected a finite number >= 0, got {ratio}"));
        }
    }

    #[test]
    fn a_reservoir_keeps_every_text_with_the_same_chance() {
        let (capacity, added, runs) = (8, 40, 2000);
        let mut kept = vec![0_u32; added];
        for seed in 0..runs {
            let mut buffer = buffer(capacity, 1.0, ReplayPolicy::Reservoir, seed);
            buffer.add(0..added as u32);
            buffer.items().iter().for_each(|&item| kept[item as usize] += 1);
        }
        let chance = capacity as f64 / added as f64;
        let sigma = (runs as f64 * chance * (1.0 - chance)).sqrt();
        for (item, kept) in kept.iter().enumerate() {
            assert!((f64::from(*kept) - runs as f64 * chance).abs() < 4.5 * sigma, "{item}: {kept}");
        }
    }

    fn any_policy() -> impl Strategy<Value = ReplayPolicy> {
        prop_oneof![Just(ReplayPolicy::Latest), Just(ReplayPolicy::Reservoir)]
    }

    proptest! {
        #[test]
        fn a_draw_holds_ratio_times_fresh_different_texts(
            policy in any_policy(), capacity in 1_usize..20, added in 0_u32..60, fresh in 0_usize..30,
            ratio in 0_f32..3.0, seed in any::<u64>(),
        ) {
            let mut buffer = buffer(capacity, ratio, policy, seed);
            buffer.add(0..added);
            prop_assert_eq!((buffer.len(), buffer.added()), (capacity.min(added as usize), u64::from(added)));
            let mut drawn: Vec<u32> = buffer.draw(fresh).into_iter().copied().collect();
            let wanted = (f64::from(ratio) * fresh as f64).round() as usize;
            prop_assert_eq!(drawn.len(), wanted.min(capacity.min(added as usize)));
            drawn.sort_unstable();
            drawn.dedup();
            prop_assert_eq!(drawn.len(), wanted.min(buffer.len()));
            prop_assert!(drawn.iter().all(|item| *item < added));
        }

        #[test]
        fn latest_keeps_the_last_ones(capacity in 1_usize..20, added in 0_u32..60) {
            let mut buffer = buffer(capacity, 1.0, ReplayPolicy::Latest, 0);
            buffer.add(0..added);
            let mut kept = buffer.items().to_vec();
            kept.sort_unstable();
            prop_assert_eq!(kept, (added.saturating_sub(capacity as u32)..added).collect::<Vec<_>>());
        }

        #[test]
        fn a_restored_buffer_goes_on_as_if_it_had_never_stopped(
            policy in any_policy(), capacity in 1_usize..10, seed in any::<u64>(), cut in 0_u32..20,
        ) {
            let mut whole = buffer(capacity, 1.0, policy, seed);
            whole.add(0..cut);
            let _ = whole.draw(3);
            let text = serde_json::to_string(&whole).expect("serialisable");
            let mut restored: ReplayBuffer<u32> = serde_json::from_str(&text).expect("its own JSON");
            for buffer in [&mut whole, &mut restored] {
                buffer.add(cut..40);
            }
            prop_assert_eq!(whole.draw(5), restored.draw(5));
            prop_assert_eq!(&whole, &restored);
        }
    }
}
