//! The text of `/proc/cpuinfo`, which every architecture writes in its own way.

use crate::host::{Host, Question, Refusal, START};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// The file.
const PATH: &str = "/proc/cpuinfo";

/// `/proc/cpuinfo` as far as it is needed. On x86 the first CPU tells name and flags, and `/sys` the rest; the kernel writes the others,
/// 10 ms for 256, only where they are asked for.
pub(crate) struct CpuInfoFile<'a> {
    host: &'a dyn Host,
    first: CpuInfo,
    all: OnceCell<CpuInfo>,
}

impl<'a> CpuInfoFile<'a> {
    /// The file behind a host. Other architectures tell every CPU's kind there.
    pub(crate) fn read(host: &'a dyn Host, x86: bool) -> Self {
        let start = if x86 { host.text(&Question::Start(PATH.to_owned())) } else { Err(Refusal::NotRecorded) };
        match &start {
            Ok(text) if text.len() < START - PADDING => Self::of(host, parse(text)),
            Ok(text) if let Some(first) = first_cpu(text) => Self { host, first: parse(first), all: OnceCell::new() },
            Err(Refusal::TimedOut | Refusal::Denied) => Self::of(host, CpuInfo::default()),
            // A recording from elsewhere has the file as a whole only.
            _ => Self::of(host, host.read(PATH).map(|text| parse(&text)).unwrap_or_default()),
        }
    }

    /// A file that has been read as a whole.
    pub(crate) fn of(host: &'a dyn Host, info: CpuInfo) -> Self {
        Self { host, first: info.clone(), all: OnceCell::from(info) }
    }

    /// What the first CPU tells; of other architectures than x86 all of it.
    pub(crate) fn first(&self) -> &CpuInfo {
        &self.first
    }

    /// What all CPUs tell.
    pub(crate) fn all(&self) -> &CpuInfo {
        self.all.get_or_init(|| self.host.read(PATH).map_or_else(|_| self.first.clone(), |text| parse(&text)))
    }
}

/// White space at the end of a text is no part of an answer.
const PADDING: usize = 16;

/// The paragraph of the first CPU; `None` where it does not end.
fn first_cpu(start: &str) -> Option<&str> {
    start.get(..start.find("\n\n")?)
}

/// What `/proc/cpuinfo` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuInfo {
    /// Marketing name: x86 `model name`, POWER and SPARC `cpu`, MIPS `cpu model`.
    pub(crate) model: Option<String>,
    /// Flags (x86) or features (ARM) of the first CPU, words separated by blanks.
    pub(crate) flags: Option<String>,
    /// Main ID register of each ARM CPU that is listed.
    pub(crate) midr: BTreeMap<u32, Midr>,
    /// Package and core id of each x86 CPU that is listed.
    pub(crate) ids: BTreeMap<u32, (u32, u32)>,
    /// Number of CPUs that are listed.
    pub(crate) processors: u32,
}

/// Implementer and part of an ARM core; the parts of the main ID register that name a microarchitecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Midr {
    pub(crate) implementer: u32,
    pub(crate) part: u32,
}

impl Midr {
    /// From the register itself (`midr_el1`).
    pub(crate) fn from_register(register: u64) -> Self {
        Self { implementer: (register >> 24 & 0xff) as u32, part: (register >> 4 & 0xfff) as u32 }
    }

    /// The name of the core. Sources: Linux 6.12 arch/arm64/include/asm/cputype.h; Arm's technical reference manuals.
    pub(crate) fn name(self) -> String {
        let known = CORES.iter().find(|(implementer, part, _)| (*implementer, *part) == (self.implementer, self.part));
        known.map_or_else(|| format!("ARM core {:#04x}:{:#05x}", self.implementer, self.part), |(_, _, name)| (*name).to_owned())
    }
}

const CORES: [(u32, u32, &str); 43] = [
    (0x41, 0xc07, "Cortex-A7"),
    (0x41, 0xc09, "Cortex-A9"),
    (0x41, 0xc0f, "Cortex-A15"),
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd04, "Cortex-A35"),
    (0x41, 0xd05, "Cortex-A55"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd09, "Cortex-A73"),
    (0x41, 0xd0a, "Cortex-A75"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd0d, "Cortex-A77"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd41, "Cortex-A78"),
    (0x41, 0xd42, "Cortex-A78AE"),
    (0x41, 0xd44, "Cortex-X1"),
    (0x41, 0xd46, "Cortex-A510"),
    (0x41, 0xd47, "Cortex-A710"),
    (0x41, 0xd48, "Cortex-X2"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4b, "Cortex-A78C"),
    (0x41, 0xd4d, "Cortex-A715"),
    (0x41, 0xd4e, "Cortex-X3"),
    (0x41, 0xd4f, "Neoverse-V2"),
    (0x41, 0xd80, "Cortex-A520"),
    (0x41, 0xd81, "Cortex-A720"),
    (0x41, 0xd82, "Cortex-X4"),
    (0x41, 0xd83, "Neoverse-V3AE"),
    (0x41, 0xd84, "Neoverse-V3"),
    (0x41, 0xd85, "Cortex-X925"),
    (0x41, 0xd87, "Cortex-A725"),
    (0x41, 0xd8e, "Neoverse-N3"),
    (0x48, 0xd01, "Kunpeng 920"),
    (0x4e, 0x004, "NVIDIA Carmel"),
    (0x51, 0x001, "Oryon"),
    (0x61, 0x022, "Apple Icestorm (M1)"),
    (0x61, 0x023, "Apple Firestorm (M1)"),
    (0x61, 0x028, "Apple Icestorm (M1 Max)"),
    (0x61, 0x029, "Apple Firestorm (M1 Max)"),
    (0x61, 0x032, "Apple Blizzard (M2)"),
    (0x61, 0x033, "Apple Avalanche (M2)"),
    (0xc0, 0xac3, "AmpereOne"),
];

/// The facts in a text; lines that are not understood are passed over.
pub(crate) fn parse(text: &str) -> CpuInfo {
    let mut info = CpuInfo::default();
    let mut cpu = None;
    let (mut implementer, mut package, mut core) = (None, None, None);
    for line in text.lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let (field, value) = (field.trim(), value.trim());
        match field {
            "processor" => {
                if let Ok(number) = value.parse::<u32>() {
                    (cpu, implementer, package, core) = (Some(number), None, None, None);
                    info.processors = info.processors.saturating_add(1);
                }
            }
            "model name" | "cpu model" if info.model.is_none() => info.model = Some(value.to_owned()),
            // "cpu : POWER9, altivec supported"; SPARC and POWER only, other architectures have no such field.
            "cpu" if info.model.is_none() => info.model = value.split(',').next().map(|name| name.trim().to_owned()),
            "flags" | "Features" | "features" if info.flags.is_none() => info.flags = Some(value.to_owned()),
            "CPU implementer" => implementer = hexadecimal(value),
            "CPU part" => {
                if let (Some(cpu), Some(implementer), Some(part)) = (cpu, implementer, hexadecimal(value)) {
                    info.midr.insert(cpu, Midr { implementer, part });
                }
            }
            "physical id" => package = value.parse().ok(),
            "core id" => core = value.parse().ok(),
            _ => {}
        }
        if let (Some(cpu), Some(package), Some(core)) = (cpu, package, core) {
            info.ids.insert(cpu, (package, core));
        }
    }
    info.model = info.model.filter(|model| !model.is_empty() && model != "unknown");
    info
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_others_are_read_only_where_they_are_asked_for() {
        let cpu = |number: u32| {
            format!(
                "processor\t: {number}\nmodel name\t: Test\nphysical id\t: 0\ncore id\t\t: {number}\nflags\t\t:{}\n\n",
                " avx2".repeat(300)
            )
        };
        let text: String = (0..16).map(cpu).collect();
        let start = || Question::Start(PATH.into());
        let mut host = crate::Recording::new("");
        host.set(&start(), Ok(crate::Answer::text(&text[..START])));
        let file = CpuInfoFile::read(&host, true);
        assert_eq!((file.first().model.as_deref(), file.first().processors), (Some("Test"), 1));
        // Nothing better is known where the rest cannot be read.
        assert_eq!(file.all().processors, 1);
        host.set(&Question::Read(PATH.into()), Ok(crate::Answer::text(&*text)));
        assert_eq!(CpuInfoFile::read(&host, true).all().processors, 16);
        assert_eq!(CpuInfoFile::read(&host, false).first().processors, 16);
        // A short file is whole at once, and a file that hangs is not asked for again.
        host.set(&start(), Ok(crate::Answer::text(cpu(7))));
        assert_eq!(CpuInfoFile::read(&host, true).all().processors, 1);
        host.set(&start(), Err(Refusal::TimedOut));
        assert_eq!(CpuInfoFile::read(&host, true).all(), &CpuInfo::default());
    }

    #[test]
    fn x86() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC 7451 24-Core Processor\nphysical id\t: 0\ncore id\t\t: 4\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nphysical id\t: 1\ncore id\t\t: 4\nflags\t\t: fpu avx2\n";
        let info = parse(text);
        assert_eq!(info.model.as_deref(), Some("AMD EPYC 7451 24-Core Processor"));
        assert_eq!(info.flags.as_deref(), Some("fpu avx2"));
        assert_eq!(info.ids, BTreeMap::from([(0, (0, 4)), (1, (1, 4))]));
        assert_eq!(info.processors, 2);
    }

    #[test]
    fn arm_with_two_kinds() {
        let block = |cpu: u32, part: &str| {
            format!("processor\t: {cpu}\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n")
        };
        let info = parse(&(block(0, "0xd87") + &block(1, "0xd85")));
        assert_eq!(info.midr[&0].name(), "Cortex-A725");
        assert_eq!(info.midr[&1].name(), "Cortex-X925");
        assert_eq!(Midr::from_register(0x410f_d490).name(), "Neoverse-N2");
        assert_eq!(Midr { implementer: 0x99, part: 1 }.name(), "ARM core 0x99:0x001");
    }

    #[test]
    fn power() {
        assert_eq!(parse("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n").model.as_deref(), Some("POWER9"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(processor|core id|physical id|CPU part|CPU implementer|flags|x)?[\t ]{0,2}:?[ -~\n]{0,80}") {
            let _ = parse(&text);
        }
    }
}
