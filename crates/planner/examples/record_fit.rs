//! Asks `llama-fit-params` over pretended GPUs and records its answers in `tests/fit/cases.csv`.
//!
//! ```text
//! ./x pretended pretended.so
//! cargo run --release -p planner --example record_fit -- LLAMA_FIT_PARAMS pretended.so
//! ```
//!
//! The answers that are there serve again; delete the file to ask anew.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a development tool: it runs a program, writes files and speaks")]

#[path = "../tests/fit/mod.rs"]
#[allow(dead_code, reason = "the test reads what this writes")]
mod cases;
#[path = "../../footprint/examples/record_oracle/draw.rs"]
#[allow(dead_code, reason = "the recorder of dry runs uses all of it")]
mod draw;
#[path = "../../footprint/tests/recorded/model.rs"]
#[allow(dead_code, reason = "only the file is needed")]
mod recorded;

use cases::Case;
use draw::Draw;
use spec::Machine;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Models of every kind of placement: dense, with experts, with a state, with windows, tied and not.
const MODELS: &[&str] = &[
    "qwen3-0.6b Q4_K_M",
    "llama-3.2-1b Q8_0 n_layer=9",
    "llama-3.1-8b Q4_K_M n_layer=12",
    "gemma3-1b Q4_0",
    "qwen3-30b-a3b Q4_K_M n_layer=10",
    "gpt-oss-20b MXFP4_MOE n_layer=8",
    "glm-4.5-air Q3_K_M n_layer=5",
    "qwen3.5-2b Q4_K_M n_layer=8",
    "granite4-h-tiny Q8_0 n_layer=7",
    "phi-3.5-moe Q5_K_M n_layer=5",
];
/// Those that decide which weights are repacked.
const FEATURES: &[&str] = &["avx2", "avx512f", "avx512_vnni", "amx_int8"];
const CASES_OF_A_MODEL: usize = 24;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [program, plugin] = &arguments[..] else { return Err("usage: record_fit LLAMA_FIT_PARAMS PRETENDED.so".into()) };
    let here = probe::detect(&probe::Live::new())?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fit/cases.csv");
    let known: Vec<Case> = csv::Reader::from_path(&path).map_or_else(|_| Ok(Vec::new()), |mut reader| reader.deserialize().collect())?;
    let mut answered = Vec::new();
    for (number, model) in MODELS.iter().enumerate() {
        let file = recorded::file(model);
        let written = std::env::temp_dir().join(format!("record-fit-{}.gguf", std::process::id()));
        synthetic::write::write(&file, synthetic::Fill::Zero, &written)?;
        let mib = file.size.get() >> 20;
        let mut draw = Draw(1 + number as u64);
        for _ in 0..CASES_OF_A_MODEL {
            let case = drawn(model, mib, &here, &mut draw)?;
            let same = |known: &&Case| Case { answer: String::new(), ..(*known).clone() } == case;
            let answer = match known.iter().find(same) {
                Some(known) => known.answer.clone(),
                None => ask(program, plugin, &written, &case)?,
            };
            println!("{} | {} - {} | {}: {answer}", case.model, case.gpus, case.used, case.flags);
            answered.push(Case { answer, ..case });
        }
        std::fs::remove_file(written)?;
        save(&answered, &path)?;
    }
    Ok(())
}

fn save(answered: &[Case], path: &Path) -> Result<(), Box<dyn Error>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    answered.iter().try_for_each(|case| writer.serialize(case))?;
    let next = path.with_extension("csv.new");
    std::fs::write(&next, writer.into_inner()?)?;
    std::fs::rename(next, path)?;
    Ok(())
}

fn ask(program: &Path, plugin: &Path, model: &Path, case: &Case) -> Result<String, Box<dyn Error>> {
    let mut command = Command::new(program);
    command.arg("-m").arg(model).args(case.flags.split_whitespace());
    if !case.gpus.is_empty() {
        command.env("GGML_BACKEND_PATH", plugin).env("PRETENDED_GPUS", &case.gpus).env("PRETENDED_USED", &case.used);
    }
    // A program that ends early sometimes loses the end of its log.
    for _ in 0..5 {
        let output = command.output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?.trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let mut reasons = text.lines().filter_map(|line| line.split_once("failed to fit params to free device memory: "));
        if let Some((_, reason)) = reasons.next() {
            return Ok(format!("gave up: {}", reason.trim_end_matches(", abort")));
        }
    }
    Err(format!("{} {}: it fails and does not say why", case.model, case.flags).into())
}

/// A case of this model, whose file has so many MiB.
fn drawn(model: &str, mib: u64, here: &Machine, draw: &mut Draw) -> Result<Case, Box<dyn Error>> {
    let count = draw.of(&[0_usize, 1, 1, 1, 1, 2, 2, 2, 3, 4]);
    // Together from a third of the file to twice of it, beside the margin of each.
    let share = |draw: &mut Draw| 1324 + mib * (30 + draw.below(170) as u64) / 100 / count.max(1) as u64;
    let sizes: Vec<String> = (0..count).map(|_| share(draw).to_string()).collect();
    let used: Vec<String> = (0..count).map(|_| if draw.percent(30) { draw.below(400) } else { 0 }.to_string()).collect();
    let mut flags = Vec::new();
    let mut maybe = |draw: &mut Draw, chance: usize, flag: &str, values: &[&str]| {
        if draw.percent(chance) {
            flags.push(format!("{flag} {}", draw.of(values)));
        }
    };
    maybe(draw, 33, "-c", &["2048", "8192", "16384", "20000"]);
    maybe(draw, 25, "-np", &["2", "4"]);
    maybe(draw, 20, "-ub", &["128", "1024", "2048"]);
    maybe(draw, 16, "-fa", &["on", "off"]);
    maybe(draw, 16, "-ctk", &["q8_0", "f32"]);
    maybe(draw, 25, "-fitt", &["0", "256", "2048", "300,700,100"]);
    maybe(draw, 20, "-fitc", &["512", "8192"]);
    maybe(draw, 2, "-ngl", &["3"]);
    if count == 0 {
        // The host's whole memory is the limit: a margin that leaves little of it.
        maybe(draw, 100, "-fitt", &["1024", "20000", "22500", "23600", "30000"]);
    }
    if count > 1 {
        maybe(draw, 12, "-sm", &["none", "layer"]);
        maybe(draw, 6, "-ts", &["1,2", "3"]);
    }
    Ok(Case {
        model: model.to_owned(),
        gpus: sizes.join(","),
        used: used.join(","),
        flags: flags.join(" "),
        host: here.facts.memory.total.get().ok_or("the host's memory is unknown")?.get(),
        features: here.facts.cpu.features.iter().filter(|name| FEATURES.contains(&name.as_str())).cloned().collect::<Vec<_>>().join(" "),
        answer: String::new(),
    })
}
