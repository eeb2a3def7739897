//! A case: a model by its shape, the arguments of the oracle program, and what they mean here.

use footprint::target::Backend;
use footprint::{Device, EngineProfile, Outputs, Target};
use spec::settings::{LoadMode, TensorOverride};
use spec::{Bytes, Known, Settings};
use std::collections::BTreeSet;

/// One question to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Preset, file type and changed figures: `qwen3-30b-a3b Q4_K_M n_layer=4`.
    pub model: String,
    /// Memory of each pretended GPU in MiB; empty for none.
    pub devices: Vec<u64>,
    /// The pretended GPUs work as a pipeline.
    pub pipeline: bool,
    /// The pretended GPUs offer a pinned host buffer.
    pub host_buffer: bool,
    /// The backend whose device it is, `vulkan` or `metal`; none for pretended ones.
    pub backend: Option<String>,
    /// Arguments of the oracle program, separated by spaces.
    pub args: String,
}

/// The machine that the oracle ran on, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub arch: String,
    pub features: BTreeSet<String>,
}

impl Case {
    /// The devices and the host as the engine saw them.
    pub fn target(&self, host: &Host) -> Target {
        let (prefix, backend) = match self.backend.as_deref() {
            // lavapipe's alignment.
            Some("vulkan") => ("Vulkan", Backend::vulkan(false, Some(16))),
            Some("metal") => ("MTL", Backend::metal()),
            Some(other) => panic!("no backend {other}"),
            None => ("FAKE", Backend { host_buffer: self.host_buffer, ..Backend::pretended(self.pipeline) }),
        };
        let device = |(index, &mib): (usize, &u64)| {
            Device::of_its_own(format!("{prefix}{index}"), backend.clone(), Known::exact(Bytes::from_mib(mib), "recorded"))
        };
        Target {
            devices: self.devices.iter().enumerate().map(device).collect(),
            idle: Vec::new(),
            cpu_features: host.features.clone(),
            cpu_arch: host.arch.clone(),
        }
    }

    /// The arguments as settings, and how many logits are reserved.
    pub fn settings(&self) -> (Settings, EngineProfile) {
        // The oracle's dry run reads nothing and maps nothing (`--load-mode none`).
        let mut settings = Settings { load_mode: LoadMode::None, n_ctx: 512, ..Settings::default() };
        let mut profile = EngineProfile { outputs: Outputs::PerBatch, ..EngineProfile::bundled() };
        let words: Vec<&str> = self.args.split_whitespace().collect();
        for pair in words.chunks(2) {
            let [key, value] = pair else { panic!("{}: an argument without a value", self.args) };
            let number = || parsed::<u32>(value);
            match *key {
                "--ctx" => settings.n_ctx = number(),
                "--batch" => settings.n_batch = number(),
                "--ubatch" => settings.n_ubatch = number(),
                "--seqs" => settings.n_parallel = number(),
                "--kv-unified" => settings.kv_unified = number() == 1,
                "--ctk" => settings.cache_type_k = parsed(value),
                "--ctv" => settings.cache_type_v = parsed(value),
                "--fa" => settings.flash_attn = parsed(value),
                "--ngl" => settings.n_gpu_layers = number(),
                "--split" => settings.split_mode = parsed(value),
                "--ts" => settings.tensor_split = value.split(',').map(parsed).collect(),
                "--mg" => settings.main_gpu = number(),
                "--ot" => {
                    let Some((pattern, buffer)) = value.rsplit_once('=') else { panic!("--ot {value}") };
                    settings.tensor_overrides.push(TensorOverride { pattern: pattern.into(), buffer: buffer.into() });
                }
                "--ncmoe" => settings.n_cpu_moe = number(),
                "--kv-offload" => settings.kv_offload = number() == 1,
                "--op-offload" => settings.op_offload = number() == 1,
                "--swa-full" => settings.swa_full = number() == 1,
                "--embeddings" => settings.embeddings = number() == 1,
                "--pooling" => settings.pooling = parsed(value),
                "--repack" => settings.repack = number() == 1,
                "--outputs" => {
                    assert_eq!(number(), settings.n_parallel, "{}: --outputs after --seqs, and equal", self.args);
                    profile.outputs = Outputs::PerSequence;
                }
                _ => panic!("unknown argument {key}"),
            }
        }
        (settings, profile)
    }
}

fn parsed<T: std::str::FromStr>(value: &str) -> T {
    value.parse().unwrap_or_else(|_| panic!("not a value: {value}"))
}
