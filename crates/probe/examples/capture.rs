//! Reads a machine that another project captured and prints it as `loadmaster detect --json` does: archives of sysfs, CPUID dumps,
//! phones, GPUs, and what nvidia-smi and rocm-smi print.
//!
//! `cargo run -p probe --example capture -- FILE`

#[path = "../tests/foreign/mod.rs"]
mod foreign;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut files = std::env::args_os().skip(1);
    let (Some(file), None) = (files.next(), files.next()) else {
        let _ = writeln!(std::io::stderr(), "error: needs one file: capture FILE");
        return ExitCode::from(2);
    };
    match report(std::path::Path::new(&file)) {
        // A reader that has gone away is no error.
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}: {error}", file.to_string_lossy());
            ExitCode::FAILURE
        }
    }
}

fn report(file: &std::path::Path) -> Result<String, Box<dyn std::error::Error>> {
    let tree = foreign::read(&std::fs::read(file)?)?;
    let mut machine = probe::detect(&tree)?;
    machine.origin = file.to_string_lossy().into_owned();
    machine.warnings.extend(tree.notes);
    Ok(serde_json::to_string_pretty(&probe::Report::from(&machine))?)
}
