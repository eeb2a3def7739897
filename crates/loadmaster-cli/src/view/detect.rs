//! `detect`: the machine, and what of it this process may use. The JSON is [`Report`].

use super::doctor;
use super::quantity::Bandwidth;
use super::{Quantity, Size, View};
use crate::render::topology::{Fill, cpus, fills};
use crate::render::{Align, BAD, Cell, DIM, Table, Text, styled};
use loadmaster::doctor::findings;
use loadmaster::probe::Report;
use serde::Serialize;
use spec::machine::{Gpu, GpuKind, PowerSource};
use spec::{Bytes, Known, Machine};

/// Result of `loadmaster detect`.
#[derive(Clone, Debug, Serialize)]
pub struct DetectView {
    #[serde(flatten)]
    report: Report,
    #[serde(skip)]
    machine: Machine,
}

impl From<Machine> for DetectView {
    fn from(machine: Machine) -> Self {
        Self { report: Report::from(&machine), machine }
    }
}

/// Extensions that decide how fast an engine computes, in the order in which people ask for them.
const NOTEWORTHY: &[&str] = &[
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512vbmi",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx10",
    "amx_int8",
    "neon",
    "dotprod",
    "i8mm",
    "sve",
    "sve2",
    "sme",
];

impl View for DetectView {
    fn text(&self, text: &mut Text) {
        processor(&self.machine, text);
        memory(&self.machine, text);
        gpus(&self.machine, text);
        now(&self.machine, text);
        let found = findings(&self.machine);
        if !found.is_empty() {
            text.section("To look at");
            doctor::write(text, &found);
        }
    }
}

fn processor(machine: &Machine, text: &mut Text) {
    let (platform, cpu) = (&machine.facts.platform, &machine.facts.cpu);
    let inside = if platform.inside.is_empty() { String::new() } else { format!(", inside {}", platform.inside.join(", ")) };
    let version = platform.version.value().map(|version| format!(" {version}")).unwrap_or_default();
    text.section(format_args!("Processor ({}{version}, {}{inside})", platform.os, platform.arch));
    let brief = |text: &Text, known: &Known<u32>| text.brief(&Quantity::<u32>::of(known));
    let mut cores = format!(
        "{} physical, {} logical, {} sockets",
        brief(text, &cpu.physical_cores),
        brief(text, &cpu.logical_cpus),
        brief(text, &cpu.sockets)
    );
    if cpu.dies.get().is_some_and(|dies| Some(dies) != cpu.sockets.get()) {
        cores = format!("{cores}, {} dies", brief(text, &cpu.dies));
    }
    let mut fields = vec![
        ("model", text.quantity(&Quantity::<String>::of(&cpu.model))),
        ("cores", cores),
        ("usable here", format!("{} cores, {} CPUs", machine.effective_cores(), machine.effective_cpus())),
    ];
    if machine.limits.cpu_quota.get().is_some() {
        fields.push(("quota", format!("{} CPUs", text.quantity(&Quantity::<f64>::of(&machine.limits.cpu_quota)))));
    }
    if cpu.core_kinds.len() > 1 {
        let kinds: Vec<_> = cpu.core_kinds.iter().map(|kind| format!("{} {}", kind.physical_cores, kind.name)).collect();
        fields.push(("kinds", kinds.join(", ")));
    }
    if !(cpu.base_frequency_hz.is_unknown() && cpu.max_frequency_hz.is_unknown()) {
        let ghz = |known: &Known<u64>| known.get().map_or_else(|| "unknown".to_owned(), |hz| format!("{:.2} GHz", hz as f64 / 1e9));
        fields.push(("frequency", format!("{} base, {} at most", ghz(&cpu.base_frequency_hz), ghz(&cpu.max_frequency_hz))));
    }
    let caches = cpu.caches.iter().filter(|cache| cache.kind != "instruction");
    let caches: Vec<_> = caches.map(|cache| format!("L{} {} x {}", cache.level, cache.instances, cache.size)).collect();
    fields.push(("caches", if caches.is_empty() { styled(DIM, "unknown") } else { caches.join(", ") }));
    let has = |name: &&str| cpu.features.iter().any(|feature| feature == name);
    let mut simd: Vec<String> = match text.verbose() {
        true => cpu.features.iter().cloned().collect(),
        false => NOTEWORTHY.iter().copied().filter(has).map(str::to_owned).collect(),
    };
    if let Some(bits) = cpu.vector_bits.get() {
        simd.push(format!("(vectors of {bits} bits)"));
    }
    fields.push(("SIMD", if simd.is_empty() { styled(DIM, "unknown") } else { simd.join(" ") }));
    let bandwidth: Quantity<Bandwidth> = Quantity::of(&cpu.memory_bandwidth);
    fields.push(("memory bandwidth", text.quantity(&bandwidth)));
    text.fields(fields);
    cpus(machine, text);
}

fn memory(machine: &Machine, text: &mut Text) {
    let (memory, free) = (&machine.facts.memory, &machine.free);
    text.section("Memory");
    let size = |known: &Known<Bytes>| -> Quantity<Size> { Quantity::of(known) };
    let mut fields = vec![
        ("total", text.quantity(&size(&memory.total))),
        ("available", text.quantity(&size(&free.memory))),
        ("usable here", text.quantity(&size(&machine.effective_memory_available()))),
        ("swap", format!("{} free of {}", text.brief(&size(&free.swap)), text.brief(&size(&memory.swap_total)))),
    ];
    for limit in &machine.limits.memory {
        let used = text.quantity(&size(&limit.used));
        let swap = limit.swap.get().map(|swap| format!(", swap {swap}")).unwrap_or_default();
        let files = if limit.mapped_files { "" } else { ", mapped files not counted" };
        fields.push(("limit", format!("{} ({}), in use {used}{swap}{files}", limit.limit, limit.source)));
    }
    for module in &memory.modules {
        let speed = module.transfers_per_s.get().map(|rate| format!(" at {} MT/s", rate / 1_000_000)).unwrap_or_default();
        let kind = module.kind.value().cloned().unwrap_or_default();
        fields.push(("module", format!("{}: {} {kind}{speed}", module.slot, text.brief(&size(&module.size)))));
    }
    if let Some(choice) = memory.huge_pages.transparent.value() {
        let reserved = memory.huge_pages.reserved.get().filter(|count| *count > 0);
        let reserved = reserved.map(|count| format!(", {count} set aside")).unwrap_or_default();
        fields.push(("huge pages", format!("{choice}{reserved}")));
    }
    if machine.facts.numa.len() > 1 {
        for node in &machine.facts.numa {
            let what = if node.of_gpu { " of a GPU" } else { "" };
            fields.push(("NUMA node", format!("{}: {} CPUs, {}{what}", node.id, node.cpus.len(), text.quantity(&size(&node.memory)))));
        }
    }
    text.fields(fields);
    let mut bars = Vec::new();
    if let (Some(total), Some(available)) = (memory.total.get(), free.memory.get()) {
        bars.push(Fill { name: "host".into(), total, free: available, usable: machine.effective_memory_available().get() });
    }
    for (index, gpu) in machine.facts.gpus.iter().enumerate().filter(|(_, gpu)| !gpu.unified_memory) {
        if let (Some(total), Some(free)) = (gpu.memory_total.get(), machine.free.gpu_memory.get(index).and_then(Known::get)) {
            bars.push(Fill { name: format!("GPU {index}"), total, free, usable: None });
        }
    }
    fills(&bars, text);
}

fn gpus(machine: &Machine, text: &mut Text) {
    text.section("GPUs");
    if machine.facts.gpus.is_empty() {
        text.line("  none found");
    } else {
        let mut table = Table::new([Align::Right, Align::Left, Align::Right, Align::Right, Align::Left, Align::Left, Align::Left]);
        table.header(["", "name", "memory", "free", "bandwidth", "compute", "link"]);
        for (index, gpu) in machine.facts.gpus.iter().enumerate() {
            table.row(gpu_row(machine, index, gpu, text));
        }
        text.table(&table);
    }
    for npu in &machine.facts.npus {
        text.line(format_args!("  {} {}", npu.name, styled(DIM, "(no engine here computes on it)")));
    }
}

fn gpu_row(machine: &Machine, index: usize, gpu: &Gpu, text: &Text) -> Vec<Cell> {
    let unknown = Known::unknown("not reported");
    let free = machine.free.gpu_memory.get(index).unwrap_or(&unknown);
    let name = text.brief(&Quantity::<String>::of(&gpu.name));
    let slice = gpu.slice.as_ref().map(|slice| format!(" {}", slice.profile)).unwrap_or_default();
    let remark = match (gpu.kind, machine.limits.visible_gpus.contains(&index)) {
        (GpuKind::Software, _) => format!(" {}", styled(DIM, "(software)")),
        (_, false) => format!(" {}", styled(BAD, "(not usable here)")),
        (_, true) if gpu.unified_memory => " (shares host memory)".to_owned(),
        _ => String::new(),
    };
    let capability = gpu.compute_capability.clone().map(|(major, minor)| format!("{major}.{minor}"));
    let compute = if capability.is_unknown() && !gpu.architecture.is_unknown() { gpu.architecture.clone() } else { capability };
    let link = gpu.pcie.clone().map(|link| format!("PCIe {}.0 x{}", link.generation, link.lanes));
    vec![
        Cell::plain(index.to_string()),
        Cell::plain(format!("{name}{slice}{remark}")),
        Cell::plain(text.brief(&Quantity::<Size>::of(&gpu.memory_total))),
        Cell::plain(text.brief(&Quantity::<Size>::of(free))),
        Cell::plain(text.brief(&Quantity::<Bandwidth>::of(&gpu.memory_bandwidth))),
        Cell::plain(text.brief(&Quantity::<String>::of(&compute))),
        Cell::plain(text.brief(&Quantity::<String>::of(&link))),
    ]
}

/// What holds at this moment; nothing where nothing is known.
fn now(machine: &Machine, text: &mut Text) {
    let now = &machine.conditions;
    let mut fields = Vec::new();
    match now.power.get() {
        Some(PowerSource::Mains) => fields.push(("power", "mains".to_owned())),
        Some(PowerSource::Battery(left)) => fields.push(("power", format!("battery, {left} % left"))),
        None => {}
    }
    for (name, known) in [("power profile", &now.power_profile), ("governor", &now.governor)] {
        if !known.is_unknown() {
            fields.push((name, text.quantity(&Quantity::<String>::of(known))));
        }
    }
    if let Some(degrees) = now.cpu_temperature_c.get() {
        fields.push(("processor", format!("{degrees:.0} °C")));
    }
    if !fields.is_empty() {
        text.section("Now");
        text.fields(fields);
    }
}
