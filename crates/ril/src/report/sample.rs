//! A made-up report, for tests and for the eye. No number here was measured.

use super::{Answer, Chart, CurveGroup, Mark, Report, Series, Transcript};
use crate::eval::{Accuracy, ArmResult, ArmRole, PairedComparison};

const ARMS: [&str; 3] = ["Dr.GRPO", "RIL, one teacher", "RIL, two teachers"];

/// Deterministic noise in `[-1, 1]`.
fn noise(seed: u64) -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((state ^ state >> 31) as f64 / u64::MAX as f64) * 2.0 - 1.0
}

/// From `from` towards `to` with a half-life of about `steps`, with noise.
fn series(arm: usize, (from, to): (f64, f64), half_life: f64, spread: f64) -> Series {
    let value = |step: u64| {
        let share = 1.0 - 0.5_f64.powf(step as f64 / half_life);
        let wobble = spread * (1.6 * noise(step * 31 + arm as u64 * 7919) + noise(step / 9 + arm as u64 * 104_729));
        (step as f64, (from + (to - from) * share + wobble).max(0.0))
    };
    Series { name: ARMS[arm].to_string(), points: (1..=600).map(value).collect() }
}

fn chart(title: &str, note: &str, series: Vec<Series>) -> Chart {
    Chart { title: title.into(), note: note.into(), series, ..Chart::default() }
}

/// A bar chart of `heights`, as the toy questions ask about.
fn picture(heights: &[u32]) -> Vec<u8> {
    let bar =
        |index: usize| [[66_u8, 133, 244], [234, 120, 53], [52, 168, 120], [170, 90, 190], [240, 190, 60]][index % 5];
    let image = image::RgbImage::from_fn(224, 160, |x, y| {
        let slot = (x / 40) as usize;
        let inside = (8..34).contains(&(x % 40)) && slot < heights.len() && y >= 148 - heights[slot] && y < 148;
        image::Rgb(if inside {
            bar(slot)
        } else if (148..150).contains(&y) {
            [90, 90, 100]
        } else {
            [252, 252, 250]
        })
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn answer(arm: &str, text: &str, mark: Mark, note: &str) -> Answer {
    Answer { arm: arm.into(), text: text.into(), mark, note: note.into() }
}

fn curves() -> CurveGroup {
    let with_teacher = |values: [(f64, f64); 2], half_life: f64, spread: f64| {
        values.into_iter().enumerate().map(|(index, ends)| series(index + 1, ends, half_life, spread)).collect()
    };
    let all = |values: [(f64, f64); 3], half_life: f64, spread: f64| {
        values.into_iter().enumerate().map(|(index, ends)| series(index, ends, half_life, spread)).collect()
    };
    let similarity =
        chart("Similarity reward", "share with D < 0.5", with_teacher([(0.12, 0.58), (0.1, 0.66)], 140.0, 0.05));
    let accuracy =
        chart("Discriminator accuracy", "this step's rows", with_teacher([(0.95, 0.71), (0.96, 0.67)], 160.0, 0.03));
    CurveGroup {
        title: "Training curves".into(),
        note: "Similarity and answer reward of the student's own samples, as in the paper's figure 3.".into(),
        charts: vec![
            Chart { y_range: Some((0.0, 1.0)), ..similarity },
            Chart {
                y_range: Some((0.0, 1.0)),
                ..chart("Answer reward", "share judged right", all([(0.5, 0.6), (0.5, 0.69), (0.5, 0.74)], 150.0, 0.05))
            },
            Chart { y_range: Some((0.4, 1.0)), ..accuracy },
            chart(
                "KL to the reference",
                "nats a token",
                all([(0.0, 0.012), (0.0, 0.035), (0.0, 0.046)], 250.0, 0.0015),
            ),
            chart("Completion length", "tokens", all([(96.0, 88.0), (96.0, 141.0), (96.0, 158.0)], 200.0, 6.0)),
            chart("Loss", "policy, per step", all([(0.02, 0.004), (0.05, 0.012), (0.06, 0.015)], 120.0, 0.002)),
        ],
    }
}

fn transcripts() -> Vec<Transcript> {
    let first = Transcript {
        pictures: vec![picture(&[60, 120, 90, 35, 80])],
        question: "How many bars are taller than the green one?".into(),
        reference: "1".into(),
        answers: vec![
            answer("SFT", "There are two bars taller than the green bar.\n\nAnswer: 2", Mark::Wrong, "23 tokens"),
            answer(ARMS[0], "Answer: 2", Mark::Wrong, "4 tokens, p_student 0.97"),
            answer(
                ARMS[2],
                "The green bar is the third one. Comparing the heights from left to right:\n- blue: shorter\n- orange: taller\n\
                 - purple: shorter\n- yellow: shorter\n\nOnly the orange bar is taller.\n\nAnswer: 1",
                Mark::Right,
                "58 tokens, p_student 0.31",
            ),
        ],
    };
    let second = Transcript {
        pictures: vec![picture(&[30, 50, 70, 90, 110])],
        question: "Do the bars grow from left to right? (A question with <script>alert('markup')</script> in it.)"
            .into(),
        reference: "yes".into(),
        answers: vec![
            answer("SFT", "Yes, each bar is taller than the one before.", Mark::Right, "11 tokens"),
            answer(ARMS[0], "yes", Mark::Right, "1 token, p_student 0.99"),
            answer(ARMS[2], "It depends on", Mark::Unscored, "cut at the length limit"),
        ],
    };
    vec![first, second]
}

/// The sample.
pub(super) fn report() -> Report {
    let arm = |name: &str, role, correct| ArmResult::new(name, role, Accuracy { correct, total: 500 });
    let pair = |candidate: &str, baseline: &str, wins, losses| PairedComparison {
        candidate: candidate.into(),
        baseline: baseline.into(),
        wins,
        losses,
        total: 500,
    };
    let setting = |(name, value): (&str, &str)| (name.to_string(), value.to_string());
    Report {
        title: "Sample report: every number here is made up".into(),
        subtitle: "Toy student, two toy teachers, 500 held-out toy questions".into(),
        arms: vec![
            arm("Teacher A", ArmRole::Teacher, 441),
            arm("Teacher B", ArmRole::Teacher, 428),
            arm("SFT", ArmRole::Start, 301),
            arm(ARMS[0], ArmRole::Arm, 322),
            arm(ARMS[1], ArmRole::Arm, 363),
            arm(ARMS[2], ArmRole::Arm, 384),
        ],
        comparisons: vec![pair(ARMS[0], "SFT", 51, 30), pair(ARMS[1], ARMS[0], 77, 36), pair(ARMS[2], ARMS[1], 58, 37)],
        curves: vec![curves()],
        transcripts: transcripts(),
        settings: [
            ("questions a step", "18"),
            ("student samples a question", "4"),
            ("teacher responses a question", "4"),
            ("learning rate", "1e-6"),
            ("clip width", "0.2"),
            ("beta", "0.01"),
            ("updates a rollout", "1"),
            ("temperature / top-p / top-k", "1.0 / 0.95 / 50"),
            ("seed", "7"),
        ]
        .map(setting)
        .to_vec(),
        reproduce: vec![
            "git checkout 0000000".into(),
            "cargo run --release --example ril_qwen -- --seed 7 --out runs/sample".into(),
        ],
    }
}
