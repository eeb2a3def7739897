//! The engine as a child process: one request per line in, messages out. See [`crate::protocol`].
//!
//! Standard output belongs to the protocol alone: at the start it is moved aside and whatever else writes there lands on
//! standard error. A reader thread hears [`Request::Cancel`] while a request is served. On Linux the kernel ends the child
//! when the thread that started it ends, so start it from one that lives as long as the child is wanted.

use crate::protocol::{FailureKind, Hello, LogLevel, Message, Request, VERSION};
use crate::session::{Cancel, Session};
use crate::{LlamaError, build_info, dry_run, log};
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Longest request: a prompt of some million tokens.
const MAX_LINE: u64 = 64 << 20;

/// Serves requests from standard input until it ends or [`Request::Quit`] comes. Never returns to a caller that lives on:
/// the process's standard output is taken.
pub fn main() -> ExitCode {
    if !tie_to_parent() {
        return ExitCode::FAILURE;
    }
    let Ok(output) = take_stdout() else { return ExitCode::FAILURE };
    let output = Output(Arc::new(Mutex::new(output)));
    let info = build_info();
    let hello = Hello {
        protocol: VERSION,
        engine: info.version.clone(),
        cpu_features: info.cpu_features.iter().cloned().collect(),
        pid: std::process::id(),
    };
    if !output.send(&Message::Hello(hello)) {
        return ExitCode::FAILURE;
    }
    report_aborts(&output);
    let logs = output.clone();
    log::send_to(move |level, text| {
        // Debug lines are many (every tensor of a load) and nobody's business outside the engine.
        if level > LogLevel::Debug {
            logs.send(&Message::Log { level, text: text.to_owned() });
        }
    });
    let turn = Arc::new(Turn::default());
    let (sender, requests) = mpsc::channel();
    let hearing = Arc::clone(&turn);
    std::thread::spawn(move || hear(std::io::stdin(), &sender, &hearing));
    serve(&requests, &output, &turn)
}

/// Whose turn it is: how many requests are not answered yet, and the switch that cancels them. A cancel that comes after
/// the answer must not hit the next request, so both change under one lock.
#[derive(Default)]
struct Turn {
    open: Mutex<usize>,
    cancel: Cancel,
}

impl Turn {
    fn change(&self, change: impl FnOnce(&mut usize, &Cancel)) {
        change(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner), &self.cancel);
    }
}

/// What the reader hands over.
enum Heard {
    Request(Box<Request>),
    /// A line that is no request, and why.
    Nonsense(String),
}

/// Reads requests until the input ends. `Cancel` throws the switch while there is something to cancel and is not handed over.
fn hear(input: impl Read, sender: &Sender<Heard>, turn: &Turn) {
    let mut input = BufReader::new(input);
    loop {
        let mut line = String::new();
        let heard = match input.by_ref().take(MAX_LINE).read_line(&mut line) {
            Ok(0) => return,
            Ok(_) if !line.ends_with('\n') && line.len() as u64 >= MAX_LINE => {
                // The rest of the line cannot be told from the next request.
                let _ = sender.send(Heard::Nonsense(format!("a line longer than {MAX_LINE} bytes")));
                return;
            }
            Ok(_) if line.trim().is_empty() => continue,
            Ok(_) => match serde_json::from_str(&line) {
                Ok(Request::Cancel) => {
                    turn.change(|open, cancel| {
                        if *open > 0 {
                            cancel.throw();
                        }
                    });
                    continue;
                }
                Ok(request) => Heard::Request(Box::new(request)),
                Err(error) => Heard::Nonsense(error.to_string()),
            },
            Err(error) => Heard::Nonsense(error.to_string()),
        };
        turn.change(|open, _| *open += 1);
        if sender.send(heard).is_err() {
            return;
        }
    }
}

fn serve(requests: &Receiver<Heard>, output: &Output, turn: &Turn) -> ExitCode {
    let mut session = None;
    while let Ok(heard) = requests.recv() {
        let answer = match heard {
            Heard::Request(request) if *request == Request::Quit => break,
            Heard::Request(request) => answer(*request, &mut session, output, &turn.cancel)
                .unwrap_or_else(|error| Message::Failed { kind: error.kind(), reason: error.to_string() }),
            Heard::Nonsense(reason) => Message::Failed { kind: FailureKind::Protocol, reason },
        };
        turn.change(|open, cancel| {
            *open = open.saturating_sub(1);
            cancel.reset();
        });
        if !output.send(&answer) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The message that closes a request.
fn answer(request: Request, session: &mut Option<Session>, output: &Output, cancel: &Cancel) -> Result<Message, LlamaError> {
    match request {
        Request::Load(load) => {
            // What was loaded goes first, so that both need not fit.
            *session = None;
            let mut shown = -1.0;
            let loaded = Session::load(&load, cancel, |fraction| {
                // A message for each percent, not for each tensor.
                if fraction - shown >= 0.01 || fraction >= 1.0 {
                    shown = fraction;
                    output.send(&Message::Progress { fraction });
                }
            })?;
            let message = Message::Loaded(Box::new(loaded.loaded()));
            *session = Some(loaded);
            Ok(message)
        }
        Request::Generate(generate) => match session {
            Some(session) => {
                let done = session.generate(&generate, |text| {
                    output.send(&Message::Token { text: text.to_owned() });
                })?;
                Ok(Message::Done(done))
            }
            None => Ok(nothing_loaded()),
        },
        Request::Bench(bench) => match session {
            Some(session) => Ok(Message::Benched(session.bench(&bench)?)),
            None => Ok(nothing_loaded()),
        },
        Request::DryRun(dry) => {
            let breakdown = dry_run(&dry.paths, &dry.settings, &dry.devices, dry.n_outputs)?;
            Ok(Message::DryRun(Box::new(breakdown)))
        }
        Request::Cancel | Request::Quit => Ok(Message::Failed { kind: FailureKind::Protocol, reason: "out of turn".into() }),
    }
}

fn nothing_loaded() -> Message {
    Message::Failed { kind: FailureKind::Protocol, reason: "no model is loaded".into() }
}

/// The protocol's way out, shared by the server and the engine's log.
#[derive(Clone)]
struct Output(Arc<Mutex<File>>);

impl Output {
    /// Writes one message, unless a message is being written: for the last words of a thread that may hold the lock itself.
    fn send_if_free(&self, message: &Message) {
        if let (Ok(mut line), Ok(mut file)) = (serde_json::to_vec(message), self.0.try_lock()) {
            line.push(b'\n');
            let _ = file.write_all(&line);
        }
    }

    /// Writes one message as one line. False where nobody listens any more.
    fn send(&self, message: &Message) -> bool {
        let Ok(mut line) = serde_json::to_vec(message) else { return false };
        line.push(b'\n');
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line).is_ok()
    }
}

/// Where an abort of the engine is reported.
static ABORTS: OnceLock<Output> = OnceLock::new();

/// Lets a failed assertion of the engine close the request before the process ends.
fn report_aborts(output: &Output) {
    if ABORTS.set(output.clone()).is_ok() {
        // SAFETY: `on_abort` lives as long as the process.
        unsafe { llama_cpp_sys_2::ggml_set_abort_callback(Some(on_abort)) };
    }
}

unsafe extern "C" fn on_abort(text: *const c_char) {
    if text.is_null() {
        return;
    }
    // SAFETY: the engine passes a terminated string that lives until this function returns.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let reason = format!("the engine gave up: {text}");
    if let Some(output) = ABORTS.get() {
        output.send_if_free(&Message::Failed { kind: FailureKind::Compute, reason });
    }
}

/// Moves standard output aside and lets file descriptor 1 lead to standard error.
#[cfg(unix)]
fn take_stdout() -> std::io::Result<File> {
    use std::os::fd::AsFd;
    let kept = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(File::from(kept))
}

/// Ends this process when its parent ends. False where the parent is gone already.
#[cfg(target_os = "linux")]
fn tie_to_parent() -> bool {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    // Refused only in odd sandboxes; then the end of standard input is what is left.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    getppid() == parent
}

/// Keeps a way to standard output; what else writes there is not kept off it.
#[cfg(windows)]
fn take_stdout() -> std::io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(File::from(std::io::stdout().as_handle().try_clone_to_owned()?))
}

/// Elsewhere the end of standard input ends the child after what it is serving.
#[cfg(not(target_os = "linux"))]
fn tie_to_parent() -> bool {
    true
}
