//! Multi-head latent attention: keys and values share one compressed row (src/models/deepseek2.cpp, minicpm3.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{CacheKind, Id, Memory, Op};
use super::super::weights::{Part, Suffix};
use super::attend::{Score, attend};
use super::attention::{AttentionInputs, Rotation, Style, cached, rotary_factors};
use super::cache::{columns_of, rows_of, store, store_transposed};
use super::indexer::{chosen_cells, mask_of};
use crate::profile::LatentCache;
use spec::QuantType;
use spec::model::{Attention, Mla};

/// Attention with absorbed projections, from the normed stream to the block's output: the cache holds compressed rows.
/// Without rotation (Kimi Linear) or with an indexer, queries are not cut into heads before they are parted.
pub(in super::super) fn latent_attention(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Mla,
    inputs: &AttentionInputs,
    style: Style,
    x: Id,
) -> Result<Id, Missing> {
    let here = Some(layer);
    let (n_tokens, heads) = (b.batch.n_tokens, u64::from(shape.n_head));
    let (rank, rope) = (u64::from(shape.kv_lora_rank), u64::from(shape.rope_dim));
    let (head, nope) = (u64::from(shape.head_dim_k), u64::from(shape.head_dim_k).saturating_sub(rope));
    let rotated = style.rotation != Rotation::Never;
    let narrow = narrow_queries(b, layer, x)?;
    let chosen = match (&shape.indexer, narrow) {
        (Some(indexer), Some(narrow)) => Some(chosen_cells(b, layer, indexer, inputs, [x, narrow])?),
        _ => None,
    };
    let mut q = queries(b, layer, x, narrow)?;
    let (compressed, mut k_rope) = compressed(b, layer, [rank, rope], x)?;
    if rotated {
        if chosen.is_none() {
            q = b.graph.reshape(q, [head, heads, n_tokens, 1]);
        }
        k_rope = turned(b, k_rope, inputs, None);
    }
    let row = head.saturating_mul(4);
    let [q_nope, mut q_rope] = [nope, rope].map(|width| b.graph.view_3d(q, [width, heads, n_tokens], row, row.saturating_mul(heads)));
    if rotated {
        q_rope = turned(b, q_rope, inputs, None);
    }
    let q_nope = b.graph.permute(q_nope, [0, 2, 1, 3]);
    let absorb = b.weight(here, Part::AttnKB)?;
    let absorbed = b.graph.mul_mat(absorb, q_nope);
    let absorbed = b.graph.permute(absorbed, [0, 2, 1, 3]);
    let mut q = b.graph.concat(absorbed, q_rope);
    let v = b.graph.reshape(compressed, [rank, 1, n_tokens, 1]);
    let k = b.graph.concat(v, k_rope);
    if let Some(temperatures) = inputs.temperatures {
        q = b.graph.mul(q, temperatures);
    }

    let decompress = b.weight(here, Part::AttnVB)?;
    let y = over_rows(b, layer, rank, inputs, [q, k, v], decompress, chosen);
    b.linear(here, Part::AttnOutput, y)
}

/// Attention that expands every row to whole heads, which the cache then holds (files without the split projections).
pub(in super::super) fn whole_heads(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Attention,
    inputs: &AttentionInputs,
    style: Style,
    x: Id,
) -> Result<Id, Missing> {
    let here = Some(layer);
    let missing = Missing { layer: here, part: Part::AttnKvB };
    if style.rotation == Rotation::Never {
        return Err(missing);
    }
    let rope = b.model.arch_uint("rope.dimension_count").ok_or(missing.clone())?;
    let rank = b.model.arch_uint("attention.kv_lora_rank").ok_or(missing)?;
    let (n_tokens, heads) = (b.batch.n_tokens, u64::from(shape.n_head));
    let (head, v_head) = (u64::from(shape.head_dim_k), u64::from(shape.head_dim_v));
    let nope = head.saturating_sub(rope);
    let factors = rotary_factors(b, layer);
    let narrow = narrow_queries(b, layer, x)?;
    let q = queries(b, layer, x, narrow)?;
    let q = b.graph.reshape(q, [head, heads, n_tokens, 1]);
    let (compressed, k_rope) = compressed(b, layer, [rank, rope], x)?;
    let k_rope = turned(b, k_rope, inputs, factors);
    let expand = b.weight(here, Part::AttnKvB)?;
    let kv = b.graph.mul_mat(expand, compressed);
    let row = nope.saturating_add(v_head).saturating_mul(4);
    let plane = row.saturating_mul(heads);
    let k_nope = b.graph.view_3d(kv, [nope, heads, n_tokens], row, plane);
    let v = b.graph.view_3d(kv, [v_head, heads, n_tokens], row, plane);
    let v = b.graph.cont(v);
    let mut q = turned(b, q, inputs, factors);
    let k_rope = b.graph.repeat(k_rope, [rope, heads, n_tokens, 1]);
    let k = b.graph.concat(k_nope, k_rope);
    if let Some(temperatures) = inputs.temperatures {
        q = b.graph.mul(q, temperatures);
    }
    let y = cached(b, layer, shape, inputs, style, q, Some([k, v]));
    b.linear(here, Part::AttnOutput, y)
}

/// Compressed queries, where the file compresses them.
pub(super) fn narrow_queries(b: &mut Builder<'_>, layer: usize, x: Id) -> Result<Option<Id>, Missing> {
    let here = Some(layer);
    if b.find(here, Part::AttnQ, Suffix::Weight).is_some() {
        return Ok(None);
    }
    let q = b.linear(here, Part::AttnQA, x)?;
    b.norm(here, Part::AttnQANorm, q, here).map(Some)
}

/// Queries, one row per token.
pub(super) fn queries(b: &mut Builder<'_>, layer: usize, x: Id, narrow: Option<Id>) -> Result<Id, Missing> {
    match narrow {
        Some(narrow) => b.linear(Some(layer), Part::AttnQB, narrow),
        None => b.linear(Some(layer), Part::AttnQ, x),
    }
}

/// The compressed part of keys and values, normed, and the part of the keys that positions turn.
pub(super) fn compressed(b: &mut Builder<'_>, layer: usize, [rank, rope]: [u64; 2], x: Id) -> Result<(Id, Id), Missing> {
    let here = Some(layer);
    let n_tokens = b.batch.n_tokens;
    let both = b.linear(here, Part::AttnKvAMqa, x)?;
    let row = b.graph.tensor(both).nb[1];
    let compressed = b.graph.view_2d(both, rank, n_tokens, row);
    let k_rope = b.graph.view_3d(both, [rope, 1, n_tokens], row, row);
    let compressed = b.norm(here, Part::AttnKvANorm, compressed, here)?;
    Ok((compressed, k_rope))
}

pub(super) fn turned(b: &mut Builder<'_>, x: Id, inputs: &AttentionInputs, factors: Option<Id>) -> Id {
    match factors {
        Some(factors) => b.graph.like(Op::Rope, &[x, inputs.positions, factors]),
        None => b.graph.like(Op::Rope, &[x, inputs.positions]),
    }
}

/// Stores the compressed row and attends over the cache, or over the cells of it that were chosen; values are the first
/// `rank` columns of the keys.
fn over_rows(
    b: &mut Builder<'_>,
    layer: usize,
    rank: u64,
    inputs: &AttentionInputs,
    qkv: [Id; 3],
    decompress: Id,
    chosen: Option<Id>,
) -> Id {
    let [q, k, v] = qkv;
    for id in [q, v, k] {
        b.graph.expand(id);
    }
    let (cells, n_stream, width) = (b.options.cells, b.options.n_stream, b.graph.ne(k)[0]);
    let memory = Memory::Cache { backend: b.cache_backend(layer), kind: CacheKind::Full };
    let cache = b.graph.placed(b.options.type_k, [width, cells, n_stream, 1], memory);
    store(b, cache, k, inputs.full.k_slots());
    let mask = chosen.map_or(inputs.full.mask(), |chosen| mask_of(b, inputs.full.mask(), chosen, QuantType::F32));
    let k = rows_of(b, cache, width, 1, cells);
    let (ne, nb) = (b.graph.ne(k), b.graph.tensor(k).nb);
    let values = b.options.rules.latent == LatentCache::KeysAndValues;
    let v = if values {
        cached_values(b, [rank, cells, n_stream], memory, inputs, v)
    } else {
        b.graph.view(k, [rank, ne[1], ne[2], ne[3]], [nb[1], nb[2], nb[3]])
    };
    let v_transposed = values && b.options.v_transposed;
    let score = Score { mask, sinks: None, soft_cap: false, v_transposed, decompress: Some(decompress) };
    attend(b, layer, [q, k, v], score)
}

/// Stores values of their own and returns them, as engines did that keep both.
fn cached_values(b: &mut Builder<'_>, shape: [u64; 3], memory: Memory, inputs: &AttentionInputs, v: Id) -> Id {
    let [rank, cells, n_stream] = shape;
    let cache = b.graph.placed(b.options.type_v, [rank, cells, n_stream, 1], memory);
    if b.options.v_transposed {
        store_transposed(b, cache, v, inputs.full.v_slots());
        columns_of(b, cache, rank, 1, cells)
    } else {
        store(b, cache, v, inputs.full.v_slots());
        rows_of(b, cache, rank, 1, cells)
    }
}
