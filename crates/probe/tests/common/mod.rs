//! What the tests of this crate share: a machine as a short text.
#![allow(dead_code, reason = "each test program uses its part")]

use spec::machine::{Gpu, GpuCondition};
use spec::{Known, Machine};
use std::collections::BTreeSet;
use std::fmt::{Debug, Display, Write};

/// A machine as lines that one can read aloud, sources included.
pub fn render(machine: &Machine) -> String {
    let mut out = String::new();
    let (facts, limits, free) = (&machine.facts, &machine.limits, &machine.free);
    let mut line = |name: &str, value: String| writeln!(out, "{name:<20} {value}").unwrap();
    line("platform", format!("{} {}", facts.platform.os, facts.platform.arch));
    line("version", known(&facts.platform.version));
    line("inside", facts.platform.inside.join(", "));
    line("model", known(&facts.cpu.model));
    line("sockets", known(&facts.cpu.sockets));
    line("dies", known(&facts.cpu.dies));
    line("physical cores", known(&facts.cpu.physical_cores));
    line("logical cpus", known(&facts.cpu.logical_cpus));
    for kind in &facts.cpu.core_kinds {
        line("kind", format!("{}: {} cores, cpus {}", kind.name, kind.physical_cores, list(&kind.cpus)));
    }
    line("base frequency", known(&facts.cpu.base_frequency_hz));
    line("max frequency", known(&facts.cpu.max_frequency_hz));
    for cache in &facts.cpu.caches {
        line("cache", format!("L{} {} {} x{}, each shared by {}", cache.level, cache.kind, cache.size, cache.instances, cache.shared_by));
    }
    line("features", facts.cpu.features.iter().cloned().collect::<Vec<_>>().join(" "));
    if facts.cpu.features.contains("sve") {
        line("vector bits", known(&facts.cpu.vector_bits));
    }
    line("memory", known(&facts.memory.total));
    for module in &facts.memory.modules {
        line("module", format!("{}: {} {} at {} T/s", module.slot, module.size, module.kind, module.transfers_per_s));
    }
    let pages = &facts.memory.huge_pages;
    line("huge pages", format!("{}, {} x {}", known(&pages.transparent), pages.reserved, pages.size));
    line("swap", known(&facts.memory.swap_total));
    line("page", known(&facts.memory.page));
    for node in &facts.numa {
        let (of_gpu, distances) = (if node.of_gpu { ", a GPU's" } else { "" }, &node.distances);
        line("node", format!("{}: cpus {}, {}{of_gpu}, distances {distances:?}", node.id, list(&node.cpus), known(&node.memory)));
    }
    for (index, (gpu, free)) in facts.gpus.iter().zip(&free.gpu_memory).enumerate() {
        line("gpu", format!("{index}: {:?} {:?} {}", gpu.kind, gpu.vendor, known(&gpu.name)));
        for (name, value) in gpu_lines(gpu) {
            line(name, value);
        }
        line("  free", known(free));
        for (name, value) in condition_lines(&machine.conditions.gpus[index]) {
            line(name, value);
        }
    }
    for npu in &facts.npus {
        line("npu", format!("{}, driver {}, at {}", npu.name, npu.driver, npu.pci_address));
    }
    line(
        "allowed cpus",
        limits
            .allowed_cpus
            .value()
            .map_or_else(|| known_debug(&limits.allowed_cpus), |cpus| format!("{} [{}]", list(cpus), limits.allowed_cpus.source())),
    );
    line("allowed cores", known(&limits.allowed_physical_cores));
    line("quota", known(&limits.cpu_quota));
    for limit in &limits.memory {
        line(
            "limit",
            format!(
                "{} used {} reclaimable {} headroom {} swap {}{} [{}]",
                limit.limit,
                limit.used,
                limit.reclaimable,
                limit.headroom(),
                limit.swap,
                if limit.mapped_files { "" } else { " beside files" },
                limit.source
            ),
        );
    }
    line("visible gpus", format!("{:?}", limits.visible_gpus));
    line("free memory", known(&free.memory));
    line("free swap", known(&free.swap));
    let now = &machine.conditions;
    line("power", known_debug(&now.power));
    line("profile", known(&now.power_profile));
    line("governor", known(&now.governor));
    line("temperature", known(&now.cpu_temperature_c));
    line("throttled", known(&now.cpu_throttled));
    line("=> cpus, cores", format!("{}, {}", machine.effective_cpus(), machine.effective_cores()));
    line("=> memory", format!("{} of {}", known(&machine.effective_memory_available()), known(&machine.effective_memory_total())));
    if machine.effective_memory_with_files() != machine.effective_memory_available() {
        line("=> with files", known(&machine.effective_memory_with_files()));
    }
    for warning in &machine.warnings {
        line("warning", warning.clone());
    }
    out
}

fn known<T: Display>(value: &Known<T>) -> String {
    if value.is_unknown() { value.to_string() } else { format!("{value} [{}]", value.source()) }
}

/// What is known of a GPU.
fn gpu_lines(gpu: &Gpu) -> Vec<(&'static str, String)> {
    let mut lines = vec![("  memory", format!("{}{}", known(&gpu.memory_total), if gpu.unified_memory { ", the host's" } else { "" }))];
    let mut known_line = |name, value: String| {
        if !value.starts_with("unknown") {
            lines.push((name, value));
        }
    };
    known_line("  shared", known(&gpu.shared_memory));
    known_line("  host visible", known(&gpu.host_visible));
    known_line("  largest buffer", known(&gpu.largest_buffer));
    known_line("  bandwidth", known(&gpu.memory_bandwidth));
    known_line("  compute", known(&gpu.compute));
    known_line("  capability", known_debug(&gpu.compute_capability));
    known_line("  architecture", known(&gpu.architecture));
    known_line("  processors", known(&gpu.multiprocessors));
    known_line("  max frequency", known(&gpu.max_frequency_hz));
    known_line("  power limit", known(&gpu.power_limit_watts));
    known_line("  link", known_debug(&gpu.pcie));
    known_line("  driver", known(&gpu.driver));
    known_line("  uuid", known(&gpu.uuid));
    known_line("  address", known(&gpu.pci_address));
    known_line("  id", known(&gpu.pci_id));
    known_line("  node", known(&gpu.numa_node));
    if let Some(slice) = &gpu.slice {
        lines.push(("  part", format!("{} of {}", slice.profile, slice.parent)));
    }
    for peer in &gpu.peers {
        lines.push(("  peer", format!("{}: {} x {}, {}", peer.peer, peer.links, peer.kind, known(&peer.bandwidth))));
    }
    lines
}

/// How a GPU is now; nothing where nothing is known.
fn condition_lines(now: &GpuCondition) -> Vec<(&'static str, String)> {
    let fields = [
        ("  utilisation", known(&now.utilisation)),
        ("  temperature", known(&now.temperature_c)),
        ("  power", known(&now.power_watts)),
        ("  link now", known_debug(&now.link)),
        ("  throttled", known(&now.throttled)),
    ];
    let asleep = now.asleep.then(|| ("  asleep", "true".to_owned()));
    fields.into_iter().filter(|(_, value)| !value.starts_with("unknown")).chain(asleep).collect()
}

fn known_debug<T: Debug>(value: &Known<T>) -> String {
    value.value().map_or_else(|| format!("unknown ({})", value.source()), |inner| format!("{inner:?} [{}]", value.source()))
}

fn list(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    ranges.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect::<Vec<_>>().join(",")
}
