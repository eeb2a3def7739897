//! Detection over the files of real GPUs, as another project captured them (`../shared/data/hardware/captures/lact-gpu`), against
//! the figures that are noted beside them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod foreign;

use foreign::Tree;
use probe::detect;
use spec::machine::{GpuKind, GpuVendor, PcieLink};
use spec::{Bytes, Known, Machine};
use std::path::{Path, PathBuf};

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/hardware");

/// The machine in a capture.
fn tree(archive: &Path) -> Tree {
    foreign::read(&std::fs::read(archive).unwrap()).unwrap()
}

/// A row of the table: id, archive, bytes of memory, bytes of the host's that it may map, note as JSON.
type Row = (String, PathBuf, Option<u64>, Option<u64>, serde_json::Value);

fn rows() -> Option<Vec<Row>> {
    let table = Path::new(CAPTURES).join("captures.csv");
    let mut reader = csv::Reader::from_path(table).ok()?;
    let headers = reader.headers().unwrap().clone();
    let place = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (id, corpus, memory, memory_note, input, note) =
        (place("id"), place("corpus"), place("memory_bytes"), place("memory_note"), place("input"), place("note"));
    let rows = reader.records().map(Result::unwrap).filter(|row| &row[corpus] == "lact-gpu").map(|row| {
        let gtt = row[memory_note].split("gtt=").nth(1).and_then(|text| text.parse().ok());
        let archive = Path::new(CAPTURES).join("captures").join(&row[input]);
        (row[id].to_owned(), archive, row[memory].parse().ok(), gtt, serde_json::from_str(&row[note]).unwrap())
    });
    Some(rows.collect())
}

fn link(note: &serde_json::Value, which: &str) -> Option<PcieLink> {
    let speed = note["link"][format!("{which}_speed")].as_str()?;
    let lanes = note["link"][format!("{which}_width")].as_str()?.parse().unwrap();
    let generation = ["2.5", "5.0", "8.0", "16.0", "32.0"].iter().position(|rate| speed.starts_with(rate)).unwrap();
    Some(PcieLink { generation: u32::try_from(generation).unwrap() + 1, lanes })
}

fn check(id: &str, machine: &Machine, memory: Option<u64>, gtt: Option<u64>, note: &serde_json::Value) {
    let text = common::render(machine);
    assert_eq!(machine.facts.gpus.len(), 1, "{id}: {text}");
    let (gpu, now) = (&machine.facts.gpus[0], &machine.conditions.gpus[0]);
    assert_eq!(gpu.pci_id.value().unwrap().to_uppercase(), note["pci_id"].as_str().unwrap().to_uppercase(), "{id}");
    assert_eq!(gpu.driver.value().map(String::as_str), note["driver"].as_str(), "{id}: {text}");
    assert_eq!(gpu.shared_memory.get().filter(|_| gpu.vendor == GpuVendor::Amd).map(Bytes::get), gtt, "{id}: {text}");
    if gpu.vendor != GpuVendor::Intel {
        let own = match gpu.kind {
            GpuKind::Integrated => gpu.memory_total.get().map(|all| all.saturating_sub(gpu.shared_memory.get().unwrap())),
            _ => gpu.memory_total.get(),
        };
        assert_eq!(own.map(Bytes::get), memory, "{id}: {text}");
    }
    if let (Some(free), Some(total)) = (machine.free.gpu_memory[0].get(), gpu.memory_total.get()) {
        assert!(free <= total, "{id}: {text}");
    }
    if gpu.kind == GpuKind::Discrete {
        assert_eq!(gpu.pcie.get(), link(note, "max"), "{id}: {text}");
        assert_eq!(now.link.get(), link(note, "current"), "{id}: {text}");
    } else {
        assert!(gpu.unified_memory && gpu.pcie.is_unknown(), "{id}: {text}");
    }
    assert!(!now.asleep);
}

#[test]
fn every_captured_gpu_is_what_its_driver_says() {
    let Some(rows) = rows() else {
        println!("SKIPPED: no captures beside the workspace");
        return;
    };
    assert_eq!(rows.len(), 15);
    let mut all = String::new();
    for (id, archive, memory, gtt, note) in rows {
        let machine = detect(&tree(&archive)).unwrap();
        check(&id, &machine, memory, gtt, &note);
        let text = common::render(&machine);
        let gpu = text.lines().skip_while(|line| !line.starts_with("gpu")).take_while(|line| !line.starts_with("allowed"));
        // The number of one device is nobody's business.
        let gpus: Vec<&str> = gpu.filter(|line| !line.starts_with("  uuid")).collect();
        all += &format!("== {id}, visible {:?}\n{}\n", machine.limits.visible_gpus, gpus.join("\n"));
    }
    insta::assert_snapshot!("gpu-captures", all);
}

#[test]
fn windows_and_processors_of_captures() {
    let Some(rows) = rows() else {
        println!("SKIPPED: no captures beside the workspace");
        return;
    };
    let machine = |name: &str| detect(&tree(&rows.iter().find(|(id, ..)| id.ends_with(name)).unwrap().1)).unwrap();
    // Without Resizable BAR the host reaches 256 MiB of the memory.
    for name in ["rx580", "vega56", "r7-240"] {
        assert_eq!(machine(name).facts.gpus[0].host_visible.get(), Some(Bytes::from_mib(256)));
    }
    let big = machine("rx6900xt");
    assert_eq!(big.facts.gpus[0].host_visible.get(), big.facts.gpus[0].memory_total.get());
    let strix = machine("strixpoint");
    let gpu = &strix.facts.gpus[0];
    assert_eq!((gpu.architecture.value().map(String::as_str), gpu.multiprocessors.get()), (Some("gfx1150"), Some(12)));
    assert_eq!(gpu.memory_bandwidth, Known::unknown("that of the host's memory"));
}
