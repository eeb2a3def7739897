//! Everything that detection may ask of a machine, as questions and answers.
//!
//! [`Host`] has one method that matters, so a live machine, a recording, a recorder and a test double are equal, and
//! a recording is nothing but pairs of question and answer. A new platform adds a variant to [`Question`] and leaves
//! the trait, the recorder and the file format as they are.

mod macos;
mod windows;

pub use macos::{MacQuestion, MetalField, MetalQuestion};
pub use windows::{DxgiQuestion, WindowsQuestion};

use std::fmt;

/// Something that answers questions about one machine.
pub trait Host {
    /// Where the answers come from, for people: `live`, the path of a recording.
    fn origin(&self) -> String;

    /// A detection begins: what a host allows its drivers in all counts from here.
    fn begin(&self) {}

    /// The answer to one question.
    ///
    /// # Errors
    /// Why there is no answer. A refusal is knowledge too and is recorded like an answer.
    fn ask(&self, question: &Question) -> Result<Answer, Refusal>;
}

/// What [`Question::Start`] reads at most: room for the first of the CPUs in `/proc/cpuinfo`, whose lists of flags grow by the year.
pub const START: usize = 8 << 10;

/// One question about a machine. Its text form is its key in a recording.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Question {
    /// `os`: `linux`, `macos`, `windows`, `android`.
    Os,
    /// `arch`: `x86_64`, `aarch64`.
    Arch,
    /// `page-size`: bytes of a base page.
    PageSize,
    /// `affinity`: logical CPUs that the calling thread may run on, as a list such as `0-3,8`.
    Affinity,
    /// `env NAME`: a variable of the environment.
    Env(String),
    /// `read PATH`: the text of a file.
    Read(String),
    /// `start PATH`: the first [`START`] bytes of a file, for one that the kernel writes as it is read, some microseconds for each CPU.
    Start(String),
    /// `list PATH`: the names in a folder, sorted.
    List(String),
    /// `link PATH`: where a symbolic link points.
    Link(String),
    /// `cpuid LEAF SUBLEAF`: EAX, EBX, ECX, EDX as hexadecimal numbers, of the CPU that happens to run.
    Cpuid {
        /// EAX on entry.
        leaf: u32,
        /// ECX on entry.
        subleaf: u32,
    },
    /// `cpuid-of CPU LEAF SUBLEAF`: the same of one logical CPU; for what differs between CPUs, such as their place and kind.
    CpuidOf {
        /// Logical CPU number.
        cpu: u32,
        /// EAX on entry.
        leaf: u32,
        /// ECX on entry.
        subleaf: u32,
    },
    /// `xcr0`: the state that the system saves on a context switch, as a hexadecimal number.
    Xcr0,
    /// `amx-permission`: asks Linux for the use of AMX by this process; `granted`, or a refusal.
    AmxPermission,
    /// `bytes PATH`: the bytes of a file as hexadecimal digits.
    Bytes(String),
    /// `nvml ...`: a question to NVIDIA's management library.
    Nvml(NvmlQuestion),
    /// `vulkan`: the devices that Vulkan's loader finds, each as a paragraph of lines `NAME: VALUE` (see `ffi::vulkan`).
    Vulkan,
    /// `sysctl NAME`: a value of macOS's kernel. Numbers are decimal, several of them separated by spaces; `vm.swapusage` is three
    /// lines, `total: BYTES`, `used: BYTES` and `free: BYTES`.
    Sysctl(String),
    /// `mac ...`: a question to macOS.
    Mac(MacQuestion),
    /// `metal ...`: a question to Apple's interface to GPUs.
    Metal(MetalQuestion),
    /// `windows ...`: a question to Windows.
    Windows(WindowsQuestion),
    /// `registry PATH`: a value of Windows's registry under `HKEY_LOCAL_MACHINE`; the last part of the path is its name. Numbers are
    /// decimal.
    Registry(String),
    /// `registry-keys PATH`: the names of the keys in a key, sorted.
    RegistryKeys(String),
    /// `dxgi ...`: a question to Windows's interface to graphics adapters.
    Dxgi(DxgiQuestion),
}

/// A question to NVIDIA's management library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NvmlQuestion {
    /// `nvml driver`: version of the driver.
    Driver,
    /// `nvml count`: number of devices.
    Count,
    /// `nvml INDEX FIELD`: a property of one device.
    Device(u32, NvmlField),
    /// `nvml INDEX/SLOT FIELD`: a property of a part of a device that is split (MIG). Slots may be empty: [`Refusal::NotFound`].
    Slice(u32, u32, NvmlField),
}

impl NvmlQuestion {
    /// True for how much memory a device, or a part of one, has and has free.
    pub fn is_of_memory(&self) -> bool {
        matches!(
            self,
            Self::Device(_, NvmlField::MemoryTotal | NvmlField::MemoryFree)
                | Self::Slice(_, _, NvmlField::MemoryTotal | NvmlField::MemoryFree)
        )
    }
}

/// A property of an NVIDIA device. The names in parentheses are the library's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NvmlField {
    /// `name` (`nvmlDeviceGetName`).
    Name,
    /// `uuid` (`nvmlDeviceGetUUID`).
    Uuid,
    /// `pci-address` (`nvmlDeviceGetPciInfo_v3`), lower case, e.g. `0000:65:00.0`.
    PciAddress,
    /// `pci-id` (`nvmlDeviceGetPciInfo_v3`): vendor and device, e.g. `10de:2684`.
    PciId,
    /// `memory-total` (`nvmlDeviceGetMemoryInfo`) in bytes.
    MemoryTotal,
    /// `memory-free` (`nvmlDeviceGetMemoryInfo`) in bytes.
    MemoryFree,
    /// `compute-capability` (`nvmlDeviceGetCudaComputeCapability`), e.g. `8.9`.
    ComputeCapability,
    /// `mig` (`nvmlDeviceGetMigMode`): `0` off, `1` on.
    Mig,
    /// `mig-slots` (`nvmlDeviceGetMaxMigDeviceCount`): places for parts, taken or not.
    MigSlots,
    /// `pcie-generation` (`nvmlDeviceGetMaxPcieLinkGeneration`): highest of device and slot.
    PcieGeneration,
    /// `pcie-lanes` (`nvmlDeviceGetMaxPcieLinkWidth`).
    PcieLanes,
    /// `pcie-generation-now` (`nvmlDeviceGetCurrPcieLinkGeneration`).
    PcieGenerationNow,
    /// `pcie-lanes-now` (`nvmlDeviceGetCurrPcieLinkWidth`).
    PcieLanesNow,
    /// `memory-bus-bits` (`nvmlDeviceGetMemoryBusWidth`).
    MemoryBusBits,
    /// `memory-clock-mhz` (`nvmlDeviceGetMaxClockInfo`, memory).
    MemoryClockMhz,
    /// `sm-clock-mhz` (`nvmlDeviceGetMaxClockInfo`, multiprocessors).
    SmClockMhz,
    /// `cuda-cores` (`nvmlDeviceGetNumGpuCores`).
    CudaCores,
    /// `attributes` (`nvmlDeviceGetAttributes_v2`): multiprocessors, slices of the device, slices that compute, memory in MiB, e.g. `42 3 3 40192`.
    Attributes,
    /// `bar1` (`nvmlDeviceGetBAR1MemoryInfo`): bytes of memory that the host can address.
    Bar1,
    /// `power-limit-mw` (`nvmlDeviceGetEnforcedPowerLimit`).
    PowerLimit,
    /// `power-draw-mw` (`nvmlDeviceGetPowerUsage`).
    PowerDraw,
    /// `temperature-c` (`nvmlDeviceGetTemperature`).
    Temperature,
    /// `utilisation-percent` (`nvmlDeviceGetUtilizationRates`): of the time, in which it computed.
    Utilisation,
    /// `throttle-reasons` (`nvmlDeviceGetCurrentClocksThrottleReasons`): bits, hexadecimal.
    Throttle,
    /// `nvlinks` (`nvmlDeviceGetNvLinkState`, `...Version`, `...RemoteDeviceType`, `...RemotePciInfo_v2`): a line `LINK VERSION KIND ADDRESS` for each link that is up; the kind is `gpu`, `switch` or `other`.
    NvLinks,
}

impl NvmlField {
    /// Every field, in the order of a recording.
    pub const ALL: [Self; 25] = [
        Self::Name,
        Self::Uuid,
        Self::PciAddress,
        Self::PciId,
        Self::MemoryTotal,
        Self::MemoryFree,
        Self::ComputeCapability,
        Self::Mig,
        Self::MigSlots,
        Self::PcieGeneration,
        Self::PcieLanes,
        Self::PcieGenerationNow,
        Self::PcieLanesNow,
        Self::MemoryBusBits,
        Self::MemoryClockMhz,
        Self::SmClockMhz,
        Self::CudaCores,
        Self::Attributes,
        Self::Bar1,
        Self::PowerLimit,
        Self::PowerDraw,
        Self::Temperature,
        Self::Utilisation,
        Self::Throttle,
        Self::NvLinks,
    ];

    /// The name in a recording.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Uuid => "uuid",
            Self::PciAddress => "pci-address",
            Self::PciId => "pci-id",
            Self::MemoryTotal => "memory-total",
            Self::MemoryFree => "memory-free",
            Self::ComputeCapability => "compute-capability",
            Self::Mig => "mig",
            Self::MigSlots => "mig-slots",
            Self::PcieGeneration => "pcie-generation",
            Self::PcieLanes => "pcie-lanes",
            Self::PcieGenerationNow => "pcie-generation-now",
            Self::PcieLanesNow => "pcie-lanes-now",
            Self::MemoryBusBits => "memory-bus-bits",
            Self::MemoryClockMhz => "memory-clock-mhz",
            Self::SmClockMhz => "sm-clock-mhz",
            Self::CudaCores => "cuda-cores",
            Self::Attributes => "attributes",
            Self::Bar1 => "bar1",
            Self::PowerLimit => "power-limit-mw",
            Self::PowerDraw => "power-draw-mw",
            Self::Temperature => "temperature-c",
            Self::Utilisation => "utilisation-percent",
            Self::Throttle => "throttle-reasons",
            Self::NvLinks => "nvlinks",
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os => f.write_str("os"),
            Self::Arch => f.write_str("arch"),
            Self::PageSize => f.write_str("page-size"),
            Self::Affinity => f.write_str("affinity"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Read(path) => write!(f, "read {path}"),
            Self::Start(path) => write!(f, "start {path}"),
            Self::List(path) => write!(f, "list {path}"),
            Self::Link(path) => write!(f, "link {path}"),
            Self::Cpuid { leaf, subleaf } => write!(f, "cpuid {leaf:#x} {subleaf:#x}"),
            Self::CpuidOf { cpu, leaf, subleaf } => write!(f, "cpuid-of {cpu} {leaf:#x} {subleaf:#x}"),
            Self::Xcr0 => f.write_str("xcr0"),
            Self::AmxPermission => f.write_str("amx-permission"),
            Self::Bytes(path) => write!(f, "bytes {path}"),
            Self::Sysctl(name) => write!(f, "sysctl {name}"),
            Self::Mac(question) => write!(f, "mac {question}"),
            Self::Metal(question) => write!(f, "metal {question}"),
            Self::Windows(question) => write!(f, "windows {question}"),
            Self::Registry(path) => write!(f, "registry {path}"),
            Self::RegistryKeys(path) => write!(f, "registry-keys {path}"),
            Self::Dxgi(question) => write!(f, "dxgi {question}"),
            Self::Nvml(question) => write!(f, "nvml {question}"),
            Self::Vulkan => f.write_str("vulkan"),
        }
    }
}

impl fmt::Display for NvmlQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver => f.write_str("driver"),
            Self::Count => f.write_str("count"),
            Self::Device(index, field) => write!(f, "{index} {}", field.name()),
            Self::Slice(index, slot, field) => write!(f, "{index}/{slot} {}", field.name()),
        }
    }
}

/// The first words of all questions, to tell a typing error in a recording from a question.
pub(crate) const QUESTION_WORDS: [&str; 23] = [
    "os",
    "arch",
    "page-size",
    "affinity",
    "env",
    "read",
    "start",
    "list",
    "link",
    "cpuid",
    "cpuid-of",
    "xcr0",
    "amx-permission",
    "bytes",
    "nvml",
    "vulkan",
    "sysctl",
    "mac",
    "metal",
    "windows",
    "registry",
    "registry-keys",
    "dxgi",
];

/// What a host answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A text, without the white space and NUL bytes at its end.
    Text(String),
    /// Names in a folder, sorted.
    Names(Vec<String>),
}

impl Answer {
    /// A text answer. What ends it (new lines, the NUL bytes of some drivers) says nothing and is taken off.
    pub fn text(text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        text.truncate(text.trim_end_matches(|c: char| c == '\0' || c.is_ascii_whitespace()).len());
        Self::Text(text)
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The file, variable or library does not exist here.
    #[error("not found")]
    NotFound,
    /// The system does not let this user ask.
    #[error("permission denied")]
    Denied,
    /// This system, processor or driver cannot answer such a question.
    #[error("not supported")]
    NotSupported,
    /// No answer within the deadline.
    #[error("timed out")]
    TimedOut,
    /// The recording does not say.
    #[error("not recorded")]
    NotRecorded,
    /// Any other failure, in the words of the system.
    #[error("{0}")]
    Failed(String),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::NotFound,
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::Unsupported => Self::NotSupported,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl dyn Host + '_ {
    /// The answer as a text.
    ///
    /// # Errors
    /// The refusal; a list where a text was expected is [`Refusal::NotSupported`].
    pub fn text(&self, question: &Question) -> Result<String, Refusal> {
        match self.ask(question)? {
            Answer::Text(text) => Ok(text),
            Answer::Names(_) => Err(Refusal::NotSupported),
        }
    }

    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(&self, path: &str) -> Result<String, Refusal> {
        self.text(&Question::Read(path.to_owned()))
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// Why it cannot be listed.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Refusal> {
        match self.ask(&Question::List(path.to_owned()))? {
            Answer::Names(names) => Ok(names),
            Answer::Text(_) => Err(Refusal::NotSupported),
        }
    }

    /// A variable of the environment; `None` where it is not set.
    pub fn env(&self, name: &str) -> Option<String> {
        self.text(&Question::Env(name.to_owned())).ok()
    }

    /// A whole file that holds one number.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.read(path).ok()?.trim().parse().ok()
    }

    /// The names of the keys in a key of Windows's registry; none where it cannot be read.
    pub(crate) fn registry_keys(&self, path: &str) -> Vec<String> {
        match self.ask(&Question::RegistryKeys(path.to_owned())) {
            Ok(Answer::Names(names)) => names,
            _ => Vec::new(),
        }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// Why it cannot be read; [`Refusal::NotSupported`] where a recording holds something else than hexadecimal digits.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, Refusal> {
        let text = self.text(&Question::Bytes(path.to_owned()))?;
        from_hexadecimal(&text).ok_or(Refusal::NotSupported)
    }

    /// The registers after CPUID.
    ///
    /// # Errors
    /// [`Refusal::NotSupported`] where the processor has no such instruction or the answer is not four numbers.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> Result<Registers, Refusal> {
        self.registers(&Question::Cpuid { leaf, subleaf })
    }

    /// The registers after CPUID on one CPU; the question decides which.
    pub(crate) fn registers(&self, question: &Question) -> Result<Registers, Refusal> {
        let text = self.text(question)?;
        let mut words = text.split_whitespace().map(|word| u32::from_str_radix(word, 16));
        match (words.next(), words.next(), words.next(), words.next(), words.next()) {
            (Some(Ok(eax)), Some(Ok(ebx)), Some(Ok(ecx)), Some(Ok(edx)), None) => Ok(Registers { eax, ebx, ecx, edx }),
            _ => Err(Refusal::NotSupported),
        }
    }
}

/// Bytes as pairs of hexadecimal digits.
pub(crate) fn to_hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The bytes of such a text; `None` where it is another.
pub(crate) fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Four registers as CPUID leaves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x} {:08x} {:08x} {:08x}", self.eax, self.ebx, self.ecx, self.edx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_begins_with_a_word_that_recordings_know() {
        let questions = [
            Question::Os,
            Question::Arch,
            Question::PageSize,
            Question::Affinity,
            Question::Env("A".into()),
            Question::Read("/a".into()),
            Question::List("/a".into()),
            Question::Link("/a".into()),
            Question::Cpuid { leaf: 0x8000_0000, subleaf: 1 },
            Question::Start("/a".into()),
            Question::Xcr0,
            Question::CpuidOf { cpu: 1, leaf: 4, subleaf: 0 },
            Question::AmxPermission,
            Question::Bytes("/a".into()),
            Question::Nvml(NvmlQuestion::Device(0, NvmlField::Name)),
            Question::Sysctl("hw.memsize".into()),
            Question::Mac(MacQuestion::Memory),
            Question::Metal(MetalQuestion::Device(0, MetalField::WorkingSet)),
            Question::Windows(WindowsQuestion::PowerScheme),
            Question::Registry("A\\B".into()),
            Question::RegistryKeys("A".into()),
            Question::Dxgi(DxgiQuestion::Adapter(1)),
        ];
        for question in &questions {
            let text = question.to_string();
            assert!(QUESTION_WORDS.contains(&text.split(' ').next().unwrap()), "{text}");
        }
        assert_eq!(questions[8].to_string(), "cpuid 0x80000000 0x1");
        assert_eq!(questions[14].to_string(), "nvml 0 name");
        assert_eq!(questions[17].to_string(), "metal 0 working-set");
        assert_eq!(questions[21].to_string(), "dxgi 1");
    }

    #[test]
    fn padding_is_no_part_of_an_answer() {
        assert_eq!(Answer::text("1.6 GHz\n\0\0\0"), Answer::Text("1.6 GHz".into()));
        assert_eq!(Answer::text("\n"), Answer::Text(String::new()));
    }
}
