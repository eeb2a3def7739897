//! Runs that are far slower than predicted, and what to look at first.

use crate::advise::Advice;
use crate::doctor::{Severity, findings};
use planner::plan::Pool;
use planner::predict::{Busiest, busiest};
use spec::TokensPerSec;

/// Probable causes of a run at `measured` where `predicted` was the median, most probable first: what is known to be wrong with the machine,
/// then what usually is with hardware of this class. Empty for a run that is not slower than 0.6 of the prediction.
pub fn causes(advice: &Advice, predicted: TokensPerSec, measured: TokensPerSec) -> Vec<String> {
    let plan = advice.plan.plan();
    let Busiest { device, class, conditions } = busiest(&advice.machine, &advice.target, &plan.settings, &plan.requirement);
    let is_there = |pool: &Pool| match pool {
        Pool::Device { index, .. } => Some(*index) == device,
        Pool::Host => device.is_none(),
        Pool::AllDevices => false,
    };
    let filled = plan.budgets.iter().find(|budget| is_there(&budget.pool)).and_then(planner::plan::Budget::share);
    let usual = roofline::anomaly(measured.get(), predicted.get(), class, &conditions, filled);
    if usual.is_empty() {
        return Vec::new();
    }
    let known = findings(&advice.machine).into_iter().filter(|finding| finding.severity > Severity::Note).map(|finding| finding.what);
    known.chain(usual.iter().map(|cause| cause.as_str().to_owned())).collect()
}
