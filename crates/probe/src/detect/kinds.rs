//! Kinds of core on hybrid processors, fastest first.
//!
//! Order of sources: the kernel's own masks (Intel), the main ID register (ARM), capacity. On ARM capacity and frequency
//! alone give five kinds where a GB10 has two.

use super::cpuinfo::{CpuInfo, Midr};
use super::topology::{CPU, Topology};
use super::{cpulist, x86};
use crate::host::Host;
use spec::machine::CoreKind;
use std::collections::{BTreeMap, BTreeSet};

/// `/sys/devices/<folder>/cpus` holds the CPUs of one kind of an Intel hybrid processor.
const MASKS: [(&str, &str); 3] = [("cpu_core", "performance"), ("cpu_atom", "efficiency"), ("cpu_lowpower", "low-power")];

/// Cores of one kind differ by less than this in capacity: favoured cores clock a few percent higher.
const SAME_KIND: f64 = 0.9;

/// The kinds of core; one on a uniform machine, none where cores are not known.
pub(crate) fn read(host: &dyn Host, topology: &Topology, info: &CpuInfo) -> Vec<CoreKind> {
    if topology.cores_source.is_none() {
        return Vec::new();
    }
    let kinds = by_mask(host, topology)
        .or_else(|| by_part(host, topology, info))
        .or_else(|| by_cpuid(host, topology))
        .or_else(|| by_capacity(host, topology));
    kinds.unwrap_or_else(|| vec![kind("performance", topology, topology.cpus.clone())])
}

fn kind(name: impl Into<String>, topology: &Topology, cpus: BTreeSet<u32>) -> CoreKind {
    CoreKind { name: name.into(), physical_cores: topology.cores_among(&cpus), cpus }
}

fn by_mask(host: &dyn Host, topology: &Topology) -> Option<Vec<CoreKind>> {
    let set = |folder: &str| host.read(&format!("/sys/devices/{folder}/cpus")).ok().and_then(|text| cpulist::parse(&text));
    // The first mask exists on no uniform processor, so one question is enough there.
    let fast = set(MASKS[0].0)?;
    let slower = MASKS[1..].iter().filter_map(|(folder, name)| Some((set(folder)?, *name)));
    let all = std::iter::once((fast, MASKS[0].1)).chain(slower);
    let here = all.map(|(cpus, name)| (cpus.intersection(&topology.cpus).copied().collect::<BTreeSet<_>>(), name));
    let kinds: Vec<_> = here.filter(|(cpus, _)| !cpus.is_empty()).map(|(cpus, name)| kind(name, topology, cpus)).collect();
    (!kinds.is_empty()).then_some(kinds)
}

fn by_part(host: &dyn Host, topology: &Topology, info: &CpuInfo) -> Option<Vec<CoreKind>> {
    if info.midr.is_empty() {
        return None;
    }
    let mut parts: BTreeMap<Midr, BTreeSet<u32>> = BTreeMap::new();
    for &cpu in &topology.cpus {
        let register = || {
            let text = host.read(&format!("{CPU}/cpu{cpu}/regs/identification/midr_el1")).ok()?;
            u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok().map(Midr::from_register)
        };
        // A CPU that is unplugged has neither; it belongs to no kind.
        if let Some(part) = info.midr.get(&cpu).copied().or_else(register) {
            parts.entry(part).or_default().insert(cpu);
        }
    }
    let mut kinds: Vec<(u64, CoreKind)> = parts
        .into_iter()
        .map(|(part, cpus)| (cpus.iter().filter_map(|&cpu| speed(host, cpu)).max().unwrap_or(0), kind(part.name(), topology, cpus)))
        .collect();
    kinds.sort_by(|(a, _), (b, _)| b.cmp(a));
    Some(kinds.into_iter().map(|(_, kind)| kind).collect())
}

/// Capacity, or the highest frequency where the kernel gives none; only compared with its like on the same machine.
fn speed(host: &dyn Host, cpu: u32) -> Option<u64> {
    host.number(&format!("{CPU}/cpu{cpu}/cpu_capacity")).or_else(|| host.number(&format!("{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq")))
}

/// Kernels before 5.13 have no masks, and none has them for AMD.
fn by_cpuid(host: &dyn Host, topology: &Topology) -> Option<Vec<CoreKind>> {
    let kinds = x86::kinds(host, &topology.cpus)?;
    Some(kinds.into_iter().map(|(name, cpus)| kind(name, topology, cpus)).collect())
}

fn by_capacity(host: &dyn Host, topology: &Topology) -> Option<Vec<CoreKind>> {
    let first = |core: &BTreeSet<u32>| core.first().copied();
    let capacity = |cpu: u32| host.number(&format!("{CPU}/cpu{cpu}/cpu_capacity"));
    // Most machines have no such file: one question is enough there.
    capacity(topology.cores.first().and_then(first)?)?;
    let mut cores: Vec<(u64, &BTreeSet<u32>)> = topology.cores.iter().filter_map(|core| Some((capacity(first(core)?)?, core))).collect();
    cores.sort_by_key(|(capacity, core)| (std::cmp::Reverse(*capacity), first(core)));
    let mut groups: Vec<(u64, BTreeSet<u32>)> = Vec::new();
    for (capacity, core) in cores {
        match groups.last_mut() {
            Some((top, cpus)) if capacity as f64 >= *top as f64 * SAME_KIND => cpus.extend(core),
            _ => groups.push((capacity, core.clone())),
        }
    }
    let last = groups.len().saturating_sub(1);
    let name = |place: usize| match place {
        0 => "performance",
        place if place == 2 && place == last => "low-power",
        _ => "efficiency",
    };
    (groups.len() > 1).then(|| groups.into_iter().enumerate().map(|(place, (_, cpus))| kind(name(place), topology, cpus)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    fn topology(cores: &[&[u32]]) -> Topology {
        let cores: Vec<BTreeSet<u32>> = cores.iter().map(|core| core.iter().copied().collect()).collect();
        Topology { cpus: cores.iter().flatten().copied().collect(), cores, cores_source: Some("test"), ..Topology::default() }
    }

    fn text(kinds: &[CoreKind]) -> String {
        kinds
            .iter()
            .map(|k| format!("{}: {} = {} cores", k.name, cpulist::format(&k.cpus), k.physical_cores))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn the_masks_of_the_kernel_come_first() {
        let mut host = Recording::new("");
        host.set(&Question::Read("/sys/devices/cpu_core/cpus".into()), Ok(Answer::text("0-3")));
        host.set(&Question::Read("/sys/devices/cpu_atom/cpus".into()), Ok(Answer::text("4-5")));
        let kinds = read(&host, &topology(&[&[0, 1], &[2, 3], &[4], &[5]]), &CpuInfo::default());
        assert_eq!(text(&kinds), "performance: 0-3 = 2 cores; efficiency: 4-5 = 2 cores");
    }

    #[test]
    fn five_capacities_of_two_parts_are_two_kinds() {
        let mut host = Recording::new("");
        let mut info = CpuInfo::default();
        for (cpu, capacity) in [(0, 715), (1, 720), (2, 1017), (3, 1024), (4, 731)] {
            host.set(&Question::Read(format!("{CPU}/cpu{cpu}/cpu_capacity")), Ok(Answer::text(capacity.to_string())));
            info.midr.insert(cpu, Midr { implementer: 0x41, part: if capacity > 1000 { 0xd85 } else { 0xd87 } });
        }
        let kinds = read(&host, &topology(&[&[0], &[1], &[2], &[3], &[4]]), &info);
        assert_eq!(text(&kinds), "Cortex-X925: 2-3 = 2 cores; Cortex-A725: 0-1,4 = 3 cores");
    }

    #[test]
    fn capacity_tells_kinds_and_not_favoured_cores() {
        let mut host = Recording::new("");
        for (cpu, capacity) in [(0, 1024), (1, 985), (2, 600), (3, 590)] {
            host.set(&Question::Read(format!("{CPU}/cpu{cpu}/cpu_capacity")), Ok(Answer::text(capacity.to_string())));
        }
        let kinds = read(&host, &topology(&[&[0], &[1], &[2], &[3]]), &CpuInfo::default());
        assert_eq!(text(&kinds), "performance: 0-1 = 2 cores; efficiency: 2-3 = 2 cores");
    }

    #[test]
    fn a_uniform_machine_has_one_kind() {
        let kinds = read(&Recording::new(""), &topology(&[&[0, 1]]), &CpuInfo::default());
        assert_eq!(text(&kinds), "performance: 0-1 = 1 cores");
    }
}
