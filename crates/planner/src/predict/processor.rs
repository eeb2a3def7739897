//! The processors of a target as the speed model knows them: what the machine says, or a default of their class with a wide interval.

use super::generation;
use super::range::Range;
use crate::target::gpu_of;
use footprint::{Device as Placed, Target};
use roofline::{Class, Conditions, Device, OWN_KERNELS, Parameters, Phase, Switch, off_of_own};
use spec::machine::{CoreKind, Gpu, GpuVendor};
use spec::settings::{CpuMask, Numa};
use spec::{Bytes, BytesPerSec, Known, Machine, Settings};

const GB: f64 = 1e9;

/// A processor with its memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Processor {
    /// The engine's name of the device, or `host`.
    pub(crate) name: String,
    /// Hardware as the speed model takes it; its bandwidth is the centre of `bandwidth`. Of the host: with one core at work.
    pub(crate) device: Device,
    /// How the engine runs on it.
    pub(crate) conditions: Conditions,
    /// Peak bandwidth of its memory in bytes per second.
    pub(crate) bandwidth: Range,
    /// What was assumed instead of known.
    pub(crate) assumption: Option<String>,
    /// How far times of decode, and of prefill, are off on hardware that is known exactly.
    pub(crate) off: [Off; 2],
    /// True where runs on this machine are behind the parameters: of decode, and of prefill.
    pub(crate) measured: [bool; 2],
    /// True where measurements of the class or generation are behind the parameters.
    pub(crate) class_known: bool,
}

/// The words for how an engine of today runs on a machine, the effects of which are in the parameters.
fn conditions(machine: &Machine, backend: &str, vendor: Option<GpuVendor>, own_kernels: bool) -> Conditions {
    let backend = match (backend, vendor) {
        ("CUDA", _) => "cuda",
        ("ROCm", _) => "rocm",
        ("Vulkan", _) => "vulkan",
        ("SYCL", _) => "sycl",
        ("Metal" | "MTL", _) | (_, Some(GpuVendor::Apple)) => "metal",
        (_, None) => "cpu",
        (_, Some(_)) => "",
    };
    let os = machine.facts.platform.os.as_str();
    let os = Some(if os == "android" { "linux" } else { os }).filter(|os| ["linux", "windows", "macos"].contains(os));
    Conditions {
        backend: (!backend.is_empty()).then(|| backend.to_owned()),
        os: os.map(str::to_owned),
        era: Some("late".to_owned()),
        // Its rows are warm, alone and repeated: what a run on this machine is compared with.
        engine: Some(if own_kernels { OWN_KERNELS } else { "llama-bench" }.to_owned()),
        flash_attention: Switch::On,
    }
}

/// How far times of a class are off as logarithms: their middle, and from there to the tenth and the ninetieth percentile. LocalScore's
/// hosts are as people have them; the more devices of the class were measured with llama-bench, the less they count.
fn off(parameters: &Parameters, class: Class, phase: Phase) -> Off {
    let (phase, class) = (phase.as_str(), class.as_str());
    let keys = [phase.to_owned(), format!("{phase}/localscore/{class}"), format!("{phase}/llama-bench/{class}")];
    let Some(range) = parameters.spread.range(&keys) else { return Off { middle: 0.0, low: -0.5, high: 1.0 } };
    // The spread is that of speeds: a high speed is a short time.
    Off { middle: -range.middle, low: (range.middle - range.high).min(-LEAST), high: (range.middle - range.low).max(LEAST) }
}

/// Logarithms of measured ÷ predicted time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Off {
    pub(crate) middle: f64,
    /// From the middle to the shortest times.
    pub(crate) low: f64,
    /// From the middle to the longest.
    pub(crate) high: f64,
}

/// Repeated runs on one machine differ by this much at least.
const LEAST: f64 = 0.03;

fn processor(
    name: String,
    device: Device,
    conditions: Conditions,
    (bandwidth, assumption): (Range, Option<String>),
    parameters: &Parameters,
) -> Processor {
    let own_kernels = conditions.engine.as_deref() == Some(OWN_KERNELS);
    let class_known = !own_kernels && parameters.knows(&format!("decode/weights/class={}", device.class.as_str()));
    let identity = super::alone::identity(&name);
    let measured = [Phase::Decode, Phase::Prefill]
        .map(|phase| parameters.iter().any(|(effect, _)| effect.starts_with(phase.as_str()) && effect.ends_with(identity.as_str())));
    let off = |phase: Phase, measured: bool| match (measured, own_kernels) {
        (true, _) => AFTER_RUNS,
        (false, false) => off(parameters, device.class, phase),
        (false, true) => {
            let (low, high) = off_of_own(&device);
            Off { middle: 0.0, low, high }
        }
    };
    let off = [off(Phase::Decode, measured[0]), off(Phase::Prefill, measured[1])];
    let device = Device { bandwidth: bandwidth.mid, identity: measured.contains(&true).then_some(identity), ..device };
    Processor { name, device, conditions, bandwidth, assumption, off, measured, class_known }
}

/// After runs on the machine itself with the same engine and type of model: between what one run leaves on GDDR cards and on processors for one
/// prediction in ten (SPEED.md, decode by llama-bench, P90 of `one run`), as most of the latter is other people's hosts.
const AFTER_RUNS: Off = Off { middle: 0.0, low: -0.2, high: 0.25 };

/// The devices of a target, in its order.
pub(crate) fn devices(machine: &Machine, target: &Target, parameters: &Parameters, own_kernels: bool) -> Vec<Processor> {
    let of = |(i, device): (usize, &Placed)| {
        let gpu = gpu_of(machine, target, i);
        let bandwidth = match device.shares_host {
            true => shared_bandwidth(&device.name, gpu, machine),
            false => own_bandwidth(&device.name, device.total.get(), gpu),
        };
        let known = gpu.and_then(generation::generation);
        let hardware = Device {
            class: generation::class(gpu, device.shares_host),
            generation: known.map(|known| known.name.to_owned()),
            bandwidth: bandwidth.0.mid,
            vector: gpu.and_then(generation::vector_rate),
            matrix: known.map_or(1.0, |known| known.matrix),
            watts: gpu.filter(|_| !device.shares_host).and_then(|gpu| gpu.power_limit_watts.get()),
            identity: None,
        };
        let vendor = gpu.map_or(GpuVendor::Other, |gpu| gpu.vendor);
        let conditions = conditions(machine, &device.backend.name, Some(vendor), own_kernels);
        processor(device.name.clone(), hardware, conditions, bandwidth, parameters)
    };
    target.devices.iter().enumerate().map(of).collect()
}

fn known(known: &Known<BytesPerSec>) -> Option<Range> {
    Some(Range::new(known.low()?.get(), known.get()?.get(), known.high()?.get()))
}

fn not_known(of: &str, range: Range, examples: &str) -> (Range, Option<String>) {
    let [low, middle, high] = [range.low, range.mid, range.high].map(|rate| rate / GB);
    (range, Some(format!("memory bandwidth of {of} not known: {middle:.0} GB/s assumed ({low:.0} to {high:.0}: {examples})")))
}

/// Of a GPU that computes in the host's memory.
fn shared_bandwidth(name: &str, gpu: Option<&Gpu>, machine: &Machine) -> (Range, Option<String>) {
    let told = gpu.and_then(|gpu| known(&gpu.memory_bandwidth)).or_else(|| known(&machine.facts.cpu.memory_bandwidth));
    told.map_or_else(
        || {
            let (range, examples) = default_host_bandwidth(machine);
            not_known(name, range, examples)
        },
        |range| (range, None),
    )
}

/// Of a GPU with memory of its own.
fn own_bandwidth(name: &str, total: Option<Bytes>, gpu: Option<&Gpu>) -> (Range, Option<String>) {
    gpu.and_then(|gpu| known(&gpu.memory_bandwidth)).map_or_else(
        || {
            let (range, examples) = default_bandwidth(total);
            not_known(name, range, examples)
        },
        |range| (range, None),
    )
}

/// Bandwidth of a GPU of which only the memory size is known.
fn default_bandwidth(total: Option<Bytes>) -> (Range, &'static str) {
    let range = |low, middle, high| Range::new(low, middle, high).scale(GB);
    match total.map(Bytes::as_gib) {
        Some(gib) if gib > 60.0 => (range(800.0, 2000.0, 8000.0), "A100 80 GB 1935, H100 3350, B200 7700"),
        Some(gib) if gib > 30.0 => (range(550.0, 900.0, 2000.0), "A40 696, A100 40 GB 1555, RTX 5090 1792"),
        Some(gib) if gib > 18.0 => (range(300.0, 800.0, 1050.0), "L4 300, RTX 3090 936, RTX 4090 1008"),
        Some(gib) if gib > 10.5 => (range(270.0, 450.0, 960.0), "RTX 4060 Ti 16 GB 288, RTX 3060 360, RTX 5080 960"),
        _ => (range(110.0, 300.0, 620.0), "GTX 1050 112, RTX 4060 272, RTX 3070 448"),
    }
}

/// Widest instruction set of a processor in the speed model's words, with operations per clock of a core, and the features that tell it.
const SETS: [(&str, &str, f64); 6] = [
    ("avx512f", "avx512", 64.0),
    ("avx2", "avx2", 32.0),
    ("avx", "avx", 16.0),
    ("sse4_2", "sse", 16.0),
    ("dotprod", "neon", 16.0),
    ("asimddp", "neon", 16.0),
];

/// The kernels of crate `kernels` by the features that they need, the fastest first. AMX is left out: whether the system lends it is found out
/// when it runs, and how fast it is was not measured.
const KERNELS: [(&[&str], &str); 4] = [
    (&["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"], "avx512-vnni"),
    (&["avx2", "avx_vnni"], "avx-vnni"),
    (&["avx2"], "avx2"),
    (&["dotprod"], "neon-dot"),
];

/// Usual clock of processors with all cores at work, as in the fit.
const CLOCK: f64 = 3.2e9;

/// The host with one core at work.
pub(crate) fn host(machine: &Machine, parameters: &Parameters, own_kernels: bool) -> Processor {
    let cpu = &machine.facts.cpu;
    let set = SETS.iter().find(|(feature, ..)| cpu.features.contains(*feature));
    let arm = machine.facts.platform.arch == "aarch64";
    let generation = match own_kernels {
        true if cpu.features.is_empty() => Some(if arm { "neon-dot" } else { "avx2" }),
        true => KERNELS.iter().find(|(features, _)| features.iter().all(|feature| cpu.features.contains(*feature))).map(|(_, name)| *name),
        false => set.map(|(_, name, _)| *name).or(arm.then_some("neon")),
    };
    let device = Device {
        class: Class::Cpu,
        generation: generation.map(str::to_owned),
        bandwidth: 1.0,
        // Features not known: those of most processors in use.
        vector: Some(CLOCK * set.map_or(if arm { 16.0 } else { 32.0 }, |(.., lanes)| *lanes)),
        matrix: 1.0,
        watts: None,
        identity: None,
    };
    let bandwidth = known(&cpu.memory_bandwidth).map_or_else(
        || {
            let (range, examples) = default_host_bandwidth(machine);
            not_known("the host", range, examples)
        },
        |range| (range, None),
    );
    processor("host".to_owned(), device, conditions(machine, "", None, own_kernels), bandwidth, parameters)
}

fn default_host_bandwidth(machine: &Machine) -> (Range, &'static str) {
    let range = |low, middle, high| Range::new(low, middle, high).scale(GB);
    let cores = machine.facts.cpu.physical_cores.get().unwrap_or(8);
    let sockets = f64::from(machine.facts.cpu.sockets.get().unwrap_or(1).max(1));
    match cores {
        0..=16 => (range(15.0, 45.0, 90.0), "from one channel of DDR4 to two of DDR5"),
        17..=32 => (range(30.0, 90.0, 250.0), "from two channels of DDR5 to eight of DDR4"),
        _ => (range(60.0, 180.0, 500.0).scale(sockets), "six to twelve channels per socket"),
    }
}

/// Cores' worth of arithmetic of this many threads on the CPUs of a mask: a core of a slower kind counts half, a second thread of a core
/// nothing.
pub(crate) fn cores_at_work(machine: &Machine, threads: u32, mask: &CpuMask) -> f64 {
    let threads = threads.max(1);
    let of_all = machine.facts.cpu.physical_cores.get().unwrap_or(u32::MAX).max(1);
    let within = |kind: &CoreKind| match mask.is_empty() {
        true => kind.physical_cores,
        false => u32::try_from(kind.cpus.intersection(mask.cpus()).count()).unwrap_or(u32::MAX).min(kind.physical_cores),
    };
    match machine.facts.cpu.core_kinds.as_slice() {
        [fastest, slower @ ..] if !slower.is_empty() && fastest.physical_cores > 0 => {
            let fast = threads.min(within(fastest));
            let slow = if mask.is_empty() { of_all.saturating_sub(fast) } else { slower.iter().map(within).fold(0, u32::saturating_add) };
            // A mask of CPUs that there are none of is a mask that the engine drops.
            (f64::from(fast) + 0.5 * f64::from((threads - fast).min(slow))).max(0.5)
        }
        _ if mask.is_empty() => f64::from(threads.min(of_all)),
        _ => f64::from(threads.min(of_all).min(u32::try_from(mask.cpus().len()).unwrap_or(u32::MAX)).max(1)),
    }
}

/// CPUs of the fastest of several kinds of core that may be used, where slower ones may be used as well; `None` elsewhere, and where the
/// numbers of CPUs are none that a system gave them.
pub(crate) fn fast_cpus(machine: &Machine) -> Option<CpuMask> {
    let [fastest, slower @ ..] = machine.facts.cpu.core_kinds.as_slice() else { return None };
    let allowed = machine.limits.allowed_cpus.value()?;
    // A machine that is only described has no system.
    machine.facts.platform.version.value()?;
    let beside = slower.iter().any(|kind| !kind.cpus.is_disjoint(allowed));
    let fast: CpuMask = fastest.cpus.intersection(allowed).copied().collect();
    (beside && !fast.is_empty()).then_some(fast)
}

/// How much less time decode takes with the same threads held to the fast cores of a hybrid x86 processor. Public runs, each with and
/// without a mask and as many threads as fast cores: i9-13900HX under Linux 0.70 to 0.90 (hybridgroup/yzma issue 374), 8 of 20 CPUs under
/// Windows 0.82 and 0.88, with layers on a GPU 0.96 (LostRuins/koboldcpp issue 447), about 0.9 (llama.cpp pull request 6832).
pub(crate) const HELD: Range = Range::new(0.8, 0.9, 0.97);

/// Speed with threads spread over NUMA nodes, or kept on one, over that without: the reports span this, and on which node the pages of a
/// file lie, which decides it, nobody has told. Twice as fast behind a dropped page cache (llama.cpp issue 13850), one socket twice as fast as
/// both (mozilla-ai/llamafile issue 765), six per cent (JustVugg/colibri issue 682), slower than before (llama.cpp pull request 1556), and 0.6
/// of interleaved pages where an earlier run had read the file in (llama.cpp pull request 27986).
pub(crate) const SPREAD_OVER_NODES: Range = Range::new(0.6, 1.0, 2.0);

/// Nodes that threads can run on, where a strategy does something: on Linux; 0 where nodes are not known.
pub(crate) fn nodes(machine: &Machine) -> usize {
    let nodes = machine.facts.numa.iter().filter(|node| !node.cpus.is_empty()).count();
    if machine.facts.platform.os == "linux" { nodes } else { nodes.min(1) }
}

/// True where a mask keeps threads of decode, on the `fast` of several kinds of core, from cores that the system would put some of them on, as far as runs have shown that: on x86
/// processors, by systems on which the engine sets masks (`ggml/src/ggml-cpu/ggml-cpu.c:2526-2700`).
pub(crate) fn is_held(machine: &Machine, fast: Option<&CpuMask>, settings: &Settings) -> bool {
    let (platform, mask) = (&machine.facts.platform, settings.cpu_mask.cpus());
    let shown = || platform.arch == "x86_64" && ["linux", "windows"].contains(&platform.os.as_str());
    let within = |fast: &CpuMask| mask.is_subset(fast.cpus()) && mask.len() >= settings.threads as usize;
    !mask.is_empty() && settings.numa == Numa::None && shown() && fast.is_some_and(within)
}

/// How much longer threads wait for each other between layers than in the fit, most of whose hosts had a dozen: the root of their number is
/// what a virtual machine of two cores agrees with (40 µs per layer, where a dozen take 100 to 200).
pub(crate) fn waiting(threads: u32) -> f64 {
    (f64::from(threads.max(1)) / 12.0).sqrt().clamp(0.2, 3.0)
}

/// Bytes per second that one core reads at most: it keeps only so many cache lines in flight. Boards with Cortex-A76 about 6, Xeons of 2017 12,
/// EPYC with Zen 2 to 5 20 to 35, Apple's cores more (STREAM of one thread, as makers and users publish it).
pub(crate) const CORE_BANDWIDTH: Range = Range::new(6.0 * GB, 16.0 * GB, 40.0 * GB);

/// Rate of copies from host to GPU.
pub(crate) fn link(gpu: Option<&Gpu>) -> Range {
    match gpu.and_then(|gpu| gpu.pcie.get()?.bandwidth()) {
        Some(rate) => Range::new(0.35, 0.75, 0.95).scale(rate.get()),
        None => Range::new(3.0, 12.0, 27.0).scale(GB),
    }
}

/// Rate of reading weights through page faults, with the kernel's read-ahead, from a SATA to a fast NVMe drive.
pub(crate) const DISK: Range = Range::new(0.4 * GB, 1.5 * GB, 3.5 * GB);

/// What the disk's rate stands on.
pub(crate) const DISK_ASSUMPTION: &str = "disk assumed to be an NVMe drive: 1.5 GB/s (0.4 to 3.5) through page faults";

/// Seconds of one hop between host and GPU within a token.
pub(crate) const HOP: Range = Range::new(15e-6, 40e-6, 150e-6);
