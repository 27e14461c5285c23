//! What a run on the user's own model and data starts from.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Device;
use ril::data::{Record, hold_out, read_questions, read_records};
use ril::models::Qwen2_5Vl;
use ril::{Question, Response, RilError, SftExample, TeacherCache};

use crate::args::Settings;
use crate::plan::{loop_config, own_sft, pretraining_questions};
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
    let cache = match &settings.teacher_responses {
        Some(responses) => TeacherCache::read_for(responses, &questions, &student)?,
        None => TeacherCache::default(),
    };
    if let Some(name) = settings.servers.teacher_model.as_ref().filter(|name| cache.teachers().contains(*name)) {
        let message = format!("--teacher-responses: holds answers of {name}, who is to answer while the run trains");
        return Err(RilError::Config(message));
    }
    let wanted = settings.held_out().unwrap_or((questions.len() / 5).max(1));
    let (train, held_out) = hold_out(questions, wanted, SPLIT_SEED)?;
    if settings.teacher_responses.is_some() {
        cache.check_covers(&train)?;
    }
    let teachers = cache.teachers().iter().map(|name| Teacher { name: name.clone(), model: None }).collect();
    let lessons = match settings.sft_steps() {
        0 => Vec::new(),
        _ => vec![Teaching::Own(own_sft(settings))],
    };
    Ok(World { student, lessons, train, held_out, teachers, cache: Some(cache), feed: None })
}

/// One teacher answer to each question that has one, teachers taking turns.
///
/// # Errors
/// The cache's; [`RilError::Input`] when there is none at all.
pub fn examples(world: &World) -> Result<Vec<SftExample>, RilError> {
    let (Some(cache), student) = (&world.cache, &world.student) else { return Ok(Vec::new()) };
    let mut examples = Vec::new();
    for (i, question) in world.train.iter().enumerate() {
        let responses = cache.responses_if_any(question, 1, i, student)?.unwrap_or_default();
        let example = |r: Response| SftExample { prompt: question.prompt.clone(), completion: r.token_ids };
        examples.extend(responses.into_iter().map(example));
    }
    if examples.is_empty() {
        return Err(RilError::Input("teachers have nothing to say to any training question: see servers.log".into()));
    }
    Ok(examples)
}

/// The training questions that a run asks its teachers about, in the order in which it needs the answers.
///
/// # Errors
/// Those of the file.
pub fn in_turn(settings: &Settings, data: &Path, train: &[Question]) -> Result<Vec<(usize, Record)>, RilError> {
    let config = loop_config(settings);
    let sft = if settings.sft_steps() > 0 { train.len() } else { 0 };
    let pretrained = pretraining_questions(settings, &config, train.len());
    let order = (0..sft).chain(0..pretrained).chain(config.question_order(train.len()));
    let mut records: HashMap<String, (usize, Record)> =
        read_records(data)?.into_iter().map(|record| (record.1.id.clone().unwrap_or_default(), record)).collect();
    // A question's second turn finds its record taken.
    Ok(order.filter_map(|i| records.remove(&train[i].id)).collect())
}
