//! A model that is loaded, generates and is timed.

use crate::LlamaError;
use crate::engine::{self, Context, Model, ThreadPool, Threads, millis};
use crate::log;
use crate::memory;
use crate::protocol::{Bench, Benched, Breakdown, Load, Loaded, ProcessMemory};
use crate::shim;
use llama_cpp_sys_2 as sys;
use spec::Settings;
use std::ffi::{CStr, c_char};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A switch that stops what a [`Session`] is doing; may be thrown from any thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A switch that is not thrown.
    pub fn new() -> Self {
        Self::default()
    }
    /// Stops what is running, at the next token or the next node of a graph.
    pub fn throw(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Makes ready for the next request.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
    /// Whether it was thrown since the last reset.
    pub fn is_thrown(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A loaded model with its context and threads.
pub struct Session {
    // Dropped in this order: the context uses the pools, the switch and the model.
    pub(crate) context: Context,
    pub(crate) model: Model,
    _pools: Vec<ThreadPool>,
    pub(crate) cancel: Cancel,
    /// Tokens whose keys and values sequence 0 holds.
    pub(crate) cached: Vec<i32>,
    breakdown: Breakdown,
    settings: Settings,
    load_ms: f64,
    memory_before: ProcessMemory,
}

impl Session {
    /// Loads a model. `progress` gets the share of the weights in memory; `cancel` stops the load and every later request.
    ///
    /// Logits are reserved for one token per sequence. Threads wait in pools of their own for the life of the session.
    ///
    /// # Errors
    /// The file is no model that generates text, memory was refused, the settings name what this engine does not have,
    /// or `cancel` was thrown.
    pub fn load(load: &Load, cancel: &Cancel, mut progress: impl FnMut(f32)) -> Result<Self, LlamaError> {
        let begin = Instant::now();
        let memory_before = memory::now();
        engine::start()?;
        let settings = &load.settings;
        engine::numa(settings.numa);
        let model = Model::load(&load.paths, settings, &engine::gpus(), false, &mut |fraction| {
            progress(fraction);
            !cancel.is_thrown()
        })?;
        if !model.is_generator() {
            let path = load.paths.first().cloned().unwrap_or_default();
            return Err(LlamaError::Model { path, log: "an encoder, embedding or diffusion model; only text generators run".into() });
        }
        let context = Context::new(&model, settings, settings.n_parallel, Some(&cancel.0))?;
        let pools = pools(&context, settings)?;
        let breakdown = context.breakdown(&model, settings);
        let mut session = Self {
            context,
            model,
            _pools: pools,
            cancel: cancel.clone(),
            cached: Vec::new(),
            breakdown,
            settings: settings.clone(),
            load_ms: 0.0,
            memory_before,
        };
        if load.warm_up {
            session.decode(&mut [session.filler()])?;
            session.forget();
        }
        session.load_ms = millis(begin);
        Ok(session)
    }

    /// What was loaded, and the memory of this process now.
    pub fn loaded(&self) -> Loaded {
        Loaded {
            load_ms: self.load_ms,
            breakdown: self.breakdown.clone(),
            memory_before: self.memory_before,
            memory: memory::now(),
            threads: self.settings.threads,
            threads_batch: self.settings.threads_batch,
            has_chat_template: self.knows_chat_template(),
        }
    }

    /// Times prefill and decode as llama-bench does: one run of each unmeasured, then the measured ones, each from an
    /// empty context or one that was filled to `depth` outside the measured time.
    ///
    /// # Errors
    /// The context is too small for the runs, the engine failed, or the run was cancelled.
    pub fn bench(&mut self, bench: &Bench) -> Result<Benched, LlamaError> {
        let n_ctx = self.breakdown.n_ctx_seq;
        let needs = bench.depth.saturating_add(bench.n_prompt.max(bench.n_gen));
        if needs > n_ctx {
            return Err(LlamaError::Prompt { reason: format!("{needs} tokens needed, the context holds {n_ctx}") });
        }
        let mut random = Lcg(0x9e37_79b9_7f4a_7c15);
        let mut prefill_ms = Vec::new();
        let mut decode_ms = Vec::new();
        for run in 0..=bench.repetitions {
            if bench.n_prompt > 0 {
                self.fill(bench.depth, &mut random)?;
                let mut prompt = self.random_tokens(bench.n_prompt, &mut random);
                let begin = Instant::now();
                self.prefill(&mut prompt)?;
                self.synchronize();
                // The unmeasured run touches every page and buffer.
                if run > 0 {
                    prefill_ms.push(millis(begin));
                }
            }
        }
        for run in 0..=bench.repetitions {
            if bench.n_gen > 0 {
                self.fill(bench.depth, &mut random)?;
                let tokens = self.random_tokens(if run > 0 { bench.n_gen } else { 1 }, &mut random);
                let begin = Instant::now();
                for token in tokens {
                    self.decode(&mut [token])?;
                    self.synchronize();
                }
                if run > 0 {
                    decode_ms.push(millis(begin));
                }
            }
        }
        self.forget();
        Ok(Benched { n_prompt: bench.n_prompt, prefill_ms, n_gen: bench.n_gen, decode_ms, depth: bench.depth, memory: memory::now() })
    }

    /// Empties the context and puts `depth` tokens into it.
    fn fill(&mut self, depth: u32, random: &mut Lcg) -> Result<(), LlamaError> {
        self.forget();
        let mut tokens = self.random_tokens(depth, random);
        self.prefill(&mut tokens)?;
        self.synchronize();
        Ok(())
    }

    fn random_tokens(&self, count: u32, random: &mut Lcg) -> Vec<i32> {
        let n_vocab = self.breakdown.model.n_vocab.max(1);
        (0..count).map(|_| i32::try_from(random.next() % n_vocab).unwrap_or(0)).collect()
    }

    /// Computes tokens, at most a batch per call of the engine. Only the last token gets logits.
    pub(crate) fn prefill(&mut self, tokens: &mut [i32]) -> Result<(), LlamaError> {
        let batch = usize::try_from(self.breakdown.n_batch.max(1)).unwrap_or(usize::MAX);
        tokens.chunks_mut(batch).try_for_each(|chunk| self.decode(chunk))
    }

    /// One call of the engine: at most a batch of tokens, appended to sequence 0.
    pub(crate) fn decode(&mut self, tokens: &mut [i32]) -> Result<(), LlamaError> {
        if self.cancel.is_thrown() {
            return Err(LlamaError::Cancelled);
        }
        let mut thrown = [0 as c_char; 512];
        let count = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
        let (code, log) = log::capture(|| {
            // SAFETY: context and tokens are valid for the call; the text that is written is terminated.
            unsafe { shim::lm_decode(self.context.as_ptr(), tokens.as_mut_ptr(), count, thrown.as_mut_ptr(), thrown.len()) }
        });
        match code {
            0 => {
                self.cached.extend_from_slice(tokens);
                Ok(())
            }
            1 => {
                self.forget();
                Err(LlamaError::Compute { log: format!("no room in the KV cache for {count} tokens") })
            }
            2 => {
                // Some micro-batches may be in the cache; which, is not worth finding out.
                self.forget();
                Err(LlamaError::Cancelled)
            }
            -99 => {
                self.forget();
                // SAFETY: the shim terminates what it writes.
                let log = unsafe { CStr::from_ptr(thrown.as_ptr()) }.to_string_lossy().into_owned();
                Err(LlamaError::memory(&log).unwrap_or(LlamaError::Compute { log }))
            }
            _ => {
                self.forget();
                let log = log.complaint();
                Err(LlamaError::memory(&log).unwrap_or(LlamaError::Compute { log }))
            }
        }
    }

    /// Empties the KV cache.
    pub(crate) fn forget(&mut self) {
        self.cached.clear();
        // SAFETY: the context is valid; a context of a generator has a memory, and null is allowed.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), false) };
    }

    /// Keeps the first `count` tokens in the KV cache. False where the model's memory cannot be cut there; then it is empty.
    ///
    /// A cache of sliding windows drops what its window has passed, and a recurrent state has no past at all: cut back,
    /// either would answer as if the dropped tokens had never been. The engine does not refuse that, so it is asked for the
    /// oldest position that it still holds (as `tools/server/server-context.cpp` does).
    pub(crate) fn keep(&mut self, count: usize) -> bool {
        if count == self.cached.len() {
            return true;
        }
        let from = i32::try_from(count).unwrap_or(i32::MAX);
        let window = i32::try_from(self.breakdown.model.n_swa).unwrap_or(i32::MAX).max(1);
        // SAFETY: the context is valid.
        let cut = unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            let oldest = sys::llama_memory_seq_pos_min(memory, 0);
            oldest <= from.saturating_sub(window).max(0) && sys::llama_memory_seq_rm(memory, 0, from, -1)
        };
        if cut {
            self.cached.truncate(count);
        } else {
            self.forget();
        }
        cut
    }

    pub(crate) fn synchronize(&self) {
        // SAFETY: the context is valid.
        unsafe { sys::llama_synchronize(self.context.as_ptr()) };
    }

    /// Tokens that one sequence can hold.
    pub(crate) fn n_ctx(&self) -> usize {
        usize::try_from(self.breakdown.n_ctx_seq).unwrap_or(usize::MAX)
    }

    /// A token that any vocabulary has.
    fn filler(&self) -> i32 {
        // SAFETY: the vocabulary is valid.
        let bos = unsafe { sys::llama_vocab_bos(self.model.vocab()) };
        bos.max(0)
    }
}

/// Pools for decode and prefill, attached to the context: one pool for both where they have the same threads on the same CPUs.
fn pools(context: &Context, settings: &Settings) -> Result<Vec<ThreadPool>, LlamaError> {
    let decode = Threads { count: settings.threads, mask: &settings.cpu_mask, strict: settings.cpu_strict };
    let prefill = Threads { count: settings.threads_batch, mask: &settings.cpu_mask_batch, strict: settings.cpu_strict_batch };
    // The main thread is a worker of either pool, and takes the CPUs of one when that goes on after a pause: as the engine's own programs
    // have it, the pool of decode is the one that waits (`common/common.cpp:1770-1796`).
    let apart = decode != prefill;
    let prefill = if apart { Some(ThreadPool::new(prefill, false)?) } else { None };
    let decode = ThreadPool::new(decode, apart)?;
    let prefill_ptr = prefill.as_ref().map_or(decode.as_ptr(), ThreadPool::as_ptr);
    // SAFETY: context and pools are valid; the session drops the context before the pools.
    unsafe { sys::llama_attach_threadpool(context.as_ptr(), decode.as_ptr(), prefill_ptr) };
    Ok(std::iter::once(decode).chain(prefill).collect())
}

/// A linear congruential generator (Knuth's MMIX constants): tokens for timing need no better.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
}
