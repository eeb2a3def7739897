//! What a parent and its engine child say to each other: one JSON object per line, requests on the child's standard
//! input, messages on its standard output. Standard error is free text for people.
//!
//! A conversation: the child sends [`Message::Hello`] unasked; then each request is answered by any number of
//! [`Message::Log`], [`Message::Progress`] and [`Message::Token`] and closed by exactly one of the others, where
//! [`Message::Failed`] may close any request. Requests are served one at a time in order, but [`Request::Cancel`]
//! acts at once on the one that is being served and has no answer of its own. At [`Request::Quit`], or when its standard
//! input ends, the child ends.

use serde::{Deserialize, Serialize};
use spec::quant::QuantType;
use spec::settings::{CpuMask, FlashAttention, LoadMode, Numa, SplitMode};
use spec::{Bytes, Settings};
use std::path::PathBuf;

/// Version of this protocol; the first thing that a child says. Both sides are one binary, so any other is an error.
pub const VERSION: u32 = 1;

/// What a parent may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Load a model and make a context; answered by [`Message::Loaded`]. Replaces what was loaded before.
    Load(Load),
    /// Continue a prompt or a chat; answered by tokens, then [`Message::Done`].
    Generate(Generate),
    /// Time prefill and decode; answered by [`Message::Benched`].
    Bench(Bench),
    /// Say what a model would need, without allocating it; answered by [`Message::DryRun`]. See [`crate::dry_run`].
    DryRun(DryRun),
    /// Stop what is being served, between two tokens or micro-batches.
    Cancel,
    /// End.
    Quit,
}

/// A model and how to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The file; of a model in shards the first (the others are found by its name), or every shard in order.
    pub paths: Vec<PathBuf>,
    /// Every knob.
    #[serde(with = "SettingsFields")]
    pub settings: Settings,
    /// Compute one token before answering, so that the first request pays no page faults and the memory is final.
    pub warm_up: bool,
}

/// A text to continue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// What to continue.
    pub prompt: Prompt,
    /// Tokens to generate at most; the context may end it sooner.
    pub n_predict: u32,
    /// Keep what the last prompt and its answer left in the KV cache, as far as this prompt begins with the same.
    pub cache_prompt: bool,
    /// How to choose among likely tokens.
    pub sampling: Sampling,
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Prompt {
    /// A text as it is.
    Text(String),
    /// A conversation, written out by the model's own chat template.
    Chat(Vec<ChatMessage>),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// How to choose among likely tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Softmax temperature; 0 or less always takes the likeliest token.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens up to this probability mass; 1 keeps all.
    pub top_p: f32,
    /// Seed of the choice: the same seed, settings and machine give the same text.
    pub seed: u32,
}

impl Default for Sampling {
    /// llama-cli v0.6's temperature, top-k and top-p (`common/common.h:262-266`), with a fixed seed.
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 0 }
    }
}

/// What to time, as llama-bench does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Prompt tokens to prefill; 0 leaves prefill out.
    pub n_prompt: u32,
    /// Tokens to decode one by one; 0 leaves decode out.
    pub n_gen: u32,
    /// Tokens in the context before each measured run.
    pub depth: u32,
    /// Measured runs of each.
    pub repetitions: u32,
}

/// A question about memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// The file, or every shard in order.
    pub paths: Vec<PathBuf>,
    /// Every knob.
    #[serde(with = "SettingsFields")]
    pub settings: Settings,
    /// GPUs to pretend, in the engine's order.
    pub devices: Vec<PretendedDevice>,
    /// Rows of logits to reserve per micro-batch; 0: one per token of the batch.
    pub n_outputs: u32,
}

/// A GPU that is not there: placement and sizes follow CUDA's rules, nothing is computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretendedDevice {
    /// Name of the device and its buffer type; `GPU0`, `GPU1`, ... where none is given.
    pub name: Option<String>,
    /// Memory that the device claims to have, all of it free.
    #[serde(with = "bytes")]
    pub memory: Bytes,
    /// Copies and events are asynchronous, so that several devices form a pipeline, which multiplies compute buffers.
    pub pipeline: bool,
    /// Host memory that the device works with is pinned and so another buffer type.
    pub host_buffer: bool,
}

/// What a child may say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// The first message.
    Hello(Hello),
    /// A line that the engine wrote into its log.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// The line, without its end.
        text: String,
    },
    /// How much of the weights is in memory.
    Progress {
        /// 0 to 1.
        fraction: f32,
    },
    /// A model is ready.
    Loaded(Box<Loaded>),
    /// A piece of text. Whole characters only: a character spread over tokens comes with its last one.
    Token {
        /// The piece.
        text: String,
    },
    /// The text has ended.
    Done(Done),
    /// Timings.
    Benched(Benched),
    /// What a model would need.
    DryRun(Box<Breakdown>),
    /// The request failed; the child lives on.
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// What happened, for people.
        reason: String,
    },
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`] of the child.
    pub protocol: u32,
    /// Version of llama.cpp.
    pub engine: String,
    /// Instruction sets that the engine was built for, as in [`crate::BuildInfo`].
    pub cpu_features: Vec<String>,
    /// Process id of the child.
    pub pid: u32,
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For those who debug the engine.
    Debug,
    /// For the curious.
    Info,
    /// May be a fault.
    Warn,
    /// A fault.
    Error,
}

/// What kind of failure ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The line was no request, or came at the wrong time.
    Protocol,
    /// The settings ask for what this engine does not have.
    Settings,
    /// The file could not be loaded as a model.
    Model,
    /// Memory for weights, cache or compute buffers was refused.
    Memory,
    /// The prompt cannot be used: no text, too long, or no known chat template.
    Prompt,
    /// The engine failed while computing.
    Compute,
    /// [`Request::Cancel`] came before there was a result.
    Cancelled,
}

/// What the engine allocated from one type of buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// ggml's name of the buffer type: `CPU`, `CPU_REPACK`, `CUDA0`, `CUDA_Host`, ...
    pub buffer_type: String,
    /// ggml's name of the device that owns it; none for plain host memory that no device claims.
    pub device: Option<String>,
    /// True where the host can read and write it directly.
    pub host: bool,
    /// Weights.
    #[serde(with = "bytes")]
    pub model: Bytes,
    /// KV cache and recurrent state.
    #[serde(with = "bytes")]
    pub context: Bytes,
    /// Compute buffers.
    #[serde(with = "bytes")]
    pub compute: Bytes,
}

/// What the engine says that it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breakdown {
    /// One entry per buffer type, ordered by name.
    pub buffers: Vec<Buffer>,
    /// Size of the logits buffer in host memory, which no entry of `buffers` counts
    /// (`llama_context::output_reserve`); `None` where the log did not name it.
    #[serde(with = "optional_bytes")]
    pub output_buffer: Option<Bytes>,
    /// Devices that the model uses, in the engine's order.
    pub devices: Vec<String>,
    /// Layers on GPUs, the output counted as one.
    pub offloaded_layers: Option<u32>,
    /// Context over all sequences, in tokens.
    pub n_ctx: u32,
    /// Context of one sequence, in tokens.
    pub n_ctx_seq: u32,
    /// Logical batch.
    pub n_batch: u32,
    /// Micro-batch.
    pub n_ubatch: u32,
    /// Sequences.
    pub n_seq_max: u32,
    /// What `auto` became; `None` where the log did not tell.
    pub flash_attention: Option<bool>,
    /// Compute graphs.
    pub graph: Graph,
    /// The model.
    pub model: ModelFacts,
    /// Time to load the model, in milliseconds.
    pub model_ms: f64,
    /// Time to make the context, in milliseconds.
    pub context_ms: f64,
}

/// Size of the compute graphs; `None` where the log did not name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// Nodes of the graph of a full micro-batch.
    pub nodes_prefill: Option<u32>,
    /// Nodes of the graph of one token per sequence.
    pub nodes_decode: Option<u32>,
    /// Parts of the prefill graph that run on one device each.
    pub splits_prefill: Option<u32>,
    /// Parts of the decode graph that run on one device each.
    pub splits_decode: Option<u32>,
}

/// What the engine says about the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Family, size and quantisation, e.g. `qwen3 0.6B Q4_K - Medium`.
    pub description: String,
    /// Weights.
    pub n_params: u64,
    /// Size of all tensors.
    #[serde(with = "bytes")]
    pub size: Bytes,
    /// Layers.
    pub n_layer: u32,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// Query heads of the first layer.
    pub n_head: u32,
    /// Key and value heads of the first layer.
    pub n_head_kv: u32,
    /// Context that it was trained with, in tokens.
    pub n_ctx_train: u32,
    /// Sliding window in tokens; 0 without one.
    pub n_swa: u32,
    /// Experts per layer; 0 for a dense model.
    pub n_expert: u32,
    /// Entries of the vocabulary.
    pub n_vocab: u32,
    /// True where the state does not grow with the context.
    pub recurrent: bool,
}

/// Memory of the child process, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// Anonymous pages resident now (`RssAnon`).
    #[serde(with = "optional_bytes")]
    pub anonymous: Option<Bytes>,
    /// File pages resident now (`RssFile`): mapped weights.
    #[serde(with = "optional_bytes")]
    pub file: Option<Bytes>,
    /// Shared memory resident now (`RssShmem`).
    #[serde(with = "optional_bytes")]
    pub shared: Option<Bytes>,
    /// Highest sum so far (`VmHWM`).
    #[serde(with = "optional_bytes")]
    pub peak: Option<Bytes>,
    /// Locked pages (`VmLck`).
    #[serde(with = "optional_bytes")]
    pub locked: Option<Bytes>,
}

/// A model is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// From the request to this message, in milliseconds; a warm-up is part of it.
    pub load_ms: f64,
    /// What the engine says that it holds.
    pub breakdown: Breakdown,
    /// The process before loading.
    pub memory_before: ProcessMemory,
    /// The process now.
    pub memory: ProcessMemory,
    /// Threads for decode.
    pub threads: u32,
    /// Threads for prefill.
    pub threads_batch: u32,
    /// True where the file has a chat template that the engine knows.
    pub has_chat_template: bool,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The model ended it.
    EndOfText,
    /// `n_predict` was reached.
    Length,
    /// The context is full.
    ContextFull,
    /// [`Request::Cancel`].
    Cancelled,
}

/// The text has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Tokens of the prompt that were found in the KV cache.
    pub cached_n: u32,
    /// Tokens of the prompt that were computed.
    pub prompt_n: u32,
    /// Time to compute them, in milliseconds.
    pub prompt_ms: f64,
    /// Tokens generated; the first of them is chosen from the prompt's logits.
    pub predicted_n: u32,
    /// Time to generate them, in milliseconds: `predicted_n` − 1 decodes and all choices.
    pub predicted_ms: f64,
    /// Why it ended.
    pub stop: Stop,
    /// The process now.
    pub memory: ProcessMemory,
}

/// Timings of one kind of run, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Benched {
    /// Prompt tokens per prefill run.
    pub n_prompt: u32,
    /// Milliseconds of each prefill run; empty where none was asked for.
    pub prefill_ms: Vec<f64>,
    /// Tokens per decode run.
    pub n_gen: u32,
    /// Milliseconds of each decode run; empty where none was asked for.
    pub decode_ms: Vec<f64>,
    /// Tokens in the context before each run.
    pub depth: u32,
    /// The process now.
    pub memory: ProcessMemory,
}

/// The fields of [`Settings`] as they are written; the compiler checks that none is missing.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Settings", deny_unknown_fields)]
pub(crate) struct SettingsFields {
    n_ctx: u32,
    n_batch: u32,
    n_ubatch: u32,
    n_parallel: u32,
    kv_unified: bool,
    #[serde(with = "word")]
    cache_type_k: QuantType,
    #[serde(with = "word")]
    cache_type_v: QuantType,
    #[serde(with = "word")]
    flash_attn: FlashAttention,
    n_gpu_layers: u32,
    rpc_servers: Vec<String>,
    #[serde(with = "word")]
    devices: spec::settings::Devices,
    #[serde(with = "word")]
    split_mode: SplitMode,
    tensor_split: Vec<f64>,
    main_gpu: u32,
    #[serde(with = "overrides")]
    tensor_overrides: Vec<spec::settings::TensorOverride>,
    n_cpu_moe: u32,
    kv_offload: bool,
    op_offload: bool,
    swa_full: bool,
    repack: bool,
    #[serde(with = "word")]
    load_mode: LoadMode,
    threads: u32,
    threads_batch: u32,
    #[serde(with = "word")]
    cpu_mask: CpuMask,
    cpu_strict: bool,
    #[serde(with = "word")]
    cpu_mask_batch: CpuMask,
    cpu_strict_batch: bool,
    #[serde(with = "word")]
    numa: Numa,
    cache_ram_mib: u32,
    ctx_checkpoints: u32,
    embeddings: bool,
    #[serde(with = "word")]
    pooling: spec::settings::Pooling,
}

/// A choice as the word that the engine's command line takes.
mod word {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::{fmt::Display, str::FromStr};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A size as a number of bytes.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};
    use spec::Bytes;

    pub fn serialize<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.get())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        u64::deserialize(deserializer).map(Bytes::new)
    }
}

/// A size that may be unknown: a number of bytes or null.
mod optional_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use spec::Bytes;

    pub fn serialize<S: Serializer>(value: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Bytes::get).serialize(serializer)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Bytes::new))
    }
}

/// Tensor placement rules as pairs of pattern and buffer.
mod overrides {
    use serde::{Deserialize, Deserializer, Serializer};
    use spec::settings::TensorOverride;

    pub fn serialize<S: Serializer>(rules: &[TensorOverride], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(rules.iter().map(|rule| (&rule.pattern, &rule.buffer)))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TensorOverride>, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(pattern, buffer)| TensorOverride { pattern, buffer }).collect())
    }
}
