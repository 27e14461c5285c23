//! Questions about handwritten digits, all of the split that nothing is trained on.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::{Example, Kind, Mix, Split, generate};
use crate::tsv::{base64, lines, row};

const SEED: u64 = 20;
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];
/// Between the indices of two rotations of one question.
const OFFSET: usize = 1_000_000;

fn examples(count: usize, seed: u64) -> Vec<Example> {
    let mix = Mix { read: 1, sum: 1, ..Mix::default() };
    generate(Split::Test, count, seed, &mix)
}

/// What a question is about: (`l2-category`, `category`).
fn categories(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Read { .. } => ("reading", "one digit"),
        Kind::Largest => ("reading", "largest"),
        Kind::Sum => ("arithmetic", "sum"),
        Kind::Difference => ("arithmetic", "difference"),
        Kind::Even => ("counting", "even"),
        Kind::AboveFive => ("counting", "above five"),
    }
}

/// Multiple choice in all four rotations, as MMBench stores them: index `k * 1000000 + n`, the picture in the first row.
pub fn circular() -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut rotations = vec![Vec::new(); LETTERS.len()];
    for (i, example) in examples(36, SEED).iter().enumerate() {
        let number = i + 1;
        let options = options(example.answer, &mut rng);
        let (l2, category) = categories(example.kind);
        for (turn, rows) in rotations.iter_mut().enumerate() {
            let turned: Vec<u32> = (0..LETTERS.len()).map(|place| options[(place + turn) % LETTERS.len()]).collect();
            let answer = turned.iter().position(|option| *option == example.answer).unwrap_or_default();
            let image = if turn == 0 { base64(&example.picture.render()) } else { number.to_string() };
            let mut fields = row(&[&(turn * OFFSET + number).to_string(), &example.question]);
            fields.extend(turned.iter().map(|option| format!("the answer is {option}")));
            fields.extend(row(&[LETTERS[answer], category, l2, &image]));
            rows.push(fields);
        }
    }
    let header = row(&["index", "question", "A", "B", "C", "D", "answer", "category", "l2-category", "image"]);
    lines(&std::iter::once(header).chain(rotations.into_iter().flatten()).collect::<Vec<_>>())
}

/// The right answer and three others, in a drawn order; none begins with another, so that a text names one alone.
fn options(answer: u32, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut options = vec![answer];
    let nearby: Vec<u32> = (answer.saturating_sub(9)..=answer + 9).collect();
    while options.len() < LETTERS.len() {
        let candidate = *nearby.choose(rng).expect("there are numbers nearby");
        let begins = |a: u32, b: u32| a.to_string().starts_with(&b.to_string());
        if options.iter().all(|&other| !begins(candidate, other) && !begins(other, candidate)) {
            options.push(candidate);
        }
    }
    options.shuffle(rng);
    options
}

/// Yes or no; half of the claims are right.
pub fn yes_no() -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED + 1);
    let mut rows = vec![row(&["index", "question", "answer", "category", "image"])];
    for (i, example) in examples(44, SEED + 1).iter().enumerate() {
        let is_right = i.is_multiple_of(2);
        let shift = rng.random_range(1..=4);
        let wrong = if rng.random() { example.answer + shift } else { example.answer.abs_diff(shift) };
        let wrong = if wrong == example.answer { example.answer + 1 } else { wrong };
        let claim = if is_right { example.answer } else { wrong };
        let question = format!("{} Is the answer {claim}? Please answer yes or no.", sentence(&example.question));
        let answer = if is_right { "Yes" } else { "No" };
        let image = base64(&example.picture.render());
        rows.push(row(&[&(i + 1).to_string(), &question, answer, categories(example.kind).1, &image]));
    }
    lines(&rows)
}

/// The questions as the toy models of `examples/ril_qwen` know them; the answer is a number.
pub fn free() -> String {
    let mut rows = vec![row(&["index", "question", "answer", "category", "l2-category", "image"])];
    for (i, example) in examples(44, SEED + 2).iter().enumerate() {
        let (l2, category) = categories(example.kind);
        let (index, answer, image) =
            ((i + 1).to_string(), example.answer.to_string(), base64(&example.picture.render()));
        rows.push(row(&[&index, &example.question, &answer, category, l2, &image]));
    }
    lines(&rows)
}

/// `what is the sum ?` as `What is the sum?`.
fn sentence(words: &str) -> String {
    let mut text = words.replace(" ?", "?").replace(" .", ".");
    text[..1].make_ascii_uppercase();
    text
}
