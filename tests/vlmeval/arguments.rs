//! The command line of `examples/evaluate`.

use clap::Parser;

use crate::args::Args;

const SERVED: [&str; 7] = ["evaluate", "--server", "http://a", "--server-model", "m", "--benchmark", "b.tsv"];

/// Greedy answers of a server that is not told the penalties may be others.
#[test]
fn what_changes_a_server_s_answers_belongs_to_its_identity() {
    let identity = |more: &[&str]| Args::parse_from(SERVED.iter().chain(more)).server_identity("m");
    assert_eq!(identity(&[]), "server, m");
    assert_eq!(identity(&["--openai-fields-only"]), "server, m, OpenAI's fields only");
    assert_eq!(identity(&["--requests-at-once", "3", "--server", "http://b"]), identity(&[]), "a server may move");
}
