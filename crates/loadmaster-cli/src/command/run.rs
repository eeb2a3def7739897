//! `run`: a model with settings that fit, here and now.

use super::serve::{finish, only_here};
use super::{Shared, Wish, announce, failure, this_program};
use crate::args::RunArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::progress::Progress;
use crate::view::{ModelName, RunView};
use loadmaster::advise::{Advice, CommandOptions, EngineChoice, Request, survey};
use loadmaster::launch::bundled::{self, BundledOptions, ChatMessage, Generation, Prompt, Session, Stop};
use loadmaster::launch::{Event, Interrupts};
use loadmaster::planner::Tool;
use loadmaster::receipt::receipt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// What is continued where nothing is asked.
const DEFAULT_PROMPT: &str = "Once upon a time";

/// How often a waiting program looks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Plans, starts the engine, generates, and tells what it used.
pub fn run(shared: &Shared, args: RunArgs) -> Outcome {
    if !shared.is_live() && !args.dry_run {
        return Err(only_here("run"));
    }
    let wish = Wish::new(shared, args.model.as_deref(), args.config.as_deref(), &args.wishes, &args.pins.pins)?;
    let path = match &wish.model {
        Some(path) => path.clone(),
        None => demo(shared)?,
    };
    let facts = Request { machine: shared.machine.clone(), engine: engine(shared, &args), ..Request::new(path) };
    let survey = survey(&facts).map_err(|error| failure(&error))?;
    let (model, machine) = (ModelName::new(&survey.model, &survey.path), survey.machine.clone());
    let advice = match survey.advise(&wish.request) {
        Ok(advice) => advice,
        Err(error) => return shared.refuse(error, &model, &machine),
    };
    if args.strict && advice.is_downgraded() {
        announce(&shared.output, &advice);
        return Ok(Exit::Downgraded);
    }
    if args.dry_run {
        let invocation = advice.invocation(&CommandOptions::default());
        return shared.output.show(&super::plan::view(&advice, &invocation));
    }
    announce(&shared.output, &advice);
    match advice.engine.external {
        Some(_) => external(shared, &advice, &args),
        None => bundled(shared, &advice, &args),
    }
}

/// The engine of a run: the one inside this program, unless another is named or there is none inside.
fn engine(shared: &Shared, args: &RunArgs) -> EngineChoice {
    match args.engine.as_deref() {
        None if bundled::version().is_some() => EngineChoice::Bundled,
        // Without an engine inside, a run here goes through llama-server; elsewhere it is only shown.
        None if shared.is_live() => EngineChoice::External { tool: Tool::Server, path: None },
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

/// Runs on the engine inside this program.
fn bundled(shared: &Shared, advice: &Advice, args: &RunArgs) -> Outcome {
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
        _ => {}
    };
    let mut session = bundled::start(advice, &options, &interrupts, &mut on).map_err(|error| failure(&error.into()))?;
    drop(progress);
    let generation = Generation { n_predict: args.predict, ..Generation::default() };
    let mut talk = Talk { shared, interrupts: &interrupts, generation, reader_gone: false };
    let text = if args.chat { talk.chat(&mut session)? } else { talk.once(&mut session, args.prompt.as_deref())? };
    let outcome = session.finish();
    show(shared, advice, &outcome, args, text)
}

/// Runs on an external server that lives as long as the answer takes. It gives the text as a whole.
fn external(shared: &Shared, advice: &Advice, args: &RunArgs) -> Outcome {
    if args.chat {
        return Err(Failure::new(Exit::Usage, "--chat needs the bundled engine")
            .hint("`loadmaster serve` starts llama-server, which has a chat page of its own"));
    }
    let interrupts = interrupts()?;
    let server = super::serve::start(shared, advice, &super::serve::local(args.engine_timeout)?, &interrupts)?;
    let mut server = server;
    let prompt = args.prompt.as_deref().unwrap_or(DEFAULT_PROMPT);
    let deadline = Duration::from_secs(args.engine_timeout).saturating_mul(10);
    let text = server.complete(prompt, args.predict, deadline).map_err(|error| failure(&error.into()))?;
    if !shared.output.json() {
        write_text(&text)?;
        write_text("\n")?;
    }
    show(shared, advice, &server.stop(), args, text)
}

/// Result and receipt: as one JSON document, or the receipt as talk after the text.
fn show(shared: &Shared, advice: &Advice, outcome: &loadmaster::launch::Outcome, args: &RunArgs, text: String) -> Outcome {
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

/// Text of the model, as it is. `false` where nobody reads any more.
fn write_text(text: &str) -> Result<bool, Failure> {
    output::stream(text.as_bytes()).map_err(|error| Failure::output("the text", &error))
}

/// One or many exchanges with a session.
struct Talk<'a> {
    shared: &'a Shared,
    interrupts: &'a Interrupts,
    generation: Generation,
    /// Nobody reads the text any more.
    reader_gone: bool,
}

impl Talk<'_> {
    /// Continues one prompt.
    fn once(&mut self, session: &mut Session, prompt: Option<&str>) -> Result<String, Failure> {
        let prompt = prompt.unwrap_or(DEFAULT_PROMPT);
        let (text, _) = self.generate(session, &Prompt::Text(prompt.to_owned()))?;
        if !self.shared.output.json() {
            write_text("\n")?;
        }
        Ok(text)
    }

    /// Streams one answer. A signal ends it.
    fn generate(&mut self, session: &mut Session, prompt: &Prompt) -> Result<(String, Stop), Failure> {
        let json = self.shared.output.json();
        let verbose = self.shared.output.verbose();
        let mut broken: Result<bool, Failure> = Ok(true);
        let (output, interrupts) = (&self.shared.output, self.interrupts);
        let mut on = |event: Event<'_>| match event {
            Event::Text(piece) if !json && matches!(broken, Ok(true)) => {
                broken = write_text(piece);
                if !matches!(broken, Ok(true)) {
                    // Nobody reads on, so nobody should compute on.
                    interrupts.raise(INTERRUPT);
                }
            }
            Event::Log(line) if verbose => output.say(line),
            _ => {}
        };
        let generated = session.generate(prompt, &self.generation, interrupts, &mut on).map_err(|error| failure(&error.into()))?;
        self.reader_gone = !broken?;
        Ok((generated.text, generated.stop))
    }

    /// Line by line until the input ends, a signal comes at the prompt, or nobody reads any more.
    fn chat(&mut self, session: &mut Session) -> Result<String, Failure> {
        if !session.has_chat_template() {
            return Err(Failure::new(Exit::File, "the model has no chat template").hint("use --prompt to continue a text instead"));
        }
        let output = &self.shared.output;
        output.say("an empty line or Ctrl-D ends the conversation, Ctrl-C an answer");
        let lines = read_lines();
        let mut turns: Vec<ChatMessage> = Vec::new();
        let mut transcript = String::new();
        while let Some(line) = self.next_line(&lines) {
            turns.push(ChatMessage { role: "user".to_owned(), content: line });
            let (answer, stop) = self.generate(session, &Prompt::Chat(turns.clone()))?;
            if self.reader_gone {
                break;
            }
            if !output.json() {
                write_text("\n")?;
            }
            transcript.push_str(&answer);
            transcript.push('\n');
            turns.push(ChatMessage { role: "assistant".to_owned(), content: answer });
            if stop == Stop::ContextFull {
                output.warn("the context is full: the conversation ends here");
                break;
            }
        }
        Ok(transcript)
    }

    /// What the user types next; nothing where the conversation is over.
    fn next_line(&self, lines: &Receiver<String>) -> Option<String> {
        if self.shared.output.draws_progress() {
            self.shared.output.prompt("> ");
        }
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => return Some(line).filter(|line| !line.trim().is_empty()),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.interrupts.take().is_some() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// SIGINT, by its number on every system.
const INTERRUPT: i32 = 2;

/// Lines of standard input, read in a thread of their own: a read cannot be interrupted, waiting for it can.
fn read_lines() -> Receiver<String> {
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            // An input that cannot be read has ended, and so has a conversation that nobody waits for.
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
