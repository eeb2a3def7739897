//! The device that a table names: looked up in the tables of hardware.

use crate::row::Measurement;
use hardware::{Accelerator, Build, FindError, Processor, Tables};
use roofline::{Class, Device};
use spec::machine::GpuVendor;

/// What the tables say of a device, beside its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The device.
    pub device: Device,
    /// Bytes of its own memory; `None` where it shares the host's or sizes differ.
    pub memory: Option<f64>,
    /// Watts that its maker gives it.
    pub watts: Option<f64>,
    /// The row of the tables; `None` where only what the measurement says is known.
    pub row: Option<String>,
}

/// Words that tables of measurements put around a name.
fn cleaned(name: &str) -> String {
    let name = name.split(" (").next().unwrap_or(name);
    let mut words: Vec<&str> = Vec::new();
    for word in name.split_whitespace() {
        let digit = word.starts_with(|letter: char| letter.is_ascii_digit());
        // `Apple M4 M4 Pro` names the chip twice.
        if words.contains(&word) || (digit && word.ends_with("GB")) || word == "ECO" {
            continue;
        }
        words.push(word);
    }
    words.join(" ")
}

/// The row that a name stands for; of several the one whose bandwidth is nearest, with most units among equals.
fn accelerator(name: &str, bandwidth: Option<f64>) -> Option<&'static Accelerator> {
    let tables = Tables::built_in();
    let asked = [name.to_owned(), cleaned(name)];
    for text in asked {
        match tables.accelerator(&text) {
            Ok(choice) => return Some(choice.row),
            Err(FindError::Several { candidates, .. }) => {
                let off = |row: &Accelerator| match (row.bandwidth, bandwidth) {
                    (Some(have), Some(want)) => (have.get() / want).ln().abs(),
                    _ => 9.0,
                };
                let rows = tables.accelerators().iter().filter(|row| candidates.contains(&row.title()));
                let best = rows.min_by(|a, b| off(a).total_cmp(&off(b)).then(b.units.cmp(&a.units)));
                if best.is_some() {
                    return best;
                }
            }
            Err(FindError::NotFound { .. }) => {}
        }
    }
    None
}

/// Market variants are one generation: `ada-geforce` is `ada`.
fn generation(row: &Accelerator) -> String {
    let name = row.architecture.split('-').next().unwrap_or("").to_owned();
    match row.architecture.as_str() {
        // Libraries of ROCm were not tuned for it when they were for RDNA 3.
        _ if row.instruction_set.as_deref().is_some_and(|target| target.starts_with("gfx115")) => "rdna3.5".to_owned(),
        "pascal-gp100" | "ampere-ga100" | "turing-gtx" | "xe-hpg" | "xe-hpc" | "xe-lp" | "xe-lpg" => row.architecture.clone(),
        _ => name,
    }
}

fn class(row: &Accelerator) -> Class {
    let hbm = row.memory_type.as_deref().is_some_and(|kind| kind.starts_with("HBM"));
    match (row.vendor, row.unified, hbm) {
        (GpuVendor::Nvidia, true, _) => Class::NvidiaUnified,
        (GpuVendor::Nvidia, _, true) => Class::NvidiaHbm,
        (GpuVendor::Amd, true, _) => Class::AmdUnified,
        (GpuVendor::Amd, _, true) if row.architecture.starts_with("cdna") => Class::AmdHbm,
        (GpuVendor::Amd, ..) => Class::AmdGddr,
        (GpuVendor::Apple, ..) => Class::Apple,
        (GpuVendor::Intel, true, _) => Class::IntelUnified,
        (GpuVendor::Intel, ..) => Class::Intel,
        _ if row.unified || row.build == Build::Integrated => Class::IntelUnified,
        _ => Class::NvidiaGddr,
    }
}

/// Vector operations of a unit per clock. NVIDIA's multiprocessors have 128 lanes but for those of Volta, Turing and GP100 with 64;
/// AMD's compute units 64, Apple's cores and Intel's Xe cores 128.
fn lanes(row: &Accelerator) -> f64 {
    match row.vendor {
        GpuVendor::Nvidia if ["volta", "turing", "pascal-gp100", "ampere-ga100"].iter().any(|name| row.architecture.starts_with(name)) => {
            128.0
        }
        GpuVendor::Amd => 128.0,
        _ => 256.0,
    }
}

/// What is left for data of a bandwidth that a measurement states, or of that of the row: tables of measurements state the maker's.
fn data_bandwidth(row: &Accelerator, stated: Option<f64>) -> Option<f64> {
    let (peak, data) = (row.bandwidth.map(|rate| rate.get()), row.data_bandwidth().map(|rate| rate.get()));
    match (stated, peak.zip(data)) {
        (Some(stated), Some((peak, data))) => Some(stated * data / peak),
        (stated, _) => stated.or(data),
    }
}

fn of_accelerator(row: &Accelerator, bandwidth: Option<f64>) -> Option<Found> {
    let architecture = Tables::built_in().architecture(row);
    let lanes = lanes(row);
    let matrix = architecture.and_then(|row| row.int8.or(row.fp16)).map_or(1.0, |rate| rate / lanes);
    let vector = row.units.zip(row.boost_mhz).map(|(units, mhz)| f64::from(units) * f64::from(mhz) * 1e6 * lanes);
    let device = Device {
        class: class(row),
        generation: Some(generation(row)),
        bandwidth: data_bandwidth(row, bandwidth)?,
        vector,
        matrix,
        watts: row.power_watts.map(f64::from).filter(|_| !row.unified),
        identity: None,
    };
    let memory = row.memory.iter().map(|size| size.as_f64()).max_by(f64::total_cmp).filter(|_| !row.unified);
    Some(Found { device, memory, watts: row.power_watts.map(f64::from), row: Some(row.title()) })
}

/// Instruction sets from wide to narrow, and elements of 4 bytes that one core multiplies and adds per clock, as operations.
const SETS: [(&str, &str, f64); 5] =
    [("avx512_vnni", "avx512", 64.0), ("avx512f", "avx512", 64.0), ("avx2", "avx2", 32.0), ("avx", "avx", 16.0), ("asimddp", "neon", 16.0)];

/// Usual clock of processors with all cores at work.
const CLOCK: f64 = 3.2e9;

fn of_processor(row: Option<&Processor>, bandwidth: Option<f64>, threads: Option<f64>, name: &str) -> Option<Found> {
    let bandwidth = bandwidth.or(row.and_then(|row| row.bandwidth).map(|rate| rate.get()))?;
    // Compilers' names of targets stand behind the name in some tables: `(znver4)`.
    let target = name.rsplit_once('(').map_or("", |(_, target)| target.trim_end_matches(')'));
    let by_target = match target {
        "znver4" | "znver5" | "skylake-avx512" | "rocketlake" | "tigerlake" | "icelake-server" | "sapphirerapids" | "cascadelake" => {
            Some("avx512")
        }
        "znver1" | "znver2" | "znver3" | "alderlake" | "haswell" | "broadwell" | "skylake" | "arrowlake-s" => Some("avx2"),
        "sandybridge" | "ivybridge" | "bdver2" | "btver2" => Some("avx"),
        "nehalem" | "westmere" | "amdfam10" | "penryn" => Some("sse"),
        _ => None,
    };
    let set = row.and_then(|row| SETS.iter().find(|(feature, ..)| row.features.contains(*feature)));
    let generation = set.map(|(_, name, _)| *name).or(by_target).or(row.filter(|row| row.arch() == "aarch64").map(|_| "neon"));
    let per_clock = SETS.iter().find(|(_, name, _)| Some(*name) == generation).map_or(16.0, |(.., lanes)| *lanes);
    let cores = row.map(|row| f64::from(row.performance_cores) + 0.5 * f64::from(row.efficiency_cores.saturating_add(row.low_power_cores)));
    let cores = match (cores.filter(|&cores| cores > 0.0), threads) {
        (Some(cores), Some(threads)) => Some(cores.min(threads)),
        (cores, threads) => cores.or(threads),
    };
    let vector = cores.map(|cores| cores * CLOCK * per_clock);
    let device = Device {
        class: Class::Cpu,
        generation: generation.map(str::to_owned),
        bandwidth,
        vector,
        matrix: 1.0,
        watts: None,
        identity: None,
    };
    Some(Found { device, memory: None, watts: None, row: row.map(|row| row.name.clone()) })
}

/// The host of a row on which a GPU ran: its processor where the row names it, otherwise one with two channels of DDR4.
pub(crate) fn host(row: &Measurement) -> Device {
    const USUAL: f64 = 50e9;
    let name = row.text("system_cpu").unwrap_or("");
    let tables = Tables::built_in();
    let processor = tables.processor(name).or_else(|_| tables.processor(&cleaned(name))).ok();
    let found = of_processor(processor, None, None, name).or_else(|| of_processor(processor, Some(USUAL), None, name));
    let usual = Device {
        class: Class::Cpu,
        generation: Some("avx2".to_owned()),
        bandwidth: USUAL,
        vector: None,
        matrix: 1.0,
        watts: None,
        identity: None,
    };
    found.map_or(usual, |found| found.device)
}

/// The generation that words in a name tell, of devices that are in no table.
fn family(name: &str) -> Option<&'static str> {
    const WORDS: [(&str, &str); 12] = [
        ("meteor lake", "xe-lpg"),
        ("iris xe", "xe-lp"),
        ("flex", "xe-hpg"),
        ("arc a", "xe-hpg"),
        ("arc pro a", "xe-hpg"),
        ("arc b", "xe2"),
        ("arc pro b", "xe2"),
        ("max 1", "xe-hpc"),
        ("rtx 50", "blackwell"),
        ("rtx 40", "ada"),
        ("rtx 30", "ampere"),
        ("radeon rx 7", "rdna3"),
    ];
    let name = name.to_lowercase();
    WORDS.into_iter().find(|(words, _)| name.contains(words)).map(|(_, generation)| generation)
}

/// The device of a row of measurements: what the row says of its bandwidth counts before the tables.
///
/// # Errors
/// What is missing, in a few words.
pub fn device(row: &Measurement) -> Result<Found, &'static str> {
    let name = row.text("device").ok_or("no device")?;
    let bandwidth = row.positive("memory_bandwidth_gbs").map(|gb| gb * 1e9);
    let kind = row.text("device_kind").unwrap_or("");
    let on_cpu = kind == "cpu" || row.text("backend").is_some_and(|text| text.eq_ignore_ascii_case("cpu"));
    if !on_cpu && let Some(found) = accelerator(name, bandwidth) {
        return of_accelerator(found, bandwidth).ok_or("bandwidth not known");
    }
    let class = match kind {
        _ if on_cpu => {
            let tables = Tables::built_in();
            let processor = tables.processor(name).or_else(|_| tables.processor(&cleaned(name))).ok();
            return of_processor(processor, bandwidth, row.positive("threads"), name).ok_or("bandwidth not known");
        }
        "nvidia" if bandwidth.is_some_and(|rate| rate > 1.9e12) => Class::NvidiaHbm,
        "nvidia" => Class::NvidiaGddr,
        "jetson" => Class::NvidiaUnified,
        "amd" if bandwidth.is_some_and(|rate| rate < 1.3e11) => Class::AmdUnified,
        "amd" => Class::AmdGddr,
        "apple" => Class::Apple,
        "intel" if bandwidth.is_some_and(|rate| rate < 1.4e11) => Class::IntelUnified,
        "intel" => Class::Intel,
        _ => return Err("device not in the tables and its kind not given"),
    };
    let bandwidth = bandwidth.ok_or("bandwidth not known")?;
    let generation = family(name).map(str::to_owned);
    let device = Device { class, generation, bandwidth, vector: None, matrix: 1.0, watts: None, identity: None };
    Ok(Found { device, memory: None, watts: None, row: None })
}
