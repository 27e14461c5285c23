//! Weights of a product, copied panel by panel.

use std::ops::Range;

use crate::lanes::Lanes;

/// Weights `[k, n]` of 8 bits, row-major: `scales[i / block, j] values[i, j]`.
#[derive(Debug, Clone, Copy)]
pub struct Int8<'a> {
    pub values: &'a [i8],
    pub scales: &'a [f32],
    /// Rows that share their scales.
    pub block: usize,
    pub columns: usize,
}

impl Int8<'_> {
    /// # Panics
    /// If these are no weights for a product of sizes `m`, `n`, `k` with `a`.
    pub fn assert_fits(&self, [m, n, k]: [usize; 3], a: &[f32]) {
        let is_whole = a.len() == m * k && self.values.len() == k * n && self.columns == n;
        assert!(is_whole, "multiply: sizes of the operands");
        assert!(self.scales.len() >= k.div_ceil(self.block) * n, "multiply: a scale for each block");
    }
}

/// The weights of a product.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    Floats {
        values: &'a [f32],
        /// Of rows, or of columns.
        stride: usize,
    },
    /// For [`Order::Rows`].
    Int8(Int8<'a>),
}

/// Columns from `first` on, as many as a panel has or `narrow`.
///
/// # Safety
/// The processor must have what `F` needs.
#[inline(always)]
pub unsafe fn fill_panel<F: Lanes, const V: usize>(
    panel: &mut [f32],
    weights: Weights<'_>,
    first: usize,
    narrow: usize,
) {
    let width = V * F::COUNT;
    match weights {
        Weights::Floats { values, stride } => {
            for (row, line) in panel.chunks_exact_mut(width).enumerate() {
                let weights = &values[row * stride + first..];
                // A length that the compiler knows makes this loads and stores instead of a call.
                if narrow == width {
                    line.copy_from_slice(&weights[..width])
                } else {
                    line[..narrow].copy_from_slice(&weights[..narrow])
                }
            }
        }
        Weights::Int8(Int8 { values, scales, block, columns }) => {
            for (number, lines) in panel.chunks_mut(width * block).enumerate() {
                let scales = &scales[number * columns + first..][..narrow];
                let rows = number * block..;
                if narrow < width {
                    for (row, line) in rows.zip(lines.chunks_exact_mut(width)) {
                        let values = &values[row * columns + first..];
                        for ((weight, scale), &value) in line.iter_mut().zip(scales).zip(values) {
                            *weight = scale * f32::from(value);
                        }
                    }
                    continue;
                }
                // SAFETY: a panel's width of scales, and of each row's values.
                unsafe {
                    let scales: [F; V] = std::array::from_fn(|v| F::load(scales.as_ptr().add(v * F::COUNT)));
                    for (row, line) in rows.zip(lines.chunks_exact_mut(width)) {
                        let values = &values[row * columns + first..][..width];
                        for (v, &scale) in scales.iter().enumerate() {
                            let value = F::load_i8(values.as_ptr().add(v * F::COUNT));
                            F::splat(0.0).add_product(scale, value).store(line.as_mut_ptr().add(v * F::COUNT));
                        }
                    }
                }
            }
        }
    }
}

/// Memory that comes into the cache meanwhile.
pub struct Ahead {
    pub start: *const u8,
    pub stride: usize,
    /// Bytes of a line.
    pub line: usize,
    pub lines: Range<usize>,
}

impl Ahead {
    /// A share of the panel whose columns begin at `first`.
    #[inline(always)]
    pub fn of(weights: Weights<'_>, first: usize, width: usize, lines: Range<usize>) -> Self {
        match weights {
            Weights::Floats { values, stride } => {
                let size = size_of::<f32>();
                Self { start: values[first..].as_ptr().cast(), stride: stride * size, line: width * size, lines }
            }
            Weights::Int8(Int8 { values, columns, .. }) => {
                Self { start: values[first..].as_ptr().cast(), stride: columns, line: width, lines }
            }
        }
    }
}
