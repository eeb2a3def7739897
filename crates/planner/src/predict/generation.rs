//! What a GPU is in the words that the speed model was fitted with, from what its driver says of it.

use roofline::Class;
use spec::machine::{Gpu, GpuVendor};

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Generation {
    /// Name without market variants: `ada`.
    pub(super) name: &'static str,
    /// Vector operations per clock of one unit: lanes × 2.
    pub(super) lanes: f64,
    /// Half-precision operations per clock of one unit, with sums in single precision: what [`Gpu::compute`] rests on.
    half: f64,
    /// Operations of the matrix units per vector operation: INT8 where they have it, else half precision.
    pub(super) matrix: f64,
    /// True where the memory is stacked (HBM).
    stacked: bool,
}

const fn row(name: &'static str, lanes: f64, half: f64, matrix: f64, stacked: bool) -> Generation {
    Generation { name, lanes, half, matrix, stacked }
}

/// By compute capability (CUDA C++ Programming Guide, "Compute Capabilities"; NVIDIA white papers, peak rates per multiprocessor and
/// clock; read 2026-11).
fn nvidia(capability: (u32, u32), no_tensor_cores: bool) -> Option<Generation> {
    Some(match capability {
        (5, _) => row("maxwell", 256.0, 256.0, 1.0, false),
        (6, 0) => row("pascal-gp100", 128.0, 256.0, 2.0, true),
        (6, _) => row("pascal", 256.0, 256.0, 4.0, false),
        (7, 0) => row("volta", 128.0, 1024.0, 8.0, true),
        (7, 2) => row("volta", 128.0, 1024.0, 16.0, false),
        (7, 5) if no_tensor_cores => row("turing-gtx", 128.0, 256.0, 4.0, false),
        (7, 5) => row("turing", 128.0, 1024.0, 16.0, false),
        (8, 0) => row("ampere-ga100", 128.0, 2048.0, 32.0, true),
        (8, 6) => row("ampere", 256.0, 1024.0, 8.0, false),
        (8, 7) => row("ampere", 256.0, 2048.0, 16.0, false),
        (8, 9) => row("ada", 256.0, 1024.0, 8.0, false),
        (9, _) => row("hopper", 256.0, 4096.0, 32.0, true),
        (10, _) => row("blackwell", 256.0, 8192.0, 64.0, true),
        (11, _) => row("blackwell", 256.0, 8192.0, 64.0, false),
        (12, _) => row("blackwell", 256.0, 1024.0, 8.0, false),
        _ => return None,
    })
}

/// By LLVM's name of the instruction set (LLVM AMDGPU usage guide; AMD's ISA documents and white papers; read 2026-11).
fn amd(target: &str) -> Option<Generation> {
    const TABLE: [(&str, Generation); 12] = [
        ("gfx8", row("gcn", 128.0, 128.0, 1.0, false)),
        ("gfx906", row("vega20", 128.0, 256.0, 4.0, false)),
        ("gfx908", row("cdna1", 128.0, 1024.0, 8.0, true)),
        ("gfx90a", row("cdna2", 128.0, 1024.0, 8.0, true)),
        ("gfx90", row("vega", 128.0, 256.0, 2.0, false)),
        ("gfx94", row("cdna3", 128.0, 2048.0, 32.0, true)),
        ("gfx95", row("cdna4", 128.0, 4096.0, 64.0, true)),
        ("gfx101", row("rdna1", 128.0, 256.0, 2.0, false)),
        ("gfx103", row("rdna2", 128.0, 256.0, 4.0, false)),
        ("gfx110", row("rdna3", 128.0, 512.0, 4.0, false)),
        ("gfx115", row("rdna3.5", 128.0, 512.0, 4.0, false)),
        ("gfx120", row("rdna4", 128.0, 1024.0, 16.0, false)),
    ];
    TABLE.iter().find(|(prefix, _)| target.starts_with(prefix)).map(|(_, generation)| *generation)
}

/// By the family that Metal names.
fn apple(family: &str) -> Option<Generation> {
    const TABLE: [Generation; 4] = [
        row("apple7", 256.0, 256.0, 1.0, false),
        row("apple8", 256.0, 256.0, 1.0, false),
        row("apple9", 256.0, 256.0, 1.0, false),
        row("apple10", 256.0, 256.0, 1.0, false),
    ];
    TABLE.into_iter().find(|generation| family.eq_ignore_ascii_case(generation.name))
}

/// By PCI device (pci.ids 2025-06): Alchemist 56xx, Ponte Vecchio 0bdx, Battlemage e2xx.
fn intel(pci_id: &str) -> Option<Generation> {
    const TABLE: [(&str, Generation); 3] = [
        ("8086:56", row("xe-hpg", 256.0, 2048.0, 16.0, false)),
        ("8086:0bd", row("xe-hpc", 256.0, 4096.0, 32.0, true)),
        ("8086:e2", row("xe2", 256.0, 2048.0, 16.0, false)),
    ];
    TABLE.iter().find(|(prefix, _)| pci_id.starts_with(prefix)).map(|(_, generation)| *generation)
}

/// The architecture of a GPU; `None` where its driver says too little.
pub(super) fn generation(gpu: &Gpu) -> Option<Generation> {
    match gpu.vendor {
        // Turing without tensor cores has no half-precision rate of theirs.
        GpuVendor::Nvidia => nvidia(gpu.compute_capability.get()?, gpu.compute.is_unknown()),
        GpuVendor::Amd => amd(gpu.architecture.value()?),
        GpuVendor::Apple => apple(gpu.architecture.value()?),
        GpuVendor::Intel => intel(gpu.pci_id.value()?),
        GpuVendor::Other => None,
    }
}

/// The class of a GPU; a GPU that is only described is a card of the most usual class.
pub(super) fn class(gpu: Option<&Gpu>, shares_host: bool) -> Class {
    let stacked = gpu.and_then(generation).is_some_and(|generation| generation.stacked);
    match (gpu.map_or(GpuVendor::Other, |gpu| gpu.vendor), shares_host) {
        (GpuVendor::Nvidia, true) => Class::NvidiaUnified,
        (GpuVendor::Nvidia, false) if stacked => Class::NvidiaHbm,
        (GpuVendor::Amd, true) => Class::AmdUnified,
        (GpuVendor::Amd, false) if stacked => Class::AmdHbm,
        (GpuVendor::Amd, false) => Class::AmdGddr,
        (GpuVendor::Apple, _) => Class::Apple,
        (GpuVendor::Intel, false) => Class::Intel,
        (GpuVendor::Intel | GpuVendor::Other, true) => Class::IntelUnified,
        (GpuVendor::Nvidia | GpuVendor::Other, false) => Class::NvidiaGddr,
    }
}

/// Clocks under a load of matrix products, as a part of the highest that a driver names (boost clocks lie 5 to 20 % below it).
const SUSTAINED: f64 = 0.88;

/// No GPU of these makers runs faster, in Hz.
const FASTEST_CLOCK: f64 = 3.15e9;

/// Vector operations per second: units × clock × lanes. Where no clock is named, that of the half-precision rate, which is stated with
/// sums in single precision: half of the units' rate on GeForce cards, which no real clock would reach at the whole.
pub(super) fn vector_rate(gpu: &Gpu) -> Option<f64> {
    let generation = generation(gpu)?;
    let units = f64::from(gpu.multiprocessors.get().filter(|&units| units > 0)?);
    let named = gpu.max_frequency_hz.get().map(|hertz| hertz as f64 * SUSTAINED);
    let clock = named.or_else(|| {
        let rate = gpu.compute.get()?.get();
        let clocks = [generation.half / 2.0, generation.half].map(|operations| rate / (units * operations));
        let halved = gpu.vendor == GpuVendor::Nvidia && !generation.stacked && clocks[0] <= FASTEST_CLOCK;
        Some(if halved { clocks[0] } else { clocks[1] })
    });
    Some(units * clock? * generation.lanes).filter(|rate| rate.is_finite() && *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::machine::GpuKind;
    use spec::{Known, OpsPerSec};

    fn card(capability: (u32, u32), units: u32, tflops: f64) -> Gpu {
        Gpu {
            compute_capability: Known::exact(capability, "test"),
            multiprocessors: Known::exact(units, "test"),
            compute: Known::exact(OpsPerSec::new(tflops * 1e12).unwrap(), "test"),
            ..Gpu::unknown(GpuVendor::Nvidia, GpuKind::Discrete, "test")
        }
    }

    #[test]
    fn single_precision_rates_of_data_sheets() {
        // Multiprocessors, half-precision TFLOPS with FP32 sums, FP32 TFLOPS of the maker.
        let cards = [
            ("RTX 4090", (8, 9), 128, 165.2, 82.6),
            ("RTX 3090", (8, 6), 82, 71.0, 35.6),
            ("L40S", (8, 9), 142, 362.0, 91.6),
            ("A100", (8, 0), 108, 312.0, 19.5),
            ("T4", (7, 5), 40, 65.1, 8.1),
            ("RTX 2080 Ti", (7, 5), 68, 53.8, 13.4),
            ("H100 SXM", (9, 0), 132, 989.0, 66.9),
        ];
        for (name, capability, units, half, single) in cards {
            let rate = vector_rate(&card(capability, units, half)).unwrap() / 1e12;
            assert!((rate / single - 1.0).abs() < 0.1, "{name}: {rate} for {single}");
        }
        assert_eq!(class(Some(&card((8, 0), 108, 312.0)), false), Class::NvidiaHbm);
        assert_eq!(class(None, false), Class::NvidiaGddr);
        assert_eq!(amd("gfx90c").unwrap().name, "vega");
    }
}
