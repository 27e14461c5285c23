use std::sync::Arc;

use crate::{RewardError, Sample};

/// Scores answers; object safe, because users mix rewards at run time.
///
/// ```
/// use ril_reward::{Reward, RewardError, Sample};
///
/// /// 1 for an answer of at most `0` bytes.
/// struct Brief(usize);
///
/// impl Reward for Brief {
///     fn name(&self) -> &str {
///         "brief"
///     }
///     fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
///         Ok(samples.iter().map(|s| Some(f32::from(u8::from(s.response.len() <= self.0)))).collect())
///     }
/// }
///
/// let reward: Box<dyn Reward> = Box::new(Brief(3));
/// assert_eq!(reward.score(&[Sample::new("?", "no", "yes")])?, [Some(1.0)]);
/// # Ok::<(), RewardError>(())
/// ```
pub trait Reward {
    /// Short name of the reward: the key of its metrics and its slot in a [`WeightedSum`](crate::WeightedSum).
    fn name(&self) -> &str;

    /// One score per sample, in order; `None` = could not be scored (leaves the baseline).
    ///
    /// # Errors
    /// Whatever stops the whole batch, such as a judge that cannot be reached.
    fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError>;
}

macro_rules! forward_reward {
    ($($pointer:ty),*) => {$(
        impl<T: Reward + ?Sized> Reward for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn score(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<f32>>, RewardError> {
                (**self).score(samples)
            }
        }
    )*};
}

forward_reward!(&T, Box<T>, Arc<T>);
