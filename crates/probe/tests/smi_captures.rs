//! What nvidia-smi and rocm-smi printed on real machines, against the figures that are noted beside it
//! (`../shared/data/hardware/captures`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod smi;

use probe::detect;
use serde_json::Value;
use spec::Bytes;
use spec::machine::Gpu;
use std::path::Path;

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/hardware");

struct Row {
    id: String,
    file: String,
    /// Bytes of each whole GPU.
    memory: Vec<u64>,
    note: Value,
}

fn rows() -> Option<Vec<Row>> {
    let mut reader = csv::Reader::from_path(Path::new(CAPTURES).join("captures.csv")).ok()?;
    let headers = reader.headers().unwrap().clone();
    let place = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (id, corpus, memory, input, note) = (place("id"), place("corpus"), place("memory_bytes"), place("input"), place("note"));
    let rows = reader.records().map(Result::unwrap).filter(|row| matches!(&row[corpus], "nvidia-smi" | "rocm-smi"));
    Some(
        rows.map(|row| Row {
            id: row[id].to_owned(),
            file: row[input].to_owned(),
            memory: serde_json::from_str(&row[memory]).unwrap(),
            // Cut off in the table where it is long.
            note: serde_json::from_str(&row[note]).unwrap_or_default(),
        })
        .collect(),
    )
}

/// The figures of a GPU that nvidia-smi's own output was noted with.
fn check(id: &str, gpu: &Gpu, now: Option<spec::machine::PcieLink>, note: &Value) {
    let says = |name: &str| note[name].as_str().unwrap_or_default();
    assert_eq!(gpu.name.value().unwrap(), says("name"), "{id}");
    // Device and vendor in one number; captures may hide the device.
    let pci = says("pci_id").to_ascii_lowercase();
    if let Some(own) = gpu.pci_id.value().filter(|_| !pci.starts_with("0000")) {
        assert_eq!(*own, format!("{}:{}", &pci[4..], &pci[..4]), "{id}");
    }
    let (generation, width) = (says("pcie_gen"), says("width").replace('x', ""));
    let pair = |text: &str| text.split('/').map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>();
    let (now, best) = (now.unwrap(), gpu.pcie.get().unwrap());
    assert_eq!(vec![now.generation, best.generation], pair(generation), "{id}");
    assert_eq!(vec![now.lanes, best.lanes], pair(&width), "{id}");
}

#[test]
fn the_makers_programs_say_what_detection_says() {
    let Some(rows) = rows() else {
        println!("SKIPPED: no captures beside the workspace");
        return;
    };
    assert_eq!(rows.len(), 13);
    for Row { id, file, memory, note } in rows {
        let text = std::fs::read(Path::new(CAPTURES).join("captures").join(file)).unwrap();
        let machine = detect(&smi::read(&String::from_utf8_lossy(&text)).unwrap()).unwrap();
        let (whole, parts): (Vec<_>, Vec<_>) = machine.facts.gpus.iter().enumerate().partition(|(_, gpu)| gpu.slice.is_none());
        let totals = |gpus: &[(usize, &Gpu)]| gpus.iter().map(|(_, gpu)| gpu.memory_total.get().map_or(0, Bytes::get)).collect::<Vec<_>>();
        assert_eq!(totals(&whole), memory, "{id}");
        for (index, _) in &whole {
            let (free, total) = (machine.free.gpu_memory[*index].get().unwrap(), machine.facts.gpus[*index].memory_total.get().unwrap());
            assert!(free <= total, "{id}");
        }
        let products: Vec<&str> = note["product"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (product, (_, gpu)) in products.iter().zip(&whole) {
            assert_eq!(gpu.name.value().map(String::as_str), Some(*product), "{id}");
        }
        for (gpu_note, (index, gpu)) in note["gpus"].as_array().into_iter().flatten().zip(&whole) {
            check(&id, gpu, machine.conditions.gpus[*index].link.get(), gpu_note);
            let noted: Vec<u64> = gpu_note["mig_devices"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|part| part["total"].as_str().unwrap().trim_end_matches(" MiB").parse::<u64>().unwrap() << 20)
                .collect();
            assert_eq!(totals(&parts), noted, "{id}");
            // One part at most is used, and the whole is not beside it.
            assert_eq!(machine.limits.visible_gpus, [usize::from(!noted.is_empty())], "{id}");
        }
    }
}

#[test]
fn other_texts_are_refused() {
    for text in ["", "{}", "{\"card0\": {}}", "hello", "<nvidia_smi_log", "<nvidia_smi_log></a></b>", "{\"card0\": 7"] {
        assert!(smi::read(text).is_err(), "{text}");
    }
    let empty = smi::read("==NVSMI LOG==\n\nDriver Version : 1\n").unwrap();
    assert!(detect(&empty).unwrap().facts.gpus.is_empty());
}
