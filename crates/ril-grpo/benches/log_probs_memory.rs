//! Peak memory of log-probabilities over Qwen's vocabulary, forward and backward, above the inputs:
//! `cargo bench --package ril-grpo --bench log_probs_memory`.
//!
//! Each line is a process of its own, on Linux, as its kernel counts resident memory.

use std::process::Command;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Int, Tensor};
use ril_grpo::{gather_log_probs, selective_log_probs, selective_scores};

const SHAPE: [usize; 3] = [8, 256, 2048]; // batch, seq, hidden
const VOCAB: usize = 151_936;
const CHUNK_TOKENS: usize = 512;
/// Above the inputs, the gradient of the weights included.
const BOUND_GIB: f64 = 1.5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, way] = arguments.as_slice()
        && flag == "--measure"
    {
        return measure(way);
    }
    println!("hidden states {SHAPE:?}, vocabulary {VOCAB}, chunks of {CHUNK_TOKENS} tokens; bound {BOUND_GIB} GiB");
    for way in ["log-probs", "log-probs, tied", "log-probs and entropy", "whole logits"] {
        let program = std::env::current_exe().expect("the path of this program");
        let status = Command::new(program).args(["--measure", way]).status().expect("this program starts");
        assert!(status.success(), "{way}: {status}");
    }
}

/// Prints one line: memory above the inputs after forward and backward, and what it took.
fn measure(way: &str) {
    let device = Device::flex();
    let tracked = device.clone().autodiff();
    let normal = |deviation| Distribution::Normal(0.0, deviation);
    let hidden = Tensor::<3>::random(SHAPE, normal(1.0), &tracked).require_grad();
    let embedding = way.ends_with("tied");
    let shape = if embedding { [VOCAB, SHAPE[2]] } else { [SHAPE[2], VOCAB] };
    let leaf = Tensor::<2>::random(shape, normal(0.02), &tracked).require_grad();
    let ids = Distribution::Uniform(0.0, VOCAB as f64);
    let targets = Tensor::<2, Int>::random([SHAPE[0], SHAPE[1]], ids, &device);

    let inputs = forget_peak();
    let start = Instant::now();
    let weight = if embedding { leaf.clone().transpose() } else { leaf.clone() };
    let loss = match way {
        "whole logits" => {
            let logits = hidden.clone().matmul(weight.unsqueeze());
            gather_log_probs(logits, targets).expect("equal shapes").sum()
        }
        "log-probs and entropy" => {
            let scores = selective_scores(hidden.clone(), weight, targets, CHUNK_TOKENS, 1.0).expect("equal shapes");
            (scores.log_probs + scores.entropy.expect("asked for") * 0.01).sum()
        }
        _ => selective_log_probs(hidden.clone(), weight, targets, CHUNK_TOKENS, 1.0).expect("equal shapes").sum(),
    };
    let gradients = loss.backward();
    let both = (hidden.grad(&gradients).is_some(), leaf.grad(&gradients).is_some());
    assert_eq!(both, (true, true), "both gradients");
    let above = (resident("VmHWM") - inputs) / (1024.0 * 1024.0);
    let verdict = if above < BOUND_GIB { "within the bound" } else { "above the bound" };
    println!("{way:22} {above:5.2} GiB above the inputs ({verdict}), {:5.1} s", start.elapsed().as_secs_f64());
}

/// Sets the peak back to what is resident now, and returns that, KiB.
fn forget_peak() -> f64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux lets a process forget its peak");
    resident("VmRSS")
}

/// A field of the process's memory, KiB.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux lists a process's memory");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = line.and_then(|line| line.trim().strip_suffix("kB")).map(|value| value.trim().parse());
    value.expect("the field is listed, in kB").expect("a number")
}
