//! What it would cost to set one knob otherwise: each change evaluated anew, with everything else as the plan has it.

use super::Plan;
use super::cores::numa_not_predicted;
use super::drafting;
use super::head::{self, HEAD};
use super::request::Request;
use super::site::{Candidate, Reach, Residency, Rung, Site};
use super::verdict::{Origin, Pareto, Pool};
use crate::emit::flags::value_text;
use crate::inventory::Inventory;
use crate::predict::{Configuration, HostState, nodes};
use crate::workload::Workload;
use footprint::{Requirements, Target};
use spec::settings::{CpuMask, Devices, FlashAttention, LoadMode, Numa, SplitMode};
use spec::{Bytes, Known, Machine, Model, QuantType, Settings};
use std::fmt;
use std::time::Duration;

/// One setting of a plan: its value, where that comes from, and what other values would cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Knob {
    /// The setting's name.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Why.
    pub because: String,
    /// Other values, each with what it would cost.
    pub others: Vec<Other>,
}

/// Another value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    /// The value.
    pub value: String,
    /// What it would cost, or why it cannot be had.
    pub cost: Result<Cost, String>,
}

/// What a change costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Seconds of a typical request over those of the plan: 1.1 is ten per cent longer. Both are central estimates of one model of speed:
    /// what is off is off in both.
    pub time: f64,
    /// Time of that request, P10 to P90.
    pub request: Known<Duration>,
    /// Memory on top, by pool; less than nothing where some is freed. Pools where nothing changes are left out.
    pub memory: Vec<(Pool, i64)>,
}

/// Devices of which other sets are priced; of more the list would be longer than what it explains.
const MOST_DEVICES: usize = 8;

/// A change of time under which two are called the same.
const SAME: f64 = 0.005;

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = (self.time - 1.0) * 100.0;
        match self.time - 1.0 {
            change if change.abs() < SAME => f.write_str("the same time")?,
            change if change > 0.0 => write!(f, "{time:.0} % longer")?,
            _ => write!(f, "{:.0} % shorter", -time)?,
        }
        if let (Some(low), Some(mid), Some(high)) = (self.request.low(), self.request.get(), self.request.high()) {
            let [low, mid, high] = [*low, mid, *high].map(seconds);
            write!(f, " (~{mid} s, {low} to {high})")?;
        }
        for (pool, change) in &self.memory {
            let (bytes, word) = (Bytes::new(change.unsigned_abs()), if *change > 0 { "more" } else { "less" });
            write!(f, ", {bytes} {word} on {pool}")?;
        }
        Ok(())
    }
}

/// Seconds in three digits.
fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 100.0 => format!("{seconds:.0}"),
        seconds if seconds >= 10.0 => format!("{seconds:.1}"),
        seconds => format!("{seconds:.2}"),
    }
}

/// Every setting of a plan with what it would cost to change it; settings for which there is nothing to compare have no others.
pub fn explain(machine: &Machine, model: &Model, target: &Target, plan: &Plan) -> Vec<Knob> {
    on_site(machine, model, target, plan, |whole, site| {
        let now = site.seconds(plan);
        let cost = |settings: &Settings| match settings.devices == plan.settings.devices {
            true => site.cost(plan, now, settings),
            false => whole.of(&settings.devices).as_ref().unwrap_or(whole).cost(plan, now, settings),
        };
        let others = |choice: &super::Choice| match (choice.setting, &plan.ahead) {
            (HEAD, _) => other_head(machine, model, target, plan, now).into_iter().collect(),
            (drafting::SETTING, Some(ahead)) => ahead.others.clone(),
            (setting, _) => others(setting, &plan.settings, site)
                .into_iter()
                .chain(other_devices(setting, &plan.settings, whole))
                .map(|settings| Other { value: value_text(&settings, setting), cost: cost(&settings) })
                .filter(|other| other.value != choice.value)
                .collect(),
        };
        let knob = |choice: &super::Choice| Knob {
            setting: choice.setting,
            value: choice.value.clone(),
            origin: choice.origin,
            because: choice.because.clone(),
            others: others(choice),
        };
        plan.choices.iter().map(knob).collect()
    })
}

/// The same settings with the other output head.
fn other_head(machine: &Machine, model: &Model, target: &Target, plan: &Plan, now: f64) -> Option<Other> {
    let (ty, request) = head::other(model, plan)?;
    let cost = on_site_of(machine, model, target, plan, &request, |_, site| site.cost(plan, now, &plan.settings));
    Some(Other { value: ty.to_string(), cost })
}

/// Other plans that fit, each better than `plan` in something, none of them worse than another in everything.
pub fn pareto(machine: &Machine, model: &Model, target: &Target, plan: &Plan) -> Pareto {
    on_site(machine, model, target, plan, |_, site| {
        let residency = if from_disk(plan) { Residency::FromDisk } else { Residency::Resident };
        let candidate = site.candidate(plan.settings.clone(), plan.requirement.clone(), residency);
        let mut pareto = site.pareto(&candidate);
        if let Some((_, request)) = head::other(model, plan) {
            pareto.others.extend(on_site_of(machine, model, target, plan, &request, |_, other| other.with_own_head(site, &candidate)));
        }
        pareto
    })
}

fn from_disk(plan: &Plan) -> bool {
    plan.verdict.downgrades().iter().any(|step| step.setting == "residency")
}

/// The problem that a plan solves, over all devices and with those that it is for.
pub(super) fn on_site<T>(machine: &Machine, model: &Model, target: &Target, plan: &Plan, work: impl Fn(&Site<'_>, &Site<'_>) -> T) -> T {
    on_site_of(machine, model, target, plan, &plan.request, work)
}

/// The same problem as another request puts it.
fn on_site_of<T>(
    machine: &Machine,
    model: &Model,
    target: &Target,
    plan: &Plan,
    request: &Request,
    work: impl Fn(&Site<'_>, &Site<'_>) -> T,
) -> T {
    let pinned = request.pins.devices.as_ref().and_then(|devices| target.only(devices).ok());
    let target = pinned.as_deref().unwrap_or(target);
    let inventory = Inventory::as_run(model, &request.profile);
    let requirements = Requirements::new(model, target, &request.profile, &request.companions);
    let require = |settings: &Settings| requirements.require(settings);
    let whole = Site::new(machine, model, target, request, &inventory, &require);
    let chosen = whole.of(&plan.settings.devices);
    work(&whole, chosen.as_ref().unwrap_or(&whole))
}

/// The neighbours of a setting's value that are worth a look.
fn others(setting: &str, plan: &Settings, site: &Site<'_>) -> Vec<Settings> {
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = plan.clone();
        change(&mut settings);
        settings
    };
    let all = site.inventory.offloadable();
    let devices = site.wants_devices();
    match setting {
        "n_ctx" => {
            let longer = plan.n_ctx.saturating_mul(2).min(site.trained_context().unwrap_or(u32::MAX));
            [plan.n_ctx / 2, longer].into_iter().filter(|&n_ctx| n_ctx >= 256).map(|n_ctx| with(&|to| to.n_ctx = n_ctx)).collect()
        }
        "cache_type_k" => {
            let types = [QuantType::F16, QuantType::Q8_0].into_iter();
            types.map(|ty| with(&|to| (to.cache_type_k, to.cache_type_v, to.flash_attn) = (ty, ty, flash(ty, plan)))).collect()
        }
        "n_gpu_layers" if devices => {
            let counts = [0, plan.n_gpu_layers.saturating_sub(1), plan.n_gpu_layers.saturating_add(1).min(all), all];
            let mut counts: Vec<u32> = counts.into_iter().filter(|&count| count != plan.n_gpu_layers).collect();
            counts.dedup();
            counts.into_iter().map(|count| with(&|to| (to.n_gpu_layers, to.tensor_split) = (count, fitting(to, count)))).collect()
        }
        "n_cpu_moe" if devices && site.inventory.has_experts() => {
            let most = site.inventory.layers_to_last_experts();
            [plan.n_cpu_moe.saturating_sub(1), plan.n_cpu_moe.saturating_add(1).min(most)]
                .into_iter()
                .map(|count| with(&|to| to.n_cpu_moe = count))
                .collect()
        }
        "n_ubatch" => {
            let sizes = [plan.n_ubatch / 2, plan.n_ubatch.saturating_mul(2)].into_iter().filter(|&size| size >= 32 && size <= plan.n_ctx);
            sizes.map(|size| with(&|to| (to.n_ubatch, to.n_batch) = (size, to.n_batch.max(size)))).collect()
        }
        "flash_attn" if !plan.cache_type_v.is_quantized() => vec![with(&|to| to.flash_attn = FlashAttention::Off)],
        "threads" => [plan.threads / 2, plan.threads.saturating_mul(2).min(site.machine.effective_cpus())]
            .into_iter()
            .filter(|&threads| threads > 0)
            .map(|threads| with(&|to| to.threads = threads))
            .collect(),
        "threads_batch" => vec![with(&|to| to.threads_batch = (to.threads_batch / 2).max(1))],
        "numa" if nodes(site.machine) > 1 && site.computes_on_host(plan) => {
            let strategies = Numa::ALL.iter().filter(|strategy| **strategy != Numa::Numactl && **strategy != plan.numa);
            strategies.map(|&numa| with(&|to| to.numa = numa)).collect()
        }
        "cpu_mask" if plan.cpu_mask.is_empty() => {
            site.fast_mask(plan.threads).into_iter().map(|mask| with(&|to| to.cpu_mask = mask.clone())).collect()
        }
        "cpu_mask" => vec![with(&|to| to.cpu_mask = CpuMask::default())],
        "op_offload" if devices => vec![with(&|to| to.op_offload = !to.op_offload)],
        "kv_offload" if devices => vec![with(&|to| to.kv_offload = !to.kv_offload)],
        "repack" if site.request.profile.repack => vec![with(&|to| to.repack = !to.repack)],
        "load_mode" => [LoadMode::None, LoadMode::Mmap].into_iter().map(|mode| with(&|to| to.load_mode = mode)).collect(),
        "cache_ram_mib" => vec![with(&|to| to.cache_ram_mib = 0)],
        "ctx_checkpoints" => vec![with(&|to| to.ctx_checkpoints = 0)],
        "n_parallel" => {
            let slots = [plan.n_parallel / 2, plan.n_parallel.saturating_mul(2)].into_iter().filter(|&slots| (1..=64).contains(&slots));
            slots.map(|slots| with(&|to| (to.n_parallel, to.kv_unified) = (slots, to.kv_unified && slots > 1))).collect()
        }
        "kv_unified" if plan.n_parallel > 1 => vec![with(&|to| to.kv_unified = !to.kv_unified)],
        "n_batch" if !plan.embeddings => {
            let sizes = [plan.n_batch / 2, plan.n_batch.saturating_mul(2)].into_iter().filter(|&size| size >= plan.n_ubatch);
            sizes.map(|size| with(&|to| to.n_batch = size)).collect()
        }
        "swa_full" if site.inventory.layers.iter().any(|layer| layer.window.is_some()) => vec![with(&|to| to.swa_full = !to.swa_full)],
        "split_mode" if site.target.devices.len() > 1 => {
            let modes = [SplitMode::None, SplitMode::Layer].into_iter().filter(|mode| *mode != plan.split_mode);
            modes.map(|mode| with(&|to| (to.split_mode, to.tensor_split) = (mode, Vec::new()))).collect()
        }
        "main_gpu" if plan.split_mode == SplitMode::None => {
            let gpus = 0..u32::try_from(site.target.devices.len()).unwrap_or(u32::MAX);
            gpus.map(|gpu| with(&|to| to.main_gpu = gpu)).collect()
        }
        "tensor_split" if devices && plan.split_mode == SplitMode::Layer => splits(plan, site),
        "tensor_overrides" if !plan.tensor_overrides.is_empty() => vec![with(&|to| to.tensor_overrides.clear())],
        _ => Vec::new(),
    }
}

/// A layer more on the first of several devices, and one less.
fn splits(plan: &Settings, site: &Site<'_>) -> Vec<Settings> {
    let Ok(requirement) = (site.require())(plan) else { return Vec::new() };
    let held = |device: usize| requirement.layer_devices.iter().filter(|home| **home == Some(device)).count();
    let counts: Vec<usize> = (0..site.target.devices.len()).map(held).collect();
    let Some(second) = (1..counts.len()).max_by_key(|&device| (counts[device], counts.len() - device)) else { return Vec::new() };
    let moved = |from: usize, to: usize| {
        let mut shares: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
        (shares[from], shares[to]) = (shares[from] - 1.0, shares[to] + 1.0);
        Settings { tensor_split: shares, ..plan.clone() }
    };
    let pairs = [(second, 0), (0, second)].into_iter().filter(|&(from, _)| counts[from] > 0);
    pairs.map(|(from, to)| moved(from, to)).collect()
}

/// The plan over one device fewer, over one more, and over none; shares of devices are left to the engine.
fn other_devices(setting: &str, plan: &Settings, whole: &Site<'_>) -> Vec<Settings> {
    let all: Vec<&String> = whole.target.devices.iter().map(|device| &device.name).collect();
    if setting != "devices" || whole.request.pins.devices.is_some() || all.len() > MOST_DEVICES {
        return Vec::new();
    }
    let has =
        |name: &String| matches!(&plan.devices, Devices::All) || matches!(&plan.devices, Devices::Only(names) if names.contains(name));
    let changed = |flipped: &String| all.iter().filter(|name| has(name) != (**name == flipped)).map(|name| (*name).clone()).collect();
    let mut sets: Vec<Vec<String>> = all.iter().map(|name| changed(name)).collect();
    if plan.n_gpu_layers > 0 && !all.is_empty() && !sets.contains(&Vec::new()) {
        sets.push(Vec::new());
    }
    let gpus = |set: &Vec<String>| plan.split_mode != SplitMode::None || set.len() < 2;
    let with = |set: Vec<String>| Settings { devices: Devices::Only(set), tensor_split: Vec::new(), main_gpu: 0, ..plan.clone() };
    sets.into_iter().filter(gpus).map(with).collect()
}

/// A quantised V cache needs flash attention.
fn flash(ty: QuantType, plan: &Settings) -> FlashAttention {
    if ty.is_quantized() { FlashAttention::On } else { plan.flash_attn }
}

/// The split for another number of layers: shares stay in proportion.
fn fitting(settings: &Settings, count: u32) -> Vec<f64> {
    let total: f64 = settings.tensor_split.iter().sum();
    let scale = if total > 0.0 { f64::from(count) / total } else { 0.0 };
    settings.tensor_split.iter().map(|share| share * scale).collect()
}

/// True for the same memory, whatever the place of a device among those that are used.
fn same(a: &Pool, b: &Pool) -> bool {
    match (a, b) {
        (Pool::Device { name: one, .. }, Pool::Device { name: other, .. }) => one == other,
        _ => a == b,
    }
}

impl Site<'_> {
    /// True where layers of a plan's settings, or parts of them, are on the host.
    fn computes_on_host(&self, settings: &Settings) -> bool {
        let homes = (self.require())(settings).map(|requirement| requirement.layer_devices);
        homes.is_ok_and(|homes| homes.contains(&None)) || settings.n_cpu_moe > 0 || !settings.tensor_overrides.is_empty()
    }

    /// Seconds of the workload under a plan of this problem.
    fn seconds(&self, plan: &Plan) -> f64 {
        let state = HostState::of(self.pools.host.with_files, &plan.requirement);
        self.timing(&plan.settings, &plan.requirement.layer_devices, &self.moved_by(&plan.settings), &state).whole
    }

    /// What `settings` would cost here instead of a plan's, whose workload takes `now` seconds on its own devices.
    fn cost(&self, plan: &Plan, now: f64, settings: &Settings) -> Result<Cost, String> {
        if settings.numa != plan.settings.numa {
            return Err(numa_not_predicted());
        }
        let rung = Rung { n_ctx: settings.n_ctx, cache: settings.cache_type_k, reach: Reach::Anywhere, disk: from_disk(plan) };
        let evaluated = self.evaluate(settings, &rung);
        let residency: Residency = evaluated.outcome.map_err(|rejection| rejection.to_string())?;
        let requirement = evaluated.requirement.ok_or_else(|| "its memory is not known".to_owned())?;
        let candidate = self.candidate(settings.clone(), requirement, residency);
        let after = self.pools.budgets(&candidate.requirement);
        let bytes = |budget: &super::Budget| {
            let sum = |known: &spec::Known<Bytes>| known.high().map_or(0, |bytes| i64::try_from(bytes.get()).unwrap_or(i64::MAX));
            sum(&budget.needed).saturating_add(sum(&budget.mapped))
        };
        let of = |budgets: &[super::Budget], pool: &Pool| budgets.iter().find(|budget| same(&budget.pool, pool)).map_or(0, bytes);
        let added = after.iter().filter(|budget| !plan.budgets.iter().any(|before| same(&before.pool, &budget.pool)));
        let pools = plan.budgets.iter().chain(added).map(|budget| budget.pool.clone());
        let change = pools.map(|pool| (pool.clone(), of(&after, &pool).saturating_sub(of(&plan.budgets, &pool))));
        let time = candidate.timing.whole / now;
        let memory = change.filter(|(_, change)| *change != 0).collect();
        Ok(Cost { time, request: self.request_time(&candidate), memory })
    }

    /// The time of a typical request with its interval.
    fn request_time(&self, candidate: &Candidate) -> Known<Duration> {
        let Candidate { settings, requirement, timing, .. } = candidate;
        let state = HostState::of(self.pools.host.with_files, requirement);
        let moved = self.moved_by(settings);
        let configuration = Configuration { settings, layer_devices: &requirement.layer_devices, moved: &moved, state: &state };
        let together = self.needs.workload.users.min(settings.n_parallel).max(1);
        let times = self.predictor.request(configuration, &Workload { users: together, ..self.needs.workload });
        // Those who wait for a slot wait for whole rounds.
        let rounds = timing.whole / times.whole.get().map_or(timing.whole, |once| once.as_secs_f64());
        let scaled = |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() * rounds).unwrap_or(Duration::MAX);
        match (times.whole.get(), times.whole.low(), times.whole.high()) {
            (Some(mid), Some(&low), Some(&high)) => Known::estimated(scaled(mid), scaled(low), scaled(high), "predicted"),
            _ => times.whole,
        }
    }
}
