//! Dropout whose noise is a function of a seed: no generator lives on from one forward to the next.

use burn::tensor::{Tensor, TensorData};
use ril_kernels::flex::fresh_rows;

use crate::seed::mix_seed;

/// Zeroes a share of the inputs and scales the others by `1 / (1 - share)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dropout {
    pub share: f64,
    pub seed: u64,
}

impl Dropout {
    /// `[rows, width]` to the same; row and column decide with the seed, in this order, whatever the device.
    pub fn apply(self, x: Tensor<2>) -> Tensor<2> {
        let [rows, width] = x.dims();
        let mask = TensorData::new(self.mask(rows, width), [rows, width]);
        let mask = Tensor::<2>::from_data(mask, &x.device().inner()).cast(x.dtype());
        x * mask
    }

    fn mask(self, rows: usize, width: usize) -> Vec<f32> {
        let kept = (1.0 / (1.0 - self.share)) as f32;
        // Of 2^32 numbers, those that stand for a zero.
        let zeros = (self.share * f64::from(u32::MAX)) as u32;
        let value = |bits: u32| if bits < zeros { 0.0 } else { kept };
        fresh_rows(rows, width, |row, out| {
            let seed = mix_seed(self.seed, row as u64);
            for (at, pair) in out.chunks_mut(2).enumerate() {
                let bits = mix_seed(seed, at as u64);
                for (half, out) in pair.iter_mut().enumerate() {
                    *out = value((bits >> (32 * half)) as u32);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_inputs_is_zero_and_the_mean_stays() {
        let (rows, width) = (200, 501);
        for share in [0.05, 0.3, 0.9] {
            let mask = Dropout { share, seed: 1 }.mask(rows, width);
            let count = mask.len() as f64;
            let zeros = mask.iter().filter(|&&value| value == 0.0).count() as f64 / count;
            let four_sigma = 4.0 * (share * (1.0 - share) / count).sqrt();
            assert!((zeros - share).abs() < four_sigma, "{share}: {zeros}");
            let kept = (1.0 / (1.0 - share)) as f32;
            assert!(mask.iter().all(|&value| value == 0.0 || value == kept));
            // No row repeats another, and neighbours are independent.
            let both = mask.windows(2).filter(|pair| pair[0] == 0.0 && pair[1] == 0.0).count() as f64 / count;
            assert!((both - share * share).abs() < 2.0 * four_sigma, "{share}: {both}");
            assert_ne!(mask[..width], mask[width..2 * width]);
        }
    }

    #[test]
    fn the_seed_decides() {
        let mask = |seed| Dropout { share: 0.5, seed }.mask(3, 40);
        assert_eq!(mask(1), mask(1));
        assert_ne!(mask(1), mask(2));
    }
}
