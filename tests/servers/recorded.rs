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
use ril::models::{CausalLm, LoraConfig, Qwen2_5Vl};
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
    let student = student.with_lora(&lora, 3).unwrap();
    let picture = Arc::new(open_image(&fixture("waves.png")).unwrap());
    let questions = [("seen", vec![picture]), ("plain", vec![])].map(|(id, pictures)| {
        Question::encode(&student, id.into(), pictures, "What is it?".into(), "a cat".into()).unwrap()
    });
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
        adapter_folder: Some(AdapterFolder { here: here.to_path_buf(), at_server: ADAPTERS.into() }),
        adapter_prefix: "student".into(),
    };
    let push = |rollout: &mut ServerRollout, trainer: &RilTrainer<Qwen2_5Vl, HasE>| {
        let save = |folder: &Path| Ok::<_, RilError>(trainer.policy().save_adapter(folder, WeightType::F32)?);
        rollout.push_adapter(trainer.next_step() as u64, save)
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
