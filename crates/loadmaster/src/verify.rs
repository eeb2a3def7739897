//! VERIFY: the prediction against an engine's own dry run, buffer by buffer.

use crate::Error;
use crate::engine::{self, EngineError};
use crate::launch::Interrupts;
use crate::launch::bundled::BundledOptions;
use crate::receipt::SizeLine;
use footprint::{DeviceRequirement, EngineProfile, Outputs, Requirement, Target};
use planner::Tool;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spec::{Bytes, Known, Model, Settings};
use std::path::{Path, PathBuf};

/// The program of llama.cpp that prints its own dry run.
const FIT_PARAMS: &str = "llama-fit-params";

/// Whose dry run is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The bundled engine's, on pretended devices.
    Bundled,
    /// That of the `llama-fit-params` in this file or folder, on the devices that it finds.
    FitParams(PathBuf),
}

/// How prediction and engine compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// To the byte, or to the unit that the engine prints.
    Equal,
    /// The prediction is an estimate, and the engine lies in its interval.
    Within,
    /// Neither.
    Differs,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Buffer {
    /// The engine's name of the device, or `host`.
    pub place: String,
    /// `weights`, `context` (attention caches and recurrent state), `compute`, ...
    pub component: String,
    /// What was computed; null where it is not known.
    pub predicted_bytes: Option<u64>,
    /// Lower end of it; equal where it is exact.
    pub low_bytes: Option<u64>,
    /// Upper end of it.
    pub high_bytes: Option<u64>,
    /// What the engine says.
    pub engine_bytes: u64,
    /// In what unit the engine says it: 1, or 1048576 where it prints whole MiB, rounded down.
    pub unit_bytes: u64,
    /// How they compare.
    pub verdict: Match,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// The engine that answered.
    pub engine: String,
    /// The rules that the prediction followed.
    pub profile: String,
    /// The devices that both went by.
    pub target: Target,
    /// Every buffer.
    pub buffers: Vec<Buffer>,
}

impl Verification {
    /// True where no buffer differs.
    pub fn holds(&self) -> bool {
        self.buffers.iter().all(|buffer| buffer.verdict != Match::Differs)
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The model's first file.
    pub path: &'a Path,
    /// The model.
    pub model: &'a Model,
    /// The settings.
    pub settings: &'a Settings,
    /// What the bundled engine is to pretend, or the devices that the external one lists.
    pub target: &'a Target,
}

/// Compares what loadmaster computes with what an engine's dry run reports. Nothing of the model's size is allocated.
///
/// # Errors
/// No such engine, settings that it refuses or has no flags for, or a dry run that fails.
pub fn verify(subject: Subject<'_>, reference: &Reference, interrupts: &Interrupts) -> Result<Verification, Error> {
    match reference {
        Reference::Bundled => bundled(subject, interrupts),
        Reference::FitParams(path) => external(subject, path),
    }
}

fn bundled(subject: Subject<'_>, interrupts: &Interrupts) -> Result<Verification, Error> {
    let Subject { path, model, settings, target, .. } = subject;
    let proof = crate::prove(path, model, settings, target, &BundledOptions::default(), interrupts)?;
    let of_place = |place: &crate::receipt::PlaceLine| {
        let name = place.name.clone();
        place.parts.iter().filter_map(move |part| exact(&name, part)).collect::<Vec<_>>()
    };
    Ok(Verification {
        buffers: proof.places.iter().flat_map(of_place).collect(),
        engine: proof.engine,
        profile: crate::advise::bundled_rules().profile.name,
        target: crate::prove::pretend(target),
    })
}

/// A line of a proof. What neither side knows of is no buffer.
fn exact(place: &str, line: &SizeLine) -> Option<Buffer> {
    let engine = line.reported?;
    let planned = line.planned.as_ref();
    if engine == 0 && planned.is_some_and(|planned| planned.high == 0) {
        return None;
    }
    let known = match planned {
        Some(p) => Known::estimated(Bytes::new(p.value), Bytes::new(p.low), Bytes::new(p.high), p.source.clone()),
        None => Known::unknown("not known"),
    };
    Some(buffer(place, &line.component, &known, engine, 1))
}

fn buffer(place: &str, component: &str, predicted: &Known<Bytes>, engine: u64, unit: u64) -> Buffer {
    let [value, low, high] = [predicted.get(), predicted.low().copied(), predicted.high().copied()].map(|bytes| bytes.map(Bytes::get));
    let whole = |bytes: Option<u64>| bytes.map(|bytes| bytes / unit * unit);
    let verdict = match (whole(value), whole(low), whole(high)) {
        (Some(value), ..) if value == engine => Match::Equal,
        (_, Some(low), Some(high)) if low != high && (low..=high).contains(&engine) => Match::Within,
        _ => Match::Differs,
    };
    Buffer {
        place: place.to_owned(),
        component: component.to_owned(),
        predicted_bytes: value,
        low_bytes: low,
        high_bytes: high,
        engine_bytes: engine,
        unit_bytes: unit,
        verdict,
    }
}

/// The program itself, where a folder is named.
pub fn fit_params(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(FIT_PARAMS) } else { path.to_owned() }
}

fn external(subject: Subject<'_>, path: &Path) -> Result<Verification, Error> {
    let path = engine::locate(Tool::Cli, Some(&fit_params(path)))?;
    let cache = crate::store::cache_dir();
    let found = engine::probe(&path, Tool::Cli, engine::PROBE_DEADLINE, cache.as_deref())?;
    let name = format!("{FIT_PARAMS} {}", found.version);
    if !found.flags.accepts("--fit-print") {
        let why = "it has no --fit-print".to_owned();
        return Err(EngineError::NotLlamaCpp { path, why }.into());
    }
    let target = subject.target.clone();
    let profile = EngineProfile { name: name.clone(), outputs: Outputs::PerBatch, prompt_cache: false, ..found.profile() };
    let expected = footprint::dry_run(subject.model, subject.settings, &target, &profile).map_err(Error::Settings)?;

    let rules = found.rules();
    let arguments = planner::emit::arguments(subject.settings, &rules)
        .map_err(|setting| EngineError::Inexpressible { path: path.clone(), setting: setting.to_owned() })?;
    let mut words = vec!["--model".to_owned(), subject.path.to_string_lossy().into_owned()];
    words.extend(arguments);
    words.extend(["--fit", "off", "--fit-print", "on"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = engine::ask_dry_run(&path, &words)?;
    let printed = printed(&said);
    if printed.is_empty() {
        let why = format!("--fit-print printed no sizes: {:?}", said.lines().last().unwrap_or_default());
        return Err(EngineError::NotLlamaCpp { path, why }.into());
    }
    Ok(Verification { buffers: compare(&expected, &printed), engine: name, profile: profile.name, target })
}

const MIB: u64 = 1 << 20;

/// Lines `DEVICE MODEL CONTEXT COMPUTE` in whole MiB; the last is `Host` (`common/fit.cpp:1088-1113`).
fn printed(text: &str) -> Vec<(String, [u64; 3])> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let sizes: Vec<u64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        Some((name, sizes.try_into().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn compare(expected: &Requirement, printed: &[(String, [u64; 3])]) -> Vec<Buffer> {
    let mut buffers = Vec::new();
    for (name, sizes) in printed {
        let joined = |device: &DeviceRequirement| expected.sliced && name.starts_with("Meta(") && device.name.starts_with("Meta(");
        let device = expected.devices.iter().find(|device| device.name == *name || joined(device));
        let predicted = match device {
            Some(device) => [device.weights.clone(), device.kv_cache.plus(&device.state), device.compute.clone()],
            None if name == "Host" => {
                let host = &expected.host;
                // Repacked weights lie in a buffer that is no host buffer to the program, which leaves it out.
                let weights = host.weights_mapped.plus(&host.weights_anonymous);
                [weights, host.kv_cache.plus(&host.state), host.compute.clone()]
            }
            None => [(); 3].map(|()| Known::unknown("this device was not listed")),
        };
        let place = if name == "Host" { "host" } else { name };
        for ((component, predicted), size) in ["weights", "context", "compute"].into_iter().zip(&predicted).zip(sizes) {
            if predicted.high() != Some(&Bytes::ZERO) || *size > 0 {
                buffers.push(buffer(place, component, predicted, size.saturating_mul(MIB), MIB));
            }
        }
    }
    buffers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_between_what_else_a_program_says() {
        let text = "0.00.018.000 I llama_fit_params: printing estimated memory in MiB to stdout (device, model, context, compute) ...\n\
                    CUDA0 1024 896 158 \nHost 167 0 16 \n";
        assert_eq!(printed(text), [("CUDA0".to_owned(), [1024, 896, 158]), ("Host".to_owned(), [167, 0, 16])]);
        assert_eq!(printed("error: no such file\nHost 1 2\n"), []);
    }

    #[test]
    fn equal_within_and_different() {
        let exact = Known::exact(Bytes::new(3 * MIB + 5), "test");
        let about = Known::estimated(Bytes::new(100), Bytes::new(90), Bytes::new(120), "test");
        let verdict = |known: &Known<Bytes>, engine, unit| buffer("host", "compute", known, engine, unit).verdict;
        assert_eq!(verdict(&exact, 3 * MIB + 5, 1), Match::Equal);
        assert_eq!(verdict(&exact, 3 * MIB, 1), Match::Differs);
        assert_eq!(verdict(&exact, 3 * MIB, MIB), Match::Equal, "the engine rounds down");
        assert_eq!(verdict(&about, 119, 1), Match::Within);
        assert_eq!(verdict(&about, 121, 1), Match::Differs);
        assert_eq!(verdict(&Known::unknown("test"), 121, 1), Match::Differs);
    }
}
