use serde::{Deserialize, Serialize};

use crate::references::AnswerPart;
use crate::{RewardError, Sample, rule};

/// Largest coordinate that is read; a product of two differences stays far inside `f64`.
const MAX_COORDINATE: f64 = 1e9;

/// Which box of an answer with several counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BoxChoice {
    /// The first one.
    #[default]
    First,
    /// The last one, for answers that correct themselves.
    Last,
    /// The one that fits best. A policy learns to write many boxes.
    Best,
}

/// What an overlap is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IouScore {
    /// The overlap itself.
    #[default]
    Overlap,
    /// 1 from this overlap on, in `(0, 1]`, and 0 below; 0.5 is the accuracy of RefCOCO.
    AtLeast(f64),
}

/// Overlap of a box in the answer with the reference: intersection over union, in `[0, 1]`.
///
/// A box is four numbers in square brackets, `[x1, y1, x2, y2]`: two opposite corners, left top first, wherever they stand
/// (`{"bbox_2d": [10, 20, 30, 40], "label": "cat"}` of Qwen2.5-VL included). Both sides must use the same coordinates,
/// pixels or shares. A box without area, or with its corners swapped, overlaps nothing. With several boxes in the reference
/// the best fitting one counts.
///
/// * Reference without a box that has an area: not scored.
/// * Answer without a box: 0.
///
/// ```
/// use ril_reward::{BoxIou, Reward, Sample};
///
/// let answer = "```json\n[{\"bbox_2d\": [0, 0, 10, 20], \"label\": \"cat\"}]\n```";
/// let samples = [Sample::new("Where is the cat?", "[0, 0, 20, 20]", answer), Sample::new("?", "[0, 0, 9, 9]", "there")];
/// assert_eq!(BoxIou::default().score(&samples)?, [Some(0.5), Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxIou {
    /// Default [`BoxChoice::First`].
    pub choice: BoxChoice,
    /// Default [`IouScore::Overlap`].
    pub score: IouScore,
    /// Where the box is looked for; default [`AnswerPart::Marked`].
    pub part: AnswerPart,
}

impl BoxIou {
    /// Checks the threshold, as every batch does.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless it is in `(0, 1]`.
    pub fn validate(&self) -> Result<(), RewardError> {
        match self.score {
            IouScore::AtLeast(share) if !(share > 0.0 && share <= 1.0) => {
                Err(RewardError::Config(format!("overlap: expected a number in (0, 1], got {share}")))
            }
            _ => Ok(()),
        }
    }

    /// The score of one sample.
    pub fn score_of(&self, sample: &Sample<'_>) -> Option<f32> {
        let references: Vec<_> = boxes(sample.reference).into_iter().filter(|corners| area(*corners) > 0.0).collect();
        if references.is_empty() {
            return None;
        }
        let found = boxes(self.part.of(sample.response));
        let chosen = match self.choice {
            BoxChoice::First => &found[..found.len().min(1)],
            BoxChoice::Last => &found[found.len().saturating_sub(1)..],
            BoxChoice::Best => &found,
        };
        let overlaps = chosen.iter().flat_map(|a| references.iter().map(|b| box_iou(*a, *b)));
        let overlap = overlaps.fold(0.0, f64::max);
        Some(match self.score {
            IouScore::Overlap => overlap as f32,
            IouScore::AtLeast(share) => f32::from(u8::from(overlap >= share)),
        })
    }
}

rule::impl_score!(BoxIou, "iou", validate);

/// Intersection over union of two boxes `[x1, y1, x2, y2]`; 0 when one of them has no area.
///
/// ```
/// assert_eq!(ril_reward::box_iou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]), 1.0 / 3.0);
/// ```
pub fn box_iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let common = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
    let (of_a, of_b, of_both) = (area(a), area(b), area(common));
    let is_proper = of_a > 0.0 && of_b > 0.0;
    if is_proper { of_both / (of_a + of_b - of_both) } else { 0.0 }
}

/// 0 unless the second corner lies below and right of the first.
fn area([left, top, right, bottom]: [f64; 4]) -> f64 {
    if right > left && bottom > top { (right - left) * (bottom - top) } else { 0.0 }
}

/// All boxes of a text, in order.
fn boxes(text: &str) -> Vec<[f64; 4]> {
    // In nested brackets the innermost hold the numbers.
    let inside = text.split('[').skip(1).filter_map(|part| part.split_once(']'));
    inside.filter_map(|(inside, _)| corners(inside)).collect()
}

fn corners(inside: &str) -> Option<[f64; 4]> {
    let numbers = inside.splitn(5, ',').map(|number| number.trim().parse::<f64>().ok());
    let numbers: [f64; 4] = numbers.collect::<Option<Vec<_>>>()?.try_into().ok()?;
    numbers.iter().all(|number| number.abs() <= MAX_COORDINATE).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Reward;

    fn score(rule: BoxIou, reference: &str, response: &str) -> Option<f32> {
        rule.score_of(&Sample::new("?", reference, response))
    }

    #[test]
    fn boxes_are_found_in_texts() {
        let cases: [(&str, &[[f64; 4]]); 9] = [
            ("[1, 2, 3, 4]", &[[1.0, 2.0, 3.0, 4.0]]),
            ("It is at [1,2.5,3,4.0].", &[[1.0, 2.5, 3.0, 4.0]]),
            ("[[1, 2, 3, 4], [5, 6, 7, 8]]", &[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]),
            ("[{\"bbox_2d\": [1, 2, 3, 4], \"label\": \"a [cat]\"}]", &[[1.0, 2.0, 3.0, 4.0]]),
            ("[1, 2, 3]", &[]),
            ("[1, 2, 3, 4, 5]", &[]),
            ("[1, 2, 3, x]", &[]),
            ("[1, 2, 3, inf] [1, 2, 3, NaN] [0, 0, 1, 1e300]", &[]),
            ("1, 2, 3, 4] [", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(boxes(text), expected, "{text}");
        }
    }

    #[test]
    fn the_choice_decides_which_box_counts() {
        let of = |choice| {
            score(
                BoxIou { choice, ..BoxIou::default() },
                "[0, 0, 10, 10]",
                "[0, 0, 5, 10], [0, 0, 10, 10], [0, 0, 2, 10]",
            )
        };
        assert_eq!(of(BoxChoice::First), Some(0.5));
        assert_eq!(of(BoxChoice::Last), Some(0.2));
        assert_eq!(of(BoxChoice::Best), Some(1.0));
        let marked = "[0, 0, 1, 1] is too small. <answer>[0, 0, 10, 10]</answer>";
        assert_eq!(score(BoxIou::default(), "[0, 0, 10, 10]", marked), Some(1.0));
        assert_eq!(score(BoxIou::default(), "[90, 90, 99, 99] [0, 0, 10, 10]", "[0, 0, 10, 10]"), Some(1.0));
    }

    #[test]
    fn a_threshold_makes_one_or_zero() {
        let at_least = |share| BoxIou { score: IouScore::AtLeast(share), ..BoxIou::default() };
        assert_eq!(score(at_least(0.5), "[0, 0, 10, 10]", "[0, 0, 5, 10]"), Some(1.0));
        assert_eq!(score(at_least(0.51), "[0, 0, 10, 10]", "[0, 0, 5, 10]"), Some(0.0));
        for share in [0.0, 1.5, f64::NAN] {
            assert!(matches!(at_least(share).score(&[]), Err(RewardError::Config(_))), "{share}");
        }
    }

    #[test]
    fn degenerate_boxes_overlap_nothing() {
        for response in ["[0, 0, 0, 10]", "[10, 10, 0, 0]", "[5, 5, 5, 5]", "nowhere", ""] {
            assert_eq!(score(BoxIou::default(), "[0, 0, 10, 10]", response), Some(0.0), "{response}");
        }
        for reference in ["[5, 5, 5, 5]", "[10, 10, 0, 0]", "left", ""] {
            assert_eq!(score(BoxIou::default(), reference, "[0, 0, 10, 10]"), None, "{reference}");
        }
    }

    fn any_box() -> impl Strategy<Value = [f64; 4]> {
        prop::array::uniform4(-20.0_f64..20.0)
    }

    proptest! {
        #[test]
        fn overlap_is_symmetric_bounded_and_one_with_itself(a in any_box(), b in any_box(), shift in -9.0_f64..9.0) {
            let overlap = box_iou(a, b);
            prop_assert!((0.0..=1.0).contains(&overlap));
            prop_assert_eq!(overlap.to_bits(), box_iou(b, a).to_bits());
            prop_assert_eq!(box_iou(a, a), if area(a) > 0.0 { 1.0 } else { 0.0 });
            let moved = |corners: [f64; 4]| corners.map(|corner| corner + shift);
            prop_assert!((box_iou(moved(a), moved(b)) - overlap).abs() < 1e-9);
            prop_assert!(overlap < 1.0 - 1e-12 || a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9));
        }

        #[test]
        fn any_text_gets_a_score(reference in any::<String>(), text in "[\\[\\]0-9,. e-]{0,40}") {
            for (a, b) in [(&reference, &text), (&text, &reference), (&text, &text)] {
                prop_assert!(score(BoxIou::default(), a, b).is_none_or(|score| (0.0..=1.0).contains(&score)));
            }
        }
    }
}
