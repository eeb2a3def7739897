//! Corrections of a running configuration by what was observed, with hysteresis.

use super::{DeviceConfig, look, planned, pools_of};
use crate::doctor;
use crate::machine::MachineSource;
use planner::plan::Margin;
use planner::{Preferences, Request};
use spec::machine::Free;
use spec::settings::Pins;
use spec::{Known, Machine};
use std::path::Path;

/// Memory pressure from which on something is given up.
pub const PRESSED: f64 = 0.92;

/// Memory pressure up to which more may be asked for. What lies between is left alone.
pub const RELAXED: f64 = 0.6;

/// Memory pressure that no correction may be expected to lead to.
const SAFE: f64 = 0.85;

/// Memory pressure at which one observation is enough.
const URGENT: f64 = 0.98;

/// Observations in a row that must agree before anything is changed.
pub const HOLD: usize = 3;

/// Observed over expected speed below which something is wrong.
pub const ANOMALY: f64 = 0.6;

/// What was seen at one moment. What is unknown is `None`; what is no number counts as unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// Tokens per second of one sequence while generating.
    pub tokens_per_s: Option<f64>,
    /// Used share of the fullest pool of memory, 0 to 1.
    pub memory_pressure: Option<f64>,
    /// Share of time in which GPUs computed, 0 to 1.
    pub gpu_utilisation: Option<f64>,
    /// Share of time in which the CPUs that may be used computed, for whomever, 0 to 1.
    pub cpu_utilisation: Option<f64>,
}

/// What runs, and what was seen of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// The configuration that runs.
    pub running: DeviceConfig,
    /// Observations since it was started or last changed, oldest first.
    pub observations: Vec<Observation>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// Nothing: all is as it should be, or nothing better is known.
    Kept,
    /// Something was given up, for there is too little memory.
    Reduced,
    /// More is asked for, for much memory lies idle.
    Enlarged,
    /// A setting that made it slow is another now.
    Corrected,
}

/// A configuration after a look at what was observed.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapted {
    /// What to run from now on; the running one where nothing is changed.
    pub config: DeviceConfig,
    /// What was done.
    pub adjustment: Adjustment,
    /// Why, in sentences.
    pub reasons: Vec<String>,
    /// What may hold it up, where it is much slower than expected, likeliest first.
    pub causes: Vec<String>,
}

/// Corrects a running configuration.
///
/// | seen [`HOLD`] times in a row | then |
/// |---|---|
/// | memory pressure from [`PRESSED`] up (once from 0.98 up) | the next step of the planner's own ladder: planned again with more memory left free |
/// | less than [`ANOMALY`] of the expected speed | causes are named; where threads compete with other programs, fewer of them |
/// | memory pressure down to [`RELAXED`] | twice the context (to the trained one), else twice the micro-batch, where that stays below 0.85 |
///
/// The first row that holds counts. Between the two limits nothing changes, and an enlargement never leads to where the next look would
/// reduce it again. What is pinned, preferred and asked for in [`DeviceConfig::request`] is kept, and so is the type of the weights.
pub fn adapt(machine: &MachineSource, model: &Path, metrics: &Metrics) -> Adapted {
    let kept = |reasons: Vec<String>, causes: Vec<String>| Adapted {
        config: metrics.running.clone(),
        adjustment: Adjustment::Kept,
        reasons,
        causes,
    };
    let machine = match look(machine) {
        Ok(machine) => machine,
        Err(error) => {
            tracing::warn!(%error, "cannot look at the machine: keeping what runs");
            return kept(vec![format!("kept: {error}")], Vec::new());
        }
    };
    let pressure = |seen: &Observation| finite(seen.memory_pressure);
    let pressed = metrics.observations.last().and_then(pressure).is_some_and(|now| now >= URGENT)
        || held(metrics, |seen| pressure(seen).is_some_and(|now| now >= PRESSED));
    if pressed {
        return reduced(&machine, model, metrics).unwrap_or_else(|| kept(vec!["kept: nothing smaller has a plan".to_owned()], Vec::new()));
    }
    if let Some(share) = slowness(metrics) {
        return slow(&machine, metrics, share);
    }
    if held(metrics, |seen| pressure(seen).is_some_and(|now| now <= RELAXED))
        && let Some(larger) = enlarged(&machine, model, metrics)
    {
        return larger;
    }
    kept(vec!["kept: what was observed is within what was expected".to_owned()], Vec::new())
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value >= 0.0)
}

/// True where the last [`HOLD`] observations agree.
fn held(metrics: &Metrics, says: impl Fn(&Observation) -> bool) -> bool {
    let last = metrics.observations.iter().rev().take(HOLD);
    metrics.observations.len() >= HOLD && last.into_iter().all(says)
}

/// The machine without the running configuration: what that holds is free again once it ends.
fn without(machine: &Machine, running: &DeviceConfig) -> Machine {
    let back = |free: &Known<spec::Bytes>, total: Option<spec::Bytes>, pool: &str| {
        free.clone().map(|free| {
            let sum = free.checked_add(running.needed(pool)).unwrap_or(free);
            total.map_or(sum, |total| sum.min(total))
        })
    };
    let gpus = &machine.facts.gpus;
    let pools = pools_of(&machine.facts, running);
    let gpu_memory = machine.free.gpu_memory.iter().zip(gpus).zip(&pools);
    let free = Free {
        memory: back(&machine.free.memory, machine.facts.memory.total.get(), "host"),
        gpu_memory: gpu_memory.map(|((free, gpu), pool)| back(free, gpu.memory_total.get(), pool)).collect(),
        ..machine.free.clone()
    };
    Machine { free, ..machine.clone() }
}

/// The running settings with less memory: the planner's ladder under growing margins until something is given up.
fn reduced(machine: &Machine, model: &Path, metrics: &Metrics) -> Option<Adapted> {
    let running = &metrics.running;
    let before: u64 = running.memory.iter().filter_map(|held| held.needed.get()).map(spec::Bytes::get).sum();
    let asked = &running.request;
    for margin in [0.15, 0.3, 0.5] {
        if matches!(asked.preferences.margin, Some(Margin::Fraction(own)) if own >= margin) {
            continue;
        }
        let preferences = Preferences { margin: Some(Margin::Fraction(margin)), ..asked.preferences };
        // Never more than there is: the context and slots that run are upper ends.
        let request = Request { preferences, ..asked.clone() };
        let Some(config) = planned_on(&without(machine, running), model, &request, running) else { continue };
        let after: u64 = config.memory.iter().filter_map(|held| held.needed.get()).map(spec::Bytes::get).sum();
        let smaller = after < before && config.settings.n_ctx <= running.settings.n_ctx;
        if smaller || running.fallback.is_some() {
            let reasons = vec![format!(
                "memory was filled above {:.0} %: planned again with {:.0} % left free: {} instead of {}",
                PRESSED * 100.0,
                margin * 100.0,
                spec::Bytes::new(after),
                spec::Bytes::new(before)
            )];
            return Some(Adapted { config, adjustment: Adjustment::Reduced, reasons, causes: Vec::new() });
        }
    }
    // The ladder has no lower step that is planned: half of the context frees half of the cache.
    let n_ctx = running.settings.n_ctx / 2;
    let pins = Pins { n_ctx: Some(n_ctx / 256 * 256), ..Pins::from(running.settings.clone()) };
    if n_ctx < 512 || asked.pins.n_ctx.is_some() {
        return None;
    }
    let config = planned_on(&without(machine, running), model, &Request { pins, ..asked.clone() }, running)?;
    let reasons = vec![format!("memory was filled above {:.0} %: half of the context", PRESSED * 100.0)];
    Some(Adapted { config, adjustment: Adjustment::Reduced, reasons, causes: Vec::new() })
}

/// A plan for what takes the place of the running configuration: of weights of the same type, and remembering what was asked for.
fn planned_on(machine: &Machine, model: &Path, request: &Request, running: &DeviceConfig) -> Option<DeviceConfig> {
    match planned(machine, model, request, running.file_type) {
        Ok(advice) => Some(DeviceConfig::of(&advice, &running.request)),
        Err(error) => {
            tracing::debug!(%error, "no plan for a correction");
            None
        }
    }
}

/// Observed over expected speed where it is too low throughout.
fn slowness(metrics: &Metrics) -> Option<f64> {
    let expected = metrics.running.decode.get()?.get();
    let share = |seen: &Observation| finite(seen.tokens_per_s).filter(|_| expected > 0.0).map(|rate| rate / expected);
    if !held(metrics, |seen| share(seen).is_some_and(|share| share < ANOMALY)) {
        return None;
    }
    metrics.observations.last().and_then(share)
}

fn slow(machine: &Machine, metrics: &Metrics, share: f64) -> Adapted {
    let running = &metrics.running;
    let mean = |of: fn(&Observation) -> Option<f64>| {
        let values: Vec<f64> = metrics.observations.iter().rev().take(HOLD).filter_map(|seen| finite(of(seen))).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let (cpu, gpu) = (mean(|seen| seen.cpu_utilisation), mean(|seen| seen.gpu_utilisation));
    let mut causes = Vec::new();
    // The CPUs are full beyond what this program's own threads can fill.
    let own = f64::from(running.settings.threads) / f64::from(machine.effective_cpus().max(1));
    let crowded = cpu.is_some_and(|cpu| cpu > 0.95 && cpu > own + 0.1);
    if crowded {
        causes.push("other programs compute on the same CPUs: threads wait for each other".to_owned());
    }
    if running.settings.n_gpu_layers > 0 && gpu.is_some_and(|gpu| gpu < 0.3) {
        causes.push("GPUs stand idle most of the time: they wait for layers on the host, or are not used at all".to_owned());
    }
    causes.extend(
        doctor::findings(machine).into_iter().filter(|finding| finding.severity > doctor::Severity::Note).map(|finding| finding.what),
    );
    let mut reasons = vec![format!("{:.0} % of the expected speed", share * 100.0)];
    let mut config = running.clone();
    let mut adjustment = Adjustment::Kept;
    let pins = &running.request.pins;
    if crowded && running.settings.threads > 1 && pins.threads.is_none() {
        let threads = (running.settings.threads * 3 / 4).max(1);
        config.settings.threads = threads;
        if pins.threads_batch.is_none() {
            config.settings.threads_batch = config.settings.threads_batch.min(threads);
        }
        reasons.push(format!("{threads} threads instead of {}: the rest is for the other programs", running.settings.threads));
        adjustment = Adjustment::Corrected;
    } else if causes.is_empty() {
        causes.push("nothing that is known of the machine explains it: measure again, and compare the engine's version".to_owned());
    }
    tracing::warn!(share, causes = ?causes, "slower than expected");
    Adapted { config, adjustment, reasons, causes }
}

/// More context, or else a larger micro-batch, where it stays well below what would be reduced again.
fn enlarged(machine: &Machine, model: &Path, metrics: &Metrics) -> Option<Adapted> {
    let running = &metrics.running;
    let trained = crate::open::open(model).ok().and_then(|model| model.n_ctx_train).unwrap_or(running.settings.n_ctx);
    let settings = Pins::from(running.settings.clone());
    let n_ctx = running.settings.n_ctx.saturating_mul(2).min(trained);
    let n_ubatch = running.settings.n_ubatch.saturating_mul(2).min(running.settings.n_batch);
    let asked = &running.request;
    let context = (n_ctx > running.settings.n_ctx && asked.pins.n_ctx.is_none()).then(|| {
        let what = format!("a context of {n_ctx} tokens instead of {}", running.settings.n_ctx);
        (Pins { n_ctx: Some(n_ctx), ..settings.clone() }, what)
    });
    let batch = (n_ubatch > running.settings.n_ubatch && asked.pins.n_ubatch.is_none()).then(|| {
        let what = format!("a micro-batch of {n_ubatch} instead of {}", running.settings.n_ubatch);
        (Pins { n_ubatch: Some(n_ubatch), ..settings.clone() }, what)
    });
    let free = without(machine, running);
    [context, batch].into_iter().flatten().find_map(|(pins, what)| {
        let config = planned_on(&free, model, &Request { pins, ..asked.clone() }, running)?;
        let safe = config.memory.iter().all(|held| held.fraction.is_none_or(|fraction| fraction <= SAFE));
        let slower = match (config.decode.get(), running.decode.get()) {
            (Some(after), Some(before)) => after.get() < before.get() * 0.9,
            _ => false,
        };
        (safe && !slower).then(|| Adapted {
            config,
            adjustment: Adjustment::Enlarged,
            reasons: vec![format!("memory was filled to {:.0} % at most: {what}", RELAXED * 100.0)],
            causes: Vec::new(),
        })
    })
}
