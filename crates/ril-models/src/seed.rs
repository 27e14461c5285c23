//! Seeds from seeds.

/// A new seed from a seed and a counter (SplitMix64's finaliser, Steele et al. 2014): streams do not overlap, and any
/// step can be replayed without those before it.
#[must_use]
pub fn mix_seed(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(counter.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
