//! Machines and models for tests: described machines, headers of files with exact shapes and no weights.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]

use footprint::Target;
use planner::plan::{NearestChange, Request};
use planner::{GpuSupport, NoPlan, Plan, plan, target};
use spec::{Machine, Model};
use std::fmt::Write as _;

pub fn machine(text: &str) -> Machine {
    probe::describe(text).unwrap()
}

pub fn model(name: &str, file_type: &str) -> Model {
    model_of(&synthetic::preset(name).unwrap(), file_type)
}

pub fn model_of(shape: &synthetic::Shape, file_type: &str) -> Model {
    // A table of tokens changes nothing that is planned but the host program's own memory, and takes most of the time.
    let options = synthetic::Options { vocabulary: synthetic::Vocabulary::None, ..synthetic::Options::default() };
    let file = synthetic::gguf(shape, file_type.parse().unwrap(), &options).unwrap();
    let gguf = formats::gguf::read(&file.header, file.size).unwrap();
    formats::describe(&[gguf]).unwrap()
}

pub fn native(machine: &Machine) -> Target {
    target(machine, &GpuSupport::Native)
}

pub fn planned(machine: &str, model: &Model, request: &Request) -> Result<Plan, Box<NoPlan>> {
    let machine = self::machine(machine);
    plan(&machine, model, &native(&machine), request)
}

/// A request of 2048 tokens in and 256 out under a plan, in seconds.
pub fn seconds(plan: &Plan) -> f64 {
    2048.0 / plan.prediction.prefill.get().unwrap().get() + 256.0 / plan.prediction.decode.get().unwrap().get()
}

/// A plan as text that one can read aloud.
pub fn text(result: &Result<Plan, Box<NoPlan>>) -> String {
    let mut out = String::new();
    match result {
        Ok(plan) => plan_text(plan, &mut out),
        Err(refusal) => refusal_text(refusal, &mut out),
    }
    out
}

fn plan_text(plan: &Plan, out: &mut String) {
    writeln!(out, "{}, {}; binding: {}", plan.verdict, plan.strategy, plan.binding).unwrap();
    plan.verdict.downgrades().iter().for_each(|step| writeln!(out, "  - {step}").unwrap());
    for choice in plan.choices.iter().filter(|choice| choice.origin != planner::plan::Origin::EngineDefault) {
        writeln!(out, "{:16} {:10} {}: {}", choice.setting, choice.value, choice.origin, choice.because).unwrap();
    }
    writeln!(out, "decode {} ({})", plan.prediction.decode, plan.prediction.decode_bottleneck).unwrap();
    writeln!(out, "prefill {} ({})", plan.prediction.prefill, plan.prediction.prefill_bottleneck).unwrap();
    plan.budgets.iter().for_each(|budget| {
        let limit = budget.limit.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
        writeln!(out, "{}: {} of {limit}, mapped {}", budget.pool, budget.needed, budget.mapped).unwrap();
    });
    plan.reasons.iter().for_each(|reason| writeln!(out, "because {reason}").unwrap());
    plan.gate.iter().for_each(|gate| writeln!(out, "gate: {gate}").unwrap());
    plan.changes.iter().for_each(|change| writeln!(out, "change: {}: {}", change.what, change.then).unwrap());
    plan.warnings.iter().for_each(|warning| writeln!(out, "warning: {warning}").unwrap());
    plan.prediction.assumptions.iter().for_each(|assumption| writeln!(out, "assumed: {assumption}").unwrap());
}

fn refusal_text(refusal: &NoPlan, out: &mut String) {
    writeln!(out, "refused").unwrap();
    refusal.tried.iter().for_each(|tried| writeln!(out, "  tried {}: {}", tried.what, tried.rejection).unwrap());
    refusal.nearest.iter().for_each(|change: &NearestChange| writeln!(out, "  nearest: {change}").unwrap());
    writeln!(out, "  pins: {:?}", refusal.pins).unwrap();
}
