//! Matrix products in memory of the caller.
#![allow(unsafe_code)] // Calls into the matrix product, whose operands are pointers with strides.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;

use crate::few_rows;

/// Multiplications below which a product stays on its thread.
const PARALLEL_WORK: usize = 128 * 1024;

/// A matrix in memory: where its values begin, and how far apart rows and columns are.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major rows, `stride` apart.
    #[must_use]
    pub fn rows(values: &'a [f32], stride: usize) -> Self {
        Self { values, row_stride: stride, column_stride: 1 }
    }

    /// A tensor of two axes in `f32`; `None` for other tensors and for strides that are negative.
    #[must_use]
    pub fn of(tensor: &'a FlexTensor) -> Option<Self> {
        let &[row, column] = tensor.layout().strides() else { return None };
        if tensor.dtype() != DType::F32 {
            return None;
        }
        let values = tensor.storage::<f32>().get(tensor.layout().start_offset()..)?;
        Some(Self { values, row_stride: row.try_into().ok()?, column_stride: column.try_into().ok()? })
    }

    /// The other way round.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// From row `row` and column `column` on.
    ///
    /// # Panics
    /// If that is outside of memory.
    #[must_use]
    pub fn from(self, row: usize, column: usize) -> Self {
        Self { values: &self.values[row * self.row_stride + column * self.column_stride..], ..self }
    }

    /// The first `columns` values of a row.
    ///
    /// # Panics
    /// While iterating, if that is outside of memory.
    pub fn row(self, row: usize, columns: usize) -> impl Iterator<Item = f32> + use<'a> {
        (0..columns).map(move |column| self.values[row * self.row_stride + column * self.column_stride])
    }

    fn reaches(&self, rows: usize, columns: usize) -> bool {
        reaches(self.values.len(), [self.row_stride, self.column_stride], [rows, columns])
    }
}

/// A matrix that a product is written to.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    values: &'a mut [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Row-major rows, `stride` apart.
    #[must_use]
    pub fn rows(values: &'a mut [f32], stride: usize) -> Self {
        Self { values, row_stride: stride, column_stride: 1 }
    }

    /// The other way round.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

fn reaches(length: usize, strides: [usize; 2], sizes: [usize; 2]) -> bool {
    let [rows, columns] = sizes;
    let last = || {
        let row = (rows - 1).checked_mul(strides[0])?;
        row.checked_add((columns - 1).checked_mul(strides[1])?)
    };
    rows == 0 || columns == 0 || last().is_some_and(|last| last < length)
}

/// What becomes of the numbers that an output held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// They are not read.
    Overwritten,
    /// The product is added to them.
    AddedTo,
}

/// Threads of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The caller's.
    One,
    /// Rayon's, where the product is large enough.
    Many,
}

/// `out (+)= a b` for `[m, k]` and `[k, n]`, on several threads where that pays.
///
/// # Panics
/// If a matrix is smaller than its sizes say, or `out` has two elements in one place.
pub fn multiply([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, out: MatrixMut<'_>, output: Output) {
    let (rows, columns) = (out.row_stride, out.column_stride);
    assert!(reaches(out.values.len(), [rows, columns], [m, n]), "multiply: the output is too small for {m} x {n}");
    let is_distinct = rows >= n.saturating_mul(columns.max(1)) || columns >= m.saturating_mul(rows.max(1));
    assert!(is_distinct, "multiply: strides {rows} and {columns} put elements of {m} x {n} into one place");
    if k == 0 {
        // The product below does not write then.
        if output == Output::Overwritten {
            let places = (0..m).flat_map(|row| (0..n).map(move |column| row * rows + column * columns));
            places.for_each(|at| out.values[at] = 0.0);
        }
        return;
    }
    // SAFETY: `out` is borrowed for this call alone, reaches as far as the sizes, and has its elements apart.
    unsafe { multiply_at([m, n, k], a, b, out.values.as_mut_ptr(), [rows, columns], output, Threads::Many) }
}

/// [`multiply`] through a pointer; `strides` are those of rows and columns of `out`. `k` must be at least 1.
///
/// # Safety
/// `out` must be valid for writes of `[m, n]` elements at `strides`, all in different places, and for reads if it is
/// added to; nothing else may use them.
///
/// # Panics
/// If `a` or `b` is smaller than its sizes say.
pub(crate) unsafe fn multiply_at(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: *mut f32,
    strides: [usize; 2],
    output: Output,
    threads: Threads,
) {
    assert!(a.reaches(m, k) && b.reaches(k, n), "multiply: an operand is too small for {m} x {k} x {n}");
    let is_parallel = threads == Threads::Many && m * n * k >= PARALLEL_WORK;
    // SAFETY: the operands reach as far as the sizes (checked above); the caller answers for `out`.
    if is_parallel && strides[1] == 1 && unsafe { few_rows::multiply([m, n, k], [a, b], (out, strides[0]), output) } {
        return;
    }
    let is_added = output == Output::AddedTo;
    let step = |stride: usize| stride as isize;
    let parallelism = if is_parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: as above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            step(strides[1]),
            step(strides[0]),
            is_added,
            a.values.as_ptr(),
            step(a.column_stride),
            step(a.row_stride),
            b.values.as_ptr(),
            step(b.column_stride),
            step(b.row_stride),
            if is_added { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `a b` in fresh memory, each row beginning at `start` if it is given.
pub(crate) fn fresh_product([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, start: Option<&[f32]>) -> Vec<f32> {
    if k == 0 {
        return start.map_or_else(|| vec![0.0; m * n], |start| start.repeat(m));
    }
    let mut out = Vec::with_capacity(m * n);
    if let Some(start) = start {
        (0..m).for_each(|_| out.extend_from_slice(start));
    }
    let output = if start.is_some() { Output::AddedTo } else { Output::Overwritten };
    // SAFETY: the capacity is `m * n`; the product writes all of it, and reads it only where `start` was written.
    unsafe {
        multiply_at([m, n, k], a, b, out.as_mut_ptr(), [n, 1], output, Threads::Many);
        out.set_len(m * n);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any orientation of operands and output, with room between rows, against the definition in `f64`.
        #[test]
        fn products_are_those_of_the_definition(
            sizes in prop::array::uniform3(0usize..40),
            turned in prop::array::uniform3(any::<bool>()),
            gap in 0usize..3,
            is_added in any::<bool>(),
        ) {
            let [m, n, k] = sizes;
            let fill = |rows: usize, columns: usize, seed: u64| -> Vec<f32> {
                let length = rows.max(1) * (columns + gap).max(1);
                (0..length as u64).map(|i| ((i * 2_654_435_761 + seed) % 1000) as f32 / 500.0 - 1.0).collect()
            };
            let sides = |is_turned: bool, rows: usize, columns: usize| if is_turned { [columns, rows] } else { [rows, columns] };
            let at = |is_turned: bool, rows: usize, columns: usize, i: usize, j: usize| {
                let stride = sides(is_turned, rows, columns)[1] + gap;
                if is_turned { j * stride + i } else { i * stride + j }
            };
            let stored = |is_turned: bool, rows: usize, columns: usize, seed: u64| {
                let [rows, columns] = sides(is_turned, rows, columns);
                fill(rows, columns, seed)
            };
            let (a, b, before) = (stored(turned[0], m, k, 1), stored(turned[1], k, n, 2), stored(turned[2], m, n, 3));
            let stride = |is_turned: bool, rows, columns| sides(is_turned, rows, columns)[1] + gap;
            let side = |values, is_turned: bool, rows, columns| {
                let matrix = Matrix::rows(values, stride(is_turned, rows, columns));
                if is_turned { matrix.transposed() } else { matrix }
            };
            let mut got = before.clone();
            let out = MatrixMut::rows(&mut got, stride(turned[2], m, n));
            let out = if turned[2] { out.transposed() } else { out };
            let output = if is_added { Output::AddedTo } else { Output::Overwritten };
            multiply(sizes, side(&a, turned[0], m, k), side(&b, turned[1], k, n), out, output);
            let mut want = before;
            for i in 0..m {
                for j in 0..n {
                    let place = at(turned[2], m, n, i, j);
                    let term = |l| f64::from(a[at(turned[0], m, k, i, l)]) * f64::from(b[at(turned[1], k, n, l, j)]);
                    let start = if is_added { f64::from(want[place]) } else { 0.0 };
                    want[place] = (start + (0..k).map(term).sum::<f64>()) as f32;
                }
            }
            for (got, want) in got.iter().zip(&want) {
                prop_assert!((got - want).abs() <= 2e-5, "{} is not {}", got, want);
            }
        }
    }

    #[test]
    #[should_panic(expected = "into one place")]
    fn outputs_that_overlap_are_refused() {
        multiply(
            [2, 2, 1],
            Matrix::rows(&[1.0; 2], 1),
            Matrix::rows(&[1.0; 2], 2),
            MatrixMut::rows(&mut [0.0; 9], 1),
            Output::Overwritten,
        );
    }

    #[test]
    #[should_panic(expected = "operand is too small")]
    fn strides_beyond_memory_are_refused() {
        let (a, b) = (Matrix::rows(&[1.0; 3], 1 << (usize::BITS - 1)), Matrix::rows(&[1.0], 1));
        multiply([3, 1, 1], a, b, MatrixMut::rows(&mut [0.0; 3], 1), Output::Overwritten);
    }

    #[test]
    #[should_panic(expected = "operand is too small")]
    fn operands_that_are_too_small_are_refused() {
        multiply(
            [2, 2, 2],
            Matrix::rows(&[1.0; 3], 2),
            Matrix::rows(&[1.0; 4], 2),
            MatrixMut::rows(&mut [0.0; 4], 2),
            Output::Overwritten,
        );
    }
}
