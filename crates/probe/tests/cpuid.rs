//! What CPUID alone says, against dumps that hwloc and libcpuid publish with what they hold: all of hwloc's, and of libcpuid's the
//! processors with AVX2. Runs where `../shared` stands beside the workspace.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod foreign;

use probe::{Recording, capture, detect};
use spec::Machine;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Figures = BTreeMap<&'static str, String>;

/// Where detection gives another figure than the dump's own project: the dump, the figure, ours, and why.
const EXPLAINED: &[(&str, &str, &str, &str)] = &[
    ("hwloc-x86/AMD-15h-Bulldozer-4xOpteron-6272", "cores", "32", MODULES),
    ("hwloc-x86/AMD-15h-Piledriver-4xOpteron-6348", "cores", "24", MODULES),
    ("libcpuid/intel/x86-64/golden-cove/12th-gen-intel-core-i7-12800hx", "L3", "26214400x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/golden-cove/intel-pentium-gold-8505", "L3", "8388608x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/lion-cove/intel-core-ultra-5-245k", "L3", "25165824x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/lion-cove/intel-core-ultra-7-265k", "L3", "31457280x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/lion-cove/intel-core-ultra-7-265u", "L3", "12582912x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/raptor-cove/13th-gen-intel-core-i5-13500", "L3", "25165824x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/raptor-cove/13th-gen-intel-core-i7-13700k", "L3", "31457280x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/raptor-cove/13th-gen-intel-core-i9-13900kf", "L3", "37748736x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/raptor-cove/13th-gen-intel-coret-i7-1370p", "L3", "25165824x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/raptor-cove/intel-core-i7-14700k", "L3", "34603008x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/raptor-cove/intel-core-i9-14900k", "L3", "37748736x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/redwood-cove/intel-core-ultra-5-125h", "L3", "18874368x1", BOTH_KINDS),
    ("libcpuid/intel/x86-64/redwood-cove/intel-core-ultra-7-155h", "L3", "25165824x1", BOTH_KINDS),
    (
        "libcpuid/amd/zen3/amd-ryzen-7-5800x3d-8-core-processor",
        "threads",
        "16",
        "the dump has 48 headings, 32 of them without registers below; libcpuid counts headings",
    ),
    (
        "libcpuid/intel/x86-64/haswell/intel-core-i7-4500u-cpu",
        "cores",
        "2",
        "the registers say two threads a core and four a package, and the data sheet two cores; libcpuid takes the four threads for cores",
    ),
];

const MODULES: &str =
    "ambiguous: two integer cores of a Bulldozer module share its floating-point unit, and the kernel calls them siblings";

const BOTH_KINDS: &str = "one cache that both kinds of core share; libcpuid lists it once for each";

/// libcpuid's names of extensions and ours.
const NAMES: [(&str, &str); 7] = [
    ("avx2", "avx2"),
    ("f16c", "f16c"),
    ("fma3", "fma"),
    ("avx512f", "avx512f"),
    ("avx512bw", "avx512bw"),
    ("avx512vbmi", "avx512vbmi"),
    ("avx512vnni", "avx512_vnni"),
];

struct Row {
    id: String,
    field: BTreeMap<String, String>,
    machine: Machine,
    /// One CPU of what may be many.
    alone: bool,
}

fn rows(folder: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in csv::Reader::from_path(folder.join("captures.csv")).unwrap().into_deserialize() {
        let field: BTreeMap<String, String> = line.unwrap();
        if field["kind"] != "cpuid" || field["corpus"] == "libcpuid" && !field["note"].contains("avx2") {
            continue;
        }
        let tree = foreign::read(&std::fs::read(folder.join("captures").join(&field["input"])).unwrap()).unwrap();
        let cpus: BTreeSet<u32> = tree.cpuid.keys().map(|(cpu, ..)| *cpu).collect();
        rows.push(Row { id: field["id"].clone(), machine: detect(&tree).unwrap(), alone: cpus.len() == 1, field });
    }
    rows
}

fn expected(row: &Row) -> Figures {
    let mut expected: Figures = ["cores", "threads", "packages"].map(|name| (name, row.field[name].clone())).into();
    for name in ["L1d", "L1i", "L2", "L3"] {
        let Ok(serde_json::Value::Object(sizes)) = serde_json::from_str(&row.field[name]) else { continue };
        let sizes: BTreeMap<u64, u64> = sizes.iter().map(|(size, count)| (size.parse().unwrap(), count.as_u64().unwrap())).collect();
        expected.insert(name, sizes.iter().map(|(size, count)| format!("{size}x{count}")).collect::<Vec<_>>().join(" "));
    }
    if row.id.starts_with("libcpuid") {
        let flags: BTreeSet<&str> = row.field["note"].rsplit_once("flags: ").unwrap().1.split(' ').collect();
        let ours = NAMES.iter().filter(|(theirs, _)| flags.contains(theirs)).map(|(_, ours)| *ours);
        expected.insert("features", ours.collect::<Vec<_>>().join(" "));
        expected.insert("model", letters(&row.field["model"]));
    }
    expected.insert("kinds", kinds(&row.field["cpukinds"]));
    expected.retain(|_, value| !value.is_empty());
    expected
}

/// CPUs of each kind, fastest first: libcpuid writes `purpose` and `logical`, hwloc `pus` and `eff`.
fn kinds(json: &str) -> String {
    let Ok(serde_json::Value::Array(mut kinds)) = serde_json::from_str(json) else { return String::new() };
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind["eff"].as_str().and_then(|text| text.parse::<u32>().ok())));
    let count = |kind: &serde_json::Value| kind["pus"].as_u64().unwrap_or_else(|| kind["logical"].as_str().unwrap().parse().unwrap());
    kinds.iter().map(|kind| count(kind).to_string()).collect::<Vec<_>>().join(" ")
}

/// The names of libcpuid's files are the brand without signs, frequency and trade marks.
fn letters(name: &str) -> String {
    let name = name.to_lowercase().replace("(r)", " ").replace("(tm)", " ").replace("coret", "core").replace("w/", "with");
    let name = name.split('@').next().unwrap();
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn found(machine: &Machine) -> Figures {
    let cpu = &machine.facts.cpu;
    let text = |number: Option<u32>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let cache = |level: u8, kind: &str| {
        let fits = |cache: &&spec::machine::Cache| cache.level == level && (cache.kind == kind || cache.kind == "unified");
        cpu.caches.iter().filter(fits).map(|cache| format!("{}x{}", cache.size.get(), cache.instances)).collect::<Vec<_>>().join(" ")
    };
    let features = NAMES.iter().filter(|(_, ours)| cpu.features.contains(*ours)).map(|(_, ours)| *ours);
    BTreeMap::from([
        ("model", cpu.model.value().map_or_else(|| "unknown".to_owned(), |name| letters(name))),
        ("cores", text(cpu.physical_cores.get())),
        ("threads", text(cpu.logical_cpus.get())),
        ("packages", text(cpu.sockets.get())),
        ("L1d", cache(1, "data")),
        ("L1i", cache(1, "instruction")),
        ("L2", cache(2, "data")),
        ("L3", cache(3, "data")),
        ("features", features.collect::<Vec<_>>().join(" ")),
        ("kinds", cpu.core_kinds.iter().map(|kind| kind.cpus.len().to_string()).collect::<Vec<_>>().join(" ")),
    ])
}

#[test]
fn dumps_of_real_processors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hardware");
    if !folder.is_dir() {
        println!("SKIPPED: no ../shared/data/hardware beside the workspace: the dumps of CPUID were not compared");
        return;
    }
    let rows = rows(&folder);
    let mut score: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    let (mut unexplained, mut used) = (Vec::new(), Vec::new());
    for row in &rows {
        let ours = found(&row.machine);
        let group = match (row.id.starts_with("hwloc"), row.alone) {
            (true, _) => "hwloc, all CPUs",
            (_, true) => "libcpuid, one CPU",
            _ => "libcpuid, all CPUs",
        };
        for (name, expected) in expected(row) {
            let (right, all) = score.entry((name, group)).or_default();
            *all += 1;
            let value = &ours[name];
            if *value == expected {
                *right += 1;
                continue;
            }
            match EXPLAINED.iter().find(|(id, figure, ours, _)| *id == row.id && *figure == name && ours == value) {
                Some(explained) => {
                    used.push(explained);
                    println!("{}: {name} {value}, there {expected}: {}", row.id, explained.3);
                }
                None => unexplained.push(format!("{} {name} {value}, expected {expected}", row.id)),
            }
        }
    }
    for ((name, group), (right, all)) in &score {
        println!("{name}, {group}: {right} of {all}");
    }
    assert!(rows.len() >= 109, "{}", rows.len());
    assert!(unexplained.is_empty(), "{} not explained:\n{}", unexplained.len(), unexplained.join("\n"));
    assert_eq!(used.len(), EXPLAINED.len(), "an explained difference is gone: take it out of the list");
}

#[test]
fn one_cpu_is_an_estimate_of_the_machine() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hardware");
    if !folder.is_dir() {
        println!("SKIPPED: no ../shared/data/hardware beside the workspace");
        return;
    }
    for row in rows(&folder).iter().filter(|row| row.alone) {
        let cpu = &row.machine.facts.cpu;
        assert!(!cpu.physical_cores.is_exact() && !cpu.logical_cpus.is_exact() && cpu.sockets.is_unknown(), "{}", row.id);
        assert!(cpu.logical_cpus.high() > cpu.logical_cpus.low(), "{}", row.id);
    }
}

#[test]
fn what_is_no_capture_is_named() {
    let error = |bytes: &[u8]| foreign::read(bytes).err().map(|error| error.to_string()).unwrap();
    let recording = error(br#"{"schema": "loadmaster.recording/1", "answers": {}}"#);
    assert!(recording.starts_with("recognised as a recording, which is not read; read it with: loadmaster detect"), "{recording}");
    assert!(error(br#"{"cpu": {}}"#).starts_with("JSON without cards, and no capture that is known here"));
    assert!(error(b"{").starts_with("broken JSON"));
    assert!(error(b"MemTotal: 1 kB").starts_with("a text without registers of CPUID, and no capture that is known here"));
    assert!(error(b"GGUF\0\0").starts_with("a binary file"));
    assert!(error(b"BZh9 and no more").starts_with("an archive that cannot be unpacked"));
    assert!(error(b"").starts_with("a text without"));
}

#[test]
fn every_capture_is_recognised_by_what_it_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hardware");
    if !folder.is_dir() {
        println!("SKIPPED: no ../shared/data/hardware beside the workspace");
        return;
    }
    let mut read = 0;
    for line in csv::Reader::from_path(folder.join("captures.csv")).unwrap().into_deserialize() {
        let field: BTreeMap<String, String> = line.unwrap();
        let tree = foreign::read(&std::fs::read(folder.join("captures").join(&field["input"])).unwrap());
        let machine = tree.map_err(|error| error.to_string()).and_then(|tree| detect(&tree).map_err(|error| error.to_string()));
        assert!(machine.is_ok(), "{}: {}", field["id"], machine.unwrap_err());
        // Of every kind some, as `capture --recording` writes them.
        if read % 16 == 0 {
            let tree = foreign::read(&std::fs::read(folder.join("captures").join(&field["input"])).unwrap()).unwrap();
            let replayed = detect(&Recording::parse(&capture(&tree).to_text()).unwrap()).unwrap();
            let machine = machine.unwrap();
            assert_eq!((replayed.facts.cpu, replayed.facts.memory), (machine.facts.cpu, machine.facts.memory), "{}", field["id"]);
            assert_eq!(replayed.facts.gpus.len(), machine.facts.gpus.len(), "{}", field["id"]);
        }
        read += 1;
    }
    assert_eq!(read, 341);
}
