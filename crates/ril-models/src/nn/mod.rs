//! Blocks shared by the models.

pub mod attention;
pub mod init;
pub mod kv_cache;
pub mod mask;
pub mod mlp;
pub mod rms_norm;
pub mod rotary;
