//! Attention proper: queries, keys and values in heads, one output row per token (`build_attn_mha` in llama-graph.cpp).

use super::super::builder::Builder;
use super::super::fusions::Fusion;
use super::super::tensor::{Id, Op};
use spec::QuantType;

/// How scores are formed and used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    pub(super) mask: Id,
    pub(super) sinks: Option<Id>,
    pub(super) soft_cap: bool,
    pub(super) v_transposed: bool,
    /// The matrix that brings latent values back to heads.
    pub(super) decompress: Option<Id>,
}

/// Attention proper, one output row per token (`build_attn_mha`).
pub(super) fn attend(b: &mut Builder<'_>, layer: usize, qkv: [Id; 3], score: Score) -> Id {
    let [q, k, v] = qkv;
    let n_stream = b.graph.ne(k)[3].max(1);
    let (ne, nb) = (b.graph.ne(q), b.graph.tensor(q).nb);
    let tokens = ne[2] / n_stream;
    let q = b.graph.view(q, [ne[0], ne[1], tokens, n_stream], [nb[1], nb[2], nb[2].saturating_mul(tokens)]);
    let [q, k, v] = [q, k, v].map(|id| b.graph.permute(id, [0, 2, 1, 3]));
    let y = if b.options.flash_attn() { fused(b, layer, [q, k, v], score) } else { spelt_out(b, [q, k, v], score) };
    b.graph.expand(y);
    y
}

fn fused(b: &mut Builder<'_>, layer: usize, qkv: [Id; 3], score: Score) -> Id {
    let [q, k, v] = qkv;
    let v = if score.v_transposed { b.graph.transpose(v) } else { v };
    let half = |b: &mut Builder<'_>, id: Id| {
        if b.graph.tensor(id).ty == QuantType::F32 { b.graph.cast(id, QuantType::F16) } else { id }
    };
    let k = half(b, k);
    let v = half(b, v);
    let mut y = b.graph.flash_attention(q, k, v, score.mask, score.sinks);
    b.fused.push((Fusion::Attention, layer, y));
    if let Some(decompress) = score.decompress {
        y = b.graph.permute(y, [0, 2, 1, 3]);
        y = b.graph.mul_mat(decompress, y);
        y = b.graph.permute(y, [0, 2, 1, 3]);
        y = b.graph.cont(y);
    }
    let ne = b.graph.ne(y);
    b.graph.reshape(y, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1])
}

/// Head by head, where scores of all heads would pass a limit and each query head has keys of its own (`-amb` of
/// ik_llama.cpp; `llm_build_kqv`, src/llama.cpp:10198-10290, ddceb0a5).
fn by_head(b: &mut Builder<'_>, [q, k, v]: [Id; 3], score: Score) -> Option<Id> {
    let limit = b.options.rules.ik.map_or(0, |ik| ik.attn_max_batch);
    let (nq, nk, nv) = (b.graph.ne(q), b.graph.ne(k), b.graph.ne(v));
    let size = nk[1].saturating_mul(nq[1]).saturating_mul(nq[2]).saturating_mul(4) >> 20;
    if limit == 0 || u64::from(limit) >= size || nk[2] != nq[2] || nv[2] != nq[2] {
        return None;
    }
    let one = |b: &mut Builder<'_>, id: Id| {
        let (ne, nb) = (b.graph.ne(id), b.graph.tensor(id).nb);
        b.graph.view_3d(id, [ne[0], ne[1], 1], nb[1], nb[2])
    };
    let mut sum = None;
    for _ in 0..nq[2] {
        let [k, q] = [k, q].map(|id| one(b, id));
        let scores = b.graph.mul_mat(k, q);
        let scores = match score.soft_cap {
            true => b.graph.fused(&[scores, score.mask]),
            false => b.graph.like(Op::SoftMax, &[scores, score.mask]),
        };
        let v = one(b, v);
        let y = b.graph.mul_mat(v, scores);
        sum = Some(sum.map_or(y, |sum| b.graph.concat_along(2, sum, y)));
    }
    let y = b.graph.permute(sum?, [0, 2, 1, 3]);
    let ne = b.graph.ne(y);
    Some(b.graph.cont_as(y, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1]))
}

fn spelt_out(b: &mut Builder<'_>, qkv: [Id; 3], score: Score) -> Id {
    let [q, k, v] = qkv;
    if let Some(y) = by_head(b, qkv, score) {
        return y;
    }
    let mut scores = b.graph.mul_mat(k, q);
    let capped_at_once = score.soft_cap && b.options.rules.ik.is_some();
    if capped_at_once {
        scores = b.graph.fused(&[scores, score.mask]);
    } else if score.soft_cap {
        scores = b.graph.scale(scores);
        scores = b.graph.function(scores);
        scores = b.graph.scale(scores);
    }
    scores = match score.sinks {
        _ if capped_at_once => scores,
        Some(sinks) => b.graph.like(Op::SoftMax, &[scores, score.mask, sinks]),
        None => b.graph.like(Op::SoftMax, &[scores, score.mask]),
    };
    let v = if score.v_transposed {
        v
    } else {
        let v = b.graph.transpose(v);
        b.graph.cont(v)
    };
    let mut y = b.graph.mul_mat(v, scores);
    if let Some(decompress) = score.decompress {
        y = b.graph.mul_mat(decompress, y);
    }
    let y = b.graph.permute(y, [0, 2, 1, 3]);
    let ne = b.graph.ne(y);
    let y = b.graph.cont_as(y, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1]);
    if !b.options.kv_offload {
        let host = b.host();
        b.graph.pins.push((y, host));
    }
    y
}
