//! Asks the engine's own dry run about a list of cases and records its answers in `tests/oracle`.
//!
//! ```text
//! cargo build --release -p llama --example oracle
//! cargo run -p footprint --example record_oracle -- target/release/examples/oracle [PRESET]
//! cargo run -p footprint --example record_oracle -- target/release/examples/oracle --loads [PRESET]
//! cargo run -p footprint --example record_oracle -- target/release/examples/oracle --sliced [PRESET]
//! cargo run -p footprint --example record_oracle -- target/release/examples/oracle --backend vulkan [PRESET]
//! ```
//!
//! With `--backend vulkan` or `--backend metal` the engine is asked about its own device (`--here 1`), and the answers go to
//! `tests/vulkan` or `tests/metal`: the oracle must have been built with that backend.
//! With `--loads` a few cases per model are really loaded and recorded in `tests/loads`: takes up to 12 GiB of memory, and leaves out larger models.
//! With `--sliced` some are loaded with split mode `tensor` and recorded in `tests/sliced`.
//!
//! Run it when the bundled engine changes, and read the difference before it is committed.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a development tool: it runs a program, writes files and speaks")]

#[path = "record_oracle/cases.rs"]
mod cases;
#[path = "record_oracle/draw.rs"]
mod draw;
#[path = "../tests/recorded/mod.rs"]
mod recorded;

use recorded::{Answer, Case, Figures, Host, Recording};
use serde_json::Value;
use spec::Bytes;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that answers as the example `oracle` of llama does.
struct Oracle(PathBuf);

/// Largest file that is really loaded; the cases hold it up to twice.
const LARGEST_LOAD: Bytes = Bytes::from_gib(5);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// What it would allocate.
    Dry,
    /// What it has allocated.
    Load,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Dry => "dry",
            Self::Load => "load",
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let oracle = Oracle(args.next().ok_or("no oracle program was named")?.into());
    let mut only = args.next();
    let backend = if only.as_deref() == Some("--backend") { args.next() } else { None };
    let (mode, folder, cases) = match (only.as_deref(), &backend) {
        (Some("--loads"), _) => (Mode::Load, "tests/loads".to_owned(), cases::loads()),
        (Some("--sliced"), _) => (Mode::Load, "tests/sliced".to_owned(), cases::sliced()),
        (_, Some(backend)) => (Mode::Dry, format!("tests/{backend}"), cases::on(backend)),
        _ => (Mode::Dry, "tests/oracle".to_owned(), cases::all()),
    };
    if mode == Mode::Load || backend.is_some() {
        only = args.next();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in cases {
        let preset = case.model.split_whitespace().next().unwrap_or_default().to_owned();
        if only.as_ref().is_none_or(|only| *only == preset) {
            files.entry(preset).or_default().push(case);
        }
    }
    for (preset, cases) in files {
        if mode == Mode::Load && cases.iter().any(|case| recorded::model::file(&case.model).size > LARGEST_LOAD) {
            println!("{preset}: too large to be loaded");
            continue;
        }
        println!("{preset}: {} cases", cases.len());
        let recording = oracle.record(cases, mode)?;
        std::fs::write(folder.join(format!("{preset}.jsonl")), recording.to_text()?)?;
    }
    Ok(())
}

impl Oracle {
    fn record(&self, cases: Vec<Case>, mode: Mode) -> Result<Recording, Box<dyn Error>> {
        let mut engine = String::new();
        let mut answered = Vec::new();
        let mut written: Option<(String, PathBuf)> = None;
        for case in cases {
            if written.as_ref().is_none_or(|(name, _)| *name != case.model) {
                let path = std::env::temp_dir().join(format!("record-oracle-{}.gguf", std::process::id()));
                synthetic::write::write(&recorded::model::file(&case.model), synthetic::Fill::Zero, &path)?;
                written = Some((case.model.clone(), path));
            }
            let path = written.as_ref().map(|(_, path)| path.as_path()).ok_or("no file")?;
            let (version, answer) = self.ask(path, &case, mode)?;
            if !version.is_empty() {
                engine = version;
            }
            answered.push((case, answer));
        }
        if let Some((_, path)) = written {
            std::fs::remove_file(path)?;
        }
        Ok(Recording { engine, host: host()?, cases: answered })
    }

    /// The program prints one object with `llama_version` and `dry` or `load`: `context` (`n_ctx`, ...), `buffers` (a list of
    /// `buffer_type`, `model`, `context`, `compute` in bytes), `output_bytes` and `graph`; or `error`.
    fn ask(&self, model: &Path, case: &Case, mode: Mode) -> Result<(String, Answer), Box<dyn Error>> {
        let mut command = Command::new(&self.0);
        command.arg(model).args(["--mode", mode.name(), "--load-mode", "none"]).args(case.args.split_whitespace());
        if case.backend.is_some() {
            command.args(["--here", "1"]);
        } else if !case.devices.is_empty() {
            let sizes: Vec<String> = case.devices.iter().map(u64::to_string).collect();
            let switch = |on: bool| if on { "1" } else { "0" };
            command.args(["--prefix", "FAKE", "--gpus", &sizes.join(",")]);
            command.args(["--pipeline", switch(case.pipeline), "--host-buffer", switch(case.host_buffer)]);
        }
        let output = command.output()?;
        let Ok(answer) = serde_json::from_slice::<Value>(&output.stdout) else {
            return Ok((String::new(), Answer::Refused(format!("the engine ended: {}", output.status))));
        };
        let version = answer["llama_version"].as_str().unwrap_or_default().to_owned();
        if let Some(reason) = answer["error"].as_str() {
            return Ok((version, Answer::Refused(reason.replace(&*model.to_string_lossy(), "MODEL"))));
        }
        let dry = &answer[mode.name()];
        let number = |value: &Value| value.as_u64().ok_or("a number is missing");
        let mut context = [0; 4];
        for (slot, key) in context.iter_mut().zip(["n_ctx", "n_ctx_seq", "n_batch", "n_ubatch"]) {
            *slot = u32::try_from(number(&dry["context"][key])?)?;
        }
        let mut buffers = BTreeMap::new();
        for buffer in dry["buffers"].as_array().ok_or("no buffers")? {
            let sizes = [number(&buffer["model"])?, number(&buffer["context"])?, number(&buffer["compute"])?];
            buffers.insert(buffer["buffer_type"].as_str().ok_or("no buffer type")?.to_owned(), sizes);
        }
        let graph = ["nodes_pp", "splits_pp"].map(|key| dry["graph"][key].as_i64().unwrap_or(-1));
        let output = number(&dry["output_bytes"])?;
        Ok((version, Answer::Figures(Figures { context, buffers, output, graph })))
    }
}

/// The machine, as Linux tells it.
fn host() -> Result<Host, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/cpuinfo")?;
    let line = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features")).unwrap_or_default();
    let known = ["avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve"];
    let features = line.split_whitespace().filter(|word| known.contains(word)).map(str::to_owned).collect();
    Ok(Host { arch: std::env::consts::ARCH.to_owned(), features })
}
