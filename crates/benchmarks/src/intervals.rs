//! Intervals from how far predictions were off on devices that a fit had left out.

use crate::evaluate::{Outcome, errors, weights};
use crate::sample::Sample;
use roofline::{Class, Spread, quantile};
use std::collections::BTreeMap;

/// What a prediction could rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knowledge {
    /// No run of the device.
    Blind,
    /// One run on the same machine.
    OneRun,
}

/// Keys of the spread of a sample, from wide to narrow.
pub fn spread_keys(sample: &Sample, knowledge: Knowledge) -> Vec<String> {
    let phase = sample.phase.as_str();
    let root = if knowledge == Knowledge::Blind { phase.to_owned() } else { format!("{phase} after one run") };
    let root = if sample.problem.is_none() { root } else { format!("{root}, several") };
    let source = sample.source.as_str();
    vec![root.clone(), format!("{root}/{source}"), format!("{root}/{source}/{}", sample.class().as_str())]
}

/// Share of measurements that an interval is to hold.
const WANTED: f64 = 0.8;
/// Devices from which on a class has a factor of its own.
const ENOUGH: usize = 5;

/// How far outcomes are off, by every key. With few devices the tenth of them lies further out than that of those at hand: at the
/// order (n + 1) ÷ 10.
fn ranges(outcomes: &[Outcome<'_>], knowledge: Knowledge) -> Spread {
    let mut keyed: BTreeMap<String, Vec<Outcome<'_>>> = BTreeMap::new();
    for outcome in outcomes {
        for key in spread_keys(outcome.sample, knowledge) {
            keyed.entry(key).or_default().push(*outcome);
        }
    }
    let mut spread = Spread::default();
    for (key, outcomes) in keyed {
        let ratios: Vec<(f64, f64)> = outcomes.iter().map(Outcome::log_ratio).zip(weights(&outcomes)).collect();
        let devices = errors(&outcomes).devices;
        let outer = 0.4 / devices.max(4) as f64;
        let at = |place| quantile(&ratios, place);
        if let (Some(low), Some(middle), Some(high)) = (at(0.1 - outer), at(0.5), at(0.9 + outer)) {
            spread.insert(&key, low, middle, high, devices);
        }
    }
    spread
}

/// An outcome with its place between the ends of a range: −1 at the low one, 1 at the high one, 0 in the middle.
struct Placed<'a> {
    outcome: Outcome<'a>,
    place: f64,
    fold: usize,
}

/// Whose memory devices of a class compute in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Memory {
    Own,
    Shared,
    Host,
}

impl Memory {
    fn of(class: Class) -> Self {
        match class {
            Class::NvidiaGddr | Class::NvidiaHbm | Class::AmdGddr | Class::AmdHbm | Class::Intel => Self::Own,
            Class::NvidiaUnified | Class::AmdUnified | Class::Apple | Class::IntelUnified => Self::Shared,
            Class::Cpu => Self::Host,
        }
    }
}

/// Keys that have one factor together, with their outcomes.
type Group<'a> = Vec<(String, Vec<Placed<'a>>)>;

/// The factor by which ranges must grow or shrink to hold four of five.
fn factor(placed: &[&Placed<'_>]) -> f64 {
    let outcomes: Vec<Outcome<'_>> = placed.iter().map(|one| one.outcome).collect();
    let distances: Vec<(f64, f64)> = placed.iter().map(|one| one.place.abs()).zip(weights(&outcomes)).collect();
    quantile(&distances, WANTED).unwrap_or(1.0).clamp(0.3, 4.0)
}

/// The spread of outcomes by fold, and which of them lie within intervals that come from the other folds alone.
pub fn spread<'a>(folds: &[Vec<Outcome<'a>>], knowledge: Knowledge) -> (Spread, Vec<(Outcome<'a>, bool)>) {
    let mut placed: BTreeMap<String, Vec<Placed<'a>>> = BTreeMap::new();
    for (fold, outcomes) in folds.iter().enumerate() {
        let others = folds.iter().enumerate().filter(|(other, _)| *other != fold).flat_map(|(_, outcomes)| outcomes.iter().copied());
        let spread = ranges(&others.collect::<Vec<_>>(), knowledge);
        for outcome in outcomes {
            let keys = spread_keys(outcome.sample, knowledge);
            let Some((range, key)) = spread.range(&keys).zip(keys.last().cloned()) else { continue };
            let off = outcome.log_ratio() - range.middle;
            let place = if off < 0.0 { off / (range.middle - range.low).max(1e-3) } else { off / (range.high - range.middle).max(1e-3) };
            placed.entry(key).or_default().push(Placed { outcome: *outcome, place, fold });
        }
    }
    let mut all = ranges(&folds.iter().flatten().copied().collect::<Vec<_>>(), knowledge);
    let enough = |rows: &[&Placed<'_>]| errors(&rows.iter().map(|one| one.outcome).collect::<Vec<_>>()).devices >= ENOUGH;
    let (large, small): (BTreeMap<_, _>, BTreeMap<_, _>) =
        placed.into_iter().partition(|(_, rows)| enough(&rows.iter().collect::<Vec<_>>()));
    // Classes of few devices have one factor together, by source and by whose memory they compute in.
    let mut sources: BTreeMap<(String, Memory), Group<'a>> = BTreeMap::new();
    for (key, rows) in small {
        let source = key.rsplit_once('/').map_or(key.clone(), |(source, _)| source.to_owned());
        let memory = rows.first().map_or(Memory::Host, |one| Memory::of(one.outcome.sample.class()));
        sources.entry((source, memory)).or_default().push((key, rows));
    }
    let alone = large.into_iter().map(|(key, rows)| vec![(key, rows)]);
    let mut inside = Vec::new();
    for group in alone.chain(sources.into_values()) {
        let rows = || group.iter().flat_map(|(_, rows)| rows);
        let whole = factor(&rows().collect::<Vec<_>>());
        group.iter().for_each(|(key, _)| all.insert_scale(key, whole));
        for one in rows() {
            let others: Vec<&Placed<'_>> = rows().filter(|other| other.fold != one.fold).collect();
            inside.push((one.outcome, one.place.abs() <= factor(&others)));
        }
    }
    (all, inside)
}
