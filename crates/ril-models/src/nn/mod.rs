//! Blocks shared by the models.

pub mod init;
pub mod kv_cache;
pub mod linear;
pub mod mlp;
pub mod packing;
pub mod rms_norm;
pub mod rotary;
