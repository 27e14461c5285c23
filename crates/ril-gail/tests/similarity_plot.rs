//! The plot of the documentation shows the rewards as they are.

#[path = "../examples/similarity_curves.rs"]
mod similarity_curves;

#[test]
fn the_committed_plot_is_the_one_of_these_rewards() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/similarity_rewards.svg");
    let committed = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(
        committed == similarity_curves::svg(),
        "docs/similarity_rewards.svg is out of date; regenerate it with\n    \
         cargo run -p ril-gail --example similarity_curves > docs/similarity_rewards.svg"
    );
}
