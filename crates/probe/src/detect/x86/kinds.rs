//! Kinds of core on hybrid processors: Intel's leaf 0x1A, AMD's leaf 0x80000026.

use super::{Cpuid, caches};
use crate::host::Host;
use std::collections::{BTreeMap, BTreeSet};

/// True where cores differ: leaf 7, EDX bit 15, or 0x80000026, EAX bit 30.
pub(super) fn hybrid(cpuid: Cpuid<'_>) -> bool {
    intel(cpuid) || amd(cpuid)
}

fn intel(cpuid: Cpuid<'_>) -> bool {
    cpuid.leaf(7, 0).is_some_and(|registers| registers.edx >> 15 & 1 == 1) && cpuid.leaf(0x1a, 0).is_some()
}

fn amd(cpuid: Cpuid<'_>) -> bool {
    cpuid.amd() && cpuid.leaf(0x8000_0026, 0).is_some_and(|registers| registers.eax >> 30 & 1 == 1)
}

/// The CPUs of each kind, fastest first; `None` on a uniform processor and where a CPU does not answer.
pub(crate) fn read(host: &dyn Host, cpus: &BTreeSet<u32>) -> Option<Vec<(&'static str, BTreeSet<u32>)>> {
    let cpuid = Cpuid::new(host)?;
    let (intel, amd) = (intel(cpuid), amd(cpuid));
    if !intel && !amd {
        return None;
    }
    let mut kinds: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for &cpu in cpus {
        let place = if intel { intel_kind(cpuid.of(cpu))? } else { (cpuid.of(cpu).leaf(0x8000_0026, 0)?.ebx >> 28).min(1) as usize };
        kinds.entry(place).or_default().insert(cpu);
    }
    // Cores outside the last-level cache are a kind of their own only beside others like them that share it.
    if !kinds.contains_key(&1)
        && let Some(outside) = kinds.remove(&2)
    {
        kinds.insert(1, outside);
    }
    let names = ["performance", "efficiency", "low-power"];
    Some(kinds.into_iter().filter_map(|(place, cpus)| Some((*names.get(place)?, cpus))).collect())
}

/// 0 for a Core, 1 for an Atom, 2 for an Atom without a third-level cache.
fn intel_kind(cpuid: Cpuid<'_>) -> Option<usize> {
    const ATOM: u32 = 0x20;
    if cpuid.leaf(0x1a, 0)?.eax >> 24 != ATOM {
        return Some(0);
    }
    Some(if caches::of(cpuid, 0).iter().any(|cache| cache.level == 3) { 1 } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    /// CPU 0 is a Core; of the Atoms those in `shared` use the third-level cache.
    fn machine(shared: &[u32]) -> Vec<(&'static str, BTreeSet<u32>)> {
        let mut host = Recording::new("");
        host.set(&Question::Cpuid { leaf: 0, subleaf: 0 }, Ok(Answer::text("1a 0 0 0")));
        host.set(&Question::Cpuid { leaf: 7, subleaf: 0 }, Ok(Answer::text("0 0 0 8000")));
        host.set(&Question::Cpuid { leaf: 0x1a, subleaf: 0 }, Ok(Answer::text("40000001 0 0 0")));
        for cpu in 0..3 {
            let kind = if cpu == 0 { "40000001 0 0 0" } else { "20000001 0 0 0" };
            host.set(&Question::CpuidOf { cpu, leaf: 0x1a, subleaf: 0 }, Ok(Answer::text(kind)));
            let level = if shared.contains(&cpu) { "1c03c163 2c0003f 3fff 0" } else { "1c004121 2c0003f 3f 0" };
            host.set(&Question::CpuidOf { cpu, leaf: 4, subleaf: 0 }, Ok(Answer::text(level)));
        }
        read(&host, &(0..3).collect()).unwrap()
    }

    #[test]
    fn atoms_outside_the_cache_are_slow_only_beside_others() {
        let set = |cpus: &[u32]| cpus.iter().copied().collect::<BTreeSet<u32>>();
        assert_eq!(machine(&[1]), [("performance", set(&[0])), ("efficiency", set(&[1])), ("low-power", set(&[2]))]);
        assert_eq!(machine(&[1, 2]), [("performance", set(&[0])), ("efficiency", set(&[1, 2]))]);
        assert_eq!(machine(&[]), [("performance", set(&[0])), ("efficiency", set(&[1, 2]))]);
        assert_eq!(read(&Recording::new(""), &set(&[0])), None);
    }
}
