//! RWKV's time mixing, of version 6 and 7 (src/models/rwkv6-base.cpp, rwkv7-base.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::{Id, Op};
use super::super::weights::{Part, Suffix};
use super::rwkv::Shape;
use super::state::{self, Recurrence};

/// Time mixing of version 6, of the normed stream and its tokens shifted by one. Without a weight for the first token
/// (QRWKV), decayed keys and linear attention take its place.
pub(super) fn time_mix6(b: &mut Builder<'_>, at: Recurrence<'_>, shape: Shape, [x, before]: [Id; 2]) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    let [mixed_w, mixed_k, mixed_v, mixed_r, mixed_g] = five_blends(b, layer, shape, [x, before])?;
    let r = b.linear_bias(here, Part::TimeMixReceptance, mixed_r)?;
    let mut k = b.linear_bias(here, Part::TimeMixKey, mixed_k)?;
    let mut v = b.linear_bias(here, Part::TimeMixValue, mixed_v)?;
    let g = b.linear(here, Part::TimeMixGate, mixed_g)?;
    let g = b.graph.unary(g);
    let groups = b.graph.ne(k)[0] / shape.dim.max(1);
    if groups != shape.heads {
        [k, v] = [k, v].map(|x| {
            let apart = b.graph.reshape(x, [shape.dim, 1, groups, shape.n_tokens]);
            b.graph.repeat(apart, [shape.dim, shape.heads / groups.max(1), groups, shape.n_tokens])
        });
    }
    [k, v] = [k, v].map(|x| b.graph.reshape(x, shape.by_head()));
    let r = b.graph.reshape(r, shape.by_head());
    let w = product(b, layer, Part::TimeMixDecayW1, mixed_w)?;
    let w = b.graph.function(w);
    let w = product(b, layer, Part::TimeMixDecayW2, w)?;
    let decay = b.weight(here, Part::TimeMixDecay)?;
    let mut w = b.graph.add(w, decay);
    // exp(-exp(w))
    for _ in 0..3 {
        w = b.graph.function(w);
    }
    let w = b.graph.reshape(w, shape.by_head());
    let first = b.find(here, Part::TimeMixFirst, Suffix::Weight);
    if first.is_none() {
        let decayed = b.graph.mul(k, w);
        k = b.graph.sub(k, decayed);
    }
    let states = state::states(b, layer, state.s_elements);
    let gathered = state::gather(b, inputs, states);
    let mut y = match first {
        Some(first) => recurrence(b, shape, states, &[k, v, r, first, w, gathered]),
        None => recurrence(b, shape, states, &[k, v, r, w, gathered]),
    };
    y = if first.is_some() { group_norm(b, layer, shape, y)? } else { b.graph.reshape(y, shape.in_a_row()) };
    y = b.graph.mul(y, g);
    y = b.linear(here, Part::TimeMixOutput, y)?;
    Ok(b.graph.reshape(y, shape.by_sequence()))
}

/// Inputs of decay, key, value, receptance and gate: the stream and shares of its change that depend on the token.
fn five_blends(b: &mut Builder<'_>, layer: usize, shape: Shape, [x, before]: [Id; 2]) -> Result<[Id; 5], Missing> {
    let here = Some(layer);
    let change = b.graph.sub(before, x);
    let [change, x] = [change, x].map(|tensor| b.graph.reshape(tensor, shape.in_a_row()));
    let share = b.weight(here, Part::TimeMixLerpX)?;
    let shares = b.graph.mul(change, share);
    let shares = b.graph.add(shares, x);
    let shares = product(b, layer, Part::TimeMixW1, shares)?;
    let shares = b.graph.function(shares);
    let rank = b.graph.ne(shares)[0] / 5;
    let shares = b.graph.reshape(shares, [rank, 1, 5, shape.n_tokens]);
    let shares = b.graph.permute(shares, [0, 1, 3, 2]);
    let shares = b.graph.cont(shares);
    let matrices = b.weight(here, Part::TimeMixW2)?;
    let [from, to, ..] = b.graph.ne(matrices);
    let matrices = b.graph.reshape(matrices, [from, to, 1, 5]);
    let shares = b.graph.mul_mat(matrices, shares);
    let [change, x] = [change, x].map(|tensor| b.graph.reshape(tensor, [shape.n_embd, 1, shape.n_tokens, 1]));
    let fused = b.weight(here, Part::TimeMixLerpFused)?;
    let shares = b.graph.add(shares, fused);
    let all = b.graph.mul(shares, change);
    let all = b.graph.add(all, x);
    let row = b.graph.tensor(all).nb[1];
    Ok([(); 5].map(|()| b.graph.view_2d(all, shape.n_embd, shape.n_tokens, row)))
}

/// Time mixing of version 7, of the normed stream and its tokens shifted by one. A gate and a norm of the heads where the
/// file has them.
pub(super) fn time_mix7(b: &mut Builder<'_>, at: Recurrence<'_>, shape: Shape, [x, before]: [Id; 2]) -> Result<Id, Missing> {
    let Recurrence { layer, state, inputs } = at;
    let here = Some(layer);
    let change = b.graph.sub(before, x);
    let shares = b.weight(here, Part::TimeMixLerpFused)?;
    let blends = b.graph.ne(shares)[3];
    let [width, per_seq, n_seqs, _] = shape.by_sequence();
    let change = b.graph.repeat(change, [width, per_seq, n_seqs, blends]);
    let all = b.graph.mul(change, shares);
    let all = b.graph.add(all, x);
    let row = b.graph.tensor(all).nb[1];
    let [mixed_r, mixed_w, mixed_k, mixed_v, mixed_a, mixed_g] = [(); 6].map(|()| b.graph.view_2d(all, width, shape.n_tokens, row));

    let r = b.linear(here, Part::TimeMixReceptance, mixed_r)?;
    let w = product(b, layer, Part::TimeMixW1, mixed_w)?;
    let w = b.graph.function(w);
    let w = product(b, layer, Part::TimeMixW2, w)?;
    let bias = b.weight(here, Part::TimeMixW0)?;
    let w = b.graph.add(w, bias);
    let w = b.graph.unary(w);
    let w = b.graph.scale(w);
    let w = b.graph.function(w);
    let k = b.linear(here, Part::TimeMixKey, mixed_k)?;
    let v = b.linear(here, Part::TimeMixValue, mixed_v)?;
    let v = with_first_value(b, layer, v, mixed_v)?;
    let g = if b.find(here, Part::TimeMixG1, Suffix::Weight).is_some() {
        let g = product(b, layer, Part::TimeMixG1, mixed_g)?;
        let g = b.graph.unary(g);
        Some(product(b, layer, Part::TimeMixG2, g)?)
    } else {
        None
    };
    let a = rate(b, layer, [Part::TimeMixA1, Part::TimeMixA2, Part::TimeMixA0], mixed_a)?;

    let scale = b.weight(here, Part::TimeMixKK)?;
    let unit = b.graph.mul(k, scale);
    let unit = b.graph.reshape(unit, shape.by_head());
    let unit = b.graph.like(Op::UnitNorm, &[unit]);
    let scale = b.weight(here, Part::TimeMixKA)?;
    let scaled = b.graph.mul(k, scale);
    let moved = b.graph.mul(a, scaled);
    let moved = b.graph.sub(moved, scaled);
    let k = b.graph.add(k, moved);
    let [r, w, k, v, a] = [r, w, k, v, a].map(|x| b.graph.reshape(x, shape.by_head()));
    let states = state::states(b, layer, state.s_elements);
    let gathered = state::gather(b, inputs, states);
    let removed = b.graph.function(unit);
    let added = b.graph.mul(unit, a);
    let y = recurrence(b, shape, states, &[r, w, k, v, removed, added, gathered]);
    let y = if b.find(here, Part::TimeMixLn, Suffix::Weight).is_some() {
        group_norm(b, layer, shape, y)?
    } else {
        b.graph.reshape(y, shape.in_a_row())
    };
    let mut y = with_bonus(b, layer, shape, y, [k, r, v])?;
    if let Some(g) = g {
        y = b.graph.mul(y, g);
    }
    y = b.linear(here, Part::TimeMixOutput, y)?;
    Ok(b.graph.reshape(y, shape.by_sequence()))
}

/// Values pulled towards those of the first layer.
fn with_first_value(b: &mut Builder<'_>, layer: usize, v: Id, mixed: Id) -> Result<Id, Missing> {
    let Some(first) = b.first_value else {
        b.first_value = Some(v);
        return Ok(v);
    };
    let share = rate(b, layer, [Part::TimeMixV1, Part::TimeMixV2, Part::TimeMixV0], mixed)?;
    let towards = b.graph.sub(first, v);
    let towards = b.graph.mul(towards, share);
    Ok(b.graph.add(v, towards))
}

/// What each token adds for itself.
fn with_bonus(b: &mut Builder<'_>, layer: usize, shape: Shape, y: Id, [k, r, v]: [Id; 3]) -> Result<Id, Missing> {
    let weight = b.weight(Some(layer), Part::TimeMixRK)?;
    let weight = b.graph.reshape(weight, [shape.dim, shape.heads, 1, 1]);
    let bonus = b.graph.mul(k, r);
    let bonus = b.graph.mul(bonus, weight);
    let bonus = b.graph.sum_rows(bonus);
    let bonus = b.graph.mul(v, bonus);
    let bonus = b.graph.reshape(bonus, shape.in_a_row());
    Ok(b.graph.add(y, bonus))
}

/// Two small matrices, a bias and a sigmoid.
fn rate(b: &mut Builder<'_>, layer: usize, [down, up, bias]: [Part; 3], x: Id) -> Result<Id, Missing> {
    let y = product(b, layer, down, x)?;
    let y = product(b, layer, up, y)?;
    let bias = b.weight(Some(layer), bias)?;
    let y = b.graph.add(y, bias);
    Ok(b.graph.unary(y))
}

fn product(b: &mut Builder<'_>, layer: usize, part: Part, x: Id) -> Result<Id, Missing> {
    let matrix = b.weight(Some(layer), part)?;
    Ok(b.graph.mul_mat(matrix, x))
}

/// Outputs of the recurrence, in one row; the new states are kept.
fn recurrence(b: &mut Builder<'_>, shape: Shape, states: Id, operands: &[Id]) -> Id {
    let rows = shape.n_tokens.saturating_add(shape.dim.saturating_mul(shape.n_seqs));
    let all = b.graph.recurrence(Op::Recurrence, [shape.n_embd, rows], operands);
    let y = b.graph.view_1d(all, shape.n_embd.saturating_mul(shape.n_tokens));
    let new = b.graph.view_1d(all, b.graph.ne(states)[0].saturating_mul(shape.n_seqs));
    state::keep(b, states, new);
    y
}

/// Each head normed by itself, then weighted.
fn group_norm(b: &mut Builder<'_>, layer: usize, shape: Shape, y: Id) -> Result<Id, Missing> {
    let here = Some(layer);
    let y = b.graph.reshape(y, shape.by_head());
    let y = b.graph.like(Op::Norm, &[y]);
    let y = b.graph.reshape(y, shape.in_a_row());
    let weight = b.weight(here, Part::TimeMixLn)?;
    let y = b.graph.mul(y, weight);
    let bias = b.find(here, Part::TimeMixLn, Suffix::Bias).ok_or(Missing { layer: here, part: Part::TimeMixLn })?;
    Ok(b.graph.add(y, bias))
}
