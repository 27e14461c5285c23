//! Numbers of an expression: exact while they fit, and known well enough to be told apart when they do not.

/// A prime `p` for which `(p - 1) / 2` is prime too: no power of 2 or 10 with an exponent below `(p - 1) / 2`, about 1e18,
/// has the residue 1. (Modulo `2^61 - 1` the powers of 2 come back after 61 steps.)
const PRIME: u64 = 1_987_654_321_987_655_507;

/// An exact fraction in lowest terms; the denominator is positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ratio {
    pub above: i128,
    pub below: i128,
}

impl Ratio {
    /// `above / below`; `None` when that is undefined or does not fit.
    pub fn new(above: i128, below: i128) -> Option<Self> {
        let divisor = i128::try_from(gcd(above.unsigned_abs(), below.unsigned_abs())).ok().filter(|_| below != 0)?;
        let sign = below.signum();
        Some(Self { above: (above / divisor).checked_mul(sign)?, below: (below / divisor).checked_mul(sign)? })
    }

    pub fn integer(value: i128) -> Self {
        Self { above: value, below: 1 }
    }

    /// The value when it is a whole number.
    pub fn as_integer(self) -> Option<i128> {
        (self.below == 1).then_some(self.above)
    }

    fn add(self, other: Self) -> Option<Self> {
        let above = self.above.checked_mul(other.below)?.checked_add(other.above.checked_mul(self.below)?)?;
        Self::new(above, self.below.checked_mul(other.below)?)
    }

    fn mul(self, other: Self) -> Option<Self> {
        Self::new(self.above.checked_mul(other.above)?, self.below.checked_mul(other.below)?)
    }

    fn inverse(self) -> Option<Self> {
        Self::new(self.below, self.above)
    }

    fn pow(self, exponent: i128) -> Option<Self> {
        let base = if exponent < 0 { self.inverse()? } else { self };
        // Only 0, 1 and -1 have a power beyond the 127th that fits; their parity is all that matters.
        let exponent = exponent.unsigned_abs();
        let exponent = if exponent > 127 { 128 + exponent % 2 } else { exponent };
        (0..exponent).try_fold(Self::integer(1), |power, _| power.mul(base))
    }

    /// The exact root, when there is one; a negative number has one of odd degree.
    fn root(self, degree: u32) -> Option<Self> {
        let root = |value: i128| {
            let guess = (value.unsigned_abs() as f64).powf(1.0 / f64::from(degree)).round() as i128;
            let signed = guess * value.signum();
            (signed.checked_pow(degree)? == value).then_some(signed)
        };
        Self::new(root(self.above)?, root(self.below)?)
    }

    fn to_f64(self) -> f64 {
        self.above as f64 / self.below as f64
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A complex value, its exact fraction while that fits `i128`, and its residue modulo [`PRIME`] while it is rational.
///
/// The residue outlives the fraction: `2^200` and `2^200 + 1` are the same `f64` and different residues. It tells numbers
/// apart and proves nothing alone: 0 and [`PRIME`] have the same one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    pub exact: Option<Ratio>,
    pub re: f64,
    pub im: f64,
    residue: Option<u64>,
}

impl From<Ratio> for Number {
    fn from(ratio: Ratio) -> Self {
        let residue = inverse_mod(reduce(ratio.below)).map(|below| mul_mod(reduce(ratio.above), below));
        Self { exact: Some(ratio), re: ratio.to_f64(), im: 0.0, residue }
    }
}

impl Number {
    pub const UNDEFINED: Self = Self { exact: None, re: f64::NAN, im: f64::NAN, residue: None };
    pub const IMAGINARY: Self = Self { exact: None, re: 0.0, im: 1.0, residue: None };

    pub fn real(value: f64) -> Self {
        Self::complex(value, 0.0)
    }

    fn complex(re: f64, im: f64) -> Self {
        Self { exact: None, re, im, residue: None }
    }

    pub fn integer(value: i128) -> Self {
        Ratio::integer(value).into()
    }

    /// The number written with these decimal digits before and behind its point; other characters are passed over.
    pub fn from_digits(whole: &str, fraction: &str) -> Self {
        let digits = || whole.chars().chain(fraction.chars()).filter_map(|c| c.to_digit(10));
        let scale = fraction.chars().filter(char::is_ascii_digit).count();
        let above = digits().try_fold(0_i128, |value, digit| value.checked_mul(10)?.checked_add(digit.into()));
        let below = u32::try_from(scale).ok().and_then(|scale| 10_i128.checked_pow(scale));
        if let Some(ratio) = above.zip(below).and_then(|(above, below)| Ratio::new(above, below)) {
            return ratio.into();
        }
        let residue = digits().fold(0, |value, digit| add_mod(mul_mod(value, 10), digit.into()));
        let below = inverse_mod(pow_mod(10, scale as u64));
        let value = digits().fold(0.0, |value, digit| value * 10.0 + f64::from(digit)) / 10_f64.powf(scale as f64);
        Self { residue: below.map(|below| mul_mod(residue, below)), ..Self::real(value) }
    }

    pub fn is_finite(&self) -> bool {
        self.re.is_finite() && self.im.is_finite()
    }

    /// True for a number that is real up to rounding.
    pub fn is_real(&self) -> bool {
        self.im.abs() <= 1e-12 * self.re.abs().max(1.0)
    }

    pub fn is_zero(&self) -> bool {
        match (self.exact, self.residue) {
            (Some(exact), _) => exact.above == 0,
            // An integer of residue 0 is 0 or a multiple of the prime.
            (None, Some(residue)) => residue == 0 && self.size() < PRIME as f64,
            (None, None) => self.re == 0.0 && self.im == 0.0,
        }
    }

    /// The value when it is exactly a whole number.
    pub fn as_integer(&self) -> Option<i128> {
        self.exact?.as_integer()
    }

    /// Equal exactly where both are known exactly; else with equal residues, where both have one, and up to rounding
    /// errors. Undefined values equal nothing.
    pub fn equals(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.exact, other.exact) {
            return a == b;
        }
        let size = self.size().max(other.size());
        match (self.residue, other.residue) {
            // Beyond `f64` the residue is all that is known, and the sign.
            (Some(a), Some(b)) => a == b && (self.re == other.re || self.distance(other) <= 1e-9 * size),
            _ => size.is_finite() && self.distance(other) <= 1e-9 * size + 1e-13,
        }
    }

    pub fn size(&self) -> f64 {
        self.re.hypot(self.im)
    }

    pub fn distance(&self, other: &Self) -> f64 {
        (self.re - other.re).hypot(self.im - other.im)
    }

    fn with(self, exact: Option<Ratio>, residue: Option<u64>) -> Self {
        let residue = residue.filter(|_| self.is_finite() || self.re.is_infinite());
        exact.map_or(Self { residue, ..self }, Self::from)
    }

    pub fn add(self, other: Self) -> Self {
        let residue = self.residue.zip(other.residue).map(|(a, b)| add_mod(a, b));
        let exact = self.exact.zip(other.exact).and_then(|(a, b)| a.add(b));
        Self::complex(self.re + other.re, self.im + other.im).with(exact, residue)
    }

    pub fn neg(self) -> Self {
        self.mul(Self::integer(-1))
    }

    pub fn mul(self, other: Self) -> Self {
        let residue = self.residue.zip(other.residue).map(|(a, b)| mul_mod(a, b));
        let exact = self.exact.zip(other.exact).and_then(|(a, b)| a.mul(b));
        if self.im == 0.0 && other.im == 0.0 {
            return Self::real(self.re * other.re).with(exact, residue);
        }
        let (re, im) = (self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re);
        Self::complex(re, im).with(exact, residue)
    }

    pub fn div(self, other: Self) -> Self {
        if other.is_zero() {
            return Self::UNDEFINED;
        }
        let square = other.re * other.re + other.im * other.im;
        let value = match other.im == 0.0 {
            true => Self::real(1.0 / other.re),
            false => Self::complex(other.re / square, -other.im / square),
        };
        self.mul(value.with(other.exact.and_then(Ratio::inverse), other.residue.and_then(inverse_mod)))
    }

    /// The power; of a negative number with an exponent of odd denominator the real one, else the principal one.
    pub fn pow(self, exponent: Self) -> Self {
        if let Some(whole) = exponent.as_integer() {
            return self.pow_integer(whole);
        }
        if self.is_zero() {
            return if exponent.re > 0.0 { Self::integer(0) } else { Self::UNDEFINED };
        }
        if let Some((base, exponent)) = self.exact.zip(exponent.exact).filter(|(base, _)| base.above > 0)
            && let Some(root) = small_degree(exponent.below).and_then(|degree| base.root(degree))
        {
            return Self::from(root).pow_integer(exponent.above);
        }
        if let Some(exact) = exponent.exact.filter(|exact| exact.below % 2 != 0 && self.im == 0.0 && self.re < 0.0) {
            let power = self.neg().pow(exponent);
            return if exact.above % 2 == 0 { power } else { power.neg() };
        }
        if self.im == 0.0 && self.re > 0.0 && exponent.im == 0.0 {
            return Self::real(self.re.powf(exponent.re));
        }
        exponent.mul(self.ln()).exp()
    }

    fn pow_integer(self, exponent: i128) -> Self {
        if self.is_zero() && exponent < 0 {
            return Self::UNDEFINED;
        }
        let residue = self.residue.and_then(|base| match base {
            // A power of 0 whose exponent is a multiple of the order would be taken for 1.
            0 if exponent != 0 => (exponent > 0).then_some(0),
            _ => Some(pow_mod(base, exponent.rem_euclid(i128::from(PRIME - 1)) as u64)),
        });
        let exact = self.exact.and_then(|base| base.pow(exponent));
        let value = match self.im == 0.0 {
            true => Self::real(self.re.powf(exponent as f64)),
            false => {
                let (length, angle) = (self.size().powf(exponent as f64), self.im.atan2(self.re) * exponent as f64);
                Self::complex(length * angle.cos(), length * angle.sin())
            }
        };
        value.with(exact, residue)
    }

    /// The real root where there is one, else the principal one.
    pub fn root(self, degree: Self) -> Self {
        let odd = degree.as_integer().filter(|degree| degree % 2 != 0);
        let exact = degree.as_integer().and_then(small_degree).and_then(|degree| self.exact?.root(degree));
        match (exact.filter(|_| odd.is_some() || self.re >= 0.0), odd) {
            (Some(root), _) => root.into(),
            (None, Some(_)) if self.im == 0.0 && self.re < 0.0 => self.neg().root(degree).neg(),
            _ => self.pow(Self::integer(1).div(degree)),
        }
    }

    pub fn exp(self) -> Self {
        let length = self.re.exp();
        if self.im == 0.0 { Self::real(length) } else { Self::complex(length * self.im.cos(), length * self.im.sin()) }
    }

    /// The principal logarithm.
    pub fn ln(self) -> Self {
        match self.is_zero() {
            true => Self::UNDEFINED,
            false => Self::complex(self.size().ln(), self.im.atan2(self.re)),
        }
    }

    /// `function` of a real number; undefined elsewhere.
    pub fn map_real(self, function: impl Fn(f64) -> f64) -> Self {
        if self.is_real() { Self::real(function(self.re)) } else { Self::UNDEFINED }
    }

    pub fn abs(self) -> Self {
        match self.exact {
            Some(exact) => Ratio { above: exact.above.saturating_abs(), ..exact }.into(),
            None if self.im == 0.0 && self.re < 0.0 => self.neg(),
            None if self.im == 0.0 => self,
            None => Self::real(self.size()),
        }
    }
}

fn small_degree(degree: i128) -> Option<u32> {
    u32::try_from(degree).ok().filter(|degree| (1..=64).contains(degree))
}

fn reduce(value: i128) -> u64 {
    value.rem_euclid(i128::from(PRIME)) as u64
}

fn add_mod(a: u64, b: u64) -> u64 {
    (a + b) % PRIME
}

fn mul_mod(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
}

fn pow_mod(mut base: u64, mut exponent: u64) -> u64 {
    let mut power = 1;
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = mul_mod(power, base);
        }
        base = mul_mod(base, base);
        exponent /= 2;
    }
    power
}

fn inverse_mod(value: u64) -> Option<u64> {
    match value {
        0 => None,
        // Whole numbers, the most frequent of all, have this denominator.
        1 => Some(1),
        _ => Some(pow_mod(value, PRIME - 2)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ratio(above: i128, below: i128) -> Number {
        Ratio::new(above, below).expect("fits").into()
    }

    #[test]
    fn roots_and_powers_stay_exact_where_they_can() {
        assert_eq!(ratio(4, 9).pow(ratio(1, 2)).exact, Ratio::new(2, 3));
        assert_eq!(ratio(8, 27).pow(ratio(-2, 3)).exact, Ratio::new(9, 4));
        assert_eq!(ratio(-8, 1).root(Number::integer(3)).exact, Ratio::new(-2, 1));
        assert!(ratio(2, 1).pow(ratio(1, 2)).exact.is_none());
        let root = ratio(-4, 1).root(Number::integer(2));
        assert!(root.distance(&Number::complex(0.0, 2.0)) < 1e-12);
    }

    #[test]
    fn numbers_beyond_i128_are_told_apart() {
        let huge = Number::integer(2).pow(Number::integer(200));
        assert!(huge.exact.is_none());
        assert!(huge.equals(&Number::integer(4).pow(Number::integer(100))));
        assert!(!huge.equals(&huge.add(Number::integer(1))));
        let digits = "1".repeat(60);
        assert!(!Number::from_digits(&digits, "").equals(&Number::from_digits(&digits.replace("11", "12"), "")));
        assert!(Number::from_digits(&digits, "").equals(&Number::from_digits(&digits, "00")));
    }

    #[test]
    fn integers_that_differ_by_a_multiple_of_a_prime_differ() {
        let power = |base, exponent| Number::integer(base).pow(Number::integer(exponent));
        let mersenne = Number::integer((1 << 61) - 1);
        let modulus = Number::integer(PRIME.into());
        let pairs = [
            (power(2, 64), Number::integer(8)),
            (power(2, 1000), power(2, 24)),
            (mersenne, Number::integer(0)),
            (modulus, Number::integer(0)),
            (modulus.pow(Number::integer(3)), Number::integer(0)),
            (power(2, 200).mul(modulus), power(2, 201).mul(modulus)),
            (power(10, 400), power(10, 461)),
        ];
        for (a, b) in pairs {
            assert!(!a.equals(&b) && !b.equals(&a) && a.equals(&a), "{a:?} {b:?}");
            assert!(!a.is_zero(), "{a:?}");
        }
        assert!(power(2, 200).add(power(2, 200).neg()).is_zero());
        // A multiple of the modulus that fits no fraction is no zero to divide by.
        assert!(Number::integer(1).div(modulus.pow(Number::integer(3))).is_finite());
        let power_of_multiple = modulus.pow(Number::integer(3)).pow(Number::integer(i128::from(PRIME - 1)));
        assert!(!power_of_multiple.equals(&Number::integer(1)));
    }

    #[test]
    fn what_is_undefined_equals_nothing() {
        for number in [
            Number::integer(1).div(Number::integer(0)),
            Number::integer(0).pow(Number::integer(-1)),
            Number::integer(0).ln(),
        ] {
            assert!(!number.is_finite() && !number.equals(&number));
        }
        assert!(Number::integer(i128::MIN).neg().abs().is_finite());
        assert!(Ratio::new(i128::MIN, -1).is_none());
    }

    proptest! {
        #[test]
        fn exact_residue_and_float_agree(a in -99_i128..99, b in 1_i128..99, c in -99_i128..99, d in 1_i128..99) {
            let (x, y) = (ratio(a, b), ratio(c, d));
            let (sum, product) = (ratio(a * d + c * b, b * d), ratio(a * c, b * d));
            prop_assert_eq!(x.add(y), sum);
            prop_assert_eq!(x.mul(y), product);
            prop_assert!(c == 0 || x.div(y).mul(y) == x);
        }

        #[test]
        fn any_numbers_can_be_combined(a in any::<i128>(), b in any::<i128>(), c in any::<i128>()) {
            if let Some(x) = Ratio::new(a, b).map(Number::from) {
                let y = Number::integer(c);
                let _ = (x.add(y), x.mul(y), x.div(y), x.pow(y), y.pow(x), x.root(y), x.abs(), x.ln(), x.exp(), x.neg());
            }
        }
    }
}
