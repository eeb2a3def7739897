//! Settings for a program that loads models itself: one call, an answer in any case.
//!
//! [`optimal_device_config`] plans a model on this machine; [`optimal_device_config_with_preferences`] with wishes;
//! [`adaptive_device_config`] corrects what runs by what was observed. None of them fails or panics: where the machine or the model cannot
//! be looked at, or the model does not fit, the answer is a conservative configuration that says so in [`DeviceConfig::fallback`], and a
//! warning through [`tracing`]. `cargo run --release -p loadmaster --no-default-features --example configure` shows how long each takes.
//!
//! ```
//! use loadmaster::configure::{Metrics, Observation, adaptive_device_config, optimal_device_config};
//! let config = optimal_device_config("qwen3-0.6b");
//! assert!(config.settings.threads >= 1 && config.settings.n_ctx >= 256);
//! let seen = Observation { memory_pressure: Some(0.97), ..Observation::default() };
//! let adapted = adaptive_device_config("qwen3-0.6b", &Metrics { running: config.clone(), observations: vec![seen; 3] });
//! assert!(adapted.config.settings.n_ctx <= config.settings.n_ctx);
//! ```

mod adapt;

pub use adapt::{ANOMALY, Adapted, Adjustment, HOLD, Metrics, Observation, PRESSED, RELAXED, adapt};

use crate::advise::{Advice, Ground, ResolvedEngine, newest_server};
use crate::error::Error;
use crate::known::precision;
use crate::machine::MachineSource;
use crate::open::{Origin, open_as};
use crate::system::{SystemInfo, Tier};
use footprint::bitnet::{BitNet, Head};
use formats::FileType;
use planner::plan::Strategy;
use planner::{EngineRules, GpuSupport, Preferences};
use spec::machine::Facts;
use spec::{Bytes, Known, Machine, Settings, TokensPerSec};
use std::path::Path;

/// Settings to load a model with, and what to expect of them.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// Every setting of llama.cpp; nothing is left to the engine.
    pub settings: Settings,
    /// Which processors compute.
    pub strategy: Strategy,
    /// What size of model runs well on the machine; `None` where its memory is not known.
    pub tier: Option<Tier>,
    /// Memory per pool (`host`, or the engine's name of a GPU), with the share of what is free there; `None` where that is not known.
    pub memory: Vec<PoolUse>,
    /// Tokens per second of one sequence while generating.
    pub decode: Known<TokensPerSec>,
    /// Tokens per second while a prompt is read.
    pub prefill: Known<TokensPerSec>,
    /// Why these settings, in sentences; what was given up first.
    pub reasons: Vec<String>,
    /// Why this is no plan but a conservative guess; `None` for a plan.
    pub fallback: Option<String>,
    /// The type that was planned, of a model of which no file was read; `None` where the file has its own.
    pub file_type: Option<FileType>,
    /// How the BitNet engine keeps the output head; `None` for other engines, and where nothing was planned.
    pub head: Option<Head>,
    /// What was asked for: corrections keep its pins, preferences and use case.
    pub request: planner::Request,
}

/// What a configuration takes of a pool of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolUse {
    /// `host`, or the engine's name of a GPU.
    pub pool: String,
    /// What it takes and cannot give back.
    pub needed: Known<Bytes>,
    /// `needed` over what was free, 0 to 1; `None` where that is not known.
    pub fraction: Option<f64>,
}

/// The best settings for a model on this machine, for general use. The model is whatever [`crate::open()`] takes.
pub fn optimal_device_config(model: impl AsRef<Path>) -> DeviceConfig {
    optimal_device_config_with_preferences(model, &Preferences::default())
}

/// As [`optimal_device_config`], with wishes: a device, a margin of memory, latency or throughput, power.
pub fn optimal_device_config_with_preferences(model: impl AsRef<Path>, preferences: &Preferences) -> DeviceConfig {
    device_config(&MachineSource::Live, model.as_ref(), &planner::Request { preferences: *preferences, ..planner::Request::default() })
}

/// A corrected configuration for a model that runs on this machine, by what was observed; see [`adapt`] for the rules.
pub fn adaptive_device_config(model: impl AsRef<Path>, metrics: &Metrics) -> Adapted {
    adapt(&MachineSource::Live, model.as_ref(), metrics)
}

/// The best settings for a model on a machine, live or not, and for any request.
pub fn device_config(machine: &MachineSource, model: &Path, request: &planner::Request) -> DeviceConfig {
    let machine = look(machine);
    let plan = |machine| planned(machine, model, request, None).map_err(|error| chain(&error));
    let why = match machine.as_ref().map_err(chain).and_then(plan) {
        Ok(advice) => return DeviceConfig::of(&advice, request),
        Err(why) => why,
    };
    tracing::warn!(model = %model.display(), error = %why, "no plan: taking a conservative configuration");
    DeviceConfig::conservative(machine.ok().as_ref(), &why, request)
}

/// The machine, its facts as they were first detected in this process, and what is free now.
fn look(machine: &MachineSource) -> Result<Machine, Error> {
    match machine {
        MachineSource::Live => Ok(SystemInfo::get()?.machine().clone()),
        other => Ok(other.load()?),
    }
}

/// The plan behind a configuration: of a BitNet model for the engine in this program, of others for the newest llama.cpp that is known; of a model without a file in this type, or the best one.
fn planned(machine: &Machine, model: &Path, request: &planner::Request, file_type: Option<FileType>) -> Result<Advice, Error> {
    let opened = open_as(model, file_type)?;
    let (rules, gpus) = match bitnet::computes(&opened.model) {
        true => (EngineRules::bitnet(BitNet::default()), GpuSupport::None),
        false => (newest_server(), GpuSupport::Native),
    };
    let engine = ResolvedEngine { rules, gpus, external: None };
    let ground = Ground { target: planner::target(machine, &engine.gpus), machine: machine.clone(), engine };
    precision::advise(ground.survey(opened), request, file_type.is_some()).0
}

/// An error with its causes, but for those that it shows itself.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if !text.contains(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        source = cause.source();
    }
    text
}

impl DeviceConfig {
    fn of(advice: &Advice, request: &planner::Request) -> Self {
        let plan = advice.plan.plan();
        let given_up = plan.verdict.downgrades().iter().map(ToString::to_string);
        Self {
            settings: plan.settings.clone(),
            strategy: plan.strategy,
            tier: SystemInfo::from(advice.machine.clone()).tier(),
            memory: plan
                .budgets
                .iter()
                .map(|budget| PoolUse { pool: budget.pool.to_string(), needed: budget.needed.clone(), fraction: budget.share() })
                .collect(),
            decode: plan.prediction.decode.clone(),
            prefill: plan.prediction.prefill.clone(),
            reasons: given_up.chain(plan.reasons.iter().cloned()).collect(),
            fallback: None,
            file_type: match advice.origin {
                Origin::Assumed(_) => advice.model.file_type.as_deref().and_then(|name| name.parse().ok()),
                _ => None,
            },
            head: advice.engine.rules.profile.bitnet.and_then(|engine| engine.head),
            request: request.clone(),
        }
    }

    /// What runs nearly anywhere: the CPU, half of the cores, a short context, weights mapped from the file; and what is pinned.
    fn conservative(machine: Option<&Machine>, why: &str, request: &planner::Request) -> Self {
        let cores = machine.map_or_else(
            || std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1)),
            Machine::effective_cores,
        );
        let threads = (cores / 2).max(1);
        let mut settings = Settings {
            n_ctx: 2048,
            n_batch: 512,
            n_ubatch: 256,
            n_gpu_layers: 0,
            threads,
            threads_batch: threads,
            cache_ram_mib: 0,
            ..Settings::default()
        };
        let pinned = request.pins.names();
        request.pins.apply(&mut settings);
        let kept = if pinned.is_empty() { String::new() } else { format!("; pinned as asked: {}", pinned.join(", ")) };
        let strategy = if settings.n_gpu_layers == 0 { Strategy::CpuOnly } else { Strategy::Hybrid };
        let guess = format!("a conservative guess: {} threads, {} tokens of context", settings.threads, settings.n_ctx);
        Self {
            settings,
            strategy,
            tier: machine.and_then(|machine| SystemInfo::from(machine.clone()).tier()),
            memory: Vec::new(),
            decode: Known::unknown("nothing was planned"),
            prefill: Known::unknown("nothing was planned"),
            reasons: vec![format!("{guess}, {strategy}{kept}")],
            fallback: Some(why.to_owned()),
            file_type: None,
            head: None,
            request: request.clone(),
        }
    }

    /// What it takes of a pool; zero where that is not known.
    fn needed(&self, pool: &str) -> Bytes {
        let held = self.memory.iter().find(|held| held.pool == pool).and_then(|held| held.needed.get());
        held.unwrap_or(Bytes::ZERO)
    }
}

/// Names of the GPUs' memories as a plan for the newest llama.cpp calls them, in the order of the machine's GPUs.
fn pools_of(facts: &Facts, config: &DeviceConfig) -> Vec<String> {
    let names: Vec<&String> = config.memory.iter().map(|held| &held.pool).filter(|pool| pool.as_str() != "host").collect();
    (0..facts.gpus.len()).map(|index| names.get(index).map_or_else(String::new, |name| (*name).clone())).collect()
}

#[cfg(test)]
mod tests;
