//! Gradient penalties that need no second derivative.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::GailError;

/// Penalty on the gradient `g` of the logit with respect to the **encoder's output**; added to the loss of a pass once.
///
/// A penalty on the gradient with respect to the tokens or the pixels needs the derivative of a derivative, which first
/// order autodiff does not give. Behind a linear scalar head `l = w . h` the gradient with respect to `h` is `w` at
/// every row, so that the penalty is a function of the weight, exactly:
/// [`Discriminator::encoder_gradient_norm_squared`](crate::Discriminator::encoder_gradient_norm_squared). What it says
/// about the encoder is nothing: it bounds the steepness of the head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GradientPenalty {
    /// `weight |g|^2`: zero-centred, R1 of arXiv 1801.04406 with `weight` = its `gamma / 2`. The weight decay of the
    /// head.
    ZeroCentred {
        /// Finite, above 0.
        weight: f32,
    },
    /// `weight (|g| - 1)^2`: WGAN-GP, arXiv 1704.00028, whose weight is 10. `|g|` is taken as
    /// `sqrt(|g|^2 + 1e-12)`, so that its gradient at 0 is 0.
    OneCentred {
        /// Finite, above 0.
        weight: f32,
    },
}

impl GradientPenalty {
    /// The penalty, from the squared norm of the gradient.
    ///
    /// # Shapes
    /// - `gradient_norm_squared`: `[1]`; output: `[1]`, differentiable
    pub fn of(self, gradient_norm_squared: Tensor<1>) -> Tensor<1> {
        match self {
            Self::ZeroCentred { weight } => gradient_norm_squared * weight,
            Self::OneCentred { weight } => ((gradient_norm_squared + 1e-12).sqrt() - 1.0).square() * weight,
        }
    }

    /// Checks the weight.
    ///
    /// # Errors
    /// [`GailError::Config`].
    pub fn validate(self) -> Result<(), GailError> {
        let (Self::ZeroCentred { weight } | Self::OneCentred { weight }) = self;
        match weight.is_finite() && weight > 0.0 {
            true => Ok(()),
            false => {
                Err(GailError::Config(format!("gradient_penalty: expected a finite weight above 0, got {weight}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::ScalarHeadConfig;

    /// Value and gradient with respect to a weight vector.
    fn of_weight(penalty: GradientPenalty, weight: &[f32]) -> (f64, Vec<f64>) {
        let weight = Tensor::<1>::from_floats(weight, &Device::flex().autodiff()).require_grad();
        let value = penalty.of(weight.clone().square().sum());
        let scalar = f64::from(value.clone().into_scalar::<f32>());
        let gradient = weight.grad(&value.backward()).expect("tracked").into_data();
        (scalar, gradient.iter::<f32>().map(f64::from).collect())
    }

    #[test]
    fn a_head_of_zeros_has_a_finite_gradient() {
        let (value, gradient) = of_weight(GradientPenalty::OneCentred { weight: 10.0 }, &[0.0, 0.0]);
        assert!((value - 10.0).abs() < 1e-4 && gradient == [0.0, 0.0], "{value} {gradient:?}");
    }

    #[test]
    fn weights_out_of_range_are_refused() {
        for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            for penalty in [GradientPenalty::ZeroCentred { weight }, GradientPenalty::OneCentred { weight }] {
                let message = penalty.validate().expect_err("out of range").to_string();
                assert!(message.starts_with("invalid setting: gradient_penalty: expected"), "{message}");
            }
        }
    }

    proptest! {
        #[test]
        fn value_and_gradient_are_those_of_the_norm(
            weight in prop::collection::vec(-3_f32..3.0, 1..6), strength in 0.1_f32..20.0,
        ) {
            let norm = weight.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            prop_assume!(norm > 0.05);
            let s = f64::from(strength);
            let zero = (GradientPenalty::ZeroCentred { weight: strength }, s * norm * norm, 2.0 * s * norm);
            let off = norm - 1.0;
            let one = (GradientPenalty::OneCentred { weight: strength }, s * off * off, 2.0 * s * off);
            for (penalty, expected, slope) in [zero, one] {
                let (value, gradient) = of_weight(penalty, &weight);
                prop_assert!((value - expected).abs() <= 1e-4 * expected.max(0.1 * s), "{} {}", value, expected);
                for (got, w) in gradient.iter().zip(&weight) {
                    let expected = slope * f64::from(*w) / norm;
                    prop_assert!((got - expected).abs() <= 1e-4 * expected.abs().max(s), "{} {}", got, expected);
                }
            }
        }

        #[test]
        fn the_gradient_of_a_heads_logit_is_its_weight(hidden in prop::collection::vec(-2_f32..2.0, 8)) {
            let device = Device::flex().autodiff();
            let head = ScalarHeadConfig::new(4).with_initial_std(0.5).init(&device);
            let hidden = Tensor::<1>::from_floats(hidden.as_slice(), &device).reshape([2, 4]).require_grad();
            let gradient = hidden.grad(&head.forward(hidden.clone()).sum().backward()).expect("tracked");
            let norms = gradient.square().sum_dim(1).into_data();
            let claimed: f32 = head.weight_norm_squared().into_scalar();
            for norm in norms.iter::<f32>() {
                prop_assert!((norm - claimed).abs() <= 1e-5 * claimed, "{} {}", norm, claimed);
            }
        }
    }
}
