//! Line charts as inline SVG: a smooth line over the faint raw points of every series.

use super::{
    Chart, Series,
    markup::{escape, push},
    scale::{Scale, extent, nice_step, rounded_out, tick_text, ticks, value_text, widened},
};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 216.0;
const LEFT: f64 = 38.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Raw points drawn for a series: more would only make the file heavy.
const MAX_DOTS: usize = 240;
/// Points of a smooth line.
const MAX_LINE_POINTS: usize = 160;
/// Standard deviation of the smoothing kernel, as a share of the width.
const SMOOTHING: f64 = 0.02;
/// Least distance of two values at the right end, in pixels.
const LABEL_SPACING: f64 = 12.0;

/// The chart; `color` gives the palette number of a series by its name.
pub(super) fn render(chart: &Chart, color: &dyn Fn(&str) -> usize) -> String {
    let series: Vec<(usize, Series)> = chart
        .series
        .iter()
        .map(|series| {
            let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
            (color(&series.name), Series { name: series.name.clone(), points: points.collect() })
        })
        .filter(|(_, series)| !series.points.is_empty())
        .collect();
    let mut svg = String::new();
    push(&mut svg, format_args!(r#"<figure class="chart"><figcaption>{}"#, escape(&chart.title)));
    if !chart.note.is_empty() {
        push(&mut svg, format_args!("<small>{}</small>", escape(&chart.note)));
    }
    push(
        &mut svg,
        format_args!(
            r#"</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            escape(&chart.title)
        ),
    );
    let points = || series.iter().flat_map(|(_, series)| series.points.iter());
    match (extent(points().map(|point| point.0)), extent(points().map(|point| point.1))) {
        (Some(x_range), Some(y_range)) => {
            // An axis that begins almost at 0 begins at 0.
            let from = if (0.0..0.05 * x_range.1).contains(&x_range.0) { 0.0 } else { x_range.0 };
            let x = Axis::new((from, x_range.1), 5, (LEFT, WIDTH - RIGHT));
            let y = match chart.y_range {
                Some(range) => Axis::new(range, 4, (HEIGHT - BOTTOM, TOP)),
                None => {
                    let range = widened(y_range);
                    Axis::new(rounded_out(range, nice_step(range, 4)), 5, (HEIGHT - BOTTOM, TOP))
                }
            };
            axes(&mut svg, chart, &x, &y);
            lines(&mut svg, &series, SMOOTHING * (x_range.1 - from), (&x.scale, &y.scale));
        }
        _ => push(
            &mut svg,
            format_args!(r#"<text class="empty" x="{}" y="{}">no data</text>"#, WIDTH / 2.0, HEIGHT / 2.0),
        ),
    }
    svg.push_str("</svg></figure>\n");
    svg
}

/// One side of the chart.
struct Axis {
    scale: Scale,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// `range` over `pixels`, with about `count` steps between ticks.
    fn new(range: (f64, f64), count: usize, pixels: (f64, f64)) -> Self {
        let range = widened(range);
        let (step, scale) = (nice_step(range, count), Scale::new(range, pixels));
        let place = |tick: f64| (scale.position(tick), tick_text(tick, step));
        Self { scale, ticks: ticks(range, step).into_iter().map(place).collect() }
    }
}

fn axes(svg: &mut String, chart: &Chart, x: &Axis, y: &Axis) {
    let (end, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (at, text) in &y.ticks {
        push(svg, format_args!(r#"<path class="grid" d="M{LEFT} {at:.1}H{end}"/>"#));
        push(svg, format_args!(r#"<text class="ytick" x="{}" y="{:.1}">{text}</text>"#, LEFT - 6.0, at + 3.5));
    }
    push(svg, format_args!(r#"<path class="axis" d="M{LEFT} {bottom}H{end}"/>"#));
    for (at, text) in &x.ticks {
        push(svg, format_args!(r#"<path class="axis" d="M{at:.1} {bottom}v4"/>"#));
        push(svg, format_args!(r#"<text class="xtick" x="{at:.1}" y="{}">{text}</text>"#, bottom + 16.0));
    }
    let (middle, label) = ((LEFT + end) / 2.0, escape(&chart.x_label));
    push(svg, format_args!(r#"<text class="xtick" x="{middle}" y="{}">{label}</text>"#, HEIGHT - 4.0));
}

fn lines(svg: &mut String, series: &[(usize, Series)], deviation: f64, (x_scale, y_scale): (&Scale, &Scale)) {
    let path = |points: &[(f64, f64)]| {
        let place = |(x, y): &(f64, f64)| format!("{:.1} {:.1}", x_scale.position(*x), y_scale.position(*y));
        points.iter().map(place).collect::<Vec<_>>().join("L")
    };
    for (color, series) in series {
        // A path of zero-length strokes with round caps: dots for a few bytes each.
        let dots: String = thinned(&series.points, MAX_DOTS)
            .iter()
            .map(|point| format!("M{:.1} {:.1}h0", x_scale.position(point.0), y_scale.position(point.1)))
            .collect();
        push(svg, format_args!(r#"<path class="dots c{color}" d="{dots}"/>"#));
    }
    let mut ends = Vec::new();
    for (color, series) in series {
        let smooth = smoothed(&series.points, deviation);
        let Some(&(x, y)) = smooth.last() else { continue };
        let name = escape(&series.name);
        let line = path(&smooth);
        push(svg, format_args!(r#"<path class="line c{color}" d="M{line}"><title>{name}</title></path>"#));
        let (x, height) = (x_scale.position(x), y_scale.position(y));
        push(svg, format_args!(r#"<circle class="end c{color}" cx="{x:.1}" cy="{height:.1}" r="3"/>"#));
        ends.push((height, *color, value_text(y)));
    }
    for (height, color, text) in spread(ends) {
        let x = WIDTH - RIGHT + 8.0;
        push(svg, format_args!(r#"<text class="value c{color}" x="{x}" y="{:.1}">{text}</text>"#, height + 3.5));
    }
}

/// Moves labels apart until none overlaps, keeping their order, inside the plot.
fn spread(mut ends: Vec<(f64, usize, String)>) -> Vec<(f64, usize, String)> {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    for index in 1..ends.len() {
        ends[index].0 = ends[index].0.max(ends[index - 1].0 + LABEL_SPACING);
    }
    let mut limit = HEIGHT - BOTTOM;
    for end in ends.iter_mut().rev() {
        end.0 = end.0.min(limit);
        limit = end.0 - LABEL_SPACING;
    }
    ends
}

/// At most about `count` of the points, evenly taken, the last one always among them.
fn thinned(points: &[(f64, f64)], count: usize) -> Vec<(f64, f64)> {
    let stride = points.len().div_ceil(count).max(1);
    let mut kept: Vec<_> = points.iter().rev().step_by(stride).copied().collect();
    kept.reverse();
    kept
}

/// Gaussian mean around each point: it does not lag behind the data as an exponential one does.
fn smoothed(points: &[(f64, f64)], deviation: f64) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let centres = thinned(&sorted, MAX_LINE_POINTS);
    let mean_at = |&(centre, _): &(f64, f64)| {
        let from = sorted.partition_point(|point| point.0 < centre - 3.0 * deviation);
        let to = sorted.partition_point(|point| point.0 <= centre + 3.0 * deviation);
        let (mut sum, mut weights) = (0.0, 0.0);
        for (x, y) in &sorted[from..to] {
            let weight = if deviation > 0.0 { (-0.5 * ((x - centre) / deviation).powi(2)).exp() } else { 1.0 };
            sum += weight * y;
            weights += weight;
        }
        (centre, sum / weights)
    };
    centres.iter().map(mean_at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_constants_and_shrinks_noise() {
        let flat: Vec<_> = (0..500).map(|step| (step as f64, 0.7)).collect();
        assert!(smoothed(&flat, 10.0).iter().all(|point| (point.1 - 0.7).abs() < 1e-12));
        let noisy: Vec<_> = (0..500).map(|step| (step as f64, (step % 2) as f64)).collect();
        assert!(smoothed(&noisy, 10.0)[20..100].iter().all(|point| (point.1 - 0.5).abs() < 0.01));
        assert!(smoothed(&[], 1.0).is_empty() && smoothed(&[(1.0, 2.0)], 0.0) == [(1.0, 2.0)]);
    }

    #[test]
    fn thinning_bounds_the_size_and_keeps_the_end() {
        let points: Vec<_> = (0..100_001).map(|step| (step as f64, 0.0)).collect();
        let kept = thinned(&points, 240);
        assert!(kept.len() <= 240 && kept.last() == points.last());
    }

    #[test]
    fn labels_do_not_overlap_and_stay_inside() {
        let bottom = HEIGHT - BOTTOM;
        let ends = [bottom, 50.0, 51.0, bottom - 1.0, bottom].map(|height| (height, 0, String::new()));
        let placed = spread(ends.to_vec());
        assert!(placed.windows(2).all(|pair| pair[1].0 - pair[0].0 >= LABEL_SPACING - 1e-9), "{placed:?}");
        assert!(placed.last().is_some_and(|last| last.0 <= bottom));
    }

    #[test]
    fn numbers_that_are_not_finite_never_reach_the_page() {
        let points = vec![(0.0, f64::NAN), (1.0, 0.5), (2.0, f64::INFINITY), (3.0, 0.6)];
        let series = vec![Series { name: "a".into(), points }, Series { name: "b".into(), points: vec![] }];
        let svg = render(&Chart { title: "t".into(), series, ..Chart::default() }, &|_| 0);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(render(&Chart::default(), &|_| 0).contains("no data"));
    }
}
