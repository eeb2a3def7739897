//! Reads a machine that another project captured: archives of sysfs, CPUID dumps, phones, GPUs, and what `nvidia-smi -q`,
//! `nvidia-smi -q -x` and `rocm-smi --json` print.
//!
//! `cargo run -p probe --example capture -- [--recording] FILE`: as `loadmaster detect --json` prints a machine; with `--recording` as
//! a recording for `--machine`.

#[path = "../tests/foreign/mod.rs"]
mod foreign;

use probe::detect::Depth;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (options, files): (Vec<_>, Vec<_>) = std::env::args_os().skip(1).partition(|argument| argument == "--recording");
    let [file] = &files[..] else {
        let _ = writeln!(std::io::stderr(), "error: needs one file: capture [--recording] FILE");
        return ExitCode::from(2);
    };
    match show(Path::new(file), !options.is_empty()) {
        // A reader that has gone away is no error.
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}: {error}", file.to_string_lossy());
            ExitCode::FAILURE
        }
    }
}

fn show(file: &Path, recording: bool) -> Result<String, Box<dyn std::error::Error>> {
    let tree = foreign::read(&std::fs::read(file)?)?;
    if recording {
        // All of it: what a plan does not ask today may be of use tomorrow.
        return Ok(probe::capture_to(&tree, Depth::Full).to_text());
    }
    let mut machine = probe::detect(&tree)?;
    machine.origin = file.to_string_lossy().into_owned();
    machine.warnings.extend(tree.notes);
    Ok(serde_json::to_string_pretty(&probe::Report::from(&machine))?)
}
