//! The whole chain over the engine inside: load, generate, cancel, measure, and every way for it to end.
//!
//! Has its own main, because the engine runs in a child process of the same program.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a test program")]

mod processes;

use loadmaster::advise::{Advice, Request};
use loadmaster::launch::bundled::{BundledOptions, Generation, Prompt, SUBCOMMAND, Session, Stop, start};
use loadmaster::launch::{Event, Interrupts, LaunchError};
use loadmaster::receipt::receipt;
use processes::{PARENT, engine_ends_with_its_parent, is_alive, signal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A test, with a folder of its own to use.
type Test = fn(&Path);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(SUBCOMMAND) => return loadmaster::llama::child::main(),
        Some(PARENT) => return start_and_wait(),
        Some("--list") => return ExitCode::SUCCESS,
        _ => {}
    }
    let folder = tempfile::tempdir().expect("a folder");
    let tests: [(&str, Test); 6] = [
        ("the plan holds to the byte", plan_holds),
        ("a signal ends a text and not the session", signal_ends_text),
        ("an engine that is killed is an error", killed_engine),
        ("an engine that stops is not waited for", stopped_engine),
        ("a model that breaks after planning is refused", broken_model),
        ("a killed parent takes its engine along", |_| engine_ends_with_its_parent(None)),
    ];
    for (name, test) in tests {
        println!("test {name} ...");
        test(folder.path());
    }
    println!("test result: ok. {} passed", tests.len());
    ExitCode::SUCCESS
}

fn demo() -> PathBuf {
    loadmaster::demo::ensure(None).expect("a model")
}

fn advise(model: &Path) -> Advice {
    loadmaster::advise(&Request::new(model)).expect("a plan")
}

/// A session with the demonstration model, and the process id of its engine.
fn started(options: &BundledOptions) -> (Session, u32, Advice) {
    let advice = advise(&demo());
    let mut engine = 0;
    let mut on = |event: Event<'_>| {
        if let Event::Started { pid } = event {
            engine = pid;
        }
    };
    let session = start(&advice, options, &Interrupts::none(), &mut on).expect("a session");
    (session, engine, advice)
}

fn generate(session: &mut Session, n_predict: u32) -> Result<String, LaunchError> {
    let generation = Generation { n_predict, temperature: 0.0, ..Generation::default() };
    Ok(session.generate(&Prompt::Text("one two three".into()), &generation, &Interrupts::none(), &mut |_| {})?.text)
}

fn plan_holds(_: &Path) {
    let (mut session, engine, advice) = started(&BundledOptions::default());
    let text = generate(&mut session, 16).expect("a text");
    assert_eq!(generate(&mut session, 16).expect("a text"), text, "the likeliest text is always the same");
    let receipt = receipt(&advice, &session.finish());
    assert!(!is_alive(engine));
    let host = receipt.places.last().expect("the host");
    for part in &host.parts {
        let planned = part.planned.as_ref().expect("a plan").value;
        let reported = part.reported.expect("a report");
        // The output buffer is read from a log with two decimals of a MiB.
        let slack = if part.component == "output" { 5243 } else { 0 };
        assert!(planned.abs_diff(reported) <= slack, "{part:#?}");
    }
    assert_eq!(receipt.exit_code(), 0, "{:#?}", receipt.disagreements);
    assert_eq!(receipt.decode.tokens, 30, "the first token of each text costs no decode");
    println!("  anonymous at load: {:?}", receipt.process.anonymous_at_load.relative_error);
}

fn signal_ends_text(_: &Path) {
    let (mut session, _, _) = started(&BundledOptions::default());
    let interrupts = Interrupts::none();
    let mut raised = false;
    let mut on = |event: Event<'_>| {
        // Once: a second signal would end the session. Further tokens are on their way already.
        if matches!(event, Event::Text(_)) && !std::mem::replace(&mut raised, true) {
            interrupts.raise(2);
        }
    };
    let generation = Generation { n_predict: 100_000, ..Generation::default() };
    let generated = session.generate(&Prompt::Text("one".into()), &generation, &interrupts, &mut on).expect("a text");
    assert_eq!(generated.stop, Stop::Cancelled);
    assert!(interrupts.take().is_none_or(|signal| signal == 2));
    assert!(!generate(&mut session, 4).expect("the session lives on").is_empty());
}

fn killed_engine(_: &Path) {
    let (mut session, engine, _) = started(&BundledOptions::default());
    signal("-KILL", engine);
    let error = generate(&mut session, 4).expect_err("no engine");
    assert!(error.to_string().contains("SIGKILL"), "{error}");
    assert_eq!((error.exit_code(), error.hint().is_some()), (6, true));
    let (mut session, engine, _) = started(&BundledOptions::default());
    signal("-ABRT", engine);
    let error = generate(&mut session, 4).expect_err("no engine");
    assert!(error.to_string().contains("SIGABRT"), "{error}");
}

fn stopped_engine(_: &Path) {
    let options = BundledOptions { grace: Duration::from_millis(200), ..BundledOptions::default() };
    let (mut session, engine, _) = started(&options);
    session.set_silence(Duration::from_millis(300));
    signal("-STOP", engine);
    let error = generate(&mut session, 4).expect_err("no answer");
    assert!(matches!(error, LaunchError::Silent { .. }), "{error}");
    drop(session);
    assert!(!is_alive(engine));
}

fn broken_model(folder: &Path) {
    let path = folder.join("broken.gguf");
    std::fs::copy(demo(), &path).expect("a copy");
    let advice = advise(&path);
    std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(100_000)).expect("a shorter file");
    let error = start(&advice, &BundledOptions::default(), &Interrupts::none(), &mut |_| {}).expect_err("no model");
    assert!(matches!(error, LaunchError::Refused { .. }), "{error}");
    println!("  {error}");
}

/// The copy of this program that a test kills.
fn start_and_wait() -> ExitCode {
    let (_session, engine, _) = started(&BundledOptions::default());
    println!("{engine}");
    std::thread::sleep(Duration::from_secs(100));
    ExitCode::FAILURE
}
