//! Macs: what their recordings must give beside the snapshots.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use probe::{Recording, detect};
use spec::machine::{GpuKind, GpuVendor, Machine, PowerSource};
use spec::{Bytes, Known};

fn machine(name: &str) -> Machine {
    let path = format!("{}/tests/machines/{name}.json", env!("CARGO_MANIFEST_DIR"));
    detect(&Recording::parse(&std::fs::read_to_string(path).unwrap()).unwrap()).unwrap()
}

#[test]
fn caches_are_those_of_each_kind_of_core() {
    let caches = |name: &str| {
        let caches = machine(name).facts.cpu.caches;
        caches
            .iter()
            .filter(|cache| cache.level == 2)
            .map(|cache| (cache.size.as_mib(), cache.instances, cache.shared_by))
            .collect::<Vec<_>>()
    };
    assert_eq!(caches("mac-m3-max"), [(4.0, 1, 4), (16.0, 2, 6)]);
    // One core of each performance cluster is switched off in the factory.
    assert_eq!(caches("mac-m1-pro-binned"), [(4.0, 1, 2), (12.0, 2, 3)]);
    assert_eq!(caches("mac-m3-ultra"), [(4.0, 2, 4), (16.0, 4, 6)]);
}

#[test]
fn kinds_of_core_stand_fastest_first() {
    let kinds = |name: &str| {
        machine(name).facts.cpu.core_kinds.iter().map(|kind| format!("{} {}", kind.physical_cores, kind.name)).collect::<Vec<_>>()
    };
    assert_eq!(kinds("mac-m4"), ["4 performance", "6 efficiency"]);
    assert_eq!(kinds("mac-m3-max"), ["12 performance", "4 efficiency"]);
    assert!(machine("mac-m4").facts.cpu.features.contains("sme2") && !machine("mac-m3-max").facts.cpu.features.contains("sme"));
}

#[test]
fn the_gpu_has_its_working_set_of_the_hosts_memory() {
    let mac = machine("mac-m4");
    let gpu = &mac.facts.gpus[0];
    assert_eq!((gpu.kind, gpu.vendor, gpu.unified_memory), (GpuKind::Integrated, GpuVendor::Apple, true));
    assert_eq!((gpu.multiprocessors.get(), gpu.architecture.value().map(String::as_str)), (Some(10), Some("apple9")));
    assert_eq!((gpu.memory_total.get(), gpu.largest_buffer.get()), (Some(Bytes::from_mib(25_559)), Some(Bytes::new(20_100_448_256))));
    // Never more than the host has left.
    for name in ["mac-m4", "mac-m3-max", "mac-m1-pro-binned", "mac-m3-ultra", "mac-rosetta-vm"] {
        let mac = machine(name);
        assert!(mac.free.gpu_memory[0].high() <= mac.facts.gpus[0].memory_total.value(), "{name}");
        assert!(mac.free.gpu_memory[0].get() <= mac.free.memory.get(), "{name}");
        assert_eq!(mac.limits.visible_gpus, [0], "{name}");
    }
    assert_eq!(mac.facts.npus.len(), 1);
}

#[test]
fn what_slows_a_mac_is_told() {
    let max = machine("mac-m3-max").conditions;
    assert_eq!((max.power.get(), max.power_profile.value().map(String::as_str)), (Some(PowerSource::Battery(64)), Some("power-saver")));
    assert_eq!(machine("mac-m1-pro-binned").conditions.cpu_throttled.get(), Some(true));
    assert_eq!(machine("mac-m4").conditions.power.get(), Some(PowerSource::Mains));
}

#[test]
fn a_translated_program_sees_the_real_processor() {
    let mac = machine("mac-rosetta-vm");
    assert_eq!(mac.facts.platform.arch, "aarch64");
    assert_eq!(mac.facts.platform.inside, ["virtual machine", "rosetta"]);
    assert!(mac.warnings[0].contains("Rosetta"));
    assert!(mac.facts.cpu.features.contains("dotprod"));
    assert!(matches!(mac.facts.gpus[0].multiprocessors, Known::Unknown { .. }) && mac.facts.npus.is_empty());
}
