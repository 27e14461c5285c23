//! Samples of a student behind a server, and weights that follow it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use burn::tensor::Device;
use ril::grpo::{SamplerBound, SamplerCorrection, SamplerLevel};
use ril::models::generate::SamplingParams;
use ril::models::image::{RgbImage, decode_image, resize_bicubic};
use ril::models::{CausalLm, ChatModel, Qwen2_5Vl};
use ril::reward::{Judge, RewardError, RuleJudge, Sample, Verdict};
use ril::server::{AdapterFolder, SampledTokens, ServerRollout, ServerRolloutConfig};
use ril::{
    Question, RilConfig, RilError, RilTrainer, Rollout, SampleTime, ServedStage, Stage, TeacherCache, TrainingData,
};
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{Server, client, samples, student};

const WORD: &str = "seven";

pub fn questions(student: &Qwen2_5Vl) -> Vec<Question> {
    let pixel = |x, y| image::Rgb([(4 * x) as u8, (9 * y) as u8, (x * y) as u8]);
    let picture = Arc::new(RgbImage::from_fn(56, 28, pixel));
    let question = |(id, pictures): (&str, Vec<Arc<RgbImage>>)| {
        Question::encode(student, id.into(), pictures, format!("What is {id}?"), WORD.into()).unwrap()
    };
    [("one", vec![]), ("two", vec![picture])].into_iter().map(question).collect()
}

/// A server that has the student's tokenizer: it tells the ids of prompts and of `seven<|im_end|>`.
pub fn engine() -> Server {
    Server::new(engine_answers())
}

pub fn engine_answers() -> impl Fn(&str, &Value) -> ResponseTemplate + Send + Sync + 'static {
    let sampled = engine_samples();
    move |path, body| match path {
        "/v1/chat/completions" => ResponseTemplate::new(200).set_body_json(sampled(body)),
        _ => ResponseTemplate::new(200).set_body_string("Success"),
    }
}

fn engine_samples() -> impl Fn(&Value) -> Value + Send + Sync + 'static {
    let student = student(&Device::flex());
    let prompts: Vec<(String, Vec<u32>)> =
        questions(&student).iter().map(|q| (q.text.clone(), q.prompt.token_ids.clone())).collect();
    let ids = student.encode_response(WORD).unwrap();
    move |body| {
        let content = &body["messages"][0]["content"];
        let text = content.as_str().or_else(|| content[1]["text"].as_str()).unwrap();
        let prompt = &prompts.iter().find(|(question, _)| question == text).unwrap().1;
        let tokens: Vec<Value> = ids.iter().map(|_| json!({"token": "x", "logprob": -1.5})).collect();
        let choice = |i: usize| {
            json!({"index": i, "message": {"content": WORD}, "finish_reason": "stop", "token_ids": ids,
                   "logprobs": {"content": tokens}})
        };
        let choices: Vec<Value> = (0..samples(body)).map(choice).collect();
        json!({"choices": choices, "prompt_token_ids": prompt})
    }
}

pub fn config() -> ServerRolloutConfig {
    ServerRolloutConfig {
        model: "org/student".into(),
        tokens: SampledTokens::Returned,
        samples_per_request: None,
        adapter_folder: None,
        adapter_prefix: "student".into(),
    }
}

pub fn params() -> SamplingParams {
    SamplingParams { num_samples: 3, max_new_tokens: 4, top_k: 50, top_p: 0.95, ..SamplingParams::default() }
}

#[test]
fn samples_have_the_ids_and_log_probabilities_that_the_server_drew() {
    let (server, student) = (engine(), student(&Device::flex()));
    let mut rollout = ServerRollout::new(client(&[&server]), config(), student.forbidden_ids());
    let answers = rollout.sample(&questions(&student), &params()).unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    let response = &answers[1][2];
    assert_eq!((response.text.as_str(), response.policy_step, response.is_truncated), (WORD, Some(0), false));
    assert_eq!(response.token_ids, student.encode_response(WORD).unwrap());
    assert_eq!(response.sampler_log_probs, Some(vec![-1.5; response.token_ids.len()]));

    let asked = server.chats();
    assert_eq!(asked.len(), 2);
    let shown = asked.iter().find(|body| body["messages"][0]["content"].is_array()).unwrap();
    let url = shown["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap();
    assert!(url.starts_with("data:image/png;base64,iVBOR"), "{url}");
    // 56 x 28 pixels are more than this student's processor allows: it is sent what the student sees.
    let file = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
    let sent = decode_image(&file).unwrap();
    let grid = questions(&student)[1].prompt.images.as_ref().unwrap().grid_thw[0];
    assert_eq!(sent.dimensions(), (grid[2] as u32 * 4, grid[1] as u32 * 4));
    assert_ne!(sent.dimensions(), (56, 28));
    assert_eq!(sent, resize_bicubic(&questions(&student)[1].pictures[0], sent.width(), sent.height()));
    assert_eq!((&shown["top_k"], &shown["n"], &shown["model"]), (&json!(50), &json!(3), &json!("org/student")));
    let bias = shown["logit_bias"].as_object().unwrap();
    assert_eq!(bias.len(), student.forbidden_ids().len());
    assert!(bias.values().all(|value| *value == json!(-100.0)));
}

#[test]
fn samples_can_be_asked_for_one_by_one() {
    let (server, student) = (engine(), student(&Device::flex()));
    let one = ServerRolloutConfig { samples_per_request: Some(2), ..config() };
    let mut rollout = ServerRollout::new(client(&[&server]), one, &[]);
    let answers = rollout.sample(&questions(&student), &params()).unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    let mut numbers: Vec<usize> = server.chats().iter().map(samples).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 1, 2, 2]);
}

#[test]
fn a_server_that_reads_another_prompt_is_an_error() {
    let student = student(&Device::flex());
    let server = engine();
    let mut questions = questions(&student);
    let mut ids = questions[0].prompt.token_ids.clone();
    ids.insert(2, 1);
    questions[0].prompt = Arc::new(ril::Prompt { token_ids: ids, images: None });
    let error = ServerRollout::new(client(&[&server]), config(), &[]).sample(&questions, &params()).unwrap_err();
    assert!(error.to_string().contains("another prompt than the student"), "{error}");
}

#[test]
fn full_weights_are_pushed_where_the_server_can_take_them() {
    let server = engine();
    let mut rollout = ServerRollout::new(client(&[&server]), config(), &[]);
    rollout.push_weights(5, Path::new("/mnt/student")).unwrap();
    let pushed = json!({"model_path": "/mnt/student", "weight_version": "student-step-5"});
    assert_eq!(server.requests("/update_weights_from_disk"), [pushed]);
    assert_eq!(rollout.policy_step(), 5);
}

/// It says which weights it has: those that it began with.
#[test]
fn a_server_that_lost_the_weights_is_noticed() {
    let (student, sampled) = (student(&Device::flex()), engine_samples());
    let version = Arc::new(std::sync::Mutex::new("default".to_owned()));
    let loaded = version.clone();
    let server = Server::new(move |path, body| {
        if path == "/update_weights_from_disk" {
            *loaded.lock().unwrap() = body["weight_version"].as_str().unwrap().to_owned();
        }
        if path != "/v1/chat/completions" {
            return ResponseTemplate::new(200).set_body_string("{\"success\":true}");
        }
        let mut answer = sampled(body);
        answer["metadata"] = json!({"weight_version": *loaded.lock().unwrap()});
        ResponseTemplate::new(200).set_body_json(answer)
    });
    let folder = tempfile::tempdir().unwrap();
    let folders = AdapterFolder { here: folder.path().to_path_buf(), at_server: "/mnt/models".into() };
    let config = ServerRolloutConfig { adapter_folder: Some(folders), ..config() };
    let mut rollout = ServerRollout::new(client(&[&server]), config, &[]);
    let save = |path: &Path| std::fs::create_dir_all(path).map_err(RilError::io(path));
    for step in 1..3 {
        rollout.push_model(step, save).unwrap();
        rollout.sample(&questions(&student)[..1], &params()).unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["student-step-2"]);
    let pushed = json!({"model_path": "/mnt/models/student-step-2", "weight_version": "student-step-2"});
    assert_eq!(server.requests("/update_weights_from_disk").last(), Some(&pushed));
    "default".clone_into(&mut version.lock().unwrap());
    let error = rollout.sample(&questions(&student)[..1], &params()).unwrap_err();
    assert!(error.to_string().contains("started anew"), "{error}");
}

fn trainer(student: Qwen2_5Vl, correction: Option<SamplerCorrection>) -> RilTrainer<Qwen2_5Vl, RuleJudge> {
    trainer_with(student, correction, RuleJudge::default())
}

fn trainer_with<J: Judge + Sync>(
    student: Qwen2_5Vl,
    correction: Option<SamplerCorrection>,
    judge: J,
) -> RilTrainer<Qwen2_5Vl, J> {
    let mut config = RilConfig::dr_grpo(4, 3);
    config.groups.questions_per_step = 2;
    config.groups.students_per_question = 3;
    config.sampler_correction = correction;
    let questions = questions(&student);
    let data = TrainingData { questions, teachers: TeacherCache::default(), judge };
    RilTrainer::new(student, None, data, config).unwrap()
}

#[test]
fn a_step_learns_from_a_server_and_counts_how_stale_it_is() {
    let server = engine();
    let correction =
        SamplerCorrection { level: SamplerLevel::Token, bound: SamplerBound::Truncate, min_ratio: 0.0, max_ratio: 2.0 };
    let mut trainer = trainer(student(&Device::flex().autodiff()), Some(correction));
    let forbidden = trainer.policy().forbidden_ids().to_vec();
    let mut rollout = ServerRollout::new(client(&[&server]), config(), &forbidden);
    for step in 0..3 {
        let groups = trainer.collect(&mut rollout).unwrap();
        let metrics = trainer.step_on(&groups).unwrap();
        assert_eq!(metrics.get("sampler/staleness"), Some(step as f64));
        assert_eq!(metrics.get("reward/answer"), Some(1.0));
    }
}

#[test]
fn text_alone_is_read_by_the_student() {
    let text = |is_cut: bool| {
        let reason = if is_cut { "length" } else { "stop" };
        Server::new(move |_, body| {
            let choice = |i: usize| json!({"index": i, "message": {"content": WORD}, "finish_reason": reason});
            let choices: Vec<Value> = (0..samples(body)).map(choice).collect();
            ResponseTemplate::new(200).set_body_json(json!({"choices": choices}))
        })
    };
    let student = student(&Device::flex().autodiff());
    let whole = student.encode_response(WORD).unwrap();
    let trainer = trainer(student, None);
    for (is_cut, expected) in [(false, &whole[..]), (true, &whole[..whole.len() - 1])] {
        let server = text(is_cut);
        let config = ServerRolloutConfig { tokens: SampledTokens::Encoded, ..config() };
        let groups = trainer.collect(&mut ServerRollout::new(client(&[&server]), config, &[])).unwrap();
        let response = &groups[0].responses[0];
        assert_eq!((response.token_ids.as_slice(), response.is_truncated), (expected, is_cut));
        assert!(response.sampler_log_probs.is_none());
        assert!(server.chats()[0].get("return_token_ids").is_none());
    }
}

/// Finishes only when the server has been asked for more than the samples that are judged: for those of the next step.
struct Waiting<'a> {
    server: &'a Server,
    judged: std::sync::Mutex<usize>,
    is_ahead: bool,
}

impl Judge for Waiting<'_> {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        let mut judged = self.judged.lock().unwrap();
        *judged += samples.len();
        let is_last = *judged == 3 * 6;
        let sampled = || self.server.chats().iter().map(crate::support::samples).sum::<usize>();
        let until = Instant::now() + Duration::from_secs(if self.is_ahead && !is_last { 30 } else { 0 });
        while sampled() <= *judged && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let has_overlap = sampled() > *judged;
        assert_eq!(has_overlap, self.is_ahead && !is_last, "{} sampled, {judged} judged", sampled());
        Ok(vec![Verdict::Correct; samples.len()])
    }
}

/// The judge of a step waits for the samples of the next one: only where both are under way at once does it end.
#[test]
fn samples_may_be_drawn_while_the_step_before_is_computed() {
    for (time, staleness) in
        [(SampleTime::BeforeStep, [0.0, 0.0, 0.0]), (SampleTime::DuringStepBefore, [0.0, 1.0, 1.0])]
    {
        let server = engine();
        let is_ahead = time == SampleTime::DuringStepBefore;
        let judge = Waiting { server: &server, judged: std::sync::Mutex::new(0), is_ahead };
        let trainer = trainer_with(student(&Device::flex().autodiff()), None, judge);
        let pushed = std::sync::Mutex::new(Vec::new());
        let follow = |rollout: &mut ServerRollout, trainer: &RilTrainer<Qwen2_5Vl, Waiting<'_>>| {
            pushed.lock().unwrap().push((trainer.next_step(), server.chats().len()));
            rollout.set_policy_step(trainer.next_step() as u64);
            Ok(())
        };
        let rollout = ServerRollout::new(client(&[&server]), config(), &[]);
        let mut stage = ServedStage::new(trainer, rollout, follow, time);
        let steps: Vec<Option<f64>> = (0..3).map(|_| stage.step().unwrap().get("sampler/staleness")).collect();
        assert_eq!(steps, staleness.map(Some), "{time:?}");
        // No step is sampled twice, and none beyond the last.
        assert_eq!(server.chats().len(), 6, "{time:?}");
        // The weights of a step are there before its samples, or before those of the next one.
        let expected = if is_ahead { [(0, 0), (1, 4), (2, 6)] } else { [(0, 0), (1, 2), (2, 4)] };
        assert_eq!(*pushed.lock().unwrap(), expected, "{time:?}");
    }
}

#[test]
fn a_sampler_that_is_away_fails_the_step_before_anything_has_changed() {
    let server = Server::new(|_, _| ResponseTemplate::new(500).set_body_string("engine died"));
    let trainer = trainer(student(&Device::flex().autodiff()), None);
    let rollout = ServerRollout::new(client(&[&server]), config(), &[]);
    let mut stage = ServedStage::new(trainer, rollout, |_, _| Ok(()), SampleTime::DuringStepBefore);
    let told = ril::explain(&stage.step().unwrap_err());
    assert!(told.contains("engine died"), "{told}");
    assert_eq!(stage.next_step(), 0);
}
