//! The output head of the BitNet engine, which is no setting of llama.cpp: as the file has it, or copied in eight bits.
//!
//! Half of the bytes of an `f16` head, which are more than those of all ternary layers of the flagship, for a copy in memory. Both are
//! planned. The copy is taken where it keeps what the head of the file would give up, or where requests are clearly shorter with it, if
//! the floor of quality allows eight bits. The user's own choice of a head is kept.

use super::refusal::NoPlan;
use super::request::Request;
use super::verdict::{Choice, Downgrade, Origin};
use super::{Plan, plan_as};
use footprint::Target;
use footprint::bitnet::{Head, head_type};
use spec::{Machine, Model, QuantType};
use std::cmp::Ordering;

/// The choice's name among those of settings.
pub(crate) const HEAD: &str = "head_type";

/// By how much requests must be shorter: a change of less is none ([`super::pareto`]).
const CLEARLY: f64 = 1.02;

/// The type of a copy.
const COPY: QuantType = QuantType::Q8_0;

/// Plans for the BitNet engine with the head that is better.
pub(super) fn plan(machine: &Machine, model: &Model, target: &Target, request: &Request) -> Result<Plan, Box<NoPlan>> {
    let planned = |head| plan_as(machine, model, target, &with_head(request, head));
    if let Some(head) = request.profile.bitnet.and_then(|engine| engine.head) {
        return planned(head).map(|plan| told(plan, model, Origin::Pinned, "pinned by the user".to_owned()));
    }
    let whole = planned(Head::File);
    if let Err(why) = may_be_copied(model, request) {
        return whole.map(|plan| told(plan, model, Origin::Rule, why));
    }
    let copy = planned(Head::Q8_0);
    match (whole, copy) {
        (Ok(whole), Ok(copy)) => Ok(better(model, whole, copy)),
        (Err(_), Ok(copy)) => Ok(told(copy, model, Origin::Searched, "nothing fits with the file's own".to_owned())),
        (whole, Err(_)) => whole.map(|plan| told(plan, model, Origin::Searched, format!("a copy in {COPY} does not fit"))),
    }
}

/// The better of two plans: the one that gives up less, and else the file's own head unless the copy wins clearly.
fn better(model: &Model, whole: Plan, copy: Plan) -> Plan {
    let file = head_type(model).unwrap_or(COPY);
    let seconds = |plan: &Plan| format!("~{:.3} s", plan.worth.seconds);
    let given_up = |plan: &Plan| plan.verdict.downgrades().len();
    let first = |plan: &Plan| plan.verdict.downgrades().first().map_or_else(String::new, Downgrade::to_string);
    match given_up(&copy).cmp(&given_up(&whole)) {
        Ordering::Less => {
            let why = format!("in {file} more is given up: {}", first(&whole));
            told(copy, model, Origin::Searched, why)
        }
        Ordering::Greater => {
            let why = format!("in {COPY} more is given up: {}", first(&copy));
            told(whole, model, Origin::Searched, why)
        }
        Ordering::Equal if copy.worth.better_than(&whole.worth, CLEARLY) => {
            let why = format!("requests of {} instead of {} in {file}: every token reads all of it", seconds(&copy), seconds(&whole));
            told(copy, model, Origin::Searched, why)
        }
        Ordering::Equal => {
            let why = format!("as the file has it: in {COPY} requests take {} instead of {}", seconds(&copy), seconds(&whole));
            told(whole, model, Origin::Searched, why)
        }
    }
}

/// The same request with the head kept so.
fn with_head(request: &Request, head: Head) -> Request {
    let mut request = request.clone();
    request.profile.bitnet = request.profile.bitnet.map(|engine| engine.with_head(head));
    request
}

/// Whether a copy in eight bits is smaller and allowed.
///
/// # Errors
/// Why not.
fn may_be_copied(model: &Model, request: &Request) -> Result<(), String> {
    let bits = QuantType::bits_per_weight;
    match head_type(model) {
        Some(ty) if bits(ty) <= bits(COPY) => Err("as the file has it: no copy is smaller".to_owned()),
        Some(_) if !model.n_embd.is_multiple_of(COPY.block().weights) => {
            Err(format!("as the file has it: its rows are no blocks of {COPY}"))
        }
        Some(_) if bits(request.demand().cache_floor) > bits(COPY) => {
            Err(format!("as the file has it: {} takes nothing in eight bits", request.use_case))
        }
        _ => Ok(()),
    }
}

/// The plan with its head among its choices and reasons.
fn told(mut plan: Plan, model: &Model, origin: Origin, because: String) -> Plan {
    let Some(file) = head_type(model) else { return plan };
    let value = plan.requirement.head.unwrap_or(file).to_string();
    let at = plan.reasons.iter().position(|reason| reason.starts_with("context: ")).map_or(plan.reasons.len(), |at| at + 1);
    plan.reasons.insert(at, format!("output head in {value}: {because}"));
    plan.choices.push(Choice { setting: HEAD, value, origin, because });
    plan
}

/// The other head of a plan, with the request for it; `None` where there is no other, or it is pinned, or not allowed.
pub(super) fn other(model: &Model, plan: &Plan) -> Option<(QuantType, Request)> {
    let choice = plan.choices.iter().find(|choice| choice.setting == HEAD)?;
    if choice.origin == Origin::Pinned || may_be_copied(model, &plan.request).is_err() {
        return None;
    }
    match plan.requirement.head {
        Some(_) => Some((head_type(model)?, with_head(&plan.request, Head::File))),
        None => Some((COPY, with_head(&plan.request, Head::Q8_0))),
    }
}
