//! Launches of a stand-in for llama-server: a good one, and every way to misbehave.

#![cfg(unix)]

use super::*;
use crate::launch::BufferUse;
use std::collections::BTreeMap;
use std::path::Path;

/// A server in one of the modes of `fake.py`, its events, and what became of it.
fn launch_fake(mode: &str, silence: Duration, interrupts: &Interrupts) -> (Result<Server, LaunchError>, Vec<String>) {
    let port = port::choose("127.0.0.1", None).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/launch/server/fake.py");
    let invocation = Invocation {
        program: "python3".into(),
        args: vec![script.into(), "--port".into(), port.to_string().into()],
        env: BTreeMap::from([("FAKE_MODE".to_owned(), mode.to_owned())]),
        env_remove: Vec::new(),
    };
    let command = ServerCommand { invocation, listen: Listen { host: "127.0.0.1".into(), port }, ambient: Vec::new() };
    let options = ServerOptions { silence, grace: Duration::from_millis(300), ..ServerOptions::default() };
    let mut events = Vec::new();
    let mut on = |event: Event<'_>| match event {
        Event::Stage(stage) => events.push(stage.to_string()),
        Event::Log(line) => events.push(format!("log {}", line.len())),
        _ => {}
    };
    let server = launch(&command, "fake".into(), Some(Bytes::from_mib(100)), &options, interrupts, &mut on);
    (server, events)
}

const LONG: Duration = Duration::from_secs(60);

fn started(mode: &str) -> Server {
    launch_fake(mode, LONG, &Interrupts::none()).0.unwrap()
}

fn failed(mode: &str, silence: Duration) -> LaunchError {
    launch_fake(mode, silence, &Interrupts::none()).0.unwrap_err()
}

/// True while a process exists that is not a zombie.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_good_server_loads_answers_and_ends() {
    let (server, events) = launch_fake("good", LONG, &Interrupts::none());
    let mut server = server.unwrap();
    let stages: Vec<_> = events.iter().filter(|event| !event.starts_with("log")).map(String::as_str).collect();
    assert_eq!((stages.first(), stages.last()), (Some(&"starting"), Some(&"ready")));
    assert_eq!(events.iter().filter(|event| event.starts_with("log")).count(), 8);
    assert_eq!(server.complete("hello", 8, LONG).unwrap(), " a text");
    let pid = server.pid();
    let outcome = server.stop();
    assert!(!is_alive(pid));
    let sizes: Vec<_> = outcome.buffers.iter().map(|buffer| (buffer.usage, (buffer.size.as_mib() * 100.0).round())).collect();
    assert_eq!(
        sizes,
        [(BufferUse::Weights, 13640.0), (BufferUse::Output, 19.0), (BufferUse::Context, 2250.0), (BufferUse::Compute, 1564.0)]
    );
    assert_eq!(outcome.prefill, Timing::somewhere(200, Duration::from_millis(500)), "the server's own counters cover all clients");
    assert_eq!(outcome.decode.rate().map(|rate| rate.get()), Some(25.0));
    assert!(outcome.memory.anonymous_peak > Some(Bytes::ZERO) && outcome.load > Some(Duration::from_millis(200)));
}

#[test]
fn without_metrics_the_answers_are_counted() {
    let mut server = started("plain");
    for _ in 0..2 {
        server.complete("hello", 8, LONG).unwrap();
    }
    let outcome = server.stop();
    assert_eq!((outcome.prefill.tokens, outcome.decode), (42, Timing::somewhere(16, Duration::from_millis(128))));
}

#[test]
fn an_engine_that_dies_while_it_loads_tells_why() {
    let error = failed("dies", LONG);
    let says = "the engine ended while starting, exit code 1: E llama_model_load: error loading model: missing tensor 'output.weight'";
    assert_eq!(error.to_string(), says);
    assert_eq!((error.exit_code(), error.log().len()), (6, 3));
    let error = failed("aborts", LONG);
    assert_eq!(error.to_string(), "the engine ended while starting, killed by SIGABRT: GGML_ASSERT(n > 0) failed");
}

#[test]
fn a_silent_engine_is_not_waited_for() {
    for mode in ["silent", "deaf"] {
        let (server, _) = launch_fake(mode, Duration::from_millis(700), &Interrupts::none());
        let error = server.unwrap_err();
        assert!(matches!(error, LaunchError::Silent { .. }), "{error}");
        assert!(error.to_string().starts_with("the engine shows no progress for 0.7 s while "), "{error}");
    }
}

#[test]
fn a_signal_ends_the_wait_and_the_engine() {
    let interrupts = Interrupts::none();
    interrupts.raise(15);
    let error = launch_fake("silent", LONG, &interrupts).0.unwrap_err();
    assert_eq!(error.to_string(), "interrupted by SIGTERM");

    let server = started("good");
    let pid = server.pid();
    interrupts.raise(2);
    assert!(server.wait(&interrupts, &mut |_| {}).is_ok());
    assert!(!is_alive(pid));
}

#[test]
fn an_engine_that_ends_while_it_serves_is_a_failure() {
    let error = started("ends").wait(&Interrupts::none(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("the engine ended while serving, exit code 3"), "{error}");
    let error = started("dies-later").complete("hello", 1, LONG).unwrap_err();
    assert!(error.to_string().contains("SIGABRT"), "{error}");
}

#[test]
fn text_comes_in_pieces_and_a_signal_ends_it() {
    let mut server = started("slow");
    let interrupts = Interrupts::none();
    let mut pieces = Vec::new();
    let mut on = |event: Event<'_>| {
        if let Event::Text(text) = event {
            pieces.push(text.to_owned());
            interrupts.raise(2);
        }
    };
    let prompt = Prompt::Text("hello".into());
    let generated = server.generate(&prompt, &Generation::default(), LONG, &interrupts, &mut on).unwrap();
    assert_eq!((generated.text.as_str(), generated.stop, pieces), (" a", Stop::Cancelled, vec![" a".to_owned()]));
    let error = server.complete("hello", 1, Duration::from_millis(200)).unwrap_err();
    assert!(error.to_string().starts_with("the engine shows no progress for 0.2 s while generating"), "{error}");
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    let error = started("full").complete("hello", 1, LONG).unwrap_err();
    assert!(error.to_string().contains("the request exceeds the context size"), "{error}");
    let error = started("garbage").complete("hello", 1, LONG).unwrap_err();
    assert!(matches!(error, LaunchError::Protocol { .. }), "{error}");
}

#[test]
fn a_server_that_does_not_want_to_end_is_made_to() {
    let server = started("stubborn");
    let pid = server.pid();
    server.stop();
    assert!(!is_alive(pid));
    let server = started("stubborn");
    let pid = server.pid();
    drop(server);
    assert!(!is_alive(pid));
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let invocation = Invocation { program: "/no/such/llama-server".into(), args: Vec::new(), env: BTreeMap::new(), env_remove: Vec::new() };
    let error = Process::spawn(&invocation, &ServerOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot start /no/such/llama-server: "), "{error}");
}
