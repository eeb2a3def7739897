//! Records which types `llama-quantize` would give the tensors of our models: `record_quantize PROGRAM FOLDER >
//! crates/synthetic/tests/quantize/recorded.txt`. The folder takes one sparse file at a time.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(clippy::disallowed_methods, reason = "a development tool that starts another program")]

#[path = "../tests/quantize/summary.rs"]
mod summary;

use std::error::Error;
use std::path::Path;
use std::process::Command;
use summary::summary;
use synthetic::{File, FileType, Fill, Options, Vocabulary, gguf, outline, outline_file, outlines, presets, write::write};

/// Presets with one shape each of what the rules look at: architectures, depths, groups of heads, numbers of experts, ties.
const PRESETS: &[&str] = &[
    "stories15m",
    "smollm2-135m",
    "llama-2-7b",
    "llama-3.2-1b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "mixtral-8x7b",
    "qwen2.5-0.5b",
    "qwen2.5-72b",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "gemma3-4b",
    "phi-4",
    "deepseek-v2-lite",
    "deepseek-v3",
    "gpt-oss-20b",
    "mamba-2.8b",
    "bitnet-2b",
];

/// Options of `llama-quantize` that are recorded, besides none at all.
const OPTIONS: [&str; 4] = ["", "--pure", "--leave-output-tensor", "--output-tensor-type q8_0 --token-embedding-type q4_0"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, folder, ..] = arguments.as_slice() else { return Err("name the program and a folder for one file".into()) };
    let path = Path::new(folder).join("model.gguf");
    println!("# Recorded by the example record_quantize: model, file type, options | tensors by type, need of an importance matrix,");
    println!("# fingerprint of names and types.");
    let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    let known: Vec<_> = presets().collect();
    for name in PRESETS {
        let shape = known.iter().find(|shape| shape.name == *name).ok_or_else(|| format!("no such shape: {name}"))?;
        record(program, name, &gguf(shape, FileType::F16, &options)?, &path)?;
    }
    for name in outlines() {
        let outline = outline(name).ok_or_else(|| format!("broken outline: {name}"))?;
        record(program, name, &outline_file(&outline, FileType::F16, &options)?, &path)?;
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

fn record(program: &str, model: &str, file: &File, path: &Path) -> Result<(), Box<dyn Error>> {
    write(file, Fill::Zero, path)?;
    for file_type in FileType::ALL.iter().filter(|ty| ty.default_type().is_quantized()) {
        for options in OPTIONS {
            // The options work alike for all file types.
            if !options.is_empty() && !matches!(file_type, FileType::Q2_K | FileType::Q4_K_M | FileType::IQ2_M) {
                continue;
            }
            let output =
                Command::new(program).args(options.split_whitespace()).arg("--dry-run").arg(path).arg(file_type.name()).output()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let case = format!("{model} {file_type} {options}");
            let types: Vec<_> = text.lines().filter_map(tensor).collect();
            if types.len() == file.tensors.len() {
                println!("{} | {}", case.trim(), summary(types, text.contains("will require an imatrix")));
            } else if text.contains("no tensor type fallback is defined") {
                println!("{} | refused", case.trim());
            } else {
                eprintln!("{case}: not recorded: {}", text.lines().find(|line| line.contains("error")).unwrap_or("no reason given"));
            }
        }
    }
    Ok(())
}

/// Name and type in a line `[ 2/ 310] token_embd.weight - [ 1024, …], type = f16, size = … MiB -> … MiB (q6_K)`.
fn tensor(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (name, rest) = rest.split_once(" - [")?;
    let (_, rest) = rest.split_once("type =")?;
    let (from, rest) = rest.split_once(',')?;
    let to = rest.rsplit_once('(').and_then(|(_, ty)| ty.trim_end().strip_suffix(')'));
    Some((name.trim().to_owned(), to.unwrap_or(from).trim().to_owned()))
}
