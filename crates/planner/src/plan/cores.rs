//! Which CPUs the threads of decode are held to: none that the engine would not take itself, unless kinds of cores differ and the request
//! is faster for it.

use super::site::{Candidate, Site};
use super::verdict::Origin;
use crate::predict::{SPREAD_OVER_NODES, fast_cpus, nodes};
use spec::Settings;
use spec::settings::CpuMask;

/// What a mask must win in time to be worth it. Less than the least that was reported: what counts is how much of a request is decode on the
/// host.
const LEAST: f64 = 1.02;

/// What is known of strategies for NUMA nodes.
pub(crate) fn numa_not_predicted() -> String {
    let [low, high] = [SPREAD_OVER_NODES.low, SPREAD_OVER_NODES.high];
    format!("not predicted: {low:.1} to {high:.0} times the speed in public runs, by the node on which the file's pages lie; measure it")
}

/// CPUs that threads are held to by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Of the fastest kind of core; all, where there is one kind or their numbers are not known.
    pub(crate) fast: u32,
    pub(crate) all: u32,
}

impl Site<'_> {
    /// CPUs of the masks that the user has given, for decode and for prefill, as far as they may be used; `None` without a mask, and where
    /// the engine drops it.
    pub(crate) fn given_cpus(&self) -> [Option<Held>; 2] {
        let pins = &self.request.pins;
        [self.held_to(pins.cpu_mask.as_ref()), self.held_to(pins.cpu_mask_batch.as_ref().or(pins.cpu_mask.as_ref()))]
    }

    fn held_to(&self, mask: Option<&CpuMask>) -> Option<Held> {
        let facts = &self.machine.facts;
        // It takes a mask there and does nothing with it (`ggml/src/ggml-cpu/ggml-cpu.c:2597-2601`).
        let mask = mask.filter(|_| facts.platform.os != "macos")?;
        let allowed = self.machine.limits.allowed_cpus.value();
        let within = |cpu: &&u32| allowed.is_none_or(|allowed| allowed.contains(cpu));
        let fast = match facts.cpu.core_kinds.as_slice() {
            [fastest, _, ..] if !fastest.cpus.is_empty() => Some(&fastest.cpus),
            _ => None,
        };
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let all = count(mask.cpus().iter().filter(within).count());
        let fast = fast.map_or(all, |fast| count(mask.cpus().iter().filter(within).filter(|cpu| fast.contains(cpu)).count()));
        (all > 0).then_some(Held { fast, all })
    }

    /// A candidate that was searched with the threads of decode on the fast cores; without that where it wins too little. Memory does not
    /// change.
    pub(crate) fn held(&self, found: Candidate) -> Candidate {
        let free = self.free(&found);
        if found.settings == free.settings || found.worth.better_than(&free.worth, LEAST) { found } else { free }
    }

    /// A candidate without a mask that nobody has asked for.
    pub(crate) fn free(&self, found: &Candidate) -> Candidate {
        if self.fast_mask(found.settings.threads).is_none_or(|mask| mask != found.settings.cpu_mask) {
            return found.clone();
        }
        let settings = Settings { cpu_mask: CpuMask::default(), ..found.settings.clone() };
        self.candidate(settings, found.requirement.clone(), found.residency)
    }

    /// A candidate with the threads of decode on the fast cores, where that wins enough.
    pub(crate) fn holding(&self, free: Candidate) -> Candidate {
        let Some(cpu_mask) = self.fast_mask(free.settings.threads) else { return free };
        let settings = Settings { cpu_mask, ..free.settings.clone() };
        let held = self.candidate(settings, free.requirement.clone(), free.residency);
        if held.worth.better_than(&free.worth, LEAST) { held } else { free }
    }

    /// The mask of the fast cores, where the user leaves that open and they are as many as threads of decode.
    pub(crate) fn fast_mask(&self, threads: u32) -> Option<CpuMask> {
        let pins = &self.request.pins;
        let open = pins.cpu_mask.is_none() && pins.cpu_strict.is_none() && self.request.profile.cpu_masks;
        let enough = self.fastest_cores().is_some_and(|fastest| threads <= fastest);
        fast_cpus(self.machine).filter(|_| open && enough)
    }

    /// Why threads are not spread over NUMA nodes: reports of that are of both signs.
    pub(crate) fn numa_reason(&self, candidate: &Candidate) -> (Origin, String) {
        let why = match nodes(self.machine) {
            0 => "NUMA nodes are not known".to_owned(),
            1 => "there is one NUMA node, or the engine has no strategy on this system".to_owned(),
            _ if !self.on_host(candidate) => "nothing is computed on the host".to_owned(),
            nodes => format!("{nodes} NUMA nodes: {}", numa_not_predicted()),
        };
        (Origin::EngineDefault, why)
    }

    /// Why threads are held to CPUs, or why not.
    pub(crate) fn mask_reason(&self, settings: &Settings) -> Option<(Origin, String)> {
        let of_engine = |why: &str| Some((Origin::EngineDefault, why.to_owned()));
        let mask = &settings.cpu_mask;
        if !mask.is_empty() {
            let why = format!(
                "the fast cores, CPUs {}: the system would put some of {} threads on slower ones, for which the others wait",
                mask.ranges(),
                settings.threads
            );
            return Some((Origin::Searched, why));
        }
        match (self.machine.facts.cpu.core_kinds.len(), fast_cpus(self.machine)) {
            (0, _) => of_engine("kinds of cores are not known"),
            (1, _) => of_engine("the system places threads: no core is faster than another"),
            (_, None) => of_engine("the system places threads: CPUs of one kind may be used, or their numbers are not known"),
            (_, Some(_)) if !self.request.profile.cpu_masks => of_engine("the engine cannot hold threads to CPUs"),
            (_, Some(_)) if self.fast_mask(settings.threads).is_none() => {
                of_engine("the system places threads: there are more of them than fast cores")
            }
            (_, Some(fast)) => {
                let why = format!("the system places threads: held to the fast cores ({}) a request is not faster by 2 %", fast.ranges());
                Some((Origin::EngineDefault, why))
            }
        }
    }
}
