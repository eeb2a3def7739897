//! The ground truth of memory: what the bundled llama.cpp plans or takes for a model, as one JSON object.
//!
//! ```text
//! oracle MODEL.gguf [--mode dry|load] [--ctx N] [--batch N] [--ubatch N] [--seqs N] [--outputs N] [--ctk T] [--ctv T]
//!        [--fa auto|on|off] [--ngl N] [--split none|layer|row|tensor] [--ts A,B,..] [--mg N] [--ot REGEX=BUFFER].. [--ncmoe N]
//!        [--kv-unified 0|1] [--swa-full 0|1] [--kv-offload 0|1] [--op-offload 0|1] [--repack 0|1] [--load-mode M] [--threads N]
//!        [--embeddings 0|1] [--pooling model|none|mean|cls|last|rank]
//!        [--gpus MIB,MIB,..] [--prefix NAME] [--pipeline 0|1] [--host-buffer 0|1]
//!        [--here 0|1]
//! ```
//!
//! `dry` allocates nothing and may pretend GPUs, named NAME0, NAME1, ... `--outputs` is the number of rows of logits, 0 for
//! one per token of a batch. `load` allocates for real: on pretended GPUs, which keep their share in host memory, or on what
//! the engine was built for. With `--here 1` both modes ask what the engine finds for itself, and nothing is computed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for recorders and people")]

use llama::protocol::{Breakdown, Load, PretendedDevice, ProcessMemory};
use llama::{Cancel, LlamaError, Session, build_info, dry_run, dry_run_here, load_run, load_run_here};
use serde_json::{Value, json};
use spec::settings::TensorOverride;
use spec::{Bytes, Settings};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

struct Arguments {
    model: PathBuf,
    load: bool,
    outputs: u32,
    settings: Settings,
    gpus: Vec<u64>,
    prefix: String,
    pipeline: bool,
    host_buffer: bool,
    here: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("oracle: {error}");
            return ExitCode::from(2);
        }
    };
    match answer(&arguments) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "file": arguments.model, "error": error.to_string() }));
            ExitCode::from(6)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let model = words.next().ok_or("no model was named")?.into();
    let mut arguments = Arguments {
        model,
        load: false,
        outputs: 0,
        settings: Settings::default(),
        gpus: Vec::new(),
        prefix: "GPU".into(),
        pipeline: false,
        host_buffer: false,
        here: false,
    };
    let settings = &mut arguments.settings;
    while let Some(flag) = words.next() {
        let word = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--mode" => arguments.load = one_of(&word, &["dry", "load"])? == 1,
            "--ctx" => settings.n_ctx = number(&word)?,
            "--batch" => settings.n_batch = number(&word)?,
            "--ubatch" => settings.n_ubatch = number(&word)?,
            "--seqs" => settings.n_parallel = number(&word)?,
            "--outputs" => arguments.outputs = number(&word)?,
            "--ctk" => settings.cache_type_k = number(&word)?,
            "--ctv" => settings.cache_type_v = number(&word)?,
            "--fa" => settings.flash_attn = number(&word)?,
            "--ngl" => settings.n_gpu_layers = number(&word)?,
            "--split" => settings.split_mode = number(&word)?,
            "--ts" => settings.tensor_split = list(&word)?,
            "--mg" => settings.main_gpu = number(&word)?,
            "--ot" => settings.tensor_overrides.push(rule(&word)?),
            "--ncmoe" => settings.n_cpu_moe = number(&word)?,
            "--kv-unified" => settings.kv_unified = switch(&word)?,
            "--swa-full" => settings.swa_full = switch(&word)?,
            "--kv-offload" => settings.kv_offload = switch(&word)?,
            "--op-offload" => settings.op_offload = switch(&word)?,
            "--repack" => settings.repack = switch(&word)?,
            "--embeddings" => settings.embeddings = switch(&word)?,
            "--pooling" => settings.pooling = number(&word)?,
            "--load-mode" => settings.load_mode = number(&word)?,
            "--threads" => {
                settings.threads = number(&word)?;
                settings.threads_batch = settings.threads;
            }
            "--gpus" => arguments.gpus = list(&word)?,
            "--prefix" => arguments.prefix = word,
            "--pipeline" => arguments.pipeline = switch(&word)?,
            "--host-buffer" => arguments.host_buffer = switch(&word)?,
            "--here" => arguments.here = switch(&word)?,
            _ => return Err(format!("unknown option {flag}")),
        }
    }
    Ok(arguments)
}

fn number<T: FromStr<Err: std::fmt::Display>>(word: &str) -> Result<T, String> {
    word.parse().map_err(|error| format!("{word}: {error}"))
}

fn list<T: FromStr<Err: std::fmt::Display>>(word: &str) -> Result<Vec<T>, String> {
    word.split(',').map(number).collect()
}

fn switch(word: &str) -> Result<bool, String> {
    one_of(word, &["0", "1"]).map(|index| index == 1)
}

fn one_of(word: &str, choices: &[&str]) -> Result<usize, String> {
    choices.iter().position(|choice| *choice == word).ok_or_else(|| format!("{word} is none of {}", choices.join(", ")))
}

fn rule(word: &str) -> Result<TensorOverride, String> {
    let (pattern, buffer) = word.rsplit_once('=').ok_or_else(|| format!("{word}: PATTERN=BUFFER expected"))?;
    Ok(TensorOverride { pattern: pattern.into(), buffer: buffer.into() })
}

fn answer(arguments: &Arguments) -> Result<Value, LlamaError> {
    let paths = vec![arguments.model.clone()];
    let devices: Vec<_> = arguments.gpus.iter().enumerate().map(|(index, mib)| pretended(arguments, index, *mib)).collect();
    let (mode, told) = if arguments.here && arguments.load {
        ("load", breakdown(&load_run_here(&paths, &arguments.settings, arguments.outputs)?))
    } else if arguments.here {
        ("dry", breakdown(&dry_run_here(&paths, &arguments.settings, arguments.outputs)?))
    } else if arguments.load && !devices.is_empty() {
        ("load", breakdown(&load_run(&paths, &arguments.settings, &devices, arguments.outputs)?))
    } else if arguments.load {
        let load = Load { paths, settings: arguments.settings.clone(), warm_up: true };
        let session = Session::load(&load, &Cancel::new(), |_| {})?;
        let loaded = session.loaded();
        let mut told = breakdown(&loaded.breakdown);
        told["load_ms"] = loaded.load_ms.into();
        told["rss_before"] = memory(&loaded.memory_before);
        told["rss_context"] = memory(&loaded.memory);
        ("load", told)
    } else {
        ("dry", breakdown(&dry_run(&paths, &arguments.settings, &devices, arguments.outputs)?))
    };
    Ok(json!({ "llama_version": build_info().version, "file": arguments.model, mode: told }))
}

fn pretended(arguments: &Arguments, index: usize, mib: u64) -> PretendedDevice {
    PretendedDevice {
        name: Some(format!("{}{index}", arguments.prefix)),
        memory: Bytes::from_mib(mib),
        pipeline: arguments.pipeline,
        host_buffer: arguments.host_buffer,
    }
}

fn breakdown(told: &Breakdown) -> Value {
    let sum = |part: fn(&llama::protocol::Buffer) -> Bytes| told.buffers.iter().map(part).sum::<Bytes>().get();
    let (model, context, compute) = (sum(|b| b.model), sum(|b| b.context), sum(|b| b.compute));
    json!({
        "model": {
            "desc": told.model.description, "n_params": told.model.n_params, "size": told.model.size.get(),
            "n_layer": told.model.n_layer, "n_embd": told.model.n_embd, "n_head": told.model.n_head,
            "n_head_kv": told.model.n_head_kv, "n_ctx_train": told.model.n_ctx_train, "n_swa": told.model.n_swa,
            "n_expert": told.model.n_expert, "recurrent": told.model.recurrent, "n_vocab": told.model.n_vocab,
        },
        "context": {
            "n_ctx": told.n_ctx, "n_ctx_seq": told.n_ctx_seq, "n_batch": told.n_batch, "n_ubatch": told.n_ubatch,
            "n_seq_max": told.n_seq_max, "flash_attn": told.flash_attention,
        },
        "model_devices": told.devices,
        "offloaded_layers": told.offloaded_layers,
        "buffers": told.buffers,
        "output_bytes": told.output_buffer.map(Bytes::get),
        "model_bytes": model, "context_bytes": context, "compute_bytes": compute, "total_bytes": model + context + compute,
        "graph": {
            "nodes_pp": told.graph.nodes_prefill, "nodes_tg": told.graph.nodes_decode,
            "splits_pp": told.graph.splits_prefill, "splits_tg": told.graph.splits_decode,
        },
        "model_ms": told.model_ms, "context_ms": told.context_ms,
    })
}

/// With the kernel's names, as `/proc/PID/status` has them.
fn memory(memory: &ProcessMemory) -> Value {
    let bytes = |value: Option<Bytes>| value.map(Bytes::get);
    json!({
        "VmHWM": bytes(memory.peak), "RssAnon": bytes(memory.anonymous), "RssFile": bytes(memory.file),
        "RssShmem": bytes(memory.shared), "VmLck": bytes(memory.locked),
    })
}
