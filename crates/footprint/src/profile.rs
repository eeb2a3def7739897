//! What differs between engine versions and between the tools of one engine, as data.

/// How many rows of logits a tool reserves per micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// One per sequence (llama-server since v0.6: `n_parallel × (1 + draft)`).
    PerSequence,
    /// One per token of the batch (llama-bench, llama-fit-params, and the C API's default).
    PerBatch,
}

/// The rules of one engine version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineProfile {
    /// For people: `llama.cpp v0.6.0-dev (bundled)`.
    pub name: String,
    /// Rows of logits that the tool reserves.
    pub outputs: Outputs,
    /// Extra buffer types for repacked CPU weights exist and are on by default.
    pub repack: bool,
    /// AMX kernels are built in (their repacking takes precedence where the CPU has AMX).
    pub amx: bool,
    /// The program keeps llama-server's prompt cache and context checkpoints in host memory.
    pub prompt_cache: bool,
}

impl EngineProfile {
    /// The bundled llama.cpp (crate llama-cpp-sys-2 0.1.161) as loadmaster runs it: logits for one token per sequence.
    pub fn bundled() -> Self {
        Self { name: "llama.cpp v0.6.0-dev (bundled)".into(), outputs: Outputs::PerSequence, repack: true, amx: false, prompt_cache: false }
    }
    /// llama-server 0.7.0 (ggml 0.27).
    pub fn server_0_7() -> Self {
        Self { name: "llama-server 0.7.0".into(), outputs: Outputs::PerSequence, repack: true, amx: true, prompt_cache: true }
    }
    /// llama-bench and llama-fit-params 0.7.0.
    pub fn bench_0_7() -> Self {
        Self { name: "llama-bench 0.7.0".into(), outputs: Outputs::PerBatch, repack: true, amx: true, prompt_cache: false }
    }
}
