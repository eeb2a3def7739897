//! `predict`: speed beside measured speed, for a table of measurements.

use super::Shared;
use crate::args::PredictArgs;
use crate::exit::{Exit, Failure, Outcome, chain};
use crate::view::PredictView;
use loadmaster::roofline::Parameters;
use loadmaster::{benchmarks, store};

/// Writes the table with predictions beside its rows, and shows how far they are off.
pub fn predict(shared: &Shared, args: &PredictArgs) -> Outcome {
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(Exit::File, format!("{}: {error}", args.table.display()));
    let text = std::fs::read_to_string(&args.table).map_err(|error| unreadable(&error))?;
    let annotated = benchmarks::annotate(&text, Parameters::fitted()).map_err(|error| unreadable(&error))?;
    store::write_atomically(&args.output, annotated.csv.as_bytes()).map_err(|error| Failure::new(Exit::File, chain(&error)))?;
    shared.output.show(&PredictView::new(&annotated, &args.table, &args.output))
}
