//! Plans that llama-server loaded on pretended GPUs (`tests/loads/cases.csv`, recorded by `scripts/show plans`): what it took of each
//! device is what is computed for the recorded arguments, and what is planned today is not slower than what was planned then, nor than
//! what `--fit` answered to the same budgets, by more than the margin for which a plan is changed.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads its recording, and without it has failed")]

#[path = "../../footprint/tests/recorded/model.rs"]
#[allow(dead_code, reason = "footprint's tests use all of it")]
mod recorded;

use footprint::{EngineProfile, Target};
use planner::emit::read_args;
use planner::{GpuSupport, ListedDevice, Request, plan, target};
use spec::settings::Pins;
use spec::{Bytes, Known, Machine, Model, Settings};
use std::collections::BTreeMap;
use std::path::Path;

/// A plan of then: what was asked, what was planned, what the engine took of each device, and what `--fit` answered.
#[derive(serde::Deserialize)]
struct Case {
    case: u32,
    model: String,
    /// Memory of each device in MiB, and what others hold of it.
    gpus: String,
    used: String,
    host_total: u64,
    host_free: u64,
    use_case: String,
    pins: String,
    args: String,
    /// Per device; empty for a dry run.
    took_mib: String,
    fit_asked: String,
    /// `gave up` where it did.
    fit_args: String,
}

/// What a plan may lose in time against the recorded ones: settings that win little may be left as the engine has them.
const SLACK: f64 = 1.05;

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loads/cases.csv");
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

impl Case {
    fn machine(&self) -> Machine {
        let mut machine = probe::describe("ram=1GiB,cores=2").unwrap();
        machine.facts.memory.total = Known::exact(Bytes::new(self.host_total), "recorded");
        machine.free.memory = Known::exact(Bytes::new(self.host_free), "recorded");
        machine
    }

    fn target(&self, machine: &Machine) -> Target {
        let numbers = |text: &str| -> Vec<u64> { text.split(',').map(|number| number.parse().unwrap()).collect() };
        let devices = numbers(&self.gpus).into_iter().zip(numbers(&self.used)).enumerate();
        let listed = devices.map(|(index, (mib, used))| ListedDevice {
            name: format!("FAKE{index}"),
            description: "pretended".into(),
            total: Known::exact(Bytes::from_mib(mib), "recorded"),
            free: Known::exact(Bytes::from_mib(mib.saturating_sub(used)), "recorded"),
        });
        target(machine, &GpuSupport::Listed(listed.collect()))
    }
}

fn pins(text: &str) -> Pins {
    let words: Vec<String> = text.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
    read_args(&words).unwrap().0
}

fn settings(pins: &Pins) -> Settings {
    let mut settings = Settings::default();
    pins.apply(&mut settings);
    settings
}

/// What the request's time is under just these settings, as plans weigh it; `None` where they pass a limit of the request.
fn seconds(machine: &Machine, model: &Model, place: &Target, request: &Request, settings: Settings) -> Option<f64> {
    let fixed = Request { pins: Pins::from(settings), ..request.clone() };
    plan(machine, model, place, &fixed).ok().map(|plan| plan.worth.seconds)
}

/// What is not as it was.
fn difference(case: &Case, model: &Model) -> Result<(), String> {
    let machine = case.machine();
    let place = case.target(&machine);
    let then = settings(&pins(&case.args));
    taken(case, model, &place, &then)?;
    let request =
        Request { use_case: case.use_case.parse()?, pins: pins(&case.pins), profile: EngineProfile::server_0_7(), ..Request::default() };
    plan(&machine, model, &place, &request).map_err(|refusal| format!("refused today: {refusal}"))?;
    // At the context and cache of then, so that only the placement differs.
    let (n_ctx, k, v) = (Some(then.n_ctx), Some(then.cache_type_k), Some(then.cache_type_v));
    let same = Request { pins: Pins { n_ctx, cache_type_k: k, cache_type_v: v, ..request.pins.clone() }, ..request };
    let now = plan(&machine, model, &place, &same).map_err(|refusal| format!("refused with the context of then: {refusal}"))?;
    let slack = SLACK + now.gate.as_ref().map_or(0.0, |gate| gate.margin);
    let now_seconds = now.worth.seconds;
    let mut others = vec![("then", then)];
    if case.fit_args != "gave up" && !case.fit_asked.is_empty() {
        others.push(("--fit", settings(&pins(&case.fit_args).or(pins(&case.fit_asked)))));
    }
    for (who, mut other) in others {
        (other.threads, other.threads_batch) = (2, 2);
        match seconds(&machine, model, &place, &same, other) {
            Some(other) if now_seconds > other * slack => return Err(format!("{now_seconds:.2} s, {who} {other:.2} s")),
            _ => {}
        }
    }
    Ok(())
}

/// What the engine took of each device is what is computed, to the two decimals of its three lines.
fn taken(case: &Case, model: &Model, place: &Target, settings: &Settings) -> Result<(), String> {
    let needs = footprint::require(model, settings, place, &EngineProfile::server_0_7()).map_err(|error| error.to_string())?;
    for (took, device) in case.took_mib.split(',').filter(|took| !took.is_empty()).zip(&needs.devices) {
        let (took, buffers) = (took.parse::<f64>().unwrap(), device.buffers().get().unwrap().as_f64() / 1024.0 / 1024.0);
        if (took - buffers).abs() > 0.03 {
            return Err(format!("{} took {took} MiB, computed {buffers:.2}", device.name));
        }
    }
    Ok(())
}

#[test]
fn recorded_loads_are_computed_and_todays_plans_are_no_worse() {
    let (mut models, mut wrong) = (BTreeMap::new(), Vec::new());
    let cases = cases();
    assert!(!cases.is_empty());
    for case in &cases {
        let model = models.entry(case.model.clone()).or_insert_with(|| recorded::model(&case.model));
        let difference = difference(case, model);
        if let Err(difference) = difference {
            wrong.push(format!(
                "case {}, {} on {} less {} for {}: {difference}",
                case.case, case.model, case.gpus, case.used, case.use_case
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
