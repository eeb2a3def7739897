//! The rates that a prediction divides by: what the machine says, or a default of its class with a wide interval.
//!
//! Efficiencies and fixed costs per layer come from fits over public llama-bench collections (57 devices; decode reaches
//! 0.80 of the nominal bandwidth on GDDR cards, 0.66 on HBM, 0.64 on RDNA3, 0.67 on Intel; 49, 133, 146 and 479 µs per
//! layer). They are first estimates: the intervals are wide on purpose until runs on the machine narrow them.

use spec::machine::{Gpu, GpuVendor};
use spec::{Bytes, BytesPerSec, Known, Machine};

/// A rate or a time with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) low: f64,
    pub(crate) mid: f64,
    pub(crate) high: f64,
}

impl Range {
    pub(crate) const fn new(low: f64, mid: f64, high: f64) -> Self {
        Self { low, mid, high }
    }
    pub(crate) fn times(self, other: Self) -> Self {
        Self::new(self.low * other.low, self.mid * other.mid, self.high * other.high)
    }
    pub(crate) fn scale(self, factor: f64) -> Self {
        Self::new(self.low * factor, self.mid * factor, self.high * factor)
    }
    pub(crate) fn plus(self, other: Self) -> Self {
        Self::new(self.low + other.low, self.mid + other.mid, self.high + other.high)
    }
    /// `amount` over this rate: a high rate is a short time.
    pub(crate) fn time_for(self, amount: f64) -> Self {
        Self::new(amount / self.high, amount / self.mid, amount / self.low)
    }
    fn at_most(self, cap: Self) -> Self {
        Self::new(self.low.min(cap.low), self.mid.min(cap.mid), self.high.min(cap.high))
    }
}

/// A processor with its memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rates {
    /// Bytes per second of weights read in decode.
    pub(crate) bandwidth: Range,
    /// Operations per second of prefill's matrix products.
    pub(crate) compute: Range,
    /// Seconds per layer that do not depend on its size.
    pub(crate) per_layer: Range,
    /// What was assumed instead of known.
    pub(crate) assumption: Option<String>,
}

const GB: f64 = 1e9;

/// Rates of a GPU that computes in the host's memory; `gpu` is the machine's, where the engine's device could be matched to one.
pub(crate) fn integrated(name: &str, gpu: Option<&Gpu>, machine: &Machine) -> Rates {
    let of_memory = &machine.facts.cpu.memory_bandwidth;
    let known = |known: &Known<BytesPerSec>| {
        let range = Range::new(known.low()?.get(), known.get()?.get(), known.high()?.get());
        Some((range, None))
    };
    let (nominal, assumption) = gpu.and_then(|gpu| known(&gpu.memory_bandwidth)).or_else(|| known(of_memory)).unwrap_or_else(|| {
        let (range, what) = default_host_bandwidth(machine);
        let (low, high) = (range.low / GB, range.high / GB);
        let middle = range.mid / GB;
        (range, Some(format!("memory bandwidth of {name} not known: {middle:.0} GB/s assumed ({low:.0} to {high:.0}: {what})")))
    });
    let class = Class::of(gpu);
    let compute = match gpu.and_then(|gpu| gpu.compute.get()) {
        // Apple's GPUs have no units for matrices that could wait for data: 0.56 to 0.63 with models of 8 to 70 thousand million weights.
        Some(rate) if gpu.is_some_and(|gpu| gpu.vendor == GpuVendor::Apple) => Range::new(0.35, 0.57, 0.68).scale(rate.get()),
        Some(rate) => reached(rate.get()),
        // Half-precision operations per byte of bandwidth: UHD 630 21, Iris Xe 60, Radeon 780M 160; of which prefill reaches a third.
        None => Range::new(nominal.low * 4.0, nominal.mid * 15.0, nominal.high * 60.0),
    };
    Rates { bandwidth: nominal.times(class.efficiency), compute, per_layer: class.per_layer, assumption }
}

/// What prefill reaches of a dense half-precision rate.
fn reached(rate: f64) -> Range {
    Range::new(rate * 0.15, rate * 0.33, rate * 0.6)
}

/// Rates of a GPU with memory of its own; `gpu` is the machine's, where the engine's device could be matched to one.
pub(crate) fn gpu(name: &str, total: Option<Bytes>, gpu: Option<&Gpu>) -> Rates {
    let class = Class::of(gpu);
    let (nominal, assumption) = match gpu.and_then(|gpu| Some((gpu.memory_bandwidth.get()?, &gpu.memory_bandwidth))) {
        Some((value, known)) => {
            let low = known.low().map_or(value.get(), |low| low.get());
            let high = known.high().map_or(value.get(), |high| high.get());
            (Range::new(low, value.get(), high), None)
        }
        None => {
            let (range, examples) = default_bandwidth(total);
            let (low, high) = (range.low / GB, range.high / GB);
            let note =
                format!("memory bandwidth of {name} not known: {:.0} GB/s assumed ({low:.0} to {high:.0}: {examples})", range.mid / GB);
            (range, Some(note))
        }
    };
    let compute = match gpu.and_then(|gpu| gpu.compute.get()) {
        Some(rate) => reached(rate.get()),
        // Half-precision operations per byte of bandwidth: RTX 3090 76, RTX 3060 141, RTX 4090 164, T4 203; of which
        // prefill reaches a third.
        None => Range::new(nominal.low * 12.0, nominal.mid * 38.0, nominal.high * 80.0),
    };
    Rates { bandwidth: nominal.times(class.efficiency), compute, per_layer: class.per_layer, assumption }
}

/// Kind of memory and driver.
struct Class {
    efficiency: Range,
    per_layer: Range,
}

impl Class {
    fn of(gpu: Option<&Gpu>) -> Self {
        let class = |low, mid, high, micros: f64| Self {
            efficiency: Range::new(low, mid, high),
            per_layer: Range::new(micros * 0.4e-6, micros * 1e-6, micros * 3e-6),
        };
        let hbm = |gpu: &Gpu| matches!(gpu.compute_capability.get(), Some((8, 0) | (9, 0) | (10, 0 | 3) | (7, 0)));
        match gpu {
            Some(gpu) if gpu.vendor == GpuVendor::Nvidia && hbm(gpu) => class(0.42, 0.66, 0.85, 133.0),
            Some(gpu) if gpu.vendor == GpuVendor::Amd => class(0.4, 0.64, 0.85, 146.0),
            Some(gpu) if gpu.vendor == GpuVendor::Apple => class(0.5, 0.74, 0.88, 154.0),
            Some(gpu) if gpu.vendor == GpuVendor::Intel => class(0.15, 0.5, 0.75, 479.0),
            _ => class(0.58, 0.8, 0.92, 49.0),
        }
    }
}

/// Bandwidth of a GPU of which only the memory size is known.
fn default_bandwidth(total: Option<Bytes>) -> (Range, &'static str) {
    let gib = total.map(Bytes::as_gib);
    match gib {
        Some(gib) if gib > 60.0 => (Range::new(800.0 * GB, 2000.0 * GB, 8000.0 * GB), "A100 80 GB 1935, H100 3350, B200 7700"),
        Some(gib) if gib > 30.0 => (Range::new(550.0 * GB, 900.0 * GB, 2000.0 * GB), "A40 696, A100 40 GB 1555, RTX 5090 1792"),
        Some(gib) if gib > 18.0 => (Range::new(300.0 * GB, 800.0 * GB, 1050.0 * GB), "L4 300, RTX 3090 936, RTX 4090 1008"),
        Some(gib) if gib > 10.5 => (Range::new(270.0 * GB, 450.0 * GB, 960.0 * GB), "RTX 4060 Ti 16 GB 288, RTX 3060 360, RTX 5080 960"),
        _ => (Range::new(110.0 * GB, 300.0 * GB, 620.0 * GB), "GTX 1050 112, RTX 4060 272, RTX 3070 448"),
    }
}

/// Rates of the CPU with this many threads.
///
/// One core keeps only so many cache lines in flight, so decode with few threads does not reach the memory's rate.
pub(crate) fn host(machine: &Machine, threads: u32, threads_batch: u32) -> Rates {
    let cpu = &machine.facts.cpu;
    let known = &cpu.memory_bandwidth;
    let (nominal, assumption) = match (known.get(), known.low(), known.high()) {
        (Some(value), Some(low), Some(high)) => (Range::new(low.get() * 0.6, value.get() * 0.8, high.get() * 1.05), None),
        _ => {
            let (range, what) = default_host_bandwidth(machine);
            let (low, high) = (range.low / GB, range.high / GB);
            let note =
                format!("memory bandwidth of the host not known: {:.0} GB/s assumed ({low:.0} to {high:.0}: {what})", range.mid / GB);
            (range, Some(note))
        }
    };
    let per_thread = Range::new(5.0 * GB, 10.0 * GB, 20.0 * GB).scale(f64::from(threads.max(1)));
    let has = |name: &str| cpu.features.contains(name);
    let per_core = match () {
        () if has("amx_int8") => Range::new(60.0 * GB, 150.0 * GB, 500.0 * GB),
        // Measured on a core of an AMD EPYC (Zen 5) with the bundled engine: 200e9 on repacked Q4_0 and Q4_K (`scripts/show`).
        () if has("avx512_vnni") => Range::new(35.0 * GB, 110.0 * GB, 280.0 * GB),
        () if has("avx512f") => Range::new(25.0 * GB, 70.0 * GB, 180.0 * GB),
        () if has("avx2") => Range::new(15.0 * GB, 45.0 * GB, 120.0 * GB),
        () if machine.facts.platform.arch == "aarch64" => Range::new(10.0 * GB, 30.0 * GB, 90.0 * GB),
        // Features not known: from plain SSE to AVX-512.
        () => Range::new(4.0 * GB, 25.0 * GB, 120.0 * GB),
    };
    Rates {
        bandwidth: nominal.at_most(per_thread),
        compute: per_core.scale(f64::from(threads_batch.max(1))),
        per_layer: Range::new(5e-6, 15e-6, 60e-6),
        assumption,
    }
}

fn default_host_bandwidth(machine: &Machine) -> (Range, &'static str) {
    let cores = machine.facts.cpu.physical_cores.get().unwrap_or(8);
    let sockets = f64::from(machine.facts.cpu.sockets.get().unwrap_or(1).max(1));
    match cores {
        0..=16 => (Range::new(15.0 * GB, 40.0 * GB, 90.0 * GB), "from one channel of DDR4 to two of DDR5"),
        17..=32 => (Range::new(30.0 * GB, 90.0 * GB, 250.0 * GB), "from two channels of DDR5 to eight of DDR4"),
        _ => (Range::new(60.0 * GB, 180.0 * GB, 500.0 * GB).scale(sockets), "six to twelve channels per socket"),
    }
}

/// Rate of copies from host to GPU.
pub(crate) fn link(gpu: Option<&Gpu>) -> Range {
    match gpu.and_then(|gpu| gpu.pcie.get()?.bandwidth()) {
        Some(rate) => Range::new(rate.get() * 0.35, rate.get() * 0.75, rate.get() * 0.95),
        None => Range::new(3.0 * GB, 12.0 * GB, 27.0 * GB),
    }
}

/// Rate of reading weights through page faults, with the kernel's read-ahead, from a SATA to a fast NVMe drive.
pub(crate) const DISK: Range = Range::new(0.4 * GB, 1.5 * GB, 3.5 * GB);

/// What the disk's rate stands on.
pub(crate) const DISK_ASSUMPTION: &str = "disk assumed to be an NVMe drive: 1.5 GB/s (0.4 to 3.5) through page faults";

/// Seconds of one hop between host and GPU within a token.
pub(crate) const HOP: Range = Range::new(15e-6, 40e-6, 150e-6);

/// Seconds that a token pays once in sampling, logits and the host's loop.
pub(crate) const PER_TOKEN: Range = Range::new(0.1e-3, 0.3e-3, 1.5e-3);

/// Cache reads reach less of the bandwidth than weights: with flash attention, and without.
pub(crate) fn cache_efficiency(flash_attention: bool) -> f64 {
    if flash_attention { 0.7 } else { 0.4 }
}
