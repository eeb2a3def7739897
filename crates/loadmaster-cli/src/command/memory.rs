//! `memory`: what a model needs with given settings.

use super::{Shared, failure, proof, settings};
use crate::args::MemoryArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::view::{MemoryView, ModelName, SCHEMA_VERSION, SettingView};
use loadmaster::advise::{Request, survey};
use loadmaster::footprint;

/// Shows what the model needs with the fixed settings, the rest at the engine's defaults.
pub fn memory(shared: &Shared, args: &MemoryArgs) -> Outcome {
    let request = Request { machine: shared.machine.clone(), engine: shared.engine(args.engine.as_deref()), ..Request::new(&args.model) };
    let survey = survey(&request).map_err(|error| failure(&error))?;
    let settings = settings(&args.pins.pins, &survey);
    let profile = &survey.engine.rules.profile;
    let requirement = footprint::require(&survey.model, &settings, &survey.target, profile)
        .map_err(|error| Failure::new(Exit::Usage, crate::exit::chain(&error)))?;
    let proof = if args.prove { Some(proof(&survey.path, &survey.model, &settings, &survey.target)?) } else { None };
    let disputed = proof.as_ref().is_some_and(|proof| !proof.agrees);
    shared.output.show(&MemoryView {
        schema_version: SCHEMA_VERSION,
        model: ModelName::new(&survey.model, &survey.path),
        engine: profile.name.clone(),
        settings: SettingView::all(&settings),
        requirement: (&requirement).into(),
        proof,
    })?;
    Ok(if disputed { Exit::Engine } else { Exit::Done })
}
