//! What real servers answered, replayed: requests must still be the same to the last field.
//!
//! The files under `fixtures/` were written by `scripts/reference/record_exchanges.py` between these very calls and the server
//! that each line names. To record anew, start server and recorder as `docs/servers.md` shows, and run
//!
//!     RIL_RECORD_VLLM=http://127.0.0.1:8195 cargo test --workspace --test servers -- --ignored record_vllm

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use ril::client::{ChatClient, ChatRequest, ClientConfig};
use ril::data::{read_lines, read_records};
use ril::models::checkpoint::WeightType;
use ril::models::image::open_image;
use ril::models::{CausalLm, LoraConfig, ModelInput, Padding, Qwen2_5Vl, TokenBatch};
use ril::reward::{Agreement, HttpJudge, Judge, LabelledAnswer, PromptTemplate, RewardError, Sample, Verdict};
use ril::server::{AdapterFolder, SampledTokens, ServerRollout, ServerRolloutConfig, TeachPlan, teach};
use ril::{
    Question, RilConfig, RilError, RilTrainer, SampleTime, ServedStage, Stage, StageMetrics, TeacherCache, TrainingData,
};
use serde::Deserialize;
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{Server, client};

/// Where the recorded vLLM read adapters.
const ADAPTERS: &str = "/tmp/ril-adapters";
/// Where the recorded SGLang read weights.
const WEIGHTS: &str = "/tmp/ril-weights";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn example_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data").join(name)
}

#[derive(Deserialize)]
struct Exchange {
    path: String,
    request: Value,
    status: u16,
    response: String,
}

/// A server that knows the answers to the recorded requests, and to no others.
fn replay(name: &str) -> Server {
    let exchanges: Vec<Exchange> = read_lines(&fixture(name)).unwrap().into_iter().map(|(_, line)| line).collect();
    Server::new(move |path, body| {
        let known = exchanges.iter().find(|exchange| exchange.path == path && exchange.request == *body);
        match known {
            Some(exchange) => ResponseTemplate::new(exchange.status).set_body_string(exchange.response.clone()),
            None => ResponseTemplate::new(404).set_body_string(format!("not recorded: {path} {body}")),
        }
    })
}

#[test]
fn llama_cpp_teaches() {
    let server = replay("llama_cpp_teach.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("teachers.jsonl");
    let request = ChatRequest {
        max_tokens: Some(48),
        temperature: Some(0.7),
        top_p: Some(0.95),
        ..ChatRequest::new("smollm2-135m-instruct", vec![])
    };
    let plan =
        TeachPlan { teacher: "smollm2".into(), request, responses: 2, samples_per_request: 2, tries: 1, seed: 0 };
    let records = &read_records(&example_data("questions.jsonl")).unwrap()[..12];
    let report = teach(&client(&[&server]), &plan, records, &out, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.added, report.empty), (24, 0));
    let lines: Vec<Value> = read_lines(&out).unwrap().into_iter().map(|(_, line)| line).collect();
    assert!(lines.iter().all(|line| line["model"] == "smollm2-135m-instruct"));
    let cut = lines.iter().filter(|line| line["finish_reason"] == "length").count();
    assert_eq!(cut, report.cut);
    assert!(lines.iter().filter_map(|line| line["usage"]["completion_tokens"].as_u64()).all(|tokens| tokens > 0));
    let paris = lines.iter().filter(|line| line["question"] == "q01");
    assert_eq!(paris.count(), 2);
}

/// The labelled answers of the examples, judged with further fields in each request.
fn judged(server: &Server, extra: Value) -> (Vec<Verdict>, Agreement) {
    let labelled: Vec<LabelledAnswer> =
        read_lines(&example_data("labelled.jsonl")).unwrap().into_iter().map(|(_, line)| line).collect();
    let samples: Vec<Sample<'_>> = labelled.iter().map(LabelledAnswer::sample).collect();
    let mut request = ChatRequest {
        temperature: Some(0.0),
        max_tokens: Some(96),
        ..ChatRequest::new("smollm2-135m-instruct", vec![])
    };
    request.extra = extra.as_object().unwrap().clone();
    let judge = HttpJudge::new(client(&[server]), request, PromptTemplate::judge_short());
    let verdicts = judge.judge(&samples).unwrap();
    let labels: Vec<bool> = labelled.iter().map(|l| l.is_right).collect();
    let agreement = Agreement::of(&labels, &verdicts).unwrap();
    (verdicts, agreement)
}

/// SmolLM2 at 135 M weights does not write the tags that it is asked for: no answer gets a score, and none a 0.
#[test]
fn llama_cpp_answers_prose() {
    let server = replay("llama_cpp_judge.jsonl");
    let (verdicts, agreement) = judged(&server, json!({}));
    assert_eq!((agreement.unparsed, agreement.judged()), (20, 0));
    assert!(verdicts.iter().all(|verdict| verdict.score().is_none()));
    assert_eq!(server.chats().len(), 40, "each is asked once more");
}

/// Held to the form by a grammar, it gives a verdict each time.
#[test]
fn llama_cpp_judges_when_it_is_held_to_the_form() {
    let server = replay("llama_cpp_judge.jsonl");
    let grammar = "root ::= \"<answer>\" [01] \"</answer>\"";
    let (_, agreement) = judged(&server, json!({"grammar": grammar}));
    assert_eq!((agreement.unparsed, agreement.judged()), (0, 20));
    assert_eq!(server.chats().len(), 20);
}

/// Calls an answer right that holds the letter e: random weights then have something to learn.
struct HasE;

impl Judge for HasE {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        Ok(samples.iter().map(|sample| Verdict::of(sample.response.contains('e'))).collect())
    }
}

/// Three steps of Dr.GRPO with adapters on samples of the server, which gets the adapters of each step.
fn served_loop(client: ChatClient, here: &Path) -> (Vec<StageMetrics>, Qwen2_5Vl) {
    let lora = LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() };
    let student = Qwen2_5Vl::from_folder(&fixture("student"), &Device::flex().autodiff()).unwrap();
    let folder = AdapterFolder { here: here.to_path_buf(), at_server: ADAPTERS.into() };
    steps(student.with_lora(&lora, 3).unwrap(), client, Some(folder), |rollout, trainer| {
        let save = |folder: &Path| Ok::<_, RilError>(trainer.policy().save_adapter(folder, WeightType::F32)?);
        rollout.push_adapter(trainer.next_step() as u64, save)
    })
}

/// The same with all weights, which the server reads from a folder.
fn served_whole(client: ChatClient, here: &Path) -> (Vec<StageMetrics>, Qwen2_5Vl) {
    let student = Qwen2_5Vl::from_folder(&fixture("student"), &Device::flex().autodiff()).unwrap();
    steps(student, client, None, |rollout, trainer| {
        let name = format!("step-{}", trainer.next_step());
        trainer.policy().save(&here.join(&name), WeightType::F32)?;
        rollout.push_weights(trainer.next_step() as u64, &Path::new(WEIGHTS).join(name))
    })
}

/// One with a picture, one without.
fn questions(student: &Qwen2_5Vl) -> [Question; 2] {
    let picture = Arc::new(open_image(&fixture("waves.png")).unwrap());
    [("seen", vec![picture]), ("plain", vec![])].map(|(id, pictures)| {
        Question::encode(student, id.into(), pictures, "What is it?".into(), "a cat".into()).unwrap()
    })
}

fn steps(
    student: Qwen2_5Vl,
    client: ChatClient,
    adapter_folder: Option<AdapterFolder>,
    push: impl FnMut(&mut ServerRollout, &RilTrainer<Qwen2_5Vl, HasE>) -> Result<(), RilError>,
) -> (Vec<StageMetrics>, Qwen2_5Vl) {
    let questions = questions(&student);
    let mut config = RilConfig::dr_grpo(12, 3);
    (config.groups.questions_per_step, config.groups.students_per_question) = (2, 4);
    (config.sampling.top_p, config.sampling.top_k, config.sampling.repetition_penalty) = (1.0, 0, 1.0);
    (config.policy.learning_rate, config.policy.final_learning_rate) = (0.02, 0.02);
    let forbidden = student.forbidden_ids().to_vec();
    let data = TrainingData { questions: questions.to_vec(), teachers: TeacherCache::default(), judge: HasE };
    let trainer = RilTrainer::new(student, None, data, config).unwrap();
    let rollout = ServerRolloutConfig {
        model: "student".into(),
        tokens: SampledTokens::Returned,
        samples_per_request: None,
        adapter_folder,
        adapter_prefix: "student".into(),
    };
    let rollout = ServerRollout::new(client, rollout, &forbidden);
    let mut stage = ServedStage::new(trainer, rollout, push, SampleTime::BeforeStep);
    let metrics = (0..3).map(|_| stage.step().unwrap()).collect();
    (metrics, stage.trainer().policy())
}

/// vLLM and this library give the same tokens the same log-probabilities, with a picture, for the base (a fresh adapter adds
/// nothing) and for the adapters that training made of it and vLLM loaded.
#[test]
fn vllm_samples_from_the_adapters_that_training_makes() {
    let server = replay("vllm.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let (metrics, policy) = served_loop(client(&[&server]), folder.path());
    for (step, metrics) in metrics.iter().enumerate() {
        let gap = metrics.get("sampling/sampling_logp_difference/max").unwrap();
        assert!(gap < 1e-3, "step {step}: {gap}");
        assert_eq!(metrics.get("sampler/staleness"), Some(0.0));
    }
    // The adapters did move: what they add is far above the gap.
    let lora = policy.model.layers[0].self_attn.q_proj.lora.as_ref().unwrap();
    let most: f32 = lora.b.val().abs().max().into_scalar();
    assert!(most > 0.01, "{most}");
    assert_eq!(server.requests("/v1/load_lora_adapter").len(), 3);
}

/// SGLang reads all weights from a folder before each step. Its log-probabilities are those of what it drew from: without the tokens
/// that a bias forbids. With these taken out here as well, it gives the same tokens the same log-probabilities, with a picture too.
#[test]
fn sglang_samples_from_the_weights_that_training_makes() {
    let server = replay("sglang.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let (metrics, _) = served_whole(client(&[&server]), folder.path());
    assert!(metrics.iter().all(|metrics| metrics.get("sampler/staleness") == Some(0.0)));
    let read = |name: &str| Qwen2_5Vl::from_folder(&folder.path().join(name), &Device::flex()).unwrap();
    let mut models = (0..3).map(|step| read(&format!("step-{step}")));
    let (mut model, mut compared, mut largest) = (None, 0, 0.0_f32);
    for (_, exchange) in read_lines::<Exchange>(&fixture("sglang.jsonl")).unwrap() {
        if exchange.path == "/update_weights_from_disk" {
            model = models.next();
            continue;
        }
        let model = model.as_ref().unwrap();
        let [seen, plain] = questions(model);
        let is_seen = exchange.request["messages"][0]["content"].is_array();
        let question = if is_seen { seen } else { plain };
        let response: Value = serde_json::from_str(&exchange.response).unwrap();
        for choice in response["choices"].as_array().unwrap() {
            let ids: Vec<u32> = serde_json::from_value(choice["response_token_ids"].clone()).unwrap();
            let tokens = choice["logprobs"]["content"].as_array().unwrap();
            for (ours, theirs) in allowed_log_probs(model, &question, &ids).iter().zip(tokens) {
                largest = largest.max((ours - theirs["logprob"].as_f64().unwrap() as f32).abs());
                compared += 1;
            }
        }
    }
    assert!(compared > 250, "{compared}");
    assert!(largest < 1e-3, "{largest}");
    println!("largest gap {largest:e} of {compared} tokens");
    // The weights did move.
    let weight = |model: &Qwen2_5Vl| model.model.layers[0].self_attn.q_proj.weight.val();
    let most: f32 = (weight(&read("step-2")) - weight(&read("step-0"))).abs().max().into_scalar();
    assert!(most > 1e-2, "{most}");
}

/// Log-probability of each token of a completion among those that the student may write.
fn allowed_log_probs(model: &Qwen2_5Vl, question: &Question, completion: &[u32]) -> Vec<f32> {
    let prompt = &question.prompt;
    let row = [prompt.token_ids.as_slice(), completion].concat();
    let placements = (0..prompt.images.as_ref().map_or(0, |images| images.grid_thw.len())).collect();
    let tokens = TokenBatch::padded(std::slice::from_ref(&row), 0, Padding::Right);
    let input = ModelInput { tokens, images: prompt.images.clone(), placements };
    let logits = model.lm_head(model.hidden_states(&input, None).unwrap());
    let vocab = logits.dims()[2];
    let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let forbidden = model.forbidden_ids();
    let first = prompt.token_ids.len() - 1;
    let log_prob = |(at, &id): (usize, &u32)| {
        let logits = &logits[(first + at) * vocab..][..vocab];
        let allowed = (0..vocab).filter(|id| !forbidden.contains(&(*id as u32)));
        logits[id as usize] - allowed.map(|id| logits[id].exp()).sum::<f32>().ln()
    };
    completion.iter().enumerate().map(log_prob).collect()
}

/// Makes `sglang.jsonl`, when the recorder writes to it.
#[test]
#[ignore = "needs SGLang"]
fn record_sglang() {
    let url = std::env::var("RIL_RECORD_SGLANG").expect("RIL_RECORD_SGLANG holds the address of the recorder");
    let config = ClientConfig { max_in_flight: 1, ..ClientConfig::new([url]) };
    let (metrics, _) = served_whole(ChatClient::new(config).unwrap(), Path::new(WEIGHTS));
    for metrics in metrics {
        println!("{metrics:?}");
    }
}

/// Makes `vllm.jsonl`, when the recorder writes to it.
#[test]
#[ignore = "needs vLLM"]
fn record_vllm() {
    let url = std::env::var("RIL_RECORD_VLLM").expect("RIL_RECORD_VLLM holds the address of the recorder");
    // One request at a time, so that the file has the order of the steps.
    let config = ClientConfig { max_in_flight: 1, ..ClientConfig::new([url]) };
    let (metrics, policy) = served_loop(ChatClient::new(config).unwrap(), Path::new(ADAPTERS));
    for metrics in metrics {
        println!("{metrics:?}");
    }
    policy.save_adapter(&Path::new(ADAPTERS).join("last"), WeightType::F32).unwrap();
}
