//! What must hold of the model whatever its weights: causality, independence of padding and batching, caching, and
//! placeholders that match their images.

mod common;

use burn::tensor::Device;
use common::{Fixture, logits, max_difference, rows_of};
use proptest::prelude::*;
use ril_models::generate::{SamplingParams, generate};
use ril_models::{CausalLm, ImageBatch, ModelError, ModelInput, Padding, Qwen2_5Vl, TokenBatch, VisionLanguageModel};

/// Sums over another number of keys may round differently.
const TOLERANCE: f32 = 5e-5;

fn text(rows: &[Vec<u32>], padding: Padding) -> ModelInput {
    ModelInput::text(TokenBatch::padded(rows, 0, padding))
}

/// The input with one token replaced.
fn with_token(input: &ModelInput, at: usize, id: u32) -> ModelInput {
    let seq = input.tokens.seq();
    let mut ids = input.tokens.ids().to_vec();
    ids[at] = id;
    let real = |row: usize| -> Vec<u32> {
        let mask = input.tokens.row_mask(row);
        (0..seq).filter(|&i| mask[i]).map(|i| ids[row * seq + i]).collect()
    };
    let prefix = |row: usize| input.tokens.row_mask(row).iter().take_while(|&&m| !m).count();
    // Rows are rebuilt as left and right part, so that the padding stays where it was.
    let rows = 0..input.tokens.rows();
    let split = rows.clone().map(|row| seq.min(prefix(row) + real(row).len())).min().unwrap_or(0);
    let left: Vec<Vec<u32>> = rows.clone().map(|row| real(row)[..split - prefix(row)].to_vec()).collect();
    let right: Vec<Vec<u32>> = rows.map(|row| real(row)[split - prefix(row)..].to_vec()).collect();
    let left = TokenBatch::padded(&left, input.tokens.ids()[0], Padding::Left);
    let tokens = left.join(&TokenBatch::padded(&right, 0, Padding::Right)).unwrap();
    assert_eq!(tokens.mask(), input.tokens.mask());
    ModelInput { tokens, images: input.images.clone(), placements: input.placements.clone() }
}

/// Every token that is not part of an image is changed in turn.
fn assert_causal(model: &Qwen2_5Vl, input: &ModelInput, name: &str) {
    let before = logits(model, input);
    let seq = input.tokens.seq();
    let vocab = model.config().text.vocab_size as u32;
    let image = model.config().image_token_id;
    for at in (0..before.len()).filter(|&i| input.tokens.mask()[i] && input.tokens.ids()[i] != image) {
        let other = (input.tokens.ids()[at] + 7) % vocab;
        if other == image {
            continue;
        }
        let after = logits(model, &with_token(input, at, other));
        let row = at / seq;
        for i in (0..before.len()).filter(|&i| input.tokens.mask()[i]) {
            let moved = max_difference(&before[i], &after[i]);
            let may_move = i / seq == row && i >= at;
            assert!(may_move || moved < 1e-6, "{name}: token {at} moved the logits of {i} by {moved}");
            assert!(i != at || moved > 1e-3, "{name}: token {at} does not matter to its own logits");
        }
    }
}

#[test]
fn a_token_changes_no_logits_before_it() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let case = fixture.golden.cases.values().find(|case| case.images.len() == 1).unwrap();
        assert_causal(&model, &fixture.input(case), fixture.name);
    }
}

#[test]
fn a_token_changes_no_logits_before_it_or_in_other_rows_of_a_padded_batch() {
    let fixture = Fixture::open("flat");
    assert_causal(&fixture.model(&Device::flex()), &fixture.batch(), fixture.name);
}

#[test]
fn a_padded_batch_equals_its_rows_alone() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let (input, batch) = (fixture.batch(), &fixture.golden.batch);
        let (together, seq) = (logits(&model, &input), input.tokens.seq());
        for (row, name) in batch.cases.iter().enumerate() {
            let case = &fixture.golden.cases[name];
            let start = row * seq + batch.prompt_len - case.prompt_ids.len();
            for (i, alone) in logits(&model, &fixture.input(case)).iter().enumerate() {
                let difference = max_difference(alone, &together[start + i]);
                assert!(difference < TOLERANCE, "{} {name} token {i}: {difference}", fixture.name);
            }
        }
    }
}

#[test]
fn rows_that_share_an_image_equal_rows_with_an_image_each() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let case = fixture.golden.cases.values().find(|case| case.images.len() == 2 || case.images.len() == 3).unwrap();
        let alone = fixture.input(case);
        let count = case.images.len();
        let tokens = TokenBatch::padded(&[case.ids(), case.ids()], fixture.golden.pad_id, Padding::Right);
        let shared = ModelInput { tokens, images: alone.images.clone(), placements: alone.placements.repeat(2) };
        let twice = [case.images.clone(), case.images.clone()].concat();
        let own = ModelInput { images: fixture.images(&twice), placements: (0..2 * count).collect(), ..shared.clone() };
        let (alone, shared, own) = (logits(&model, &alone), logits(&model, &shared), logits(&model, &own));
        for (i, want) in alone.iter().chain(&alone).enumerate() {
            assert!(max_difference(want, &shared[i]) < TOLERANCE, "{} token {i}", fixture.name);
            assert!(max_difference(want, &own[i]) < TOLERANCE, "{} token {i}", fixture.name);
        }
    }
}

/// Logits of `input` read in pieces of `lengths` tokens through one cache, padded slots as they come.
fn in_pieces(model: &Qwen2_5Vl, input: &ModelInput, lengths: &[usize]) -> Vec<Vec<f32>> {
    let (rows, seq) = (input.tokens.rows(), input.tokens.seq());
    let mut cache = model.new_cache(rows, seq);
    let mut all = vec![Vec::new(); rows * seq];
    let mut start = 0;
    for (piece, &length) in lengths.iter().enumerate() {
        // Prompts are padded on the left, what follows on the right.
        let padding = if piece == 0 { Padding::Left } else { Padding::Right };
        let ids = |row: usize| -> Vec<u32> {
            let (ids, mask) = (input.tokens.row(row), input.tokens.row_mask(row));
            (start..start + length).filter(|&i| mask[i]).map(|i| ids[i]).collect()
        };
        let part: Vec<Vec<u32>> = (0..rows).map(ids).collect();
        let mut tokens = TokenBatch::padded(&part, 0, padding);
        if tokens.seq() < length {
            // Every row ended: nothing but padding is left.
            let fill = TokenBatch::padded(&vec![vec![0; length - tokens.seq()]; rows], 0, Padding::Right);
            tokens = tokens.join(&fill).unwrap();
        }
        let new = match piece {
            0 => ModelInput { tokens, images: input.images.clone(), placements: input.placements.clone() },
            _ => ModelInput::text(tokens),
        };
        let hidden = model.hidden_states(&new, Some(&mut cache)).unwrap();
        for (i, row) in rows_of(model.lm_head(hidden)).into_iter().enumerate() {
            all[i / length * seq + start + i % length] = row;
        }
        start += length;
    }
    assert_eq!(cache.len(), seq);
    all
}

#[test]
fn cached_decoding_equals_the_full_forward() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        for (name, case) in &fixture.golden.cases {
            let input = fixture.input(case);
            let full = logits(&model, &input);
            let (prompt, response) = (case.prompt_ids.len(), case.response_ids.len());
            let by_token = [vec![prompt], vec![1; response]].concat();
            for lengths in [by_token, vec![prompt, 2, response - 2]] {
                for (i, cached) in in_pieces(&model, &input, &lengths).iter().enumerate() {
                    let difference = max_difference(cached, &full[i]);
                    assert!(difference < TOLERANCE, "{} {name} token {i}: {difference}", fixture.name);
                }
            }
        }
    }
}

#[test]
fn cached_decoding_of_a_padded_batch_equals_the_full_forward() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let input = fixture.batch();
        let (full, seq, prompt) = (logits(&model, &input), input.tokens.seq(), fixture.golden.batch.prompt_len);
        // As far as every row goes, token by token.
        let shortest = fixture.golden.batch.cases.iter().map(|name| fixture.golden.cases[name].response_ids.len());
        let shortest = shortest.min().unwrap();
        let lengths = [vec![prompt], vec![1; shortest], vec![seq - prompt - shortest]].concat();
        let cached = in_pieces(&model, &input, &lengths);
        for i in (0..full.len()).filter(|&i| input.tokens.mask()[i]) {
            let difference = max_difference(&cached[i], &full[i]);
            assert!(difference < TOLERANCE, "{} token {i}: {difference}", fixture.name);
        }
    }
}

#[test]
fn rows_taken_from_a_cache_go_on_as_they_would_alone() {
    let fixture = Fixture::open("nested");
    let model = fixture.model(&Device::flex());
    let (prompts, names) = (fixture.batch_prompts(), &fixture.golden.batch.cases);
    let mut cache = model.new_cache(prompts.tokens.rows(), prompts.tokens.seq() + 4);
    model.hidden_states(&prompts, Some(&mut cache)).unwrap();
    let taken = [2, 0, 2];
    let mut cache = cache.select_rows(&taken);
    let next = [vec![5, 9], vec![6, 10], vec![7, 11]];
    let hidden = model.hidden_states(&text(&next, Padding::Right), Some(&mut cache)).unwrap();
    let got = rows_of(model.lm_head(hidden));
    for (i, &row) in taken.iter().enumerate() {
        let case = &fixture.golden.cases[&names[row]];
        let ids = [&case.prompt_ids[..], &next[i]].concat();
        let tokens = TokenBatch::padded(&[ids], 0, Padding::Right);
        let want = logits(&model, &ModelInput { tokens, ..fixture.input(case) });
        for (token, want) in want[case.prompt_ids.len()..].iter().enumerate() {
            assert!(max_difference(&got[2 * i + token], want) < TOLERANCE, "row {i} token {token}");
        }
    }
}

#[test]
fn a_full_cache_is_an_error() {
    let model = Fixture::open("flat").model(&Device::flex());
    let mut cache = model.new_cache(1, 3);
    let error = model.hidden_states(&text(&[vec![1, 2, 3, 4]], Padding::Right), Some(&mut cache)).unwrap_err();
    assert!(matches!(error, ModelError::Input { .. }), "{error}");
}

#[test]
fn greedy_samples_of_a_batch_equal_those_of_its_prompts_alone() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let params = SamplingParams { num_samples: 2, ..SamplingParams::greedy(12) };
        let completions = generate(&model, &fixture.batch_prompts(), &params).unwrap();
        for (pair, name) in completions.chunks(2).zip(&fixture.golden.batch.cases) {
            for completion in pair {
                assert_eq!(completion.token_ids, fixture.golden.cases[name].greedy_ids, "{} {name}", fixture.name);
            }
        }
    }
}

#[test]
fn placeholders_that_do_not_match_the_images_are_an_error() {
    for fixture in Fixture::all() {
        let model = fixture.model(&Device::flex());
        let image = model.config().image_token_id;
        for (name, case) in fixture.golden.cases.iter().filter(|(_, case)| !case.images.is_empty()) {
            let input = fixture.input(case);
            let first = case.prompt_ids.iter().position(|&id| id == image).unwrap();
            let count = case.ids().iter().filter(|&&id| id == image).count();
            let with = |ids: Vec<u32>| {
                let tokens = TokenBatch::padded(&[ids], 0, Padding::Right);
                ModelInput { tokens, ..input.clone() }
            };
            let (mut missing, mut extra, mut late) = (case.ids(), case.ids(), case.ids());
            missing.remove(first);
            extra.insert(first, image);
            late.push(image);
            for (what, broken, placeholders) in [
                ("one missing", with(missing), count - 1),
                ("one too many", with(extra), count + 1),
                ("one after the end", with(late), count + 1),
                ("no image", ModelInput::text(input.tokens.clone()), count),
            ] {
                match model.hidden_states(&broken, None) {
                    Err(ModelError::ImageTokens { row: 0, placeholders: got, .. }) => assert_eq!(got, placeholders),
                    other => panic!("{} {name}, {what}: {:?}", fixture.name, other.map(|t| t.dims())),
                }
            }
        }
    }
}

#[test]
fn images_that_no_placeholder_shows_are_an_error() {
    let fixture = Fixture::open("flat");
    let model = fixture.model(&Device::flex());
    let (case, words) = (&fixture.golden.cases["two_images"], &fixture.golden.cases["text"]);
    let input = fixture.input(case);
    let broken = [
        ModelInput { tokens: fixture.input(words).tokens, ..input.clone() },
        ModelInput { placements: vec![0, 1, 1], ..input.clone() },
        ModelInput { placements: vec![0, 2], ..input.clone() },
        ModelInput { placements: vec![0], ..input.clone() },
        ModelInput { placements: vec![1, 1], ..input },
    ];
    for (i, broken) in broken.iter().enumerate() {
        let error = model.hidden_states(broken, None).map(|t| t.dims()).unwrap_err();
        assert!(matches!(error, ModelError::ImageTokens { .. } | ModelError::Input { .. }), "{i}: {error}");
    }
}

#[test]
fn patches_that_do_not_fit_their_grid_are_an_error() {
    let fixture = Fixture::open("flat");
    let model = fixture.model(&Device::flex());
    let input = fixture.input(&fixture.golden.cases["one_image"]);
    let images = input.images.clone().unwrap();
    let mut short = images.clone();
    short.pixel_patches.truncate(images.patch_dim);
    let mut wide = images.clone();
    wide.patch_dim *= 2;
    for images in [short, wide] {
        let broken = ModelInput { images: Some(images), ..input.clone() };
        let error = model.hidden_states(&broken, None).map(|t| t.dims()).unwrap_err();
        assert!(matches!(error, ModelError::Input { .. }), "{error}");
        let mut cache = model.new_cache(1, input.tokens.seq());
        model.hidden_states(&broken, Some(&mut cache)).map(|t| t.dims()).unwrap_err();
        assert!(cache.is_empty(), "a refused input stands in the cache");
    }
    let none = ImageBatch { pixel_patches: Vec::new(), grid_thw: Vec::new(), ..images };
    assert!(matches!(model.image_embeddings(&none), Err(ModelError::Input { .. })));
}

#[test]
fn an_id_outside_the_vocabulary_is_an_error() {
    let model = Fixture::open("flat").model(&Device::flex());
    let vocab = model.config().text.vocab_size as u32;
    let error = model.hidden_states(&text(&[vec![1, vocab]], Padding::Right), None).map(|t| t.dims()).unwrap_err();
    assert!(matches!(error, ModelError::Input { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Text of any length, padded by any amount on either side, among rows of any content.
    #[test]
    fn padding_and_neighbours_change_no_row(
        rows in prop::collection::vec(prop::collection::vec(0u32..288, 1..12), 2..4),
        is_left in any::<bool>(),
    ) {
        let model = Fixture::open("sharded").model(&Device::flex());
        let padding = if is_left { Padding::Left } else { Padding::Right };
        let input = text(&rows, padding);
        let (together, seq) = (logits(&model, &input), input.tokens.seq());
        for (row, ids) in rows.iter().enumerate() {
            let start = row * seq + if is_left { seq - ids.len() } else { 0 };
            for (i, alone) in logits(&model, &text(std::slice::from_ref(ids), padding)).iter().enumerate() {
                prop_assert!(max_difference(alone, &together[start + i]) < TOLERANCE);
            }
        }
    }

    /// Any way to cut a text into pieces gives the same logits through the cache.
    #[test]
    fn any_split_of_a_text_gives_the_same_logits(
        ids in prop::collection::vec(0u32..288, 4..16),
        cuts in prop::collection::btree_set(1usize..15, 1..4),
    ) {
        let model = Fixture::open("flat").model(&Device::flex());
        let input = text(std::slice::from_ref(&ids), Padding::Right);
        let ends: Vec<usize> = cuts.into_iter().filter(|&c| c < ids.len()).chain([ids.len()]).collect();
        let lengths: Vec<usize> = ends.iter().scan(0, |last, &end| Some(end - std::mem::replace(last, end))).collect();
        let full = logits(&model, &input);
        for (i, cached) in in_pieces(&model, &input, &lengths).iter().enumerate() {
            prop_assert!(max_difference(cached, &full[i]) < TOLERANCE);
        }
    }
}
