//! Put a benchmark in VLMEvalKit's layout to a model, and score it by VLMEvalKit's rules.
//!
//!     cargo run --release --example evaluate -- --model DIR --benchmark MMBench_DEV_EN_V11.tsv
//!     cargo run --release --example evaluate -- --server http://localhost:8000 --server-model Qwen2.5-VL-72B-Instruct \
//!         --benchmark MMBench_DEV_EN_V11.tsv
//!     cargo run --release --example evaluate -- --list
//!
//! Every answer is on the disk before the next one comes: stop it with Ctrl-C, and the same command goes on.

mod args;
#[path = "../asking.rs"]
mod asking;
#[path = "../device.rs"]
mod device;

use std::path::PathBuf;
use std::process::ExitCode;

use args::Args;
use clap::Parser;
use ril::models::Qwen2_5Vl;
use ril::models::generate::SamplingParams;
use ril::monitor::Monitor;
use ril::run::Outcome;
use ril::server::{RequestFields, ServerAnswerer};
use ril::vlmeval::{
    Answerer, Comparison, Evaluation, FailedRows, Kind, LocalAnswerer, Plan, Request, Table, Tell, benchmark_table,
    fingerprint,
};
use ril::{RilError, explain};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), RilError> {
    let Some(file) = args.benchmark.as_deref().filter(|_| !args.list) else {
        print!("{}", benchmark_table());
        return Ok(());
    };
    if args.asking.api_key_env.is_some() && args.server.is_empty() {
        return Err(RilError::Config("--api-key-env: expected a --server too; the judge's is --judge-key-env".into()));
    }
    let kind = args.kind.as_deref().map_or_else(|| Kind::of_file(file), Kind::named)?;
    let (folder, sampling) = (args.folder(), SamplingParams::greedy(args.max_new_tokens));
    let who = Who::model(args)?;
    let who = who.ok_or_else(|| RilError::Config("give --model or --server".into()))?;
    let table = Table::read(file)?;
    let (name, identity) = (who.name(args), who.identity(args)?);
    let plan = Plan { kind, table, limit: args.limit, model: name.clone(), identity, sampling };
    let failed_rows = if args.failed_as_wrong { FailedRows::Wrong } else { FailedRows::Open };
    let evaluation = Evaluation::open(plan, &folder)?.with_failed_rows(failed_rows);
    let mut monitor = Monitor::new(args.monitor);
    let mut outcome = ask(&evaluation, &who, args, &mut monitor)?;
    if outcome == Outcome::Finished && evaluation.has_truth() {
        outcome = judge(&evaluation, args, &mut monitor)?;
    }
    if outcome == Outcome::Interrupted {
        println!("Stopped; the same command goes on.");
        return Ok(());
    }
    if !evaluation.has_truth() {
        println!("{} holds no answers and cannot be scored here; the model's: {}", file.display(), folder.display());
        return Ok(());
    }
    let results = evaluation.score()?;
    println!("{} as {}: {name}\n\n{}", file.display(), kind.name, results.table());
    if let Some(other) = &args.compare {
        println!("{}", Comparison::of_folders(&folder, other)?.table());
    }
    println!("Answers and scores: {}", folder.display());
    Ok(())
}

/// A model that answers or judges.
enum Who {
    Folder(PathBuf),
    Server(ServerAnswerer),
}

impl Who {
    /// The model under evaluation; `None` when neither a folder nor a server is given.
    fn model(args: &Args) -> Result<Option<Self>, RilError> {
        match &args.server_model {
            Some(model) => Self::served(&args.server, model, args.asking.api_key_env.as_ref(), args).map(Some),
            None => Ok(args.model.clone().map(Self::Folder)),
        }
    }

    /// The judge, if there is one.
    fn judge(args: &Args) -> Result<Option<Self>, RilError> {
        match &args.judge_model {
            Some(model) => Self::served(&args.judge_server, model, args.judge_key_env.as_ref(), args).map(Some),
            None => Ok(args.judge.clone().map(Self::Folder)),
        }
    }

    fn served(servers: &[String], model: &str, key_env: Option<&String>, args: &Args) -> Result<Self, RilError> {
        let client = args.asking.client(servers, key_env);
        let client = client.map_err(|error| RilError::Config(error.to_string()))?;
        let fields = if args.openai_fields_only { RequestFields::OpenAi } else { RequestFields::All };
        Ok(Self::Server(ServerAnswerer { client, model: model.into(), fields }))
    }

    /// As tables name it.
    fn name(&self, args: &Args) -> String {
        match self {
            Self::Server(server) => server.model.clone(),
            Self::Folder(folder) => {
                let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
                if args.int8 { format!("{name} (8 bits)") } else { name.into_owned() }
            }
        }
    }

    /// What tells it from another one.
    fn identity(&self, args: &Args) -> Result<String, RilError> {
        match self {
            Self::Server(server) => Ok(args.server_identity(&server.model)),
            Self::Folder(folder) => fingerprint(folder),
        }
    }

    fn answerer(&self, args: &Args) -> Result<Box<dyn Answerer>, RilError> {
        match self {
            Self::Server(server) => Ok(Box::new(server.clone())),
            Self::Folder(folder) => {
                let device = args.device.open().map_err(RilError::Config)?;
                let model = Qwen2_5Vl::from_folder(folder, &device)?;
                let model = if args.int8 { model.into_int8() } else { model };
                Ok(Box::new(LocalAnswerer { model, rows_at_once: args.rows_at_once }))
            }
        }
    }
}

fn ask(evaluation: &Evaluation, who: &Who, args: &Args, monitor: &mut Monitor) -> Result<Outcome, RilError> {
    let (total, answered) = (evaluation.table().len(), evaluation.answered()?);
    if answered >= total {
        return Ok(Outcome::Finished);
    }
    let mut answerer = who.answerer(args)?;
    monitor.resume_evaluation("answers", total, answered);
    let outcome = evaluation.ask(&mut answerer, |done| monitor.advance(done));
    monitor.finish();
    outcome
}

fn judge(evaluation: &Evaluation, args: &Args, monitor: &mut Monitor) -> Result<Outcome, RilError> {
    let who = Who::judge(args)?;
    let Some(who) = who else { return Ok(Outcome::Finished) };
    let open = evaluation.open_for_judge()?;
    let mut judge: Option<Box<dyn Answerer>> = None;
    if open > 0 {
        judge = Some(who.answerer(args)?);
        monitor.resume_evaluation("judge", open, 0);
    }
    let mut nobody = Nobody;
    let asked = judge.as_deref_mut().unwrap_or(&mut nobody);
    let identity = who.identity(args)?;
    let name = match &who {
        Who::Server(_) => identity,
        Who::Folder(_) => format!("{} {}", who.name(args), &identity[..12]),
    };
    let outcome = evaluation.judge(&name, asked, |settled, _| monitor.advance(settled));
    monitor.finish();
    outcome
}

/// Judges where there is nothing to judge: no model is loaded then.
struct Nobody;

impl Answerer for Nobody {
    fn answer(&mut self, _: &[Request], _: &mut Tell<'_>) -> Result<(), RilError> {
        Ok(())
    }
}
