//! Which profile a machine is nearest to, how near, what differs and what follows from it.
//!
//! The score is a weighted mean of likenesses, 1 being the archetype itself. A quantity twice or half as large is half alike, four times
//! or a quarter not at all; one that only one side knows is half alike. So the score never rises when a quantity moves away.

use super::archetype::{Archetype, archetypes};
use super::class::SizeClass;
use super::entry::{Entry, Recommended};
use super::traits::{Aspect, Kind, Traits, Value};
use spec::{Bytes, Known, Machine};
use std::sync::OnceLock;

/// The part of a memory that a plan may take; the planner's margins are of this size.
const ROOM: f64 = 0.97;

/// From this score on, and with memory and bandwidth known and at least half alike, a profile speaks for a machine.
pub const NEAR: f64 = 0.7;

/// Below this likeness a quantity is named as a difference: a factor of 1.1. Systems show up to 8 % less memory than there is.
const SAME: f64 = 0.93;

/// What a driver or a system may show of the memory on the label.
const SHOWN: f64 = 0.91;

/// A quantity in which a machine is not its archetype.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which one.
    pub aspect: Aspect,
    /// On the machine.
    pub here: Value,
    /// On the archetype.
    pub there: Value,
    /// How alike they are, 0 to 1.
    pub likeness: f64,
}

/// An archetype and how near a machine is to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The archetype.
    pub archetype: &'static Archetype,
    /// How near, 0 to 1.
    pub score: f64,
    /// What differs, the weightiest first.
    pub differences: Vec<Difference>,
    /// True where memory and bandwidth are known and at least half alike.
    pub comparable: bool,
}

/// Which profile to go by.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// The one to go by.
    pub chosen: Match,
    /// Why it is the conservative default; `None` where it is near.
    pub default_because: Option<String>,
    /// Others, nearest first.
    pub others: Vec<Match>,
}

/// Weights of the quantities that count for a kind of machine.
fn weights(kind: Kind) -> &'static [(Aspect, f64)] {
    match kind {
        Kind::Cards(_) => &[
            (Aspect::GpuMemory, 0.35),
            (Aspect::GpuBandwidth, 0.20),
            (Aspect::GpuCompute, 0.10),
            (Aspect::GpuCount, 0.10),
            (Aspect::Product, 0.10),
            (Aspect::Memory, 0.06),
            (Aspect::Cores, 0.03),
            (Aspect::Bandwidth, 0.02),
            (Aspect::Vectors, 0.02),
            (Aspect::Limits, 0.02),
        ],
        Kind::Unified(_) => &[
            (Aspect::Memory, 0.45),
            (Aspect::Bandwidth, 0.25),
            (Aspect::GpuCompute, 0.12),
            (Aspect::Product, 0.12),
            (Aspect::Cores, 0.04),
            (Aspect::Limits, 0.02),
        ],
        Kind::Processor => &[
            (Aspect::Memory, 0.38),
            (Aspect::Bandwidth, 0.25),
            (Aspect::Cores, 0.20),
            (Aspect::Vectors, 0.10),
            (Aspect::Limits, 0.04),
            (Aspect::Product, 0.03),
        ],
    }
}

/// Quantities without which a profile promises nothing.
const DECIDING: [Aspect; 4] = [Aspect::GpuMemory, Aspect::GpuBandwidth, Aspect::Memory, Aspect::Bandwidth];

/// The profile to go by: the nearest, or the conservative default where none is near. `None` without archetypes.
pub fn match_machine(machine: &Machine) -> Option<Matching> {
    let here = Traits::of(machine);
    let mut ranked: Vec<Match> = known().iter().filter_map(|(archetype, there)| compare(archetype, &here, there)).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    if let Some(at) = ranked.iter().position(|one| one.comparable && one.score >= NEAR) {
        let chosen = ranked.remove(at);
        ranked.truncate(4);
        return Some(Matching { chosen, default_because: None, others: ranked });
    }
    let because = why_none(&here, ranked.first());
    let chosen = conservative(&here)?;
    ranked.retain(|one| one.archetype != chosen.archetype);
    ranked.truncate(4);
    Some(Matching { chosen, default_because: Some(because), others: ranked })
}

/// How near a machine is to one archetype; `None` where other things compute.
pub fn score(machine: &Machine, archetype: &Archetype) -> Option<f64> {
    let (archetype, there) = known().iter().find(|(known, _)| *known == archetype)?;
    compare(archetype, &Traits::of(machine), there).map(|one| one.score)
}

fn known() -> &'static [(&'static Archetype, Traits)] {
    static TRAITS: OnceLock<Vec<(&'static Archetype, Traits)>> = OnceLock::new();
    TRAITS.get_or_init(|| archetypes().iter().filter_map(|row| Some((row, Traits::of(&row.machine().ok()?)))).collect())
}

fn compare(archetype: &'static Archetype, here: &Traits, there: &Traits) -> Option<Match> {
    if here.kind != there.kind {
        return None;
    }
    let mut score = 0.0;
    let mut differences: Vec<(f64, Difference)> = Vec::new();
    let mut comparable = true;
    for &(aspect, weight) in weights(here.kind) {
        let (a, b) = (here.get(aspect), there.get(aspect));
        let likeness = likeness(a, b);
        score += weight * likeness;
        let host_of_cards = matches!(here.kind, Kind::Cards(_)) && matches!(aspect, Aspect::Memory | Aspect::Bandwidth);
        if DECIDING.contains(&aspect) && !host_of_cards {
            comparable &= likeness >= 0.5 && *a != Value::Unknown;
        }
        if likeness < SAME {
            differences.push((weight * (1.0 - likeness), Difference { aspect, here: a.clone(), there: b.clone(), likeness }));
        }
    }
    if here.arch != there.arch {
        score *= 0.9;
    }
    differences.sort_by(|a, b| b.0.total_cmp(&a.0));
    Some(Match { archetype, score, differences: differences.into_iter().map(|(_, difference)| difference).collect(), comparable })
}

/// How alike two quantities are, 0 to 1.
fn likeness(a: &Value, b: &Value) -> f64 {
    match (a, b) {
        (Value::Unknown, Value::Unknown) => 1.0,
        (Value::Amount(a), Value::Amount(b)) if a > &0.0 && b > &0.0 => (1.0 - (a / b).log2().abs() / 2.0).max(0.0),
        (Value::Names(a), Value::Names(b)) => f64::from(u8::from(!a.is_disjoint(b))),
        (Value::Unknown, _) | (_, Value::Unknown) => 0.5,
        _ => 0.0,
    }
}

fn why_none(here: &Traits, nearest: Option<&Match>) -> String {
    let Some(nearest) = nearest else { return "no archetype computes with such a device".to_owned() };
    let unknown: Vec<&str> = DECIDING
        .iter()
        .filter(|&&aspect| weights(here.kind).iter().any(|(known, weight)| *known == aspect && *weight > 0.1))
        .filter(|&&aspect| *here.get(aspect) == Value::Unknown)
        .map(|aspect| aspect.as_str())
        .collect();
    if unknown.is_empty() {
        format!("nothing is near: the nearest is {} with a score of {:.0} %", nearest.archetype.id, 100.0 * nearest.score)
    } else {
        format!("{} not known here", unknown.join(" and "))
    }
}

/// The archetype whose promises hold whatever is not known: of those that are in nothing better than what is known of the machine, the
/// slowest of those with the most memory. Without one of the machine's kind the processor alone counts; without any, the smallest.
fn conservative(here: &Traits) -> Option<Match> {
    let memory = |there: &Traits| there.amount(Aspect::Memory).unwrap_or(0.0);
    let processors = || known().iter().filter(|(_, there)| there.kind == Kind::Processor);
    let smallest = || processors().min_by(|(_, a), (_, b)| memory(a).total_cmp(&memory(b)));
    let found = safest(here, here.kind).or_else(|| safest(here, Kind::Processor)).or_else(smallest);
    let (archetype, there) = found?;
    let as_kind = Traits { kind: there.kind, ..here.clone() };
    compare(archetype, &as_kind, there)
}

fn safest(here: &Traits, kind: Kind) -> Option<&'static (&'static Archetype, Traits)> {
    let cards = matches!(kind, Kind::Cards(_));
    let (memory, rate) = if cards { (Aspect::GpuMemory, Aspect::GpuBandwidth) } else { (Aspect::Memory, Aspect::Bandwidth) };
    // At most as much as here; what is not known here is no hindrance, unless a promise stands on it.
    let within = |there: &Traits, aspect: Aspect, tolerance: f64, needed: bool| match (here.amount(aspect), there.amount(aspect)) {
        (Some(here), Some(there)) => there * tolerance <= here,
        (None, Some(_)) => !needed,
        _ => true,
    };
    let no_better = |there: &Traits| {
        within(there, memory, SHOWN, true)
            && within(there, rate, SHOWN, false)
            && within(there, Aspect::Memory, SHOWN, !cards)
            && within(there, Aspect::GpuCount, 1.0, false)
            && (cards || within(there, Aspect::Cores, 1.0, false) && within(there, Aspect::Vectors, 1.0, false))
    };
    let size = |there: &Traits| there.amount(memory).unwrap_or(0.0) * there.amount(Aspect::GpuCount).unwrap_or(1.0);
    let slowness = |there: &Traits| there.amount(rate).unwrap_or(f64::INFINITY);
    let candidates = || known().iter().filter(|(_, there)| there.kind == kind && there.arch == here.arch && no_better(there));
    let most = candidates().map(|(_, there)| size(there)).max_by(f64::total_cmp)?;
    candidates().filter(|(_, there)| size(there) >= SHOWN * most).min_by(|(_, a), (_, b)| slowness(a).total_cmp(&slowness(b)))
}

impl Matching {
    /// Sizes of model for whose stored plan the chosen archetype has the memory and this machine has not.
    pub fn too_large(&self, machine: &Machine) -> Vec<&'static SizeClass> {
        let here = Traits::of(machine);
        let there = known().iter().find(|(archetype, _)| *archetype == self.chosen.archetype).map(|(_, traits)| traits);
        let profile = super::profiles().iter().find(|profile| profile.archetype == self.chosen.archetype);
        let (Some(there), Some(profile)) = (there, profile) else { return Vec::new() };
        // What a GPU takes of the host's memory is in the host's figure.
        let gpus = |traits: &Traits| Some(traits.amount(Aspect::GpuMemory)? * traits.amount(Aspect::GpuCount)?);
        let holds = |traits: &Traits, plan: &Recommended| {
            let within = |needed: Known<Bytes>, memory: Option<f64>| match (needed.get(), memory) {
                (Some(needed), Some(memory)) => needed.as_f64() <= ROOM * memory,
                _ => true,
            };
            let cards = !matches!(traits.kind, Kind::Cards(_)) || within(plan.gpu.clone(), gpus(traits));
            cards && within(plan.host.plus(&plan.mapped), traits.amount(Aspect::Memory))
        };
        let too_large = |entry: &&Entry| entry.plan.as_ref().is_some_and(|plan| holds(there, plan) && !holds(&here, plan));
        profile.entries.iter().filter(too_large).map(|entry| entry.class).collect()
    }
}

impl Difference {
    /// Both sides: `GPU memory 8.00 GiB instead of 12.00 GiB`.
    pub fn told(&self) -> String {
        let show = |value: &Value| self.aspect.show(value);
        match (self.aspect, &self.here) {
            (Aspect::Limits, Value::Amount(here)) if *here > 1.0 => "limits of a container apply here".to_owned(),
            (Aspect::Limits, _) => "no limits of a container apply here".to_owned(),
            (_, Value::Unknown) => format!("{} not known here, {} there", self.aspect, show(&self.there)),
            (_, here) => format!("{} {} instead of {}", self.aspect, show(here), show(&self.there)),
        }
    }

    /// What follows for settings and speed.
    pub fn follows(&self) -> Option<String> {
        let (Value::Amount(here), Value::Amount(there)) = (&self.here, &self.there) else {
            return match self.aspect {
                Aspect::Product => None,
                _ => Some("taken as half alike: measure before relying on it".to_owned()),
            };
        };
        let factor = here / there;
        Some(match self.aspect {
            Aspect::GpuMemory | Aspect::Memory if factor < 1.0 => "what fits there may not fit here".to_owned(),
            Aspect::GpuMemory | Aspect::Memory => "what fits there fits here, and larger models or contexts may".to_owned(),
            Aspect::GpuBandwidth => format!("tokens come at about {factor:.2} times the rate"),
            Aspect::Bandwidth => format!("what is computed in this memory runs at about {factor:.2} times the rate"),
            Aspect::GpuCompute => format!("prompts are read at about {factor:.2} times the rate"),
            Aspect::Vectors => format!("the processor reads prompts at about {factor:.2} times the rate"),
            Aspect::Cores => format!("take {here} threads instead of {there}"),
            Aspect::GpuCount => "layers are split differently".to_owned(),
            Aspect::Limits if factor > 1.0 => "plan inside the container: its limits count, not the machine's".to_owned(),
            Aspect::Limits | Aspect::Product => return None,
        })
    }
}

impl Aspect {
    /// A quantity with its unit.
    pub fn show(self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Unknown) => "unknown".to_owned(),
            (_, Value::Names(names)) => names.iter().cloned().collect::<Vec<_>>().join(" or "),
            (Self::GpuMemory | Self::Memory, Value::Amount(bytes)) => Bytes::from_f64(*bytes).to_string(),
            (Self::GpuBandwidth | Self::Bandwidth, Value::Amount(rate)) => format!("{:.1} GB/s", rate / 1e9),
            (Self::GpuCompute, Value::Amount(rate)) => format!("{:.1} TFLOP/s", rate / 1e12),
            (Self::Vectors, Value::Amount(bits)) => format!("{bits} bits"),
            (_, Value::Amount(amount)) => amount.to_string(),
        }
    }
}
