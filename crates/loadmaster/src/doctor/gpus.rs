//! Findings about GPUs.

use super::{Finding, Severity};
use spec::machine::{Gpu, GpuKind, GpuVendor};
use spec::{Bytes, Known, Machine};

/// Other programs hold much of a GPU above this share.
const TAKEN: f64 = 0.25;

/// What a Mac keeps for the system where the GPU may use the rest: an eighth, but not less than 4 GiB (what macOS 26 leaves on Macs of 128
/// GiB is a sixth, on those of 16 a quarter).
const KEPT: (f64, Bytes) = (0.125, Bytes::from_gib(4));

/// Less than this share more is not worth a setting that is gone after the next start.
const WORTH_IT: f64 = 1.05;

pub(super) fn findings(machine: &Machine, found: &mut Vec<Finding>) {
    for (index, gpu) in machine.facts.gpus.iter().enumerate().filter(|(_, gpu)| gpu.kind != GpuKind::Software) {
        let name = gpu.name.value().map_or_else(|| format!("GPU {index}"), |name| format!("GPU {index} ({name})"));
        usable(machine, index, gpu, &name, found);
        link(machine, index, gpu, &name, found);
        state(machine, index, gpu, &name, found);
        bar(machine, index, gpu, &name, found);
        wired(machine, gpu, &name, found);
    }
}

/// macOS lets the GPU use a part of the memory, which the user may raise (`iogpu.wired_limit_mb`, until the next start).
fn wired(machine: &Machine, gpu: &Gpu, name: &str, found: &mut Vec<Finding>) {
    let (Some(limit), Some(total)) = (gpu.memory_total.get(), machine.facts.memory.total.get()) else { return };
    if gpu.vendor != GpuVendor::Apple || !gpu.unified_memory {
        return;
    }
    let kept = total.scale(KEPT.0).max(KEPT.1);
    let most = total.saturating_sub(kept);
    if most.as_f64() < limit.as_f64() * WORTH_IT {
        return;
    }
    let share = limit.as_f64() / total.as_f64() * 100.0;
    found.push(
        Finding::new(
            "gpu-wired-limit",
            Severity::Note,
            format!("{name} may use {limit} of the Mac's {total} ({share:.0} %): a model that needs more does not stay on the GPU"),
            gpu.memory_total.source().to_string(),
        )
        .fix(format!(
            "where nothing else needs the memory: sudo sysctl iogpu.wired_limit_mb={} ({total} less {kept} for the system; until the next start)",
            most.get() >> 20
        )),
    );
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
    if let Some((now, best)) = machine.narrow_link(index) {
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
    if let Some(why) = machine.gpu_throttled(index) {
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

fn bar(machine: &Machine, index: usize, gpu: &Gpu, name: &str, found: &mut Vec<Finding>) {
    if let Some((visible, total)) = machine.small_bar(index) {
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
