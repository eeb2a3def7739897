//! A machine that one does not have, from a short description.

use spec::machine::{Conditions, Cpu, Facts, Free, Gpu, GpuKind, GpuVendor, Limits, Machine, Memory, NumaNode, Platform};
use spec::{Bytes, BytesPerSec, Known};
use std::collections::BTreeSet;

/// Every key, with what it takes; the order of the error message.
const KEYS: [(&str, &str); 10] = [
    ("ram", "memory of the host, e.g. 64GiB"),
    ("free", "memory of the host that is free, e.g. 60GiB"),
    ("swap", "swap space, e.g. 8GiB"),
    ("cores", "physical cores, e.g. 8"),
    ("threads", "hardware threads, e.g. 16"),
    ("bandwidth", "rate of the host's memory, e.g. 80GB/s"),
    ("gpu", "one GPU: [NAME:]SIZE[@RATE], e.g. RTX4090:24GiB@1008GB/s; once per GPU"),
    ("features", "instruction sets joined by +, e.g. avx2+avx512f"),
    ("arch", "x86_64 or aarch64"),
    ("os", "linux, macos, windows or android"),
];

const MAX_CPUS: u32 = 1 << 13;
const SOURCE: &str = "description";

/// What a fresh system leaves of its memory: the part that is free without `free=`, and its interval.
const FREE: f64 = 0.95;
const FREE_LOW: f64 = 0.85;

/// A description that describes no machine. Every message names the part and what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeMachineError {
    /// Nothing is described.
    #[error("the description is empty; write for example ram=64GiB,cores=8,gpu=24GiB")]
    Empty,
    /// A part without `=`.
    #[error("{part:?} is not KEY=VALUE; the keys are {}{}", keys(), meant(suggestion))]
    NoValue {
        /// The part.
        part: String,
        /// A part that may be meant.
        suggestion: Option<String>,
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

fn keys() -> String {
    KEYS.map(|(key, _)| key).join(", ")
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|text| format!("; did you mean {text}?")).unwrap_or_default()
}

/// The machine that a description such as `ram=64GiB,cores=8,gpu=24GiB,gpu=24GiB` describes.
///
/// | key | value | without it |
/// |---|---|---|
/// | `ram` | memory of the host | unknown |
/// | `free` | of which is free | estimated: 95 % of `ram` (85 to 100 %) |
/// | `swap` | swap space, all of it free | unknown |
/// | `cores` | physical cores | unknown |
/// | `threads` | hardware threads | estimated: `cores` (to twice as many); `cores` of them may be used |
/// | `bandwidth` | rate of the host's memory | unknown |
/// | `gpu` | `[NAME:]SIZE[@RATE]`, once per GPU: an NVIDIA card whose memory is all free; what is not given is unknown | no GPU |
/// | `features` | instruction sets | what every machine of the last ten years has, with a warning: `avx2+fma+f16c`, or `neon+dotprod` on aarch64 |
/// | `arch`, `os` | | `x86_64`, `linux` |
///
/// # Errors
/// [`DescribeMachineError`].
///
/// ```
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

/// What the parts of a description say.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    seen: BTreeSet<&'static str>,
    ram: Option<Bytes>,
    free: Option<Bytes>,
    swap: Option<Bytes>,
    cores: Option<u32>,
    threads: Option<u32>,
    bandwidth: Option<BytesPerSec>,
    gpus: Vec<Gpu>,
    features: Option<BTreeSet<String>>,
    arch: Option<&'static str>,
    os: Option<&'static str>,
}

impl Parts {
    fn read(&mut self, part: &str) -> Result<(), DescribeMachineError> {
        let Some((key, value)) = part.split_once('=') else {
            let suggestion = nearest(part).map(|key| format!("{key}="));
            return Err(DescribeMachineError::NoValue { part: part.to_owned(), suggestion });
        };
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
            "gpu" => self.gpus.push(gpu(value).map_err(wrong)?),
            "features" => {
                self.features =
                    Some(value.split('+').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect())
            }
            "arch" => self.arch = Some(one_of(value, &["x86_64", "aarch64"]).map_err(wrong)?),
            _ => self.os = Some(one_of(value, &["linux", "macos", "windows", "android"]).map_err(wrong)?),
        }
        Ok(())
    }

    fn machine(self, origin: &str) -> Result<Machine, DescribeMachineError> {
        self.check()?;
        let mut warnings = Vec::new();
        let arch = self.arch.unwrap_or("x86_64");
        let features = self.features.clone().unwrap_or_else(|| {
            let usual = if arch == "aarch64" { "neon+dotprod" } else { "avx2+fma+f16c" };
            warnings.push(format!("the description names no instruction sets: features={usual} assumed"));
            usual.split('+').map(str::to_owned).collect()
        });
        let not_said = "not in the description";
        let given = |bytes: Option<Bytes>| Known::from_option(bytes, SOURCE, not_said);
        let cpus: BTreeSet<u32> = (0..self.threads.or(self.cores).unwrap_or(0)).collect();
        let memory_total = given(self.ram);
        let n_gpus = self.gpus.len();
        Ok(Machine {
            origin: origin.to_owned(),
            limits: Limits {
                allowed_cpus: if cpus.is_empty() { Known::unknown(not_said) } else { Known::exact(cpus.clone(), SOURCE) },
                cpu_quota: Known::unknown("no control group sets a quota"),
                allowed_physical_cores: Known::from_option(self.cores, SOURCE, not_said),
                memory: Vec::new(),
                visible_gpus: (0..self.gpus.len()).collect(),
            },
            free: Free {
                memory: self.free_memory(),
                swap: given(self.swap),
                gpu_memory: self.gpus.iter().map(|gpu| gpu.memory_total.clone()).collect(),
            },
            facts: Facts {
                platform: Platform {
                    os: self.os.unwrap_or("linux").to_owned(),
                    arch: arch.to_owned(),
                    version: Known::unknown(not_said),
                    inside: Vec::new(),
                },
                cpu: Cpu {
                    physical_cores: Known::from_option(self.cores, SOURCE, not_said),
                    logical_cpus: self.logical_cpus(),
                    features,
                    memory_bandwidth: Known::from_option(self.bandwidth, SOURCE, not_said),
                    ..Cpu::unknown(not_said)
                },
                numa: vec![NumaNode { id: 0, cpus, memory: memory_total.clone(), distances: Vec::new(), of_gpu: false }],
                memory: Memory { total: memory_total, swap_total: given(self.swap), ..Memory::unknown(not_said) },
                gpus: self.gpus,
                npus: Vec::new(),
            },
            conditions: Conditions::unknown(n_gpus, not_said),
            warnings,
        })
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
        match (self.free, self.ram) {
            (Some(free), _) => Known::exact(free, SOURCE),
            (None, Some(ram)) => Known::estimated(ram.scale(FREE), ram.scale(FREE_LOW), ram, "description: 95 % of ram assumed free"),
            (None, None) => Known::unknown("not in the description"),
        }
    }

    fn logical_cpus(&self) -> Known<u32> {
        match (self.threads, self.cores) {
            (Some(threads), _) => Known::exact(threads, SOURCE),
            (None, Some(cores)) => Known::estimated(cores, cores, cores.saturating_mul(2), "description: one or two threads per core"),
            (None, None) => Known::unknown("not in the description"),
        }
    }
}

fn nearest(word: &str) -> Option<&'static str> {
    // Words that people use for these keys and that no count of letters brings near.
    const MEANT: [(&str, &str); 9] = [
        ("memory", "ram"),
        ("mem", "ram"),
        ("vram", "gpu"),
        ("cuda", "gpu"),
        ("cpus", "threads"),
        ("cpu", "cores"),
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
    let not_said = "not in the description";
    Ok(Gpu {
        name: Known::from_option(name, SOURCE, not_said),
        memory_total: Known::exact(memory, SOURCE),
        memory_bandwidth: Known::from_option(bandwidth, SOURCE, not_said),
        ..Gpu::unknown(GpuVendor::Nvidia, GpuKind::Discrete, not_said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_said_is_exact_and_the_rest_unknown() {
        let machine = describe("ram=64GiB, cores=8,gpu=24GiB,gpu=RTX4090:24GiB@1008GB/s").unwrap();
        assert_eq!(machine.facts.memory.total, Known::exact(Bytes::from_gib(64), "description"));
        assert_eq!((machine.effective_cores(), machine.effective_cpus()), (8, 8));
        assert!(machine.facts.cpu.memory_bandwidth.is_unknown() && machine.facts.memory.swap_total.is_unknown());
        assert!(!machine.free.memory.is_exact());
        assert_eq!(machine.effective_memory_available().get(), Some(Bytes::from_gib(64).scale(0.95)));
        let free: Vec<_> = machine.usable_gpus().map(|(_, gpu, free)| (gpu.name.value().cloned(), free.get())).collect();
        assert_eq!(free, [(None, Some(Bytes::from_gib(24))), (Some("RTX4090".to_owned()), Some(Bytes::from_gib(24)))]);
        assert_eq!(machine.facts.gpus[1].memory_bandwidth.get(), BytesPerSec::from_gb(1008.0));
        assert_eq!(machine.origin, "ram=64GiB, cores=8,gpu=24GiB,gpu=RTX4090:24GiB@1008GB/s");
    }

    #[test]
    fn every_key() {
        let machine =
            describe("ram=32GiB,free=30GiB,swap=0,cores=4,threads=8,bandwidth=80GB/s,features=AVX2+avx512f,arch=x86_64,os=windows")
                .unwrap();
        assert_eq!(machine.free.memory, Known::exact(Bytes::from_gib(30), "description"));
        assert_eq!(machine.free.swap.get(), Some(Bytes::ZERO));
        assert_eq!((machine.effective_cores(), machine.effective_cpus()), (4, 8));
        assert_eq!(machine.facts.cpu.features, ["avx2", "avx512f"].map(String::from).into());
        assert_eq!(machine.facts.platform.os, "windows");
        assert_eq!(machine.warnings, [""; 0]);
    }

    #[test]
    fn nothing_said_of_cores_is_nothing_known() {
        let machine = describe("gpu=8GiB").unwrap();
        assert!(machine.facts.cpu.physical_cores.is_unknown() && machine.limits.allowed_cpus.is_unknown());
        assert!(machine.free.memory.is_unknown());
        assert_eq!(describe("threads=6").unwrap().effective_cores(), 6);
    }

    #[test]
    fn errors_name_the_part_and_the_way_out() {
        let error = |text: &str| describe(text).unwrap_err().to_string();
        insta::assert_snapshot!(
            ["", "ram", "64GiB", "core=8", "vram=24GiB", "colour=red", "ram=64", "ram=64GiB,ram=32GiB", "cores=0", "cores=-1", "cores=99999999999", "gpu=big", "gpu=RTX4090:", "gpu=24GiB@fast", "arch=z80", "cores=8,threads=4", "ram=8GiB,free=9GiB", "bandwidth=0GB/s"]
                .map(|text| format!("{text}: {}", error(text))).join("\n"), @r#"
            : the description is empty; write for example ram=64GiB,cores=8,gpu=24GiB
            ram: "ram" is not KEY=VALUE; the keys are ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os; did you mean ram=?
            64GiB: "64GiB" is not KEY=VALUE; the keys are ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os
            core=8: no such key: "core"; the keys are ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os; did you mean cores?
            vram=24GiB: no such key: "vram"; the keys are ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os; did you mean gpu?
            colour=red: no such key: "colour"; the keys are ram, free, swap, cores, threads, bandwidth, gpu, features, arch, os
            ram=64: "ram=64": 64 B is too small; write the unit, e.g. 64GiB
            ram=64GiB,ram=32GiB: ram= stands twice; only gpu= may be repeated
            cores=0: "cores=0": not a number from 1 to 8192
            cores=-1: "cores=-1": not a number from 1 to 8192
            cores=99999999999: "cores=99999999999": not a number from 1 to 8192
            gpu=big: "gpu=big": not a size: "big"; write a number and B, KiB, MiB, GiB or TiB (KB, MB, GB, TB are powers of ten) (a GPU is [NAME:]SIZE[@RATE], e.g. RTX4090:24GiB@1008GB/s)
            gpu=RTX4090:: "gpu=RTX4090:": not a size: ""; write a number and B, KiB, MiB, GiB or TiB (KB, MB, GB, TB are powers of ten) (a GPU is [NAME:]SIZE[@RATE], e.g. RTX4090:24GiB@1008GB/s)
            gpu=24GiB@fast: "gpu=24GiB@fast": not a rate; write for example 80GB/s
            arch=z80: "arch=z80": must be x86_64 or aarch64
            cores=8,threads=4: "threads=4": fewer than cores=8
            ram=8GiB,free=9GiB: "free=9.00 GiB": more than ram=8.00 GiB
            bandwidth=0GB/s: "bandwidth=0GB/s": not a rate; write for example 80GB/s
            "#);
    }

    proptest! {
        #[test]
        fn any_text_is_a_machine_or_an_error(text in "((ram|free|swap|cores|threads|gpu|bandwidth|features|arch|x)=?[0-9a-zA-Z.:@/+-]{0,8},?){0,4}") {
            if let Ok(machine) = describe(&text) {
                prop_assert!(machine.effective_cpus() >= 1 && machine.effective_cores() >= 1);
                prop_assert_eq!(machine.facts.gpus.len(), machine.free.gpu_memory.len());
            }
        }
    }
}
