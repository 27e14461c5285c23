//! Registers by hand, for products: the compiler does not keep a tile of sums in registers on its own.
#![allow(unsafe_code)] // Instructions that not every processor has.

use crate::simd::multiply_add;

/// Asks for `count` bytes, wherever they are, to be in the second-level cache soon.
#[inline(always)]
pub(crate) fn prefetch(bytes: *const u8, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..count).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, count);
}

/// Floats that one register holds.
pub(crate) trait Lanes: Copy {
    /// How many.
    const COUNT: usize;

    /// # Safety
    /// The processor must have the registers, as for all functions here.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// `from` must be valid for reads of all lanes.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `from` must be valid for reads of as many integers.
    unsafe fn load_i8(from: *const i8) -> Self;

    /// # Safety
    /// `to` must be valid for writes of all lanes.
    unsafe fn store(self, to: *mut f32);

    /// `self + a b`.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
}

/// The registers that every processor has.
impl Lanes for [f32; 4] {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: by the contract.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: by the contract.
        unsafe { from.cast::<[i8; 4]>().read_unaligned() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: by the contract.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        const FMA: bool = cfg!(target_arch = "aarch64");
        std::array::from_fn(|lane| multiply_add::<FMA>(a[lane], b[lane], self[lane]))
    }
}

/// # Safety
/// `from` must be valid for reads of 8 integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn eight_i8(from: *const i8) -> std::arch::x86_64::__m256 {
    use std::arch::x86_64::{_mm_loadu_si64, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps};
    // SAFETY: by the contract.
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadu_si64(from.cast()) }))
}

/// # Safety
/// `from` must be valid for reads of 16 integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn sixteen_i8(from: *const i8) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::{_mm_loadu_si128, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps};
    // SAFETY: by the contract.
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.cast()) }))
}

/// Vectors of x86 with their loads, stores and fused multiply-add.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_lanes {
    ($($register:ident, $count:literal, $splat:ident, $load:ident, $load_i8:expr, $store:ident, $add_product:ident;)*) => {$(
        impl Lanes for std::arch::x86_64::$register {
            const COUNT: usize = $count;

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: by the contract, as below.
                unsafe { std::arch::x86_64::$splat(value) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$load(from) }
            }

            #[inline(always)]
            unsafe fn load_i8(from: *const i8) -> Self {
                // SAFETY: as above.
                unsafe { $load_i8(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$store(to, self) }
            }

            #[inline(always)]
            unsafe fn add_product(self, a: Self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$add_product(a, b, self) }
            }
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
x86_lanes! {
    __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, eight_i8, _mm256_storeu_ps, _mm256_fmadd_ps;
    __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, sixteen_i8, _mm512_storeu_ps, _mm512_fmadd_ps;
}
