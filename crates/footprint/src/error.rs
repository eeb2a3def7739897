//! Why a configuration has no requirement: the engine itself refuses it, or its rules are not modelled.

use spec::QuantType;
use spec::settings::SplitMode;

/// A configuration without a requirement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FootprintError {
    /// A setting that must be above zero.
    #[error("{setting} must be above zero")]
    Zero {
        /// Name of the setting.
        setting: &'static str,
    },
    /// A setting above what the engine takes.
    #[error("{setting} must be {most} or less: {value}")]
    TooLarge {
        /// Name of the setting.
        setting: &'static str,
        /// Largest value that the engine takes.
        most: u64,
        /// What was asked for.
        value: u64,
    },
    /// `n_ctx` 0 means the trained context, which the file does not state.
    #[error("n_ctx 0 means the trained context, and the file states none: set n_ctx")]
    TrainedContextUnknown,
    /// The engine aborts when its batch has fewer outputs than sequences.
    #[error("n_batch must be n_parallel ({n_parallel}) or more: {n_batch}")]
    BatchBelowSequences {
        /// The batch after clamping to the context.
        n_batch: u32,
        /// Sequences served in parallel.
        n_parallel: u32,
    },
    /// The engine aborts when it would average embeddings over a micro-batch that sequences do not divide evenly.
    #[error("n_ubatch must be a whole multiple of n_parallel ({n_parallel}) for an encoder that averages: {n_ubatch}")]
    UnevenMean {
        /// Tokens of a micro-batch.
        n_ubatch: u32,
        /// Sequences served in parallel.
        n_parallel: u32,
    },
    /// The engine ends itself when it reserves one sequence's micro-batch over caches of several (llama-context.cpp:703-718).
    #[error(
        "n_ubatch must be a whole multiple of n_parallel ({n_parallel}) for this architecture, unless sequences share a cache (--kv-unified): {n_ubatch}"
    )]
    UnevenSequences {
        /// Tokens of a micro-batch.
        n_ubatch: u32,
        /// Sequences served in parallel.
        n_parallel: u32,
    },
    /// A quantised V cache needs flash attention.
    #[error("a quantised V cache needs flash attention: {ty} with -fa off; use -fa on, or f16")]
    QuantizedVWithoutFlashAttention {
        /// Type of the V cache.
        ty: QuantType,
    },
    /// The blocks of a cache type do not divide a head (with flash attention) or a row (without).
    #[error(
        "{cache} cache type {ty} has blocks of {block} that do not divide {width} in layer {layer}; use f16 or a type with smaller blocks"
    )]
    CacheBlock {
        /// `K` or `V`.
        cache: &'static str,
        /// Type of the cache.
        ty: QuantType,
        /// Weights in one block.
        block: u64,
        /// Width of the head or row.
        width: u64,
        /// The layer.
        layer: usize,
    },
    /// A type that no cache can have.
    #[error("{cache} cache cannot be of type {ty}; the engine takes f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1")]
    CacheType {
        /// `K` or `V`.
        cache: &'static str,
        /// Type of the cache.
        ty: QuantType,
    },
    /// Latent attention keeps K and V in one tensor.
    #[error("this model keeps K and V in one cache, so both types must be equal: {k} and {v}")]
    DifferentCacheTypes {
        /// Type of the K cache.
        k: QuantType,
        /// Type of the V cache.
        v: QuantType,
    },
    /// The engine ends itself when a graph has more tensors than its scheduler has room for.
    #[error(
        "the engine aborts: its graph would have {tensors} tensors and its scheduler has room for {most}; share the cache (--kv-unified), serve one sequence, or keep the cache in f16"
    )]
    GraphTooLarge {
        /// Nodes, inputs, weights and caches.
        tensors: u32,
        /// Entries of the scheduler's table.
        most: u64,
    },
    /// More devices than the engine takes.
    #[error("the engine takes {most} devices at most: {devices}; use split mode none, or hide some")]
    TooManyDevices {
        /// Devices in use.
        devices: usize,
        /// Most that the engine takes.
        most: usize,
    },
    /// A device is named that does not exist.
    #[error("no device is called {name:?}; {known}")]
    NoSuchDevice {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A device is named twice.
    #[error("device {name:?} is named twice")]
    DeviceTwice {
        /// The device.
        name: String,
    },
    /// The main GPU does not exist.
    #[error("main_gpu {main_gpu} does not exist: {devices} devices")]
    NoSuchGpu {
        /// What was asked for.
        main_gpu: u32,
        /// How many there are.
        devices: usize,
    },
    /// The engine refuses the mode, or its rules are not modelled.
    #[error("split mode {mode}: {reason}")]
    SplitMode {
        /// The mode.
        mode: SplitMode,
        /// Why, and what to take instead.
        reason: String,
    },
    /// Layers are split by free memory, which one device does not tell.
    #[error("layers are split by free memory, which is not known for {device}; set tensor_split")]
    FreeMemoryUnknown {
        /// The device.
        device: String,
    },
    /// The BitNet engine computes no such model, or not so.
    #[error("the BitNet engine refuses this: {reason}")]
    BitNet {
        /// Why.
        reason: String,
    },
    /// No device has a share.
    #[error("no device has a share of the split; set tensor_split to positive numbers")]
    EmptySplit,
    /// An override's pattern is no regular expression.
    #[error("override pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An override names a buffer that does not exist.
    #[error("override to a buffer that does not exist: {buffer:?}; there are {known}")]
    UnknownBuffer {
        /// What was asked for.
        buffer: String,
        /// What there is.
        known: String,
    },
    /// An adapter that does not go with the model.
    #[error("LoRA adapter: {problem}")]
    Adapter {
        /// What does not fit.
        problem: String,
    },
    /// A control vector that does not go with the model.
    #[error("control vector: {problem}")]
    ControlVector {
        /// What does not fit.
        problem: String,
    },
    /// The engine refuses the draft model under the settings that follow for it.
    #[error("draft model: {reason}")]
    Draft {
        /// Why.
        reason: Box<FootprintError>,
    },
    /// A draft whose vocabulary is not the model's.
    #[error("the draft's vocabulary does not go with the model's: {problem}")]
    DraftVocabulary {
        /// What differs.
        problem: String,
    },
    /// A flag of drafts that engines of this age do not have.
    #[error("{engine} has no flag {flag}; leave it out, or name another engine")]
    DraftFlag {
        /// The engine's profile.
        engine: String,
        /// The flag.
        flag: &'static str,
    },
    /// Drafts by prediction layers of a model that has none.
    #[error("a model of {architecture} in this file has no prediction layers to draft with; name a --model-draft")]
    NoPredictionLayers {
        /// The architecture.
        architecture: String,
    },
}
