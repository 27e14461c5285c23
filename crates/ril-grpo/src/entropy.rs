//! Entropy: a bonus for staying undecided, and the choice of the tokens that matter.

use serde::{Deserialize, Serialize};

use crate::GrpoError;
use crate::surrogate::in_range;

/// Threshold of the `share` tokens of highest entropy: the `1 - share` quantile, linearly interpolated.
///
/// `None` for no values. Source: "Beyond the 80/20 rule", arXiv 2506.01939.
pub(crate) fn top_entropy_threshold(mut entropies: Vec<f32>, share: f64) -> Option<f32> {
    entropies.sort_unstable_by(f32::total_cmp);
    let last = entropies.len().checked_sub(1)?;
    let position = (1.0 - share) * last as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    let (low, high) = (f64::from(entropies[below]), f64::from(entropies[above]));
    Some((low + (high - low) * (position - below as f64)) as f32)
}

/// Settings of [`EntropyController`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveEntropy {
    /// Coefficient of the first update, `>= 0`.
    pub initial: f64,
    /// Entropy to keep, nats per token, `>= 0`; 0.2 in Skywork-OR1.
    pub target: f64,
    /// Change of the coefficient a step, `>= 0`; 0.005 in TRL, 1e-4 in Skywork-OR1's scripts.
    pub step: f64,
    /// Smallest coefficient, `>= 0`.
    pub min: f64,
    /// Largest coefficient, at least `min`.
    pub max: f64,
}

/// Moves the entropy coefficient so that the policy keeps a target entropy.
///
/// After each step the coefficient goes up by `step` if the measured entropy is at or below the target and down
/// otherwise, within `[min, max]`; it is applied only in steps that follow one at or below the target. Source:
/// Skywork-OR1, arXiv 2505.22312, as TRL 1.16 does it. Serialisable, to be kept in a checkpoint.
///
/// ```
/// use ril_grpo::{AdaptiveEntropy, EntropyController};
///
/// let settings = AdaptiveEntropy { initial: 0.01, target: 0.2, step: 0.005, min: 0.0, max: 1.0 };
/// let mut controller = EntropyController::new(settings)?;
/// assert_eq!(controller.coefficient(), 0.0); // nothing measured yet
/// controller.update(0.1);
/// assert_eq!(controller.coefficient(), 0.015);
/// controller.update(0.3);
/// assert_eq!(controller.coefficient(), 0.0);
/// # Ok::<(), ril_grpo::GrpoError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EntropyController {
    settings: AdaptiveEntropy,
    current: f64,
    is_below_target: bool,
}

impl EntropyController {
    /// A controller that has measured nothing yet.
    ///
    /// # Errors
    /// [`GrpoError::Config`] for a setting out of range.
    pub fn new(settings: AdaptiveEntropy) -> Result<Self, GrpoError> {
        let AdaptiveEntropy { initial, target, step, min, max } = settings;
        for (name, value) in [("initial", initial), ("target", target), ("step", step), ("min", min)] {
            in_range(&format!("entropy {name}"), value, 0.0, f64::MAX)?;
        }
        in_range("entropy max", max, min, f64::MAX)?;
        Ok(Self { settings, current: initial, is_below_target: false })
    }

    /// What to give [`GrpoConfig::entropy_coefficient`](crate::GrpoConfig::entropy_coefficient) in the next step.
    pub fn coefficient(&self) -> f64 {
        if self.is_below_target { self.current } else { 0.0 }
    }

    /// Takes the mean entropy per token of the step that was done, nats. A value that is not a number changes nothing.
    pub fn update(&mut self, mean_entropy: f64) {
        if mean_entropy.is_nan() {
            return;
        }
        let AdaptiveEntropy { target, step, min, max, .. } = self.settings;
        self.is_below_target = mean_entropy <= target;
        self.current =
            if self.is_below_target { (self.current + step).min(max) } else { (self.current - step).max(min) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_a_quantile() {
        let values = || vec![4.0, 1.0, 2.0, 3.0];
        assert_eq!(top_entropy_threshold(values(), 1.0), Some(1.0));
        assert_eq!(top_entropy_threshold(values(), 0.5), Some(2.5));
        assert_eq!(top_entropy_threshold(Vec::new(), 0.5), None);
    }

    #[test]
    fn the_coefficient_stays_within_its_bounds_and_nan_is_ignored() {
        let settings = AdaptiveEntropy { initial: 0.5, target: 1.0, step: 0.4, min: 0.2, max: 1.0 };
        let mut controller = EntropyController::new(settings).unwrap();
        for _ in 0..5 {
            controller.update(0.5);
        }
        assert_eq!(controller.coefficient(), 1.0);
        let before = controller;
        controller.update(f64::NAN);
        assert_eq!(controller, before);
        for _ in 0..5 {
            controller.update(2.0);
        }
        controller.update(1.0);
        assert!((controller.coefficient() - 0.6).abs() < 1e-12);
        for broken in [
            AdaptiveEntropy { initial: -1.0, ..settings },
            AdaptiveEntropy { max: 0.1, ..settings },
            AdaptiveEntropy { target: f64::NAN, ..settings },
        ] {
            assert!(matches!(EntropyController::new(broken), Err(GrpoError::Config(_))));
        }
    }
}
