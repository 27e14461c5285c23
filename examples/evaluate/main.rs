//! Put a benchmark in VLMEvalKit's layout to a model, and score it by VLMEvalKit's rules.
//!
//!     cargo run --release --example evaluate -- --model DIR --benchmark MMBench_DEV_EN_V11.tsv
//!     cargo run --release --example evaluate -- --list
//!
//! Every answer is on the disk before the next one comes: stop it with Ctrl-C, and the same command goes on.

mod args;

use std::path::Path;
use std::process::ExitCode;

use args::Args;
use burn::tensor::Device;
use clap::Parser;
use ril::models::Qwen2_5Vl;
use ril::models::generate::SamplingParams;
use ril::monitor::Monitor;
use ril::run::Outcome;
use ril::vlmeval::{
    Answerer, Comparison, Evaluation, Kind, LocalAnswerer, Plan, Request, Table, Tell, benchmark_table, fingerprint,
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
    let kind = args.kind.as_deref().map_or_else(|| Kind::of_file(file), Kind::named)?;
    let Some(model) = &args.model else {
        return Err(RilError::Config("--server: not in this build; give --model".into()));
    };
    let device = args.device.open().map_err(RilError::Config)?;
    let (folder, sampling) = (args.folder(), SamplingParams::greedy(args.max_new_tokens));
    let table = Table::read(file)?;
    let (name, identity) = (name(model, args), fingerprint(model)?);
    let plan = Plan { kind, table, limit: args.limit, model: name, identity, sampling };
    let evaluation = Evaluation::open(plan, &folder)?;
    let mut monitor = Monitor::new(args.monitor);
    let mut outcome = ask(&evaluation, model, args, &device, &mut monitor)?;
    if outcome == Outcome::Finished && evaluation.has_truth() {
        outcome = judge(&evaluation, args, &device, &mut monitor)?;
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
    println!("{} as {}: {}\n\n{}", file.display(), kind.name, model.display(), results.table());
    if let Some(other) = &args.compare {
        println!("{}", Comparison::of_folders(&folder, other)?.table());
    }
    println!("Answers and scores: {}", folder.display());
    Ok(())
}

/// Name of a model in tables: its folder's.
fn name(folder: &Path, args: &Args) -> String {
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
    if args.int8 { format!("{name} (8 bits)") } else { name.into_owned() }
}

fn load(folder: &Path, args: &Args, device: &Device) -> Result<LocalAnswerer<Qwen2_5Vl>, RilError> {
    let model = Qwen2_5Vl::from_folder(folder, device)?;
    let model = if args.int8 { model.into_int8() } else { model };
    Ok(LocalAnswerer { model, rows_at_once: args.rows_at_once })
}

fn ask(
    evaluation: &Evaluation,
    model: &Path,
    args: &Args,
    device: &Device,
    monitor: &mut Monitor,
) -> Result<Outcome, RilError> {
    let (total, answered) = (evaluation.table().len(), evaluation.answered()?);
    if answered >= total {
        return Ok(Outcome::Finished);
    }
    let mut answerer = load(model, args, device)?;
    monitor.resume_evaluation("answers", total, answered);
    let outcome = evaluation.ask(&mut answerer, |done| monitor.advance(done));
    monitor.finish();
    outcome
}

fn judge(evaluation: &Evaluation, args: &Args, device: &Device, monitor: &mut Monitor) -> Result<Outcome, RilError> {
    let Some(folder) = &args.judge else { return Ok(Outcome::Finished) };
    let open = evaluation.open_for_judge()?;
    let mut judge: Option<Box<dyn Answerer>> = None;
    if open > 0 {
        judge = Some(Box::new(load(folder, args, device)?));
        monitor.resume_evaluation("judge", open, 0);
    }
    let mut nobody = Nobody;
    let asked = judge.as_deref_mut().unwrap_or(&mut nobody);
    let who = format!("{} {}", name(folder, args), &fingerprint(folder)?[..12]);
    let outcome = evaluation.judge(&who, asked, |settled, _| monitor.advance(settled));
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
