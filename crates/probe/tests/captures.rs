//! Against captures of real machines that hwloc, util-linux and cpuinfo publish with what they hold: physical cores,
//! threads, packages and NUMA nodes. Runs where `../shared` stands beside the workspace.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod foreign;

use foreign::Tree;
use probe::detect;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The figures of a capture by the names of the columns: physical cores, threads that may be used, packages, NUMA nodes,
/// memory, and each cache as `SIZE x INSTANCES`.
type Figures = BTreeMap<&'static str, String>;

/// Where detection gives another figure than the capture's own project: the capture, the figure, ours, and why.
const EXPLAINED: &[(&str, &str, &str, &str)] = &[
    (
        "hwloc-linux/16em64t-4s2ca2c-cpusetreorder",
        "L1d",
        "16384x16",
        "counts what is inside the cpuset of the capture; ours is the whole machine",
    ),
    ("hwloc-linux/256ppc-8n8s4t", "packages", "unknown", "the hypervisor gives −1 for every package; hwloc takes each core for one"),
    ("hwloc-linux/32amd64-4s2n4c-cgroup2", "L1d", "65536x32", "counts what is inside the cpuset of the capture; ours is the whole machine"),
    ("hwloc-linux/32amd64-4s2n4c-cgroup2", "L2", "524288x32", "counts what is inside the cpuset of the capture; ours is the whole machine"),
    ("hwloc-linux/32amd64-4s2n4c-cgroup2", "L3", "5240832x8", "counts what is inside the cpuset of the capture; ours is the whole machine"),
    (
        "hwloc-linux/32amd64-4s2n4c-cgroup2",
        "memory",
        "135470768128",
        "counts what is inside the cpuset of the capture; ours is the whole machine",
    ),
    ("hwloc-linux/32amd64-4s2n4c-cgroup2", "numa", "8", "counts what is inside the cpuset of the capture; ours is the whole machine"),
    ("hwloc-linux/32amd64-4s2n4c-cgroup2", "packages", "4", "counts what is inside the cpuset of the capture; ours is the whole machine"),
    (
        "hwloc-linux/32em64t-2n8c+dax+nvme+mic+dimms",
        "memory",
        "33624072192",
        "hwloc adds up the nodes, which count pages that the kernel keeps for itself",
    ),
    (
        "hwloc-linux/40intel64-2g2n4c+pcilocality",
        "memory",
        "542134673408",
        "hwloc adds up the nodes, which count pages that the kernel keeps for itself",
    ),
    (
        "hwloc-linux/40intel64-4n10c+pci-conflicts",
        "L3",
        "31457280x4",
        "edited: masks that contradict each other, of which hwloc drops one; the files name four",
    ),
    (
        "hwloc-linux/40intel64-4n10c+pci-conflicts",
        "packages",
        "4",
        "edited: masks that contradict each other, of which hwloc drops one; the files name four",
    ),
    (
        "hwloc-linux/64fake-4n2s2ca2c2t",
        "L2",
        "262144x17",
        "synthetic: every list is that of CPU 0; where it cannot be right ours follows the mask",
    ),
    (
        "hwloc-linux/fakeheteromemtiers",
        "numa",
        "7",
        "the table counted the lines of the distance matrix too; hwloc's own output says 7 nodes",
    ),
    ("hwloc-linux/memorysidecaches", "L3", "28835840x2", "the kernel says 28160K; the text output of hwloc rounds to 28 MiB"),
    ("hwloc-linux/nvidiagpunumanodes-kept", "cores", "4", "effective_cpus of the group is 0-87; hwloc reads the configured 0-175"),
    ("hwloc-linux/nvidiagpunumanodes-kept", "threads", "16", "effective_cpus of the group is 0-87; hwloc reads the configured 0-175"),
    (
        "hwloc-x86+linux/64amd64-4p2n4ca2co",
        "cores",
        "32",
        "ambiguous: two integer cores of a Bulldozer module share its floating-point unit, and the kernel calls them siblings",
    ),
];

struct Row {
    id: String,
    android: bool,
    real: bool,
    input: PathBuf,
    expected: Figures,
}

fn rows(folder: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in csv::Reader::from_path(folder.join("captures.csv")).unwrap().into_deserialize() {
        let field: BTreeMap<String, String> = line.unwrap();
        let kind = field["kind"].as_str();
        if !matches!(kind, "linux-sysfs" | "sysfs+cpuid" | "linux-sysfs(android)") {
            continue;
        }
        let mut expected: Figures = ["cores", "threads", "packages", "numa"].map(|name| (name, field[name].to_owned())).into();
        for name in ["L1d", "L2", "L3"] {
            expected.insert(name, caches(&field[name]));
        }
        // The others are rounded to three digits.
        if field["memory_note"] == "exact" {
            expected.insert("memory", field["memory_bytes"].to_owned());
        }
        expected.retain(|_, value| !value.is_empty());
        rows.push(Row {
            id: field["id"].to_owned(),
            android: kind.ends_with("(android)"),
            real: field["tier"].starts_with("real"),
            input: folder.join("captures").join(&field["input"]),
            expected,
        });
    }
    rows
}

/// `{"32768": 8}` as `32768x8`; nothing where the capture's project does not know the number of instances.
fn caches(json: &str) -> String {
    let Ok(serde_json::Value::Object(sizes)) = serde_json::from_str(json) else { return String::new() };
    let mut sizes: Vec<(u64, u64)> = sizes.iter().filter_map(|(size, count)| Some((size.parse().ok()?, count.as_u64()?))).collect();
    sizes.sort_unstable();
    sizes.iter().map(|(size, count)| format!("{size}x{count}")).collect::<Vec<_>>().join(" ")
}

fn found(tree: &Tree) -> Figures {
    let machine = detect(tree).unwrap();
    let text = |number: Option<u32>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let cache = |level: u8, kind: &str| {
        let fits = |cache: &&spec::machine::Cache| cache.level == level && (cache.kind == kind || cache.kind == "unified");
        let sizes = machine.facts.cpu.caches.iter().filter(fits).map(|cache| format!("{}x{}", cache.size.get(), cache.instances));
        sizes.collect::<Vec<_>>().join(" ")
    };
    BTreeMap::from([
        ("cores", text(machine.limits.allowed_physical_cores.get())),
        ("threads", text(machine.limits.allowed_cpus.value().map(|cpus| u32::try_from(cpus.len()).unwrap()))),
        ("packages", text(machine.facts.cpu.sockets.get())),
        ("numa", machine.facts.numa.iter().filter(|node| !node.of_gpu).count().to_string()),
        ("memory", machine.facts.memory.total.get().map_or_else(|| "unknown".to_owned(), |bytes| bytes.get().to_string())),
        ("L1d", cache(1, "data")),
        ("L2", cache(2, "data")),
        ("L3", cache(3, "data")),
    ])
}

/// Each row with what detection finds and the number of questions it asked, on all cores: unpacking takes seconds.
fn compared(rows: Vec<Row>) -> Vec<(Row, Figures, usize)> {
    let compare = |row: Row| {
        let tree = foreign::read(&std::fs::read(&row.input).unwrap()).unwrap();
        let ours = found(&tree);
        let questions = tree.asked.lock().unwrap().len();
        (row, ours, questions)
    };
    let queue = std::sync::Mutex::new(rows.into_iter());
    let next = || queue.lock().unwrap().next();
    std::thread::scope(|scope| {
        let worker = || std::iter::from_fn(next).map(compare).collect::<Vec<_>>();
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn captures_of_real_machines() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hardware");
    if !folder.is_dir() {
        println!("SKIPPED: no ../shared/data/hardware beside the workspace: the captures of real machines were not compared");
        return;
    }
    let mut score: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    let (mut unexplained, mut used) = (Vec::new(), Vec::new());
    let mut most_questions = (0, String::new());
    for (row, ours, questions) in compared(rows(&folder)) {
        if questions > most_questions.0 {
            most_questions = (questions, row.id.clone());
        }
        for (&name, expected) in &row.expected {
            let ours = &ours[name];
            let (right, all) = score
                .entry((
                    name,
                    if !row.real {
                        "synthetic"
                    } else if row.android {
                        "Android"
                    } else {
                        "Linux"
                    },
                ))
                .or_default();
            *all += 1;
            if ours == expected {
                *right += 1;
                continue;
            }
            match EXPLAINED.iter().find(|(id, figure, value, _)| *id == row.id && *figure == name && value == ours) {
                Some(explained) => {
                    used.push(explained);
                    println!("{}: {name} {ours}, there {expected}: {}", row.id, explained.3);
                }
                None => unexplained.push(format!("{}: {name} {ours}, expected {expected}", row.id)),
            }
        }
    }
    for ((name, group), (right, all)) in &score {
        println!("{name}, {group}: {right} of {all}");
    }
    println!("most questions: {} ({})", most_questions.0, most_questions.1);
    assert!(most_questions.0 < 2500, "detection walks the whole tree: {most_questions:?}");
    assert!(unexplained.is_empty(), "not explained:\n{}", unexplained.join("\n"));
    assert_eq!(used.len(), EXPLAINED.len(), "an explained difference is gone: take it out of the list");
}
