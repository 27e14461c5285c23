use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Judge, Verdict};
use crate::{RewardError, Sample};

/// A memo in front of a judge: the same question, ground truth and answer are judged once.
///
/// The key is a 128-bit hash of the **whole** sample, so that the same answer to another question is another entry.
/// Only [`Correct`](Verdict::Correct) and [`Incorrect`](Verdict::Incorrect) are kept: an unparsed verdict is asked
/// again, an error keeps nothing. Repeats inside one batch reach the inner judge once. Use it in front of judges whose
/// verdict depends on the sample alone. `Send + Sync` when the inner judge is; the lock is not held while it works.
///
/// ```
/// use ril_reward::{CachedJudge, ExactMatch, Judge, Sample, Verdict};
///
/// let judge = CachedJudge::new(ExactMatch::default());
/// let sample = Sample::new("1 + 1?", "2", "2");
/// assert_eq!(judge.judge(&[sample, sample])?, [Verdict::Correct, Verdict::Correct]);
/// assert_eq!(judge.len(), 1);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Debug)]
pub struct CachedJudge<J> {
    judge: J,
    is_correct: Mutex<HashMap<u128, bool>>,
}

impl<J: Judge> CachedJudge<J> {
    /// An empty memo in front of `judge`.
    pub fn new(judge: J) -> Self {
        Self { judge, is_correct: Mutex::new(HashMap::new()) }
    }

    /// How many verdicts are kept.
    pub fn len(&self) -> usize {
        self.memo().len()
    }

    /// True before the first verdict is kept.
    pub fn is_empty(&self) -> bool {
        self.memo().is_empty()
    }

    /// Forgets every verdict.
    pub fn clear(&self) {
        self.memo().clear();
    }

    /// The judge within.
    pub fn judge_within(&self) -> &J {
        &self.judge
    }

    /// The map is consistent between any two calls on it, so that a panic elsewhere does not spoil it.
    fn memo(&self) -> MutexGuard<'_, HashMap<u128, bool>> {
        self.is_correct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Samples that the memo does not know, each once, with their keys.
    fn unknown<'a>(&self, keys: &[u128], samples: &[Sample<'a>]) -> (Vec<u128>, Vec<Sample<'a>>) {
        let memo = self.memo();
        let mut seen = std::collections::HashSet::new();
        keys.iter().zip(samples).filter(|(key, _)| !memo.contains_key(key) && seen.insert(**key)).unzip()
    }
}

impl<J: Judge> Judge for CachedJudge<J> {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        let keys: Vec<u128> = samples.iter().map(content_key).collect();
        let (unknown_keys, unknown) = self.unknown(&keys, samples);
        let verdicts = if unknown.is_empty() { Vec::new() } else { self.judge.judge(&unknown)? };
        RewardError::check_count("cached judge", unknown.len(), verdicts.len())?;

        let mut memo = self.memo();
        for (key, verdict) in unknown_keys.iter().zip(&verdicts) {
            if !matches!(verdict, Verdict::Unparsed(_)) {
                memo.insert(*key, *verdict == Verdict::Correct);
            }
        }
        let fresh: HashMap<u128, Verdict> = unknown_keys.into_iter().zip(verdicts).collect();
        let lookup = |key: &u128| match fresh.get(key) {
            Some(verdict) => verdict.clone(),
            None => {
                memo.get(key).map_or_else(|| Verdict::Unparsed("cleared while judging".into()), |&ok| Verdict::of(ok))
            }
        };
        Ok(keys.iter().map(lookup).collect())
    }
}

/// Two independent 64-bit hashes of all fields; `str` hashes with a terminator, so that fields cannot run together.
fn content_key(sample: &Sample<'_>) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        sample.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Says that an answer equals its reference, does not know about `?`, and counts what it is asked.
    #[derive(Default)]
    struct Counting {
        asked: AtomicUsize,
    }

    impl Judge for Counting {
        fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
            self.asked.fetch_add(samples.len(), Ordering::Relaxed);
            let verdict = |sample: &Sample<'_>| match sample.response {
                "?" => Verdict::Unparsed("?".into()),
                response => Verdict::of(response == sample.reference),
            };
            Ok(samples.iter().map(verdict).collect())
        }
    }

    fn asked(judge: &CachedJudge<Counting>) -> usize {
        judge.judge_within().asked.load(Ordering::Relaxed)
    }

    #[test]
    fn repeats_are_judged_once_in_a_batch_and_across_batches() {
        let judge = CachedJudge::new(Counting::default());
        let right = Sample::new("q", "a", "a");
        let wrong = Sample::new("q", "a", "b");
        for _ in 0..3 {
            let verdicts = judge.judge(&[right, wrong, right, wrong, wrong]).expect("judged");
            assert_eq!(verdicts.iter().map(Verdict::score).collect::<Vec<_>>(), [1.0, 0.0, 1.0, 0.0, 0.0].map(Some));
        }
        assert_eq!((asked(&judge), judge.len()), (2, 2));
        judge.clear();
        assert!(judge.is_empty());
        judge.judge(&[right]).expect("judged");
        assert_eq!(asked(&judge), 3);
    }

    #[test]
    fn every_field_is_part_of_the_key() {
        let judge = CachedJudge::new(Counting::default());
        let samples =
            [("q", "a", "a"), ("p", "a", "a"), ("q", "b", "a"), ("q", "a", "b"), ("qa", "", "a"), ("", "qa", "a")]
                .map(|(question, reference, response)| Sample::new(question, reference, response));
        judge.judge(&samples).expect("judged");
        assert_eq!(judge.len(), samples.len());
    }

    #[test]
    fn unparsed_verdicts_are_asked_again() {
        let judge = CachedJudge::new(Counting::default());
        let unclear = Sample::new("q", "a", "?");
        for round in 1..=3 {
            assert_eq!(judge.judge(&[unclear, unclear]).expect("judged"), vec![Verdict::Unparsed("?".into()); 2]);
            assert_eq!(asked(&judge), round);
        }
        assert!(judge.is_empty());
    }

    #[test]
    fn the_memo_can_be_shared_between_threads() {
        let judge = CachedJudge::new(Counting::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for text in ["a", "b", "c"] {
                        let verdicts = judge.judge(&[Sample::new("q", "a", text)]).expect("judged");
                        assert_eq!(verdicts, [Verdict::of(text == "a")]);
                    }
                });
            }
        });
        assert_eq!(judge.len(), 3);
    }
}
