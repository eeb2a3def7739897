//! What the host holds beside the engine's buffers: program, vocabulary, graph metadata; and what may grow later.
//!
//! Not derived from source but measured: anonymous memory (`RssAnon`) of the bundled engine's own loads against the sum of
//! its anonymous buffers, on Linux with glibc, for six models at a context of 4096 and micro-batches of 512 (2026-11):
//!
//! | part | measured |
//! |---|---|
//! | program before any model | 1.3 MiB |
//! | vocabulary of SentencePiece, per token | 158 to 171 B |
//! | vocabulary with merges (`gpt2`), per token | 442 to 476 B with long pieces; real ones are shorter |
//! | graph and scheduler after load and first use | 2.6 MiB (4 layers) to 4.7 MiB (26 layers) |
//! | llama-server 0.7.0 over this | 3 to 10 MiB |

use crate::kv_cache::{self, Cells};
use crate::profile::EngineProfile;
use crate::requirement::ResolvedContext;
use crate::state;
use spec::model::{Attention, FeedForward, Mixer};
use spec::{Bytes, Known, Model, Settings};

const PROGRAM: Bytes = Bytes::from_kib(1536);
const TOKEN: Bytes = Bytes::new(160);
/// With merges the engine also keeps a rank per pair of pieces.
const TOKEN_WITH_MERGES: Bytes = Bytes::new(400);
const GRAPH: Bytes = Bytes::from_mib(1);
const GRAPH_PER_LAYER: Bytes = Bytes::from_kib(90);
/// A server's connections, templates and threads; fragmentation of the heap.
const SLACK: Bytes = Bytes::from_mib(16);

/// Anonymous memory of the program itself. Its code and libraries (8 to 15 MiB) are mapped files and not part of this.
///
/// The upper end adds what the CPU's kernels take to convert one micro-batch of activations (about 1.15 bytes per element
/// of the widest row), which the engine's own breakdown leaves out too.
pub fn runtime(model: &Model, context: &ResolvedContext) -> Known<Bytes> {
    let vocabulary = model.tokenizer.as_ref().map_or(Bytes::ZERO, |tokenizer| {
        let token = if tokenizer.model == "gpt2" { TOKEN_WITH_MERGES } else { TOKEN };
        token.times(tokenizer.n_tokens)
    });
    let graph = GRAPH + GRAPH_PER_LAYER.times(u64::from(model.n_layer_all()));
    let value = PROGRAM + vocabulary + graph;
    let conversion = Bytes::new(widest_row(model)).times(u64::from(context.n_ubatch)).scale(1.15);
    Known::estimated(
        value,
        value.scale(0.6),
        value.scale(1.4) + SLACK + conversion,
        "anonymous memory of loads of six models, less their buffers (footprint::host)",
    )
}

/// Elements of the widest activations that a matrix is multiplied with.
fn widest_row(model: &Model) -> u64 {
    let inner = |ff: &FeedForward| match ff {
        FeedForward::Dense { n_ff } => *n_ff,
        FeedForward::Experts(e) => e.n_ff.saturating_mul(u64::from(e.used)).max(e.n_ff_shared),
        FeedForward::None => 0,
    };
    model.layers.iter().map(|layer| inner(&layer.feed_forward)).max().unwrap_or(0).max(model.n_embd)
}

/// Most that the server's prompt cache may grow to.
///
/// Upstream: `--cache-ram`, `common/common.h:588-593`.
pub fn prompt_cache(settings: &Settings, profile: &EngineProfile) -> Known<Bytes> {
    if !profile.prompt_cache {
        return Known::exact(Bytes::ZERO, "this program keeps no prompt cache");
    }
    let cache = Bytes::from_mib(u64::from(settings.cache_ram_mib));
    grown(cache, "limit of --cache-ram (common/common.h:588-593); reached by use")
}

/// Most that the server's context checkpoints may grow to: per slot so many of them, for models with windows or state. Each
/// holds one sequence's state and windowed cache.
///
/// Upstream: `--ctx-checkpoints`, `common/common.h:588-593`; a checkpoint is a partial sequence state,
/// `src/llama-kv-cache-iswa.cpp` and `src/llama-memory-recurrent.cpp`, `state_write`.
pub fn checkpoints(model: &Model, settings: &Settings, profile: &EngineProfile, context: &ResolvedContext) -> Known<Bytes> {
    if !profile.prompt_cache {
        return Known::exact(Bytes::ZERO, "this program keeps no checkpoints");
    }
    let checkpoint = checkpoint(model, settings, context);
    let all = checkpoint.times(u64::from(settings.ctx_checkpoints)).times(u64::from(settings.n_parallel));
    grown(all, "limit of --ctx-checkpoints times the state and windows of a sequence; reached by use")
}

/// One checkpoint: the state of one sequence and its windowed caches.
pub(crate) fn checkpoint(model: &Model, settings: &Settings, context: &ResolvedContext) -> Bytes {
    state::per_sequence(model) + windowed(model, settings, kv_cache::cells(model, settings, context))
}

fn grown(limit: Bytes, source: &'static str) -> Known<Bytes> {
    if limit.is_zero() { Known::exact(limit, source) } else { Known::estimated(limit, Bytes::ZERO, limit, source) }
}

/// Caches of the sliding layers for one sequence.
fn windowed(model: &Model, settings: &Settings, cells: Cells) -> Bytes {
    let row = |a: &Attention| {
        let k = settings.cache_type_k.row_bytes(a.k_width()).unwrap_or(Bytes::ZERO);
        k + settings.cache_type_v.row_bytes(a.v_width()).unwrap_or(Bytes::ZERO)
    };
    let sliding = model.layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::Attention(a) | Mixer::Both(a, _) if a.window.is_some() && a.shares_kv_of.is_none() => Some(row(a)),
        Mixer::Compressed(a) => settings.cache_type_k.row_bytes(u64::from(a.head_dim)),
        _ => None,
    });
    sliding.sum::<Bytes>().times(u64::from(cells.window))
}
