//! Machines at random: processors and GPUs of every kind, partly used, with limits, and with gaps in what is known.

use super::draw::Draw;
use spec::machine::{Machine, MemoryLimit};
use spec::{Bytes, Known};

/// GPUs of every class, by name; a few by memory alone.
const GPUS: [&str; 24] = [
    "gtx1060-6gb",
    "gtx1080ti",
    "tesla-p40",
    "rtx2060-6gb",
    "t4",
    "v100-sxm2-32gb",
    "rtx3060-12gb",
    "rtx3090",
    "a100-pcie-80gb",
    "rtx4060-8gb",
    "rtx4090",
    "l40s",
    "h100-sxm-80gb",
    "h200",
    "rtx5090",
    "rtx-a6000",
    "rx6600",
    "rx7900xtx",
    "mi300x",
    "arc-a770-16gb",
    "arc-b580",
    "gpu=2GiB",
    "gpu=5GiB",
    "gpu=16GiB@600GB/s",
];

/// Machines whose GPU has the memory of the host.
const UNIFIED: [&str; 8] =
    ["m1-8c-8gb", "m2-max-38c-64gb", "m3-max-40c-64gb", "m4-max-40c-64gb", "jetson-agx-orin-64gb", "gb10", "strix-halo-128gb", "arc-140v"];

/// Processors: of one kind of core and of several, of one package and two, and those that only their number is known of.
const CPUS: [&str; 10] = [
    "cpu=i9-13900k",
    "cpu=core-ultra-7-155h",
    "cpu=ryzen-9-7950x",
    "cpu=ryzen-5-5600x",
    "cpu=epyc-9654x2",
    "cpu=xeon-w9-3495x",
    "cpu=i5-8250u",
    "cores=2",
    "cores=8,threads=16,bandwidth=60GB/s",
    "",
];

/// A machine, and in words how it came about.
pub struct Drawn {
    pub machine: Machine,
    pub words: String,
}

/// A machine at random.
pub fn machine(draw: &mut Draw) -> Drawn {
    let mut words = described(draw);
    let mut machine = probe::describe(&words).unwrap_or_else(|error| panic!("{words}: {error}"));
    let mut note = |what: String| {
        words.push_str("; ");
        words.push_str(&what);
    };
    for (index, free) in machine.free.gpu_memory.iter_mut().enumerate() {
        use_some(&format!("GPU {index}"), free, draw, &mut note);
    }
    use_some("host", &mut machine.free.memory, draw, &mut note);
    limit(&mut machine, draw, &mut note);
    processors(&mut machine, draw, &mut note);
    if draw.percent(5) && !machine.limits.visible_gpus.is_empty() {
        machine.limits.visible_gpus.remove(0);
        note("GPU 0 may not be used".to_owned());
    }
    Drawn { machine, words }
}

fn described(draw: &mut Draw) -> String {
    if draw.percent(20) {
        let mut parts = vec![draw.of(&UNIFIED).to_owned()];
        if parts[0] == "arc-140v" {
            parts.push("cores=8".to_owned());
            parts.push(format!("ram={}GiB", draw.of(&[8, 16, 32])));
        } else if draw.percent(30) {
            parts.push(format!("ram={}GiB", draw.of(&[8, 24, 64, 128])));
        }
        return parts.join(",");
    }
    let mut parts: Vec<String> = Vec::new();
    let first = draw.of(&GPUS);
    for _ in 0..draw.of(&[0, 1, 1, 1, 2, 2, 3, 4]) {
        parts.push(if draw.percent(70) { first } else { draw.of(&GPUS) }.to_owned());
    }
    let cpu = draw.of(&CPUS);
    if !cpu.is_empty() {
        parts.push(cpu.to_owned());
    }
    // 2 GiB to 1 TiB, each power of two as likely, and some of what lies between.
    let size = 1_u64 << (1 + draw.below(10));
    parts.push(format!("ram={}GiB", size + draw.below(size as usize) as u64 / 2));
    parts.join(",")
}

/// Free memory as others leave it; at times an interval, at times not known.
fn use_some(what: &str, free: &mut Known<Bytes>, draw: &mut Draw, note: &mut dyn FnMut(String)) {
    let Some(size) = free.get() else { return };
    match draw.below(10) {
        0 => *free = Known::unknown("nothing says how much is free"),
        1 | 2 => *free = Known::exact(size.scale(draw.below(1000) as f64 / 1000.0), "partly used"),
        3 => {
            let share = |draw: &mut Draw| draw.below(1000) as f64 / 1000.0;
            let (a, b) = (share(draw), share(draw));
            *free = Known::estimated(size.scale((a + b) / 2.0), size.scale(a.min(b)), size.scale(a.max(b)), "partly used, estimated");
        }
        _ => return,
    }
    note(format!("{what} free {free}"));
}

/// Limits of control groups, one within the other, of which some are above what the machine has.
fn limit(machine: &mut Machine, draw: &mut Draw, note: &mut dyn FnMut(String)) {
    if !draw.percent(25) {
        return;
    }
    let total = machine.facts.memory.total.get().unwrap_or(Bytes::from_gib(8));
    for depth in 0..=draw.below(3) {
        let limit = total.scale((5 + draw.below(110)) as f64 / 100.0);
        let used = limit.scale(draw.below(80) as f64 / 100.0);
        let reclaimable = used.scale(draw.below(100) as f64 / 100.0);
        let known = |draw: &mut Draw, bytes| if draw.percent(80) { Known::exact(bytes, "test") } else { Known::unknown("cannot be read") };
        let limit = MemoryLimit {
            source: format!("group {depth}"),
            limit,
            used: known(draw, used),
            reclaimable: known(draw, reclaimable),
            swap: Known::unknown("test"),
            mapped_files: true,
        };
        note(format!("limit {} used {} of which cache {}", limit.limit, limit.used, limit.reclaimable));
        machine.limits.memory.push(limit);
    }
}

/// Processors that may be used, numbered by a system or not, and a quota on their time.
fn processors(machine: &mut Machine, draw: &mut Draw, note: &mut dyn FnMut(String)) {
    if draw.percent(50) {
        machine.facts.platform.version = Known::exact("test".to_owned(), "test");
        note("a system that runs".to_owned());
    }
    if draw.percent(15) {
        let quota = (5 + draw.below(120)) as f64 / 10.0;
        machine.limits.cpu_quota = Known::exact(quota, "test");
        note(format!("quota {quota}"));
    }
    if let (true, Some(cpus)) = (draw.percent(15), machine.facts.cpu.logical_cpus.get()) {
        let cpus = (0..cpus).filter(|_| draw.percent(50)).collect();
        note(format!("CPUs {cpus:?}"));
        machine.limits.allowed_cpus = Known::exact(cpus, "test");
        machine.limits.allowed_physical_cores = Known::unknown("not told");
    }
}

/// The same machine with more memory, free and in all; what is not known stays so.
pub fn with_more(machine: &Machine, draw: &mut Draw) -> Machine {
    let mut more = machine.clone();
    let step = |draw: &mut Draw| Bytes::from_mib(draw.of(&[0, 1, 64, 700, 3000, 20_000, 100_000]));
    let host = step(draw);
    for (index, gpu) in more.facts.gpus.iter_mut().enumerate() {
        let step = if gpu.unified_memory { host } else { step(draw) };
        gpu.memory_total = gpu.memory_total.clone().map(|total| total + step);
        if let Some(free) = more.free.gpu_memory.get_mut(index) {
            *free = free.clone().map(|free| free + step);
        }
    }
    more.facts.memory.total = more.facts.memory.total.clone().map(|total| total + host);
    more.free.memory = more.free.memory.clone().map(|free| free + host);
    more.limits.memory.iter_mut().for_each(|limit| limit.limit += host);
    more
}
