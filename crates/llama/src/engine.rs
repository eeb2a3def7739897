//! A loaded model and its context as owned values: what must be freed is freed, in the right order, once.

use crate::error::LlamaError;
use crate::log::{self, Log};
use crate::params::{self, ModelParams};
use crate::protocol::{Breakdown, Buffer, Graph, ModelFacts};
use crate::shim;
use llama_cpp_sys_2 as sys;
use spec::settings::{CpuMask, FlashAttention, Numa};
use spec::{Bytes, Settings};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Starts the engine's time base and tables; once per process.
///
/// # Errors
/// This CPU lacks instructions that the engine was compiled for: then no code of the engine runs.
pub(crate) fn start() -> Result<(), LlamaError> {
    static START: Once = Once::new();
    let missing = crate::build_info().missing_here();
    if !missing.is_empty() {
        return Err(LlamaError::Cpu { missing });
    }
    log::install();
    // SAFETY: called once, before any other function of the engine that needs it.
    START.call_once(|| unsafe { sys::llama_backend_init() });
    Ok(())
}

/// The GPUs that the engine was built for and finds; none in a CPU build.
pub(crate) fn gpus() -> Vec<sys::ggml_backend_dev_t> {
    // SAFETY: the registry is complete after start; indices are below the count.
    let all: Vec<_> = unsafe { (0..sys::ggml_backend_dev_count()).map(|index| sys::ggml_backend_dev_get(index)).collect() };
    let of = |kind| -> Vec<_> {
        // SAFETY: devices of the registry live as long as the process.
        all.iter().copied().filter(|device| unsafe { sys::ggml_backend_dev_type(*device) } == kind).collect()
    };
    let discrete = of(sys::GGML_BACKEND_DEVICE_TYPE_GPU);
    if discrete.is_empty() { of(sys::GGML_BACKEND_DEVICE_TYPE_IGPU) } else { discrete }
}

/// Called with the share of the weights that is in memory; returns whether to go on.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

/// A model in memory, or only its description after a dry load.
pub(crate) struct Model {
    raw: NonNull<sys::llama_model>,
    load_ms: f64,
}

impl Model {
    /// Loads the model of one file (or its shards) with `settings` on `devices`; with `dry` nothing is allocated.
    pub fn load(
        paths: &[PathBuf],
        settings: &Settings,
        devices: &[sys::ggml_backend_dev_t],
        dry: bool,
        mut progress: Progress<'_>,
    ) -> Result<Self, LlamaError> {
        start()?;
        let mut params = ModelParams::new(settings, devices)?;
        let Some(path) = paths.first().cloned() else {
            return Err(LlamaError::Model { path: PathBuf::new(), log: "no file was named".into() });
        };
        let names = paths.iter().map(|path| c_path(path)).collect::<Result<Vec<_>, _>>()?;
        if dry {
            params.raw.no_alloc = true;
            params.raw.load_mode = sys::LLAMA_LOAD_MODE_NONE;
        }
        params.raw.progress_callback = Some(on_progress);
        params.raw.progress_callback_user_data = (&raw mut progress).cast();

        let begin = Instant::now();
        let (raw, log) = log::capture(|| match names.as_slice() {
            // SAFETY: the name is terminated; the parameters and what they point to live until the call returns.
            [one] => unsafe { sys::llama_model_load_from_file(one.as_ptr(), params.raw) },
            many => {
                let mut pointers: Vec<_> = many.iter().map(|name| name.as_ptr()).collect();
                // SAFETY: as above; the array holds as many names as its length says.
                unsafe { sys::llama_model_load_from_splits(pointers.as_mut_ptr(), pointers.len(), params.raw) }
            }
        });
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, load_ms: millis(begin) }),
            None if log.after("cancelled model load").is_some() => Err(LlamaError::Cancelled),
            None => {
                let log = log.complaint();
                Err(LlamaError::memory(&log).unwrap_or(LlamaError::Model { path, log }))
            }
        }
    }

    pub fn as_ptr(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    pub fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is valid; its vocabulary lives as long as it does.
        unsafe { sys::llama_model_get_vocab(self.as_ptr()) }
    }

    /// The chat template of the file.
    pub fn chat_template(&self) -> Option<&CStr> {
        // SAFETY: the model is valid; a null name asks for the default template.
        let text = unsafe { sys::llama_model_chat_template(self.as_ptr(), std::ptr::null()) };
        // SAFETY: where it is not null it is a terminated string that the model owns.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
    }

    /// Whether it continues text token by token: not an encoder, an embedding model or a diffusion model.
    pub fn is_generator(&self) -> bool {
        let model = self.as_ptr();
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_has_decoder(model) && !sys::llama_model_has_encoder(model) && !sys::llama_model_is_diffusion(model) }
    }

    fn facts(&self) -> ModelFacts {
        let model = self.as_ptr();
        let mut text = [0 as c_char; 256];
        // SAFETY: the model is valid; the engine writes at most the buffer's length and terminates it.
        unsafe {
            sys::llama_model_desc(model, text.as_mut_ptr(), text.len());
            ModelFacts {
                description: CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned(),
                n_params: sys::llama_model_n_params(model),
                size: Bytes::new(sys::llama_model_size(model)),
                n_layer: count(sys::llama_model_n_layer(model)),
                n_embd: count(sys::llama_model_n_embd(model)),
                n_head: count(sys::llama_model_n_head(model)),
                n_head_kv: count(sys::llama_model_n_head_kv(model)),
                n_ctx_train: count(sys::llama_model_n_ctx_train(model)),
                n_swa: count(sys::llama_model_n_swa(model)),
                n_expert: count(shim::lm_model_expert_count(model)),
                n_vocab: count(sys::llama_vocab_n_tokens(self.vocab())),
                recurrent: sys::llama_model_is_recurrent(model),
            }
        }
    }

    /// Layers on GPUs, the output counted as one; `None` without GPUs. The engine's own rule, because it logs the number only
    /// where a GPU is registered, which pretended ones are not (llama.cpp v0.6.0-dev, `src/llama-model.cpp:1923-1926`).
    fn offloaded_layers(&self, settings: &Settings) -> Option<u32> {
        if self.devices().is_empty() {
            return None;
        }
        // SAFETY: the model is valid.
        let layers = unsafe { count(sys::llama_model_n_layer(self.as_ptr())) + count(sys::llama_model_n_layer_nextn(self.as_ptr())) };
        Some(settings.n_gpu_layers.min(layers + 1))
    }

    fn devices(&self) -> Vec<String> {
        // SAFETY: the model is valid and every index is below its count.
        unsafe {
            let n = shim::lm_model_device_count(self.as_ptr());
            (0..n).map(|index| device_name(shim::lm_model_device(self.as_ptr(), index))).collect()
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: valid, freed once; contexts borrow from the session that drops them first.
        unsafe { sys::llama_model_free(self.as_ptr()) };
    }
}

/// A context of a model. Declared before its model wherever both are owned, so that it is dropped first.
pub(crate) struct Context {
    raw: NonNull<sys::llama_context>,
    log: Log,
    make_ms: f64,
    /// It hands out embeddings.
    embeddings: bool,
}

impl Context {
    /// Makes a context; the KV cache and compute buffers are allocated unless the model was loaded dry.
    /// An encoder, which has no memory, is given a context that hands out embeddings: it computes nothing else.
    /// Where `cancel` is given, computing stops between two nodes of a graph once it is set; it must outlive the context.
    pub fn new(model: &Model, settings: &Settings, n_outputs: u32, cancel: Option<&AtomicBool>) -> Result<Self, LlamaError> {
        let mut params = params::context_params(settings, n_outputs);
        if let Some(flag) = cancel {
            params.abort_callback = Some(on_abort);
            params.abort_callback_data = std::ptr::from_ref(flag).cast_mut().cast();
        }
        let begin = Instant::now();
        // SAFETY: the model is valid, the parameters are values.
        let make = |params| log::capture(|| unsafe { sys::llama_init_from_model(model.as_ptr(), params) });
        let (mut raw, mut log) = make(params);
        // SAFETY: the context is valid where it is not null.
        if !raw.is_null() && unsafe { sys::llama_get_memory(raw) }.is_null() {
            // SAFETY: as above; freed once, and nothing refers to it yet.
            unsafe { sys::llama_free(raw) };
            params.embeddings = true;
            // Of every token: the mean is taken over all of them.
            params.n_outputs_max = 0;
            (raw, log) = make(params);
        }
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, log, make_ms: millis(begin), embeddings: params.embeddings }),
            None => {
                let log = log.complaint();
                Err(LlamaError::memory(&log).unwrap_or(LlamaError::Context { log }))
            }
        }
    }

    pub fn as_ptr(&self) -> *mut sys::llama_context {
        self.raw.as_ptr()
    }

    /// What the engine says that it holds.
    pub fn breakdown(&self, model: &Model, settings: &Settings) -> Breakdown {
        let context = self.as_ptr();
        let facts = model.facts();
        // SAFETY: the context is valid.
        let (n_ctx, n_ctx_seq, n_batch, n_ubatch, n_seq_max) = unsafe {
            (
                sys::llama_n_ctx(context),
                sys::llama_n_ctx_seq(context),
                sys::llama_n_batch(context),
                sys::llama_n_ubatch(context),
                sys::llama_n_seq_max(context),
            )
        };
        Breakdown {
            buffers: self.buffers(),
            output_buffer: output_buffer(&self.log, &facts, n_seq_max, self.embeddings),
            devices: model.devices(),
            offloaded_layers: model.offloaded_layers(settings),
            n_ctx,
            n_ctx_seq,
            n_batch,
            n_ubatch,
            n_seq_max,
            flash_attention: flash_attention(&self.log, settings),
            graph: graph(&self.log),
            model: facts,
            model_ms: model.load_ms,
            context_ms: self.make_ms,
        }
    }

    fn buffers(&self) -> Vec<Buffer> {
        let empty = shim::Buffer { buffer_type: std::ptr::null_mut(), model: 0, context: 0, compute: 0 };
        let mut raw = [empty; 64];
        // SAFETY: the context is valid and the array has as many entries as is said.
        let n = unsafe { shim::lm_memory_breakdown(self.as_ptr(), raw.as_mut_ptr(), raw.len() as i32) };
        let n = usize::try_from(n).unwrap_or(0).min(raw.len());
        let mut buffers: Vec<_> = raw[..n]
            .iter()
            .map(|entry| {
                // SAFETY: the engine's buffer types are valid; plain host memory has no device.
                let (device, host) = unsafe {
                    let device = sys::ggml_backend_buft_get_device(entry.buffer_type);
                    ((!device.is_null()).then(|| device_name(device)), sys::ggml_backend_buft_is_host(entry.buffer_type))
                };
                Buffer {
                    buffer_type: params::buffer_name(entry.buffer_type),
                    device,
                    host,
                    model: Bytes::new(entry.model as u64),
                    context: Bytes::new(entry.context as u64),
                    compute: Bytes::new(entry.compute as u64),
                }
            })
            .collect();
        buffers.sort_by(|a, b| a.buffer_type.cmp(&b.buffer_type));
        buffers
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: valid, freed once, before its model.
        unsafe { sys::llama_free(self.as_ptr()) };
    }
}

/// Tells the engine how threads are spread over NUMA nodes, which it takes once in a process, and before it maps a model.
pub(crate) fn numa(strategy: Numa) {
    static TOLD: Once = Once::new();
    let strategy = match strategy {
        Numa::None => return,
        Numa::Distribute => sys::GGML_NUMA_STRATEGY_DISTRIBUTE,
        Numa::Isolate => sys::GGML_NUMA_STRATEGY_ISOLATE,
        Numa::Numactl => sys::GGML_NUMA_STRATEGY_NUMACTL,
    };
    // SAFETY: called once, after the engine has started and before it computes anything.
    TOLD.call_once(|| unsafe { sys::llama_numa_init(strategy) });
}

/// Threads of a pool, and the CPUs that they are held to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Threads<'a> {
    pub count: u32,
    pub mask: &'a CpuMask,
    /// One CPU of the mask for each.
    pub strict: bool,
}

/// Threads that wait for work, so that none are started for each graph.
pub(crate) struct ThreadPool(NonNull<sys::ggml_threadpool>);

impl ThreadPool {
    /// A pool of threads with llama-bench's defaults: normal priority, half-way between polling and sleeping, and, without a mask, the
    /// CPUs that this process may use.
    pub fn new(threads: Threads<'_>, paused: bool) -> Result<Self, LlamaError> {
        let Threads { count, mask, strict } = threads;
        let threads = i32::try_from(count).unwrap_or(i32::MAX);
        // SAFETY: the parameters are values that live until the call returns.
        let raw = unsafe {
            let mut params = sys::ggml_threadpool_params_default(threads);
            params.paused = paused;
            params.strict_cpu = strict;
            for (cpu, held) in (0..).zip(&mut params.cpumask) {
                *held = mask.cpus().contains(&cpu);
            }
            sys::ggml_threadpool_new(&raw mut params)
        };
        NonNull::new(raw).map(Self).ok_or_else(|| LlamaError::Memory { log: format!("no pool of {threads} threads") })
    }

    pub fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.0.as_ptr()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: valid, freed once, after the context that it was attached to.
        unsafe { sys::ggml_threadpool_free(self.as_ptr()) };
    }
}

unsafe extern "C" fn on_progress(fraction: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the address of the caller's `progress`, alive until the load returns.
    let progress = unsafe { &mut *data.cast::<Progress<'_>>() };
    progress(fraction)
}

unsafe extern "C" fn on_abort(data: *mut c_void) -> bool {
    // SAFETY: `data` is the address of the flag given to `Context::new`, which outlives the context.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}

fn c_path(path: &Path) -> Result<CString, LlamaError> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| LlamaError::Model { path: path.to_owned(), log: "the name contains a zero byte".into() })
}

/// ggml's name of a device.
fn device_name(device: sys::ggml_backend_dev_t) -> String {
    // SAFETY: every device has a terminated name that lives as long as the device.
    unsafe { CStr::from_ptr(sys::ggml_backend_dev_name(device)) }.to_string_lossy().into_owned()
}

pub(crate) fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn leading_number(text: &str) -> Option<u32> {
    let text = text.trim_start();
    text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
}

/// One number for both graphs, or two around a slash.
fn pair(log: &Log, mark: &str) -> (Option<u32>, Option<u32>) {
    let Some(text) = log.after(mark) else { return (None, None) };
    let text = text.split(',').next().unwrap_or_default();
    match text.split_once('/') {
        Some((prefill, decode)) => (leading_number(prefill), leading_number(decode)),
        None => (leading_number(text), leading_number(text)),
    }
}

/// From the line that `llama_context::sched_reserve` ends with (`src/llama-context.cpp:756`).
fn graph(log: &Log) -> Graph {
    let (nodes_prefill, nodes_decode) = pair(log, ": nodes = ");
    let (splits_prefill, splits_decode) = pair(log, ", splits = ");
    Graph { nodes_prefill, nodes_decode, splits_prefill, splits_decode }
}

/// What the setting became (`src/llama-context.cpp:546-556`, and `:467` where a quantised V cache turns it on).
fn flash_attention(log: &Log, settings: &Settings) -> Option<bool> {
    match settings.flash_attn {
        FlashAttention::On => Some(true),
        FlashAttention::Off => Some(false),
        FlashAttention::Auto if log.after("Flash Attention enabled").is_some() => Some(true),
        FlashAttention::Auto if log.after("Flash Attention not supported").is_some() => Some(false),
        FlashAttention::Auto => settings.cache_type_v.is_quantized().then_some(true),
    }
}

/// The size of the logits buffer. The log rounds it to hundredths of a MiB; the exact size is one row of logits per
/// sequence (`src/llama-context.cpp:2143`) wherever that rounds to the same.
fn output_buffer(log: &Log, model: &ModelFacts, n_seq_max: u32, embeddings: bool) -> Option<Bytes> {
    let logged = log.after("output buffer size = ")?.trim().strip_suffix(" MiB")?.trim().parse::<f64>().ok()?;
    let row = u64::from(model.n_vocab) + if embeddings { u64::from(model.n_embd) } else { 0 };
    let exact = Bytes::new(row * u64::from(n_seq_max) * 4);
    let agrees = (exact.as_mib() - logged).abs() <= 0.0051;
    Some(if agrees { exact } else { Bytes::from_f64(logged * Bytes::from_mib(1).as_f64()) })
}
