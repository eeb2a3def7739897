//! GPUs that compute in the host's memory: whether a plan uses them at all.
//!
//! They have no memory to add and no bandwidth of their own, so that they are worth using only where they are faster than the CPU at
//! what is asked for. The prediction of a typical request decides, with all layers on them against none.

use super::Plan;
use super::pools::Pools;
use super::request::{DevicePreference, Request};
use super::site::{Reach, Rung, Site};
use super::verdict::{Budget, Origin, Pool};
use crate::inventory::Inventory;
use crate::predict::{HostState, Prediction};
use crate::target::gpu_of;
use footprint::{FootprintError, Target};
use spec::machine::GpuVendor;
use spec::settings::{Devices, Pins};
use spec::{Bytes, Machine, Model, QuantType, Settings};

/// By how much a request must be shorter on the GPU: below that the two predictions do not tell which is faster, and the CPU needs
/// neither a driver nor a copy of the weights.
const CLEARLY: f64 = 1.15;

/// The problem without its devices.
pub(crate) fn without_devices(target: &Target, request: &Request) -> (Target, Request) {
    let none = Devices::Only(Vec::new());
    let pins = Pins { devices: Some(none), ..request.pins.clone() };
    (bare(target), Request { pins, ..request.clone() })
}

/// The target without its devices.
pub(crate) fn bare(target: &Target) -> Target {
    Target { devices: Vec::new(), ..target.clone() }
}

/// A plan that was made without the devices of `target`, for the request that it is for, saying so.
pub(crate) fn marked(mut plan: Plan, request: &Request, target: &Target, why: &str) -> Plan {
    let devices = target.devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ");
    for choice in &mut plan.choices {
        if choice.setting == "devices" {
            (choice.origin, choice.because) = (Origin::Searched, format!("{devices} is left out: {why}"));
        } else if choice.setting == "n_gpu_layers" && choice.origin != Origin::Pinned {
            choice.because = format!("{devices} is left out");
        }
    }
    plan.reasons.insert(1.min(plan.reasons.len()), format!("{devices}, which shares the host's memory, is left out: {why}"));
    Plan { request: request.clone(), ..plan }
}

/// Why a plan should leave out the devices of the target from the start: they share the host's memory, there are no others, and nothing
/// is to be computed on them.
pub(crate) fn left_out(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Option<String> {
    if !only_shared(target) {
        return None;
    }
    match request.preferences.device {
        _ if asks_for_devices(&request.pins) => None,
        _ if request.pins.n_gpu_layers == Some(0) => Some("no layer may be on it".to_owned()),
        DevicePreference::Cpu => Some("the CPU was asked for".to_owned()),
        DevicePreference::Gpu => None,
        DevicePreference::Auto => slower(machine, model, target, request),
    }
}

/// Why a refused plan may do without the devices: then the file can be mapped, and be larger than memory.
pub(crate) fn may_be_left_out(target: &Target, request: &Request) -> Option<String> {
    let free = request.preferences.device == DevicePreference::Auto && !asks_for_devices(&request.pins);
    let why = "the model does not fit into the memory that it may use".to_owned();
    (only_shared(target) && free).then_some(why)
}

/// True where there are devices, and all of them share the host's memory.
fn only_shared(target: &Target) -> bool {
    !target.devices.is_empty() && target.devices.iter().all(|device| device.shares_host)
}

/// True where the user has put something on a device.
pub(crate) fn asks_for_devices(pins: &Pins) -> bool {
    pins.devices.is_some()
        || pins.n_gpu_layers.is_some_and(|n| n > 0)
        || pins.op_offload == Some(true)
        || pins.n_cpu_moe.is_some()
        || pins.split_mode.is_some()
        || pins.tensor_split.is_some()
        || pins.main_gpu.is_some()
        || pins.kv_offload.is_some()
        || pins.tensor_overrides.as_ref().is_some_and(|rules| rules.iter().any(|rule| rule.buffer != "CPU"))
}

/// Why the devices are not worth using, by the time of a typical request; `None` where they are, or nothing is predicted.
fn slower(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Option<String> {
    if gpu_of(machine, target, 0).is_none_or(|gpu| gpu.compute.is_unknown()) {
        return Some("how fast it computes is not known, and it reads no faster than the CPU".to_owned());
    }
    let inventory = Inventory::of(model);
    let with = seconds(machine, model, target, request, &inventory)?;
    let without = seconds(machine, model, &bare(target), request, &inventory)?;
    if without.0 > with.0 * CLEARLY {
        return None;
    }
    let than = if with.0 > without.0 { "the CPU is faster" } else { "the CPU is about as fast and needs no copy of the weights" };
    let rate = |prediction: &Prediction| {
        let of = |known: &spec::Known<spec::TokensPerSec>| known.get().map_or_else(|| "unknown".to_owned(), |rate| format!("~{rate}"));
        format!("prompt {}, decode {}", of(&prediction.prefill), of(&prediction.decode))
    };
    Some(format!("{than}: {} instead of {} on the GPU", rate(&without.1), rate(&with.1)))
}

/// Seconds of the use case's typical request with all layers on the first device, or on the host where there is none, as if there were
/// memory enough.
fn seconds(machine: &Machine, model: &Model, target: &Target, request: &Request, inventory: &Inventory) -> Option<(f64, Prediction)> {
    let not_needed = |_: &Settings| Err(FootprintError::EmptySplit);
    let site = Site::new(machine, model, target, request, inventory, &not_needed);
    let rung = Rung { n_ctx: site.needs.enough, cache: QuantType::F16, reach: Reach::Anywhere, disk: false };
    let device = (!target.devices.is_empty()).then_some(0);
    let settings = Settings { n_gpu_layers: device.map_or(0, |_| inventory.offloadable()), ..site.base(&rung) };
    let homes = vec![device; inventory.offloadable() as usize];
    let state = HostState { missing: 0.0, repacked: 0.0, flash_attention: true };
    let prediction = site.predictor.speed(&settings, &homes, &[], &state, site.depth(&settings));
    let seconds = site.timing(&settings, &homes, &[], &state).whole;
    seconds.is_finite().then_some((seconds, prediction))
}

/// The pool that a shared device is limited by under a plan: its own, or the host's where less is left of that.
pub(crate) fn tighter_is_the_host(pools: &Pools, requirement: &footprint::Requirement) -> bool {
    let budgets = pools.budgets(requirement);
    let left = |shares: bool| {
        let of = budgets.iter().filter(|budget| budget.shares_host == shares && (shares || budget.pool == Pool::Host));
        of.filter_map(Budget::left).min()
    };
    matches!((left(true), left(false)), (Some(device), Some(host)) if host < device)
}

/// How a device that shares the host's memory is given `extra` more of it, where the system has a setting for that.
pub(crate) fn more_of_the_host(machine: &Machine, pools: &Pools, extra: Bytes) -> Option<String> {
    let [device] = pools.devices.as_slice() else { return None };
    let total = device.total.low().copied().filter(|_| device.shares_host)?;
    let gpu = machine.usable_gpus().map(|(_, gpu, _)| gpu).find(|gpu| gpu.unified_memory)?;
    // What firmware keeps for the GPU is no part of the kernel's limit.
    let now = if gpu.vendor == GpuVendor::Amd { gpu.shared_memory.low().copied().unwrap_or(total) } else { total };
    // A larger limit has a larger margin.
    let wanted = (now + extra.scale(1.05)).get().div_ceil(1 << 20).next_multiple_of(256);
    let how = match gpu.vendor {
        GpuVendor::Apple => format!("sudo sysctl iogpu.wired_limit_mb={wanted}"),
        // Pages of 4 KiB.
        GpuVendor::Amd if machine.facts.platform.os == "linux" => format!("ttm.pages_limit={} on the kernel's command line", wanted * 256),
        _ => return None,
    };
    Some(format!("{how}: {extra} more of the host's memory for {}", device.pool))
}
