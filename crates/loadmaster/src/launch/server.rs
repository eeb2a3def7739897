//! An external llama-server: started, watched until it answers, asked, measured, and ended with us.

use super::log::Log;
use super::{Event, GRACE, Interrupts, LaunchError, Outcome, ProcessMemory, SILENCE, Stage, Timing, port, supervise};
use crate::advise::{Advice, CommandOptions};
use crate::engine::run::{describe_exit, kill_group, own_group};
use crate::engine::{AmbientSetting, EngineError, Interference, ambient};
use planner::emit::{Invocation, Listen};
use serde_json::Value;
use spec::Bytes;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a loading server is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long one question over HTTP may take while the server loads.
const HEALTH_DEADLINE: Duration = Duration::from_secs(2);

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
    url: String,
    load: Duration,
    engine: String,
    notes: Vec<String>,
    prefill: Timing,
    decode: Timing,
    grace: Duration,
    agent: ureq::Agent,
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
    let begun = Instant::now();
    let mut process = Process::spawn(&command.invocation, options)?;
    on(Event::Started { pid: process.pid });
    on(Event::Stage(Stage::Starting));
    let url = port::url(&command.listen.host, command.listen.port);
    let expected = advice.plan.plan().requirement.host.resident().get();
    let agent = agent(HEALTH_DEADLINE);
    process.await_health(&Waiting { url: &url, silence: options.silence, expected, agent: &agent }, interrupts, on)?;
    let load = begun.elapsed();
    on(Event::Stage(Stage::Ready));
    on(Event::Ready { url: &url });
    Ok(Server {
        process,
        url,
        load,
        engine: advice.engine.external.as_ref().map(|engine| format!("{} {}", engine.tool, engine.version)).unwrap_or_default(),
        notes: notes(&command.ambient),
        prefill: Timing::default(),
        decode: Timing::default(),
        grace: options.grace,
        agent,
    })
}

fn agent(deadline: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(deadline)).http_status_as_error(false).proxy(None).build().into()
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
        &self.url
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
    /// No answer within the deadline, or none that a llama-server gives.
    pub fn complete(&mut self, prompt: &str, n_predict: u32, deadline: Duration) -> Result<String, LaunchError> {
        let protocol = |what: String| LaunchError::Protocol { what };
        let body = serde_json::json!({ "prompt": prompt, "n_predict": n_predict, "cache_prompt": false });
        let response = agent(deadline).post(format!("{}/completion", self.url)).send_json(body);
        let answer: Value = match response {
            Ok(mut response) => response.body_mut().read_json().map_err(|error| protocol(format!("/completion: {error}")))?,
            // A dead engine tells more than a broken connection.
            Err(error) => {
                self.process.check_alive("answering")?;
                return Err(protocol(format!("/completion: {error}")));
            }
        };
        let text = answer.get("content").and_then(Value::as_str);
        let text = text.ok_or_else(|| protocol(format!("/completion: {}", short(&answer))))?;
        if let Some((prefill, decode)) = timings(&answer) {
            self.prefill.add(prefill);
            self.decode.add(decode);
        }
        self.process.memory.look(self.process.pid);
        Ok(text.to_owned())
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

    /// The server's own counters cover every client, not only us.
    fn measure(&mut self) {
        self.process.memory.look(self.process.pid);
        let metrics = self.agent.get(format!("{}/metrics", self.url)).call().ok().filter(|response| response.status().is_success());
        if let Some((prefill, decode)) =
            metrics.and_then(|mut response| response.body_mut().read_to_string().ok()).and_then(|text| counters(&text))
        {
            self.prefill = prefill;
            self.decode = decode;
        }
    }

    fn outcome(&mut self) -> Outcome {
        Outcome {
            engine: self.engine.clone(),
            load: Some(self.load),
            buffers: self.process.log.facts().buffers.clone(),
            memory: self.process.memory,
            prefill: self.prefill,
            decode: self.decode,
            notes: std::mem::take(&mut self.notes),
        }
    }
}

/// `timings` of a response: {prompt_n, prompt_ms, predicted_n, predicted_ms}.
fn timings(answer: &Value) -> Option<(Timing, Timing)> {
    let timings = answer.get("timings")?;
    let timing = |tokens: &str, ms: &str| {
        let seconds = timings.get(ms)?.as_f64()? / 1e3;
        Some(Timing { tokens: timings.get(tokens)?.as_u64()?, time: Duration::try_from_secs_f64(seconds).ok()? })
    };
    Some((timing("prompt_n", "prompt_ms")?, timing("predicted_n", "predicted_ms")?))
}

/// Counters of `/metrics`, in Prometheus' text format.
fn counters(text: &str) -> Option<(Timing, Timing)> {
    let value = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix("llamacpp:")?.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    };
    let timing = |tokens: &str, seconds: &str| {
        let time = Duration::try_from_secs_f64(value(seconds)?).ok()?;
        Some(Timing { tokens: value(tokens)? as u64, time })
    };
    Some((timing("prompt_tokens_total", "prompt_seconds_total")?, timing("tokens_predicted_total", "tokens_predicted_seconds_total")?))
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
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
    url: &'a str,
    silence: Duration,
    /// What should be resident in the end.
    expected: Option<Bytes>,
    agent: &'a ureq::Agent,
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
            if is_healthy(waiting) {
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

/// llama-server answers 503 while it loads and 200 when it is ready.
fn is_healthy(waiting: &Waiting<'_>) -> bool {
    waiting.agent.get(format!("{}/health", waiting.url)).call().is_ok_and(|response| response.status() == 200)
}

#[cfg(all(test, unix))]
mod tests;
