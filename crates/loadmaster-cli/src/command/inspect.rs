//! `inspect`: shows a model.

use super::{Shared, failure};
use crate::args::InspectArgs;
use crate::exit::Outcome;
use crate::view::{AnalysisView, InspectView, ModelName};
use loadmaster::{formats, open};

/// Shows the model and its analysis.
pub fn inspect(shared: &Shared, args: &InspectArgs) -> Outcome {
    let model = open::open(&args.model).map_err(|error| failure(&error.into()))?;
    let machine = shared.machine()?;
    let analysis = formats::analysis::analyze(&model);
    let name = ModelName::new(&model, &args.model);
    shared.output.show(&InspectView::new(&model, name, AnalysisView::new(&analysis, &machine)))
}
