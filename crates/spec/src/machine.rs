//! A machine in three layers: what it is ([`Facts`]), what of it this process may use ([`Limits`]), what is free at
//! this moment ([`Free`]). Only facts may be cached.

use crate::known::Known;
use crate::units::{Bytes, BytesPerSec, OpsPerSec};
use std::collections::BTreeSet;

/// A machine, live, recorded or described.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Where the description comes from: `live`, the path of a recording, or the short description itself.
    pub origin: String,
    /// What the machine is.
    pub facts: Facts,
    /// What of it this process may use.
    pub limits: Limits,
    /// What is free now.
    pub free: Free,
    /// Contradictions and surprises met while detecting, for people.
    pub warnings: Vec<String>,
}

/// What a machine is. Does not change while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Operating system and instruction-set family.
    pub platform: Platform,
    /// Processors.
    pub cpu: Cpu,
    /// Memory of the host.
    pub memory: Memory,
    /// NUMA nodes, by id; one entry on a machine without NUMA.
    pub numa: Vec<NumaNode>,
    /// GPUs in the order in which the engine numbers them.
    pub gpus: Vec<Gpu>,
}

/// Operating system and instruction-set family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, `macos`, `windows`, `android`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
}

/// The processors of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Cpu {
    /// Marketing name, e.g. `AMD EPYC 9554`.
    pub model: Known<String>,
    /// Packages.
    pub sockets: Known<u32>,
    /// Physical cores of all sockets.
    pub physical_cores: Known<u32>,
    /// Hardware threads of all sockets.
    pub logical_cpus: Known<u32>,
    /// Kinds of core, fastest first; one kind on a uniform machine, empty where not known.
    pub core_kinds: Vec<CoreKind>,
    /// Highest frequency in Hz that the system names.
    pub max_frequency_hz: Known<u64>,
    /// Caches, one entry per distinct level, type and size.
    pub caches: Vec<Cache>,
    /// Instruction-set extensions in the kernel's or vendor's spelling, lower case: `avx2`, `avx512f`, `avx512_vnni`,
    /// `avx512_bf16`, `avx512vbmi`, `avx_vnni`, `amx_tile`, `amx_int8`, `f16c`, `fma`; `neon`, `dotprod`, `i8mm`, `sve`.
    pub features: BTreeSet<String>,
    /// Peak rate of sequential reads from memory by all cores.
    pub memory_bandwidth: Known<BytesPerSec>,
}

/// Cores of one kind on a hybrid processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreKind {
    /// `performance`, `efficiency`, `low-power`, or a core name such as `Cortex-X4`.
    pub name: String,
    /// Logical CPU numbers.
    pub cpus: BTreeSet<u32>,
    /// Physical cores among them.
    pub physical_cores: u32,
}

/// One kind of cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u8,
    /// `data`, `instruction`, `unified`.
    pub kind: String,
    /// Size of one instance.
    pub size: Bytes,
    /// How many instances the machine has.
    pub instances: u32,
    /// Logical CPUs that share one instance.
    pub shared_by: u32,
}

/// Memory of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Installed and usable by the system.
    pub total: Known<Bytes>,
    /// Swap space configured.
    pub swap_total: Known<Bytes>,
    /// Size of a base page.
    pub page: Known<Bytes>,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq)]
pub struct NumaNode {
    /// The system's number.
    pub id: u32,
    /// Logical CPUs; empty on a node that has memory only.
    pub cpus: BTreeSet<u32>,
    /// Memory of the node.
    pub memory: Known<Bytes>,
}

/// Who made a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuVendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
    /// Apple.
    Apple,
    /// Another maker, or one that is pretended.
    Other,
}

/// A GPU as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Marketing name.
    pub name: Known<String>,
    /// Maker.
    pub vendor: GpuVendor,
    /// Memory of the device.
    pub memory_total: Known<Bytes>,
    /// Peak bandwidth of the device's memory.
    pub memory_bandwidth: Known<BytesPerSec>,
    /// Dense half-precision rate.
    pub compute: Known<OpsPerSec>,
    /// CUDA compute capability (major, minor).
    pub compute_capability: Known<(u32, u32)>,
    /// Link to the host at its best: generation and lanes.
    pub pcie: Known<PcieLink>,
    /// True where the GPU shares the host's memory: its memory is not added to the host's.
    pub unified_memory: bool,
    /// PCI address, e.g. `0000:65:00.0`.
    pub pci_address: Known<String>,
}

/// A PCI Express link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcieLink {
    /// Generation, 1 to 7.
    pub generation: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PcieLink {
    /// Usable bandwidth in one direction: lanes × raw rate × line coding (8b/10b up to generation 2, 128b/130b after),
    /// PCI Express base specification; protocol overhead of packets not taken off.
    pub fn bandwidth(self) -> Option<BytesPerSec> {
        let gb_per_lane = match self.generation {
            1 => 0.25,
            2 => 0.5,
            3 => 0.985,
            4 => 1.969,
            5 => 3.938,
            6 => 7.563,
            7 => 15.125,
            _ => return None,
        };
        BytesPerSec::from_gb(gb_per_lane * f64::from(self.lanes))
    }
}

/// What of the machine this process may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Logical CPUs this process may run on: affinity ∩ cpuset.
    pub allowed_cpus: Known<BTreeSet<u32>>,
    /// CPU time per wall time that control groups grant (e.g. 1.5); [`Known::Unknown`] where nothing limits it.
    pub cpu_quota: Known<f64>,
    /// Physical cores among the allowed CPUs.
    pub allowed_physical_cores: Known<u32>,
    /// Each limit on memory that applies, from the innermost control group outwards.
    pub memory: Vec<MemoryLimit>,
    /// Indices into [`Facts::gpus`] that this process may use.
    pub visible_gpus: Vec<usize>,
}

/// A limit on the memory of this process and its group.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryLimit {
    /// Where it stands, e.g. `/sys/fs/cgroup/pod7/memory.max`.
    pub source: String,
    /// The limit.
    pub limit: Bytes,
    /// What the group uses now, page cache included.
    pub used: Known<Bytes>,
    /// Of which the kernel can take back at once (inactive file pages).
    pub reclaimable: Known<Bytes>,
}

impl MemoryLimit {
    /// What the group may still take: limit − used + reclaimable; the whole limit where use is not known.
    pub fn headroom(&self) -> Bytes {
        let used = self.used.get().unwrap_or(Bytes::ZERO).saturating_sub(self.reclaimable.get().unwrap_or(Bytes::ZERO));
        self.limit.saturating_sub(used)
    }
}

/// What is free at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Free {
    /// Memory that a new program can take without swapping (`MemAvailable`), before limits.
    pub memory: Known<Bytes>,
    /// Free swap.
    pub swap: Known<Bytes>,
    /// Free memory per GPU, parallel to [`Facts::gpus`].
    pub gpu_memory: Vec<Known<Bytes>>,
}

impl Machine {
    /// CPUs worth of time this process can use: the allowed CPUs, cut by the quota (rounded down, at least 1).
    /// Falls back to the logical CPUs, and to 1 where nothing is known.
    pub fn effective_cpus(&self) -> u32 {
        let allowed = self
            .limits
            .allowed_cpus
            .value()
            .map(|cpus| u32::try_from(cpus.len()).unwrap_or(u32::MAX))
            .or_else(|| self.facts.cpu.logical_cpus.get())
            .unwrap_or(1);
        match self.limits.cpu_quota.get() {
            Some(quota) => allowed.min(quota.floor().max(1.0) as u32),
            None => allowed,
        }
        .max(1)
    }

    /// Threads that do not share a physical core: physical cores among the allowed CPUs, never above
    /// [`Machine::effective_cpus`].
    pub fn effective_cores(&self) -> u32 {
        let cores = self.limits.allowed_physical_cores.get().or_else(|| self.facts.cpu.physical_cores.get());
        cores.unwrap_or_else(|| self.effective_cpus()).clamp(1, self.effective_cpus())
    }

    /// The total host memory this process could ever have: installed memory cut by the tightest limit.
    pub fn effective_memory_total(&self) -> Known<Bytes> {
        let tightest = self.limits.memory.iter().min_by_key(|limit| limit.limit);
        match (self.facts.memory.total.get(), tightest) {
            (Some(total), Some(limit)) if limit.limit < total => Known::exact(limit.limit, limit.source.clone()),
            (None, Some(limit)) => Known::exact(limit.limit, limit.source.clone()),
            _ => self.facts.memory.total.clone(),
        }
    }

    /// The host memory this process can take now: what is available, cut by the headroom of every limit.
    pub fn effective_memory_available(&self) -> Known<Bytes> {
        let tightest = self.limits.memory.iter().min_by_key(|limit| limit.headroom());
        match (self.free.memory.get(), tightest) {
            (Some(free), Some(limit)) if limit.headroom() < free => Known::exact(limit.headroom(), limit.source.clone()),
            (None, Some(limit)) => Known::exact(limit.headroom(), limit.source.clone()),
            _ => self.free.memory.clone(),
        }
    }

    /// The GPUs this process may use, with their indices and free memory.
    pub fn usable_gpus(&self) -> impl Iterator<Item = (usize, &Gpu, &Known<Bytes>)> {
        self.limits.visible_gpus.iter().filter_map(|&i| Some((i, self.facts.gpus.get(i)?, self.free.gpu_memory.get(i)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(allowed: u32, physical: u32, quota: Option<f64>, limits: Vec<MemoryLimit>) -> Machine {
        Machine {
            origin: "test".into(),
            facts: Facts {
                platform: Platform { os: "linux".into(), arch: "x86_64".into() },
                cpu: Cpu {
                    model: Known::unknown("test"),
                    sockets: Known::unknown("test"),
                    physical_cores: Known::exact(physical, "test"),
                    logical_cpus: Known::exact(physical * 2, "test"),
                    core_kinds: Vec::new(),
                    max_frequency_hz: Known::unknown("test"),
                    caches: Vec::new(),
                    features: BTreeSet::new(),
                    memory_bandwidth: Known::unknown("test"),
                },
                memory: Memory {
                    total: Known::exact(Bytes::from_gib(64), "test"),
                    swap_total: Known::unknown("test"),
                    page: Known::unknown("test"),
                },
                numa: Vec::new(),
                gpus: Vec::new(),
            },
            limits: Limits {
                allowed_cpus: Known::exact((0..allowed).collect(), "test"),
                cpu_quota: quota.map_or(Known::unknown("no quota"), |q| Known::exact(q, "cpu.max")),
                allowed_physical_cores: Known::exact(physical.min(allowed), "test"),
                memory: limits,
                visible_gpus: Vec::new(),
            },
            free: Free { memory: Known::exact(Bytes::from_gib(60), "test"), swap: Known::unknown("test"), gpu_memory: Vec::new() },
            warnings: Vec::new(),
        }
    }

    #[test]
    fn threads_never_pass_affinity_quota_or_physical_cores() {
        assert_eq!(machine(16, 8, None, vec![]).effective_cores(), 8);
        assert_eq!(machine(4, 8, None, vec![]).effective_cores(), 4);
        assert_eq!(machine(16, 8, Some(2.9), vec![]).effective_cores(), 2);
        assert_eq!(machine(16, 8, Some(0.5), vec![]).effective_cpus(), 1);
    }

    #[test]
    fn the_tightest_limit_counts_and_cache_is_not_use() {
        let limit = |gib, used: u64, cache: u64| MemoryLimit {
            source: format!("g{gib}"),
            limit: Bytes::from_gib(gib),
            used: Known::exact(Bytes::from_gib(used), "test"),
            reclaimable: Known::exact(Bytes::from_gib(cache), "test"),
        };
        let machine = machine(2, 2, None, vec![limit(8, 5, 4), limit(32, 30, 0)]);
        assert_eq!(machine.effective_memory_total().get(), Some(Bytes::from_gib(8)));
        assert_eq!(machine.effective_memory_available().get(), Some(Bytes::from_gib(2)));
    }
}
