//! What holds for every plan, whatever it is for.

use super::models::Entry;
use footprint::Target;
use planner::emit::{Program, read_args};
use planner::plan::{Budget, Pool};
use planner::{Context, EngineRules, GpuSupport, Plan, Request, Tool, Verdict, emit, plan, target, validate};
use spec::{Bytes, Machine, Model, Settings};
use std::fmt;

/// A question for a plan.
pub struct Case<'a> {
    pub number: usize,
    pub machine: Machine,
    /// The machine in words.
    pub words: String,
    /// The same machine with more memory.
    pub larger: Machine,
    pub model: &'a Entry,
    pub request: Request,
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { use_case, preferences, pins, profile, .. } = &self.request;
        let pinned: Vec<String> =
            pins.names().iter().map(|name| format!("{name}={}", planner::emit::flags::value_text(&with(pins), name))).collect();
        write!(
            f,
            "case {}: {} {} on {}; {use_case}, {preferences:?}, pinned {pinned:?}, {}",
            self.number,
            self.model.name,
            self.model.get().1,
            self.words,
            profile.name
        )
    }
}

fn with(pins: &spec::settings::Pins) -> Settings {
    let mut settings = Settings::default();
    pins.apply(&mut settings);
    settings
}

/// The plan for more memory beside the plan.
pub struct Grown {
    /// What the plans are ordered by, over that with less memory and the margin of the gate; 1 where they do not give up the same.
    pub slower: f64,
    /// What differs between the settings.
    pub between: String,
}

/// What a case came to, when no law is broken.
pub enum Outcome {
    Refused,
    /// `grown`: the plan for more memory, where there is one to compare with.
    Planned {
        grown: Option<Grown>,
    },
}

impl Case<'_> {
    /// The first law that is broken.
    pub fn check(&self) -> Result<Outcome, String> {
        let model = &self.model.get().0;
        let place = target(&self.machine, &GpuSupport::Native);
        let first = plan(&self.machine, model, &place, &self.request);
        let second = plan(&self.machine, model, &place, &self.request);
        if format!("{first:?}") != format!("{second:?}") {
            return Err("the same input gives other bytes".to_owned());
        }
        let plan = match first {
            Ok(plan) => plan,
            Err(refusal) if refusal.tried.is_empty() => return Err("a refusal without a reason".to_owned()),
            Err(_) => return Ok(Outcome::Refused),
        };
        self.within_limits(&plan, model, &place)?;
        self.keeps_pins(&plan)?;
        self.holds_to_fast_cores(&plan)?;
        let grown = self.grows(&plan, model)?;
        self.valid(plan, model, &place)?;
        Ok(Outcome::Planned { grown })
    }

    /// The requirement is what the plain computation says, and its upper end within every pool's limit.
    fn within_limits(&self, plan: &Plan, model: &Model, place: &Target) -> Result<(), String> {
        let place = plan.target(place);
        let plain = footprint::require_with(model, &plan.settings, &place, &self.request.profile, &self.request.companions)
            .map_err(|error| format!("the plan's settings have no requirement: {error}"))?;
        if plain != plan.requirement {
            return Err("the plan's requirement is not that of its settings".to_owned());
        }
        let pools = place.devices.iter().zip(&plain.devices).map(|(device, needs)| (device.free.clone(), needs.total()));
        let pools = pools.chain([(self.machine.effective_memory_available(), plain.held())]);
        if plan.budgets.len() != place.devices.len() + 1 {
            return Err(format!("{} budgets for {} devices and the host", plan.budgets.len(), place.devices.len()));
        }
        for (budget, (free, needs)) in plan.budgets.iter().zip(pools) {
            let limit = free.low().map(|free| free.saturating_sub(budget.margin));
            let needs = needs.high().copied().unwrap_or(Bytes::MAX);
            if budget.limit != limit || limit.is_some_and(|limit| needs > limit) || !budget.holds() {
                return Err(format!("{} needs {needs} of {limit:?} ({:?} in the plan)", budget.pool, budget.limit));
            }
        }
        let resident = plain.resident().high().copied().unwrap_or(Bytes::MAX);
        let host = plan.budgets.iter().find(|budget| budget.pool == Pool::Host).and_then(|budget: &Budget| budget.limit);
        if host.is_some_and(|limit| resident > limit) && !from_disk(plan) {
            return Err(format!("{resident} stay in memory of {host:?}, and the verdict does not say so"));
        }
        Ok(())
    }

    /// A mask that nobody asked for names fast cores that may be used, and enough of them.
    fn holds_to_fast_cores(&self, plan: &Plan) -> Result<(), String> {
        let (mask, machine) = (&plan.settings.cpu_mask, &self.machine);
        if mask.is_empty() || self.request.pins.cpu_mask.is_some() {
            return Ok(());
        }
        let allowed = machine.limits.allowed_cpus.value().ok_or("a mask, and nobody knows what may be used")?;
        let fastest = machine.facts.cpu.core_kinds.first().ok_or("a mask without kinds of core")?;
        let fit =
            mask.cpus().is_subset(allowed) && mask.cpus().is_subset(&fastest.cpus) && mask.cpus().len() >= plan.settings.threads as usize;
        if fit { Ok(()) } else { Err(format!("threads held to {}", mask.ranges())) }
    }

    fn keeps_pins(&self, plan: &Plan) -> Result<(), String> {
        let mut kept = plan.settings.clone();
        self.request.pins.apply(&mut kept);
        // `all` and a context of 0 become the model's own numbers.
        let pins = &self.request.pins;
        if pins.n_gpu_layers == Some(planner::emit::ALL) {
            kept.n_gpu_layers = plan.settings.n_gpu_layers;
        }
        if pins.n_cpu_moe == Some(planner::emit::ALL) {
            kept.n_cpu_moe = plan.settings.n_cpu_moe;
        }
        if pins.n_ctx == Some(0) {
            kept.n_ctx = plan.settings.n_ctx;
        }
        if kept == plan.settings { Ok(()) } else { Err(format!("a pin is not kept: {:?}", plan.settings)) }
    }

    /// What is planned is accepted, and the command that is emitted means the same settings.
    fn valid(&self, plan: Plan, model: &Model, place: &Target) -> Result<(), String> {
        let engine = EngineRules { tool: Tool::Server, profile: self.request.profile.clone(), ..EngineRules::bundled() };
        let context = Context { machine: &self.machine, model, target: place, engine: &engine };
        let settings = plan.settings.clone();
        let valid = match validate(plan, &context) {
            Ok(valid) => valid,
            // What the user has fixed is kept, though the engine refuses it; nothing else may be wrong.
            Err(report) if report.errors().all(|error| self.request.pins.names().contains(&error.setting)) => return Ok(()),
            Err(report) => return Err(format!("not valid: {}", report.errors().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
        };
        let program = Program { path: "llama-server".into(), model: "m.gguf".into(), listen: None, extra: Vec::new() };
        let args: Vec<String> = emit(&valid, &program).args.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        let (pins, _) = read_args(&args)?;
        if with(&pins) == settings { Ok(()) } else { Err(format!("read back as {:?} instead of {settings:?}", with(&pins))) }
    }

    /// More memory never makes it worse; by how much it is slower, if it is.
    fn grows(&self, before: &Plan, model: &Model) -> Result<Option<Grown>, String> {
        if self.larger == self.machine {
            return Ok(None);
        }
        let place = target(&self.larger, &GpuSupport::Native);
        let after = plan(&self.larger, model, &place, &self.request).map_err(|refusal| format!("refused with more memory: {refusal}"))?;
        // What a step down buys with more memory is speed: all layers on a device, with a coarser cache.
        let bought = after.worth.behind <= before.worth.behind && after.worth.seconds <= before.worth.seconds;
        if before.verdict == Verdict::Fits && after.verdict != Verdict::Fits && !bought {
            let (given_up, seconds) = (after.verdict.downgrades(), (before.worth.seconds, after.worth.seconds));
            return Err(format!("worse with more memory: {given_up:?}, {seconds:?} s, {}", between(before, &after)));
        }
        if from_disk(&after) && !from_disk(before) {
            return Err("read from disk with more memory".to_owned());
        }
        let given_up = |plan: &Plan| plan.verdict.downgrades().iter().map(|step| (step.setting, step.to.clone())).collect::<Vec<_>>();
        let speed = |setting: &str| ["ttft", "min_tps"].contains(&setting);
        let but_speed = |plan: &Plan| given_up(plan).into_iter().filter(|(setting, _)| !speed(setting)).collect::<Vec<_>>();
        let (now, then) = (after.worth, before.worth);
        let slower = match but_speed(before) == but_speed(&after) {
            true if now.behind.max(then.behind) > 1.0 => now.behind / then.behind,
            true => now.seconds / then.seconds,
            false => 1.0,
        };
        // The engine's own choice is kept unless a plan is better by the gate's margin, and a plan with more memory may just miss that.
        let margin = after.gate.as_ref().filter(|gate| gate.places()).map_or(0.0, |gate| gate.margin);
        let slower = slower / (1.0 + margin);
        Ok(Some(Grown { slower, between: between(before, &after) }))
    }
}

/// The settings that differ, and whether either plan is the engine's own.
fn between(before: &Plan, after: &Plan) -> String {
    let value = |settings: &Settings, name: &str| planner::emit::flags::value_text(settings, name);
    let differing = planner::emit::flags::flags().iter().map(|flag| flag.setting).filter_map(|name| {
        let (a, b) = (value(&before.settings, name), value(&after.settings, name));
        (a != b).then(|| format!("{name} {a} -> {b}"))
    });
    let kept = |plan: &Plan| plan.gate.as_ref().is_some_and(planner::plan::Gate::kept);
    let gates = format!("engine's own: {} -> {}", kept(before), kept(after));
    differing.chain([gates]).collect::<Vec<_>>().join(", ")
}

fn from_disk(plan: &Plan) -> bool {
    plan.verdict.downgrades().iter().any(|step| step.setting == "residency")
}
