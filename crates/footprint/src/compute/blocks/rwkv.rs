//! RWKV's layers: time mixing and channel mixing over shifted tokens (src/models/rwkv6-base.cpp, rwkv7-base.cpp, rwkv6.cpp,
//! rwkv7.cpp), and Qwen's feed-forward block after time mixing (rwkv6qwen2.cpp, arwkv7.cpp).

use super::super::builder::{Builder, Missing};
use super::super::tensor::Id;
use super::super::weights::{Part, Suffix};
use super::feed_forward::{Activation, Matrices, feed_forward};
use super::recurrent::RecurrentInputs;
use super::rwkv_time::{time_mix6, time_mix7};
use super::state::{self, Recurrence};
use spec::model::Recurrent;

/// Extents of one layer.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) n_embd: u64,
    pub(super) n_tokens: u64,
    pub(super) n_seqs: u64,
    /// Tokens of each sequence.
    pub(super) per_seq: u64,
    /// Width of a head.
    pub(super) dim: u64,
    pub(super) heads: u64,
}

impl Shape {
    pub(super) const fn by_sequence(self) -> [u64; 4] {
        [self.n_embd, self.per_seq, self.n_seqs, 1]
    }
    pub(super) const fn in_a_row(self) -> [u64; 4] {
        [self.n_embd, self.n_tokens, 1, 1]
    }
    pub(super) const fn by_head(self) -> [u64; 4] {
        [self.dim, self.heads, self.n_tokens, 1]
    }
}

/// One layer, from stream to stream. `outputs` are the rows to keep, in the last layer.
pub(in super::super) fn rwkv(
    b: &mut Builder<'_>,
    layer: usize,
    state: &Recurrent,
    inputs: &RecurrentInputs,
    x: Id,
    outputs: Option<Id>,
) -> Result<Id, Missing> {
    let (here, inputs) = (Some(layer), &inputs.state);
    let at = Recurrence { layer, state, inputs };
    let n_embd = b.graph.ne(x)[0];
    let (n_tokens, n_seqs) = (b.batch.n_tokens, b.batch.n_seqs);
    let dim = state.s_elements / n_embd.max(1);
    let shape = Shape { n_embd, n_tokens, n_seqs, per_seq: b.batch.per_seq(), dim, heads: n_embd / dim.max(1) };
    let x = b.graph.reshape(x, shape.by_sequence());

    let shifts = state.r_elements / n_embd.max(1);
    let states = state::states(b, layer, state.r_elements);
    let shifted = state::gather(b, inputs, states);
    let shifted = b.graph.reshape(shifted, [n_embd, shifts, n_seqs, 1]);
    let normed = b.norm(here, Part::AttnNorm, x, here)?;
    let last = if shifts == 1 { shifted } else { one_token(b, shifted) };
    let previous = previous(b, shape, last, normed);
    let second = b.find(here, Part::TimeMixLerpX, Suffix::Weight).is_some();
    let y = if second { time_mix6(b, at, shape, [normed, previous])? } else { time_mix7(b, at, shape, [normed, previous])? };
    if shifts == 1 {
        let last = one_token(b, normed);
        store(b, shape, states, last);
        let x = b.graph.add(y, x);
        let x = b.graph.reshape(x, shape.in_a_row());
        let x = kept(b, x, outputs);
        let normed = b.norm(here, Part::FfnNorm, x, here)?;
        let y = feed_forward(b, layer, Matrices::DENSE, Activation::Once, normed)?;
        return Ok(b.graph.add(y, x));
    }
    let x = b.graph.add(y, x);
    let last = one_token(b, shifted);
    let block = [x, last, normed];
    let y = channel_mix(b, layer, shape, states, block, outputs)?;
    let rescaled = b.model.arch_uint("rescale_every_n_layers").filter(|&every| every > 0 && second);
    Ok(match rescaled {
        Some(every) if (layer as u64 + 1).is_multiple_of(every) => b.graph.scale(y),
        _ => y,
    })
}

/// Channel mixing of the stream `x`, whose last token before the batch is `last`; `time` is what time mixing read.
fn channel_mix(b: &mut Builder<'_>, layer: usize, shape: Shape, states: Id, block: [Id; 3], outputs: Option<Id>) -> Result<Id, Missing> {
    let here = Some(layer);
    let [x, last, time] = block;
    let normed = b.norm(here, Part::AttnNorm2, x, here)?;
    let before = previous(b, shape, last, normed);
    let ends = [time, normed].map(|normed| one_token(b, normed));
    let ends = b.graph.concat_along(1, ends[0], ends[1]);
    store(b, shape, states, ends);
    let [x, normed, before] = [x, normed, before].map(|tensor| {
        let rows = b.graph.reshape(tensor, shape.in_a_row());
        kept(b, rows, outputs)
    });
    let change = b.graph.sub(before, normed);
    let key = blended(b, layer, Part::ChannelMixLerpK, change, normed)?;
    let receptance = if b.find(here, Part::ChannelMixReceptance, Suffix::Weight).is_some() {
        let mixed = blended(b, layer, Part::ChannelMixLerpR, change, normed)?;
        let receptance = b.linear(here, Part::ChannelMixReceptance, mixed)?;
        Some(b.graph.unary(receptance))
    } else {
        None
    };
    let key = b.linear(here, Part::ChannelMixKey, key)?;
    let key = b.graph.function(key);
    let key = b.graph.square(key);
    let value = b.linear(here, Part::ChannelMixValue, key)?;
    let y = match receptance {
        Some(receptance) => b.graph.mul(receptance, value),
        None => value,
    };
    Ok(b.graph.add(y, x))
}

/// `normed` and a share of its change since the token before.
fn blended(b: &mut Builder<'_>, layer: usize, share: Part, change: Id, normed: Id) -> Result<Id, Missing> {
    let share = b.weight(Some(layer), share)?;
    let change = b.graph.mul(change, share);
    Ok(b.graph.add(change, normed))
}

fn kept(b: &mut Builder<'_>, x: Id, outputs: Option<Id>) -> Id {
    match outputs {
        Some(outputs) => b.graph.get_rows(x, outputs),
        None => x,
    }
}

/// One token of each sequence.
fn one_token(b: &mut Builder<'_>, x: Id) -> Id {
    let ([width, _, n_seqs, _], nb) = (b.graph.ne(x), b.graph.tensor(x).nb);
    b.graph.view_3d(x, [width, 1, n_seqs], nb[1], nb[2])
}

/// For each token the one before it, the first being the last of the batch before.
fn previous(b: &mut Builder<'_>, shape: Shape, last: Id, normed: Id) -> Id {
    let nb = b.graph.tensor(normed).nb;
    let others = b.graph.view_3d(normed, [shape.n_embd, shape.per_seq.saturating_sub(1), shape.n_seqs], nb[1], nb[2]);
    b.graph.concat_along(1, last, others)
}

/// Keeps the last tokens for the next batch.
fn store(b: &mut Builder<'_>, shape: Shape, states: Id, last: Id) {
    let n = b.graph.ne(states)[0].saturating_mul(shape.n_seqs);
    let last = b.graph.view_1d(last, n);
    state::keep(b, states, last);
}
