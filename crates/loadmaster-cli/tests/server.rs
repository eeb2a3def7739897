//! `run` on an external server: a stand-in for llama-server that needs Python.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::Folder;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The exit code of a run that went well: the stand-in reports the buffers of another model, and the receipt notices.
const DISAGREES: i32 = 6;

/// A folder with a server on PATH that behaves as `mode` says.
fn with_server(mode: &str) -> Folder {
    let mut folder = Folder::new();
    let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/../loadmaster/src/launch/server/fake.py");
    folder.script("llama-server", &format!("FAKE_MODE={mode} exec python3 '{fake}' \"$@\""));
    folder.model("m.gguf", "demo", synthetic::FileType::Q4_K_M);
    folder
}

/// A conversation that has begun: its first words have come.
fn conversation(folder: &Folder) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = folder.command("run m.gguf --chat -n 8 --engine ./llama-server");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(reader.fill_buf().unwrap(), b" a");
    (child, reader)
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// Exit code and what was said on stderr; fails where the program does not end.
fn end(mut child: Child) -> (Option<i32>, String) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(40) {
            let _ = child.kill();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn the_text_of_a_server_is_the_result() {
    let folder = with_server("good");
    let output = folder.output("run m.gguf -n 8 --engine ./llama-server --quiet");
    assert_eq!(String::from_utf8_lossy(&output.stdout), " a text\n", "{}", folder.show(&output));
    let output = folder.output("run m.gguf -n 8 --engine ./llama-server --json");
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run["text"], " a text");
}

#[test]
fn a_conversation_with_a_server_ends_with_its_input() {
    let folder = with_server("good");
    let mut command = folder.command("run m.gguf --chat -n 8 --engine ./llama-server");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\nand again\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), " a text\n a text\n", "{}", folder.show(&output));
    assert_eq!(output.status.code(), Some(DISAGREES));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Receipt"));
}

#[test]
fn an_interrupt_ends_the_answer_of_a_server() {
    let folder = with_server("slow");
    let (mut child, mut reader) = conversation(&folder);
    signal(&child, "INT");
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, " a\n");
    // The conversation goes on: the next line is answered.
    child.stdin.as_mut().unwrap().write_all(b"more\n").unwrap();
    assert_eq!(reader.fill_buf().unwrap(), b" a");
    signal(&child, "TERM");
    assert_eq!(end(child).0, Some(DISAGREES));
}

#[test]
fn a_termination_ends_the_conversation() {
    let folder = with_server("slow");
    let (child, _reader) = conversation(&folder);
    signal(&child, "TERM");
    let (code, said) = end(child);
    assert_eq!(code, Some(DISAGREES), "{said}");
    assert!(said.contains("Receipt"), "{said}");
}
