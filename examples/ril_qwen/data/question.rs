//! What is asked about a picture, and the right answer.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::ORDINALS;

/// Stands for the place of the digit that is asked for.
const PLACE: &str = "PLACE";

/// What a question asks about the digits of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One digit.
    Read {
        /// Which one, from 0 at the left.
        place: usize,
    },
    /// The sum of all digits.
    Sum,
    /// The largest digit minus the smallest.
    Difference,
    /// The largest digit.
    Largest,
    /// How many digits are even; 0 is.
    Even,
    /// How many digits are greater than five.
    AboveFive,
}

impl Kind {
    /// The kind's name, for tests that count kinds.
    #[cfg(test)]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Sum => "sum",
            Self::Difference => "difference",
            Self::Largest => "largest",
            Self::Even => "even",
            Self::AboveFive => "above_five",
        }
    }

    /// The right answer for digits `labels`, which are not empty.
    pub fn answer(self, labels: &[u8]) -> u32 {
        let largest = labels.iter().copied().max().unwrap_or_default();
        let smallest = labels.iter().copied().min().unwrap_or_default();
        match self {
            Self::Read { place } => labels[place].into(),
            Self::Sum => labels.iter().copied().map(u32::from).sum(),
            Self::Difference => (largest - smallest).into(),
            Self::Largest => largest.into(),
            Self::Even | Self::AboveFive => labels.iter().filter(|label| self.counts(**label)).count() as u32,
        }
    }

    /// Whether a digit is among those that a counting question counts; no digit is for the other kinds.
    pub fn counts(self, label: u8) -> bool {
        match self {
            Self::Even => label.is_multiple_of(2),
            Self::AboveFive => label > 5,
            Self::Read { .. } | Self::Sum | Self::Difference | Self::Largest => false,
        }
    }

    /// Every way to ask.
    pub fn phrasings(self) -> Vec<String> {
        let place = match self {
            Self::Read { place } => ORDINALS[place],
            _ => "",
        };
        self.templates().iter().map(|template| template.replace(PLACE, place)).collect()
    }

    /// One way to ask.
    pub(super) fn ask(self, rng: &mut ChaCha8Rng) -> String {
        self.phrasings().choose(rng).cloned().expect("every kind has phrasings")
    }

    /// All of eight words: where a digit stands relative to the answer is then the same in every prompt, which spares a
    /// network of two layers the hardest part of reading.
    fn templates(self) -> &'static [&'static str] {
        match self {
            Self::Read { .. } => &[
                "what is the PLACE digit from left ?",
                "please read out the PLACE digit here .",
                "which digit stands at the PLACE place ?",
            ],
            Self::Sum => &[
                "what is the sum of all digits ?",
                "please add all of the digits up .",
                "how much do all the digits make ?",
            ],
            Self::Difference => &[
                "what is the largest minus the smallest ?",
                "how far apart are largest and smallest ?",
                "please subtract the smallest from the largest .",
            ],
            Self::Largest => &[
                "what is the largest of the digits ?",
                "which one of the digits is largest ?",
                "please name the largest of the digits .",
            ],
            Self::Even => &[
                "how many of the digits are even ?",
                "please count all of the even digits .",
                "how many even digits do you see ?",
            ],
            Self::AboveFive => &[
                "how many digits are greater than five ?",
                "please count the digits greater than five .",
                "how many greater than five are there ?",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrasing_has_eight_words() {
        let reads = (0..4).map(|place| Kind::Read { place });
        for kind in reads.chain([Kind::Sum, Kind::Difference, Kind::Largest, Kind::Even, Kind::AboveFive]) {
            for phrasing in kind.phrasings() {
                assert_eq!(phrasing.split(' ').count(), 8, "{phrasing}");
            }
        }
    }

    #[test]
    fn answers_of_one_picture() {
        let labels = [3, 8, 6, 0];
        let expected = [
            (Kind::Read { place: 1 }, 8),
            (Kind::Sum, 17),
            (Kind::Difference, 8),
            (Kind::Largest, 8),
            (Kind::Even, 3),
            (Kind::AboveFive, 2),
        ];
        for (kind, answer) in expected {
            assert_eq!(kind.answer(&labels), answer, "{kind:?}");
        }
        assert_eq!(Kind::AboveFive.answer(&[5, 5]), 0);
    }

    #[test]
    fn every_place_is_asked_for_by_its_own_name() {
        assert_eq!(Kind::Read { place: 1 }.phrasings()[0], "what is the second digit from left ?");
        let all: Vec<String> = (0..4).flat_map(|place| Kind::Read { place }.phrasings()).collect();
        assert!(all.iter().all(|text| !text.contains(PLACE)));
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 12);
    }
}
