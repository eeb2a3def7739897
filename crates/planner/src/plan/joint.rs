//! The joint search: every way to set what a rung leaves open, with every way to give layers to devices, the most promising first.
//!
//! A way is bounded by what it would be worth if only weights and cache took memory. Ways are followed in the order of these bounds,
//! each as far along its chain as the exact requirement allows, until no bound is better than what was found.

use super::chain::{Route, Step, Sums};
use super::objective::Worth;
use super::refusal::{Rejected, Rejection};
use super::site::{Candidate, Reach, Rung, Site};
use super::verdict::Pool;
use crate::predict::HostState;
use footprint::Requirement;
use spec::settings::{FlashAttention, LoadMode};
use spec::{Bytes, Settings};
use std::rc::Rc;

/// Exact evaluations that following one chain may take.
const STEPS: usize = 16;

/// Splits of one step over devices that may be evaluated.
const RESPLITS: usize = 4;

/// Micro-batches worth trying: the engine's, and larger ones, each of which copies host weights to the GPU once
/// (512 to 2048: prefill ×2.6 in public sweeps).
const UBATCHES: [u32; 3] = [1024, 2048, 4096];

/// Two ways whose worth differs by less are the same: the one with fewer changes is taken.
const SAME: f64 = 1.0 + 1e-9;

/// What placing came to.
pub(crate) type Placed = Result<Candidate, Vec<Rejected>>;

/// All settings but where layers go, on one rung.
pub(crate) struct Frame {
    pub(crate) rung: Rung,
    pub(crate) base: Settings,
    pub(crate) sums: Sums,
    /// Without caches.
    weights: Rc<Sums>,
    /// Settings of `base` that are not the engine's default and need not be.
    pub(crate) changes: u32,
}

/// How far along a chain memory reaches, as far as it is known.
#[derive(Default)]
struct Border {
    /// What each device needs beyond the sums: a guess, until the exact requirement has said it.
    beyond: Vec<f64>,
    measured: Vec<bool>,
    best: Option<Candidate>,
    tried: Vec<Rejected>,
}

impl Border {
    /// What sums may fill of each device.
    fn capacities(&self, limits: &[f64]) -> Vec<f64> {
        limits.iter().zip(&self.beyond).map(|(limit, beyond)| limit - beyond).collect()
    }

    /// The same without guesses.
    fn at_most(&self, limits: &[f64]) -> Vec<f64> {
        let beyond = self.beyond.iter().zip(&self.measured).map(|(beyond, measured)| if *measured { *beyond } else { 0.0 });
        limits.iter().zip(beyond).map(|(limit, beyond)| limit - beyond).collect()
    }
}

/// One chain of one frame, and what it could be worth.
struct Way {
    frame: usize,
    route: Route,
    steps: Vec<Step>,
    bound: Worth,
}

/// The ways over some frames, each followed when it is asked for, and once.
pub(crate) struct Ways<'s, 'a> {
    site: &'s Site<'a>,
    frames: Vec<Frame>,
    ways: Vec<Way>,
    followed: Vec<Option<Result<Rc<Candidate>, Vec<Rejected>>>>,
    /// Rungs and frames that sums rule out.
    hopeless: Vec<(Rung, Rejected)>,
}

impl<'s, 'a> Ways<'s, 'a> {
    /// Over all frames of these rungs that are wanted.
    pub(crate) fn new(site: &'s Site<'a>, rungs: &[Rung], wanted: impl Fn(&Frame) -> bool) -> Self {
        let (mut frames, mut hopeless) = site.frames(rungs);
        frames.retain(wanted);
        let (mut ways, none) = site.ways(&frames);
        hopeless.extend(none);
        ways.sort_by(|a, b| a.bound.total_cmp(&b.bound));
        let followed = ways.iter().map(|_| None).collect();
        Self { site, frames, ways, followed, hopeless }
    }

    /// Drops ways along other routes than these, if any are named.
    fn keep(&mut self, routes: &[Route]) {
        self.ways.retain(|way| routes.is_empty() || routes.contains(&way.route));
        self.followed.truncate(self.ways.len());
    }

    /// Most changes to the engine's defaults of any frame.
    pub(crate) fn most_changes(&self) -> u32 {
        self.frames.iter().map(|frame| frame.changes).max().unwrap_or(0)
    }

    /// The best with at most so many changes to the engine's defaults.
    pub(crate) fn best(&mut self, changes: u32) -> Option<Rc<Candidate>> {
        let mut best: Option<Rc<Candidate>> = None;
        for (way, followed) in self.ways.iter().zip(&mut self.followed) {
            let frame = &self.frames[way.frame];
            if best.as_ref().is_some_and(|best| best.worth.total_cmp(&way.bound).is_le()) {
                break;
            }
            if frame.changes > changes {
                continue;
            }
            let result = followed.get_or_insert_with(|| self.site.follow(way, frame).map(Rc::new));
            if let Ok(candidate) = result
                && best.as_ref().is_none_or(|best| candidate.worth.better_than(&best.worth, SAME))
            {
                best = Some(Rc::clone(candidate));
            }
        }
        best
    }

    /// Why nothing was found: of each rung and memory what came nearest.
    pub(crate) fn tried(self) -> Vec<Rejected> {
        let followed = self.ways.iter().zip(self.followed).filter_map(|(way, followed)| {
            let rejected = followed?.err()?;
            Some(rejected.into_iter().map(|rejected| (self.frames[way.frame].rung, rejected)).collect::<Vec<_>>())
        });
        let mut nearest: Vec<(Rung, Rejected)> = Vec::new();
        for (rung, rejected) in self.hopeless.into_iter().chain(followed.flatten()) {
            let same = |(other, known): &&mut (Rung, Rejected)| *other == rung && known.rejection.place() == rejected.rejection.place();
            match nearest.iter_mut().find(same) {
                Some((_, known)) if rejected.rejection.missing() < known.rejection.missing() => *known = rejected,
                Some(_) => {}
                None => nearest.push((rung, rejected)),
            }
        }
        nearest.into_iter().map(|(_, rejected)| rejected).collect()
    }
}

impl Site<'_> {
    /// The best placement on a rung.
    pub(crate) fn place(&self, rung: &Rung) -> Placed {
        self.place_with(rung, |_| true)
    }

    /// The best placement on a rung with the frames that are wanted.
    pub(crate) fn place_with(&self, rung: &Rung, wanted: impl Fn(&Frame) -> bool) -> Placed {
        self.place_along(rung, wanted, &[])
    }

    /// The same along these routes; along all, where none is named.
    pub(crate) fn place_along(&self, rung: &Rung, wanted: impl Fn(&Frame) -> bool, routes: &[Route]) -> Placed {
        let mut ways = Ways::new(self, &[*rung], wanted);
        ways.keep(routes);
        match ways.best(u32::MAX) {
            Some(best) => Ok(Rc::unwrap_or_clone(best)),
            None => Err(ways.tried()),
        }
    }

    /// Every frame of the rungs, and the rungs that weights and cache alone rule out.
    pub(crate) fn frames(&self, rungs: &[Rung]) -> (Vec<Frame>, Vec<(Rung, Rejected)>) {
        let (mut frames, mut tried) = (Vec::new(), Vec::new());
        let weights = Rc::new(Sums::of_weights(self.inventory));
        for rung in rungs {
            let base = self.base(rung);
            if let Some(rejected) = self.ruled_out(rung, &base) {
                tried.push((*rung, rejected));
                continue;
            }
            let frame = |(base, changes)| {
                let (sums, weights) = (Sums::new(self.inventory, &base), Rc::clone(&weights));
                Frame { rung: *rung, sums, weights, base, changes }
            };
            frames.extend(self.variants(rung, &base).into_iter().map(frame));
        }
        (frames, tried)
    }

    /// What a rung leaves open besides placement, the engine's defaults first: micro-batch, computing over host weights on the GPU,
    /// reading weights that a device would map, rearranged copies where the host is short.
    fn variants(&self, rung: &Rung, base: &Settings) -> Vec<(Settings, u32)> {
        let pins = &self.request.pins;
        let mut bases = vec![(base.clone(), 0)];
        let vary = |bases: &mut Vec<(Settings, u32)>, changes: &[&dyn Fn(&Settings) -> Settings]| {
            let plain = bases.clone();
            for change in changes {
                bases.extend(plain.iter().map(|(base, count)| (change(base), count + 1)));
            }
        };
        let maps = self.target.devices.iter().any(|device| device.backend.maps_weights);
        if maps && base.load_mode == LoadMode::Auto && pins.load_mode.is_none() {
            vary(&mut bases, &[&|base| Settings { load_mode: LoadMode::None, ..base.clone() }]);
        }
        if rung.disk && base.repack && pins.repack.is_none() && self.request.profile.repack {
            vary(&mut bases, &[&|base| Settings { repack: false, ..base.clone() }]);
        }
        let read = self.needs.workload.computed().checked_next_power_of_two().unwrap_or(u32::MAX);
        let most = base.n_ctx.min(pins.n_batch.unwrap_or(u32::MAX)).min(read);
        let free = pins.n_ubatch.is_none() && !base.embeddings && self.request.profile.bitnet.is_none();
        let larger =
            UBATCHES.map(|ubatch| move |base: &Settings| Settings { n_ubatch: ubatch, n_batch: base.n_batch.max(ubatch), ..base.clone() });
        let larger = larger.iter().zip(UBATCHES).filter(|&(_, ubatch)| free && base.n_ubatch < ubatch && ubatch <= most);
        let larger: Vec<&dyn Fn(&Settings) -> Settings> = larger.map(|(change, _)| change as _).collect();
        let plain = bases.clone();
        vary(&mut bases, &larger);
        // What a larger micro-batch saves are copies of host weights: without these it is not tried.
        if self.wants_devices() && base.op_offload && pins.op_offload.is_none() {
            bases.extend(plain.into_iter().map(|(base, changes)| (Settings { op_offload: false, ..base }, changes + 1)));
        }
        bases
    }

    /// Every way over the frames, with its bound; and for each frame that has none, why.
    fn ways(&self, frames: &[Frame]) -> (Vec<Way>, Vec<(Rung, Rejected)>) {
        let limits = self.limits(true);
        let (mut ways, mut hopeless) = (Vec::new(), Vec::new());
        for (number, frame) in frames.iter().enumerate() {
            let before = ways.len();
            for route in self.routes(frame.rung.reach) {
                for &leaving in self.leavings(frame.rung.reach) {
                    let steps = match route {
                        Route::Host => vec![Step { n_gpu_layers: 0, n_cpu_moe: frame.base.n_cpu_moe }],
                        _ => self.chain(&frame.base, frame.rung.reach, leaving),
                    };
                    let Some((_, settings)) = self.furthest(frame, route, &steps, &limits) else { continue };
                    let bound = self.bound(&settings, frame);
                    self.considered.set(self.considered.get() + steps.len());
                    ways.push(Way { frame: number, route, steps, bound });
                    if route == Route::Host {
                        break;
                    }
                }
            }
            if ways.len() == before {
                hopeless.push((frame.rung, self.too_large(frame)));
            }
        }
        (ways, hopeless)
    }

    /// What of each device sums may fill: its limit, less what a driver takes of a device in use; everything where user's rules move tensors
    /// that sums do not see.
    fn limits(&self, runtime: bool) -> Vec<f64> {
        let devices = self.pools.devices.iter().zip(&self.target.devices);
        let limit = devices.map(|(pool, device)| {
            let taken = if runtime { device.backend.runtime.high().copied().unwrap_or(Bytes::ZERO) } else { Bytes::ZERO };
            let limit = pool.limit.unwrap_or(Bytes::ZERO).as_f64() - taken.as_f64();
            if self.moved.is_empty() { limit } else { f64::INFINITY }
        });
        limit.collect()
    }

    /// The last step that the sums allow.
    fn furthest(&self, frame: &Frame, route: Route, steps: &[Step], capacities: &[f64]) -> Option<(usize, Settings)> {
        let at = |step: usize| self.at(&frame.base, route, steps[step], &frame.sums, capacities).map(|settings| (step, settings));
        let last = steps.len().checked_sub(1)?;
        if let Some(found) = at(last) {
            return Some(found);
        }
        let mut best = at(0)?;
        let mut high = last;
        while best.0 + 1 < high {
            let middle = (best.0 + high) / 2;
            match at(middle) {
                Some(found) => best = found,
                None => high = middle,
            }
        }
        Some(best)
    }

    /// What settings could be worth at best: no more missing from memory than weights alone are too many for it, and host weights in
    /// whatever form is faster.
    fn bound(&self, settings: &Settings, frame: &Frame) -> Worth {
        let devices = self.layer_devices(settings);
        let flash_attention = settings.flash_attn != FlashAttention::Off;
        let on_devices: f64 = self.loads_of(settings, &frame.weights, &devices).iter().sum();
        let on_host = frame.weights.bytes(0, 0, usize::MAX) - on_devices;
        let missing = match self.pools.host.with_files {
            Some(limit) if frame.rung.disk && self.moved.is_empty() && on_host > 0.0 => (1.0 - limit.as_f64() / on_host).max(0.0),
            _ => 0.0,
        };
        let worth = |repacked: f64| {
            let state = HostState { missing, repacked, flash_attention };
            self.worth(settings, &self.timing(settings, &devices, &self.moved, &state))
        };
        let plain = worth(0.0);
        let may_be_copies = settings.repack && settings.op_offload && self.request.profile.repack && devices.contains(&None);
        if may_be_copies && !self.target.devices.is_empty() { plain.least(worth(1.0)) } else { plain }
    }

    /// As far along a way as the exact requirement allows. What fits at a step fits at all before it: sums, corrected by what the exact
    /// requirement had beyond them, propose a step between the last that fits and the first that does not, until these are neighbours.
    fn follow(&self, way: &Way, frame: &Frame) -> Placed {
        let limits = self.limits(false);
        let beyond = vec![self.compute_guess(&frame.base); limits.len()];
        let mut border = Border { beyond, measured: vec![false; limits.len()], ..Border::default() };
        let (mut fits, mut fails) = (None, way.steps.len());
        for _ in 0..STEPS {
            let next = fits.map_or(0, |step: usize| step + 1);
            if next >= fails {
                break;
            }
            let furthest = self.furthest(frame, way.route, &way.steps[..fails], &border.capacities(&limits));
            // Where the sums see no step that fits: half way, to see for oneself.
            let step = furthest.as_ref().map_or((next + fails - 1) / 2, |(step, _)| (*step).max(next));
            let settings = furthest.filter(|(furthest, _)| *furthest == step).map(|(_, settings)| settings);
            let settings = settings.or_else(|| self.at(&frame.base, way.route, way.steps[step], &frame.sums, &border.at_most(&limits)));
            let settings = settings.or_else(|| self.at(&frame.base, way.route, way.steps[step], &frame.sums, &limits));
            if settings.is_some_and(|settings| self.try_step(settings, (way.route, way.steps[step]), frame, &limits, &mut border)) {
                fits = Some(step);
            } else {
                fails = step;
            }
        }
        if border.best.is_none() && border.tried.is_empty() {
            border.tried.push(self.too_large(frame));
        }
        border.best.ok_or(border.tried)
    }

    /// Evaluates a step exactly, over several devices split anew by what is then known of each; true where it fits.
    fn try_step(&self, settings: Settings, (route, step): (Route, Step), frame: &Frame, limits: &[f64], border: &mut Border) -> bool {
        let mut fits = self.try_settings(&settings, frame, border);
        if !matches!(route, Route::FastestFirst | Route::Balanced) {
            return fits;
        }
        let mut seen = vec![settings];
        for _ in 0..RESPLITS {
            let at = |capacities: &[f64]| self.at(&frame.base, route, step, &frame.sums, capacities);
            let again = at(&border.capacities(limits)).or_else(|| at(&border.at_most(limits)));
            let Some(again) = again.filter(|settings| !seen.contains(settings)) else { break };
            fits |= self.try_settings(&again, frame, border);
            seen.push(again);
        }
        fits
    }

    /// Evaluates settings exactly and keeps them where they are the best so far; true where they fit.
    fn try_settings(&self, settings: &Settings, frame: &Frame, border: &mut Border) -> bool {
        let evaluated = self.evaluate(settings, &frame.rung);
        if let Some(requirement) = &evaluated.requirement {
            self.correct(border, settings, &frame.sums, requirement);
        }
        match (evaluated.requirement, evaluated.outcome) {
            (Some(requirement), Ok(residency)) => {
                let candidate = self.candidate(settings.clone(), requirement, residency);
                if border.best.as_ref().is_none_or(|best| candidate.worth.better_than(&best.worth, SAME)) {
                    border.best = Some(candidate);
                }
                true
            }
            // Of the steps of one chain, the last is the one that came nearest.
            (_, outcome) => {
                border.tried = outcome.err().map(|rejection| self.rejected(settings, rejection)).into_iter().collect();
                false
            }
        }
    }

    /// What the exact requirement of each device has beyond the sums: compute buffers, the driver, padding.
    fn correct(&self, border: &mut Border, settings: &Settings, sums: &Sums, requirement: &Requirement) {
        let loads = self.loads_of(settings, sums, &requirement.layer_devices);
        for (i, (device, sum)) in requirement.devices.iter().zip(loads).enumerate() {
            // A device without layers says nothing of what it would need with some.
            if let (Some(total), true) = (device.total().high(), sum > 0.0) {
                (border.beyond[i], border.measured[i]) = (total.as_f64() - sum, true);
            }
        }
    }

    /// The rejection of a frame whose weights and cache are more than there is.
    fn too_large(&self, frame: &Frame) -> Rejected {
        let needs = Bytes::from_f64(frame.sums.bytes(frame.base.n_cpu_moe, 0, self.inventory.layers.len() + 1));
        let rejection = Rejection::DoesNotFit { pool: self.device_pool(), needs, limit: self.pools.device_limit() };
        let whole = Settings { n_gpu_layers: self.inventory.offloadable(), ..frame.base.clone() };
        self.rejected(&self.pinned(whole), rejection)
    }

    /// A first guess of what a device needs beyond weights and cache: activations of the widest block, masks, logits, and
    /// one copied tensor where the GPU computes over host weights. The exact requirement replaces it.
    fn compute_guess(&self, settings: &Settings) -> f64 {
        let tokens = f64::from(settings.n_ubatch.min(settings.n_ctx));
        let cells = f64::from(settings.n_ctx);
        let block = self.inventory.activation_width as f64 * tokens * 4.0;
        let mask = cells * tokens * if settings.flash_attn == FlashAttention::Off { 36.0 } else { 2.0 };
        let logits = self.inventory.n_vocab as f64 * f64::from(settings.n_parallel) * 4.0;
        let copied = if settings.op_offload { self.inventory.largest_tensor.as_f64() } else { 0.0 };
        let runtime = self.target.devices.first().and_then(|device| device.backend.runtime.high().copied());
        block + mask + logits + copied + runtime.unwrap_or(Bytes::ZERO).as_f64()
    }

    /// What no placement can change, from sums alone: weights and cache that must lie somewhere.
    fn ruled_out(&self, rung: &Rung, base: &Settings) -> Option<Rejected> {
        if rung.disk || !self.moved.is_empty() {
            return None;
        }
        let cache: Bytes = self.inventory.layers.iter().map(|layer| layer.cache(base)).sum();
        let layers: Bytes = self.inventory.layers.iter().map(|layer| layer.dense + layer.experts).sum();
        let devices = self.pools.device_limit();
        if rung.reach == Reach::Devices && base.n_cpu_moe == 0 && self.request.pins.n_gpu_layers.is_none() {
            let needs = layers + self.inventory.output + if base.kv_offload { cache } else { Bytes::ZERO };
            if needs > devices {
                let whole = Settings { n_gpu_layers: self.inventory.offloadable(), ..base.clone() };
                return Some(self.rejected(&whole, Rejection::DoesNotFit { pool: self.device_pool(), needs, limit: devices }));
            }
        }
        let output = if self.inventory.tied { Bytes::ZERO } else { self.inventory.output };
        let on_devices = if self.wants_devices() { self.pools.own_device_limit() } else { Bytes::ZERO };
        let needs = (layers + output + self.inventory.input + cache).saturating_sub(on_devices);
        let limit = self.pools.host.with_files.filter(|&limit| needs > limit)?;
        Some(self.rejected_anywhere(base, Rejection::DoesNotFit { pool: Pool::Host, needs, limit }))
    }
}
