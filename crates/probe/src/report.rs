//! A machine as data for other programs: schema `loadmaster.machine/1`.
//!
//! Every figure is a plain number in the unit that its name ends with, bytes where it names none, and null where it is not
//! known. Where a figure comes from stands beside the figures: `sources` by the path of the figure (`cpu.packages`,
//! `gpus.0.memory`), `intervals` of those that are estimates, and `unknown` with the reason.

mod fill;

use schemars::JsonSchema;
use serde::Serialize;
use spec::Machine;
use std::collections::BTreeMap;

/// Name and version of this layout. New fields do not change the version; a field that changes its meaning or goes away does.
pub const SCHEMA: &str = "loadmaster.machine/1";

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// `loadmaster.machine/1`.
    pub schema: String,
    /// `live`, the path of a recording, or the description.
    pub origin: String,
    /// The operating system.
    pub system: SystemReport,
    /// Processors.
    pub cpu: CpuReport,
    /// Memory of the host.
    pub memory: MemoryReport,
    /// NUMA nodes.
    pub numa: Vec<NodeReport>,
    /// GPUs in the engine's order.
    pub gpus: Vec<GpuReport>,
    /// Accelerators that are no GPUs.
    pub npus: Vec<NpuReport>,
    /// What limits this process.
    pub limits: LimitsReport,
    /// What slows the machine down at this moment.
    pub conditions: ConditionsReport,
    /// Contradictions and surprises met while detecting.
    pub warnings: Vec<String>,
    /// Where each known figure comes from, by its path.
    pub sources: BTreeMap<String, String>,
    /// Lower and upper end of each figure that is an estimate, by its path.
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// Why a figure is not known, by its path.
    pub unknown: BTreeMap<String, String>,
}

/// The operating system.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SystemReport {
    /// `linux`, `macos`, `windows`, `android`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Release of the kernel or the system.
    pub version: Option<String>,
    /// What it runs in, outermost first: `kvm`, `wsl2`, `docker`, `kubernetes`.
    pub inside: Vec<String>,
}

/// Processors.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CpuReport {
    /// Marketing name.
    pub model: Option<String>,
    /// Packages of the machine.
    pub packages: Option<u32>,
    /// Dies of the machine.
    pub dies: Option<u32>,
    /// Physical cores that this process may use.
    pub cores: Option<u32>,
    /// Hardware threads that this process may use.
    pub threads: Option<u32>,
    /// Physical cores of the machine.
    pub machine_cores: Option<u32>,
    /// Hardware threads of the machine.
    pub machine_threads: Option<u32>,
    /// NUMA nodes with memory of the host.
    pub numa_nodes: u32,
    /// Kinds of core, fastest first.
    pub kinds: Vec<KindReport>,
    /// Frequency that all cores keep.
    pub base_frequency_hz: Option<u64>,
    /// Highest frequency of one core.
    pub max_frequency_hz: Option<u64>,
    /// Caches of the machine.
    pub caches: Vec<CacheReport>,
    /// Instruction-set extensions that a program may use.
    pub features: Vec<String>,
    /// Bits of a scalable vector register.
    pub vector_bits: Option<u32>,
    /// Peak rate of reads from memory.
    pub memory_bandwidth_bytes_per_s: Option<u64>,
}

/// Cores of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct KindReport {
    /// `performance`, `efficiency`, `low-power`, or a core's name.
    pub name: String,
    /// Physical cores.
    pub cores: u32,
    /// Logical CPUs by the system's numbers.
    pub cpus: Vec<u32>,
}

/// One kind of cache.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CacheReport {
    /// 1, 2, 3.
    pub level: u8,
    /// `data`, `instruction`, `unified`.
    pub kind: String,
    /// Size of one instance.
    pub bytes: u64,
    /// Instances in the machine.
    pub instances: u32,
    /// Logical CPUs that share one.
    pub shared_by: u32,
}

/// Memory of the host.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MemoryReport {
    /// Installed and usable by the system.
    pub total: Option<u64>,
    /// Free or reclaimable now, limits not counted.
    pub available: Option<u64>,
    /// What this process could ever have: the tightest limit counted.
    pub effective_total: Option<u64>,
    /// What this process can take now: the tightest limit counted.
    pub effective_available: Option<u64>,
    /// Swap space.
    pub swap_total: Option<u64>,
    /// Free swap.
    pub swap_free: Option<u64>,
    /// A base page.
    pub page: Option<u64>,
    /// Pages larger than that.
    pub huge_pages: HugePagesReport,
    /// Modules, where the firmware's table can be read.
    pub modules: Vec<ModuleReport>,
}

/// Huge pages.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct HugePagesReport {
    /// `always`, `madvise`, `never`.
    pub transparent: Option<String>,
    /// Size of one.
    pub size: Option<u64>,
    /// How many are set aside.
    pub reserved: Option<u64>,
}

/// A memory module.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ModuleReport {
    /// Where it sits.
    pub slot: String,
    /// Its memory.
    pub bytes: Option<u64>,
    /// `DDR5`, `LPDDR5`.
    pub kind: Option<String>,
    /// Transfers per second at which it runs.
    pub transfers_per_s: Option<u64>,
    /// Width of its data in bits.
    pub width_bits: Option<u32>,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct NodeReport {
    /// The system's number.
    pub id: u32,
    /// Logical CPUs.
    pub cpus: Vec<u32>,
    /// Memory of the node.
    pub memory: Option<u64>,
    /// Cost of reaching each node, 10 being the node itself.
    pub distances: Vec<u32>,
    /// True where it is the memory of a GPU.
    pub of_gpu: bool,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct GpuReport {
    /// Marketing name.
    pub name: Option<String>,
    /// `nvidia`, `amd`, `intel`, `apple`, `other`.
    pub vendor: String,
    /// `discrete`, `integrated`, `software`.
    pub kind: String,
    /// Whether this process may use it.
    pub usable: bool,
    /// Memory in all.
    pub memory_total: Option<u64>,
    /// Memory free now.
    pub memory_free: Option<u64>,
    /// True where its memory is the host's.
    pub unified_memory: bool,
    /// Memory of the host that it may map beside its own.
    pub shared_memory: Option<u64>,
    /// The part of its memory that the host can address.
    pub host_visible: Option<u64>,
    /// The largest single buffer.
    pub largest_buffer: Option<u64>,
    /// Peak rate of its memory.
    pub memory_bandwidth_bytes_per_s: Option<u64>,
    /// Dense half-precision operations per second.
    pub compute_ops_per_s: Option<f64>,
    /// CUDA compute capability: `8.9`.
    pub compute_capability: Option<String>,
    /// Instruction set, where that is not a compute capability: `gfx1100`.
    pub architecture: Option<String>,
    /// Multiprocessors, compute units, Xe cores, GPU cores.
    pub multiprocessors: Option<u32>,
    /// Highest frequency of the processors.
    pub max_frequency_hz: Option<u64>,
    /// The power that it may draw.
    pub power_limit_watts: Option<f64>,
    /// Driver and its version.
    pub driver: Option<String>,
    /// Identity across interfaces.
    pub uuid: Option<String>,
    /// PCI address.
    pub pci_address: Option<String>,
    /// Vendor and device of the PCI registry: `10de:2684`.
    pub pci_id: Option<String>,
    /// The link at its best.
    pub link: Option<LinkReport>,
    /// The nearest NUMA node.
    pub numa_node: Option<u32>,
    /// Set where this is a part of a partitioned GPU.
    pub slice: Option<SliceReport>,
    /// Direct links to other GPUs.
    pub peers: Vec<PeerReport>,
}

/// A PCI Express link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LinkReport {
    /// 1 to 7.
    pub generation: u32,
    /// Lanes.
    pub lanes: u32,
}

/// A part of a partitioned GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SliceReport {
    /// `3g.40gb`.
    pub profile: String,
    /// PCI address of the whole.
    pub parent: String,
}

/// A direct link.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PeerReport {
    /// Index of the other among `gpus`.
    pub gpu: usize,
    /// `NVLink`, `XGMI`.
    pub kind: String,
    /// Links that are up.
    pub links: u32,
    /// Of all of them, in one direction.
    pub bandwidth_bytes_per_s: Option<u64>,
}

/// An accelerator that is no GPU.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct NpuReport {
    /// What it is called.
    pub name: String,
    /// Driver that holds it.
    pub driver: Option<String>,
    /// PCI address.
    pub pci_address: Option<String>,
}

/// What limits this process.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LimitsReport {
    /// Logical CPUs that it may run on.
    pub cpus: Option<Vec<u32>>,
    /// CPU time per wall time that is granted; null where nothing limits it.
    pub cpu_quota: Option<f64>,
    /// CPUs worth of time: `cpus` cut by the quota.
    pub effective_cpus: u32,
    /// Cores to plan threads from.
    pub effective_cores: u32,
    /// Limits on memory, innermost first.
    pub memory: Vec<MemoryLimitReport>,
}

/// A limit on memory.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MemoryLimitReport {
    /// Where it stands.
    pub source: String,
    /// The limit.
    pub limit: u64,
    /// In use, page cache included.
    pub used: Option<u64>,
    /// Of which can be taken back at once.
    pub reclaimable: Option<u64>,
    /// Swap beside it; null where nothing limits it.
    pub swap: Option<u64>,
    /// True where pages of mapped files count against it, false where they lie beside it.
    pub mapped_files: bool,
}

/// What slows the machine down at this moment.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ConditionsReport {
    /// `mains` or `battery`.
    pub power: Option<String>,
    /// Charge of the battery in per cent, where the machine runs on it.
    pub battery_percent: Option<u32>,
    /// The system's power profile.
    pub power_profile: Option<String>,
    /// What chooses the frequency of the cores.
    pub governor: Option<String>,
    /// Hottest sensor of the processor.
    pub cpu_temperature_c: Option<f64>,
    /// True where the processor is held below what it could.
    pub cpu_throttled: Option<bool>,
    /// Per GPU.
    pub gpus: Vec<GpuConditionReport>,
}

/// How a GPU is at this moment.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct GpuConditionReport {
    /// Share of time in which it computed, 0 to 1.
    pub utilisation: Option<f64>,
    /// Its temperature.
    pub temperature_c: Option<f64>,
    /// Power drawn.
    pub power_watts: Option<f64>,
    /// The link as it runs now.
    pub link: Option<LinkReport>,
    /// Why it runs below its clock; empty where nothing slows it.
    pub throttled: Option<String>,
    /// True where it is powered down and was left so.
    pub asleep: bool,
}

impl From<&Machine> for Report {
    fn from(machine: &Machine) -> Self {
        fill::report(machine)
    }
}
