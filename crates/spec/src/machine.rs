//! A machine in layers: what it is ([`Facts`]), what of it this process may use ([`Limits`]), what is free at this moment
//! ([`Free`]) and what slows it down now ([`Conditions`]). Only facts may be cached.

mod conditions;
mod cpu;
mod gpu;
mod limits;
mod memory;
mod strain;

pub use conditions::{Conditions, GpuCondition, PowerSource};
pub use cpu::{Cache, CoreKind, Cpu};
pub use gpu::{Gpu, GpuKind, GpuVendor, Npu, PcieLink, PeerLink, Slice};
pub use limits::{Free, Limits, MemoryLimit};
pub use memory::{HugePages, Memory, MemoryModule, NumaNode};

use crate::known::Known;
use crate::units::Bytes;

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
    /// What slows it down now.
    pub conditions: Conditions,
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
    /// Accelerators that no supported engine computes on.
    pub npus: Vec<Npu>,
}

/// Operating system and instruction-set family.
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// `linux`, `macos`, `windows`, `android`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Version of the system: the kernel's release, the build of macOS or Windows.
    pub version: Known<String>,
    /// What the system runs in, outermost first: `kvm`, `wsl2`, `docker`, `kubernetes`. Empty on bare metal and where nothing
    /// says otherwise.
    pub inside: Vec<String>,
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

    /// The host memory this process can take now for itself: what is available, cut by the headroom of every limit.
    pub fn effective_memory_available(&self) -> Known<Bytes> {
        self.available_within(|_| true)
    }

    /// The host memory in which what this process takes and the pages of files that it has mapped can stay together: what is available,
    /// cut by the headroom of the limits that such pages count against.
    pub fn effective_memory_with_files(&self) -> Known<Bytes> {
        self.available_within(|limit| limit.mapped_files)
    }

    fn available_within(&self, counts: impl Fn(&MemoryLimit) -> bool) -> Known<Bytes> {
        let tightest = self.limits.memory.iter().filter(|limit| counts(limit)).min_by_key(|limit| limit.headroom());
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
                platform: Platform { os: "linux".into(), arch: "x86_64".into(), version: Known::unknown("test"), inside: Vec::new() },
                cpu: Cpu {
                    physical_cores: Known::exact(physical, "test"),
                    logical_cpus: Known::exact(physical * 2, "test"),
                    ..Cpu::unknown("test")
                },
                memory: Memory { total: Known::exact(Bytes::from_gib(64), "test"), ..Memory::unknown("test") },
                numa: Vec::new(),
                gpus: Vec::new(),
                npus: Vec::new(),
            },
            limits: Limits {
                allowed_cpus: Known::exact((0..allowed).collect(), "test"),
                cpu_quota: quota.map_or(Known::unknown("no quota"), |q| Known::exact(q, "cpu.max")),
                allowed_physical_cores: Known::exact(physical.min(allowed), "test"),
                memory: limits,
                visible_gpus: Vec::new(),
            },
            free: Free { memory: Known::exact(Bytes::from_gib(60), "test"), swap: Known::unknown("test"), gpu_memory: Vec::new() },
            conditions: Conditions::unknown(0, "test"),
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
            swap: Known::unknown("test"),
            mapped_files: true,
        };
        let machine = machine(2, 2, None, vec![limit(8, 5, 4), limit(32, 30, 0)]);
        assert_eq!(machine.effective_memory_total().get(), Some(Bytes::from_gib(8)));
        assert_eq!(machine.effective_memory_available().get(), Some(Bytes::from_gib(2)));
        assert_eq!(machine.effective_memory_with_files(), machine.effective_memory_available());
    }

    #[test]
    fn files_lie_beside_a_limit_that_counts_promises() {
        let limit = |gib, mapped_files| MemoryLimit {
            source: format!("g{gib}"),
            limit: Bytes::from_gib(gib),
            used: Known::unknown("test"),
            reclaimable: Known::unknown("test"),
            swap: Known::unknown("test"),
            mapped_files,
        };
        let commit = machine(2, 2, None, vec![limit(8, false)]);
        let with_files = commit.effective_memory_with_files().get();
        assert_eq!((commit.effective_memory_available().get(), with_files), (Some(Bytes::from_gib(8)), Some(Bytes::from_gib(60))));
        let both = machine(2, 2, None, vec![limit(8, false), limit(16, true)]);
        assert_eq!(both.effective_memory_with_files(), Known::exact(Bytes::from_gib(16), "g16"));
    }
}
