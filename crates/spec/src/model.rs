//! A model as its file describes it: tensors to the byte, layers by what they compute.

use crate::quant::QuantType;
use crate::units::Bytes;
use std::collections::BTreeMap;

/// A model, read from its file(s).
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// `general.architecture`: `llama`, `qwen3moe`, `mamba`, ...
    pub architecture: String,
    /// How far loadmaster understands this architecture.
    pub support: Support,
    /// `general.name`.
    pub name: Option<String>,
    /// Name of the file type (`Q4_K_M`, `MXFP4_MOE`), where the file states one that is known.
    pub file_type: Option<String>,
    /// Context the model was trained for, in tokens; `None` where the file does not say.
    pub n_ctx_train: Option<u32>,
    /// Width of the residual stream.
    pub n_embd: u64,
    /// Tokens in the vocabulary.
    pub n_vocab: u64,
    /// Layers in order, next-token-prediction layers included (llama.cpp's `n_layer_all`).
    pub layers: Vec<Layer>,
    /// Trailing layers that only predict further tokens (MTP / NextN); part of `layers`.
    pub n_layer_nextn: u32,
    /// True for encoders: no causal mask, no KV cache.
    pub encoder: bool,
    /// True where the output head reuses the token embedding (no `output.weight` in the file).
    pub tied_embeddings: bool,
    /// Tensors in file order, shard after shard.
    pub tensors: Vec<Tensor>,
    /// The file, or its shards in order.
    pub files: Vec<ModelFile>,
    /// Tokenizer, where the file has one.
    pub tokenizer: Option<Tokenizer>,
    /// Scalar metadata (numbers, booleans and short strings) by full key; arrays are in [`Model::arrays`].
    pub metadata: BTreeMap<String, MetaValue>,
    /// Short numeric arrays of metadata (at most one entry per layer or 4096), by full key.
    pub arrays: BTreeMap<String, Vec<f64>>,
}

/// How far an architecture is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Layers, cache and state follow the engine's own rules.
    Described,
    /// Not known by name: tensors are exact, layers are inferred from generic metadata keys, and estimates say so.
    Generic,
}

/// A scalar of metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    /// Any unsigned integer type.
    Uint(u64),
    /// Any signed integer type.
    Int(i64),
    /// Either float type.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string of at most 4096 bytes; longer ones (chat templates) are not kept.
    Text(String),
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Length of the file.
    pub size: Bytes,
    /// Where its tensor data begins.
    pub data_offset: Bytes,
}

/// One tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Type of its elements.
    pub ty: QuantType,
    /// Extent of each dimension, fastest first; absent dimensions are 1.
    pub shape: [u64; 4],
    /// Size of its data (no alignment padding).
    pub bytes: Bytes,
    /// Index into [`Model::files`].
    pub file: usize,
    /// Offset of its data from the start of the file's data section.
    pub offset: Bytes,
}

impl Tensor {
    /// Number of elements; saturates.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &extent| product.saturating_mul(extent))
    }
    /// The layer number in a name `blk.N.…`.
    pub fn layer(&self) -> Option<u32> {
        self.name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
    }
    /// True for the stacked weights of routed experts (`ffn_*_exps`, and the `chexps` of Qwen3-VL-like models).
    pub fn is_expert(&self) -> bool {
        self.name.contains("_exps") || self.name.contains("_chexps")
    }
}

/// One layer: what mixes tokens, then what transforms each.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Mixes information between tokens.
    pub mixer: Mixer,
    /// Transforms each token.
    pub feed_forward: FeedForward,
}

/// What mixes information between tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention with a KV cache.
    Attention(Attention),
    /// Multi-head latent attention: one compressed row per token in the cache, no V.
    Mla(Mla),
    /// Attention over a window and over compressed rows beyond it.
    Compressed(Compressed),
    /// A recurrence with a state of fixed size per sequence.
    Recurrent(Recurrent),
    /// Attention and a recurrence side by side (Falcon-H1).
    Both(Attention, Recurrent),
    /// Neither: a layer with only a feed-forward block (Nemotron-H).
    None,
}

/// Softmax attention of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Query heads.
    pub n_head: u32,
    /// Key/value heads; fewer than `n_head` with grouped-query attention.
    pub n_head_kv: u32,
    /// Width of a key head.
    pub head_dim_k: u32,
    /// Width of a value head.
    pub head_dim_v: u32,
    /// Tokens that a query sees, where the layer slides a window; `None` sees all.
    pub window: Option<u32>,
    /// The layer whose cache this one reads instead of keeping its own (Gemma 3n and 4).
    pub shares_kv_of: Option<u32>,
}

impl Attention {
    /// Elements of one token's K row (`n_embd_k_gqa`).
    pub fn k_width(&self) -> u64 {
        u64::from(self.n_head_kv) * u64::from(self.head_dim_k)
    }
    /// Elements of one token's V row (`n_embd_v_gqa`).
    pub fn v_width(&self) -> u64 {
        u64::from(self.n_head_kv) * u64::from(self.head_dim_v)
    }
}

/// Multi-head latent attention of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mla {
    /// Query heads.
    pub n_head: u32,
    /// Rank of the compressed KV (512 for DeepSeek).
    pub kv_lora_rank: u32,
    /// Width of the rotary part of a key (64 for DeepSeek).
    pub rope_dim: u32,
    /// Rank of the compressed query; 0 where queries are not compressed.
    pub q_lora_rank: u32,
    /// Width of a key head after decompression.
    pub head_dim_k: u32,
    /// Width of a value head after decompression.
    pub head_dim_v: u32,
    /// What chooses the cached tokens that a query attends to; `None` where it attends to all.
    pub indexer: Option<Indexer>,
}

/// The lightning indexer of sparse attention (DeepSeek V3.2, GLM-5): it scores all cached tokens cheaply by keys of its own,
/// and attention proper sees the best of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexer {
    /// Its query heads; it has one key head.
    pub n_head: u32,
    /// Width of its heads.
    pub head_dim: u32,
    /// Tokens, or compressed rows, that a query attends to at most.
    pub top_k: u32,
    /// False where the layer takes over the choice of an earlier layer, and so keeps no keys (GLM-5.2).
    pub own_keys: bool,
}

/// Attention over a window of whole rows and, beyond it, over rows that each stand for several tokens (DeepSeek V4). Keys serve
/// as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// Query heads; there is one key head.
    pub n_head: u32,
    /// Width of a head, and so of a cached row.
    pub head_dim: u32,
    /// Tokens that a query sees as whole rows.
    pub window: u32,
    /// What it sees beyond the window; `None` for nothing.
    pub beyond: Option<Compression>,
}

/// Rows that each stand for several tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Tokens from one row to the next.
    pub ratio: u32,
    /// What chooses the rows that a query attends to, by compressed keys of its own; such rows overlap, each made of twice as
    /// many tokens. `None` where a query attends to all.
    pub indexer: Option<Indexer>,
}

/// A recurrence of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrent {
    /// `mamba`, `mamba2`, `rwkv`, `gated-delta-net`, `short-conv`, ...
    pub kind: String,
    /// Elements per sequence of the convolution or shift state (llama.cpp's `n_embd_r`), stored as F32.
    pub r_elements: u64,
    /// Elements per sequence of the recurrent state (llama.cpp's `n_embd_s`), stored as F32.
    pub s_elements: u64,
}

/// What transforms each token.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// One block for all tokens.
    Dense {
        /// Inner width.
        n_ff: u64,
    },
    /// Routed experts, with or without shared ones.
    Experts(Experts),
    /// None, as in pure Mamba layers.
    None,
}

/// Routed experts of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Experts in the layer.
    pub count: u32,
    /// Experts that each token visits.
    pub used: u32,
    /// Shared experts that every token visits.
    pub shared: u32,
    /// Inner width of one expert.
    pub n_ff: u64,
    /// Inner width of the shared experts together; 0 without any.
    pub n_ff_shared: u64,
}

/// What the tokenizer section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    /// `tokenizer.ggml.model`: `llama`, `gpt2`, `bert`, `none`, ...
    pub model: String,
    /// Entries of the token list; 0 where there is none.
    pub n_tokens: u64,
    /// Entries of the list of merges; 0 where there is none.
    pub n_merges: u64,
    /// True where the file has a chat template.
    pub chat_template: bool,
}

impl Model {
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
    /// Size of all tensor data.
    pub fn tensor_bytes(&self) -> Bytes {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }
    /// Number of parameters; saturates.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements()))
    }
    /// Layers without the trailing next-token-prediction ones (llama.cpp's `n_layer`).
    pub fn n_layer(&self) -> u32 {
        self.n_layer_all().saturating_sub(self.n_layer_nextn)
    }
    /// All layers (llama.cpp's `n_layer_all`); `-ngl` counts these plus one for the output.
    pub fn n_layer_all(&self) -> u32 {
        u32::try_from(self.layers.len()).unwrap_or(u32::MAX)
    }
    /// An unsigned metadata value by full key.
    pub fn uint(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key)? {
            MetaValue::Uint(value) => Some(*value),
            MetaValue::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }
    /// An unsigned metadata value by its key without the architecture prefix.
    pub fn arch_uint(&self, key: &str) -> Option<u64> {
        self.uint(&format!("{}.{key}", self.architecture))
    }
    /// True where the metadata value by this key without the architecture prefix is so.
    pub fn arch_flag(&self, key: &str) -> bool {
        matches!(self.metadata.get(&format!("{}.{key}", self.architecture)), Some(MetaValue::Bool(true)))
    }
    /// True where any layer routes tokens to experts.
    pub fn has_experts(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer.feed_forward, FeedForward::Experts(_)))
    }
    /// True where any layer keeps a recurrent state.
    pub fn has_recurrent_state(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer.mixer, Mixer::Recurrent(_) | Mixer::Both(..)))
    }
}
