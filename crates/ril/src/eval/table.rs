//! The results on the terminal.

use super::{ArmResult, PairedComparison};

/// The table of accuracies for the terminal, columns aligned, one line an arm, a newline at the end.
pub fn table(arms: &[ArmResult]) -> String {
    let header = ["model", "role", "correct", "accuracy", "95% interval"].map(String::from);
    let rows = arms.iter().map(|arm| {
        let (low, high) = arm.accuracy.interval();
        [
            arm.name.clone(),
            arm.role.label().to_string(),
            format!("{}/{}", arm.accuracy.correct, arm.accuracy.total),
            percent(arm.accuracy.rate()),
            format!("{:>5.1} - {:>5.1} %", 100.0 * low, 100.0 * high),
        ]
    });
    aligned(std::iter::once(header).chain(rows).collect(), 2)
}

/// The table of paired comparisons for the terminal, as [`table`].
pub fn comparison_table(comparisons: &[PairedComparison]) -> String {
    let header = ["comparison", "wins", "losses", "difference", "95% interval, p"].map(String::from);
    let rows = comparisons.iter().map(|pair| {
        let (low, high) = pair.interval();
        [
            format!("{} vs {}", pair.candidate, pair.baseline),
            pair.wins.to_string(),
            pair.losses.to_string(),
            signed_points(pair.difference()),
            format!("{:>+5.1} to {:>+5.1}, p {}", 100.0 * low, 100.0 * high, p_value_text(pair.p_value())),
        ]
    });
    aligned(std::iter::once(header).chain(rows).collect(), 1)
}

/// A share as a percentage with one decimal, "-" for NaN.
pub(crate) fn percent(share: f64) -> String {
    if share.is_nan() { "-".to_string() } else { format!("{:.1} %", 100.0 * share) }
}

/// A difference of shares in percentage points, signed, "-" for NaN.
pub(crate) fn signed_points(difference: f64) -> String {
    if difference.is_nan() { "-".to_string() } else { format!("{:+.1} pp", 100.0 * difference) }
}

/// "= 0.041", "< 0.001".
pub(crate) fn p_value_text(p_value: f64) -> String {
    if p_value < 0.001 { "< 0.001".to_string() } else { format!("= {p_value:.3}") }
}

/// The first `text_columns` to the left, the rest to the right, a rule under the header.
pub(crate) fn aligned(rows: Vec<[String; 5]>, text_columns: usize) -> String {
    let width = |text: &str| text.chars().count();
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0));
    let mut lines = Vec::with_capacity(rows.len() + 1);
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let padding = " ".repeat(widths[column] - width(cell));
            if column < text_columns { format!("{cell}{padding}") } else { format!("{padding}{cell}") }
        });
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_string());
    }
    lines.insert(1, "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Accuracy, ArmRole};

    #[test]
    fn columns_are_aligned_for_any_name() {
        let arm = |name: &str, correct, total| ArmResult::new(name, ArmRole::Arm, Accuracy { correct, total });
        let text = table(&[arm("Qwen2.5-VL-72B", 9, 10), arm("é", 1500, 3000), arm("none", 0, 0)]);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{text}");
        assert!(text.contains("50.0 %   48.2 -  51.8 %"), "{text}");
        assert!(text.ends_with('\n') && text.lines().count() == 5);
    }

    #[test]
    fn comparison_names_both_arms_and_the_p_value() {
        let pair = PairedComparison { candidate: "ril".into(), baseline: "sft".into(), wins: 9, losses: 1, total: 100 };
        let text = comparison_table(&[pair]);
        assert!(text.contains("ril vs sft") && text.contains("+8.0 pp") && text.contains("p = 0.021"), "{text}");
    }
}
