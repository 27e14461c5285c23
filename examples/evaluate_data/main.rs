//! Writes the small benchmarks of `examples/evaluate/data`: digits and drawn charts, the same bytes at every call.
//!
//!     cargo run --release --example evaluate_data

#[allow(dead_code, unused_imports, reason = "the generator of the digits serves the other example too")]
#[path = "../ril_qwen/data/mod.rs"]
mod data;

mod chart;
mod charts;
mod digits;
mod font;
mod tsv;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/evaluate/data");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in [
        ("digits.tsv", digits::circular()),
        ("digits_yes_no.tsv", digits::yes_no()),
        ("digits_free.tsv", digits::free()),
        ("charts.tsv", charts::table()),
    ] {
        std::fs::write(folder.join(name), &text)?;
        println!("{name}: {} rows, {} bytes", text.lines().count() - 1, text.len());
    }
    Ok(())
}
