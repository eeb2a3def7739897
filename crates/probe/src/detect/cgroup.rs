//! Control groups, version 1, version 2 and both at once: where this process is, and what limits it up the tree.
//!
//! Formats: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,cpusets}.rst, proc(5) for mountinfo.
//! `/proc/self` is the process that asks, so a recording holds the groups of the process that recorded.

use super::cpulist;
use crate::host::Host;
use spec::machine::MemoryLimit;
use spec::{Bytes, Known};
use std::collections::BTreeSet;

/// Deeper than any tree; a path that goes on is cut.
const MAX_DEPTH: usize = 64;

/// Kernels write "no limit" as the largest number of whole pages below 2^63 (pages of 4 KiB to 64 KiB).
const NO_LIMIT: u64 = (1 << 63) - (1 << 20);

/// One line of `/proc/self/cgroup`: the group of this process in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Membership {
    /// Controllers of version 1; empty for version 2.
    controllers: Vec<String>,
    path: String,
}

/// One mount of a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The group that is seen at `point`.
    root: String,
    point: String,
    /// Controllers of version 1; empty for version 2.
    controllers: Vec<String>,
}

/// The folders of the groups that this process belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    members: Vec<Membership>,
    mounts: Vec<Mount>,
}

/// The groups of this process.
pub(crate) fn read(host: &dyn Host) -> Groups {
    let text = |path: &str| host.read(path).unwrap_or_default();
    Groups { members: parse_membership(&text("/proc/self/cgroup")), mounts: parse_mounts(&text("/proc/self/mountinfo")) }
}

fn parse_membership(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        // A hierarchy with a name and no controller (systemd's own) limits nothing.
        if controllers.starts_with("name=") || controllers.is_empty() && id != "0" {
            return None;
        }
        let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(Membership { controllers, path: path.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

fn parse_mounts(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        // 36 35 98:0 /root /mount/point options [optional fields] - type source super-options
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (unescape(before.next()?), unescape(before.next()?));
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1).unwrap_or_default());
        let controllers = match kind {
            "cgroup2" => Vec::new(),
            "cgroup" => options.split(',').map(str::to_owned).collect(),
            _ => return None,
        };
        (kind == "cgroup2" || !options.is_empty()).then_some(Mount { root, point, controllers })
    };
    text.lines().filter_map(line).collect()
}

/// Blanks and backslashes stand as three octal digits in mountinfo.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

impl Groups {
    /// The folders of a controller from the process's own group outwards to the mount: those of version 1, then those of
    /// version 2. A controller lives in one of them; in the other its files are missing.
    fn folders(&self, controller: &str) -> (Vec<String>, Vec<String>) {
        let has = |controllers: &[String]| controllers.iter().any(|name| name == controller);
        let v1 = self.walk(|member| has(&member.controllers), |mount| has(&mount.controllers));
        let v2 = self.walk(|member| member.controllers.is_empty(), |mount| mount.controllers.is_empty());
        (v1, v2)
    }

    fn walk(&self, member: impl Fn(&Membership) -> bool, mount: impl Fn(&Mount) -> bool) -> Vec<String> {
        let (Some(member), Some(mount)) = (self.members.iter().find(|m| member(m)), self.mounts.iter().find(|m| mount(m))) else {
            return Vec::new();
        };
        // A container often sees its own group mounted as the root; a path that leads out of what is mounted means the same.
        let relative = match mount.root.as_str() {
            "/" => member.path.as_str(),
            root => member.path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(""),
        };
        let names: Vec<&str> = relative.split('/').filter(|name| !name.is_empty()).take(MAX_DEPTH).collect();
        let names: &[&str] = if names.contains(&"..") { &[] } else { &names };
        let folder = |depth: usize| match depth {
            0 => mount.point.clone(),
            depth => format!("{}/{}", mount.point.trim_end_matches('/'), names[..depth].join("/")),
        };
        (0..=names.len()).rev().map(folder).collect()
    }
}

/// Every limit on memory that can bind on a machine with this much of it, from the innermost group outwards.
pub(crate) fn memory_limits(host: &dyn Host, groups: &Groups, total: Option<Bytes>) -> Vec<MemoryLimit> {
    let (v1, v2) = groups.folders("memory");
    let binds = |limit: &MemoryLimit| limit.limit.get() < NO_LIMIT && total.is_none_or(|total| limit.limit < total);
    let mut limits: Vec<MemoryLimit> =
        v1.iter().flat_map(|folder| limits_v1(host, folder)).chain(v2.iter().flat_map(|folder| limits_v2(host, folder))).collect();
    // What version 1 says of the groups above those that a container can see.
    if let Some(own) = v1.first()
        && let Some(hierarchy) = stat(&host.read(&format!("{own}/memory.stat")).unwrap_or_default(), &["hierarchical_memory_limit"])
        && limits.iter().all(|limit| limit.limit > hierarchy)
    {
        let nothing = || Known::unknown("the group that sets this limit is not visible");
        limits.push(MemoryLimit {
            source: format!("{own}/memory.stat hierarchical_memory_limit"),
            limit: hierarchy,
            used: nothing(),
            reclaimable: nothing(),
            swap: nothing(),
            mapped_files: true,
        });
    }
    limits.retain(binds);
    limits
}

fn limits_v1(host: &dyn Host, folder: &str) -> Vec<MemoryLimit> {
    let source = format!("{folder}/memory.limit_in_bytes");
    let Some(limit) = host.number(&source).filter(|&limit| limit < NO_LIMIT) else { return Vec::new() };
    let usage = format!("{folder}/memory.usage_in_bytes");
    let stat_file = format!("{folder}/memory.stat");
    // total_ counts the groups below too, as the limit does.
    let reclaimable = stat(&host.read(&stat_file).unwrap_or_default(), &["total_inactive_file", "inactive_file"]);
    // The second file limits memory and swap together.
    let together = format!("{folder}/memory.memsw.limit_in_bytes");
    let swap = host.number(&together).filter(|&both| both < NO_LIMIT).map(|both| Bytes::new(both.saturating_sub(limit)));
    let swap = Known::from_option(swap, together, "the group sets no limit on swap");
    vec![limit_of(host, source, Bytes::new(limit), swap, usage, stat_file, reclaimable)]
}

fn limits_v2(host: &dyn Host, folder: &str) -> Vec<MemoryLimit> {
    // Above memory.high the kernel slows every allocation down until it is below again: a limit for whoever wants speed.
    let files = ["memory.max", "memory.high"].map(|name| format!("{folder}/{name}"));
    let set = files.into_iter().filter_map(|file| Some((host.number(&file)?, file)));
    let limit = |(limit, source): (u64, String)| {
        let stat_file = format!("{folder}/memory.stat");
        let reclaimable = stat(&host.read(&stat_file).unwrap_or_default(), &["inactive_file"]);
        let swap_file = format!("{folder}/memory.swap.max");
        let swap = Known::from_option(host.number(&swap_file).map(Bytes::new), swap_file, "the group sets no limit on swap");
        limit_of(host, source, Bytes::new(limit), swap, format!("{folder}/memory.current"), stat_file, reclaimable)
    };
    set.map(limit).collect()
}

fn limit_of(
    host: &dyn Host,
    source: String,
    limit: Bytes,
    swap: Known<Bytes>,
    usage: String,
    stat_file: String,
    reclaimable: Option<Bytes>,
) -> MemoryLimit {
    let used = host.number(&usage).map(Bytes::new);
    MemoryLimit {
        source,
        limit,
        used: Known::from_option(used, usage, "the group does not tell its use"),
        reclaimable: Known::from_option(reclaimable, format!("{stat_file} inactive_file"), "the group does not tell its page cache"),
        swap,
        mapped_files: true,
    }
}

/// The first of these fields in a `memory.stat`.
fn stat(text: &str, fields: &[&str]) -> Option<Bytes> {
    let field = |name: &&str| text.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(' ')?.trim().parse().ok());
    fields.iter().find_map(field).map(Bytes::new)
}

/// The smallest share of CPU time that a group up the tree grants, in CPUs.
pub(crate) fn cpu_quota(host: &dyn Host, groups: &Groups) -> Known<f64> {
    let (v1, v2) = groups.folders("cpu");
    let quota_v1 = |folder: &String| {
        let file = format!("{folder}/cpu.cfs_quota_us");
        // −1 where there is no quota: no number for `number`.
        Some((share(host.number(&file)?, host.number(&format!("{folder}/cpu.cfs_period_us"))?)?, file))
    };
    let quota_v2 = |folder: &String| {
        let file = format!("{folder}/cpu.max");
        Some((parse_cpu_max(&host.read(&file).ok()?)?, file))
    };
    let smallest = v1.iter().filter_map(quota_v1).chain(v2.iter().filter_map(quota_v2)).min_by(|(a, _), (b, _)| a.total_cmp(b));
    match smallest {
        Some((quota, file)) => Known::exact(quota, file),
        None => Known::unknown("no control group sets a quota"),
    }
}

/// `150000 100000` is 1.5 CPUs, `max 100000` is no quota.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next()?.parse().ok()?, words.next().unwrap_or("100000").parse().ok()?);
    share(quota, period)
}

fn share(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// The CPUs of the innermost group that names any, and the file.
pub(crate) fn cpuset(host: &dyn Host, groups: &Groups) -> Option<(BTreeSet<u32>, String)> {
    let (v1, v2) = groups.folders("cpuset");
    // The last name is that of mounts with `noprefix`, which batch systems of clusters use.
    let files_v1 = v1.iter().flat_map(|folder| ["cpuset.effective_cpus", "cpuset.cpus", "cpus"].map(|name| format!("{folder}/{name}")));
    let files_v2 = v2.iter().map(|folder| format!("{folder}/cpuset.cpus.effective"));
    let mut sets = files_v1.chain(files_v2).filter_map(|file| Some((cpulist::parse(&host.read(&file).ok()?)?, file)));
    sets.find(|(cpus, _)| !cpus.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};
    use proptest::prelude::*;

    fn host(files: &[(&str, &str)]) -> Recording {
        let mut recording = Recording::new("");
        for (path, text) in files {
            recording.set(&Question::Read((*path).to_owned()), Ok(Answer::text(*text)));
        }
        recording
    }

    const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn every_parent_is_asked_and_the_tightest_counts() {
        let host = host(&[
            ("/proc/self/cgroup", "0::/kubepods.slice/pod1/app"),
            ("/proc/self/mountinfo", V2_MOUNT),
            ("/sys/fs/cgroup/kubepods.slice/pod1/app/memory.max", "max"),
            ("/sys/fs/cgroup/kubepods.slice/pod1/memory.max", "4294967296"),
            ("/sys/fs/cgroup/kubepods.slice/pod1/memory.current", "3221225472"),
            ("/sys/fs/cgroup/kubepods.slice/pod1/memory.stat", "anon 1\nfile 3\nactive_file 5\ninactive_file 1073741824\nslab 1"),
            ("/sys/fs/cgroup/kubepods.slice/memory.max", "8589934592"),
            ("/sys/fs/cgroup/kubepods.slice/pod1/app/cpu.max", "max 100000"),
            ("/sys/fs/cgroup/kubepods.slice/pod1/cpu.max", "150000 100000"),
            ("/sys/fs/cgroup/kubepods.slice/cpu.max", "400000 100000"),
            ("/sys/fs/cgroup/kubepods.slice/pod1/app/cpuset.cpus.effective", "0-3"),
        ]);
        let groups = read(&host);
        let limits = memory_limits(&host, &groups, Some(Bytes::from_gib(64)));
        assert_eq!(limits.iter().map(|limit| limit.limit).collect::<Vec<_>>(), [Bytes::from_gib(4), Bytes::from_gib(8)]);
        assert_eq!(limits[0].headroom(), Bytes::from_gib(2));
        assert!(limits[1].used.is_unknown());
        assert_eq!(cpu_quota(&host, &groups), Known::exact(1.5, "/sys/fs/cgroup/kubepods.slice/pod1/cpu.max"));
        assert_eq!(cpuset(&host, &groups).unwrap().0, (0..4).collect());
    }

    #[test]
    fn a_container_of_version_1_sees_its_group_as_the_root() {
        let host = host(&[
            ("/proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"),
            (
                "/proc/self/mountinfo",
                "700 1 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n701 1 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct",
            ),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("/sys/fs/cgroup/memory/memory.stat", "cache 0\nhierarchical_memory_limit 2147483648\ntotal_inactive_file 7"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ]);
        let groups = read(&host);
        let limits = memory_limits(&host, &groups, None);
        assert_eq!(limits.len(), 1);
        assert_eq!((limits[0].limit, limits[0].headroom()), (Bytes::from_gib(2), Bytes::from_gib(2)));
        assert_eq!(cpu_quota(&host, &groups).get(), Some(0.5));
    }

    #[test]
    fn no_limit_is_no_limit_in_all_its_spellings() {
        for text in ["max", "9223372036854771712", "9223372036854710272", "18446744073709551615", "-1", "68719476736"] {
            let host = host(&[("/proc/self/cgroup", "0::/a"), ("/proc/self/mountinfo", V2_MOUNT), ("/sys/fs/cgroup/a/memory.max", text)]);
            assert_eq!(memory_limits(&host, &read(&host), Some(Bytes::from_gib(64))), vec![], "{text}");
        }
    }

    #[test]
    fn a_path_that_leads_out_of_the_mount_is_the_mount() {
        for (path, root) in [("/../../other", "/"), ("/elsewhere", "/docker/abc"), ("/docker/abcdef", "/docker/abc")] {
            let groups = Groups {
                members: parse_membership(&format!("0::{path}")),
                mounts: parse_mounts(&V2_MOUNT.replace(" / ", &format!(" {root} "))),
            };
            assert_eq!(groups.folders("memory").1, ["/sys/fs/cgroup"]);
        }
    }

    #[test]
    fn mounts_may_hold_blanks() {
        assert_eq!(unescape(r"/a\040b\134c\9"), r"/a b\c\9");
    }

    proptest! {
        #[test]
        fn any_text_is_read(cgroup in "([0-9]{0,2}:[a-z,=]{0,8}:/?[ -~]{0,20}\n?){0,3}", mounts in "[ -~]{0,30} - cgroup2? [ -~]{0,20}", file in "[ -~\n]{0,40}") {
            let groups = Groups { members: parse_membership(&cgroup), mounts: parse_mounts(&mounts) };
            let _ = (groups.folders("memory"), parse_cpu_max(&file), stat(&file, &["inactive_file"]), unescape(&file));
        }

        #[test]
        fn a_quota_is_a_positive_number(text in "[0-9]{0,20} [0-9]{0,20}") {
            prop_assert!(parse_cpu_max(&text).is_none_or(|quota| quota > 0.0 && quota.is_finite()));
        }
    }
}
