//! The buffers of a row, predicted and compared.

use super::model::{Source, source};
use super::row::{Place, Row};
use super::setup;
use footprint::{Requirement, require};
use spec::{Bytes, Known};
use std::collections::BTreeMap;

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Weights,
    HostWeights,
    KvCache,
    State,
    Compute,
    HostCompute,
    Output,
    /// What the driver holds beyond the buffers right after load.
    Driver,
    /// What it holds more at peak.
    Scratch,
}

impl Component {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights, devices",
            Self::HostWeights => "weights, host",
            Self::KvCache => "KV cache",
            Self::State => "recurrent state",
            Self::Compute => "compute, devices",
            Self::HostCompute => "compute, host",
            Self::Output => "output",
            Self::Driver => "driver, after load",
            Self::Scratch => "scratch, at peak",
        }
    }
}

/// One component of a row in MiB, over all its devices.
#[derive(Clone, Copy, Debug)]
pub struct Scored {
    pub component: Component,
    pub logged: f64,
    pub predicted: f64,
    /// Buffers that were added up, each printed with two decimals.
    pub buffers: u32,
    /// Of each of them.
    pub precision: f64,
    /// The logged sum lies in the prediction's interval, rounding allowed for.
    pub inside: bool,
}

impl Scored {
    /// Predicted over logged, less one.
    pub fn error(&self) -> f64 {
        if (self.predicted - self.logged).abs() <= self.precision * f64::from(self.buffers) {
            0.0
        } else {
            self.predicted / self.logged - 1.0
        }
    }
}

/// What became of a row.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was recomputed.
    Scored { profile: String, parts: Vec<Scored>, complete: bool },
    /// It cannot be, and why.
    Not(String),
}

/// Recomputes a row.
pub fn outcome(row: &Row) -> Outcome {
    let (model, weights_known, complete) = match source(row) {
        Source::Model { model, weights_known, complete } => (*model, weights_known, complete),
        Source::None(reason) => return Outcome::Not(reason.into()),
    };
    let Some(profile) = setup::profile(row) else { return Outcome::Not("no profile of its age".into()) };
    let settings = setup::settings(row, model.n_layer());
    let target = setup::target(row);
    match require(&model, &settings, &target, &profile) {
        Ok(need) => Outcome::Scored { profile: age(row, &profile.name), parts: parts(row, &need, weights_known), complete },
        Err(error) => Outcome::Not(format!("refused: {error}")),
    }
}

/// The age of a row's engine, for grouping.
fn age(row: &Row, profile: &str) -> String {
    match row.get("engine") {
        "llama.cpp" => profile.split(" (").next().unwrap_or(profile).to_owned(),
        _ if !row.is_mainline() => "ik_llama.cpp".into(),
        other => other.split(" (llama.cpp").next().unwrap_or(other).to_owned(),
    }
}

/// The driver's figures over those of the engine: beyond the buffers after load, and more at peak.
fn measured(row: &Row, need: &Requirement) -> Vec<(Component, Sums)> {
    let figure = |column| row.number(column).map(f64::from);
    let mut measured = Vec::new();
    let mut add = |component, logged: Option<f64>, of: fn(&footprint::DeviceRequirement) -> &Known<Bytes>| {
        let sum = need.devices.iter().fold(Known::exact(Bytes::ZERO, "sum"), |sum, device| sum.plus(of(device)));
        if let (Some(logged), Some(value), Some(low), Some(high)) = (logged, sum.get(), sum.low(), sum.high()) {
            measured.push((component, (logged, value.as_mib(), low.as_mib(), high.as_mib(), 1)));
        }
    };
    let (projected, loaded, peak) = (figure("fit_projected_MiB"), figure("meas_loaded_MiB"), figure("meas_peak_MiB"));
    add(Component::Driver, loaded.zip(projected).map(|(loaded, projected)| loaded - projected), |device| &device.runtime);
    add(Component::Scratch, peak.zip(loaded).map(|(peak, loaded)| peak - loaded), |device| &device.scratch);
    measured
}

/// Logged, predicted, and the ends of the prediction; how many buffers.
type Sums = (f64, f64, f64, f64, u32);
type Parts<'a> = Vec<(Component, &'static str, Place, Known<Bytes>)>;

fn parts(row: &Row, need: &Requirement, weights_known: bool) -> Vec<Scored> {
    let mut wanted: Parts<'_> = Vec::new();
    for (index, device) in need.devices.iter().enumerate() {
        let place = Place::Device(index);
        if weights_known {
            wanted.push((Component::Weights, "model_buf_MiB", place, device.weights.clone()));
        }
        wanted.push((Component::KvCache, "kv_buf_MiB", place, device.kv_cache.clone()));
        wanted.push((Component::State, "rs_buf_MiB", place, device.state.clone()));
        wanted.push((Component::Compute, "compute_buf_MiB", place, device.compute.clone()));
    }
    let host = &need.host;
    let weights = host.mapped_span.plus(&host.weights_anonymous).plus(&host.weights_repacked);
    if weights_known {
        wanted.push((Component::HostWeights, "model_buf_MiB", Place::Host, weights));
    }
    wanted.push((Component::KvCache, "kv_buf_MiB", Place::Host, host.kv_cache.clone()));
    wanted.push((Component::State, "rs_buf_MiB", Place::Host, host.state.clone()));
    wanted.push((Component::HostCompute, "compute_buf_MiB", Place::Host, host.compute.clone()));
    wanted.push((Component::Output, "output_buf_MiB", Place::Host, host.output.clone()));
    let mut sums: BTreeMap<Component, Sums> = BTreeMap::new();
    for (component, column, place, size) in wanted {
        let Some(logged) = row.buffers(column) else { continue };
        let all: f64 = logged.values().sum();
        // A log that was cut off tells of some places only.
        let whole_component = matches!(component, Component::KvCache | Component::State);
        let Some(logged) = logged.get(&place).copied().or_else(|| (whole_component && all > 0.0).then_some(0.0)) else { continue };
        let mib = |size: Option<Bytes>| size.map_or(f64::NAN, Bytes::as_mib);
        let sum = sums.entry(component).or_default();
        sum.0 += logged;
        sum.1 += mib(size.get());
        sum.2 += mib(size.low().copied());
        sum.3 += mib(size.high().copied());
        sum.4 += 1;
    }
    for (component, sum) in measured(row, need) {
        sums.insert(component, sum);
    }
    let precision = if row.get("extra").contains("rounded") { 0.51 } else { 0.011 };
    let scored = |(component, (logged, predicted, low, high, buffers)): (Component, Sums)| Scored {
        component,
        logged,
        predicted,
        buffers,
        precision,
        inside: low - 2.0 * precision <= logged && logged <= high + 2.0 * precision,
    };
    sums.into_iter().filter(|(_, sum)| sum.0 > 0.0 && sum.1.is_finite()).map(scored).collect()
}
