//! Settings, profile and devices of a row.

use super::row::Row;
use footprint::{Backend, Device, EngineProfile, Outputs, Target};
use spec::settings::{FlashAttention, LoadMode, TensorOverride};
use spec::{Bytes, Known, Settings};

/// The profile of a row: by build number, by the month that it names, or by fork.
pub fn profile(row: &Row) -> Option<EngineProfile> {
    if !row.is_mainline() {
        return EngineProfile::named(match row.get("extra").split_whitespace().find_map(|word| word.strip_prefix("mla_attn=")) {
            Some("0") => "ik_llama.cpp-mla0",
            Some("1") if row.get("flash_attn") != "1" => "ik_llama.cpp-mla1",
            _ => "ik_llama.cpp",
        });
    }
    if let Some(name) = stated(row) {
        return EngineProfile::named(name);
    }
    let build = row.get("build");
    let number = build.trim_start_matches('b').split([' ', '(']).next().and_then(|word| word.parse::<u32>().ok());
    let profile = match number {
        Some(number) => EngineProfile::of_build(number),
        // A year alone is taken for its second half.
        None => {
            let digits = build.trim_start_matches('(');
            let month = digits.get(..7).filter(|month| month.as_bytes()[4] == b'-');
            let month = month.map_or_else(|| format!("{}-07", digits.get(..4).unwrap_or("2024")), str::to_owned);
            EngineProfile::named(&format!("llama.cpp-{month}"))?
        }
    };
    Some(match row.number("n_outputs_max") {
        Some(_) => EngineProfile { outputs: Outputs::PerSequence, ..profile },
        None => profile,
    })
}

/// The age of rows that name none: by the nodes of their graph, and for packages by the graph that they carry.
fn stated(row: &Row) -> Option<&'static str> {
    match row.id() {
        158 => Some("llama.cpp-2024-12"),
        178 => Some("llama.cpp-2026-06"),
        _ => None,
    }
}

/// The devices of a row, with equal memory.
pub fn target(row: &Row) -> Target {
    let backend = backend(row.get("backend"));
    let memory = || Known::exact(Bytes::from_gib(24), "equal cards");
    let device = |index| Device { name: format!("{}{index}", backend.name), backend: backend.clone(), total: memory(), free: memory() };
    let amx = row.get("model_buf_MiB").contains("AMX=");
    let mut features = vec!["avx2"];
    if amx {
        features.extend(["avx512f", "avx512_vnni", "amx_int8"]);
    }
    Target {
        devices: (0..row.n_gpus()).map(device).collect(),
        cpu_features: features.into_iter().map(str::to_owned).collect(),
        cpu_arch: if row.get("backend").starts_with("Metal") { "aarch64" } else { "x86_64" }.into(),
    }
}

fn backend(name: &str) -> Backend {
    match name.split([' ', '(']).next().unwrap_or_default() {
        "ROCm" => Backend::rocm(false),
        "Vulkan" => Backend::vulkan(false, None),
        "Metal" => Backend::metal(),
        _ => Backend::cuda(false),
    }
}

/// The settings of a row; what it does not say is the default of its time.
pub fn settings(row: &Row, n_layer: u32) -> Settings {
    let mut settings = Settings { n_gpu_layers: n_gpu_layers(row, n_layer), ..Settings::default() };
    let set = |field: &mut u32, column| *field = row.number(column).unwrap_or(*field);
    set(&mut settings.n_ctx, "n_ctx");
    set(&mut settings.n_batch, "n_batch");
    set(&mut settings.n_ubatch, "n_ubatch");
    set(&mut settings.n_parallel, "n_seq_max");
    settings.kv_unified = row.get("kv_unified") == "true";
    settings.flash_attn = match row.get("flash_attn") {
        "1" | "on" => FlashAttention::On,
        text if text.starts_with("auto") => FlashAttention::Auto,
        _ => FlashAttention::Off,
    };
    settings.cache_type_k = row.get("type_k").parse().unwrap_or(settings.cache_type_k);
    settings.cache_type_v = row.get("type_v").parse().unwrap_or(settings.cache_type_k);
    let extra = row.get("extra");
    let host_weights = row.get("model_buf_MiB");
    if extra.contains("--no-mmap") || host_weights.contains("_Host=") {
        settings.load_mode = LoadMode::None;
    }
    settings.tensor_overrides = overrides(extra);
    settings
}

/// `33/33`, `all`, `0`; a partial offload that the row does not number is read off its caches by the model's table.
fn n_gpu_layers(row: &Row, n_layer: u32) -> u32 {
    match row.number("ngl") {
        Some(n) => n,
        None if row.get("ngl") == "partial" => partial(row, n_layer),
        None => u32::MAX,
    }
}

/// Layers on GPUs by their part of the caches.
fn partial(row: &Row, n_layer: u32) -> u32 {
    let Some(caches) = row.buffers("kv_buf_MiB") else { return 0 };
    let all: f64 = caches.values().sum();
    let host = caches.get(&super::row::Place::Host).copied().unwrap_or(0.0);
    (f64::from(n_layer) * (all - host) / all).round() as u32 + 1
}

/// Patterns given by `-ot` or `--override-tensor`, in quotes.
fn overrides(extra: &str) -> Vec<TensorOverride> {
    let mut rules = Vec::new();
    for (index, _) in extra.match_indices("-ot ").chain(extra.match_indices("--override-tensor ")) {
        let rest = &extra[index..];
        let Some(quote) = rest.find(['"', '\'']) else { continue };
        let mark = rest.as_bytes()[quote] as char;
        let Some(text) = rest[quote + 1..].split(mark).next() else { continue };
        for rule in text.split(',') {
            if let Some((pattern, buffer)) = rule.rsplit_once('=') {
                rules.push(TensorOverride { pattern: pattern.into(), buffer: buffer.into() });
            }
        }
    }
    rules
}
