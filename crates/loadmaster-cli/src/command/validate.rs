//! `validate`: a configuration against machine, model and engine.

use super::{Shared, as_configured, companions, driver_child, failure, machine_name, settings, warn_elsewhere};
use crate::args::ValidateArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::view::{ModelName, RulesView, ValidateView};
use loadmaster::advise::{Request, Survey, survey};
use loadmaster::beside::Beside;
use loadmaster::config::{ConfigFile, Metadata};
use loadmaster::formats::{FileType, ParseFileTypeError};
use loadmaster::{Error, planner};
use planner::Report;
use spec::settings::Pins;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Shows every rule that the configuration breaks.
pub fn validate(shared: &Shared, args: &ValidateArgs) -> Outcome {
    // Without a file clap asks for --rules.
    let Some(file) = args.file.as_deref() else {
        return shared.output.show(&RulesView::new());
    };
    let (model, wish, beside) = subject(args, file)?;
    for step in &wish.migrated {
        shared.output.warn(step);
    }
    let facts = Request {
        machine: shared.machine.clone(),
        driver_child: driver_child(),
        engine: as_configured(shared.engine(args.engine.as_deref()), wish.engine),
        plan: planner::Request {
            use_case: wish.use_case.unwrap_or_default(),
            asked: wish.workload,
            preferences: wish.preferences,
            pins: wish.settings,
            companions: companions(&beside)?.into(),
            ..planner::Request::default()
        },
        quant: quant(&wish.metadata)?,
        ..Request::new(model)
    };
    let mut survey = survey(&facts).map_err(|error| failure(&error))?;
    warn_elsewhere(&shared.output, &wish.metadata, &survey);
    let request = facts.plan;
    survey.use_devices(&request.pins).map_err(|error| failure(&error))?;
    let name = ModelName::new(&survey.model, &survey.path).from(survey.origin);
    let (report, refusal) = report(&survey, &request);
    if let (true, Some(refusal)) = (report.is_valid(), refusal) {
        return shared.refusal(refusal, &name, &survey.machine);
    }
    let engine = survey.engine.rules.profile.name.clone();
    let view = ValidateView::new(file.display().to_string(), name, machine_name(&survey.machine), engine, &report);
    shared.output.show(&view)?;
    Ok(verdict(&report))
}

/// The model to check with, what is wished and what is loaded beside: the configuration's settings with those of the command line over them.
fn subject(args: &ValidateArgs, file: &Path) -> Result<(PathBuf, ConfigFile, Beside), Failure> {
    let pins = args.pins.here("validate")?.clone();
    if is_model(file) {
        if args.model.is_some() {
            return Err(Failure::new(Exit::Usage, "two models given: the first file is a model, not a configuration"));
        }
        return Ok((file.to_owned(), ConfigFile { settings: pins, ..ConfigFile::default() }, args.beside.beside()));
    }
    let mut config = ConfigFile::read(file).map_err(|error| failure(&error.into()))?;
    config.settings = pins.or(std::mem::take::<Pins>(&mut config.settings));
    if args.model.is_some() || config.model.is_some() {
        // A file has the type that it has; that the plan was for another is told.
        config.metadata.assumed = None;
    }
    let assumed = || config.metadata.model.as_ref().filter(|_| config.metadata.assumed.is_some()).map(PathBuf::from);
    let model = args.model.clone().or_else(|| config.model_path(file)).or_else(assumed).ok_or_else(|| {
        Failure::new(Exit::Usage, "the configuration names no model")
            .at(file.display())
            .hint("add model = \"FILE.gguf\" to it, or name the model after it: loadmaster validate CONFIG MODEL")
    })?;
    let beside = args.beside.beside().or(config.beside_from(file));
    Ok((model, config, beside))
}

/// The type of a model of which the plan read no file.
fn quant(metadata: &Metadata) -> Result<Option<FileType>, Failure> {
    let named = metadata.file_type.as_deref().filter(|_| metadata.assumed.is_some());
    named.map(str::parse).transpose().map_err(|error: ParseFileTypeError| Failure::new(Exit::Usage, format!("metadata.file_type: {error}")))
}

/// True for a file that begins as GGUF does. A file that cannot be read is left to its reader to report.
fn is_model(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && (magic == *b"GGUF" || magic == *b"FUGG")
}

/// What is wrong with the wish: of the plan that follows from it, or, where there is none, of the settings as they are
/// over the engine's defaults.
fn report(survey: &Survey, request: &planner::Request) -> (Report, Option<Error>) {
    match survey.clone().advise(request) {
        Ok(advice) => (Report { violations: advice.plan.warnings().to_vec() }, None),
        Err(Error::Invalid(report)) => (*report, None),
        Err(error) => {
            let settings = settings(&request.pins, survey);
            (planner::check_for(&survey.context(), &settings, request), Some(error))
        }
    }
}

/// A configuration that asks for too much memory is refused; any other error is one of usage.
fn verdict(report: &Report) -> Exit {
    if report.is_valid() {
        Exit::Done
    } else if report.lacks_memory() {
        Exit::Refused
    } else {
        Exit::Usage
    }
}
