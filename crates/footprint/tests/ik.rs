//! Buffers that ik_llama.cpp reserves, recomputed.
//!
//! `tests/ik/*.jsonl` hold what builds of ik_llama.cpp logged to the byte when they loaded files of these shapes: build 3826
//! (ddceb0a5, 2025-07-31), its scheduler, allocator and graphs as they are, over a pretended CUDA backend with the original's
//! answers to which operations it supports and which it takes over. Sizes are of weights, KV cache, compute and output; each
//! buffer on the host is 32 bytes longer than what lies in it.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its recordings and fails")]

mod recorded;

use footprint::{Backend, Device, EngineProfile, Requirement, Target, require};
use serde::Deserialize;
use spec::settings::{FlashAttention, LoadMode, SplitMode, TensorOverride};
use spec::{Bytes, Known, Settings};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Case {
    model: String,
    devices: Vec<u64>,
    args: String,
    /// Weights, KV cache, compute, output.
    buffers: BTreeMap<String, [u64; 4]>,
    graph: [u32; 2],
}

impl Case {
    fn settings(&self) -> (Settings, EngineProfile) {
        let mut settings = Settings { load_mode: LoadMode::None, flash_attn: FlashAttention::Off, ..Settings::default() };
        let mut name = "ik_llama.cpp-b3826".to_owned();
        let words: Vec<&str> = self.args.split_whitespace().collect();
        for pair in words.chunks(2) {
            let [key, value] = pair else { panic!("{}: an argument without a value", self.args) };
            let number = || value.parse::<u32>().unwrap();
            match *key {
                "--ctx" => settings.n_ctx = number(),
                "--batch" => settings.n_batch = number(),
                "--ubatch" => settings.n_ubatch = number(),
                "--seqs" => settings.n_parallel = number(),
                "--ngl" => settings.n_gpu_layers = number(),
                "--ctk" => settings.cache_type_k = value.parse().unwrap(),
                "--ctv" => settings.cache_type_v = value.parse().unwrap(),
                "--fa" => settings.flash_attn = value.parse().unwrap(),
                "--ts" => settings.tensor_split = value.split(',').map(|share| share.parse().unwrap()).collect(),
                "--kv-offload" => settings.kv_offload = number() == 1,
                "--split" => settings.split_mode = value.parse::<SplitMode>().unwrap(),
                "--ot" => settings.tensor_overrides.extend(value.split(',').map(|rule| {
                    let (pattern, buffer) = rule.rsplit_once('=').unwrap();
                    TensorOverride { pattern: pattern.into(), buffer: buffer.replace("FAKE", "CUDA") }
                })),
                "--mla" | "--amb" => name = format!("{name} {} {value}", &key[1..]),
                "--fmoe" if *value == "1" => name += " -fmoe",
                "--rtr" if *value == "1" => name += " -rtr",
                _ => panic!("unknown argument {key}"),
            }
        }
        (settings, EngineProfile::named(&name).unwrap())
    }

    fn target(&self) -> Target {
        let memory = |mib| Known::exact(Bytes::from_mib(mib), "recorded");
        let device = |(index, &mib): (usize, &u64)| Device::of_its_own(format!("CUDA{index}"), Backend::cuda(false), memory(mib));
        Target {
            devices: self.devices.iter().enumerate().map(device).collect(),
            idle: Vec::new(),
            cpu_features: ["avx2".to_owned()].into(),
            cpu_arch: "x86_64".into(),
        }
    }
}

/// Ours by buffer, without the tail of host buffers.
fn buffers(need: &Requirement) -> BTreeMap<String, [u64; 4]> {
    let bytes = |known: &Known<Bytes>| known.get().map_or(0, Bytes::get);
    let host = &need.host;
    let weights = host.weights_anonymous.plus(&host.weights_repacked).plus(&host.weights_mapped);
    let mut all: BTreeMap<String, [u64; 4]> =
        [("host".to_owned(), [bytes(&weights), bytes(&host.kv_cache), bytes(&host.compute), bytes(&host.output)])].into();
    for device in &need.devices {
        all.insert(device.name.clone(), [bytes(&device.weights), bytes(&device.kv_cache), bytes(&device.compute), 0]);
    }
    all
}

fn theirs(case: &Case) -> BTreeMap<String, [u64; 4]> {
    let mut all: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for (name, sizes) in &case.buffers {
        let host = name.starts_with("CPU") || name.ends_with("_Host");
        let sum = all.entry(if host { "host".into() } else { name.clone() }).or_default();
        for (sum, &size) in sum.iter_mut().zip(sizes) {
            *sum += if host { size.saturating_sub(32) } else { size };
        }
    }
    all
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ik");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .flat_map(|path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

#[test]
fn buffers_are_those_that_ik_llama_cpp_reserves() {
    let (mut asked, mut wrong) = (0, Vec::new());
    for case in cases() {
        asked += 1;
        let (settings, profile) = case.settings();
        let need = require(&recorded::model::model(&case.model), &settings, &case.target(), &profile).unwrap();
        let (ours, theirs) = (buffers(&need), theirs(&case));
        let graph = need.graph.map(|graph| [graph.nodes, graph.splits]);
        let differs = theirs
            .iter()
            .filter(|(name, sizes)| ours.get(*name) != Some(sizes))
            .map(|(name, sizes)| format!("\n    {name}: {:?} instead of {sizes:?}", ours.get(name).copied().unwrap_or_default()));
        let differs: String = differs.collect();
        if !differs.is_empty() {
            wrong.push(format!("{} {:?} {}: graph {graph:?} of {:?}{differs}", case.model, case.devices, case.args, case.graph));
        }
    }
    println!("{asked} cases, {} differ", wrong.len());
    assert!(wrong.is_empty(), "{} of {asked} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}
