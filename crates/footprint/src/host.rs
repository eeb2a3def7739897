//! What the host's buffers may grow by later: the server's prompt cache and its checkpoints.

use crate::kv_cache::{self, Cells};
use crate::profile::EngineProfile;
use crate::requirement::ResolvedContext;
use crate::state;
use spec::model::{Attention, Mixer};
use spec::{Bytes, Known, Model, Settings};

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
