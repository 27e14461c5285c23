//! The example of another project's loop learns, with the two leaf crates that its package depends on.

#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../examples/own_loop.rs"]
mod own_loop;

#[test]
fn the_policy_learns_to_answer_and_to_read_like_the_teacher() {
    let [right, alike] = own_loop::train(200).unwrap();
    assert!(right > 0.9, "{right}");
    assert!(alike > 0.5, "{alike}");
}
