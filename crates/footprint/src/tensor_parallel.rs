//! Split mode `tensor`: every device holds a slice of each matrix and of each cached row, and computes along.
//!
//! The engine joins the devices to one (`ggml/src/ggml-backend-meta.cpp`). Its scheduler and allocator see that one alone,
//! with tensors in full, and each device gets a compute buffer of that size (`:1697-1720`). Weights, caches and state are
//! allocated by slices (`:1722-1776`); what no rule cuts, every device has whole.

mod slices;

use crate::companions::{Beside, Companions, Host, beside};
use crate::error::FootprintError;
use crate::kv_cache::{ByPlace, Shape, Shapes, cells, trunk_layers};
use crate::parts::Part;
use crate::placement::{self, Home, Placement};
use crate::require::{Case, require_speculating};
use crate::requirement::{DeviceRequirement, Requirement};
use crate::roles::Roles;
use crate::target::{Backend, Device};
use crate::{EngineProfile, ResolvedContext, Target, context, scratch};
use slices::{Slices, Slicing};
use spec::model::{Mixer, Support, Tensor};
use spec::settings::{FlashAttention, SplitMode};
use spec::{Bytes, Known, Model, QuantType, Settings};

/// Architectures that the engine refuses (`src/llama-arch.cpp:1196-1232`).
const REFUSED: &[&str] = &[
    "grok",
    "mpt",
    "plamo2",
    "minicpm3",
    "gemma3n",
    "mamba",
    "mamba2",
    "jamba",
    "falcon-h1",
    "olmo2",
    "olmoe",
    "deepseek2",
    "deepseek32",
    "hy-v4",
    "dots3note",
    "glm-dsa",
    "bitnet",
    "t5",
    "nemotron_h",
    "nemotron_h_moe",
    "granitehybrid",
    "minimax-01",
    "minimax-m2",
    "minimax-m3",
    "mistral4",
    "kimi-linear",
    "bailingmoe3",
    "kimi-k3",
    "glm5-next",
    "qwen3tts",
];
/// Architectures with rules of their own that are not modelled here.
const UNKNOWN: &[&str] = &["deepseek4", "dflash", "hrm-text", "qwen4exp", "clef"];
/// Recurrent architectures whose state the engine knows how to cut; it ends itself at others.
const RECURRENT: &[&str] = &["qwen3next", "qwen35", "qwen35moe", "lfm2", "lfm2moe"];
/// Architectures of which real loads were recorded in this mode (`tests/sliced`).
const RECORDED: &[&str] = &["llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi3", "gpt-oss", "qwen35", "qwen35moe", "lfm2"];

const SLICES: &str = "slices of matrices, and whole what is not cut (llama-model.cpp:379-900, ggml-backend-meta.cpp:1722-1776)";
const NOTE: &str = "split mode tensor: each device holds a slice of every matrix and the whole compute buffer";

fn refused(reason: impl Into<String>) -> FootprintError {
    FootprintError::SplitMode { mode: SplitMode::Tensor, reason: reason.into() }
}

/// What the engine joins the devices to, and the settings that then have the same effect.
struct Joined {
    target: Target,
    settings: Settings,
    placement: Placement,
    context: ResolvedContext,
}

impl Joined {
    fn new(
        model: &Model,
        settings: &Settings,
        target: &Target,
        profile: &EngineProfile,
        companions: &Companions,
    ) -> Result<Self, FootprintError> {
        check(model, settings, target, profile)?;
        // Nothing is computed over host weights, the joined device offers no such thing.
        let settings = Settings {
            split_mode: SplitMode::None,
            main_gpu: 0,
            tensor_split: Vec::new(),
            op_offload: false,
            flash_attn: FlashAttention::On,
            ..settings.clone()
        };
        let target = Target { devices: vec![join(&target.devices)], ..target.clone() };
        let context = context::resolve_with(model, &settings, profile, companions.speculation(model))?;
        let placement = placement::place(model, &settings, &target, profile)?;
        Ok(Self { target, settings, placement, context })
    }
}

fn check(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<(), FootprintError> {
    let architecture = model.architecture.as_str();
    if target.devices.is_empty() {
        return Err(refused("it needs a GPU"));
    }
    if !profile.rules.confirmed {
        return Err(refused("how engines of that age slice is not known; use layer or none"));
    }
    if REFUSED.contains(&architecture) {
        return Err(refused(format!("the engine does not offer it for {architecture}; use layer or none")));
    }
    if UNKNOWN.contains(&architecture) || model.support == Support::Generic {
        return Err(refused(format!("how {architecture} is sliced is not known; use layer or none")));
    }
    let recurrent = model.has_recurrent_state();
    if recurrent && !RECURRENT.contains(&architecture) {
        return Err(refused(format!("the engine cannot slice the state of {architecture}; use layer or none")));
    }
    if settings.flash_attn == FlashAttention::Off {
        return Err(refused("it needs flash attention, which is off"));
    }
    let to_device = settings.tensor_overrides.iter().find(|rule| target.devices.iter().any(|device| device.name == rule.buffer));
    match to_device {
        Some(rule) => Err(refused(format!("an override to {} would undo it; only CPU can be named", rule.buffer))),
        None => Ok(()),
    }
}

/// One device for all: the strictest alignment and padding, the memory of all together.
fn join(devices: &[Device]) -> Device {
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let first = devices.first().map_or_else(|| Backend::pretended(false), |device| device.backend.clone());
    let all = |has: fn(&Backend) -> bool| devices.iter().all(|device| has(&device.backend));
    let same = devices.iter().all(|device| device.backend.name == first.name);
    let smallest = devices.iter().filter_map(|device| device.backend.max_buffer).min();
    let backend = Backend {
        alignment: devices.iter().map(|device| device.backend.alignment).max().unwrap_or(first.alignment),
        quantized_row_padding: devices.iter().filter_map(|device| device.backend.quantized_row_padding).max(),
        max_buffer: smallest,
        // One host buffer for all is offered only where all have the same.
        host_buffer: same && all(|backend| backend.host_buffer),
        pipeline: false,
        mmap: all(|backend| backend.mmap),
        maps_weights: false,
        ..first
    };
    let sum = |of: fn(&Device) -> &Known<Bytes>| {
        devices.iter().map(of).fold(Known::exact(Bytes::ZERO, "joined devices"), |sum, memory| sum.plus(memory))
    };
    Device {
        name: names.join("+"),
        backend,
        total: sum(|device| &device.total),
        free: sum(|device| &device.free),
        shares_host: devices.iter().all(|device| device.shares_host),
        pci_address: None,
    }
}

/// As [`crate::require_with()`], for settings with split mode `tensor`.
pub(crate) fn require(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    companions: &Companions,
) -> Result<Requirement, FootprintError> {
    let joined = Joined::new(model, settings, target, profile, companions)?;
    // Drafts change what is reserved for the model itself.
    let inner = Companions { projector: None, adapters: Vec::new(), control_vectors: Vec::new(), ..companions.clone() };
    let whole = require_speculating(model, &joined.settings, &joined.target, profile, &inner)?;
    let slicing = Slicing::new(model, target.devices.len(), &settings.tensor_split);
    let weights = weights(model, target, &joined.placement, &slicing)?;
    let (kv_cache, state) = caches(model, target, &joined, &slicing)?;
    let exact = RECORDED.contains(&model.architecture.as_str());
    let known = |sliced: Bytes, whole: Option<Bytes>| match exact {
        true => Known::exact(sliced, SLICES),
        false => Known::estimated(sliced, Bytes::ZERO, whole.unwrap_or(sliced).max(sliced), format!("{SLICES}; no load is recorded")),
    };
    let computed = whole.devices.first();
    let of_whole = |part: fn(&DeviceRequirement) -> &Known<Bytes>| computed.and_then(|device| part(device).get());
    let unknown = || Known::unknown("the engine has no device to join");
    let devices = target.devices.iter().enumerate().map(|(index, device)| DeviceRequirement {
        name: device.name.clone(),
        weights: known(weights[index], of_whole(|device| &device.weights)),
        kv_cache: known(kv_cache.devices[index], of_whole(|device| &device.kv_cache)),
        state: known(state.devices[index], of_whole(|device| &device.state)),
        compute: computed.map_or_else(unknown, |computed| computed.compute.clone()),
        runtime: device.backend.runtime.clone(),
        scratch: scratch::scratch(&Roles::of(model), model, settings, &joined.context, &joined.placement, 0, device),
        weights_mapped: Known::exact(Bytes::ZERO, "slices are read into memory"),
        beside: Vec::new(),
        shares_host: device.shares_host,
    });
    let devices: Vec<DeviceRequirement> = devices.collect();
    let mut requirement = Requirement { devices, sliced: true, ..whole };
    requirement.notes.push(NOTE.to_owned());
    requirement.set_beside(companions_beside(model, settings, target, profile, &joined, companions)?);
    Ok(requirement)
}

/// The engine's name of the joined devices; it means to list theirs (`ggml-backend-meta.cpp:61-79`).
const JOINED: &str = "Meta()";

/// As [`crate::dry_run()`], for settings with split mode `tensor`.
pub(crate) fn dry_run(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<Requirement, FootprintError> {
    let Joined { mut target, settings, .. } = Joined::new(model, settings, target, profile, &Companions::default())?;
    target.devices.iter_mut().for_each(|device| JOINED.clone_into(&mut device.name));
    Ok(Requirement { sliced: true, ..crate::dry_run(model, &settings, &target, profile)? })
}

/// Where tensors lie, the devices taken for one.
pub(crate) fn placement(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    companions: &Companions,
) -> Result<Placement, FootprintError> {
    Ok(Joined::new(model, settings, target, profile, companions)?.placement)
}

/// Bytes of weights per device.
fn weights(model: &Model, target: &Target, placement: &Placement, slicing: &Slicing<'_>) -> Result<Vec<Bytes>, FootprintError> {
    let mut sum = vec![Bytes::ZERO; target.devices.len()];
    let copies = placement.copies.iter().copied().chain(placement.tied_copy());
    let all = placement.homes.iter().copied().enumerate().chain(copies);
    for (index, _) in all.filter(|(_, home)| matches!(home, Home::Device(_))) {
        let Some(tensor) = model.tensors.get(index) else { continue };
        let slices = slicing.weight(tensor).map_err(refused)?;
        for (j, (sum, device)) in sum.iter_mut().zip(&target.devices).enumerate() {
            let (width, bytes) = slice(tensor, &slices, j);
            *sum += device.backend.padded(tensor.ty, width, bytes);
        }
    }
    Ok(sum)
}

/// Row width and bytes of what device `j` has of a tensor.
fn slice(tensor: &Tensor, slices: &Slices, j: usize) -> (u64, Bytes) {
    match slices {
        Slices::Whole => (tensor.shape[0], tensor.bytes),
        Slices::Along { axis, widths } => {
            let mut shape = tensor.shape;
            shape[*axis] = widths.get(j).copied().unwrap_or(0);
            let rows = shape[1..].iter().fold(1, |product: u64, &extent| product.saturating_mul(extent));
            (shape[0], tensor.ty.row_bytes(shape[0]).unwrap_or(tensor.bytes).times(rows))
        }
    }
}

/// Attention caches and recurrent state per device.
fn caches(model: &Model, target: &Target, joined: &Joined, slicing: &Slicing<'_>) -> Result<(ByPlace, ByPlace), FootprintError> {
    let (settings, context) = (&joined.settings, &joined.context);
    let (mut cache, mut state) = (ByPlace::new(target), ByPlace::new(target));
    if model.encoder || !settings.kv_offload {
        return Ok((cache, state));
    }
    let (shapes, cells) = (Shapes::new(model, settings, context), cells(model, settings, context));
    let sequences = u64::from(settings.n_parallel.max(1)) * u64::from(context.n_states);
    let add = |sum: &mut ByPlace, ty: QuantType, widths: Vec<u64>, rows: u64| {
        for (device, width) in widths.into_iter().enumerate() {
            sum.add(ty, width, rows, Some(device), target);
        }
    };
    for (index, layer) in model.layers.iter().enumerate().take(trunk_layers(model)) {
        if joined.placement.layer_devices.get(index).copied().flatten().is_none() {
            continue;
        }
        if let Some(Shape { k_width, v_width, windowed, .. }) = shapes.of(&layer.mixer) {
            let rows = u64::from(if windowed { cells.window } else { cells.full }) * u64::from(cells.streams);
            let sides = [(settings.cache_type_k, k_width, false), (settings.cache_type_v, v_width, true)];
            for (ty, width, values) in sides.into_iter().filter(|(_, width, _)| *width > 0) {
                add(&mut cache, ty, slicing.cache(index, values, width).map_err(refused)?, rows);
            }
        }
        if let Mixer::Recurrent(r) | Mixer::Both(_, r) = &layer.mixer {
            for (width, recurrence) in [(r.r_elements, false), (r.s_elements, true)].into_iter().filter(|(width, _)| *width > 0) {
                add(&mut state, QuantType::F32, slicing.state(index, recurrence, width).map_err(refused)?, sequences);
            }
        }
    }
    Ok((cache, state))
}

/// Adapters and control vectors are whole on every device, a projector lies on the first, and another model that drafts is
/// split as the model is.
fn companions_beside(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    joined: &Joined,
    companions: &Companions,
) -> Result<Beside, FootprintError> {
    if companions.draft.as_ref().is_some_and(|draft| draft.model.is_none()) {
        return Err(refused("how prediction layers that draft are sliced is not known; use layer or none"));
    }
    let roles = Roles::of(model);
    let case = Case { model, roles: &roles, settings, target, profile, context: joined.context };
    let everywhere = Companions { projector: None, draft: None, ..companions.clone() };
    let host = Host { case: Case { settings: &joined.settings, target: &joined.target, ..case }, placement: &joined.placement };
    let copied = beside(&host, &everywhere)?;
    let single = Companions { adapters: Vec::new(), control_vectors: Vec::new(), ..companions.clone() };
    let all = Placement { devices: (0..target.devices.len()).collect(), ..joined.placement.clone() };
    let host = Host { case, placement: &all };
    let mut found = beside(&host, &single)?;
    found.host.extend(copied.host);
    let copies: Vec<Part> = copied.devices.into_iter().next().unwrap_or_default();
    found.devices.iter_mut().for_each(|parts| parts.extend(copies.iter().cloned()));
    Ok(found)
}
