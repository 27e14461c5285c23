//! Samples from a checkpoint, one JSON object a line.
//!
//!     cargo run --release --example generate -- --model DIR --image cat.png --prompt "What is this?" --num-samples 4

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use clap::Parser;
use ril::models::generate::{SamplingParams, generate};
use ril::models::image::open_image;
use ril::models::{ChatModel, Message, Qwen2_5Vl};
use ril::{RilError, explain};

/// Sample answers
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
    /// Longest answer, stop token included
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,
    /// 0 takes the likeliest token each time
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Smallest set of likeliest tokens whose probability reaches this
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Likeliest tokens kept; 0 keeps all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Above 1 makes tokens that were seen less likely
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Answers
    #[arg(long, default_value_t = 1)]
    num_samples: usize,
    /// Same seed, same answers
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), RilError> {
    let model = Qwen2_5Vl::from_folder(&args.model, &Device::flex())?;
    let model = match &args.adapter {
        Some(folder) => model.load_adapter(folder)?,
        None => model,
    };
    let model = if args.int8 { model.into_int8() } else { model };
    let pictures = args.images.iter().map(|path| Ok(open_image(path)?.into())).collect::<Result<Vec<_>, RilError>>()?;
    let prompt = model.encode(&[Message::user_with_images(args.prompt.as_str(), pictures)])?;
    let params = SamplingParams {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        repetition_penalty: args.repetition_penalty,
        num_samples: args.num_samples,
        seed: args.seed,
    };
    for sample in generate(&model, &prompt, &params)? {
        let json = serde_json::json!({
            "text": model.decode(&sample.token_ids)?,
            "token_ids": sample.token_ids,
            "log_probs": sample.log_probs,
            "finish_reason": sample.finish_reason,
        });
        println!("{json}");
    }
    Ok(())
}
