//! `predict`: the speed of a model on a machine; or speed beside measured speed, for a table of measurements.

use super::{Shared, companions, failure, machine_name, mention, request};
use crate::args::PredictArgs;
use crate::exit::{Exit, Failure, Outcome, chain};
use crate::view::{ForecastView, Forecasted, ModelName, PredictView};
use loadmaster::advise::Advice;
use loadmaster::known::precision;
use loadmaster::planner::predict::{Forecast, Question, depths, forecast};
use loadmaster::roofline::Parameters;
use loadmaster::{benchmarks, planner, runs, store};
use std::path::Path;

/// Predicts a model, or every row of a table.
pub fn predict(shared: &Shared, args: PredictArgs) -> Outcome {
    match (&args.table, &args.output) {
        (Some(table), Some(output)) => of_table(shared, table, output),
        _ => of_model(shared, args),
    }
}

/// Writes the table with predictions beside its rows, and shows how far they are off.
fn of_table(shared: &Shared, table: &Path, output: &Path) -> Outcome {
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(Exit::File, format!("{}: {error}", table.display()));
    let text = std::fs::read_to_string(table).map_err(|error| unreadable(&error))?;
    let annotated = benchmarks::annotate(&text, Parameters::fitted()).map_err(|error| unreadable(&error))?;
    store::write_atomically(output, annotated.csv.as_bytes()).map_err(|error| Failure::new(Exit::File, chain(&error)))?;
    shared.output.show(&PredictView::new(&annotated, table, output))
}

/// Shows speeds and times under the plan's settings, or the pinned ones.
fn of_model(shared: &Shared, args: PredictArgs) -> Outcome {
    let survey = shared.survey(&args.subject, &args.pins, args.engine.as_deref())?;
    mention(&shared.output, &survey.beside);
    let (model, machine) = (ModelName::new(&survey.model, &survey.path).from(survey.origin), survey.machine.clone());
    let origin = survey.origin;
    let beside = companions(&args.beside.beside())?;
    let request = planner::Request { companions: beside.into(), ..request(&args.wishes, args.pins.pins) };
    let (advice, choice) = precision::advise(survey, &request, args.subject.quant.is_some());
    let advice = match advice {
        Ok(advice) => advice,
        Err(error) => {
            let model = model.in_type(origin, choice.as_ref());
            return shared.refusal_in(error, &model, &machine, choice.as_ref());
        }
    };
    // Times of requests that the engine would refuse or cut are not those of a run.
    for violation in advice.plan.warnings().iter().filter(|violation| violation.rule == "request-longer-than-context") {
        shared.output.warn(format_args!("{}; {}", violation.message, violation.fix));
    }
    let of = Forecasted {
        model: ModelName::new(&advice.model, &advice.path).from(advice.origin),
        machine: machine_name(&advice.machine),
        engine: advice.engine.rules.profile.name.clone(),
        settings: advice.plan.plan().reasons.first().cloned().unwrap_or_default(),
    };
    // Runs of this machine say nothing of one that is only described.
    let learned = runs::file().filter(|_| shared.is_live()).map(|file| runs::parameters(&file, &advice));
    let parameters = learned.map_or_else(|| Parameters::fitted().clone(), |(parameters, _)| parameters);
    let view = ForecastView::new(of, &forecast_of(&advice, &parameters));
    shared.output.show(&view)?;
    if let Some(path) = &args.svg {
        store::write_atomically(path, view.picture().as_bytes()).map_err(|error| failure(&error.into()))?;
        shared.output.say(format_args!("wrote {}", path.display()));
    }
    Ok(Exit::Done)
}

fn forecast_of(advice: &Advice, parameters: &Parameters) -> Forecast {
    let plan = advice.plan.plan();
    let question = Question {
        workload: plan.request.demand().workload,
        depths: depths(plan.requirement.context.n_ctx_seq),
        draft: plan.request.companions.draft.as_ref(),
        margin: plan.request.preferences.margin,
        parameters,
    };
    forecast(&advice.machine, &advice.model, &advice.target, &plan.settings, &plan.requirement, &question)
}
