//! Findings about GPUs.

use super::{Finding, Severity};
use spec::machine::{Gpu, GpuKind};
use spec::{Known, Machine};

/// Other programs hold much of a GPU above this share.
const TAKEN: f64 = 0.25;

/// Without Resizable BAR the host sees 256 MiB; with it all of the memory, rounded up to a power of two.
const VISIBLE: f64 = 0.9;

pub(super) fn findings(machine: &Machine, found: &mut Vec<Finding>) {
    for (index, gpu) in machine.facts.gpus.iter().enumerate().filter(|(_, gpu)| gpu.kind != GpuKind::Software) {
        let name = gpu.name.value().map_or_else(|| format!("GPU {index}"), |name| format!("GPU {index} ({name})"));
        usable(machine, index, gpu, &name, found);
        link(machine, index, gpu, &name, found);
        state(machine, index, gpu, &name, found);
        bar(gpu, &name, found);
    }
}

fn usable(machine: &Machine, index: usize, gpu: &Gpu, name: &str, found: &mut Vec<Finding>) {
    if let Known::Unknown { reason } = &gpu.memory_total
        && gpu.kind == GpuKind::Discrete
    {
        found.push(
            Finding::new(
                "gpu-memory-unknown",
                Severity::Problem,
                format!("{name}: its memory is not known, so nothing is planned for it"),
                reason.to_string(),
            )
            .fix("install or update its driver; where the driver starts slowly, keep it loaded (nvidia-smi -pm 1)"),
        );
    } else if !machine.limits.visible_gpus.contains(&index) {
        found.push(Finding::new(
            "gpu-not-visible",
            Severity::Note,
            format!("{name} is not used: it is hidden from this process, split, or not supported"),
            "visible devices",
        ));
    }
}

fn link(machine: &Machine, index: usize, gpu: &Gpu, name: &str, found: &mut Vec<Finding>) {
    let now = machine.conditions.gpus.get(index).and_then(|now| now.link.get());
    // An idle link lowers its generation and keeps its lanes; an integrated GPU's link is not a link.
    if let (Some(best), Some(now)) = (gpu.pcie.get(), now)
        && gpu.kind == GpuKind::Discrete
        && now.lanes < best.lanes
    {
        found.push(
            Finding::new(
                "gpu-lanes",
                Severity::Caution,
                format!("{name} is connected by {} of {} lanes: weights on the host reach it that much slower", now.lanes, best.lanes),
                gpu.pcie.source().to_string(),
            )
            .fix("use the slot next to the processor, without a riser; look whether an M.2 drive shares its lanes"),
        );
    }
}

fn state(machine: &Machine, index: usize, gpu: &Gpu, name: &str, found: &mut Vec<Finding>) {
    let now = machine.conditions.gpus.get(index);
    if let Some(why) = now.and_then(|now| now.throttled.value()).filter(|why| !why.is_empty()) {
        found.push(
            Finding::new("gpu-throttled", Severity::Caution, format!("{name} runs below its clock: {why}"), "driver")
                .fix("improve its cooling, or raise its power limit"),
        );
    }
    if now.is_some_and(|now| now.asleep) {
        found.push(Finding::new(
            "gpu-asleep",
            Severity::Note,
            format!("{name} is powered down and was not woken: its free memory is not known"),
            "power/runtime_status",
        ));
    }
    if let (Some(free), Some(total)) = (machine.free.gpu_memory.get(index).and_then(Known::get), gpu.memory_total.get())
        && !gpu.unified_memory
        && total.saturating_sub(free).as_f64() > total.as_f64() * TAKEN
    {
        found.push(
            Finding::new(
                "gpu-memory-taken",
                Severity::Caution,
                format!("{name}: other programs hold {} of {total}", total.saturating_sub(free)),
                "free memory of the device",
            )
            .fix("end them (nvidia-smi or nvtop lists them), or plan for what is free"),
        );
    }
}

fn bar(gpu: &Gpu, name: &str, found: &mut Vec<Finding>) {
    if let (Some(visible), Some(total)) = (gpu.host_visible.get(), gpu.memory_total.get())
        && gpu.kind == GpuKind::Discrete
        && visible.as_f64() < total.as_f64() * VISIBLE
    {
        found.push(
            Finding::new(
                "gpu-bar",
                Severity::Note,
                format!("{name}: the host addresses {visible} of its {total}: Resizable BAR is off, loading is slower"),
                gpu.host_visible.source().to_string(),
            )
            .fix("switch on Above 4G Decoding and Resizable BAR in the firmware"),
        );
    }
}
