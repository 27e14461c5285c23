//! Fused operators of transformers on ordinary Burn tensors, with or without autodiff.
//!
//! On Burn's CPU backend (Flex) in `f32`, each operator is one pass over memory with a hand-written backward pass;
//! on any other device or type it is the plain tensor operations that define it, with Burn's own gradients. Both are
//! held against each other by the tests of each operator.
//!
//! * [`linear()`]: one product into memory that is written once; also with weights of 8 bits, which [`to_int8`] makes
//! * [`add_low_rank()`]: what an adapter adds to a product
//! * [`rms_norm()`], [`swiglu()`], [`rotate()`]: what stands between the products
//! * [`attention()`]: blocked softmax attention over packed tokens with grouped heads, following an [`AttentionPlan`]:
//!   causal rows, windows, prefixes that several rows share, keys in a cache
//! * [`write_rows`]: new rows into a buffer, in place
//! * [`simd`], [`matrix`] and [`flex`]: row kernels, products and buffers, for operators of other crates
//!
//! All results are first order: a gradient of a gradient is not supported on the fused path.

pub mod attention;
mod few_rows;
pub mod flex;
mod int8;
mod lanes;
mod linear;
mod low_rank;
pub mod matrix;
mod rms_norm;
mod rotary;
pub mod simd;
mod swiglu;
mod tape;
#[cfg(test)]
mod testing;
mod write_rows;

pub use attention::{AttentionBlock, AttentionPlan, attention};
pub use int8::to_int8;
pub use linear::linear;
pub use low_rank::add_low_rank;
pub use rms_norm::rms_norm;
pub use rotary::{RotaryTable, rotate};
pub use swiglu::swiglu;
pub use write_rows::write_rows;
