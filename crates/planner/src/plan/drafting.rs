//! Whether tokens are drafted ahead, and how many at a time, where something to draft with is given and the plan may choose.
//!
//! A draft takes memory that layers could have, and time for each token that is drafted. So the model is planned without it and with it, and
//! what is given is used only where a request is shorter by a margin under the acceptance that is usual.

use super::costs::{Cost, Other, on_site};
use super::objective::{Timing, Worth};
use super::request::{Drafting, Request};
use super::site::Site;
use super::verdict::{Change, Choice, Origin, Verdict};
use super::{NoPlan, Plan, plan_as_given};
use crate::predict::{Configuration, Drafted, DraftedRequest, HostState, Range};
use crate::workload::Workload;
use footprint::{Companions, Draft, Target};
use roofline::Parameters;
use spec::{Known, Machine, Model, TokensPerSec};
use std::sync::Arc;
use std::time::Duration;

/// By which share of the time drafting must win. Acceptance is assumed and not known: published runs with one draft and one model are 0.68 to
/// 1.43 times as fast by what is written (llama.cpp issue 23052), and a number of tokens that is not the model's makes a gain of 14 % a
/// loss of 12 % (issue 24508).
const MARGIN: f64 = 0.1;

/// Numbers of tokens per step that are looked at.
const MOST: u32 = 16;

/// The name under which the choice is told.
pub(super) const SETTING: &str = "draft_max";

/// Whether a plan drafts, and how far.
#[derive(Clone, Debug, PartialEq)]
pub struct Ahead {
    /// Tokens drafted per step; 0 where the draft is left out.
    pub n_max: u32,
    /// Probability that a drafted token is accepted, the ones before it having been: assumed.
    pub acceptance: Known<f64>,
    /// Why.
    pub because: String,
    /// Other numbers of tokens, 0 for none, each with what it would cost.
    pub others: Vec<Other>,
}

/// A plan with a draft, and its request by the number of tokens drafted.
struct With {
    plan: Plan,
    acceptance: Known<f64>,
    /// For one token per step, two, and so on.
    requests: Vec<DraftedRequest>,
    /// Of the number that the plan is for.
    worth: Worth,
}

impl With {
    fn best(&self) -> Option<&DraftedRequest> {
        self.requests.iter().min_by(|a, b| a.whole.mid.total_cmp(&b.whole.mid))
    }
    fn n_max(&self) -> u32 {
        self.plan.request.companions.draft.as_ref().map_or(0, |draft| draft.n_max)
    }
    /// The request with as many tokens as the plan is for.
    fn request(&self) -> Option<&DraftedRequest> {
        self.requests.iter().find(|request| request.drafted == self.n_max())
    }
}

/// Plans without the draft of a request and with it, and takes what is better.
pub(super) fn choose(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Result<Plan, Box<NoPlan>> {
    let Some(draft) = request.companions.draft.clone() else { return plan_as_given(machine, model, target, request) };
    let without = plan_as_given(machine, model, target, &with_draft(request, None))?;
    let with = |draft: &Draft| best_with(machine, model, target, &with_draft(request, Some(draft.clone())));
    let on_host =
        request.drafting == Drafting::Chosen && draft.model.is_some() && draft.n_gpu_layers.is_none() && !target.devices.is_empty();
    let on_host = on_host.then(|| Draft { n_gpu_layers: Some(0), ..draft.clone() });
    let mut best: Option<With> = None;
    let mut refused: Option<Box<NoPlan>> = None;
    for draft in std::iter::once(&draft).chain(&on_host) {
        match with(draft) {
            Ok(Some(with)) if best.as_ref().is_none_or(|best| with.worth.total_cmp(&best.worth).is_lt()) => best = Some(with),
            Ok(_) => {}
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    match (best, refused) {
        (Some(best), _) => Ok(better_of(machine, model, target, without, best)),
        // What cannot draft at all is a mistake; what does not fit is left out.
        (None, Some(refusal)) if refusal.is_of_settings() => Err(refusal),
        (None, refused) => {
            let nearest = refused.and_then(|refusal| refusal.tried.into_iter().next());
            let why =
                nearest.map_or_else(|| "nothing is known of its time".to_owned(), |tried| format!("{}: {}", tried.what, tried.rejection));
            let acceptance = Known::unknown("there is no plan with the draft");
            let ahead = Ahead { n_max: 0, acceptance, because: format!("left out, as nothing fits with it: {why}"), others: Vec::new() };
            Ok(Plan { ahead: Some(ahead), ..without }.told())
        }
    }
}

fn with_draft(request: &Request, draft: Option<Draft>) -> Request {
    let companions = Companions { draft, ..Companions::clone(&request.companions) };
    Request { companions: Arc::new(companions), drafting: Drafting::AsGiven, ..request.clone() }
}

/// The plan with as many drafted tokens as are best where it puts the model.
fn best_with(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Result<Option<With>, Box<NoPlan>> {
    let planned = |request: &Request| plan_as_given(machine, model, target, request).map(|plan| timed(machine, model, target, plan));
    let Some(first) = planned(request)? else { return Ok(None) };
    // Rows of logits and kept states go with the number: what it is best for may need another placement.
    let again = match (first.best(), &request.companions.draft) {
        (Some(best), Some(draft)) if best.drafted != draft.n_max => {
            planned(&with_draft(request, Some(Draft { n_max: best.drafted, ..draft.clone() }))).ok().flatten()
        }
        _ => None,
    };
    Ok(Some(match again {
        Some(again) if again.worth.total_cmp(&first.worth).is_lt() => again,
        _ => first,
    }))
}

fn timed(machine: &Machine, model: &Model, target: &Target, plan: Plan) -> Option<With> {
    let draft = plan.request.companions.draft.as_ref()?;
    let (acceptance, requests, worth) = on_site(machine, model, target, &plan, |_, site| {
        let (settings, layer_devices) = (&plan.settings, plan.requirement.layer_devices.as_slice());
        let (moved, state) = (site.moved_by(settings), HostState::of(site.pools.host.with_files, &plan.requirement));
        let configuration = Configuration { settings, layer_devices, moved: &moved, state: &state };
        let together = site.needs.workload.users.min(settings.n_parallel).max(1);
        let workload = Workload { users: together, ..site.needs.workload };
        let drafted = site.drafted(configuration, draft);
        // The number that was given is looked at in any case.
        let mut numbers: Vec<u32> = (1..=MOST).chain([draft.n_max.max(1)]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let requests = drafted.requests(&workload, &numbers);
        let rounds = f64::from(site.needs.workload.users.div_ceil(together).max(1));
        let requests: Vec<DraftedRequest> =
            requests.into_iter().map(|request| DraftedRequest { whole: request.whole.scale(rounds), ..request }).collect();
        let own = requests.iter().find(|request| request.drafted == draft.n_max.max(1))?;
        let timing = Timing { first_token: own.first_token.mid, token: own.token.mid, whole: own.whole.mid };
        Some((drafted.acceptance(), requests.clone(), site.worth(settings, &timing)))
    })?;
    Some(With { plan, acceptance, requests, worth })
}

/// The plan with a draft where it wins by the margin and gives nothing up for it; else the one without.
fn better_of(machine: &Machine, model: &Model, target: &Target, without: Plan, with: With) -> Plan {
    let plain = on_site(machine, model, target, &without, |_, site| site.plan_seconds(&without));
    let gives_up = with.plan.verdict.downgrades().len() > without.verdict.downgrades().len();
    let gives_up = gives_up || matches!((&with.plan.verdict, &without.verdict), (Verdict::FitsAfterDowngrade(_), Verdict::Fits));
    let wins = !gives_up && with.worth.better_than(&without.worth, 1.0 + MARGIN);
    let (Some(best), n_max) = (with.best().copied(), with.n_max()) else { return without };
    let own = with.request().copied().unwrap_or(best);
    let accepted = chance(&with.acceptance);
    let layers = match (with.plan.settings.n_gpu_layers, without.settings.n_gpu_layers) {
        (fewer, all) if fewer < all => format!(" with {fewer} layers on the GPU instead of {all}"),
        _ => String::new(),
    };
    if wins {
        let because = format!(
            "{n_max} of 1 to {MOST} at a time: a request takes ~{} s ({} to {}) instead of ~{} s{layers}, if {accepted} of drafted tokens are accepted",
            seconds(own.whole.mid),
            seconds(own.whole.low),
            seconds(own.whole.high),
            seconds(plain.mid)
        );
        let near = [n_max.saturating_sub(1), n_max.saturating_add(1), n_max.saturating_mul(2)];
        let near = near.into_iter().filter_map(|n| with.requests.iter().find(|request| request.drafted == n));
        let others =
            std::iter::once(other(0, plain, own.whole)).chain(near.map(|request| other(request.drafted, request.whole, own.whole)));
        let ahead = Ahead { n_max, acceptance: with.acceptance, because, others: others.collect() };
        let left_out = format!("a request takes ~{} s instead of ~{} s", seconds(plain.mid), seconds(own.whole.mid));
        let change = Change { what: "the draft left out".to_owned(), then: left_out, decode: without.prediction.decode };
        let mut plan = Plan { ahead: Some(ahead), ..with.plan };
        plan.changes.push(change);
        return plan.told();
    }
    let why = if gives_up { "it would cost context or precision".to_owned() } else { format!("{:.0} % less is asked for", MARGIN * 100.0) };
    let because = format!(
        "left out: with {} at a time a request takes ~{} s ({} to {}) instead of ~{} s{layers}, if {accepted} of drafted tokens are accepted; {why}",
        tokens(best.drafted),
        seconds(best.whole.mid),
        seconds(best.whole.low),
        seconds(best.whole.high),
        seconds(plain.mid)
    );
    let ahead = Ahead { n_max: 0, acceptance: with.acceptance, because, others: vec![other(best.drafted, best.whole, plain)] };
    let change = Change {
        what: format!("{} drafted at a time, pinned", tokens(best.drafted)),
        then: format!("a request takes ~{} s instead of ~{} s", seconds(best.whole.mid), seconds(plain.mid)),
        decode: rate(best.token),
    };
    let mut plan = Plan { ahead: Some(ahead), ..without };
    // Less than the margin, but something.
    if best.whole.mid < plain.mid {
        plan.changes.push(change);
    }
    plan.told()
}

fn tokens(count: u32) -> String {
    if count == 1 { "1 token".to_owned() } else { format!("{count} tokens") }
}

/// What another number of tokens costs; memory is that of the rows of logits, and not told.
fn other(n_max: u32, whole: Range, now: Range) -> Other {
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let request = Known::estimated(time(whole.mid), time(whole.low), time(whole.high), "predicted");
    Other { value: n_max.to_string(), cost: Ok(Cost { time: whole.mid / now.mid, request, memory: Vec::new() }) }
}

/// Tokens per second of one answer.
fn rate(token: Range) -> Known<TokensPerSec> {
    let [low, mid, high] = [token.high, token.mid, token.low].map(|seconds| TokensPerSec::new(1.0 / seconds));
    match (low, mid, high) {
        (Some(low), Some(mid), Some(high)) => Known::estimated(mid, low, high, "predicted"),
        _ => Known::unknown("the draft's file gives nothing to compute"),
    }
}

fn chance(acceptance: &Known<f64>) -> String {
    match (acceptance.get(), acceptance.low(), acceptance.high()) {
        (Some(mid), Some(low), Some(high)) => format!("{:.0} % ({:.0} to {:.0})", mid * 100.0, low * 100.0, high * 100.0),
        _ => "an unknown share".to_owned(),
    }
}

/// Seconds in three digits.
fn seconds(seconds: f64) -> String {
    let digits = (2.0 - seconds.max(1e-3).log10().floor()).clamp(0.0, 4.0) as usize;
    format!("{seconds:.digits$}")
}

impl Plan {
    /// The plan with its choice about drafting among the others.
    fn told(mut self) -> Self {
        let Some(ahead) = &self.ahead else { return self };
        let value = if ahead.n_max == 0 { "none".to_owned() } else { ahead.n_max.to_string() };
        let choice = Choice { setting: SETTING, value, origin: Origin::Searched, because: ahead.because.clone() };
        self.choices.push(choice);
        self
    }
}

impl Site<'_> {
    /// A configuration of this problem with what drafts for it.
    pub(crate) fn drafted<'s>(&'s self, configuration: Configuration<'s>, draft: &'s Draft) -> Drafted<'s> {
        let &Self { ref predictor, machine, ref target, inventory, .. } = self;
        Drafted { predictor, configuration, machine, target, inventory, draft, parameters: Parameters::fitted() }
    }

    /// Seconds of the workload under a plan that drafts nothing.
    fn plan_seconds(&self, plan: &Plan) -> Range {
        let (settings, layer_devices) = (&plan.settings, plan.requirement.layer_devices.as_slice());
        let (moved, state) = (self.moved_by(settings), HostState::of(self.pools.host.with_files, &plan.requirement));
        let configuration = Configuration { settings, layer_devices, moved: &moved, state: &state };
        let central = self.timing(settings, layer_devices, &moved, &state).whole;
        let together = self.needs.workload.users.min(settings.n_parallel).max(1);
        let whole = self.predictor.request(configuration, &Workload { users: together, ..self.needs.workload }).whole;
        let of = |end: Option<&Duration>| end.map_or(1.0, |end| end.as_secs_f64() / whole.get().map_or(1.0, |mid| mid.as_secs_f64()));
        Range::new(central * of(whole.low()), central, central * of(whole.high()))
    }
}
