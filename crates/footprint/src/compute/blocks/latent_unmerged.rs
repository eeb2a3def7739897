//! Latent attention as engines computed it before llama.cpp merged keys and values into one row, and as ik_llama.cpp does
//! (`-mla`): queries and keys are parted into what positions turn and what they do not.
//!
//! Upstream: `build_deepseek2`, src/llama.cpp:15479-15960 of ik_llama.cpp at ddceb0a5; llama.cpp before pull request 12801
//! (2025-04) has the part for whole heads.

use super::super::builder::{Builder, Missing};
use super::super::fusions::Fusion;
use super::super::tensor::{CacheKind, Id, Memory, Op};
use super::super::weights::{Part, Suffix};
use super::attention::{AttentionInputs, Style, cached};
use super::latent::{compressed, narrow_queries, queries, turned};
use crate::kv_cache::latent_type;
use crate::profile::Ik;
use spec::QuantType;
use spec::model::{Attention, Mla};

/// From this many tokens on, attention over compressed rows decompresses them first (`pp_opt`).
const PROMPT: u64 = 128;

/// Extents of one layer.
#[derive(Clone, Copy)]
struct Extents {
    heads: u64,
    rank: u64,
    rope: u64,
    nope: u64,
    v_head: u64,
    tokens: u64,
    cells: u64,
}

/// What one layer attends with.
struct Parts {
    q_nope: Id,
    q_rope: Id,
    k_rope: Id,
    compressed: Id,
}

/// From the normed stream to the block's output.
pub(in super::super) fn unmerged_attention(
    b: &mut Builder<'_>,
    layer: usize,
    shape: &Mla,
    inputs: &AttentionInputs,
    style: Style,
    x: Id,
) -> Result<Id, Missing> {
    let (rank, rope) = (u64::from(shape.kv_lora_rank), u64::from(shape.rope_dim));
    let head = u64::from(shape.head_dim_k);
    let e = Extents {
        heads: u64::from(shape.n_head),
        rank,
        rope,
        nope: head.saturating_sub(rope),
        v_head: u64::from(shape.head_dim_v),
        tokens: b.batch.n_tokens,
        cells: b.options.cells,
    };
    let narrow = narrow_queries(b, layer, x)?;
    let q = queries(b, layer, x, narrow)?;
    let row = head.saturating_mul(4);
    let [q_nope, q_rope] = [e.nope, rope].map(|width| b.graph.view_3d(q, [width, e.heads, e.tokens], row, row.saturating_mul(e.heads)));
    let q_rope = turned(b, q_rope, inputs, None);
    let (compressed, k_rope) = compressed(b, layer, [rank, rope], x)?;
    let k_rope = turned(b, k_rope, inputs, None);
    let parts = Parts { q_nope, q_rope, k_rope, compressed };
    let y = match b.options.rules.ik {
        Some(ik) if ik.mla > 0 => {
            let y = over_rows(b, layer, e, ik, inputs.full.mask(), &parts)?;
            b.graph.expand(y);
            y
        }
        _ => over_heads(b, layer, e, inputs, style, &parts)?,
    };
    b.linear(Some(layer), Part::AttnOutput, y)
}

/// The matrix that decompresses keys and values of all heads; made of the parted ones where the file has only these
/// (src/llama.cpp:7049-7177).
fn decompressing(b: &mut Builder<'_>, layer: usize, e: Extents) -> Result<Id, Missing> {
    if let Some(whole) = b.find(Some(layer), Part::AttnKvB, Suffix::Weight) {
        return Ok(whole);
    }
    let k = b.weight(Some(layer), Part::AttnKB)?;
    let ty = match b.graph.tensor(k).ty {
        ty @ (QuantType::BF16 | QuantType::F16) => ty,
        _ => QuantType::Q8_0,
    };
    b.derived(layer, Part::AttnKB, ty, [e.rank, e.heads.saturating_mul(e.nope.saturating_add(e.v_head)), 1, 1])
}

/// A parted matrix; made of the whole one where the file has only that (src/llama.cpp:6903-7040).
fn parted(b: &mut Builder<'_>, layer: usize, part: Part, ne: [u64; 3]) -> Result<Id, Missing> {
    let ne = [ne[0], ne[1], ne[2], 1];
    if let Some(matrix) = b.find(Some(layer), part, Suffix::Weight) {
        let flat = b.graph.ne(matrix)[2] == 1 && ne[2] > 1;
        return Ok(if flat { b.graph.reshape(matrix, ne) } else { matrix });
    }
    let whole = b.weight(Some(layer), Part::AttnKvB)?;
    let ty = b.graph.tensor(whole).ty;
    let ty = if ty.is_quantized() && part == Part::AttnKB { QuantType::Q8_0 } else { ty };
    b.derived(layer, Part::AttnKvB, ty, ne)
}

/// Attention with decompressed heads, which the cache then holds.
fn over_heads(b: &mut Builder<'_>, layer: usize, e: Extents, inputs: &AttentionInputs, style: Style, parts: &Parts) -> Result<Id, Missing> {
    let expand = decompressing(b, layer, e)?;
    let kv = b.graph.mul_mat(expand, parts.compressed);
    let row = e.nope.saturating_add(e.v_head).saturating_mul(4);
    let plane = row.saturating_mul(e.heads);
    let k_nope = b.graph.view_3d(kv, [e.nope, e.heads, e.tokens], row, plane);
    let v = b.graph.view_3d(kv, [e.v_head, e.heads, e.tokens], row, plane);
    let v = b.graph.cont(v);
    let q = b.graph.concat(parts.q_nope, parts.q_rope);
    let repeated = b.graph.repeat(parts.k_rope, [e.rope, e.heads, e.tokens, 1]);
    let k = b.graph.concat(k_nope, repeated);
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let shape = Attention {
        n_head: narrow(e.heads),
        n_head_kv: narrow(e.heads),
        head_dim_k: narrow(e.nope.saturating_add(e.rope)),
        head_dim_v: narrow(e.v_head),
        window: None,
        shares_kv_of: None,
    };
    Ok(cached(b, layer, &shape, inputs, style, q, Some([k, v])))
}

/// Attention over compressed rows.
fn over_rows(b: &mut Builder<'_>, layer: usize, e: Extents, ik: Ik, mask: Id, parts: &Parts) -> Result<Id, Missing> {
    let fused = b.options.flash_attn();
    let memory = Memory::Cache { backend: b.cache_backend(layer), kind: CacheKind::Full };
    let turned_values = (ik.mla == 1 && !fused).then(|| {
        let cache = b.graph.placed(b.options.type_v, [e.cells, e.rank, 1, 1], memory);
        let column = b.graph.tensor(cache).nb[1];
        let slot = b.graph.view_2d(cache, e.tokens, e.rank, column);
        let turned = b.graph.transpose(parts.compressed);
        let stored = b.graph.copy_into(turned, slot);
        b.graph.expand(stored);
        b.graph.view_2d(cache, e.cells, e.rank, column)
    });
    let k_rope = b.graph.permute(parts.k_rope, [0, 2, 1, 3]);
    let row = b.graph.concat(k_rope, parts.compressed);
    let ty = latent_type([b.options.type_k, b.options.type_v], &b.options.rules, fused);
    let width = e.rank.saturating_add(e.rope);
    let cache = b.graph.placed(ty, [width, e.cells, 1, 1], memory);
    let stride = b.graph.tensor(cache).nb[1];
    let slot = b.graph.view_2d(cache, width, e.tokens, stride);
    let stored = b.graph.copy_into(row, slot);
    b.graph.expand(stored);
    let rows = b.graph.view_2d(cache, width, e.cells, stride);
    if ik.mla > 1 && fused && e.tokens >= PROMPT {
        return prompt(b, layer, e, ik, mask, parts, cache);
    }
    let absorb = parted(b, layer, Part::AttnKB, [e.nope, e.rank, e.heads])?;
    let q_nope = b.graph.permute(parts.q_nope, [0, 2, 1, 3]);
    let absorbed = b.graph.mul_mat(absorb, q_nope);
    let q_rope = b.graph.permute(parts.q_rope, [0, 2, 1, 3]);
    let q = b.graph.concat(q_rope, absorbed);
    let latent = if fused && ik.mla != 2 {
        let values = b.graph.view_2d(cache, e.rank, e.cells, stride);
        let y = b.graph.flash_attention(q, rows, values, mask, None);
        b.fused.push((Fusion::Attention, layer, y));
        b.graph.permute(y, [0, 2, 1, 3])
    } else {
        let values = match turned_values {
            Some(values) => values,
            None => {
                let values = b.graph.view_2d(cache, e.rank, e.cells, stride);
                let turned = b.graph.transpose(values);
                b.graph.cont(turned)
            }
        };
        spelt_out(b, ik, mask, [q, rows, values])
    };
    let decompress = parted(b, layer, Part::AttnVB, [e.rank, e.v_head, e.heads])?;
    let y = b.graph.mul_mat(decompress, latent);
    let y = b.graph.permute(y, [0, 2, 1, 3]);
    let y = b.graph.cont(y);
    let width = e.v_head.saturating_mul(e.heads);
    Ok(b.graph.view_2d(y, width, e.tokens, width.saturating_mul(4)))
}

/// Attention of a prompt: rows are decompressed for as many heads at once as the limit allows.
fn prompt(b: &mut Builder<'_>, layer: usize, e: Extents, ik: Ik, mask: Id, parts: &Parts, cache: Id) -> Result<Id, Missing> {
    let stride = b.graph.tensor(cache).nb[1];
    let rows = b.graph.view_2d(cache, e.rank, e.cells, stride);
    let whole = decompressing(b, layer, e)?;
    let per_head = e.nope.saturating_add(e.v_head);
    let heads = heads_at_once(e, per_head, ik);
    // Caches that are quantised are attended to as F16 wherever a GPU takes part.
    let ty = if b.options.backends == 1 { b.graph.tensor(cache).ty } else { QuantType::F16 };
    let mut k_rope = b.graph.view_3d(cache, [e.rope, e.cells, 1], stride, stride.saturating_mul(e.cells));
    if b.graph.tensor(cache).ty != ty {
        k_rope = b.graph.cast(k_rope, QuantType::F16);
    }
    let k_rope = b.graph.repeat(k_rope, [e.rope, e.cells, heads, 1]);
    let q = b.graph.concat(parts.q_rope, parts.q_nope);
    let q = b.graph.permute(q, [0, 2, 1, 3]);
    b.graph.expand(q);
    let matrix_row = b.graph.tensor(whole).nb[1];
    let mut sum: Option<Id> = None;
    for _ in 0..e.heads / heads.max(1) {
        let matrix = b.graph.view_2d(whole, e.rank, per_head.saturating_mul(heads), matrix_row);
        let kv = b.graph.mul_mat(matrix, rows);
        let (row, head) = (heads.saturating_mul(per_head).saturating_mul(4), per_head.saturating_mul(4));
        let v = b.graph.view_3d(kv, [e.v_head, e.cells, heads], row, head);
        let k = b.graph.view_3d(kv, [e.nope, e.cells, heads], row, head);
        let v = b.graph.cast(v, ty);
        let k = b.graph.cast(k, ty);
        b.graph.expand(k);
        b.graph.expand(v);
        let k = b.graph.concat(k_rope, k);
        b.graph.expand(k);
        let (ne, nb) = (b.graph.ne(q), b.graph.tensor(q).nb);
        let q = b.graph.view_3d(q, [ne[0], ne[1], heads], nb[1], nb[2]);
        let y = b.graph.flash_attention(q, k, v, mask, None);
        b.fused.push((Fusion::Attention, layer, y));
        let y = b.graph.reshape(y, [e.v_head.saturating_mul(heads), e.tokens, 1, 1]);
        sum = Some(sum.map_or(y, |sum| b.graph.concat(sum, y)));
    }
    sum.ok_or(Missing { layer: Some(layer), part: Part::AttnKvB })
}

/// Heads whose decompressed rows stay below `-amb` MiB, halved while they are even.
fn heads_at_once(e: Extents, per_head: u64, ik: Ik) -> u64 {
    let limit = u64::from(ik.attn_max_batch);
    let mut heads = e.heads;
    let mut size = per_head.saturating_mul(e.heads).saturating_mul(e.cells).saturating_mul(4) >> 20;
    while limit > 0 && size > limit && heads > 0 && heads.is_multiple_of(2) {
        heads /= 2;
        size /= 2;
    }
    heads
}

/// Scores, their softmax, and values, all heads at once or in steps that stay below `-amb` MiB.
fn spelt_out(b: &mut Builder<'_>, ik: Ik, mask: Id, [mut q, rows, values]: [Id; 3]) -> Id {
    let [_, tokens, heads, _] = b.graph.ne(q);
    let (cells, limit) = (b.graph.ne(rows)[1], u64::from(ik.attn_max_batch));
    let size = cells.saturating_mul(tokens).saturating_mul(heads).saturating_mul(4) >> 20;
    if limit == 0 || limit >= size {
        let few = tokens < PROMPT;
        let turn = |b: &mut Builder<'_>, id: Id| if few { b.graph.permute(id, [0, 2, 1, 3]) } else { id };
        q = turn(b, q);
        let mut scores = b.graph.mul_mat(rows, q);
        scores = turn(b, scores);
        if few {
            scores = b.graph.cont(scores);
        }
        scores = b.graph.like(Op::SoftMax, &[scores, mask]);
        scores = turn(b, scores);
        let y = b.graph.mul_mat(values, scores);
        return turn(b, y);
    }
    let steps = size.div_ceil(limit).min(heads).max(1);
    let per_step = heads.div_ceil(steps).max(1);
    let (ne, nb) = (b.graph.ne(q), b.graph.tensor(q).nb);
    let mut sum: Option<Id> = None;
    let mut first = 0;
    while first < heads {
        let these = per_step.min(heads - first);
        let part = b.graph.view_3d(q, [ne[0], ne[1], these], nb[1], nb[2]);
        let scores = b.graph.mul_mat(rows, part);
        let scores = b.graph.like(Op::SoftMax, &[scores, mask]);
        let y = b.graph.mul_mat(values, scores);
        let all = sum.map_or(y, |sum| b.graph.concat_along(2, sum, y));
        b.graph.expand(all);
        sum = Some(all);
        first += these;
    }
    sum.unwrap_or(q)
}
