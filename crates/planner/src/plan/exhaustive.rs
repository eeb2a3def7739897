//! The plain thing beside the clever one: every candidate of the search's space, evaluated exactly one by one.
//!
//! The space of a tier is every frame (context, micro-batch, load mode, ...) with every number of layers on devices and of layers without
//! their experts that a chain passes, on every device alone, on none, and over all devices in every split;
//! and the same on every other set of devices that is looked at.

use super::chain::{Route, Step};
use super::joint::{Frame, Ways};
use super::objective::Worth;
use super::request::Request;
use super::site::{Candidate, Rung, Site};
use crate::inventory::Inventory;
use footprint::{Requirements, Target};
use spec::settings::SplitMode;
use spec::{Machine, Model, Settings};
use std::rc::Rc;

/// The best candidate of a space, before it is compared with the engine's own choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimum {
    /// Its settings.
    pub settings: Settings,
    /// By which factor it misses the bound on speed that it misses most; 1 where it keeps all.
    pub behind: f64,
    /// Seconds of a typical request, weighed as the search weighs them.
    pub seconds: f64,
}

impl Optimum {
    fn of(candidate: Candidate) -> Self {
        let Worth { behind, seconds } = candidate.worth;
        Self { settings: candidate.settings, behind, seconds }
    }
}

/// The smallest thing that a placement moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Layers, and the experts of a layer.
    Layers,
    /// Also matrices of layers, into what these leave of devices.
    Parts,
}

/// What the search finds; `None` where it finds nothing.
pub fn searched(machine: &Machine, model: &Model, target: &Target, request: &Request, grain: Grain) -> Option<Optimum> {
    on_sites(machine, model, target, request, |sites, rungs| {
        let mut ways = Ways::new(sites.to_vec(), rungs, |_| true);
        let best = ways.best(u32::MAX).map(Rc::unwrap_or_clone)?;
        Some(if grain == Grain::Parts { ways.filled(best, |_| true) } else { best })
    })
}

/// What trying everything finds; `None` where nothing fits. The effort grows with the product of layers and devices: for small models.
pub fn exhaustive(machine: &Machine, model: &Model, target: &Target, request: &Request, grain: Grain) -> Option<Optimum> {
    on_sites(machine, model, target, request, |sites, rungs| {
        let best = sites.iter().enumerate().filter_map(|(number, site)| site.enumerate(rungs, number > 0, grain));
        best.min_by(|a, b| a.worth.total_cmp(&b.worth))
    })
}

fn on_sites(
    machine: &Machine,
    model: &Model,
    target: &Target,
    request: &Request,
    best: impl for<'s> Fn(&[&'s Site<'s>], &[Rung]) -> Option<Candidate>,
) -> Option<Optimum> {
    let inventory = Inventory::as_run(model, &request.profile);
    let requirements = Requirements::new(model, target, &request.profile, &request.companions);
    let require = |settings: &Settings| requirements.require(settings);
    let site = Site::new(machine, model, target, request, &inventory, &require);
    let others = site.lineups();
    let sites: Vec<&Site<'_>> = std::iter::once(&site).chain(&others).collect();
    site.tiers().iter().find_map(|tier| best(&sites, tier)).map(Optimum::of)
}

impl Site<'_> {
    fn enumerate(&self, rungs: &[Rung], other: bool, grain: Grain) -> Option<Candidate> {
        let rungs: Vec<Rung> = rungs.iter().filter(|rung| !other || self.reaches(rung.reach)).copied().collect();
        let (frames, _) = self.frames(&rungs);
        let mut best: Option<Candidate> = None;
        for frame in &frames {
            for settings in self.everything(frame) {
                let evaluated = self.evaluate(&settings, &frame.rung);
                let (Some(requirement), Ok(residency)) = (evaluated.requirement, evaluated.outcome) else { continue };
                let candidate = self.candidate(settings, requirement, residency);
                let candidate = if grain == Grain::Parts { self.filled(candidate, &frame.rung) } else { candidate };
                if best.as_ref().is_none_or(|best| candidate.worth.total_cmp(&best.worth).is_lt()) {
                    best = Some(candidate);
                }
            }
        }
        best
    }

    /// Every placement of a frame.
    fn everything(&self, frame: &Frame) -> Vec<Settings> {
        let reach = frame.rung.reach;
        let steps = |route| match route {
            Route::Host => vec![Step { n_gpu_layers: 0, n_cpu_moe: frame.base.n_cpu_moe }],
            _ => self.leavings(reach).iter().flat_map(|&leaving| self.chain(&frame.base, reach, leaving)).collect(),
        };
        let unlimited = vec![f64::INFINITY; self.target.devices.len()];
        let mut all = Vec::new();
        for route in self.routes(reach, &frame.base) {
            for step in steps(route) {
                match route {
                    Route::FastestFirst => {
                        all.extend(splits(step.n_gpu_layers, self.target.devices.len()).into_iter().map(|tensor_split| {
                            let Step { n_gpu_layers, n_cpu_moe } = step;
                            let split =
                                Settings { n_gpu_layers, n_cpu_moe, tensor_split, split_mode: SplitMode::Layer, ..frame.base.clone() };
                            self.pinned(split)
                        }))
                    }
                    Route::Balanced => {}
                    _ => all.extend(self.at(&frame.base, route, step, &frame.sums, &unlimited)),
                }
            }
        }
        all
    }
}

/// Every way to write `n` as a sum over devices.
fn splits(n: u32, devices: usize) -> Vec<Vec<f64>> {
    match devices {
        0 => Vec::new(),
        1 => vec![vec![f64::from(n)]],
        _ => {
            let with_first = |first: u32| {
                splits(n - first, devices - 1).into_iter().map(move |rest| std::iter::once(f64::from(first)).chain(rest).collect())
            };
            (0..=n).flat_map(with_first).collect()
        }
    }
}
