//! One row's sampler: penalties, truncation, a draw, and the two log-probabilities of what was drawn.

use std::collections::HashSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
/// keeps the lower ids; transformers does not define which. Sums run in f64, so that a sum within 1e-7 of `top_p` may
/// fall on the other side than in transformers.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    seen: HashSet<u32>,
    forbidden: HashSet<u32>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// The distribution of the next draw: tokens with their probabilities, likeliest first. At temperature 0 it is one
    /// token of probability 1.
    #[must_use]
    pub fn distribution(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let candidates = self.candidates(logits);
        if self.params.temperature == 0.0 {
            return vec![(first_maximum(&candidates), 1.0)];
        }
        let (candidates, weights) = self.weighted(candidates);
        let total: f64 = weights.iter().sum();
        candidates.iter().zip(&weights).map(|(&(id, _), weight)| (id, weight / total)).collect()
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
            forbidden: forbidden.iter().copied().collect(),
            rng,
        }
    }

    /// Why no token can be drawn from `logits`; `None` when one can.
    #[must_use]
    pub fn refusal(&self, logits: &[f32]) -> Option<String> {
        let broken = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY);
        if let Some(id) = broken {
            return Some(format!("the logit of token {id} is {}", logits[id]));
        }
        let is_allowed = |(id, logit): (u32, &f32)| logit.is_finite() && !self.forbidden.contains(&id);
        (!(0..).zip(logits).any(is_allowed)).then(|| "every token is forbidden or has probability 0".into())
    }

    /// Draws from the logits of the next token. Where [`Self::refusal`] has something to say, the result means nothing.
    pub fn draw(&mut self, logits: &[f32]) -> Drawn {
        let plain = log_normaliser(logits);
        let candidates = self.candidates(logits);
        let (token_id, sampler_log_prob) =
            if self.params.temperature == 0.0 { (first_maximum(&candidates), 0.0) } else { self.sample(candidates) };
        if self.params.repetition_penalty != 1.0 {
            self.seen.insert(token_id);
        }
        let log_prob = (f64::from(logits[token_id as usize]) - plain) as f32;
        Drawn { token_id, log_prob, sampler_log_prob }
    }

    /// Allowed tokens with their penalised logits, in order of id.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let penalty = self.params.repetition_penalty;
        let ids = (0u32..).zip(logits).filter(|(id, _)| !self.forbidden.contains(id));
        ids.map(|(id, &logit)| match self.seen.contains(&id) {
            true if logit > 0.0 => (id, logit / penalty),
            true => (id, logit * penalty),
            false => (id, logit),
        })
        .collect()
    }

    /// Candidates that may be drawn, likeliest first, with their weights; the first has weight 1.
    fn weighted(&self, mut candidates: Vec<(u32, f32)>) -> (Vec<(u32, f32)>, Vec<f64>) {
        heat(&mut candidates, self.params.temperature);
        let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let top_k = self.params.top_k;
        if top_k > 0 && top_k < candidates.len() {
            let last = candidates.select_nth_unstable_by(top_k - 1, by_logit).1.1;
            // As likely as the last one kept: kept too, as transformers does.
            candidates.retain(|c| c.1 >= last);
        }
        candidates.sort_unstable_by(by_logit);
        let highest = candidates.first().map_or(0.0, |c| f64::from(c.1));
        let mut weights: Vec<f64> = candidates.iter().map(|c| (f64::from(c.1) - highest).exp()).collect();
        let all: f64 = weights.iter().sum();
        // Kept: every token before which less than top_p has been gathered.
        let mut before = 0.0;
        let kept = weights
            .iter()
            .take_while(|&&w| {
                let keep = before < f64::from(self.params.top_p) * all;
                before += w;
                keep
            })
            .count()
            .max(1);
        weights.truncate(kept);
        candidates.truncate(kept);
        (candidates, weights)
    }

    fn sample(&mut self, candidates: Vec<(u32, f32)>) -> (u32, f32) {
        let (candidates, weights) = self.weighted(candidates);
        let total: f64 = weights.iter().sum();
        let mut left = self.rng.random::<f64>() * total;
        let pick = weights.iter().position(|&w| {
            left -= w;
            left < 0.0
        });
        let pick = pick.unwrap_or(weights.len() - 1);
        (candidates[pick].0, (weights[pick] / total).ln() as f32)
    }
}

/// Divides by the temperature. Where that leaves the range of f32, the maximum is subtracted first.
fn heat(candidates: &mut [(u32, f32)], temperature: f32) {
    let highest = candidates.iter().map(|c| c.1).fold(f32::NEG_INFINITY, f32::max);
    let overflows = !(highest / temperature).is_finite();
    for (_, logit) in candidates {
        *logit = match overflows {
            false => *logit / temperature,
            true => ((f64::from(*logit) - f64::from(highest)) / f64::from(temperature)) as f32,
        };
    }
}

fn first_maximum(candidates: &[(u32, f32)]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for &(id, logit) in candidates {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0
}

/// `log sum exp`, in f64.
fn log_normaliser(logits: &[f32]) -> f64 {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    highest + logits.iter().map(|&l| (f64::from(l) - highest).exp()).sum::<f64>().ln()
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
