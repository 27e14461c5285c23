//! Questions about drawn charts, with numbers and words for answers, as in ChartQA.

use image::Rgb;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::chart::{Chart, Shape};
use crate::tsv::{base64, lines, row};

const SEED: u64 = 21;
const CHARTS: usize = 24;
const TITLES: [(&str, &[&str]); 4] = [
    ("rain in mm", &["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug"]),
    ("visitors", &["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]),
    ("fruit sold", &["Apple", "Pear", "Plum", "Fig", "Kiwi", "Lime"]),
    ("books read", &["Anna", "Ben", "Cleo", "Dan", "Eva", "Finn"]),
];
const COLOURS: [(&str, [u8; 3]); 5] = [
    ("red", [200, 40, 40]),
    ("green", [40, 150, 60]),
    ("blue", [40, 80, 200]),
    ("orange", [240, 140, 20]),
    ("purple", [130, 50, 170]),
];

/// Three questions a chart; the second and the third point to the picture of the first.
pub fn table() -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut rows = vec![row(&["index", "question", "answer", "category", "split", "image"])];
    for i in 0..CHARTS {
        let (chart, colour) = draw(i, &mut rng);
        let split = if chart.shape == Shape::Bars { "bars" } else { "lines" };
        let mut questions = questions(&chart, colour, &mut rng);
        questions.shuffle(&mut rng);
        let first = 3 * i + 1;
        for (k, (category, question, answer)) in questions.into_iter().take(3).enumerate() {
            let image = if k == 0 { base64(&chart.draw()) } else { first.to_string() };
            rows.push(row(&[&(first + k).to_string(), &question, &answer, category, split, &image]));
        }
    }
    lines(&rows)
}

fn draw(i: usize, rng: &mut ChaCha8Rng) -> (Chart, &'static str) {
    let (title, labels) = TITLES[i % TITLES.len()];
    let (colour, rgb) = *COLOURS.choose(rng).expect("there are colours");
    let shape = if i.is_multiple_of(2) { Shape::Bars } else { Shape::Line };
    let count = rng.random_range(4..=labels.len().min(6));
    let start = rng.random_range(0..=labels.len() - count);
    // Different values, so that the highest and the lowest are one each.
    let mut values: Vec<u32> = (1..12).map(|step| 5 * step).collect();
    values.shuffle(rng);
    values.truncate(count);
    (Chart { title, shape, labels: labels[start..start + count].to_vec(), values, colour: Rgb(rgb) }, colour)
}

/// (category, question, answer) of everything that can be asked.
fn questions(chart: &Chart, colour: &str, rng: &mut ChaCha8Rng) -> Vec<(&'static str, String, String)> {
    let Chart { labels, values, title, .. } = chart;
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.shuffle(rng);
    let (a, b) = (order[0], order[1]);
    let by_value = |i: &usize| values[*i];
    let highest = (0..labels.len()).max_by_key(by_value).unwrap_or_default();
    let lowest = (0..labels.len()).min_by_key(by_value).unwrap_or_default();
    let bound = 10 * rng.random_range(2..=4);
    let above = values.iter().filter(|value| **value > bound).count();
    let mean = f64::from(values[a] + values[b]) / 2.0;
    vec![
        (
            "value",
            format!("What is the value of {} in the chart \"{title}\"?", labels[a]).replace('"', "'"),
            values[a].to_string(),
        ),
        ("label", "Which label has the highest value?".into(), labels[highest].into()),
        ("label", "Which label has the lowest value?".into(), labels[lowest].into()),
        (
            "arithmetic",
            "What is the highest value minus the lowest value?".into(),
            (values[highest] - values[lowest]).to_string(),
        ),
        ("arithmetic", format!("What is the average of {} and {}?", labels[a], labels[b]), mean.to_string()),
        ("counting", format!("How many values are greater than {bound}?"), above.to_string()),
        (
            "comparison",
            format!("Is the value of {} greater than that of {}?", labels[a], labels[b]),
            yes_no(values[a] > values[b]),
        ),
        ("colour", "What colour is the data drawn in?".into(), colour.into()),
    ]
}

fn yes_no(is_so: bool) -> String {
    if is_so { "Yes".into() } else { "No".into() }
}
