//! Kernels over rows of `f32`: plain loops that the compiler vectorises, compiled once for the machine's baseline and
//! once for AVX2 with FMA, and chosen when they run (registers by hand are in `lanes`). Sums run in fixed lanes, so that they do not depend on the number
//! of threads; they do depend on which of the two versions runs, in the last bits.
#![allow(unsafe_code)] // The call into a function with more target features than the caller has, after detecting them.

use std::mem::MaybeUninit;

/// Floats that a kernel handles between two reads of memory; a few such blocks fit in the first-level cache.
pub const BLOCK: usize = 1024;
/// Independent sums of a reduction.
const LANES: usize = 32;
/// Sums of bytes that are held in registers.
const BYTES: usize = 48;

macro_rules! kernels {
    ($($(#[$doc:meta])* pub fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$doc])*
        pub fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(unused)] // `FMA` is for the kernels that multiply and add.
            fn portable<const FMA: bool>($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    portable::<true>($($arg),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has both features.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    )*};
}

/// `a * b + c`; in one rounding where the processor does it in one instruction.
#[inline(always)]
pub(crate) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` without branches, to 2 units in the last place; 0 below -87.3 (the smallest normal number), infinity above 88.3
/// (half the largest number), NaN for NaN.
///
/// `x = k ln 2 + r` with `|r| <= ln 2 / 2`, `ln 2` in two parts (Cody and Waite), a polynomial of degree 6 in `r`
/// (coefficients of `expf` of the Cephes library), and `2^k` put into the exponent bits.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.722_83;
    let inside = if x < LOWEST { LOWEST } else { x };
    let inside = if inside > HIGHEST { HIGHEST } else { inside };
    let shifted = multiply_add::<FMA>(inside, std::f32::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = multiply_add::<FMA>(k, -0.693_359_4, inside);
    let r = multiply_add::<FMA>(k, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = multiply_add::<FMA>(p, r, coefficient);
    }
    let mantissa = multiply_add::<FMA>(p * r, r, r + 1.0);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < LOWEST { 0.0 } else { mantissa * power }
}

#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Folds in [`LANES`] lanes: one accumulator would add one number at a time.
#[inline(always)]
fn fold(values: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, value);
    }
    lanes.into_iter().reduce(f).unwrap_or(start)
}

/// The largest; a NaN among them may or may not show.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    fold(values, f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

#[inline(always)]
fn total(values: &[f32]) -> f32 {
    fold(values, 0.0, |a, b| a + b)
}

/// Sum of products of `f` over blocks that stay in the cache.
#[inline(always)]
fn total_of(length: usize, f: impl Fn(std::ops::Range<usize>, &mut [f32])) -> f32 {
    let mut buffer = [0.0; BLOCK];
    let mut sum = 0.0;
    for start in (0..length).step_by(BLOCK) {
        let end = length.min(start + BLOCK);
        let block = &mut buffer[..end - start];
        f(start..end, block);
        sum += total(block);
    }
    sum
}

kernels! {
    /// The largest value, minus infinity for none; a NaN among them may or may not show.
    pub fn maximum(values: &[f32]) -> f32 {
        largest(values)
    }

    /// `values * factor`, in place.
    pub fn scale(values: &mut [f32], factor: f32) {
        for value in values {
            *value *= factor;
        }
    }

    /// `factor * values` into `out`, of the same length.
    pub fn scale_into(out: &mut [f32], values: &[f32], factor: f32) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = factor * value;
        }
    }

    /// `sum += values`.
    pub fn add(sum: &mut [f32], values: &[f32]) {
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += value;
        }
    }

    /// `sum_i a_i b_i`.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        total_of(a.len(), |range, block| {
            for (out, (a, b)) in block.iter_mut().zip(a[range.clone()].iter().zip(&b[range])) {
                *out = a * b;
            }
        })
    }

    /// `exp(scale * value - shift)` in place; returns the sum.
    pub fn exp_sum(values: &mut [f32], scale: f32, shift: f32) -> f32 {
        let mut sum = 0.0;
        for block in values.chunks_mut(BLOCK) {
            for value in block.iter_mut() {
                *value = exp::<FMA>(multiply_add::<FMA>(*value, scale, -shift));
            }
            sum += total(block);
        }
        sum
    }

    /// `(sum e^z, sum z e^z)` with `z = value - shift`; `values` become `e^z`.
    pub fn exp_sums(values: &mut [f32], shift: f32) -> (f32, f32) {
        let (mut sum, mut weighted) = (0.0, 0.0);
        let mut products = [0.0; BLOCK];
        for block in values.chunks_mut(BLOCK) {
            let products = &mut products[..block.len()];
            for (value, product) in block.iter_mut().zip(products.iter_mut()) {
                let z = *value - shift;
                *value = exp::<FMA>(z);
                // exp(-inf) = 0 counts nothing, and -inf * 0 would be NaN.
                *product = if *value == 0.0 { 0.0 } else { z * *value };
            }
            sum += total(block);
            weighted += total(products);
        }
        (sum, weighted)
    }

    /// Gradient of a softmax row: `grad = probability * (grad - delta)`.
    pub fn softmax_gradient(grad: &mut [f32], probability: &[f32], delta: f32) {
        for (grad, probability) in grad.iter_mut().zip(probability) {
            *grad = probability * (*grad - delta);
        }
    }

    /// Gradient of the logits of one softmax row but for its target: with `z = logit - log_sum_exp`, `values` become
    /// `-e^z (grad + entropy_grad (z + entropy))`.
    pub fn softmax_pull(values: &mut [f32], log_sum_exp: f32, grad: f32, entropy: f32, entropy_grad: f32) {
        for value in values {
            let z = *value - log_sum_exp;
            let probability = exp::<FMA>(z);
            let pull = multiply_add::<FMA>(entropy_grad, z + entropy, grad);
            // z may be minus infinity where the probability is 0.
            *value = if probability == 0.0 { 0.0 } else { -probability * pull };
        }
    }

    /// `x * rstd * gain` into memory that may be fresh.
    pub fn normalise(out: &mut [MaybeUninit<f32>], x: &[f32], gain: &[f32], rstd: f32) {
        for (out, (x, gain)) in out.iter_mut().zip(x.iter().zip(gain)) {
            out.write(x * rstd * gain);
        }
    }

    /// Backward of [`normalise`] for one row: `grad` becomes the gradient of `x`, that of the gain is added up.
    ///
    /// With `n = x rstd` and `h = grad gain`: `dx = rstd (h - n mean(h n))`, `dgain = grad n`.
    pub fn normalise_gradient(grad: &mut [f32], x: &[f32], gain: &[f32], gain_grad: &mut [f32], rstd: f32) {
        let sum = total_of(grad.len(), |range, block| {
            let rows = grad[range.clone()].iter().zip(&x[range.clone()]).zip(&gain[range]);
            for (out, ((grad, x), gain)) in block.iter_mut().zip(rows) {
                *out = grad * x * gain;
            }
        });
        let pull = sum * rstd * rstd * rstd / grad.len() as f32;
        for (((grad, x), gain), gain_grad) in grad.iter_mut().zip(x).zip(gain).zip(gain_grad) {
            *gain_grad = multiply_add::<FMA>(*grad * rstd, *x, *gain_grad);
            *grad = multiply_add::<FMA>(*grad * rstd, *gain, -(pull * x));
        }
    }

    /// `gate * sigmoid(gate) * up` into memory that may be fresh.
    pub fn swiglu(out: &mut [MaybeUninit<f32>], gate: &[f32], up: &[f32]) {
        for (out, (gate, up)) in out.iter_mut().zip(gate.iter().zip(up)) {
            out.write(gate * sigmoid::<FMA>(*gate) * up);
        }
    }

    /// Backward of [`swiglu`]: `grad` becomes the gradient of `up`, `gate_grad`, which holds the gate, that of the gate.
    ///
    /// With `s = sigmoid(gate)`: `dup = grad gate s`, `dgate = grad up (s + gate s (1 - s))`.
    pub fn swiglu_gradient(grad: &mut [f32], gate_grad: &mut [f32], up: &[f32]) {
        for ((grad, gate), up) in grad.iter_mut().zip(gate_grad.iter_mut()).zip(up) {
            let s = sigmoid::<FMA>(*gate);
            let silu = *gate * s;
            let gradient = *grad * up * multiply_add::<FMA>(silu, 1.0 - s, s);
            *grad *= silu;
            *gate = gradient;
        }
    }

    /// Weighted sums of bytes in fixed point: `out_i = (sum_k weights_k rows_(k stride + i)) / 2^shift`, rounded to the nearest and
    /// clamped to a byte. `rows` must reach as far as `out` behind its last stride.
    pub fn weigh_rows(out: &mut [u8], rows: &[u8], stride: usize, weights: &[i32], shift: u32) {
        let rounding = 1i32 << (shift - 1);
        let sample = |sum: i32| (sum >> shift).clamp(0, 255) as u8;
        let (blocks, rest) = out.as_chunks_mut::<BYTES>();
        let start_of_rest = blocks.len() * BYTES;
        for (block, out) in blocks.iter_mut().enumerate() {
            let mut sums = [rounding; BYTES];
            for (k, &weight) in weights.iter().enumerate() {
                let from = &rows[k * stride + block * BYTES..][..BYTES];
                for (sum, &byte) in sums.iter_mut().zip(from) {
                    *sum += i32::from(byte) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sample(sum);
            }
        }
        for (i, out) in rest.iter_mut().enumerate() {
            let terms = weights.iter().enumerate();
            let sum: i32 = terms.map(|(k, &weight)| i32::from(rows[k * stride + start_of_rest + i]) * weight).sum();
            *out = sample(rounding + sum);
        }
    }

    /// Rotates pairs `(x_i, x_(i + half))` by angles whose cosines and sines are given, `[half]` each; `sign` -1 turns
    /// back.
    pub fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let (left, right) = x.split_at_mut(cos.len());
        for (((a, b), cos), sin) in left.iter_mut().zip(right).zip(cos).zip(sin) {
            let sin = sin * sign;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-30.0f32..30.0, 1..2500)
    }

    fn close(got: f32, want: f64, tolerance: f64) -> bool {
        (f64::from(got) - want).abs() <= tolerance * want.abs().max(1.0)
    }

    /// Every float exponent and many mantissas: within 2 units in the last place of `f64`'s.
    #[test]
    fn the_exponential_is_exact_to_two_units_in_the_last_place() {
        let mut inputs: Vec<f32> = (-87_000..88_300).map(|i| i as f32 / 1000.0 + 0.000_37).collect();
        inputs.extend((0..2000).map(|i| (i as f32 - 1000.0) * 1e-6));
        let mut outputs = inputs.clone();
        exp_sum(&mut outputs, 1.0, 0.0);
        for (x, got) in inputs.iter().zip(&outputs) {
            let want = f64::from(*x).exp();
            let unit = f64::from(f32::EPSILON) * want;
            assert!((f64::from(*got) - want).abs() <= 2.0 * unit, "exp({x}) = {got}, not {want}");
        }
    }

    #[test]
    fn the_exponential_has_its_limits() {
        let mut values = [f32::NEG_INFINITY, -1000.0, 0.0, 89.0, f32::INFINITY, f32::NAN];
        exp_sum(&mut values, 1.0, 0.0);
        assert_eq!(values[..5], [0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]);
        assert!(values[5].is_nan());
        let mut values = [f32::NEG_INFINITY, 0.0];
        assert_eq!(exp_sums(&mut values, 0.0), (1.0, 0.0));
    }

    #[test]
    fn no_values_have_no_maximum() {
        assert_eq!(maximum(&[]), f32::NEG_INFINITY);
        assert_eq!(maximum(&[-3.0, 2.0, -7.0]), 2.0);
    }

    proptest! {
        #[test]
        fn reductions_agree_with_f64(values in row(), shift in -40.0f32..40.0) {
            let wide = values.iter().map(|&v| f64::from(v));
            prop_assert_eq!(maximum(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let squares: f64 = wide.clone().map(|v| v * v).sum();
            prop_assert!(close(dot(&values, &values), squares, 1e-5));
            let top = maximum(&values);
            let z = |v: f64| v - f64::from(top);
            let (sum, weighted): (f64, f64) = (wide.clone().map(|v| z(v).exp()).sum(), wide.clone().map(|v| z(v) * z(v).exp()).sum());
            let mut exponentials = values.clone();
            let (got_sum, got_weighted) = exp_sums(&mut exponentials, top);
            prop_assert!(close(got_sum, sum, 1e-5) && close(got_weighted, weighted, 1e-5));
            let mut other = values.clone();
            prop_assert!(close(exp_sum(&mut other, 1.0, top), sum, 1e-5));
            prop_assert_eq!(other, exponentials);
            let mut moved = values.clone();
            scale(&mut moved, shift);
            let mut copy = vec![0.0; values.len()];
            scale_into(&mut copy, &values, shift);
            prop_assert_eq!(&moved, &copy);
            add(&mut moved, &values);
            for ((moved, copy), value) in moved.iter().zip(&copy).zip(&values) {
                prop_assert_eq!(*moved, copy + value);
            }
        }

        #[test]
        fn the_pull_of_a_softmax_is_that_of_f64(values in row(), grad in -2.0f32..2.0, entropy_grad in -2.0f32..2.0) {
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            let log_sum_exp = wide.iter().map(|v| v.exp()).sum::<f64>().ln();
            let entropy: f64 = wide.iter().map(|v| (log_sum_exp - v) * (v - log_sum_exp).exp()).sum();
            let mut got = values.clone();
            softmax_pull(&mut got, log_sum_exp as f32, grad, entropy as f32, entropy_grad);
            for (got, value) in got.iter().zip(&wide) {
                let z = value - log_sum_exp;
                let want = -z.exp() * (f64::from(grad) + f64::from(entropy_grad) * (z + entropy));
                prop_assert!((f64::from(*got) - want).abs() < 1e-5, "{} is not {}", got, want);
            }
        }

        #[test]
        fn weighted_bytes_are_those_of_whole_numbers(
            bytes in prop::collection::vec(any::<u8>(), 300..900), weights in prop::collection::vec(-400_000i32..1_200_000, 1..4),
        ) {
            let width = bytes.len() / weights.len();
            let mut got = vec![0; width];
            weigh_rows(&mut got, &bytes, width, &weights, 22);
            for (i, got) in got.iter().enumerate() {
                let sum: i64 = weights.iter().enumerate().map(|(k, &w)| i64::from(bytes[k * width + i]) * i64::from(w)).sum();
                prop_assert_eq!(i64::from(*got), ((sum + (1 << 21)) >> 22).clamp(0, 255));
            }
        }

        #[test]
        fn a_rotation_keeps_lengths_and_turns_back(values in prop::collection::vec(-3.0f32..3.0, 16), angles in prop::collection::vec(-9.0f32..9.0, 8)) {
            let (cos, sin): (Vec<f32>, Vec<f32>) = (angles.iter().map(|a| a.cos()).collect(), angles.iter().map(|a| a.sin()).collect());
            let mut turned = values.clone();
            rotate(&mut turned, &cos, &sin, 1.0);
            prop_assert!((dot(&turned, &turned) - dot(&values, &values)).abs() < 1e-4 * dot(&values, &values).max(1.0));
            rotate(&mut turned, &cos, &sin, -1.0);
            for (turned, value) in turned.iter().zip(&values) {
                prop_assert!((turned - value).abs() < 1e-5);
            }
        }
    }
}
