//! Benchmarks in VLMEvalKit's layout: equal to VLMEvalKit's own code, resumable at every byte, safe on any input.

mod parity;
mod properties;
mod resume;
mod support;
