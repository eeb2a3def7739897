//! `serve`: a model behind llama-server, with settings that fit.

use super::{Shared, Wish, advise, announce, arguments, driver_child, failure, this_program};
use crate::args::{ServeArgs, SuperviseArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::progress::Progress;
use crate::view::ReceiptView;
use loadmaster::Error;
use loadmaster::advise::{Advice, CommandOptions, EngineChoice, Request};
use loadmaster::footprint::bitnet::BitNet;
use loadmaster::launch::server::{self, Server, ServerOptions};
use loadmaster::launch::{Event, Interrupts, supervise};
use loadmaster::planner::Tool;
use loadmaster::planner::emit::{Invocation, Listen};
use loadmaster::receipt::receipt;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Plans, starts the server, waits, and tells what it used.
pub fn serve(shared: &Shared, args: ServeArgs) -> Outcome {
    if !shared.is_live() && !args.dry_run {
        return Err(only_here("serve"));
    }
    let wish = Wish::new(shared, Some(&args.model), args.config.as_deref(), &args.wishes, args.pins.here("serve")?, &args.beside)?;
    let engine = match args.engine.as_deref() {
        None if shared.is_live() => EngineChoice::External { tool: Tool::Server, path: None },
        Some("bundled") => {
            return Err(Failure::new(Exit::Usage, "the bundled engine is no server").hint("name a llama-server with --engine"));
        }
        Some(named) if named.parse::<BitNet>().is_ok() => {
            let hint = format!(
                "`loadmaster run {}` runs the model in this process, and with --json programs read what it writes",
                args.model.display()
            );
            return Err(Failure::new(Exit::Usage, "our own engine for BitNet models is no server").hint(hint));
        }
        named => shared.engine(named),
    };
    if let Some(failure) = unserved(&args.model) {
        return Err(failure);
    }
    let facts = Request {
        machine: shared.machine.clone(),
        driver_child: driver_child(),
        engine,
        plan: wish.request.clone(),
        ..Request::new(&args.model)
    };
    let advice = match advise(shared, &facts, &wish, args.strict)? {
        ControlFlow::Continue(advice) => advice,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let mut extra = arguments(&wish.beside.as_planned(advice.plan.plan()), &advice.engine.rules)?;
    extra.extend(args.extra.iter().map(OsString::from));
    let options = options(&args, extra)?;
    if args.dry_run {
        return shared.output.show(&super::plan::view(&advice, &dry(&advice, &options)?));
    }
    announce(&shared.output, &advice);
    let outcome = launch(shared, &advice, &options)?;
    finish(shared, &advice, &outcome, args.receipt.as_deref())
}

/// Why no llama-server serves a model, whether one is at hand or not. What cannot be opened is told where it is planned.
fn unserved(model: &Path) -> Option<Failure> {
    let opened = loadmaster::open(model).ok()?;
    let tensor = opened.tensors.iter().find(|tensor| tensor.ty.is_foreign_ternary())?;
    Some(failure(&Error::BitNetFork { tensor: tensor.name.clone(), ty: tensor.ty }))
}

/// The exact command; for an engine that is not at hand, as the newest one would take it.
fn dry(advice: &Advice, options: &ServerOptions) -> Result<Invocation, Failure> {
    if advice.engine.external.is_some() {
        let command = server::command(advice, options).map_err(|error| failure(&error.into()))?;
        return Ok(command.invocation);
    }
    let listen = options.port.map(|port| Listen { host: options.host.clone(), port });
    Ok(advice.invocation(&CommandOptions { listen, extra: options.extra.clone() }))
}

fn options(args: &ServeArgs, extra: Vec<OsString>) -> Result<ServerOptions, Failure> {
    Ok(ServerOptions { host: args.host.clone(), port: (args.port != 0).then_some(args.port), extra, ..local(args.engine_timeout)? })
}

/// A server for this program alone, on any free port.
pub fn local(engine_timeout: u64) -> Result<ServerOptions, Failure> {
    Ok(ServerOptions { silence: Duration::from_secs(engine_timeout), supervisor: Some(this_program()?), ..ServerOptions::default() })
}

/// Starts the server and waits until it answers. The kernel ties it to the thread that calls this.
pub fn start(shared: &Shared, advice: &Advice, options: &ServerOptions, interrupts: &Interrupts) -> Result<Server, Failure> {
    let output = &shared.output;
    let progress = Progress::new(output);
    let mut on = |event: Event<'_>| match event {
        Event::Stage(stage) => progress.stage(stage),
        Event::Progress(fraction) => progress.fraction(fraction),
        Event::Log(line) if output.verbose() => progress.line(output, line),
        _ => {}
    };
    server::start(advice, options, interrupts, &mut on).map_err(|error| failure(&error.into()))
}

/// Serves until the server ends or a signal comes.
fn launch(shared: &Shared, advice: &Advice, options: &ServerOptions) -> Result<loadmaster::launch::Outcome, Failure> {
    let output = &shared.output;
    let interrupts = Interrupts::install().map_err(|error| Failure::new(Exit::Engine, format!("cannot watch for signals: {error}")))?;
    let server = start(shared, advice, options, &interrupts)?;
    output.say(format_args!("serving on {} after {:.1} s; Ctrl-C ends it", server.url(), server.load_time().as_secs_f64()));
    let mut on = |event: Event<'_>| {
        if let (Event::Log(line), true) = (event, output.verbose()) {
            output.say(line);
        }
    };
    server.wait(&interrupts, &mut on).map_err(|error| failure(&error.into()))
}

/// Tells what was planned against what happened, and writes it where asked to.
pub fn finish(shared: &Shared, advice: &Advice, outcome: &loadmaster::launch::Outcome, path: Option<&std::path::Path>) -> Outcome {
    let receipt = receipt(advice, outcome);
    if let Some(path) = path {
        receipt.save(path).map_err(|error| failure(&error.into()))?;
    }
    shared.output.tell(&ReceiptView(&receipt));
    Ok(Exit::from_code(receipt.exit_code()))
}

/// A plan for another machine can be shown, but not started here.
pub fn only_here(command: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("{command} starts an engine on this machine as it is: --machine, --ram and --gpu-memory need --dry-run"),
    )
    .hint("`loadmaster plan` shows the plan for another machine")
}

/// The hidden command that becomes an engine which ends with its parent.
pub fn supervise(args: &SuperviseArgs) -> Outcome {
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::new(Exit::Usage, "no program to become"));
    };
    let error = supervise::become_engine(args.parent, program, arguments);
    Err(Failure::new(Exit::Engine, error).at(program.display()))
}
