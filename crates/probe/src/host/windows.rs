//! Questions that only Windows answers.

use std::fmt;

/// A question to Windows beside its registry. Answers of several values are lines `field: value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WindowsQuestion {
    /// `windows processors` (`GetLogicalProcessorInformationEx`): one line per group, core, cache, node, package and die, ending in
    /// hexadecimal masks within groups: `group NUMBER MOST MASK`, `core CLASS MASKS`, `cache LEVEL KIND BYTES MASKS`, `node NUMBER MASKS`,
    /// `package MASKS`, `die MASKS`; masks are `0:ff,1:3`.
    Processors,
    /// `windows affinity` (`GetProcessAffinityMask`, `GetProcessGroupAffinity`): `process` and `system`, masks in hexadecimal digits
    /// within the group of the process, and `groups`, the numbers of its groups.
    Affinity,
    /// `windows memory` (`GlobalMemoryStatusEx`, `GetSystemInfo`): `total`, `available`, `commit-limit`, `commit-available` and `page`
    /// in bytes.
    Memory,
    /// `windows job` (`QueryInformationJobObject`): of the job that this process is in `flags`, `job-memory`, `process-memory` in
    /// bytes, `cpu-flags`, `cpu-rate` in parts of 10,000, `used` in bytes; [`Refusal::NotFound`](super::Refusal::NotFound) in no job.
    Job,
    /// `windows power` (`GetSystemPowerStatus`): `line` (0 battery, 1 mains, 255 unknown), `battery` (flags), `left` in per cent, `saver`.
    Power,
    /// `windows power-scheme` (`PowerGetActiveScheme`): `balanced`, `high performance`, `power saver`, `ultimate performance`, or
    /// `custom` for any other.
    PowerScheme,
    /// `windows machine` (`IsWow64Process2`): the instruction set of the system itself, `aarch64` under emulation of another.
    Machine,
    /// `windows arm-features` (`IsProcessorFeaturePresent`): names of [`Cpu::features`](spec::machine::Cpu::features), separated by
    /// spaces; [`Refusal::NotSupported`](super::Refusal::NotSupported) on other processors.
    ArmFeatures,
}

impl fmt::Display for WindowsQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processors => "processors",
            Self::Affinity => "affinity",
            Self::Memory => "memory",
            Self::Job => "job",
            Self::Power => "power",
            Self::PowerScheme => "power-scheme",
            Self::Machine => "machine",
            Self::ArmFeatures => "arm-features",
        })
    }
}

/// A question to DXGI, the interface of Windows to graphics adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DxgiQuestion {
    /// `dxgi count`: number of adapters.
    Count,
    /// `dxgi INDEX`: one adapter, as lines `field: value`: `name`, `vendor` and `device` (PCI, hexadecimal), `luid`, `flags`,
    /// `dedicated`, `shared` (bytes); where the system says so `local-budget`, `local-used`, `other-budget`, `other-used` (bytes, of
    /// this process), `integrated` (`0` or `1`) and `driver` (version).
    Adapter(u32),
    /// `dxgi npus` (DXCore): the names of accelerators for neural networks that are no GPUs, one in a line.
    Npus,
}

impl fmt::Display for DxgiQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count"),
            Self::Adapter(index) => write!(f, "{index}"),
            Self::Npus => f.write_str("npus"),
        }
    }
}
