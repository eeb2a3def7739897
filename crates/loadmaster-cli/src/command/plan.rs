//! `plan`: the settings to run a model with, and why.

use super::{Shared, arguments, companions, failure, machine_name, mention, proof, request};
use crate::args::PlanArgs;
use crate::exit::{Exit, Outcome};
use crate::view::{AlternativeView, MeritsView, ModelName, PlanView, PrecisionView, Subject};
use loadmaster::advise::{Advice, CommandOptions};
use loadmaster::config::ConfigFile;
use loadmaster::known::precision;
use loadmaster::open::Origin;
use loadmaster::planner;
use loadmaster::planner::Tool;
use loadmaster::planner::emit::Invocation;
use loadmaster::store;
use std::path::{Path, PathBuf};

/// Plans, shows the plan, and writes it where asked to.
pub fn plan(shared: &Shared, args: PlanArgs) -> Outcome {
    let survey = shared.survey(&args.subject, &args.pins, args.engine.as_deref())?;
    mention(&shared.output, &survey.beside);
    if let Err(error) = survey.origin.check_runnable(&survey.path) {
        // The plan is good for what the model becomes, but no dry run can name that file, and a configuration only in its metadata.
        let named = matches!(survey.origin, Origin::Assumed(_));
        if args.prove || (args.output.is_some() && !named) {
            return Err(failure(&error.into()));
        }
        if !named {
            shared.output.say(format_args!("{error}: the command is for the file that you will have"));
        }
    }
    let (model, machine) = (ModelName::new(&survey.model, &survey.path).from(survey.origin), survey.machine.clone());
    let origin = survey.origin;
    let files = args.beside.beside();
    let request =
        planner::Request { companions: companions(&files)?.into(), drafting: files.drafting(), ..request(&args.wishes, args.pins.pins) };
    let (advice, choice) = precision::advise(survey, &request, args.subject.quant.is_some());
    let advice = match advice {
        Ok(advice) => advice,
        Err(error) => {
            let model = model.in_type(origin, choice.as_ref());
            return shared.refusal_in(error, &model, &machine, choice.as_ref());
        }
    };
    let files = files.as_planned(advice.plan.plan());
    // The bundled engine is planned for as if it could load them: its command is in a server's words, for people.
    let extra = match advice.engine.rules.tool {
        Tool::Bundled => files.arguments(&|_| true).unwrap_or_default(),
        _ => arguments(&files, &advice.engine.rules)?,
    };
    let invocation = advice.invocation(&CommandOptions { extra, ..CommandOptions::default() });
    let proof = match args.prove {
        true => Some(proof(&advice.path, &advice.model, &advice.plan.plan().settings, &advice.target)?),
        false => None,
    };
    let disputed = proof.as_ref().is_some_and(|proof| !proof.agrees);
    let precision = choice.as_ref().map(PrecisionView::new);
    let plan = advice.plan.plan();
    let pareto = planner::plan::pareto(&advice.machine, &advice.model, &advice.target, plan);
    let alternatives = pareto.others.iter().map(|other| AlternativeView::new(other, &plan.settings)).collect();
    let knobs = args.explain.then(|| {
        let knobs = planner::plan::explain(&advice.machine, &advice.model, &advice.target, plan);
        knobs.iter().map(Into::into).collect()
    });
    let merits = MeritsView::from(&pareto.chosen);
    let view = PlanView { proof, precision, merits: Some(merits), alternatives, knobs, ..view(&advice, &invocation) };
    shared.output.show(&view)?;
    if let Some(path) = &args.svg {
        store::write_atomically(path, view.picture(&merits).as_bytes()).map_err(|error| failure(&error.into()))?;
        shared.output.say(format_args!("wrote {}", path.display()));
    }
    if let Some(path) = &args.output {
        let config = ConfigFile {
            beside: files.with_paths(|file| from_folder_of(path, file)),
            ..ConfigFile::from_advice(&advice, &from_folder_of(path, &advice.path), &machine_name(&advice.machine), choice.as_ref())
        };
        config.save(path).map_err(|error| failure(&error.into()))?;
        shared.output.say(format_args!("wrote {}: use it with `loadmaster run --config`", path.display()));
    }
    Ok(if disputed {
        Exit::Engine
    } else if args.strict && advice.is_downgraded() {
        Exit::Downgraded
    } else {
        Exit::Done
    })
}

/// The view of advice and its command.
pub fn view(advice: &Advice, invocation: &Invocation) -> PlanView {
    let subject = Subject {
        model: ModelName::new(&advice.model, &advice.path).from(advice.origin),
        machine: machine_name(&advice.machine),
        engine: advice.engine.rules.profile.name.clone(),
        warnings: advice.plan.warnings(),
    };
    PlanView::new(subject, advice.plan.plan(), invocation)
}

/// The model as the configuration should name it: a path there is relative to the configuration's folder.
fn from_folder_of(config: &Path, model: &Path) -> PathBuf {
    let parent = config.parent().unwrap_or(Path::new(""));
    match model.strip_prefix(parent) {
        Ok(inside) if model.is_relative() => inside.to_owned(),
        _ => std::path::absolute(model).unwrap_or_else(|_| model.to_owned()),
    }
}
