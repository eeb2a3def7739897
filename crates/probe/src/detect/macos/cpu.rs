//! Processors of a Mac: levels of performance, their caches, instruction sets.
//!
//! `sys/sysctl.h` of the macOS SDK: `hw.perflevelN` stands for one kind of core, level 0 being the fastest. The values without a
//! level (`hw.l2cachesize`) are those of one kind only, on Apple processors the slower one.

use super::sysctl;
use crate::detect::counted::Counted;
use crate::detect::features;
use crate::host::Host;
use spec::machine::{Cache, CoreKind, Cpu, Gpu};
use spec::{Bytes, Known};
use std::collections::BTreeSet;

/// More kinds of core than any processor has.
const MAX_LEVELS: u32 = 8;
/// More CPUs than any Mac has.
const MAX_CPUS: u32 = 4096;

/// One kind of core.
struct Level {
    name: String,
    cores: u32,
    cpus: u32,
    caches: Vec<(u8, &'static str, Bytes, u32)>,
}

/// The processors. `named_by`: the GPU, which has the processor's name where the kernel hides it.
pub(super) fn read(host: &dyn Host, arch: &str, named_by: Option<&Gpu>) -> Cpu {
    let levels = levels(host);
    let sum = |of: fn(&Level) -> u32| levels.iter().fold(0u32, |sum, level| sum.saturating_add(of(level)));
    let (cores, cpus) = (sum(|level| level.cores), sum(|level| level.cpus));
    let whole = |number: u32, source: &'static str| {
        Known::from_option(Some(number).filter(|number| (1..=MAX_CPUS).contains(number)), source, "the kernel names no processors")
    };
    let hz = |name: &'static str| {
        let hz = sysctl::number(host, name).filter(|hz| *hz >= 100_000_000);
        Known::from_option(hz, format!("sysctl {name}"), "macOS names no frequency of Apple processors")
    };
    Cpu {
        model: model(host, named_by),
        sockets: Known::from_option(sysctl::count(host, "hw.packages"), "sysctl hw.packages", "the kernel names no packages"),
        physical_cores: whole(cores, "sysctl hw.perflevelN.physicalcpu_max"),
        logical_cpus: whole(cpus, "sysctl hw.perflevelN.logicalcpu_max"),
        base_frequency_hz: hz("hw.cpufrequency"),
        max_frequency_hz: hz("hw.cpufrequency_max"),
        caches: caches(&levels),
        core_kinds: kinds(levels),
        features: extensions(host, arch),
        memory_bandwidth: Known::unknown("not measured"),
        ..Cpu::unknown("macOS does not say")
    }
}

fn model(host: &dyn Host, named_by: Option<&Gpu>) -> Known<String> {
    // That of a virtual machine is not the processor's.
    if let Some(name) = named_by.and_then(|gpu| gpu.name.value()).filter(|name| name.starts_with("Apple M")) {
        return Known::exact(name.clone(), "Metal");
    }
    const NAME: &str = "machdep.cpu.brand_string";
    Known::from_option(sysctl::text(host, NAME), format!("sysctl {NAME}"), "the kernel does not name the processor")
}

fn levels(host: &dyn Host) -> Vec<Level> {
    let number = sysctl::count(host, "hw.nperflevels").unwrap_or(0).min(MAX_LEVELS);
    let levels: Vec<Level> = (0..number).filter_map(|level| level_of(host, level)).collect();
    // Kernels before macOS 12, and the Macs of one kind.
    if levels.is_empty() { uniform(host).into_iter().collect() } else { levels }
}

fn level_of(host: &dyn Host, level: u32) -> Option<Level> {
    let name = |field: &str| format!("hw.perflevel{level}.{field}");
    let count = |field: &str| sysctl::count(host, &name(field)).filter(|count| *count <= MAX_CPUS);
    let cores = count("physicalcpu_max").or_else(|| count("physicalcpu"))?;
    let cpus = count("logicalcpu_max").or_else(|| count("logicalcpu")).unwrap_or(cores).max(cores);
    let threads = cpus / cores;
    let size = |field: &str| sysctl::number(host, &name(field)).filter(|size| *size > 0).map(Bytes::new);
    let shared = |field: &str| count(field).unwrap_or(cpus).min(cpus);
    let caches = [
        size("l1dcachesize").map(|size| (1, "data", size, threads)),
        size("l1icachesize").map(|size| (1, "instruction", size, threads)),
        size("l2cachesize").map(|size| (2, "unified", size, shared("cpusperl2"))),
        size("l3cachesize").map(|size| (3, "unified", size, shared("cpusperl3"))),
    ];
    let called = sysctl::text(host, &name("name")).map_or_else(|| format!("level {level}"), |name| name.to_lowercase());
    Some(Level { name: called, cores, cpus, caches: caches.into_iter().flatten().collect() })
}

/// A processor of one kind. `hw.cacheconfig` says how many CPUs share memory, level 1, level 2 and level 3.
fn uniform(host: &dyn Host) -> Option<Level> {
    let count = |name: &str| sysctl::count(host, name).filter(|count| *count <= MAX_CPUS);
    let cores = count("hw.physicalcpu_max").or_else(|| count("hw.physicalcpu"))?;
    let cpus = count("hw.logicalcpu_max").or_else(|| count("hw.logicalcpu")).unwrap_or(cores).max(cores);
    let sharing: Vec<u32> =
        sysctl::text(host, "hw.cacheconfig").unwrap_or_default().split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    let shared = |level: usize| sharing.get(level).copied().filter(|cpus| *cpus > 0);
    let cache = |name: &str, level: u8, kind| {
        let size = sysctl::number(host, name).filter(|size| *size > 0).map(Bytes::new)?;
        let own = if level == 1 { cpus / cores } else { cpus };
        Some((level, kind, size, shared(level.into()).unwrap_or(own).min(cpus)))
    };
    let caches = [
        cache("hw.l1dcachesize", 1, "data"),
        cache("hw.l1icachesize", 1, "instruction"),
        cache("hw.l2cachesize", 2, "unified"),
        cache("hw.l3cachesize", 3, "unified"),
    ];
    Some(Level { name: "performance".into(), cores, cpus, caches: caches.into_iter().flatten().collect() })
}

fn caches(levels: &[Level]) -> Vec<Cache> {
    let mut found = Counted::default();
    for level in levels {
        for &(number, kind, size, shared_by) in &level.caches {
            found.add(number, kind, size, level.cpus.div_ceil(shared_by.max(1)), shared_by as usize);
        }
    }
    found.into_caches()
}

/// macOS numbers no CPUs for programs and lets none choose; they are numbered here kind after kind.
fn kinds(levels: Vec<Level>) -> Vec<CoreKind> {
    let mut next = 0u32;
    let kind = |level: Level| {
        let first = next;
        next = next.saturating_add(level.cpus);
        CoreKind { name: level.name, cpus: (first..next).collect(), physical_cores: level.cores }
    };
    levels.into_iter().map(kind).collect()
}

/// The kernel's names and ours.
const ARM: [(&str, &str); 10] = [
    ("hw.optional.AdvSIMD", "neon"),
    ("hw.optional.neon", "neon"),
    ("hw.optional.arm.FEAT_DotProd", "dotprod"),
    ("hw.optional.arm.FEAT_FP16", "fp16"),
    ("hw.optional.neon_fp16", "fp16"),
    ("hw.optional.arm.FEAT_FHM", "fp16fml"),
    ("hw.optional.arm.FEAT_I8MM", "i8mm"),
    ("hw.optional.arm.FEAT_BF16", "bf16"),
    ("hw.optional.arm.FEAT_SME", "sme"),
    ("hw.optional.arm.FEAT_SME2", "sme2"),
];

/// macOS gives a thread the registers of AVX-512 when it first uses them, so that XCR0 does not show them.
const AVX512: [(&str, &str); 7] = [
    ("hw.optional.avx512f", "avx512f"),
    ("hw.optional.avx512cd", "avx512cd"),
    ("hw.optional.avx512dq", "avx512dq"),
    ("hw.optional.avx512bw", "avx512bw"),
    ("hw.optional.avx512vl", "avx512vl"),
    ("hw.optional.avx512ifma", "avx512ifma"),
    ("hw.optional.avx512vbmi", "avx512vbmi"),
];

fn extensions(host: &dyn Host, arch: &str) -> BTreeSet<String> {
    let named = |table: &'static [(&str, &str)]| {
        table.iter().filter(|(name, _)| sysctl::is_set(host, name)).map(|(_, ours)| (*ours).to_owned()).collect::<BTreeSet<_>>()
    };
    match arch {
        "aarch64" => named(&ARM),
        _ => features::from_cpuid(host).into_iter().chain(named(&AVX512)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    fn host(values: &[(&str, &str)]) -> Recording {
        let mut host = Recording::new("");
        for (name, value) in values {
            host.set(&Question::Sysctl((*name).to_owned()), Ok(Answer::text(*value)));
        }
        host
    }

    #[test]
    fn an_intel_mac_has_one_kind_and_tells_what_shares_a_cache() {
        let cpu = read(
            &host(&[
                ("hw.physicalcpu_max", "8"),
                ("hw.logicalcpu_max", "16"),
                ("hw.l1dcachesize", "32768"),
                ("hw.l2cachesize", "262144"),
                ("hw.l3cachesize", "16777216"),
                ("hw.cacheconfig", "16 2 2 16 0 0 0 0 0 0"),
                ("hw.cpufrequency", "2300000000"),
                ("hw.optional.avx512f", "0"),
            ]),
            "x86_64",
            None,
        );
        assert_eq!(
            (cpu.physical_cores.get(), cpu.logical_cpus.get(), cpu.base_frequency_hz.get()),
            (Some(8), Some(16), Some(2_300_000_000))
        );
        let caches: Vec<_> = cpu.caches.iter().map(|cache| (cache.level, cache.instances, cache.shared_by)).collect();
        assert_eq!(caches, [(1, 8, 2), (2, 8, 2), (3, 1, 16)]);
        assert!(cpu.model.is_unknown() && cpu.max_frequency_hz.is_unknown());
    }

    #[test]
    fn nonsense_is_unknown() {
        let cpu =
            read(&host(&[("hw.nperflevels", "4000000000"), ("hw.perflevel0.physicalcpu", "0"), ("hw.physicalcpu", "-3")]), "aarch64", None);
        assert!(cpu.physical_cores.is_unknown() && cpu.logical_cpus.is_unknown() && cpu.core_kinds.is_empty());
    }
}
