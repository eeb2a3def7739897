//! Machine → report.

use super::*;
use spec::machine::{Cpu, Free, Gpu, GpuCondition, GpuKind, GpuVendor, Limits, Memory, NumaNode, PcieLink, PowerSource};
use spec::{Bytes, BytesPerSec, Known};

/// Where figures come from, as they are taken.
#[derive(Default)]
struct Provenance {
    sources: BTreeMap<String, String>,
    intervals: BTreeMap<String, [f64; 2]>,
    unknown: BTreeMap<String, String>,
}

impl Provenance {
    /// The figure as `value` shows it, its provenance noted under its path.
    fn take<T, U>(&mut self, path: impl Into<String>, known: &Known<T>, value: impl Fn(&T) -> U) -> Option<U> {
        let map = if known.is_unknown() { &mut self.unknown } else { &mut self.sources };
        map.insert(path.into(), known.source().to_string());
        known.value().map(value)
    }

    /// A figure whose interval is noted too.
    fn measure<T, U>(&mut self, path: impl Into<String>, known: &Known<T>, value: impl Fn(&T) -> U, size: impl Fn(&T) -> f64) -> Option<U> {
        let path = path.into();
        if let Known::Estimated { low, high, .. } = known {
            self.intervals.insert(path.clone(), [size(low), size(high)]);
        }
        self.take(path, known, value)
    }

    fn text(&mut self, path: impl Into<String>, known: &Known<String>) -> Option<String> {
        self.take(path, known, String::clone)
    }
    fn count(&mut self, path: impl Into<String>, known: &Known<u32>) -> Option<u32> {
        self.measure(path, known, |number| *number, |number| f64::from(*number))
    }
    fn number(&mut self, path: impl Into<String>, known: &Known<u64>) -> Option<u64> {
        self.measure(path, known, |number| *number, |number| *number as f64)
    }
    fn real(&mut self, path: impl Into<String>, known: &Known<f64>) -> Option<f64> {
        self.measure(path, known, |number| *number, |number| *number)
    }
    fn bytes(&mut self, path: impl Into<String>, known: &Known<Bytes>) -> Option<u64> {
        self.measure(path, known, |bytes| bytes.get(), |bytes| bytes.as_f64())
    }
    fn rate(&mut self, path: impl Into<String>, known: &Known<BytesPerSec>) -> Option<u64> {
        self.measure(path, known, |rate| rate.get() as u64, |rate| rate.get())
    }
    fn link(&mut self, path: impl Into<String>, known: &Known<PcieLink>) -> Option<LinkReport> {
        self.take(path, known, |link| LinkReport { generation: link.generation, lanes: link.lanes })
    }
}

pub(super) fn report(machine: &Machine) -> Report {
    let mut p = Provenance::default();
    let (facts, limits, free) = (&machine.facts, &machine.limits, &machine.free);
    let system = SystemReport {
        os: facts.platform.os.clone(),
        arch: facts.platform.arch.clone(),
        version: p.text("system.version", &facts.platform.version),
        inside: facts.platform.inside.clone(),
    };
    let numa_nodes = facts.numa.iter().filter(|node| !node.of_gpu).count();
    let cpu = cpu(&mut p, &facts.cpu, limits, u32::try_from(numa_nodes).unwrap_or(u32::MAX));
    let memory = MemoryReport {
        effective_total: p.bytes("memory.effective_total", &machine.effective_memory_total()),
        effective_available: p.bytes("memory.effective_available", &machine.effective_memory_available()),
        ..memory(&mut p, &facts.memory, free)
    };
    let numa = facts.numa.iter().enumerate().map(|(index, it)| node(&mut p, index, it)).collect();
    let gpus = facts.gpus.iter().enumerate().map(|(index, it)| gpu(&mut p, index, it, machine)).collect();
    let npus = facts.npus.iter().enumerate().map(|(index, npu)| NpuReport {
        name: npu.name.clone(),
        driver: p.text(format!("npus.{index}.driver"), &npu.driver),
        pci_address: p.text(format!("npus.{index}.pci_address"), &npu.pci_address),
    });
    let npus = npus.collect();
    let conditions = conditions(&mut p, machine);
    let limits = limits_report(&mut p, machine);
    Report {
        schema: SCHEMA.to_owned(),
        origin: machine.origin.clone(),
        system,
        cpu,
        memory,
        numa,
        gpus,
        npus,
        limits,
        conditions,
        warnings: machine.warnings.clone(),
        sources: p.sources,
        intervals: p.intervals,
        unknown: p.unknown,
    }
}

fn cpu(p: &mut Provenance, cpu: &Cpu, limits: &Limits, numa_nodes: u32) -> CpuReport {
    let count = |cpus: &std::collections::BTreeSet<u32>| u32::try_from(cpus.len()).unwrap_or(u32::MAX);
    CpuReport {
        model: p.text("cpu.model", &cpu.model),
        packages: p.count("cpu.packages", &cpu.sockets),
        dies: p.count("cpu.dies", &cpu.dies),
        cores: p.count("cpu.cores", &limits.allowed_physical_cores),
        threads: p.take("cpu.threads", &limits.allowed_cpus, count),
        machine_cores: p.count("cpu.machine_cores", &cpu.physical_cores),
        machine_threads: p.count("cpu.machine_threads", &cpu.logical_cpus),
        numa_nodes,
        kinds: cpu
            .core_kinds
            .iter()
            .map(|kind| KindReport { name: kind.name.clone(), cores: kind.physical_cores, cpus: kind.cpus.iter().copied().collect() })
            .collect(),
        base_frequency_hz: p.number("cpu.base_frequency_hz", &cpu.base_frequency_hz),
        max_frequency_hz: p.number("cpu.max_frequency_hz", &cpu.max_frequency_hz),
        caches: cpu
            .caches
            .iter()
            .map(|cache| CacheReport {
                level: cache.level,
                kind: cache.kind.clone(),
                bytes: cache.size.get(),
                instances: cache.instances,
                shared_by: cache.shared_by,
            })
            .collect(),
        features: cpu.features.iter().cloned().collect(),
        vector_bits: p.count("cpu.vector_bits", &cpu.vector_bits),
        memory_bandwidth_bytes_per_s: p.rate("cpu.memory_bandwidth_bytes_per_s", &cpu.memory_bandwidth),
    }
}

fn memory(p: &mut Provenance, memory: &Memory, free: &Free) -> MemoryReport {
    let modules = memory.modules.iter().enumerate().map(|(index, module)| ModuleReport {
        slot: module.slot.clone(),
        bytes: p.bytes(format!("memory.modules.{index}.bytes"), &module.size),
        kind: p.text(format!("memory.modules.{index}.kind"), &module.kind),
        transfers_per_s: p.number(format!("memory.modules.{index}.transfers_per_s"), &module.transfers_per_s),
        width_bits: p.count(format!("memory.modules.{index}.width_bits"), &module.width_bits),
    });
    let modules = modules.collect();
    let pages = &memory.huge_pages;
    MemoryReport {
        total: p.bytes("memory.total", &memory.total),
        available: p.bytes("memory.available", &free.memory),
        effective_total: None,
        effective_available: None,
        swap_total: p.bytes("memory.swap_total", &memory.swap_total),
        swap_free: p.bytes("memory.swap_free", &free.swap),
        page: p.bytes("memory.page", &memory.page),
        huge_pages: HugePagesReport {
            transparent: p.text("memory.huge_pages.transparent", &pages.transparent),
            size: p.bytes("memory.huge_pages.size", &pages.size),
            reserved: p.number("memory.huge_pages.reserved", &pages.reserved),
        },
        modules,
    }
}

fn node(p: &mut Provenance, index: usize, node: &NumaNode) -> NodeReport {
    NodeReport {
        id: node.id,
        cpus: node.cpus.iter().copied().collect(),
        memory: p.bytes(format!("numa.{index}.memory"), &node.memory),
        distances: node.distances.clone(),
        of_gpu: node.of_gpu,
    }
}

/// The maker in one word.
fn vendor(vendor: GpuVendor) -> &'static str {
    match vendor {
        GpuVendor::Nvidia => "nvidia",
        GpuVendor::Amd => "amd",
        GpuVendor::Intel => "intel",
        GpuVendor::Apple => "apple",
        GpuVendor::Other => "other",
    }
}

fn kind(kind: GpuKind) -> &'static str {
    match kind {
        GpuKind::Discrete => "discrete",
        GpuKind::Integrated => "integrated",
        GpuKind::Software => "software",
    }
}

fn gpu(p: &mut Provenance, index: usize, gpu: &Gpu, machine: &Machine) -> GpuReport {
    let at = |field: &str| format!("gpus.{index}.{field}");
    let not_asked = Known::unknown("not asked");
    let free = machine.free.gpu_memory.get(index).unwrap_or(&not_asked);
    let peers = gpu.peers.iter().enumerate().map(|(peer, link)| PeerReport {
        gpu: link.peer,
        kind: link.kind.clone(),
        links: link.links,
        bandwidth_bytes_per_s: p.rate(format!("gpus.{index}.peers.{peer}.bandwidth_bytes_per_s"), &link.bandwidth),
    });
    let peers = peers.collect();
    GpuReport {
        name: p.text(at("name"), &gpu.name),
        vendor: vendor(gpu.vendor).to_owned(),
        kind: kind(gpu.kind).to_owned(),
        usable: machine.limits.visible_gpus.contains(&index),
        memory_total: p.bytes(at("memory_total"), &gpu.memory_total),
        memory_free: p.bytes(at("memory_free"), free),
        unified_memory: gpu.unified_memory,
        shared_memory: p.bytes(at("shared_memory"), &gpu.shared_memory),
        host_visible: p.bytes(at("host_visible"), &gpu.host_visible),
        largest_buffer: p.bytes(at("largest_buffer"), &gpu.largest_buffer),
        memory_bandwidth_bytes_per_s: p.rate(at("memory_bandwidth_bytes_per_s"), &gpu.memory_bandwidth),
        compute_ops_per_s: p.measure(at("compute_ops_per_s"), &gpu.compute, |rate| rate.get(), |rate| rate.get()),
        compute_capability: p.take(at("compute_capability"), &gpu.compute_capability, |(major, minor)| format!("{major}.{minor}")),
        architecture: p.text(at("architecture"), &gpu.architecture),
        multiprocessors: p.count(at("multiprocessors"), &gpu.multiprocessors),
        max_frequency_hz: p.number(at("max_frequency_hz"), &gpu.max_frequency_hz),
        power_limit_watts: p.real(at("power_limit_watts"), &gpu.power_limit_watts),
        driver: p.text(at("driver"), &gpu.driver),
        uuid: p.text(at("uuid"), &gpu.uuid),
        pci_address: p.text(at("pci_address"), &gpu.pci_address),
        pci_id: p.text(at("pci_id"), &gpu.pci_id),
        link: p.link(at("link"), &gpu.pcie),
        numa_node: p.count(at("numa_node"), &gpu.numa_node),
        slice: gpu.slice.as_ref().map(|slice| SliceReport { profile: slice.profile.clone(), parent: slice.parent.clone() }),
        peers,
    }
}

fn limits_report(p: &mut Provenance, machine: &Machine) -> LimitsReport {
    let limits = &machine.limits;
    let memory = limits.memory.iter().enumerate().map(|(index, limit)| MemoryLimitReport {
        source: limit.source.clone(),
        limit: limit.limit.get(),
        used: p.bytes(format!("limits.memory.{index}.used"), &limit.used),
        reclaimable: p.bytes(format!("limits.memory.{index}.reclaimable"), &limit.reclaimable),
        swap: p.bytes(format!("limits.memory.{index}.swap"), &limit.swap),
        mapped_files: limit.mapped_files,
    });
    let memory = memory.collect();
    LimitsReport {
        cpus: p.take("limits.cpus", &limits.allowed_cpus, |cpus| cpus.iter().copied().collect()),
        cpu_quota: p.real("limits.cpu_quota", &limits.cpu_quota),
        effective_cpus: machine.effective_cpus(),
        effective_cores: machine.effective_cores(),
        memory,
    }
}

fn conditions(p: &mut Provenance, machine: &Machine) -> ConditionsReport {
    let now = &machine.conditions;
    let power = |source: &PowerSource| match source {
        PowerSource::Mains => "mains".to_owned(),
        PowerSource::Battery(_) => "battery".to_owned(),
    };
    let gpus = now.gpus.iter().enumerate().map(|(index, it)| condition(p, index, it)).collect();
    ConditionsReport {
        power: p.take("conditions.power", &now.power, power),
        battery_percent: match now.power.get() {
            Some(PowerSource::Battery(left)) => Some(left),
            _ => None,
        },
        power_profile: p.text("conditions.power_profile", &now.power_profile),
        governor: p.text("conditions.governor", &now.governor),
        cpu_temperature_c: p.real("conditions.cpu_temperature_c", &now.cpu_temperature_c),
        cpu_throttled: p.take("conditions.cpu_throttled", &now.cpu_throttled, |throttled| *throttled),
        gpus,
    }
}

fn condition(p: &mut Provenance, index: usize, now: &GpuCondition) -> GpuConditionReport {
    let at = |field: &str| format!("conditions.gpus.{index}.{field}");
    GpuConditionReport {
        utilisation: p.real(at("utilisation"), &now.utilisation),
        temperature_c: p.real(at("temperature_c"), &now.temperature_c),
        power_watts: p.real(at("power_watts"), &now.power_watts),
        link: p.link(at("link"), &now.link),
        throttled: p.text(at("throttled"), &now.throttled),
        asleep: now.asleep,
    }
}
