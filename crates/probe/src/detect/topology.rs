//! CPUs, cores and packages from `/sys/devices/system/cpu`, with `/proc/cpuinfo` where that is missing.

use super::cpuinfo::CpuInfoFile;
use super::{cpulist, x86};
use crate::host::{Host, Refusal};
use spec::Known;
use std::collections::{BTreeMap, BTreeSet};

/// The folder that all paths here begin with.
pub(crate) const CPU: &str = "/sys/devices/system/cpu";

/// Which CPUs there are and how they form cores and packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    /// Logical CPUs of the machine: those online; on ARM also those that power management has unplugged for now.
    pub(crate) cpus: BTreeSet<u32>,
    /// Where the CPUs were read.
    pub(crate) source: &'static str,
    /// CPUs that are present and switched off.
    pub(crate) offline: BTreeSet<u32>,
    /// The CPUs of each physical core, by their first CPU.
    pub(crate) cores: Vec<BTreeSet<u32>>,
    /// Where the cores were read; `None` where nothing says which CPUs share one.
    pub(crate) cores_source: Option<&'static str>,
    /// The CPUs of each package; empty where not known.
    pub(crate) packages: Vec<BTreeSet<u32>>,
    /// The CPUs of each die; empty where not known.
    pub(crate) dies: Vec<BTreeSet<u32>>,
    /// True on a machine whose packages the system does not tell from clusters: it has one.
    pub(crate) one_package: bool,
}

impl Topology {
    /// Number of cores that hold at least one of these CPUs.
    pub(crate) fn cores_among(&self, cpus: &BTreeSet<u32>) -> u32 {
        count(self.cores.iter().filter(|core| !core.is_disjoint(cpus)).count())
    }

    /// Packages.
    pub(crate) fn sockets(&self) -> Known<u32> {
        if self.one_package || self.cores.len() == 1 {
            return Known::exact(1, "one core or no more than one package on this platform");
        }
        match count(self.packages.len()) {
            0 => Known::unknown("the system does not name packages"),
            packages => Known::exact(packages, self.read_from("sysfs topology/package_cpus_list")),
        }
    }

    /// Dies; a kernel that knows none gives as many as packages.
    pub(crate) fn dies(&self) -> Known<u32> {
        match count(self.dies.len()) {
            0 => Known::unknown("the system does not name dies"),
            dies => Known::exact(dies, self.read_from("sysfs topology/die_cpus_list")),
        }
    }

    /// The file, unless all of it came from CPUID.
    fn read_from(&self, file: &'static str) -> &'static str {
        self.cores_source.filter(|source| *source == x86::SOURCE).unwrap_or(file)
    }

    /// Physical cores.
    pub(crate) fn physical_cores(&self) -> Known<u32> {
        match self.cores_source {
            Some(source) => Known::exact(count(self.cores.len()), source),
            None => Known::unknown("neither sysfs nor /proc/cpuinfo says which CPUs share a core"),
        }
    }

    /// Hardware threads.
    pub(crate) fn logical_cpus(&self) -> Known<u32> {
        match count(self.cpus.len()) {
            0 => Known::unknown("no list of CPUs in sysfs or /proc/cpuinfo"),
            cpus => Known::exact(cpus, self.source),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The topology behind a host. Reads one list per core and one per package, not one per CPU.
pub(crate) fn read(host: &dyn Host, os: &str, arch: &str, info: &CpuInfoFile<'_>) -> Topology {
    let arm = matches!(arch, "aarch64" | "arm");
    let (cpus, source, offline) = cpus(host, arm, info);
    let mut topology = Topology { cpus, source, offline, ..Topology::default() };
    // Without ACPI's table of processors, kernels give clusters as packages; no such board has two packages.
    topology.one_package = os == "android" || arm && matches!(host.list("/sys/firmware/acpi"), Err(Refusal::NotFound));
    let mut known_packages: BTreeSet<u32> = BTreeSet::new();
    let mut package_ids: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    let mut in_a_core: BTreeSet<u32> = BTreeSet::new();
    for &cpu in &topology.cpus {
        if in_a_core.contains(&cpu) {
            continue;
        }
        let (core, source) = core(host, cpu, info);
        // Threads that are offline or outside the machine do not make a core larger.
        let mut core: BTreeSet<u32> = core.intersection(&topology.cpus).copied().filter(|cpu| !in_a_core.contains(cpu)).collect();
        core.insert(cpu);
        in_a_core.extend(&core);
        if source.is_some() || topology.cores.is_empty() {
            topology.cores_source = source;
        }
        topology.cores.push(core);
        if !topology.dies.iter().any(|die| die.contains(&cpu))
            && let Some(die) = die(host, cpu)
        {
            topology.dies.push(die);
        }
        if topology.one_package || known_packages.contains(&cpu) {
            continue;
        }
        match package(host, cpu, info) {
            Some(Package::Cpus(cpus)) => {
                known_packages.extend(&cpus);
                topology.packages.push(cpus);
            }
            Some(Package::Id(id)) => {
                package_ids.entry(id).or_default().insert(cpu);
            }
            None => {}
        }
    }
    topology.packages.extend(package_ids.into_values());
    topology
}

/// The CPUs of the machine, where they were read, and those that are switched off.
fn cpus(host: &dyn Host, arm: bool, info: &CpuInfoFile<'_>) -> (BTreeSet<u32>, &'static str, BTreeSet<u32>) {
    let list = |name: &str| host.read(&format!("{CPU}/{name}")).ok().and_then(|text| cpulist::parse(&text)).filter(|cpus| !cpus.is_empty());
    let present = match (list("present"), list("possible")) {
        (Some(present), Some(possible)) => Some(present.intersection(&possible).copied().collect::<BTreeSet<_>>()),
        (Some(only), None) | (None, Some(only)) => Some(only),
        (None, None) => None,
    };
    let online = list("online");
    let offline =
        |online: &BTreeSet<u32>| present.as_ref().map(|present| present.difference(online).copied().collect()).unwrap_or_default();
    match (&present, online) {
        // ARM governors unplug idle cores and plug them in under load: they are part of the machine.
        (Some(present), _) if arm => (present.clone(), "/sys/devices/system/cpu/present", BTreeSet::new()),
        (_, Some(online)) => {
            let offline = offline(&online);
            (online, "/sys/devices/system/cpu/online", offline)
        }
        _ => {
            let listed = folders(host);
            if !listed.is_empty() {
                return (listed, "/sys/devices/system/cpu", BTreeSet::new());
            }
            match &present {
                Some(present) => (present.clone(), "/sys/devices/system/cpu/present", BTreeSet::new()),
                None => ((0..info.all().processors.min(cpulist::MAX_CPU)).collect(), "/proc/cpuinfo", BTreeSet::new()),
            }
        }
    }
}

/// The CPUs that have a folder and are not marked as switched off; for kernels without the list of those online.
fn folders(host: &dyn Host) -> BTreeSet<u32> {
    let names = host.list(CPU).unwrap_or_default();
    let numbers = names.iter().filter_map(|name| name.strip_prefix("cpu")?.parse::<u32>().ok());
    numbers.filter(|cpu| *cpu < cpulist::MAX_CPU && host.number(&format!("{CPU}/cpu{cpu}/online")) != Some(0)).collect()
}

/// The CPUs that share a core with this one, and where that was read.
fn core(host: &dyn Host, cpu: u32, info: &CpuInfoFile<'_>) -> (BTreeSet<u32>, Option<&'static str>) {
    const LISTS: [&str; 2] = ["core_cpus_list", "thread_siblings_list"];
    if let Some((cpus, which)) = first_set(host, cpu, &LISTS, "thread_siblings") {
        let source = match which {
            0 => "sysfs topology/core_cpus_list",
            1 => "sysfs topology/thread_siblings_list",
            _ => "sysfs topology/thread_siblings",
        };
        return (cpus, Some(source));
    }
    let all = &info.all().ids;
    match all.get(&cpu) {
        Some(ids) => (all.iter().filter(|(_, other)| *other == ids).map(|(&cpu, _)| cpu).collect(), Some("/proc/cpuinfo core id")),
        None => (BTreeSet::from([cpu]), None),
    }
}

enum Package {
    Cpus(BTreeSet<u32>),
    Id(u64),
}

/// The package of a CPU: its CPUs, or its number where only that is known.
fn package(host: &dyn Host, cpu: u32, info: &CpuInfoFile<'_>) -> Option<Package> {
    // Kernels that know no package write -1 here, and every CPU is a package of its own in the lists.
    let id = host.read(&format!("{CPU}/cpu{cpu}/topology/physical_package_id")).ok().and_then(|text| text.trim().parse::<i64>().ok());
    match id {
        Some(-1) => None,
        Some(id) => match first_set(host, cpu, &["package_cpus_list", "core_siblings_list"], "core_siblings") {
            Some((cpus, _)) => Some(Package::Cpus(cpus)),
            None => u64::try_from(id).ok().map(Package::Id),
        },
        None => info.all().ids.get(&cpu).map(|(package, _)| Package::Id(u64::from(*package))),
    }
}

/// The CPUs that share a die with this one. A kernel that knows no die writes -1 as its number.
fn die(host: &dyn Host, cpu: u32) -> Option<BTreeSet<u32>> {
    let id = host.read(&format!("{CPU}/cpu{cpu}/topology/die_id")).ok()?.trim().parse::<i64>().ok()?;
    (id >= 0).then(|| first_set(host, cpu, &["die_cpus_list"], "die_cpus").map(|(cpus, _)| cpus))?
}

fn first_set(host: &dyn Host, cpu: u32, lists: &[&str], mask: &str) -> Option<(BTreeSet<u32>, usize)> {
    let read = |name: &str| host.read(&format!("{CPU}/cpu{cpu}/topology/{name}")).ok();
    // A set without the CPU itself is a broken file; the next source may be right.
    let holds = |cpus: &BTreeSet<u32>| cpus.contains(&cpu);
    let from_list = lists.iter().enumerate().find_map(|(which, name)| Some((cpulist::parse(&read(name)?).filter(holds)?, which)));
    from_list.or_else(|| Some((cpulist::parse_mask(&read(mask)?).filter(holds)?, lists.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    use crate::detect::cpuinfo::{self, CpuInfo};

    fn topology_of(host: &Recording, os: &str, arch: &str, info: CpuInfo) -> Topology {
        read(host, os, arch, &CpuInfoFile::of(host, info))
    }

    fn machine(files: &[(&str, &str)]) -> Recording {
        let mut recording = Recording::new("");
        for (path, text) in files {
            recording.set(&Question::Read(format!("{CPU}/{path}")), Ok(Answer::text(*text)));
        }
        recording
    }

    #[test]
    fn threads_switched_off_make_no_core_and_no_thread() {
        let host = machine(&[
            ("online", "0,2"),
            ("present", "0-3"),
            ("cpu0/topology/core_cpus_list", "0-1"),
            ("cpu2/topology/core_cpus_list", "2-3"),
            ("cpu0/topology/physical_package_id", "0"),
            ("cpu0/topology/package_cpus_list", "0-3"),
        ]);
        let topology = topology_of(&host, "linux", "x86_64", CpuInfo::default());
        assert_eq!(topology.physical_cores().get(), Some(2));
        assert_eq!(topology.logical_cpus().get(), Some(2));
        assert_eq!(topology.sockets().get(), Some(1));
        assert_eq!(topology.offline, [1, 3].into());
    }

    #[test]
    fn cores_unplugged_to_save_power_belong_to_the_machine() {
        let host = machine(&[("online", "0"), ("present", "0-3"), ("possible", "0-3"), ("cpu0/topology/thread_siblings_list", "0")]);
        let topology = topology_of(&host, "android", "aarch64", CpuInfo::default());
        assert_eq!((topology.physical_cores().get(), topology.sockets().get()), (Some(4), Some(1)));
        assert_eq!(topology.logical_cpus().get(), Some(4));
    }

    #[test]
    fn without_sysfs_the_text_says() {
        let info = cpuinfo::parse("processor: 0\nphysical id: 0\ncore id: 0\n\nprocessor: 1\nphysical id: 0\ncore id: 0\n");
        let topology = topology_of(&Recording::new(""), "linux", "x86_64", info);
        assert_eq!((topology.logical_cpus().get(), topology.physical_cores().get(), topology.sockets().get()), (Some(2), Some(1), Some(1)));
    }

    #[test]
    fn nothing_known_is_nothing_claimed() {
        let topology = topology_of(&Recording::new(""), "linux", "x86_64", CpuInfo::default());
        assert!(topology.physical_cores().is_unknown() && topology.logical_cpus().is_unknown() && topology.sockets().is_unknown());
    }
}
