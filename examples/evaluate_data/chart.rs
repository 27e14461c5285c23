//! A bar or line chart as a picture.

use image::{Rgb, RgbImage};

use crate::font;

const SIZE: (u32, u32) = (280, 196);
const LEFT: u32 = 30;
const TOP: u32 = 22;
const BOTTOM: u32 = 172;
const RIGHT: u32 = 272;
const INK: Rgb<u8> = Rgb([30, 30, 40]);
const GRID: Rgb<u8> = Rgb([215, 215, 222]);
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
/// Value between two grid lines, and at the top.
const STEP: u32 = 10;
const FULL: u32 = 60;

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Bars,
    Line,
}

/// Values by label, 0 to 60.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: &'static str,
    pub shape: Shape,
    pub labels: Vec<&'static str>,
    pub values: Vec<u32>,
    pub colour: Rgb<u8>,
}

impl Chart {
    /// The picture.
    pub fn draw(&self) -> RgbImage {
        let mut picture = RgbImage::from_pixel(SIZE.0, SIZE.1, PAPER);
        font::write(&mut picture, self.title, ((SIZE.0 - font::width(self.title)) / 2, 6), INK);
        for value in (0..=FULL).step_by(STEP as usize) {
            let y = height_of(value);
            (LEFT..RIGHT).for_each(|x| picture.put_pixel(x, y, if value == 0 { INK } else { GRID }));
            let text = value.to_string();
            font::write(&mut picture, &text, (LEFT - 4 - font::width(&text), y - font::HEIGHT / 2), INK);
        }
        (TOP..=BOTTOM).for_each(|y| picture.put_pixel(LEFT, y, INK));
        for (i, label) in self.labels.iter().enumerate() {
            font::write(&mut picture, label, (self.middle(i) - font::width(label) / 2, BOTTOM + 8), INK);
        }
        match self.shape {
            Shape::Bars => self.draw_bars(&mut picture),
            Shape::Line => self.draw_line(&mut picture),
        }
        picture
    }

    /// Horizontal middle of a label.
    fn middle(&self, i: usize) -> u32 {
        let width = (RIGHT - LEFT) / self.labels.len() as u32;
        LEFT + width * i as u32 + width / 2
    }

    fn draw_bars(&self, picture: &mut RgbImage) {
        for (i, value) in self.values.iter().enumerate() {
            for x in self.middle(i) - 10..self.middle(i) + 10 {
                (height_of(*value)..BOTTOM).for_each(|y| picture.put_pixel(x, y, self.colour));
            }
        }
    }

    fn draw_line(&self, picture: &mut RgbImage) {
        let points: Vec<(f64, f64)> = self
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| (f64::from(self.middle(i)), f64::from(height_of(*v))))
            .collect();
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            for x in x0 as u32..=x1 as u32 {
                let y = y0 + (y1 - y0) * (f64::from(x) - x0) / (x1 - x0);
                dot(picture, (x, y.round() as u32), 1, self.colour);
            }
        }
        points.iter().for_each(|(x, y)| dot(picture, (*x as u32, *y as u32), 3, self.colour));
    }
}

/// Vertical place of a value.
fn height_of(value: u32) -> u32 {
    BOTTOM - value * (BOTTOM - TOP) / FULL
}

/// A square of `2 radius + 1` pixels.
fn dot(picture: &mut RgbImage, (x, y): (u32, u32), radius: u32, colour: Rgb<u8>) {
    for x in x - radius..=x + radius {
        (y - radius..=y + radius).for_each(|y| picture.put_pixel(x, y, colour));
    }
}
