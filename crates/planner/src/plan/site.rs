//! Everything a search looks at: one machine, model and request, with the sums and rates derived from them once.

use super::cores::Held;
use super::needs::Needs;
use super::objective::{Goal, Timing, Worth};
use super::pools::Pools;
use super::refusal::{Rejected, Rejection};
use super::request::{DevicePreference, DiskPolicy, Power, Request};
use super::verdict::{Budget, Pool};
use crate::emit::ALL;
use crate::inventory::Inventory;
use crate::predict::{HostState, Moved, Prediction, Predictor, moved_by_overrides};
use crate::target::gpu_of;
use crate::workload::Workload;
use footprint::{FootprintError, Requirement, Target};
use spec::settings::{Devices, FlashAttention};
use spec::{Bytes, Machine, Model, QuantType, Settings};
use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

/// A source of exact requirements.
pub(crate) type Require<'a> = dyn Fn(&Settings) -> Result<Requirement, FootprintError> + 'a;

/// One planning problem.
pub(crate) struct Site<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) model: &'a Model,
    pub(crate) target: Cow<'a, Target>,
    pub(crate) request: &'a Request,
    pub(crate) inventory: &'a Inventory,
    pub(crate) needs: Needs,
    pub(crate) pools: Pools,
    pub(crate) predictor: Predictor<'a>,
    pub(crate) moved: Vec<Moved>,
    /// Devices, fastest first.
    pub(crate) by_speed: Vec<usize>,
    /// What the search is for.
    pub(crate) goal: Goal,
    /// The setting for which devices the target has: the user's, or those that were chosen of a larger one.
    pub(crate) devices: Devices,
    /// Placements that were bounded so far, most of them together with others; of all sites of one problem.
    pub(crate) considered: Rc<Cell<usize>>,
    require: &'a Require<'a>,
}

/// How far a placement may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// No more on the host than the engine and the user's pins put there.
    Devices,
    /// Devices first, the rest on the host.
    Anywhere,
}

/// One level of the ladder: what is asked for before layers are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) n_ctx: u32,
    pub(crate) cache: QuantType,
    pub(crate) reach: Reach,
    /// Mapped weights need not stay in memory.
    pub(crate) disk: bool,
}

/// Whether the weights on the host stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Residency {
    Resident,
    FromDisk,
}

/// Settings that fit, with what they need and how fast they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) settings: Settings,
    pub(crate) requirement: Requirement,
    pub(crate) residency: Residency,
    /// Its time.
    pub(crate) timing: Timing,
    /// What it is worth against others.
    pub(crate) worth: Worth,
}

/// Decode speed in tokens per second under which a plan that reads from disk is of no use, at the upper end of its
/// estimate: 300 tokens of answer would take ten minutes even if all goes well.
const SLOWEST: f64 = 0.5;

/// Share of the mapped weights that may be missing from memory whatever the speed: with most of them there, closing a
/// program or a faster drive may be all it takes, and the user is told the cost.
const MISSING: f64 = 0.5;

/// Threads where the machine says nothing of its CPUs: hardly any has fewer cores, and decode is seldom faster with more
/// than memory can feed.
const UNKNOWN_CORES: u32 = 4;

/// Micro-batch of the BitNet engine: reads prompts at 99 % of its best speed, of which 24 tokens give 96 % and 16 give 90, for a quarter of the
/// compute buffer of 128 (`cargo run --release -p loadmaster --no-default-features --example bitnet`, 2B-4T on two cores of a Zen 4).
const BITNET_UBATCH: u32 = 32;

/// The most tokens that a GPU computes together, unpinned: how many are worth it is measured on the device when its layers are loaded.
const BITNET_UBATCH_BESIDE_GPU: u32 = 512;

/// The same where a GPU has no room for the whole model: layers are worth more there than tokens.
const BITNET_UBATCH_BESIDE_SMALL_GPU: u32 = 128;

/// Physical cores that may be used; `None` where the machine says nothing of its CPUs.
pub(crate) fn cores(machine: &Machine) -> Option<u32> {
    let (cpu, limits) = (&machine.facts.cpu, &machine.limits);
    let unknown = limits.allowed_cpus.is_unknown()
        && limits.allowed_physical_cores.is_unknown()
        && limits.cpu_quota.is_unknown()
        && cpu.physical_cores.is_unknown()
        && cpu.logical_cpus.is_unknown();
    (!unknown).then(|| machine.effective_cores())
}

/// Cores of the fastest of several kinds that may be used; `None` where there is one kind, or nothing is known of them.
pub(crate) fn fast_cores(machine: &Machine) -> Option<u32> {
    let [fastest, _, ..] = machine.facts.cpu.core_kinds.as_slice() else { return None };
    let usable = match machine.limits.allowed_cpus.value() {
        Some(allowed) if !fastest.cpus.is_empty() => fastest.cpus.intersection(allowed).count(),
        _ => return (fastest.physical_cores > 0).then_some(fastest.physical_cores),
    };
    // Of hyperthreads as many as a core has count as one.
    let per_core = (fastest.cpus.len() / fastest.physical_cores.max(1) as usize).max(1);
    Some(u32::try_from(usable.div_ceil(per_core)).unwrap_or(u32::MAX))
}

impl<'a> Site<'a> {
    pub(crate) fn new(
        machine: &'a Machine,
        model: &'a Model,
        target: &'a Target,
        request: &'a Request,
        inventory: &'a Inventory,
        require: &'a Require<'a>,
    ) -> Self {
        let mut pinned = Settings::default();
        request.pins.apply(&mut pinned);
        let (pools, predictor) = (Pools::of(machine, target, request.preferences.margin), Predictor::new(machine, target, inventory));
        let mut site = Self {
            machine,
            model,
            target: Cow::Borrowed(target),
            request,
            inventory,
            needs: Needs::of(request, model),
            pools,
            predictor,
            by_speed: Vec::new(),
            goal: Goal::default(),
            devices: pinned.devices.clone(),
            considered: Rc::default(),
            moved: moved_by_overrides(model, target, &pinned),
            require,
        };
        site.by_speed = site.by_speed();
        site
    }

    /// Devices by the time of a typical request with everything on each, the fastest first.
    fn by_speed(&self) -> Vec<usize> {
        let devices = self.pools.devices.len();
        if devices < 2 {
            return (0..devices).collect();
        }
        let settings = Settings { n_ctx: self.needs.enough, n_gpu_layers: self.inventory.offloadable(), ..Settings::default() };
        let state = HostState { missing: 0.0, repacked: 0.0, flash_attention: true };
        let seconds = |device: usize| {
            let homes = vec![Some(device); self.inventory.offloadable() as usize];
            self.timing(&settings, &homes, &[], &state).whole
        };
        let times: Vec<f64> = (0..devices).map(seconds).collect();
        let mut by_speed: Vec<usize> = (0..devices).collect();
        by_speed.sort_by(|&a, &b| {
            let larger = self.pools.devices[b].limit.cmp(&self.pools.devices[a].limit);
            times[a].total_cmp(&times[b]).then(larger).then(a.cmp(&b))
        });
        by_speed
    }

    /// The same problem on these devices of the target alone, in this order.
    pub(crate) fn on(&self, places: &[usize]) -> Site<'_> {
        let names = places.iter().filter_map(|&place| self.target.devices.get(place)).map(|device| device.name.clone());
        let devices = Devices::Only(names.collect());
        Site {
            machine: self.machine,
            model: self.model,
            target: self.target.only(&devices).unwrap_or(Cow::Borrowed(&*self.target)),
            request: self.request,
            inventory: self.inventory,
            needs: self.needs,
            by_speed: self.by_speed.iter().filter_map(|device| places.iter().position(|place| place == device)).collect(),
            pools: self.pools.only(places),
            predictor: self.predictor.only(places),
            moved: self.moved.clone(),
            goal: self.goal,
            devices,
            considered: Rc::clone(&self.considered),
            require: self.require,
        }
    }

    /// The trained context over all slots that do not share a cache, in whole blocks of the cache.
    pub(crate) fn trained_context(&self) -> Option<u32> {
        let slots = Needs::slots(self.request, self.model);
        Some(Needs::whole_blocks(self.model.n_ctx_train?).saturating_mul(slots))
    }

    /// The source of requirements.
    pub(crate) fn require(&self) -> &Require<'_> {
        self.require
    }

    /// The micro-batch that plans for the BitNet engine have, unpinned.
    pub(crate) fn bitnet_ubatch(&self) -> u32 {
        let whole = self.model.tensor_bytes();
        let is_roomy = |limit: Option<Bytes>| limit.is_some_and(|limit| limit >= whole);
        match self.pools.devices.iter().any(|device| is_roomy(device.limit)) {
            _ if self.target.devices.is_empty() => BITNET_UBATCH,
            true => BITNET_UBATCH_BESIDE_GPU,
            false => BITNET_UBATCH_BESIDE_SMALL_GPU,
        }
    }

    /// Devices on which something may be placed: their free memory is known, and the user wants them. Our own kernels run on software that
    /// computes as a GPU would, too: what is no GPU of this machine gets layers only where the user says how many.
    pub(crate) fn wants_devices(&self) -> bool {
        self.request.preferences.device != DevicePreference::Cpu
            && self.request.pins.n_gpu_layers != Some(0)
            && self.pools.devices.iter().any(|device| device.limit.is_some())
            && (self.request.pins.n_gpu_layers.is_some() || !self.no_gpu_behind_own_device())
    }

    /// True where the device of our own kernels is no GPU that is known of this machine.
    pub(crate) fn no_gpu_behind_own_device(&self) -> bool {
        let own = self.target.devices.first().is_some_and(|device| device.backend.is_own());
        own && gpu_of(self.machine, &self.target, 0).is_none()
    }

    /// Settings of a rung before placement: rules, then the user's pins over them.
    pub(crate) fn base(&self, rung: &Rung) -> Settings {
        let mut settings = Settings { n_ctx: rung.n_ctx, cache_type_k: rung.cache, cache_type_v: rung.cache, ..Settings::default() };
        settings.embeddings = self.model.encoder;
        settings.devices = self.devices.clone();
        if rung.cache.is_quantized() {
            // The engine switches `auto` to on for a quantised V cache (`src/llama-context.cpp:3845`); said outright.
            settings.flash_attn = FlashAttention::On;
        }
        settings.n_parallel = Needs::sequences(self.request);
        settings.kv_unified = Needs::unified(self.request, self.model);
        let (threads, threads_batch) = self.threads();
        settings.threads = threads;
        settings.threads_batch = threads_batch;
        settings.cpu_mask = self.fast_mask(self.request.pins.threads.unwrap_or(threads)).unwrap_or_default();
        if self.request.profile.bitnet.is_some() {
            // One pool of threads, and no server that keeps prompts.
            (settings.n_ubatch, settings.threads_batch, settings.cache_ram_mib) = (self.bitnet_ubatch(), settings.threads, 0);
        }
        // A context of 0 is the trained one.
        let n_ctx = if rung.n_ctx == 0 { self.model.n_ctx_train.unwrap_or(0) } else { rung.n_ctx };
        if n_ctx > 0 {
            settings.n_ubatch = settings.n_ubatch.min(n_ctx);
        }
        if !self.wants_devices() {
            settings.op_offload = self.target.devices.is_empty();
        }
        self.pinned(settings)
    }

    /// The user's pins over `settings`; `all` becomes the model's own number, and a context of 0 the trained one.
    pub(crate) fn pinned(&self, mut settings: Settings) -> Settings {
        let pins = &self.request.pins;
        pins.apply(&mut settings);
        if settings.n_gpu_layers == ALL {
            settings.n_gpu_layers = self.inventory.offloadable();
        }
        if settings.n_cpu_moe == ALL {
            settings.n_cpu_moe = self.inventory.layers_to_last_experts();
        }
        if settings.n_ctx == 0 {
            settings.n_ctx = self.model.n_ctx_train.unwrap_or(0);
        }
        // As the engine has it where nothing is said of a batch (`common/common.cpp:291-303`).
        if let (Some(mask), None) = (&pins.cpu_mask, &pins.cpu_mask_batch) {
            settings.cpu_mask_batch.clone_from(mask);
        }
        if let (Some(strict), None) = (pins.cpu_strict, pins.cpu_strict_batch) {
            settings.cpu_strict_batch = strict;
        }
        // The engine takes embeddings of a whole batch at once (common/common.cpp:1297).
        if settings.embeddings && pins.n_batch.is_none() {
            settings.n_batch = settings.n_ubatch;
        }
        // A micro-batch is never above the batch: the unpinned one follows.
        if settings.n_ubatch > settings.n_batch {
            match (pins.n_batch, pins.n_ubatch) {
                (None, _) => settings.n_batch = settings.n_ubatch,
                (Some(_), None) => settings.n_ubatch = settings.n_batch,
                (Some(_), Some(_)) => {}
            }
        }
        settings
    }

    /// Threads for decode and for prefill: physical cores that may be used, the fastest kind only for decode, no more than the CPUs of a
    /// mask that the user has given, half of each to save power.
    fn threads(&self) -> (u32, u32) {
        let cores = self.cores().unwrap_or(UNKNOWN_CORES);
        let [decode, batch] = self.given_cpus();
        let fastest = match decode {
            Some(Held { fast: 0, all }) => cores.min(all),
            Some(Held { fast, .. }) => self.fastest_cores().unwrap_or(cores).min(fast),
            None => self.fastest_cores().unwrap_or(cores),
        };
        let cores = batch.map_or(cores, |held| cores.min(held.all));
        match self.request.preferences.power {
            Power::Saver => (fastest.div_ceil(2), cores.div_ceil(2)),
            Power::Balanced | Power::Performance => (fastest, cores),
        }
    }

    /// Cores of the fastest kind that may be used, where there are fewer of them than of all.
    pub(crate) fn fastest_cores(&self) -> Option<u32> {
        fast_cores(self.machine).filter(|&fastest| fastest > 0 && self.cores().is_some_and(|all| fastest < all))
    }

    /// Physical cores that may be used; `None` where the machine says nothing of its CPUs.
    pub(crate) fn cores(&self) -> Option<u32> {
        cores(self.machine)
    }

    /// What the settings need, and whether that fits.
    pub(crate) fn evaluate(&self, settings: &Settings, rung: &Rung) -> Evaluated {
        match (self.require)(settings) {
            Ok(requirement) => {
                let outcome = self.fits(&requirement, rung);
                Evaluated { requirement: Some(requirement), outcome }
            }
            Err(error) => Evaluated { requirement: None, outcome: Err(Rejection::NotPossible(error.to_string())) },
        }
    }

    fn fits(&self, requirement: &Requirement, rung: &Rung) -> Result<Residency, Rejection> {
        let budgets = self.pools.budgets(requirement);
        let short = |budget: &Budget| {
            let needs = budget.needed.high().copied().unwrap_or(Bytes::MAX);
            (budget.pool.clone(), needs, budget.limit.unwrap_or(Bytes::ZERO))
        };
        let mut short = budgets.iter().filter(|budget| !budget.holds()).map(short);
        if let Some((pool, needs, limit)) = short.next() {
            return Err(Rejection::DoesNotFit { pool, needs, limit, others: short.collect() });
        }
        let resident = requirement.resident();
        match (self.pools.host.with_files, resident.high()) {
            (Some(limit), Some(&needs)) if needs > limit && rung.disk => Ok(Residency::FromDisk),
            (Some(limit), Some(&needs)) if needs > limit => {
                Err(Rejection::DoesNotFit { pool: Pool::Host, needs, limit, others: Vec::new() })
            }
            _ => Ok(Residency::Resident),
        }
    }

    /// Completes an evaluation that fits.
    pub(crate) fn candidate(&self, settings: Settings, requirement: Requirement, residency: Residency) -> Candidate {
        let state = HostState::of(self.pools.host.with_files, &requirement);
        let timing = self.timing(&settings, &requirement.layer_devices, &self.moved_by(&settings), &state);
        let worth = self.worth(&settings, &timing);
        Candidate { settings, requirement, residency, timing, worth }
    }

    /// What settings would be worth with everything where a candidate has it, as if that fitted.
    pub(crate) fn in_place(&self, settings: &Settings, candidate: &Candidate) -> Worth {
        let state = HostState::of(self.pools.host.with_files, &candidate.requirement);
        self.worth(settings, &self.timing(settings, &candidate.requirement.layer_devices, &self.moved_by(settings), &state))
    }

    /// Why a candidate that reads weights from disk is of no use, unless that is allowed at any speed.
    pub(crate) fn too_slow(&self, candidate: &Candidate) -> Option<Rejection> {
        if candidate.residency == Residency::Resident || self.request.preferences.disk != DiskPolicy::Auto {
            return None;
        }
        let missing = HostState::of(self.pools.host.with_files, &candidate.requirement).missing;
        let decode = *self.prediction(candidate).decode.high()?;
        (missing > MISSING && decode.get() < SLOWEST).then_some(Rejection::TooSlow { at_most: decode })
    }

    /// Speed of a candidate.
    pub(crate) fn prediction(&self, candidate: &Candidate) -> Prediction {
        self.predict(&candidate.settings, &candidate.requirement)
    }

    /// Speed of settings, decode at the depth of the use case's typical request.
    pub(crate) fn predict(&self, settings: &Settings, requirement: &Requirement) -> Prediction {
        let depth = self.depth(settings);
        let state = HostState::of(self.pools.host.with_files, requirement);
        self.predictor.speed(settings, &requirement.layer_devices, &self.moved_by(settings), &state, depth)
    }

    /// Tensors that the rules of settings put elsewhere than their layers.
    pub(crate) fn moved_by(&self, settings: &Settings) -> Cow<'_, [Moved]> {
        if settings.tensor_overrides == self.request.pins.tensor_overrides.as_deref().unwrap_or_default() {
            return Cow::Borrowed(&self.moved);
        }
        Cow::Owned(moved_by_overrides(self.model, &self.target, settings))
    }

    /// Tokens in the context half way through the answer of a typical request.
    pub(crate) fn depth(&self, settings: &Settings) -> u32 {
        let Workload { prompt, output, .. } = self.needs.workload;
        prompt.saturating_add(output / 2).min(settings.n_ctx)
    }

    /// A candidate in words: its placement, context and cache.
    pub(crate) fn describe(&self, settings: &Settings) -> String {
        let layers = self.inventory.offloadable();
        let placement = match settings.n_gpu_layers.min(layers) {
            _ if self.target.devices.is_empty() => "CPU only".to_owned(),
            0 => "CPU only".to_owned(),
            n if n == layers && settings.n_cpu_moe == 0 => "all layers on the GPU".to_owned(),
            n if n == layers => format!("all layers on the GPU, experts of {} on the CPU", settings.n_cpu_moe),
            n if settings.n_cpu_moe > 0 => format!("{n} of {layers} layers on the GPU, experts of {} on the CPU", settings.n_cpu_moe),
            n => format!("{n} of {layers} layers on the GPU"),
        };
        format!("{placement}, {}", self.describe_context(settings))
    }

    fn describe_context(&self, settings: &Settings) -> String {
        let given_up = !settings.repack && self.request.pins.repack.is_none();
        let repack = if given_up { ", weights not repacked" } else { "" };
        let apart = !settings.kv_offload && self.request.pins.kv_offload.is_none() && settings.n_gpu_layers > 0;
        let host = if apart { " on the CPU" } else { "" };
        format!("{} tokens, cache in {}{host}{repack}", settings.n_ctx, settings.cache_type_k)
    }

    /// A rejection that holds for every placement.
    pub(crate) fn rejected_anywhere(&self, settings: &Settings, rejection: Rejection) -> Rejected {
        let placement = if self.wants_devices() { "layers on GPU and CPU as they may" } else { "CPU only" };
        Rejected { what: format!("{placement}, {}", self.describe_context(settings)), settings: settings.clone(), rejection }
    }

    pub(crate) fn rejected(&self, settings: &Settings, rejection: Rejection) -> Rejected {
        Rejected { what: self.describe(settings), settings: settings.clone(), rejection }
    }
}

/// What came of evaluating settings.
pub(crate) struct Evaluated {
    pub(crate) requirement: Option<Requirement>,
    pub(crate) outcome: Result<Residency, Rejection>,
}
