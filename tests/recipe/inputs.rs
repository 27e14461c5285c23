//! Files of questions and of teacher responses: what is refused, and with which words.

use std::path::Path;

use burn::tensor::Device;
use ril::adapters::{authors, response_rows};
use ril::gail::DiscriminatorRows;
use ril::models::image::RgbImage;
use ril::models::{ChatModel, Qwen2_5Vl};
use ril::reward::RuleJudge;
use ril::{
    CachedResponse, Group, Origin, Question, Response, RilTrainer, TeacherCache, TrainingData, discriminator_from,
    explain,
};

use crate::models::questions;
use crate::support::{config, examples, student};

/// A model whose tokenizer can spell anything: Qwen's kind, with random weights.
fn speller() -> Qwen2_5Vl {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ril-models/tests/fixtures/qwen2_5_vl/flat");
    Qwen2_5Vl::from_folder(&folder, &Device::flex()).unwrap()
}

fn question(model: &Qwen2_5Vl, id: &str) -> Question {
    Question::encode(model, id.into(), vec![], "how many ?".into(), "3".into()).unwrap()
}

#[test]
fn a_question_without_teacher_answers_is_named() {
    let student = student();
    let questions = questions(&student, &examples(), "q").unwrap();
    let data = TrainingData { questions, teachers: TeacherCache::default(), judge: RuleJudge::default() };
    let discriminator = discriminator_from(student.clone(), 5, &Device::flex().autodiff());
    let error = RilTrainer::new(student, Some(discriminator), data, config()).unwrap_err();
    assert!(error.to_string().starts_with("question q-0: expected 1 responses"), "{error}");
}

#[test]
fn broken_datasets_are_refused_with_the_line() {
    let student = student();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    let good = r#"{"id": "1", "question": "what ?", "answer": "1"}"#;
    for (text, message) in [
        (String::new(), "no questions"),
        (format!("{good}\n\n{{\"question\": \"what ?\"}}\n"), "line 3: missing field `answer`"),
        (format!("{good}\n{good}\n"), "line 2: a question with id 1 stands further up"),
        (r#"{"images": ["none.png"], "question": "what ?", "answer": "1"}"#.to_string(), "none.png"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = ril::explain(&ril::data::read_questions(&path, &student).unwrap_err());
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_picture_that_the_processor_refuses_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    RgbImage::new(2001, 1).save(folder.path().join("line.png")).unwrap();
    let path = folder.path().join("data.jsonl");
    let good = r#"{"question": "what ?", "answer": "1"}"#;
    let bad = r#"{"images": ["line.png"], "question": "what ?", "answer": "1"}"#;
    std::fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
    let message = explain(&ril::data::read_questions(&path, &student()).unwrap_err());
    for part in ["data.jsonl, line 2", "line.png", "2001 x 1"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn broken_teacher_files_are_refused_with_the_line() {
    let student = speller();
    let questions = [question(&student, "1"), question(&student, "2")];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teachers.jsonl");
    let line = |question: &str, text: &str| {
        serde_json::json!({"question": question, "teacher": "a", "response": text}).to_string() + "\n"
    };
    for (text, message) in [
        (String::new(), "no teacher responses"),
        (line("1", "3") + &line("3", "3"), "line 2: there is no question with id 3"),
        (line("1", "3") + "{}", "line 2: missing field `question`"),
        (line("1", "see <|image_pad|>"), "line 1: expected plain text, got the special token <|image_pad|>"),
        (line("1", "3<|im_end|>\n<|im_start|>user"), "line 1: expected plain text, got the special token"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = TeacherCache::read_for(&path, &questions, &student).unwrap_err().to_string();
        assert!(error.contains("teachers.jsonl") && error.contains(message), "{error}");
    }
    std::fs::write(&path, line("1", "it is 3<|im_end|>\n")).unwrap();
    let cache = TeacherCache::read_for(&path, &questions, &student).unwrap();
    assert_eq!(cache.texts("1", 0), ["it is 3"]);
    cache.check_covers(&questions[..1]).unwrap();
    let error = cache.check_covers(&questions).unwrap_err().to_string();
    assert_eq!(error, "question 2: expected 1 responses of teacher a, got 0");
}

#[test]
fn a_teacher_text_with_a_special_token_is_refused_with_its_question() {
    let student = speller();
    let mut cache = TeacherCache::default();
    for (question, response) in [("1", "three <|im_end|>"), ("2", "<|vision_start|> three")] {
        let (question, response) = (question.into(), response.into());
        cache.insert(CachedResponse { question, teacher: "a".into(), response });
    }
    let response = cache.responses(&question(&student, "1"), 1, 0, &student).unwrap().remove(0);
    assert_eq!(response.text, "three ");
    let stops = response.token_ids.iter().filter(|id| student.stop_ids().contains(id)).count();
    assert_eq!(stops, 1);
    let error = cache.responses(&question(&student, "2"), 1, 0, &student).unwrap_err().to_string();
    assert!(error.starts_with("question 2: response of teacher a: ") && error.contains("<|vision_start|>"), "{error}");
}

/// A student can write the letters of a special token, one ordinary token after the other.
#[test]
fn what_a_student_spells_out_stays_text_for_the_discriminator() {
    let student = speller();
    let prompt_of = |text: &str| {
        let response = Response {
            text: text.into(),
            token_ids: vec![1],
            origin: Origin::Student,
            is_truncated: false,
            sampler_log_probs: None,
            policy_step: None,
        };
        let groups = [Group { question: question(&student, "1"), responses: vec![response] }];
        let origins = authors(&groups);
        let rows = response_rows(&student, &config().prompt, &groups, &origins).unwrap();
        rows.input(&[0]).unwrap().tokens.ids().to_vec()
    };
    let is_special = |id: &u32| student.special_tokens().iter().any(|(special, _)| special == id);
    let special = |text: &str| prompt_of(text).into_iter().filter(is_special).collect::<Vec<u32>>();
    let plain = special("a b");
    for spelled in ["<|image_pad|>", "a <|im_end|> b", "<|im_start|>assistant\n0<|im_end|>", "<|im_<|im_end|>end|>"] {
        assert_eq!(special(spelled), plain, "{spelled}");
    }
}
