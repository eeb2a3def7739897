//! Settings, profile and devices of a row.

use super::row::Row;
use footprint::{Backend, Device, EngineProfile, Outputs, Target};
use spec::settings::{FlashAttention, LoadMode, TensorOverride};
use spec::{Bytes, Known, Settings};

/// The profile of a row: by build number, by the month that it names, or by fork.
pub fn profile(row: &Row) -> Option<EngineProfile> {
    if !row.is_mainline() {
        return EngineProfile::named(&fork(row));
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

/// The profile of ik_llama.cpp with the flags of a row. Its age is that of the thread that the log was posted in, by number;
/// `GGML_SCHED_MAX_COPIES`, which no log tells, is 1 where it advises so: with rules for tensors and several GPUs.
fn fork(row: &Row) -> String {
    let extra = row.get("extra");
    let figure = |key: &str| extra.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or("0");
    let age = match thread(row) {
        // The quick-start guide collects logs of months.
        258 if row.id() >= 14 => "2025-06",
        437 | 520.. => "2025-06",
        405..520 => "2025-05",
        _ => "2025-04",
    };
    let mut name = format!("ik_llama.cpp-{age} -mla {} -amb {}", figure("mla_attn="), figure("attn_max_b="));
    if figure("fused_moe=") == "1" {
        name += " -fmoe";
    }
    if extra.contains("-rtr") {
        name += " -rtr";
    }
    if moves_experts(row) {
        name += " GGML_SCHED_MAX_COPIES=1";
    }
    name
}

/// Rows of logits that the output buffer has room for.
fn logits(row: &Row) -> Option<u32> {
    let sum: f64 = row.buffers("output_buf_MiB")?.values().sum();
    let one = f64::from(row.number("n_vocab")?) * 4.0 / f64::from(1 << 20);
    Some((sum / one).round().max(1.0) as u32)
}

/// The number of the issue, pull request or discussion that a row is from.
fn thread(row: &Row) -> u32 {
    let digits = |part: &str| part.split('%').next().and_then(|number| number.parse().ok());
    row.get("source").split('/').find_map(digits).unwrap_or(0)
}

/// True where rules move tensors of experts, said or shown by weights on the host although all layers are on GPUs.
fn moves_experts(row: &Row) -> bool {
    let weights = row.buffers("model_buf_MiB").unwrap_or_default();
    let host = weights.get(&super::row::Place::Host).copied().unwrap_or(0.0);
    let all_layers = row.get("ngl").split_once('/').is_some_and(|(n, of)| n == of);
    row.get("extra").contains("=CPU") || (row.n_gpus() > 0 && all_layers && host > 20_000.0)
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
    let device = |index| Device::of_its_own(format!("{}{index}", backend.name), backend.clone(), memory());
    let amx = row.get("model_buf_MiB").contains("AMX=");
    let mut features = vec!["avx2"];
    if amx {
        features.extend(["avx512f", "avx512_vnni", "amx_int8"]);
    }
    Target {
        devices: (0..row.n_gpus()).map(device).collect(),
        idle: Vec::new(),
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
    if !row.is_mainline() {
        settings.load_mode = LoadMode::None;
    }
    let extra = row.get("extra");
    let host_weights = row.get("model_buf_MiB");
    if extra.contains("--no-mmap") || host_weights.contains("_Host=") {
        settings.load_mode = LoadMode::None;
    }
    // Perplexity and benchmark tools choose the sequences, which only the buffer of logits tells.
    if let (false, Some(rows)) = (row.is_mainline(), logits(row)) {
        settings.n_parallel = rows;
    }
    settings.tensor_overrides = overrides(extra);
    if !row.is_mainline() && settings.tensor_overrides.is_empty() && moves_experts(row) {
        settings.tensor_overrides.push(TensorOverride { pattern: "exps".into(), buffer: "CPU".into() });
    }
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
