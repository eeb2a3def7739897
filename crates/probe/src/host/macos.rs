//! Questions that only macOS answers.

use std::fmt;

/// A question to macOS beside its kernel's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MacQuestion {
    /// `mac memory` (`host_statistics64`): pages by state, as lines `free: 123`; of `hw.pagesize` bytes each.
    Memory,
    /// `mac power` (`IOPSGetProvidingPowerSourceType`): `AC Power`, `Battery Power` or `UPS Power`; then a line `left: PERCENT` where
    /// there is a battery.
    Power,
    /// `mac low-power` (`NSProcessInfo.lowPowerModeEnabled`): `0` or `1`.
    LowPower,
    /// `mac thermal` (`NSProcessInfo.thermalState`): `nominal`, `fair`, `serious` or `critical`.
    Thermal,
}

impl fmt::Display for MacQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Power => "power",
            Self::LowPower => "low-power",
            Self::Thermal => "thermal",
        })
    }
}

/// A question to Metal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetalQuestion {
    /// `metal count`: number of devices. The first is the system's default, which is the one that llama.cpp uses.
    Count,
    /// `metal INDEX FIELD`: a property of one device.
    Device(u32, MetalField),
}

impl fmt::Display for MetalQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count"),
            Self::Device(index, field) => write!(f, "{index} {}", field.name()),
        }
    }
}

/// A property of a Metal device. The names in parentheses are those of `MTLDevice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetalField {
    /// `name` (`name`).
    Name,
    /// `working-set` (`recommendedMaxWorkingSetSize`) in bytes.
    WorkingSet,
    /// `allocated` (`currentAllocatedSize`) in bytes, by this process.
    Allocated,
    /// `largest-buffer` (`maxBufferLength`) in bytes.
    LargestBuffer,
    /// `unified` (`hasUnifiedMemory`): `0` or `1`.
    Unified,
    /// `low-power` (`lowPower`): `0` or `1`; true of the integrated GPU where there are two.
    LowPower,
    /// `family` (`supportsFamily`): the highest of `apple1` to `apple10` that it belongs to.
    Family,
    /// `cores`: the property `gpu-core-count` of the service of IOKit that `registryID` names.
    Cores,
}

impl MetalField {
    /// The name in a recording.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::WorkingSet => "working-set",
            Self::Allocated => "allocated",
            Self::LargestBuffer => "largest-buffer",
            Self::Unified => "unified",
            Self::LowPower => "low-power",
            Self::Family => "family",
            Self::Cores => "cores",
        }
    }
}
