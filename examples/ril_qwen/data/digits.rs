//! The embedded digits and their fixed division into train, validation and test.

use std::sync::LazyLock;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Side of a stored digit, in pixels.
pub const STORED_SIDE: u32 = 8;
/// The ink of a full pixel; a blank one has 0.
pub const FULL_INK: u8 = 16;

const LABELS: u8 = 10;
const SPLIT_SEED: u64 = 8;
const VALIDATION_PER_LABEL: usize = 20;
const TEST_PER_LABEL: usize = 40;

/// Which digits a picture may be made of. For each label, 20 images are for validation, 40 for testing and the others
/// (114 to 123) for training: 1,197, 200 and 400 in all. A shuffle with a fixed seed decides; no image is in two
/// splits. The writers are not named in the data, so one writer's digits may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What models are trained on.
    Train,
    /// What settings are picked on.
    Validation,
    /// What results are reported on.
    Test,
}

/// A digit of the embedded set, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Digit {
    /// Line in `assets/digits.txt`, from 0.
    pub index: usize,
    /// What is written, 0 to 9.
    pub label: u8,
}

/// The embedded set.
struct DigitSet {
    digits: Vec<Digit>,
    /// Ink by digit, row by row, 0 to [`FULL_INK`].
    inks: Vec<Vec<u8>>,
    train: Vec<Digit>,
    validation: Vec<Digit>,
    test: Vec<Digit>,
}

static DIGITS: LazyLock<DigitSet> = LazyLock::new(DigitSet::embedded);

impl Split {
    /// The digits of the split, by label.
    pub fn digits(self) -> &'static [Digit] {
        match self {
            Self::Train => &DIGITS.train,
            Self::Validation => &DIGITS.validation,
            Self::Test => &DIGITS.test,
        }
    }
}

impl Digit {
    /// Ink of the 8x8 pixels, row by row, 0 to [`FULL_INK`].
    pub fn ink(self) -> &'static [u8] {
        &DIGITS.inks[self.index]
    }
}

impl DigitSet {
    fn embedded() -> Self {
        let (mut digits, mut inks) = (Vec::new(), Vec::new());
        for (index, line) in include_str!("../assets/digits.txt").lines().enumerate() {
            let (label, ink) = parse(line).expect("assets/digits.txt is embedded, and a test reads every line");
            digits.push(Digit { index, label });
            inks.push(ink);
        }
        let mut set = Self { digits, inks, train: vec![], validation: vec![], test: vec![] };
        set.divide();
        set
    }

    fn divide(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(SPLIT_SEED);
        for label in 0..LABELS {
            let mut same: Vec<Digit> = self.digits.iter().copied().filter(|digit| digit.label == label).collect();
            same.shuffle(&mut rng);
            self.test.extend(same.drain(..TEST_PER_LABEL));
            self.validation.extend(same.drain(..VALIDATION_PER_LABEL));
            self.train.extend(same);
        }
    }
}

/// Label and ink of a line; nothing when it is malformed.
fn parse(line: &str) -> Option<(u8, Vec<u8>)> {
    let (label, pixels) = line.split_once(' ')?;
    let label = label.parse().ok().filter(|label| *label < LABELS)?;
    let ink = pixels.chars().map(ink_of).collect::<Option<Vec<u8>>>()?;
    (ink.len() == (STORED_SIDE * STORED_SIDE) as usize).then_some((label, ink))
}

fn ink_of(pixel: char) -> Option<u8> {
    let ink = pixel.to_digit(u32::from(FULL_INK) + 1)?;
    u8::try_from(ink).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    #[test]
    fn every_embedded_digit_is_read_once() {
        assert_eq!(DIGITS.digits.len(), 1797);
        assert_eq!(DIGITS.digits[..3].iter().map(|digit| digit.label).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(DIGITS.digits[0].ink()[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
        assert!(DIGITS.inks.iter().all(|ink| ink.iter().max() > Some(&(FULL_INK / 2))));
    }

    #[test]
    fn malformed_lines_are_refused() {
        let row = "0123456789abcdef".repeat(4);
        assert!(parse(&format!("3 {row}")).is_some());
        for line in [format!("10 {row}"), format!("3{row}"), format!("3 {row}0"), format!("3 h{}", &row[1..])] {
            assert!(parse(&line).is_none(), "{line}");
        }
    }

    #[test]
    fn splits_are_disjoint_and_complete() {
        let indices: Vec<usize> = SPLITS.iter().flat_map(|split| split.digits()).map(|digit| digit.index).collect();
        assert_eq!(indices.len(), 1797);
        assert_eq!(indices.iter().collect::<HashSet<_>>().len(), 1797);
        assert_eq!(SPLITS.map(|split| split.digits().len()), [1197, 200, 400]);
    }

    #[test]
    fn splits_hold_every_label_alike() {
        for (split, expected) in SPLITS.into_iter().zip([114..=123, 20..=20, 40..=40]) {
            for label in 0..LABELS {
                let count = split.digits().iter().filter(|digit| digit.label == label).count();
                assert!(expected.contains(&count), "{split:?}: {count} of label {label}");
            }
        }
    }

    /// A new version of `rand` that shuffles otherwise would move test digits into training unseen.
    #[test]
    fn the_division_never_changes() {
        let digests = SPLITS.map(|split| {
            split
                .digits()
                .iter()
                .fold(0u64, |hash, digit| hash.wrapping_mul(1_000_003).wrapping_add(digit.index as u64))
        });
        assert_eq!(digests, [5_741_737_212_447_885_952, 8_472_149_330_240_710_561, 14_655_090_519_077_474_669]);
    }
}
