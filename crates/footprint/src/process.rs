//! What the engine's process keeps beside its buffers: the program, the vocabulary, descriptions of graphs and tensors.
//!
//! Sizes of the engine's structures with libstdc++ and glibc on 64-bit systems, as its source declares them; what its heap
//! keeps beside them is measured: anonymous memory (`RssAnon`) of loads of seven models by the bundled engine, less their buffers
//! and what this page computes, was 2 to 4 MiB (2026-11).
//!
//! | part | size |
//! |---|---|
//! | token: entry of `token_to_id`, of `id_to_token`, piece, id (`src/llama-vocab.cpp:1873-1877`, `src/llama-context.cpp:478`) | 64 + 40 + 32 + 4 B and 8 B per bucket |
//! | merge: entry of `bpe_ranks` (`src/llama-vocab.cpp:1884`) | 96 B and 8 B per bucket |
//! | description of a graph (`src/llama-graph.cpp:1377`), two at load, three in use (`src/llama-context.cpp:2461-2466`) | 368 B per node that fits, and its tables |
//! | scheduler (`ggml-backend.cpp:2032-2034`) | 12 B per place of its hash, and 8 B per backend |
//! | tensor of the file, and nodes that use it (`ggml-alloc.c:477-480`) | about 2 KiB |

use crate::profile::BatchKinds;
use crate::requirement::ResolvedContext;
use spec::model::{FeedForward, Tokenizer};
use spec::{Bytes, Known, Model};

/// The program before any model, and what its heap does not give back after loading.
const PROGRAM: Bytes = Bytes::from_kib(2304);
/// Texts of up to 15 bytes are kept in place; the last 8 bytes stand for longer ones and for what the heap keeps.
const TOKEN: u64 = 64 + 40 + 32 + 4 + 8;
const MERGE: u64 = 96;
/// Most that a token takes in tables of kinds other than those above: a node per byte of its text.
const TRIE: u64 = 400;
const PER_TENSOR: Bytes = Bytes::from_kib(2);
const TENSOR: u64 = 368;
/// A server's connections, templates and threads; fragmentation of the heap.
const SLACK: Bytes = Bytes::from_mib(16);

/// Anonymous memory of the process beside the engine's buffers, once loaded; with `n_devices` beside the CPU. Code and libraries
/// (8 to 15 MiB) are mapped files and not part of this.
///
/// The upper end adds what is taken in use ([`in_use`]).
pub fn runtime(model: &Model, context: &ResolvedContext, n_devices: usize) -> Known<Bytes> {
    let (vocabulary, more) = model.tokenizer.as_ref().map_or((Bytes::ZERO, Bytes::ZERO), vocabulary);
    let (description, scheduler) = graph(max_nodes(model, context), n_devices);
    let tensors = PER_TENSOR.times(model.tensors.len() as u64);
    let value = PROGRAM + vocabulary + description + description + scheduler + tensors;
    Known::estimated(
        value,
        value.scale(0.6),
        value.scale(1.4) + SLACK + more + description + conversion(model, context),
        "structures of vocabulary and graphs (footprint::process), and what loads of seven models took beside them",
    )
}

/// What micro-batches of full size write of the host's compute buffer `reserved`, and what they take beside it: a third description
/// of a graph, and what the CPU's kernels convert.
///
/// Inputs for embeddings, and for batches that mix them with tokens, are reserved (`src/llama-graph.cpp`, `build_inp_embd`) and never
/// written where batches are tokens: the system then does not count their pages.
pub fn in_use(model: &Model, context: &ResolvedContext, on_host: bool, reserved: &Known<Bytes>) -> Known<Bytes> {
    let (Some(value), Some(low), Some(high)) = (reserved.get(), reserved.low(), reserved.high()) else { return reserved.clone() };
    let inputs = match context.rules.batches {
        BatchKinds::Tokens => 0,
        BatchKinds::TokensOrEmbeddings => 1,
        BatchKinds::Mixed => 2,
    };
    let row = Bytes::new(model.n_embd).times(4);
    let unused = row.times(context.n_ubatch.min(context.n_ctx).into()).times(inputs);
    let (description, _) = graph(max_nodes(model, context), 0);
    let conversion = if on_host { conversion(model, context) } else { Bytes::ZERO };
    Known::estimated(
        value.saturating_sub(unused) + description + conversion,
        low.saturating_sub(unused + unused),
        *high + description + conversion + conversion,
        "compute buffer without inputs for embeddings, a description of a graph, and activations that kernels convert (footprint::process)",
    )
}

/// What the CPU's kernels take to convert one micro-batch of activations: about 1.15 bytes per element of the widest row. The engine's
/// own breakdown leaves it out.
fn conversion(model: &Model, context: &ResolvedContext) -> Bytes {
    Bytes::new(widest_row(model)).times(u64::from(context.n_ubatch)).scale(1.15)
}

/// Tables of the vocabulary, and most that kinds take which keep a tree of it.
fn vocabulary(tokenizer: &Tokenizer) -> (Bytes, Bytes) {
    let (n_tokens, n_merges) = (tokenizer.n_tokens, tokenizer.n_merges);
    let tokens = Bytes::new(TOKEN).times(n_tokens) + Bytes::new(8).times(buckets(n_tokens));
    let merges = Bytes::new(MERGE).times(n_merges) + Bytes::new(8).times(buckets(n_merges));
    let tree = !matches!(tokenizer.model.as_str(), "llama" | "gpt2" | "bert");
    (tokens + merges, if tree { Bytes::new(TRIE).times(n_tokens) } else { Bytes::ZERO })
}

/// Nodes that the engine makes room for (`src/llama-context.cpp:2398-2428`).
fn max_nodes(model: &Model, context: &ResolvedContext) -> u64 {
    let (n_tensors, n_tokens) = (model.tensors.len() as u64, u64::from(context.n_ubatch.min(context.n_ctx)));
    let (per_token, per_tensor) = match model.architecture.as_str() {
        "kimi-k3" | "glm5-next" => (160, 64),
        "hrm_text" => (80, 64),
        "qwen3next" | "kimi-linear" | "bailingmoe3" | "qwen35" | "qwen35moe" | "clef" | "qwen4exp" | "deepseek4" | "nanbeige"
        | "minimax-01" | "minimax-m3" | "hy_v4" => (40, 32),
        _ => (0, 8),
    };
    let least = if per_token == 0 { 1024 } else { n_tokens * per_token };
    n_tensors.saturating_mul(per_tensor).max(least)
}

/// One description of a graph of so many nodes, and the scheduler's tables for it.
fn graph(nodes: u64, n_devices: usize) -> (Bytes, Bytes) {
    let keys = hash_size(nodes.saturating_mul(2));
    let tables = Bytes::new(16).times(nodes) + Bytes::new(12).times(keys) + Bytes::new(keys / 8);
    let scheduler = Bytes::new(8 + 4).times(hash_size(nodes)) + Bytes::new(8).times(hash_size(nodes)).times(n_devices as u64 + 1);
    (Bytes::new(TENSOR).times(nodes) + tables, scheduler)
}

/// Places of ggml's hash for so many entries: the first prime after a power of two that holds them (`ggml.c:6640-6664`), taken
/// for that power.
fn hash_size(entries: u64) -> u64 {
    entries.checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// Buckets of a libstdc++ table that has grown to so many entries one by one.
fn buckets(entries: u64) -> u64 {
    const GROWTH: &[u64] = &[5087, 10_273, 20_753, 42_043, 85_229, 172_933, 351_061, 712_697, 1_447_153];
    GROWTH.iter().copied().find(|&buckets| buckets >= entries).unwrap_or(entries)
}

/// Elements of the widest activations that a matrix is multiplied with.
fn widest_row(model: &Model) -> u64 {
    let inner = |ff: &FeedForward| match ff {
        FeedForward::Dense { n_ff } => *n_ff,
        FeedForward::Experts(e) => e.n_ff.saturating_mul(u64::from(e.used)).max(e.n_ff_shared),
        FeedForward::None => 0,
    };
    model
        .layers
        .iter()
        .map(|layer| inner(&layer.feed_forward))
        .max()
        .unwrap_or(0)
        .max(model.n_embd)
        .max(model.arch_uint("ssm.inner_size").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_grow_as_the_libraries_do() {
        // 248,320 tokens: 2,808,488 B of buckets in the same trace as below.
        assert_eq!(buckets(248_320) * 8, 2_808_488);
        assert_eq!((buckets(1), buckets(u64::MAX), hash_size(4096), hash_size(4097)), (5087, u64::MAX, 4096, 8192));
    }

    #[test]
    fn a_description_is_what_the_engine_allocates() {
        // Logged by a tracing allocator: qwen3.5-2b with micro-batches of 512.
        let (description, _) = graph(20_480, 0);
        assert!(description.get().abs_diff(8_659_104) < 1024, "{description}");
    }
}
