//! Where each CPU sits: cores, dies and packages from the bits of its APIC id.

use super::Cpuid;
use crate::detect::topology::Topology;
use crate::host::{Host, Registers};
use std::collections::{BTreeMap, BTreeSet};

/// Where cores are read here.
pub(crate) const SOURCE: &str = "CPUID of each CPU";

/// A processor names no more levels between thread and package.
const MOST_LEVELS: u32 = 8;

/// How to take a place out of an APIC id, and the leaf that holds the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    id: Id,
    /// Bits below the number of the core.
    core: u32,
    /// Bits below the number of the die; `None` where the processor does not tell dies.
    die: Option<u32>,
    /// Bits below the number of the package.
    package: u32,
    /// Threads of a core and of a package, as far as one CPU knows.
    threads: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    /// EDX of leaf 0x1F or 0xB.
    Extended(u32),
    /// EAX of AMD's leaf 0x8000001E.
    Amd,
    /// The upper byte of EBX of leaf 1.
    Initial,
}

impl Layout {
    fn of(cpuid: Cpuid<'_>) -> Option<Self> {
        let levels = |leaf| Self::levels(cpuid, leaf);
        let layout = levels(0x1f).or_else(|| levels(0xb)).or_else(|| Self::amd(cpuid)).or_else(|| Self::initial(cpuid))?;
        let die = layout.die.or_else(|| amd_die(cpuid, layout.package).map(|(bits, _)| bits));
        Some(Self { die, ..layout })
    }

    /// Leaves 0x1F and 0xB: a list of levels, each with the bits below the next.
    fn levels(cpuid: Cpuid<'_>, leaf: u32) -> Option<Self> {
        const THREAD: u32 = 1;
        const DIE: u32 = 5;
        let mut layout = Self { id: Id::Extended(leaf), core: 0, die: None, package: 0, threads: (1, 0) };
        for subleaf in 0..MOST_LEVELS {
            let registers = cpuid.leaf(leaf, subleaf).unwrap_or_default();
            let (kind, shift, threads) = (registers.ecx >> 8 & 0xff, registers.eax & 31, registers.ebx & 0xffff);
            if kind == 0 || threads == 0 {
                break;
            }
            if kind == THREAD {
                (layout.core, layout.threads.0) = (shift, threads);
            }
            if kind == DIE {
                layout.die = Some(layout.package);
            }
            (layout.package, layout.threads.1) = (shift, threads);
        }
        // Leaf 0x1F lists dies wherever a package has several.
        if leaf == 0x1f {
            layout.die = layout.die.or(Some(layout.package));
        }
        (layout.threads.1 > 0).then_some(layout)
    }

    fn amd(cpuid: Cpuid<'_>) -> Option<Self> {
        let size = cpuid.leaf(0x8000_0008, 0).filter(|_| cpuid.amd())?.ecx;
        let threads = (size & 0xff) + 1;
        let package = Some(size >> 12 & 15).filter(|bits| *bits > 0).unwrap_or_else(|| super::bits(threads));
        if !cpuid.topology_extensions() {
            return Some(Self { id: Id::Initial, core: 0, die: None, package, threads: (1, threads) });
        }
        let of_a_core = (cpuid.leaf(0x8000_001e, 0)?.ebx >> 8 & 0xff) + 1;
        Some(Self { id: Id::Amd, core: super::bits(of_a_core), die: None, package, threads: (of_a_core, threads) })
    }

    /// Leaves 1 and 4: room for this many threads in a package and cores in a package.
    fn initial(cpuid: Cpuid<'_>) -> Option<Self> {
        let first = cpuid.leaf(1, 0)?;
        let threads = if first.edx >> 28 & 1 == 1 { (first.ebx >> 16 & 0xff).max(1) } else { 1 };
        // A leaf that the processor has and that cannot be read is no sign of one core.
        let read = |leaf: u32| if cpuid.basic < leaf { Some(Registers::default()) } else { cpuid.leaf(leaf, 0) };
        let (caches, _) = (read(4)?, read(0xb)?);
        let cores = if caches.eax & 31 == 0 { 1 } else { (caches.eax >> 26) + 1 };
        let package = super::bits(threads);
        let core = package.saturating_sub(super::bits(cores));
        Some(Self { id: Id::Initial, core, die: None, package, threads: ((threads / cores).max(1), threads) })
    }

    fn id(self, cpuid: Cpuid<'_>) -> Option<u32> {
        match self.id {
            Id::Extended(leaf) => cpuid.leaf(leaf, 0).map(|registers| registers.edx),
            Id::Amd => cpuid.leaf(0x8000_001e, 0).map(|registers| registers.eax),
            Id::Initial => cpuid.leaf(1, 0).map(|registers| registers.ebx >> 24),
        }
    }
}

/// Bits of an APIC id below the number of the die on AMD's processors, and dies in a package of so many `package` bits. Leaf 0x80000026
/// (family 19h, model 10h and later) lists the levels, the third being the die; before, leaf 0x8000001E counts nodes, which are dies
/// where there are several.
pub(super) fn amd_die(cpuid: Cpuid<'_>, package: u32) -> Option<(u32, u32)> {
    const DIE: u32 = 3;
    const SOCKET: u32 = 4;
    if !cpuid.amd() {
        return None;
    }
    let levels: Vec<Registers> =
        (0..MOST_LEVELS).map_while(|subleaf| cpuid.leaf(0x8000_0026, subleaf)).take_while(|level| level.ebx & 0xffff > 0).collect();
    let level = |kind: u32| levels.iter().find(|level| level.ecx >> 8 & 0xff == kind);
    if let (Some(die), Some(socket)) = (level(DIE), level(SOCKET)) {
        return Some((die.eax & 31, (socket.ebx & 0xffff).div_ceil(die.ebx & 0xffff)));
    }
    let nodes = (cpuid.leaf(0x8000_001e, 0).filter(|_| cpuid.topology_extensions())?.ecx >> 8 & 7) + 1;
    // One node says nothing: since family 17h, model 30h, it is several dies.
    (nodes > 1).then(|| (package.saturating_sub(super::bits(nodes)), nodes))
}

/// Dies in the package of the CPU that answers, where it is AMD's and tells.
pub(super) fn dies_of_package(cpuid: Cpuid<'_>) -> Option<u32> {
    amd_die(cpuid, Layout::of(cpuid)?.package).map(|(_, dies)| dies)
}

/// The package of a CPU as that CPU knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Physical cores; `None` on a hybrid processor, where cores differ in threads.
    pub(super) cores: Option<u32>,
    pub(super) threads: u32,
    /// Threads of a core.
    pub(super) of_a_core: u32,
    /// Bits of the APIC id below the core's number.
    pub(super) core_bits: u32,
}

/// The package of the CPU that answers.
pub(super) fn package(cpuid: Cpuid<'_>) -> Option<Package> {
    let layout = Layout::of(cpuid)?;
    let (of_a_core, threads) = layout.threads;
    let cores = (!super::kinds::hybrid(cpuid)).then(|| threads.div_ceil(of_a_core.max(1)));
    Some(Package { cores, threads, of_a_core, core_bits: layout.core })
}

/// The places of some CPUs.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    layout: Layout,
    ids: BTreeMap<u32, u32>,
}

impl Places {
    /// Asks each of these CPUs; `None` where one does not answer or two claim the same place.
    pub(crate) fn read(host: &dyn Host, cpus: &BTreeSet<u32>) -> Option<Self> {
        let cpuid = Cpuid::new(host)?;
        let layout = Layout::of(cpuid.of(*cpus.first()?))?;
        let ids: BTreeMap<u32, u32> = cpus.iter().map(|&cpu| Some((cpu, layout.id(cpuid.of(cpu))?))).collect::<Option<_>>()?;
        let distinct: BTreeSet<u32> = ids.values().copied().collect();
        (distinct.len() == ids.len()).then_some(Self { layout, ids })
    }

    /// The CPUs that agree in their id above this many bits, by their first CPU.
    pub(super) fn sharing(&self, bits: u32) -> Vec<BTreeSet<u32>> {
        let mut groups: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (&cpu, &id) in &self.ids {
            groups.entry(id.checked_shr(bits).unwrap_or(0)).or_default().insert(cpu);
        }
        let mut groups: Vec<BTreeSet<u32>> = groups.into_values().collect();
        groups.sort_by_key(|group| group.first().copied());
        groups
    }

    /// Bits of a whole package.
    pub(super) fn package_bits(&self) -> u32 {
        self.layout.package
    }

    /// The machine that these CPUs form.
    pub(crate) fn topology(&self) -> Topology {
        Topology {
            cpus: self.ids.keys().copied().collect(),
            source: SOURCE,
            cores: self.sharing(self.layout.core),
            cores_source: Some(SOURCE),
            packages: self.sharing(self.layout.package),
            dies: self.layout.die.map(|bits| self.sharing(bits)).unwrap_or_default(),
            ..Topology::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Question, Recording};

    /// CPUs with leaf 0x1F of two threads, four cores and two dies in a package.
    fn machine(ids: &[u32]) -> Recording {
        let mut host = Recording::new("");
        host.set(&Question::Cpuid { leaf: 0, subleaf: 0 }, Ok(Answer::text("1f 0 0 0")));
        for (cpu, id) in ids.iter().enumerate() {
            let levels = ["1 2 100", "3 8 201", "4 10 502", "0 0 3"];
            for (subleaf, level) in levels.iter().enumerate() {
                let question = Question::CpuidOf { cpu: cpu as u32, leaf: 0x1f, subleaf: subleaf as u32 };
                host.set(&question, Ok(Answer::text(format!("{level} {id:x}"))));
            }
        }
        host
    }

    #[test]
    fn levels_split_the_id() {
        let ids = [0, 1, 2, 8, 16, 17];
        let places = Places::read(&machine(&ids), &(0..6).collect()).unwrap();
        let topology = places.topology();
        assert_eq!(topology.cores, [vec![0, 1], vec![2], vec![3], vec![4, 5]].map(|core| core.into_iter().collect()));
        assert_eq!((topology.dies().get(), topology.sockets().get()), (Some(3), Some(2)));
        assert_eq!(topology.sockets().source().as_str(), SOURCE);
    }

    #[test]
    fn a_cpu_that_does_not_answer_or_lies_ends_it() {
        assert!(Places::read(&machine(&[0, 1]), &(0..3).collect()).is_none());
        assert!(Places::read(&machine(&[0, 1, 1]), &(0..3).collect()).is_none());
        assert!(Places::read(&Recording::new(""), &(0..3).collect()).is_none());
    }
    fn amd(leaves: &[(u32, u32, &str)]) -> Recording {
        let mut host = Recording::new("");
        let always = [(0, 0, "1 68747541 444d4163 69746e65"), (0x8000_0001, 0, "0 0 400000 0")];
        for (leaf, subleaf, text) in always.iter().chain(leaves) {
            host.set(&Question::Cpuid { leaf: *leaf, subleaf: *subleaf }, Ok(Answer::text(*text)));
        }
        host
    }

    #[test]
    fn dies_of_amd_are_its_third_level_or_several_nodes() {
        let newer = "80000026 0 0 0";
        let dies = |leaves: &[(u32, u32, &str)]| amd_die(Cpuid::new(&amd(leaves)).unwrap(), 6);
        // EPYC 9654, Ryzen AI 9 HX 370 and EPYC 7451 as hwloc's dumps have them.
        let genoa = [(0, "1 2 100 0"), (1, "4 10 201 0"), (2, "4 10 302 0"), (3, "8 c0 403 0"), (4, "0 0 4 0")];
        let strix = [(0, "60000001 2 100 0"), (1, "c0000004 8 201 0"), (2, "40000005 18 302 0"), (3, "5 18 403 0"), (4, "0 0 4 0")];
        let listed = |levels: [(u32, &'static str); 5]| {
            let mut leaves = vec![(0x8000_0000, 0, newer)];
            leaves.extend(levels.map(|(subleaf, text)| (0x8000_0026, subleaf, text)));
            leaves
        };
        assert_eq!((dies(&listed(genoa)), dies(&listed(strix))), (Some((4, 12)), Some((5, 1))));
        let nodes = |text| dies(&[(0x8000_0000, 0, "8000001f 0 0 0"), (0x8000_001e, 0, text)]);
        assert_eq!((nodes("0 100 300 0"), nodes("0 100 0 0"), dies(&[(0x8000_0000, 0, "8000001f 0 0 0")])), (Some((4, 4)), None, None));
        assert_eq!(amd_die(Cpuid::new(&machine(&[0])).unwrap(), 6), None);
    }
}
