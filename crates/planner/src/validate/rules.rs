//! Rules over settings, model and engine. Each names what upstream does.

use super::table::{
    CACHE_BLOCK_AND_HEAD, COARSE_CACHE, CONTEXT_ABOVE_TRAINED, CONTEXT_ROUNDED, CONTEXT_UNKNOWN, ENGINE_CANNOT_EXPRESS, GPU_LAYERS_CLAMPED,
    LATENT_CACHE_TYPES_DIFFER, MAIN_GPU_RANGE, NO_DEVICE, NO_EXPERTS, OVERRIDE_BUFFER, OVERRIDE_MATCHES_NOTHING, OVERRIDE_PATTERN,
    OVERRIDE_SEPARATOR, POOLING_OF_NOTHING, QUANTISED_V_WITHOUT_FLASH_ATTENTION, REQUEST_LONGER_THAN_CONTEXT, RPC_SERVER_UNNAMED,
    SLOT_CONTEXT_SMALL, SPLIT_MODE_ROW, SPLIT_MODE_TENSOR, TENSOR_SPLIT_EMPTY, TENSOR_SPLIT_LENGTH, TENSOR_SPLIT_UNUSED, TOO_MANY_SLOTS,
    UBATCH_ABOVE_BATCH, ZERO,
};
use super::{Author, Context, Severity, Violation};
use crate::emit::flags::value_text;
use crate::emit::{ALL, Expression, Tool, expressions};
use crate::plan::Needs;
use crate::workload::Workload;
use footprint::Pattern;
use spec::model::Mixer;
use spec::settings::{FlashAttention, Pooling, SplitMode};
use spec::{QuantType, Settings};

/// Most sequences of a context (`LLAMA_MAX_SEQ`, `src/llama-cparams.h`).
const MAX_SEQUENCES: u32 = 256;

/// Context of a slot below which a chat is cut off within a few turns.
const SMALL_SLOT: u32 = 1024;

/// Numbers that must be above zero, and their order.
pub(super) fn numbers(_: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let positive = [
        ("n_batch", settings.n_batch),
        ("n_ubatch", settings.n_ubatch),
        ("n_parallel", settings.n_parallel),
        ("threads", settings.threads),
        ("threads_batch", settings.threads_batch),
    ];
    for (setting, _) in positive.into_iter().filter(|(_, value)| *value == 0) {
        found.push(ZERO.broken(setting, format!("{setting} is 0"), "take 1 or more"));
    }
    let (batch, ubatch) = (settings.n_batch, settings.n_ubatch);
    if ubatch > batch {
        // `src/llama-context.cpp`: n_ubatch = min(n_batch, n_ubatch), in silence.
        let message = format!("micro-batch {ubatch} is above batch {batch}: the engine would cut it");
        found.push(UBATCH_ABOVE_BATCH.broken("n_ubatch", message, format!("take -ub {batch} or -b {ubatch}")));
    }
    if settings.pooling != Pooling::Model && !settings.embeddings {
        let message = format!("embeddings pooled by {}, but none are handed out", settings.pooling);
        found.push(POOLING_OF_NOTHING.broken("pooling", message, "take --embedding too"));
    }
    if settings.n_parallel > MAX_SEQUENCES {
        let message = format!("{} slots: the engine takes {MAX_SEQUENCES} at most", settings.n_parallel);
        found.push(TOO_MANY_SLOTS.broken("n_parallel", message, format!("take -np {MAX_SEQUENCES} or fewer")));
    }
}

/// Context against the trained one and the slots.
pub(super) fn context_size(context: &Context<'_>, settings: &Settings, author: Author<'_>, found: &mut Vec<Violation>) {
    let slots = settings.n_parallel.max(1);
    let each = if settings.kv_unified { settings.n_ctx } else { settings.n_ctx / slots };
    match context.model.n_ctx_train {
        Some(trained) if each > trained => {
            let message = format!("{each} tokens are above the trained context of {trained}: text degrades past it");
            let most = if settings.kv_unified { trained } else { trained.saturating_mul(slots) };
            let fix = format!("take -c {most}, or give the engine a RoPE scaling that the model supports");
            let chosen_by_planner = matches!(author, Author::Planner { pinned } if !pinned.contains(&"n_ctx"));
            let severity = if chosen_by_planner { Severity::Error } else { CONTEXT_ABOVE_TRAINED.severity };
            found.push(CONTEXT_ABOVE_TRAINED.broken_as(severity, "n_ctx", message, fix));
        }
        None if settings.n_ctx == 0 => {
            let message = "0 stands for the trained context, which this file does not state".to_owned();
            found.push(CONTEXT_UNKNOWN.broken("n_ctx", message, "give a number of tokens"));
        }
        _ => {}
    }
    // Where the engine refuses the context, the memory's rule tells so.
    let Ok(resolved) = footprint::context::resolve(context.model, settings, &context.engine.profile) else { return };
    let own = matches!(author, Author::Planner { pinned } if !pinned.contains(&"n_ctx"));
    if settings.n_ctx > 0 && resolved.n_ctx != settings.n_ctx && !own {
        // `src/llama-context.cpp`: both the whole and what each sequence gets are padded to 256.
        let per = if slots > 1 && !settings.kv_unified { format!(" for each of {slots} slots") } else { String::new() };
        let message = format!("{} tokens become {}: the engine rounds up to a multiple of 256{per}", settings.n_ctx, resolved.n_ctx);
        // Engines read the size as an `int`: the next whole size below where the one above is no such number.
        let step = if settings.kv_unified { 256 } else { slots.saturating_mul(256) };
        let whole = i32::try_from(resolved.n_ctx).map_or(settings.n_ctx - settings.n_ctx % step, |_| resolved.n_ctx);
        found.push(CONTEXT_ROUNDED.broken("n_ctx", message, format!("take -c {whole}")));
    }
    if slots > 1 && !settings.kv_unified && resolved.n_ctx_seq < SMALL_SLOT {
        let message = format!("{} tokens over {slots} slots leave {} for each", resolved.n_ctx, resolved.n_ctx_seq);
        let fix = format!("take -c {} or --kv-unified", SMALL_SLOT.saturating_mul(slots));
        found.push(SLOT_CONTEXT_SMALL.broken("n_ctx", message, fix));
    }
}

/// The requests that are planned for against the context of a slot.
pub(super) fn requests(context: &Context<'_>, settings: &Settings, workload: &Workload, found: &mut Vec<Violation>) {
    let Ok(resolved) = footprint::context::resolve(context.model, settings, &context.engine.profile) else { return };
    let (tokens, holds) = (workload.tokens(), resolved.n_ctx_seq);
    // Of a model that only reads, the shape of requests is another.
    if tokens <= holds || context.model.encoder {
        return;
    }
    let Workload { prompt, output, .. } = workload;
    let message =
        format!("requests of {prompt} tokens in and {output} out do not fit into the {holds} of a slot: the engine refuses or cuts them");
    let slots = if settings.kv_unified { 1 } else { settings.n_parallel.max(1) };
    let longer = Needs::next_block(tokens).saturating_mul(slots);
    let shorter = "plan for shorter ones (--prompt-tokens, --output-tokens)";
    let fix = match context.model.n_ctx_train {
        Some(trained) if tokens > trained => format!("{shorter}: the model was trained for {trained}"),
        _ => format!("take -c {longer}, or {shorter}"),
    };
    found.push(REQUEST_LONGER_THAN_CONTEXT.broken("n_ctx", message, fix));
}

/// Types of the cache against flash attention and head widths (`src/llama-context.cpp:3838-3880`).
pub(super) fn cache(context: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let (k, v) = (settings.cache_type_k, settings.cache_type_v);
    if v.is_quantized() && settings.flash_attn == FlashAttention::Off {
        let message = format!("a V cache in {v} needs flash attention, which is off");
        found.push(QUANTISED_V_WITHOUT_FLASH_ATTENTION.broken("cache_type_v", message, "take -fa auto, or -ctv f16"));
    }
    let latent = context.model.layers.iter().any(|layer| matches!(layer.mixer, Mixer::Mla(_)));
    if latent && k != v {
        let message = format!("multi-head latent attention keeps one cache: K in {k} and V in {v} cannot both be");
        found.push(LATENT_CACHE_TYPES_DIFFER.broken("cache_type_v", message, format!("take -ctv {k}")));
    }
    if settings.flash_attn != FlashAttention::Off {
        block_divides(context, "cache_type_k", k, key_width, found);
        block_divides(context, "cache_type_v", v, value_width, found);
    }
    for (setting, ty) in [("cache_type_k", k), ("cache_type_v", v)] {
        if ty.is_quantized() && ty.bits_per_weight() < 8.0 {
            let message = format!("a cache in {ty} loses quality, most in K and with tools and long contexts");
            found.push(COARSE_CACHE.broken(setting, message, "take q8_0 where memory allows"));
        }
    }
}

fn key_width(mixer: &Mixer) -> Option<u64> {
    match mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) => Some(u64::from(a.head_dim_k)),
        Mixer::Mla(mla) => Some(u64::from(mla.kv_lora_rank) + u64::from(mla.rope_dim)),
        Mixer::Compressed(attention) => Some(u64::from(attention.head_dim)),
        Mixer::Recurrent(_) | Mixer::None => None,
    }
}

fn value_width(mixer: &Mixer) -> Option<u64> {
    match mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) => Some(u64::from(a.head_dim_v)),
        Mixer::Mla(mla) => Some(u64::from(mla.kv_lora_rank)),
        Mixer::Compressed(attention) => Some(u64::from(attention.head_dim)),
        Mixer::Recurrent(_) | Mixer::None => None,
    }
}

fn block_divides(
    context: &Context<'_>,
    setting: &'static str,
    ty: QuantType,
    width: impl Fn(&Mixer) -> Option<u64>,
    found: &mut Vec<Violation>,
) {
    let block = ty.block().weights;
    let ragged = context.model.layers.iter().filter_map(|layer| width(&layer.mixer)).find(|width| !width.is_multiple_of(block));
    if let Some(width) = ragged {
        let message = format!("blocks of {block} in {ty} do not divide heads of width {width}");
        found.push(CACHE_BLOCK_AND_HEAD.broken(setting, message, "take f16"));
    }
}

/// Layers and shares against model and devices.
pub(super) fn placement(context: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let devices = context.target.devices.len();
    let all = context.model.n_layer_all().saturating_add(1);
    if devices == 0 {
        no_device(settings, found);
    } else if settings.n_gpu_layers > all && settings.n_gpu_layers != ALL {
        let message = format!("{} layers, and the model has {all} with its output: the engine takes all", settings.n_gpu_layers);
        found.push(GPU_LAYERS_CLAMPED.broken("n_gpu_layers", message, format!("take -ngl {all}")));
    }
    remote(context, settings, found);
    tensor_split(settings, devices, found);
    if devices > 0 && settings.main_gpu as usize >= devices {
        // Split mode none: `src/llama.cpp:293` refuses. The other modes ignore it, and it cannot have been meant.
        let message = format!("GPU {} of {devices}, counted from 0", settings.main_gpu);
        let most = devices - 1;
        let fix = if most == 0 { "take -mg 0".to_owned() } else { format!("take -mg 0 to {most}") };
        found.push(MAIN_GPU_RANGE.broken("main_gpu", message, fix));
    }
    match settings.split_mode {
        SplitMode::Row if devices > 0 => found.push(SPLIT_MODE_ROW.broken(
            "split_mode",
            "row split is deprecated, and backends without split buffers refuse it".to_owned(),
            "take -sm layer",
        )),
        SplitMode::Tensor if devices > 0 => {
            found.push(SPLIT_MODE_TENSOR.broken("split_mode", "tensor split is experimental upstream".to_owned(), "take -sm layer"))
        }
        _ => {}
    }
    if settings.n_cpu_moe > 0 && !context.model.has_experts() {
        let message = "experts for the CPU, and the model has none".to_owned();
        found.push(NO_EXPERTS.broken("n_cpu_moe", message, "take --n-cpu-moe 0"));
    }
}

/// Remote devices need the address of their server.
fn remote(context: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let remote = context.target.devices.iter().find(|device| device.backend.name == "RPC");
    if let (Some(device), true) = (remote, settings.rpc_servers.is_empty()) {
        let message = format!("{} is a device of an rpc-server, and none is named", device.name);
        found.push(RPC_SERVER_UNNAMED.broken("rpc_servers", message, "add --rpc HOST:PORT"));
    }
}

/// What is asked of GPUs where the engine has none.
fn no_device(settings: &Settings, found: &mut Vec<Violation>) {
    let fix = "or take an engine with GPU support on a machine with a GPU that it can use";
    let mut none = |setting, what: &str, instead: &str| {
        let message = format!("{what}, and the engine has no GPU here: everything stays on the CPU");
        found.push(NO_DEVICE.broken(setting, message, format!("{instead}, {fix}")));
    };
    if settings.n_gpu_layers > 0 {
        none("n_gpu_layers", "layers for a GPU", "take -ngl 0");
    }
    if !settings.tensor_split.is_empty() {
        none("tensor_split", "shares for GPUs", "leave out -ts");
    }
    if settings.main_gpu > 0 {
        none("main_gpu", "a GPU by its number", "leave out -mg");
    }
}

/// Shares against the devices that take them (`src/llama-model.cpp:1559-1578`).
fn tensor_split(settings: &Settings, devices: usize, found: &mut Vec<Violation>) {
    let shares = &settings.tensor_split;
    let nonsense = shares.iter().any(|share| !share.is_finite() || *share < 0.0) || shares.iter().all(|share| *share == 0.0);
    if !shares.is_empty() && nonsense {
        let message = format!("shares {} give no device anything", value_text(settings, "tensor_split"));
        found.push(TENSOR_SPLIT_EMPTY.broken("tensor_split", message, "give at least one device a share above 0"));
    }
    if settings.split_mode == SplitMode::None && !shares.is_empty() && devices > 0 {
        let message = format!("shares {} under split mode none: one GPU takes all", value_text(settings, "tensor_split"));
        found.push(TENSOR_SPLIT_UNUSED.broken("tensor_split", message, "leave out -ts, or take -sm layer"));
    }
    if shares.len() > devices && devices > 0 {
        let message = format!("{} shares for {devices} devices", shares.len());
        found.push(TENSOR_SPLIT_LENGTH.broken("tensor_split", message, format!("give {devices}, one for each device")));
    } else if !shares.is_empty() && shares.len() < devices && settings.split_mode != SplitMode::None {
        let message = format!("{} shares for {devices} devices: the others get nothing", shares.len());
        found.push(TENSOR_SPLIT_LENGTH.broken_as(
            Severity::Warning,
            "tensor_split",
            message,
            format!("give {devices}, 0 for a device to leave out"),
        ));
    }
}

/// Tensor overrides: patterns, buffers (`common/arg.cpp:252-280`), and whether they match anything.
pub(super) fn overrides(context: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let devices = context.target.devices.iter().map(|device| device.name.as_str());
    let buffers: Vec<&str> = ["CPU"].into_iter().chain(devices).collect();
    for rule in &settings.tensor_overrides {
        if !buffers.contains(&rule.buffer.as_str()) {
            let message = format!("no buffer {:?} here", rule.buffer);
            found.push(OVERRIDE_BUFFER.broken("tensor_overrides", message, format!("take one of {}", buffers.join(", "))));
        }
        if rule.pattern.contains(',') || rule.pattern.contains('=') {
            let message = format!("pattern {:?} holds a comma or an equals sign, at which the engine splits", rule.pattern);
            found.push(OVERRIDE_SEPARATOR.broken("tensor_overrides", message, "write the pattern without them"));
        }
        let names = || context.model.tensors.iter().map(|tensor| tensor.name.as_str());
        match Pattern::new(&rule.pattern).and_then(|pattern| names().map(|name| pattern.is_match(name)).collect::<Result<Vec<_>, _>>()) {
            Err(reason) => {
                let message = format!("pattern {:?} cannot be searched: {reason}", rule.pattern);
                found.push(OVERRIDE_PATTERN.broken("tensor_overrides", message, "correct it; \\. stands for a dot"));
            }
            Ok(matches) if !matches.contains(&true) => {
                let message = format!("pattern {:?} matches no tensor", rule.pattern);
                found.push(OVERRIDE_MATCHES_NOTHING.broken("tensor_overrides", message, "compare it with the names that `inspect` shows"));
            }
            Ok(_) => {}
        }
    }
}

/// Settings that the program has no flag for.
pub(super) fn expressible(context: &Context<'_>, settings: &Settings, found: &mut Vec<Violation>) {
    let engine = context.engine;
    if engine.tool == Tool::Bundled {
        return;
    }
    let version = engine.version.as_deref().unwrap_or("this build");
    for (flag, expression) in expressions(settings, engine) {
        if expression == Expression::Impossible {
            let message = format!("{} ({version}) has no flag for {} {}", engine.tool, flag.setting, value_text(settings, flag.setting));
            let default = value_text(&Settings::default(), flag.setting);
            found.push(ENGINE_CANNOT_EXPRESS.broken(flag.setting, message, format!("take its default {default}, or a newer build")));
        }
    }
}
