//! `verify`: what is computed against what an engine's own dry run says.

use super::{Shared, driver_child, failure, pretend, settings, warn_ignored};
use crate::args::VerifyArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::view::VerifyView;
use loadmaster::advise::{EngineChoice, Request, survey};
use loadmaster::launch::Interrupts;
use loadmaster::planner::{self, Tool};
use loadmaster::verify::{Reference, Subject, fit_params};
use spec::Settings;
use std::path::PathBuf;

/// Compares every buffer; exit code 6 where one differs.
pub fn verify(shared: &Shared, args: &VerifyArgs) -> Outcome {
    let reference = match args.engine.as_str() {
        "bundled" => Reference::Bundled,
        path if !shared.is_live() => {
            let message = format!("{path} looks at the devices of this machine: --machine needs --engine bundled");
            return Err(Failure::new(Exit::Usage, message).hint("the bundled engine pretends the devices of any machine"));
        }
        path => Reference::FitParams(PathBuf::from(path)),
    };
    let engine = match &reference {
        Reference::Bundled => EngineChoice::Bundled,
        // It takes the flags of llama-cli.
        Reference::FitParams(path) => EngineChoice::External { tool: Tool::Cli, path: Some(fit_params(path)) },
    };
    let plan = planner::Request { pins: args.pins.pins.clone(), ..planner::Request::default() };
    let request = Request { machine: shared.machine.clone(), driver_child: driver_child(), engine, plan, ..Request::new(&args.model) };
    let mut survey = survey(&request).map_err(|error| failure(&error))?;
    match (args.pins.devices(), &reference) {
        (Some(devices), Reference::Bundled) => pretend(&mut survey, devices)?,
        (Some(_), Reference::FitParams(path)) => {
            let message = format!("{} looks at the devices of this machine: --device needs --engine bundled", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        (None, _) => {}
    }
    survey.use_devices(&args.pins.pins).map_err(|error| failure(&error))?;
    survey.origin.check_runnable(&survey.path).map_err(|error| failure(&error.into()))?;
    // Threads change no size, and a program need not have a flag for them.
    let Settings { threads, threads_batch, .. } = Settings::default();
    let settings = Settings { threads, threads_batch, ..settings(&args.pins.pins, &survey) };
    warn_ignored(&shared.output, &survey, &settings);
    let interrupts = Interrupts::install().unwrap_or_else(|_| Interrupts::none());
    let subject = Subject { path: &survey.path, model: &survey.model, settings: &settings, target: &survey.target };
    let found = loadmaster::verify(subject, &reference, &interrupts).map_err(|error| failure(&error))?;
    shared.output.show(&VerifyView::new(&survey, &settings, &found))?;
    Ok(if found.holds() { Exit::Done } else { Exit::Engine })
}
