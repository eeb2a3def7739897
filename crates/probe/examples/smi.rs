//! Reads what `nvidia-smi -q`, `nvidia-smi -q -x` or `rocm-smi --json` printed and shows the machine that detection makes of it.
//!
//! `cargo run -p probe --example smi -- FILE`: as `loadmaster detect --json`; with `--recording` as a recording for
//! `--machine`.

#[path = "../tests/smi/mod.rs"]
mod smi;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let recording = arguments.iter().any(|argument| argument == "--recording");
    let files: Vec<&String> = arguments.iter().filter(|argument| *argument != "--recording").collect();
    let [file] = files[..] else {
        let _ = writeln!(std::io::stderr(), "error: needs one file: smi [--recording] FILE");
        return ExitCode::from(2);
    };
    match show(file, recording) {
        // A reader that has gone away is no error.
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(file: &str, recording: bool) -> Result<String, Box<dyn std::error::Error>> {
    let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
    let host = smi::read(&text)?;
    if recording {
        return Ok(host.to_text());
    }
    let machine = probe::detect(&host.with_origin(file))?;
    Ok(serde_json::to_string_pretty(&probe::Report::from(&machine))?)
}
