//! A model loader for programs: it answers for its memory before anything is loaded, keeps to limits, and logs what it decides.
//!
//! [`ProductionModelLoader`] puts together what other modules do alone: [`crate::configure`] chooses, [`crate::memory_requirements()`] counts,
//! [`planner::check()`] validates and [`crate::launch::bitnet`] loads. It answers for every model that [`crate::open()`] takes, and loads BitNet
//! models into this process; others run in engines of their own ([`crate::launch`]). Decisions are events of [`tracing`] with the target
//! `loadmaster::loader`: every limit, every allocation by pool and segment at `INFO`, every refusal and fallback at `WARN`.
//!
//! ```
//! use loadmaster::loader::{Limits, ProductionModelLoader};
//! use loadmaster::machine::MachineSource;
//! use loadmaster::spec::Bytes;
//! let loader = ProductionModelLoader::new()
//!     .on(MachineSource::Description("ram=16GiB,cores=8,gpu=8GiB".into()))
//!     .with_limits(Limits { memory: Some(Bytes::from_gib(12)), ..Limits::default() });
//! let config = loader.optimal_device_config("qwen3-0.6b");
//! let needs = loader.memory_requirements("qwen3-0.6b", &config)?;
//! for pool in &needs.pools {
//!     println!("{} takes {} at peak", pool.name, pool.peak);
//! }
//! assert!(loader.validate("qwen3-0.6b", &config)?.is_valid());
//! # Ok::<(), loadmaster::loader::LoaderError>(())
//! ```
//!
//! `cargo run --release -p loadmaster --no-default-features --example loader -- MODEL` does it all, and generates with a BitNet model.

mod requirements;

pub use requirements::{MemoryRequirements, PoolRequirement, Segment, SegmentUse};

use crate::advise::{EngineChoice, Request, Survey, survey};
use crate::configure::{Adapted, DeviceConfig, Metrics, adapt, device_config};
use crate::error::Error;
use crate::launch::bitnet::{Session, start};
use crate::launch::bundled::BundledOptions;
use crate::launch::{Event, Interrupts, LaunchError};
use crate::machine::MachineSource;
use footprint::Requirement;
use footprint::bitnet::BitNet;
use planner::{Preferences, Report};
use spec::Bytes;
use spec::settings::Pins;
use std::path::Path;

/// What a loader may use at most. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Size of the model's files together.
    pub model: Option<Bytes>,
    /// Memory of the host that cannot be given back, at peak: the upper end of the estimate counts.
    pub memory: Option<Bytes>,
    /// Tokens of context.
    pub n_ctx: Option<u32>,
}

/// Why a loader refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// Above a limit of the loader.
    #[error("{what} above the limit of {limit}: {found}")]
    Limit {
        /// What is.
        what: &'static str,
        /// What there is of it.
        found: String,
        /// The limit.
        limit: String,
    },
    /// A model whose engine runs in a process of its own.
    #[error("models of {architecture} do not run in this process: loadmaster::launch starts an engine for them")]
    NotInProcess {
        /// Its architecture.
        architecture: String,
    },
    /// The model cannot be read, does not fit, or breaks a rule.
    #[error(transparent)]
    Advice(#[from] Error),
    /// The memory of these settings cannot be told: the engine refuses them.
    #[error(transparent)]
    Settings(#[from] footprint::FootprintError),
    /// The engine.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Configures, counts, validates and loads.
#[derive(Clone, Debug, PartialEq)]
pub struct ProductionModelLoader {
    machine: MachineSource,
    limits: Limits,
}

impl Default for ProductionModelLoader {
    fn default() -> Self {
        Self { machine: MachineSource::Live, limits: Limits::default() }
    }
}

impl ProductionModelLoader {
    /// For this machine, without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for another machine, where everything but [`ProductionModelLoader::load`] works.
    #[must_use]
    pub fn on(self, machine: MachineSource) -> Self {
        Self { machine, ..self }
    }

    /// The same within limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The best settings for general use. Never fails: see [`crate::configure`]; a limit of the context is kept.
    pub fn optimal_device_config(&self, model: impl AsRef<Path>) -> DeviceConfig {
        self.optimal_device_config_with_preferences(model, &Preferences::default())
    }

    /// As [`ProductionModelLoader::optimal_device_config`], with wishes.
    pub fn optimal_device_config_with_preferences(&self, model: impl AsRef<Path>, preferences: &Preferences) -> DeviceConfig {
        let model = model.as_ref();
        let request = planner::Request { preferences: *preferences, ..planner::Request::default() };
        let config = device_config(&self.machine, model, &request);
        let config = match self.limits.n_ctx {
            Some(limit) if config.settings.n_ctx > limit => {
                tracing::info!(limit, wanted = config.settings.n_ctx, "context: kept to the limit");
                let pins = Pins { n_ctx: Some(limit), ..Pins::default() };
                device_config(&self.machine, model, &planner::Request { pins, ..request })
            }
            _ => config,
        };
        chosen(model, &config);
        config
    }

    /// A corrected configuration for a model that runs, by what was observed.
    pub fn adaptive_device_config(&self, model: impl AsRef<Path>, metrics: &Metrics) -> Adapted {
        let adapted = adapt(&self.machine, model.as_ref(), metrics);
        tracing::info!(adjustment = ?adapted.adjustment, reasons = ?adapted.reasons, "adapted");
        adapted
    }

    /// What a configuration takes: every segment of every pool, at load and at peak, what is left free beside it, and what would take less.
    ///
    /// # Errors
    /// A model that cannot be read, or settings that its engine refuses. Memory that is too small is no error: see
    /// [`MemoryRequirements::fits`].
    pub fn memory_requirements(&self, model: impl AsRef<Path>, config: &DeviceConfig) -> Result<MemoryRequirements, LoaderError> {
        let survey = self.survey(model.as_ref(), config)?;
        Ok(requirements(&survey, config)?.1)
    }

    /// Every rule of engine and machine that a configuration breaks.
    ///
    /// # Errors
    /// A model or machine that cannot be looked at.
    pub fn validate(&self, model: impl AsRef<Path>, config: &DeviceConfig) -> Result<Report, LoaderError> {
        let survey = self.survey(model.as_ref(), config)?;
        let report = planner::check(&survey.context(), &config.settings);
        for violation in &report.violations {
            tracing::warn!(rule = violation.rule, setting = violation.setting, message = %violation.message, "a rule is broken");
        }
        Ok(report)
    }

    /// Loads a BitNet model into this process with a configuration, after limits, rules and memory were checked.
    ///
    /// # Errors
    /// Above a limit, a model of another engine, memory that is too small, or files that cannot be loaded: nothing is loaded then.
    pub fn load(&self, model: impl AsRef<Path>, config: &DeviceConfig) -> Result<Session, LoaderError> {
        let model = model.as_ref();
        self.loaded(model, config).inspect_err(|error| tracing::warn!(model = %model.display(), %error, "not loaded"))
    }

    fn loaded(&self, model: &Path, config: &DeviceConfig) -> Result<Session, LoaderError> {
        let survey = self.survey(model, config)?;
        survey.origin.check_runnable(&survey.path).map_err(Error::from)?;
        if !bitnet::computes(&survey.model) {
            return Err(LoaderError::NotInProcess { architecture: survey.model.architecture });
        }
        let (requirement, needs) = requirements(&survey, config)?;
        self.keep(&survey, &requirement, config)?;
        allocations(&needs);
        let request = planner::Request { pins: pins(config), ..config.request.clone() };
        let advice = survey.advise(&request)?;
        let mut on = |event: Event<'_>| {
            if let Event::Stage(stage) = event {
                tracing::debug!(%stage, "loading");
            }
        };
        let session = start(&advice, &BundledOptions::default(), &Interrupts::default(), &mut on)?;
        tracing::info!(model = %model.display(), engine = %session.engine(), "loaded");
        Ok(session)
    }

    /// Machine and model, with the engine that a configuration is for.
    fn survey(&self, model: &Path, config: &DeviceConfig) -> Result<Survey, LoaderError> {
        let other = EngineChoice::Assumed(Box::new(crate::advise::newest_server()));
        let bitnet = BitNet::default().with_head(config.head.unwrap_or_default());
        let engine = EngineChoice::Suited(bitnet, Box::new(other));
        let request = Request { machine: self.machine.clone(), quant: config.file_type, engine, ..Request::new(model) };
        Ok(survey(&request)?)
    }

    fn keep(&self, survey: &Survey, requirement: &Requirement, config: &DeviceConfig) -> Result<(), LoaderError> {
        let files: Bytes = survey.model.files.iter().map(|file| file.size).sum();
        let held = requirement.held();
        let memory = held.high().copied().unwrap_or(Bytes::MAX);
        let n_ctx = config.settings.n_ctx;
        tracing::info!(%files, %held, n_ctx, limits = ?self.limits, "limits");
        let above = |what, found: String, limit: String| Err(LoaderError::Limit { what, found, limit });
        match self.limits {
            Limits { model: Some(limit), .. } if files > limit => above("the model's files are", files.to_string(), limit.to_string()),
            Limits { memory: Some(limit), .. } if memory > limit => above("memory may be", memory.to_string(), limit.to_string()),
            Limits { n_ctx: Some(limit), .. } if n_ctx > limit => above("the context is", n_ctx.to_string(), limit.to_string()),
            _ => Ok(()),
        }
    }
}

fn requirements(survey: &Survey, config: &DeviceConfig) -> Result<(Requirement, MemoryRequirements), LoaderError> {
    let (model, target, profile) = (&survey.model, &survey.target, &survey.engine.rules.profile);
    let companions = &config.request.companions;
    let requirement = footprint::require_with(model, &config.settings, target, profile, companions)?;
    let savings = footprint::savings(model, &config.settings, target, profile, companions, &requirement);
    let budgets = planner::plan::budgets(&survey.machine, target, &requirement, config.request.preferences.margin);
    let needs = MemoryRequirements::new(&requirement, &budgets, savings, profile);
    Ok((requirement, needs))
}

/// What a configuration settles of a context of the BitNet engine; the rest of its request stays.
fn pins(config: &DeviceConfig) -> Pins {
    let settings = &config.settings;
    let own = Pins {
        n_ctx: Some(settings.n_ctx),
        n_ubatch: Some(settings.n_ubatch),
        cache_type_k: Some(settings.cache_type_k),
        cache_type_v: Some(settings.cache_type_v),
        threads: Some(settings.threads),
        ..Pins::default()
    };
    own.or(config.request.pins.clone())
}

fn chosen(model: &Path, config: &DeviceConfig) {
    let settings = &config.settings;
    tracing::info!(
        model = %model.display(), strategy = %config.strategy, n_ctx = settings.n_ctx, n_gpu_layers = settings.n_gpu_layers,
        threads = settings.threads, fallback = config.fallback.as_deref(), reasons = ?config.reasons, "configured"
    );
}

fn allocations(needs: &MemoryRequirements) {
    for pool in &needs.pools {
        for segment in &pool.segments {
            tracing::info!(pool = pool.name, segment = %segment.segment, load = %segment.load, peak = %segment.peak, "allocation");
        }
        tracing::info!(pool = pool.name, load = %pool.load, peak = %pool.peak, margin = %pool.safety_margin, "memory");
    }
}

#[cfg(test)]
mod tests;
