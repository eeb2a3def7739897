//! Which files the kernel answers by itself: those of its own file systems, where nothing else is mounted over them.
//!
//! A container may have `/proc/cpuinfo` or all of `/sys/devices/system/cpu` from a program (lxcfs), which may hang; the kernel's own
//! files of what it holds in memory do not. The list of mounts says which is which (Linux Documentation/filesystems/proc.rst, 3.5).

use crate::host::Question;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

const MOUNTS: &str = "/proc/self/mountinfo";

/// File systems of which the kernel itself makes or holds the files.
const OF_THE_KERNEL: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "tmpfs"];

/// File systems on disks of this machine: whether they have a file is known without asking anybody else.
const ON_DISK: [&str; 7] = ["ext4", "xfs", "btrfs", "overlay", "squashfs", "erofs", "f2fs"];

/// What the kernel answers from its memory. Sensors, batteries and firmware, which lie elsewhere under `/sys`, take their time.
const FROM_MEMORY: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/",
    "/proc/sys/",
    "/sys/bus/pci/devices",
    "/sys/devices/cpu_",
    "/sys/devices/system/",
    "/sys/fs/cgroup",
    "/sys/hypervisor/",
    "/sys/kernel/mm/",
    "/sys/class/dmi/",
];

/// More mounts upon one another than anybody has.
const MOST_UPON_ONE: usize = 64;

/// The mounts of this process, read with the first question.
#[derive(Debug, Default)]
pub(super) struct Mounts(OnceLock<Tree>);

/// Mounts by what they are mounted on: a mount and a point in it. A mount over another hides what was mounted below.
#[derive(Debug, Default)]
struct Tree {
    root: Option<Mount>,
    upon: BTreeMap<u32, BTreeMap<String, Mount>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    id: u32,
    kind: String,
}

impl Mounts {
    /// The mounts in a text.
    #[cfg(test)]
    pub(super) fn listed(text: &str) -> Self {
        Self(OnceLock::from(parse(text)))
    }

    /// True where nothing but the kernel answers the question, and from memory.
    pub(super) fn answer_at_once(&self, question: &Question, path: &str) -> bool {
        if path == MOUNTS {
            return true;
        }
        // A file that is mounted by itself may be anything, a pipe included.
        let by_the_kernel = self.of(path).is_some_and(|(point, kind)| OF_THE_KERNEL.contains(&kind) && point != path);
        let from_memory = FROM_MEMORY.iter().any(|start| path.starts_with(start));
        by_the_kernel && (from_memory || matches!(question, Question::List(_) | Question::Link(_))) || self.lacks(path)
    }

    /// True where there is no such file, which a file system of the kernel and one on a disk say by themselves.
    pub(super) fn lacks(&self, path: &str) -> bool {
        let known = |(_, kind): (&str, &str)| OF_THE_KERNEL.contains(&kind) || ON_DISK.contains(&kind);
        self.of(path).is_some_and(known) && std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Point and kind of the mount that a path lies in; `None` where it cannot be told.
    fn of<'a>(&'a self, path: &'a str) -> Option<(&'a str, &'a str)> {
        let tree = self.0.get_or_init(|| super::read(MOUNTS).map(|text| parse(&text)).unwrap_or_default());
        let mut here = ("/", tree.root.as_ref()?);
        for folder in folders(path) {
            for _ in 0..MOST_UPON_ONE {
                let Some(next) = tree.upon.get(&here.1.id).and_then(|points| points.get(folder)) else { break };
                here = (folder, next);
            }
        }
        Some((here.0, here.1.kind.as_str()))
    }
}

/// The root, every folder on the way to a path, and the path.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(end, _)| end).filter(|end| *end > 0);
    std::iter::once("/").chain(ends.filter_map(|end| path.get(..end))).chain((path.len() > 1).then_some(path))
}

/// Lines such as `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`; others are passed over.
fn parse(text: &str) -> Tree {
    let mut tree = Tree::default();
    let mut ids = BTreeSet::new();
    let mut roots = Vec::new();
    for line in text.lines() {
        let Some((about, file_system)) = line.split_once(" - ") else { continue };
        let words: Vec<&str> = about.split(' ').collect();
        let (Some(Ok(id)), Some(Ok(parent))) = (words.first().map(|word| word.parse()), words.get(1).map(|word| word.parse::<u32>()))
        else {
            continue;
        };
        let (Some(point), Some(kind)) = (words.get(4), file_system.split(' ').next()) else { continue };
        let mount = Mount { id, kind: kind.to_owned() };
        ids.insert(id);
        if *point == "/" {
            roots.push((parent, mount.clone()));
        }
        tree.upon.entry(parent).or_default().insert((*point).to_owned(), mount);
    }
    // The first mount is upon one that this process does not see.
    tree.root = roots.into_iter().find(|(parent, mount)| !ids.contains(parent) || *parent == mount.id).map(|(_, mount)| mount);
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_once(mounts: &Mounts, path: &str) -> bool {
        mounts.answer_at_once(&Question::Read(path.into()), path)
    }

    const PLAIN: &str = "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n23 27 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw\n";

    #[test]
    fn the_kernels_own_files_are_answered_at_once() {
        let plain = Mounts::listed(PLAIN);
        for path in
            ["/proc/cpuinfo", "/proc/self/cgroup", "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/cpu0/topology/core_id"]
        {
            assert!(at_once(&plain, path), "{path}");
        }
        // Firmware and sensors answer for themselves; what a folder holds the kernel knows.
        let battery = "/sys/class/power_supply/BAT0/capacity";
        assert!(!plain.answer_at_once(&Question::Read(battery.into()), "/sys/firmware"));
        assert_eq!(folders("/a/b").collect::<Vec<_>>(), ["/", "/a", "/a/b"]);
        assert_eq!(folders("/").collect::<Vec<_>>(), ["/"]);
        assert!(plain.answer_at_once(&Question::List("/sys/class/thermal".into()), "/sys/class/thermal"));
        // What is not there needs nobody's answer; what lies on a disk is read on a thread.
        assert!(at_once(&plain, "/proc/no-such-file") && at_once(&plain, "/no-such-file"));
        assert!(!at_once(&plain, "/"));
        assert!(!at_once(&Mounts::listed(""), "/proc/cpuinfo") && !at_once(&Mounts::listed("broken\nlines - here"), "/proc/cpuinfo"));
    }

    #[test]
    fn what_is_mounted_over_them_may_hang() {
        let container = Mounts::listed(&format!(
            "{PLAIN}40 22 0:50 /proc/cpuinfo /proc/cpuinfo rw - fuse.lxcfs lxcfs rw\n41 23 0:50 /cpu /sys/devices/system/cpu rw - fuse.lxcfs lxcfs rw\n42 22 0:51 /pipe /proc/meminfo rw - tmpfs tmpfs rw\n"
        ));
        for path in ["/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/cpu0/nothing"] {
            assert!(!at_once(&container, path), "{path}");
        }
        assert!(at_once(&container, "/sys/devices/system/cpufreq-is-another-folder") && at_once(&container, "/proc/self/status"));
        // A mount over all of /sys hides what was mounted below it.
        let hidden = Mounts::listed(
            "23 27 0:22 / /sys rw - sysfs sysfs rw\n31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n50 27 0:60 / /sys rw - fuse.program p rw\n",
        );
        assert!(!at_once(&hidden, "/sys/fs/cgroup/memory.max") && !at_once(&hidden, "/sys/devices/system/cpu/online"));
    }
}
