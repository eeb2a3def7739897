//! Times the bundled engine as llama-bench does: `bench MODEL.gguf [-p N] [-n N] [-d N] [-t N] [-r N] [-fa auto|on|off]`.
//! Prints one JSON object with every sample in milliseconds and the medians in tokens per second.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use llama::protocol::{Bench, Load};
use llama::{Cancel, Session, build_info};
use serde_json::json;
use spec::Settings;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let path = PathBuf::from(words.next().ok_or("no model was named")?);
    let mut bench = Bench { n_prompt: 512, n_gen: 128, depth: 0, repetitions: 5 };
    let mut settings = Settings { threads: 2, ..Settings::default() };
    while let Some(flag) = words.next() {
        let word = words.next().ok_or("a flag lacks its value")?;
        match flag.as_str() {
            "-p" => bench.n_prompt = word.parse()?,
            "-n" => bench.n_gen = word.parse()?,
            "-d" => bench.depth = word.parse()?,
            "-r" => bench.repetitions = word.parse()?,
            "-t" => settings.threads = word.parse()?,
            "-fa" => settings.flash_attn = word.parse()?,
            _ => return Err(format!("unknown option {flag}").into()),
        }
    }
    settings.threads_batch = settings.threads;
    settings.n_ctx = bench.depth + bench.n_prompt.max(bench.n_gen);
    let load = Load { paths: vec![path], settings, warm_up: true };
    let mut session = Session::load(&load, &Cancel::new(), |_| {})?;
    let timed = session.bench(&bench)?;
    let info = build_info();
    let answer = json!({
        "engine": info.version, "compiler": info.compiler, "cpu_features": info.cpu_features,
        "n_prompt": timed.n_prompt, "prefill_ms": timed.prefill_ms, "prefill_tokens_per_s": rate(timed.n_prompt, &timed.prefill_ms),
        "n_gen": timed.n_gen, "decode_ms": timed.decode_ms, "decode_tokens_per_s": rate(timed.n_gen, &timed.decode_ms),
        "depth": timed.depth,
    });
    Ok(answer.to_string())
}

/// Tokens per second of the median run.
fn rate(tokens: u32, samples_ms: &[f64]) -> Option<f64> {
    let mut sorted = samples_ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len() / 2)?;
    Some(f64::from(tokens) * 1e3 / middle)
}
