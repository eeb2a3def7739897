//! FIT: what llama.cpp's own `--fit` makes of settings. It is what a user gets who sets nothing, and so what a plan must beat.
//!
//! The steps are those of `common_params_fit_impl` (llama.cpp v0.6.0-dev, `common/fit.cpp:176-870`; 0.7.0 takes the same): reduce
//! the context that nobody set; else give each device layers from the back, for a model with experts without these; else bring
//! experts back from the front. Every step asks the engine's dry run, here [`footprint::dry_run`]. Its peculiarities are
//! kept: the host's memory is no limit once there is a device, and a device's free memory is read while the dry run holds
//! its recurrent state, which so counts twice.

mod layers;

use footprint::{Companions, EngineProfile, FootprintError, Requirement, Requirements, Target};
use spec::settings::{Devices, SplitMode, TensorOverride};
use spec::{Bytes, Known, Model, Settings};

/// What `--fit` is asked to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitGoal {
    /// Bytes to leave free on each device, in the order of the target (`--fit-target`); the last holds for further ones. On a
    /// host without devices the first.
    pub margins: Vec<Bytes>,
    /// The smallest context that it may choose (`--fit-ctx`).
    pub n_ctx_min: u32,
    /// Memory of the host in all, which limits a target without devices.
    pub host_total: Bytes,
}

impl FitGoal {
    /// The engine's defaults: 1 GiB and 4096 tokens (`common/common.h:483-486`).
    pub fn new(host_total: Bytes) -> Self {
        Self { margins: vec![Bytes::from_gib(1)], n_ctx_min: 4096, host_total }
    }

    fn margin(&self, device: usize) -> i64 {
        self.margins.get(device).or(self.margins.last()).map_or(0, |&margin| signed(margin))
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FitEnd {
    /// It found settings that it holds to fit; they may be those that it was given.
    Fits,
    /// It gave up, for this reason, and the engine goes on with the settings as they were then.
    GaveUp(String),
}

/// What `--fit` made of settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The settings that the engine then loads with.
    pub settings: Settings,
    /// How it ended.
    pub end: FitEnd,
}

/// Why its steps could not be followed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// The engine refuses the settings themselves, or they are not modelled.
    #[error(transparent)]
    Refused(#[from] FootprintError),
    /// It computes with a number that is not known here.
    #[error("{what} is not known: {reason}")]
    Unknown {
        /// The number.
        what: String,
        /// Why it is unknown.
        reason: String,
    },
}

/// Follows `--fit` from `settings`. A context of 0 and [`crate::emit::ALL`] layers on GPUs stand for what nobody has set.
///
/// # Errors
/// Settings that the engine refuses before it fits anything, devices that are not there, and devices whose free memory is
/// unknown.
///
/// # Examples
/// ```
/// use planner::fit::{FitEnd, FitGoal, fit};
/// # use footprint::{EngineProfile, Target};
/// # use spec::{Bytes, Settings};
/// # let file = synthetic::gguf(&synthetic::preset("qwen3-0.6b").unwrap(), synthetic::FileType::Q8_0, &synthetic::Options::default()).unwrap();
/// # let model = formats::describe(&[formats::gguf::read(&file.header, file.size)?])?;
/// let target = Target { devices: Vec::new(), idle: Vec::new(), cpu_features: Default::default(), cpu_arch: "x86_64".into() };
/// let unset = Settings { n_ctx: 0, n_gpu_layers: planner::emit::ALL, ..Settings::default() };
/// let fitted = fit(&model, &unset, &target, &EngineProfile::bundled(), &FitGoal::new(Bytes::from_gib(4)))?;
/// assert_eq!(fitted.end, FitEnd::Fits);
/// assert!(fitted.settings.n_ctx < 40_960, "4 GiB do not hold the trained context");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn fit(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile, goal: &FitGoal) -> Result<Fitted, FitError> {
    let target = &devices_in_use(target, settings)?;
    let none = Companions::default();
    let dry = DryRuns { requirements: Requirements::new(model, target, profile, &none), model, target, goal };
    let mut settings = settings.clone();
    let end = match run(&dry, &mut settings) {
        Ok(()) => FitEnd::Fits,
        Err(Stop::GaveUp(reason)) => FitEnd::GaveUp(reason),
        Err(Stop::Error(error)) => return Err(error),
    };
    Ok(Fitted { settings, end })
}

/// Those that are named, of which split mode `none` takes one.
fn devices_in_use(target: &Target, settings: &Settings) -> Result<Target, FitError> {
    let mut target = target.only(&settings.devices)?.into_owned();
    if settings.split_mode == SplitMode::None {
        let main = usize::try_from(settings.main_gpu).unwrap_or(usize::MAX);
        target.devices = target.devices.into_iter().skip(main).take(1).collect();
    }
    Ok(target)
}

/// Why the steps end early.
enum Stop {
    GaveUp(String),
    Error(FitError),
}

impl<E: Into<FitError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

fn gave_up<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::GaveUp(reason.into()))
}

/// The engine's dry runs of one model.
struct DryRuns<'a> {
    requirements: Requirements<'a>,
    model: &'a Model,
    target: &'a Target,
    goal: &'a FitGoal,
}

/// What one dry run says of a device.
#[derive(Clone, Copy)]
struct OnDevice {
    used: i64,
    weights: i64,
    /// Read while the state of this dry run is allocated.
    free: i64,
}

impl DryRuns<'_> {
    fn devices(&self) -> usize {
        self.target.devices.len()
    }

    /// Layers that can be on devices, without the output.
    fn n_layer(&self) -> u32 {
        self.model.n_layer()
    }

    fn has_experts(&self) -> bool {
        self.model.has_experts()
    }

    fn measure(&self, settings: &Settings) -> Result<Vec<OnDevice>, Stop> {
        // The devices are chosen already.
        let mut settings = Settings { devices: Devices::All, main_gpu: 0, ..settings.clone() };
        if settings.n_gpu_layers == crate::emit::ALL {
            settings.n_gpu_layers = self.model.n_layer_all().saturating_add(1);
        }
        let need = self.requirements.dry_run(&settings)?;
        if self.devices() == 0 {
            return Ok(vec![self.host(&need)?]);
        }
        need.devices
            .iter()
            .zip(&self.target.devices)
            .map(|(need, device)| {
                let of = |what: &str, bytes: &Known<Bytes>| known(&format!("{what} on {}", device.name), bytes);
                let (weights, state) = (of("weights", &need.weights)?, of("state", &need.state)?);
                let used = weights + of("KV cache", &need.kv_cache)? + state + of("compute buffer", &need.compute)?;
                Ok(OnDevice { used, weights, free: of("free memory", &device.free)? - state })
            })
            .collect()
    }

    /// Without devices the host counts, all of its memory as free. Weights that are repacked lie in no host buffer and are
    /// not seen (`fit.cpp:69-76`).
    fn host(&self, need: &Requirement) -> Result<OnDevice, Stop> {
        let host = &need.host;
        let parts = [&host.weights_anonymous, &host.weights_mapped, &host.kv_cache, &host.state, &host.compute];
        let used = parts.iter().map(|part| known("host memory", part)).sum::<Result<i64, FitError>>()?;
        Ok(OnDevice { used, weights: known("weights", &host.weights_anonymous)?, free: signed(self.goal.host_total) })
    }
}

fn known(what: &str, bytes: &Known<Bytes>) -> Result<i64, FitError> {
    let unknown = || FitError::Unknown { what: what.to_owned(), reason: bytes.source().to_string() };
    bytes.get().map(signed).ok_or_else(unknown)
}

fn signed(bytes: Bytes) -> i64 {
    i64::try_from(bytes.get()).unwrap_or(i64::MAX)
}

fn run(dry: &DryRuns<'_>, settings: &mut Settings) -> Result<(), Stop> {
    if settings.split_mode == SplitMode::Tensor {
        return gave_up("llama_params_fit is not implemented for SPLIT_MODE_TENSOR");
    }
    let (full, enough) = context(dry, settings)?;
    if enough {
        return Ok(());
    }
    place(dry, settings, &full)
}

/// Steps 1 and 2: whether anything must change, and whether a smaller context is enough. The dry run with the settings as
/// they were given, and true where they need no more work.
fn context(dry: &DryRuns<'_>, settings: &mut Settings) -> Result<(Vec<OnDevice>, bool), Stop> {
    let streams = if settings.kv_unified { 1 } else { settings.n_parallel.max(1) };
    let most = dry.model.n_ctx_train.unwrap_or(0).saturating_mul(streams);
    let least = dry.goal.n_ctx_min.saturating_mul(streams);
    let unset = settings.n_ctx == 0;
    if unset {
        settings.n_ctx = most;
    }
    let full = dry.measure(settings)?;
    let margins = || (0..full.len()).map(|device| dry.goal.margin(device));
    if full.iter().zip(margins()).all(|(device, margin)| device.free - device.used >= margin) {
        return Ok((full, true));
    }
    let sum = |of: fn(&OnDevice) -> i64| full.iter().map(of).sum::<i64>();
    let (free, used, weights) = (sum(|device| device.free), sum(|device| device.used), sum(|device| device.weights));
    let devices = dry.devices();
    let mut reduced_enough = false;
    if free - used - margins().sum::<i64>() < 0 && unset && most > least {
        let mut goal = free - margins().sum::<i64>();
        if devices > 1 {
            // Only whole layers can be given to devices, or with experts whole tensors: some of each device is wasted.
            let per_layer = weights / i64::from(dry.n_layer().max(1));
            goal -= (devices as i64 + 1) * per_layer / if dry.has_experts() { 6 } else { 2 };
        }
        settings.n_ctx = least;
        let at_least = dry.measure(settings)?.iter().map(|device| device.used).sum::<i64>();
        if goal > at_least {
            settings.n_ctx = between(least, most, (goal - at_least, used - at_least), streams);
            reduced_enough = devices <= 1;
        }
    }
    if devices == 0 && !reduced_enough {
        return gave_up("was unable to fit model into system memory by reducing context");
    }
    Ok((full, reduced_enough))
}

/// The context at this share of the way from the least to the most, rounded down for the backends.
fn between(least: u32, most: u32, (part, whole): (i64, i64), streams: u32) -> u32 {
    let step = i128::from(most - least) * i128::from(part) / i128::from(whole.max(1));
    let found = least.saturating_add(u32::try_from(step).unwrap_or(u32::MAX));
    let align = streams.saturating_mul(256).max(1);
    (found - found % align).max(least)
}

/// Steps 3 and 4: layers to devices.
fn place(dry: &DryRuns<'_>, settings: &mut Settings, full: &[OnDevice]) -> Result<(), Stop> {
    let devices = dry.devices();
    if settings.n_gpu_layers != crate::emit::ALL {
        return gave_up(format!("n_gpu_layers already set by user to {}", settings.n_gpu_layers));
    }
    if devices > 1 && settings.tensor_split.iter().any(|&share| share != 0.0) {
        return gave_up("model_params::tensor_split already set by user");
    }
    if devices > 1 && settings.split_mode == SplitMode::Row {
        return gave_up("changing weight allocation for LLAMA_SPLIT_MODE_ROW not implemented");
    }
    if !settings.tensor_overrides.is_empty() || settings.n_cpu_moe > 0 {
        return gave_up("model_params::tensor_buft_overrides already set by user");
    }
    let targets: Vec<i64> = full.iter().enumerate().map(|(device, on)| on.free - dry.goal.margin(device)).collect();
    let all_dense = dry.has_experts() && {
        let cpu = TensorOverride { pattern: layers::ALL_EXPERTS.to_owned(), buffer: layers::HOST.to_owned() };
        let on = dry.measure(&Settings { tensor_overrides: vec![cpu], ..settings.clone() })?;
        on.iter().enumerate().map(|(device, on)| on.free - on.used - dry.goal.margin(device)).sum::<i64>() > 0
    };
    let search = layers::Search { dry, base: settings.clone(), targets };
    let mut tried = search.dense()?;
    if all_dense {
        search.experts(&mut tried)?;
    }
    *settings = search.settings(&tried.layers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use footprint::{Backend, Device};

    fn devices(target: &Target) -> Vec<&str> {
        target.devices.iter().map(|device| device.name.as_str()).collect()
    }

    #[test]
    fn only_devices_in_use_are_fitted_to() {
        let memory = Known::exact(Bytes::from_gib(4), "test");
        let device = |name: &str| Device {
            name: name.into(),
            backend: Backend::pretended(false),
            total: memory.clone(),
            free: memory.clone(),
            shares_host: false,
            pci_address: None,
        };
        let target = Target {
            devices: ["GPU0", "GPU1", "GPU2"].map(device).into(),
            idle: Vec::new(),
            cpu_features: Default::default(),
            cpu_arch: "x86_64".into(),
        };
        let named = Settings { devices: Devices::Only(vec!["GPU2".into(), "GPU1".into()]), ..Settings::default() };
        assert_eq!(devices(&devices_in_use(&target, &named).unwrap()), ["GPU2", "GPU1"]);
        let one = Settings { split_mode: SplitMode::None, main_gpu: 1, ..named };
        assert_eq!(devices(&devices_in_use(&target, &one).unwrap()), ["GPU1"]);
        let missing = Settings { devices: Devices::Only(vec!["GPU7".into()]), ..Settings::default() };
        assert!(devices_in_use(&target, &missing).is_err());
    }
}
