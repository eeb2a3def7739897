//! Settings as the engine's parameter structures.

use crate::LlamaError;
use llama_cpp_sys_2 as sys;
use spec::Settings;
use spec::settings::{CACHE_TYPES, FlashAttention, LoadMode, Pooling, SplitMode};
use std::ffi::{CStr, CString};
use std::os::raw::c_int;
use std::ptr;

/// Most sequences (`src/llama-cparams.h`, `LLAMA_MAX_SEQ`).
const MAX_SEQUENCES: u32 = 256;

/// Most threads of a pool (`ggml/include/ggml.h`, `GGML_MAX_N_THREADS`).
const MAX_THREADS: u32 = 512;

/// Most layers of a model (`src/llama-hparams.h`, `LLAMA_MAX_LAYERS`); rules for more would match nothing.
const MAX_LAYERS: u32 = 512;

/// Parameters of a model, and what they point to.
pub(crate) struct ModelParams {
    pub raw: sys::llama_model_params,
    _devices: Vec<sys::ggml_backend_dev_t>,
    _split: Vec<f32>,
    _patterns: Vec<CString>,
    _overrides: Vec<sys::llama_model_tensor_buft_override>,
}

/// A setting that the engine would not take, or would take to mean something else.
fn refuse(setting: &'static str, reason: impl Into<String>) -> LlamaError {
    LlamaError::Setting { setting, reason: reason.into() }
}

/// Refuses what the engine would answer with an assertion or quietly ignore.
pub(crate) fn check(settings: &Settings, devices: usize) -> Result<(), LlamaError> {
    for (name, value) in [("n_batch", settings.n_batch), ("n_ubatch", settings.n_ubatch), ("n_parallel", settings.n_parallel)] {
        if value == 0 {
            return Err(refuse(name, "must be at least 1"));
        }
    }
    for (name, value) in [("n_ctx", settings.n_ctx), ("n_batch", settings.n_batch), ("n_ubatch", settings.n_ubatch)] {
        if value > i32::MAX as u32 {
            return Err(refuse(name, format!("at most {}, found {value}", i32::MAX)));
        }
    }
    if settings.n_parallel > MAX_SEQUENCES {
        return Err(refuse("n_parallel", format!("at most {MAX_SEQUENCES}, found {}", settings.n_parallel)));
    }
    for (name, value) in [("threads", settings.threads), ("threads_batch", settings.threads_batch)] {
        if value == 0 || value > MAX_THREADS {
            return Err(refuse(name, format!("1 to {MAX_THREADS}, found {value}")));
        }
    }
    for (name, ty) in [("cache_type_k", settings.cache_type_k), ("cache_type_v", settings.cache_type_v)] {
        if !CACHE_TYPES.contains(&ty) {
            let names: Vec<_> = CACHE_TYPES.iter().map(|ty| ty.name()).collect();
            return Err(refuse(name, format!("one of {}, found {ty}", names.join(", "))));
        }
    }
    if settings.n_gpu_layers > 0 && devices == 0 {
        return Err(refuse("n_gpu_layers", format!("{} asked for, but the bundled engine has no GPU", settings.n_gpu_layers)));
    }
    if devices > 0 && settings.split_mode == SplitMode::None && settings.main_gpu as usize >= devices {
        return Err(refuse("main_gpu", format!("below {devices}, found {}", settings.main_gpu)));
    }
    // SAFETY: a function without arguments that returns a constant.
    let most = unsafe { sys::llama_max_devices() };
    if settings.tensor_split.len() > most {
        return Err(refuse("tensor_split", format!("at most {most} entries, found {}", settings.tensor_split.len())));
    }
    if settings.tensor_split.iter().any(|share| !share.is_finite() || *share < 0.0) {
        return Err(refuse("tensor_split", "shares must be finite and not negative"));
    }
    Ok(())
}

impl ModelParams {
    /// The part of `settings` that concerns the model, on `devices`.
    pub fn new(settings: &Settings, devices: &[sys::ggml_backend_dev_t]) -> Result<Self, LlamaError> {
        check(settings, devices.len())?;
        // SAFETY: returns a structure of plain values.
        let mut raw = unsafe { sys::llama_model_default_params() };
        let (patterns, overrides) = overrides(settings, devices)?;
        let mut devices = devices.to_vec();
        devices.push(ptr::null_mut());
        let mut split: Vec<f32> = settings.tensor_split.iter().map(|share| *share as f32).collect();
        // SAFETY: a function without arguments that returns a constant.
        split.resize(unsafe { sys::llama_max_devices() }, 0.0);

        raw.devices = devices.as_mut_ptr();
        raw.n_gpu_layers = c_int::try_from(settings.n_gpu_layers).unwrap_or(c_int::MAX);
        raw.split_mode = match settings.split_mode {
            SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
            SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
            SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
            SplitMode::Tensor => sys::LLAMA_SPLIT_MODE_TENSOR,
        };
        raw.load_mode = match settings.load_mode {
            LoadMode::Auto => sys::LLAMA_LOAD_MODE_AUTO,
            LoadMode::None => sys::LLAMA_LOAD_MODE_NONE,
            LoadMode::Mmap => sys::LLAMA_LOAD_MODE_MMAP,
            LoadMode::Mlock => sys::LLAMA_LOAD_MODE_MLOCK,
            LoadMode::MmapMlock => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            LoadMode::DirectIo => sys::LLAMA_LOAD_MODE_DIRECT_IO,
        };
        raw.main_gpu = c_int::try_from(settings.main_gpu).unwrap_or(c_int::MAX);
        raw.use_extra_bufts = settings.repack;
        if split.iter().any(|share| *share > 0.0) {
            raw.tensor_split = split.as_ptr();
        }
        if !overrides.is_empty() {
            raw.tensor_buft_overrides = overrides.as_ptr();
        }
        Ok(Self { raw, _devices: devices, _split: split, _patterns: patterns, _overrides: overrides })
    }
}

type Overrides = (Vec<CString>, Vec<sys::llama_model_tensor_buft_override>);

/// Placement rules: those given, then those of `n_cpu_moe`, then the end mark. The first that matches wins.
fn overrides(settings: &Settings, devices: &[sys::ggml_backend_dev_t]) -> Result<Overrides, LlamaError> {
    // SAFETY: returns a pointer to a static.
    let cpu = unsafe { sys::ggml_backend_cpu_buffer_type() };
    let mut known = vec![cpu];
    for device in devices {
        // SAFETY: every device is valid; they outlive the parameters.
        known.push(unsafe { sys::ggml_backend_dev_buffer_type(*device) });
    }
    let mut rules = Vec::new();
    for rule in &settings.tensor_overrides {
        let Some(buffer) = known.iter().copied().find(|buffer| buffer_name(*buffer) == rule.buffer) else {
            let names: Vec<_> = known.iter().map(|buffer| buffer_name(*buffer)).collect();
            return Err(refuse("tensor_overrides", format!("no buffer {:?}; there are {}", rule.buffer, names.join(", "))));
        };
        rules.push((rule.pattern.clone(), buffer));
    }
    // `common/common.h`, LLM_FFN_EXPS_REGEX: the routed experts of one layer.
    let layers = settings.n_cpu_moe.min(MAX_LAYERS);
    rules.extend((0..layers).map(|layer| (format!(r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"), cpu)));
    if rules.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut patterns = Vec::with_capacity(rules.len());
    let mut entries = Vec::with_capacity(rules.len() + 1);
    for (pattern, buft) in rules {
        let pattern = CString::new(pattern).map_err(|_| refuse("tensor_overrides", "a pattern contains a zero byte"))?;
        entries.push(sys::llama_model_tensor_buft_override { pattern: pattern.as_ptr(), buft });
        patterns.push(pattern);
    }
    entries.push(sys::llama_model_tensor_buft_override { pattern: ptr::null(), buft: ptr::null_mut() });
    Ok((patterns, entries))
}

/// ggml's name of a buffer type.
pub(crate) fn buffer_name(buffer: sys::ggml_backend_buffer_type_t) -> String {
    // SAFETY: every buffer type has a terminated name that lives as long as the type.
    unsafe { CStr::from_ptr(sys::ggml_backend_buft_name(buffer)) }.to_string_lossy().into_owned()
}

/// The part of `settings` that concerns the context. `n_outputs` rows of logits are reserved; 0: one per token of a batch.
pub(crate) fn context_params(settings: &Settings, n_outputs: u32) -> sys::llama_context_params {
    // SAFETY: returns a structure of plain values.
    let mut raw = unsafe { sys::llama_context_default_params() };
    raw.n_ctx = settings.n_ctx;
    raw.n_batch = settings.n_batch;
    raw.n_ubatch = settings.n_ubatch;
    raw.n_seq_max = settings.n_parallel;
    // Embeddings are computed of every token: the mean is taken over all of them.
    raw.n_outputs_max = if settings.embeddings { 0 } else { n_outputs };
    raw.embeddings = settings.embeddings;
    raw.pooling_type = match settings.pooling {
        Pooling::Model => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
        Pooling::None => sys::LLAMA_POOLING_TYPE_NONE,
        Pooling::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
        Pooling::Cls => sys::LLAMA_POOLING_TYPE_CLS,
        Pooling::Last => sys::LLAMA_POOLING_TYPE_LAST,
        Pooling::Rank => sys::LLAMA_POOLING_TYPE_RANK,
    };
    raw.n_threads = c_int::try_from(settings.threads).unwrap_or(c_int::MAX);
    raw.n_threads_batch = c_int::try_from(settings.threads_batch).unwrap_or(c_int::MAX);
    raw.type_k = settings.cache_type_k.id() as sys::ggml_type;
    raw.type_v = settings.cache_type_v.id() as sys::ggml_type;
    raw.flash_attn_type = match settings.flash_attn {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    raw.offload_kqv = settings.kv_offload;
    raw.op_offload = settings.op_offload;
    raw.swa_full = settings.swa_full;
    raw.kv_unified = settings.kv_unified;
    raw
}
