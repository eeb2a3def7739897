//! A conversation with the engine's child process.

use super::{BundledOptions, DryRun, Generated, Generation, Prompt, SUBCOMMAND, Stop, prefill_allowance};
use crate::advise::Advice;
use crate::engine::EngineError;
use crate::engine::run::{describe_exit, kill_group, own_group};
use crate::launch::log::Log;
use crate::launch::{BufferUse, Event, Interrupts, LaunchError, Outcome, ProcessMemory, ReportedBuffer, Stage, Timing, signal_name};
use llama::protocol::{self, FailureKind, Message, Request};
use spec::{Bytes, Settings, TokensPerSec};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often an interrupt is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A longer line is no message: the longest holds the placement rules of a model and its breakdown.
const MAX_LINE: u64 = 16 << 20;

/// A loaded model in the engine's child process. The child ends when this is dropped.
#[derive(Debug)]
pub struct Session {
    child: Engine,
    silence: Duration,
    grace: Duration,
    has_chat_template: bool,
    /// Lower end of the predicted prefill speed.
    prefill: Option<TokensPerSec>,
    outcome: Outcome,
}

/// Starts the engine inside this program and loads the plan's model. Call it from a thread that lives as long as the
/// session should: the kernel ends the child with it.
///
/// # Errors
/// The engine was built for another processor, does not start, refuses the model, ends, shows no sign of life for too
/// long, or a signal comes.
pub fn start(
    advice: &Advice,
    options: &BundledOptions,
    interrupts: &Interrupts,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<Session, LaunchError> {
    let missing = super::missing_features();
    if !missing.is_empty() {
        return Err(EngineError::MissingFeatures { missing }.into());
    }
    let begun = Instant::now();
    let mut child = Engine::spawn(options)?;
    on(Event::Started { pid: child.child.id() });
    on(Event::Stage(Stage::Starting));
    let mut waiting = Waiting { during: Stage::Starting.to_string(), silence: options.silence, cancels: false };
    let engine = match child.next(&mut waiting, interrupts, on)? {
        Message::Hello(hello) if hello.protocol == protocol::VERSION => hello.engine,
        other => return Err(unexpected(&other)),
    };
    let load = protocol::Load { paths: vec![advice.path.clone()], settings: advice.plan.plan().settings.clone(), warm_up: options.warm_up };
    child.send(&Request::Load(load))?;
    on(Event::Stage(Stage::LoadingWeights));
    waiting.during = Stage::LoadingWeights.to_string();
    let loaded = loop {
        match child.next(&mut waiting, interrupts, on)? {
            Message::Progress { fraction } => on(Event::Progress(fraction)),
            Message::Loaded(loaded) => break *loaded,
            Message::Failed { kind, reason } => return Err(child.refused(kind, reason)),
            other => return Err(unexpected(&other)),
        }
    };
    on(Event::Stage(Stage::Ready));
    let mut outcome = Outcome { engine, load: Some(begun.elapsed()), buffers: buffers(&loaded.breakdown), ..Outcome::default() };
    outcome.memory.update(&memory(&loaded.memory));
    outcome.memory_at_load = outcome.memory;
    Ok(Session {
        child,
        silence: options.silence,
        grace: options.grace,
        has_chat_template: loaded.has_chat_template,
        prefill: advice.plan.plan().prediction.prefill.low().copied(),
        outcome,
    })
}

impl Session {
    /// How long the engine may say nothing from now on before it is taken to hang; at first what
    /// [`BundledOptions::silence`] says.
    pub fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// Whether the model has a chat template that the engine knows.
    pub fn has_chat_template(&self) -> bool {
        self.has_chat_template
    }

    /// Continues a prompt; pieces of text come as [`Event::Text`]. A signal ends the text, not the session; a second one
    /// ends both.
    ///
    /// # Errors
    /// The engine refuses the prompt, ends, or shows no sign of life for too long.
    pub fn generate(
        &mut self,
        prompt: &Prompt,
        generation: &Generation,
        interrupts: &Interrupts,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, LaunchError> {
        // A conversation goes on where it was; a single prompt is computed whole, so that its time is that of the whole.
        let cache_prompt = matches!(prompt, Prompt::Chat(_));
        let (prompt, bytes) = to_protocol(prompt);
        let Generation { n_predict, temperature, top_k, top_p, seed } = *generation;
        let sampling = protocol::Sampling { temperature, top_k, top_p, seed };
        self.child.send(&Request::Generate(protocol::Generate { prompt, n_predict, cache_prompt, sampling }))?;
        let silence = prefill_allowance(self.prefill, bytes, self.silence);
        let mut waiting = Waiting { during: "generating".into(), silence, cancels: true };
        let mut text = String::new();
        loop {
            match self.child.next(&mut waiting, interrupts, on)? {
                Message::Progress { .. } => {}
                Message::Token { text: piece } => {
                    // The prompt is done; from here on every token is a sign of life, but for one that is to stop.
                    if waiting.cancels {
                        waiting.silence = self.silence;
                    }
                    on(Event::Text(&piece));
                    text.push_str(&piece);
                }
                Message::Done(done) => return Ok(self.done(text, &done)),
                Message::Failed { kind: FailureKind::Cancelled, .. } => {
                    return Ok(Generated { text, stop: Stop::Cancelled, prefill: Timing::default(), decode: Timing::default() });
                }
                Message::Failed { kind, reason } => return Err(self.child.refused(kind, reason)),
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn done(&mut self, text: String, done: &protocol::Done) -> Generated {
        let time = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        let prefill = Timing::behind(done.cached_n.into(), done.prompt_n.into(), time(done.prompt_ms));
        // The first token costs no decode: it is chosen from the prompt's logits.
        let past = u64::from(done.cached_n) + u64::from(done.prompt_n);
        let decode = Timing::behind(past, done.predicted_n.saturating_sub(1).into(), time(done.predicted_ms));
        self.outcome.prefill.add(prefill);
        self.outcome.decode.add(decode);
        self.outcome.memory.update(&memory(&done.memory));
        let stop = match done.stop {
            protocol::Stop::EndOfText => Stop::EndOfText,
            protocol::Stop::Length => Stop::Length,
            protocol::Stop::ContextFull => Stop::ContextFull,
            protocol::Stop::Cancelled => Stop::Cancelled,
        };
        Generated { text, stop, prefill, decode }
    }

    /// Ends the engine and tells what it used.
    pub fn finish(mut self) -> Outcome {
        self.outcome.memory.look(self.child.child.id());
        self.child.end(self.grace);
        std::mem::take(&mut self.outcome)
    }
}

/// Asks the engine, in its child process, what it would allocate for `settings` on GPUs that it pretends to have; nothing
/// is allocated but the buffer of logits.
///
/// # Errors
/// The engine was built for another processor, does not start, refuses the model, ends, shows no sign of life for too
/// long, or a signal comes.
pub fn dry_run(
    model: &Path,
    settings: &Settings,
    devices: &[footprint::Device],
    n_outputs: u32,
    options: &BundledOptions,
    interrupts: &Interrupts,
) -> Result<DryRun, LaunchError> {
    let missing = super::missing_features();
    if !missing.is_empty() {
        return Err(EngineError::MissingFeatures { missing }.into());
    }
    let mut child = Engine::spawn(options)?;
    let mut waiting = Waiting { during: "a dry run".to_owned(), silence: options.silence, cancels: false };
    let engine = match child.next(&mut waiting, interrupts, &mut |_| {})? {
        Message::Hello(hello) if hello.protocol == protocol::VERSION => hello.engine,
        other => return Err(unexpected(&other)),
    };
    let devices = devices.iter().map(pretended).collect();
    child.send(&Request::DryRun(protocol::DryRun { paths: vec![model.to_owned()], settings: settings.clone(), devices, n_outputs }))?;
    loop {
        match child.next(&mut waiting, interrupts, &mut |_| {})? {
            Message::Progress { .. } => {}
            Message::DryRun(breakdown) => {
                child.end(options.grace);
                return Ok(DryRun { engine, buffers: buffers(&breakdown) });
            }
            Message::Failed { kind, reason } => return Err(child.refused(kind, reason)),
            other => return Err(unexpected(&other)),
        }
    }
}

fn pretended(device: &footprint::Device) -> protocol::PretendedDevice {
    protocol::PretendedDevice {
        name: Some(device.name.clone()),
        memory: device.free.get().or(device.total.get()).unwrap_or(Bytes::from_gib(1024)),
        pipeline: device.backend.pipeline,
        host_buffer: device.backend.host_buffer,
    }
}

fn to_protocol(prompt: &Prompt) -> (protocol::Prompt, usize) {
    match prompt {
        Prompt::Text(text) => (protocol::Prompt::Text(text.clone()), text.len()),
        Prompt::Chat(turns) => {
            let messages = turns.iter().map(|turn| protocol::ChatMessage { role: turn.role.clone(), content: turn.content.clone() });
            (protocol::Prompt::Chat(messages.collect()), turns.iter().map(|turn| turn.content.len() + 16).sum())
        }
    }
}

fn memory(process: &protocol::ProcessMemory) -> ProcessMemory {
    ProcessMemory { anonymous: process.anonymous, mapped: process.file, peak: process.peak, anonymous_peak: process.anonymous }
}

fn buffers(breakdown: &protocol::Breakdown) -> Vec<ReportedBuffer> {
    let mut buffers = Vec::new();
    for buffer in &breakdown.buffers {
        for (usage, size) in
            [(BufferUse::Weights, buffer.model), (BufferUse::Context, buffer.context), (BufferUse::Compute, buffer.compute)]
        {
            if !size.is_zero() {
                buffers.push(ReportedBuffer { buffer_type: buffer.buffer_type.clone(), usage, size, rounding: Bytes::ZERO });
            }
        }
    }
    // The child reads this one from the log, which prints MiB with two decimals.
    let output = breakdown.output_buffer.map(|size| ReportedBuffer {
        buffer_type: "CPU".into(),
        usage: BufferUse::Output,
        size,
        rounding: Bytes::from_mib(1).scale(0.005),
    });
    buffers.extend(output);
    buffers
}

fn unexpected(message: &Message) -> LaunchError {
    let text: String = format!("{message:?}").chars().take(200).collect();
    LaunchError::Protocol { what: text }
}

/// What is being waited for.
struct Waiting {
    during: String,
    silence: Duration,
    /// A signal cancels the request instead of ending the launch.
    cancels: bool,
}

/// The child process and both directions of its pipe.
#[derive(Debug)]
struct Engine {
    child: Child,
    requests: Option<ChildStdin>,
    messages: Receiver<Result<Message, String>>,
    log: Log,
}

impl Engine {
    fn spawn(options: &BundledOptions) -> Result<Self, LaunchError> {
        let own = || std::env::current_exe();
        let start = |program: &PathBuf, source| LaunchError::Start { program: program.clone(), source };
        let program = match &options.executable {
            Some(program) => program.clone(),
            None => own().map_err(|source| start(&PathBuf::from("the running program"), source))?,
        };
        let mut command = Command::new(&program);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        own_group(&mut command);
        let mut child = command.spawn().map_err(|source| start(&program, source))?;
        let log = Log::default();
        if let Some(stream) = child.stderr.take() {
            drop(log.follow(stream));
        }
        let (send, messages) = mpsc::channel();
        if let Some(stream) = child.stdout.take() {
            std::thread::spawn(move || hear(stream, &send));
        }
        let requests = child.stdin.take();
        Ok(Self { child, requests, messages, log })
    }

    fn send(&mut self, request: &Request) -> Result<(), LaunchError> {
        let line = serde_json::to_string(request).map_err(|error| LaunchError::Protocol { what: error.to_string() })?;
        let written = self.requests.as_mut().map(|pipe| pipe.write_all(format!("{line}\n").as_bytes()).and_then(|()| pipe.flush()));
        match written {
            Some(Ok(())) => Ok(()),
            // A broken pipe: the child has ended, and how says more.
            _ => Err(self.ended("taking a request")),
        }
    }

    /// The next message that is not a line of log, which are handed on.
    fn next(&mut self, waiting: &mut Waiting, interrupts: &Interrupts, on: &mut dyn FnMut(Event<'_>)) -> Result<Message, LaunchError> {
        let mut last_sign = Instant::now();
        let mut memory = ProcessMemory::default();
        let mut resident = Bytes::ZERO;
        loop {
            // Before anything is received: while tokens stream there is always something to receive.
            if let Some(signal) = interrupts.take() {
                if !waiting.cancels {
                    return Err(LaunchError::Interrupted { signal: signal_name(signal) });
                }
                self.send(&Request::Cancel)?;
                // A second signal, or an engine that does not stop, ends the launch.
                waiting.cancels = false;
                waiting.silence = super::GRACE;
                last_sign = Instant::now();
            }
            let lines = self.log.facts().take_waiting();
            lines.iter().for_each(|line| on(Event::Log(line)));
            match self.messages.recv_timeout(LOOK) {
                Ok(Ok(Message::Log { text, .. })) => {
                    self.log.facts().line(&text);
                    last_sign = Instant::now();
                }
                Ok(Ok(message)) => return Ok(message),
                Ok(Err(what)) => return Err(LaunchError::Protocol { what }),
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended(&waiting.during)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            memory.look(self.child.id());
            if memory.resident() > resident + Bytes::from_mib(1) {
                resident = memory.resident();
                last_sign = Instant::now();
            }
            if last_sign.elapsed() > waiting.silence {
                let log = self.log.facts().tail();
                return Err(LaunchError::Silent { during: waiting.during.clone(), silence: waiting.silence, log });
            }
        }
    }

    /// The error for a child that has closed its output.
    fn ended(&mut self, during: &str) -> LaunchError {
        let end = Instant::now() + Duration::from_secs(2);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break describe_exit(status),
                _ if Instant::now() > end => {
                    kill_group(&mut self.child);
                    break "its output closed".to_owned();
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        LaunchError::Ended { during: during.to_owned(), status, log: self.log.facts().tail() }
    }

    fn refused(&self, kind: FailureKind, reason: String) -> LaunchError {
        LaunchError::Refused { reason, memory: kind == FailureKind::Memory, log: self.log.facts().tail() }
    }

    fn end(&mut self, grace: Duration) {
        // The child may have ended already; closing the pipe says the same as the request.
        let _ = self.send(&Request::Quit);
        self.requests = None;
        let end = Instant::now() + grace;
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            kill_group(&mut self.child);
        }
    }
}

fn hear(stream: impl Read, send: &mpsc::Sender<Result<Message, String>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let start = || String::from_utf8_lossy(line.get(..200).unwrap_or(&line)).into_owned();
                let message = serde_json::from_slice(&line).map_err(|error| format!("{error}: {}", start()));
                let broken = message.is_err();
                if send.send(message).is_err() || broken {
                    return;
                }
            }
        }
    }
}
