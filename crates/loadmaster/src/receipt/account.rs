//! From an advice and its outcome to a receipt.

use super::place::{Place, place};
use super::{
    Disagreement, DisagreementKind, EngineLine, MachineLine, ModelLine, NEGLIGIBLE, PROCESS_TOLERANCE, PlaceLine, Planned, ProcessLine,
    Receipt, SCHEMA_VERSION, SizeLine, SpeedLine, TOLERANCE,
};
use crate::advise::Advice;
use crate::launch::{Outcome, ReportedBuffer, Timing};
use crate::runs;
use footprint::{Component, DeviceRequirement, HostRequirement, Part, Requirement};
use planner::Tool;
use planner::plan::{Budget, Pool};
use planner::predict::{Forecast, Question, forecast};
use planner::workload::Workload;
use roofline::Parameters;
use spec::{Bytes, Known, TokensPerSec};

/// The account of a launch; where a device of the plan was missing or went away, against the same settings with all layers on the CPU.
pub fn receipt(advice: &Advice, outcome: &Outcome) -> Receipt {
    let as_run = advice.as_run(outcome);
    let advice = &*as_run;
    let plan = advice.plan.plan();
    let places = places(advice, outcome);
    let process = process(&plan.requirement, outcome, advice.engine.rules.tool);
    let disagreements = disagreements(&places, &process);
    Receipt {
        schema_version: SCHEMA_VERSION,
        loadmaster: env!("CARGO_PKG_VERSION").to_owned(),
        model: model(advice),
        engine: engine(advice, outcome),
        machine: machine(advice),
        verdict: plan.verdict.to_string(),
        settings: plan.choices.iter().map(|choice| (choice.setting.to_owned(), choice.value.clone())).collect(),
        places,
        process,
        load_ms: outcome.load.map(|time| time.as_secs_f64() * 1e3),
        prefill: speed(advice, &prefill(advice, &outcome.prefill), &outcome.prefill, runs::FEWEST[1]),
        decode: speed(advice, &decode(advice, &outcome.decode), &outcome.decode, runs::FEWEST[0]),
        disagreements,
        notes: outcome.notes.clone(),
    }
}

fn model(advice: &Advice) -> ModelLine {
    ModelLine {
        path: advice.path.to_string_lossy().into_owned(),
        name: advice.model.name.clone(),
        architecture: advice.model.architecture.clone(),
        file_type: advice.model.file_type.clone(),
        tensor_bytes: advice.model.tensor_bytes().get(),
    }
}

fn engine(advice: &Advice, outcome: &Outcome) -> EngineLine {
    let external = advice.engine.external.as_ref();
    EngineLine {
        name: outcome.engine.clone(),
        path: external.map(|engine| engine.path.to_string_lossy().into_owned()),
        sha256: external.map(|engine| engine.hash.clone()),
        profile: advice.engine.rules.profile.name.clone(),
    }
}

fn machine(advice: &Advice) -> MachineLine {
    let machine = &advice.machine;
    MachineLine {
        origin: machine.origin.clone(),
        platform: format!("{} {}", machine.facts.platform.os, machine.facts.platform.arch),
        cpu: machine.facts.cpu.model.value().cloned(),
        effective_cpus: machine.effective_cpus(),
        memory_total: machine.effective_memory_total().get().map(Bytes::get),
        memory_available: machine.effective_memory_available().get().map(Bytes::get),
        gpus: advice.target.devices.iter().map(|device| device.name.clone()).collect(),
    }
}

/// What an engine reports under the same names for another model that drafts.
struct Drafts<'a>(&'a [Part]);

impl Drafts<'_> {
    fn of(&self, component: Component) -> Option<&Known<Bytes>> {
        self.0.iter().find(|part| part.component == component).map(|part| &part.load)
    }
    /// Weights and caches of both add up.
    fn added(&self, own: Known<Bytes>, component: Component) -> Known<Bytes> {
        self.of(component).map_or_else(|| own.clone(), |draft| own.plus(draft))
    }
    /// Of what is made anew, the engine's last word counts, whichever model it is about.
    fn either(&self, own: &Known<Bytes>, component: Component) -> Known<Bytes> {
        let Some(draft) = self.of(component) else { return own.clone() };
        let sum = own.plus(draft);
        match (own.get(), own.low(), draft.low(), sum.high()) {
            (Some(value), Some(&own), Some(&draft), Some(&high)) => {
                Known::estimated(value, own.min(draft), high, "of the model, of the draft, or of both")
            }
            _ => sum,
        }
    }
}

/// Parts of a device, in the order of a receipt.
fn device_parts(device: &DeviceRequirement) -> [(&'static str, Known<Bytes>); 3] {
    let drafts = Drafts(&device.beside);
    [
        ("weights", drafts.added(device.weights.clone(), Component::DraftWeights)),
        ("context", drafts.added(device.kv_cache.plus(&device.state), Component::DraftCache)),
        ("compute", drafts.either(&device.compute, Component::DraftCompute)),
    ]
}

/// Parts of the host, in the order of a receipt.
fn host_parts(host: &HostRequirement, mapped: Known<Bytes>) -> [(&'static str, Known<Bytes>); 6] {
    let drafts = Drafts(&host.beside);
    // Beside mapped weights, what a draft has in anonymous memory is repacked.
    let repacked = host.weights_anonymous.high() == Some(&Bytes::ZERO);
    let copies = |own: &Known<Bytes>, is_here: bool| match is_here {
        true => drafts.added(own.clone(), Component::DraftWeights),
        false => own.clone(),
    };
    [
        ("weights_mapped", drafts.added(mapped, Component::DraftMapped)),
        ("weights", copies(&host.weights_anonymous, !repacked)),
        ("weights_repacked", copies(&host.weights_repacked, repacked)),
        ("context", drafts.added(host.kv_cache.plus(&host.state), Component::DraftCache)),
        ("compute", drafts.either(&host.compute, Component::DraftCompute)),
        ("output", drafts.either(&host.output, Component::DraftOutput)),
    ]
}

fn places(advice: &Advice, outcome: &Outcome) -> Vec<PlaceLine> {
    let plan = advice.plan.plan();
    let limit = |index: Option<usize>| {
        let is = |budget: &&Budget| match &budget.pool {
            Pool::Device { index: of, .. } => Some(*of) == index,
            Pool::Host => index.is_none(),
            Pool::AllDevices => false,
        };
        plan.budgets.iter().find(is).and_then(|budget| budget.limit).map(Bytes::get)
    };
    compare(&plan.requirement, super::mapped::reported_as(advice), &outcome.buffers, &limit)
}

/// Every place's parts, planned and reported. `limit` is what the plan allowed itself on a device, or on the host.
pub(super) fn compare(
    requirement: &Requirement,
    mapped: Known<Bytes>,
    buffers: &[ReportedBuffer],
    limit: &dyn Fn(Option<usize>) -> Option<u64>,
) -> Vec<PlaceLine> {
    let names: Vec<String> = requirement.devices.iter().map(|device| device.name.clone()).collect();
    let devices = requirement.devices.iter().enumerate().map(|(index, device)| {
        let reported = Reported::at(Place::Device(index), buffers, &names);
        place_line(&device.name, &device_parts(device), &reported, limit(Some(index)))
    });
    let reported = Reported::at(Place::Host, buffers, &names);
    let host = place_line("host", &host_parts(&requirement.host, mapped), &reported, limit(None));
    devices.chain(std::iter::once(host)).collect()
}

/// What an engine reports at one place; `None` where it reports nothing at all.
struct Reported<'a>(Option<Vec<(&'static str, &'a ReportedBuffer)>>);

impl<'a> Reported<'a> {
    fn at(at: Place, buffers: &'a [ReportedBuffer], names: &[String]) -> Self {
        let here = buffers.iter().filter_map(|buffer| {
            let (place, part) = place(buffer, names);
            (place == at).then_some((part, buffer))
        });
        Self((!buffers.is_empty()).then(|| here.collect()))
    }

    fn part(&self, part: &str) -> Option<u64> {
        let sizes = self.0.as_ref()?.iter().filter(|(name, _)| *name == part).map(|(_, buffer)| buffer.size);
        Some(sizes.sum::<Bytes>().get())
    }
}

fn place_line(name: &str, parts: &[(&'static str, Known<Bytes>)], reported: &Reported<'_>, limit: Option<u64>) -> PlaceLine {
    let lines: Vec<SizeLine> = parts.iter().map(|(part, planned)| size_line(part, planned, reported.part(part))).collect();
    let planned = parts.iter().map(|(_, planned)| planned.clone()).reduce(|a, b| a.plus(&b)).unwrap_or_else(|| Known::unknown("no parts"));
    let sum = lines.iter().map(|line| line.reported).sum::<Option<u64>>();
    PlaceLine { name: name.to_owned(), parts: lines, total: size_line("total", &planned, sum), limit }
}

fn size_line(component: &str, planned: &Known<Bytes>, reported: Option<u64>) -> SizeLine {
    let relative_error = match (planned.get(), reported) {
        (Some(planned), Some(reported)) if !planned.is_zero() => Some(reported as f64 / planned.as_f64() - 1.0),
        _ => None,
    };
    let planned = match (planned.low(), planned.get(), planned.high()) {
        (Some(low), Some(value), Some(high)) => {
            Some(Planned { low: low.get(), value: value.get(), high: high.get(), source: planned.source().to_string() })
        }
        _ => None,
    };
    SizeLine { component: component.to_owned(), planned, reported, relative_error }
}

fn process(requirement: &Requirement, outcome: &Outcome, tool: Tool) -> ProcessLine {
    let (host, memory) = (&requirement.host, outcome.memory);
    let share = outcome.prefill.tokens as f64 / f64::from(requirement.context.n_ubatch.max(1));
    ProcessLine {
        anonymous_at_load: size_line("anonymous_at_load", &host.anonymous_at_load(), outcome.memory_at_load.anonymous.map(Bytes::get)),
        anonymous: size_line("anonymous", &host.anonymous_in_use(share), memory.anonymous_peak.map(Bytes::get)),
        mapped: size_line("mapped", &host.mapped_touched.plus(&program_pages(tool)), memory.mapped.map(Bytes::get)),
        peak: memory.peak.map(Bytes::get),
    }
}

/// Code and libraries of the engine's process that are mapped files.
fn program_pages(tool: Tool) -> Known<Bytes> {
    if tool == Tool::BitNet {
        // This very program is there already: what counts is code that was not used before.
        return Known::estimated(Bytes::from_mib(4), Bytes::ZERO, Bytes::from_mib(8), "code of this program that planning did not touch");
    }
    Known::estimated(
        Bytes::from_mib(11),
        Bytes::from_mib(8),
        Bytes::from_mib(15),
        "mapped pages of loads of six models, less their weights",
    )
}

/// The speed of reading prompts of the length that was read, behind as many tokens; the plan's own where that is not known.
fn prefill(advice: &Advice, measured: &Timing) -> Known<TokensPerSec> {
    let (Some(depth), Some(length)) = (measured.depth(), measured.length()) else {
        return advice.plan.plan().prediction.prefill.clone();
    };
    // The first token of a piece stands half its length before the middle.
    let (past, length) = ((depth - (length - 1.0) / 2.0).round() as u32, (length.round() as u32).max(1));
    forecast_of(advice, Workload { prompt: past.saturating_add(length), output: 1, shared_prefix: past, users: 1 }).request.prefill
}

/// The speed of decode behind as many tokens as it was measured; the plan's own where that is not known.
fn decode(advice: &Advice, measured: &Timing) -> Known<TokensPerSec> {
    let Some(depth) = measured.depth() else { return advice.plan.plan().prediction.decode.clone() };
    forecast_of(advice, Workload { prompt: depth.round() as u32, output: 0, shared_prefix: 0, users: 1 }).prediction.decode
}

fn forecast_of(advice: &Advice, workload: Workload) -> Forecast {
    let plan = advice.plan.plan();
    let question =
        Question { workload, depths: Vec::new(), draft: None, margin: plan.request.preferences.margin, parameters: Parameters::fitted() };
    forecast(&advice.machine, &advice.model, &advice.target, &plan.settings, &plan.requirement, &question)
}

fn speed(advice: &Advice, predicted: &Known<TokensPerSec>, measured: &Timing, fewest: u64) -> SpeedLine {
    let both = predicted.get().zip(measured.rate()).filter(|_| runs::tells(measured, fewest));
    let rate = measured.rate().map(TokensPerSec::get);
    let [low, value, high] = [predicted.low(), predicted.value(), predicted.high()].map(|rate| rate.map(|rate| rate.get()));
    SpeedLine {
        low,
        predicted: value,
        high,
        source: predicted.source().to_string(),
        measured: rate,
        tokens: measured.tokens,
        depth: measured.depth(),
        relative_error: rate.zip(value).map(|(measured, predicted)| measured / predicted - 1.0),
        within: rate.zip(low.zip(high)).map(|(rate, (low, high))| (low..=high).contains(&rate)),
        anomaly: both.map_or_else(Vec::new, |(predicted, measured)| crate::anomaly::causes(advice, predicted, measured)),
    }
}

fn disagreements(places: &[PlaceLine], process: &ProcessLine) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for place in places {
        found.extend(over_plan(&place.name, &place.total, TOLERANCE));
        // Mapped weights are page cache: they do not count against the limit.
        let mapped = place.parts.iter().find(|part| part.component == "weights_mapped").and_then(|part| part.reported);
        if let (Some(limit), Some(total)) = (place.limit, place.total.reported)
            && let taken = total.saturating_sub(mapped.unwrap_or(0))
            && taken > limit
        {
            found.push(Disagreement { kind: DisagreementKind::OverLimit, place: place.name.clone(), allowed: limit, reported: taken });
        }
    }
    found.extend(over_plan("process", &process.anonymous, PROCESS_TOLERANCE));
    found
}

fn over_plan(place: &str, line: &SizeLine, tolerance: f64) -> Option<Disagreement> {
    let (planned, reported) = (line.planned.as_ref()?, line.reported?);
    let most = Bytes::new(planned.high).scale(1.0 + tolerance).get().saturating_add(NEGLIGIBLE);
    (reported > most).then(|| Disagreement { kind: DisagreementKind::OverPlan, place: place.to_owned(), allowed: planned.high, reported })
}
