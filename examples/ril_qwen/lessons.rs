//! Supervised lessons that make the toy models. A student and its teachers go to the same school; they differ in size,
//! in time, and in how they are used to answering at the end.

use ril::models::{ChatModel, Qwen2_5Vl};
use ril::{OptimizerSettings, RilError, SftConfig, SftExample};

use crate::data::{Mix, Split, generate};
use crate::models::questions;
use crate::task::{SftMixture, Style};

/// One lesson.
#[derive(Debug, Clone)]
pub struct Lesson {
    /// Name of its stage.
    pub name: String,
    steps: usize,
    /// Learning rate at the first and the last step.
    rates: [f64; 2],
    /// What is asked.
    mix: Mix,
    /// How it is answered.
    answers: SftMixture,
    seed: u64,
}

const ROWS: usize = 32;
/// Different examples a lesson has at most; a longer one repeats them.
const MOST_EXAMPLES: usize = 24_000;

/// Questions for single digits only.
fn reading() -> Mix {
    Mix { read: 1, sum: 0, difference: 0, largest: 0, even: 0, above_five: 0, digits: [1, 1, 3, 0] }
}

/// The student: it learns to read, then to work things out in both teachers' ways, and at last is fine-tuned to answer
/// shortly, mostly. Greedily it then blurts out a number, often a wrong one; now and then it samples a worked answer,
/// which is right more often. A real student is like that: it could say what its teachers say, but rarely does. A lesson
/// for which there is no step is left out.
pub fn student(sft_steps: usize, seed: u64) -> Vec<Lesson> {
    let both = SftMixture { short: 0, style_a: 1, style_b: 1 };
    let lesson =
        |name: &str, steps, rates, mix, answers| Lesson { name: name.to_string(), steps, rates, mix, answers, seed };
    let (reading_steps, working_steps) = (sft_steps / 5, sft_steps * 3 / 5);
    let last_steps = sft_steps - reading_steps - working_steps;
    let mut lessons = vec![
        lesson("reading", reading_steps, [1e-3, 1e-3], reading(), both),
        lesson("working", working_steps, [1e-3, 5e-4], Mix::default(), both),
        lesson("sft", last_steps, [1e-3, 1e-4], Mix::default(), SftMixture::default()),
    ];
    lessons.retain(|lesson| lesson.steps > 0);
    lessons
}

/// A teacher: the same, longer, and always in its own style.
pub fn teacher(name: &str, style: Style, seed: u64) -> Vec<Lesson> {
    let answers = SftMixture::only(style);
    let lesson =
        |part: &str, steps, rates, mix| Lesson { name: format!("{name}: {part}"), steps, rates, mix, answers, seed };
    vec![lesson("reading", 400, [1e-3, 1e-3], reading()), lesson("working", 2000, [1e-3, 2e-5], Mix::default())]
}

impl Lesson {
    /// The lesson's examples as `model` reads them, and how they are trained on.
    pub fn prepare(&self, model: &Qwen2_5Vl) -> Result<(Vec<SftExample>, SftConfig), RilError> {
        let steps = self.steps;
        let examples = generate(Split::Train, (steps * ROWS).min(MOST_EXAMPLES), self.seed, &self.mix);
        let answers = self.answers.answers(&examples, self.seed);
        let examples = questions(model, &examples, &self.name)?.into_iter().zip(answers).map(|(question, answer)| {
            Ok(SftExample { prompt: question.prompt, completion: model.encode_response(&answer)? })
        });
        let optimizer = OptimizerSettings {
            final_learning_rate: self.rates[1],
            weight_decay: 0.01,
            // Short and long answers are kept apart, so that short ones carry little padding.
            micro_batch_rows: 16,
            passes_at_once: 2,
            ..OptimizerSettings::constant(self.rates[0])
        };
        let config = SftConfig { rows_per_step: ROWS, total_steps: steps, optimizer, seed: self.seed };
        Ok((examples.collect::<Result<_, RilError>>()?, config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_as_many_as_were_asked_for() {
        for steps in [0, 1, 3, 4, 7, 100, 1250] {
            let lessons = student(steps, 0);
            assert_eq!(lessons.iter().map(|lesson| lesson.steps).sum::<usize>(), steps);
            assert!(lessons.iter().all(|lesson| lesson.steps > 0));
        }
        assert_eq!(student(1250, 0).iter().map(|lesson| lesson.steps).collect::<Vec<_>>(), [250, 750, 250]);
    }
}
