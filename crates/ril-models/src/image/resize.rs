//! Bicubic resize with Pillow's exact bytes.
//!
//! Every Hugging Face image processor that resizes was tuned with Pillow's result, and bicubic filters differ between
//! libraries by several units a channel (anti-aliasing, fixed-point rounding, order of the passes). So the rule is
//! written out here as Pillow documents it.

use std::borrow::Cow;

use image::RgbImage;
use rayon::prelude::*;
use ril_kernels::simd;

/// Bits behind the binary point of a weight: 32, less 8 for the sample and 2 for sign and overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Radius of the cubic kernel at scale 1, in source pixels.
const SUPPORT: f64 = 2.0;
const CHANNELS: usize = 3;
/// Rows that the horizontal pass handles at once.
const STRIP: usize = 16;
/// Output bytes of one pass below which threads cost more than they save.
const PARALLEL_BYTES: usize = 1 << 16;

/// Resizes to `width` x `height` exactly as Pillow's `Image.resize((width, height), BICUBIC)`, bit for bit.
///
/// Source: Pillow's convolution-based resampling. Cubic kernel with `a = -0.5`, widened by the scale when shrinking;
/// one pass an axis, rounded to 8 bits in between; weights in fixed point with 22 fractional bits. A pass whose size
/// does not change is skipped.
///
/// The horizontal pass comes first, except where the height loses more than twice as many pixels as the width does.
/// That is Pillow 13.0's rule, found by comparing with it; up to Pillow 12 the horizontal pass always came first, which
/// differs in the rounding between the passes.
///
/// A picture without pixels gives a black one of the asked size.
#[must_use]
pub fn resize_bicubic(source: &RgbImage, width: u32, height: u32) -> RgbImage {
    if source.is_empty() || width == 0 || height == 0 {
        return RgbImage::new(width, height);
    }
    if is_vertical_first(source, width, height) {
        to_width(to_height(Cow::Borrowed(source), height), width).into_owned()
    } else {
        to_height(to_width(Cow::Borrowed(source), width), height).into_owned()
    }
}

fn is_vertical_first(source: &RgbImage, width: u32, height: u32) -> bool {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let lost_height = lost(source.height(), height);
    lost_height > 0 && lost_height > 2 * lost(source.width(), width)
}

fn to_width(picture: Cow<'_, RgbImage>, width: u32) -> Cow<'_, RgbImage> {
    if picture.width() == width { picture } else { Cow::Owned(resize_rows(&picture, width)) }
}

fn to_height(picture: Cow<'_, RgbImage>, height: u32) -> Cow<'_, RgbImage> {
    if picture.height() == height { picture } else { Cow::Owned(resize_columns(&picture, height)) }
}

/// The source samples of one output sample, and their weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Weights of each output sample along one axis; they sum to 1 before rounding to fixed point.
fn taps(source_len: u32, target_len: u32) -> Vec<Taps> {
    let scale = f64::from(source_len) / f64::from(target_len);
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    (0..target_len)
        .map(|target| {
            let center = (f64::from(target) + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(source_len as usize);
            let weights: Vec<f64> =
                (first..end).map(|sample| cubic((sample as f64 - center + 0.5) * (1.0 / stretch))).collect();
            let total: f64 = weights.iter().sum();
            let weights = weights.into_iter().map(|weight| fixed_point(weight / total)).collect();
            Taps { first, weights }
        })
        .collect()
}

/// Keys' cubic convolution kernel with `a = -0.5`.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Nearest fixed-point value, halves away from zero.
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (scaled + 0.5f64.copysign(scaled)) as i32
}

/// Runs `fill` on every row of `bytes`, on all threads when there are many. The last row may be shorter.
fn for_each_row(bytes: &mut [u8], row_len: usize, fill: impl Fn(usize, &mut [u8]) + Sync) {
    if bytes.len() < PARALLEL_BYTES {
        bytes.chunks_mut(row_len).enumerate().for_each(|(y, row)| fill(y, row));
    } else {
        bytes.par_chunks_mut(row_len).enumerate().for_each(|(y, row)| fill(y, row));
    }
}

/// Horizontal pass. Strips of rows are turned, so that one column of a strip is `[channel, row]` in memory and both passes
/// are sums over neighbouring lines.
fn resize_rows(source: &RgbImage, width: u32) -> RgbImage {
    let taps = taps(source.width(), width);
    let (source_row_len, row_len) = (source.width() as usize * CHANNELS, width as usize * CHANNELS);
    let mut target = RgbImage::new(width, source.height());
    for_each_row(&mut target, row_len * STRIP, |strip, rows| {
        let turned = turn(&source.as_raw()[strip * STRIP * source_row_len..], source_row_len);
        let mut resized = vec![[0; STRIP]; row_len];
        for (column, Taps { first, weights }) in resized.chunks_exact_mut(CHANNELS).zip(&taps) {
            let samples = turned[first * CHANNELS..].as_flattened();
            simd::weigh_rows(column.as_flattened_mut(), samples, CHANNELS * STRIP, weights, PRECISION_BITS);
        }
        turn_back(&resized, rows, row_len);
    });
    target
}

/// A square of bytes.
type Square = [[u8; STRIP]; STRIP];

/// Rows and columns exchanged: four times, each row of the upper half is interleaved with its fellow of the lower half.
#[inline(always)]
fn transpose(square: &mut Square) {
    let mut other = [[0; STRIP]; STRIP];
    for _ in 0..STRIP.ilog2() / 2 {
        interleave(square, &mut other);
        interleave(&other, square);
    }
}

/// The compiler makes this one instruction for 16 bytes.
#[inline(always)]
fn interleave(from: &Square, to: &mut Square) {
    const HALF: usize = STRIP / 2;
    for (row, (a, b)) in from[..HALF].iter().zip(&from[HALF..]).enumerate() {
        for side in 0..2 {
            let start = side * HALF;
            to[2 * row + side] = std::array::from_fn(|i| if i % 2 == 0 { a[start + i / 2] } else { b[start + i / 2] });
        }
    }
}

/// The first [`STRIP`] lines as columns; those that are not there are 0.
fn turn(lines: &[u8], line_len: usize) -> Vec<[u8; STRIP]> {
    let mut turned = vec![[0; STRIP]; line_len];
    for (at, columns) in (0..line_len).step_by(STRIP).zip(turned.chunks_mut(STRIP)) {
        let mut square = [[0; STRIP]; STRIP];
        for (row, line) in square.iter_mut().zip(lines.chunks_exact(line_len)) {
            let samples = &line[at..][..columns.len()];
            match samples.first_chunk() {
                Some(whole) => *row = *whole,
                None => row[..samples.len()].copy_from_slice(samples),
            }
        }
        transpose(&mut square);
        match columns.first_chunk_mut() {
            Some(whole) => *whole = square,
            None => columns.copy_from_slice(&square[..columns.len()]),
        }
    }
    turned
}

/// The other way round, for as many lines as there are.
fn turn_back(turned: &[[u8; STRIP]], lines: &mut [u8], line_len: usize) {
    for (at, columns) in (0..line_len).step_by(STRIP).zip(turned.chunks(STRIP)) {
        let mut square = [[0; STRIP]; STRIP];
        match columns.first_chunk() {
            Some(whole) => square = *whole,
            None => square[..columns.len()].copy_from_slice(columns),
        }
        transpose(&mut square);
        for (row, line) in square.iter().zip(lines.chunks_exact_mut(line_len)) {
            let samples = &mut line[at..][..columns.len()];
            match samples.first_chunk_mut() {
                Some(whole) => *whole = *row,
                None => samples.copy_from_slice(&row[..columns.len()]),
            }
        }
    }
}

/// Vertical pass.
fn resize_columns(source: &RgbImage, height: u32) -> RgbImage {
    let taps = taps(source.height(), height);
    let row_len = source.width() as usize * CHANNELS;
    let samples = source.as_raw();
    let mut target = RgbImage::new(source.width(), height);
    for_each_row(&mut target, row_len, |y, row| {
        let Taps { first, weights } = &taps[y];
        simd::weigh_rows(row, &samples[first * row_len..], row_len, weights, PRECISION_BITS);
    });
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_same_size_changes_nothing() {
        let picture = RgbImage::from_fn(7, 5, |x, y| [x as u8 * 30, y as u8 * 50, 200].into());
        assert_eq!(resize_bicubic(&picture, 7, 5), picture);
    }

    #[test]
    fn a_picture_without_pixels_gives_a_black_one() {
        assert_eq!(resize_bicubic(&RgbImage::new(0, 3), 2, 2), RgbImage::new(2, 2));
        assert_eq!(resize_bicubic(&RgbImage::new(3, 3), 0, 2).len(), 0);
    }

    proptest! {
        #[test]
        fn a_flat_colour_stays_flat(
            color in any::<[u8; 3]>(), from in (1u32..60, 1u32..60), to in (1u32..60, 1u32..60),
        ) {
            let flat = RgbImage::from_pixel(from.0, from.1, color.into());
            prop_assert_eq!(resize_bicubic(&flat, to.0, to.1), RgbImage::from_pixel(to.0, to.1, color.into()));
        }

        #[test]
        fn weights_sum_to_one_within_the_rounding(from in 1u32..400, to in 1u32..400) {
            for Taps { first, weights } in taps(from, to) {
                prop_assert!(first + weights.len() <= from as usize);
                let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
                prop_assert!((sum - (1 << PRECISION_BITS)).unsigned_abs() <= weights.len() as u64);
            }
        }
    }
}
