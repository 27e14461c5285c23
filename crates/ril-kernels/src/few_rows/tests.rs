use proptest::prelude::*;

use super::*;

/// The kernels of the registers that this processor has.
fn versions() -> Vec<unsafe fn(Order, &Job<'_>, Range<usize>)> {
    #[allow(unused_mut)] // Other processors have one version.
    let mut versions: Vec<unsafe fn(Order, &Job<'_>, Range<usize>)> = vec![run, portable];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            versions.push(avx2);
        }
        if is_x86_feature_detected!("avx512f") {
            versions.push(avx512);
        }
    }
    versions
}

proptest! {
    /// Every version, both orders of the weights, with room between rows, against the definition in `f64`.
    #[test]
    fn products_are_those_of_the_definition(
        m in 1usize..40, n in 1usize..150, k in 1usize..40, gap in 0usize..3, is_added in any::<bool>(),
    ) {
        let fill = |count: usize, seed: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0).collect()
        };
        let (a, before) = (fill(m * (k + gap), 1), fill(m * (n + gap), 2));
        let output = if is_added { Output::AddedTo } else { Output::Overwritten };
        for order in [Order::Rows, Order::Columns] {
            let [lines, line] = match order { Order::Rows => [k, n], Order::Columns => [n, k] };
            let (weights, weights_stride) = (fill(lines * (line + gap), 3), line + gap);
            let weight = |i: usize, j: usize| match order {
                Order::Rows => weights[i * weights_stride + j],
                Order::Columns => weights[j * weights_stride + i],
            };
            let width = m.next_multiple_of(FEWEST);
            let turned = turn(Matrix::rows(&a, k + gap), [m, k], width);
            let (x, x_stride) = match order { Order::Rows => (&a, k + gap), Order::Columns => (&turned, width) };
            for version in versions() {
                let mut got = before.clone();
                let (out, out_stride) = (got.as_mut_ptr(), n + gap);
                let weights = Weights::Floats { values: &weights, stride: weights_stride };
                let job = Job { m, k, x, x_stride, weights, out, out_stride, output };
                // SAFETY: the output has `m` rows of `n` values.
                unsafe { version(order, &job, 0..n) };
                for (at, (got, before)) in got.iter().zip(&before).enumerate() {
                    let (row, column) = (at / out_stride, at % out_stride);
                    if column >= n {
                        prop_assert_eq!(got, before, "between rows");
                        continue;
                    }
                    let start = if is_added { f64::from(*before) } else { 0.0 };
                    let terms = (0..k).map(|i| f64::from(a[row * (k + gap) + i]) * f64::from(weight(i, column)));
                    let want = start + terms.sum::<f64>();
                    prop_assert!((f64::from(*got) - want).abs() <= 2e-5, "{} is not {}", got, want);
                }
            }
        }
    }
}

proptest! {
    /// Weights of 8 bits, in every version, with more rows than one chunk has.
    #[test]
    fn products_with_eight_bits_are_those_of_the_definition(
        m in 1usize..150, n in 1usize..100, blocks in 1usize..4, block in 1usize..33,
    ) {
        let k = blocks * block;
        let a: Vec<f32> = (0..m * k).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
        let values: Vec<i8> = (0..k * n).map(|i| (i * 104_729 % 255) as u8 as i8).collect();
        let scales: Vec<f32> = (0..blocks * n).map(|i| (1 + i * 31 % 17) as f32 / 2048.0).collect();
        let weights = Int8 { values: &values, scales: &scales, block, columns: n };
        let want: Vec<f64> = (0..m * n).map(|at| {
            let (row, column) = (at / n, at % n);
            let weight = |i: usize| f64::from(scales[i / block * n + column]) * f64::from(values[i * n + column]);
            (0..k).map(|i| f64::from(a[row * k + i]) * weight(i)).sum()
        }).collect();
        let same = |got: &[f32], want: &[f64]| got.iter().zip(want).all(|(g, w)| (f64::from(*g) - w).abs() <= 2e-4);
        prop_assert!(same(&multiply_int8([m, n, k], &a, weights), &want));
        for version in versions() {
            let mut got = vec![0.0; m * n];
            let (out, weights, output) = (got.as_mut_ptr(), Weights::Int8(weights), Output::Overwritten);
            let job = Job { m, k, x: &a, x_stride: k, weights, out, out_stride: n, output };
            // SAFETY: the output has `m` rows of `n` values.
            unsafe { version(Order::Rows, &job, 0..n) };
            prop_assert!(same(&got, &want));
        }
    }
}

/// Any number of rows, with room between those of operands and output, added or not, as the pools of threads divide it.
#[test]
fn a_product_in_tasks_is_the_product() {
    let [n, k, gap] = [1000, 30, 3];
    let number = |seed: usize, i: usize| ((i * 7919 + seed) % 64) as f32 / 64.0 - 0.5;
    let numbers = |count: usize| (0..count).map(|i| number(count, i)).collect::<Vec<f32>>();
    let b = numbers((k + gap) * (n + gap));
    for (m, threads) in (1..=5).flat_map(|m| [1, 2, 5].map(|threads| (m, threads))) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let (a, before) = (numbers(m * (k + gap)), numbers(m * (n + gap)));
        for b in [Matrix::rows(&b, n + gap), Matrix::rows(&b, k + gap).transposed()] {
            for output in [Output::Overwritten, Output::AddedTo] {
                let mut got = before.clone();
                let done = pool.install(|| {
                    let out = (got.as_mut_ptr(), n + gap);
                    // SAFETY: the output has `m` rows of `n` values, `n + gap` apart.
                    unsafe { multiply([m, n, k], [Matrix::rows(&a, k + gap), b], out, output) }
                });
                assert!(done);
                for (at, (&got, &before)) in got.iter().zip(&before).enumerate() {
                    let (row, column) = (at / (n + gap), at % (n + gap));
                    let weight = |i: usize| b.values[i * b.row_stride + column * b.column_stride];
                    // Sixty-fourths: every sum is exact.
                    let product = || (0..k).map(|i| a[row * (k + gap) + i] * weight(i)).sum::<f32>();
                    let want = match output {
                        _ if column >= n => before,
                        Output::Overwritten => product(),
                        Output::AddedTo => before + product(),
                    };
                    assert_eq!(got, want, "row {row}, column {column} of {m} rows");
                }
            }
        }
    }
}
