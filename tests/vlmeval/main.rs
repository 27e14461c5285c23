//! Benchmarks in VLMEvalKit's layout: equal to VLMEvalKit's own code, resumable at every byte, safe on any input.

#[allow(dead_code, reason = "the tests need a part of the command line")]
#[path = "../../examples/evaluate/args.rs"]
mod args;
mod arguments;
#[allow(dead_code, reason = "the tests ask no server")]
#[path = "../../examples/asking.rs"]
mod asking;
#[path = "../../examples/evaluate_data/chart.rs"]
mod chart;
#[path = "../../examples/evaluate_data/charts.rs"]
mod charts;
#[allow(dead_code, unused_imports, reason = "the tests need a part of the generator of the digits")]
#[path = "../../examples/ril_qwen/data/mod.rs"]
mod data;
#[allow(dead_code, reason = "the tests parse a device and open none")]
#[path = "../../examples/device.rs"]
mod device;
#[path = "../../examples/evaluate_data/digits.rs"]
mod digits;
mod failures;
#[path = "../../examples/evaluate_data/font.rs"]
mod font;
mod parity;
mod properties;
mod resume;
mod shipped;
mod support;
#[path = "../../examples/evaluate_data/tsv.rs"]
mod tsv;
mod weights;
