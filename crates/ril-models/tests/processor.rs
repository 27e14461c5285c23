//! Decoding, resizing, patches, templates and ids, against Pillow and transformers
//! (`scripts/reference/image_processor.py`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use ril_models::chat_template::ChatTemplate;
use ril_models::image::{open_image, resize_bicubic};
use ril_models::qwen2_5_vl::processor::{ImageProcessor, ImageProcessorConfig, smart_resize};
use ril_models::qwen2_5_vl::prompt::expand_image_tokens;
use ril_models::tokenizer::TextTokenizer;
use ril_models::{Content, GridThw, Message, Role};
use safetensors::SafeTensors;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/processor")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).unwrap()
}

/// The stems of all tensors called `STEM.suffix`.
fn cases<'a>(tensors: &'a SafeTensors<'_>, suffix: &'a str) -> impl Iterator<Item = &'a str> {
    tensors.names().into_iter().filter_map(move |name| name.strip_suffix(suffix))
}

fn picture(tensors: &SafeTensors<'_>, name: &str) -> RgbImage {
    let tensor = tensors.tensor(name).unwrap();
    let [height, width, 3] = *tensor.shape() else { panic!("{name}: {:?}", tensor.shape()) };
    RgbImage::from_raw(width as u32, height as u32, tensor.data().to_vec()).unwrap()
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Largest difference of two byte sequences.
fn distance(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn pictures_decode_as_pillow_converts_them() {
    let file = bytes("decode.safetensors");
    let tensors = SafeTensors::deserialize(&file).unwrap();
    for name in tensors.names() {
        let decoded = open_image(&fixtures().join("decode").join(name)).unwrap();
        let expected = picture(&tensors, name);
        assert_eq!(decoded.dimensions(), expected.dimensions(), "{name}");
        // Lossy formats are decoded by other libraries than Pillow's, within what their standards allow.
        let allowed = if name.ends_with(".jpg") || name == "photo.webp" { 6 } else { 0 };
        let distance = distance(&decoded, &expected);
        assert!(distance <= allowed, "{name}: off by {distance}");
    }
    assert_eq!(tensors.len(), 21);
}

#[test]
fn a_file_that_is_no_picture_is_named() {
    let missing = open_image(&fixtures().join("decode/none.png")).unwrap_err().to_string();
    assert!(missing.contains("none.png"), "{missing}");
    let no_picture = open_image(&fixtures().join("chat.json")).unwrap_err();
    assert!(matches!(no_picture, ril_models::ModelError::Image { .. }), "{no_picture}");
    assert!(no_picture.to_string().contains("chat.json"), "{no_picture}");
}

#[test]
fn resized_bytes_equal_pillows() {
    let file = bytes("resize.safetensors");
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut count = 0;
    for case in cases(&tensors, ".expected") {
        let expected = picture(&tensors, &format!("{case}.expected"));
        let resized =
            resize_bicubic(&picture(&tensors, &format!("{case}.source")), expected.width(), expected.height());
        assert_eq!(distance(&resized, &expected), 0, "{case}");
        count += 1;
    }
    assert_eq!(count, 18);
}

#[test]
fn sizes_equal_the_reference() {
    let table = json("smart_resize.json");
    let table = table["table"].as_array().unwrap();
    for row in table {
        let [height, width, factor, min_pixels, max_pixels] = numbers(&row[0])[..] else { panic!("{row}") };
        let [height, width, factor] = [height, width, factor].map(|n| n as usize);
        let size = smart_resize(height, width, factor, min_pixels as usize, max_pixels as usize).ok();
        let expected = (!row[1].is_null()).then(|| numbers(&row[1]));
        assert_eq!(size.map(|(h, w)| vec![h as u32, w as u32]), expected, "{row}");
    }
    assert!(table.iter().any(|row| row[1].is_null()) && table.len() > 100);
}

#[test]
fn patches_equal_transformers() {
    let file = bytes("patches.safetensors");
    let tensors = SafeTensors::deserialize(&file).unwrap();
    for (case, config) in json("patches.json")["configs"].as_object().unwrap() {
        let side = config["patch_size"].as_u64().unwrap() as usize;
        let config: ImageProcessorConfig = serde_json::from_value(config.clone()).unwrap();
        let sources: Vec<RgbImage> = (0..)
            .map(|index| format!("{case}.source.{index}"))
            .take_while(|name| tensors.tensor(name).is_ok())
            .map(|name| picture(&tensors, &name))
            .collect();
        let batch = ImageProcessor::new(config).unwrap().process(&sources).unwrap();

        let grids = tensors.tensor(&format!("{case}.image_grid_thw")).unwrap();
        let grids: Vec<usize> =
            grids.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as usize).collect();
        assert_eq!(batch.grid_thw.as_flattened(), grids, "{case}");
        for (index, grid) in batch.grid_thw.iter().enumerate() {
            assert_eq!(batch.pixel_size(index), Some((grid[2] * side, grid[1] * side)), "{case}");
        }
        assert_eq!(batch.pixel_size(batch.grid_thw.len()), None);
        let expected = tensors.tensor(&format!("{case}.pixel_values")).unwrap();
        assert_eq!(expected.shape(), [batch.pixel_patches.len() / batch.patch_dim, batch.patch_dim], "{case}");
        let expected = expected.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let distance = batch.pixel_patches.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance <= 1e-6, "{case}: off by {distance}");
    }
}

#[test]
fn an_image_gives_the_same_patches_alone_and_in_a_batch() {
    let file = bytes("patches.safetensors");
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let images = [0, 1, 2].map(|index| Arc::new(picture(&tensors, &format!("several.source.{index}"))));
    let processor = ImageProcessor::from_folder(&fixtures().join("nested")).unwrap();
    let alone = images.each_ref().map(|image| processor.process(std::slice::from_ref(image)).unwrap());
    assert_eq!(processor.process(&images).unwrap(), ril_models::ImageBatch::concat(&alone).unwrap());
}

#[test]
fn both_files_of_transformers_are_read_and_ours_is_read_back() {
    let size = ImageProcessor::from_folder(&fixtures().join("size")).unwrap();
    assert_eq!((size.config().min_pixels, size.config().max_pixels, size.config().patch_size), (3136, 1_003_520, 14));
    let nested = ImageProcessor::from_folder(&fixtures().join("nested")).unwrap();
    assert_eq!((nested.config().min_pixels, nested.config().max_pixels, nested.config().patch_size), (256, 1024, 4));
    let folder = tempfile::tempdir().unwrap();
    nested.save(folder.path()).unwrap();
    assert_eq!(ImageProcessor::from_folder(folder.path()).unwrap().config(), nested.config());
}

#[test]
fn prompts_equal_apply_chat_template() {
    let chat = json("chat.json");
    let cases = chat["cases"].as_array().unwrap();
    for case in cases {
        let source = fixtures().join("templates").join(format!("{}.jinja", text(&case["template"])));
        let mut template = ChatTemplate::new(std::fs::read_to_string(&source).unwrap()).unwrap();
        if case["template"] == "features" {
            // This one writes the tokenizer's end token, so it needs a folder.
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(&source, folder.path().join("chat_template.jinja")).unwrap();
            let config = "tokenizer_config.json";
            std::fs::copy(fixtures().join("tokenizer").join(config), folder.path().join(config)).unwrap();
            template = ChatTemplate::from_folder(folder.path()).unwrap();
        }
        let messages = conversation(&chat["conversations"][text(&case["conversation"])]);
        let rendered = template.render(&messages, case["generate"].as_bool().unwrap()).unwrap();
        assert_eq!(rendered, text(&case["rendered"]), "{} {}", case["template"], case["conversation"]);
    }
    assert_eq!(cases.len(), 2 * (9 + 6 + 6));
}

fn conversation(messages: &Value) -> Vec<Message> {
    let picture = Arc::new(RgbImage::new(1, 1));
    let content = |part: &Value| match text(&part["type"]) {
        "image" => Content::Image(picture.clone()),
        _ => Content::Text(text(&part["text"]).to_owned()),
    };
    let message = |message: &Value| Message {
        role: match text(&message["role"]) {
            "system" => Role::System,
            "user" => Role::User,
            _ => Role::Assistant,
        },
        content: message["content"].as_array().unwrap().iter().map(content).collect(),
    };
    messages.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn ids_and_texts_equal_transformers() {
    let golden = json("tokens.json");
    let tokenizer = TextTokenizer::from_folder(&fixtures().join("tokenizer")).unwrap();
    assert_eq!(tokenizer.vocab_size() as u64, golden["vocab_size"].as_u64().unwrap());
    assert_eq!(tokenizer.token_id("<|image_pad|>").map(u64::from), golden["image_pad_id"].as_u64());
    let strings = golden["strings"].as_array().unwrap();
    for case in strings {
        let ids = tokenizer.encode(text(&case["text"])).unwrap();
        assert_eq!(ids, numbers(&case["ids"]), "{case}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text(&case["decoded"]));
        assert_eq!(tokenizer.decode_with_special(&ids).unwrap(), text(&case["with_special"]));
    }
    let random = golden["random_ids"].as_array().unwrap();
    for case in random {
        assert_eq!(tokenizer.decode(&numbers(&case["ids"])).unwrap(), text(&case["decoded"]), "{case}");
    }
    assert!(strings.len() > 70 && random.len() == 40);
}

#[test]
fn expanded_prompts_equal_the_processors() {
    let golden = json("tokens.json");
    let tokenizer = TextTokenizer::from_folder(&fixtures().join("tokenizer")).unwrap();
    let image_pad_id = tokenizer.token_id("<|image_pad|>").unwrap();
    for case in golden["prompts"].as_array().unwrap() {
        let grid = |grid: &Value| -> GridThw { std::array::from_fn(|axis| grid[axis].as_u64().unwrap() as usize) };
        let grids: Vec<GridThw> = case["grids"].as_array().unwrap().iter().map(grid).collect();
        let ids = tokenizer.encode(text(&case["text"])).unwrap();
        let expanded = expand_image_tokens(&ids, image_pad_id, &grids, 2).unwrap();
        assert_eq!(expanded, numbers(&case["ids"]), "{case}");
    }
}
