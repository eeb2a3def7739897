//! `run`: a model with settings that fit, here and now.

mod talk;

use super::serve::{finish, only_here};
use super::{Shared, Wish, advise, announce, arguments, as_configured, driver_child, failure, suited, this_program};
use crate::args::RunArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::progress::Progress;
use crate::view::RunView;
use loadmaster::advise::{Advice, CommandOptions, EngineChoice, Request};
use loadmaster::launch::bitnet;
use loadmaster::launch::bundled::{self, BundledOptions};
use loadmaster::launch::server::ServerOptions;
use loadmaster::launch::{Event, Interrupts};
use loadmaster::planner::Tool;
use loadmaster::receipt::receipt;
use loadmaster::runs;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;
use talk::{Speaker, Talk};

/// Plans, starts the engine, generates, and tells what it used.
pub fn run(shared: &Shared, args: RunArgs) -> Outcome {
    if !shared.is_live() && !args.dry_run {
        return Err(only_here("run"));
    }
    let wish = Wish::new(shared, args.model.as_deref(), args.config.as_deref(), &args.wishes, args.pins.here("run")?, &args.beside)?;
    let path = match &wish.model {
        Some(path) => path.clone(),
        None => demo(shared)?,
    };
    let facts = Request {
        machine: shared.machine.clone(),
        driver_child: driver_child(),
        engine: as_configured(engine(shared, &args), wish.own_engine),
        plan: wish.request.clone(),
        ..Request::new(path)
    };
    let advice = match advise(shared, &facts, &wish, args.strict)? {
        ControlFlow::Continue(advice) => advice,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let extra = arguments(&wish.beside.as_planned(advice.plan.plan()), &advice.engine.rules)?;
    if args.dry_run {
        let invocation = advice.invocation(&CommandOptions { extra, ..CommandOptions::default() });
        return shared.output.show(&super::plan::view(&advice, &invocation));
    }
    announce(&shared.output, &advice);
    match advice.engine.external {
        Some(_) => external(shared, &advice, &args, extra),
        None => inside(shared, &advice, &args),
    }
}

/// The engine of a run: the one inside this program, unless another is named or there is none inside.
fn engine(shared: &Shared, args: &RunArgs) -> EngineChoice {
    match args.engine.as_deref() {
        None if bundled::version().is_some() => suited(EngineChoice::Bundled),
        // Without an engine inside, a run here goes through llama-server; elsewhere it is only shown.
        None if shared.is_live() => suited(EngineChoice::External { tool: Tool::Server, path: None }),
        named => shared.engine(named),
    }
}

/// The demonstration model.
fn demo(shared: &Shared) -> Result<PathBuf, Failure> {
    let path = loadmaster::demo::ensure(None).map_err(|error| failure(&error.into()))?;
    shared
        .output
        .say(format_args!("no model given: using a small demonstration model with random weights ({}); its text is noise", path.display()));
    Ok(path)
}

fn interrupts() -> Result<Interrupts, Failure> {
    Interrupts::install().map_err(|error| Failure::new(Exit::Engine, format!("cannot watch for signals: {error}")))
}

/// Runs on an engine inside this program.
fn inside(shared: &Shared, advice: &Advice, args: &RunArgs) -> Outcome {
    let output = &shared.output;
    let interrupts = interrupts()?;
    let options = BundledOptions {
        executable: Some(this_program()?),
        silence: Duration::from_secs(args.engine_timeout),
        ..BundledOptions::default()
    };
    let progress = Progress::new(output);
    let mut on = |event: Event<'_>| match event {
        Event::Stage(stage) => progress.stage(stage),
        Event::Progress(fraction) => progress.fraction(fraction),
        Event::Log(line) if output.verbose() => progress.line(output, line),
        Event::Warning(text) => output.warn(text),
        _ => {}
    };
    let speaker = match advice.engine.rules.tool {
        Tool::BitNet => bitnet::start(advice, &options, &interrupts, &mut on).map(|session| Speaker::BitNet(Box::new(session))),
        _ => bundled::start(advice, &options, &interrupts, &mut on).map(|session| Speaker::Bundled(Box::new(session))),
    };
    let speaker = speaker.map_err(|error| failure(&error.into()))?;
    drop(progress);
    let (text, speaker) = Talk::new(shared, &interrupts, speaker, args.predict).hold(args)?;
    show(shared, advice, &speaker.finish(), args, text)
}

/// Runs on an external server that lives as long as the talk.
fn external(shared: &Shared, advice: &Advice, args: &RunArgs, extra: Vec<OsString>) -> Outcome {
    let interrupts = interrupts()?;
    let options = ServerOptions { extra, ..super::serve::local(args.engine_timeout)? };
    let server = super::serve::start(shared, advice, &options, &interrupts)?;
    let has_chat_template = advice.model.tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.chat_template);
    // Nothing comes while it computes the prompt.
    let silence = Duration::from_secs(args.engine_timeout).saturating_mul(10);
    let speaker = Speaker::Server { server: Box::new(server), has_chat_template, silence };
    let (text, speaker) = Talk::new(shared, &interrupts, speaker, args.predict).hold(args)?;
    show(shared, advice, &speaker.finish(), args, text)
}

/// Result and receipt: as one JSON document, or the receipt as talk after the text.
fn show(shared: &Shared, advice: &Advice, outcome: &loadmaster::launch::Outcome, args: &RunArgs, text: String) -> Outcome {
    // A talk has prompts at many depths, of which some engines tell only sums.
    let is_of_use = !args.chat || outcome.prefill.depth().is_some();
    if let Some(file) = runs::file().filter(|_| is_of_use)
        && let Err(error) = runs::remember(&file, advice, outcome)
    {
        shared.output.warn(format_args!("what this run measured is not kept for predictions: {}", crate::exit::chain(&error)));
    }
    if !shared.output.json() {
        return finish(shared, advice, outcome, args.receipt.as_deref());
    }
    let receipt = receipt(advice, outcome);
    if let Some(path) = &args.receipt {
        receipt.save(path).map_err(|error| failure(&error.into()))?;
    }
    let exit = Exit::from_code(receipt.exit_code());
    shared.output.show(&RunView::new(text, receipt))?;
    Ok(exit)
}
