//! A stage of a run: SFT, discriminator pre-training, a reinforcement loop. One step at a time, with checkpoints.

use std::path::Path;

use crate::error::RilError;

/// Numbers of one step, in the order in which they are logged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageMetrics(Vec<(String, f64)>);

impl StageMetrics {
    /// Adds a number; `None` is left out.
    pub fn put(&mut self, name: impl Into<String>, value: impl Into<Option<f64>>) {
        self.0.extend(value.into().map(|value| (name.into(), value)));
    }

    /// Brings these names to the front, in this order: what a line of progress has room for.
    pub fn lead_with(&mut self, names: &[&str]) {
        let place = |name: &str| names.iter().position(|lead| *lead == name).unwrap_or(names.len());
        self.0.sort_by_key(|(name, _)| place(name));
    }

    /// The number with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[(String, f64)] {
        &self.0
    }
}

impl<N: Into<String>> Extend<(N, f64)> for StageMetrics {
    fn extend<T: IntoIterator<Item = (N, f64)>>(&mut self, entries: T) {
        self.0.extend(entries.into_iter().map(|(name, value)| (name.into(), value)));
    }
}

/// Something that trains step by step and can be stopped between any two.
///
/// A stage draws all its randomness from its seed and the number of the step, so that weights, optimizer state and
/// the step are all that a checkpoint holds.
pub trait Stage {
    /// Steps in all.
    fn total_steps(&self) -> usize;

    /// The step that comes next, counted from 0.
    fn next_step(&self) -> usize;

    /// Runs one step.
    ///
    /// # Errors
    /// Whatever the stage's parts say; the stage is then as after the last whole step, unless its type says otherwise.
    fn step(&mut self) -> Result<StageMetrics, RilError>;

    /// Writes everything that [`Stage::restore`] needs into an empty folder.
    ///
    /// # Errors
    /// [`RilError::Checkpoint`].
    fn save(&self, folder: &Path) -> Result<(), RilError>;

    /// Goes on after `step` steps from what [`Stage::save`] wrote.
    ///
    /// # Errors
    /// [`RilError::Checkpoint`].
    fn restore(&mut self, folder: &Path, step: usize) -> Result<(), RilError>;
}

/// Indices of the questions of one step: a fresh shuffle for every pass over the data, cut into batches; the last
/// batch of a pass is filled from the next.
#[must_use]
pub fn batch_indices(questions: usize, batch: usize, step: usize, seed: u64) -> Vec<usize> {
    use rand::SeedableRng;
    use rand::seq::SliceRandom;

    let mut order: Vec<usize> = Vec::new();
    let mut pass = usize::MAX;
    (step * batch..(step + 1) * batch)
        .map(|at| {
            if at / questions != pass {
                pass = at / questions;
                order = (0..questions).collect();
                let seed = crate::rollout::mix_seed(seed, pass as u64);
                order.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            }
            order[at % questions]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_numbers_come_first_and_the_rest_keeps_its_order() {
        let mut metrics = StageMetrics::default();
        ["a", "b", "c", "d"].into_iter().for_each(|name| metrics.put(name, 1.0));
        metrics.lead_with(&["d", "absent", "b"]);
        let names: Vec<&str> = metrics.as_slice().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["d", "b", "a", "c"]);
    }

    #[test]
    fn every_pass_takes_every_question_once() {
        let mut seen: Vec<usize> = (0..5).flat_map(|step| batch_indices(10, 4, step, 7)).collect();
        let second = seen.split_off(10);
        for mut pass in [seen.clone(), second.clone()] {
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(seen, second, "passes are shuffled anew");
        assert_eq!(batch_indices(10, 4, 3, 7), batch_indices(10, 4, 3, 7));
        assert_ne!(batch_indices(10, 4, 3, 7), batch_indices(10, 4, 3, 8));
    }
}
