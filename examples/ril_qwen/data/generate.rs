//! Seeded examples.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Digit, Kind, Picture, Split};

/// A question about a picture, and its right answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// What is shown.
    pub picture: Picture,
    /// What is asked.
    pub kind: Kind,
    /// How it is asked.
    pub question: String,
    /// The right answer.
    pub answer: u32,
}

/// How often examples are of a kind or of a length, in parts: 5 and 1 give the first five times as often. With all
/// parts 0 every example is of the first kind or length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// Questions for one digit; each place is as likely as the others.
    pub read: u32,
    /// Questions for the sum.
    pub sum: u32,
    /// Questions for the largest digit minus the smallest.
    pub difference: u32,
    /// Questions for the largest digit.
    pub largest: u32,
    /// Questions for the number of even digits.
    pub even: u32,
    /// Questions for the number of digits greater than five.
    pub above_five: u32,
    /// Pictures with one, two, three and four digits.
    pub digits: [u32; 4],
}

impl Default for Mix {
    /// Half the questions are sums, the other kinds alike; three digits.
    fn default() -> Self {
        Self { read: 1, sum: 5, difference: 1, largest: 1, even: 1, above_five: 1, digits: [0, 0, 1, 0] }
    }
}

impl Mix {
    fn draw_kind(&self, digits: usize, rng: &mut ChaCha8Rng) -> Kind {
        let read = Kind::Read { place: rng.random_range(0..digits) };
        let kinds = [read, Kind::Sum, Kind::Difference, Kind::Largest, Kind::Even, Kind::AboveFive];
        let parts = [self.read, self.sum, self.difference, self.largest, self.even, self.above_five];
        kinds[draw_index(&parts, rng)]
    }
}

/// `count` examples of a split. The same arguments give the same examples, and a longer list begins with the shorter
/// one; splits draw independently of each other.
pub fn generate(split: Split, count: usize, seed: u64, mix: &Mix) -> Vec<Example> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(split as u64);
    (0..count).map(|_| draw_example(split.digits(), mix, &mut rng)).collect()
}

/// An index of `parts`, each as likely as its part of the sum; 0 when the sum is 0.
pub fn draw_index(parts: &[u32], rng: &mut impl Rng) -> usize {
    let sum: u64 = parts.iter().copied().map(u64::from).sum();
    let mut rest = if sum == 0 { 0 } else { rng.random_range(0..sum) };
    for (index, part) in parts.iter().copied().map(u64::from).enumerate() {
        if rest < part {
            return index;
        }
        rest -= part;
    }
    0
}

fn draw_example(pool: &[Digit], mix: &Mix, rng: &mut ChaCha8Rng) -> Example {
    let length = draw_index(&mix.digits, rng) + 1;
    let mut draw_digit = || *pool.choose(rng).expect("every split holds digits");
    let digits: Vec<Digit> = (0..length).map(|_| draw_digit()).collect();
    let picture = Picture { digits, look: rng.random() };
    let kind = mix.draw_kind(length, rng);
    let answer = kind.answer(&picture.labels());
    Example { picture, kind, question: kind.ask(rng), answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ORDINALS;

    /// The answer from the words of the question alone.
    fn answer_to(question: &str, labels: &[u8]) -> i32 {
        let words: Vec<&str> = question.split(' ').collect();
        let mut sorted: Vec<i32> = labels.iter().map(|label| i32::from(*label)).collect();
        sorted.sort_unstable();
        let largest = sorted[sorted.len() - 1];
        if let Some(place) = ORDINALS.iter().position(|ordinal| words.contains(ordinal)) {
            labels[place].into()
        } else if words.contains(&"even") {
            sorted.iter().map(|label| 1 - label % 2).sum()
        } else if words.contains(&"five") {
            sorted.iter().map(|label| label / 6).sum()
        } else if words.contains(&"smallest") {
            largest - sorted[0]
        } else if words.contains(&"largest") {
            largest
        } else {
            sorted.iter().sum()
        }
    }

    #[test]
    fn answers_follow_from_the_question_and_the_digits() {
        let mix = Mix { digits: [1, 1, 1, 1], ..Mix::default() };
        for example in generate(Split::Train, 3000, 1, &mix) {
            let labels = example.picture.labels();
            assert_eq!(answer_to(&example.question, &labels), example.answer as i32, "{example:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_examples() {
        let draw = |split, count, seed| generate(split, count, seed, &Mix::default());
        let first = draw(Split::Train, 50, 3);
        assert_eq!(first, draw(Split::Train, 50, 3));
        assert_eq!(first[..20], draw(Split::Train, 20, 3));
        assert_ne!(first, draw(Split::Train, 50, 4));
        let questions = |examples: &[Example]| examples.iter().map(|e| e.question.clone()).collect::<Vec<_>>();
        assert_ne!(questions(&first), questions(&draw(Split::Test, 50, 3)));
    }

    #[test]
    fn pictures_use_digits_of_their_split_only() {
        for split in [Split::Train, Split::Validation, Split::Test] {
            let examples = generate(split, 500, 9, &Mix::default());
            assert!(examples.iter().flat_map(|e| &e.picture.digits).all(|digit| split.digits().contains(digit)));
        }
    }

    #[test]
    fn kinds_and_lengths_come_in_their_parts() {
        let mix = Mix { digits: [0, 0, 1, 1], ..Mix::default() };
        let examples = generate(Split::Train, 4000, 2, &mix);
        let share = |is: &dyn Fn(&Example) -> bool| examples.iter().filter(|e| is(e)).count() as f64 / 4000.0;
        assert!((share(&|e| e.kind == Kind::Sum) - 0.5).abs() < 0.04);
        for name in ["read", "difference", "largest", "even", "above_five"] {
            assert!((share(&|e| e.kind.name() == name) - 0.1).abs() < 0.025, "{name}");
        }
        assert!((share(&|e| e.picture.digits.len() == 3) - 0.5).abs() < 0.04);
        assert_eq!(share(&|e| (3..=4).contains(&e.picture.digits.len())), 1.0);
        assert!(generate(Split::Test, 50, 2, &Mix::default()).iter().all(|e| e.picture.digits.len() == 3));
        let reads = Mix { sum: 0, difference: 0, largest: 0, even: 0, above_five: 0, ..Mix::default() };
        assert!(generate(Split::Test, 50, 2, &reads).iter().all(|e| e.kind.name() == "read"));
    }

    #[test]
    fn an_index_without_parts_is_never_drawn() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert!((0..200).all(|_| draw_index(&[0, 3, 0, 1, 0], &mut rng) % 2 == 1));
        assert_eq!(draw_index(&[0, 0], &mut rng), 0);
    }
}
