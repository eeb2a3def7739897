//! `inspect`: shows a model.

use super::{Shared, disclose, failure, mention};
use crate::args::InspectArgs;
use crate::exit::Outcome;
use crate::view::{InspectView, ModelName};
use loadmaster::advise::newest_server;
use loadmaster::planner::plan::Plan;
use loadmaster::{formats, open, planner};
use spec::Model;

/// Shows the model, its analysis, and what it waits for on the machine.
pub fn inspect(shared: &Shared, args: &InspectArgs) -> Outcome {
    let path = args.subject.model();
    let opened = open::open_as(&path, args.subject.quant).map_err(|error| failure(&error.into()))?;
    disclose(&shared.output, opened.origin);
    mention(&shared.output, &opened.beside);
    let model = opened.model;
    let analysis = formats::analysis::analyze(&model);
    let name = ModelName::new(&model, &path).from(opened.origin);
    let plan = on_machine(shared, &model)?;
    shared.output.show(&InspectView::new(&model, name, &analysis, plan.as_ref()))
}

/// What a general plan says of the model; nothing where there is no plan. No engine is asked: a model can be looked at
/// where none is installed.
fn on_machine(shared: &Shared, model: &Model) -> Result<Option<Plan>, crate::exit::Failure> {
    let machine = match shared.machine() {
        Ok(machine) => machine,
        // A machine that was named must exist; this one may be of a kind that cannot be detected yet.
        Err(_) if shared.is_live() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let target = planner::target(&machine, &planner::GpuSupport::Native);
    let request = planner::Request { profile: newest_server().profile, ..planner::Request::default() };
    Ok(planner::plan(&machine, model, &target, &request).ok())
}
