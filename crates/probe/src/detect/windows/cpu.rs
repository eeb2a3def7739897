//! Processors under Windows.

use super::relations::{Cpus, Relations};
use crate::detect::counted::Counted;
use crate::detect::{features, fields};
use crate::host::{Host, Question, WindowsQuestion};
use spec::Known;
use spec::machine::{Cache, CoreKind, Cpu};
use std::collections::{BTreeMap, BTreeSet};

const SOURCE: &str = "GetLogicalProcessorInformationEx";
const PROCESSOR: &str = "HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0";

/// The first build of Windows whose processes use all groups of processors unless told otherwise (Windows Server 2022; Windows 11
/// is later): Microsoft's documentation "Processor Groups".
const ALL_GROUPS: u32 = 20348;

pub(super) fn read(host: &dyn Host, arch: &str, relations: &Relations) -> Cpu {
    let number = |count: usize, why: &'static str| Known::from_option(u32::try_from(count).ok().filter(|count| *count > 0), SOURCE, why);
    let name = host.text(&Question::Registry(format!("{PROCESSOR}\\ProcessorNameString"))).ok().map(|name| name.trim().to_owned());
    let mhz = host.text(&Question::Registry(format!("{PROCESSOR}\\~MHz"))).ok().and_then(|mhz| mhz.trim().parse::<u64>().ok());
    Cpu {
        model: Known::from_option(name.filter(|name| !name.is_empty()), "registry ProcessorNameString", "the registry does not name it"),
        sockets: number(relations.packages.len(), "Windows names no packages"),
        dies: number(relations.dies.len(), "Windows names no dies"),
        physical_cores: number(relations.cores.len(), "Windows names no cores"),
        logical_cpus: number(relations.cpus().len(), "Windows names no processors"),
        core_kinds: kinds(relations),
        base_frequency_hz: Known::from_option(
            mhz.filter(|mhz| *mhz >= 100).and_then(|mhz| mhz.checked_mul(1_000_000)),
            "registry ~MHz",
            "the registry names no frequency",
        ),
        max_frequency_hz: Known::unknown("Windows names the highest frequency to drivers only"),
        caches: caches(relations),
        features: extensions(host, arch),
        ..Cpu::unknown("not measured")
    }
}

/// Cores of the highest class are the fastest. A uniform processor has one class.
fn kinds(relations: &Relations) -> Vec<CoreKind> {
    const NAMES: [&str; 3] = ["performance", "efficiency", "low-power"];
    let mut classes: BTreeMap<u32, (Cpus, u32)> = BTreeMap::new();
    for core in &relations.cores {
        let (cpus, cores) = classes.entry(core.class).or_default();
        cpus.extend(&core.cpus);
        *cores = cores.saturating_add(1);
    }
    let kind = |(rank, (class, (cpus, physical_cores))): (usize, (u32, (Cpus, u32)))| CoreKind {
        name: NAMES.get(rank).map_or_else(|| format!("class {class}"), |name| (*name).to_owned()),
        cpus,
        physical_cores,
    };
    classes.into_iter().rev().enumerate().map(kind).collect()
}

fn caches(relations: &Relations) -> Vec<Cache> {
    let mut found = Counted::default();
    for cache in relations.caches.iter().filter(|cache| cache.bytes > 0) {
        found.add(cache.level, &cache.kind, spec::Bytes::new(cache.bytes), 1, cache.cpus.len());
    }
    found.into_caches()
}

fn extensions(host: &dyn Host, arch: &str) -> BTreeSet<String> {
    match arch {
        "x86_64" | "x86" => features::from_cpuid(host),
        _ => {
            let text = host.text(&Question::Windows(WindowsQuestion::ArmFeatures)).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        }
    }
}

/// The CPUs that this process may run on.
pub(super) fn allowed(host: &dyn Host, relations: &Relations, build: Option<u32>) -> Known<Cpus> {
    let all = relations.cpus();
    let text = match host.text(&Question::Windows(WindowsQuestion::Affinity)) {
        Ok(text) => text,
        Err(refusal) if all.is_empty() => return Known::unknown(format!("GetProcessAffinityMask: {refusal}")),
        Err(_) => return Known::exact(all, SOURCE),
    };
    let mask = |field| fields::hexadecimal(&text, field).filter(|mask| *mask != 0);
    let groups: Vec<u16> =
        fields::text(&text, "groups").unwrap_or_default().split_whitespace().filter_map(|group| group.parse().ok()).collect();
    let masked = match (mask("process"), groups.as_slice()) {
        (Some(process), [group]) => {
            let spans = build.is_some_and(|build| build >= ALL_GROUPS) && mask("system") == Some(process);
            // Without a mask of its own a process of a newer Windows has all groups.
            if spans { all.clone() } else { relations.in_group(*group, process) }
        }
        // A process with threads in several groups has no mask.
        (_, groups) => groups.iter().filter_map(|group| relations.groups.get(group)).flat_map(|(_, cpus)| cpus.iter().copied()).collect(),
    };
    let here: Cpus = masked.intersection(&all).copied().collect();
    let source = "GetProcessAffinityMask, GetProcessGroupAffinity";
    match (here.is_empty(), masked.is_empty(), all.is_empty()) {
        (false, ..) => Known::exact(here, source),
        (true, false, true) => Known::exact(masked, source),
        (true, _, false) => Known::exact(all, SOURCE),
        _ => Known::unknown("neither affinity nor a list of processors"),
    }
}
