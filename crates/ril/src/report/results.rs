//! The headline: accuracies with their intervals, and the paired comparisons.

use super::{
    Colors, Report,
    markup::{escape, push},
    scale::{extent, nice_step, rounded_out, tick_text, ticks, widened},
};
use crate::eval::{ArmResult, ArmRole, PairedComparison, p_value_text, percent, signed_points};

/// Both tables; nothing without arms.
pub(super) fn render(report: &Report, colors: &Colors) -> String {
    let mut out = String::new();
    if report.arms.is_empty() {
        return out;
    }
    out.push_str("<section><h2>Held-out accuracy</h2>");
    accuracies(&mut out, &report.arms, colors);
    if !report.comparisons.is_empty() {
        comparisons(&mut out, &report.comparisons, colors);
    }
    out.push_str(
        "<p class=\"fine\">Bars and ranges are 95% intervals: Wilson score for one model; for two models on the same \
         questions, Bonett and Price on the paired difference, with the exact McNemar p-value.</p></section>\n",
    );
    out
}

fn accuracies(out: &mut String, arms: &[ArmResult], colors: &Colors) {
    let ends = arms.iter().flat_map(|arm| <[f64; 2]>::from(arm.accuracy.interval()));
    // In percent, so that ticks are round percentages.
    let ends = widened(extent(ends.map(|end| 100.0 * end)).unwrap_or((0.0, 100.0)));
    let step = nice_step(ends, 6);
    let (low, high) = rounded_out(ends, step);
    let range = (low.max(0.0), high.min(100.0));
    let place = |percent: f64| 100.0 * (percent - range.0) / (range.1 - range.0);
    let ticks = ticks(range, step);
    let grid: String =
        ticks.iter().map(|&tick| format!(r#"<i class="tick" style="left:{:.2}%"></i>"#, place(tick))).collect();
    out.push_str(
        "<table class=\"accuracy\"><thead><tr><th>Model</th><th></th><th class=\"number\">Correct</th>\
         <th class=\"number\">Accuracy</th><th class=\"number\">95% interval</th><th class=\"bar\"></th></tr></thead><tbody>",
    );
    let best = best_arm(arms);
    for (index, arm) in arms.iter().enumerate() {
        let (low, high) = arm.accuracy.interval();
        let (from, to) = (place(100.0 * low), place(100.0 * high));
        let row = if Some(index) == best { " class=\"best\"" } else { "" };
        let color = colors.number(&arm.name);
        push(
            out,
            format_args!(
                "<tr{row}><td><i class=\"swatch c{color}\"></i>{}</td><td><span class=\"role\">{}</span></td>\
                 <td class=\"number\">{}/{}</td><td class=\"number strong\">{}</td><td class=\"number\">{:.1} – {:.1}</td>",
                escape(&arm.name),
                arm.role.label(),
                arm.accuracy.correct,
                arm.accuracy.total,
                percent(arm.accuracy.rate()),
                100.0 * low,
                100.0 * high
            ),
        );
        push(out, format_args!("<td class=\"bar\"><div class=\"track c{color}\">{grid}"));
        push(out, format_args!(r#"<i class="range" style="left:{from:.2}%;width:{:.2}%"></i>"#, to - from));
        if arm.accuracy.total > 0 {
            push(out, format_args!(r#"<i class="dot" style="left:{:.2}%"></i>"#, place(100.0 * arm.accuracy.rate())));
        }
        out.push_str("</div></td></tr>\n");
    }
    let labels: String = ticks
        .iter()
        .map(|&tick| format!(r#"<span style="left:{:.2}%">{}%</span>"#, place(tick), tick_text(tick, step)))
        .collect();
    push(
        out,
        format_args!(
            "</tbody><tfoot><tr><td colspan=\"5\"></td><td class=\"bar\"><div class=\"scale\">{labels}</div></td></tr></tfoot></table>\n"
        ),
    );
}

/// The trained arm with the highest accuracy, if there are two to choose from.
fn best_arm(arms: &[ArmResult]) -> Option<usize> {
    let trained = || arms.iter().enumerate().filter(|(_, arm)| arm.role == ArmRole::Arm && arm.accuracy.total > 0);
    let best = trained().max_by(|a, b| a.1.accuracy.rate().total_cmp(&b.1.accuracy.rate()))?;
    (trained().count() > 1).then_some(best.0)
}

fn comparisons(out: &mut String, comparisons: &[PairedComparison], colors: &Colors) {
    out.push_str(
        "<table class=\"compare\"><thead><tr><th>On the same questions</th><th class=\"number\">Only the first right</th>\
         <th class=\"number\">Only the second right</th><th class=\"number\">Difference</th>\
         <th class=\"number\">95% interval</th><th class=\"number\">p</th></tr></thead><tbody>",
    );
    for pair in comparisons {
        let (low, high) = pair.interval();
        let named = |name: &str| format!("<i class=\"swatch c{}\"></i>{}", colors.number(name), escape(name));
        push(
            out,
            format_args!(
                "<tr><td>{} <span class=\"versus\">vs</span> {}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
                 <td class=\"number strong\">{}</td><td class=\"number\">{:+.1} to {:+.1}</td><td class=\"number\">{}</td></tr>\n",
                named(&pair.candidate),
                named(&pair.baseline),
                pair.wins,
                pair.losses,
                signed_points(pair.difference()),
                100.0 * low,
                100.0 * high,
                escape(p_value_text(pair.p_value()).trim_start_matches("= "))
            ),
        );
    }
    out.push_str("</tbody></table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Accuracy;

    fn arm(name: &str, role: ArmRole, correct: usize) -> ArmResult {
        ArmResult::new(name, role, Accuracy { correct, total: 100 })
    }

    #[test]
    fn best_is_a_trained_arm_and_needs_a_rival() {
        let arms = [arm("big", ArmRole::Teacher, 99), arm("a", ArmRole::Arm, 50), arm("b", ArmRole::Arm, 60)];
        assert_eq!(best_arm(&arms), Some(2));
        assert_eq!(best_arm(&arms[..2]), None);
    }

    #[test]
    fn bars_stay_inside_their_track() {
        let arms = vec![arm("none", ArmRole::Start, 0), arm("all", ArmRole::Arm, 100)];
        let page = render(&Report { arms, ..Report::default() }, &Colors(vec![]));
        for place in page.split("left:").skip(1) {
            let place: f64 = place.split('%').next().unwrap().parse().unwrap();
            assert!((0.0..=100.0).contains(&place), "{place}");
        }
    }
}
