//! `run` on the engine inside, with the demonstration model: only where it is built in.
#![cfg(feature = "bundled")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::{Folder, finish};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Processes of the engine whose parent is `parent`, by what the kernel says.
fn children_of(parent: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold spaces; what follows is state and parent.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if fields.get(1).is_some_and(|field| *field == parent.to_string()) {
            children.push(pid);
        }
    }
    children
}

/// True where the process is there and no zombie.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z" && state != "X")
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Waits until `done`, for as long as a loaded machine may need.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_verification_agrees_to_the_byte_on_pretended_devices() {
    let folder = Folder::new();
    folder.model("m.gguf", "qwen3-0.6b", synthetic::FileType::Q4_K_M);
    for line in ["-c 4096", "-c 8192 -np 2 -ctk q8_0 -ctv q8_0 -fa on --machine ram=32GiB,cores=4,gpu=8GiB,gpu=8GiB -ngl 20"] {
        let output = folder.output(&format!("verify m.gguf {line} --json"));
        assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        check(&value, "verify");
        assert!(value["buffers"].as_array().unwrap().iter().all(|buffer| buffer["verdict"] == "equal"), "{value:#}");
    }
}

#[test]
fn a_run_gives_a_text_and_a_receipt_that_agree_with_the_schemas() {
    let folder = Folder::new();
    let output = folder.output("run -n 8 --json --receipt receipt.json");
    assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!run["text"].as_str().unwrap().is_empty());
    check(&run, "run");
    let receipt: Value = serde_json::from_slice(&std::fs::read(folder.path().join("receipt.json")).unwrap()).unwrap();
    check(&receipt, "receipt");
    assert_eq!(run["receipt"], receipt);
    // One token comes from the prompt's own logits.
    assert_eq!(receipt["decode"]["tokens"], 7);
}

fn check(value: &Value, schema: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(format!("{schema}.json"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let errors: Vec<String> = jsonschema::validator_for(&schema).unwrap().iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn text_is_on_stdout_and_everything_else_on_stderr() {
    let folder = Folder::new();
    let first = folder.output("run -n 8");
    let text = String::from_utf8(first.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(String::from_utf8_lossy(&first.stderr).contains("Receipt"));
    let quiet = folder.output("run -n 8 --quiet");
    assert_eq!((String::from_utf8(quiet.stdout).unwrap(), quiet.stderr.len()), (text, 0));
}

#[test]
fn a_conversation_ends_with_its_input() {
    let folder = Folder::new();
    let mut child = folder.command("run --chat -n 4").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\nand again\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
}

#[test]
fn an_interrupt_ends_the_text_and_leaves_a_receipt() {
    let folder = Folder::new();
    let mut child = folder.command("run -n 3500").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    assert!(!reader.fill_buf().unwrap().is_empty(), "no text");
    signal(child.id(), "INT");
    // What is still in the pipe must be read for the text to end.
    let text = std::thread::spawn(move || std::io::read_to_string(reader).unwrap());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", folder.show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Receipt"));
    assert!(text.join().unwrap().split_whitespace().count() < 3500);
}

#[test]
fn no_engine_outlives_a_killed_run() {
    let folder = Folder::new();
    let mut child = folder.command("run -n 3500").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    assert!(!reader.fill_buf().unwrap().is_empty(), "no text");
    let engines = children_of(child.id());
    assert!(!engines.is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the end of the engine", || !engines.iter().any(|pid| lives(*pid)));
}

#[test]
fn an_engine_that_is_killed_is_a_message() {
    let folder = Folder::new();
    let mut child = folder.command("run -n 3500").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    assert!(!reader.fill_buf().unwrap().is_empty(), "no text");
    children_of(child.id()).into_iter().for_each(|pid| signal(pid, "KILL"));
    let rest = std::thread::spawn(move || std::io::read_to_string(reader));
    let output = child.wait_with_output().unwrap();
    let _ = rest.join();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("error: the engine ended while generating, killed by SIGKILL"), "{said}");
}

#[test]
fn a_reader_that_has_gone_away_ends_the_run() {
    let folder = Folder::new();
    let mut child = folder.command("run -n 3500 --quiet").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_file_that_is_no_model_for_the_engine_is_refused_by_it() {
    let folder = Folder::new();
    // Everything is there but what the engine itself needs: it has never heard of this architecture.
    let file = synthetic::gguf(&synthetic::demo(), synthetic::FileType::Q4_K_M, &synthetic::Options::default()).unwrap();
    let mut bytes = vec![0; file.size.get() as usize];
    file.read_at(synthetic::Fill::Zero, 0, &mut bytes);
    let found: Vec<usize> = (0..20_000).filter(|at| bytes[*at..].starts_with(b"qwen3")).collect();
    found.iter().for_each(|at| bytes[*at..at + 5].copy_from_slice(b"qwen9"));
    folder.file("m.gguf", bytes);
    let output = finish(folder.command("run m.gguf -n 4 --quiet"), "run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.starts_with("error: the engine refuses"), "{said}");
}
