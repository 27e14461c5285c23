//! Products of so few rows that all their time goes into reading the weights: those are read once, from first to last.
#![allow(unsafe_code)] // Functions for more than the baseline of the machine.

use std::ops::Range;

use rayon::prelude::*;

use super::panel::{Int8, Weights};
use super::{Order, TASKS};
use crate::lanes::{Lanes, prefetch};
use crate::matrix::Matrix;
use crate::simd;

/// Rows for which this is faster than panels and tiles.
pub fn most_rows(order: Order) -> usize {
    match order {
        Order::Rows => 3,
        Order::Columns => 1,
    }
}

/// Rows of weights that are read side by side.
const TERMS: usize = 4;
/// Parts of the terms, each with sums of its own: a fixed number, so that results do not depend on the threads. As many
/// threads as read faster than any memory of today.
const PARTS: usize = 8;
/// Bytes that come from memory at once.
const CACHE_LINE: usize = 64;

/// `a b` for at most [`most_rows`].
///
/// # Panics
/// If an operand is smaller than the sizes say, or there are more rows.
pub fn multiply(order: Order, [m, n, k]: [usize; 3], a: Matrix<'_>, weights: Weights<'_>) -> Vec<f32> {
    let x: Vec<&[f32]> = (0..m).map(|row| &a.values[row * a.row_stride..][..k]).collect();
    match (order, weights) {
        (Order::Rows, Weights::Floats { values, stride }) => {
            in_parts(&x, k, Lines { values, stride, columns: n, scales: None })
        }
        (Order::Rows, Weights::Int8(Int8 { values, scales, block, columns })) => {
            in_parts(&x, k, Lines { values, stride: columns, columns, scales: Some((scales, block)) })
        }
        (Order::Columns, Weights::Floats { values, stride }) => {
            assert_eq!(x.len(), 1, "multiply: one row at a time");
            dots(x[0], n, values, stride)
        }
        (Order::Columns, Weights::Int8(_)) => unreachable!("weights of 8 bits lie in rows"),
    }
}

/// A product with columns of weights that are rows in memory.
fn dots(x: &[f32], n: usize, values: &[f32], stride: usize) -> Vec<f32> {
    let columns = n.div_ceil(TASKS * rayon::current_num_threads()).max(1);
    let mut product = vec![0.0; n];
    product.par_chunks_mut(columns).enumerate().for_each(|(task, sums)| {
        for (sum, column) in sums.iter_mut().zip(task * columns..) {
            *sum = simd::dot(x, &values[column * stride..][..x.len()]);
        }
    });
    product
}

/// Weights whose rows are rows in memory.
#[derive(Debug, Clone, Copy)]
struct Lines<'a, W> {
    values: &'a [W],
    stride: usize,
    columns: usize,
    /// Of as many rows each.
    scales: Option<(&'a [f32], usize)>,
}

/// A weight in memory.
trait Weight: Copy + Sync {
    fn value(self) -> f32;

    /// # Safety
    /// The processor must have what `F` needs; `from` must be valid for reads of all lanes.
    unsafe fn load<F: Lanes>(from: *const Self) -> F;
}

impl Weight for f32 {
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<F: Lanes>(from: *const Self) -> F {
        // SAFETY: by the contract.
        unsafe { F::load(from) }
    }
}

impl Weight for i8 {
    fn value(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    unsafe fn load<F: Lanes>(from: *const Self) -> F {
        // SAFETY: by the contract.
        unsafe { F::load_i8(from) }
    }
}

fn in_parts<W: Weight>(x: &[&[f32]], k: usize, weights: Lines<'_, W>) -> Vec<f32> {
    let terms = k.div_ceil(PARTS).next_multiple_of(TERMS).max(TERMS);
    let part = |start: usize| {
        let mut sums = vec![0.0; x.len() * weights.columns];
        add_terms(x, weights, start..k.min(start + terms), &mut sums);
        sums
    };
    let parts: Vec<Vec<f32>> = (0..k).into_par_iter().step_by(terms).map(part).collect();
    let mut parts = parts.into_iter();
    let mut product = parts.next().unwrap_or_else(|| vec![0.0; x.len() * weights.columns]);
    parts.for_each(|part| simd::add(&mut product, &part));
    product
}

/// Adds some terms to the sums of all rows and columns.
fn add_terms<W: Weight>(x: &[&[f32]], weights: Lines<'_, W>, terms: Range<usize>, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};

        #[target_feature(enable = "avx512f")]
        unsafe fn avx512<W: Weight>(x: &[&[f32]], weights: Lines<'_, W>, terms: Range<usize>, sums: &mut [f32]) {
            // SAFETY: by the contract.
            unsafe { add_with::<__m512, W>(x, weights, terms, sums) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<W: Weight>(x: &[&[f32]], weights: Lines<'_, W>, terms: Range<usize>, sums: &mut [f32]) {
            // SAFETY: by the contract.
            unsafe { add_with::<__m256, W>(x, weights, terms, sums) }
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature.
            return unsafe { avx512(x, weights, terms, sums) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features.
            return unsafe { avx2(x, weights, terms, sums) };
        }
    }
    // SAFETY: every processor has these registers.
    unsafe { add_with::<[f32; 4], W>(x, weights, terms, sums) }
}

/// # Safety
/// The processor must have what `F` needs.
#[inline(always)]
unsafe fn add_with<F: Lanes, W: Weight>(x: &[&[f32]], weights: Lines<'_, W>, terms: Range<usize>, sums: &mut [f32]) {
    let Lines { values, stride, columns, scales } = weights;
    let mut start = terms.start;
    while start < terms.end {
        let (scales, block_end) = match scales {
            Some((scales, block)) => (&scales[start / block * columns..][..columns], (start / block + 1) * block),
            None => (&[][..], terms.end),
        };
        let end = terms.end.min(start + TERMS).min(block_end);
        // Where a block ends early, the rest are terms of 0 with the last line.
        let lines: [&[W]; TERMS] = std::array::from_fn(|i| &values[(start + i).min(end - 1) * stride..][..columns]);
        let whole = columns - columns % F::COUNT;
        // Blocks that stay in the first-level cache for the other rows.
        for first in (0..whole).step_by(simd::BLOCK) {
            let block = first..whole.min(first + simd::BLOCK);
            for (sums, x) in sums.chunks_exact_mut(columns).zip(x) {
                // SAFETY: lines, sums and the scales, if any, have as many columns; the processor has what `F` needs.
                unsafe {
                    let x: [F; TERMS] = std::array::from_fn(|i| F::splat(term(x, start + i, end)));
                    for column in block.clone().step_by(F::COUNT) {
                        let mut sum = F::splat(0.0);
                        for (x, line) in x.iter().zip(&lines) {
                            // The processor does not see that lines go on where others end.
                            if (column * size_of::<W>()).is_multiple_of(CACHE_LINE) {
                                prefetch(line.as_ptr().wrapping_add(TERMS * stride + column).cast(), 1);
                            }
                            sum = sum.add_product(*x, W::load::<F>(line.as_ptr().add(column)));
                        }
                        let scale =
                            if scales.is_empty() { F::splat(1.0) } else { F::load(scales.as_ptr().add(column)) };
                        let to = sums.as_mut_ptr().add(column);
                        F::load(to).add_product(sum, scale).store(to);
                    }
                }
            }
        }
        for (sums, x) in sums.chunks_exact_mut(columns).zip(x) {
            for column in whole..columns {
                let products = lines.iter().enumerate().map(|(i, line)| term(x, start + i, end) * line[column].value());
                sums[column] += scales.get(column).unwrap_or(&1.0) * products.sum::<f32>();
            }
        }
        start = end;
    }
}

#[inline(always)]
fn term(x: &[f32], at: usize, end: usize) -> f32 {
    if at < end { x[at] } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type AddTerms<W> = unsafe fn(&[&[f32]], Lines<'_, W>, Range<usize>, &mut [f32]);

    fn versions<W: Weight>() -> Vec<AddTerms<W>> {
        #[allow(unused_mut)] // Other processors have one version.
        let mut versions: Vec<AddTerms<W>> = vec![add_with::<[f32; 4], W>];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m256, __m512};
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                versions.push(add_with::<__m256, W>);
            }
            if is_x86_feature_detected!("avx512f") {
                versions.push(add_with::<__m512, W>);
            }
        }
        versions
    }

    /// Every version and [`in_parts`] against the definition in `f64`.
    fn assert_defined<W: Weight>(x: &[f32], k: usize, weights: Lines<'_, W>) -> Result<(), TestCaseError> {
        let (rows, n): (Vec<&[f32]>, usize) = (x.chunks_exact(k).collect(), weights.columns);
        let products = versions().into_iter().map(|add| {
            let mut sums = vec![0.0; rows.len() * n];
            // SAFETY: the registers were detected.
            unsafe { add(&rows, weights, 0..k, &mut sums) };
            sums
        });
        for got in products.chain([in_parts(&rows, k, weights)]) {
            for (at, got) in got.iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let weight = |i: usize| {
                    let scale = weights.scales.map_or(1.0, |(scales, block)| scales[i / block * n + column]);
                    f64::from(scale) * f64::from(weights.values[i * weights.stride + column].value())
                };
                let want: f64 = (0..k).map(|i| f64::from(x[row * k + i]) * weight(i)).sum();
                prop_assert!((f64::from(*got) - want).abs() <= 2e-4, "{} is not {}", got, want);
            }
        }
        Ok(())
    }

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    proptest! {
        #[test]
        fn products_with_floats_are_those_of_the_definition(
            m in 1usize..=3, n in 1usize..100, k in 1usize..150, gap in 0usize..3,
        ) {
            let (a, stride) = (numbers(m * k, 1), n + gap);
            let values = numbers(k * stride, 2);
            assert_defined(&a, k, Lines { values: &values, stride, columns: n, scales: None })?;
        }

        #[test]
        fn products_with_eight_bits_are_those_of_the_definition(
            m in 1usize..=3, n in 1usize..100, blocks in 1usize..6, block in 1usize..33,
        ) {
            let k = blocks * block;
            let values: Vec<i8> = (0..k * n).map(|i| (i * 104_729 % 255) as u8 as i8).collect();
            let scales: Vec<f32> = (0..blocks * n).map(|i| (1 + i * 31 % 17) as f32 / 2048.0).collect();
            let lines = Lines { values: &values, stride: n, columns: n, scales: Some((&scales, block)) };
            assert_defined(&numbers(m * k, 1), k, lines)?;
        }

        #[test]
        fn products_with_columns_are_those_of_the_definition(n in 1usize..100, k in 1usize..150, gap in 0usize..3) {
            let (x, stride) = (numbers(k, 1), k + gap);
            let values = numbers(n * stride, 2);
            for (got, weights) in dots(&x, n, &values, stride).iter().zip(values.chunks(stride)) {
                let want: f64 = x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                prop_assert!((f64::from(*got) - want).abs() <= 2e-5, "{} is not {}", got, want);
            }
        }
    }
}
