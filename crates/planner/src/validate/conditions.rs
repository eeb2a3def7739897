//! The state of the machine against what the settings ask of it: power, heat, links, swap.

use super::table::{BAR_SMALL, GPU_THROTTLED, HOST_THROTTLED, LINK_NARROW, ON_BATTERY, SAVING_POWER, SUSTAINED_HEAT, SWAP_IN_USE};
use super::{Context, Violation};
use crate::target::gpu_of;
use footprint::Requirement;
use spec::machine::{GpuKind, PcieLink};
use spec::{Bytes, Settings};

/// A link of so few lanes makes a GPU wait for weights of the host, whatever its maker built in: risers and M.2 slots.
const FEW_LANES: u32 = 4;

/// Swap below this is what systems put aside at their leisure.
const MUCH_SWAP: Bytes = Bytes::from_mib(512);

/// Share of the free memory above which a plan makes programs that lie in swap come to blows with it.
const MOST: f64 = 0.75;

pub(super) fn conditions(context: &Context<'_>, settings: &Settings, requirement: &Requirement, found: &mut Vec<Violation>) {
    let on_host = requirement.layer_devices.iter().any(Option::is_none) || settings.n_cpu_moe > 0;
    power(context, on_host, found);
    heat(context, settings, requirement, on_host, found);
    if on_host || !settings.tensor_overrides.is_empty() {
        links(context, requirement, found);
    }
    swap(context, requirement, found);
}

fn power(context: &Context<'_>, on_host: bool, found: &mut Vec<Violation>) {
    let machine = context.machine;
    if let Some(left) = machine.on_battery() {
        let message =
            format!("the machine runs on its battery, {left} % left: processors are slowed down, and speeds are those of the mains");
        found.push(ON_BATTERY.broken("threads", message, ON_BATTERY.fix));
    }
    let saving = machine.saving_profile().map(|(profile, _)| format!("the power profile is {profile:?}"));
    let saving =
        saving.or_else(|| machine.saving_governor().map(|(governor, _)| format!("the processor is told to save power: {governor}")));
    if let (Some(what), true) = (saving, on_host) {
        found.push(SAVING_POWER.broken("threads", format!("{what}, and layers are computed there"), SAVING_POWER.fix));
    }
}

fn heat(context: &Context<'_>, settings: &Settings, requirement: &Requirement, on_host: bool, found: &mut Vec<Violation>) {
    let machine = context.machine;
    let half = (settings.threads / 2).max(1);
    if on_host {
        let hot = machine.hot().map(|degrees| format!("the processor has {degrees:.0} °C"));
        let capped = (machine.conditions.cpu_throttled.get() == Some(true)).then(|| "the processor runs below its clock".to_owned());
        if let Some(what) = hot.or(capped) {
            let message = format!("{what}, and {} threads are to compute on it", settings.threads);
            found.push(HOST_THROTTLED.broken("threads", message, format!("improve its cooling, or take -t {half}")));
        } else if machine.lightly_cooled() && settings.threads >= machine.effective_cores() && half < settings.threads {
            let message = format!(
                "{} threads on all cores of a machine that is cooled by little: it slows down after some minutes",
                settings.threads
            );
            found.push(SUSTAINED_HEAT.broken("threads", message, format!("take -t {half} for long work, or a smaller model")));
        }
    }
    for (name, gpu) in computing(context, requirement) {
        if let Some(why) = machine.gpu_throttled(gpu) {
            let message = format!("{name} runs below its clock: {why}");
            found.push(GPU_THROTTLED.broken("n_gpu_layers", message, GPU_THROTTLED.fix));
        }
    }
}

/// Links over which weights or activations pass between host and GPUs.
fn links(context: &Context<'_>, requirement: &Requirement, found: &mut Vec<Violation>) {
    let lanes = |link: PcieLink| format!("PCIe {}.0 x{}", link.generation, link.lanes);
    for (name, gpu) in computing(context, requirement) {
        let now = context.machine.conditions.gpus.get(gpu).and_then(|now| now.link.get());
        let link = match (context.machine.narrow_link(gpu), now) {
            (Some((now, best)), _) => Some(format!("{name} is connected by {} of {} lanes", now.lanes, best.lanes)),
            (None, Some(now)) if now.lanes <= FEW_LANES && is_discrete(context, gpu) => {
                Some(format!("{name} is connected by {}", lanes(now)))
            }
            _ => None,
        };
        if let Some(link) = link {
            let message = format!("{link}, and weights of the host pass there for each prompt");
            found.push(LINK_NARROW.broken("n_gpu_layers", message, LINK_NARROW.fix));
        }
        if let Some((visible, total)) = context.machine.small_bar(gpu) {
            let message =
                format!("the host addresses {visible} of the {total} of {name}, and weights of the host pass there for each prompt");
            found.push(BAR_SMALL.broken("n_gpu_layers", message, BAR_SMALL.fix));
        }
    }
}

fn is_discrete(context: &Context<'_>, gpu: usize) -> bool {
    context.machine.facts.gpus.get(gpu).is_some_and(|gpu| gpu.kind == GpuKind::Discrete)
}

fn swap(context: &Context<'_>, requirement: &Requirement, found: &mut Vec<Violation>) {
    let machine = context.machine;
    // Mapped weights push other programs out as well as memory that is taken.
    let (Some(used), Some(&free)) = (machine.swap_used(), machine.effective_memory_with_files().low()) else { return };
    let Some(&held) = requirement.resident().high() else { return };
    if used >= MUCH_SWAP && held.as_f64() > free.as_f64() * MOST {
        let message = format!("{used} of other programs lie in swap, and {held} of the {free} that are free would be taken");
        found.push(SWAP_IN_USE.broken("memory", message, SWAP_IN_USE.fix));
    }
}

/// Devices that hold layers, by the engine's name, with their place among the machine's GPUs.
fn computing<'a>(context: &'a Context<'_>, requirement: &'a Requirement) -> impl Iterator<Item = (&'a str, usize)> {
    let devices = context.target.devices.iter().enumerate().filter(|(index, _)| requirement.layer_devices.contains(&Some(*index)));
    devices.filter_map(|(index, device)| {
        let gpu = gpu_of(context.machine, context.target, index)?;
        let place = context.machine.facts.gpus.iter().position(|known| std::ptr::eq(known, gpu))?;
        Some((device.name.as_str(), place))
    })
}
