//! The gate: what the engine would do itself, with `--fit` and its defaults, is a candidate of every search, and is kept unless a plan is
//! better by a margin.

use super::chain::Route;
use super::joint::{Frame, Placed, Ways};
use super::search::Found;
use super::site::{Candidate, Reach, Rung, Site};
use crate::emit::ALL;
use crate::emit::flags::{flags, value_text};
use crate::fit::{FitEnd, FitGoal, fit};
use spec::{Bytes, Known, QuantType, Settings, TokensPerSec};
use std::rc::Rc;

/// The part of a prediction's interval, as a logarithm, that two predictions on one machine are taken not to share. An assumption; both
/// rest on the same rates, so that most of what is wrong with one is wrong with the other.
const NOT_SHARED: f64 = 0.05;

/// No win of less counts, and none of more is asked for.
const MARGINS: (f64, f64) = (0.02, 0.1);

/// What the engine would do itself, and how a plan compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// The engine's own settings with the plan's context: `--fit` for where layers go, defaults for the rest.
    pub settings: Settings,
    /// How `--fit` ended.
    pub end: FitEnd,
    /// Seconds of a typical request under them; why they cannot be had where a limit or a floor is in the way.
    pub seconds: Result<f64, String>,
    /// Seconds of the same request under the plan.
    pub plan_seconds: f64,
    /// By which share of the time a plan must win to be taken instead.
    pub margin: f64,
    /// Settings in which the plan differs; empty where the engine's own were taken.
    pub deviations: Vec<Deviation>,
}

/// A setting in which a plan differs from what the engine would do itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// The setting.
    pub setting: &'static str,
    /// The engine's value.
    pub default: String,
    /// The plan's.
    pub chosen: String,
}

impl Gate {
    /// True where the plan is the engine's own choice.
    pub fn kept(&self) -> bool {
        self.deviations.is_empty()
    }

    /// True where it is, but for the CPUs that threads are held to.
    pub fn places(&self) -> bool {
        self.deviations.iter().all(|deviation| deviation.setting == "cpu_mask")
    }
}

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let asked = self.margin * 100.0;
        match &self.seconds {
            _ if self.kept() => write!(f, "the engine's own --fit and defaults: no other settings are better by {asked:.0} %"),
            Ok(seconds) if self.places() => {
                let (plan, digits) = (self.plan_seconds, if self.plan_seconds < 10.0 { 2 } else { 0 });
                write!(
                    f,
                    "the engine's own --fit and defaults, with threads held to fast cores: ~{plan:.digits$} s a request instead of ~{seconds:.digits$} s; no other settings are better by {asked:.0} %"
                )
            }
            Ok(seconds) => {
                let less = (1.0 - self.plan_seconds / seconds) * 100.0;
                let (plan, changed) = (self.plan_seconds, self.names());
                let digits = if plan < 10.0 { 2 } else { 0 };
                write!(
                    f,
                    "~{plan:.digits$} s a request instead of ~{seconds:.digits$} s by the engine's own --fit ({less:.0} % less, {asked:.0} % asked for): {changed}"
                )
            }
            Err(why) => write!(f, "the engine's own --fit is ruled out: {why}"),
        }
    }
}

impl Gate {
    fn names(&self) -> String {
        self.deviations.iter().map(|deviation| deviation.setting).collect::<Vec<_>>().join(", ")
    }
}

/// Settings in which a plan's differ.
fn deviations(default: &Settings, chosen: &Settings) -> Vec<Deviation> {
    let differs = |setting: &&str| value_text(default, setting) != value_text(chosen, setting);
    let deviation = |setting| Deviation { setting, default: value_text(default, setting), chosen: value_text(chosen, setting) };
    flags().iter().map(|flag| flag.setting).filter(differs).map(deviation).collect()
}

impl Site<'_> {
    /// The best of a tier, with no more changes to the engine's defaults than win by the margin.
    pub(crate) fn settled(&self, others: &[Site<'_>], rungs: &[Rung]) -> Placed {
        let sites = std::iter::once(self).chain(others).collect();
        let mut ways = Ways::new(sites, rungs, |_| true);
        let Some(best) = ways.best(u32::MAX) else { return Err(ways.tried()) };
        let site = others.iter().find(|site| site.devices == best.settings.devices).unwrap_or(self);
        if let Some(rejection) = site.too_slow(&best) {
            return Err(vec![site.rejected(&best.settings, rejection)]);
        }
        // Where a larger micro-batch gains nothing, the best is one without, whatever the formula says.
        let plain = |frame: &Frame| frame.base.n_ubatch <= Settings::default().n_ubatch;
        let nothing_gained = site.gains_nothing_measured(&best);
        let (best, only_plain) = match ways.best_of(plain).filter(|_| nothing_gained) {
            Some(without) => (without, true),
            None => (best, false),
        };
        // Frames differ in little: nearly all that is wrong with the time of one is wrong with that of the other.
        let fewer = |ways: &mut Ways<'_>, changes| ways.best_of(|frame| frame.changes <= changes && (!only_plain || plain(frame)));
        let settled = (0..ways.most_changes())
            .find_map(|changes| fewer(&mut ways, changes).filter(|fewer| !best.worth.better_than(&fewer.worth, 1.0 + MARGINS.0)));
        Ok(ways.filled(Rc::unwrap_or_clone(settled.unwrap_or(best)), |frame| !only_plain || plain(frame)))
    }

    /// True for a larger micro-batch where no host weights are copied and no experts are read: 1.00 times the speed in 89 sweeps of models
    /// that a GPU holds, whatever a formula says.
    fn gains_nothing_measured(&self, candidate: &Candidate) -> bool {
        let settings = &candidate.settings;
        let copies = settings.op_offload && !self.target.devices.is_empty() && self.on_host(candidate);
        settings.n_ubatch > Settings::default().n_ubatch && !copies && !self.inventory.has_experts()
    }

    /// By which share of the time a candidate must win: a part of its interval's width.
    fn margin(&self, candidate: &Candidate) -> f64 {
        let width = |rate: &Known<TokensPerSec>| match (rate.low(), rate.high()) {
            (Some(low), Some(high)) if low.get() > 0.0 => (high.get() / low.get()).ln(),
            _ => f64::INFINITY,
        };
        let prediction = self.prediction(candidate);
        let first = (candidate.timing.first_token / candidate.timing.whole).clamp(0.0, 1.0);
        let mean = first * width(&prediction.prefill) + (1.0 - first) * width(&prediction.decode);
        (mean * NOT_SHARED).clamp(MARGINS.0, MARGINS.1)
    }

    /// What was found, or the engine's own choice where that is not worse by the margin.
    pub(crate) fn gated(&self, found: Found) -> Found {
        let Some((settings, end)) = self.engine_default(&found) else { return found };
        let chosen = self.of(&found.candidate.settings.devices);
        let margin = chosen.as_ref().unwrap_or(self).margin(&found.candidate);
        let own = self.default_candidate(&settings, &found);
        let plan_seconds = found.candidate.timing.whole;
        let seconds = own.as_ref().map(|own| own.timing.whole).map_err(Clone::clone);
        match own {
            // What a mask wins was measured with and without it, and is no difference of two predictions.
            Ok(own) if !chosen.as_ref().unwrap_or(self).free(&found.candidate).worth.better_than(&own.worth, 1.0 + margin) => {
                let candidate = self.holding(own);
                let deviations = deviations(&settings, &candidate.settings);
                let gate = Gate { settings, end, seconds, plan_seconds: candidate.timing.whole, margin, deviations };
                Found { candidate, gate: Some(gate), ..found }
            }
            _ => {
                let deviations = deviations(&settings, &found.candidate.settings);
                Found { gate: Some(Gate { settings, end, seconds, plan_seconds, margin, deviations }), ..found }
            }
        }
    }

    /// The engine's own settings for the context of a plan; `None` where its steps cannot be followed.
    fn engine_default(&self, found: &Found) -> Option<(Settings, FitEnd)> {
        let pins = &self.request.pins;
        if self.request.profile.bitnet.is_some() {
            return None;
        }
        let rung = Rung { n_ctx: found.candidate.settings.n_ctx, cache: pins.cache_type_k.unwrap_or(QuantType::F16), ..found.rung };
        let base = Settings { cpu_mask: pins.cpu_mask.clone().unwrap_or_default(), ..self.base(&rung) };
        if !self.wants_devices() {
            return Some((Settings { n_gpu_layers: pins.n_gpu_layers.unwrap_or(0), ..base }, FitEnd::Fits));
        }
        let free = pins.n_gpu_layers.is_none() && pins.n_cpu_moe.is_none() && pins.tensor_overrides.is_none();
        if free && self.inventory.has_experts() {
            return Some((self.fitted_experts(&base, &rung)?, FitEnd::Fits));
        }
        let unset = Settings { n_gpu_layers: pins.n_gpu_layers.unwrap_or(ALL), ..base };
        let goal = FitGoal::new(self.machine.effective_memory_total().get().unwrap_or(Bytes::MAX));
        let fitted = fit(self.model, &unset, &self.target, &self.request.profile, &goal).ok()?;
        let mut settings = fitted.settings;
        settings.n_gpu_layers = settings.n_gpu_layers.min(self.inventory.offloadable());
        // Where nothing fits on any device, `--fit` leaves shares of nothing, which no command line takes.
        if settings.tensor_split.iter().all(|share| *share == 0.0) {
            settings.tensor_split.clear();
        }
        Some((self.pinned(settings), fitted.end))
    }

    /// Where `--fit` would put a model with experts, to within a part of one layer: all on devices where that leaves its 1 GiB free on
    /// each, else what is dense first and then experts, as many as leave that. Its own steps are followed by [`fit`], at the price of a
    /// simulated graph for each.
    fn fitted_experts(&self, base: &Settings, rung: &Rung) -> Option<Settings> {
        let mut site = self.again();
        let left_free = FitGoal::new(Bytes::MAX).margins.first().copied().unwrap_or(Bytes::ZERO);
        for (pool, device) in site.pools.devices.iter_mut().zip(&self.target.devices) {
            pool.limit = device.free.get().map(|free| free.saturating_sub(left_free));
        }
        let whole = Settings { n_gpu_layers: self.inventory.offloadable(), ..base.clone() };
        let anywhere = Rung { reach: Reach::Anywhere, disk: true, ..*rung };
        if site.evaluate(&whole, &anywhere).outcome.is_ok() {
            return Some(whole);
        }
        let is_default = |frame: &Frame| frame.changes == 0;
        site.place_along(&anywhere, is_default, &[Route::AsSet, Route::Balanced]).ok().map(|placed| placed.settings)
    }

    /// The engine's own choice as a candidate; why not where a limit or a wish rules it out.
    fn default_candidate(&self, settings: &Settings, found: &Found) -> Result<Candidate, String> {
        let evaluated = self.evaluate(settings, &found.rung);
        let residency = evaluated.outcome.map_err(|rejection| rejection.to_string())?;
        let requirement = evaluated.requirement.ok_or_else(|| "its memory is not known".to_owned())?;
        if residency > found.candidate.residency {
            return Err("it would read weights from disk".to_owned());
        }
        let own = self.candidate(settings.clone(), requirement, residency);
        if found.rung.reach == Reach::Devices && self.on_host(&own) {
            return Err("it leaves layers on the CPU".to_owned());
        }
        Ok(own)
    }
}
