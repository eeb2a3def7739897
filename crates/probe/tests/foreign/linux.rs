//! Trees of sysfs and procfs, below `NAME/` or `NAME/fsroot/` of an archive: hwloc's, lscpu's and cpuinfo's.

use super::archive::{Entry, Kind};
use super::{Tree, cpuid};

/// True for a path that only such trees have.
pub fn is_part(path: &str) -> bool {
    path.contains("/sys/devices/system/") || path.ends_with("/proc/cpuinfo")
}

/// The machine in an archive, with the registers where hwloc put them beside the tree.
pub fn tree(entries: Vec<Entry>) -> Tree {
    let mut tree = Tree::default();
    cpuid::add_files(&mut tree, &entries);
    for entry in entries {
        let Some((_, below)) = entry.path.split_once('/') else { continue };
        let path = format!("/{}", below.strip_prefix("fsroot/").unwrap_or(below));
        tree.add(&path);
        match entry.kind {
            Kind::File(bytes) => {
                tree.files.insert(path, bytes);
            }
            Kind::Link(target) => {
                tree.links.insert(path, target);
            }
            Kind::Folder => {
                tree.folders.entry(path).or_default();
            }
        }
    }
    let cpuinfo = text(&tree, "/proc/cpuinfo").unwrap_or_default();
    let android = tree.files.keys().any(|path| path.starts_with("/system/") || path.starts_with("/sys/class/kgsl"));
    tree.os = if android { "android" } else { "linux" }.to_owned();
    tree.arch = architecture(&cpuinfo).to_owned();
    control_groups(&mut tree);
    tree
}

fn text(tree: &Tree, path: &str) -> Option<String> {
    tree.files.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Captures do not name the architecture; each writes `/proc/cpuinfo` in its own way.
fn architecture(cpuinfo: &str) -> &'static str {
    const SIGNS: [(&str, &str); 8] = [
        ("CPU architecture: 8", "aarch64"),
        ("CPU architecture: AArch64", "aarch64"),
        ("AArch64", "aarch64"),
        ("ARM", "arm"),
        ("CPU implementer", "arm"),
        ("IA-64", "ia64"),
        ("IBM/S390", "s390x"),
        ("POWER", "powerpc64"),
    ];
    match SIGNS.iter().find(|(sign, _)| cpuinfo.contains(sign)) {
        Some((_, name)) => name,
        None if cpuinfo.split_whitespace().any(|word| word == "lm") => "x86_64",
        None if cpuinfo.contains("vendor_id") => "x86",
        None => "unknown",
    }
}

/// Captures hold `mounts` and, the older ones, only the path of the cpuset.
fn control_groups(tree: &mut Tree) {
    if let Some(mounts) = text(tree, "/proc/mounts") {
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let (place, kind, options) = (words.get(1)?, words.get(2)?, words.get(3)?);
            kind.starts_with("cgroup").then(|| format!("1 1 0:1 / {place} rw - {kind} none {options}\n"))
        };
        let mountinfo: String = mounts.lines().filter_map(line).collect();
        tree.files.insert("/proc/self/mountinfo".into(), mountinfo.into_bytes());
    }
    if let (None, Some(cpuset)) = (text(tree, "/proc/self/cgroup"), text(tree, "/proc/self/cpuset")) {
        let cpuset = cpuset.trim();
        tree.files.insert("/proc/self/cgroup".into(), format!("1:cpuset:{cpuset}\n0::{cpuset}\n").into_bytes());
    }
}
