//! Recorded machines, each with the machine that detection makes of it, to be read by people.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use probe::{Answer, Host, Question, Recording, Refusal, detect, detect_fully};
use spec::Bytes;
use spec::machine::GpuKind;
use std::cell::RefCell;

fn path(name: &str) -> String {
    format!("{}/tests/machines/{name}.json", env!("CARGO_MANIFEST_DIR"))
}

/// A recording that notes what it is asked.
struct Asked {
    recording: Recording,
    asked: RefCell<Vec<String>>,
}

impl Host for Asked {
    fn origin(&self) -> String {
        self.recording.origin()
    }
    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        self.asked.borrow_mut().push(question.to_string());
        self.recording.ask(question)
    }
}

fn fully(name: &str) -> spec::Machine {
    let text = std::fs::read_to_string(path(name)).unwrap();
    detect_fully(&Recording::parse(&text).unwrap().with_origin(name)).unwrap()
}

fn names() -> Vec<String> {
    let folder = format!("{}/tests/machines", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    names
}

fn machine(name: &str) -> spec::Machine {
    let path = path(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let recording = Recording::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(recording.description.starts_with("synthetic: "), "{path}");
    detect(&recording.with_origin(name)).unwrap()
}

#[test]
fn every_recording_gives_the_machine_beside_it() {
    for name in names() {
        insta::assert_snapshot!(name.clone(), common::render(&machine(&name)));
    }
}

#[test]
fn asked_fully_some_tell_more() {
    for name in ["lavapipe", "laptop-asleep", "arc-b580"] {
        insta::assert_snapshot!(format!("{name}-fully"), common::render(&fully(name)));
    }
    let laptop = fully("laptop-asleep");
    assert_eq!(laptop.facts.gpus[0].memory_total.get(), Some(Bytes::from_mib(8188)));
    let software = fully("lavapipe");
    assert_eq!((software.facts.gpus.len(), software.limits.visible_gpus.len()), (1, 0));
    assert_eq!(software.facts.gpus[0].kind, GpuKind::Software);
}

#[test]
fn a_gpu_that_sleeps_is_not_asked() {
    let recording = Recording::parse(&std::fs::read_to_string(path("laptop-asleep")).unwrap()).unwrap();
    let host = Asked { recording, asked: RefCell::default() };
    let laptop = detect(&host).unwrap();
    assert!(laptop.conditions.gpus[0].asleep && laptop.free.gpu_memory[0].is_unknown());
    assert!(laptop.facts.gpus[0].name.value().unwrap().contains("4060"));
    // Files that the kernel answers from memory.
    let harmless = ["modalias", "uevent", "power/runtime_status", "numa_node", "information", "numa_status"];
    for question in host.asked.borrow().iter().filter(|question| question.contains("0000:01:00.0")) {
        assert!(harmless.iter().any(|file| question.ends_with(file)), "{question}");
    }
    assert!(!host.asked.borrow().iter().any(|question| question.starts_with("nvml") || question == "vulkan"));
}

#[test]
fn every_gpu_stands_once_and_nothing_is_free_that_is_not_there() {
    for name in names() {
        for machine in [machine(&name), fully(&name)] {
            let gpus = &machine.facts.gpus;
            assert_eq!(gpus.len(), machine.free.gpu_memory.len(), "{name}");
            assert_eq!(gpus.len(), machine.conditions.gpus.len(), "{name}");
            for (index, (gpu, free)) in gpus.iter().zip(&machine.free.gpu_memory).enumerate() {
                if let (Some(total), Some(free)) = (gpu.memory_total.get(), free.get()) {
                    assert!(free <= total, "{name}: {free} of {total}");
                }
                let twin = |other: &spec::machine::Gpu| {
                    other.slice.is_none()
                        && gpu.slice.is_none()
                        && !gpu.pci_address.is_unknown()
                        && other.pci_address.value() == gpu.pci_address.value()
                };
                assert!(!gpus[..index].iter().any(twin), "{name}: {index}");
                assert!(gpu.peers.iter().all(|link| link.peer < gpus.len() && link.peer != index), "{name}");
                assert!(gpu.kind != GpuKind::Software || !machine.limits.visible_gpus.contains(&index), "{name}");
            }
            let mut visible = machine.limits.visible_gpus.clone();
            visible.sort_unstable();
            visible.dedup();
            assert_eq!(visible.len(), machine.limits.visible_gpus.len(), "{name}");
        }
    }
}

#[test]
fn a_part_is_used_and_its_whole_is_not() {
    let mig = machine("mig");
    let visible: Vec<_> = mig.usable_gpus().map(|(_, gpu, free)| (gpu.slice.as_ref().unwrap().profile.clone(), free.get())).collect();
    assert_eq!(visible, [("1g.10gb".to_owned(), Some(Bytes::from_mib(9700)))]);
    assert!(mig.facts.gpus[0].slice.is_none() && mig.facts.gpus[0].memory_total.is_unknown());
    assert!(!mig.facts.gpus[0].unified_memory);
    let split = machine("mi300x");
    assert_eq!(split.limits.visible_gpus, [0, 2]);
    assert_eq!(split.facts.gpus[2].memory_total.get(), Some(Bytes::new(206_141_652_992 / 2)));
}

#[test]
fn carved_out_memory_is_not_the_hosts_and_the_rest_is() {
    let halo = machine("strix-halo");
    let (gpu, free) = (&halo.facts.gpus[0], halo.free.gpu_memory[0].get().unwrap());
    assert!(gpu.unified_memory);
    assert_eq!(gpu.memory_total.get(), Some(Bytes::from_mib(512 + (120 << 10))));
    // Free of the carve-out, and what the host has available, which is less than the GTT has left.
    assert_eq!(free, Bytes::from_mib(212) + halo.free.memory.get().unwrap());
    assert_eq!(halo.facts.npus[0].name, "AMD XDNA (RyzenAI-npu5)");
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
