//! A machine under Linux: asks each part in turn and puts the three layers together.

use super::Depth;
use super::cpuinfo::{CpuInfo, CpuInfoFile};
use super::topology::Topology;
use super::{
    caches, cgroup, conditions, cpulist, dmi, features, frequency, gpus, kinds, memory, numa, pages, promises, system, topology, x86,
};
use crate::host::{Host, Question, Refusal};
use spec::machine::{Cpu, Facts, Free, Limits, Machine, Memory, NumaNode, Platform};
use spec::{Bytes, Known};
use std::collections::BTreeSet;

const MEMINFO: &str = "/proc/meminfo";

pub(super) fn detect(host: &dyn Host, os: String, arch: String, depth: Depth) -> Machine {
    let x86 = matches!(arch.as_str(), "x86_64" | "x86");
    let mut warnings = Vec::new();
    let file = CpuInfoFile::read(host, x86);
    let mut topology = topology::read(host, &os, &arch, &file);
    let info = file.first();
    let places = if x86 { complete(host, &mut topology) } else { None };
    if !topology.offline.is_empty() {
        warnings.push(format!("CPUs {} are present and switched off", cpulist::format(&topology.offline)));
    }
    let version = system::version(host);
    let numa = numa::read(host);
    let meminfo = host.read(MEMINFO).map(|text| memory::parse(&text));
    let total = total_memory(&meminfo, &numa, &mut warnings);
    let available = available_memory(&meminfo);
    let mut gpus = gpus::read(host, &gpus::HostMemory { total: &total, available: &available }, depth);
    warnings.append(&mut gpus.warnings);

    let groups = cgroup::read(host);
    let allowed = allowed_cpus(host, &topology, &groups);
    let limits = Limits {
        allowed_physical_cores: match (allowed.value(), topology.cores_source) {
            (Some(allowed), Some(source)) => Known::exact(topology.cores_among(allowed), source),
            _ => Known::unknown("cores or allowed CPUs are not known"),
        },
        allowed_cpus: allowed,
        cpu_quota: cgroup::cpu_quota(host, &groups),
        memory: {
            let promised = promises::limits(host, meminfo.as_ref().ok(), total.get());
            cgroup::memory_limits(host, &groups, total.get()).into_iter().chain(promised).collect()
        },
        visible_gpus: gpus.visible,
    };
    let free = Free { memory: available, swap: field(&meminfo, "SwapFree", |info| info.swap_free), gpu_memory: gpus.free };
    let memory = Memory {
        swap_total: field(&meminfo, "SwapTotal", |info| info.swap_total),
        page: page_size(host),
        huge_pages: pages::read(host, &meminfo),
        modules: dmi::modules(host),
        total,
    };
    let facts = Facts {
        numa: nodes(numa.nodes, &topology, &memory.total),
        cpu: cpu(host, &arch, info, (&topology, places.as_ref()), &mut warnings),
        platform: Platform { os, arch, inside: system::inside(host, &version, info.flags.as_deref().filter(|_| x86)), version },
        memory,
        gpus: gpus.gpus,
        npus: gpus.npus,
    };
    let conditions = conditions::read(host, topology.cpus.first().copied(), gpus.conditions);
    Machine { origin: host.origin(), facts, limits, free, conditions, warnings }
}

/// Cores from the registers of each CPU, where the files do not say them.
fn complete(host: &dyn Host, topology: &mut Topology) -> Option<x86::Places> {
    if topology.cores_source.is_some() {
        return None;
    }
    let (cpus, source) = if topology.cpus.is_empty() {
        (host.text(&Question::Affinity).ok().and_then(|text| cpulist::parse(&text))?, x86::PART)
    } else {
        (topology.cpus.clone(), topology.source)
    };
    let places = x86::Places::read(host, &cpus)?;
    let (offline, one_package) = (std::mem::take(&mut topology.offline), topology.one_package);
    *topology = Topology { offline, one_package, source, ..places.topology() };
    Some(places)
}

fn cpu(
    host: &dyn Host,
    arch: &str,
    info: &CpuInfo,
    (topology, places): (&Topology, Option<&x86::Places>),
    warnings: &mut Vec<String>,
) -> Cpu {
    let x86 = matches!(arch, "x86_64" | "x86");
    // One CPU knows its package; that is little where the files say more, and all where they say nothing.
    let (mut physical_cores, mut logical_cpus) = (topology.physical_cores(), topology.logical_cpus());
    if x86
        && topology.cpus.is_empty()
        && let Some(package) = x86::package(host)
    {
        (physical_cores, logical_cpus) = package;
    }
    let (mut sockets, mut dies) = (topology.sockets(), topology.dies());
    if x86
        && dies.is_unknown()
        && let Some(known) = sockets.get().and_then(|packages| x86::dies(host, packages))
    {
        dies = known;
    }
    if topology.source == x86::PART {
        (physical_cores, logical_cpus) = (x86::at_least(&physical_cores), x86::at_least(&logical_cpus));
        (sockets, dies) = (x86::at_least(&sockets), x86::at_least(&dies));
    }
    let core_kinds = kinds::read(host, topology, info);
    let features = extensions(host, arch, info, warnings);
    Cpu {
        model: model(host, arch, info, &core_kinds),
        sockets,
        dies,
        physical_cores,
        logical_cpus,
        base_frequency_hz: frequency::base_hz(host, topology, info),
        max_frequency_hz: frequency::max_hz(host, topology),
        vector_bits: features::vector_bits(host, &features),
        caches: match caches::read(host, &topology.cpus, &core_kinds, &topology.cores) {
            none if none.is_empty() && x86 => x86::caches(host, places),
            caches => caches,
        },
        features,
        core_kinds,
        memory_bandwidth: Known::unknown("not measured"),
    }
}

/// ARM kernels write no marketing name; what identifies the processor there is the kinds of its cores.
fn model(host: &dyn Host, arch: &str, info: &CpuInfo, kinds: &[spec::machine::CoreKind]) -> Known<String> {
    if matches!(arch, "aarch64" | "arm") && !info.midr.is_empty() {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name.as_str()).collect();
        return Known::exact(names.join(" + "), "main ID register");
    }
    if info.model.is_none()
        && matches!(arch, "x86_64" | "x86")
        && let Some(name) = x86::brand(host)
    {
        return Known::exact(name, "CPUID leaf 0x80000002");
    }
    Known::from_option(info.model.clone(), "/proc/cpuinfo", "/proc/cpuinfo names no model")
}

/// The kernel's word where there is one: it has checked that the system saves the registers. CPUID otherwise.
fn extensions(host: &dyn Host, arch: &str, info: &CpuInfo, warnings: &mut Vec<String>) -> BTreeSet<String> {
    let mut features = match (arch, &info.flags) {
        ("aarch64" | "arm", Some(flags)) => features::from_arm_features(flags),
        ("x86_64" | "x86", Some(flags)) => features::from_x86_flags(flags),
        ("x86_64" | "x86", None) => features::from_cpuid(host),
        _ => BTreeSet::new(),
    };
    if features.contains("avx512f") && features::avx10(host) {
        features.insert("avx10".to_owned());
    }
    // The kernel gives the registers of AMX only to a process that asks, and a sandbox may forbid asking.
    if features.contains("amx_tile")
        && let Err(refusal @ (Refusal::Denied | Refusal::NotSupported | Refusal::Failed(_))) = host.ask(&Question::AmxPermission)
    {
        features.retain(|name| !name.starts_with("amx"));
        warnings.push(format!("the processor has AMX and the system does not let this process use it ({refusal})"));
    }
    features
}

fn total_memory(meminfo: &Asked, numa: &numa::Numa, warnings: &mut Vec<String>) -> Known<Bytes> {
    let total = field(meminfo, "MemTotal", |info| info.total);
    if let Some(of_gpus) = numa.gpu_memory.filter(|_| total.is_exact()) {
        warnings.push(format!("the kernel counts {of_gpus} of GPU memory as memory of the host; taken off"));
        return total.map(|total| total.saturating_sub(of_gpus));
    }
    let nodes = numa.nodes.iter().filter(|node| !node.of_gpu).map(|node| node.memory.get()).sum::<Option<Bytes>>();
    match (total, nodes.filter(|sum| !sum.is_zero())) {
        (Known::Unknown { .. }, Some(sum)) => Known::exact(sum, "sum of the NUMA nodes"),
        (total, _) => total,
    }
}

fn available_memory(meminfo: &Asked) -> Known<Bytes> {
    match meminfo {
        Ok(memory::MemInfo { available: None, free_and_cached: Some(upper), .. }) => {
            // Shared memory and dirty pages are in the cache and cannot be dropped.
            let (value, low) = (upper.scale(0.8), upper.scale(0.5));
            Known::estimated(value, low, *upper, "/proc/meminfo MemFree + Buffers + Cached")
        }
        _ => field(meminfo, "MemAvailable", |info| info.available),
    }
}

type Asked = Result<memory::MemInfo, Refusal>;

fn field(meminfo: &Asked, name: &str, value: impl Fn(&memory::MemInfo) -> Option<Bytes>) -> Known<Bytes> {
    match meminfo {
        Ok(info) => Known::from_option(value(info), format!("{MEMINFO} {name}"), format!("no {name} in {MEMINFO}")),
        Err(refusal) => Known::unknown(format!("{MEMINFO}: {refusal}")),
    }
}

fn page_size(host: &dyn Host) -> Known<Bytes> {
    let bytes = host.text(&Question::PageSize).ok().and_then(|text| text.trim().parse().ok()).map(Bytes::new);
    Known::from_option(bytes, "sysconf(_SC_PAGESIZE)", "the system does not say")
}

/// One node with everything where the kernel knows no nodes.
fn nodes(nodes: Vec<NumaNode>, topology: &Topology, total: &Known<Bytes>) -> Vec<NumaNode> {
    if nodes.is_empty() {
        vec![NumaNode { id: 0, cpus: topology.cpus.clone(), memory: total.clone(), distances: Vec::new(), of_gpu: false }]
    } else {
        nodes
    }
}

/// Affinity ∩ cpuset, within the machine. The kernel keeps the affinity inside the cpuset; a recording made elsewhere may
/// have only one of them.
fn allowed_cpus(host: &dyn Host, topology: &Topology, groups: &cgroup::Groups) -> Known<BTreeSet<u32>> {
    let affinity = host.text(&Question::Affinity).ok().and_then(|text| cpulist::parse(&text)).or_else(|| {
        let status = host.read("/proc/self/status").ok()?;
        cpulist::parse(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)
    });
    let affinity = affinity.filter(|cpus| !cpus.is_empty()).map(|cpus| (cpus, "affinity".to_owned()));
    let mut sets = affinity.into_iter().chain(cgroup::cpuset(host, groups));
    let Some((mut allowed, mut source)) = sets.next() else {
        return if topology.cpus.is_empty() {
            Known::unknown("neither affinity nor a list of CPUs")
        } else {
            Known::exact(topology.cpus.clone(), topology.source)
        };
    };
    for (cpus, file) in sets {
        let both: BTreeSet<u32> = allowed.intersection(&cpus).copied().collect();
        // Sets without a common CPU contradict each other; a process that runs has one.
        if !both.is_empty() && both != allowed {
            (allowed, source) = (both, format!("{source} and {file}"));
        }
    }
    let here: BTreeSet<u32> = allowed.intersection(&topology.cpus).copied().collect();
    Known::exact(if here.is_empty() { allowed } else { here }, source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    #[test]
    fn without_files_the_cpus_of_this_process_are_a_part_of_the_machine() {
        let mut host = Recording::new("");
        let mut set = |question: Question, text: &str| host.set(&question, Ok(Answer::text(text)));
        set(Question::Affinity, "2-3");
        set(Question::Cpuid { leaf: 0, subleaf: 0 }, "b 0 0 0");
        for (cpu, id) in [(2, "0"), (3, "1")] {
            for (subleaf, level) in ["1 2 100 ", "4 10 201 ", "0 0 2 "].iter().enumerate() {
                set(Question::CpuidOf { cpu, leaf: 0xb, subleaf: subleaf as u32 }, &format!("{level}{id}"));
            }
        }
        let machine = detect(&host, "linux".into(), "x86_64".into(), Depth::Static);
        let cores = &machine.facts.cpu.physical_cores;
        assert_eq!((cores.low(), cores.high(), cores.source().as_str()), (Some(&1), Some(&8), x86::PART));
        assert_eq!(machine.facts.cpu.logical_cpus.low(), Some(&2));
        assert!(!machine.facts.cpu.sockets.is_exact());
        assert_eq!(machine.limits.allowed_physical_cores, Known::exact(1, x86::SOURCE));
    }
}
