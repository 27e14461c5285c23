//! Products of so few rows that all their time goes into reading the weights: those are read once, from first to last.
#![allow(unsafe_code)] // Functions for more than the baseline of the machine.

use std::ops::Range;

use rayon::prelude::*;

use crate::few_rows::Int8;
use crate::lanes::{Lanes, prefetch};
use crate::simd;

/// Rows for which this is faster than panels.
pub const ROWS: usize = 3;
/// Terms that are summed before the scale is applied; as many streams of memory are read side by side.
const TERMS: usize = 4;
/// Parts of the terms, each with sums of its own: a fixed number, so that results do not depend on the threads.
const PARTS: usize = 8;

/// `a b` for contiguous `[m, k]` and weights of 8 bits.
///
/// # Panics
/// If `a` or the weights are smaller than the sizes say.
pub fn multiply([m, n, k]: [usize; 3], a: &[f32], weights: Int8<'_>) -> Vec<f32> {
    weights.assert_fits([m, n, k], a);
    let terms = k.div_ceil(PARTS).next_multiple_of(TERMS).max(TERMS);
    let part = |start: usize| {
        let mut sums = vec![0.0; m * n];
        add_terms(a, weights, start..k.min(start + terms), &mut sums);
        sums
    };
    let parts: Vec<Vec<f32>> = (0..k).into_par_iter().step_by(terms).map(part).collect();
    let mut parts = parts.into_iter();
    let mut product = parts.next().unwrap_or_else(|| vec![0.0; m * n]);
    parts.for_each(|part| simd::add(&mut product, &part));
    product
}

/// Adds some terms to the sums of all rows and columns.
fn add_terms(a: &[f32], weights: Int8<'_>, terms: Range<usize>, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};

        #[target_feature(enable = "avx512f")]
        unsafe fn avx512(a: &[f32], weights: Int8<'_>, terms: Range<usize>, sums: &mut [f32]) {
            // SAFETY: by the contract.
            unsafe { add_with::<__m512>(a, weights, terms, sums) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2(a: &[f32], weights: Int8<'_>, terms: Range<usize>, sums: &mut [f32]) {
            // SAFETY: by the contract.
            unsafe { add_with::<__m256>(a, weights, terms, sums) }
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature.
            return unsafe { avx512(a, weights, terms, sums) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features.
            return unsafe { avx2(a, weights, terms, sums) };
        }
    }
    // SAFETY: every processor has these registers.
    unsafe { add_with::<[f32; 4]>(a, weights, terms, sums) }
}

/// # Safety
/// The processor must have what `F` needs.
#[inline(always)]
unsafe fn add_with<F: Lanes>(a: &[f32], weights: Int8<'_>, terms: Range<usize>, sums: &mut [f32]) {
    let Int8 { values, scales, block, columns } = weights;
    let terms_of_row = values.len() / columns;
    let mut start = terms.start;
    while start < terms.end {
        let number = start / block;
        let end = terms.end.min(start + TERMS).min((number + 1) * block);
        let scales = &scales[number * columns..][..columns];
        // Where a block ends early, the rest are terms of 0.
        let lines: [&[i8]; TERMS] = std::array::from_fn(|i| &values[(start + i).min(end - 1) * columns..][..columns]);
        for (sums, a) in sums.chunks_exact_mut(columns).zip(a.chunks_exact(terms_of_row)) {
            let x: [f32; TERMS] = std::array::from_fn(|i| if start + i < end { a[start + i] } else { 0.0 });
            let whole = columns - columns % F::COUNT;
            // SAFETY: lines, scales and sums have as many columns; the processor has what `F` needs.
            unsafe {
                let x = x.map(|x| F::splat(x));
                for column in (0..whole).step_by(F::COUNT) {
                    let mut sum = F::splat(0.0);
                    for (x, line) in x.iter().zip(&lines) {
                        // The processor does not see that lines go on where others end.
                        if column % 64 == 0 {
                            prefetch(line.as_ptr().wrapping_add(TERMS * columns + column).cast(), 1);
                        }
                        sum = sum.add_product(*x, F::load_i8(line.as_ptr().add(column)));
                    }
                    let to = sums.as_mut_ptr().add(column);
                    F::load(to).add_product(sum, F::load(scales.as_ptr().add(column))).store(to);
                }
            }
            for column in whole..columns {
                let sum: f32 = x.iter().zip(&lines).map(|(x, line)| x * f32::from(line[column])).sum();
                sums[column] += scales[column] * sum;
            }
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type AddTerms = unsafe fn(&[f32], Int8<'_>, Range<usize>, &mut [f32]);

    fn versions() -> Vec<AddTerms> {
        #[allow(unused_mut)] // Other processors have one version.
        let mut versions: Vec<AddTerms> = vec![add_with::<[f32; 4]>];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m256, __m512};
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                versions.push(add_with::<__m256>);
            }
            if is_x86_feature_detected!("avx512f") {
                versions.push(add_with::<__m512>);
            }
        }
        versions
    }

    proptest! {
        /// With every set of registers that this processor has, against the definition in `f64`.
        #[test]
        fn products_are_those_of_the_definition(
            m in 1usize..=ROWS, n in 1usize..100, blocks in 1usize..6, block in 1usize..33,
        ) {
            let k = blocks * block;
            let a: Vec<f32> = (0..m * k).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
            let values: Vec<i8> = (0..k * n).map(|i| (i * 104_729 % 255) as u8 as i8).collect();
            let scales: Vec<f32> = (0..blocks * n).map(|i| (1 + i * 31 % 17) as f32 / 2048.0).collect();
            let weights = Int8 { values: &values, scales: &scales, block, columns: n };
            let products = versions().into_iter().map(|add| {
                let mut sums = vec![0.0; m * n];
                // SAFETY: the registers were detected.
                unsafe { add(&a, weights, 0..k, &mut sums) };
                sums
            });
            for got in products.chain([multiply([m, n, k], &a, weights)]) {
                for (at, got) in got.iter().enumerate() {
                    let (row, column) = (at / n, at % n);
                    let weight = |i: usize| f64::from(scales[i / block * n + column]) * f64::from(values[i * n + column]);
                    let want: f64 = (0..k).map(|i| f64::from(a[row * k + i]) * weight(i)).sum();
                    prop_assert!((f64::from(*got) - want).abs() <= 2e-4, "{} is not {}", got, want);
                }
            }
        }
    }
}
