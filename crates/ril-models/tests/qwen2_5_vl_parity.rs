//! Qwen2.5-VL computes what transformers computes, from the prompt's ids to the last log-probability.

mod common;

use burn::tensor::Device;
use common::{Fixture, LOGIT_TOLERANCE, assert_close, log_prob, logits, values};
use ril_models::generate::{SamplingParams, generate};
use ril_models::qwen2_5_vl::position::layout;
use ril_models::{CausalLm, ChatModel, VisionLanguageModel};

/// Far below one 8-bit step (0.015): resizing is Pillow's to the last bit.
const PATCH_TOLERANCE: f32 = 1e-5;

#[test]
fn prompts_have_the_ids_of_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in &fixture.golden.cases {
            let input = model.encode(&case.messages()).unwrap();
            assert_eq!(input.tokens.ids(), case.prompt_ids, "{} {name}", fixture.name);
            assert_eq!(input.placements, (0..case.images.len()).collect::<Vec<_>>());
            assert!(input.tokens.is_dense());
        }
        let mut stops = model.stop_ids().to_vec();
        stops.sort_unstable();
        let mut want = fixture.golden.stop_ids.clone();
        want.sort_unstable();
        assert_eq!(stops, want);
        assert_eq!(model.forbidden_ids(), fixture.golden.forbidden_ids);
    }
}

#[test]
fn responses_are_tokenised_and_decoded_as_the_reference_does() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for case in fixture.golden.cases.values() {
            let (end, words) = case.response_ids.split_last().unwrap();
            assert_eq!(model.parts().tokenizer.encode(&case.response).unwrap(), words);
            assert_eq!(model.parts().tokenizer.token_id("<|im_end|>"), Some(*end));
            assert_eq!(model.decode(&case.response_ids).unwrap(), case.response);
        }
    }
}

#[test]
fn pixel_patches_of_whole_and_resized_pictures_equal_the_reference() {
    let resized = |fixture: Fixture| fixture.golden.images.into_values().map(|image| image.resized).collect::<Vec<_>>();
    let resized: Vec<bool> = Fixture::all().flat_map(resized).collect();
    assert!(resized.contains(&true) && resized.contains(&false));
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in fixture.golden.cases.iter().filter(|(_, case)| !case.images.is_empty()) {
            let images = model.encode(&case.messages()).unwrap().images.unwrap();
            let grids: Vec<_> = case.images.iter().map(|image| fixture.golden.images[image].grid_thw).collect();
            assert_eq!(images.grid_thw, grids, "{} {name}", fixture.name);
            let mut start = 0;
            for image in &case.images {
                let want = fixture.tensor(&format!("image.{image}.pixel_patches"));
                let what = format!("{} {name}: patches of {image}", fixture.name);
                assert_close(&what, &images.pixel_patches[start..start + want.len()], want, PATCH_TOLERANCE);
                start += want.len();
            }
            assert_eq!(start, images.pixel_patches.len());
        }
    }
}

#[test]
fn position_ids_equal_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in &fixture.golden.cases {
            let layout = layout(&fixture.input(case), model.config()).unwrap();
            assert_eq!(layout.positions, case.position_ids, "{} {name}", fixture.name);
            let last = layout.positions.iter().flatten().max().unwrap();
            assert_eq!(layout.next_position, [last + 1], "{} {name}", fixture.name);
        }
    }
}

#[test]
fn position_ids_of_a_padded_batch_equal_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let (input, batch) = (fixture.batch(), &fixture.golden.batch);
        assert_eq!(input.tokens.ids(), batch.ids.concat());
        let mask: Vec<bool> = batch.mask.concat().iter().map(|&m| m == 1).collect();
        assert_eq!(input.tokens.mask(), mask);
        let layout = layout(&input, model.config()).unwrap();
        for (got, want) in layout.positions.iter().zip(&batch.position_ids) {
            assert_eq!(got, &want.concat(), "{}", fixture.name);
        }
    }
}

#[test]
fn image_embeddings_equal_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in &fixture.golden.cases {
            let Some(images) = fixture.images(&case.images) else { continue };
            let embeddings = model.image_embeddings(&images).unwrap();
            let key = format!("case.{name}.image_embeddings");
            assert_eq!(embeddings.dims(), fixture.shape(&key));
            let what = format!("{} {name}: image embeddings", fixture.name);
            assert_close(&what, &values(embeddings), fixture.tensor(&key), LOGIT_TOLERANCE);
        }
    }
}

#[test]
fn logits_and_log_probs_equal_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in &fixture.golden.cases {
            let all = logits(&model, &fixture.input(case));
            let recorded: Vec<f32> = case.logit_positions.iter().flat_map(|&i| all[i].clone()).collect();
            let what = format!("{} {name}: logits", fixture.name);
            assert_close(&what, &recorded, fixture.tensor(&format!("case.{name}.logits")), LOGIT_TOLERANCE);
            let start = case.prompt_ids.len();
            let log_probs: Vec<f32> =
                case.response_ids.iter().enumerate().map(|(i, &id)| log_prob(&all[start + i - 1], id)).collect();
            let what = format!("{} {name}: log-probs", fixture.name);
            assert_close(&what, &log_probs, fixture.tensor(&format!("case.{name}.log_probs")), LOGIT_TOLERANCE);
        }
    }
}

#[test]
fn a_padded_batch_has_the_logits_and_log_probs_of_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let (input, batch) = (fixture.batch(), &fixture.golden.batch);
        let (seq, responses) = (input.tokens.seq(), fixture.batch_responses());
        let all = logits(&model, &input);
        let want = fixture.tensor("batch.log_probs");
        for (row, name) in batch.cases.iter().enumerate() {
            let case = &fixture.golden.cases[name];
            let start = row * seq + batch.prompt_len - case.prompt_ids.len();
            let recorded: Vec<f32> = case.logit_positions.iter().flat_map(|&i| all[start + i].clone()).collect();
            let what = format!("{} row {row}: logits", fixture.name);
            assert_close(&what, &recorded, fixture.tensor(&format!("case.{name}.logits")), LOGIT_TOLERANCE);
            for (i, &id) in case.response_ids.iter().enumerate() {
                let got = log_prob(&all[row * seq + batch.prompt_len + i - 1], id);
                let want = want[row * responses.seq() + i];
                assert!((got - want).abs() < LOGIT_TOLERANCE, "{} row {row} token {i}: {got} {want}", fixture.name);
            }
        }
    }
}

/// From picture files and words to logits, nothing taken from the reference on the way.
#[test]
fn a_conversation_has_the_logits_of_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in &fixture.golden.cases {
            let last = logits(&model, &model.encode(&case.messages()).unwrap()).pop().unwrap();
            let at = case.logit_positions.iter().position(|&i| i == case.prompt_ids.len() - 1).unwrap();
            let golden = fixture.tensor(&format!("case.{name}.logits"));
            let want = &golden[at * last.len()..(at + 1) * last.len()];
            assert_close(&format!("{} {name}: logits from files", fixture.name), &last, want, LOGIT_TOLERANCE);
        }
    }
}

#[test]
fn greedy_completions_equal_the_reference() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in &fixture.golden.cases {
            let prompt = model.encode(&case.messages()).unwrap();
            let params = SamplingParams { max_new_tokens: 12, temperature: 0.0, ..Default::default() };
            let completions = generate(&model, &prompt, &params).unwrap();
            assert_eq!(completions[0].token_ids, case.greedy_ids, "{} {name}", fixture.name);
        }
    }
}
