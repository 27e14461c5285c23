//! Completions drawn by `generate`: what they say of themselves holds, and what cannot be drawn is an error.

mod common;

use burn::module::Param;
use burn::tensor::Device;
use common::{Fixture, log_prob, logits};
use ril_models::generate::{Completion, FinishReason, Sampler, SamplingParams, generate};
use ril_models::{CausalLm, ChatModel, ModelError, ModelInput, Padding, Qwen2_5Vl, TokenBatch};

/// A cached forward against a whole one.
const TOLERANCE: f32 = 5e-5;

fn sampled(seed: u64) -> SamplingParams {
    SamplingParams { max_new_tokens: 10, temperature: 1.3, num_samples: 3, seed, ..Default::default() }
}

fn text(rows: &[Vec<u32>]) -> ModelInput {
    ModelInput::text(TokenBatch::padded(rows, 0, Padding::Left))
}

fn refusal(model: &Qwen2_5Vl, input: &ModelInput, params: &SamplingParams) -> ModelError {
    generate(model, input, params).expect_err("no completions")
}

#[test]
fn log_probs_of_samples_are_those_of_a_forward_pass() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let completions = generate(&model, &fixture.batch_prompts(), &sampled(5)).unwrap();
        assert_eq!(completions.len(), 3 * fixture.golden.batch.cases.len());
        for (of_prompt, name) in completions.chunks(3).zip(&fixture.golden.batch.cases) {
            let case = &fixture.golden.cases[name];
            for completion in of_prompt {
                let ids = [&case.prompt_ids[..], &completion.token_ids].concat();
                let tokens = TokenBatch::padded(&[ids], 0, Padding::Right);
                let all = logits(&model, &ModelInput { tokens, ..fixture.input(case) });
                for (i, &id) in completion.token_ids.iter().enumerate() {
                    let want = log_prob(&all[case.prompt_ids.len() - 1 + i], id);
                    let got = completion.log_probs[i];
                    assert!((got - want).abs() < TOLERANCE, "{} {name} token {i}: {got} {want}", fixture.name);
                }
                check_ends(&model, completion);
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Processed {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    repetition_penalty: f32,
    forbidden: Vec<u32>,
    seen: Vec<u32>,
    logits: Vec<f32>,
    /// `None` where the reference leaves no probability.
    log_probs: Vec<Option<f64>>,
}

#[test]
fn processed_distributions_equal_the_reference() {
    let file = std::fs::read(common::fixtures().join("sampling.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let cases: Vec<Processed> = serde_json::from_value(file["cases"].clone()).unwrap();
    assert!(cases.len() >= 20);
    let mut largest = 0.0_f64;
    for (index, case) in cases.into_iter().enumerate() {
        let Processed { temperature, top_k, top_p, repetition_penalty, forbidden, seen, logits, log_probs } = case;
        let params = SamplingParams { temperature, top_k, top_p, repetition_penalty, ..Default::default() };
        let mut kept = Sampler::new(&params, seen, &forbidden, 0).distribution(&logits);
        kept.sort_by_key(|(id, _)| *id);
        let want: Vec<(u32, f64)> = (0..).zip(log_probs).filter_map(|(id, l)| Some((id, l?))).collect();
        let ids = |kept: &[(u32, f64)]| kept.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&kept), ids(&want), "case {index}");
        for ((id, got), (_, want)) in kept.iter().zip(&want) {
            largest = largest.max((got.ln() - want).abs());
            assert!((got.ln() - want).abs() < 1e-5, "case {index}, token {id}: {} {want}", got.ln());
        }
    }
    println!("largest difference of a processed log-prob: {largest:e}");
}

/// Lengths, the reason for the end, and the ids that may not occur.
fn check_ends(model: &Qwen2_5Vl, completion: &Completion) {
    let Completion { token_ids, log_probs, sampler_log_probs, finish_reason } = completion;
    assert_eq!((log_probs.len(), sampler_log_probs.len()), (token_ids.len(), token_ids.len()));
    assert!(sampler_log_probs.iter().all(|l| l.is_finite() && *l <= 0.0));
    assert!(token_ids.iter().all(|id| !model.forbidden_ids().contains(id)));
    let (last, before) = token_ids.split_last().unwrap();
    assert!(before.iter().all(|id| !model.stop_ids().contains(id)));
    match finish_reason {
        FinishReason::Stop => assert!(model.stop_ids().contains(last)),
        FinishReason::Length => assert!(token_ids.len() == 10 && !model.stop_ids().contains(last)),
    }
}

#[test]
fn a_seed_repeats_its_samples_and_rows_differ() {
    let fixture = Fixture::open("nested");
    let model = fixture.model(&Device::flex());
    let prompts = fixture.batch_prompts();
    let (once, again) = (generate(&model, &prompts, &sampled(1)), generate(&model, &prompts, &sampled(1)));
    let (once, other) = (once.unwrap(), generate(&model, &prompts, &sampled(2)).unwrap());
    assert_eq!(once, again.unwrap());
    assert_ne!(once, other);
    assert_ne!(once[0].token_ids, once[1].token_ids);
}

#[test]
fn hot_samples_end_both_ways_and_never_hold_a_forbidden_id() {
    let model = Fixture::open("flat").model(&Device::flex());
    let params = SamplingParams { temperature: 50.0, num_samples: 200, ..sampled(3) };
    let completions = generate(&model, &text(&[vec![1, 2, 3]]), &params).unwrap();
    completions.iter().for_each(|completion| check_ends(&model, completion));
    for reason in [FinishReason::Stop, FinishReason::Length] {
        assert!(completions.iter().any(|completion| completion.finish_reason == reason), "{reason:?}");
    }
}

#[test]
fn logits_that_are_no_numbers_name_row_and_step() {
    let mut model = Fixture::open("nested").model(&Device::flex());
    let gain = model.model.norm.weight.val();
    model.model.norm.weight = Param::from_tensor(gain * f32::NAN);
    for params in [SamplingParams::greedy(4), sampled(0)] {
        let error = refusal(&model, &text(&[vec![1, 2, 3]]), &params);
        assert!(matches!(error, ModelError::Logits { row: 0.., step: 0, .. }), "{error}");
        assert!(error.to_string().contains("NaN"), "{error}");
    }
}

#[test]
fn no_prompts_give_no_completions() {
    let model = Fixture::open("flat").model(&Device::flex());
    assert_eq!(generate(&model, &text(&[]), &sampled(0)).unwrap(), []);
}

#[test]
fn inputs_without_tokens_are_an_error() {
    let model = Fixture::open("flat").model(&Device::flex());
    for rows in [vec![], vec![vec![]], vec![vec![], vec![]]] {
        let error = model.hidden_states(&text(&rows), None).map(|t| t.dims()).unwrap_err();
        assert!(matches!(error, ModelError::Input { what: "tokens", .. }), "{error}");
    }
    assert!(generate(&model, &text(&[vec![], vec![]]), &sampled(0)).is_err());
}

#[test]
fn a_cache_is_continued_by_as_many_rows() {
    let model = Fixture::open("flat").model(&Device::flex());
    let mut cache = model.new_cache(2, 8);
    model.hidden_states(&text(&[vec![1, 2], vec![3, 4]]), Some(&mut cache)).unwrap();
    for rows in [vec![vec![5]], vec![vec![5]; 3]] {
        let error = model.hidden_states(&text(&rows), Some(&mut cache)).map(|t| t.dims()).unwrap_err();
        assert!(matches!(error, ModelError::Input { .. }), "{error}");
    }
}

#[test]
fn an_image_that_no_placement_names_is_an_error() {
    let fixture = Fixture::open("flat");
    let model = fixture.model(&Device::flex());
    let input = fixture.input(&fixture.golden.cases["two_images"]);
    for placements in [vec![0, 0], vec![1, 1], vec![0]] {
        let error = model.hidden_states(&ModelInput { placements, ..input.clone() }, None).map(|t| t.dims());
        assert!(matches!(error, Err(ModelError::Input { what: "images", .. })), "{error:?}");
    }
    let words = fixture.input(&fixture.golden.cases["text"]);
    let error = model.hidden_states(&ModelInput { images: input.images, ..words }, None).map(|t| t.dims());
    assert!(matches!(error, Err(ModelError::Input { what: "images", .. })), "{error:?}");
}

/// The fixture's `max_position_embeddings` is 4096.
#[test]
fn more_tokens_than_positions_are_an_error() {
    let model = Fixture::open("flat").model(&Device::flex());
    for max_new_tokens in [usize::MAX, 1 << 40, 4094] {
        let params = SamplingParams { max_new_tokens, ..SamplingParams::greedy(1) };
        let error = refusal(&model, &text(&[vec![1, 2, 3]]), &params);
        assert!(matches!(error, ModelError::Input { what: "max_new_tokens", .. }), "{error}");
        assert!(error.to_string().contains("4093"), "{error}");
    }
}
