//! One row's sampler: penalties, truncation, a draw, and the two log-probabilities of what was drawn.

use std::cmp::Ordering;
use std::collections::HashSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ril_kernels::simd;

use super::SamplingParams;

/// A token and how likely it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token_id: u32,
    /// Under the plain model, nats.
    pub log_prob: f32,
    /// Under the distribution drawn from, nats; 0 when greedy.
    pub sampler_log_prob: f32,
}

/// Draws tokens for one row. The order of operations is that of transformers' `generate`: repetition penalty,
/// temperature, top-k, top-p. Forbidden ids are left out before all of them, which is the same as giving them no
/// probability after the penalty, as transformers' `suppress_tokens` does.
///
/// Tokens as likely as the last one of the top k are kept, as in transformers. Of tokens that are equally likely, top-p
/// keeps the lower ids; transformers does not define which. A sum within 1e-6 of `top_p` may fall on the other side than
/// in transformers, and a token 1e38 times less likely than the likeliest is never drawn.
///
/// Nothing sorts the vocabulary: top-k selects, and top-p sorts only tokens that are likely enough to be in question.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    seen: HashSet<u32>,
    forbidden: Vec<u32>,
    rng: ChaCha8Rng,
}

/// A token that may be drawn, with its weight; the likeliest has weight 1.
type Weighted = (u32, f32);

impl Sampler {
    /// The distribution of the next draw: tokens with their probabilities, likeliest first. At temperature 0 it is one
    /// token of probability 1.
    #[must_use]
    pub fn distribution(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut kept = self.weighted(logits);
        kept.sort_unstable_by(by_weight);
        let total = total(&kept);
        kept.iter().map(|&(id, weight)| (id, f64::from(weight) / total)).collect()
    }

    /// `stream` tells the rows of one batch apart.
    #[must_use]
    pub fn new(params: &SamplingParams, prompt: impl IntoIterator<Item = u32>, forbidden: &[u32], stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
        rng.set_stream(stream);
        let penalised = params.repetition_penalty != 1.0;
        Self {
            params: params.clone(),
            seen: if penalised { prompt.into_iter().collect() } else { HashSet::new() },
            forbidden: forbidden.to_vec(),
            rng,
        }
    }

    /// Why no token can be drawn from `logits`; `None` when one can.
    #[must_use]
    pub fn refusal(&self, logits: &[f32]) -> Option<String> {
        let is_broken = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        // Block by block without an early end, which the compiler vectorises.
        let has_broken = |block: &[f32]| block.iter().fold(false, |any, logit| any | is_broken(logit));
        if logits.chunks(simd::BLOCK).any(has_broken) {
            let id = logits.iter().position(is_broken)?;
            return Some(format!("the logit of token {id} is {}", logits[id]));
        }
        let is_allowed = |(id, logit): (u32, &f32)| logit.is_finite() && !self.forbidden.contains(&id);
        (!(0..).zip(logits).any(is_allowed)).then(|| "every token is forbidden or has probability 0".into())
    }

    /// Draws from the logits of the next token. Where [`Self::refusal`] has something to say, the result means nothing.
    pub fn draw(&mut self, logits: &[f32]) -> Drawn {
        let kept = self.weighted(logits);
        let total = total(&kept);
        let (token_id, weight) = match kept.as_slice() {
            [] => (0, f32::NAN),
            [only] => *only,
            _ => self.pick(&kept, total),
        };
        if self.params.repetition_penalty != 1.0 {
            self.seen.insert(token_id);
        }
        let logit = logits.get(token_id as usize).map_or(f64::NAN, |&logit| f64::from(logit));
        Drawn {
            token_id,
            log_prob: (logit - log_normaliser(logits)) as f32,
            sampler_log_prob: (f64::from(weight) / total).ln() as f32,
        }
    }

    fn pick(&mut self, kept: &[Weighted], total: f64) -> Weighted {
        let mut left = self.rng.random::<f64>() * total;
        let pick = kept.iter().find(|(_, weight)| {
            left -= f64::from(*weight);
            left < 0.0
        });
        // Rounding may leave nothing below 0.
        pick.or(kept.last()).copied().unwrap_or((0, f32::NAN))
    }

    /// Logits of tokens in order of id, penalised; of forbidden ones minus infinity.
    fn penalised(&self, logits: &[f32]) -> Vec<f32> {
        let mut scores = logits.to_vec();
        for &id in &self.seen {
            if let Some(score) = scores.get_mut(id as usize) {
                let penalty = self.params.repetition_penalty;
                *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
            }
        }
        for &id in &self.forbidden {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = f32::NEG_INFINITY;
            }
        }
        scores
    }

    /// Tokens that may be drawn: all with a weight above 0 that top-k and top-p keep.
    fn weighted(&self, logits: &[f32]) -> Vec<Weighted> {
        let mut scores = self.penalised(logits);
        let highest = simd::maximum(&scores);
        if self.params.temperature == 0.0 {
            let first = scores.iter().position(|&score| score == highest);
            return first.map(|id| (id as u32, 1.0)).into_iter().collect();
        }
        let highest = heat(&mut scores, highest, self.params.temperature);
        let top_k = self.params.top_k;
        if top_k > 0 && top_k < scores.len() {
            let last = kth_largest(&scores, top_k);
            // As likely as the last one kept: kept too, as transformers does.
            scores.iter_mut().filter(|score| **score < last).for_each(|score| *score = f32::NEG_INFINITY);
        }
        let all = simd::exp_sum(&mut scores, 1.0, highest);
        let top_p = self.params.top_p;
        // All tokens below this weight together have half of what top-p leaves out, so that it leaves out all of them.
        let floor = 0.5 * (1.0 - top_p) * all / scores.len() as f32;
        let weights = (0..).zip(scores);
        let mut kept: Vec<Weighted> = weights.filter(|&(_, weight)| weight > 0.0 && weight >= floor).collect();
        if top_p < 1.0 {
            keep_top_p(&mut kept, f64::from(top_p) * f64::from(all));
        }
        kept
    }
}

/// Keeps every token before which less than `mass` has been gathered, likeliest first.
fn keep_top_p(kept: &mut Vec<Weighted>, mass: f64) {
    kept.sort_unstable_by(by_weight);
    let mut before = 0.0;
    let count = kept.iter().take_while(|(_, weight)| {
        let keeps = before < mass;
        before += f64::from(*weight);
        keeps
    });
    let count = count.count();
    kept.truncate(count.max(1));
}

/// Likeliest first; lower ids first where equal.
fn by_weight(a: &Weighted, b: &Weighted) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn total(kept: &[Weighted]) -> f64 {
    kept.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// The `k`-th largest of more than `k` values, `k >= 1`, without sorting them.
///
/// The `k`-th largest of maxima of blocks is no larger, and few values reach it: the selection runs among those.
fn kth_largest(values: &[f32], k: usize) -> f32 {
    let select = |mut values: Vec<f32>| *values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    let width = values.len() / (4 * k);
    if width <= 1 {
        return select(values.to_vec());
    }
    let bound = select(values.chunks(width).map(simd::maximum).collect());
    select(values.iter().copied().filter(|value| *value >= bound).collect())
}

/// Divides by the temperature and returns the largest. Where that leaves the range of f32, the maximum is subtracted
/// first.
fn heat(scores: &mut [f32], highest: f32, temperature: f32) -> f32 {
    let hottest = highest / temperature;
    if hottest.is_finite() {
        scores.iter_mut().for_each(|score| *score /= temperature);
        return hottest;
    }
    for score in scores {
        *score = ((f64::from(*score) - f64::from(highest)) / f64::from(temperature)) as f32;
    }
    0.0
}

/// `log sum exp`.
fn log_normaliser(logits: &[f32]) -> f64 {
    let highest = simd::maximum(logits);
    let mut exponentials = logits.to_vec();
    let sum = simd::exp_sum(&mut exponentials, 1.0, highest);
    f64::from(highest) + f64::from(sum).ln()
}

/// Log-probabilities of one vector of logits, nats.
#[must_use]
pub fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let normaliser = log_normaliser(logits);
    logits.iter().map(|&l| (f64::from(l) - normaliser) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [0.5, 2.0, -1.0, 1.5, 0.0, 1.0];

    fn frequencies(params: &SamplingParams, forbidden: &[u32], draws: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(params, [], forbidden, 0);
        let mut counts = vec![0.0; LOGITS.len()];
        for _ in 0..draws {
            counts[sampler.draw(&LOGITS).token_id as usize] += 1.0 / draws as f64;
        }
        counts
    }

    fn softmax(keep: &[usize], temperature: f64) -> Vec<f64> {
        let weight = |i: usize| if keep.contains(&i) { (f64::from(LOGITS[i]) / temperature).exp() } else { 0.0 };
        let all: f64 = (0..LOGITS.len()).map(weight).sum();
        (0..LOGITS.len()).map(|i| weight(i) / all).collect()
    }

    fn assert_close(got: &[f64], expected: &[f64], draws: usize) {
        for (i, (g, e)) in got.iter().zip(expected).enumerate() {
            let sigma = (e * (1.0 - e) / draws as f64).sqrt();
            assert!((g - e).abs() <= 4.0 * sigma + 1e-12, "token {i}: drawn {g}, expected {e}");
        }
    }

    #[test]
    fn plain_samples_follow_the_softmax() {
        let params = SamplingParams { temperature: 0.7, ..Default::default() };
        assert_close(&frequencies(&params, &[], 40_000), &softmax(&[0, 1, 2, 3, 4, 5], 0.7), 40_000);
    }

    #[test]
    fn top_k_keeps_the_likeliest() {
        let params = SamplingParams { top_k: 3, ..Default::default() };
        assert_close(&frequencies(&params, &[], 20_000), &softmax(&[1, 3, 5], 1.0), 20_000);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        // Probabilities by rank: 0.423, 0.256, 0.155, 0.094, ...: two reach 0.6, three reach 0.7.
        for (top_p, keep) in [(0.6, vec![1, 3]), (0.7, vec![1, 3, 5]), (1e-6, vec![1])] {
            let params = SamplingParams { top_p, ..Default::default() };
            assert_close(&frequencies(&params, &[], 20_000), &softmax(&keep, 1.0), 20_000);
        }
    }

    #[test]
    fn a_tiny_temperature_is_greedy_and_its_log_probs_are_finite() {
        for logits in [LOGITS, LOGITS.map(|l| l - 9.0), [3.0; 6]] {
            let params = SamplingParams { temperature: 1e-40, ..Default::default() };
            let drawn = Sampler::new(&params, [], &[], 3).draw(&logits);
            assert!(drawn.sampler_log_prob.is_finite() && drawn.log_prob.is_finite(), "{drawn:?}");
            assert!(logits[drawn.token_id as usize] >= logits[1], "{drawn:?}");
        }
    }

    #[test]
    fn logits_without_a_token_are_refused() {
        let sampler = Sampler::new(&SamplingParams::default(), [], &[0, 1], 0);
        assert_eq!(sampler.refusal(&LOGITS), None);
        assert_eq!(sampler.refusal(&[0.0, 0.0, f32::NEG_INFINITY, -1e30]), None);
        let nan = sampler.refusal(&[0.0, f32::NAN, 0.0]).unwrap();
        assert!(nan.contains("token 1") && nan.contains("NaN"), "{nan}");
        assert!(sampler.refusal(&[0.0, 0.0, f32::INFINITY]).is_some());
        assert!(sampler.refusal(&[0.0, 0.0, f32::NEG_INFINITY]).unwrap().contains("forbidden"));
        assert!(sampler.refusal(&[]).is_some());
    }

    /// A vocabulary large enough for every shortcut, with ties.
    #[test]
    fn truncation_of_a_large_vocabulary_is_that_of_a_full_sort() {
        let logits: Vec<f32> = (0..20_011u64).map(|i| (i * 7919 % 10_007) as f32 / 1000.0 - 3.0).collect();
        let mut sorted: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&l| f64::from(l))).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for (top_k, top_p) in
            [(0, 1.0), (1, 1.0), (50, 1.0), (50, 0.9), (0, 0.9), (0, 0.999), (19_000, 0.5), (20_010, 1.0)]
        {
            let border = if top_k == 0 { f64::NEG_INFINITY } else { sorted[top_k - 1].1 };
            let survivors: Vec<(u32, f64)> =
                sorted.iter().filter(|t| t.1 >= border).map(|t| (t.0, t.1.exp())).collect();
            let all: f64 = survivors.iter().map(|t| t.1).sum();
            let mut before = 0.0;
            let cut = survivors.iter().take_while(|t| {
                let keeps = before < f64::from(top_p) * all;
                before += t.1;
                keeps
            });
            let want: Vec<(u32, f64)> = cut.copied().collect();
            let mass: f64 = want.iter().map(|t| t.1).sum();
            let params = SamplingParams { top_k, top_p, ..Default::default() };
            let got = Sampler::new(&params, [], &[], 0).distribution(&logits);
            assert!(
                got.len().abs_diff(want.len()) <= usize::from(top_p < 1.0),
                "{top_k}, {top_p}: {}, not {}",
                got.len(),
                want.len()
            );
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got.0, want.0);
                assert!((got.1 * mass / want.1 - 1.0).abs() < 1e-5, "{top_k}, {top_p}: {got:?}");
            }
        }
    }

    #[test]
    fn ties_at_the_border_of_top_k_are_kept() {
        let params = SamplingParams { top_k: 2, ..Default::default() };
        let kept = Sampler::new(&params, [], &[], 0).distribution(&[1.0, 2.0, 1.0, 0.0]);
        assert_eq!(kept.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 0, 2]);
    }

    #[test]
    fn forbidden_tokens_are_never_drawn() {
        let params = SamplingParams::default();
        assert_close(&frequencies(&params, &[1, 3], 20_000), &softmax(&[0, 2, 4, 5], 1.0), 20_000);
        assert_eq!(Sampler::new(&SamplingParams::greedy(1), [], &[1], 0).draw(&LOGITS).token_id, 3);
    }

    #[test]
    fn the_penalty_moves_seen_tokens_away() {
        let params = SamplingParams { repetition_penalty: 1.5, ..SamplingParams::greedy(1) };
        let mut sampler = Sampler::new(&params, [1], &[], 0);
        assert_eq!(sampler.draw(&LOGITS).token_id, 3, "2.0 / 1.5 is below 1.5");
        assert_eq!(sampler.draw(&LOGITS).token_id, 1, "1.5 / 1.5 is below 2.0 / 1.5");
    }

    #[test]
    fn log_probs_are_the_plain_models() {
        let params = SamplingParams { temperature: 0.5, top_k: 2, ..Default::default() };
        let drawn = Sampler::new(&params, [], &[], 7).draw(&LOGITS);
        let plain = log_softmax(&LOGITS);
        assert!((plain.iter().map(|l| f64::from(*l).exp()).sum::<f64>() - 1.0).abs() < 1e-6);
        assert_eq!(drawn.log_prob, plain[drawn.token_id as usize]);
        let truncated = softmax(&[1, 3], 0.5)[drawn.token_id as usize].ln() as f32;
        assert!((drawn.sampler_log_prob - truncated).abs() < 1e-6);
    }

    #[test]
    fn rows_differ_and_seeds_repeat() {
        let draws = |seed, stream| -> Vec<u32> {
            let mut sampler = Sampler::new(&SamplingParams { seed, ..Default::default() }, [], &[], stream);
            (0..20).map(|_| sampler.draw(&LOGITS).token_id).collect()
        };
        assert_eq!(draws(1, 0), draws(1, 0));
        assert_ne!(draws(1, 0), draws(1, 1));
        assert_ne!(draws(1, 0), draws(2, 0));
    }
}
