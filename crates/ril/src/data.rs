//! Questions from a JSON-lines file: image path(s), question, answer; and their split.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use ril_models::ChatModel;
use ril_models::image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::RilError;
use crate::group::Question;

/// One line of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Unique key; the line number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Pictures, relative to the file.
    #[serde(default)]
    pub images: Vec<PathBuf>,
    /// What is asked.
    pub question: String,
    /// Ground truth.
    pub answer: String,
}

/// Reads every line of a JSON-lines file into `T`; empty lines are skipped.
///
/// # Errors
/// [`RilError::Io`], or [`RilError::Line`] with the number of the first broken line.
pub fn read_lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>, RilError> {
    let text = std::fs::read_to_string(path).map_err(RilError::io(path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let value = serde_json::from_str(line).map_err(|e| RilError::Line {
                path: path.to_path_buf(),
                line: i + 1,
                reason: e.to_string(),
            })?;
            Ok((i + 1, value))
        })
        .collect()
}

/// Reads a dataset without its pictures: every record with its line number, its id (the line number where it has none), and
/// the paths of its pictures as the file system knows them.
///
/// # Errors
/// [`RilError::EmptyFile`], [`RilError::Line`] with the line number: broken JSON, a missing field, a second question
/// with the same id.
pub fn read_records(path: &Path) -> Result<Vec<(usize, Record)>, RilError> {
    let mut records: Vec<(usize, Record)> = read_lines(path)?;
    if records.is_empty() {
        return Err(RilError::EmptyFile { path: path.to_path_buf(), what: "questions" });
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut seen = std::collections::HashSet::new();
    for (line, record) in &mut records {
        let id = record.id.get_or_insert_with(|| line.to_string());
        if !seen.insert(id.clone()) {
            let reason = format!("a question with id {id} stands further up");
            return Err(RilError::Line { path: path.to_path_buf(), line: *line, reason });
        }
        record.images.iter_mut().for_each(|image| *image = folder.join(&*image));
    }
    Ok(records)
}

/// Reads a dataset and encodes its questions for `model`, in parallel.
///
/// # Errors
/// Those of [`read_records`]; [`RilError::Question`] for an image that cannot be read or is refused.
pub fn read_questions<M: ChatModel + Sync>(path: &Path, model: &M) -> Result<Vec<Question>, RilError> {
    let encode = |(line, record): &(usize, Record)| {
        question(record, model).map_err(|source| RilError::Question {
            path: path.to_path_buf(),
            line: *line,
            images: record.images.clone(),
            source: Box::new(source),
        })
    };
    read_records(path)?.par_iter().map(encode).collect()
}

fn question<M: ChatModel>(record: &Record, model: &M) -> Result<Question, RilError> {
    let pictures = record.images.iter().map(|image| Ok(Arc::new(ril_models::image::open_image(image)?)));
    let pictures = pictures.collect::<Result<_, RilError>>()?;
    let id = record.id.clone().unwrap_or_default();
    Question::encode(model, id, pictures, record.question.clone(), record.answer.clone())
}

/// Questions to train on and questions to measure with, both in their given order: of the `held_out` that are wanted as
/// many as whole sets give, at least one. Two questions that show the same picture are of one set, and so are those
/// that a third one links; sets are drawn in an order that `seed` shuffles.
///
/// # Errors
/// [`RilError::Config`] when there would be no question on one of the sides.
pub fn hold_out(
    questions: Vec<Question>,
    held_out: usize,
    seed: u64,
) -> Result<(Vec<Question>, Vec<Question>), RilError> {
    use rand::SeedableRng;
    use rand::seq::SliceRandom;

    let total = questions.len();
    if held_out == 0 || held_out >= total {
        let range = if total < 2 { "at least 2 questions".to_string() } else { format!("1 to {}", total - 1) };
        let got = if total < 2 { total } else { held_out };
        return Err(RilError::Config(format!("held-out questions: expected {range}, got {got}")));
    }
    let mut sets = picture_sets(&questions);
    if sets.len() < 2 {
        let message = "held-out questions: all questions share pictures, so that none can be held out";
        return Err(RilError::Config(message.into()));
    }
    sets.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
    let mut is_held_out = vec![false; total];
    let mut free = held_out;
    for set in sets.iter().filter(|set| set.len() <= held_out) {
        if set.len() <= free {
            free -= set.len();
            set.iter().for_each(|&i| is_held_out[i] = true);
        }
    }
    if free == held_out {
        // Every set is larger than what was wanted: the smallest is nearest.
        sets.iter().min_by_key(|set| set.len()).into_iter().flatten().for_each(|&i| is_held_out[i] = true);
    }
    let mut sides = is_held_out.into_iter();
    let (held_out, train) = questions.into_iter().partition(|_| sides.next().unwrap_or_default());
    Ok((train, held_out))
}

/// Indices of questions that are linked by pictures, by the pixels of these.
fn picture_sets(questions: &[Question]) -> Vec<Vec<usize>> {
    let keys: Vec<Vec<u64>> =
        questions.par_iter().map(|q| q.pictures.iter().map(|p| pixel_hash(p)).collect()).collect();
    let mut set_of: Vec<usize> = (0..questions.len()).collect();
    let mut first_with = HashMap::new();
    for (i, key) in keys.iter().enumerate() {
        for key in key {
            let other = set_of[*first_with.entry(*key).or_insert(i)];
            let own = set_of[i];
            if own != other {
                let (low, high) = (own.min(other), own.max(other));
                set_of.iter_mut().filter(|set| **set == high).for_each(|set| *set = low);
            }
        }
    }
    let mut sets: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, set) in set_of.into_iter().enumerate() {
        sets.entry(set).or_default().push(i);
    }
    sets.into_values().collect()
}

fn pixel_hash(picture: &RgbImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    (picture.dimensions(), picture.as_raw()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Prompt;

    /// A question that shows pictures of one pixel each.
    fn question(id: usize, pixels: &[u8]) -> Question {
        let pictures = pixels.iter().map(|&p| Arc::new(RgbImage::from_pixel(1, 1, [p; 3].into()))).collect();
        let prompt = Arc::new(Prompt { token_ids: vec![], images: None });
        Question { id: id.to_string(), text: String::new(), answer: String::new(), pictures, prompt }
    }

    fn ids(questions: &[Question]) -> Vec<usize> {
        questions.iter().map(|q| q.id.parse().unwrap()).collect()
    }

    #[test]
    fn questions_on_one_picture_stay_on_one_side() {
        let pixels: Vec<Vec<u8>> = (0..40).map(|i| vec![i as u8 / 2]).collect();
        let all: Vec<Question> = pixels.iter().enumerate().map(|(i, p)| question(i, p)).collect();
        let (train, held_out) = hold_out(all.clone(), 8, 0).unwrap();
        assert_eq!((train.len(), held_out.len()), (32, 8));
        let held_out = ids(&held_out);
        assert!(held_out.iter().all(|id| held_out.contains(&(id ^ 1))), "{held_out:?}");
        assert!(held_out.is_sorted() && ids(&train).is_sorted());
        assert_ne!(held_out, (32..40).collect::<Vec<_>>(), "not the last ones");
        assert_eq!(ids(&hold_out(all.clone(), 8, 0).unwrap().1), held_out);
        assert_ne!(ids(&hold_out(all, 8, 1).unwrap().1), held_out);
    }

    #[test]
    fn a_question_on_two_pictures_links_them() {
        let all = [&[1][..], &[2], &[1, 2], &[3], &[]].iter().enumerate().map(|(i, p)| question(i, p)).collect();
        let sets = picture_sets(&Vec::<Question>::clone(&all));
        assert_eq!(sets, [vec![0, 1, 2], vec![3], vec![4]]);
        assert_eq!(ids(&hold_out(all, 2, 0).unwrap().1), [3, 4]);
    }

    #[test]
    fn a_split_without_questions_on_one_side_is_refused() {
        let message = |questions: Vec<Question>, wanted| hold_out(questions, wanted, 0).unwrap_err().to_string();
        assert!(message(vec![question(0, &[])], 1).ends_with("expected at least 2 questions, got 1"));
        let three = || (0..3).map(|i| question(i, &[])).collect::<Vec<_>>();
        assert!(message(three(), 0).ends_with("expected 1 to 2, got 0"));
        assert!(message(three(), 3).ends_with("expected 1 to 2, got 3"));
        assert!(message((0..3).map(|i| question(i, &[7])).collect(), 1).contains("share pictures"));
        let uneven =
            vec![question(0, &[1]), question(1, &[1]), question(2, &[2]), question(3, &[2]), question(4, &[2])];
        assert_eq!(ids(&hold_out(uneven, 1, 0).unwrap().1), [0, 1], "the smallest set when none is small enough");
    }
}
