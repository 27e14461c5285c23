//! What a run on the user's own model and data starts from.

use std::path::Path;

use burn::tensor::Device;
use ril::data::{hold_out, read_questions};
use ril::models::Qwen2_5Vl;
use ril::{Question, RilError, SftExample, TeacherCache};

use crate::args::Settings;
use crate::plan::own_sft;
use crate::world::{Teacher, Teaching, World};

/// Shuffles the split. One number for all runs: whatever their seed, they are measured on the same questions.
const SPLIT_SEED: u64 = 0;

/// Reads student, questions and teacher answers, and checks that they belong together.
///
/// # Errors
/// The first file, line, question or teacher that is not right.
pub fn world(settings: &Settings, model: &Path, data: &Path, device: &Device) -> Result<World, RilError> {
    let student = Qwen2_5Vl::from_folder(model, &device.clone().autodiff())?;
    let questions = read_questions(data, &student)?;
    let responses = settings.teacher_responses.as_deref().unwrap_or(Path::new(""));
    let cache = TeacherCache::read_for(responses, &questions, &student)?;
    let wanted = settings.held_out().unwrap_or((questions.len() / 5).max(1));
    let (train, held_out) = hold_out(questions, wanted, SPLIT_SEED)?;
    cache.check_covers(&train)?;
    let teachers = cache.teachers().iter().map(|name| Teacher { name: name.clone(), model: None }).collect();
    let lessons = match settings.sft_steps() {
        0 => Vec::new(),
        _ => vec![Teaching::Own(examples(&train, &cache, &student)?, own_sft(settings))],
    };
    Ok(World { student, lessons, train, held_out, teachers, cache: Some(cache) })
}

/// One teacher answer to each question, teachers taking turns.
fn examples(train: &[Question], cache: &TeacherCache, student: &Qwen2_5Vl) -> Result<Vec<SftExample>, RilError> {
    let example = |(i, question): (usize, &Question)| {
        let response = cache.responses(question, 1, i, student)?.remove(0);
        Ok(SftExample { prompt: question.prompt.clone(), completion: response.token_ids })
    };
    train.iter().enumerate().map(example).collect()
}
