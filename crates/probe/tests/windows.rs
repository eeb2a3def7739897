//! Machines under Windows: what their recordings must give beside the snapshots.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use probe::{Recording, detect};
use spec::Bytes;
use spec::machine::{GpuKind, Machine, PowerSource};

fn machine(name: &str) -> Machine {
    let path = format!("{}/tests/machines/{name}.json", env!("CARGO_MANIFEST_DIR"));
    detect(&Recording::parse(&std::fs::read_to_string(path).unwrap()).unwrap()).unwrap()
}

fn kinds(machine: &Machine) -> Vec<String> {
    machine.facts.cpu.core_kinds.iter().map(|kind| format!("{} {} on {}", kind.physical_cores, kind.name, kind.cpus.len())).collect()
}

#[test]
fn kinds_of_core_are_the_classes_of_efficiency() {
    let desktop = machine("windows-13700k-4090");
    assert_eq!(kinds(&desktop), ["8 performance on 16", "8 efficiency on 8"]);
    assert_eq!((desktop.facts.cpu.physical_cores.get(), desktop.effective_cpus(), desktop.effective_cores()), (Some(16), 24, 16));
    assert!(desktop.facts.cpu.features.contains("avx2") && !desktop.facts.cpu.features.contains("avx512f"));
    assert_eq!(kinds(&machine("windows-laptop")), ["6 performance on 12", "8 efficiency on 8", "2 low-power on 2"]);
}

#[test]
fn a_gpu_that_two_interfaces_name_is_one() {
    let desktop = machine("windows-13700k-4090");
    let kinds: Vec<GpuKind> = desktop.facts.gpus.iter().map(|gpu| gpu.kind).collect();
    assert_eq!(kinds, [GpuKind::Discrete, GpuKind::Integrated, GpuKind::Software]);
    let card = &desktop.facts.gpus[0];
    assert_eq!((card.compute_capability.get(), card.memory_total.get()), (Some((8, 9)), Some(Bytes::new(25_757_220_864))));
    assert_eq!(card.shared_memory.get(), Some(Bytes::new(34_271_000_000)));
    // The software renderer is reported and not used.
    assert_eq!(desktop.limits.visible_gpus, [0, 1]);
    assert!(desktop.facts.gpus[1].unified_memory);
    assert!(desktop.free.gpu_memory[1].get() <= desktop.free.memory.get());
}

#[test]
fn more_than_64_cpus_are_counted_through() {
    let newer = machine("windows-7995wx-win11");
    assert_eq!((newer.facts.cpu.logical_cpus.get(), newer.effective_cpus(), newer.effective_cores()), (Some(192), 192, 96));
    assert_eq!(
        newer.facts.cpu.caches.iter().map(|cache| (cache.level, cache.instances)).collect::<Vec<_>>(),
        [(1, 96), (1, 96), (2, 96), (3, 12)]
    );
    // Before Windows Server 2022 a process stays in the group that it was started in.
    let older = machine("windows-7995wx-win10");
    assert_eq!((older.effective_cpus(), older.effective_cores()), (64, 32));
    assert_eq!(older.limits.allowed_cpus.value().unwrap().first(), Some(&64));
}

#[test]
fn a_laptop_on_its_battery() {
    let laptop = machine("windows-laptop");
    assert_eq!(laptop.conditions.power.get(), Some(PowerSource::Battery(38)));
    assert_eq!(laptop.conditions.power_profile.value().map(String::as_str), Some("power-saver"));
    assert_eq!(laptop.facts.npus[0].name, "Intel(R) AI Boost");
    // NVIDIA's library is late, and DXGI is not.
    let card = laptop.facts.gpus.iter().position(|gpu| gpu.name.value().is_some_and(|name| name.contains("4060"))).unwrap();
    assert_eq!(laptop.free.gpu_memory[card].get(), Some(Bytes::new(7_400_000_000)));
    // What Windows has promised leaves less than what is free.
    assert_eq!(laptop.effective_memory_available().get(), Some(Bytes::new(14_000_000_000)));
    assert_eq!(laptop.effective_memory_with_files(), laptop.free.memory);
}

#[test]
fn a_job_object_limits_memory_and_time() {
    let job = machine("windows-job");
    assert_eq!(job.effective_memory_total().get(), Some(Bytes::from_gib(4)));
    assert_eq!(job.effective_memory_available().get(), Some(Bytes::from_gib(3)));
    assert_eq!((job.limits.cpu_quota.get(), job.effective_cpus(), job.effective_cores()), (Some(2.0), 2, 2));
    assert_eq!(job.limits.allowed_cpus.value().unwrap().len(), 4);
    assert_eq!(job.facts.platform.inside, ["hyper-v", "windows container"]);
    assert!(job.facts.gpus.is_empty());
}
