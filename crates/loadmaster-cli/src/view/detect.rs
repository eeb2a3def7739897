//! `detect`: the machine, and what of it this process may use.

use super::quantity::Bandwidth;
use super::{Quantity, SCHEMA_VERSION, Size, View};
use crate::render::{Align, BAD, CAUTION, Cell, Table, Text, styled};
use schemars::JsonSchema;
use serde::Serialize;
use spec::machine::{Cache, Gpu, GpuVendor, MemoryLimit, NumaNode};
use spec::{Known, Machine};

/// Result of `loadmaster detect`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DetectView {
    /// Version of this layout.
    pub schema_version: u32,
    /// `live`, the path of a recording, or the description.
    pub origin: String,
    /// `linux`, `macos`, `windows`, `android`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Processors.
    pub cpu: CpuView,
    /// Memory of the host.
    pub memory: MemoryPoolView,
    /// NUMA nodes.
    pub numa: Vec<NumaView>,
    /// GPUs in the engine's order.
    pub gpus: Vec<GpuView>,
    /// Contradictions and surprises met while detecting.
    pub warnings: Vec<String>,
}

/// Processors.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CpuView {
    /// Marketing name.
    pub model: Quantity<String>,
    /// Packages.
    pub sockets: Quantity<u32>,
    /// Physical cores of all sockets.
    pub physical_cores: Quantity<u32>,
    /// Hardware threads of all sockets.
    pub logical_cpus: Quantity<u32>,
    /// CPUs worth of time that this process can use: affinity, cpuset and quota counted.
    pub effective_cpus: u32,
    /// Physical cores that this process can use: what threads are planned from.
    pub effective_cores: u32,
    /// CPU time per wall time that control groups grant; unknown where nothing limits it.
    pub quota: Quantity<f64>,
    /// Kinds of core, fastest first.
    pub core_kinds: Vec<CoreKindView>,
    /// Highest frequency in Hz.
    pub max_frequency_hz: Quantity<u64>,
    /// Caches.
    pub caches: Vec<CacheView>,
    /// Instruction-set extensions.
    pub features: Vec<String>,
    /// Peak rate of reads from memory in bytes per second.
    pub memory_bandwidth_bytes_per_s: Quantity<Bandwidth>,
}

/// Cores of one kind.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CoreKindView {
    /// `performance`, `efficiency`, or a core's name.
    pub name: String,
    /// Logical CPUs.
    pub logical_cpus: usize,
    /// Physical cores among them.
    pub physical_cores: u32,
}

/// One kind of cache.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CacheView {
    /// 1, 2, 3.
    pub level: u8,
    /// `data`, `instruction`, `unified`.
    pub kind: String,
    /// Size of one instance in bytes.
    pub size_bytes: Size,
    /// Instances in the machine.
    pub instances: u32,
    /// Logical CPUs that share one.
    pub shared_by: u32,
}

/// Memory of the host.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MemoryPoolView {
    /// Installed and usable by the system.
    pub total_bytes: Quantity<Size>,
    /// Free or reclaimable now, limits not counted.
    pub available_bytes: Quantity<Size>,
    /// What this process could ever have: the tightest limit counted.
    pub effective_total_bytes: Quantity<Size>,
    /// What this process can take now: the tightest limit counted.
    pub effective_available_bytes: Quantity<Size>,
    /// Swap space.
    pub swap_total_bytes: Quantity<Size>,
    /// Free swap.
    pub swap_free_bytes: Quantity<Size>,
    /// Limits of control groups, innermost first.
    pub limits: Vec<LimitView>,
}

/// A limit on memory.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LimitView {
    /// Where it stands.
    pub source: String,
    /// The limit.
    pub limit_bytes: Size,
    /// In use, page cache included.
    pub used_bytes: Quantity<Size>,
    /// Of which can be taken back at once.
    pub reclaimable_bytes: Quantity<Size>,
}

/// One NUMA node.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NumaView {
    /// The system's number.
    pub id: u32,
    /// Logical CPUs.
    pub cpus: Vec<u32>,
    /// Memory of the node.
    pub memory_bytes: Quantity<Size>,
}

/// One GPU.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GpuView {
    /// Marketing name.
    pub name: Quantity<String>,
    /// `nvidia`, `amd`, `intel`, `apple`, `other`.
    pub vendor: &'static str,
    /// Whether this process may use it.
    pub usable: bool,
    /// Memory in all.
    pub memory_total_bytes: Quantity<Size>,
    /// Memory free now.
    pub memory_free_bytes: Quantity<Size>,
    /// Peak rate of its memory in bytes per second.
    pub memory_bandwidth_bytes_per_s: Quantity<Bandwidth>,
    /// Dense half-precision operations per second.
    pub compute_ops_per_s: Quantity<f64>,
    /// CUDA compute capability, `8.9`.
    pub compute_capability: Quantity<String>,
    /// Link to the host, `PCIe 4.0 x16`.
    pub link: Quantity<String>,
    /// True where it shares the host's memory.
    pub unified_memory: bool,
    /// PCI address.
    pub pci_address: Quantity<String>,
}

impl From<&Machine> for DetectView {
    fn from(machine: &Machine) -> Self {
        let (facts, free) = (&machine.facts, &machine.free);
        Self {
            schema_version: SCHEMA_VERSION,
            origin: machine.origin.clone(),
            os: facts.platform.os.clone(),
            arch: facts.platform.arch.clone(),
            cpu: cpu(machine),
            memory: MemoryPoolView {
                total_bytes: Quantity::of(&facts.memory.total),
                available_bytes: Quantity::of(&free.memory),
                effective_total_bytes: Quantity::of(&machine.effective_memory_total()),
                effective_available_bytes: Quantity::of(&machine.effective_memory_available()),
                swap_total_bytes: Quantity::of(&facts.memory.swap_total),
                swap_free_bytes: Quantity::of(&free.swap),
                limits: machine.limits.memory.iter().map(limit).collect(),
            },
            numa: facts.numa.iter().filter(|node| !node.of_gpu).map(numa).collect(),
            gpus: facts.gpus.iter().enumerate().map(|(i, card)| gpu(machine, i, card)).collect(),
            warnings: machine.warnings.clone(),
        }
    }
}

fn cpu(machine: &Machine) -> CpuView {
    let cpu = &machine.facts.cpu;
    CpuView {
        model: Quantity::of(&cpu.model),
        sockets: Quantity::of(&cpu.sockets),
        physical_cores: Quantity::of(&cpu.physical_cores),
        logical_cpus: Quantity::of(&cpu.logical_cpus),
        effective_cpus: machine.effective_cpus(),
        effective_cores: machine.effective_cores(),
        quota: Quantity::of(&machine.limits.cpu_quota),
        core_kinds: cpu
            .core_kinds
            .iter()
            .map(|kind| CoreKindView { name: kind.name.clone(), logical_cpus: kind.cpus.len(), physical_cores: kind.physical_cores })
            .collect(),
        max_frequency_hz: Quantity::of(&cpu.max_frequency_hz),
        caches: cpu.caches.iter().map(cache).collect(),
        features: cpu.features.iter().cloned().collect(),
        memory_bandwidth_bytes_per_s: Quantity::of(&cpu.memory_bandwidth),
    }
}

fn cache(cache: &Cache) -> CacheView {
    CacheView {
        level: cache.level,
        kind: cache.kind.clone(),
        size_bytes: cache.size.into(),
        instances: cache.instances,
        shared_by: cache.shared_by,
    }
}

fn limit(limit: &MemoryLimit) -> LimitView {
    LimitView {
        source: limit.source.clone(),
        limit_bytes: limit.limit.into(),
        used_bytes: Quantity::of(&limit.used),
        reclaimable_bytes: Quantity::of(&limit.reclaimable),
    }
}

fn numa(node: &NumaNode) -> NumaView {
    NumaView { id: node.id, cpus: node.cpus.iter().copied().collect(), memory_bytes: Quantity::of(&node.memory) }
}

fn gpu(machine: &Machine, index: usize, gpu: &Gpu) -> GpuView {
    let free = machine.free.gpu_memory.get(index).cloned().unwrap_or_else(|| Known::unknown("not reported"));
    GpuView {
        name: Quantity::of(&gpu.name),
        vendor: match gpu.vendor {
            GpuVendor::Nvidia => "nvidia",
            GpuVendor::Amd => "amd",
            GpuVendor::Intel => "intel",
            GpuVendor::Apple => "apple",
            GpuVendor::Other => "other",
        },
        usable: machine.limits.visible_gpus.contains(&index),
        memory_total_bytes: Quantity::of(&gpu.memory_total),
        memory_free_bytes: Quantity::of(&free),
        memory_bandwidth_bytes_per_s: Quantity::of(&gpu.memory_bandwidth),
        compute_ops_per_s: Quantity::of(&gpu.compute.clone().map(|rate| rate.get())),
        compute_capability: Quantity::of(&gpu.compute_capability.clone().map(|(major, minor)| format!("{major}.{minor}"))),
        link: Quantity::of(&gpu.pcie.clone().map(|link| format!("PCIe {}.0 x{}", link.generation, link.lanes))),
        unified_memory: gpu.unified_memory,
        pci_address: Quantity::of(&gpu.pci_address),
    }
}

/// Extensions that decide how fast an engine computes, in the order in which people ask for them.
const NOTEWORTHY: &[&str] = &[
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vbmi",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "neon",
    "dotprod",
    "i8mm",
    "sve",
    "sve2",
    "sme",
];

impl View for DetectView {
    fn text(&self, text: &mut Text) {
        self.cpu_text(text);
        self.memory_text(text);
        self.gpus_text(text);
        if !self.warnings.is_empty() {
            text.gap();
            for warning in &self.warnings {
                text.note(CAUTION, "!", warning);
            }
        }
    }
}

impl DetectView {
    fn cpu_text(&self, text: &mut Text) {
        let cpu = &self.cpu;
        text.section(format_args!("Processor ({}, {})", self.os, self.arch));
        let mut fields = vec![
            ("model", text.quantity(&cpu.model)),
            (
                "cores",
                format!(
                    "{} physical, {} logical, {} sockets",
                    text.brief(&cpu.physical_cores),
                    text.brief(&cpu.logical_cpus),
                    text.brief(&cpu.sockets)
                ),
            ),
            ("usable here", format!("{} cores, {} CPUs", cpu.effective_cores, cpu.effective_cpus)),
        ];
        if !cpu.quota.is_unknown() {
            fields.push(("quota", format!("{} CPUs", text.quantity(&cpu.quota))));
        }
        if cpu.core_kinds.len() > 1 {
            let kinds: Vec<_> = cpu.core_kinds.iter().map(|kind| format!("{} {}", kind.physical_cores, kind.name)).collect();
            fields.push(("kinds", kinds.join(", ")));
        }
        let caches: Vec<_> = cpu
            .caches
            .iter()
            .filter(|cache| cache.kind != "instruction")
            .map(|cache| format!("L{} {} x {}", cache.level, cache.instances, cache.size_bytes))
            .collect();
        fields.push(("caches", if caches.is_empty() { "unknown".to_owned() } else { caches.join(", ") }));
        let simd: Vec<_> = if text.verbose() {
            cpu.features.iter().map(String::as_str).collect()
        } else {
            NOTEWORTHY.iter().copied().filter(|name| cpu.features.iter().any(|feature| feature == name)).collect()
        };
        fields.push(("SIMD", if simd.is_empty() { "unknown".to_owned() } else { simd.join(" ") }));
        fields.push(("memory bandwidth", text.quantity(&cpu.memory_bandwidth_bytes_per_s)));
        text.fields(fields);
    }

    fn memory_text(&self, text: &mut Text) {
        let memory = &self.memory;
        text.section("Memory");
        let mut fields = vec![
            ("total", text.quantity(&memory.total_bytes)),
            ("available", text.quantity(&memory.available_bytes)),
            ("usable here", text.quantity(&memory.effective_available_bytes)),
            ("swap", format!("{} free of {}", text.brief(&memory.swap_free_bytes), text.brief(&memory.swap_total_bytes))),
        ];
        for limit in &memory.limits {
            fields.push(("limit", format!("{} ({}), in use {}", limit.limit_bytes, limit.source, text.quantity(&limit.used_bytes))));
        }
        if self.numa.len() > 1 {
            for node in &self.numa {
                fields.push(("NUMA node", format!("{}: {} CPUs, {}", node.id, node.cpus.len(), text.quantity(&node.memory_bytes))));
            }
        }
        text.fields(fields);
    }

    fn gpus_text(&self, text: &mut Text) {
        text.section("GPUs");
        if self.gpus.is_empty() {
            text.line("  none found");
            return;
        }
        let mut table = Table::new([Align::Right, Align::Left, Align::Right, Align::Right, Align::Left, Align::Left, Align::Left]);
        table.header(["", "name", "memory", "free", "bandwidth", "compute", "link"]);
        for (i, gpu) in self.gpus.iter().enumerate() {
            let name = text.brief(&gpu.name);
            let name = match (gpu.usable, gpu.unified_memory) {
                (false, _) => format!("{name} {}", styled(BAD, "(not usable here)")),
                (true, true) => format!("{name} (shares host memory)"),
                (true, false) => name,
            };
            table.row([
                Cell::plain(i.to_string()),
                Cell::plain(name),
                Cell::plain(text.brief(&gpu.memory_total_bytes)),
                Cell::plain(text.brief(&gpu.memory_free_bytes)),
                Cell::plain(text.brief(&gpu.memory_bandwidth_bytes_per_s)),
                Cell::plain(text.brief(&gpu.compute_capability)),
                Cell::plain(text.brief(&gpu.link)),
            ]);
        }
        text.table(&table);
    }
}
