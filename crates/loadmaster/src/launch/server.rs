//! An external llama-server: started, watched until it answers, asked, measured, and ended with us.

mod client;

use super::bundled::{Generated, Generation, Prompt, Stop};
use super::log::Log;
use super::{Event, GRACE, Interrupts, LaunchError, Outcome, ProcessMemory, SILENCE, Stage, Timing, port, supervise};
use crate::advise::{Advice, CommandOptions};
use crate::engine::run::{describe_exit, kill_group, own_group};
use crate::engine::{AmbientSetting, EngineError, Interference, ambient};
use client::{Client, Piece};
use planner::emit::{Invocation, Listen};
use spec::Bytes;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a loading server is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long the last lines of an engine that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How to start a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Address to listen on.
    pub host: String,
    /// Port; `None` lets the system choose a free one.
    pub port: Option<u16>,
    /// Further arguments for llama-server, as they are.
    pub extra: Vec<OsString>,
    /// How long it may show no sign of life while it loads.
    pub silence: Duration,
    /// How long it may take to end when asked to.
    pub grace: Duration,
    /// The executable with the hidden subcommand `supervise`; `None` for a program that has none. See
    /// [`super::supervise`].
    pub supervisor: Option<PathBuf>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: None, extra: Vec::new(), silence: SILENCE, grace: GRACE, supervisor: None }
    }
}

/// The exact command of a server, and what reaches it from outside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCommand {
    /// The command.
    pub invocation: Invocation,
    /// Where it will listen.
    pub listen: Listen,
    /// Settings from configuration files and the environment.
    pub ambient: Vec<AmbientSetting>,
}

/// The command that [`start`] would run; nothing is started.
///
/// # Errors
/// The advice is not for an external llama-server, or the port is taken.
pub fn command(advice: &Advice, options: &ServerOptions) -> Result<ServerCommand, LaunchError> {
    let Some(engine) = &advice.engine.external else {
        return Err(EngineError::NotFound { tool: planner::Tool::Server }.into());
    };
    let listen = Listen { host: options.host.clone(), port: port::choose(&options.host, options.port)? };
    let mut extra: Vec<OsString> = Vec::new();
    // Level 4 is the first that tells the size of each buffer.
    if engine.flags.accepts("--log-verbosity") {
        extra.extend(["--log-verbosity".into(), "4".into()]);
    }
    if engine.flags.accepts("--metrics") {
        extra.push("--metrics".into());
    }
    extra.extend(options.extra.iter().cloned());
    let mut invocation = advice.invocation(&CommandOptions { listen: Some(listen.clone()), extra });
    let ambient = ambient(engine, &mut invocation);
    Ok(ServerCommand { invocation, listen, ambient })
}

/// A llama-server that answers. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    client: Client,
    load: Duration,
    memory_at_load: ProcessMemory,
    engine: String,
    notes: Vec<String>,
    prefill: Timing,
    decode: Timing,
    grace: Duration,
}

/// Starts the server of a plan and waits until it answers. Call it from a thread that lives as long as the server should.
///
/// # Errors
/// It does not start, ends, shows no sign of life for too long, or a signal comes.
pub fn start(
    advice: &Advice,
    options: &ServerOptions,
    interrupts: &Interrupts,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<Server, LaunchError> {
    let command = command(advice, options)?;
    let engine = advice.engine.external.as_ref().map(|engine| format!("{} {}", engine.tool, engine.version)).unwrap_or_default();
    let expected = advice.plan.plan().requirement.host.resident().get();
    launch(&command, engine, expected, options, interrupts, on)
}

/// `expected` is what should be resident in the end.
fn launch(
    command: &ServerCommand,
    engine: String,
    expected: Option<Bytes>,
    options: &ServerOptions,
    interrupts: &Interrupts,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<Server, LaunchError> {
    let begun = Instant::now();
    let mut process = Process::spawn(&command.invocation, options)?;
    on(Event::Started { pid: process.pid });
    on(Event::Stage(Stage::Starting));
    let client = Client::new(port::url(&command.listen.host, command.listen.port));
    process.await_health(&Waiting { client: &client, silence: options.silence, expected }, interrupts, on)?;
    let load = begun.elapsed();
    process.memory.look(process.pid);
    let memory_at_load = process.memory;
    on(Event::Stage(Stage::Ready));
    on(Event::Ready { url: client.url() });
    let (prefill, decode) = Default::default();
    Ok(Server { process, client, load, memory_at_load, engine, notes: notes(&command.ambient), prefill, decode, grace: options.grace })
}

/// What a user should know of settings from outside.
fn notes(ambient: &[AmbientSetting]) -> Vec<String> {
    let told = ambient.iter().filter_map(|setting| {
        let AmbientSetting { origin, key, value, effect } = setting;
        Some(match effect {
            Interference::InForce => format!("{origin} sets {key} = {value}, which the plan does not know of: it may not hold"),
            Interference::Removed => format!("{key}={value} was taken out of the engine's environment"),
            Interference::Overridden => format!("{origin} sets {key} = {value}; the plan's own value takes precedence"),
            Interference::Harmless => return None,
        })
    });
    told.collect()
}

impl Server {
    /// Address of the server: `http://127.0.0.1:8080`.
    pub fn url(&self) -> &str {
        self.client.url()
    }

    /// Process id of the engine.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Time from start to the first answer.
    pub fn load_time(&self) -> Duration {
        self.load
    }

    /// Continues a text and counts its timings into the outcome.
    ///
    /// # Errors
    /// As [`Server::generate`].
    pub fn complete(&mut self, prompt: &str, n_predict: u32, silence: Duration) -> Result<String, LaunchError> {
        let generation = Generation { n_predict, ..Generation::default() };
        Ok(self.generate(&Prompt::Text(prompt.to_owned()), &generation, silence, &Interrupts::none(), &mut |_| {})?.text)
    }

    /// Continues a prompt; pieces of text come as [`Event::Text`]. A signal ends the text, not the server. `silence` is how
    /// long the server may take for the next piece, the whole prompt before the first.
    ///
    /// # Errors
    /// The server refuses, ends, answers as no llama-server does, or takes too long.
    pub fn generate(
        &mut self,
        prompt: &Prompt,
        generation: &Generation,
        silence: Duration,
        interrupts: &Interrupts,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, LaunchError> {
        const DURING: &str = "generating";
        let pieces = self.client.generate(prompt, generation);
        let mut generated = Generated { text: String::new(), stop: Stop::Cancelled, prefill: Timing::default(), decode: Timing::default() };
        let mut last_sign = Instant::now();
        loop {
            self.process.pass_on(on);
            self.process.memory.look(self.process.pid);
            match pieces.recv_timeout(LOOK) {
                Ok(Piece::Text(text)) => {
                    on(Event::Text(&text));
                    generated.text.push_str(&text);
                    last_sign = Instant::now();
                }
                Ok(Piece::End { stop, timings }) => {
                    (generated.prefill, generated.decode) = timings.unwrap_or_default();
                    self.prefill.add(generated.prefill);
                    self.decode.add(generated.decode);
                    // It calls both a limit: fewer tokens than asked for means that there was no room for more.
                    let full = stop == Stop::Length && (1..u64::from(generation.n_predict)).contains(&generated.decode.tokens);
                    let stop = if full { Stop::ContextFull } else { stop };
                    return Ok(Generated { stop, ..generated });
                }
                // A dead engine tells more than a broken connection.
                Ok(broken) => return Err(self.process.failed_soon(DURING).unwrap_or_else(|| broken.into())),
                Err(RecvTimeoutError::Disconnected) => {
                    let broken = || LaunchError::Protocol { what: "the stream ended before the text did".into() };
                    return Err(self.process.failed_soon(DURING).unwrap_or_else(broken));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if interrupts.take().is_some() {
                return Ok(generated);
            }
            if last_sign.elapsed() > silence {
                return Err(LaunchError::Silent { during: DURING.into(), silence, log: self.process.log.facts().tail() });
            }
        }
    }

    /// Waits until the server ends by itself or one of our own signals comes, and ends it then.
    ///
    /// # Errors
    /// The server ended by itself with a failure.
    pub fn wait(mut self, interrupts: &Interrupts, on: &mut dyn FnMut(Event<'_>)) -> Result<Outcome, LaunchError> {
        loop {
            self.process.pass_on(on);
            self.process.memory.look(self.process.pid);
            if interrupts.take().is_some() {
                return Ok(self.stop());
            }
            if let Some(status) = self.process.ended() {
                return match status.success() {
                    true => Ok(self.outcome()),
                    false => Err(self.process.failed("serving", status)),
                };
            }
            std::thread::sleep(LOOK * 2);
        }
    }

    /// Ends the server and tells what it used.
    pub fn stop(mut self) -> Outcome {
        self.measure();
        self.process.end(self.grace);
        self.outcome()
    }

    /// The server's own counters cover every client, not only us; where there was no other, our own answers say where the tokens stood.
    fn measure(&mut self) {
        self.process.memory.look(self.process.pid);
        if let Some((prefill, decode)) = self.client.counters() {
            for (own, all) in [(&mut self.prefill, prefill), (&mut self.decode, decode)] {
                *own = if own.tokens == all.tokens { Timing { time: all.time, ..*own } } else { all };
            }
        }
    }

    fn outcome(&mut self) -> Outcome {
        Outcome {
            engine: self.engine.clone(),
            load: Some(self.load),
            buffers: self.process.log.facts().buffers.clone(),
            memory_at_load: self.memory_at_load,
            memory: self.process.memory,
            prefill: self.prefill,
            decode: self.decode,
            notes: std::mem::take(&mut self.notes),
            without_device: false,
        }
    }
}

/// A running engine, its log and its memory. Killed when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    pid: u32,
    program: PathBuf,
    log: Log,
    readers: Vec<JoinHandle<()>>,
    memory: ProcessMemory,
    status: Option<ExitStatus>,
}

struct Waiting<'a> {
    client: &'a Client,
    silence: Duration,
    /// What should be resident in the end.
    expected: Option<Bytes>,
}

impl Process {
    fn spawn(invocation: &Invocation, options: &ServerOptions) -> Result<Self, LaunchError> {
        let program = PathBuf::from(&invocation.program);
        let mut command = supervise::command(options.supervisor.as_deref(), &invocation.program, &invocation.args);
        command.envs(&invocation.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in &invocation.env_remove {
            command.env_remove(name);
        }
        own_group(&mut command);
        let mut child = command.spawn().map_err(|source| LaunchError::Start { program: program.clone(), source })?;
        let log = Log::default();
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|stream| log.follow(stream)));
        readers.extend(child.stderr.take().map(|stream| log.follow(stream)));
        let pid = child.id();
        Ok(Self { child, pid, program, log, readers, memory: ProcessMemory::default(), status: None })
    }

    /// Waits until the server says that it is well.
    fn await_health(&mut self, waiting: &Waiting<'_>, interrupts: &Interrupts, on: &mut dyn FnMut(Event<'_>)) -> Result<(), LaunchError> {
        let mut stage = Stage::Starting;
        let mut sign = (0, Bytes::ZERO);
        let mut last_sign = Instant::now();
        loop {
            self.pass_on(on);
            self.check_alive(&stage.to_string())?;
            if let Some(signal) = interrupts.take() {
                return Err(LaunchError::Interrupted { signal: super::signal_name(signal) });
            }
            self.memory.look(self.pid);
            let resident = self.memory.resident();
            let (lines, now) = {
                let facts = self.log.facts();
                (facts.lines, facts.stage)
            };
            if let Some(now) = now.filter(|now| *now > stage) {
                stage = now;
                on(Event::Stage(stage));
            }
            // A megabyte more or a line more is a sign of life.
            let signs = (lines, Bytes::from_mib(resident.get() >> 20));
            if signs > sign || signs.1 > sign.1 {
                sign = signs;
                last_sign = Instant::now();
                if let Some(expected) = waiting.expected.filter(|expected| !expected.is_zero()) {
                    on(Event::Progress((resident.as_f64() / expected.as_f64()).min(0.99) as f32));
                }
            }
            if waiting.client.is_healthy() {
                return Ok(());
            }
            if last_sign.elapsed() > waiting.silence {
                let log = self.log.facts().tail();
                return Err(LaunchError::Silent { during: stage.to_string(), silence: waiting.silence, log });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Hands waiting lines of the log on.
    fn pass_on(&self, on: &mut dyn FnMut(Event<'_>)) {
        let lines = self.log.facts().take_waiting();
        lines.iter().for_each(|line| on(Event::Log(line)));
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    fn check_alive(&mut self, during: &str) -> Result<(), LaunchError> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(self.failed(during, status)),
        }
    }

    /// The error for an engine that has just broken a connection, if it is about to end.
    fn failed_soon(&mut self, during: &str) -> Option<LaunchError> {
        let end = Instant::now() + LAST_WORDS;
        while self.ended().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.ended()?;
        Some(self.failed(during, status))
    }

    fn failed(&mut self, during: &str, status: ExitStatus) -> LaunchError {
        // The last lines may still be in the pipes, which a child of the engine could keep open.
        let end = Instant::now() + LAST_WORDS;
        while Instant::now() < end && !self.readers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let log = self.log.facts().tail();
        // The supervisor could not become the engine.
        if status.code() == Some(supervise::CANNOT_START) && log.last().is_some_and(|line| line.contains(supervise::COMPLAINT)) {
            let source = std::io::Error::other(log.last().cloned().unwrap_or_default());
            return LaunchError::Start { program: self.program.clone(), source };
        }
        LaunchError::Ended { during: during.to_owned(), status: describe_exit(status), log }
    }

    /// Asks the engine to end, and makes it end.
    fn end(&mut self, grace: Duration) {
        #[cfg(unix)]
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended in between, which is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let end = Instant::now() + grace;
            while self.ended().is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        #[cfg(not(unix))]
        let _ = grace;
        if self.ended().is_none() {
            kill_group(&mut self.child);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            kill_group(&mut self.child);
        }
    }
}

#[cfg(test)]
mod tests;
