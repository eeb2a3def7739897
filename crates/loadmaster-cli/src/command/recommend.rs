//! `recommend`: which model to run here.

use super::{Shared, driver_child, failure, machine_name, request};
use crate::args::RecommendArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::view::RecommendView;
use loadmaster::advise::{Ground, Request};
use loadmaster::recommend::{self, Candidate, FindError};
use spec::settings::Pins;

/// Ranks the models that are meant and shows the first of them.
pub fn recommend(shared: &Shared, args: &RecommendArgs) -> Outcome {
    let candidates = candidates(args).map_err(|error| Failure::new(Exit::File, crate::exit::chain(&error)))?;
    let facts = Request {
        machine: shared.machine.clone(),
        driver_child: driver_child(),
        engine: shared.engine(args.engine.as_deref()),
        plan: request(&args.wishes, Pins::default()),
        ..Request::new("")
    };
    let ground = Ground::of(&facts).map_err(|error| failure(&error))?;
    let found = recommend::recommend(&ground, &facts.plan, &candidates);
    for (name, reason) in &found.skipped {
        shared.output.warn(format_args!("skipped {}: {reason}", name.display()));
    }
    let runs = found.runs();
    let engine = ground.engine.rules.profile.name.clone();
    shared.output.show(&RecommendView::new(&found, &facts.plan, machine_name(&ground.machine), engine, args.limit))?;
    Ok(match (found.ranked.is_empty(), runs) {
        (true, _) => Exit::File,
        (false, 0) => Exit::Refused,
        _ => Exit::Done,
    })
}

fn candidates(args: &RecommendArgs) -> Result<Vec<Candidate>, FindError> {
    match (&args.models, &args.model) {
        (Some(place), _) => recommend::candidates(place),
        (None, Some(model)) => Ok(recommend::quantisations(model)),
        (None, None) => Ok(recommend::known_today()),
    }
}
