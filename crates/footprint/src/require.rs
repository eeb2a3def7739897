//! The requirement of one configuration, put together from its parts.

use crate::companions::{Companions, Host, Speculation, beside};
use crate::compressed::compresses;
use crate::compute::{Configuration, Run, Shape, Simulations};
use crate::error::FootprintError;
use crate::kv_cache::{self, ByPlace};
use crate::mapped::{self, Mapped};
use crate::placement::{self, Home, Placement, Placer};
use crate::repack::Kernels;
use crate::requirement::{DeviceRequirement, HostRequirement, Requirement};
use crate::roles::Roles;
use crate::tally::Tally;
use crate::weights::{Loader, Weights};
use crate::{ComputeBuffers, Device, EngineProfile, ResolvedContext, Target};
use crate::{bitnet, compute, context, host, output, process, scratch, state, tensor_parallel};
use spec::model::Support;
use spec::settings::{Devices, LoadMode, SplitMode};
use spec::{Bytes, Known, Model, Settings};
use std::collections::BTreeMap;

/// What `model` needs under `settings` on `target` with the engine of `profile`, by device and component.
///
/// Weights, caches and state equal the engine's own allocations to the byte for architectures that loadmaster knows
/// ([`Support::Described`]); for others caches and state are estimated with an interval.
///
/// Of the target only what the settings name is used ([`Target::only`]); [`Requirement::devices`] is parallel to that.
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
    if settings.devices != Devices::All {
        let (target, settings) = (target.only(&settings.devices)?, Settings { devices: Devices::All, ..settings.clone() });
        return require_with(model, &settings, &target, profile, companions);
    }
    if let Some(engine) = profile.bitnet {
        return bitnet::require(model, settings, target, profile, companions, engine);
    }
    if settings.split_mode == SplitMode::Tensor {
        return tensor_parallel::require(model, settings, target, profile, companions);
    }
    let settings = &*profile.rules.apply(settings);
    let roles = Roles::of(model);
    let case = Case::new(model, &roles, settings, target, profile, companions.speculation(model))?;
    let placed = Placed::new(&case)?;
    let simulated = Simulated::new(&case, &placed.placement);
    case.finish(&placed, simulated, companions)
}

/// As [`require_with`], without what is loaded beside the model; only what drafts change for the model itself.
pub(crate) fn require_speculating(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    companions: &Companions,
) -> Result<Requirement, FootprintError> {
    let roles = Roles::of(model);
    let case = Case::new(model, &roles, settings, target, profile, companions.speculation(model))?;
    let placed = Placed::new(&case)?;
    let simulated = Simulated::new(&case, &placed.placement);
    case.finish(&placed, simulated, &Companions::default())
}

/// What the engine's own dry run (`no_alloc`) reports for the same configuration: nothing is mapped, and compute buffers are
/// those of the first prefill graph ([`compute::dry_run`]). Devices that split mode `tensor` joins are one there, called `Meta()`,
/// with everything in full. For comparing with it, not for planning.
///
/// # Errors
/// As [`require`].
pub fn dry_run(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> Result<Requirement, FootprintError> {
    let target = &*target.only(&settings.devices)?;
    if let Some(engine) = profile.bitnet {
        return bitnet::require(model, settings, target, profile, &Companions::default(), engine);
    }
    let settings = &Settings { load_mode: LoadMode::None, devices: Devices::All, ..profile.rules.apply(settings).into_owned() };
    if settings.split_mode == SplitMode::Tensor {
        return tensor_parallel::dry_run(model, settings, target, profile);
    }
    let roles = Roles::of(model);
    let case = Case::new(model, &roles, settings, target, profile, Speculation::NONE)?;
    case.dry_run(&Placed::new(&case)?, &Simulations::new(model), None)
}

/// One configuration, its context resolved.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) model: &'a Model,
    pub(crate) roles: &'a Roles,
    pub(crate) settings: &'a Settings,
    pub(crate) target: &'a Target,
    pub(crate) profile: &'a EngineProfile,
    pub(crate) context: ResolvedContext,
}

/// What follows from where the tensors go alone.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) placement: Placement,
    weights: Weights,
    mapped: Mapped,
    looked_up: Bytes,
    /// Tensors that the engine makes for weights, copies included.
    loaded: usize,
}

impl Placed {
    pub(crate) fn new(case: &Case<'_>) -> Result<Self, FootprintError> {
        let every = || 0..case.model.tensors.len();
        let placement = case.placer()?.place(vec![Home::Unused; every().len()], every());
        let tally = Tally::over(&case.loader(), &placement, every());
        Ok(Self::of(case, placement, tally))
    }

    /// A placement with what is summed over all tensors.
    pub(crate) fn of(case: &Case<'_>, placement: Placement, tally: Tally) -> Self {
        let loader = case.loader();
        let looked_up = tally.looked_up(&loader, &placement);
        let loaded = tally.loaded + placement.copies.len() + usize::from(placement.tied_copy().is_some());
        let mut weights = tally.weights;
        weights.add_copies(&loader, &placement);
        let mapped = mapped::mapped_by(case.model, case.target, &placement, &tally.on_host);
        Self { weights, mapped, looked_up, loaded, placement }
    }
}

/// What needs the graph, or every tensor of it.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    pub(crate) compute: ComputeBuffers,
    /// Per device, parallel to [`Target::devices`].
    pub(crate) scratch: Vec<Known<Bytes>>,
}

impl Simulated {
    pub(crate) fn new(case: &Case<'_>, placement: &Placement) -> Self {
        let compute = case.compute(&Simulations::new(case.model), placement, None);
        Self { compute, scratch: case.scratch(placement) }
    }
}

impl<'a> Case<'a> {
    /// `settings` as the engine of `profile` takes them ([`crate::Rules::apply`]).
    pub(crate) fn new(
        model: &'a Model,
        roles: &'a Roles,
        settings: &'a Settings,
        target: &'a Target,
        profile: &'a EngineProfile,
        speculation: Speculation,
    ) -> Result<Self, FootprintError> {
        let context = context::resolve_with(model, settings, profile, speculation)?;
        Ok(Self { model, roles, settings, target, profile, context })
    }

    pub(crate) fn placer(&self) -> Result<Placer<'a>, FootprintError> {
        Placer::new(self.roles, self.model, self.settings, self.target, self.profile)
    }

    pub(crate) fn loader(&self) -> Loader<'a> {
        let Case { model, roles, target, profile, .. } = *self;
        Loader { model, roles, target, kernels: Kernels::of(&target.cpu_arch, &target.cpu_features, profile.amx) }
    }

    /// What the engine's own dry run reports; with the shape of the placement, from pieces of what was simulated before.
    pub(crate) fn dry_run(
        &self,
        placed: &Placed,
        simulations: &Simulations<'_>,
        shape: Option<&Shape>,
    ) -> Result<Requirement, FootprintError> {
        let compute = simulations.buffers(self.configuration(&placed.placement), shape, &self.context, Run::Dry);
        self.check_graph(placed.loaded, &compute)?;
        Ok(self.assemble(placed, Simulated { compute, scratch: self.scratch(&placed.placement) }))
    }

    /// Compute buffers; with the shape of the placement, from pieces of what was simulated before.
    pub(crate) fn compute(&self, simulations: &Simulations<'_>, placement: &Placement, shape: Option<&Shape>) -> ComputeBuffers {
        let compute = simulations.buffers(self.configuration(placement), shape, &self.context, Run::Load);
        let kept_states = self.context.n_states > 1 && (self.model.has_recurrent_state() || compresses(self.model));
        if kept_states { compute.with_kept_states() } else { compute }
    }

    fn configuration<'b>(&'b self, placement: &'b Placement) -> Configuration<'b> {
        Configuration { settings: self.settings, target: self.target, placement }
    }

    pub(crate) fn scratch(&self, placement: &Placement) -> Vec<Known<Bytes>> {
        let of = |(index, device): (usize, &Device)| match placement.devices.contains(&index) {
            true => scratch::scratch(self.roles, self.model, self.settings, &self.context, placement, index, device),
            false => Known::exact(Bytes::ZERO, UNUSED),
        };
        self.target.devices.iter().enumerate().map(of).collect()
    }

    /// The engine's scheduler has a table of fixed size for the tensors of a graph, and aborts when it is full
    /// (`ggml-impl.h:330`).
    fn check_graph(&self, loaded: usize, compute: &ComputeBuffers) -> Result<(), FootprintError> {
        let Some(graph) = compute.graph.filter(|_| self.context.rules.confirmed) else { return Ok(()) };
        let most = compute::room(self.model, loaded, &self.context);
        if u64::from(graph.tensors) > most { Err(FootprintError::GraphTooLarge { tensors: graph.tensors, most }) } else { Ok(()) }
    }

    /// The requirement, from its parts.
    pub(crate) fn finish(&self, placed: &Placed, simulated: Simulated, companions: &Companions) -> Result<Requirement, FootprintError> {
        let settings = self.settings;
        // Only the placed graph tells what `auto` becomes, and so whether the engine refuses the cache.
        if settings.cache_type_v.is_quantized() && !simulated.compute.flash_attn {
            return Err(FootprintError::QuantizedVWithoutFlashAttention { ty: settings.cache_type_v });
        }
        // Adapters and sampling by the backend make room for more, in numbers that are not modelled.
        if companions.adapters.is_empty() {
            self.check_graph(placed.loaded, &simulated.compute)?;
        }
        let mut requirement = self.assemble(placed, simulated);
        if !companions.is_empty() {
            let host = Host { case: *self, placement: &placed.placement };
            requirement.set_beside(beside(&host, companions)?);
        }
        Ok(requirement)
    }

    fn assemble(&self, placed: &Placed, simulated: Simulated) -> Requirement {
        let Case { model, settings, target, context, .. } = *self;
        let layers = &placed.placement.layer_devices;
        let parts = Parts {
            placed,
            kv_cache: kv_cache::kv_cache(model, settings, target, &context, layers),
            state: state::state(model, settings, target, &context, layers),
            simulated,
        };
        Requirement {
            devices: devices(self, &parts),
            host: host(self, &parts),
            notes: notes(self, &placed.placement, &placed.weights),
            graph: parts.simulated.compute.graph,
            context: ResolvedContext { flash_attn: parts.simulated.compute.flash_attn, ..context },
            layer_devices: layers.clone(),
            head: None,
            own_kernels: false,
            sliced: false,
        }
    }
}

/// Buffers by component, each over all places.
struct Parts<'a> {
    placed: &'a Placed,
    kv_cache: ByPlace,
    state: ByPlace,
    simulated: Simulated,
}

const UNUSED: &str = "the engine does not use this device";

const ROWS: &str = "rows of matrices over all devices, the rest by layer (ggml-sycl.cpp:1177-1243); not run here";
const WEIGHTS: &str = "tensor directory of the file, padded as the buffer pads (ggml-backend.cpp:57-89)";
const SPAN: &str = "in each file from the first to the last tensor that is used in place (llama-model.cpp:1856-1876)";
const KV_CACHE: &str = "llama-kv-cache.cpp:65-250";
const OUTPUT: &str = "llama-context.cpp:2118-2260";
const STATE: &str = "llama-memory-recurrent.cpp:70-125";

fn devices(case: &Case<'_>, parts: &Parts<'_>) -> Vec<DeviceRequirement> {
    let none = || Known::exact(Bytes::ZERO, UNUSED);
    let device = |(index, device): (usize, &Device)| {
        let used = parts.placed.placement.devices.contains(&index);
        let simulated = |known: &[Known<Bytes>]| known.get(index).filter(|_| used).cloned().unwrap_or_else(none);
        DeviceRequirement {
            name: device.name.clone(),
            weights: device_weights(parts.placed, index),
            weights_mapped: mapped_on(&parts.placed.mapped, index),
            kv_cache: known_cache(case, parts.kv_cache.devices[index]),
            state: known_state(case.model, parts.state.devices[index]),
            compute: rows_compute(case.settings, simulated(&parts.simulated.compute.devices)),
            runtime: if used { device.backend.runtime.clone() } else { none() },
            scratch: simulated(&parts.simulated.scratch),
            beside: Vec::new(),
            shares_host: device.shares_host,
        }
    };
    case.target.devices.iter().enumerate().map(device).collect()
}

fn mapped_on(mapped: &Mapped, index: usize) -> Known<Bytes> {
    match mapped.devices.get(index) {
        Some(&Some(span)) => Known::exact(span, SPAN),
        _ => Known::exact(Bytes::ZERO, "the device holds weights of its own"),
    }
}

/// With shared rows products are gathered on one device: the graph's own buffers, and an interval for what that adds.
fn rows_compute(settings: &Settings, compute: Known<Bytes>) -> Known<Bytes> {
    match compute.get() {
        Some(size) if settings.split_mode == SplitMode::Row => Known::estimated(size, size.scale(0.8), size.scale(1.5), ROWS),
        _ => compute,
    }
}

/// Exact, unless rows are shared: then each slice takes whole pages. Read in place, all that is mapped.
fn device_weights(placed: &Placed, index: usize) -> Known<Bytes> {
    if let Some(&Some(span)) = placed.mapped.devices.get(index) {
        return Known::exact(span, SPAN);
    }
    let bytes = placed.weights.devices[index];
    match placed.weights.row_slices {
        0 => Known::exact(bytes, WEIGHTS),
        slices => Known::estimated(bytes, bytes.scale(0.98), bytes.scale(1.02) + placement::PAGE.times(slices), ROWS),
    }
}

fn host(case: &Case<'_>, parts: &Parts<'_>) -> HostRequirement {
    let &Case { model, settings, target, profile, ref context, .. } = case;
    let (placement, weights) = (&parts.placed.placement, &parts.placed.weights);
    let (mapped, plain) = match placement.mapped {
        true => (weights.host_file, Bytes::ZERO),
        false => (weights.host_lazy, weights.host.saturating_sub(weights.host_lazy)),
    };
    let output = output::output(model, settings, settings.n_parallel.max(1));
    let compute = &parts.simulated.compute.host;
    HostRequirement {
        weights_mapped: Known::exact(mapped, WEIGHTS),
        mapped_span: Known::exact(parts.placed.mapped.span, "llama-model.cpp:1856-1876"),
        mapped_touched: Known::exact(parts.placed.mapped.touched, WEIGHTS),
        mapped_shared: Known::exact(parts.placed.mapped.shared, SPAN),
        weights_anonymous: Known::exact(plain + weights.pinned, WEIGHTS),
        weights_repacked: Known::exact(weights.repacked + weights.amx, WEIGHTS),
        kv_cache: known_cache(case, parts.kv_cache.host),
        state: known_state(model, parts.state.host),
        compute: compute.clone(),
        output: Known::exact(output, OUTPUT),
        output_growth: Known::exact(output::output(model, settings, context.n_rows).saturating_sub(output), OUTPUT),
        runtime: runtime(model, target, context, placement),
        in_use: process::in_use(model, context, placement.layer_devices.iter().any(Option::is_none), compute),
        prompt_cache: host::prompt_cache(settings, profile),
        checkpoints: host::checkpoints(model, settings, profile, context),
        weights_rarely_read: Known::exact(parts.placed.looked_up, WEIGHTS),
        beside: Vec::new(),
        pinned: pinned(target, placement, weights.pinned, compute, output),
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
    drivers.into_values().fold(process::runtime(model, context, placement.devices.len()), |sum, driver| sum.plus(driver))
}

/// Caches of one place. Of architectures whose indexers are not described, from a quarter of the inferred caches to half more than
/// them and an indexer in every layer, all on one place.
fn known_cache(case: &Case<'_>, bytes: Bytes) -> Known<Bytes> {
    match kv_cache::unsupported(case.model) {
        Some(reason) if !bytes.is_zero() => {
            let indexers = kv_cache::undescribed_indexers(case.model, case.settings, &case.context);
            Known::estimated(bytes, bytes.scale(0.25), bytes.scale(1.5) + indexers, reason)
        }
        _ => by_support(case.model, bytes, KV_CACHE),
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

fn notes(case: &Case<'_>, placement: &Placement, weights: &Weights) -> Vec<String> {
    let &Case { model, settings, roles, ref context, .. } = case;
    let mut notes = Vec::new();
    if model.support == Support::Generic {
        notes.push(format!("architecture {:?} is not known: tensors are exact, caches and compute are estimates", model.architecture));
    }
    if roles.bitnet_fork {
        notes.push("tensors of the BitNet fork: bitnet.cpp loads this file, llama.cpp does not".to_owned());
    }
    if context.rules.ik.is_none() && roles.ik_fork {
        notes.push(
            "tensors of ik_llama.cpp: it loads this file, llama.cpp does not; `--engine-profile ik_llama.cpp` has its rules".to_owned(),
        );
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

fn place_name(home: Home) -> &'static str {
    match home {
        Home::Device(_) => "device memory",
        Home::HostRepacked | Home::HostAmx => "rearranged for the CPU",
        _ => "host memory",
    }
}
