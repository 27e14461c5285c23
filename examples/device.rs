//! Where an example computes, by the name on its command line.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Devices by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceName {
    #[default]
    Cpu,
    Cuda,
    Wgpu,
}

impl DeviceName {
    /// The device, without autodiff.
    ///
    /// # Errors
    /// What to build with when this binary lacks the device.
    pub fn open(self) -> Result<burn::tensor::Device, String> {
        match self {
            Self::Cpu => Ok(burn::tensor::Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(burn::tensor::Device::cuda(0)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(burn::tensor::Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[allow(unreachable_patterns, reason = "reachable only without the features")]
            other => Err(format!("this build has no {0} device: add --features {0}", other.name())),
        }
    }

    /// As on the command line; also the feature that a build needs, except for the CPU.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        }
    }
}
