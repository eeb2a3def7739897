//! What runs on this machine measured, kept from launch to launch, and the speed model that they make.
//!
//! A run counts where one processor did all of the work; it counts for the same machine, engine and type of model only, so that a new build
//! of the engine or another quantisation begins anew, and for models of similar size, as small ones are bound by launches.

use crate::advise::Advice;
use crate::error::WriteError;
use crate::launch::{Outcome, Timing};
use crate::store;
use planner::Tool;
use planner::predict::{Alone, alone};
use roofline::{Calibration, Case, Class, Conditions, Device, Noise, OWN_KERNELS, Observation, Parameters, Quant, Shape, Switch, Work};
use serde::{Deserialize, Serialize};
use spec::Machine;
use std::path::{Path, PathBuf};

/// Runs that are kept.
const KEPT: usize = 500;

/// Fewer tokens than these tell more of the start than of the speed: of decode, and of prefill.
pub(crate) const FEWEST: [u64; 2] = [16, 32];

/// Whether what was measured is long enough, in all and on average, to tell a speed.
pub(crate) fn tells(timing: &Timing, fewest: u64) -> bool {
    timing.tokens >= fewest && timing.length().is_none_or(|length| length >= fewest as f64)
}

/// A model so many times as large or as small is bound by something else.
const ALIKE: f64 = 6.0;

/// A run that the speed model cannot follow this far, as a logarithm, was disturbed, and says nothing of the machine.
const EXPLAINED: f64 = 0.5;

/// So far off the speed model as it was fitted, as a logarithm, no measured device was; see SPEED.md for those that come near.
const DISTURBED: f64 = 2.3;

/// How far the same run differs from itself on one day and the next, as a logarithm; and another model of the type from this one.
const SAME_MODEL: f64 = 0.05;
const OTHER_MODEL: f64 = 0.1;

/// The file of this user's runs: `$XDG_DATA_HOME/loadmaster/runs.jsonl` or what the system uses in its place. `None` where the system
/// names no home folder.
pub fn file() -> Option<PathBuf> {
    Some(store::data_dir()?.join("runs.jsonl"))
}

/// What must be equal for a run to tell of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    machine: String,
    engine: String,
    architecture: String,
    file_type: Option<String>,
}

/// One run as a line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    key: Key,
    /// The numbers of the model, and how it is stored.
    shape: [f64; 11],
    experts: Option<(f64, f64)>,
    quant: String,
    /// The processor, its vector rate at work in decode and in prefill.
    class: String,
    generation: Option<String>,
    bandwidth: f64,
    vector: [Option<f64>; 2],
    matrix: f64,
    #[serde(default)]
    watts: Option<f64>,
    identity: String,
    backend: Option<String>,
    os: Option<String>,
    flash_attention: bool,
    ubatch: f64,
    /// Tokens before an answer, and before what was computed of its prompt.
    depth: f64,
    #[serde(default)]
    prompt_depth: f64,
    /// Tokens of one prompt or answer, and tokens per second; none where there were too few.
    prefill: Option<(f64, f64)>,
    decode: Option<(f64, f64)>,
}

/// The machine by what a speed depends on, without names of hosts.
fn machine_key(machine: &Machine) -> String {
    let cpu = machine.facts.cpu.model.value().map_or("", String::as_str);
    let gpus: Vec<&str> = machine.usable_gpus().map(|(_, gpu, _)| gpu.name.value().map_or("GPU", String::as_str)).collect();
    let platform = &machine.facts.platform;
    format!("{} {} {cpu} {} {}", platform.os, platform.arch, machine.effective_cpus(), gpus.join(","))
}

fn key(advice: &Advice) -> Key {
    let external = advice.engine.external.as_ref().map(|engine| engine.hash.as_str());
    let version = advice.engine.rules.version.as_deref().unwrap_or("");
    Key {
        machine: machine_key(&advice.machine),
        engine: format!("{} {version} {}", advice.engine.rules.tool, external.unwrap_or("")),
        architecture: advice.model.architecture.clone(),
        file_type: advice.model.file_type.clone(),
    }
}

fn alone_of(advice: &Advice) -> Option<Alone> {
    let plan = advice.plan.plan();
    alone(&advice.machine, &advice.model, &advice.target, &plan.settings, &plan.requirement)
}

impl Run {
    /// None where nothing tells a speed of this plan: too few tokens, or a device that went away.
    fn of(advice: &Advice, outcome: &Outcome) -> Option<Self> {
        if outcome.without_device {
            return None;
        }
        let Alone { decode, prefill, shape, conditions, ubatch } = alone_of(advice)?;
        let length = |timing: &Timing| timing.length().unwrap_or(timing.tokens as f64);
        let timed = |timing: &Timing, fewest: u64| {
            let rate = timing.rate()?.get();
            tells(timing, fewest).then_some((length(timing), rate))
        };
        let (read, written) = (timed(&outcome.prefill, FEWEST[1]), timed(&outcome.decode, FEWEST[0]));
        // From tokens before each, on average, to those before the first.
        let before = |timing: &Timing| Some((timing.depth()? - (length(timing) - 1.0) / 2.0).max(0.0));
        if read.is_none() && written.is_none() {
            return None;
        }
        Some(Self {
            key: key(advice),
            shape: [
                shape.active_bytes,
                shape.all_bytes,
                shape.active_elements,
                shape.output_elements,
                shape.layers,
                shape.width,
                shape.cache_bytes,
                shape.full_layers,
                shape.window_layers,
                shape.window,
                shape.query_width,
            ],
            experts: shape.experts,
            quant: shape.quant.as_str().to_owned(),
            class: decode.class.as_str().to_owned(),
            generation: decode.generation,
            bandwidth: decode.bandwidth,
            vector: [decode.vector, prefill.vector],
            matrix: decode.matrix,
            watts: decode.watts,
            identity: decode.identity?,
            backend: conditions.backend,
            os: conditions.os,
            flash_attention: conditions.flash_attention == Switch::On,
            ubatch,
            depth: before(&outcome.decode).unwrap_or(outcome.prefill.tokens as f64),
            prompt_depth: before(&outcome.prefill).unwrap_or(0.0),
            prefill: read,
            decode: written,
        })
    }

    fn shape(&self) -> Option<Shape> {
        let all = [Quant::Float, Quant::Q8, Quant::Q6, Quant::Q4K, Quant::Q3K, Quant::Q4, Quant::Iq, Quant::Mx];
        let quant = all.into_iter().find(|quant| quant.as_str() == self.quant)?;
        let &[active_bytes, all_bytes, active_elements, output_elements, layers, width, cache_bytes, full, windowed, window, query] =
            &self.shape;
        Some(Shape {
            active_bytes,
            all_bytes,
            active_elements,
            output_elements,
            quant,
            layers,
            width,
            cache_bytes,
            full_layers: full,
            window_layers: windowed,
            window,
            query_width: query,
            experts: self.experts,
        })
    }

    fn device(&self, vector: Option<f64>) -> Option<Device> {
        Some(Device {
            class: Class::ALL.into_iter().find(|class| class.as_str() == self.class)?,
            generation: self.generation.clone(),
            bandwidth: self.bandwidth,
            vector,
            matrix: self.matrix,
            watts: self.watts,
            identity: Some(self.identity.clone()),
        })
    }

    /// What was measured, for the update of the speed model; `size` is that of the model that is predicted.
    fn observations(&self, size: f64) -> Vec<Observation> {
        let Some(shape) = self.shape() else { return Vec::new() };
        let own_kernels = self.key.engine.starts_with(&Tool::BitNet.to_string());
        let engine = if own_kernels { OWN_KERNELS } else { "llama-bench" };
        let usual = Conditions { era: Some("late".to_owned()), engine: Some(engine.to_owned()), ..Conditions::default() };
        let flash_attention = if self.flash_attention { Switch::On } else { Switch::Off };
        let conditions = Conditions { backend: self.backend.clone(), os: self.os.clone(), flash_attention, ..usual };
        let deviation = if (shape.active_bytes / size - 1.0).abs() < 0.01 { SAME_MODEL } else { OTHER_MODEL };
        let noise = Noise { deviation, weight: 1.0 };
        let mut all = Vec::new();
        let work = |depth: f64, tokens: f64| Work { shape: shape.clone(), depth, tokens, ubatch: self.ubatch };
        if let (Some((tokens, rate)), Some(device)) = (self.decode, self.device(self.vector[0])) {
            let sum = roofline::decode(&device, &work(self.depth, tokens), &conditions);
            all.push(Observation { cases: vec![Case { sum, tokens: 1.0 }], rate, noise });
        }
        if let (Some((tokens, rate)), Some(device)) = (self.prefill, self.device(self.vector[1])) {
            let sum = roofline::prefill(&device, &work(self.prompt_depth, tokens), &conditions);
            all.push(Observation { cases: vec![Case { sum, tokens }], rate, noise });
        }
        all.retain(|one| one.rate.is_finite() && one.rate > 0.0 && one.cases.iter().all(|case| case.tokens > 0.0));
        all
    }
}

/// Runs of a file, oldest first; lines that cannot be read are left out, as a file that does not exist is empty.
fn read(file: &Path) -> Vec<Run> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Adds a run to `file`. True where it was kept: processors that share the work, or too few tokens, tell nothing that could be used.
///
/// # Errors
/// The folder cannot be made, or the file not be written.
pub fn remember(file: &Path, advice: &Advice, outcome: &Outcome) -> Result<bool, WriteError> {
    let Some(run) = Run::of(advice, outcome) else { return Ok(false) };
    let mut runs = read(file);
    runs.push(run);
    let first = runs.len().saturating_sub(KEPT);
    // Plain fields, text keys and finite numbers: it cannot fail.
    let lines: Vec<String> = runs[first..].iter().filter_map(|run| serde_json::to_string(run).ok()).collect();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|source| WriteError { path: folder.to_owned(), source })?;
    }
    store::write_atomically(file, (lines.join("\n") + "\n").as_bytes())?;
    Ok(true)
}

/// The speed model with what the runs in `file` say about this machine, engine and type of model, and how many they are; as it was fitted
/// where they say nothing.
pub fn parameters(file: &Path, advice: &Advice) -> (Parameters, usize) {
    let fitted = Parameters::fitted();
    let Some(alone) = alone_of(advice) else { return (fitted.clone(), 0) };
    let identity = alone.decode.identity.unwrap_or_default();
    let key = key(advice);
    let alike = |run: &Run| (1.0 / ALIKE..ALIKE).contains(&(run.shape[0] / alone.shape.active_bytes));
    let runs: Vec<Run> = read(file).into_iter().filter(|run| run.key == key && run.identity == identity && alike(run)).collect();
    let observations: Vec<Observation> = runs.iter().flat_map(|run| run.observations(alone.shape.active_bytes)).collect();
    let learned = |observations: &[&Observation]| Calibration::from_runs(observations, fitted, &identity).apply(fitted);
    let all: Vec<&Observation> = observations.iter().collect();
    let first = learned(&all);
    let off = |one: &Observation, parameters: &Parameters| {
        let predicted = one.cases.iter().map(|case| case.tokens / case.sum.time(parameters)).sum::<f64>() / one.cases.len().max(1) as f64;
        (one.rate / predicted).ln().abs()
    };
    let explained = |one: &&Observation| off(one, &first) < EXPLAINED && off(one, fitted) < DISTURBED;
    let kept: Vec<&Observation> = all.into_iter().filter(explained).collect();
    if kept.is_empty() { (fitted.clone(), 0) } else { (learned(&kept), runs.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::{EngineChoice, Request, survey};
    use crate::machine::MachineSource;
    use planner::predict::{Basis, Forecast, Question, forecast};
    use planner::workload::Workload;
    use std::time::Duration;

    fn advice(folder: &Path, preset: &str, ty: synthetic::FileType, machine: &str) -> Advice {
        let path = folder.join(format!("{preset}.gguf"));
        let file = synthetic::gguf(&synthetic::preset(preset).unwrap(), ty, &synthetic::Options::default()).unwrap();
        std::fs::write(&path, &file.header).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(file.size.get()).unwrap();
        let request = Request { machine: MachineSource::Description(machine.into()), engine: EngineChoice::Bundled, ..Request::new(path) };
        survey(&request).unwrap().advise(&request.plan).unwrap()
    }

    fn told(advice: &Advice, parameters: &Parameters) -> Forecast {
        let plan = advice.plan.plan();
        let workload = Workload { prompt: 512, output: 64, shared_prefix: 0, users: 1 };
        let question = Question { workload, depths: vec![512], draft: None, margin: None, parameters };
        forecast(&advice.machine, &advice.model, &advice.target, &plan.settings, &plan.requirement, &question)
    }

    #[test]
    fn a_run_moves_predictions_of_its_kind_and_no_others() {
        const MACHINE: &str = "ram=32GiB,cores=4,bandwidth=50GB/s";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kept/runs.jsonl");
        let small = advice(folder.path(), "llama-3.2-1b", synthetic::FileType::Q4_K_M, MACHINE);
        let large = advice(folder.path(), "llama-3.2-3b", synthetic::FileType::Q4_K_M, MACHINE);
        let other = advice(folder.path(), "qwen3-0.6b", synthetic::FileType::Q4_K_M, MACHINE);
        let rate = |forecast: &Forecast| forecast.prediction.decode.get().unwrap().get();
        let (before, none) = (told(&small, Parameters::fitted()), parameters(&file, &small));
        assert_eq!(none, (Parameters::fitted().clone(), 0));
        assert_ne!(before.prediction.basis, Basis::Machine);

        // Half as fast as predicted.
        let seconds = 64.0 / (0.5 * rate(&before));
        let timing = |tokens, seconds: f64| Timing::somewhere(tokens, Duration::from_secs_f64(seconds));
        let prefill = before.prediction.prefill.get().unwrap().get();
        let outcome = Outcome { prefill: timing(512, 512.0 / (0.5 * prefill)), decode: timing(64, seconds), ..Outcome::default() };
        for _ in 0..3 {
            assert!(remember(&file, &small, &outcome).unwrap());
        }
        let (learned, runs) = parameters(&file, &small);
        assert_eq!(runs, 3);
        let after = told(&small, &learned);
        assert_eq!(after.prediction.basis, Basis::Machine);
        // Towards what was measured, and past it by no more than a seventh: the machine's level moves reluctantly where a bound has no level of
        // its own, and runs of both phases move what they share.
        let moved = rate(&after) / rate(&before);
        assert!((0.43..0.85).contains(&moved), "{moved}");
        let width = |forecast: &Forecast| {
            let decode = &forecast.prediction.decode;
            decode.high().unwrap().get() / decode.low().unwrap().get()
        };
        assert!(width(&after) < width(&before));
        // A larger model of the kind is moved too; another architecture is not, nor is another machine.
        let (of_large, _) = parameters(&file, &large);
        assert!(rate(&told(&large, &of_large)) < 0.9 * rate(&told(&large, Parameters::fitted())));
        assert_eq!(parameters(&file, &other).1, 0);
        let elsewhere = advice(folder.path(), "llama-3.2-1b", synthetic::FileType::Q4_K_M, "ram=32GiB,cores=8,bandwidth=50GB/s");
        assert_eq!(parameters(&file, &elsewhere).1, 0);
        // A broken line costs itself.
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{{\n{text}")).unwrap();
        assert_eq!(parameters(&file, &small).1, 3);
        // A run on a machine that does something else is no measure of it.
        let disturbed = folder.path().join("disturbed.jsonl");
        let slow = Outcome { prefill: timing(512, 512.0 / (0.02 * prefill)), decode: timing(64, seconds * 50.0), ..Outcome::default() };
        assert!(remember(&disturbed, &small, &slow).unwrap());
        assert_eq!(parameters(&disturbed, &small), (Parameters::fitted().clone(), 0));
        // Too few tokens tell nothing.
        assert!(!remember(&file, &small, &Outcome::default()).unwrap());
    }
}
