//! How a per-sample rule serves a batch, as a reward and as a judge.

use rayon::prelude::*;

use crate::{Sample, Verdict};

/// Below this many samples the rules run on the calling thread: one rule costs microseconds, waking a pool more.
const PARALLEL_SAMPLES: usize = 256;

/// One verdict per sample, in order; large batches run in parallel.
pub(crate) fn judge<R>(samples: &[Sample<'_>], rule: R) -> Vec<Verdict>
where
    R: Fn(&Sample<'_>) -> Verdict + Sync,
{
    if samples.len() < PARALLEL_SAMPLES {
        return samples.iter().map(rule).collect();
    }
    samples.par_iter().map(&rule).collect()
}

/// [`judge`], read as scores.
pub(crate) fn score<R>(samples: &[Sample<'_>], rule: R) -> Vec<Option<f32>>
where
    R: Fn(&Sample<'_>) -> Verdict + Sync,
{
    judge(samples, rule).iter().map(Verdict::score).collect()
}

/// Makes a type with `verdict(&self, &Sample) -> Verdict` a [`Reward`](crate::Reward) and a [`Judge`](crate::Judge);
/// a third argument names a method that checks its settings first.
macro_rules! impl_rule {
    ($rule:ty, $name:literal $(, $validate:ident)?) => {
        impl $crate::Reward for $rule {
            fn name(&self) -> &str {
                $name
            }

            fn score(&self, samples: &[$crate::Sample<'_>]) -> Result<Vec<Option<f32>>, $crate::RewardError> {
                $(self.$validate()?;)?
                Ok($crate::rule::score(samples, |sample| self.verdict(sample)))
            }
        }

        impl $crate::Judge for $rule {
            fn judge(&self, samples: &[$crate::Sample<'_>]) -> Result<Vec<$crate::Verdict>, $crate::RewardError> {
                $(self.$validate()?;)?
                Ok($crate::rule::judge(samples, |sample| self.verdict(sample)))
            }
        }
    };
}

pub(crate) use impl_rule;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExactMatch, Judge};

    #[test]
    fn a_large_batch_keeps_its_order() {
        let texts: Vec<String> = (0..PARALLEL_SAMPLES * 4).map(|i| (i % 7).to_string()).collect();
        let samples: Vec<_> = texts.iter().map(|text| Sample::new("?", "3", text)).collect();
        let verdicts = ExactMatch::default().judge(&samples).expect("rules do not fail");
        for (index, verdict) in verdicts.iter().enumerate() {
            assert_eq!(*verdict == Verdict::Correct, index % 7 == 3, "sample {index}");
        }
    }
}
