//! Alternatives worth knowing: plans that are better than the chosen one in something, and in what they are worse.

use super::joint::Frame;
use super::needs::Needs;
use super::objective::Goal;
use super::site::{Candidate, Reach, Rung, Site};
use super::verdict::{Alternative, Aspect, Merits, Pareto};
use crate::emit::flags::{flags, value_text};
use footprint::bitnet::head_type;
use spec::{Bytes, QuantType, Settings};
use std::cmp::Ordering;

/// A change of less is none.
const SAME: f64 = 0.02;

impl Aspect {
    /// Every aspect, in the order in which people are told.
    pub const ALL: [Self; 6] = [Self::Speed, Self::FirstToken, Self::Context, Self::Quality, Self::MemoryLeft, Self::Power];
}

/// A candidate with what it is worth.
struct Point {
    candidate: Candidate,
    merits: Merits,
    /// The type of the output head where an engine may keep a copy of it.
    head: Option<QuantType>,
}

impl Point {
    fn of(site: &Site<'_>, candidate: Candidate) -> Self {
        let Candidate { settings, timing, .. } = &candidate;
        let devices = candidate.requirement.layer_devices.iter();
        let mut at_work: Vec<Option<usize>> = devices.copied().chain(site.on_host(&candidate).then_some(None)).collect();
        at_work.sort_unstable();
        at_work.dedup();
        let merits = Merits {
            seconds: timing.whole,
            first_token: timing.first_token,
            n_ctx: settings.n_ctx,
            cache_bits: (settings.cache_type_k.bits_per_weight() + settings.cache_type_v.bits_per_weight()) / 2.0,
            memory_left: site.left(&candidate),
            processor_seconds: timing.whole * at_work.len() as f64,
        };
        let head = site.request.profile.bitnet.and_then(|_| candidate.requirement.head.or_else(|| head_type(site.model)));
        Self { candidate, merits, head }
    }

    /// How it compares in an aspect.
    fn compare(&self, other: &Self, aspect: Aspect) -> Ordering {
        let of = |point: &Self| match (aspect, point.head) {
            (Aspect::Quality, Some(head)) => point.merits.cache_bits + head.bits_per_weight(),
            _ => point.merits.of(aspect),
        };
        let (a, b) = (of(self), of(other));
        if (a - b).abs() <= SAME * a.abs().max(b.abs()) { Ordering::Equal } else { a.total_cmp(&b) }
    }

    fn aspects(&self, other: &Self, wanted: Ordering) -> Vec<Aspect> {
        Aspect::ALL.into_iter().filter(|&aspect| self.compare(other, aspect) == wanted).collect()
    }

    /// No worse in anything, and better in something.
    fn dominates(&self, other: &Self) -> bool {
        self.aspects(other, Ordering::Less).is_empty() && !self.aspects(other, Ordering::Greater).is_empty()
    }
}

/// Settings that a description leaves out, or that follow from what it tells.
const TOLD: [&str; 10] = [
    "n_ctx",
    "n_batch",
    "cache_type_k",
    "cache_type_v",
    "flash_attn",
    "n_gpu_layers",
    "n_cpu_moe",
    "tensor_overrides",
    "repack",
    "cache_ram_mib",
];

/// Settings that differ from those of the plan and that the description does not tell: `, n_ubatch 2048`.
fn untold(settings: &Settings, plan: &Settings) -> String {
    let names = flags().iter().map(|flag| flag.setting).filter(|name| !TOLD.contains(name));
    let differing = names.filter(|name| value_text(settings, name) != value_text(plan, name));
    differing.map(|name| format!(", {name} {}", value_text(settings, name))).collect()
}

/// Seconds in three digits: `~0.00341 s`, `~0.512 s`, `~12.5 s`, `~180 s`.
fn seconds(seconds: f64) -> String {
    let digits = (2.0 - seconds.max(1e-6).log10().floor()).clamp(0.0, 8.0) as usize;
    format!("~{seconds:.digits$} s")
}

impl Site<'_> {
    /// Plans that no other one beats in everything, each better than the chosen one in something: best first by how many aspects.
    pub(crate) fn pareto(&self, plan: &Candidate) -> Pareto {
        let chosen = Point::of(self, plan.clone());
        let mut points: Vec<Point> = Vec::new();
        for candidate in self.others(plan) {
            let point = Point::of(self, candidate);
            let known = points.iter().any(|other| other.candidate.settings == point.candidate.settings);
            if !known && !chosen.dominates(&point) && !point.aspects(&chosen, Ordering::Greater).is_empty() {
                points.push(point);
            }
        }
        let kept = points.iter().filter(|point| !points.iter().any(|other| other.dominates(point)));
        Pareto { chosen: chosen.merits, others: kept.map(|point| self.alternative(point, &chosen)).collect() }
    }

    /// Candidates that are best at one thing each.
    fn others(&self, chosen: &Candidate) -> Vec<Candidate> {
        let Settings { n_ctx, cache_type_k: cache, .. } = chosen.settings;
        let rung = Rung { n_ctx, cache, reach: Reach::Anywhere, disk: false };
        let coarsest = self.quantised_caches().last().copied().unwrap_or(rung.cache);
        let mut others = Vec::new();
        // Micro-batch, load mode and the like as they are, or the engine's.
        let like = |frame: &Frame| {
            let settings = &chosen.settings;
            let alike = frame.base.op_offload == settings.op_offload && frame.base.repack == settings.repack;
            frame.changes == 0 || frame.base.n_ubatch == settings.n_ubatch && frame.base.load_mode == settings.load_mode && alike
        };
        // The fastest within the floors of the use case.
        others.extend(self.place_with(&Rung { n_ctx: self.floor().min(rung.n_ctx), cache: coarsest, ..rung }, like).ok());
        others.extend(self.place_with(&Rung { cache: coarsest, ..rung }, like).ok());
        others.extend(self.with_goal(Goal::FirstToken).place(&rung).ok());
        others.extend(self.longest(&rung, like));
        if chosen.settings.cache_type_k.is_quantized() {
            others.extend(self.place_with(&Rung { cache: QuantType::F16, ..rung }, like).ok());
        }
        others.extend(self.without_devices(chosen, &rung));
        others.into_iter().map(|other| self.held(other)).collect()
    }

    /// The shortest context of the use case that holds its request; a pinned one.
    fn floor(&self) -> u32 {
        let slots = Needs::slots(self.request, self.model);
        let request = Needs::next_block(self.needs.workload.tokens()).saturating_mul(slots);
        self.request.pins.n_ctx.unwrap_or(self.needs.floor.max(request))
    }

    /// The longest context that fits at all, by halving the trained one.
    fn longest(&self, rung: &Rung, like: impl Fn(&Frame) -> bool) -> Option<Candidate> {
        let trained = self.trained_context().filter(|_| self.request.pins.n_ctx.is_none())?;
        let longer = Needs::halvings(trained, rung.n_ctx).into_iter().filter(|&n_ctx| n_ctx > rung.n_ctx);
        longer.take(6).find_map(|n_ctx| self.place_with(&Rung { n_ctx, ..*rung }, &like).ok())
    }

    /// The same on the CPU alone, where the user leaves that open.
    fn without_devices(&self, chosen: &Candidate, rung: &Rung) -> Option<Candidate> {
        use super::request::DevicePreference;
        if self.request.preferences.device != DevicePreference::Auto || self.placed_by_user() || !self.wants_devices() {
            return None;
        }
        let default = Settings::default();
        let settings = self.pinned(Settings {
            n_gpu_layers: 0,
            n_cpu_moe: 0,
            tensor_overrides: Vec::new(),
            tensor_split: Vec::new(),
            n_ubatch: default.n_ubatch.min(chosen.settings.n_ctx),
            op_offload: false,
            split_mode: default.split_mode,
            main_gpu: default.main_gpu,
            load_mode: default.load_mode,
            ..chosen.settings.clone()
        });
        let evaluated = self.evaluate(&settings, rung);
        let (Some(requirement), Ok(residency)) = (evaluated.requirement, evaluated.outcome) else { return None };
        Some(self.candidate(settings, requirement, residency))
    }

    /// The share of the devices' memory, or without devices of the host's, that a candidate leaves.
    fn left(&self, candidate: &Candidate) -> f64 {
        let budgets = self.pools.budgets(&candidate.requirement);
        let devices: Vec<_> = budgets.iter().filter(|budget| budget.pool != super::Pool::Host && budget.limit.is_some()).collect();
        let pools = if devices.is_empty() { budgets.iter().collect() } else { devices };
        let sum = |of: &dyn Fn(&super::Budget) -> Option<Bytes>| pools.iter().filter_map(|budget| of(budget)).sum::<Bytes>().as_f64();
        let limit = sum(&|budget| budget.limit);
        if limit > 0.0 { sum(&super::Budget::left) / limit } else { 0.0 }
    }

    /// The settings of `chosen`, a candidate of `there`, with the output head of this problem; `None` where they do not fit, or are better
    /// in nothing.
    pub(crate) fn with_own_head(&self, there: &Site<'_>, chosen: &Candidate) -> Option<Alternative> {
        let settings = &chosen.settings;
        let rung = Rung { n_ctx: settings.n_ctx, cache: settings.cache_type_k, reach: Reach::Anywhere, disk: false };
        let evaluated = self.evaluate(settings, &rung);
        let (Some(requirement), Ok(residency)) = (evaluated.requirement, evaluated.outcome) else { return None };
        let point = Point::of(self, self.candidate(settings.clone(), requirement, residency));
        let other = self.alternative(&point, &Point::of(there, chosen.clone()));
        (!other.better.is_empty()).then_some(other)
    }

    fn alternative(&self, point: &Point, chosen: &Point) -> Alternative {
        let settings = &point.candidate.settings;
        let (here, there) = (&point.merits, &chosen.merits);
        let heads = point.head.zip(chosen.head).filter(|(here, there)| here != there);
        let head = heads.map_or_else(String::new, |(head, _)| format!(", output head in {head}"));
        let words = |aspects: Vec<Aspect>| {
            let word = |aspect: &Aspect| match aspect {
                Aspect::Context => format!("context of {} tokens instead of {}", settings.n_ctx, chosen.candidate.settings.n_ctx),
                Aspect::Quality => match heads {
                    Some((here, there)) => format!("output head in {here} instead of {there}"),
                    None => format!("cache in {} instead of {}", settings.cache_type_k, chosen.candidate.settings.cache_type_k),
                },
                Aspect::Speed => format!("requests of {} instead of {}", seconds(here.seconds), seconds(there.seconds)),
                Aspect::FirstToken => format!("first token after {} instead of {}", seconds(here.first_token), seconds(there.first_token)),
                Aspect::MemoryLeft => {
                    format!("{:.1} % of memory left instead of {:.1} %", here.memory_left * 100.0, there.memory_left * 100.0)
                }
                Aspect::Power => {
                    format!("{} of processors per request instead of {}", seconds(here.processor_seconds), seconds(there.processor_seconds))
                }
            };
            aspects.iter().map(word).collect::<Vec<_>>().join(", ")
        };
        let worse = point.aspects(chosen, Ordering::Less);
        let better = point.aspects(chosen, Ordering::Greater);
        Alternative {
            what: format!("{}{}{head}", self.describe(settings), untold(settings, &chosen.candidate.settings)),
            better: better.clone(),
            worse: worse.clone(),
            settings: settings.clone(),
            decode: self.prediction(&point.candidate).decode,
            merits: point.merits,
            why_not: format!(
                "{}; but {}",
                words(better),
                if worse.is_empty() { "no better by the margin".to_owned() } else { words(worse) }
            ),
        }
    }
}
