//! How well a judge agrees with labels that people gave: the judge that a run would ask, on a file of your own.
//!
//!     cargo run --release --example judge -- --labelled labelled.jsonl --server http://localhost:8000 --model Qwen2.5-32B-Instruct
//!     cargo run --release --example judge -- --labelled labelled.jsonl
//!
//! Without a server the judge is the one by rules. Lines: {"question", "reference", "response", "is_right"}.

#[path = "asking.rs"]
mod asking;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use asking::Asking;
use clap::{Parser, ValueEnum};
use ril::client::ChatRequest;
use ril::data::read_lines;
use ril::reward::{
    Agreement, AnswerStore, HttpJudge, Judge, LabelledAnswer, PromptTemplate, RuleJudge, Sample, Verdict, judge_answers,
};

/// Measure a judge
#[derive(Parser)]
struct Args {
    /// Labelled answers, JSON lines: {"question", "reference", "response", "is_right"}
    #[arg(long)]
    labelled: PathBuf,
    /// Address of a server; several share the load
    #[arg(long = "server", requires = "model")]
    servers: Vec<String>,
    /// Model, as the server names it
    #[arg(long, requires = "servers")]
    model: Option<String>,
    /// Prompt of the judge
    #[arg(long, value_enum, default_value = "reasoned")]
    prompt: Prompt,
    /// A prompt of your own, with the slots {question}, {reference} and {response}
    #[arg(long)]
    prompt_file: Option<PathBuf>,
    /// File in which verdicts are kept; what is there is not asked again
    #[arg(long)]
    store: Option<PathBuf>,
    /// Longest verdict, in tokens
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// Further fields of each request, a JSON object: the verdict's form, for servers that can hold a model to one
    #[arg(long, value_parser = fields, default_value = "{}")]
    extra: serde_json::Map<String, serde_json::Value>,
    #[command(flatten)]
    asking: Asking,
    /// Show each answer that the judge sees otherwise than its label, and each one without a verdict
    #[arg(long)]
    show: bool,
}

/// The embedded prompts.
#[derive(Clone, Copy, ValueEnum)]
enum Prompt {
    /// A short reason, then the verdict: what Fig. 4 of the RIL paper asks for, in our words.
    Reasoned,
    /// The verdict alone.
    Short,
}

fn fields(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, serde_json::Error> {
    serde_json::from_str(text)
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", ril::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let labelled: Vec<LabelledAnswer> = read_lines(&args.labelled)?.into_iter().map(|(_, line)| line).collect();
    let samples: Vec<Sample<'_>> = labelled.iter().map(LabelledAnswer::sample).collect();
    let labels: Vec<bool> = labelled.iter().map(|l| l.is_right).collect();
    let judge = judge(args)?;
    let verdicts = judge_answers("judge", &judge, &samples)?;
    for (label, verdict) in labelled.iter().zip(&verdicts).filter(|_| args.show) {
        let said = match verdict {
            Verdict::Unparsed(text) => format!("no verdict in {text:?}"),
            _ if (*verdict == Verdict::Correct) == label.is_right => continue,
            verdict => format!("{verdict:?}").to_lowercase(),
        };
        println!("{:?} for {:?}: {said}", label.response, label.reference);
    }
    println!("{}", Agreement::of(&labels, &verdicts)?);
    Ok(())
}

fn judge(args: &Args) -> Result<Box<dyn Judge>, Box<dyn std::error::Error>> {
    let Some(model) = &args.model else {
        return match &args.asking.api_key_env {
            Some(_) => Err("--api-key-env: expected a --server too".into()),
            None => Ok(Box::new(RuleJudge::default())),
        };
    };
    let client = args.asking.client(&args.servers, args.asking.api_key_env.as_ref())?;
    let template = match (&args.prompt_file, args.prompt) {
        (Some(path), _) => PromptTemplate::parse(&std::fs::read_to_string(path)?)?,
        (None, Prompt::Reasoned) => PromptTemplate::judge(),
        (None, Prompt::Short) => PromptTemplate::judge_short(),
    };
    let request = ChatRequest {
        temperature: Some(0.0),
        max_tokens: Some(args.max_tokens),
        extra: args.extra.clone(),
        ..ChatRequest::new(model.as_str(), vec![])
    };
    let judge = HttpJudge::new(client, request, template);
    Ok(Box::new(match &args.store {
        Some(path) => judge.with_store(Arc::new(AnswerStore::open(path)?)),
        None => judge,
    }))
}
