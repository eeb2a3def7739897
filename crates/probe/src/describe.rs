//! A machine that one does not have, from a short description.

mod named;

use hardware::{FindError, Processor};
use named::{Named, Part};
use spec::machine::{Conditions, CoreKind, Cpu, Facts, Free, Gpu, GpuKind, GpuVendor, Limits, Machine, Memory, NumaNode, Platform};
use spec::{Bytes, BytesPerSec, Known};
use std::collections::BTreeSet;

/// Every key, with what it takes; the order of the error message.
const KEYS: [(&str, &str); 11] = [
    ("cpu", "a processor by name, e.g. ryzen-9-7950x; epyc-9654x2 for two of them"),
    ("ram", "memory of the host, e.g. 64GiB"),
    ("free", "memory of the host that is free, e.g. 60GiB"),
    ("swap", "swap space, e.g. 8GiB"),
    ("cores", "physical cores, e.g. 8"),
    ("threads", "hardware threads, e.g. 16"),
    ("bandwidth", "rate of the host's memory, e.g. 80GB/s"),
    ("gpu", "one GPU: a name, e.g. rtx4090 (rtx4090x2 for two), or [NAME:]SIZE[@RATE], e.g. RTX4090:24GiB@1008GB/s; once per GPU"),
    ("features", "instruction sets joined by +, e.g. avx2+avx512f"),
    ("arch", "x86_64 or aarch64"),
    ("os", "linux, macos, windows or android"),
];

const MAX_CPUS: u32 = 1 << 13;
const SOURCE: &str = "description";
const NOT_SAID: &str = "not in the description";

/// What a fresh system leaves of its memory: the part that is free without `free=`, and its interval.
const FREE: f64 = 0.95;
const FREE_LOW: f64 = 0.85;

/// A description that describes no machine. Every message names the part and what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeMachineError {
    /// Nothing is described.
    #[error("the description is empty; write for example rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x or ram=64GiB,cores=8,gpu=24GiB")]
    Empty,
    /// A part without `=`.
    #[error("{part:?} is not KEY=VALUE; the keys are {}{}", keys(), meant(suggestion))]
    NoValue {
        /// The part.
        part: String,
        /// A part that may be meant.
        suggestion: Option<String>,
    },
    /// A name that stands for no hardware in the tables, or for several.
    #[error("{source}")]
    Name {
        /// What the tables say.
        source: FindError,
    },
    /// A name whose memory is open.
    #[error("{name} is sold with {}; write for example {part}-{}", sizes(choices), short(choices.first()))]
    Memory {
        /// The part.
        part: String,
        /// The product.
        name: String,
        /// The sizes that it is sold with.
        choices: Vec<Bytes>,
    },
    /// Two parts that are the whole machine each.
    #[error("{first} is a whole machine, and {second} stands beside it; describe one of them")]
    TwoMachines {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// A key that is none.
    #[error("no such key: {key:?}; the keys are {}{}", keys(), meant(suggestion))]
    UnknownKey {
        /// The key.
        key: String,
        /// The key nearest to it.
        suggestion: Option<String>,
    },
    /// A key that stands twice.
    #[error("{key}= stands twice; only gpu= may be repeated")]
    Twice {
        /// The key.
        key: String,
    },
    /// A value that cannot be.
    #[error("{part:?}: {problem}")]
    Value {
        /// The part.
        part: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

fn short(size: Option<&Bytes>) -> String {
    size.map_or_else(String::new, |size| format!("{}gb", size.as_gib()))
}

fn sizes(choices: &[Bytes]) -> String {
    choices.iter().map(|size| format!("{} GiB", size.as_gib())).collect::<Vec<_>>().join(", ")
}

fn keys() -> String {
    KEYS.map(|(key, _)| key).join(", ")
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|text| format!("; did you mean {text}?")).unwrap_or_default()
}

/// The machine that a description such as `rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x` or `ram=64GiB,cores=8,gpu=24GiB` describes.
///
/// A part without `=` is a name of the tables in crate `hardware`: an accelerator, `xN` behind it for several, a processor, or a module
/// that is a whole machine (`m3-max-40c-64gb`, `jetson-agx-orin-64gb`, `gb10`, `strix-halo 128GB`). What the tables say is exact or has an
/// interval, and `table row NAME` as its source.
///
/// | key | value | without it |
/// |---|---|---|
/// | `cpu` | a name of the tables, `xN` behind it for several packages | unknown |
/// | `ram` | memory of the host | unknown |
/// | `free` | of which is free | estimated: 95 % of `ram` (85 to 100 %) |
/// | `swap` | swap space, all of it free | unknown |
/// | `cores` | physical cores | unknown |
/// | `threads` | hardware threads | estimated: `cores` (to twice as many); `cores` of them may be used |
/// | `bandwidth` | rate of the host's memory | unknown |
/// | `gpu` | a name of the tables, or `[NAME:]SIZE[@RATE]`: an NVIDIA card whose memory is all free; what is not given is unknown; once per GPU | no GPU |
/// | `features` | instruction sets | what every machine of the last ten years has, with a warning: `avx2+fma+f16c`, or `neon+dotprod` on aarch64 |
/// | `arch`, `os` | | `x86_64`, `linux` |
///
/// # Errors
/// [`DescribeMachineError`].
///
/// ```
/// let machine = probe::describe("rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x")?;
/// assert_eq!((machine.facts.gpus.len(), machine.effective_cores()), (2, 16));
/// let machine = probe::describe("ram=64GiB,cores=8,gpu=24GiB@1008GB/s")?;
/// assert_eq!(machine.effective_cores(), 8);
/// assert!(machine.facts.gpus[0].compute_capability.is_unknown());
/// let error = probe::describe("ram=64GiB,core=8").unwrap_err();
/// assert!(error.to_string().ends_with("did you mean cores?"));
/// # Ok::<(), probe::DescribeMachineError>(())
/// ```
pub fn describe(text: &str) -> Result<Machine, DescribeMachineError> {
    let mut parts = Parts::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        parts.read(part)?;
    }
    if parts == Parts::default() {
        return Err(DescribeMachineError::Empty);
    }
    parts.machine(text.trim())
}

/// Whether the first part of a text without `=` is hardware of the tables, or near it: a description and not a file.
pub fn names_hardware(text: &str) -> bool {
    let first = text.split(',').next().unwrap_or("");
    match named::find(first) {
        Ok(_) | Err(FindError::Several { .. }) => true,
        Err(FindError::NotFound { nearest, .. }) => !nearest.is_empty() && first.chars().any(|letter| letter.is_ascii_digit()),
    }
}

/// A GPU of a description.
#[derive(Clone, Debug, PartialEq)]
enum Card {
    /// By its size: all of it is free.
    Sized(Box<Gpu>),
    /// By its name.
    Named(Part),
}

/// What the parts of a description say.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    seen: BTreeSet<&'static str>,
    cpu: Option<(&'static Processor, u32)>,
    module: Option<Part>,
    ram: Option<Bytes>,
    free: Option<Bytes>,
    swap: Option<Bytes>,
    cores: Option<u32>,
    threads: Option<u32>,
    bandwidth: Option<BytesPerSec>,
    gpus: Vec<Card>,
    features: Option<BTreeSet<String>>,
    arch: Option<&'static str>,
    os: Option<&'static str>,
}

impl Parts {
    fn read(&mut self, part: &str) -> Result<(), DescribeMachineError> {
        let Some((key, value)) = part.split_once('=') else { return self.read_name(part) };
        let (key, value) = (key.trim(), value.trim());
        let Some(&(key, _)) = KEYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) else {
            return Err(DescribeMachineError::UnknownKey { key: key.to_owned(), suggestion: nearest(key).map(str::to_owned) });
        };
        if !self.seen.insert(key) && key != "gpu" {
            return Err(DescribeMachineError::Twice { key: key.to_owned() });
        }
        let wrong = |problem: String| DescribeMachineError::Value { part: part.to_owned(), problem };
        match key {
            "ram" => self.ram = Some(size(value).map_err(wrong)?),
            "free" => self.free = Some(size(value).map_err(wrong)?),
            "swap" => self.swap = Some(value.parse::<Bytes>().map_err(|error| wrong(error.to_string()))?),
            "cores" => self.cores = Some(count(value).map_err(wrong)?),
            "threads" => self.threads = Some(count(value).map_err(wrong)?),
            "bandwidth" => self.bandwidth = Some(rate(value).map_err(wrong)?),
            "cpu" => match named::find(value) {
                Ok(Named::Processor(row, count)) => self.cpu = Some((row, count)),
                Ok(Named::Accelerator(part)) => return Err(wrong(format!("{} is no processor; write gpu={value}", part.row.name))),
                Err(source) => return Err(DescribeMachineError::Name { source: named::processor_error(value, source) }),
            },
            "gpu" => self.read_gpu(part, value)?,
            "features" => {
                self.features =
                    Some(value.split('+').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect())
            }
            "arch" => self.arch = Some(one_of(value, &["x86_64", "aarch64"]).map_err(wrong)?),
            _ => self.os = Some(one_of(value, &["linux", "macos", "windows", "android"]).map_err(wrong)?),
        }
        Ok(())
    }

    /// A part without `=`: something in the tables.
    fn read_name(&mut self, part: &str) -> Result<(), DescribeMachineError> {
        match named::find(part) {
            Ok(Named::Accelerator(found)) => self.take(found),
            Ok(Named::Processor(row, count)) => {
                if self.cpu.is_some() || !self.seen.insert("cpu") {
                    return Err(DescribeMachineError::Twice { key: "cpu".to_owned() });
                }
                self.cpu = Some((row, count));
                Ok(())
            }
            Err(FindError::NotFound { nearest: near, .. }) if near.is_empty() || nearest(part).is_some() => {
                let suggestion = nearest(part).map(|key| format!("{key}="));
                Err(DescribeMachineError::NoValue { part: part.to_owned(), suggestion })
            }
            Err(source) => Err(DescribeMachineError::Name { source }),
        }
    }

    fn read_gpu(&mut self, part: &str, value: &str) -> Result<(), DescribeMachineError> {
        let name = if value.contains([':', '@']) { None } else { Some(named::find(value)) };
        match (gpu(value), name) {
            (Ok(card), _) => self.gpus.push(Card::Sized(Box::new(card))),
            (Err(_), Some(Ok(Named::Accelerator(found)))) => return self.take(found),
            (Err(_), Some(Err(source @ FindError::Several { .. }))) => return Err(DescribeMachineError::Name { source }),
            (Err(_), Some(Err(source @ FindError::NotFound { .. }))) if named::looks_like_a_name(value, &source) => {
                return Err(DescribeMachineError::Name { source });
            }
            (Err(problem), _) => return Err(DescribeMachineError::Value { part: part.to_owned(), problem }),
        }
        Ok(())
    }

    fn take(&mut self, found: Part) -> Result<(), DescribeMachineError> {
        if !found.is_whole_machine() {
            self.gpus.extend(vec![Card::Named(Part { count: 1, ..found.clone() }); found.count as usize]);
            return Ok(());
        }
        if let Some(first) = &self.module {
            return Err(DescribeMachineError::TwoMachines { first: first.row.name.clone(), second: found.row.name.clone() });
        }
        if found.count > 1 {
            return Err(DescribeMachineError::TwoMachines {
                first: found.row.name.clone(),
                second: format!("{} of the same", found.count - 1),
            });
        }
        self.module = Some(found);
        Ok(())
    }

    fn machine(mut self, origin: &str) -> Result<Machine, DescribeMachineError> {
        self.fill_from_module()?;
        self.check()?;
        let mut warnings = Vec::new();
        let (arch, os) = (self.arch(), self.os());
        let features = self.features(arch, &mut warnings);
        let given = |bytes: Option<Bytes>| Known::from_option(bytes, SOURCE, NOT_SAID);
        let cpus: BTreeSet<u32> = (0..self.usable_threads()).collect();
        let (memory_total, memory_free) = (self.memory_total(), self.free_memory());
        let (gpus, gpu_memory) = self.gpus(&memory_total, &memory_free)?;
        let n_gpus = gpus.len();
        Ok(Machine {
            origin: origin.to_owned(),
            limits: Limits {
                allowed_cpus: if cpus.is_empty() { Known::unknown(NOT_SAID) } else { Known::exact(cpus.clone(), SOURCE) },
                cpu_quota: Known::unknown("no control group sets a quota"),
                allowed_physical_cores: self.physical_cores(),
                memory: Vec::new(),
                visible_gpus: (0..n_gpus).collect(),
            },
            free: Free { memory: memory_free, swap: given(self.swap), gpu_memory },
            facts: Facts {
                platform: Platform { os: os.to_owned(), arch: arch.to_owned(), version: Known::unknown(NOT_SAID), inside: Vec::new() },
                cpu: self.processor(features),
                numa: vec![NumaNode { id: 0, cpus, memory: memory_total.clone(), distances: Vec::new(), of_gpu: false }],
                memory: Memory { total: memory_total, swap_total: given(self.swap), ..Memory::unknown(NOT_SAID) },
                gpus,
                npus: Vec::new(),
            },
            conditions: Conditions::unknown(n_gpus, NOT_SAID),
            warnings,
        })
    }

    /// What a module is beside its GPU: processor and memory.
    fn fill_from_module(&mut self) -> Result<(), DescribeMachineError> {
        let Some(module) = &self.module else { return Ok(()) };
        if let Some(Card::Named(Part { row, .. })) = self.gpus.iter().find(|card| matches!(card, Card::Named(part) if part.row.unified)) {
            return Err(DescribeMachineError::TwoMachines { first: module.row.name.clone(), second: row.name.clone() });
        }
        if self.cpu.is_none() {
            self.cpu = module.processor();
        }
        if self.ram.is_none() && module.memory.is_none() {
            let choices = module.row.memory.clone();
            return Err(DescribeMachineError::Memory { part: module.asked.clone(), name: module.row.name.clone(), choices });
        }
        Ok(())
    }

    fn arch(&self) -> &'static str {
        self.arch.or_else(|| self.cpu.map(|(row, _)| row.arch())).unwrap_or("x86_64")
    }

    fn os(&self) -> &'static str {
        let apple = self.cpu.is_some_and(|(row, _)| row.vendor == "Apple");
        self.os.unwrap_or(if apple { "macos" } else { "linux" })
    }

    fn features(&self, arch: &str, warnings: &mut Vec<String>) -> BTreeSet<String> {
        if let Some(features) = &self.features {
            return features.clone();
        }
        if let Some((row, _)) = self.cpu.filter(|(row, _)| !row.features.is_empty()) {
            return row.features.clone();
        }
        let usual = if arch == "aarch64" { "neon+dotprod" } else { "avx2+fma+f16c" };
        warnings.push(format!("the description names no instruction sets: features={usual} assumed"));
        usual.split('+').map(str::to_owned).collect()
    }

    /// Threads that may be used: those said, else as many as cores are said, else those of the processor.
    fn usable_threads(&self) -> u32 {
        let of_row = self.cpu.map(|(row, count)| row.threads.saturating_mul(count));
        self.threads.or(self.cores).or(of_row).unwrap_or(0).min(MAX_CPUS)
    }

    fn physical_cores(&self) -> Known<u32> {
        match (self.cores, self.cpu) {
            (Some(cores), _) => Known::exact(cores, SOURCE),
            (None, Some((row, count))) => Known::exact(row.cores().saturating_mul(count), named::processor_source(row)),
            (None, None) => Known::unknown(NOT_SAID),
        }
    }

    fn processor(&self, features: BTreeSet<String>) -> Cpu {
        let row = self.cpu;
        let bandwidth = match (self.bandwidth, &self.module, row) {
            (Some(rate), ..) => Known::exact(rate, SOURCE),
            (None, Some(module), _) => hardware::figures::bandwidth(&[module.row]),
            (None, None, Some((row, count))) => hardware::figures::processor_bandwidth(row, count),
            (None, None, None) => Known::unknown(NOT_SAID),
        };
        Cpu {
            model: row.map_or(Known::unknown(NOT_SAID), |(row, _)| Known::exact(row.name.clone(), named::processor_source(row))),
            sockets: row.map_or(Known::unknown(NOT_SAID), |(_, count)| Known::exact(count, SOURCE)),
            physical_cores: self.physical_cores(),
            logical_cpus: self.logical_cpus(),
            core_kinds: if self.cores.is_none() && self.threads.is_none() { row.map_or(Vec::new(), core_kinds) } else { Vec::new() },
            features,
            memory_bandwidth: bandwidth,
            ..Cpu::unknown(NOT_SAID)
        }
    }

    /// The memory of the host: as said, or what the system shows of a module's.
    fn memory_total(&self) -> Known<Bytes> {
        match (self.ram, &self.module) {
            (Some(ram), _) => Known::exact(ram, SOURCE),
            (None, Some(module)) => module.host_memory(),
            (None, None) => Known::unknown(NOT_SAID),
        }
    }

    /// The GPUs with what is free on each.
    fn gpus(&self, total: &Known<Bytes>, free: &Known<Bytes>) -> Result<(Vec<Gpu>, Vec<Known<Bytes>>), DescribeMachineError> {
        let mut gpus = Vec::new();
        if let Some(module) = &self.module {
            gpus.push(module.gpu_of_the_module(total, free));
        }
        for card in &self.gpus {
            gpus.push(match card {
                Card::Sized(gpu) => ((**gpu).clone(), gpu.memory_total.clone()),
                Card::Named(part) => part.card(total, free, self.cpu)?,
            });
        }
        Ok(gpus.into_iter().unzip())
    }

    /// What each part allows alone and two of them do not together.
    fn check(&self) -> Result<(), DescribeMachineError> {
        let wrong = |part: String, problem: String| Err(DescribeMachineError::Value { part, problem });
        match (self.free, self.ram) {
            (Some(free), Some(ram)) if free > ram => return wrong(format!("free={free}"), format!("more than ram={ram}")),
            (Some(free), None) => return wrong(format!("free={free}"), "ram= is missing beside it".to_owned()),
            _ => {}
        }
        match (self.threads, self.cores) {
            (Some(threads), Some(cores)) if threads < cores => wrong(format!("threads={threads}"), format!("fewer than cores={cores}")),
            _ => Ok(()),
        }
    }

    fn free_memory(&self) -> Known<Bytes> {
        let total = self.memory_total();
        match (self.free, total.get(), total.low(), total.high()) {
            (Some(free), ..) => Known::exact(free, SOURCE),
            (None, Some(ram), Some(low), Some(high)) => {
                Known::estimated(ram.scale(FREE), low.scale(FREE_LOW), *high, "description: 95 % of ram assumed free")
            }
            _ => Known::unknown(NOT_SAID),
        }
    }

    fn logical_cpus(&self) -> Known<u32> {
        match (self.threads, self.cores, self.cpu) {
            (Some(threads), ..) => Known::exact(threads, SOURCE),
            (None, Some(cores), _) => Known::estimated(cores, cores, cores.saturating_mul(2), "description: one or two threads per core"),
            (None, None, Some((row, count))) => Known::exact(row.threads.saturating_mul(count), named::processor_source(row)),
            (None, None, None) => Known::unknown(NOT_SAID),
        }
    }
}

/// Kinds of core of a hybrid processor, numbered as systems do: threads of performance cores first. One kind of a uniform one.
fn core_kinds((row, count): (&Processor, u32)) -> Vec<CoreKind> {
    let slow = row.efficiency_cores.saturating_add(row.low_power_cores);
    let per_core = row.threads.saturating_sub(slow).checked_div(row.performance_cores).unwrap_or(1).max(1);
    let kinds =
        [("performance", row.performance_cores, per_core), ("efficiency", row.efficiency_cores, 1), ("low-power", row.low_power_cores, 1)];
    let mut next = 0;
    let mut found = Vec::new();
    for (name, cores, threads) in kinds.into_iter().filter(|&(_, cores, _)| cores > 0) {
        let cores = cores.saturating_mul(count);
        let end = cores.saturating_mul(threads).saturating_add(next).min(MAX_CPUS);
        found.push(CoreKind { name: name.to_owned(), cpus: (next..end).collect(), physical_cores: cores });
        next = end;
    }
    found
}

fn nearest(word: &str) -> Option<&'static str> {
    // Words that people use for these keys and that no count of letters brings near.
    const MEANT: [(&str, &str); 9] = [
        ("memory", "ram"),
        ("mem", "ram"),
        ("vram", "gpu"),
        ("cuda", "gpu"),
        ("cpus", "threads"),
        ("processor", "cpu"),
        ("available", "free"),
        ("simd", "features"),
        ("bw", "bandwidth"),
    ];
    let word = word.to_ascii_lowercase();
    if let Some((_, key)) = MEANT.iter().find(|(name, _)| *name == word) {
        return Some(key);
    }
    let distance = |key: &str| strsim::damerau_levenshtein(&word, key);
    KEYS.iter().map(|(key, _)| *key).min_by_key(|key| distance(key)).filter(|key| distance(key) <= 2)
}

fn size(text: &str) -> Result<Bytes, String> {
    let bytes: Bytes = text.parse().map_err(|error: spec::units::ParseBytesError| error.to_string())?;
    // A bare number is bytes, which nobody means here: `ram=64` is 64 GiB with the unit forgotten.
    if bytes < Bytes::from_mib(1) { Err(format!("{bytes} is too small; write the unit, e.g. 64GiB")) } else { Ok(bytes) }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| (1..=MAX_CPUS).contains(count)).ok_or_else(|| format!("not a number from 1 to {MAX_CPUS}"))
}

/// `1008GB/s`, `80GB` or `1.8TB/s`.
fn rate(text: &str) -> Result<BytesPerSec, String> {
    let size = text.trim().trim_end_matches("/s").trim_end_matches("ps");
    let bytes = size.parse::<Bytes>().ok().filter(|bytes| *bytes >= Bytes::from_mib(1));
    bytes.and_then(|bytes| BytesPerSec::new(bytes.as_f64())).ok_or_else(|| "not a rate; write for example 80GB/s".to_owned())
}

fn one_of(text: &str, choices: &[&'static str]) -> Result<&'static str, String> {
    choices.iter().find(|choice| choice.eq_ignore_ascii_case(text)).copied().ok_or_else(|| format!("must be {}", choices.join(" or ")))
}

/// `[NAME:]SIZE[@RATE]`.
fn gpu(text: &str) -> Result<Gpu, String> {
    let (text, bandwidth) = match text.split_once('@') {
        Some((before, after)) => (before, Some(rate(after)?)),
        None => (text, None),
    };
    let (name, memory) = match text.rsplit_once(':') {
        Some((name, memory)) => (Some(name.trim().to_owned()).filter(|name| !name.is_empty()), memory),
        None => (None, text),
    };
    let memory = size(memory).map_err(|problem| format!("{problem} (a GPU is [NAME:]SIZE[@RATE], e.g. RTX4090:24GiB@1008GB/s)"))?;
    Ok(Gpu {
        name: Known::from_option(name, SOURCE, NOT_SAID),
        memory_total: Known::exact(memory, SOURCE),
        memory_bandwidth: Known::from_option(bandwidth, SOURCE, NOT_SAID),
        ..Gpu::unknown(GpuVendor::Nvidia, GpuKind::Discrete, NOT_SAID)
    })
}

#[cfg(test)]
mod tests;
