//! Teachers' answers from OpenAI-compatible servers (vLLM, SGLang, llama.cpp, hosted ones), as `ril_qwen
//! --teacher-responses` reads them.
//!
//!     cargo run --release --example teach -- --data questions.jsonl --out teachers.jsonl \
//!         --server http://localhost:8000 --model Qwen2.5-VL-72B-Instruct --responses 4
//!
//! Run it again with the same arguments after a kill: it asks for what is missing. Run it for each teacher, with the same
//! `--out`.

#[path = "asking.rs"]
mod asking;

use std::path::PathBuf;
use std::process::ExitCode;

use asking::Asking;
use clap::Parser;
use ril::client::{ChatClient, ChatMessage, ChatRequest, ChatRole};
use ril::data::read_records;
use ril::monitor::{Monitor, MonitorMode};
use ril::server::{TeachPlan, TeachReport, teach};

/// Ask teachers for answers
#[derive(Parser)]
struct Args {
    /// Questions, JSON lines: {"id", "images": [paths], "question", "answer"}
    #[arg(long)]
    data: PathBuf,
    /// File that the answers are appended to, JSON lines
    #[arg(long)]
    out: PathBuf,
    /// Address of a server; several share the load
    #[arg(long = "server", required = true)]
    servers: Vec<String>,
    /// Model, as the server names it [default: its only one]
    #[arg(long)]
    model: Option<String>,
    /// Name of the teacher in the file [default: the model's]
    #[arg(long)]
    teacher: Option<String>,
    /// Answers to each question
    #[arg(long, default_value_t = 4)]
    responses: usize,
    /// Answers asked for in one request; 1 for servers that know no `n` [default: all]
    #[arg(long)]
    samples_per_request: Option<usize>,
    /// Said before each question
    #[arg(long)]
    system: Option<String>,
    /// Requests for one answer at most: one that is cut is asked for again
    #[arg(long, default_value_t = 3)]
    tries: usize,
    /// Longest answer, in tokens; longer ones are cut and left out of a run
    #[arg(long, default_value_t = 1024)]
    max_tokens: usize,
    /// 0 takes the likeliest token each time
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Smallest set of likeliest tokens whose probability reaches this
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Seed of the sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    asking: Asking,
    /// Progress: terminal UI, plain lines, nothing
    #[arg(long, default_value = "plain")]
    monitor: MonitorMode,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(report) if report.is_interrupted => ExitCode::from(130),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", ril::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<TeachReport, Box<dyn std::error::Error>> {
    let records = read_records(&args.data)?;
    let client = args.asking.client(&args.servers, args.asking.api_key_env.as_ref())?;
    let plan = plan(args, &client)?;
    let total = records.len() * plan.responses;
    let mut monitor = Monitor::new(args.monitor);
    monitor.start_evaluation(&format!("answers of {}", plan.teacher), total);
    let report = teach(&client, &plan, &records, &args.out, |there| monitor.advance(there));
    monitor.finish();
    let report = report?;
    tell(args, &client, &report);
    Ok(report)
}

fn plan(args: &Args, client: &ChatClient) -> Result<TeachPlan, Box<dyn std::error::Error>> {
    let model = match &args.model {
        Some(model) => model.clone(),
        None => match client.models()?.as_slice() {
            [only] => only.clone(),
            all => return Err(format!("--model: the server has {}: {}", all.len(), all.join(", ")).into()),
        },
    };
    let system = args.system.iter().map(|text| ChatMessage::text(ChatRole::System, text.as_str())).collect();
    let request = ChatRequest {
        max_tokens: Some(args.max_tokens),
        temperature: Some(args.temperature),
        top_p: Some(args.top_p),
        ..ChatRequest::new(model.as_str(), system)
    };
    Ok(TeachPlan {
        teacher: args.teacher.clone().unwrap_or(model),
        request,
        responses: args.responses,
        samples_per_request: args.samples_per_request.unwrap_or(args.responses),
        tries: args.tries,
        seed: args.seed,
    })
}

fn tell(args: &Args, client: &ChatClient, report: &TeachReport) {
    let stats = client.stats();
    println!(
        "{}: {} answers, {} of them new; {} cut, {} empty",
        args.out.display(),
        report.found + report.added,
        report.added,
        report.cut,
        report.empty
    );
    println!(
        "{} requests, {} attempts made again, {} tokens read, {} written",
        stats.requests, stats.retries, stats.usage.prompt_tokens, stats.usage.completion_tokens
    );
    if report.uncovered > 0 {
        println!("{} questions have no answer that a run can use", report.uncovered);
    }
    if report.is_interrupted {
        println!("Stopped. The same command goes on.");
    }
}
