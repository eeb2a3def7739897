//! Caches from CPUID: leaf 4, AMD's leaf 0x8000001D of the same layout, and 0x80000005 and 0x80000006 of older ones.

use super::super::counted::Counted;
use super::{Cpuid, Places};
use crate::host::Host;
use spec::Bytes;
use spec::machine::Cache;
use std::collections::BTreeSet;

/// No processor lists more.
const MOST: u32 = 8;

/// A cache as one of its CPUs knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct One {
    pub(super) level: u8,
    kind: &'static str,
    size: Bytes,
    /// Bits of the APIC id in which its users differ.
    bits: u32,
}

/// The caches of the machine whose CPUs have these places; without places those of one package, of which one CPU tells.
pub(crate) fn read(host: &dyn Host, places: Option<&Places>) -> Vec<Cache> {
    let Some(cpuid) = Cpuid::new(host) else { return Vec::new() };
    let mut found = Counted::default();
    let mut add = |one: &One, instances: u32, shared_by: usize| found.add(one.level, one.kind, one.size, instances, shared_by);
    match places {
        Some(places) => {
            for (cpus, one) in of_each(cpuid, places) {
                for group in places.sharing(one.bits) {
                    let users = group.intersection(&cpus).count();
                    if users > 0 {
                        add(&one, 1, users);
                    }
                }
            }
        }
        None => {
            let Some(package) = super::places::package(cpuid) else { return Vec::new() };
            for one in of(cpuid, super::bits(package.threads)) {
                let room = 1_u32.checked_shl(one.bits).unwrap_or(u32::MAX);
                let users = if one.bits <= package.core_bits { package.of_a_core } else { room };
                let users = users.clamp(1, package.threads.max(1));
                add(&one, package.threads.div_ceil(users).max(1), users as usize);
            }
        }
    }
    found.into_caches()
}

/// Each cache with the CPUs that have one like it. CPUs of one kind are alike, so that one of them is asked.
fn of_each(cpuid: Cpuid<'_>, places: &Places) -> Vec<(BTreeSet<u32>, One)> {
    let all = places.topology().cpus;
    let of_one = |cpu: u32| of(cpuid.of(cpu), places.package_bits());
    let first = all.first().copied();
    if !super::kinds::hybrid(cpuid) {
        return first.map(of_one).unwrap_or_default().into_iter().map(|one| (all.clone(), one)).collect();
    }
    let mut found: Vec<(BTreeSet<u32>, One)> = Vec::new();
    for &cpu in &all {
        for one in of_one(cpu) {
            match found.iter_mut().find(|(_, other)| (other.level, other.kind, other.size) == (one.level, one.kind, one.size)) {
                Some((cpus, other)) => {
                    cpus.insert(cpu);
                    other.bits = other.bits.max(one.bits);
                }
                None => found.push((BTreeSet::from([cpu]), one)),
            }
        }
    }
    found
}

/// The caches that one CPU uses.
pub(super) fn of(cpuid: Cpuid<'_>, package_bits: u32) -> Vec<One> {
    let listed = list(cpuid, 4);
    if !listed.is_empty() {
        return listed;
    }
    if cpuid.topology_extensions() {
        let listed = list(cpuid, 0x8000_001d);
        if !listed.is_empty() {
            return listed;
        }
    }
    old(cpuid, package_bits)
}

fn list(cpuid: Cpuid<'_>, leaf: u32) -> Vec<One> {
    let mut found = Vec::new();
    for subleaf in 0..MOST {
        let Some(registers) = cpuid.leaf(leaf, subleaf) else { break };
        let kind = match registers.eax & 31 {
            1 => "data",
            2 => "instruction",
            3 => "unified",
            _ => break,
        };
        let level = (registers.eax >> 5 & 7) as u8;
        let (ways, partitions, line) = (registers.ebx >> 22, registers.ebx >> 12 & 0x3ff, registers.ebx & 0xfff);
        let parts = [ways, partitions, line, registers.ecx].map(|field| u64::from(field) + 1);
        let size = Bytes::new(parts.into_iter().fold(1, u64::saturating_mul));
        found.push(One { level, kind, size, bits: super::bits((registers.eax >> 14 & 0xfff) + 1) });
    }
    found
}

/// Sizes alone: the first two levels belong to a core, the third to the package.
fn old(cpuid: Cpuid<'_>, package_bits: u32) -> Vec<One> {
    let first = cpuid.leaf(0x8000_0005, 0).unwrap_or_default();
    let further = cpuid.leaf(0x8000_0006, 0).unwrap_or_default();
    let kib = |kib: u32| Bytes::from_kib(u64::from(kib));
    let all = [
        One { level: 1, kind: "data", size: kib(first.ecx >> 24), bits: 0 },
        One { level: 1, kind: "instruction", size: kib(first.edx >> 24), bits: 0 },
        One { level: 2, kind: "unified", size: kib(further.ecx >> 16), bits: 0 },
        One { level: 3, kind: "unified", size: kib((further.edx >> 18).saturating_mul(512)), bits: package_bits },
    ];
    all.into_iter().filter(|one| !one.size.is_zero()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    #[test]
    fn one_cpu_tells_of_its_package() {
        let mut host = Recording::new("");
        let mut set = |leaf, subleaf, text: &str| host.set(&Question::Cpuid { leaf, subleaf }, Ok(Answer::text(text)));
        set(0, 0, "b 0 0 0");
        // 6 cores of 2 threads with 48 KiB, one cache of 12 MiB for all.
        set(0xb, 0, "1 2 100 0");
        set(0xb, 1, "4 c 201 0");
        set(0xb, 2, "0 0 2 0");
        set(4, 0, "1c004121 2c0003f 3f 0");
        set(4, 1, "1c03c163 2c0003f 3fff 0");
        set(4, 2, "0 0 0 0");
        let text: Vec<String> =
            read(&host, None).iter().map(|c| format!("L{} {} {} x{} by {}", c.level, c.kind, c.size, c.instances, c.shared_by)).collect();
        assert_eq!(text, ["L1 data 48.00 KiB x6 by 2", "L3 unified 12.00 MiB x1 by 12"]);
    }

    #[test]
    fn registers_of_all_ones_are_a_size_and_no_panic() {
        let mut host = Recording::new("");
        for leaf in [0, 1, 4, 0xb, 0x1f, 0x8000_0000, 0x8000_0005, 0x8000_0006] {
            for subleaf in 0..9 {
                host.set(&Question::Cpuid { leaf, subleaf }, Ok(Answer::text("ffffffff ffffffff ffffffff ffffffff")));
            }
        }
        assert!(read(&host, None).iter().all(|cache| cache.instances > 0));
    }
}
