//! Digits side by side, as the models see them.

use image::imageops::{self, FilterType};
use image::{GrayImage, Luma, Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::digits::{Digit, FULL_INK, STORED_SIDE};

/// Side of a digit's cell in pixels: one merged image token of a model with 14-pixel patches merged two by two.
const CELL: u32 = 28;
/// Side of the digit inside its cell; the rest is room to shift it.
const DRAWN: u32 = 24;

/// Two to four digits side by side, and how they are drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// From left to right.
    pub digits: Vec<Digit>,
    /// Decides colours, shifts and strength of the strokes.
    pub look: u64,
}

impl Picture {
    /// What is written, from left to right.
    pub fn labels(&self) -> Vec<u8> {
        self.digits.iter().map(|digit| digit.label).collect()
    }

    /// The pixels: 28 high and 28 a digit wide. Each 8x8 digit is enlarged to 24x24 (Catmull-Rom) and set down within
    /// 2 pixels of the middle of its cell, in dark ink on light paper of random tints, with strokes of 75% to 100%
    /// strength: on every channel at least 67 of the 255 levels lie between paper and full ink.
    pub fn render(&self) -> RgbImage {
        let mut rng = ChaCha8Rng::seed_from_u64(self.look);
        let paper: [u8; 3] = std::array::from_fn(|_| rng.random_range(190..=255));
        let ink: [u8; 3] = std::array::from_fn(|_| rng.random_range(0..=100));
        let mut picture = RgbImage::from_pixel(CELL * self.digits.len() as u32, CELL, Rgb(paper));
        let mut left = 0;
        for digit in &self.digits {
            let strength = rng.random_range(0.75..=1.0);
            let x = left + rng.random_range(0..=CELL - DRAWN);
            let y = rng.random_range(0..=CELL - DRAWN);
            for (column, row, Luma([coverage])) in enlarged(*digit).enumerate_pixels() {
                let weight = f32::from(*coverage) / 255.0 * strength;
                let blend = |channel: usize| mix(paper[channel], ink[channel], weight);
                picture.put_pixel(x + column, y + row, Rgb(std::array::from_fn(blend)));
            }
            left += CELL;
        }
        picture
    }
}

/// How much ink covers each pixel of the enlarged digit, 0 to 255.
fn enlarged(digit: Digit) -> GrayImage {
    let ink = digit.ink();
    let stored = GrayImage::from_fn(STORED_SIDE, STORED_SIDE, |x, y| {
        let level = u32::from(ink[(y * STORED_SIDE + x) as usize]) * 255 / u32::from(FULL_INK);
        Luma([level as u8])
    });
    imageops::resize(&stored, DRAWN, DRAWN, FilterType::CatmullRom)
}

fn mix(paper: u8, ink: u8, weight: f32) -> u8 {
    let (paper, ink) = (f32::from(paper), f32::from(ink));
    (paper + (ink - paper) * weight).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    fn picture(count: usize, look: u64) -> Picture {
        let digits = Split::Train.digits().iter().step_by(97).take(count).copied().collect();
        Picture { digits, look }
    }

    #[test]
    fn every_digit_takes_one_cell() {
        for count in 2..=4 {
            let image = picture(count, 5).render();
            assert_eq!(image.dimensions(), (28 * count as u32, 28));
        }
    }

    #[test]
    fn the_look_decides_every_pixel() {
        assert_eq!(picture(3, 7).render(), picture(3, 7).render());
        assert_ne!(picture(3, 7).render(), picture(3, 8).render());
    }

    #[test]
    fn ink_stands_out_in_every_cell() {
        for look in 0..100 {
            let image = picture(4, look).render();
            for cell in 0..4 {
                let view = imageops::crop_imm(&image, cell * CELL, 0, CELL, CELL).to_image();
                for channel in 0..3 {
                    let levels = view.pixels().map(|pixel| pixel.0[channel]);
                    let contrast = levels.clone().max().unwrap() - levels.min().unwrap();
                    assert!(contrast >= 40, "look {look}, cell {cell}, channel {channel}: {contrast}");
                }
            }
        }
    }
}
