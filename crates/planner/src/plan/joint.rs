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

/// The smaller one worth trying: what its compute buffers leave of devices may hold another layer, or the last.
pub(crate) const SMALL_UBATCH: u32 = 256;

/// Two ways whose worth differs by less are the same: the one with fewer changes is taken.
pub(crate) const SAME: f64 = 1.0 + 1e-9;

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
    /// What each device had left at the last evaluation; less than nothing where it had too little.
    left: Vec<f64>,
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
    /// Of the sites.
    site: usize,
    /// Of all frames.
    frame: usize,
    route: Route,
    steps: Vec<Step>,
    /// The step beyond which sums see no gain.
    aim: usize,
    bound: Worth,
}

/// How much of a chain's step is on devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tried {
    /// More than they hold, or it is not possible at all.
    TooMuch,
    /// So little that the host cannot hold the rest.
    TooLittle,
    Fits,
}

/// What following a way came to.
type Followed = Result<Rc<Candidate>, Vec<Rejected>>;

/// What a way led to: its site, its rung and the candidate.
pub(crate) type Led<'s> = (&'s Site<'s>, Rung, Rc<Candidate>);

/// The ways over some frames, each followed when it is asked for, and once.
pub(crate) struct Ways<'s> {
    sites: Vec<&'s Site<'s>>,
    frames: Vec<Frame>,
    ways: Vec<Way>,
    followed: Vec<Option<Followed>>,
    /// Rungs and frames that sums rule out.
    hopeless: Vec<(Rung, Rejected)>,
}

impl<'s> Ways<'s> {
    /// Over all frames of these rungs that are wanted, on each of these sites.
    pub(crate) fn new(sites: Vec<&'s Site<'s>>, rungs: &[Rung], wanted: impl Fn(&Frame) -> bool) -> Self {
        let (mut frames, mut ways, mut hopeless) = (Vec::new(), Vec::new(), Vec::new());
        for (number, site) in sites.iter().enumerate() {
            let rungs: Vec<Rung> = rungs.iter().filter(|rung| number == 0 || site.reaches(rung.reach)).copied().collect();
            let (mut own, ruled_out) = site.frames(&rungs);
            own.retain(&wanted);
            // Other devices than the engine would take are one change more.
            own.iter_mut().for_each(|frame| frame.changes += u32::from(number > 0));
            let (found, none) = site.ways(&own);
            ways.extend(found.into_iter().map(|way| Way { site: number, frame: frames.len() + way.frame, ..way }));
            hopeless.extend(ruled_out.into_iter().chain(none));
            frames.extend(own);
        }
        ways.sort_by(|a, b| a.bound.total_cmp(&b.bound));
        let followed = ways.iter().map(|_| None).collect();
        Self { sites, frames, ways, followed, hopeless }
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
        self.best_of(|frame| frame.changes <= changes)
    }

    /// The best of the frames that are wanted.
    pub(crate) fn best_of(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Rc<Candidate>> {
        let mut best: Option<Rc<Candidate>> = None;
        for (way, followed) in self.ways.iter().zip(&mut self.followed) {
            let frame = &self.frames[way.frame];
            if best.as_ref().is_some_and(|best| best.worth.total_cmp(&way.bound).is_le()) {
                break;
            }
            if !wanted(frame) {
                continue;
            }
            let result = followed.get_or_insert_with(|| self.sites[way.site].follow(way, frame).map(Rc::new));
            if let Ok(candidate) = result
                && best.as_ref().is_none_or(|best| candidate.worth.better_than(&best.worth, SAME))
            {
                best = Some(Rc::clone(candidate));
            }
        }
        best
    }

    /// What wanted ways have led to so far, each with its site and rung, the best first.
    pub(crate) fn found(&self, wanted: impl Fn(&Frame) -> bool) -> Vec<Led<'s>> {
        let ways = self.ways.iter().zip(&self.followed).filter(|(way, _)| wanted(&self.frames[way.frame]));
        let found = |(way, followed): (&Way, &Option<Followed>)| {
            let candidate = followed.as_ref()?.as_ref().ok()?;
            Some((self.sites[way.site], self.frames[way.frame].rung, Rc::clone(candidate)))
        };
        let mut all: Vec<_> = ways.filter_map(found).collect();
        all.sort_by(|a, b| a.2.worth.total_cmp(&b.2.worth));
        all
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
        let mut ways = Ways::new(vec![self], &[*rung], wanted);
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
        let of_size = |ubatch: u32| move |base: &Settings| Settings { n_ubatch: ubatch, n_batch: base.n_batch.max(ubatch), ..base.clone() };
        let larger = UBATCHES.map(of_size);
        let larger = larger.iter().zip(UBATCHES).filter(|&(_, ubatch)| free && base.n_ubatch < ubatch && ubatch <= most);
        let mut others: Vec<&dyn Fn(&Settings) -> Settings> = larger.map(|(change, _)| change as _).collect();
        let devices = self.wants_devices();
        let smaller = of_size(SMALL_UBATCH);
        if free && devices && base.n_ubatch > SMALL_UBATCH {
            others.push(&smaller);
        }
        let plain = bases.clone();
        vary(&mut bases, &others);
        if self.request.profile.bitnet.is_some() {
            // It has nothing else to vary.
            return bases;
        }
        let sizes = bases.clone();
        // Rearranged copies are for the CPU alone: prompts are computed on a GPU over weights that are left as they are.
        let copies = self.target.devices.iter().all(|device| !device.backend.host_buffer) && base.repack && self.request.profile.repack;
        if devices && copies && base.op_offload && !rung.disk && pins.repack.is_none() {
            vary(&mut bases, &[&|base| Settings { repack: false, ..base.clone() }]);
        }
        if devices && rung.reach == Reach::Anywhere && base.kv_offload && pins.kv_offload.is_none() && !self.may_hold_all(base) {
            bases.extend(sizes.iter().map(|(base, changes)| (Settings { kv_offload: false, ..base.clone() }, changes + 1)));
        }
        if base.flash_attn == FlashAttention::Auto && pins.flash_attn.is_none() && !base.cache_type_v.is_quantized() {
            let off = |base: &Settings| Settings { flash_attn: FlashAttention::Off, ..base.clone() };
            bases.extend(plain.iter().map(|(base, changes)| (off(base), changes + 1)));
        }
        if devices && base.op_offload && pins.op_offload.is_none() {
            // What a larger micro-batch saves are copies of host weights, and reading experts again: without either it is not tried.
            let uncopied = if self.inventory.has_experts() { sizes } else { plain };
            bases.extend(uncopied.into_iter().map(|(base, changes)| (Settings { op_offload: false, ..base }, changes + 1)));
        }
        bases
    }

    /// True where weights and cache are not more than devices have in all.
    fn may_hold_all(&self, base: &Settings) -> bool {
        let computed = self.inventory.layers.iter().filter(|layer| layer.computed);
        let layers: Bytes = computed.map(|layer| layer.dense + layer.experts + layer.cache(base)).sum();
        layers + self.inventory.output <= self.pools.device_limit()
    }

    /// Every way over the frames, with its bound; and for each frame that has none, why.
    fn ways(&self, frames: &[Frame]) -> (Vec<Way>, Vec<(Rung, Rejected)>) {
        let limits = self.limits(true);
        let (mut ways, mut hopeless) = (Vec::new(), Vec::new());
        for (number, frame) in frames.iter().enumerate() {
            let before = ways.len();
            for route in self.routes(frame.rung.reach, &frame.base) {
                for &leaving in self.leavings(frame.rung.reach) {
                    let steps = match route {
                        Route::Host => vec![Step { n_gpu_layers: 0, n_cpu_moe: frame.base.n_cpu_moe }],
                        _ => self.chain(&frame.base, frame.rung.reach, leaving),
                    };
                    let Some((last, settings)) = self.furthest(frame, route, &steps, &limits) else { continue };
                    let furthest = (last, self.bound(&settings, frame));
                    let (aim, bound) = self.worthwhile(frame, route, &steps, furthest, &limits);
                    let apart = if route == Route::FastestFirst { self.output_apart(&settings, frame, &limits) } else { Vec::new() };
                    let apart = apart.iter().map(|settings| self.bound(settings, frame));
                    let bound = apart.fold(bound, |bound, other| if other.total_cmp(&bound).is_lt() { other } else { bound });
                    self.considered.set(self.considered.get() + steps.len());
                    ways.push(Way { site: 0, frame: number, route, steps, aim, bound });
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

    /// What of each device sums may fill: its limit, less what a driver takes of a device in use, and more by all that a user's rules
    /// move: sums count it where its layers are.
    fn limits(&self, runtime: bool) -> Vec<f64> {
        let moved: f64 = self.moved.iter().map(|moved| moved.bytes).sum();
        let devices = self.pools.devices.iter().zip(&self.target.devices);
        let limit = devices.map(|(pool, device)| {
            let taken = if runtime { device.backend.runtime.high().copied().unwrap_or(Bytes::ZERO) } else { Bytes::ZERO };
            pool.limit.unwrap_or(Bytes::ZERO).as_f64() - taken.as_f64() + moved
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

    /// The step of a chain that is worth most by sums: where the host is faster than a device, that is not the last that fits. Times fall
    /// and rise once along a chain, but for a jump at its start and where experts begin. Where it is the last, sums bound nothing beyond it: the end of the chain.
    fn worthwhile(&self, frame: &Frame, route: Route, steps: &[Step], (last, at_last): (usize, Worth), limits: &[f64]) -> (usize, Worth) {
        let at = |step: usize| {
            let settings = self.at(&frame.base, route, *steps.get(step)?, &frame.sums, limits)?;
            Some((step, self.bound(&settings, frame)))
        };
        let better = |a: &(usize, Worth), b: &(usize, Worth)| a.1.total_cmp(&b.1).is_lt();
        let end = (steps.len().saturating_sub(1), at_last);
        let Some(before) = last.checked_sub(1).and_then(at) else { return end };
        let first = at(0).unwrap_or(before);
        let mut best = (last, at_last);
        if better(&before, &best) {
            let (mut low, mut high) = (0, before.0);
            while high - low > 2 {
                let third = (high - low) / 3;
                match (at(low + third), at(high - third)) {
                    (Some(a), Some(b)) if better(&b, &a) => low = a.0,
                    (Some(_), Some(b)) => high = b.0,
                    _ => break,
                }
            }
            best = (low..=high).filter_map(at).fold(before, |best, step| if better(&step, &best) { step } else { best });
        }
        // Where experts begin to follow what is dense, onto devices that may be slower at them than the host.
        let turn = steps.iter().rposition(|step| step.n_cpu_moe == steps[0].n_cpu_moe).filter(|&turn| turn < last).and_then(at);
        for other in [Some(first), turn].into_iter().flatten() {
            best = if better(&other, &best) { other } else { best };
        }
        if best.0 < last { best } else { end }
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

    /// As far along a way as the exact requirement allows, but no further than is worth it. Where the host has too little for what that
    /// leaves to it, the least beyond that it can hold.
    fn follow(&self, way: &Way, frame: &Frame) -> Placed {
        let limits = self.limits(false);
        let beyond = vec![self.compute_guess(&frame.base); limits.len()];
        let mut border = Border { beyond, measured: vec![false; limits.len()], ..Border::default() };
        let (mut low, fits) = self.climb(way, frame, &limits, &mut border, (0, way.aim + 1));
        if fits.is_none() && low > way.aim {
            let (_, mut found) = self.climb(way, frame, &limits, &mut border, (low, way.steps.len()));
            while let Some(step) = found.filter(|&step| low < step) {
                let middle = (low + step) / 2;
                match self.try_at(way, middle, frame, &limits, &mut border, None) {
                    Tried::Fits => found = Some(middle),
                    _ => low = middle + 1,
                }
            }
        }
        if border.best.is_none() && border.tried.is_empty() {
            border.tried.push(self.too_large(frame));
        }
        if matches!(way.route, Route::FastestFirst | Route::Balanced) {
            border.best = border.best.map(|best| self.improved(best, frame));
        }
        border.best.ok_or(border.tried)
    }

    /// Towards the last step before `fails` that fits. What is not too much at a step is not at any before it: sums, corrected by what the
    /// exact requirement had beyond them, propose a step between the last that is not and the first that is, until these are neighbours.
    /// The first step that is not known to be too little or to fit, and the last that fits.
    fn climb(
        &self,
        way: &Way,
        frame: &Frame,
        limits: &[f64],
        border: &mut Border,
        (mut next, mut fails): (usize, usize),
    ) -> (usize, Option<usize>) {
        let (mut fits, last) = (None, fails);
        // What rules of the user's move is counted elsewhere by sums, so that these would go back by few steps at a time.
        let blind = !self.moved.is_empty();
        for _ in 0..STEPS {
            if next >= fails {
                break;
            }
            let furthest = self.furthest(frame, way.route, &way.steps[..fails], &border.capacities(limits));
            // Where the sums see no step that fits: half way, to see for oneself.
            let proposed = furthest.as_ref().map(|(step, _)| (*step).max(next)).filter(|_| !blind || fails == last);
            let step = proposed.unwrap_or((next + fails - 1) / 2);
            let settings = furthest.filter(|(furthest, _)| *furthest == step).map(|(_, settings)| settings);
            match self.try_at(way, step, frame, limits, border, settings) {
                Tried::Fits => (next, fits) = (step + 1, Some(step)),
                Tried::TooLittle => next = step + 1,
                Tried::TooMuch => fails = step,
            }
        }
        (next, fits)
    }

    /// Evaluates a step exactly, over several devices split anew by what is then known of each; with these settings, if any are proposed.
    fn try_at(&self, way: &Way, step: usize, frame: &Frame, limits: &[f64], border: &mut Border, proposed: Option<Settings>) -> Tried {
        let (route, step) = (way.route, way.steps[step]);
        let at = |capacities: &[f64]| self.at(&frame.base, route, step, &frame.sums, capacities);
        let Some(settings) = proposed.or_else(|| at(&border.at_most(limits))).or_else(|| at(limits)) else { return Tried::TooMuch };
        let mut tried = self.try_settings(&settings, frame, border);
        if !matches!(route, Route::FastestFirst | Route::Balanced) {
            return tried;
        }
        let mut seen = vec![settings];
        for _ in 0..RESPLITS {
            let again = at(&border.capacities(limits)).or_else(|| at(&border.at_most(limits)));
            let again = again.filter(|settings| !seen.contains(settings)).or_else(|| self.relieved(seen.last()?, &border.left));
            let Some(again) = again.filter(|settings| !seen.contains(settings)) else { break };
            tried = tried.max(self.try_settings(&again, frame, border));
            seen.push(again);
        }
        tried
    }

    /// The settings with a layer less on the device that has too little, and one more where most is left; `None` where every device holds
    /// what it has.
    fn relieved(&self, settings: &Settings, left: &[f64]) -> Option<Settings> {
        let device = |worst: bool| {
            let devices =
                left.iter().enumerate().filter(|(device, _)| !worst || settings.tensor_split.get(*device).is_some_and(|n| *n >= 1.0));
            let order = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1);
            if worst { devices.min_by(order) } else { devices.max_by(order) }
        };
        let ((from, short), (to, spare)) = (device(true)?, device(false)?);
        if from == to || *short >= 0.0 || *spare <= 0.0 {
            return None;
        }
        let mut split = settings.tensor_split.clone();
        *split.get_mut(from)? -= 1.0;
        *split.get_mut(to)? += 1.0;
        Some(Settings { tensor_split: split, ..settings.clone() })
    }

    /// Evaluates settings exactly and keeps them where they are the best so far.
    fn try_settings(&self, settings: &Settings, frame: &Frame, border: &mut Border) -> Tried {
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
                Tried::Fits
            }
            // Of the steps of one chain, the last is the one that came nearest.
            (_, outcome) => {
                let rejection = outcome.err();
                // Devices are looked at first: where the host is named they hold what they were given.
                let host = rejection.as_ref().is_some_and(|rejection| rejection.place() == Some(&Pool::Host));
                border.tried = rejection.map(|rejection| self.rejected(settings, rejection)).into_iter().collect();
                if host { Tried::TooLittle } else { Tried::TooMuch }
            }
        }
    }

    /// What the exact requirement of each device has beyond the sums: compute buffers, the driver, padding.
    fn correct(&self, border: &mut Border, settings: &Settings, sums: &Sums, requirement: &Requirement) {
        let loads = self.loads_of(settings, sums, &requirement.layer_devices);
        border.left = self.left_on_devices(requirement);
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
        let rejection = Rejection::DoesNotFit { pool: self.device_pool(), needs, limit: self.pools.device_limit(), others: Vec::new() };
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
        let computed = self.inventory.layers.iter().filter(|layer| layer.computed);
        let layers: Bytes = computed.map(|layer| layer.dense + layer.experts).sum();
        let devices = self.pools.device_limit();
        if rung.reach == Reach::Devices && base.n_cpu_moe == 0 && self.request.pins.n_gpu_layers.is_none() {
            let needs = layers + self.inventory.output + if base.kv_offload { cache } else { Bytes::ZERO };
            if needs > devices {
                let whole = Settings { n_gpu_layers: self.inventory.offloadable(), ..base.clone() };
                return Some(
                    self.rejected(&whole, Rejection::DoesNotFit { pool: self.device_pool(), needs, limit: devices, others: Vec::new() }),
                );
            }
        }
        let output = if self.inventory.tied { Bytes::ZERO } else { self.inventory.output };
        let on_devices = if self.wants_devices() { self.pools.own_device_limit() } else { Bytes::ZERO };
        let needs = (layers + output + self.inventory.input + cache).saturating_sub(on_devices);
        let limit = self.pools.host.with_files.filter(|&limit| needs > limit)?;
        Some(self.rejected_anywhere(base, Rejection::DoesNotFit { pool: Pool::Host, needs, limit, others: Vec::new() }))
    }
}
