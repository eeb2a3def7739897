//! Profiles out of the planner: every size of model on every archetype.

use super::archetype::Archetype;
use super::class::{CLASSES, SizeClass};
use super::entry::{Entry, Fit, Recommended, arguments};
use crate::advise::newest_server;
use footprint::{Companions, Device, Requirements, Target};
use planner::emit::read_args;
use planner::plan::{Downgrade, NearestChange, Plan, Pool};
use planner::{Context, GpuSupport, NoPlan, UseCase};
use spec::{Bytes, Known, Machine};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A machine to plan for, and what the newest engine can place a model on there.
struct Place {
    machine: Machine,
    target: Target,
    /// Index of the first place with the same devices but for their memory: graphs are the same there.
    like: usize,
}

/// Every size of model on one machine, for one use, with the newest llama-server that is known.
pub fn recommend(machine: &Machine, use_case: UseCase) -> Vec<Entry> {
    let places = places(vec![machine.clone()]);
    CLASSES.iter().flat_map(|class| column(class, &places, use_case)).collect()
}

/// Every size of model on every archetype: one list per archetype, in their order. Uses the processors that there are; the result does
/// not depend on how many.
pub fn generate(archetypes: &[Archetype], use_case: UseCase) -> Vec<Vec<Entry>> {
    let machines = archetypes.iter().filter_map(|archetype| archetype.machine().ok()).collect();
    let places = places(machines);
    let next = Mutex::new(CLASSES.iter());
    let columns = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(class) = next.lock().ok().and_then(|mut next| next.next()) {
            let column = column(class, &places, use_case);
            if let Ok(mut columns) = columns.lock() {
                columns.insert(CLASSES.iter().position(|known| known == class), column);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let columns = columns.into_inner().unwrap_or_default();
    (0..places.len()).map(|row| columns.values().filter_map(|column| column.get(row).cloned()).collect()).collect()
}

fn places(machines: Vec<Machine>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for machine in machines {
        let target = planner::target(&machine, &GpuSupport::Native);
        // Over several devices free memory decides how layers are split.
        let like = if target.devices.len() <= 1 { places.iter().position(|place| alike(&place.target, &target)) } else { None };
        places.push(Place { machine, like: like.unwrap_or(places.len()), target });
    }
    places
}

/// True where two targets differ in nothing but the memory of their devices.
fn alike(a: &Target, b: &Target) -> bool {
    let unsized_ = |target: &Target| {
        let size = || Known::exact(Bytes::ZERO, "left out");
        let devices = target.devices.iter().map(|device| Device { total: size(), free: size(), ..device.clone() }).collect();
        Target { devices, ..target.clone() }
    };
    unsized_(a) == unsized_(b)
}

/// One size of model on every place.
fn column(class: &'static SizeClass, places: &[Place], use_case: UseCase) -> Vec<Entry> {
    let rules = newest_server();
    let Some(model) = class.model() else {
        return places.iter().map(|_| refused(class, format!("no shape {}", class.preset))).collect();
    };
    let companions = Companions::default();
    let mut known: BTreeMap<usize, Requirements<'_>> = BTreeMap::new();
    let request = planner::Request { use_case, profile: rules.profile.clone(), ..planner::Request::default() };
    let entries = places.iter().map(|place| {
        let like = places.get(place.like).unwrap_or(place);
        let new = || Requirements::new(model, &like.target, &rules.profile, &companions);
        let requirements = known.entry(place.like).or_insert_with(new);
        let plan = planner::plan_with(&place.machine, model, &place.target, &request, &|settings| requirements.require(settings));
        let context = Context { machine: &place.machine, model, target: &place.target, engine: &rules };
        match plan {
            Err(refusal) => refused(class, nearest(&refusal)),
            Ok(plan) => match planner::validate(plan, &context) {
                Err(report) => refused(class, report.errors().map(|error| error.message.clone()).collect::<Vec<_>>().join("; ")),
                Ok(valid) => planned(class, valid.plan()),
            },
        }
    });
    entries.collect()
}

fn refused(class: &'static SizeClass, notes: String) -> Entry {
    Entry { class, fit: Fit::Refused, plan: None, notes }
}

fn nearest(refusal: &NoPlan) -> String {
    match refusal.nearest.first() {
        Some(NearestChange::FromDisk { decode }) => match decode.get() {
            Some(rate) => format!("from disk only, at {rate}"),
            None => "from disk only".to_owned(),
        },
        Some(change) => format!("would fit with {change}"),
        None => refusal.tried.last().map_or_else(|| "nothing to try".to_owned(), |last| last.rejection.to_string()),
    }
}

fn planned(class: &'static SizeClass, plan: &Plan) -> Entry {
    let words: Vec<String> = arguments(&plan.settings).split(' ').map(str::to_owned).collect();
    let settings = read_args(&words).map(|(pins, _)| pins).unwrap_or_default();
    let none = || Known::exact(Bytes::ZERO, "no GPU computes");
    let on_gpus = plan.budgets.iter().filter(|budget| matches!(budget.pool, Pool::Device { .. }));
    let gpu = on_gpus.map(|budget| budget.needed.clone()).reduce(|sum, needed| sum.plus(&needed)).unwrap_or_else(none);
    let unknown = || Known::unknown("the plan has no budget of the host");
    let host = plan.budgets.iter().find(|budget| budget.pool == Pool::Host);
    let downgrades = plan.verdict.downgrades();
    Entry {
        class,
        fit: if downgrades.is_empty() { Fit::Fits } else { Fit::Downgraded },
        plan: Some(Recommended {
            strategy: plan.strategy,
            settings,
            gpu,
            host: host.map_or_else(unknown, |budget| budget.needed.clone()),
            mapped: host.map_or_else(unknown, |budget| budget.mapped.clone()),
            decode: plan.prediction.decode.clone(),
            prefill: plan.prediction.prefill.clone(),
            limit: plan.prediction.decode_bottleneck,
        }),
        notes: downgrades.iter().map(step).collect::<Vec<_>>().join("; "),
    }
}

fn step(step: &Downgrade) -> String {
    match step.setting {
        "residency" => step.to.clone(),
        setting => format!("{setting} {} instead of {}", step.to, step.from),
    }
}
