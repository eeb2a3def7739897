//! What the instruction CPUID says of x86 processors: for what the system's files leave out, and where there are none.
//!
//! Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.

mod caches;
mod kinds;
mod places;

use crate::host::{Host, Question, Registers};
pub(crate) use caches::read as caches;
pub(crate) use kinds::read as kinds;
pub(crate) use places::{Places, SOURCE};
use spec::Known;

/// Where facts come from that one CPU tells of its package.
pub(crate) const ONE: &str = "CPUID of one CPU, which knows its package only";

/// Where facts come from that the CPUs of this process tell: the machine may have others.
pub(crate) const PART: &str = "CPUID of the CPUs that this process may run on";

/// No more packages share the memory of a machine of today; the upper end where only one package is known.
const MOST_PACKAGES: u32 = 8;

/// CPUID of one CPU, or of the one that happens to run. Leaves past the highest are not asked: processors repeat another there.
#[derive(Clone, Copy)]
pub(crate) struct Cpuid<'a> {
    host: &'a dyn Host,
    cpu: Option<u32>,
    basic: u32,
    extended: u32,
}

impl<'a> Cpuid<'a> {
    /// `None` where there is no such instruction.
    pub(crate) fn new(host: &'a dyn Host) -> Option<Self> {
        let basic = host.cpuid(0, 0).ok()?.eax;
        let extended = host.cpuid(0x8000_0000, 0).map_or(0, |registers| registers.eax);
        Some(Self { host, cpu: None, basic, extended })
    }

    /// The same processor, another CPU.
    fn of(self, cpu: u32) -> Self {
        Self { cpu: Some(cpu), ..self }
    }

    /// The registers; `None` where the processor has no such leaf or the CPU cannot be asked.
    fn leaf(self, leaf: u32, subleaf: u32) -> Option<Registers> {
        if leaf > if leaf < 0x8000_0000 { self.basic } else { self.extended } {
            return None;
        }
        let question = self.cpu.map_or(Question::Cpuid { leaf, subleaf }, |cpu| Question::CpuidOf { cpu, leaf, subleaf });
        self.host.registers(&question).ok()
    }

    /// True for processors of AMD's kind.
    fn amd(self) -> bool {
        let name = self.leaf(0, 0).map(|name| [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes).concat());
        name.is_some_and(|name| [b"AuthenticAMD", b"HygonGenuine"].iter().any(|known| name == *known))
    }

    /// True where leaves 0x8000001D and 0x8000001E tell caches and place.
    fn topology_extensions(self) -> bool {
        self.amd() && self.leaf(0x8000_0001, 0).is_some_and(|registers| registers.ecx >> 22 & 1 == 1)
    }
}

/// The name that the processor gives itself: 48 characters in three leaves.
pub(crate) fn brand(host: &dyn Host) -> Option<String> {
    let cpuid = Cpuid::new(host)?;
    let mut bytes = Vec::new();
    for leaf in 0x8000_0002..=0x8000_0004 {
        let part = cpuid.leaf(leaf, 0)?;
        bytes.extend([part.eax, part.ebx, part.ecx, part.edx].into_iter().flat_map(u32::to_le_bytes));
    }
    let name = String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next()?).trim().to_owned();
    (!name.is_empty() && !name.contains(char::is_control)).then_some(name)
}

/// Base and highest frequency in Hz (leaf 0x16, whole MHz); `None` where the leaf is missing or empty, as in most guests.
pub(crate) fn frequencies(host: &dyn Host) -> (Option<u64>, Option<u64>) {
    let registers = Cpuid::new(host).and_then(|cpuid| cpuid.leaf(0x16, 0)).unwrap_or_default();
    let hz = |mhz: u32| Some(u64::from(mhz & 0xffff) * 1_000_000).filter(|hz| *hz > 0);
    (hz(registers.eax), hz(registers.ebx))
}

/// Cores and threads of the package of the CPU that answers, as the lower end of those of the machine; `None` where it does not say.
pub(crate) fn package(host: &dyn Host) -> Option<(Known<u32>, Known<u32>)> {
    let package = places::package(Cpuid::new(host)?)?;
    let estimate = |count: u32| Known::estimated(count, count, count.saturating_mul(MOST_PACKAGES), ONE);
    let cores = match package.cores {
        Some(cores) => estimate(cores),
        None => Known::unknown("one CPU of a hybrid processor does not know the cores of the other kinds"),
    };
    Some((cores, estimate(package.threads)))
}

/// Dies of this many packages, as AMD's processors tell them; for kernels that name no dies.
pub(crate) fn dies(host: &dyn Host, packages: u32) -> Option<Known<u32>> {
    let dies = places::dies_of_package(Cpuid::new(host)?)?;
    Some(Known::exact(dies.saturating_mul(packages), "CPUID leaves 0x80000026, 0x8000001E"))
}

/// A count over some CPUs as the lower end of that of the machine.
pub(crate) fn at_least(count: &Known<u32>) -> Known<u32> {
    match count.get() {
        Some(seen) => Known::estimated(seen, seen, seen.saturating_mul(MOST_PACKAGES), PART),
        None => count.clone(),
    }
}

/// The bits that hold this many numbers.
fn bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Recording};

    fn processor(leaves: &[(u32, &str)]) -> Recording {
        let mut host = Recording::new("");
        for (leaf, text) in leaves {
            host.set(&Question::Cpuid { leaf: *leaf, subleaf: 0 }, Ok(Answer::text(*text)));
        }
        host
    }

    #[test]
    fn the_name_is_padded_on_either_side() {
        let names = |words: [&str; 3]| {
            processor(&[
                (0, "1 0 0 0"),
                (0x8000_0000, "80000004 0 0 0"),
                (0x8000_0002, words[0]),
                (0x8000_0003, words[1]),
                (0x8000_0004, words[2]),
            ])
        };
        let zero = "0 0 0 0";
        assert_eq!(brand(&names(["20202020 65746e49 6f43206c 33206572", zero, "20202020 0 0 0"])).as_deref(), Some("Intel Core 3"));
        assert_eq!(brand(&names([zero, zero, zero])), None);
        assert_eq!(brand(&processor(&[(0, "1 0 0 0"), (0x8000_0000, "80000001 0 0 0")])), None);
    }

    #[test]
    fn an_empty_leaf_is_no_frequency() {
        let host = |text| processor(&[(0, "16 0 0 0"), (0x16, text)]);
        assert_eq!(frequencies(&host("898 1450 64 0")), (Some(2_200_000_000), Some(5_200_000_000)));
        assert_eq!(frequencies(&host("0 0 0 0")), (None, None));
        assert_eq!(frequencies(&processor(&[(0, "15 0 0 0")])), (None, None));
    }

    #[test]
    fn numbers_need_bits() {
        assert_eq!([0, 1, 2, 3, 4, 5, 1 << 14].map(bits), [0, 0, 1, 2, 2, 3, 14]);
    }
}
