//! Host → Machine. One module per concept; every parser is a pure function over a text or registers.

mod amd;
mod amd_rate;
pub(crate) mod caches;
mod card;
pub(crate) mod cgroup;
pub(crate) mod conditions;
mod counted;
pub(crate) mod cpuinfo;
pub(crate) mod cpulist;
pub(crate) mod dmi;
pub(crate) mod features;
pub(crate) mod fields;
pub(crate) mod frequency;
mod gpus;
mod intel;
mod jetson;
mod kfd;
pub(crate) mod kinds;
mod linux;
pub(crate) mod macos;
pub(crate) mod memory;
mod npu;
pub(crate) mod numa;
mod nvidia;
mod nvidia_links;
mod nvidia_parts;
pub(crate) mod nvidia_rate;
pub(crate) mod pages;
mod paper;
pub(crate) mod pci;
pub(crate) mod phone;
mod promises;
pub(crate) mod system;
pub(crate) mod topology;
pub(crate) mod visible;
mod vulkan;
pub(crate) mod windows;
mod x86;

use crate::host::{Host, Question, Refusal};
use spec::{Known, Machine};

/// Why there is no machine at all. A fact that cannot be found is no error: it is [`spec::Known::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The host does not say what system it runs.
    #[error("the operating system is not known ({refusal}); a recording needs an answer to \"os\" and to \"arch\"")]
    NoSystem {
        /// Why not.
        refusal: Refusal,
    },
    /// No detection for this system yet.
    #[error("hardware detection on {os} is not there yet; describe the machine instead, e.g. --machine ram=16GiB,cores=8")]
    UnsupportedSystem {
        /// The system.
        os: String,
    },
}

/// How much detection may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What the system's files tell: no library of a driver is loaded. Some milliseconds.
    Static,
    /// Drivers that are in memory as well, within the host's deadline. Nothing that sleeps is woken.
    #[default]
    Drivers,
    /// Sleeping GPUs are woken as well, for what depends on their memory. Up to seconds.
    Waking,
    /// All of it: Vulkan is started for whatever it may add, also where other sources have told what a plan needs.
    Full,
}

/// The machine behind a host. Starts no program and waits for a driver no longer than the host does.
///
/// # Errors
/// [`ProbeError`]; everything less is in the machine, as an unknown fact or a warning.
pub fn detect(host: &dyn Host) -> Result<Machine, ProbeError> {
    detect_to(host, Depth::default())
}

/// The machine behind a host, asking also what is slow or wakes devices.
///
/// # Errors
/// As [`detect`].
pub fn detect_fully(host: &dyn Host) -> Result<Machine, ProbeError> {
    detect_to(host, Depth::Full)
}

/// The machine behind a host, as far as `depth` allows.
///
/// # Errors
/// As [`detect`].
pub fn detect_to(host: &dyn Host, depth: Depth) -> Result<Machine, ProbeError> {
    host.begin();
    let answer = |question| host.text(&question).map_err(|refusal| ProbeError::NoSystem { refusal });
    let (os, arch) = (answer(Question::Os)?, answer(Question::Arch)?);
    let mut machine = match os.as_str() {
        // Android's kernel has the same files; what it denies is unknown.
        "linux" | "android" => linux::detect(host, os, arch, depth),
        "macos" => macos::detect(host, os, arch, depth),
        "windows" => windows::detect(host, os, arch, depth),
        _ => return Err(ProbeError::UnsupportedSystem { os }),
    };
    contradiction(&mut machine);
    paper::complete(&mut machine);
    Ok(machine)
}

/// More cores than hardware threads: one of two files is broken, and nobody can say which.
fn contradiction(machine: &mut Machine) {
    let cpu = &mut machine.facts.cpu;
    if let (Some(cores), Some(threads)) = (cpu.physical_cores.get(), cpu.logical_cpus.get())
        && cores > threads
    {
        machine.warnings.push(format!("{cores} cores ({}) with {threads} hardware threads", cpu.physical_cores.source()));
        cpu.physical_cores = Known::unknown("the system names more cores than hardware threads");
    }
}
