//! The requirement of one configuration, put together from its parts.

use crate::companions::{Companions, Host, beside};
use crate::error::FootprintError;
use crate::kv_cache::{self, ByPlace};
use crate::placement::{self, Placement};
use crate::requirement::{DeviceRequirement, HostRequirement, Requirement};
use crate::weights::{self, Weights};
use crate::{ComputeBuffers, Device, EngineProfile, ResolvedContext, Target};
use crate::{compute, context, host, output, scratch, state};
use spec::model::Support;
use spec::settings::LoadMode;
use spec::{Bytes, Known, Model, Settings};
use std::collections::BTreeMap;

/// What `model` needs under `settings` on `target` with the engine of `profile`, by device and component.
///
/// Weights, caches and state equal the engine's own allocations to the byte for architectures that loadmaster knows
/// ([`Support::Described`]); for others caches and state are estimated with an interval.
///
/// # Errors
/// A configuration that the engine refuses ([`FootprintError`] names the setting), or one whose rules are not modelled.
pub fn require(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<Requirement, FootprintError> {
    require_with(model, settings, target, profile, &Companions::default())
}

/// As [`require`], with what is loaded beside the model.
///
/// # Errors
/// As [`require`], and companions that do not go with the model.
pub fn require_with(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    companions: &Companions,
) -> Result<Requirement, FootprintError> {
    let settings = &*profile.rules.apply(settings);
    let context = context::resolve_with(model, settings, profile, companions.speculation(model))?;
    let placement = placement::place(model, settings, target, profile)?;
    let compute = compute::buffers(model, settings, target, &placement, &context);
    // Only the placed graph tells what `auto` becomes, and so whether the engine refuses the cache.
    if settings.cache_type_v.is_quantized() && !compute.flash_attn {
        return Err(FootprintError::QuantizedVWithoutFlashAttention { ty: settings.cache_type_v });
    }
    let compute = if context.n_states > 1 && model.has_recurrent_state() { compute.with_kept_states() } else { compute };
    let beside = match companions.is_empty() {
        true => None,
        false => Some(beside(&Host { model, settings, target, profile, context, placement: &placement }, companions)?),
    };
    let mut requirement = assemble(model, settings, target, profile, context, placement, compute);
    if let Some(beside) = beside {
        requirement.set_beside(beside);
    }
    Ok(requirement)
}

/// What the engine's own dry run (`no_alloc`) reports for the same configuration: nothing is mapped, and compute buffers are
/// those of the first prefill graph ([`compute::dry_run`]). For comparing with it, not for planning.
///
/// # Errors
/// As [`require`].
pub fn dry_run(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<Requirement, FootprintError> {
    let settings = &Settings { load_mode: LoadMode::None, ..profile.rules.apply(settings).into_owned() };
    let context = context::resolve(model, settings, profile)?;
    let placement = placement::place(model, settings, target, profile)?;
    let compute = compute::dry_run(model, settings, target, &placement, &context);
    Ok(assemble(model, settings, target, profile, context, placement, compute))
}

fn assemble(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    context: ResolvedContext,
    placement: Placement,
    compute: ComputeBuffers,
) -> Requirement {
    let parts = Parts {
        weights: weights::weights(model, target, profile, &placement),
        kv_cache: kv_cache::kv_cache(model, settings, target, &context, &placement.layer_devices),
        state: state::state(model, settings, target, &context, &placement.layer_devices),
        compute,
    };
    Requirement {
        devices: devices(model, settings, target, &context, &placement, &parts),
        host: host(model, settings, target, profile, &context, &placement, &parts),
        notes: notes(model, settings, &placement, &parts.weights),
        graph: parts.compute.graph,
        context: ResolvedContext { flash_attn: parts.compute.flash_attn, ..context },
        layer_devices: placement.layer_devices,
    }
}

/// Buffers by component, each over all places.
struct Parts {
    weights: Weights,
    kv_cache: ByPlace,
    state: ByPlace,
    compute: ComputeBuffers,
}

const WEIGHTS: &str = "tensor directory of the file, padded as the buffer pads (ggml-backend.cpp:57-89)";
const KV_CACHE: &str = "llama-kv-cache.cpp:65-250";
const OUTPUT: &str = "llama-context.cpp:2118-2260";
const STATE: &str = "llama-memory-recurrent.cpp:70-125";

fn devices(
    model: &Model,
    settings: &Settings,
    target: &Target,
    context: &ResolvedContext,
    placement: &Placement,
    parts: &Parts,
) -> Vec<DeviceRequirement> {
    let none = || Known::exact(Bytes::ZERO, "the engine does not use this device");
    let device = |(index, device): (usize, &Device)| {
        let used = placement.devices.contains(&index);
        DeviceRequirement {
            name: device.name.clone(),
            weights: Known::exact(parts.weights.devices[index], WEIGHTS),
            kv_cache: known_cache(model, parts.kv_cache.devices[index]),
            state: known_state(model, parts.state.devices[index]),
            compute: parts.compute.devices.get(index).filter(|_| used).cloned().unwrap_or_else(none),
            runtime: if used { device.backend.runtime.clone() } else { none() },
            scratch: if used { scratch::scratch(model, settings, context, placement, index, device) } else { none() },
            beside: Vec::new(),
        }
    };
    target.devices.iter().enumerate().map(device).collect()
}

fn host(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    context: &ResolvedContext,
    placement: &Placement,
    parts: &Parts,
) -> HostRequirement {
    let weights = &parts.weights;
    let (mapped, plain) = if placement.mapped {
        (weights.host_file, Bytes::ZERO)
    } else {
        (weights.host_lazy, weights.host.saturating_sub(weights.host_lazy))
    };
    let (span, touched) = if placement.mapped {
        (weights::mapped_span(model, placement), weights::mapped_touched(model, placement))
    } else {
        (weights.host_lazy, weights.host_lazy)
    };
    let output = output::output(model, settings.n_parallel.max(1));
    HostRequirement {
        weights_mapped: Known::exact(mapped, WEIGHTS),
        mapped_span: Known::exact(span, "llama-model.cpp:1856-1876"),
        mapped_touched: Known::exact(touched, WEIGHTS),
        weights_anonymous: Known::exact(plain + weights.pinned, WEIGHTS),
        weights_repacked: Known::exact(weights.repacked + weights.amx, WEIGHTS),
        kv_cache: known_cache(model, parts.kv_cache.host),
        state: known_state(model, parts.state.host),
        compute: parts.compute.host.clone(),
        output: Known::exact(output, OUTPUT),
        output_growth: Known::exact(output::output(model, context.n_rows).saturating_sub(output), OUTPUT),
        runtime: runtime(model, target, context, placement),
        prompt_cache: host::prompt_cache(settings, profile),
        checkpoints: host::checkpoints(model, settings, profile, context),
        weights_rarely_read: Known::exact(weights::looked_up(model, placement), WEIGHTS),
        beside: Vec::new(),
        pinned: pinned(target, placement, weights.pinned, &parts.compute.host, output),
    }
}

/// What of the host's buffers is page-locked: with a first device that offers such a buffer the compute buffer is, with an
/// output device that does the logits are (`llama-context.cpp:410-423` and `:2196-2202`).
fn pinned(target: &Target, placement: &Placement, weights: Bytes, compute: &Known<Bytes>, output: Bytes) -> Known<Bytes> {
    let offers =
        |device: Option<usize>| device.and_then(|device| target.devices.get(device)).is_some_and(|device| device.backend.host_buffer);
    let mut sum = Known::exact(weights, "weights in a pinned host buffer");
    if offers(placement.devices.first().copied()) {
        sum = sum.plus(compute);
    }
    if offers(placement.output_device()) {
        sum = sum.plus(&Known::exact(output, "logits in a pinned host buffer"));
    }
    sum
}

/// The program and, once per backend in use, its driver.
fn runtime(model: &Model, target: &Target, context: &ResolvedContext, placement: &Placement) -> Known<Bytes> {
    let backends = placement.devices.iter().map(|&device| &target.devices[device].backend);
    let drivers: BTreeMap<_, _> = backends.map(|backend| (backend.name.as_str(), &backend.runtime_host)).collect();
    drivers.into_values().fold(host::runtime(model, context), |sum, driver| sum.plus(driver))
}

fn known_cache(model: &Model, bytes: Bytes) -> Known<Bytes> {
    match kv_cache::unsupported(model) {
        Some(reason) => Known::unknown(reason),
        None => by_support(model, bytes, KV_CACHE),
    }
}

fn known_state(model: &Model, bytes: Bytes) -> Known<Bytes> {
    by_support(model, bytes, STATE)
}

/// Exact for described architectures. For others the layers are inferred: a layer may keep less than assumed (windows,
/// shared or compressed caches), or a state besides.
fn by_support(model: &Model, bytes: Bytes, source: &'static str) -> Known<Bytes> {
    match model.support {
        Support::Described => Known::exact(bytes, source),
        Support::Generic => Known::estimated(bytes, bytes.scale(0.25), bytes.scale(1.5), "generic metadata of an unknown architecture"),
    }
}

fn notes(model: &Model, settings: &Settings, placement: &Placement, weights: &Weights) -> Vec<String> {
    let mut notes = Vec::new();
    if model.support == Support::Generic {
        notes.push(format!("architecture {:?} is not known: tensors are exact, caches and compute are estimates", model.architecture));
    }
    if model.tensors.iter().any(|tensor| tensor.ty.is_bitnet_fork()) {
        notes.push("tensors of the BitNet fork: bitnet.cpp loads this file, llama.cpp does not".to_owned());
    }
    if let Some((_, home)) = placement.tied_copy() {
        notes.push(format!("the tied token embedding is kept twice: the output matrix is a second copy ({})", place_name(home)));
    }
    if placement.mapped && !(weights.repacked + weights.amx).is_zero() {
        notes.push("repacked weights are copies beside the mapped file: --no-repack saves them at the cost of prefill speed".to_owned());
    }
    if settings.n_cpu_moe > 0 && !model.has_experts() {
        notes.push("n_cpu_moe has no effect: the model has no experts".to_owned());
    }
    notes
}

fn place_name(home: placement::Home) -> &'static str {
    match home {
        placement::Home::Device(_) => "device memory",
        placement::Home::HostRepacked | placement::Home::HostAmx => "rearranged for the CPU",
        _ => "host memory",
    }
}
