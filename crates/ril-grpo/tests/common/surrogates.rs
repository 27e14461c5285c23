//! What the properties of the loss draw from, inside the crate and outside: the types are those of the including file.

use proptest::prelude::*;

use super::{ClipRange, GammaShape, Surrogate};

/// Every surrogate, with numbers of its own.
pub(super) fn surrogate() -> impl Strategy<Value = Surrogate> {
    let clip = || (0.05..0.3, 0.05..0.3).prop_map(|(low, high)| ClipRange::new(low, high));
    let shape = || (0.0..4.0, 0.5..4.0).prop_map(|(k, lambda)| GammaShape { k, lambda });
    prop_oneof![
        clip().prop_map(Surrogate::Clipped),
        (clip(), 1.4..4.0).prop_map(|(clip, max_ratio)| Surrogate::TwoSided { clip, max_ratio }),
        (clip(), 1.4..4.0).prop_map(|(clip, max_ratio)| Surrogate::DualClip { clip, max_ratio }),
        (0.0..0.9, 1.1..5.0).prop_map(|(min_ratio, max_ratio)| Surrogate::TruncatedRatio { min_ratio, max_ratio }),
        (0.5..2.0, 0.5..2.0).prop_map(|(temperature_positive, temperature_negative)| Surrogate::SoftGate {
            temperature_positive,
            temperature_negative
        }),
        (shape(), shape()).prop_map(|(positive, negative)| Surrogate::GammaWeight { positive, negative }),
        clip().prop_map(Surrogate::GeometricMean),
    ]
}
