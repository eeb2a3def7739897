//! A machine under macOS: asks each part in turn and puts the layers together.

mod conditions;
mod cpu;
mod memory;
mod metal;
pub(crate) mod sysctl;

use crate::detect::Depth;
use crate::host::Host;
use spec::Known;
use spec::machine::{Facts, Limits, Machine, Npu, NumaNode, Platform};

pub(super) fn detect(host: &dyn Host, os: String, arch: String, depth: Depth) -> Machine {
    let mut warnings = Vec::new();
    // A translated program is told that the processor is another one; the kernel is not.
    let translated = sysctl::is_set(host, "sysctl.proc_translated");
    let arch = if translated { "aarch64".to_owned() } else { arch };
    if translated {
        warnings.push(
            "this program was built for Intel processors and Rosetta translates it; an engine built so is several times slower: use the builds for Apple silicon"
                .into(),
        );
    }
    let total = memory::total(host);
    let pages = memory::available(host, &total);
    let gpus = if depth > Depth::Static { metal::read(host, &pages) } else { metal::Gpus::default() };
    let cpu = cpu::read(host, &arch, gpus.gpus.first().filter(|_| translated));
    let cpus = cpu.logical_cpus.clone().map(|cpus| (0..cpus).collect());
    let version = version(host);
    let inside = inside(host, translated);
    let limits = Limits {
        allowed_cpus: cpus,
        cpu_quota: Known::unknown("macOS gives no shares of processor time"),
        allowed_physical_cores: cpu.physical_cores.clone(),
        memory: Vec::new(),
        visible_gpus: gpus.visible,
    };
    let numa = vec![NumaNode {
        id: 0,
        cpus: limits.allowed_cpus.value().cloned().unwrap_or_default(),
        memory: total.clone(),
        distances: Vec::new(),
        of_gpu: false,
    }];
    let facts = Facts {
        numa,
        npus: npus(&arch, &inside),
        platform: Platform { os, arch, version, inside },
        cpu,
        memory: memory::memory(host, total),
        gpus: gpus.gpus,
    };
    let conditions = conditions::read(host, facts.gpus.len());
    let free = spec::machine::Free { memory: pages, swap: memory::free_swap(host), gpu_memory: gpus.free };
    warnings.extend(gpus.warnings);
    Machine { origin: host.origin(), facts, limits, free, conditions, warnings }
}

/// Version and build: `15.3.1 (24D70)`.
fn version(host: &dyn Host) -> Known<String> {
    match (sysctl::text(host, "kern.osproductversion"), sysctl::text(host, "kern.osversion")) {
        (Some(version), Some(build)) => Known::exact(format!("{version} ({build})"), "sysctl kern.osproductversion, kern.osversion"),
        (Some(version), None) => Known::exact(version, "sysctl kern.osproductversion"),
        (None, Some(build)) => Known::exact(build, "sysctl kern.osversion"),
        (None, None) => Known::unknown("the kernel does not name its version"),
    }
}

fn inside(host: &dyn Host, translated: bool) -> Vec<String> {
    let machine = sysctl::is_set(host, "kern.hv_vmm_present").then_some("virtual machine");
    machine.into_iter().chain(translated.then_some("rosetta")).map(str::to_owned).collect()
}

/// Every Apple processor of a Mac has one; a virtual machine is not given it.
fn npus(arch: &str, inside: &[String]) -> Vec<Npu> {
    if arch != "aarch64" || inside.iter().any(|layer| layer == "virtual machine") {
        return Vec::new();
    }
    vec![Npu {
        name: "Apple Neural Engine".into(),
        driver: Known::unknown("not asked"),
        pci_address: Known::unknown("part of the processor"),
    }]
}
