use serde::{Deserialize, Serialize};

use crate::final_number::{Quantity, final_number};
use crate::number::Number;
use crate::{RewardError, Sample, Verdict, rule};

/// How far two numbers may lie apart and still agree; `a` is the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Tolerance {
    /// `|a - b| <= width`.
    Absolute(f64),
    /// `|a - b| <= share * |a|`.
    Relative(f64),
}

impl Tolerance {
    /// Checks the width or share.
    ///
    /// # Errors
    /// [`RewardError::Config`] unless it is finite and not negative.
    pub fn validate(self) -> Result<(), RewardError> {
        let (Self::Absolute(width) | Self::Relative(width)) = self;
        if width.is_finite() && width >= 0.0 {
            return Ok(());
        }
        Err(RewardError::Config(format!("tolerance: expected a finite number of at least 0, got {width}")))
    }

    pub(crate) fn holds(self, reference: f64, response: f64) -> bool {
        let allowed = match self {
            Self::Absolute(width) => width,
            Self::Relative(share) => share * reference.abs(),
        };
        (reference - response).abs() <= allowed
    }
}

/// What a percent sign on only one of the two sides means; a sign on both sides never matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PercentSign {
    /// `50%` agrees with `50` (the question may have said "in percent") and with `0.5`.
    #[default]
    Optional,
    /// `50%` agrees with `0.5` only.
    Exact,
}

/// What units mean. Where one of the two sides states none that is known, its number is taken to be in the other's.
///
/// Known are, in singular and plural, by symbol and by name: metre, gram, second and litre with nano, micro, milli, centi,
/// deci and kilo; inch, foot, yard, mile; tonne, pound, ounce; minute, hour, day, week; hectare, mph, km/h. Squares and
/// cubes (`m^2`, `m²`, `cm3`, `square feet`) and quotients (`m/s`, `g/cm^3`, `miles per hour`) of them too. No
/// temperatures, which have no common zero, and no gallons, of which there are two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UnitRule {
    /// Nothing: `5 cm` agrees with `5 kg`.
    #[default]
    Ignored,
    /// Both must state the same one: `5 cm` agrees with `5 centimeters`, not with `0.05 m`.
    Same,
    /// Numbers are compared in the reference's unit: `5 cm` agrees with `0.05 m`, not with `5 m` or `5 kg`.
    Converted,
}

/// Right when the final number of the answer agrees with the reference.
///
/// The final number is the **last number of the [`conclusion`](crate::conclusion()) that the answer marks** ("The answer
/// is 3 + 4 = 7."), else the last number of the whole answer. Left out before the last one is taken, where a number
/// remains without them: what stands in parentheses ("12 in total (7 + 5)"), and asides behind a comma ("3, as shown in
/// row 2"). A number behind "not" is left out; a conclusion that denies all its numbers has none.
///
/// Where there are no digits, number words are read: "minus five", "one hundred and five", "none" for 0. "One" is a
/// number only where it counts ("there is one", not "which one"). Digits that a number word follows with another value
/// ("3 million", "7, not seventeen") are two readings, and so no number. Spellings of digits: [`numbers`](crate::numbers()).
///
/// * Reference that is no number: [`Verdict::Unparsed`], because the rule does not apply.
/// * Answer without a number: [`Verdict::Incorrect`].
///
/// ```
/// use ril_reward::{NumericMatch, Reward, Sample};
///
/// let rule = NumericMatch::default();
/// let score = |response| rule.score(&[Sample::new("How much?", "1,234", response)]);
/// assert_eq!(score("1000 and 234 make $1,234.00.")?, [Some(1.0)]);
/// assert_eq!(score("1235")?, [Some(0.0)]);
/// # Ok::<(), ril_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumericMatch {
    /// Default `Relative(1e-6)`: equal up to the rounding of long decimals.
    pub tolerance: Tolerance,
    /// Default [`PercentSign::Optional`].
    pub percent_sign: PercentSign,
    /// Default [`UnitRule::Ignored`].
    #[serde(default)]
    pub units: UnitRule,
}

impl NumericMatch {
    /// 5% relative tolerance, as in the relaxed accuracy of ChartQA (arXiv 2203.10244, section 5.1).
    pub fn relaxed() -> Self {
        Self { tolerance: Tolerance::Relative(0.05), ..Self::default() }
    }

    /// The verdict on one sample.
    pub fn verdict(&self, sample: &Sample<'_>) -> Verdict {
        let whole = Number::whole(sample.reference).map(|number| Quantity { number, unit: None });
        let Some(reference) = whole.or_else(|| final_number(sample.reference)) else {
            return Verdict::Unparsed(format!("reference is no number: {:?}", sample.reference));
        };
        let response = final_number(sample.response);
        Verdict::of(response.is_some_and(|response| self.agrees_in_units(reference, response)))
    }

    fn agrees_in_units(&self, reference: Quantity, response: Quantity) -> bool {
        let number = response.number;
        let Some((expected, stated)) = reference.unit.zip(response.unit) else {
            return self.agrees(reference.number, number);
        };
        match (self.units, stated.in_units_of(expected)) {
            (UnitRule::Ignored, _) => self.agrees(reference.number, number),
            (UnitRule::Same, factor) => factor == Some(1.0) && self.agrees(reference.number, number),
            (UnitRule::Converted, Some(factor)) => {
                self.agrees(reference.number, Number { value: number.value * factor, ..number })
            }
            (UnitRule::Converted, None) => false,
        }
    }

    fn agrees(&self, reference: Number, response: Number) -> bool {
        let is_same_value = self.tolerance.holds(reference.value, response.value);
        if reference.is_percent == response.is_percent {
            return is_same_value;
        }
        let is_same_quantity = self.tolerance.holds(reference.as_fraction(), response.as_fraction());
        match self.percent_sign {
            PercentSign::Optional => is_same_value || is_same_quantity,
            PercentSign::Exact => is_same_quantity,
        }
    }
}

impl Default for NumericMatch {
    fn default() -> Self {
        Self { tolerance: Tolerance::Relative(1e-6), percent_sign: PercentSign::Optional, units: UnitRule::Ignored }
    }
}

rule::impl_rule!(NumericMatch, "numeric");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Judge;

    fn verdict(rule: NumericMatch, reference: &str, response: &str) -> Verdict {
        rule.verdict(&Sample::new("How many?", reference, response))
    }

    #[test]
    fn the_final_number_decides() {
        let cases = [
            ("12", "The answer is 12.", true),
            ("7", "3 + 4 = 7", true),
            ("7", "7 + 1 = 8", false),
            ("12", "The answer is 12. (See step 3.)", true),
            ("12", "Step 1: 5. Step 2: 7. Answer: 5 + 7 = 12", true),
            ("12", "\\boxed{12} is from 3 rows", true),
            ("12", "<answer>12</answer> 13", true),
            ("1234", "It costs 1,234 dollars", true),
            ("1,234", "1234.0", true),
            ("-3", "−3", true),
            ("-3", "3", false),
            ("3", "-3", false),
            ("0", "0.0", true),
            ("0", "1e-9", false),
            ("0.75", "3/4", true),
            ("3/4", "\\frac{3}{4}", true),
            ("1/3", "0.3333", false),
            ("$5", "5 dollars", true),
            ("50%", "50", true),
            ("50", "50%", true),
            ("50%", "0.5", true),
            ("0.5", "50 %", true),
            ("50%", "5", false),
            ("5", "five", true),
            ("5", "The answer is five, not 4.", false),
            ("21", "There are twenty-one of them", true),
            ("5", "five of 6", false),
            ("7 apples", "7", true),
            ("seven", "7", true),
            ("12", "", false),
            ("12", "no idea", false),
        ];
        for (reference, response, is_correct) in cases {
            let expected = Verdict::of(is_correct);
            assert_eq!(verdict(NumericMatch::default(), reference, response), expected, "{reference:?} {response:?}");
        }
    }

    #[test]
    fn number_words_are_read_whole_or_not_at_all() {
        let cases = [
            ("1", "I cannot see which one.", false),
            ("1", "The larger one.", false),
            ("1", "one", true),
            ("1", "There is one.", true),
            ("1", "One cat", true),
            ("1", "one hundred", false),
            ("100", "one hundred", true),
            ("100", "a hundred", true),
            ("105", "It is one hundred and five.", true),
            ("3000000", "three million", true),
            ("5", "minus five", false),
            ("-5", "minus five", true),
            ("-5", "It is negative five.", true),
            ("5", "ten minus five", true),
            ("0", "none", true),
            ("0", "None of them is red.", true),
            ("0", "There are none.", true),
            ("3", "3 million", false),
            ("4", "The answer is five, not 4.", false),
            ("2", "I see 2 dogs and three cats.", false),
            ("7", "The answer is 7 (seven).", true),
            ("7", "The answer is 7, seven in words", true),
            ("5", "not five", false),
        ];
        for (reference, response, is_correct) in cases {
            let expected = Verdict::of(is_correct);
            assert_eq!(verdict(NumericMatch::default(), reference, response), expected, "{reference:?} {response:?}");
        }
    }

    #[test]
    fn asides_and_denied_numbers_do_not_decide() {
        let cases = [
            ("3", "The answer is 3, as shown in row 2.", true),
            ("2", "The answer is 3, as shown in row 2.", false),
            ("3", "The answer is 3 because row 2 says so", true),
            ("12", "There are 12 in total (7 + 5).", true),
            ("5", "There are 12 in total (7 + 5).", false),
            ("12", "(12)", true),
            ("5", "The answer is not 5.", false),
            ("5", "There are 4. The answer is not 5.", false),
            ("4", "The answer is not 5 but 4.", true),
            ("4", "The answer is 4, not 5.", true),
            ("5", "It isn't 5.", false),
        ];
        for (reference, response, is_correct) in cases {
            let expected = Verdict::of(is_correct);
            assert_eq!(verdict(NumericMatch::default(), reference, response), expected, "{reference:?} {response:?}");
        }
    }

    #[test]
    fn a_reference_without_a_number_is_not_judged() {
        let verdict = verdict(NumericMatch::default(), "Paris", "7");
        assert_eq!(verdict, Verdict::Unparsed("reference is no number: \"Paris\"".into()));
    }

    #[test]
    fn tolerances_are_inclusive_and_relative_to_the_reference() {
        let relaxed = NumericMatch::relaxed();
        for (response, is_correct) in [("95", true), ("105", true), ("94.9", false), ("105.1", false), ("-100", false)]
        {
            assert_eq!(verdict(relaxed, "100", response), Verdict::of(is_correct), "{response}");
        }
        let absolute = NumericMatch { tolerance: Tolerance::Absolute(0.5), ..NumericMatch::default() };
        for (response, is_correct) in [("0.5", true), ("-0.5", true), ("0.6", false)] {
            assert_eq!(verdict(absolute, "0", response), Verdict::of(is_correct), "{response}");
        }
    }

    #[test]
    fn an_exact_percent_sign_means_a_hundredth() {
        let exact = NumericMatch { percent_sign: PercentSign::Exact, ..NumericMatch::default() };
        for (reference, response, is_correct) in
            [("50%", "0.5", true), ("50%", "50%", true), ("50%", "50", false), ("0.5", "0.5%", false)]
        {
            assert_eq!(verdict(exact, reference, response), Verdict::of(is_correct), "{reference} {response}");
        }
    }

    #[test]
    fn units_are_ignored_the_same_or_converted() {
        let cases = [
            ("5 cm", "It is 5 cm.", true, true, true),
            ("5 cm", "It is 5 centimeters long.", true, true, true),
            ("5 cm", "It is $5\\text{ cm}$.", true, true, true),
            ("5 cm", "It is 0.05 m.", false, false, true),
            ("5 cm", "It is 5 m.", true, false, false),
            ("5 cm", "It is 5 kg.", true, false, false),
            ("5 cm", "5", true, true, true),
            ("5", "5 cm", true, true, true),
            ("5 apples", "5 pears", true, true, true),
            ("72 km/h", "The answer is 20 m/s", false, false, true),
            ("2 hours", "120 minutes", false, false, true),
            ("1 L", "1000 cm^3", false, false, true),
            ("1 m^2", "1 m", true, false, false),
            ("2 kg", "2000 g", false, false, true),
            ("3 ft", "1 yard", false, false, true),
        ];
        for (reference, response, ignored, same, converted) in cases {
            for (units, is_correct) in
                [(UnitRule::Ignored, ignored), (UnitRule::Same, same), (UnitRule::Converted, converted)]
            {
                let rule = NumericMatch { units, ..NumericMatch::default() };
                let expected = Verdict::of(is_correct);
                assert_eq!(verdict(rule, reference, response), expected, "{reference:?} {response:?} {units:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(reference in any::<String>(), response in any::<String>()) {
            let sample = Sample::new("?", &reference, &response);
            prop_assert_eq!(NumericMatch::default().judge(&[sample]).expect("rules do not fail").len(), 1);
        }

        #[test]
        fn a_number_agrees_with_itself_in_a_sentence(value in -1_000_000_i64..1_000_000, other in 1_i64..1000) {
            let reference = value.to_string();
            let right = verdict(NumericMatch::default(), &reference, &format!("We add {other} and get {value}."));
            let wrong = verdict(NumericMatch::default(), &reference, &format!("We get {}.", value + other));
            prop_assert_eq!(right, Verdict::Correct);
            prop_assert_eq!(wrong, Verdict::Incorrect);
        }
    }
}
