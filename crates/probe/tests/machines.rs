//! Recorded machines, each with the machine that detection makes of it, to be read by people.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use probe::{Recording, detect};
use spec::Bytes;

fn machine(name: &str) -> spec::Machine {
    let path = format!("{}/tests/machines/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let recording = Recording::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(recording.description.starts_with("synthetic: "), "{path}");
    detect(&recording.with_origin(name)).unwrap()
}

#[test]
fn every_recording_gives_the_machine_beside_it() {
    let folder = format!("{}/tests/machines", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for name in names.iter().filter_map(|name| name.strip_suffix(".json")) {
        insta::assert_snapshot!(name, common::render(&machine(name)));
    }
}

#[test]
fn a_pod_has_what_its_parent_grants() {
    let pod = machine("k8s-pod-v2");
    assert_eq!((pod.effective_cpus(), pod.effective_cores()), (1, 1));
    assert_eq!(pod.effective_memory_total().get(), Some(Bytes::from_gib(4)));
    // 4 GiB − 1.5 GiB used + 1 GiB of page cache.
    assert_eq!(pod.effective_memory_available().get(), Some(Bytes::from_mib(3584)));
}

#[test]
fn threads_are_cores_within_affinity_and_quota() {
    let docker = machine("docker-v1");
    assert_eq!((docker.effective_cpus(), docker.effective_cores()), (2, 2));
    assert_eq!(machine("hybrid-cgroups").effective_cores(), 2);
    assert_eq!(machine("xeon-2s-snc").effective_cores(), 112);
    assert_eq!(machine("alder-lake").effective_cores(), 10);
    assert_eq!(machine("locked-down").effective_cpus(), 2);
}

#[test]
fn memory_of_the_host_is_counted_once() {
    let spark = machine("gb10");
    assert!(spark.facts.gpus[0].unified_memory);
    assert_eq!(spark.facts.gpus[0].memory_total.get(), spark.facts.memory.total.get());
    let xeon = machine("xeon-2s-snc");
    assert_eq!(xeon.facts.numa.len(), 5);
    assert!(xeon.facts.numa[4].cpus.is_empty());
}

#[test]
fn unknown_stays_unknown() {
    let locked = machine("locked-down");
    assert!(locked.facts.memory.total.is_unknown() && locked.free.memory.is_unknown());
    assert!(locked.facts.cpu.physical_cores.is_unknown());
    let hangs = machine("driver-hangs");
    assert_eq!(hangs.facts.gpus.len(), 1);
    assert!(hangs.free.gpu_memory[0].is_unknown());
}

#[test]
fn a_phone_is_read_by_name_where_folders_are_closed() {
    let phone = machine("android-phone");
    assert_eq!((phone.facts.cpu.physical_cores.get(), phone.facts.cpu.sockets.get(), phone.effective_cpus()), (Some(8), Some(1), 8));
    let kinds: Vec<(&str, u32)> = phone.facts.cpu.core_kinds.iter().map(|kind| (kind.name.as_str(), kind.physical_cores)).collect();
    assert_eq!(kinds, [("Cortex-X4", 1), ("Cortex-A720", 5), ("Cortex-A520", 2)]);
    let gpu = &phone.facts.gpus[0];
    assert_eq!((gpu.name.value().map(String::as_str), gpu.unified_memory), (Some("Adreno750v2"), true));
    assert_eq!(gpu.memory_total.get(), phone.facts.memory.total.get());
    assert!(phone.conditions.power.is_unknown());
}
