//! Products of few rows with large weights, as decoding needs them: every weight is read once from memory, where it lies,
//! while the rows stay in the cache. The general product packs its operands first, which so few rows do not repay.
//! Up to three rows read the weights as they come ([`vector`]); more go over panels of them.
#![allow(unsafe_code)] // Outputs whose columns several threads write; functions for more than the baseline of the machine.

mod panel;
mod vector;

use std::ops::{Range, RangeInclusive};

use rayon::prelude::*;

use crate::lanes::{Lanes, prefetch};
use crate::matrix::{Matrix, Output};

pub use panel::Int8;
use panel::{Ahead, Weights, fill_panel};

/// Rows for which this module is faster than the general product.
const ROWS: RangeInclusive<usize> = 1..=128;
/// Columns and terms that are worth a panel.
const FEWEST: usize = 16;
/// Columns of a task are a multiple of this, which every panel divides.
const COLUMNS: usize = 48;
/// Lanes of the vectors of a tile at most.
const MOST_LANES: usize = 32;
/// Tasks for each thread: a thread that is held up leaves some of its own to the others.
const TASKS: usize = 4;

/// How the weights `[k, n]` lie in memory.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Neighbouring columns.
    Rows,
    /// Neighbouring rows, as those of a tied embedding.
    Columns,
}

/// A product and where it goes.
#[derive(Clone, Copy)]
struct Job<'a> {
    m: usize,
    k: usize,
    /// `[m, k]` for [`Order::Rows`], `[k, m]` with zeros up to the stride for [`Order::Columns`].
    x: &'a [f32],
    x_stride: usize,
    weights: Weights<'a>,
    out: *mut f32,
    out_stride: usize,
    output: Output,
}

// SAFETY: tasks write different columns of `out`.
unsafe impl Sync for Job<'_> {}

/// `out (+)= a b` for `[m, k]` and `[k, n]`, on all threads, if that is a product for this module; whether it was.
///
/// The order of each sum does not depend on the threads, so that a result does not either.
///
/// # Safety
/// `a` and `b` must reach as far as the sizes say; `out` must be valid for writes of `m` rows of `n` values, `stride`
/// apart, and for reads if it is added to; nothing else may use them.
pub unsafe fn multiply(
    [m, n, k]: [usize; 3],
    [a, b]: [Matrix<'_>; 2],
    (out, out_stride): (*mut f32, usize),
    output: Output,
) -> bool {
    if !ROWS.contains(&m) || n < FEWEST || k < FEWEST || a.column_stride != 1 {
        return false;
    }
    let (order, stride) = match [b.row_stride, b.column_stride] {
        [stride, 1] => (Order::Rows, stride),
        [1, stride] => (Order::Columns, stride),
        _ => return false,
    };
    let weights = Weights::Floats { values: b.values, stride };
    if m <= vector::most_rows(order) {
        let product = vector::multiply(order, [m, n, k], a, weights);
        for (row, values) in product.chunks_exact(n).enumerate() {
            // SAFETY: by the contract.
            unsafe { put(out.add(row * out_stride), values, output) };
        }
        return true;
    }
    let turned;
    let (x, x_stride) = match order {
        Order::Rows => (a.values, a.row_stride),
        Order::Columns => {
            let width = m.next_multiple_of(FEWEST);
            turned = turn(a, [m, k], width);
            (turned.as_slice(), width)
        }
    };
    // SAFETY: by the contract.
    unsafe { in_tasks(order, &Job { m, k, x, x_stride, weights, out, out_stride, output }, n) };
    true
}

/// `out = a b` for contiguous `[m, k]` and weights of 8 bits, on all threads; any number of rows.
///
/// # Panics
/// If `a` or the weights are smaller than the sizes say.
pub fn multiply_int8([m, n, k]: [usize; 3], a: &[f32], weights: Int8<'_>) -> Vec<f32> {
    weights.assert_fits([m, n, k], a);
    if m <= vector::most_rows(Order::Rows) {
        return vector::multiply(Order::Rows, [m, n, k], Matrix::rows(a, k), Weights::Int8(weights));
    }
    let mut product = Vec::with_capacity(m * n);
    let out: *mut f32 = product.as_mut_ptr();
    for first in (0..m).step_by(*ROWS.end()) {
        let rows = (m - first).min(*ROWS.end());
        let x = &a[first * k..];
        // SAFETY: as many rows of the capacity, which nothing else uses.
        unsafe {
            let (out, weights, output) = (out.add(first * n), Weights::Int8(weights), Output::Overwritten);
            in_tasks(Order::Rows, &Job { m: rows, k, x, x_stride: k, weights, out, out_stride: n, output }, n);
        }
    }
    // SAFETY: every row was written.
    unsafe { product.set_len(m * n) };
    product
}

/// A product in ranges of columns.
///
/// # Safety
/// See [`multiply`].
unsafe fn in_tasks(order: Order, job: &Job<'_>, n: usize) {
    let columns = n.div_ceil(TASKS * rayon::current_num_threads()).next_multiple_of(COLUMNS);
    // SAFETY: the ranges are apart and end at `n`; the rest is the contract of this function.
    let task = |i: usize| unsafe { run(order, job, i * columns..n.min((i + 1) * columns)) };
    (0..n.div_ceil(columns)).into_par_iter().for_each(task);
}

/// `[m, k]` as `[k, width]`, with zeros behind the `m` columns.
fn turn(a: Matrix<'_>, [m, k]: [usize; 2], width: usize) -> Vec<f32> {
    let mut turned = vec![0.0; k * width];
    for row in 0..m {
        for (to, from) in turned[row..].iter_mut().step_by(width).zip(a.row(row, k)) {
            *to = from;
        }
    }
    turned
}

/// Some columns of a product, with the lanes and the tile of sums that the processor has registers for.
///
/// # Safety
/// See [`multiply`]; nothing else may use these columns of the output.
unsafe fn run(order: Order, job: &Job<'_>, columns: Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        unsafe fn with_avx512(order: Order, job: &Job<'_>, columns: Range<usize>) {
            // SAFETY: by the contract.
            unsafe { avx512(order, job, columns) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn with_avx2(order: Order, job: &Job<'_>, columns: Range<usize>) {
            // SAFETY: by the contract.
            unsafe { avx2(order, job, columns) }
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature; the rest by the contract.
            return unsafe { with_avx512(order, job, columns) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { with_avx2(order, job, columns) };
        }
    }
    // SAFETY: by the contract.
    unsafe { portable(order, job, columns) }
}

/// The kernels with their lanes, and the tiles of [`Order::Rows`] and of [`Order::Columns`].
macro_rules! kernels {
    ($($(#[$when:meta])* $name:ident: $lanes:ty, $rows:literal x $row_vectors:literal, $columns:literal x $column_vectors:literal;)*) => {$(
        /// # Safety
        /// See [`run`]; the processor must have the registers.
        $(#[$when])*
        #[inline(always)]
        unsafe fn $name(order: Order, job: &Job<'_>, columns: Range<usize>) {
            // SAFETY: by the contract.
            unsafe {
                match order {
                    Order::Rows => by_rows::<$lanes, $rows, $row_vectors>(job, columns),
                    Order::Columns => by_columns::<$lanes, $columns, $column_vectors>(job, columns),
                }
            }
        }
    )*};
}

kernels! {
    #[cfg(target_arch = "x86_64")] avx512: std::arch::x86_64::__m512, 8 x 3, 12 x 2;
    #[cfg(target_arch = "x86_64")] avx2: std::arch::x86_64::__m256, 4 x 3, 6 x 2;
    portable: [f32; 4], 4 x 3, 3 x 4;
}

/// `sum_i x_r[i] w_i` for `i` in `0..k`, for `R` rows and `V` vectors, the `w_i` being `stride` apart; `each` runs beside.
///
/// # Safety
/// The processor must have what `F` needs.
#[inline(always)]
unsafe fn tile<F: Lanes, const R: usize, const V: usize>(
    k: usize,
    x: [&[f32]; R],
    w: &[f32],
    stride: usize,
    each: impl Fn(usize),
) -> [[F; V]; R] {
    let reaches = x.iter().all(|row| row.len() >= k) && w.len() + stride >= k * stride + V * F::COUNT;
    assert!(reaches, "multiply: a tile outside of its operands");
    // SAFETY: the operands reach as far as `k` (checked above).
    unsafe {
        let mut sums = [[F::splat(0.0); V]; R];
        for i in 0..k {
            let line = w.as_ptr().add(i * stride);
            let w: [F; V] = std::array::from_fn(|v| F::load(line.add(v * F::COUNT)));
            each(i);
            for (sums, x) in sums.iter_mut().zip(&x) {
                let x = F::splat(*x.get_unchecked(i));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = sum.add_product(x, w);
                }
            }
        }
        sums
    }
}

/// [`Order::Rows`]: panels of `V` vectors of columns, over which the rows go in tiles of `R`. A panel is copied first: its lines
/// are a row of the weights apart, which no prefetcher follows, and which puts them into few places of the cache where the
/// width is a power of two.
///
/// # Safety
/// See [`run`].
#[inline(always)]
unsafe fn by_rows<F: Lanes, const R: usize, const V: usize>(job: &Job<'_>, columns: Range<usize>) {
    let width = V * F::COUNT;
    let mut panel = vec![0.0; job.k * width];
    let mut product = Vec::new();
    for first in columns.clone().step_by(width) {
        let narrow = width.min(columns.end - first);
        // SAFETY: the processor has what `F` needs, by the contract.
        unsafe { fill_panel::<F, V>(&mut panel, job.weights, first, narrow) };
        if narrow == width {
            let next = (first + width < columns.end).then_some(first + width);
            // SAFETY: the columns are those of this task.
            unsafe { rows_of_panel::<F, R, V>(job, &panel, next, job.out.add(first), job.out_stride, job.output) };
            continue;
        }
        // The last, narrower than a panel, has what it likes behind its columns.
        product.resize(job.m * width, 0.0);
        // SAFETY: `product` has as many rows of a panel's width.
        unsafe { rows_of_panel::<F, R, V>(job, &panel, None, product.as_mut_ptr(), width, Output::Overwritten) };
        for (row, values) in product.chunks_exact(width).enumerate() {
            // SAFETY: by the contract.
            unsafe { put(job.out.add(row * job.out_stride + first), &values[..narrow], job.output) };
        }
    }
}

/// The product of all rows with one panel; `next` is where the columns of the panel after it begin.
///
/// # Safety
/// `out` must be valid for `m` rows of a panel's width; nothing else may use them.
#[inline(always)]
unsafe fn rows_of_panel<F: Lanes, const R: usize, const V: usize>(
    job: &Job<'_>,
    panel: &[f32],
    next: Option<usize>,
    out: *mut f32,
    stride: usize,
    output: Output,
) {
    let mut row = 0;
    while row < job.m {
        let size = if job.m - row >= R { R } else { 1 << (job.m - row).ilog2() };
        // The share of the next panel that comes from memory meanwhile.
        let lines = job.k * row / job.m..job.k * (row + size) / job.m;
        let ahead = next.map(|next| Ahead::of(job.weights, next, V * F::COUNT, lines));
        // SAFETY: by the contract.
        unsafe {
            let out = out.add(row * stride);
            match size {
                1 => rows_tile::<F, 1, V>(job, panel, ahead, row, out, stride, output),
                2 => rows_tile::<F, 2, V>(job, panel, ahead, row, out, stride, output),
                4 => rows_tile::<F, 4, V>(job, panel, ahead, row, out, stride, output),
                _ => rows_tile::<F, R, V>(job, panel, ahead, row, out, stride, output),
            }
        }
        row += size;
    }
}

/// `R` rows of a panel.
///
/// # Safety
/// See [`rows_of_panel`].
#[inline(always)]
unsafe fn rows_tile<F: Lanes, const R: usize, const V: usize>(
    job: &Job<'_>,
    panel: &[f32],
    ahead: Option<Ahead>,
    row: usize,
    out: *mut f32,
    stride: usize,
    output: Output,
) {
    let x = std::array::from_fn(|r| &job.x[(row + r) * job.x_stride..]);
    let Ahead { start, stride: next, line, lines } =
        ahead.unwrap_or(Ahead { start: std::ptr::null(), stride: 0, line: 0, lines: 0..0 });
    // SAFETY: the processor has what `F` needs, by the contract.
    let sums = unsafe {
        tile::<F, R, V>(job.k, x, panel, V * F::COUNT, |i| {
            if lines.contains(&i) {
                prefetch(start.wrapping_add(i * next), line);
            }
        })
    };
    for (r, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: by the contract.
            unsafe {
                let place = out.add(r * stride + v * F::COUNT);
                let sum = if output == Output::AddedTo { sum.add_product(F::splat(1.0), F::load(place)) } else { sum };
                sum.store(place);
            }
        }
    }
}

/// [`Order::Columns`]: tiles of `R` columns, whose weights are rows in memory, over which the turned rows go in vectors.
///
/// # Safety
/// See [`run`].
#[inline(always)]
unsafe fn by_columns<F: Lanes, const R: usize, const V: usize>(job: &Job<'_>, columns: Range<usize>) {
    let mut column = columns.start;
    while column < columns.end {
        let is_whole = columns.end - column >= R;
        let mut row = 0;
        while row < job.m {
            // SAFETY: rows and columns are those of the task.
            row += unsafe {
                match (is_whole, job.x_stride - row >= V * F::COUNT) {
                    (true, true) => columns_tile::<F, R, V>(job, column, row),
                    (true, false) => columns_tile::<F, R, 1>(job, column, row),
                    (false, true) => columns_tile::<F, 1, V>(job, column, row),
                    (false, false) => columns_tile::<F, 1, 1>(job, column, row),
                }
            };
        }
        column += if is_whole { R } else { 1 };
    }
}

/// `V L` rows of `R` columns; returns `V L`.
///
/// # Safety
/// See [`run`].
#[inline(always)]
unsafe fn columns_tile<F: Lanes, const R: usize, const V: usize>(job: &Job<'_>, column: usize, row: usize) -> usize {
    let Weights::Floats { values, stride } = job.weights else { unreachable!("weights of 8 bits lie in rows") };
    let weights = std::array::from_fn(|r| &values[(column + r) * stride..]);
    // SAFETY: the processor has what `F` needs, by the contract.
    let sums = unsafe { tile::<F, R, V>(job.k, weights, &job.x[row..], job.x_stride, |_| {}) };
    let mut lanes = [[0.0; MOST_LANES]; R];
    for (lanes, sums) in lanes.iter_mut().zip(sums) {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: as many lanes as there are at most.
            unsafe { sum.store(lanes.as_mut_ptr().add(v * F::COUNT)) };
        }
    }
    for lane in 0..(V * F::COUNT).min(job.m - row) {
        let of_row = lanes.each_ref().map(|of_column| of_column[lane]);
        // SAFETY: by the contract.
        unsafe { put(job.out.add((row + lane) * job.out_stride + column), &of_row, job.output) };
    }
    V * F::COUNT
}

/// # Safety
/// `out` must be valid for writes of as many values, and for reads if they are added to.
#[inline(always)]
unsafe fn put(out: *mut f32, values: &[f32], output: Output) {
    // SAFETY: by the contract.
    unsafe {
        match output {
            Output::Overwritten => out.copy_from_nonoverlapping(values.as_ptr(), values.len()),
            Output::AddedTo => {
                for (i, value) in values.iter().enumerate() {
                    *out.add(i) += value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
