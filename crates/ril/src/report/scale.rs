//! Axes: ranges, round tick values and their texts.

/// Values of an axis mapped onto pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    from: f64,
    to: f64,
    pixels_from: f64,
    pixels_to: f64,
}

impl Scale {
    /// Maps `from..to` (never empty) onto `pixels_from..pixels_to`, in either direction.
    pub(super) fn new((from, to): (f64, f64), (pixels_from, pixels_to): (f64, f64)) -> Self {
        Self { from, to, pixels_from, pixels_to }
    }

    /// Position of `value`, cut at the ends of the axis.
    pub(super) fn position(&self, value: f64) -> f64 {
        let share = ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        self.pixels_from + share * (self.pixels_to - self.pixels_from)
    }
}

/// Smallest and largest finite value, if there is one.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// A range of at least some width around the values of `range`.
pub(super) fn widened((low, high): (f64, f64)) -> (f64, f64) {
    if high > low {
        return (low, high);
    }
    let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
    (low - margin, high + margin)
}

/// The step of 1, 2, 2.5 or 5 times a power of ten that cuts `range` (not empty) into at most about `count` parts.
pub(super) fn nice_step((low, high): (f64, f64), count: usize) -> f64 {
    let raw = (high - low) / count.max(1) as f64;
    let power = 10.0_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| factor * power >= raw * 0.999).unwrap_or(10.0);
    factor * power
}

/// `range` moved outwards to multiples of `step`.
pub(super) fn rounded_out((low, high): (f64, f64), step: f64) -> (f64, f64) {
    ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step)
}

/// Multiples of `step` inside `range`.
pub(super) fn ticks((low, high): (f64, f64), step: f64) -> Vec<f64> {
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// `value` beside a neighbour `step` away: as many decimals as the step asks for, thousands as "k".
pub(super) fn tick_text(value: f64, step: f64) -> String {
    if value.abs() >= 10_000.0 || step >= 5_000.0 {
        return format!("{}k", trimmed(value / 1000.0, 1));
    }
    if step > 0.0 && step < 1e-3 && value != 0.0 {
        return format!("{value:.0e}");
    }
    let is_exact = |decimals: &i32| {
        let scaled = step * 10.0_f64.powi(*decimals);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0)
    };
    let decimals = (0..6).find(is_exact).unwrap_or(6) as usize;
    // No "-0".
    format!("{:.decimals$}", if value.abs() < step * 1e-6 { 0.0 } else { value })
}

/// A value by itself: three significant digits.
pub(super) fn value_text(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && size < 1e-3 {
        return format!("{value:.1e}");
    }
    if size >= 10_000.0 {
        return format!("{}k", trimmed(value / 1000.0, 1));
    }
    let decimals = if size == 0.0 { 0 } else { (2 - size.log10().floor() as i32).clamp(0, 4) as usize };
    format!("{value:.decimals$}")
}

fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let step = nice_step((0.0, 1000.0), 5);
        assert_eq!(ticks((0.0, 1000.0), step), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        let texts: Vec<_> = ticks((0.13, 0.42), 0.1).iter().map(|&tick| tick_text(tick, 0.1)).collect();
        assert_eq!(texts, ["0.2", "0.3", "0.4"]);
        assert_eq!(rounded_out((0.13, 0.42), 0.1), (0.1, 0.5));
        assert_eq!((nice_step((0.0, 1.0), 4), rounded_out((0.0, 1.0), 0.25)), (0.25, (0.0, 1.0)));
    }

    #[test]
    fn constant_values_still_make_an_axis() {
        for value in [0.0, 0.5, -3.0] {
            let range = widened((value, value));
            let step = nice_step(range, 4);
            let (low, high) = rounded_out(range, step);
            assert!(low < value && value < high && ticks((low, high), step).len() >= 3, "{low} {high}");
        }
    }

    #[test]
    fn texts_are_short() {
        assert_eq!(tick_text(20_000.0, 5_000.0), "20k");
        assert_eq!(tick_text(12_500.0, 2_500.0), "12.5k");
        assert_eq!(tick_text(-1e-12, 0.2), "0.0");
        assert_eq!(tick_text(0.0004, 0.0002), "4e-4");
        assert_eq!([tick_text(0.25, 0.25), tick_text(0.5, 0.25), tick_text(0.3, 0.1)], ["0.25", "0.50", "0.3"]);
        assert_eq!([0.0, 0.04567, 0.6789, 96.44, 213.7].map(value_text), ["0", "0.0457", "0.679", "96.4", "214"]);
    }

    #[test]
    fn positions_run_either_way_and_stay_inside() {
        let scale = Scale::new((0.0, 10.0), (100.0, 0.0));
        assert_eq!([0.0, 5.0, 10.0, 12.0].map(|value| scale.position(value)), [100.0, 50.0, 0.0, 0.0]);
        assert_eq!(extent([f64::NAN, 2.0, -1.0].into_iter()), Some((-1.0, 2.0)));
        assert_eq!(extent([f64::NAN].into_iter()), None);
    }
}
