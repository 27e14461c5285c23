//! Circular evaluation: every question stands in the file once for each rotation of its options, and counts as right
//! only when every rotation is answered right.
//!
//! Source: `mcq_circular_eval`, `prefetch_circular_group` and `eval_circular_group` of
//! `vlmeval/dataset/utils/multiple_choice.py`, commit e8e78f05. Rotations are told by their index: `N`, `1000000 + N`,
//! `2000000 + N`..., or by a column `g_index`. Without a judge a rotation that cannot be read makes the group wrong.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{ChoiceRules, Decided, Evidence, Grade, Item, Scorer, categories};
use crate::vlmeval::cell::Cell;
use crate::vlmeval::error::VlmEvalError;
use crate::vlmeval::python;
use crate::vlmeval::table::{Row, Table};

/// Distance between the indices of two rotations of one question.
const OFFSET: i64 = 1_000_000;

/// The number of the question that a row is a rotation of, and the row's own number.
pub(super) fn group_of(row: &Row<'_>) -> Result<(i64, i64), VlmEvalError> {
    let number = |column: &str, text: &str| {
        python::int(text)
            .and_then(|digits| digits.parse::<i64>().ok())
            .ok_or_else(|| row.error(column, "expected a whole number, which tells the rotations of a question apart"))
    };
    let own = number("index", row.index())?;
    let group = match row.cell("g_index") {
        Cell::Missing => own.rem_euclid(OFFSET),
        cell => number("g_index", &cell.text().unwrap_or_default())?,
    };
    Ok((group, own))
}

/// Rows of each question whose first rotation is there, by the number of the rotation; in the order of the file.
fn groups<'a>(table: &'a Table) -> Result<Vec<Vec<Row<'a>>>, VlmEvalError> {
    let mut rows: HashMap<i64, BTreeMap<i64, Row<'a>>> = HashMap::new();
    let mut order = Vec::new();
    for row in table.rows() {
        let (group, own) = group_of(&row)?;
        rows.entry(group).or_default().insert(own, row);
        if group == own {
            order.push(group);
        }
    }
    Ok(order.into_iter().map(|group| rows.remove(&group).unwrap_or_default().into_values().collect()).collect())
}

/// Places of the rows of the first `count` questions, every rotation of each.
pub(super) fn first_places(table: &Table, count: usize) -> Result<HashSet<usize>, VlmEvalError> {
    let questions = groups(table)?;
    let kept: HashSet<&str> = questions.iter().take(count).flatten().map(Row::index).collect();
    Ok(table.rows().enumerate().filter(|(_, row)| kept.contains(row.index())).map(|(place, _)| place).collect())
}

/// Rows about which nobody need be asked: those of a question with a rotation that names a wrong option by itself, or has no
/// answer.
pub(super) fn decided(
    rules: ChoiceRules,
    table: &Table,
    evidence: Evidence<'_>,
) -> Result<HashSet<String>, VlmEvalError> {
    let mut decided: HashSet<String> = table.rows().map(|row| row.index().to_string()).collect();
    for group in groups(table)? {
        let mut is_wrong = false;
        for row in &group {
            let named = evidence.answer(row).map(|answer| rules.named(row, answer)).transpose()?;
            is_wrong |= match named {
                Some(Some(letter)) => letter.to_string() != rules.truth(row)?,
                Some(None) => false,
                None => true,
            };
        }
        if !is_wrong {
            group.iter().for_each(|row| _ = decided.remove(row.index()));
        }
    }
    Ok(decided)
}

/// One item a question.
pub(super) fn items(rules: ChoiceRules, table: &Table, evidence: Evidence<'_>) -> Result<Vec<Item>, VlmEvalError> {
    groups(table)?.into_iter().map(|group| item(rules, &group, evidence)).collect()
}

fn item(rules: ChoiceRules, group: &[Row<'_>], evidence: Evidence<'_>) -> Result<Item, VlmEvalError> {
    let main = group.first().expect("a group holds at least the row that opened it");
    let grades = group.iter().map(|row| Scorer::Circular(rules).grade_of(row, evidence));
    let grades: Vec<Grade> = grades.collect::<Result<_, _>>()?;
    let letters: Vec<&str> = grades.iter().map(|grade| grade.read_as.as_str()).collect();
    let is_right = grades.iter().all(|grade| grade.score == 1.0);
    let any = |decided| grades.iter().any(|grade| grade.decided == decided);
    // A question with a wrong option is wrong whatever the rotations say that could not be read.
    let is_read = |grade: &Grade| !matches!(grade.decided, Decided::Unread | Decided::Missing);
    let is_refuted = grades.iter().any(|grade| grade.score == 0.0 && is_read(grade));
    let decided = match () {
        () if any(Decided::Missing) && !is_refuted => Decided::Missing,
        () if any(Decided::Unread) && !is_refuted => Decided::Unread,
        () if any(Decided::Judge) => Decided::Judge,
        () => Decided::Match,
    };
    Ok(Item {
        index: main.index().to_string(),
        split: main.text("split").map(|split| split.to_string()),
        groups: categories(main),
        grade: Grade::of(is_right, letters.join(" "), decided),
    })
}
