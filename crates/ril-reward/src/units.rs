//! Units of length, mass and time, and what is made of them.

/// Exponents of metre, kilogram and second.
type Dimension = [i8; 3];

/// A unit of measure: what it measures, and how large it is in metres, kilograms and seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    dimension: Dimension,
    size: f64,
}

const LENGTH: Dimension = [1, 0, 0];
const MASS: Dimension = [0, 1, 0];
const TIME: Dimension = [0, 0, 1];
const AREA: Dimension = [2, 0, 0];
const VOLUME: Dimension = [3, 0, 0];
const SPEED: Dimension = [1, 0, -1];

/// Units that take a prefix, by symbol and by name.
const PREFIXED: [(&str, &str, Dimension, f64); 4] = [
    ("m", "meter metre", LENGTH, 1.0),
    ("g", "gram gramme", MASS, 1e-3),
    ("s", "second", TIME, 1.0),
    ("l", "liter litre", VOLUME, 1e-3),
];

const PREFIXES: [(&str, &str, f64); 7] = [
    ("", "", 1.0),
    ("k", "kilo", 1e3),
    ("d", "deci", 1e-1),
    ("c", "centi", 1e-2),
    ("m", "milli", 1e-3),
    ("µ", "micro", 1e-6),
    ("n", "nano", 1e-9),
];

/// The other units, with all their spellings in small letters; a plural in `s` is read as well.
const OTHERS: [(&str, Dimension, f64); 14] = [
    ("in inch inches", LENGTH, 0.0254),
    ("ft foot feet", LENGTH, 0.3048),
    ("yd yard", LENGTH, 0.9144),
    ("mi mile", LENGTH, 1609.344),
    ("t ton tonne", MASS, 1e3),
    ("lb pound", MASS, 0.453_592_37),
    ("oz ounce", MASS, 0.028_349_523_125),
    ("min minute", TIME, 60.0),
    ("h hr hour", TIME, 3600.0),
    ("d day", TIME, 86_400.0),
    ("week", TIME, 604_800.0),
    ("ha hectare", AREA, 1e4),
    ("mph", SPEED, 0.447_04),
    ("kmh kph", SPEED, 1.0 / 3.6),
];

impl Unit {
    /// The unit that a text starts with, white space and LaTeX left out: `cm`, `square meters`, `m^2`, `km/h`,
    /// `\text{ miles per hour}`. `in` is an inch only where no word follows.
    pub fn at_start(text: &str) -> Option<Self> {
        let mut rest = Rest(text);
        let above = rest.power()?;
        match rest.after_per().and_then(|mut below| below.power()) {
            Some(below) => Some(above.over(below)),
            None => Some(above),
        }
    }

    /// How many of `other` one of this unit is; `None` when the two measure different things.
    pub fn in_units_of(self, other: Self) -> Option<f64> {
        (self.dimension == other.dimension).then(|| self.size / other.size)
    }

    fn named(word: &str) -> Option<Self> {
        let word = word.replace('μ', "µ");
        // `Mm` is no millimetre; a lone capital letter is a unit only as the litre.
        let lower = match word.as_str() {
            "L" => "l".to_owned(),
            _ if word.chars().count() == 1 => word,
            _ => word.to_lowercase(),
        };
        let is_spelled = |names: &str, word: &str| {
            let singular = word.strip_suffix('s').filter(|singular| singular.len() > 1);
            names.split(' ').any(|name| name == word || Some(name) == singular)
        };
        if let Some((_, dimension, size)) = OTHERS.iter().find(|(names, ..)| is_spelled(names, &lower)) {
            return Some(Self { dimension: *dimension, size: *size });
        }
        PREFIXED.iter().find_map(|(symbol, names, dimension, size)| {
            let fits = |prefix: &str, long: &str| {
                lower.strip_prefix(prefix) == Some(symbol)
                    || lower.strip_prefix(long).is_some_and(|rest| is_spelled(names, rest))
            };
            let (.., scale) = PREFIXES.iter().find(|(prefix, long, _)| fits(prefix, long))?;
            Some(Self { dimension: *dimension, size: size * scale })
        })
    }

    fn power(self, exponent: i8) -> Self {
        Self { dimension: self.dimension.map(|d| d * exponent), size: self.size.powi(i32::from(exponent)) }
    }

    fn over(self, below: Self) -> Self {
        let mut dimension = self.dimension;
        dimension.iter_mut().zip(below.dimension).for_each(|(above, below)| *above -= below);
        Self { dimension, size: self.size / below.size }
    }
}

/// A text that is read from its start.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_layout(&mut self) {
        const LAYOUT: [&str; 11] = ["\\text{", "\\mathrm{", "\\mbox{", "\\,", "\\;", "\\ ", "~", "$", "{", "}", "*"];
        loop {
            let trimmed = self.0.trim_start();
            let layout = LAYOUT.iter().find_map(|mark| trimmed.strip_prefix(mark));
            match layout {
                Some(rest) => self.0 = rest,
                None => return self.0 = trimmed,
            }
        }
    }

    /// Passes over letters.
    fn word(&mut self) -> &'a str {
        self.skip_layout();
        let length = self.0.find(|c: char| !c.is_alphabetic()).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(length);
        self.0 = rest;
        word
    }

    /// A unit with its exponent, before (`square`) or behind (`^2`).
    fn power(&mut self) -> Option<Unit> {
        let first = self.word();
        let (exponent, name) = match first.to_lowercase().as_str() {
            "square" | "sq" => (2, self.word()),
            "cubic" | "cu" => (3, self.word()),
            _ => (1, first),
        };
        let is_preposition = name == "in" && exponent == 1 && self.0.trim_start().starts_with(char::is_alphabetic);
        let unit = Unit::named(name).filter(|_| !is_preposition)?;
        let mut behind = *self;
        behind.skip_layout();
        for (mark, exponent) in [("^2", 2), ("^{2}", 2), ("²", 2), ("^3", 3), ("^{3}", 3), ("³", 3), ("2", 2), ("3", 3)]
        {
            let rest = behind.0.strip_prefix(mark).filter(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
            // `5 cm 2` is no area.
            if let Some(rest) = rest.filter(|_| mark.len() > 1 || self.0.starts_with(mark)) {
                self.0 = rest;
                return Some(unit.power(exponent));
            }
        }
        Some(unit.power(exponent))
    }

    /// What follows a slash or `per`.
    fn after_per(mut self) -> Option<Self> {
        self.skip_layout();
        if let Some(rest) = self.0.strip_prefix('/') {
            return Some(Rest(rest));
        }
        (self.word() == "per").then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ratio(a: &str, b: &str) -> Option<f64> {
        Unit::at_start(a)?.in_units_of(Unit::at_start(b)?)
    }

    #[test]
    fn units_convert_into_each_other() {
        let cases = [
            ("m", "cm", 100.0),
            ("km", "meters", 1000.0),
            ("µm", "nm", 1000.0),
            ("inches", "cm", 2.54),
            ("feet", "in", 12.0),
            ("miles", "feet", 5280.0),
            ("kg", "g", 1000.0),
            ("tonnes", "kilograms", 1000.0),
            ("lbs", "oz", 16.0),
            ("hours", "min", 60.0),
            ("weeks", "days", 7.0),
            ("m^2", "cm^2", 1e4),
            ("square feet", "in²", 144.0),
            ("hectares", "sq m", 1e4),
            ("L", "mL", 1000.0),
            ("liters", "cubic centimeters", 1000.0),
            ("m3", "litres", 1000.0),
            ("m/s", "km/h", 3.6),
            ("miles per hour", "mph", 1.0),
            ("\\text{ km}/\\text{h}", "kmh", 1.0),
            ("m/s^2", "cm/s²", 100.0),
            ("\\mathrm{~cm}^{2}", "cm2", 1.0),
        ];
        for (a, b, expected) in cases {
            let got = ratio(a, b).unwrap_or_else(|| panic!("{a} in {b}"));
            assert!((got / expected - 1.0).abs() < 1e-12, "{a} in {b}: {got}");
        }
    }

    #[test]
    fn what_is_no_unit_and_what_measures_something_else() {
        for text in ["", "apples", "in the box", "%", "dollars", "M", "x", "(cm)", "°C", "square", "ss"] {
            assert_eq!(Unit::at_start(text), None, "{text:?}");
        }
        for (a, b) in [("m", "kg"), ("m", "m^2"), ("m/s", "m"), ("L", "m^2"), ("s", "h/km")] {
            assert_eq!(ratio(a, b), None, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>(), likely in "[ kmcµ]{0,2}(m|g|s|square|per|in|/|\\^|2|\\\\text\\{|\\}){0,8}") {
            let _ = (Unit::at_start(&text), Unit::at_start(&likely));
        }
    }
}
