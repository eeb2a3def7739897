//! The whole chain over a server: find, ask, plan, emit, launch, measure, and no child left behind.
//!
//! Runs over a stand-in for llama-server, and over a real one where `scripts/get-engine` or `LOADMASTER_TEST_ENGINE_DIR`
//! provides it. Has its own main, because a supervisor must be a program with the subcommand `supervise`.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]
#![expect(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test program")]

mod processes;

use loadmaster::advise::{Advice, EngineChoice, Request};
use loadmaster::launch::server::{ServerOptions, command, start};
use loadmaster::launch::{Event, Interrupts, supervise};
use loadmaster::machine::MachineSource;
use loadmaster::planner::Tool;
use loadmaster::receipt::receipt;
use processes::{PARENT, engine_ends_with_its_parent, is_alive};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Set for the copy of this program that runs the tests, with a cache folder of its own.
const MARK: &str = "LOADMASTER_TEST_FOLDER";

fn main() -> ExitCode {
    if !cfg!(unix) {
        return ExitCode::SUCCESS;
    }
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|arg| arg.to_str()) {
        Some(supervise::SUBCOMMAND) => become_engine(&args),
        Some(PARENT) => start_and_wait(Path::new(&args[1])),
        // `cargo test -- --list` and filters mean the other tests.
        Some("--list") => ExitCode::SUCCESS,
        _ => match std::env::var_os(MARK) {
            None => run_apart(),
            Some(folder) => run(Path::new(&folder)),
        },
    }
}

/// `supervise PARENT -- PROGRAM ARGS...`
fn become_engine(args: &[OsString]) -> ExitCode {
    let parent = args[1].to_str().and_then(|pid| pid.parse().ok()).expect("a process id");
    let error = supervise::become_engine(parent, &args[3], &args[4..]);
    eprintln!("{}{error}", supervise::COMPLAINT);
    ExitCode::from(supervise::CANNOT_START as u8)
}

fn run_apart() -> ExitCode {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(MARK, folder.path()).env("XDG_CACHE_HOME", folder.path()).env("LLAMA_ARG_N_CPU_MOE", "three");
    let status = command.status().expect("it starts");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(folder: &Path) -> ExitCode {
    let fake = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/launch/server/fake.py");
    let tests: [(&str, &dyn Fn()); 5] = [
        ("the chain over a stand-in", &|| chain(folder, &fake, 0.0)),
        ("the command is the one that runs", &|| exact_command(folder, &fake)),
        ("a killed parent takes its engine along", &|| engine_ends_with_its_parent(Some(&fake))),
        ("an engine that is none is said to be none", &|| no_engine(folder)),
        ("the chain over a real llama-server", &|| match real_engine() {
            Some(engine) => chain(folder, &engine, 0.03),
            None => println!("  SKIPPED: no real engine; run scripts/get-engine or set LOADMASTER_TEST_ENGINE_DIR"),
        }),
    ];
    for (name, test) in tests {
        println!("test {name} ...");
        test();
    }
    println!("test result: ok. {} passed", tests.len());
    ExitCode::SUCCESS
}

/// `llama-server` of the folder that the environment names, or of the newest that `scripts/get-engine` has fetched.
fn real_engine() -> Option<PathBuf> {
    let named = std::env::var_os("LOADMASTER_TEST_ENGINE_DIR").map(PathBuf::from);
    let fetched = std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.toolchain")).into_iter().flatten().flatten();
    let mut fetched: Vec<PathBuf> = fetched.map(|entry| entry.path().join("usr/bin")).collect();
    fetched.sort();
    named.into_iter().chain(fetched.into_iter().rev()).map(|folder| folder.join("llama-server")).find(|path| path.is_file())
}

fn advise(engine: &Path) -> Result<Advice, loadmaster::Error> {
    let model = loadmaster::demo::ensure(None)?;
    let engine = EngineChoice::External { tool: Tool::Server, path: Some(engine.to_owned()) };
    loadmaster::advise(&Request { machine: MachineSource::Live, engine, ..Request::new(model) })
}

fn options() -> ServerOptions {
    ServerOptions { supervisor: std::env::current_exe().ok(), ..ServerOptions::default() }
}

/// A stand-in reports the sizes of another model, so only a real engine is held to a tolerance.
fn chain(folder: &Path, engine: &Path, tolerance: f64) {
    let advice = advise(engine).expect("a plan");
    let mut logged = 0;
    let mut on = |event: Event<'_>| logged += usize::from(matches!(event, Event::Log(_)));
    let mut server = start(&advice, &options(), &Interrupts::none(), &mut on).expect("a server");
    let pid = server.pid();
    let text = server.complete("one two three four", 16, Duration::from_secs(120)).expect("a text");
    assert!(!text.is_empty());
    let outcome = server.stop();
    assert!(!is_alive(pid));
    assert!(logged > 0);

    let receipt = receipt(&advice, &outcome);
    receipt.save(&folder.join("receipt.json")).expect("a receipt");
    assert!(receipt.notes.iter().any(|note| note.contains("LLAMA_ARG_N_CPU_MOE=three was taken out")), "{:?}", receipt.notes);
    assert!(receipt.decode.measured > Some(0.0) && receipt.prefill.measured > Some(0.0));
    assert!(receipt.load_ms > Some(0.0) && receipt.process.anonymous.reported > Some(0));
    let host = receipt.places.last().expect("the host");
    assert!(host.total.reported > Some(0));
    if tolerance > 0.0 {
        let error = host.total.relative_error.expect("both figures");
        assert!(error.abs() <= tolerance, "{host:#?}");
        assert_eq!(receipt.exit_code(), 0, "{:#?}", receipt.disagreements);
        println!("  host total off by {:.3} %, anonymous at load by {:?}", error * 100.0, receipt.process.anonymous_at_load.relative_error);
    }
}

fn exact_command(folder: &Path, fake: &Path) {
    let advice = advise(fake).expect("a plan");
    let planned = command(&advice, &options()).expect("a command");
    let args: Vec<_> = planned.invocation.args.iter().filter_map(|arg| arg.to_str()).collect();
    for flag in ["--port", "--log-verbosity", "--metrics"] {
        assert!(args.contains(&flag), "{flag}: {args:?}");
    }
    assert!(planned.invocation.env_remove.iter().any(|name| name == "LLAMA_ARG_N_CPU_MOE"));
    let cached: Vec<_> = std::fs::read_dir(folder.join("loadmaster/engines")).expect("a cache").collect();
    assert!(!cached.is_empty());
}

/// The copy of this program that a test kills.
fn start_and_wait(fake: &Path) -> ExitCode {
    let advice = advise(fake).expect("a plan");
    let server = start(&advice, &options(), &Interrupts::none(), &mut |_| {}).expect("a server");
    println!("{}", server.pid());
    std::thread::sleep(Duration::from_secs(100));
    ExitCode::FAILURE
}

fn no_engine(folder: &Path) {
    let script = folder.join("llama-server");
    std::fs::write(&script, "#!/bin/sh\necho hello\n").expect("a script");
    Command::new("chmod").arg("+x").arg(&script).status().expect("chmod");
    for (engine, says) in [(&script, "is not llama.cpp"), (&folder.join("nothing"), "no llama-server at")] {
        let error = advise(engine).expect_err("no engine");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!((error.exit_code(), error.hint().is_some()), (5, true));
    }
}
