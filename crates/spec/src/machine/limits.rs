//! What of a machine a process may use, and what is free.

use crate::known::Known;
use crate::units::Bytes;
use std::collections::BTreeSet;

/// What of the machine this process may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Logical CPUs this process may run on: affinity ∩ cpuset.
    pub allowed_cpus: Known<BTreeSet<u32>>,
    /// CPU time per wall time that control groups grant (e.g. 1.5); [`Known::Unknown`] where nothing limits it.
    pub cpu_quota: Known<f64>,
    /// Physical cores among the allowed CPUs.
    pub allowed_physical_cores: Known<u32>,
    /// Each limit on memory that applies, the innermost first.
    pub memory: Vec<MemoryLimit>,
    /// Indices into [`Facts::gpus`](super::Facts::gpus) that this process may use.
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
    /// Swap that the group may use beside it; unknown where nothing limits it.
    pub swap: Known<Bytes>,
    /// True where pages of mapped files count against it (control groups, address space). False where only memory that a program asks
    /// for does (Windows' commit and job limits, `RLIMIT_DATA`, strict overcommit): weights in a mapped file lie beside it.
    pub mapped_files: bool,
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
    /// Free memory per GPU, parallel to [`Facts::gpus`](super::Facts::gpus).
    pub gpu_memory: Vec<Known<Bytes>>,
}
