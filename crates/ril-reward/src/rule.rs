//! How a per-sample rule serves a batch, as a reward and as a judge.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rayon::prelude::*;

use crate::{RewardError, Sample, Verdict};

/// How many samples a thread takes at least; a batch too small for two threads runs on the calling one. A fast rule costs
/// microseconds, waking a pool more, but a slow one (a table, a formula) costs milliseconds.
const SAMPLES_PER_THREAD: usize = 8;

/// `rule` of every sample, in order; batches of 16 and more run in parallel. A panic becomes an error that names the reward and
/// the sample; of several failures the first in the batch is reported, whatever thread met it.
pub(crate) fn each<T, R>(name: &str, samples: &[Sample<'_>], rule: R) -> Result<Vec<T>, RewardError>
where
    T: Send,
    R: Fn(usize, &Sample<'_>) -> Result<T, RewardError> + Sync,
{
    // What a rule leaves behind when it panics is never looked at: its batch has failed.
    let guarded = |(index, sample): (usize, &Sample<'_>)| {
        catch_unwind(AssertUnwindSafe(|| rule(index, sample)))
            .unwrap_or_else(|payload| Err(RewardError::panicked(name, Some(index), &*payload)))
    };
    if samples.len() < 2 * SAMPLES_PER_THREAD {
        return samples.iter().enumerate().map(guarded).collect();
    }
    let rows = samples.par_iter().with_min_len(SAMPLES_PER_THREAD).enumerate();
    let results: Vec<_> = rows.map(guarded).collect();
    results.into_iter().collect()
}

/// One verdict per sample, in order.
pub(crate) fn judge<R>(name: &str, samples: &[Sample<'_>], rule: R) -> Result<Vec<Verdict>, RewardError>
where
    R: Fn(&Sample<'_>) -> Verdict + Sync,
{
    each(name, samples, |_, sample| Ok(rule(sample)))
}

/// One score per sample, in order.
pub(crate) fn score<R>(name: &str, samples: &[Sample<'_>], rule: R) -> Result<Vec<Option<f32>>, RewardError>
where
    R: Fn(&Sample<'_>) -> Option<f32> + Sync,
{
    each(name, samples, |_, sample| Ok(rule(sample)))
}

/// Makes a type with `verdict(&self, &Sample) -> Verdict` a [`Reward`](crate::Reward) and a [`Judge`](crate::Judge);
/// a third argument names a method that checks its settings first.
macro_rules! impl_rule {
    ($rule:ty, $name:literal $(, $validate:ident)?) => {
        impl $rule {
            fn score_of(&self, sample: &$crate::Sample<'_>) -> Option<f32> {
                self.verdict(sample).score()
            }
        }

        $crate::rule::impl_score!($rule, $name $(, $validate)?);

        impl $crate::Judge for $rule {
            fn judge(&self, samples: &[$crate::Sample<'_>]) -> Result<Vec<$crate::Verdict>, $crate::RewardError> {
                $(self.$validate()?;)?
                $crate::rule::judge($name, samples, |sample| self.verdict(sample))
            }
        }
    };
}

pub(crate) use impl_rule;

/// Makes a type with `score_of(&self, &Sample) -> Option<f32>` a [`Reward`](crate::Reward); a third argument names a
/// method that checks its settings first.
macro_rules! impl_score {
    ($rule:ty, $name:literal $(, $validate:ident)?) => {
        impl $crate::Reward for $rule {
            fn name(&self) -> &str {
                $name
            }

            fn score(&self, samples: &[$crate::Sample<'_>]) -> Result<Vec<Option<f32>>, $crate::RewardError> {
                $(self.$validate()?;)?
                $crate::rule::score($name, samples, |sample| self.score_of(sample))
            }
        }
    };
}

pub(crate) use impl_score;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread::{ThreadId, current, sleep};
    use std::time::Duration;

    use super::*;
    use crate::{ExactMatch, Judge};

    #[test]
    fn a_large_batch_keeps_its_order() {
        let texts: Vec<String> = (0..1024).map(|i| (i % 7).to_string()).collect();
        let samples: Vec<_> = texts.iter().map(|text| Sample::new("?", "3", text)).collect();
        let verdicts = ExactMatch::default().judge(&samples).expect("rules do not fail");
        for (index, verdict) in verdicts.iter().enumerate() {
            assert_eq!(*verdict == Verdict::Correct, index % 7 == 3, "sample {index}");
        }
    }

    /// The threads that a rule of a millisecond runs on.
    fn threads(rows: usize) -> HashSet<ThreadId> {
        let slow = |_, _: &Sample<'_>| {
            sleep(Duration::from_millis(1));
            Ok(current().id())
        };
        each("slow", &vec![Sample::new("?", "1", "1"); rows], slow).expect("no row fails").into_iter().collect()
    }

    #[test]
    fn the_rows_of_a_step_run_in_parallel_and_a_handful_does_not() {
        assert_eq!(threads(15), HashSet::from([current().id()]));
        assert!(threads(144).len() > 1 || rayon::current_num_threads() == 1);
    }
}
