//! How questions are answered in words: the short answer, two ways to get there step by step, and their mixture.
//!
//! The two teachers of the example answer in style A and style B; the student starts from mostly short answers and a
//! few of each style, so that it can already say, if rarely well, what the teachers say.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::data::{Example, Kind, ORDINALS, draw_index};

/// What the discriminator is told, in words that the toys know: the library's text is for models that read English.
pub const DISCRIMINATOR_SYSTEM: &str =
    "you are a discriminator . the response stands in response tags . answer 0 for teacher , 1 for student .";

/// A way to answer. In each one the answer is the last number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// See [`short`].
    Short,
    /// See [`style_a`].
    A,
    /// See [`style_b`].
    B,
}

impl Style {
    /// The right answer to an example in this style.
    pub fn answer(self, example: &Example) -> String {
        match self {
            Self::Short => short(example),
            Self::A => style_a(example),
            Self::B => style_b(example),
        }
    }
}

/// How often supervised fine-tuning answers in each style, in parts. With all parts 0 every answer is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SftMixture {
    /// Parts of [`Style::Short`].
    pub short: u32,
    /// Parts of [`Style::A`].
    pub style_a: u32,
    /// Parts of [`Style::B`].
    pub style_b: u32,
}

impl Default for SftMixture {
    /// The student's: 80% short, 10% in each teacher's style.
    fn default() -> Self {
        Self { short: 8, style_a: 1, style_b: 1 }
    }
}

impl SftMixture {
    /// One style for all answers, as a teacher has.
    pub fn only(style: Style) -> Self {
        let part = |other: Style| u32::from(style == other);
        Self { short: part(Style::Short), style_a: part(Style::A), style_b: part(Style::B) }
    }

    /// The right answer to each example, each in a style drawn from the mixture. The same seed draws the same styles,
    /// whatever the examples.
    pub fn answers(&self, examples: &[Example], seed: u64) -> Vec<String> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let parts = [self.short, self.style_a, self.style_b];
        let styles = [Style::Short, Style::A, Style::B];
        examples.iter().map(|example| styles[draw_index(&parts, &mut rng)].answer(example)).collect()
    }
}

/// The answer alone: `17`.
pub fn short(example: &Example) -> String {
    example.answer.to_string()
}

/// Sentences: names the digits, works step by step, concludes:
/// `i see 3 8 6 . 3 + 8 = 11 . 11 + 6 = 17 . the answer is 17`.
///
/// A question for one digit names the digits up to that one; the largest digit is found by comparing each digit with
/// the largest before it; a counting question lists the digits that count. At most 30 words for four digits.
pub fn style_a(example: &Example) -> String {
    let labels = example.picture.labels();
    let answer = example.answer;
    let seen = match example.kind {
        Kind::Read { place } => &labels[..=place],
        _ => &labels[..],
    };
    let steps = match example.kind {
        Kind::Read { place } => format!("the {} digit is {answer} .", ORDINALS[place]),
        Kind::Sum => additions(&labels),
        Kind::Difference => {
            let (largest, smallest) = extremes(&labels);
            format!("the largest is {largest} . the smallest is {smallest} . {largest} - {smallest} = {answer} .")
        }
        Kind::Largest => comparisons(&labels),
        Kind::Even => listing(example, "even"),
        Kind::AboveFive => listing(example, "above 5"),
    };
    format!("i see {} . {steps} the answer is {answer}", spaced(seen, " "))
}

/// A ledger: the digits, then a tally that moves along them:
/// `digits : 3 8 6 ; running total 3 then 11 then 17 ; so it is 17`.
///
/// A question for one digit stops at its place; the others carry the sum, the extremes, the largest digit or the count
/// so far. At most 30 words for four digits.
pub fn style_b(example: &Example) -> String {
    let labels = example.picture.labels();
    let answer = example.answer;
    let tally = |name: &str| format!("{name} {}", spaced(running(example.kind, &labels), " then "));
    let (seen, steps) = match example.kind {
        Kind::Read { place } => (&labels[..=place], format!("place {} holds {answer}", place + 1)),
        Kind::Sum => (&labels[..], tally("running total")),
        Kind::Difference => {
            let (largest, smallest) = extremes(&labels);
            (&labels[..], format!("top {largest} bottom {smallest} ; gap {answer}"))
        }
        Kind::Largest => (&labels[..], tally("top so far")),
        Kind::Even => (&labels[..], tally("even so far")),
        Kind::AboveFive => (&labels[..], tally("big so far")),
    };
    format!("digits : {} ; {steps} ; so it is {answer}", spaced(seen, " "))
}

/// `3 + 8 = 11 . 11 + 6 = 17 .`
fn additions(labels: &[u8]) -> String {
    let totals = running(Kind::Sum, labels);
    let step = |(total, next): (&[u32], &u8)| format!("{} + {next} = {} .", total[0], total[1]);
    spaced(totals.windows(2).zip(&labels[1..]).map(step), " ")
}

/// `3 < 8 . 8 > 6 .`: each digit beside the largest one before it.
fn comparisons(labels: &[u8]) -> String {
    let largest = running(Kind::Largest, labels);
    let step = |(before, next): (&u32, &u8)| {
        let sign = match before.cmp(&u32::from(*next)) {
            std::cmp::Ordering::Less => '<',
            std::cmp::Ordering::Equal => '=',
            std::cmp::Ordering::Greater => '>',
        };
        format!("{before} {sign} {next} .")
    };
    spaced(largest.iter().zip(&labels[1..]).map(step), " ")
}

/// `even : 8 6 .`, or `even : none .`
fn listing(example: &Example, name: &str) -> String {
    let labels = example.picture.labels();
    let counted: Vec<u8> = labels.into_iter().filter(|label| example.kind.counts(*label)).collect();
    if counted.is_empty() { format!("{name} : none .") } else { format!("{name} : {} .", spaced(&counted, " ")) }
}

/// The answer for the first digit, for the first two, and so on.
fn running(kind: Kind, labels: &[u8]) -> Vec<u32> {
    (1..=labels.len()).map(|end| kind.answer(&labels[..end])).collect()
}

fn extremes(labels: &[u8]) -> (u32, u32) {
    let largest = Kind::Largest.answer(labels);
    (largest, largest - Kind::Difference.answer(labels))
}

fn spaced<T: ToString>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Digit, Mix, Picture, Split, generate};

    fn example(kind: Kind, labels: &[u8]) -> Example {
        let digits = labels.iter().map(|&label| Digit { index: 0, label }).collect();
        let picture = Picture { digits, look: 0 };
        Example { picture, kind, question: String::new(), answer: kind.answer(labels) }
    }

    #[test]
    fn styles_of_every_kind() {
        let expected = [
            (
                Kind::Read { place: 1 },
                "i see 3 8 . the second digit is 8 . the answer is 8",
                "digits : 3 8 ; place 2 holds 8 ; so it is 8",
            ),
            (
                Kind::Sum,
                "i see 3 8 6 . 3 + 8 = 11 . 11 + 6 = 17 . the answer is 17",
                "digits : 3 8 6 ; running total 3 then 11 then 17 ; so it is 17",
            ),
            (
                Kind::Difference,
                "i see 3 8 6 . the largest is 8 . the smallest is 3 . 8 - 3 = 5 . the answer is 5",
                "digits : 3 8 6 ; top 8 bottom 3 ; gap 5 ; so it is 5",
            ),
            (
                Kind::Largest,
                "i see 3 8 6 . 3 < 8 . 8 > 6 . the answer is 8",
                "digits : 3 8 6 ; top so far 3 then 8 then 8 ; so it is 8",
            ),
            (
                Kind::Even,
                "i see 3 8 6 . even : 8 6 . the answer is 2",
                "digits : 3 8 6 ; even so far 0 then 1 then 2 ; so it is 2",
            ),
            (
                Kind::AboveFive,
                "i see 3 8 6 . above 5 : 8 6 . the answer is 2",
                "digits : 3 8 6 ; big so far 0 then 1 then 2 ; so it is 2",
            ),
        ];
        for (kind, a, b) in expected {
            let example = example(kind, &[3, 8, 6]);
            assert_eq!((style_a(&example).as_str(), style_b(&example).as_str()), (a, b));
        }
        assert_eq!(style_a(&example(Kind::Even, &[3, 5])), "i see 3 5 . even : none . the answer is 0");
        assert_eq!(style_a(&example(Kind::Largest, &[4, 4])), "i see 4 4 . 4 = 4 . the answer is 4");
    }

    #[test]
    fn styles_end_in_the_answer_and_are_short() {
        let mix = Mix { digits: [0, 1, 1, 1], ..Mix::default() };
        for example in generate(Split::Train, 3000, 5, &mix) {
            for style in [Style::Short, Style::A, Style::B] {
                let text = style.answer(&example);
                let words: Vec<&str> = text.split(' ').collect();
                assert_eq!(words.last().and_then(|word| word.parse().ok()), Some(example.answer), "{text}");
                assert!(words.len() <= 30 && words.iter().all(|word| !word.is_empty()), "{text}");
            }
        }
    }

    #[test]
    fn equations_of_style_a_hold() {
        for example in generate(Split::Train, 2000, 6, &Mix::default()) {
            let text = style_a(&example);
            for clause in text.split(" . ").filter(|clause| clause.contains('=')) {
                let words: Vec<&str> = clause.split(' ').collect();
                let number = |at: usize| words[at].parse::<i32>().unwrap();
                let holds = match words[1] {
                    "+" => number(0) + number(2) == number(4),
                    "-" => number(0) - number(2) == number(4),
                    _ => number(0) == number(2),
                };
                assert!(holds, "{text}");
            }
        }
    }

    #[test]
    fn the_mixture_keeps_its_parts_and_its_seed() {
        let examples = generate(Split::Train, 3000, 7, &Mix::default());
        let answers = SftMixture::default().answers(&examples, 1);
        assert_eq!(answers, SftMixture::default().answers(&examples, 1));
        assert_ne!(answers, SftMixture::default().answers(&examples, 2));
        let share = |start: &str| answers.iter().filter(|text| text.starts_with(start)).count() as f64 / 3000.0;
        assert!((share("i see") - 0.1).abs() < 0.03 && (share("digits") - 0.1).abs() < 0.03);
        let teacher = SftMixture::only(Style::B).answers(&examples, 1);
        assert!(teacher.iter().zip(&examples).all(|(text, example)| *text == style_b(example)));
    }
}
