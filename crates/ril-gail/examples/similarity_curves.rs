//! Draws every similarity reward over the logit, as an SVG with the values that this crate gives:
//!
//!     cargo run -p ril-gail --example similarity_curves > docs/similarity_rewards.svg

use ril_gail::SimilarityReward;

/// Largest teacher-like logit shown, and the smallest negated.
const MAX_LOGIT: f64 = 6.0;
const TOP: f64 = 78.0;
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 330.0;

struct Curve {
    reward: SimilarityReward,
    label: &'static str,
    colour: &'static str,
    /// Lengths of dashes and gaps: curves that lie on each other stay visible.
    dashes: &'static str,
}

struct Panel {
    title: &'static str,
    left: f64,
    /// Smallest and largest reward shown; what leaves it is cut off.
    range: (f64, f64),
    ticks: &'static [f64],
    curves: Vec<Curve>,
}

impl Panel {
    fn x(&self, logit: f64) -> f64 {
        self.left + (logit + MAX_LOGIT) / (2.0 * MAX_LOGIT) * WIDTH
    }

    fn y(&self, reward: f64) -> f64 {
        TOP + (self.range.1 - reward) / (self.range.1 - self.range.0) * HEIGHT
    }

    /// The points of a curve: every tenth of a logit, and both sides of a jump.
    fn points(&self, reward: SimilarityReward) -> String {
        const STEPS: i32 = 100;
        let last = MAX_LOGIT as i32 * STEPS;
        let height = |at: i32| {
            let teacher_like = f64::from(at) / f64::from(STEPS);
            // The reward takes the logit that is high for a student.
            let reward = f64::from(reward.reward_of_logit(-teacher_like as f32));
            self.y(reward.clamp(self.range.0 - 1.0, self.range.1 + 1.0))
        };
        let is_jump = |one: i32, other: i32| (height(one) - height(other)).abs() > 5.0;
        let is_kept = |at: &i32| at % 10 == 0 || is_jump(*at, at - 1) || is_jump(*at, at + 1);
        let point = |at: i32| format!("{:.1},{:.1}", self.x(f64::from(at) / f64::from(STEPS)), height(at));
        (-last..=last).filter(is_kept).map(point).collect::<Vec<_>>().join(" ")
    }

    fn grid(&self) -> String {
        let (left, right, bottom) = (self.left, self.left + WIDTH, TOP + HEIGHT);
        let mut lines: Vec<String> = Vec::new();
        for logit in (-6..=6).step_by(2) {
            let x = self.x(f64::from(logit));
            lines.push(format!(r#"<path class="grid" d="M{x:.1} {TOP}V{bottom}"/>"#));
            lines.push(format!(r#"<text x="{x:.1}" y="{}" text-anchor="middle">{logit}</text>"#, bottom + 18.0));
        }
        for tick in self.ticks {
            let y = self.y(*tick);
            lines.push(format!(r#"<path class="grid" d="M{left} {y:.1}H{right}"/>"#));
            lines.push(format!(r#"<text x="{}" y="{:.1}" text-anchor="end">{tick}</text>"#, left - 8.0, y + 4.0));
        }
        let (zero, middle) = (self.x(0.0), left + WIDTH / 2.0);
        lines.push(format!(r#"<path class="zero" d="M{zero:.1} {TOP}V{bottom}M{left} {0:.1}H{right}"/>"#, self.y(0.0)));
        lines.push(format!(r#"<rect class="frame" x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"/>"#));
        let title = format!(r#"<text class="title" x="{middle}" y="{}" text-anchor="middle">"#, TOP - 12.0);
        lines.push(format!("{title}{}</text>", self.title));
        let label = format!(r#"<text x="{middle}" y="{}" text-anchor="middle">"#, bottom + 40.0);
        lines.push(format!("{label}teacher-like logit t (high = reads like a teacher's)</text>"));
        let (x, y) = (left - 44.0, TOP + HEIGHT / 2.0);
        lines.push(format!(r#"<text transform="translate({x} {y}) rotate(-90)" text-anchor="middle">reward</text>"#));
        lines.join("\n")
    }

    fn curves(&self, clip: &str) -> String {
        let mut lines = vec![format!(
            r#"<clipPath id="{clip}"><rect x="{}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"/></clipPath>"#,
            self.left
        )];
        for (index, Curve { reward, label, colour, dashes }) in self.curves.iter().enumerate() {
            let style = format!(r#"class="curve" stroke="{colour}" stroke-dasharray="{dashes}""#);
            lines.push(format!(r#"<polyline clip-path="url(#{clip})" {style} points="{}"/>"#, self.points(*reward)));
            let (x, y) = (self.left + 14.0, TOP + 24.0 + 22.0 * index as f64);
            lines.push(format!(r#"<path {style} d="M{x} {y}h34"/>"#));
            lines.push(format!(r#"<text x="{}" y="{}">{label}</text>"#, x + 42.0, y + 4.0));
        }
        lines.join("\n")
    }
}

fn panels() -> [Panel; 2] {
    let curve = |reward, label, colour, dashes| Curve { reward, label, colour, dashes };
    let levels = SimilarityReward::levels(5).expect("at least 2");
    [
        Panel {
            title: "Rewards between 0 and 1",
            left: 70.0,
            range: (-0.1, 1.1),
            ticks: &[0.0, 0.25, 0.5, 0.75, 1.0],
            curves: vec![
                curve(SimilarityReward::Step, "Step (RIL)", "#000000", "none"),
                curve(levels, "Levels, k = 5", "#0072b2", "9 4"),
                curve(SimilarityReward::Probability, "Probability", "#d55e00", "none"),
                curve(SimilarityReward::Dail, "Dail", "#009e73", "3 3"),
            ],
        },
        Panel {
            title: "Rewards without a bound",
            left: 560.0,
            range: (-4.0, 6.0),
            ticks: &[-4.0, -2.0, 0.0, 2.0, 4.0, 6.0],
            curves: vec![
                curve(SimilarityReward::Softplus, "Softplus (GAIL)", "#cc79a7", "none"),
                curve(SimilarityReward::LogOdds, "LogOdds (AIRL)", "#0072b2", "9 4"),
                curve(SimilarityReward::Fairl, "Fairl", "#e69f00", "3 3"),
            ],
        },
    ]
}

/// The whole picture.
pub fn svg() -> String {
    let [bounded, unbounded] = panels();
    let style = ".grid{stroke:#e3e3e3}.zero{stroke:#999}.frame{fill:none;stroke:#666}.title{font-weight:bold}\
                 .head{font-weight:bold;font-size:16px}.curve{fill:none;stroke-width:2.2}";
    let parts = [
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 990 470" width="990" height="470" role="img""##.into(),
        r##"font-family="sans-serif" font-size="13" fill="#222">"##.into(),
        "<title>Similarity rewards over the teacher-like logit</title>".into(),
        format!("<style>{style}</style>"),
        r##"<rect width="990" height="470" fill="#fff"/>"##.into(),
        r#"<text class="head" x="495" y="32" text-anchor="middle">Similarity rewards</text>"#.into(),
        bounded.grid(),
        bounded.curves("bounded"),
        unbounded.grid(),
        unbounded.curves("unbounded"),
        "</svg>\n".into(),
    ];
    parts.join("\n")
}

#[allow(dead_code, reason = "the test that compares the committed picture includes this file for `svg` alone")]
fn main() {
    print!("{}", svg());
}
