//! The recipe on networks of a few thousand weights: its files, its phases, its options, and going on after a stop.

#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../../examples/ril_qwen/data/mod.rs"]
mod data;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../../examples/ril_qwen/models.rs"]
mod models;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../../examples/ril_qwen/task.rs"]
mod task;
#[allow(dead_code, reason = "the tests need a part of the example's modules")]
#[path = "../../examples/ril_qwen/vocabulary.rs"]
mod vocabulary;

mod inputs;
mod lora;
mod options;
mod overlap;
mod phases;
mod resume;
mod support;
