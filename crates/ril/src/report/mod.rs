//! The report of a run: one HTML file that needs nothing else.
//!
//! No script, no font, no request: styles are inline, charts are inline SVG, pictures are `data:` URIs, and a content
//! security policy in the file forbids the rest. It follows the reader's light or dark setting. All text is escaped, so
//! a question or an answer with markup in it is shown, never run.

mod chart;
mod markup;
mod results;
#[cfg(test)]
mod sample;
mod scale;
mod transcript;

use crate::eval::{ArmResult, ArmRole, PairedComparison};
use markup::{escape, push};

/// Colors of the palette in `style.css`; a run with more arms starts over.
const PALETTE: usize = 8;

/// All that the report shows. Empty parts are left out.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// A line below the heading: student, teachers, data.
    pub subtitle: String,
    /// Name and value of every setting that matters.
    pub settings: Vec<(String, String)>,
    /// Held-out accuracy of teachers, starting point and arms, in this order.
    pub arms: Vec<ArmResult>,
    /// Arms compared on the same questions.
    pub comparisons: Vec<PairedComparison>,
    /// Training curves. A series that is named like an arm has the arm's color everywhere.
    pub curves: Vec<CurveGroup>,
    /// Sample questions with every arm's answer.
    pub transcripts: Vec<Transcript>,
    /// Shell commands that repeat the run, one each.
    pub reproduce: Vec<String>,
}

/// Charts that belong together and share a legend.
#[derive(Debug, Clone, Default)]
pub struct CurveGroup {
    /// The heading.
    pub title: String,
    /// What to look at; may be empty.
    pub note: String,
    /// The charts, in reading order.
    pub charts: Vec<Chart>,
}

/// One quantity over steps, one line an arm.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The quantity.
    pub title: String,
    /// Its unit or meaning, in small print; may be empty.
    pub note: String,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Fixed range of the vertical axis; by default that of the values, to round numbers.
    pub y_range: Option<(f64, f64)>,
    /// The lines.
    pub series: Vec<Series>,
}

impl Default for Chart {
    fn default() -> Self {
        let (title, note) = (String::new(), String::new());
        Self { title, note, x_label: "step".to_string(), y_range: None, series: Vec::new() }
    }
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Shown in the legend; an arm's name gives it the arm's color.
    pub name: String,
    /// `(step, value)`; values that are not finite are skipped.
    pub points: Vec<(f64, f64)>,
}

/// A question, its pictures, and what every arm answered.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    /// Encoded pictures (PNG, JPEG, WebP or BMP), embedded as they are: shrink large ones before.
    pub pictures: Vec<Vec<u8>>,
    /// The question.
    pub question: String,
    /// The right answer.
    pub reference: String,
    /// One answer an arm.
    pub answers: Vec<Answer>,
}

/// What one arm answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Name of the arm.
    pub arm: String,
    /// Its text.
    pub text: String,
    /// The judge's verdict.
    pub mark: Mark,
    /// Small print, such as its length or `p_student`; may be empty.
    pub note: String,
}

/// The verdict on an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Judged correct.
    Right,
    /// Judged incorrect.
    Wrong,
    /// The judge's reply could not be read.
    Unscored,
}

impl From<Option<bool>> for Mark {
    fn from(correct: Option<bool>) -> Self {
        match correct {
            Some(true) => Self::Right,
            Some(false) => Self::Wrong,
            None => Self::Unscored,
        }
    }
}

/// The report as one HTML file.
pub fn render(report: &Report) -> String {
    let colors = Colors::of(report);
    let mut page = String::with_capacity(1 << 18);
    let (title, style) = (escape(&report.title), include_str!("style.css"));
    push(
        &mut page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<header><h1>{title}</h1>"
        ),
    );
    if !report.subtitle.is_empty() {
        push(&mut page, format_args!("<p>{}</p>", escape(&report.subtitle)));
    }
    page.push_str("</header>\n<main>\n");
    page.push_str(&results::render(report, &colors));
    report.curves.iter().for_each(|group| curves(&mut page, group, &colors));
    page.push_str(&transcript::render(&report.transcripts, &colors));
    settings(&mut page, report);
    page.push_str("</main>\n<footer>Written by RIL. Curves: Gaussian mean over the raw points; the number at the end of a line is \
         its last mean.</footer>\n</body>\n</html>\n");
    page
}

fn curves(page: &mut String, group: &CurveGroup, colors: &Colors) {
    push(page, format_args!("<section><h2>{}</h2>", escape(&group.title)));
    if !group.note.is_empty() {
        push(page, format_args!("<p class=\"lead\">{}</p>", escape(&group.note)));
    }
    let mut names: Vec<&str> = Vec::new();
    for series in group.charts.iter().flat_map(|chart| &chart.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    names.sort_by_key(|name| colors.rank(name));
    page.push_str("<div class=\"legend\">");
    for name in names {
        push(page, format_args!("<span><i class=\"swatch c{}\"></i>{}</span>", colors.number(name), escape(name)));
    }
    page.push_str("</div>\n<div class=\"charts\">\n");
    for chart in &group.charts {
        page.push_str(&chart::render(chart, &|name| colors.number(name)));
    }
    page.push_str("</div></section>\n");
}

fn settings(page: &mut String, report: &Report) {
    if !report.settings.is_empty() {
        page.push_str("<section><h2>Settings</h2><dl class=\"settings\">");
        for (name, value) in &report.settings {
            push(page, format_args!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value)));
        }
        page.push_str("</dl></section>\n");
    }
    if !report.reproduce.is_empty() {
        let commands: Vec<_> = report.reproduce.iter().map(|command| escape(command)).collect();
        push(page, format_args!("<section><h2>How to reproduce</h2><pre>{}</pre></section>\n", commands.join("\n")));
    }
}

/// A palette number for every arm, the same in tables, charts and transcripts.
struct Colors(Vec<String>);

impl Colors {
    fn of(report: &Report) -> Self {
        let trained = report.arms.iter().filter(|arm| arm.role == ArmRole::Arm).map(|arm| &arm.name);
        let series = report.curves.iter().flat_map(|group| &group.charts).flat_map(|chart| &chart.series);
        let mut names: Vec<String> = Vec::new();
        for name in trained.chain(series.map(|series| &series.name)) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Self(names)
    }

    /// Class `c{number}` of the style sheet; gray for a model that is not trained here.
    fn number(&self, name: &str) -> usize {
        self.rank(name).map_or(PALETTE, |rank| rank % PALETTE)
    }

    /// Place among the arms, which is the order of a legend.
    fn rank(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_any_text_cannot_break_out() {
        let evil = "</title></style><script>alert(1)</script><img src=x onerror=\"alert(1)\">' \" &";
        let answer = Answer { arm: evil.into(), text: evil.into(), mark: Mark::Wrong, note: evil.into() };
        let chart = Chart {
            title: evil.into(),
            note: evil.into(),
            x_label: evil.into(),
            series: vec![Series { name: evil.into(), points: vec![(0.0, 1.0), (1.0, 2.0)] }],
            ..Chart::default()
        };
        let pair = PairedComparison { candidate: evil.into(), baseline: evil.into(), wins: 2, losses: 1, total: 9 };
        let report = Report {
            title: evil.into(),
            subtitle: evil.into(),
            settings: vec![(evil.into(), evil.into())],
            arms: vec![ArmResult::new(evil, ArmRole::Arm, crate::eval::Accuracy { correct: 1, total: 2 })],
            comparisons: vec![pair],
            curves: vec![CurveGroup { title: evil.into(), note: evil.into(), charts: vec![chart] }],
            transcripts: vec![Transcript {
                pictures: vec![vec![1, 2, 3]],
                question: evil.into(),
                reference: evil.into(),
                answers: vec![answer],
            }],
            reproduce: vec![evil.into()],
        };
        let page = render(&report);
        assert!(!page.contains("<script") && !page.contains("<img src=x") && !page.contains("onerror=\""));
        assert_eq!(page.matches("</style>").count(), 1);
        assert_eq!(page.matches("</title>").count(), 2, "of the page and of the one line");
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn page_asks_for_nothing_from_elsewhere() {
        let page = render(&sample::report());
        for address in ["http://", "https://", "url(", "@import", "<script", "<link", "src=\"/", "//cdn"] {
            assert!(!page.contains(address), "{address}");
        }
        assert!(page.contains("data:image/png;base64,iVBORw0KGgo"));
    }

    #[test]
    fn empty_report_is_a_page_without_sections() {
        let page = render(&Report { title: "empty".into(), ..Report::default() });
        assert!(page.contains("<h1>empty</h1>") && !page.contains("<section"));
    }

    #[test]
    fn an_arm_has_one_color_everywhere() {
        let report = sample::report();
        let colors = Colors::of(&report);
        let numbers: Vec<_> = report.arms.iter().map(|arm| colors.number(&arm.name)).collect();
        assert_eq!(numbers, [PALETTE, PALETTE, PALETTE, 0, 1, 2]);
    }

    /// Not only a test: `RIL_REPORT_SAMPLE=report.html cargo test -p ril report` writes the sample for the eye.
    #[test]
    fn sample_has_balanced_elements() {
        let page = render(&sample::report());
        for element in ["section", "div", "table", "tr", "td", "svg", "figure", "article", "dl", "span"] {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
        if let Some(path) = std::env::var_os("RIL_REPORT_SAMPLE") {
            std::fs::write(path, page).unwrap();
        }
    }
}
