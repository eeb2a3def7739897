//! The engine child over its pipes, as a parent sees it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may fail")]

mod models;

use llama::protocol::{Bench, DryRun, FailureKind, Generate, Load, Message, PretendedDevice, Prompt, Request, Sampling, Stop, VERSION};
use models::{Models, tiny};
use spec::{Bytes, Settings};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use synthetic::FileType;

struct Engine {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Engine {
    /// The example `child`, which cargo builds with the tests, beside them.
    fn start() -> Self {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().unwrap().parent().unwrap().join("examples/child");
        let mut process = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn ask(&mut self, request: &Request) {
        self.say(&serde_json::to_string(request).unwrap());
    }

    fn hear(&mut self) -> Option<Message> {
        let mut line = String::new();
        let count = self.output.read_line(&mut line).unwrap();
        (count > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// The message that closes a request, and the text that came before it.
    fn answer(&mut self) -> (String, Message) {
        let mut text = String::new();
        loop {
            match self.hear().expect("the child ended without an answer") {
                Message::Token { text: piece } => text.push_str(&piece),
                Message::Log { .. } | Message::Progress { .. } => {}
                closing => return (text, closing),
            }
        }
    }

    fn end(mut self) -> bool {
        drop(self.input.take());
        while self.hear().is_some() {}
        self.process.wait().unwrap().success()
    }
}

fn settings() -> Settings {
    Settings { n_ctx: 4096, n_batch: 128, n_ubatch: 64, threads: 1, threads_batch: 2, ..Settings::default() }
}

fn load(path: &Path) -> Request {
    Request::Load(Load { paths: vec![path.to_owned()], settings: settings(), warm_up: true })
}

fn generate(n_predict: u32) -> Request {
    let sampling = Sampling { temperature: 3.0, top_k: 0, top_p: 1.0, seed: 5 };
    Request::Generate(Generate { prompt: Prompt::Text("say something".into()), n_predict, cache_prompt: true, sampling })
}

#[test]
fn a_conversation_from_hello_to_quit() {
    let models = Models::new();
    let path = models.write(&tiny(), FileType::Q4_0);
    let mut engine = Engine::start();
    let Some(Message::Hello(hello)) = engine.hear() else { panic!("no hello") };
    assert_eq!((hello.protocol, hello.pid), (VERSION, engine.process.id()));
    assert!(hello.engine.contains("llama-cpp-sys-2"));

    engine.ask(&generate(4));
    assert!(matches!(engine.answer().1, Message::Failed { kind: FailureKind::Protocol, .. }));
    engine.say("{\"request\":\"dance\"}");
    assert!(matches!(engine.answer().1, Message::Failed { kind: FailureKind::Protocol, .. }));
    engine.ask(&load(Path::new("/nowhere.gguf")));
    assert!(matches!(engine.answer().1, Message::Failed { kind: FailureKind::Model, .. }));

    let devices = vec![PretendedDevice { name: Some("CUDA0".into()), memory: Bytes::from_gib(1), pipeline: false, host_buffer: false }];
    let gpu = Settings { n_gpu_layers: 99, ..settings() };
    engine.ask(&Request::DryRun(DryRun { paths: vec![path.clone()], settings: gpu, devices, n_outputs: 1 }));
    let (_, Message::DryRun(dry)) = engine.answer() else { panic!("no dry run") };
    assert!(dry.buffers.iter().any(|buffer| buffer.buffer_type == "CUDA0" && !buffer.model.is_zero()));

    engine.ask(&load(&path));
    let (_, Message::Loaded(loaded)) = engine.answer() else { panic!("not loaded") };
    assert_eq!((loaded.threads, loaded.threads_batch, loaded.breakdown.n_ctx), (1, 2, 4096));
    assert!(loaded.load_ms > 0.0 && loaded.has_chat_template);

    engine.ask(&generate(16));
    let (text, Message::Done(done)) = engine.answer() else { panic!("not done") };
    assert!(!text.is_empty() && done.predicted_n >= 1);
    engine.ask(&generate(16));
    let (again, Message::Done(second)) = engine.answer() else { panic!("not done") };
    assert_eq!(again, text);
    assert_eq!(second.prompt_n, 1);

    engine.ask(&Request::Bench(Bench { n_prompt: 32, n_gen: 2, depth: 0, repetitions: 2 }));
    let (_, Message::Benched(timed)) = engine.answer() else { panic!("not benched") };
    assert_eq!((timed.prefill_ms.len(), timed.decode_ms.len()), (2, 2));

    engine.ask(&Request::Quit);
    assert!(engine.end());
}

#[test]
fn a_cancel_stops_the_text_and_nothing_after_it() {
    let models = Models::new();
    let path = models.write(&tiny(), FileType::Q8_0);
    let mut engine = Engine::start();
    engine.ask(&load(&path));
    assert!(matches!(engine.answer().1, Message::Hello(_)));
    assert!(matches!(engine.answer().1, Message::Loaded(_)));
    let mut stopped = false;
    // A text may end by itself first; of eight, most do not.
    for _ in 0..8 {
        engine.ask(&generate(4000));
        engine.ask(&Request::Cancel);
        match engine.answer().1 {
            Message::Done(done) if done.stop == Stop::Cancelled => stopped = true,
            Message::Failed { kind: FailureKind::Cancelled, .. } => stopped = true,
            Message::Done(_) => {}
            other => panic!("{other:?}"),
        }
        // Too late for anything: must be without effect.
        engine.ask(&Request::Cancel);
        engine.ask(&generate(1));
        match engine.answer().1 {
            Message::Done(done) => assert_ne!(done.stop, Stop::Cancelled),
            other => panic!("{other:?}"),
        }
    }
    assert!(stopped);
    assert!(engine.end());
}

#[test]
fn a_child_ends_with_its_input() {
    let mut engine = Engine::start();
    assert!(matches!(engine.hear(), Some(Message::Hello(_))));
    assert!(engine.end());
}
