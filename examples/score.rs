//! Log-probabilities of a response under a checkpoint, as one JSON object.
//!
//!     cargo run --release --example score -- --model DIR --image cat.png --prompt "What is this?" --response "A cat."
//!
//! The user turn holds the images in order, then the text; the response is followed by `<|im_end|>`, which is scored
//! too. Natural logarithm, temperature 1.

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use clap::Parser;
use ril::adapters::ModelPolicy;
use ril::grpo::Policy;
use ril::models::image::open_image;
use ril::models::{ChatModel, Message, Qwen2_5Vl};
use ril::{Prompt, RilError, ScoringBatch, explain};

/// Score a response token by token
#[derive(Parser)]
struct Args {
    /// Folder of a Qwen2.5-VL checkpoint
    #[arg(long)]
    model: PathBuf,
    /// Folder of a LoRA adapter in PEFT's format
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Round the weights of the decoder and of the head to 8 bits
    #[arg(long)]
    int8: bool,
    /// Picture; may be given several times
    #[arg(long = "image")]
    images: Vec<PathBuf>,
    /// What the user says after the pictures
    #[arg(long)]
    prompt: String,
    /// What the model is supposed to answer
    #[arg(long, required_unless_present = "response_ids")]
    response: Option<String>,
    /// The same as token ids, commas between them; nothing is added to them
    #[arg(long, value_delimiter = ',', conflicts_with = "response")]
    response_ids: Vec<u32>,
}

fn main() -> ExitCode {
    match score(&Args::parse()) {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn score(args: &Args) -> Result<serde_json::Value, RilError> {
    let model = Qwen2_5Vl::from_folder(&args.model, &Device::flex())?;
    let model = match &args.adapter {
        Some(folder) => model.load_adapter(folder)?,
        None => model,
    };
    let model = if args.int8 { model.into_int8() } else { model };
    let pictures = args.images.iter().map(|path| Ok(open_image(path)?.into())).collect::<Result<Vec<_>, RilError>>()?;
    let message = Message::user_with_images(args.prompt.as_str(), pictures);
    let prompt = Prompt::encode(&model, &[message])?.into();
    let response = match &args.response {
        Some(text) => model.encode_response(text)?,
        None => args.response_ids.clone(),
    };
    let batch = ScoringBatch::new(&[(&prompt, response.as_slice())])?;
    let log_probs = ModelPolicy::new(model).token_log_probs(&batch)?;
    let log_probs: Vec<f32> = log_probs.into_data().iter::<f32>().collect();
    Ok(serde_json::json!({
        "prompt_token_ids": prompt.token_ids,
        "response_token_ids": response,
        "log_probs": log_probs,
    }))
}
