//! The full recipe of RIL (arXiv 2510.19307), flat: SFT, cached teacher answers, discriminator pre-training, then from
//! the same student Dr.GRPO, RIL with one teacher and RIL with all, measured on questions that nothing was trained on.
//! `recipe.rs` is the recipe; `plan.rs` has its numbers; `world.rs` has what it starts from.
//!
//!     cargo run --release --example ril_qwen            # digits, toys, about five minutes on two cores
//!     cargo run --release --example ril_qwen -- --help

mod args;
mod data;
mod describe;
#[path = "../device.rs"]
mod device;
mod inputs;
mod lessons;
mod models;
mod outcome;
mod places;
mod plan;
mod recipe;
mod servers;
mod start;
mod task;
mod teachers;
mod user;
mod vocabulary;
mod world;

use std::process::ExitCode;

use clap::Parser;
use ril::explain;
use ril::monitor::Monitor;
use ril::run::Outcome;

/// glibc gives large buffers back to the kernel and faults them in again on every operation: a third of the time here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match start::start(&args, Monitor::new(args.monitor)) {
        Ok(Outcome::Finished) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("{}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
