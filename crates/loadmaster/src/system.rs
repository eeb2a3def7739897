//! The machine that runs this program, detected once per process: what a program asks that only wants to know what it may
//! do here. For planning use [`mod@crate::advise`], which looks at the machine itself.

use crate::machine::MachineError;
use spec::Machine;
use spec::machine::{Facts, Gpu, GpuKind, GpuVendor};
use spec::{Bytes, Known};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Facts do not change while a process runs: they are detected once. The driver's library stays with them, so that a slow
/// one is started once.
static DETECTED: OnceLock<(probe::Live, Facts)> = OnceLock::new();

/// A machine with what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemInfo {
    machine: Machine,
}

impl SystemInfo {
    /// This machine: its facts as they were first detected in this process, its limits, free memory and conditions as they
    /// are now.
    ///
    /// # Errors
    /// Detection is not possible on this system.
    pub fn get() -> Result<Self, MachineError> {
        if let Some((live, facts)) = DETECTED.get() {
            return Ok(Self { machine: with_facts(detect(live)?, facts) });
        }
        let live = probe::Live::new();
        let machine = detect(&live)?;
        // Two threads may detect at once; the first to finish is kept.
        let (_, facts) = DETECTED.get_or_init(|| (live, machine.facts.clone()));
        Ok(Self { machine: with_facts(machine, facts) })
    }

    /// Looks again at what changes: limits, free memory, conditions.
    ///
    /// # Errors
    /// As [`SystemInfo::get`].
    pub fn refresh(&mut self) -> Result<(), MachineError> {
        *self = Self::get()?;
        Ok(())
    }

    /// The machine behind it.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What size of model runs well here; unknown where no memory is known.
    pub fn tier(&self) -> Option<Tier> {
        fast_memory(&self.machine).map(Tier::of)
    }

    /// What may be computed with here.
    pub fn capabilities(&self) -> Capabilities {
        let features = &self.machine.facts.cpu.features;
        let has = |name: &str| features.contains(name);
        let gpus: Vec<&Gpu> = self.machine.usable_gpus().map(|(_, gpu, _)| gpu).collect();
        Capabilities {
            avx2: has("avx2"),
            avx512: has("avx512f"),
            int8_dot: has("avx512_vnni") || has("avx_vnni") || has("dotprod"),
            int8_matrix: has("amx_int8") || has("i8mm"),
            bf16: has("avx512_bf16") || has("bf16") || has("amx_bf16"),
            backends: std::iter::once("cpu").chain(gpus.iter().filter_map(|gpu| backend(gpu))).collect(),
            fast_f16: gpus.iter().map(|gpu| fast_f16(gpu)).collect(),
            fast_bf16: gpus.iter().map(|gpu| fast_bf16(gpu)).collect(),
        }
    }
}

impl From<Machine> for SystemInfo {
    /// A recorded or described machine, to ask the same of it.
    fn from(machine: Machine) -> Self {
        Self { machine }
    }
}

fn detect(live: &probe::Live) -> Result<Machine, MachineError> {
    probe::detect(live).map_err(MachineError::Detect)
}

/// The parallel lists of the volatile layers are only kept where they still belong to the same GPUs.
fn with_facts(machine: Machine, facts: &Facts) -> Machine {
    if machine.facts.gpus.len() == facts.gpus.len() { Machine { facts: facts.clone(), ..machine } } else { machine }
}

/// Memory that the fastest kind of device here computes in: that of the usable GPUs together, or the host's.
fn fast_memory(machine: &Machine) -> Option<Bytes> {
    let own = machine.usable_gpus().filter(|(_, gpu, _)| !gpu.unified_memory).filter_map(|(_, gpu, _)| gpu.memory_total.get());
    let own: Bytes = own.sum();
    let host = machine.effective_memory_total().get();
    if own.is_zero() { host } else { Some(own) }
}

/// What size of model runs well: the one whose weights at about 4.5 bits each fill two thirds of the fast memory, the rest
/// being caches, compute buffers and the system.
///
/// | tier | fast memory | parameters |
/// |---|---|---|
/// | `Tiny` | below 6 GiB | to 4 thousand million |
/// | `Small` | below 14 GiB | to 14 |
/// | `Medium` | below 30 GiB | to 32 |
/// | `Large` | below 120 GiB | to 120 |
/// | `Huge` | from 120 GiB | beyond |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Phones, small boards, containers of a few GiB.
    Tiny,
    /// Laptops and GPUs of 8 to 12 GiB.
    Small,
    /// GPUs of 16 to 24 GiB, desktops.
    Medium,
    /// Several GPUs, unified memory of 36 to 96 GiB, one accelerator of a data centre.
    Large,
    /// More.
    Huge,
}

impl Tier {
    /// The tier of this much fast memory.
    ///
    /// ```
    /// use loadmaster::system::Tier;
    /// use loadmaster::spec::Bytes;
    /// assert_eq!(Tier::of(Bytes::from_gib(24)), Tier::Medium);
    /// ```
    pub fn of(memory: Bytes) -> Self {
        let bounds = [(6, Self::Tiny), (14, Self::Small), (30, Self::Medium), (120, Self::Large)];
        let tier = bounds.into_iter().find(|(gib, _)| memory < Bytes::from_gib(*gib));
        tier.map_or(Self::Huge, |(_, tier)| tier)
    }
}

/// What may be computed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// 256-bit integer vectors on x86.
    pub avx2: bool,
    /// 512-bit vectors on x86.
    pub avx512: bool,
    /// Dot products of 8-bit integers on the processor: VNNI, dotprod.
    pub int8_dot: bool,
    /// Matrix products of 8-bit integers on the processor: AMX, i8mm.
    pub int8_matrix: bool,
    /// BF16 products on the processor.
    pub bf16: bool,
    /// `cpu`, and of the usable GPUs `cuda`, `rocm`, `metal`, `vulkan`.
    pub backends: BTreeSet<&'static str>,
    /// Per usable GPU, in order: F16 at more than the rate of F32; `None` where that is not known.
    pub fast_f16: Vec<Option<bool>>,
    /// The same for BF16.
    pub fast_bf16: Vec<Option<bool>>,
}

fn backend(gpu: &Gpu) -> Option<&'static str> {
    match (gpu.vendor, gpu.kind) {
        (_, GpuKind::Software) => None,
        (GpuVendor::Nvidia, _) => Some("cuda"),
        (GpuVendor::Apple, _) => Some("metal"),
        (GpuVendor::Amd, GpuKind::Discrete) => Some("rocm"),
        (GpuVendor::Amd | GpuVendor::Intel | GpuVendor::Other, _) => Some("vulkan"),
    }
}

/// NVIDIA CUDA C++ programming guide 13.0, table of arithmetic throughput: 5.3, 6.0, 6.2 and from 7.0 on at twice the rate
/// of F32 or more; 6.1 at a 64th.
fn fast_f16(gpu: &Gpu) -> Option<bool> {
    capability(gpu).map(|capability| matches!(capability, (5, 3) | (6, 0 | 2) | (7.., _)))
}

/// The same guide: from 8.0 on.
fn fast_bf16(gpu: &Gpu) -> Option<bool> {
    capability(gpu).map(|(major, _)| major >= 8)
}

fn capability(gpu: &Gpu) -> Option<(u32, u32)> {
    Known::get(&gpu.compute_capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(text: &str) -> SystemInfo {
        SystemInfo::from(probe::describe(text).unwrap())
    }

    #[test]
    fn tiers_count_what_computes_fast() {
        assert_eq!(system("ram=4GiB,cores=4").tier(), Some(Tier::Tiny));
        assert_eq!(system("ram=64GiB,cores=8,gpu=8GiB").tier(), Some(Tier::Small));
        assert_eq!(system("ram=64GiB,cores=8,gpu=24GiB,gpu=24GiB").tier(), Some(Tier::Large));
        assert_eq!(system("cores=8").tier(), None);
        assert!(Tier::Tiny < Tier::Huge);
    }

    #[test]
    fn rates_follow_the_capability_and_not_its_order() {
        let mut system = system("ram=64GiB,cores=8,features=avx2+avx512f+avx512_vnni,gpu=8GiB,gpu=8GiB,gpu=8GiB");
        system.machine.facts.gpus[0].compute_capability = Known::exact((6, 1), "test");
        system.machine.facts.gpus[1].compute_capability = Known::exact((12, 0), "test");
        let capabilities = system.capabilities();
        assert_eq!(capabilities.fast_f16, [Some(false), Some(true), None]);
        assert_eq!(capabilities.fast_bf16, [Some(false), Some(true), None]);
        assert!(capabilities.avx2 && capabilities.int8_dot && !capabilities.int8_matrix);
        assert_eq!(capabilities.backends, ["cpu", "cuda"].into());
    }

    #[test]
    fn facts_are_detected_once() {
        let mut first = SystemInfo::get().unwrap();
        let facts = first.machine().facts.clone();
        first.refresh().unwrap();
        assert_eq!(first.machine().facts, facts);
        assert_eq!(SystemInfo::get().unwrap().machine().facts, facts);
    }
}
