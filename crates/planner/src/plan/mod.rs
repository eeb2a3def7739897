//! PLAN: which settings to run a model with on a machine, why, and what would change the choice.
//!
//! A joint search: all that a tier of the ladder leaves open is chosen together, by the predicted time of the workload's request. Closed
//! sums bound and propose, the exact requirement decides, and what the engine would do itself is kept unless a plan wins by a margin.

mod apart;
mod chain;
mod cores;
mod costs;
mod downgrade;
mod drafting;
mod exhaustive;
mod explain;
mod gate;
mod head;
mod joint;
mod layers;
mod lineup;
mod nearest;
mod needs;
mod objective;
mod pareto;
mod parts;
mod place;
pub(crate) mod pools;
mod refusal;
mod refuse;
mod request;
mod search;
mod shared;
mod short;
pub(crate) mod site;
mod splits;
mod verdict;

pub(crate) use needs::Needs;

pub use costs::{Cost, Knob, Other, explain, pareto};
pub use drafting::Ahead;
pub use exhaustive::{Grain, Optimum, exhaustive, searched};
pub use gate::{Deviation, Gate};
pub use objective::Worth;
pub use pools::budgets;
pub use refusal::{NearestChange, NoPlan, Rejected, Rejection, Short};
pub use request::{DevicePreference, DiskPolicy, Drafting, Margin, Power, Preferences, Priority, Request};
pub use verdict::{Alternative, Aspect, Binding, Budget, Change, Choice, Downgrade, Merits, Origin, Pareto, Pool, Strategy, Verdict};

pub use crate::workload::UseCase;

use crate::inventory::Inventory;
use crate::predict::Prediction;
use footprint::{FootprintError, Requirement, Requirements, Target};
use site::Site;
use spec::{Machine, Model, Settings};
use std::borrow::Cow;

/// The settings to run a model with, and everything that led to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to run with. Complete: nothing is left to the engine.
    pub settings: Settings,
    /// Where each setting comes from, in the order of the settings' table.
    pub choices: Vec<Choice>,
    /// What the settings need.
    pub requirement: Requirement,
    /// How fast they should be.
    pub prediction: Prediction,
    /// What the search has ordered it by.
    pub worth: Worth,
    /// Whether the request is met in full.
    pub verdict: Verdict,
    /// Which processors compute.
    pub strategy: Strategy,
    /// Every pool of memory: what is there, what may be used, what is needed.
    pub budgets: Vec<Budget>,
    /// What stands in the way of a better plan.
    pub binding: Binding,
    /// Why this plan, in sentences for people.
    pub reasons: Vec<String>,
    /// How it compares with what the engine would do itself; `None` where that cannot be followed.
    pub gate: Option<Gate>,
    /// What would change the choice, each re-planned and not guessed.
    pub changes: Vec<Change>,
    /// What the user should know: assumed figures, costs, risks.
    pub warnings: Vec<String>,
    /// Placements of the search's space, each weighed or ruled out by a bound together with others.
    pub considered: usize,
    /// Whether tokens are drafted ahead, where the plan had that to choose.
    pub ahead: Option<Ahead>,
    /// The request that was planned for: where drafting was open, with what was chosen.
    pub request: Request,
}

impl Plan {
    /// What of a target the plan is for; its requirement is parallel to that.
    pub fn target<'a>(&self, target: &'a Target) -> Cow<'a, Target> {
        // A plan was made for the devices that it names.
        target.only(&self.settings.devices).unwrap_or(Cow::Borrowed(target))
    }
}

/// Plans `model` on `machine`, with the memory of [`footprint::require_with()`], graphs that recur simulated once. Pinned devices
/// are all there is of the target; a pin that names one which does not exist is refused.
///
/// Devices are left out where the plan is better, or fits at all, without them; those that share the host's memory where the CPU is as
/// fast, or where only without them the model can be run at all (`devices none`).
///
/// Where drafting is open ([`Request::drafting`]), the plan says whether what is given drafts, how far, and on which side
/// ([`Plan::ahead`]); [`plan_with`] takes it as given.
///
/// For the BitNet engine the type of the output head is chosen, too, unless [`footprint::bitnet::BitNet::head`] has one: the plan's
/// request has it in its profile.
///
/// # Errors
/// [`NoPlan`] with what was tried, what ruled each out, and the nearest change that would fit.
pub fn plan(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Result<Plan, Box<NoPlan>> {
    match request.drafting {
        Drafting::Chosen | Drafting::Number => drafting::choose(machine, model, target, request),
        Drafting::AsGiven => plan_as_given(machine, model, target, request),
    }
}

/// Plans for what drafts, if anything does, as the request has it.
fn plan_as_given(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Result<Plan, Box<NoPlan>> {
    match request.profile.bitnet {
        Some(_) => head::plan(machine, model, target, request),
        None => plan_as(machine, model, target, request),
    }
}

/// Plans for the engine as its profile has it.
fn plan_as(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Result<Plan, Box<NoPlan>> {
    let chosen = request.pins.devices.as_ref().and_then(|devices| target.only(devices).ok());
    let target = chosen.as_deref().unwrap_or(target);
    let requirements = Requirements::new(model, target, &request.profile, &request.companions);
    plan_with(machine, model, target, request, &|settings| requirements.require(settings))
}

/// Plans with another source of requirements: a cache, a recording, a test. It is asked for settings that name some of the target's
/// devices, or none, too.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(
    machine: &Machine,
    model: &Model,
    target: &Target,
    request: &Request,
    require: &dyn Fn(&Settings) -> Result<Requirement, FootprintError>,
) -> Result<Plan, Box<NoPlan>> {
    let without = |why: String| {
        let (rest, pinned) = shared::without_devices(target, request);
        plan_over(machine, model, &rest, &pinned, require).map(|plan| shared::marked(plan, request, target, &why))
    };
    if let Some(why) = shared::left_out(machine, model, target, request) {
        return without(why);
    }
    plan_over(machine, model, target, request, require).or_else(|refusal| match shared::may_be_left_out(target, request) {
        Some(why) => without(why).map_err(|_: Box<NoPlan>| refusal),
        None => Err(refusal),
    })
}

fn plan_over(
    machine: &Machine,
    model: &Model,
    target: &Target,
    request: &Request,
    require: &dyn Fn(&Settings) -> Result<Requirement, FootprintError>,
) -> Result<Plan, Box<NoPlan>> {
    let inventory = Inventory::as_run(model, &request.profile);
    let whole = Site::new(machine, model, target, request, &inventory, require);
    if let Some(refusal) = whole.refused_context() {
        return Err(Box::new(refusal));
    }
    let found = whole.search().map_err(|tried| Box::new(whole.refuse(tried)))?;
    let chosen = whole.of(&found.candidate.settings.devices);
    let site = chosen.as_ref().unwrap_or(&whole);
    if let Some(refusal) = site.refused_pins(&found.candidate.settings) {
        return Err(Box::new(refusal));
    }
    // Where no device takes part, theirs is the memory that is missing.
    let short = if site.target.devices.is_empty() { &whole } else { site };
    Ok(Plan {
        considered: site.considered.get(),
        choices: site.choices(&found, &whole),
        verdict: site.verdict(&found),
        strategy: site.strategy(&found.candidate),
        budgets: site.pools.budgets(&found.candidate.requirement),
        binding: short.binding(&found),
        reasons: site.reasons(&found, &whole),
        changes: short.changes(&found),
        warnings: site.warnings(&found),
        gate: found.gate,
        ahead: None,
        request: request.clone(),
        prediction: site.prediction(&found.candidate),
        worth: found.candidate.worth,
        settings: found.candidate.settings,
        requirement: found.candidate.requirement,
    })
}
