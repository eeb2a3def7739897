//! `memory`: what a model needs with given settings.

use super::{Shared, companions, disclose, failure, mention, proof, settings, warn_ignored};
use crate::args::MemoryArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::render::svg::svg;
use crate::view::{MemoryFacts, MemoryView};
use loadmaster::{footprint, store};

/// Shows what the model needs with the fixed settings, the rest at the engine's defaults.
pub fn memory(shared: &Shared, args: &MemoryArgs) -> Outcome {
    let mut survey = shared.survey(&args.subject, &args.pins, args.engine.as_deref())?;
    survey.use_devices(&args.pins.pins).map_err(|error| failure(&error))?;
    disclose(&shared.output, survey.origin);
    mention(&shared.output, &survey.beside);
    if let Some(profile) = &args.engine_profile {
        survey.engine.rules.profile = profile.clone();
    }
    let settings = settings(&args.pins.pins, &survey);
    let (model, target, profile) = (&survey.model, &survey.target, &survey.engine.rules.profile);
    let beside = companions(&args.beside.beside())?;
    let refused = |error: footprint::FootprintError| Failure::new(Exit::Usage, crate::exit::chain(&error));
    let requirement = footprint::require_with(model, &settings, target, profile, &beside).map_err(refused)?;
    warn_ignored(&shared.output, &survey, &settings);
    let savings = footprint::savings(model, &settings, target, profile, &beside, &requirement);
    let explanations = match args.explain {
        true => footprint::explain(model, &settings, target, profile, &beside, &requirement).map_err(refused)?,
        false => Vec::new(),
    };
    let facts = MemoryFacts {
        survey: &survey,
        settings: &settings,
        profile,
        requirement: &requirement,
        savings: &savings,
        explanations: &explanations,
    };
    let mut view = MemoryView::new(&facts);
    if args.prove {
        survey.origin.check_runnable(&survey.path).map_err(|error| failure(&error.into()))?;
        view.proof = Some(proof(&survey.path, model, &settings, target)?);
    }
    let disputed = view.proof.as_ref().is_some_and(|proof| !proof.agrees);
    shared.output.show(&view)?;
    if let Some(path) = &args.svg {
        let picture = svg(&view.title(), &view.bars());
        store::write_atomically(path, picture.as_bytes()).map_err(|error| failure(&error.into()))?;
        shared.output.say(format_args!("wrote {}", path.display()));
    }
    Ok(if disputed { Exit::Engine } else { Exit::Done })
}
